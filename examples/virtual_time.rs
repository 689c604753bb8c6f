//! A test of what you build, in no time: the simulator is a service, and with tokio's clock paused waits are skipped, but are as
//! long as they say.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::time::Instant;
use tower::ServiceExt;
use tower_gemini::BoxError;
use tower_gemini::retry::Attempts;
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::stack::Preset;

// In a test: #[tokio::test(start_paused = true)]
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let limited = Fault::rate_limited().with_retry_in(Duration::from_secs(30));
    let sim = Simulator::builder().rule(Rule::new(limited).on_call(1)).build()?;
    let gemini = Preset::new().seed(7).stack().service(sim.clone());

    let begun = Instant::now();
    let request = Request::post("http://127.0.0.1/v1beta/models/gemini-3.5-flash-lite:generateContent")
        .body(Full::<Bytes>::from(r#"{"contents":[{"parts":[{"text":"Hello"}]}]}"#))?;
    let response = gemini.oneshot(request).await?;

    assert_eq!((response.status().as_u16(), Attempts::of(&response).made()), (200, 2));
    let took = Instant::now() - begun;
    assert!((Duration::from_secs(30)..Duration::from_secs(40)).contains(&took), "waited {took:?}");
    assert_eq!(sim.calls()[0].status().map(|status| status.as_u16()), Some(429));
    Ok(())
}
