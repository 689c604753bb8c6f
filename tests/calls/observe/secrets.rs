//! Nothing that is told or written holds a key, wherever it stood.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use http::Request;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_gemini::BoxError;
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::event::{Event, Observer};
use tower_gemini::observe::{JsonLines, ObserveLayer};
use tower_gemini::rate_limit::{AdmissionMode, Limits, RateLimitLayer};
use tower_gemini::retry::{RetryLayer, RetryPolicy};

use super::json_lines::Shared;
use super::support::{Body, Probe, error};

/// One in Google's form, and one that only its place gives away.
const KEYS: [&str; 2] = ["AIzaSyD-not-a-real-key-0123456789abcdef", "my-own-gateway-key-42"];

/// Everything that an event prints.
#[derive(Default)]
struct Printed(Mutex<String>);

impl Observer for Printed {
    fn on_event(&self, event: &Event<'_>) {
        let mut all = self.0.lock().unwrap();
        writeln!(all, "{event:?}").unwrap();
        if let Event::Finished { call, .. } = event {
            writeln!(all, "{} {} {:?}", call.path(), call.message(), call.model()).unwrap();
        }
    }
}

fn with_key(key: &str) -> Request<Body> {
    let uri = format!("http://user:{key}@127.0.0.1/v1beta/models/m:generateContent?key={key}&alt=sse");
    let mut request = Request::post(uri).body(Body::from(format!(r#"{{"key":"{key}"}}"#))).unwrap();
    request.headers_mut().insert("x-goog-api-key", key.parse().unwrap());
    request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn no_observer_is_told_a_key() {
    for key in KEYS {
        let (printed, out) = (Arc::new(Printed::default()), Shared::default());
        let lines = Arc::new(JsonLines::new(out.clone()).with_events());
        let all: Arc<dyn Observer> = Arc::new(vec![printed.clone() as Arc<dyn Observer>, lines]);
        #[cfg(feature = "tracing")]
        let (trace, _traced) = super::tracing::collect();
        #[cfg(feature = "tracing")]
        let all: Arc<dyn Observer> = Arc::new(vec![all, Arc::new(tower_gemini::observe::Tracing::new())]);
        #[cfg(feature = "metrics")]
        let (recorder, all) = {
            let both: Arc<dyn Observer> =
                Arc::new(vec![all, Arc::new(tower_gemini::observe::Metrics::new())]);
            (super::metrics::Recorder::default(), both)
        };
        #[cfg(feature = "metrics")]
        let _recorded = ::metrics::set_default_local_recorder(&recorder);

        let echo = format!("Consumer 'api_key:{key}' has been suspended. Sent: Bearer {key}-and-more");
        let retry =
            RetryLayer::new(RetryPolicy::builder().observer(all.clone()).attempts(2).build().unwrap());
        let limit = RateLimitLayer::builder()
            .limits(Limits::new().requests_per_minute(3).input_tokens_per_minute(100_000))
            .mode(AdmissionMode::Reject)
            .observer(all.clone())
            .build()
            .unwrap();
        let breaker =
            CircuitBreakerLayer::builder().observer(all.clone()).consecutive_failures(2).build().unwrap();
        let calls = ObserveLayer::new(all);
        #[cfg(feature = "tracing")]
        let calls = calls.spans();
        let stack = ServiceBuilder::new().layer(calls.clone()).layer(retry).layer(limit).layer(breaker);
        let service = stack.layer(ClassifyLayer::new()).service(Probe::new(
            [error(403, "PERMISSION_DENIED", &echo), error(503, "UNAVAILABLE", &echo)],
            error(503, "UNAVAILABLE", &echo),
        ));
        for _ in 0..3 {
            let _ = service.clone().oneshot(with_key(key)).await;
        }
        // A client whose errors print the URI, as reqwest's do; and a path with a key in it.
        let broken = service_fn(async |request: Request<Body>| {
            Err::<http::Response<Body>, BoxError>(
                format!("error sending request for url ({})", request.uri()).into(),
            )
        });
        let _ = calls.clone().layer(broken).oneshot(with_key(key)).await;
        let odd = format!("http://127.0.0.1/v1beta/models/{}:generateContent%3Fkey={key}", KEYS[0]);
        let odd = Request::post(odd).body(Body::default()).unwrap();
        let _ = calls.layer(broken).oneshot(odd).await;

        let seen = printed.0.lock().unwrap().clone() + &out.text();
        #[cfg(feature = "tracing")]
        let seen = seen + &format!("{trace:?}");
        #[cfg(feature = "metrics")]
        let seen = seen + &format!("{recorder:?}");
        assert!(seen.contains("[redacted]"), "the messages are there, without the key: {seen}");
        for event in ["Finished", "GaveUp", "CircuitChanged", "Waiting", "\"event\":\"finished\""] {
            assert!(seen.contains(event), "{event}");
        }
        for key in KEYS {
            let at = seen.find(&key[4..]);
            assert!(at.is_none(), "…{}", &seen[at.unwrap_or(0).saturating_sub(200)..][..300]);
        }
    }
}
