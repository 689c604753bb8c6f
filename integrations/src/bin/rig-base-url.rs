//! rig with its own client, by base URL: its requests go through a `LocalProxy`.

use futures_util::StreamExt;
use rig_core::providers::gemini::GeminiConfig;
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
    let model = GeminiConfig::new("key").with_base_url(proxy.base_url()).client().completion(MODEL);

    let whole = model.call("Hello").await?.text();
    let mut stream = model.stream("Hello again")?;
    while let Some(item) = stream.next().await {
        item?;
    }
    assert_absorbed(&sim, &whole, &stream.finish().await?.text());
    Ok(())
}
