//! reqwest-middleware: the stack is the last middleware, which sends.

use reqwest_middleware::ClientBuilder;
use reqwest_middleware::reqwest::Client;
use tower_gemini::BoxError;
use tower_gemini::reqwest::ReqwestService;
use tower_gemini::stack::GeminiStack;
use tower_gemini_adapters::reqwest_middleware::Terminal;
use tower_gemini_integrations::{MODEL, assert_absorbed, bad_day, prompt, text_of, text_of_events};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (sim, server) = bad_day().await?;

    let stack = GeminiStack::new().service(ReqwestService::new(Client::new()));
    let client = ClientBuilder::new(Client::new()).with(Terminal::new(stack)).build();

    let ask = |method: &str, text: &str| {
        let url = format!("{}/v1beta/models/{MODEL}:{method}", server.base_url());
        client.post(url).header("content-type", "application/json").body(prompt(text))
    };
    let whole = text_of(&ask("generateContent", "Hello").send().await?.bytes().await?)?;
    let events = ask("streamGenerateContent?alt=sse", "Hello again").send().await?.text().await?;
    assert_absorbed(&sim, &whole, &text_of_events(&events)?);
    Ok(())
}
