//! Other people's layers, as their documentation sets them up, with limits that are never reached.
//!
//! governor, leaky-bucket, failsafe and recloser are not layers: a `service_fn` is the least that makes one of them.

use std::future::ready;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use failsafe::futures::CircuitBreaker as _;
use governor::{Quota, RateLimiter};
use http::{Request, Response};
use recloser::{AsyncRecloser, Recloser};
use tower::{Layer, Service, service_fn};
use tower_gemini::BoxError;
use tower_resilience_circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer};
use tower_resilience_ratelimiter::{RateLimiterLayer, RateLimiterServiceError, WindowType};
use tower_resilience_retry::RetryLayer;

use crate::floors::{Bare, Body, one};
use crate::measured::request;

const MINUTE: Duration = Duration::from_secs(60);
/// No row comes near it.
const PLENTY: u32 = 1_000_000_000;

/// A service that can be measured.
pub(crate) trait Measured: Service<Request<Body>, Future: Send> + Clone + Send + 'static {}

impl<S: Service<Request<Body>, Future: Send> + Clone + Send + 'static> Measured for S {}

fn poll_now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

// ===== tower =====

/// Not `Clone`: shared, it needs a `Buffer`, which is a task and a channel more.
pub(crate) fn tower_rate_limit() -> impl Service<Request<Body>> {
    tower::limit::RateLimit::new(Bare, tower::limit::rate::Rate::new(u64::from(PLENTY), MINUTE))
}

// ===== tower-resilience =====

/// Five attempts, and responses looked at, which it does not do unless told.
fn resilient_retry<E: 'static>() -> RetryLayer<Request<Body>, Response<Body>, E> {
    RetryLayer::builder()
        .max_attempts(5)
        .exponential_backoff(Duration::from_secs(1))
        .retry_on_response(|response: &Response<Body>| response.status().is_server_error())
        .build()
}

fn resilient_limit(window: WindowType) -> RateLimiterLayer {
    RateLimiterLayer::builder()
        .limit_for_period(PLENTY as usize)
        .refresh_period(MINUTE)
        .timeout_duration(MINUTE)
        .window_type(window)
        .build()
        .expect("a valid limit")
}

pub(crate) fn resilience_retry() -> impl Measured {
    resilient_retry::<BoxError>().layer(Bare)
}

pub(crate) fn resilience_limit(window: WindowType) -> impl Measured {
    resilient_limit(window).layer(Bare)
}

/// Its default: a window of 100 calls.
pub(crate) fn resilience_breaker() -> impl Measured {
    CircuitBreakerLayer::builder().build().expect("the defaults").layer(Bare)
}

pub(crate) fn resilience_breaker_open() -> impl Measured {
    let builder = CircuitBreakerLayer::builder().wait_duration_in_open(60 * MINUTE);
    let (layer, handle) = builder.build_with_handle().expect("the defaults, and an hour");
    poll_now(handle.force_open());
    assert!(handle.is_open());
    layer.layer(Bare)
}

pub(crate) fn resilience_stack() -> impl Measured {
    type Error = CircuitBreakerError<RateLimiterServiceError<BoxError>>;
    let limited = resilient_limit(WindowType::SlidingLog).layer(Bare);
    let breaker = CircuitBreakerLayer::builder().build().expect("the defaults");
    resilient_retry::<Error>().layer(breaker.layer(limited))
}

// ===== governor =====

fn quota() -> Arc<governor::DefaultDirectRateLimiter> {
    let most = NonZeroU32::new(PLENTY).expect("not zero");
    Arc::new(RateLimiter::direct(Quota::per_second(most)))
}

pub(crate) fn governor_until_ready() -> impl Measured {
    let quota = quota();
    service_fn(move |request: Request<Body>| {
        let quota = Arc::clone(&quota);
        async move {
            quota.until_ready().await;
            Bare.call(request).await
        }
    })
}

/// Refuses instead of waiting, and so needs no place in the future.
pub(crate) fn governor_check() -> impl Measured {
    let quota = quota();
    service_fn(move |request: Request<Body>| match quota.check() {
        Ok(()) => Bare.call(request),
        Err(until) => ready(Err(until.to_string().into())),
    })
}

// ===== leaky-bucket =====

fn bucket() -> Arc<leaky_bucket::RateLimiter> {
    let most = PLENTY as usize;
    let second = Duration::from_secs(1);
    Arc::new(
        leaky_bucket::RateLimiter::builder().max(most).initial(most).refill(most).interval(second).build(),
    )
}

pub(crate) fn leaky_bucket_acquire() -> impl Measured {
    let bucket = bucket();
    service_fn(move |request: Request<Body>| {
        let bucket = Arc::clone(&bucket);
        async move {
            bucket.acquire_one().await;
            Bare.call(request).await
        }
    })
}

/// Refuses instead of waiting.
pub(crate) fn leaky_bucket_try() -> impl Measured {
    let bucket = bucket();
    service_fn(move |request: Request<Body>| match bucket.try_acquire(1) {
        true => Bare.call(request),
        false => ready(Err("the bucket is empty".into())),
    })
}

// ===== failsafe and recloser =====

/// Their futures ask when they are polled first, so the inner call is made inside.
async fn called(request: Request<Body>) -> Result<Response<Body>, BoxError> {
    Bare.call(request).await
}

pub(crate) fn failsafe_breaker() -> impl Measured {
    let breaker = failsafe::Config::new().build();
    service_fn(move |request| breaker.call(called(request)))
}

pub(crate) fn failsafe_breaker_open() -> impl Measured {
    let wait = failsafe::backoff::constant(60 * MINUTE);
    let policy = failsafe::failure_policy::consecutive_failures(1, wait);
    let breaker = failsafe::Config::new().failure_policy(policy).build();
    breaker.on_error();
    assert!(!breaker.is_call_permitted());
    service_fn(move |request| breaker.call(called(request)))
}

pub(crate) fn recloser_breaker() -> impl Measured {
    let breaker = AsyncRecloser::from(Recloser::custom().build());
    service_fn(move |request| breaker.call(called(request)))
}

pub(crate) fn recloser_breaker_open() -> impl Measured {
    let breaker = AsyncRecloser::from(Recloser::custom().closed_len(1).open_wait(60 * MINUTE).build());
    let failing = breaker.clone();
    let mut failing =
        service_fn(move |_| failing.call(ready(Err::<Response<Body>, BoxError>("down".into()))));
    // The window has to fill before the rate of failures counts.
    (0..2).for_each(|_| one(&mut failing, request()));
    let refused = poll_now(breaker.call(ready(Ok::<(), BoxError>(()))));
    assert!(matches!(refused, Err(recloser::Error::Rejected)));
    service_fn(move |request| breaker.call(called(request)))
}
