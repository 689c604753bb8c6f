//! What the programs of this package share: a Gemini that is having a bad day, and the judgement of how it was met.

use tower_gemini::BoxError;
use tower_gemini::sim::{Fault, Rule, SimServer, Simulator};

pub const MODEL: &str = "gemini-3.5-flash-lite";

/// The first call meets a 429 that clears in 100 ms, the third a 503.
pub async fn bad_day() -> Result<(Simulator, SimServer), BoxError> {
    let limited = Fault::rate_limited().with_retry_in(std::time::Duration::from_millis(100));
    let sim = Simulator::builder()
        .head_latency(std::time::Duration::from_millis(5))
        .rule(Rule::new(limited).on_call(1))
        .rule(Rule::new(Fault::unavailable()).on_call(3))
        .build()?;
    let server = sim.serve().await?;
    Ok((sim, server))
}

/// Both failures were met and neither was seen: one answer in one piece, one as a stream.
pub fn assert_absorbed(sim: &Simulator, whole: &str, streamed: &str) {
    assert_eq!((whole, streamed), ("Echo: Hello", "Echo: Hello again"));
    let statuses: Vec<_> = sim.calls().iter().filter_map(|call| Some(call.status()?.as_u16())).collect();
    assert_eq!(statuses, [429, 200, 503, 200]);
}

/// The body of a request.
pub fn prompt(text: &str) -> String {
    serde_json::json!({ "contents": [{ "parts": [{ "text": text }] }] }).to_string()
}

/// The text of an answer.
pub fn text_of(answer: &[u8]) -> Result<String, BoxError> {
    let answer: serde_json::Value = serde_json::from_slice(answer)?;
    Ok(answer["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap_or_default().to_owned())
}

/// The text of a stream.
pub fn text_of_events(events: &str) -> Result<String, BoxError> {
    events.lines().filter_map(|line| line.strip_prefix("data: ")).map(|event| text_of(event.as_bytes())).collect()
}
