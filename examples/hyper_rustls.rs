//! hyper-util's client with rustls under the stack. Here it asks a simulator, over plain HTTP.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::ServiceExt;
use tower_gemini::BoxError;
use tower_gemini::retry::Attempts;
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::stack::GeminiStack;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let server =
        Simulator::builder().rule(Rule::new(Fault::overloaded()).on_call(1)).build()?.serve().await?;

    let connector =
        HttpsConnectorBuilder::new().with_platform_verifier().https_or_http().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let gemini = GeminiStack::new().service(client);

    // At Google's: https://generativelanguage.googleapis.com
    let uri = format!("{}/v1beta/models/gemini-3.5-flash-lite:generateContent", server.base_url());
    let prompt = r#"{"contents":[{"parts":[{"text":"Why is the sky blue?"}]}]}"#;
    let request = Request::post(uri).header("content-type", "application/json").body(Full::from(prompt))?;
    let response = gemini.oneshot(request).await?;

    assert_eq!((response.status().as_u16(), Attempts::of(&response).made()), (200, 2));
    let answer = response.into_body().collect().await?.to_bytes();
    assert!(String::from_utf8_lossy(&answer).contains("Echo: Why is the sky blue?"));
    Ok(())
}
