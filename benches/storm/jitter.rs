//! The contention experiment of the AWS architecture blog: writers of one row, optimistic concurrency, and how each
//! jitter spends their calls and time.
//!
//! A writer reads the row's version, writes, and is refused if another wrote meanwhile; then it backs off and begins
//! anew. A message takes |N(10, 2)| ms, the base is 5 ms, the cap 2,000 ms. Calls are writes that reached the row, time
//! is until the last writer is done. Beside it stand the figures of an implementation that shares no code with this
//! one, and by how many standard errors of both means the two differ.

use std::collections::BinaryHeap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tower_gemini::retry::{Backoff, Jitter};

use crate::storm::score::mean;

const RUNS: u64 = 100;
const CLIENTS: [usize; 6] = [10, 20, 50, 100, 150, 190];

/// Calls and milliseconds, of the other implementation, by the number of clients.
type Paper = [(f64, f64); 6];

/// The wait before the n-th retry in milliseconds, by a draw from `[0, 1)` and what the writer remembers, at first zero. The experiment counts
/// from 1: its first wait is of twice the base.
type Wait = fn(u32, &mut f64, f64) -> f64;

const ROWS: [(&str, Wait, Paper); 8] = [
    (
        "none",
        |_, _, _| 0.0,
        [
            (51.0, 383.0),
            (154.0, 607.0),
            (691.0, 1144.0),
            (2422.0, 2033.0),
            (5143.0, 2875.0),
            (8000.0, 3533.0),
        ],
    ),
    (
        "exponential",
        |n, _, _| grown(n),
        [
            (51.0, 3441.0),
            (152.0, 14755.0),
            (624.0, 36707.0),
            (1851.0, 62880.0),
            (3551.0, 85933.0),
            (5161.0, 101_400.0),
        ],
    ),
    (
        "equal",
        |n, _, d| ours(Jitter::Equal, n, d),
        [
            (42.0, 724.0),
            (109.0, 1693.0),
            (347.0, 4204.0),
            (812.0, 6537.0),
            (1323.0, 8239.0),
            (1758.0, 9345.0),
        ],
    ),
    (
        "full (the default)",
        |n, _, d| ours(Jitter::Full, n, d),
        [(39.0, 473.0), (100.0, 984.0), (332.0, 2965.0), (796.0, 4973.0), (1318.0, 6366.0), (1771.0, 7448.0)],
    ),
    (
        "decorrelated",
        |_, before, d| {
            // Not this crate's form, which cuts the upper bound and not the draw.
            *before = (5.0 + (3.0 * before.max(5.0) - 5.0) * d).min(2000.0);
            *before
        },
        [(38.0, 448.0), (102.0, 811.0), (373.0, 2159.0), (996.0, 4507.0), (1764.0, 6412.0), (2434.0, 7972.0)],
    ),
    (
        "give or take 20 %",
        |n, _, d| grown(n) * (0.8 + 0.4 * d),
        [
            (44.0, 968.0),
            (112.0, 2473.0),
            (358.0, 5977.0),
            (838.0, 9379.0),
            (1368.0, 11781.0),
            (1822.0, 13222.0),
        ],
    ),
    (
        "Polly's second form",
        |n, before, d| {
            let t = f64::from(n) + d;
            let point = 2.0_f64.powf(t) * (4.0 * t).sqrt().tanh();
            let step = point - std::mem::replace(before, point);
            (5.0 * step / 1.4).clamp(0.0, 2000.0)
        },
        [
            (40.0, 513.0),
            (104.0, 1152.0),
            (339.0, 3198.0),
            (800.0, 6178.0),
            (1308.0, 9168.0),
            (1743.0, 11223.0),
        ],
    ),
    (
        "×1.5, give or take 50 %",
        |n, _, d| (10.0 * 1.5_f64.powi(n.min(60) as i32 - 1)).min(2000.0) * (0.5 + d),
        [(42.0, 487.0), (109.0, 882.0), (377.0, 2161.0), (934.0, 4727.0), (1564.0, 6800.0), (2106.0, 8442.0)],
    ),
];

fn grown(n: u32) -> f64 {
    (5.0 * 2.0_f64.powi(n.min(60) as i32)).min(2000.0)
}

/// This crate's own.
fn ours(jitter: Jitter, n: u32, draw: f64) -> f64 {
    let backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(2000)).jitter(jitter);
    backoff.delay(n, None, draw).as_secs_f64() * 1000.0
}

/// Prints the table; whether all means are within three standard errors.
pub(crate) fn table() -> bool {
    println!(
        "{:<24} {:>7} {:>9} {:>9} {:>6} {:>10} {:>10} {:>6}",
        "jitter", "clients", "calls", "other", "σ", "ms", "other", "σ"
    );
    let mut well = true;
    for (name, wait, paper) in ROWS {
        for (clients, other) in CLIENTS.into_iter().zip(paper) {
            let runs: Vec<(f64, f64)> = (0..RUNS).map(|seed| run(clients, wait, seed)).collect();
            let calls: Vec<f64> = runs.iter().map(|run| run.0).collect();
            let times: Vec<f64> = runs.iter().map(|run| run.1).collect();
            let off = |values: &[f64], other: f64| {
                let (mean, width) = mean(values);
                // Both are means of a hundred runs of the same spread; the other one was rounded to a whole.
                let error = (2.0 * (width / 1.96).powi(2) + 1.0 / 12.0).sqrt();
                (mean, (mean - other) / error)
            };
            let ((calls, calls_off), (time, time_off)) = (off(&calls, other.0), off(&times, other.1));
            well &= calls_off.abs() <= 3.0 && time_off.abs() <= 3.0;
            println!(
                "{name:<24} {clients:>7} {calls:>9.1} {:>9.0} {calls_off:>6.1} {time:>10.1} {:>10.0} {time_off:>6.1}",
                other.0, other.1
            );
        }
    }
    println!("{}", if well { "all within 3 σ" } else { "NOT all within 3 σ" });
    well
}

/// A message that arrives: when in nanoseconds, of whom, and what. The heap has the latest first, so times are
/// negated.
type Message = (i64, usize, Step);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// At the row.
    Read,
    /// At the writer, with the version.
    Version(u64),
    /// At the row, with the version that was read.
    Write(u64),
    /// At the writer, and whether it is done.
    Written(bool),
}

fn run(clients: usize, wait: Wait, seed: u64) -> (f64, f64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut heap: BinaryHeap<Message> = BinaryHeap::new();
    let mut progress: Vec<(u32, f64)> = vec![(0, 0.0); clients];
    let (mut version, mut calls, mut last) = (0, 0.0, 0);
    let nanos = |ms: f64| (ms * 1e6) as i64;
    let network = |rng: &mut StdRng| {
        let (radius, angle): (f64, f64) = (rng.random(), rng.random());
        let normal = (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
        nanos((10.0 + 2.0 * normal).abs())
    };
    for client in 0..clients {
        heap.push((-network(&mut rng), client, Step::Read));
    }
    while let Some((at, client, step)) = heap.pop() {
        let now = -at;
        let (after, next) = match step {
            Step::Read => (0, Step::Version(version)),
            Step::Version(read) => (0, Step::Write(read)),
            Step::Write(read) => {
                calls += 1.0;
                let first = read == version;
                version += u64::from(first);
                (0, Step::Written(first))
            }
            Step::Written(true) => {
                last = last.max(now);
                continue;
            }
            Step::Written(false) => {
                let (n, memory) = &mut progress[client];
                *n += 1;
                let delay = wait(*n, memory, rng.random());
                (nanos(delay), Step::Read)
            }
        };
        heap.push((at - after - network(&mut rng), client, next));
    }
    (calls, last as f64 / 1e6)
}
