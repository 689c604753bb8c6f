//! A program on reqwest 0.13: one line is added, one changes. JSON, streams of bytes with eventsource-stream, and forms are as before.

use eventsource_stream::Eventsource;
use futures_util::TryStreamExt;
use reqwest::Client;
use reqwest::multipart::{Form, Part};
use tower_gemini::BoxError;
use tower_gemini::reqwest::{ReqwestClient, ReqwestService};
use tower_gemini::stack::GeminiStack;
use tower_gemini_integrations::{MODEL, assert_absorbed, bad_day, prompt, text_of};

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
    let response = gemini.send(ask("streamGenerateContent?alt=sse", "Hello again")).await?;
    let mut events = response.bytes_stream().eventsource();
    let mut streamed = String::new();
    while let Some(event) = events.try_next().await? {
        streamed += &text_of(event.data.as_bytes())?;
    }
    assert_absorbed(&sim, &whole, &streamed);

    // A form streams: it is kept for a further attempt. The simulator has no files, and says so.
    let form = Form::new().part("file", Part::bytes(&b"hello"[..]).file_name("hello.txt"));
    let upload = http.post(format!("{}/upload/v1beta/files", server.base_url())).multipart(form);
    assert!(gemini.send(upload).await?.status().is_client_error());
    Ok(())
}
