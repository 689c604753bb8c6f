//! A proxy of axum: what the stack cannot get is answered in Google's own form.

use axum::{Router, body::Body};
use http::{Request, Uri, header::HOST};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::ServiceBuilder;
use tower_gemini::BoxError;
use tower_gemini::respond::RespondLayer;
use tower_gemini::retry::ReplayLayer;
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::stack::Preset;

fn proxy(upstream: Uri) -> Router {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let gemini = ServiceBuilder::new()
        // A server's requests have a path only and name the proxy as their host: they are told where to go.
        .map_request(move |mut request: Request<Body>| {
            let mut uri = std::mem::take(request.uri_mut()).into_parts();
            (uri.scheme, uri.authority) = (upstream.scheme().cloned(), upstream.authority().cloned());
            *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
            request.headers_mut().remove(HOST);
            request
        })
        .layer(RespondLayer::new())
        // An incoming body is not `Clone`: the replay layer keeps what it streams through.
        .service(Preset::gateway().stack().replay(ReplayLayer::new()).service(client));
    Router::new().fallback_service(gemini)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let sim = Simulator::builder().rule(Rule::new(Fault::overloaded()).on_call(1)).build()?;
    let upstream = sim.serve().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url =
        format!("http://{}/v1beta/models/gemini-3.5-flash-lite:generateContent", listener.local_addr()?);
    tokio::spawn(axum::serve(listener, proxy(upstream.base_url().parse()?)).into_future());

    let response = reqwest::Client::builder().no_proxy().build()?.post(url).body("{}").send().await?;
    assert_eq!((response.status().as_u16(), sim.call_count()), (200, 2));
    Ok(())
}
