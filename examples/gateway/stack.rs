//! The layers of the gateway, in their order.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tokio::time::Instant;
use tower::timeout::TimeoutLayer;
use tower::{Service, ServiceBuilder};
use tower_gemini::circuit_breaker::{self, CircuitBreakerLayer, CircuitOpen, Circuits};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::{AdaptiveConcurrencyLayer, ConcurrencyHandle};
use tower_gemini::event::Observer;
use tower_gemini::rate_limit::{Limits, RateLimitLayer, RateLimits};
use tower_gemini::retry::{Budget, ReplayBody, ReplayLayer, RetryLayer, RetryPolicy};
use tower_gemini::{BoxError, Kind, Rejected};

use super::args::Settings;
use super::record::Tries;

/// The longest that one attempt may take to its head.
const ATTEMPT: Duration = Duration::from_secs(120);
/// The longest that a circuit stays open, unless it is longer at first.
const OPEN_MOST: Duration = Duration::from_secs(15);

/// What the layers know, for `/metrics` and `/status`.
#[derive(Clone, Debug)]
pub(crate) struct Handles {
    pub(crate) quotas: RateLimits,
    pub(crate) concurrency: ConcurrencyHandle,
    pub(crate) circuits: Circuits,
    pub(crate) budget: Budget,
}

/// What the layers make of a client.
pub(crate) trait Layered:
    Service<Request<Body>, Response = Response<Self::Answer>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
    /// The body of an answer.
    type Answer: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<S, RB> Layered for S
where
    S: Service<Request<Body>, Response = Response<RB>, Error = BoxError, Future: Send>,
    S: Clone + Send + Sync + 'static,
    RB: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Answer = RB;
}

/// All layers around `client`.
///
/// A request is repeated for any kind that is worth it; one that meets an open circuit is not kept waiting, since SDKs and
/// their users wait better than a gateway that holds a thousand of them.
///
/// # Errors
///
/// A setting that a layer does not take, as a sentence.
pub(crate) fn stack<C, RB>(
    settings: &Settings,
    client: C,
    observer: Arc<dyn Observer>,
) -> Result<(impl Layered, Handles), String>
where
    C: Service<Request<ReplayBody<Body>>, Response = Response<RB>> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError> + 'static,
    C::Future: Send,
    RB: http_body::Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError> + Send,
{
    let sentence = |error: tower_gemini::ConfigError| error.to_string();
    if !settings.fallback.is_empty() {
        return Err("--fallback is not applied by this version".to_owned());
    }
    let budget = Budget::new(100, 0.5).map_err(sentence)?;
    let policy = RetryPolicy::builder()
        .attempts(settings.attempts)
        .deadline(settings.deadline)
        .budget(budget.clone())
        .observer(Arc::clone(&observer));
    let limits = RateLimitLayer::builder().limits(limits(settings)).max_wait(settings.deadline);
    let limits = limits.observer(Arc::clone(&observer)).build().map_err(sentence)?;
    let governor = AdaptiveConcurrencyLayer::builder().observer(Arc::clone(&observer));
    let governor = governor.max_wait(settings.deadline).build().map_err(sentence)?;
    let breaker = CircuitBreakerLayer::builder()
        .open_time(settings.breaker_open, settings.breaker_open.max(OPEN_MOST))
        .observer(observer)
        .build()
        .map_err(sentence)?;
    let handles = Handles {
        quotas: limits.handle(),
        concurrency: governor.handle(),
        circuits: breaker.handle(),
        budget,
    };
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::new())
        .layer(RetryLayer::new(policy.build().map_err(sentence)?))
        .layer(limits)
        .layer(governor)
        .map_err(fail_fast)
        .layer(breaker)
        .layer(TimeoutLayer::new(settings.deadline.min(ATTEMPT)))
        .layer(ClassifyLayer::new().watch())
        .map_request(|request: Request<ReplayBody<Body>>| {
            Tries::count(&request);
            request
        })
        .service(client);
    Ok((service, handles))
}

fn limits(settings: &Settings) -> Limits {
    let limits = Limits::new();
    let limits = settings.requests_per_minute.into_iter().fold(limits, Limits::requests_per_minute);
    let limits = settings.tokens_per_minute.into_iter().fold(limits, Limits::input_tokens_per_minute);
    settings.requests_per_day.into_iter().fold(limits, Limits::requests_per_day)
}

/// An open circuit, told so that the retry layer hands it on at once: to wait is the caller's own choice.
#[derive(Debug)]
pub(crate) struct Down {
    open: CircuitOpen,
    /// Without an instant, so that nobody waits for it.
    rejected: Rejected,
}

impl Down {
    /// When the circuit lets a probe through.
    pub(crate) const fn until(&self) -> Option<Instant> {
        self.open.until()
    }
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.open.fmt(f)
    }
}

impl Error for Down {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.rejected)
    }
}

fn fail_fast(error: BoxError) -> BoxError {
    match error.downcast::<CircuitOpen>() {
        // The server is back: those who wait a moment are let through in good order.
        Ok(open) if matches!(open.why(), circuit_breaker::Why::Ramping) => open,
        Ok(open) => {
            let rejected = Rejected::new("the circuit is open").with_kind(Kind::Unavailable);
            Box::new(Down { open: *open, rejected })
        }
        Err(error) => error,
    }
}
