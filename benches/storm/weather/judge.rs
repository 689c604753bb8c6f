//! What came of one day for each client, and whether the stack did harm.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::storm::figures::{Figures, Result};
use crate::storm::policies::POLICIES;
use crate::storm::policy::LimiterRule;
use crate::storm::run::{Cell, Contender};
use crate::storm::scenario::Scenario;
use crate::storm::stack::Variant;

/// The most attempts of a plain client.
const PLAIN_ATTEMPTS: u32 = 5;
/// By how much less of the requests another may serve and still be compared by its times.
const AS_MUCH: f64 = 0.001;

/// The name of the row that is judged.
pub(crate) const JUDGED: &str = Variant::All.name();

/// Clients with at most five attempts, and ours with retries alone.
pub(crate) fn plain() -> Vec<Contender> {
    let policies = POLICIES.iter().filter(|policy| policy.attempts <= PLAIN_ATTEMPTS);
    let mut plain: Vec<_> = policies.map(Contender::Policy).collect();
    plain.extend([Contender::Tower, Contender::TowerResilience, Contender::Stack(Variant::RetryOnly)]);
    plain
}

/// The stack and parts of it.
pub(crate) const OURS: [Contender; 4] = [
    Contender::Stack(Variant::All),
    Contender::Stack(Variant::NoGovernor),
    Contender::Stack(Variant::NoBreaker),
    Contender::Stack(Variant::NoRateLimit),
];

/// The stack with second tries for late calls.
pub(crate) const HEDGED: [Contender; 2] =
    [Contender::Stack(Variant::Hedged), Contender::Stack(Variant::Hedged5)];

/// The stack at all places of a scenario.
pub(crate) const PLACED: Contender = Contender::Stack(Variant::Placed);

/// All that can be asked for by name: the stack, its parts, plain clients, and those with more attempts.
pub(crate) fn everybody() -> Vec<Contender> {
    let patient = POLICIES.iter().filter(|policy| policy.attempts > PLAIN_ATTEMPTS);
    OURS.into_iter().chain(plain()).chain(patient.map(Contender::Policy)).collect()
}

/// One client's day.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Whether the stack is compared with it on this day.
    pub(crate) plain: bool,
    /// Of each request that counts, whether it was served, and after how many seconds it was over.
    ends: Vec<(bool, f64)>,
    /// Their times in order.
    times: Vec<f64>,
    pub(crate) served: f64,
    pub(crate) calls_per_answer: f64,
    pub(crate) opened: u32,
    pub(crate) cut: u32,
    pub(crate) gave_up: std::collections::BTreeMap<&'static str, usize>,
    /// Seconds that the thread worked for it.
    pub(crate) took: f64,
}

impl Row {
    fn of(scenario: &Scenario, contender: Contender, runs: &[(Figures, Vec<Result>)]) -> Self {
        let (from, until) = scenario.counted;
        let counts = |(ask, _): &&Result| {
            ask.leaves.is_none()
                && scenario.load.uncounted != Some(ask.tenant)
                && (from..until).contains(&ask.at)
        };
        let ends: Vec<(bool, f64)> = runs
            .iter()
            .flat_map(|(_, results)| results.iter().filter(counts))
            .map(|(ask, end)| {
                let time = end.map_or(scenario.deadline, |end| end.saturating_sub(ask.at));
                (end.is_some(), time.as_secs_f64())
            })
            .collect();
        let mut times: Vec<f64> = ends.iter().map(|(_, time)| *time).collect();
        times.sort_by(f64::total_cmp);
        let sum =
            |of: fn(&Figures) -> usize| runs.iter().map(|(figures, _)| of(figures)).sum::<usize>() as f64;
        let mut gave_up = std::collections::BTreeMap::new();
        for (why, times) in runs.iter().flat_map(|(figures, _)| &figures.gave_up) {
            *gave_up.entry(*why).or_default() += times;
        }
        Self {
            name: contender.name(),
            plain: is_plain(contender) && (obeys(contender) || !is_told_too_little(scenario)),
            served: ends.iter().filter(|(served, _)| *served).count() as f64 / ends.len().max(1) as f64,
            calls_per_answer: sum(|figures| figures.calls_in_all)
                / sum(|figures| figures.served_in_all).max(1.0),
            opened: runs.iter().map(|(figures, _)| figures.opened).sum(),
            cut: runs.iter().map(|(figures, _)| figures.cut).sum(),
            gave_up,
            took: runs.iter().map(|(figures, _)| figures.took.as_secs_f64()).sum(),
            ends,
            times,
        }
    }

    /// The time that so large a share of the requests took at most; those not served took their whole deadline.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let at = (self.times.len() as f64 * share) as usize;
        self.times.get(at).or(self.times.last()).copied().unwrap_or(0.0)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.percentile(0.99)
    }
}

fn is_plain(contender: Contender) -> bool {
    match contender {
        Contender::Policy(policy) => policy.attempts <= PLAIN_ATTEMPTS,
        Contender::Tower | Contender::TowerResilience | Contender::Stack(Variant::RetryOnly) => true,
        Contender::Ours | Contender::Stack(_) => false,
    }
}

/// Whether a client keeps to the quota that it is told.
fn obeys(contender: Contender) -> bool {
    match contender {
        Contender::Policy(policy) => policy.limiter == LimiterRule::Gcra,
        Contender::Tower | Contender::TowerResilience => true,
        Contender::Ours | Contender::Stack(_) => contender != Contender::Stack(Variant::RetryOnly),
    }
}

/// Whether those who run the client set a limit below the server's: to keep to it is to do as one is told, and who does
/// not is no measure.
fn is_told_too_little(scenario: &Scenario) -> bool {
    let limit = scenario.model.quota.as_ref().and_then(|quota| quota.rpm);
    scenario.told.rpm.is_some_and(|told| limit.is_none_or(|limit| told < limit))
}

/// One day, and what each client made of it.
#[derive(Clone, Debug)]
pub(crate) struct Day {
    pub(crate) name: String,
    pub(crate) title: String,
    /// Requests that count.
    pub(crate) requests: usize,
    pub(crate) rows: Vec<Row>,
    pub(crate) verdict: Option<Verdict>,
}

/// How the stack did beside plain clients.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) served: f64,
    pub(crate) p99: f64,
    /// The plain client that served the most, and what it served.
    pub(crate) best: (&'static str, f64),
    /// Points by which the stack served less than it; never below 0.
    pub(crate) harm: f64,
    /// The same less two standard errors of the difference, request by request.
    pub(crate) sure_harm: f64,
    /// Points by which it served more, below 0 where it served less.
    pub(crate) gain: f64,
    /// The plain client with the least 99th percentile of those that served as much, and that.
    pub(crate) fastest: Option<(&'static str, f64)>,
    /// The stack's 99th percentile over that one.
    pub(crate) delay: Option<f64>,
    /// The same with the stack's 99th percentile two standard errors of its rank lower.
    pub(crate) sure_delay: Option<f64>,
}

impl Day {
    /// Lives through a day, once for each seed and client.
    pub(crate) fn live(cell: &Cell<'_>, contenders: &[Contender], seeds: u64) -> Self {
        let rows = contenders.iter().map(|contender| {
            let runs: Vec<_> = (0..seeds).map(|seed| cell.live(*contender, seed)).collect();
            Row::of(cell.scenario, *contender, &runs)
        });
        Self::of(cell, rows.collect())
    }

    fn of(cell: &Cell<'_>, rows: Vec<Row>) -> Self {
        let requests = rows.first().map_or(0, |row| row.ends.len());
        let verdict = judge(&rows, JUDGED);
        Self { name: cell.name(), title: cell.scenario.title.clone(), requests, rows, verdict }
    }

    /// Which part of the stack the harm comes from, where there is more than a point of it: those without which
    /// seven tenths of it are gone.
    pub(crate) fn causes(&self) -> Option<String> {
        let verdict = self.verdict.as_ref().filter(|verdict| verdict.sure_harm > 1.0)?;
        let cures = |row: &Row| 100.0 * (row.served - verdict.served) > 0.7 * verdict.harm;
        let without = |variant: Variant| self.row(variant.name()).is_some_and(cures);
        let parts = [
            (Variant::NoGovernor, "governor"),
            (Variant::NoBreaker, "breaker"),
            (Variant::NoRateLimit, "rate limit"),
        ];
        let parts: Vec<_> = parts.into_iter().filter(|(variant, _)| without(*variant)).collect();
        Some(match parts.as_slice() {
            [] if without(Variant::RetryOnly) => "several together".to_owned(),
            [] => "retry".to_owned(),
            parts => parts.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(" or "),
        })
    }

    /// How a client did beside plain clients, as the stack is judged.
    pub(crate) fn judge(&self, name: &str) -> Option<Verdict> {
        judge(&self.rows, name)
    }

    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The score of a client: the share that it served, times the least 99th percentile of all over its own.
    pub(crate) fn score(&self, row: &Row) -> f64 {
        let least = self.rows.iter().map(Row::p99).fold(f64::INFINITY, f64::min);
        (row.served * (least / row.p99().max(1e-3)).min(1.0)).max(1e-3)
    }
}

fn judge(rows: &[Row], name: &str) -> Option<Verdict> {
    let ours = rows.iter().find(|row| row.name == name)?;
    let plain = || rows.iter().filter(|row| row.plain);
    let best = plain().max_by(|a, b| a.served.total_cmp(&b.served).then(b.p99().total_cmp(&a.p99())))?;
    let n = ours.ends.len() as f64;
    // The variance of the difference of two outcomes of the same request.
    let differ = ours.ends.iter().zip(&best.ends).filter(|(a, b)| a.0 != b.0).count() as f64;
    let gain = ours.served - best.served;
    let error = ((differ / n - gain * gain).max(0.0) / n).sqrt();
    let as_much = plain().filter(|row| row.served >= ours.served - AS_MUCH);
    let fastest = as_much.min_by(|a, b| a.p99().total_cmp(&b.p99()));
    let rank = 0.99 - 2.0 * (0.99 * 0.01 / n).sqrt();
    let over = |time: f64| fastest.map(|row| (time / row.p99().max(1e-3)).max(0.0));
    Some(Verdict {
        served: ours.served,
        p99: ours.p99(),
        best: (best.name, best.served),
        harm: 100.0 * (-gain).max(0.0),
        sure_harm: 100.0 * (-gain - 2.0 * error).max(0.0),
        gain: 100.0 * gain,
        fastest: fastest.map(|row| (row.name, row.p99())),
        delay: over(ours.p99()),
        sure_delay: over(ours.percentile(rank.max(0.0))),
    })
}

/// Lives through many days, each thread taking the next that nobody has; in their order.
pub(crate) fn live_all<T: Send>(count: usize, threads: usize, live: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, T)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(|| {
                loop {
                    // Relaxed: each number is given out once, and nothing else follows from it.
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let day = live(n);
                    done.lock().expect("no day panics").push((n, day));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no day panics");
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, day)| day).collect()
}
