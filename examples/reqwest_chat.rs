//! A chat with reqwest: the answer is printed as it comes, and a model that falls silent is an error within a second.

use std::time::Duration;

use tower_gemini::BoxError;
use tower_gemini::reqwest::{ReqwestClient, ReqwestService};
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::stack::Preset;
use tower_gemini::timeout::TimeoutLayer;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let sim = Simulator::builder()
        .rule(Rule::new(Fault::overloaded()).on_call(1))
        .rule(Rule::new(Fault::stalled_stream_after(2, Duration::from_secs(60))).on_call(3));
    let server = sim.build()?.serve().await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let patience = TimeoutLayer::builder().idle(Duration::from_secs(1)).build()?;
    let stack = Preset::interactive().stack().timeout(patience).service(ReqwestService::new(http.clone()));
    let gemini = ReqwestClient::new(stack);

    let url =
        format!("{}/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent?alt=sse", server.base_url());
    let mut heard = Vec::new();
    for turn in ["Hello", "Tell me more"] {
        let prompt = serde_json::json!({ "contents": [{ "role": "user", "parts": [{ "text": turn }] }] });
        let mut response = gemini.send(http.post(&url).json(&prompt)).await?.error_for_status()?;
        let mut said = String::new();
        let end = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => said += &String::from_utf8_lossy(&chunk),
                Ok(None) => break Ok(()),
                Err(silence) => break Err(silence),
            }
        };
        heard.push((said.matches("data: ").count(), end.is_ok()));
    }
    assert_eq!(heard, [(5, true), (2, false)], "the first was overloaded once, the second fell silent");
    Ok(())
}
