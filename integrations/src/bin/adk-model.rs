//! adk-model, the models of adk-rust, takes a base URL: its requests go through a `LocalProxy`.

use adk_core::{Content, Llm, LlmRequest};
use adk_model::GeminiModel;
use futures_util::TryStreamExt;
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
    let gemini = GeminiModel::new_with_base_url("key", MODEL, format!("{}/v1beta/", proxy.base_url()))?;

    let whole = text(&gemini, "Hello", false).await?;
    let streamed = text(&gemini, "Hello again", true).await?;
    assert_absorbed(&sim, &whole, &streamed);
    Ok(())
}

async fn text(gemini: &GeminiModel, prompt: &str, streams: bool) -> Result<String, BoxError> {
    let request = LlmRequest::new(MODEL, vec![Content::new("user").with_text(prompt)]);
    let mut answer = gemini.generate_content(request, streams).await?;
    let mut text = String::new();
    while let Some(piece) = answer.try_next().await? {
        let parts = piece.content.map(|content| content.parts).unwrap_or_default();
        text.extend(parts.iter().filter_map(|part| part.text()));
    }
    Ok(text)
}
