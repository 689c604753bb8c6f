//! The services whose calls are measured, by name: one list for the bench that times them and the one that counts
//! their instructions.

use http::Request;
use tower::{Layer, Service};
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::retry::{RetryLayer, RetryPolicy};
use tower_gemini::stack::GeminiStack;
use tower_gemini::tier::TierLayer;
use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};

use crate::floors::{Answering, Bare, Body, BreakerFloor, Counting, Floor, Reading, one};
use crate::measured::{request, request_to};

mod services;
use services::{AnyBody, Clocked, Cloning, Copying, Prompting, limited, told_preflight};

/// Who is shown the list.
pub(crate) trait Rows {
    /// One row, with the n-th request of it. What is not wanted need not be made.
    fn of<S>(&mut self, name: &'static str, request: fn(usize) -> Request<Body>, service: impl FnOnce() -> S)
    where
        S: Service<Request<Body>> + Clone + 'static;

    /// One row, with the same request again and again.
    fn row<S>(&mut self, name: &'static str, service: impl FnOnce() -> S)
    where
        S: Service<Request<Body>> + Clone + 'static,
    {
        self.of(name, |_| request(), service);
    }
}

/// A thousand models in turn.
fn in_turn(nth: usize) -> Request<Body> {
    request_to(&format!("http://127.0.0.1/v1beta/models/gemini-9-flash-{:03}:generateContent", nth % 1_000))
}

/// Every row, in the order in which they are printed.
pub(crate) fn all(rows: &mut impl Rows) {
    let policy = || RetryPolicy::builder();
    rows.row("bare service", || Bare);
    rows.row("a copy of each request", || Copying(Bare));
    rows.row("classify, 2xx", || ClassifyLayer::new().layer(Bare));
    rows.row("classify, 2xx, watching", || ClassifyLayer::new().watch().layer(Bare));
    rows.row("retry", || RetryLayer::new(policy().build().unwrap()).layer(Bare));
    rows.row("retry, one attempt", || RetryLayer::new(policy().attempts(1).build().unwrap()).layer(Bare));
    rows.row("retry, body too large", || {
        RetryLayer::new(policy().max_body_bytes(100).build().unwrap()).layer(Bare)
    });
    rows.row("retry + classify", || {
        RetryLayer::new(policy().build().unwrap()).layer(ClassifyLayer::new().layer(Bare))
    });
    rows.row("adaptive concurrency, no limit", || AdaptiveConcurrencyLayer::new().layer(Bare));
    rows.row("adaptive concurrency, limited", || limited().layer(Bare));
    rows.row("tower's Concurrency limit", || tower::limit::ConcurrencyLimitLayer::new(64).layer(Bare));
    rows.row("tower's Retry, counting policy", || tower::retry::RetryLayer::new(Counting(4)).layer(Bare));

    let limits =
        || Limits::new().requests_per_minute(1_000_000_000).input_tokens_per_minute(1_000_000_000_000);
    let limit = |limits| RateLimitLayer::new(limits).unwrap();
    rows.row("one exact clock read", || Clocked(Bare));
    rows.row("floor: requests and tokens, no keys", || Floor::new(Bare));
    rows.row("rate limit, requests", || limit(Limits::new().requests_per_minute(1_000_000_000)).layer(Bare));
    rows.row("rate limit, requests and tokens", || limit(limits()).layer(Bare));
    rows.row("rate limit, requests, tokens and days", || {
        limit(limits().requests_per_day(1_000_000_000)).layer(Bare)
    });
    #[cfg(feature = "fleet")]
    rows.row("rate limit, requests, with a fleet's stock", || {
        services::stocked(Limits::new().requests_per_minute(1_000_000_000))
    });
    rows.row("rate limit, cloned per call", || Cloning(limit(limits()).layer(Bare)));
    rows.row("rate limit + classify, body read", || {
        Reading(limit(limits()).layer(ClassifyLayer::new().watch().layer(Bare)))
    });

    rows.row("bare service, a prompt of 2 KiB", || Prompting::new(AnyBody));
    rows.row("preflight, a good prompt of 2 KiB", || Prompting::new(told_preflight().layer(AnyBody)));

    let breaker = CircuitBreakerLayer::default;
    rows.row("bare service, body read", || Reading(Bare));
    rows.row("floor: breaker, one key, head only", || BreakerFloor::new(Bare));
    rows.row("floor: breaker, open", || BreakerFloor::open(Bare));
    rows.row("breaker, closed, body read", || Reading(breaker().layer(Bare)));
    rows.row("breaker, closed", || breaker().layer(Bare));
    rows.row("breaker, 50,000 calls before", || {
        let busy = breaker().layer(Bare);
        (0..50_000).for_each(|_| one(&mut Reading(busy.clone()), request()));
        Reading(busy)
    });
    rows.row("breaker, cloned per call", || Cloning(breaker().layer(Bare)));
    rows.row("breaker, open", || {
        let open = breaker();
        open.handle().force_open(&tower_gemini::Target::of(&request()).key());
        open.layer(Bare)
    });
    rows.row("retry + breaker", || RetryLayer::default().layer(breaker().layer(Bare)));

    let stack = || GeminiStack::new().rate_limit(limit(limits())).layer(Bare);
    rows.row("timeout", || TimeoutLayer::new().layer(Bare));
    rows.row("timeout, no header", || {
        TimeoutLayer::builder().without_server_timeout().build().unwrap().layer(Bare)
    });
    rows.row("deadline", || DeadlineLayer::default().layer(Bare));
    rows.row("retry + limit + breaker", || {
        RetryLayer::default().layer(limit(limits()).layer(breaker().layer(Bare)))
    });
    rows.row("the whole stack", stack);
    rows.row("the whole stack, body read", || Reading(stack()));
    answers(rows);
}

/// What users pay: a real answer whose body is read, over a network, of one model or of a thousand in turn.
fn answers(rows: &mut impl Rows) {
    let limits =
        || Limits::new().requests_per_minute(1_000_000_000).input_tokens_per_minute(1_000_000_000_000);
    let limit = || RateLimitLayer::new(limits()).unwrap();
    let three = || {
        RetryLayer::default()
            .layer(limit().layer(CircuitBreakerLayer::default().layer(Answering::pending_once())))
    };
    let stack = |answering| GeminiStack::new().rate_limit(limit()).layer(answering);
    let answering = Answering::pending_once;
    rows.row("answer: bare, ready", || Reading(Answering::at_once()));
    rows.row("answer: stack, ready", || Reading(stack(Answering::at_once())));
    rows.row("answer: bare", || Reading(answering()));
    rows.row("answer: classify, watching", || Reading(ClassifyLayer::new().watch().layer(answering())));
    rows.row("answer: retry", || Reading(RetryLayer::default().layer(answering())));
    rows.row("answer: limit", || Reading(limit().layer(answering())));
    rows.row("answer: concurrency", || Reading(AdaptiveConcurrencyLayer::new().layer(answering())));
    rows.row("answer: breaker", || Reading(CircuitBreakerLayer::default().layer(answering())));
    rows.row("answer: timeout", || Reading(TimeoutLayer::new().layer(answering())));
    rows.row("answer: tower's timeout", || {
        let layer = tower::timeout::TimeoutLayer::new(std::time::Duration::from_secs(120));
        Reading(layer.layer(answering()))
    });
    rows.row("answer: deadline", || Reading(DeadlineLayer::default().layer(answering())));
    rows.row("answer: tier", || Reading(TierLayer::new().layer(answering())));
    rows.row("answer: retry + limit + breaker", || Reading(three()));
    rows.row("answer: stack", || Reading(stack(answering())));

    rows.of("models: bare", in_turn, || Reading(answering()));
    rows.of("models: retry", in_turn, || Reading(RetryLayer::default().layer(answering())));
    rows.of("models: limit", in_turn, || Reading(limit().layer(answering())));
    rows.of("models: concurrency", in_turn, || Reading(AdaptiveConcurrencyLayer::new().layer(answering())));
    rows.of("models: breaker", in_turn, || Reading(CircuitBreakerLayer::default().layer(answering())));
    rows.of("models: retry + limit + breaker", in_turn, || Reading(three()));
    rows.of("models: stack", in_turn, || Reading(stack(answering())));
}
