//! Limits that a 429 has taught, and whether they still hold: what it costs to ask, and how soon a change is found.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tower_gemini::Deadline;
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::sim::{Algorithm, Quota, Simulator};

use super::world::*;

fn rpm(limit: u64, algorithm: &Algorithm) -> Quota {
    Quota::new().requests_per_minute(limit).algorithm(*algorithm)
}

/// So many requests a minute, one as far from the next as the other. When each came, and whether it was answered.
async fn steady<S: Asked>(service: &S, per_minute: u64, time: u64, deadline: u64) -> Vec<(Duration, bool)> {
    let start = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..per_minute * time / 60 {
        let at = Duration::from_secs(60).mul_f64(n as f64 / per_minute as f64);
        let service = service.clone();
        callers.spawn(async move {
            sleep_until(start + at).await;
            let mut request = prompt(10);
            request.extensions_mut().insert(Deadline::within(secs(deadline)));
            let asked = tokio::time::timeout(secs(deadline), service.ask(request));
            (at, asked.await.unwrap_or(false))
        });
    }
    callers.join_all().await
}

/// Fewer where there are many calls, which take long without optimisation.
fn some_algorithms(limit: u64) -> Vec<(String, Algorithm)> {
    algorithms().into_iter().step_by(if limit < 1_000 { 1 } else { 5 }).collect()
}

fn share(results: &[(Duration, bool)], from: u64) -> f64 {
    let counted: Vec<_> = results.iter().filter(|(at, _)| *at >= secs(from)).collect();
    counted.iter().filter(|(_, ok)| *ok).count() as f64 / counted.len() as f64
}

/// 429s from this second on.
fn refused(sim: &Simulator, from: u64) -> usize {
    let calls = sim.calls();
    calls.iter().filter(|call| call.at() >= secs(from) && call.status().is_some_and(|s| s == 429)).count()
}

fn raise(sim: &Simulator, after: u64, quota: Quota) {
    let (sim, at) = (sim.clone(), Instant::now() + secs(after));
    tokio::spawn(async move {
        sleep_until(at).await;
        sim.set_quota(MODEL, Some(quota));
    });
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_was_raised_five_times_serves_all() {
    for (limit, deadline) in [(10, 300), (60, 120), (1_000, 300)] {
        for (name, algorithm) in some_algorithms(limit) {
            let sim = simulator(rpm(limit, &algorithm));
            let service = stack(&sim, RateLimitLayer::default());
            // Twenty minutes of a tenth more than is allowed, so that the limit is learnt and tried, then four times as much.
            let first =
                steady(&service, limit * 11 / 10, if limit < 1_000 { 1200 } else { 300 }, deadline).await;
            let (old, at) = (share(&first, 120), sim.call_count());
            sim.set_quota(MODEL, Some(rpm(5 * limit, &algorithm)));
            let second = steady(&service, limit * 4, if limit < 1_000 { 1200 } else { 420 }, deadline).await;
            let (new, cost) = (share(&second, 0), (sim.call_count() - at) as f64 / second.len() as f64);
            println!("{limit} {name}: {old:.3} before, then {new:.4} at {cost:.3} calls each");
            assert!(old >= 0.85, "{limit} {name}: {old}");
            // What is lost is lost before the next trial, which weighs more where the time after it is shorter.
            let least = if limit < 1_000 { 0.99 } else { 0.98 };
            assert!(new >= least, "{limit} {name}: {new}");
            assert!(cost <= 1.06, "{limit} {name}: {cost}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_holds_costs_few_429s_and_no_caller_much_time() {
    for (limit, most) in [(10, 25), (60, 120), (1_000, 400)] {
        for (name, algorithm) in some_algorithms(limit) {
            let sim = simulator(rpm(limit, &algorithm));
            let service = stack(&sim, RateLimitLayer::default());
            let time = if limit < 1_000 { 3600 } else { 900 };
            let results = steady(&service, (limit * 21).div_ceil(20), time, 600).await;
            let (served, refused) = (share(&results, 0), refused(&sim, 60));
            println!("{limit} {name}: {served:.4}, {refused} refused in an hour");
            assert!(served >= 0.94, "{limit} {name}: {served}");
            assert!(refused <= most, "{limit} {name}: {refused}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_lowered_is_found_at_its_first_429() {
    let sim = simulator(rpm(100, &Algorithm::SlidingWindow));
    let service = stack(&sim, RateLimitLayer::default());
    raise(&sim, 600, rpm(50, &Algorithm::SlidingWindow));
    let results = steady(&service, 45, 1200, 300).await;
    assert_eq!(share(&results, 0), 1.0);
    let results = steady(&service, 52, 600, 300).await;
    assert!(share(&results, 0) >= 0.98, "{}", share(&results, 0));
    assert!(refused(&sim, 600) <= 12, "{}", refused(&sim, 600));
}

/// Strangers take half of the quota every other five minutes.
#[tokio::test(start_paused = true)]
async fn a_quota_shared_with_strangers_is_used_as_far_as_it_goes() {
    let sim = simulator(rpm(60, &Algorithm::SlidingWindow));
    let service = stack(&sim, RateLimitLayer::default());
    let strangers = stack(&sim, RateLimitLayer::new(Limits::new().requests_per_minute(30)).unwrap());
    let strangers = tokio::spawn(async move {
        let (start, mut served) = (Instant::now(), 0.0);
        for spell in 0..4 {
            sleep_until(start + secs(600 * spell)).await;
            served += share(&steady(&strangers, 30, 300, 60).await, 0) * 150.0;
        }
        served
    });
    let results = steady(&service, 55, 2400, 300).await;
    // 30 or 60 a minute are there in turn, so at most 45 of 55.
    let (served, strangers) = (share(&results, 0), strangers.await.unwrap());
    let each = sim.call_count() as f64 / (results.len() as f64 * served + strangers);
    println!("{served:.3}, {strangers} of 600, {each:.3} calls each");
    assert!(served >= 0.75, "{served}");
    // Neither side takes the other's part.
    assert!(strangers >= 400.0, "{strangers}");
    // They meet at each slot that comes free, and one of the two is refused.
    assert!(each <= 1.3, "{each}");
}

#[tokio::test(start_paused = true)]
async fn a_configured_limit_is_never_tried() {
    let sim = simulator(rpm(50, &Algorithm::SlidingWindow));
    let service = stack(&sim, RateLimitLayer::new(Limits::new().requests_per_minute(10)).unwrap());
    steady(&service, 15, 1800, 120).await;
    assert_eq!(refused(&sim, 0), 0);
    assert!(sim.call_count() <= 330, "{}", sim.call_count());
}

#[tokio::test(start_paused = true)]
async fn a_day_that_was_raised_is_found_by_a_probe_and_used() {
    let sim = simulator(Quota::new().requests_per_day(100));
    let service = stack(&sim, RateLimitLayer::default());
    let results = steady(&service, 60, 600, 30).await;
    assert_eq!(results.iter().filter(|(_, ok)| *ok).count(), 100);
    sim.set_quota(MODEL, Some(Quota::new().requests_per_day(5_000)));
    let results = steady(&service, 60, 1200, 30).await;
    // The next probe of the spent day comes within five minutes.
    assert!(share(&results, 300) >= 0.99, "{}", share(&results, 300));
}

/// The caller of a trial that fails goes next, before all who wait.
#[tokio::test(start_paused = true)]
async fn nobody_is_served_late_because_of_a_trial() {
    let sim = simulator(rpm(60, &Algorithm::SlidingWindow));
    let service = stack(&sim, RateLimitLayer::default());
    burst(&sim, &service, (0..61).map(|_| prompt(10))).await;
    tokio::time::sleep(secs(130)).await;
    sim.clear_log();
    let start = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..600_u32 {
        let service = service.clone();
        callers.spawn(async move {
            tokio::time::sleep(Duration::from_millis(u64::from(n))).await;
            assert!(service.ask(prompt(10)).await);
            (n, (Instant::now() - start).as_secs())
        });
    }
    let mut ends = callers.join_all().await;
    ends.sort_unstable();
    let trials = refused(&sim, 0);
    println!("{trials} trials");
    assert!((2..=9).contains(&trials), "{trials}");
    // In the order of arrival.
    let late = ends.windows(2).filter(|two| two[1].1 + 1 < two[0].1).count();
    assert_eq!(late, 0);
    assert!(ends.iter().all(|(_, end)| *end <= 548), "{ends:?}");
}
