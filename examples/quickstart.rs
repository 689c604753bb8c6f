//! The place to start: a question to Gemini, asked through all layers, to copy into a program of your own.
//!
//! ```text
//! cargo run --example quickstart --features reqwest,sim
//! ```
//!
//! With `GEMINI_API_KEY` set it asks Google. Without, a simulator on this machine that is overloaded at first.

use tower_gemini::reqwest::{ReqwestClient, ReqwestService};
use tower_gemini::retry::Attempts;
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::stack::GeminiStack;
use tower_gemini::{BoxError, Verdict};

const GOOGLE: &str = "https://generativelanguage.googleapis.com";
const MODEL: &str = "gemini-3.5-flash-lite";

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Only for the try without a key: leave it out of your own program.
    let simulator = Simulator::builder().rule(Rule::new(Fault::overloaded()).times(2)).build()?;
    let server = simulator.serve().await?;
    let (host, key) = match std::env::var("GEMINI_API_KEY") {
        Ok(key) => (GOOGLE.to_owned(), key),
        Err(_) => (server.base_url(), "a-key".to_owned()),
    };

    // The client you have, and the one line that is added. Make both once, and clone them for each task.
    let http = reqwest::Client::new();
    let gemini = ReqwestClient::new(GeminiStack::new().service(ReqwestService::new(http.clone())));

    let url = format!("{host}/v1beta/models/{MODEL}:generateContent");
    let prompt = serde_json::json!({ "contents": [{ "parts": [{ "text": "Why is the sky blue?" }] }] });
    let request = http.post(url).header("x-goog-api-key", key).json(&prompt);

    // The one line that changes: it was `request.send().await?`.
    let response = gemini.send(request).await?;

    let verdict = Verdict::of(&response);
    eprintln!("{} attempts, absorbed: {:?}", Attempts::of(&response).made(), Attempts::of(&response).kinds());
    if !verdict.is_success() {
        return Err(format!("{verdict:?}\n{}", verdict.remedy()).into());
    }
    let answer: serde_json::Value = response.json().await?;
    println!("{}", answer["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap_or("no text"));
    Ok(())
}
