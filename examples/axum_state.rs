//! An axum handler that asks Gemini, with the stack in its state: the type to name is `GeminiService`.

use axum::{Router, extract::State, routing::post};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tower::{Service, ServiceExt};
use tower_gemini::stack::{GeminiService, GeminiStack};
use tower_gemini::{BoxError, sim::Simulator};

#[derive(Clone)]
struct App {
    gemini: GeminiService<Client<HttpConnector, Full<Bytes>>, Full<Bytes>>,
    url: String,
}

async fn ask(State(mut app): State<App>, question: String) -> Result<Bytes, (StatusCode, String)> {
    let told = |error: BoxError| (StatusCode::BAD_GATEWAY, error.to_string());
    let prompt = serde_json::json!({ "contents": [{ "parts": [{ "text": question }] }] }).to_string();
    let request = Request::post(&app.url).body(Full::from(prompt)).map_err(|e| told(e.into()))?;
    let response = app.gemini.ready().await.map_err(told)?.call(request).await.map_err(told)?;
    Ok(response.into_body().collect().await.map_err(told)?.to_bytes())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server = Simulator::new().serve().await?;
    let url = format!("{}/v1beta/models/gemini-3.5-flash-lite:generateContent", server.base_url());
    let gemini = GeminiStack::new().service(Client::builder(TokioExecutor::new()).build_http());
    let router = Router::new().route("/ask", post(ask)).with_state(App { gemini, url });

    let response = router.oneshot(Request::post("/ask").body("Why is the sky blue?".to_owned())?).await?;
    assert_eq!(response.status(), 200);
    let answer = response.into_body().collect().await?.to_bytes();
    assert!(String::from_utf8_lossy(&answer).contains("Echo: Why is the sky blue?"));
    Ok(())
}
