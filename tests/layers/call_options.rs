//! What differs for one call, read by each layer that it is for.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::retry::Attempts;
use tower_gemini::stack::{GeminiStack, Preset};
use tower_gemini::{CallOptions, Deadline, ServiceTier, Verdict};

type Answer = std::future::Ready<Result<Response<Full<Bytes>>, std::io::Error>>;

/// A model that is always overloaded, and counts.
fn overloaded(
    calls: &Arc<AtomicU32>,
) -> tower::util::ServiceFn<impl Fn(Request<Full<Bytes>>) -> Answer + Clone + use<>> {
    let calls = Arc::clone(calls);
    tower::service_fn(move |_: Request<Full<Bytes>>| {
        calls.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(Response::builder().status(503).body(Full::default()).unwrap()))
    })
}

fn request(options: &CallOptions) -> Request<Full<Bytes>> {
    let request = Request::post("https://h/v1beta/models/m:generateContent");
    let mut request = request.body(Full::from(r#"{"contents":[]}"#)).unwrap();
    options.apply(&mut request);
    request
}

#[tokio::test(start_paused = true)]
async fn attempts_are_lowered_and_never_raised() {
    for (options, made) in [
        (CallOptions::new(), 4),
        (CallOptions::new().attempts(3), 3),
        (CallOptions::new().attempts(9), 4),
        (CallOptions::new().attempts(0), 1),
        (CallOptions::new().without_retry(), 1),
    ] {
        let calls = Arc::new(AtomicU32::new(0));
        let policy = tower_gemini::retry::RetryPolicy::builder().attempts(4).build().unwrap();
        let stack =
            GeminiStack::new().retry(tower_gemini::retry::RetryLayer::new(policy)).without_circuit_breaker();
        let response = stack.layer(overloaded(&calls)).oneshot(request(&options)).await.unwrap();
        assert!(!Verdict::of(&response).is_success());
        assert_eq!(calls.load(Ordering::Relaxed), made, "{options:?}");
        if made > 1 {
            assert_eq!(Attempts::of(&response).made(), made, "{options:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_takes_the_place_of_the_layers_own() {
    for (options, least, most) in [
        (CallOptions::new().within(Duration::from_secs(7)), 1, 7),
        (CallOptions::new().deadline(Deadline::at(Instant::now() + Duration::from_secs(7))), 1, 7),
    ] {
        let calls = Arc::new(AtomicU32::new(0));
        let start = Instant::now();
        let stack = Preset::batch().seed(1).stack();
        stack.layer(overloaded(&calls)).oneshot(request(&options)).await.unwrap();
        let took = (Instant::now() - start).as_secs_f64();
        assert!(took <= f64::from(most) && calls.load(Ordering::Relaxed) > least, "{options:?}: {took}");
    }
}

#[test]
fn tier_and_label_are_what_the_layers_read() {
    let request = request(&CallOptions::new().tier(ServiceTier::Flex).label("team-a"));
    let target = tower_gemini::Target::of(&request);
    assert_eq!(target.tier(), ServiceTier::Flex);
    assert_eq!(target.label().map(|label| label.as_str()), Some("team-a"));
    assert_eq!(ServiceTier::of(&request), Some(ServiceTier::Flex));
}

#[tokio::test(start_paused = true)]
async fn each_label_has_a_quota_of_its_own() {
    let layer = RateLimitLayer::new(Limits::new().requests_per_minute(1)).unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let service = layer.layer(overloaded(&calls));
    let start = Instant::now();
    for label in ["a", "b", "c"] {
        service.clone().oneshot(request(&CallOptions::new().label(label))).await.unwrap();
    }
    assert_eq!(Instant::now(), start, "nobody waited for another one's minute");
}
