//! Three replicas, one quota of 30 requests a minute: together they send 30, and no 429 is met. `RedisStore` is the store for
//! replicas in processes of their own (`examples/fleet`).

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower_gemini::BoxError;
use tower_gemini::fleet::MemoryStore;
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::sim::{Quota, Simulator};
use tower_gemini::stack::Preset;

const MODEL: &str = "gemini-3.5-flash-lite";

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let sim = Simulator::builder().quota(MODEL, Quota::new().requests_per_minute(30)).build()?;
    let (store, mut calls) = (MemoryStore::new(), JoinSet::new());
    for _replica in 0..3 {
        let limits = Limits::new().requests_per_minute(30);
        let limit = RateLimitLayer::builder().limits(limits).store(store.clone()).build()?;
        let gemini = Preset::batch().stack().rate_limit(limit).service(sim.clone());
        for _ in 0..30 {
            let request = Request::post(format!("http://127.0.0.1/v1beta/models/{MODEL}:generateContent"));
            calls.spawn(gemini.clone().oneshot(request.body(Full::<Bytes>::from("{}"))?));
        }
    }
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer??.status(), 200);
    }
    assert_eq!(sim.call_count(), 90, "a 429 would have been a call more");
    let ended = sim.calls()[89].ended_at().unwrap_or_default();
    assert!((Duration::from_secs(120)..Duration::from_secs(240)).contains(&ended), "{ended:?}");
    Ok(())
}
