//! What a policy and its budget do to the requests of some minutes: random failures, virtual time, the real decisions.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::budget::UnderWay;
use super::failure::Failure;
use super::progress::Progress;
use super::{Budget, GaveUp, RetryPolicy, RetryPolicyBuilder};
use crate::rng::{RequestRng, RngSource};
use crate::verdict::Verdict;

/// One spell of failures.
#[derive(Clone, Copy, Debug)]
struct Spell {
    /// Of all attempts.
    failing: f64,
    /// Of the failures, those that are timeouts.
    timeouts: f64,
    /// Of the requests, those that fail whenever they are sent.
    hopeless: f64,
    /// Requests a second.
    rate: f64,
    /// How long an answer takes, a failure, and a timeout.
    answer: f64,
    failure: f64,
    timeout: f64,
    /// Nothing has gone before it.
    cold: bool,
}

impl Default for Spell {
    fn default() -> Self {
        let (answer, failure, timeout) = (2.0, 0.1, 10.0);
        Self { failing: 0.0, timeouts: 0.0, hopeless: 0.0, rate: 1.0, answer, failure, timeout, cold: false }
    }
}

/// Requests of a spell.
const REQUESTS: usize = 4_000;

/// Of the requests of the spell; what came before it is not counted.
#[derive(Debug, Default)]
struct Told {
    requests: usize,
    hopeless: usize,
    served: usize,
    attempts: usize,
    /// Given up for want of budget.
    starved: usize,
    /// The longest time from one request that starved to the next, with none between that got a token.
    drought: Duration,
}

struct Request {
    progress: Progress,
    stream: RequestRng,
    arrived: Instant,
    is_hopeless: bool,
    under_way: UnderWay,
    /// Of the time before the spell, when all is well.
    is_before: bool,
}

fn verdict(status: u16) -> Verdict {
    let status = http::StatusCode::from_u16(status).expect("a status");
    Verdict::from_parts(status, &http::HeaderMap::new(), bytes::Bytes::new())
}

/// In the place of a status: an attempt begins.
const BEGINS: u16 = 0;

fn live_through(spell: Spell, policy: RetryPolicyBuilder, seed: u64) -> Told {
    let policy = policy.seed(seed).build().expect("valid");
    let settings = &*policy.settings;
    let chance = RngSource::seeded(seed ^ 0xABCD);
    let (down, late) = (verdict(500), verdict(504));
    let start = crate::time::now();
    let after = |at: Instant, seconds: f64| at + Duration::from_secs_f64(seconds);
    // As many as are under way when it begins, and good.
    let before =
        if spell.failing < 1.0 && !spell.cold { (spell.rate * spell.answer) as usize + 1 } else { 0 };
    let mut requests: Vec<_> = (0..before + REQUESTS)
        .map(|n| {
            let mut stream = chance.stream();
            let is_hopeless = stream.unit() < spell.hopeless;
            let (arrived, is_before) = (after(start, n as f64 / spell.rate), n < before);
            let (progress, under_way) = (Progress::default(), UnderWay::default());
            Request { progress, stream, arrived, is_hopeless, under_way, is_before }
        })
        .collect();
    let hopeless = requests.iter().filter(|request| !request.is_before && request.is_hopeless).count();
    let mut told = Told { requests: REQUESTS, hopeless, ..Told::default() };
    // Ends of attempts, and the status that they end with.
    let mut ends = BinaryHeap::new();
    let begin = |request: &mut Request, at: Instant| {
        let failed = request.is_hopeless || request.stream.unit() < spell.failing;
        if request.is_before || !failed {
            (after(at, spell.answer), 200)
        } else if request.stream.unit() < spell.timeouts {
            (after(at, spell.timeout), 504)
        } else {
            (after(at, spell.failure), 500)
        }
    };
    // Each begins at its arrival, which is an event as well.
    ends.extend(requests.iter().enumerate().map(|(n, request)| Reverse((request.arrived, n, BEGINS))));
    let count = || settings.budget.as_ref().map_or_else(UnderWay::default, |budget| budget.begin(0));
    let mut dry_since = None;
    while let Some(Reverse((now, n, status))) = ends.pop() {
        let request = &mut requests[n];
        let counts = usize::from(!request.is_before);
        if status == BEGINS {
            request.progress.started.get_or_insert(now);
            request.under_way = count();
            let (end, status) = begin(request, now);
            ends.push(Reverse((end, n, status)));
            continue;
        }
        request.under_way = UnderWay::default();
        told.attempts += counts;
        let failure = match status {
            200 => {
                told.served += counts;
                if let Some(budget) = &settings.budget {
                    budget.deposit(0, request.progress.taken);
                }
                continue;
            }
            500 => Failure::Verdict(&down),
            _ => Failure::Verdict(&late),
        };
        let deadline = Some(request.arrived + Duration::from_secs(120));
        match settings.decide(&mut request.progress, &failure, now, deadline, || 0) {
            Ok(again) => {
                dry_since = None;
                request.progress.taken += again.token.map_or(0, |token| token.spend());
                ends.push(Reverse((now + again.wait, n, BEGINS)));
            }
            Err(GaveUp::Budget) => {
                told.starved += 1;
                let since = *dry_since.get_or_insert(now);
                told.drought = told.drought.max(now - since);
            }
            Err(_) => {}
        }
    }
    told
}

/// The least that a success must pay in, where attempts fail with this probability and there are at most `n`.
fn least_deposit(failing: f64, n: i32) -> f64 {
    let lost = failing.powi(n);
    lost * f64::from(n - 1) / (1.0 - lost)
}

#[test]
fn the_table_is_as_calculated() {
    for (n, column) in [(5, [0.13, 0.34, 0.81, 1.95, 2.9, 3.6]), (10, [0.01, 0.05, 0.26, 1.08, 1.9, 2.6])] {
        for (failing, deposit) in [0.5, 0.6, 0.7, 0.8, 0.84, 0.86].into_iter().zip(column) {
            let least = least_deposit(failing, n);
            assert!((least - deposit).abs() < 0.1_f64.min(0.05 * deposit + 0.005), "{failing}, {n}: {least}");
        }
    }
    // Between five attempts and ten, whatever the budget allows, the default covers 80 %.
    let default = Budget::default().per_success();
    for failing in (0..=80).map(|percent| f64::from(percent) / 100.0) {
        assert!((5..=10).all(|n| least_deposit(failing, n) <= default), "{failing}");
    }
}

#[test]
fn in_a_total_outage_all_retries_together_are_at_most_the_bucket_and_once_what_is_under_way() {
    for (timeouts, most) in [(0.0, 100), (1.0, 50)] {
        for rate in [0.2, 5.0, 200.0] {
            let spell = Spell { failing: 1.0, timeouts, rate, ..Spell::default() };
            let strict = Budget::new(100, 3.0).expect("valid");
            let told = live_through(spell, RetryPolicy::builder().budget(strict), 1);
            // Those that have not failed yet are a credit until they have.
            let lent = if timeouts == 0.0 { (1.2 * rate * spell.failure).ceil() as usize } else { 0 };
            let most = most + lent;
            assert!(told.attempts - told.requests <= most, "{spell:?}: {told:?}");
            // By default, and 30 a minute that are told of failures, until the last request's deadline.
            let told = live_through(spell, RetryPolicy::builder(), 1);
            let unpaid =
                if timeouts == 0.0 { (told.requests as f64 / rate + 120.0) / 2.0 + 1.0 } else { 0.0 };
            assert!((told.attempts - told.requests) as f64 <= most as f64 + unpaid, "{spell:?}: {told:?}");
        }
    }
}

// Each makes ten attempts and is never served; the others are as if there were none.
#[test]
fn requests_that_can_never_succeed_do_not_starve_the_others() {
    for (rate, hopeless) in [(1.0, 0.2), (20.0, 0.2), (20.0, 0.3)] {
        let spell = Spell { failing: 0.2, hopeless, rate, ..Spell::default() };
        let told = live_through(spell, RetryPolicy::builder(), 1);
        let share = told.served as f64 / (told.requests - told.hopeless) as f64;
        assert!(share >= 0.998, "{spell:?}: {share} {told:?}");
        let extra = told.attempts as f64 / told.requests as f64;
        assert!(extra < 0.8 * 1.26 + 0.3 * 10.0, "{extra}");
    }
}

// A fifth of the calls, or fewer, outlast half of the deadline. With two attempts `1 - p²` are served; an attempt that has less time
// than the one before is not made after two others in a row: `p³`.
#[test]
fn by_chance_one_late_attempt_in_p_cubed_is_not_made() {
    for failing in [0.02, 0.1, 0.2, 0.25] {
        for rate in [0.05, 1.0, 20.0] {
            let spell =
                Spell { failing, timeouts: 1.0, rate, answer: 15.0, timeout: 60.0, ..Spell::default() };
            let told = live_through(spell, RetryPolicy::builder(), 3);
            let (share, due) = (told.served as f64 / told.requests as f64, 1.0 - failing.powi(2));
            let chance = 4.0 * (due * (1.0 - due) / told.requests as f64).sqrt();
            assert!(share >= due - failing.powi(3) - chance, "{spell:?}: {share} of {due}, {told:?}");
        }
    }
}

/// Whether as many are served as by five attempts without a budget, less a point and what chance may do.
fn is_no_worse(spell: Spell, seed: u64) -> Result<(), TestCaseError> {
    let told = live_through(spell, RetryPolicy::builder(), seed);
    let share = told.served as f64 / told.requests as f64;
    let plain = 1.0 - spell.failing.powi(5);
    let chance = 4.0 * (plain * (1.0 - plain) / told.requests as f64).sqrt();
    prop_assert!(share >= plain - 0.01 - chance, "{spell:?}: {share} of {plain}, {told:?}");
    prop_assert!(told.drought < Duration::from_secs(5), "{spell:?}: {told:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn errors_up_to_80_percent_leave_nobody_worse_off_than_five_attempts_without_a_budget(
        failing in 0.0..0.8_f64, rate in 0.2..200.0_f64, answer in 0.1..10.0_f64, failure in 0.01..2.0_f64,
        seed: u64,
    ) {
        is_no_worse(Spell { failing, rate, answer, failure, ..Spell::default() }, seed)?;
    }

    // Refused at once, answered much later, and nothing known before.
    #[test]
    fn at_a_cold_start_errors_of_half_the_calls_leave_nobody_worse_off_however_long_an_answer_takes(
        failing in 0.0..0.5_f64, rate in 0.2..200.0_f64, answer in 0.1..40.0_f64, failure in 0.01..0.5_f64,
        seed: u64,
    ) {
        is_no_worse(Spell { failing, rate, answer, failure, cold: true, ..Spell::default() }, seed)?;
    }

    #[test]
    fn timeouts_up_to_60_percent_leave_nobody_worse_off_than_five_attempts_without_a_budget(
        failing in 0.0..0.6_f64, rate in 0.2..200.0_f64, answer in 0.1..9.0_f64, seed: u64,
    ) {
        is_no_worse(Spell { failing, timeouts: 1.0, rate, answer, ..Spell::default() }, seed)?;
    }
}
