//! A stack that was put together by hand in a wrong order says so, once.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::future::ready;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::BoxError;
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::event::{Event, LayerKind, Observer};
use tower_gemini::fallback::ModelFallbackLayer;
use tower_gemini::rate_limit::RateLimitLayer;
use tower_gemini::retry::{RetryLayer, RetryPolicy};

type Body = Full<Bytes>;

#[derive(Default)]
struct Log(Mutex<Vec<(LayerKind, LayerKind)>>);

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Misplaced { layer, inside, consequence, .. } = event {
            assert!(!consequence.is_empty());
            self.0.lock().unwrap().push((*layer, *inside));
        }
    }
}

impl Log {
    fn told(&self) -> Vec<(LayerKind, LayerKind)> {
        self.0.lock().unwrap().clone()
    }
}

fn request() -> Request<Body> {
    Request::post("http://127.0.0.1/v1beta/models/m:generateContent").body(Body::default()).unwrap()
}

fn down() -> tower::util::BoxCloneService<Request<Body>, Response<Body>, BoxError> {
    tower::util::BoxCloneService::new(tower::service_fn(|_: Request<Body>| {
        ready(Ok::<_, BoxError>(Response::builder().status(503).body(Body::default()).unwrap()))
    }))
}

fn retry(log: &Arc<Log>) -> RetryLayer {
    let observer = Arc::clone(log) as Arc<dyn Observer>;
    RetryLayer::new(RetryPolicy::builder().attempts(2).observer(observer).build().unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_recommended_order_is_silent() {
    let log = Arc::new(Log::default());
    let observer = || Arc::clone(&log) as Arc<dyn Observer>;
    let stack = ServiceBuilder::new()
        .layer(retry(&log))
        .layer(RateLimitLayer::builder().observer(observer()).build().unwrap())
        .layer(AdaptiveConcurrencyLayer::builder().observer(observer()).build().unwrap())
        .layer(CircuitBreakerLayer::builder().observer(observer()).build().unwrap())
        .layer(ClassifyLayer::new())
        .service(down());
    assert_eq!(stack.oneshot(request()).await.unwrap().status(), 503);
    assert_eq!(log.told(), []);
}

#[tokio::test(start_paused = true)]
async fn a_limit_outside_of_retry_is_told_once() {
    let log = Arc::new(Log::default());
    let limit = RateLimitLayer::builder().observer(Arc::clone(&log) as Arc<dyn Observer>).build().unwrap();
    let stack = limit.layer(retry(&log).layer(ClassifyLayer::new().layer(down())));
    for _ in 0..3 {
        stack.clone().oneshot(request()).await.unwrap();
    }
    assert_eq!(log.told(), [(LayerKind::RateLimit, LayerKind::Retry)]);
}

#[tokio::test(start_paused = true)]
async fn retries_upon_retries_are_told() {
    let log = Arc::new(Log::default());
    let quiet = RetryLayer::new(RetryPolicy::builder().attempts(2).build().unwrap());
    let stack = retry(&log).layer(quiet.layer(ClassifyLayer::new().layer(down())));
    stack.oneshot(request()).await.unwrap();
    assert_eq!(
        log.told(),
        [(LayerKind::Retry, LayerKind::Retry)],
        "also where only the outer one is observed"
    );
}

#[tokio::test(start_paused = true)]
async fn a_fallback_inside_of_retry_is_told() {
    let log = Arc::new(Log::default());
    let fallback = ModelFallbackLayer::builder().chain("m", ["n"]).build().unwrap();
    let stack = retry(&log).layer(fallback.layer(ClassifyLayer::new().layer(down())));
    stack.oneshot(request()).await.unwrap();
    assert_eq!(log.told(), [(LayerKind::Retry, LayerKind::Fallback)]);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_or_a_governor_outside_of_retry_is_told() {
    let log = Arc::new(Log::default());
    let observer = || Arc::clone(&log) as Arc<dyn Observer>;
    let breaker = CircuitBreakerLayer::builder().observer(observer()).build().unwrap();
    let governor = AdaptiveConcurrencyLayer::builder().observer(observer()).build().unwrap();
    let stack = breaker.layer(governor.layer(retry(&log).layer(ClassifyLayer::new().layer(down()))));
    stack.oneshot(request()).await.unwrap();
    assert_eq!(
        log.told(),
        [(LayerKind::Concurrency, LayerKind::Retry), (LayerKind::CircuitBreaker, LayerKind::Retry)],
        "each by itself, from the inside out"
    );
}
