//! The best that was possible: a client that knows everything, and sends each request once, at the first instant at
//! which the server would serve it.
//!
//! It holds requests back while the server is down, slow or over its quota, first come, first served, in one place.
//! What it cannot know beforehand it pays for as little as is possible: where calls fail by chance, the expected
//! number of tries at once one after the other; where the server is down, one probe for each fifteen seconds; where
//! some answers are slow, one hedge at the 95th percentile.

use std::time::Duration;

use super::figures::{Figures, Result};
use super::load::Ask;
use super::scenario::{Measure, Scenario};
use crate::quota::{MINUTE, Meters};
use crate::server::{Down, Tail};

/// How soon the end of an outage is to be noticed, at the latest.
const DETECTION: f64 = 15.0;

/// What it would have come to.
pub(crate) fn ideal(scenario: &Scenario, asks: &[Ask]) -> Figures {
    let model = &scenario.model;
    let mut meters = model.quota.as_ref().map(Meters::new);
    // The start before, or the end of it where the server works off one call after the other.
    let mut free = Duration::ZERO;
    let mut calls = Vec::new();
    let mut results: Vec<Result> = Vec::new();
    for ask in asks {
        let tokens = if prompts_are_bounded(scenario) { 0 } else { ask.tokens.unwrap_or(0) };
        let mut start = model.down.up_from(ask.at.max(free));
        // Looking ahead charges nothing: what is late in the end was never sent.
        let mut ahead = meters.clone();
        while let Some(refusal) = ahead.as_mut().and_then(|meters| meters.wait(start, tokens)) {
            start = model.down.up_from(start + refusal.delay);
        }
        let gone = ask.leaves.is_some_and(|leaves| leaves <= start);
        let mut takes = model.latency;
        if let Some(each) = model.one_by_one {
            let slower = match model.slow {
                Some((from, until, factor)) if (from..until).contains(&start) => factor,
                _ => 1.0,
            };
            takes = each.mul_f64(slower);
        }
        let late = start + takes > ask.at + scenario.deadline;
        if gone || late {
            results.push((*ask, None));
            continue;
        }
        if let Some(meters) = &mut ahead {
            meters.admit(start, tokens).expect("it was waited for");
        }
        meters = ahead;
        free = if model.one_by_one.is_some() { start + takes } else { start };
        calls.push(start);
        let end = Some(start + takes).filter(|end| ask.leaves.is_none_or(|leaves| *end <= leaves));
        results.push((*ask, end));
    }
    calls.sort();
    let mut ideal = Figures::of(scenario, &results, &calls);
    if prompts_are_bounded(scenario) {
        ideal.makespan = token_bound(scenario, asks);
    }
    if model.errors > 0.0 {
        // The next try is sent when the one before it has failed.
        let tries = (0.01_f64).ln() / model.errors.ln();
        ideal.p99 = model.latency.as_secs_f64() * tries.ceil();
        ideal.calls_in_all = (ideal.calls_in_all as f64 / (1.0 - model.errors)) as usize;
    }
    if let Some(tail) = model.tail {
        let (p99, more) = hedged(model.latency.as_secs_f64(), &tail);
        ideal.p99 = p99;
        ideal.calls_in_all = (ideal.calls_in_all as f64 * (1.0 + more)) as usize;
    }
    ideal.calls_in_all += probes(&model.down, scenario.load.horizon);
    ideal
}

/// Token quotas are bounded by their sum; no order of the requests can do better.
fn prompts_are_bounded(scenario: &Scenario) -> bool {
    scenario.measure == Measure::Makespan && scenario.load.prompts.is_some()
}

/// Whole windows that must pass before the last of so many tokens.
fn token_bound(scenario: &Scenario, asks: &[Ask]) -> f64 {
    let tokens: u64 = asks.iter().filter_map(|ask| ask.tokens).sum();
    let limit = scenario.model.quota.as_ref().and_then(|quota| quota.tpm).unwrap_or(u64::MAX);
    let windows = tokens.div_ceil(limit).saturating_sub(1);
    windows as f64 * MINUTE.as_secs_f64() + scenario.model.latency.as_secs_f64()
}

fn probes(down: &Down, horizon: Duration) -> usize {
    let (from, until, horizon) = (down.from.as_secs_f64(), down.until.as_secs_f64(), horizon.as_secs_f64());
    let periods = down.every.map_or(1.0, |every| (horizon / every.as_secs_f64()).ceil());
    (periods * ((until - from) / DETECTION).ceil()) as usize
}

/// The 99th percentile with one hedge at the 95th, and how many calls that adds.
fn hedged(median: f64, tail: &Tail) -> (f64, f64) {
    let slower_than = |t: f64| {
        let of = |median: f64| 1.0 - normal((t / median).ln() / tail.sigma);
        if t <= 0.0 { 1.0 } else { (1.0 - tail.share) * of(median) + tail.share * of(median * tail.factor) }
    };
    let find = |share: f64, survives: &dyn Fn(f64) -> f64| {
        let (mut low, mut high) = (0.0, median * tail.factor * 100.0);
        for _ in 0..100 {
            let middle = (low + high) / 2.0;
            *(if survives(middle) > share { &mut low } else { &mut high }) = middle;
        }
        high
    };
    let hedge = find(0.05, &slower_than);
    (find(0.01, &|t| slower_than(t) * slower_than(t - hedge)), slower_than(hedge))
}

/// The distribution function of the standard normal distribution, to seven digits (Abramowitz and Stegun 26.2.17).
fn normal(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let coefficients = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
    let polynomial = coefficients.iter().fold(0.0, |sum, c| (sum + c) * t);
    let tail = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() * polynomial;
    if x < 0.0 { tail } else { 1.0 - tail }
}
