//! What a second thread adds where both share a layer's state.
//!
//! `cargo bench --bench threads --all-features` prints calls in a second of one thread and of two, which call clones of one
//! service: for one key, and for a key each. Requests are empty and made outside the timed part, so that the allocator,
//! which all share as well, has little to do. Passes take turns; each figure is the best of them, since whatever else the
//! machine does can only make a pass slower.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a bench reads the real clock"
)]

use std::sync::{Arc, Barrier};
use std::time::Instant;

use http::Request;
use tower::{Layer, Service};
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::retry::RetryLayer;
use tower_gemini::stack::GeminiStack;

#[allow(dead_code, reason = "the other benches use more of it")]
mod floors;
use floors::{Bare, Body, one};

const PASSES: usize = 101;
/// Short, so that some passes are disturbed by nothing.
const CALLS: usize = 4_000;

fn main() {
    let limit = || {
        let limits =
            Limits::new().requests_per_minute(1_000_000_000).input_tokens_per_minute(1_000_000_000_000);
        RateLimitLayer::new(limits).unwrap()
    };
    let breaker = CircuitBreakerLayer::default;
    let mut rows = [
        Row::new("bare service", || Bare),
        Row::new("retry", || RetryLayer::default().layer(Bare)),
        Row::new("rate limit", || limit().layer(Bare)),
        Row::new("adaptive concurrency", || AdaptiveConcurrencyLayer::new().layer(Bare)),
        Row::new("breaker", || breaker().layer(Bare)),
        Row::new("retry + limit + breaker", || {
            RetryLayer::default().layer(limit().layer(breaker().layer(Bare)))
        }),
        Row::new("the whole stack", || GeminiStack::new().rate_limit(limit()).layer(Bare)),
    ];
    for _ in 0..PASSES {
        for row in &mut rows {
            for (nth, best) in row.best.iter_mut().enumerate() {
                *best = best.max((row.pass)(1 + nth.min(1), nth != 1));
            }
        }
    }
    println!("{:<26} {:>10} {:>12} {:>12}", "M calls/s", "one thread", "two, one key", "two, a key each");
    for Row { name, best: [one, shared, apart], .. } in &rows {
        let times = |two: &f64| format!("{two:.2} ({:.2} x)", two / one);
        println!("{name:<26} {one:>10.2} {:>14} {:>14}", times(shared), times(apart));
    }
}

struct Row {
    name: &'static str,
    /// Of so many threads, with a key each or one for all: millions of calls a second.
    pass: Box<dyn Fn(usize, bool) -> f64>,
    best: [f64; 3],
}

impl Row {
    fn new<S>(name: &'static str, service: impl FnOnce() -> S) -> Self
    where
        S: Service<Request<Body>> + Clone + Send + 'static,
    {
        let service = service();
        let pass = move |threads: usize, apart: bool| {
            let barrier = Arc::new(Barrier::new(threads));
            let workers: Vec<_> = (0..threads)
                .map(|nth| {
                    let (mut service, barrier) = (service.clone(), Arc::clone(&barrier));
                    let model = if apart { nth } else { 0 };
                    std::thread::spawn(move || {
                        let uri = format!("/v1beta/models/gemini-{model}:generateContent");
                        let request = || Request::post(&uri).body(Body::default()).unwrap();
                        (0..100).for_each(|_| one(&mut service, request()));
                        let requests: Vec<_> = (0..CALLS).map(|_| request()).collect();
                        barrier.wait();
                        let start = Instant::now();
                        requests.into_iter().for_each(|request| one(&mut service, request));
                        (start, Instant::now())
                    })
                })
                .collect();
            let spans: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
            let start = spans.iter().map(|span| span.0).min().unwrap();
            let end = spans.iter().map(|span| span.1).max().unwrap();
            (threads * CALLS) as f64 / (end - start).as_secs_f64() / 1e6
        };
        Self { name, pass: Box::new(pass), best: [0.0; 3] }
    }
}
