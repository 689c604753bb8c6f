//! What the layers cost, beside the layers that one would pick otherwise.
//!
//! Prints one table: nanoseconds of a call (least and median of many passes, and the median over the bare service),
//! allocations, bytes, the future's size, and calls in a second on two threads with 64 tasks. Each call is made on a
//! service that drops the request and answers at once, with a request of 2 KiB and eight headers. Rows take turns in
//! short passes, so that a drift of the machine hits them alike. Quote ratios: times differ between machines.
//! Clients of reqwest's types are called with a `reqwest::Request`, and each is compared with itself without its retry.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml`, from the root of the crate.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a bench reads the real clock")]

use std::time::Duration;

use tower::Layer;
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::retry::RetryLayer;
use tower_gemini::stack::GeminiStack;
use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};
use tower_resilience_ratelimiter::WindowType;

#[path = "../../floors/mod.rs"]
mod floors;
#[path = "../../../tests/support/measured.rs"]
mod measured;

mod clients;
mod harness;
mod peers;
mod services;

use floors::{Bare, Body, BreakerFloor, Counting, Floor, Reading};
use harness::Row;
use services::RetryFloor;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    // tower's Timeout makes its timer at once.
    let _entered = runtime.enter();
    let mut rows = rows();
    harness::run(&mut rows, &runtime);
    print(&rows);
}

fn rows() -> Vec<Row> {
    let plenty = || Limits::new().requests_per_minute(1_000_000_000);
    let limit = |limits| RateLimitLayer::new(limits).expect("valid limits");
    let two = || limit(plenty().input_tokens_per_minute(1_000_000_000_000));
    let breaker = CircuitBreakerLayer::default;
    let three = || RetryLayer::default().layer(two().layer(breaker().layer(Bare)));
    let stack = || GeminiStack::new().rate_limit(two()).layer(Bare);
    let open = breaker();
    open.handle().force_open(&tower_gemini::Target::of(&measured::request()).key());

    let group = "the service alone";
    let mut rows = vec![
        Row::new(group, "bare service", Bare),
        Row::new(group, "bare service, body read", Reading(Bare)),
    ];

    let group = "retry";
    rows.extend([
        Row::new(group, "floor", RetryFloor(Bare)),
        Row::new(group, "tower Retry, counting", tower::retry::RetryLayer::new(Counting(4)).layer(Bare)),
        Row::new(group, "tower-resilience", peers::resilience_retry()),
        Row::new(group, "tower-gemini", RetryLayer::default().layer(Bare)),
    ]);

    let group = "rate limit";
    rows.extend([
        Row::new(group, "floor, requests and tokens", Floor::new(Bare)),
        Row::alone(group, "tower RateLimit (not Clone)", peers::tower_rate_limit()),
        Row::new(group, "governor, check", peers::governor_check()),
        Row::new(group, "governor, until_ready", peers::governor_until_ready()),
        Row::new(group, "leaky-bucket, try_acquire", peers::leaky_bucket_try()),
        Row::new(group, "leaky-bucket, acquire_one", peers::leaky_bucket_acquire()),
        Row::new(group, "tower-resilience, fixed window", peers::resilience_limit(WindowType::Fixed)),
        Row::new(group, "tower-resilience, sliding log", peers::resilience_limit(WindowType::SlidingLog)),
        Row::new(group, "tower-gemini, requests", limit(plenty()).layer(Bare)),
        Row::new(group, "tower-gemini, requests and tokens", two().layer(Bare)),
        Row::new(
            group,
            "tower-gemini, and requests per day",
            limit(plenty().input_tokens_per_minute(1_000_000_000_000).requests_per_day(1_000_000_000))
                .layer(Bare),
        ),
    ]);

    let group = "circuit breaker, closed";
    rows.extend([
        Row::new(group, "floor, head only", BreakerFloor::new(Bare)),
        Row::new(group, "failsafe", peers::failsafe_breaker()),
        Row::new(group, "recloser", peers::recloser_breaker()),
        Row::new(group, "tower-resilience, count window", peers::resilience_breaker()),
        Row::new(group, "tower-gemini", breaker().layer(Bare)),
        Row::new(group, "tower-gemini, body read", Reading(breaker().layer(Bare))).reading(),
    ]);

    let group = "circuit breaker, open";
    rows.extend([
        Row::new(group, "floor", BreakerFloor::open(Bare)),
        Row::new(group, "failsafe", peers::failsafe_breaker_open()),
        Row::new(group, "recloser", peers::recloser_breaker_open()),
        Row::new(group, "tower-resilience", peers::resilience_breaker_open()),
        Row::new(group, "tower-gemini", open.layer(Bare)),
    ]);

    let group = "the other layers";
    rows.extend([
        Row::new(group, "tower ConcurrencyLimit", tower::limit::ConcurrencyLimitLayer::new(128).layer(Bare)),
        Row::new(group, "tower-gemini concurrency, no limit", AdaptiveConcurrencyLayer::new().layer(Bare)),
        Row::new(group, "tower-gemini concurrency, limited", limited().layer(Bare)),
        Row::new(
            group,
            "tower Timeout",
            tower::timeout::TimeoutLayer::new(Duration::from_secs(60)).layer(Bare),
        ),
        Row::new(
            group,
            "tower-gemini timeout, server not told",
            TimeoutLayer::builder().without_server_timeout().build().expect("the defaults").layer(Bare),
        ),
        Row::new(group, "tower-gemini timeout", TimeoutLayer::new().layer(Bare)),
        Row::new(group, "tower-gemini deadline", DeadlineLayer::default().layer(Bare)),
        Row::new(group, "tower-gemini classify", ClassifyLayer::new().layer(Bare)),
        Row::new(group, "tower-gemini classify, watching", ClassifyLayer::new().watch().layer(Bare)),
    ]);

    let group = "a retry in reqwest's types";
    let (chain, adapter) =
        ("reqwest-middleware, nothing but the end", "tower-gemini's adapter, nothing in it");
    rows.extend([
        Row::reqwest(group, chain, chain, clients::middleware_bare()),
        Row::reqwest(group, "reqwest-middleware, reqwest-retry", chain, clients::middleware_retry()),
        Row::reqwest(group, adapter, adapter, clients::adapter_bare()),
        Row::reqwest(group, "tower-gemini's adapter, retry", adapter, clients::adapter_retry()),
    ]);

    let group = "stacks";
    rows.extend([
        Row::new(group, "floor: retry, limit, breaker", RetryFloor(Floor::new(BreakerFloor::new(Bare)))),
        Row::new(group, "tower-resilience: retry, breaker, limit", peers::resilience_stack()),
        Row::new(group, "tower-gemini: retry, limit, breaker", three()),
        Row::new(group, "tower-gemini: the three, body read", Reading(three())).reading(),
        Row::new(group, "tower-gemini: GeminiStack", stack()),
        Row::new(group, "tower-gemini: GeminiStack, body read", Reading(stack())).reading(),
    ]);
    rows
}

/// With a limit that was learnt from a call that came too late, and room under it.
fn limited() -> AdaptiveConcurrencyLayer {
    let layer = AdaptiveConcurrencyLayer::builder().floor(128.0).build().expect("a valid floor");
    // A timeout counts in full once the key has had ten answers, and where it took longer than they did.
    let answers = (0..12).map(|_| http::StatusCode::OK).chain((0..20).map(|_| http::StatusCode::GATEWAY_TIMEOUT));
    for status in answers {
        let mut service = layer.layer(tower::service_fn(move |_: http::Request<Body>| {
            if status != http::StatusCode::OK {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            let mut response = http::Response::new(Body::default());
            *response.status_mut() = status;
            std::future::ready(Ok::<_, tower_gemini::BoxError>(response))
        }));
        floors::one(&mut service, measured::request());
        if layer.handle().all().first().is_some_and(|(_, state)| state.limit().is_some()) {
            return layer;
        }
    }
    panic!("timeouts start the limit");
}

fn print(rows: &[Row]) {
    println!("| row | min | median | over bare | allocs | bytes | future, B | 2 threads, M calls/s | best |");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut group = "";
    for row in rows {
        if row.group != group {
            group = row.group;
            println!("| **{group}** | | | | | | | | |");
        }
        let base = rows.iter().find(|base| base.name == row.base).expect("the base is a row");
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {} | {} | {} | {} |",
            row.name,
            row.min(),
            row.median(),
            row.over(base),
            row.allocs.0,
            row.allocs.1,
            row.future,
            row.rates().map_or("– | –".into(), |(median, best)| format!("{median:.1} | {best:.1}")),
        );
    }
}
