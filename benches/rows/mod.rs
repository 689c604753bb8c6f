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
use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};

use crate::floors::{Bare, Body, BreakerFloor, Counting, Floor, Reading, one};
use crate::measured::request;

mod services;
use services::{AnyBody, Clocked, Cloning, Copying, Prompting, limited, told_preflight};

/// Who is shown the list.
pub(crate) trait Rows {
    /// One row. What is not wanted need not be made.
    fn row<S>(&mut self, name: &'static str, service: impl FnOnce() -> S)
    where
        S: Service<Request<Body>> + Clone + 'static;
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
}
