//! Many at once: threads, cancellations, fairness.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_gemini::rate_limit::{AdmissionMode, InputTokens, Limits, RateLimitLayer};
use tower_gemini::sim::Quota;
use tower_gemini::{Deadline, KeyLabel};

use crate::world::*;

/// Counts what comes through.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicU64>);

impl Service<Request<Body>> for Counting {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Ready<Result<Self::Response, BoxError>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Request<Body>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Response::new(Body::default())))
    }
}

/// In real time, but nobody sleeps: what does not fit into the first window is rejected.
#[test]
fn threads_that_share_a_key_lose_no_permit_and_win_none() {
    for (limits, tokens, expected) in [
        (Limits::new().requests_per_minute(5_000), 0, 5_000),
        (Limits::new().requests_per_minute(1_000_000).input_tokens_per_minute(70_001), 7, 10_000),
        (Limits::new().requests_per_minute(1_000_000).requests_per_day(3_333), 1, 3_333),
    ] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _in_runtime = runtime.enter();
        let layer = RateLimitLayer::builder().limits(limits).mode(AdmissionMode::Reject).build().unwrap();
        let through = Counting::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mut service = layer.layer(through.clone());
                let runtime = &runtime;
                scope.spawn(move || {
                    let _in_runtime = runtime.enter();
                    let mut cx = Context::from_waker(std::task::Waker::noop());
                    for _ in 0..5_000 {
                        let mut request = prompt(1);
                        request.extensions_mut().insert(InputTokens(tokens));
                        assert!(service.poll_ready(&mut cx).is_ready());
                        let mut call = std::pin::pin!(service.call(request));
                        assert!(call.as_mut().poll(&mut cx).is_ready(), "it is granted or rejected at once");
                    }
                });
            }
        });
        assert_eq!(through.0.load(Ordering::Relaxed), expected);
        let status = &layer.handle().status()[0];
        assert_eq!((status.admitted, status.settled, status.in_flight), (expected, expected, 0));
    }
}

/// Waiters of two threads are woken, cancelled and admitted while the limit is raised again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_waiter_is_forgotten_while_limits_change() {
    let layer = RateLimitLayer::new(Limits::new().requests_per_minute(1)).unwrap();
    let through = Counting::default();
    let mut callers = JoinSet::new();
    let mut victims = JoinSet::new();
    for n in 0..2_000 {
        let call = layer.layer(through.clone()).oneshot(prompt(1));
        if n % 4 == 3 {
            victims.spawn(call);
        } else {
            callers.spawn(call);
        }
    }
    let handle = layer.handle();
    for limit in 1..=40 {
        handle.set_limits(Limits::new().requests_per_minute(limit * 50)).unwrap();
        tokio::task::yield_now().await;
        if limit == 5 {
            victims.abort_all();
        }
    }
    let mut ended = 0;
    while victims.join_next().await.is_some() {
        ended += 1;
    }
    let answered = callers.join_all().await;
    assert_eq!((ended, answered.len()), (500, 1_500));
    assert!(answered.iter().all(Result::is_ok));
    let status = &handle.status()[0];
    assert_eq!((status.queued, status.in_flight), (0, 0));
    assert_eq!(status.admitted, status.settled + status.not_sent, "conservation");
    assert_eq!(status.settled, through.0.load(Ordering::Relaxed));
}

/// S11: half of the callers go away at a random instant, waiting, in flight or reading.
#[tokio::test(start_paused = true)]
async fn a_storm_of_cancellations_costs_the_others_nothing() {
    for seed in 0..5_u64 {
        let sim = simulator(Quota::new().requests_per_minute(60));
        let layer = RateLimitLayer::new(Limits::new().requests_per_minute(60)).unwrap();
        let service = stack(&sim, layer.clone());
        let start = Instant::now();
        let mut stay = JoinSet::new();
        let mut leave = Vec::new();
        let mut draw = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut random = |below: u64| {
            draw ^= draw << 13;
            draw ^= draw >> 7;
            draw ^= draw << 17;
            draw % below
        };
        for n in 0..600 {
            let service = service.clone();
            let call = async move { service.oneshot(prompt(10)).await.ok()?.read().await.0.then_some(()) };
            if n % 2 == 0 {
                stay.spawn(call);
            } else {
                // All of them before the second window opens, most of them in the queue.
                leave.push((random(60_000), tokio::spawn(call)));
            }
        }
        leave.sort_by_key(|(at, _)| *at);
        for (at, task) in &leave {
            tokio::time::sleep_until(start + Duration::from_millis(*at)).await;
            task.abort();
        }
        assert!(stay.join_all().await.iter().all(Option::is_some));
        let makespan = (Instant::now() - start).as_secs_f64();
        let status = &layer.handle().status()[0];
        assert_eq!((status.queued, status.in_flight, status.too_many), (0, 0, 0));
        assert_eq!(status.admitted, status.settled + status.not_sent, "conservation");
        assert_eq!(status.admitted - status.not_sent, sim.call_count(), "what was sent is what was charged");
        // 30 of those who stay are in the first window, and 270 in the next five.
        println!("seed {seed}: {makespan} s, {} calls", sim.call_count());
        assert!(makespan <= 5.0 * 60.5 + 2.0 + 0.001, "seed {seed}: {makespan}");
    }
}

/// S14: one tenant sends ten times as much as the other. The queue knows no tenants, so each has the share of what
/// it sends; a label each gives each a quota of its own.
#[tokio::test(start_paused = true)]
async fn shares_follow_the_demand_and_labels_part_the_tenants() {
    let sim = simulator(Quota::new());
    let layer = RateLimitLayer::new(Limits::new().requests_per_minute(60)).unwrap();
    let tenant = |label: Option<&'static str>, calls: usize, end: Instant| {
        let (sim, layer) = (sim.clone(), layer.clone());
        async move {
            let calls = (0..calls).map(|_| {
                let mut request = prompt(1);
                request.extensions_mut().insert(Deadline::at(end));
                if let Some(label) = label {
                    request.extensions_mut().insert(KeyLabel::new(label));
                }
                layer.layer(sim.clone()).oneshot(request)
            });
            let answers = futures_util::future::join_all(calls).await;
            answers.iter().filter(|answer| answer.is_ok()).count() as f64
        }
    };
    let in_five_minutes = || Instant::now() + secs(301);
    let (mut big, mut small) = (0.0, 0.0);
    let end = in_five_minutes();
    let rounds = (0..60).map(|_| async { tokio::join!(tenant(None, 10, end), tenant(None, 1, end)) });
    for (a, b) in futures_util::future::join_all(rounds).await {
        (big, small) = (big + a, small + b);
    }
    assert!((9.0..=11.0).contains(&(big / small)), "{big} to {small}");
    let end = in_five_minutes();
    let (a, b) = tokio::join!(tenant(Some("a"), 600, end), tenant(Some("b"), 60, end));
    println!("one quota: {big} to {small}; a quota each: {a} to {b}");
    assert_eq!((a, b), (300.0, 60.0));
}
