//! gemini-rust takes a base URL: its requests go through a `LocalProxy`.
#![allow(deprecated)] // It prefers interactions; the others are what most programs have.

use futures_util::TryStreamExt;
use gemini_rust::{Gemini, Model};
use tower_gemini::BoxError;
use tower_gemini::proxy::LocalProxy;
use tower_gemini::reqwest::ReqwestService;
use tower_gemini::stack::GeminiStack;
use tower_gemini_integrations::{MODEL, assert_absorbed, bad_day};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (sim, server) = bad_day().await?;

    let stack = GeminiStack::new().service(ReqwestService::new(reqwest::Client::new()));
    let proxy = LocalProxy::serve(stack, &server.base_url()).await?;
    let base = format!("{}/v1beta/", proxy.base_url()).parse()?;
    let gemini = Gemini::with_model_and_base_url("key", Model::Custom(format!("models/{MODEL}")), base)?;

    let whole = gemini.generate_content().with_user_message("Hello").execute().await?.text();
    let mut stream = gemini.generate_content().with_user_message("Hello again").execute_stream().await?;
    let mut streamed = String::new();
    while let Some(part) = stream.try_next().await? {
        streamed += &part.text();
    }
    assert_absorbed(&sim, &whole, &streamed);
    Ok(())
}
