//! llm's Google backend takes no address. Its OpenAI-compatible backends take one: their requests go to that surface of
//! Gemini's, through a `LocalProxy`.

use futures_util::TryStreamExt;
use llm::builder::{LLMBackend, LLMBuilder};
use llm::chat::ChatMessage;
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
    let base = format!("{}/v1beta/openai/", proxy.base_url());
    let client = LLMBuilder::new().backend(LLMBackend::Mistral).base_url(base).api_key("key").model(MODEL).build()?;

    let ask = |text: &str| [ChatMessage::user().content(text).build()];
    let whole = client.chat(&ask("Hello")).await?.text().unwrap_or_default();
    let streamed: String = client.chat_stream(&ask("Hello again")).await?.try_collect().await?;
    assert_absorbed(&sim, &whole, &streamed);
    Ok(())
}
