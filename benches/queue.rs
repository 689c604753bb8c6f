//! What waiting costs: many callers at once on a quota of 1,000 a minute.
//!
//! `cargo bench --bench queue` prints two tables. In the first, CPU per waiter counts everything, in tokio's paused
//! time: the task, the wait, the wake-ups, the call. In the second each operation of the queue is timed by itself, for
//! queues of growing length; no column may grow with it.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a bench reads the real clock"
)]

use std::future::{Ready, ready};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use allocation_counter::measure;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::buffer::Buffer;
use tower::limit::RateLimitLayer as TowerRateLimitLayer;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};

type Body = Full<Bytes>;

const PASSES: usize = 5;
const PER_MINUTE: u64 = 1_000;

#[derive(Clone)]
struct Bare;

impl Service<Request<Body>> for Bare {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Body>, BoxError>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Body::default())))
    }
}

fn request() -> Request<Body> {
    Request::post("http://127.0.0.1/v1beta/models/gemini-9-flash:generateContent")
        .body(Body::default())
        .unwrap()
}

fn layer() -> RateLimitLayer {
    RateLimitLayer::new(Limits::new().requests_per_minute(PER_MINUTE)).unwrap()
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Microseconds of CPU per caller, and when the last one was through.
fn crowd<S, F>(
    callers: usize,
    service: impl FnOnce() -> S,
    call: impl Fn(&S, Request<Body>) -> F,
) -> (f64, f64)
where
    F: Future<Output = bool> + Send + 'static,
{
    paused().block_on(async {
        let service = service();
        let began = tokio::time::Instant::now();
        let start = Instant::now();
        let tasks: Vec<_> = (0..callers).map(|_| tokio::spawn(call(&service, request()))).collect();
        for task in tasks {
            assert!(task.await.unwrap());
        }
        let cpu = start.elapsed().as_secs_f64() * 1e6 / callers as f64;
        (cpu, (tokio::time::Instant::now() - began).as_secs_f64())
    })
}

fn main() {
    println!("{:<34} {:>8} {:>12} {:>16}", "1,000 a minute", "callers", "µs/caller", "last one, s");
    for callers in [1_000, 10_000, 100_000] {
        row("this crate", callers, || {
            crowd(
                callers,
                || layer().layer(Bare),
                |service, request| {
                    let call = service.clone().oneshot(request);
                    async move { call.await.is_ok() }
                },
            )
        });
        row("tower's Buffer over RateLimit", callers, || {
            let service = || {
                let inner = TowerRateLimitLayer::new(PER_MINUTE, Duration::from_secs(60)).layer(Bare);
                Buffer::new(inner, 1_024)
            };
            crowd(callers, service, |service, request| {
                let mut service = service.clone();
                async move { service.ready().await.unwrap().call(request).await.is_ok() }
            })
        });
        row("a task that sleeps to its turn", callers, || {
            let turn = std::cell::Cell::new(0);
            crowd(
                callers,
                || (),
                |(), request| {
                    let minute = turn.replace(turn.get() + 1) / PER_MINUTE;
                    async move {
                        tokio::time::sleep(Duration::from_secs(60 * minute)).await;
                        Bare.oneshot(request).await.is_ok()
                    }
                },
            )
        });
    }
    println!(
        "\n{:<10} {:>10} {:>12} {:>12} {:>14} {:>14}",
        "waiting", "join, ns", "look, ns", "cancel, ns", "answer, ns", "bytes/waiter"
    );
    for waiting in [1_000, 10_000, 100_000] {
        let mut passes: Vec<_> = (0..PASSES).map(|_| operations(waiting)).collect();
        let mut median = |of: fn(&Operations) -> f64| {
            passes.sort_by(|a, b| of(a).total_cmp(&of(b)));
            of(&passes[PASSES / 2])
        };
        println!(
            "{waiting:<10} {:>10.0} {:>12.0} {:>12.0} {:>14.0} {:>14.0}",
            median(|o| o.join),
            median(|o| o.look),
            median(|o| o.cancel),
            median(|o| o.answer),
            median(|o| o.bytes)
        );
    }
}

fn row(name: &str, callers: usize, run: impl Fn() -> (f64, f64)) {
    let mut passes: Vec<_> = (0..PASSES).map(|_| run()).collect();
    passes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (cpu, last) = passes[PASSES / 2];
    println!("{name:<34} {callers:>8} {cpu:>12.2} {last:>16.1}");
}

struct Operations {
    join: f64,
    look: f64,
    cancel: f64,
    answer: f64,
    bytes: f64,
}

/// A queue of so many is built, half of it goes away in a random order, and the rest is let through.
fn operations(waiting: usize) -> Operations {
    let runtime = paused();
    let _in_runtime = runtime.enter();
    let layer = layer();
    let mut service = layer.layer(Bare);
    let mut cx = Context::from_waker(Waker::noop());
    // The quota is used up first.
    for _ in 0..PER_MINUTE {
        assert!(std::pin::pin!(service.call(request())).poll(&mut cx).is_ready());
    }
    let mut requests: Vec<_> = (0..waiting).map(|_| request()).collect();
    let mut calls = Vec::with_capacity(waiting);
    let mut join = 0.0;
    let memory = measure(|| {
        let start = Instant::now();
        calls.extend(requests.drain(..).map(|request| Some(Box::pin(service.call(request)))));
        join = start.elapsed().as_nanos() as f64 / waiting as f64;
    });
    // The boxes are this bench's own; what is in them is the caller's future, and counts.
    let start = Instant::now();
    for call in calls.iter_mut().flatten() {
        assert!(call.as_mut().poll(&mut cx).is_pending());
    }
    let look = start.elapsed().as_nanos() as f64 / waiting as f64;
    let mut draw = 88_172_645_463_325_252_u64;
    let mut order: Vec<_> = (0..waiting).collect();
    for n in (1..waiting).rev() {
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        order.swap(n, draw as usize % (n + 1));
    }
    let victims = &order[..waiting / 2];
    let start = Instant::now();
    victims.iter().for_each(|n| drop(calls[*n].take()));
    let cancel = start.elapsed().as_nanos() as f64 / victims.len() as f64;
    // All that are left at once.
    let start = Instant::now();
    layer.handle().set_limits(Limits::new()).unwrap();
    for call in calls.iter_mut().flatten() {
        assert!(call.as_mut().poll(&mut cx).is_ready());
    }
    let answer = start.elapsed().as_nanos() as f64 / (waiting - victims.len()) as f64;
    Operations { join, look, cancel, answer, bytes: memory.bytes_max as f64 / waiting as f64 }
}
