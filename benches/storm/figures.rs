//! What came of one seed.

use std::time::Duration;

use super::load::Ask;
use super::scenario::{Measure, Scenario};

/// Figures of one run, or of the best that was possible.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Requests that count, and how many of them were answered in time.
    pub(crate) arrived: usize,
    pub(crate) served: usize,
    /// Calls in the time that counts.
    pub(crate) calls: usize,
    /// Of the whole run, those whose callers went away left out.
    pub(crate) unfinished: usize,
    /// All answered requests and all calls of the run.
    pub(crate) served_in_all: usize,
    pub(crate) calls_in_all: usize,
    /// The most calls in any second after all could be well.
    pub(crate) peak: usize,
    /// Median and 99th percentile of the time to the answer; a request without one took its whole deadline.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Seconds from the start to the last answer; with a request that had none, to the end of its deadline.
    pub(crate) makespan: f64,
    /// Seconds from when all could be well until ten seconds' arrivals are answered to 95 %.
    pub(crate) recovery: Option<f64>,
    /// Seconds from then to the first answer.
    pub(crate) first: Option<f64>,
    /// Jain's index of the tenants' answered shares, five minutes after the start.
    pub(crate) jain: Option<f64>,
    /// Circuits that opened from closed, probes that failed, cuts of a concurrency limit.
    pub(crate) opened: u32,
    pub(crate) probes_failed: u32,
    pub(crate) cut: u32,
    /// Why a retry gave up, and how often.
    pub(crate) gave_up: std::collections::BTreeMap<&'static str, usize>,
    /// Broken promises, the first few in words.
    pub(crate) violations: Vec<String>,
    pub(crate) violated: usize,
    /// Calls and answers in each second.
    pub(crate) calls_by_second: Vec<u32>,
    pub(crate) answers_by_second: Vec<u32>,
    /// Real time: what the thread worked, others on the machine left out.
    pub(crate) took: Duration,
}

/// A request and when it was answered.
pub(crate) type Result = (Ask, Option<Duration>);

impl Figures {
    pub(crate) fn share(&self) -> f64 {
        self.served as f64 / self.arrived.max(1) as f64
    }

    /// Calls in the time that counts, for each request of it.
    pub(crate) fn calls_each(&self) -> f64 {
        self.calls as f64 / self.arrived.max(1) as f64
    }

    /// Calls of the whole run for each answered request.
    pub(crate) fn calls_per_answer(&self) -> f64 {
        self.calls_in_all as f64 / self.served_in_all.max(1) as f64
    }

    /// The time by which the scenario is judged.
    pub(crate) fn time(&self, measure: Measure) -> f64 {
        match measure {
            Measure::Makespan => self.makespan,
            Measure::P99 => self.p99,
        }
    }

    /// Of results and calls, the latter in their order.
    pub(crate) fn of(scenario: &Scenario, results: &[Result], calls: &[Duration]) -> Self {
        let (from, until) = scenario.counted;
        let judged = |ask: &Ask| scenario.load.uncounted != Some(ask.tenant);
        let stayed = || results.iter().filter(|(ask, _)| ask.leaves.is_none() && judged(ask));
        let counted: Vec<_> = stayed().filter(|(ask, _)| (from..until).contains(&ask.at)).collect();
        let time = |(ask, end): &Result| end.map_or(scenario.deadline, |end| end.saturating_sub(ask.at));
        let mut times: Vec<f64> = counted.iter().map(|result| time(result).as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        let percentile = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(0.0);
        let after = &calls[calls.partition_point(|call| *call < scenario.well)..];
        let served_in_all = stayed().filter(|(_, end)| end.is_some()).count();
        let all_ends = results.iter().filter_map(|(_, end)| *end);
        let first = all_ends.clone().filter(|end| *end >= scenario.well).min();
        Self {
            arrived: counted.len(),
            served: counted.iter().filter(|(_, end)| end.is_some()).count(),
            calls: calls.iter().filter(|call| (from..until).contains(call)).count(),
            unfinished: stayed().count() - served_in_all,
            served_in_all: all_ends.clone().count(),
            calls_in_all: calls.len(),
            peak: peak(after),
            p50: percentile(50),
            p99: percentile(99),
            makespan: stayed().map(|r| (r.0.at + time(r)).as_secs_f64()).fold(0.0, f64::max),
            recovery: recovery(scenario, results),
            first: first.map(|end| (end - scenario.well).as_secs_f64()),
            jain: jain(scenario, results),
            calls_by_second: by_second(calls.iter().copied()),
            answers_by_second: by_second(all_ends),
            ..Self::default()
        }
    }
}

fn peak(calls: &[Duration]) -> usize {
    let (mut first, mut most) = (0, 0);
    for (n, call) in calls.iter().enumerate() {
        while *call >= calls[first] + Duration::from_secs(1) {
            first += 1;
        }
        most = most.max(n + 1 - first);
    }
    most
}

fn recovery(scenario: &Scenario, results: &[Result]) -> Option<f64> {
    let last = scenario.load.horizon.as_secs() as usize;
    let mut seconds = vec![(0_u32, 0_u32); last + 11];
    for (ask, end) in results.iter().filter(|(ask, _)| ask.leaves.is_none()) {
        let second = &mut seconds[(ask.at.as_secs() as usize).min(last)];
        second.0 += 1;
        second.1 += u32::from(end.is_some());
    }
    let well = scenario.well.as_secs() as usize;
    let found = (well..last).find(|from| {
        let ten = seconds[*from..*from + 10].iter();
        let (arrived, served) = ten.fold((0, 0), |sum, second| (sum.0 + second.0, sum.1 + second.1));
        arrived > 0 && served * 100 >= arrived * 95
    });
    found.map(|from| (from - well) as f64)
}

/// Of each tenant the answered share of what it asked for.
fn jain(scenario: &Scenario, results: &[Result]) -> Option<f64> {
    const AT: Duration = Duration::from_secs(300);
    if scenario.load.tenants.is_empty() {
        return None;
    }
    let mut tenants = vec![(0_u32, 0_u32); scenario.load.tenants.len()];
    for (ask, end) in results {
        tenants[ask.tenant].0 += 1;
        tenants[ask.tenant].1 += u32::from(end.is_some_and(|end| end <= AT));
    }
    let shares: Vec<f64> = tenants.iter().map(|t| f64::from(t.1) / f64::from(t.0.max(1))).collect();
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    Some(if squares == 0.0 { 0.0 } else { sum * sum / (shares.len() as f64 * squares) })
}

fn by_second(times: impl Iterator<Item = Duration>) -> Vec<u32> {
    let mut seconds = Vec::new();
    for time in times {
        let second = time.as_secs() as usize;
        if seconds.len() <= second {
            seconds.resize(second + 1, 0);
        }
        seconds[second] += 1;
    }
    seconds
}
