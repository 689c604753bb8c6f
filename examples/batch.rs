//! A batch of 200 prompts under 10 requests a minute: none is refused, and it takes the 20 minutes that it must.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Request;
use http_body_util::Full;
use tokio::time::Instant;
use tower::ServiceExt;
use tower_gemini::BoxError;
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::sim::{Quota, Simulator};
use tower_gemini::stack::Preset;

const MODEL: &str = "gemini-3.5-flash-lite";

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let sim = Simulator::builder().quota(MODEL, Quota::new().requests_per_minute(10)).build()?;
    let limit = RateLimitLayer::new(Limits::new().requests_per_minute(10))?;
    let gemini = Preset::batch().stack().rate_limit(limit).service(sim.clone());

    let begun = Instant::now();
    let answers = stream::iter(0..200).map(|number| {
        let prompt = format!(r#"{{"contents":[{{"parts":[{{"text":"Prompt {number}"}}]}}]}}"#);
        let request = Request::post(format!("http://127.0.0.1/v1beta/models/{MODEL}:generateContent"));
        let request = request.body(Full::<Bytes>::from(prompt)).expect("a request");
        gemini.clone().oneshot(request)
    });
    let answers: Vec<_> = answers.buffer_unordered(50).collect().await;

    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status() == 200)));
    assert_eq!(sim.call_count(), 200, "a 429 would have been a call more");
    let minutes = (Instant::now() - begun).as_secs_f64() / 60.0;
    assert!((19.0..21.0).contains(&minutes), "{minutes} min");
    Ok(())
}
