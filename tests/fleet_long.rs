//! Real processes, a real server and whole minutes of 60 s: what a fleet takes beyond the best that there can be, what it asks of
//! its store, and how much it lets through in any 60 s beside two limiters that others use. Each takes minutes:
//!
//! ```text
//! cargo test --all-features --test fleet_long -- --ignored --nocapture
//! ```
//!
//! LiteLLM's script is read from an installed package (1.80.0; later ones have it in a library), whose limiter's file `LITELLM_LIMITER` names
//! (`litellm/proxy/hooks/parallel_request_limiter_v3.py`); without it that row is left out.
#![cfg(all(feature = "redis", feature = "sim"))]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failing test may panic anywhere; it reads real clocks"
)]

#[path = "support/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test uses some of it")]
mod redis;

#[path = "fleet_long/member.rs"]
mod member;
#[path = "fleet_redis/faults/receiver.rs"]
#[allow(dead_code, reason = "others use the rest of it")]
mod receiver;

use std::time::Duration;

use self::member::{How, Process, Role, start};
use self::receiver::Receiver;
use self::redis::Server;

const MEMBERS: usize = 8;
const MINUTE: Duration = Duration::from_secs(60);
/// The window and its guard: what a window's requests are apart at the least.
const CYCLE: Duration = Duration::from_millis(60_500);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What came of a run.
struct Outcome {
    sent: usize,
    took: Duration,
    /// The most in any 60 s.
    most: usize,
    /// Messages to the store.
    asked: u64,
    /// How many were sent in each cycle.
    cycles: Vec<usize>,
}

impl Outcome {
    async fn of(mut members: Vec<Process>, receiver: &Receiver, within: Duration) -> Self {
        let mut asked = 0;
        for member in &mut members {
            asked += member.wait(within).await;
        }
        let log = receiver.log();
        let most = (0..log.len())
            .map(|at| log[at..].iter().take_while(|one| **one < log[at] + MINUTE).count())
            .max()
            .unwrap_or(0);
        let mut cycles = Vec::new();
        for one in &log {
            let at = ((*one - log[0]).as_millis() / CYCLE.as_millis()) as usize;
            cycles.resize(cycles.len().max(at + 1), 0);
            cycles[at] += 1;
        }
        Self { cycles, sent: log.len(), took: *log.last().unwrap() - log[0], most, asked }
    }
}

/// So many requests of each member, at once; judged against the least time in which they can be sent.
async fn at_once(what: &str, rpm: u64, counts: [usize; MEMBERS], (time, trips): (f64, f64)) {
    let Some(server) = Server::start(&[]).await else { return };
    let receiver = Receiver::start().await;
    let role = |id: usize| Role {
        id,
        how: How::Ours,
        count: counts[id],
        rpm,
        wait: Duration::ZERO,
        burst: Duration::ZERO,
        store: server.port,
        receiver: receiver.port,
    };
    let members = (0..MEMBERS).map(|id| start(&role(id))).collect();
    let all: usize = counts.iter().sum();
    let best = CYCLE * (all.div_ceil(rpm as usize) as u32 - 1);
    let outcome = Outcome::of(members, &receiver, best + secs(90)).await;
    let over = outcome.took.as_secs_f64() / best.as_secs_f64();
    let asked = outcome.asked as f64 / outcome.sent as f64;
    println!(
        "{what}: {} sent in {:.1?}, {over:.4} x the best, {asked:.3} messages a permit, at most {} of {rpm} in any 60 s, by cycles {:?}",
        outcome.sent, outcome.took, outcome.most, outcome.cycles
    );
    assert_eq!(outcome.sent, all, "{what}");
    assert!(outcome.most <= rpm as usize, "{what}: {} in 60 s", outcome.most);
    assert!(over <= time, "{what}: {over:.4} x the best");
    assert!(asked <= trips, "{what}: {asked:.3} messages a permit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "nine minutes"]
async fn eight_processes_at_60_a_minute() {
    at_once("8 x 75 at 60 RPM", 60, [75; MEMBERS], (1.02, 1.0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "nine minutes"]
async fn one_hot_and_seven_idle() {
    let mut counts = [1; MEMBERS];
    counts[0] = 593;
    at_once("593 and seven with one at 60 RPM", 60, counts, (1.05, 1.0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "seven minutes"]
async fn eight_processes_at_600_a_minute() {
    at_once("8 x 600 at 600 RPM", 600, [600; MEMBERS], (1.02, 0.1)).await;
}

/// One request, and 55 s later more than can be sent in an hour: what each lets through in any 60 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "three minutes"]
async fn the_most_in_a_minute_beside_others() {
    const RPM: u64 = 60;
    let script = std::env::var_os("LITELLM_LIMITER");
    if script.is_none() {
        println!("LITELLM_LIMITER is not set: no row of LiteLLM's");
    }
    let run = async |what: &'static str, how: How| {
        let server = Server::start(&[]).await?;
        let receiver = Receiver::start().await;
        let role = |id: usize| Role {
            id,
            how,
            // It is ended by its time.
            count: 0,
            rpm: RPM,
            wait: secs(55),
            burst: secs(100),
            store: server.port,
            receiver: receiver.port,
        };
        let members = (0..MEMBERS).map(|id| start(&role(id))).collect();
        let outcome = Outcome::of(members, &receiver, secs(220)).await;
        println!(
            "{what}: {} sent in {:.0?}, at most {} of {RPM} in any 60 s",
            outcome.sent, outcome.took, outcome.most
        );
        Some(outcome)
    };
    let litellm = async {
        match script.is_some() {
            true => run("LiteLLM's script, a fixed window", How::LiteLlm).await,
            false => None,
        }
    };
    let (ours, bucket, litellm) =
        tokio::join!(run("this crate", How::Ours), run("a token bucket in Redis", How::Bucket), litellm);
    let Some(ours) = ours else { return };
    assert!(ours.most <= RPM as usize, "{}", ours.most);
    assert!(ours.sent >= 2 * RPM as usize - 5, "{}", ours.sent);
    // The harness can tell: the others let more through.
    assert!(bucket.unwrap().most > RPM as usize * 3 / 2);
    if let Some(litellm) = litellm {
        assert!(litellm.most > RPM as usize * 3 / 2, "{}", litellm.most);
    }
}
