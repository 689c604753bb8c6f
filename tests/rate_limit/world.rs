//! Many callers, one simulator, and what came of it.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_gemini::Verdict;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::rate_limit::{Estimate, RateLimitLayer};
use tower_gemini::retry::{RetryLayer, RetryPolicy};
use tower_gemini::sim::{Algorithm, Quota, Simulator};

pub(crate) const MODEL: &str = "gemini-3.5-flash";

pub(crate) type Body = Full<Bytes>;

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Every way in which a server may count a minute.
pub(crate) fn algorithms() -> Vec<(String, Algorithm)> {
    let fixed = [0, 1, 13, 30, 59]
        .map(|phase| (format!("fixed window at {phase} s"), Algorithm::FixedWindow { phase: secs(phase) }));
    let mut all = vec![
        ("sliding window".to_owned(), Algorithm::SlidingWindow),
        ("token bucket".to_owned(), Algorithm::TokenBucket),
    ];
    all.extend(fixed);
    all
}

/// A simulator that answers after two seconds, as the scenarios of the field have it.
pub(crate) fn simulator(quota: Quota) -> Simulator {
    Simulator::builder()
        .head_latency(secs(2))
        .chunk_interval(Duration::ZERO)
        .quota(MODEL, quota)
        .seed(7)
        .build()
        .unwrap()
}

/// A prompt of so many tokens, as the simulator counts them.
pub(crate) fn prompt(tokens: u64) -> Request<Body> {
    let text = "word".repeat(usize::try_from(tokens).unwrap());
    let body = format!(r#"{{"contents":[{{"parts":[{{"text":"{text}"}}]}}]}}"#);
    Request::post(format!("/v1beta/models/{MODEL}:generateContent")).body(Full::from(body)).unwrap()
}

/// Retry, limit and classifier around a simulator.
pub(crate) fn stack<E: Estimate<Body> + Send + Sync + 'static>(
    sim: &Simulator,
    limit: RateLimitLayer<E>,
) -> impl Service<Request<Body>, Response: IntoBytes, Error = BoxError, Future: Send> + Clone + Send + 'static
{
    let policy = RetryPolicy::builder().without_deadline().seed(1).build().unwrap();
    ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(limit)
        .layer(ClassifyLayer::new().watch())
        .service(sim.clone())
}

/// A response that can be read to its end.
pub(crate) trait IntoBytes: Send + 'static {
    fn read(self) -> impl Future<Output = (bool, Bytes)> + Send;
}

impl<B> IntoBytes for http::Response<B>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Debug,
{
    async fn read(self) -> (bool, Bytes) {
        let good = Verdict::of(&self).is_success();
        let bytes = self.into_body().collect().await.map(http_body_util::Collected::to_bytes);
        (good && bytes.is_ok(), bytes.unwrap_or_default())
    }
}

/// What came of a crowd of callers.
#[derive(Debug)]
#[allow(dead_code, reason = "some are printed only")]
pub(crate) struct Outcome {
    pub(crate) ok: usize,
    pub(crate) failed: usize,
    /// From the first call to the last answer.
    pub(crate) makespan: f64,
    /// Calls that the upstream refused with 429.
    pub(crate) refused: usize,
    /// Of them, those in the second minute and later.
    pub(crate) refused_late: usize,
    pub(crate) calls: u64,
}

/// All of them at once.
pub(crate) async fn burst<S>(
    sim: &Simulator,
    service: &S,
    prompts: impl IntoIterator<Item = Request<Body>>,
) -> Outcome
where
    S: Service<Request<Body>, Response: IntoBytes, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    let mut callers = JoinSet::new();
    let start = Instant::now();
    for request in prompts {
        let service = service.clone();
        callers.spawn(async move {
            match service.oneshot(request).await {
                Ok(response) => response.read().await.0,
                Err(_) => false,
            }
        });
    }
    let results = callers.join_all().await;
    let makespan = (Instant::now() - start).as_secs_f64();
    let calls = sim.calls();
    let refused: Vec<_> = calls.iter().filter(|call| call.status().is_some_and(|s| s == 429)).collect();
    Outcome {
        ok: results.iter().filter(|ok| **ok).count(),
        failed: results.iter().filter(|ok| !**ok).count(),
        makespan,
        refused: refused.len(),
        refused_late: refused.iter().filter(|call| call.at() > secs(60)).count(),
        calls: sim.call_count(),
    }
}

/// A service that can be asked from many tasks.
pub(crate) trait Asked: Clone + Send + 'static {
    /// Whether the request was answered well, to the end.
    fn ask(self, request: Request<Body>) -> impl Future<Output = bool> + Send;
}

impl<S> Asked for S
where
    S: Service<Request<Body>, Response: IntoBytes, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    async fn ask(self, request: Request<Body>) -> bool {
        match self.oneshot(request).await {
            Ok(response) => response.read().await.0,
            Err(_) => false,
        }
    }
}
