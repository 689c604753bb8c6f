//! Time is reserved for the answer: quota goes to requests that can still be answered before their deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tower::{ServiceBuilder, ServiceExt};
use tower_gemini::Deadline;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::error::find;
use tower_gemini::rate_limit::{Limits, RateLimitLayer, RateLimitReason, RateLimited};
use tower_gemini::retry::{RetryLayer, RetryPolicy};
use tower_gemini::sim::{Algorithm, Quota, Simulator};

use super::world::*;

const RPM: u64 = 10;

fn server(latency: Duration, algorithm: Algorithm) -> Simulator {
    Simulator::builder()
        .head_latency(latency)
        .chunk_interval(Duration::ZERO)
        .quota(MODEL, Quota::new().requests_per_minute(RPM).algorithm(algorithm))
        .seed(7)
        .build()
        .unwrap()
}

/// Evenly spread requests with a deadline, whose callers go away when it has come. The share served.
async fn served<S: Asked>(service: &S, per_minute: u64, minutes: u64, deadline: u64) -> f64 {
    let start = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..per_minute * minutes {
        let at = start + Duration::from_secs(60).mul_f64(n as f64 / per_minute as f64);
        let service = service.clone();
        callers.spawn(async move {
            sleep_until(at).await;
            let mut request = prompt(10);
            request.extensions_mut().insert(Deadline::within(secs(deadline)));
            tokio::time::timeout(secs(deadline), service.ask(request)).await.unwrap_or(false)
        });
    }
    let results = callers.join_all().await;
    results.iter().filter(|ok| **ok).count() as f64 / results.len() as f64
}

/// Retry and classifier alone.
async fn plain(sim: &Simulator, per_minute: u64, minutes: u64, deadline: u64) -> f64 {
    let policy = RetryPolicy::builder().seed(1).build().unwrap();
    let service =
        ServiceBuilder::new().layer(RetryLayer::new(policy)).layer(ClassifyLayer::new()).service(sim.clone());
    served(&service, per_minute, minutes, deadline).await
}

#[tokio::test(start_paused = true)]
async fn twelve_requests_a_minute_on_ten_are_served_as_well_as_by_a_plain_retry() {
    for (latency, deadline) in [(2, 60), (5, 60), (15, 60), (2, 30), (5, 180)] {
        for (name, algorithm) in algorithms().into_iter().take(3) {
            let sim = || server(secs(latency), algorithm);
            let retry = sim();
            let plain = plain(&retry, 12, 60, deadline).await;
            // A limit that is not configured is tried at each reset of the server's while requests are refused.
            for (known, limits, most) in
                [("known", Limits::new().requests_per_minute(RPM), 1.02), ("learnt", Limits::new(), 1.2)]
            {
                let sim = sim();
                let service = stack(&sim, RateLimitLayer::new(limits).unwrap());
                let ours = served(&service, 12, 60, deadline).await;
                let each = sim.call_count() as f64 / (ours * 720.0);
                println!(
                    "{latency} s, deadline {deadline} s, {name}, {known}: {ours:.3} at {each:.3}, plain {plain:.3} at {:.3}",
                    retry.call_count() as f64 / (plain * 720.0)
                );
                // A token bucket gives a plain retry ten more in the first minute, and counts no guard band.
                let bound = if name == "token bucket" { 0.02 } else { 0.01 };
                assert!(ours >= plain - bound, "{latency} {deadline} {name} {known}: {ours}, {plain}");
                assert!(each <= most, "{each}");
            }
        }
    }
}

/// A short crowd that all can be served is not thinned out.
#[tokio::test(start_paused = true)]
async fn where_there_is_room_for_all_nobody_is_refused() {
    let sim = server(secs(4), Algorithm::SlidingWindow);
    let service = stack(&sim, RateLimitLayer::new(Limits::new().requests_per_minute(RPM)).unwrap());
    // Teaches what an answer takes.
    assert_eq!(served(&service, 12, 3, 300).await, 1.0);
    tokio::time::sleep(secs(300)).await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..2 * RPM {
        let service = service.clone();
        callers.spawn(async move {
            let mut request = prompt(10);
            request.extensions_mut().insert(Deadline::within(secs(66)));
            service.ask(request).await
        });
    }
    assert!(callers.join_all().await.into_iter().all(|ok| ok));
}

/// The model becomes slower than any deadline, and quick again.
#[tokio::test(start_paused = true)]
async fn an_estimate_that_is_out_of_date_does_not_keep_itself_up() {
    use tower_gemini::sim::{Fault, Rule};
    let sim = server(secs(2), Algorithm::SlidingWindow);
    let service = stack(&sim, RateLimitLayer::new(Limits::new().requests_per_minute(RPM)).unwrap());
    assert!(served(&service, 12, 10, 60).await > 0.8);
    sim.push(Rule::new(Fault::slow(secs(600)))).unwrap();
    assert_eq!(served(&service, 12, 10, 20).await, 0.0);
    sim.clear_rules();
    // Deadlines that are shorter than what was learnt meanwhile.
    let later = served(&service, 12, 20, 20).await;
    println!("{later}");
    assert!(later > 0.75, "{later}");
}

#[tokio::test(start_paused = true)]
async fn one_that_would_be_answered_too_late_is_refused_at_once_and_for_good() {
    let sim = server(secs(6), Algorithm::SlidingWindow);
    let layer = RateLimitLayer::new(Limits::new().requests_per_minute(RPM)).unwrap();
    let service = stack(&sim, layer);
    assert_eq!(served(&service, 12, 2, 300).await, 1.0);
    tokio::time::sleep(secs(120)).await;
    let ask = |deadline| {
        let mut request = prompt(10);
        request.extensions_mut().insert(Deadline::within(secs(deadline)));
        tokio::spawn(service.clone().oneshot(request))
    };
    let _first: Vec<_> = (0..RPM).map(|_| ask(300)).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let others = [ask(300), ask(300)];
    tokio::time::sleep(Duration::from_millis(1)).await;
    let start = Instant::now();
    // Admitted after 60.5 s, it would have 3.5 s for an answer that takes six.
    let error = ask(64).await.unwrap().err().unwrap();
    assert_eq!((Instant::now() - start), Duration::ZERO);
    let limited = find::<RateLimited>(error.as_ref()).unwrap();
    assert_eq!(limited.why(), RateLimitReason::Deadline);
    assert!(limited.until().is_some());
    assert!(ask(80).await.unwrap().is_ok());
    for other in others {
        assert!(other.await.unwrap().is_ok());
    }
}
