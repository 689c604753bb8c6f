//! rust-genai takes a base URL: its requests go through a `LocalProxy`.

use futures_util::TryStreamExt;
use rust_genai::Client;
use rust_genai::types::content::Content;
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
    let gemini = Client::builder().api_key("key").base_url(proxy.base_url()).build()?.models();

    let whole = gemini.generate_content(MODEL, vec![Content::text("Hello")]).await?;
    let asked = vec![Content::text("Hello again")];
    let mut stream = gemini.generate_content_stream(MODEL, asked, Default::default()).await?;
    let mut streamed = String::new();
    while let Some(part) = stream.try_next().await? {
        streamed += &part.text().unwrap_or_default();
    }
    assert_absorbed(&sim, &whole.text().unwrap_or_default(), &streamed);
    Ok(())
}
