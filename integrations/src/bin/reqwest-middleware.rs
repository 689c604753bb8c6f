//! reqwest-middleware: the stack is the last middleware, which sends.

use reqwest_middleware::reqwest::{Client, Request, Response};
use reqwest_middleware::{ClientBuilder, Error, Middleware, Next};
use serde_json::{Value, json};
use tower_gemini::BoxError;
use tower_gemini::reqwest::{ReqwestClient, ReqwestService};
use tower_gemini::stack::{GeminiService, GeminiStack};
use tower_gemini::retry::ReplayBody;
use tower_gemini_integrations::{MODEL, assert_absorbed, bad_day};

type Stack = ReqwestClient<GeminiService<ReqwestService, ReplayBody<reqwest::Body>>>;
struct Terminal(Stack);

#[async_trait::async_trait]
impl Middleware for Terminal {
    async fn handle(&self, request: Request, _: &mut http::Extensions, _: Next<'_>) -> Result<Response, Error> {
        self.0.execute(request).await.map_err(|error| Error::Middleware(anyhow::Error::from_boxed(error)))
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let (sim, server) = bad_day().await?;
    let stack = ReqwestClient::new(GeminiStack::new().service(ReqwestService::new(Client::new())));
    let client = ClientBuilder::new(Client::new()).with(Terminal(stack)).build();

    let ask = |method: &str, text: &str| {
        let url = format!("{}/v1beta/models/{MODEL}:{method}", server.base_url());
        let prompt = json!({ "contents": [{ "parts": [{ "text": text }] }] }).to_string();
        client.post(url).header("content-type", "application/json").body(prompt)
    };
    let text = |answer: &Value| answer["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap_or_default().to_owned();
    let whole = serde_json::from_slice(&ask("generateContent", "Hello").send().await?.bytes().await?)?;
    let events = ask("streamGenerateContent?alt=sse", "Hello again").send().await?.text().await?;
    let events = events.lines().filter_map(|line| line.strip_prefix("data: "));
    let streamed = events.map(|event| Ok(text(&serde_json::from_str(event)?))).collect::<Result<String, BoxError>>()?;
    assert_absorbed(&sim, &text(&whole), &streamed);
    Ok(())
}
