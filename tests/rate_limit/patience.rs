//! `max_wait` bounds all that one request waits for quota: in the queue and in the retry layer, over all its attempts.

use std::time::Duration;

use tokio::time::Instant;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_gemini::Deadline;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::error::find;
use tower_gemini::rate_limit::{
    AdmissionMode, Limits, RateLimitBuilder, RateLimitLayer, RateLimitReason, RateLimited,
};
use tower_gemini::retry::{Attempts, GaveUp, RetryLayer, RetryPolicy};
use tower_gemini::sim::{Fault, Quota, Rule, Simulator};

use super::world::*;

const MOST: u64 = 15;

/// Answers at once.
fn server(quota: Quota) -> Simulator {
    Simulator::builder().head_latency(Duration::ZERO).quota(MODEL, quota).seed(7).build().unwrap()
}

fn over(
    sim: &Simulator,
    limit: RateLimitBuilder,
) -> impl Service<
    http::Request<Body>,
    Response = http::Response<impl http_body::Body + use<>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ use<> {
    let policy = RetryPolicy::builder().without_deadline().seed(1).build().unwrap();
    ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(limit.max_wait(secs(MOST)).build().unwrap())
        .layer(ClassifyLayer::new().watch())
        .service(sim.clone())
}

fn one_a_minute() -> RateLimitBuilder {
    RateLimitLayer::builder().limits(Limits::new().requests_per_minute(1))
}

fn within(seconds: u64) -> http::Request<Body> {
    let mut request = prompt(10);
    request.extensions_mut().insert(Deadline::within(secs(seconds)));
    request
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_a_minute_is_not_waited_for() {
    for (request, name) in
        [(prompt(10), "no deadline"), (within(300), "a later deadline"), (within(10), "an earlier one")]
    {
        let sim = server(Quota::new());
        sim.push(Rule::new(Fault::rate_limited().with_retry_in(secs(60)))).unwrap();
        let start = Instant::now();
        let response = over(&sim, RateLimitLayer::builder()).oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), (Instant::now() - start)), (429, Duration::ZERO), "{name}");
        assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::ServerDelay), "{name}");
        assert_eq!(sim.call_count(), 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_window_of_ones_own_is_not_waited_for_by_the_retry_layer_either() {
    for mode in [AdmissionMode::Wait, AdmissionMode::Reject] {
        let sim = server(Quota::new());
        let service = over(&sim, one_a_minute().mode(mode));
        service.clone().oneshot(prompt(10)).await.unwrap();
        for request in [prompt(10), within(300)] {
            let start = Instant::now();
            let error = service.clone().oneshot(request).await.err().unwrap();
            assert_eq!((Instant::now() - start), Duration::ZERO, "{mode:?}");
            let limited = find::<RateLimited>(error.as_ref()).unwrap();
            let why =
                if mode == AdmissionMode::Wait { RateLimitReason::MaxWait } else { RateLimitReason::Full };
            assert_eq!(limited.why(), why);
            assert_eq!(
                limited.until().unwrap() - start,
                Duration::from_millis(60_500),
                "it is said all the same"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_soon_enough_is_waited_for() {
    for mode in [AdmissionMode::Wait, AdmissionMode::Reject] {
        let sim = server(Quota::new());
        let service = over(&sim, one_a_minute().mode(mode));
        service.clone().oneshot(prompt(10)).await.unwrap();
        tokio::time::sleep(secs(50)).await;
        let start = Instant::now();
        assert!(service.oneshot(prompt(10)).await.unwrap().status().is_success());
        assert!((Instant::now() - start) < secs(11), "{mode:?}: {:?}", (Instant::now() - start));
    }
}

/// 429s of four seconds each: what each wait takes is gone for the next.
#[tokio::test(start_paused = true)]
async fn the_waits_of_all_attempts_add_up() {
    let sim = server(Quota::new());
    sim.push(Rule::new(Fault::rate_limited().with_retry_in(Duration::from_millis(4_500)))).unwrap();
    let start = Instant::now();
    let response = over(&sim, RateLimitLayer::builder().learn(false)).oneshot(prompt(10)).await.unwrap();
    let attempts = Attempts::of(&response);
    assert_eq!((response.status().as_u16(), attempts.gave_up()), (429, Some(GaveUp::ServerDelay)));
    assert!(attempts.made() >= 3, "{}", attempts.made());
    assert!(
        (Instant::now() - start) <= secs(MOST) && (Instant::now() - start) > secs(8),
        "{:?}",
        (Instant::now() - start)
    );
}

/// Ten seconds in the queue leave five for the delay that the server names.
#[tokio::test(start_paused = true)]
async fn the_queue_and_the_retry_layer_share_one_bound() {
    for (delay, attempts, waited) in [(6_500, 1, 10_500), (3_500, 2, 15_000)] {
        let sim = server(Quota::new());
        let service = over(&sim, one_a_minute());
        service.clone().oneshot(prompt(10)).await.unwrap();
        tokio::time::sleep(secs(50)).await;
        sim.push(Rule::new(Fault::rate_limited().with_retry_in(Duration::from_millis(delay)))).unwrap();
        let start = Instant::now();
        let ended = service.oneshot(prompt(10)).await;
        let elapsed = Instant::now() - start;
        // The second attempt would wait for a whole window in the queue: it is refused at once.
        if attempts == 1 {
            assert_eq!(Attempts::of(&ended.unwrap()).made(), 1);
        } else {
            let error = ended.err().unwrap();
            assert_eq!(find::<RateLimited>(error.as_ref()).unwrap().why(), RateLimitReason::MaxWait);
        }
        assert_eq!(sim.call_count(), 2);
        assert!(elapsed <= Duration::from_millis(waited), "{delay}: {elapsed:?}");
        assert!(elapsed >= Duration::from_millis(10_500), "{delay}: {elapsed:?}");
    }
}

/// Of several callers, with several 429s: whoever fails has waited no longer.
#[tokio::test(start_paused = true)]
async fn no_caller_of_a_crowd_waits_longer() {
    for deadline in [None, Some(12), Some(100)] {
        let sim = server(Quota::new().requests_per_minute(20));
        let service = over(&sim, RateLimitLayer::builder());
        let mut callers = tokio::task::JoinSet::new();
        for n in 0..100_u64 {
            let service = service.clone();
            callers.spawn(async move {
                tokio::time::sleep(Duration::from_millis(1_300 * n)).await;
                let (start, request) = (Instant::now(), deadline.map_or_else(|| prompt(10), within));
                let ended = service.oneshot(request).await;
                (ended.is_ok_and(|response| response.status().is_success()), (Instant::now() - start))
            });
        }
        let ends = callers.join_all().await;
        let most = secs(deadline.unwrap_or(MOST).min(MOST));
        assert!(ends.iter().all(|(_, waited)| *waited <= most), "{deadline:?}: {ends:?}");
        let served = ends.iter().filter(|(ok, _)| *ok).count();
        println!("{deadline:?}: {served}");
        assert!(served >= 40, "{deadline:?}: {served}");
    }
}

/// A 503 is no wait for quota: its backoff is not counted.
#[tokio::test(start_paused = true)]
async fn other_waits_are_not_counted() {
    let sim = server(Quota::new());
    sim.push(Rule::new(Fault::overloaded().with_retry_after(secs(20))).on_call(1)).unwrap();
    let start = Instant::now();
    let response = over(&sim, RateLimitLayer::builder()).oneshot(prompt(10)).await.unwrap();
    assert!(response.status().is_success() && (Instant::now() - start) >= secs(20));
}
