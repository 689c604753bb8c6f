//! A program on reqwest 0.12: one line is added, one changes.

use reqwest_012::Client;
use tower_gemini::BoxError;
use tower_gemini::reqwest_012::{ReqwestClient, ReqwestService};
use tower_gemini::stack::GeminiStack;
use tower_gemini_integrations::{MODEL, assert_absorbed, bad_day, prompt, text_of, text_of_events};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (sim, server) = bad_day().await?;

    let http = Client::new();
    let gemini = ReqwestClient::new(GeminiStack::new().service(ReqwestService::new(http.clone())));

    let ask = |method: &str, text: &str| {
        let url = format!("{}/v1beta/models/{MODEL}:{method}", server.base_url());
        http.post(url).header("content-type", "application/json").body(prompt(text))
    };
    let whole = text_of(&gemini.send(ask("generateContent", "Hello")).await?.bytes().await?)?;
    let events = gemini.send(ask("streamGenerateContent?alt=sse", "Hello again")).await?.text().await?;
    assert_absorbed(&sim, &whole, &text_of_events(&events)?);
    Ok(())
}
