//! The stacks that the scenarios are lived through with: the real layers over a server model, each of them optional.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tower::util::BoxCloneService;
use tower::{Layer, Service, ServiceExt};
use tower_gemini::circuit_breaker::{CircuitBreakerLayer, CircuitState};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::event::{Event, Observer};
use tower_gemini::retry::{Backoff, Budget, RetryLayer, RetryPolicy, RetryPolicyBuilder, Schedule};
use tower_gemini::{BoxError, Kind};

use crate::pace::Pace;
use crate::server::Server;
use crate::support::Body;

/// A stack, so far. Its layers are of many types, and a table has one.
pub(crate) type Client = BoxCloneService<Request<Body>, Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>;

/// From the outside in: retry, pace, governor, breaker, a timeout of 5 s for each attempt, classifier.
#[derive(Clone, Copy)]
pub(crate) struct Stack {
    pub(crate) name: &'static str,
    pub(crate) retry: fn() -> RetryPolicyBuilder,
    /// Calls a second.
    pub(crate) pace: Option<f64>,
    pub(crate) governor: bool,
    pub(crate) breaker: bool,
}

// ===== retry policies =====

/// As many attempts as fit the deadline, whatever the kind, and no budget: only the controllers inside bound the load.
pub(crate) fn patient() -> RetryPolicyBuilder {
    attempts(100)
}

/// Five attempts whatever the kind, and no budget.
pub(crate) fn five() -> RetryPolicyBuilder {
    attempts(5)
}

/// Three attempts whatever the kind, and no budget.
pub(crate) fn three() -> RetryPolicyBuilder {
    attempts(3)
}

fn attempts(attempts: u32) -> RetryPolicyBuilder {
    RetryPolicy::builder()
        .attempts(attempts)
        .maybe_processed_retries(attempts - 1)
        .without_budget()
        .schedule(Kind::Internal, Schedule::waiting(Backoff::default()))
}

// ===== stacks =====

pub(crate) const RETRY: Stack =
    Stack { name: "retry", retry: patient, pace: None, governor: false, breaker: false };
pub(crate) const GOVERNOR: Stack = Stack { name: "retry, governor", governor: true, ..RETRY };
pub(crate) const BOTH: Stack = Stack { name: "retry, governor, breaker", breaker: true, ..GOVERNOR };
pub(crate) const BOTH_FIVE: Stack = Stack { name: "5 attempts, governor, breaker", retry: five, ..BOTH };
pub(crate) const BOTH_THREE: Stack = Stack { name: "3 attempts, governor, breaker", retry: three, ..BOTH };
pub(crate) const PACED: Stack = Stack { name: "retry, 4/s, governor, breaker", pace: Some(4.0), ..BOTH };
pub(crate) const PACED_FIVE: Stack = Stack { name: "5 attempts, 4/s, both", retry: five, ..PACED };
pub(crate) const BREAKER: Stack = Stack { name: "retry, breaker", governor: false, ..BOTH };
pub(crate) const BOTH_BY_DEFAULT: Stack =
    Stack { name: "all three by default", retry: RetryPolicy::builder, ..BOTH };

/// With the default's budget.
pub(crate) const BOTH_AND_BUDGET: Stack =
    Stack { name: "all three, a budget of 100", retry: hundred, ..BOTH };

fn hundred() -> RetryPolicyBuilder {
    RetryPolicy::builder().budget(Budget::default())
}

impl Stack {
    /// One process over the server.
    pub(crate) fn client(&self, server: Server, seed: u64, meter: &Arc<Meter>) -> Client {
        let meter = || Arc::clone(meter) as Arc<dyn Observer>;
        let timeout = tower::timeout::TimeoutLayer::new(Duration::from_secs(5));
        let mut client = erase(timeout.layer(ClassifyLayer::new().layer(server)));
        if self.breaker {
            let breaker = CircuitBreakerLayer::builder().seed(seed).observer(meter());
            client = erase(breaker.build().unwrap().layer(client));
        }
        if self.governor {
            let governor = AdaptiveConcurrencyLayer::builder().seed(seed).observer(meter());
            client = erase(governor.build().unwrap().layer(client));
        }
        if let Some(rate) = self.pace {
            client = erase(Pace::new(client, rate));
        }
        erase(RetryLayer::new((self.retry)().seed(seed).build().unwrap()).layer(client))
    }
}

fn erase<S, RB>(service: S) -> Client
where
    S: Service<Request<Body>, Response = Response<RB>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    RB: http_body::Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
    BoxCloneService::new(
        service.map_response(|response: Response<RB>| {
            response.map(|body| body.map_err(Into::into).boxed_unsync())
        }),
    )
}

// ===== what the controllers did =====

/// How often the controllers of all processes moved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moves {
    /// Circuits that opened while they were closed.
    pub(crate) opened: u32,
    /// Probes that failed.
    pub(crate) reopened: u32,
    pub(crate) closed: u32,
    pub(crate) cut: u32,
    pub(crate) lifted: u32,
}

/// Counts them.
#[derive(Default)]
pub(crate) struct Meter(Mutex<Moves>);

impl Meter {
    pub(crate) fn moves(&self) -> Moves {
        *self.0.lock().unwrap()
    }
}

impl Observer for Meter {
    fn on_event(&self, event: &Event<'_>) {
        let mut moves = self.0.lock().unwrap();
        match event {
            Event::CircuitChanged { transition, .. } => match (transition.from, transition.to) {
                (CircuitState::Closed, CircuitState::Open) => moves.opened += 1,
                (CircuitState::HalfOpen, CircuitState::Open) => moves.reopened += 1,
                (CircuitState::HalfOpen, CircuitState::Closed) => moves.closed += 1,
                _ => {}
            },
            Event::ConcurrencyCut { .. } => moves.cut += 1,
            Event::ConcurrencyLifted { .. } => moves.lifted += 1,
            _ => {}
        }
    }
}
