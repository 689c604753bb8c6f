//! rig takes an HTTP client of one's own: the stack is that.

use futures_util::StreamExt;
use rig_core::providers::gemini::GeminiConfig;
use tower_gemini::BoxError;
use tower_gemini::reqwest::ReqwestService;
use tower_gemini::stack::GeminiStack;
use tower_gemini_adapters::rig::StackClient;
use tower_gemini_integrations::{MODEL, assert_absorbed, bad_day};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (sim, server) = bad_day().await?;

    let stack = GeminiStack::new().service(ReqwestService::new(reqwest::Client::new()));
    let config = GeminiConfig::new("key").with_base_url(server.base_url());
    let model = config.connect(StackClient::new(stack)).completion(MODEL);

    let whole = model.call("Hello").await?.text();
    let mut stream = model.stream("Hello again")?;
    while let Some(item) = stream.next().await {
        item?;
    }
    assert_absorbed(&sim, &whole, &stream.finish().await?.text());
    Ok(())
}
