//! Why a closed circuit opens: a row of failures, or a share of the calls in the window. Pure.

use super::Nanos;
use super::decision::Mark;
use super::rules::Rules;
use super::window::{Counts, Range, Window};
use crate::blame::{Caller, Witness};
use crate::event::circuit::TransitionCause;

/// What was counted since the last change.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    window: Window,
    /// Failures in a row.
    row: u32,
    /// Whose they are.
    witness: Witness,
    /// The numbers of the calls that they began with and have come to.
    range: Range,
}

impl Evidence {
    pub(super) fn new(rules: &Rules) -> Self {
        Self { window: Window::new(rules.window), row: 0, witness: Witness::Nobody, range: Range::default() }
    }

    /// Counts one call, and says whether the circuit opens for it.
    pub(super) fn count(
        &mut self,
        now: Nanos,
        rules: &Rules,
        caller: Caller,
        number: u32,
        mark: Mark,
        slow: bool,
    ) -> Option<TransitionCause> {
        let failed = match mark {
            Mark::Neutral => return None,
            // One that began before the row did is news from before it.
            Mark::Success if self.row > 0 && self.range.begins_after(number) => false,
            Mark::Success => {
                (self.row, self.witness) = (0, Witness::Nobody);
                false
            }
            Mark::Failure => {
                self.row = self.row.saturating_add(1);
                self.range = if self.row == 1 { Range::of(number) } else { self.range.and(number) };
                self.witness = self.witness.and(caller);
                true
            }
        };
        self.window.record(now, Counts { calls: 1, failures: failed.into(), slow: slow.into() });
        self.window.number(number);
        if !(failed || slow) {
            return None;
        }
        if self.row >= rules.consecutive && self.range.is_mostly(self.row) {
            return Some(TransitionCause::ConsecutiveFailures);
        }
        let counts = self.window.read(now);
        if counts.calls < rules.min_calls {
            return None;
        }
        match () {
            () if exceeds(counts.failures, counts.calls, rules.failure_share)
                && self.window.range(number).is_mostly(counts.calls) =>
            {
                Some(TransitionCause::FailureShare)
            }
            () if exceeds(counts.slow, counts.calls, rules.slow_share) => Some(TransitionCause::SlowShare),
            () => None,
        }
    }

    /// Counts successes without numbers, as many at once.
    pub(super) fn absorb(&mut self, now: Nanos, successes: u32) {
        self.row = 0;
        self.window.record(now, Counts { calls: successes, failures: 0, slow: 0 });
    }

    pub(super) fn clear(&mut self) {
        self.window.clear();
        (self.row, self.witness) = (0, Witness::Nobody);
    }

    pub(super) const fn row(&self) -> u32 {
        self.row
    }

    pub(super) const fn witness(&self) -> Witness {
        self.witness
    }

    pub(super) fn counts(&mut self, now: Nanos) -> Counts {
        self.window.read(now)
    }
}

/// Whether so many of all calls are more than `share`, by more than chance explains.
///
/// Half of twenty is what a server with 30 % errors shows every now and then. So one and a half standard deviations of
/// that many draws come on top of the share. At 0.95 those are 20 of 20, 50 of 50, 195 of 200, 961 of 1000; at 0.5 they
/// are 14 of 20, 31 of 50, 111 of 200.
pub(super) fn exceeds(bad: u32, calls: u32, share: f64) -> bool {
    const DEVIATIONS: f64 = 1.5;
    if share > 1.0 {
        return false;
    }
    let calls = f64::from(calls);
    f64::from(bad) >= (share * calls + DEVIATIONS * (share * (1.0 - share) * calls).sqrt()).min(calls)
}
