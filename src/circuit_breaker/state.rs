//! The circuit's rules. Pure: no clock, no lock, no randomness but what is handed in.
//!
//! Each change of state begins a new generation. What was let through carries its generation, and what it ends with
//! counts in that generation only: a success from before the outage closes nothing, a straggler's failure opens
//! nothing. A probe carries the ticket of its lease on top; given back, dropped or expired, it counts nothing.

use super::decision::{Admission, Change, Denial, Mark, NEVER, Pass};
use super::error::CircuitOpenReason;
use super::evidence::Evidence;
use super::probes::{Probes, Promise};
use super::ramp::Ramp;
use super::rules::{LEAST_PACED, Rules};
use super::window::Counts;
use super::{Nanos, SECOND};
use crate::blame::{Caller, Witness};
use crate::event::circuit::{BreakerMode, CircuitState, TransitionCause};

/// The shortest time over which the calls a second before an outage are measured. At a cold start all that there is are the
/// calls that opened the circuit.
const LEAST_MEASURED: Nanos = SECOND / 4;

/// How many failures in a row of other callers show that it is not the one caller's fault for which a circuit is open.
const OTHERS: u32 = 5;

/// After so many windows without a call, what is known of a server is no longer worth keeping.
const STALE_WINDOWS: u64 = 10;

#[derive(Clone, Debug)]
enum Phase {
    Closed {
        ramp: Option<Ramp>,
    },
    Open {
        until: Nanos,
    },
    /// The next probe may go at `next`, beside those under way.
    HalfOpen {
        next: Nanos,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Machine {
    rules: Rules,
    mode: BreakerMode,
    phase: Phase,
    /// Of the phase. Every change of phase or mode adds one, and nothing else does.
    generation: u32,
    since: Nanos,
    /// Why the phase was entered.
    cause: TransitionCause,
    evidence: Evidence,
    /// Whom an open circuit binds.
    bound: Witness,
    /// Failures in a row of those whom it does not bind.
    others: u32,
    /// When the outage began, and the generation that it began with.
    down: Nanos,
    outage: u32,
    probes: Probes,
    /// Calls a second before the outage.
    busy: f64,
    /// The same, for how often probes go: of a batch that began at once it is less.
    pace: f64,
    /// Requests turned away while half-open.
    denied: u32,
    /// When something was last asked or counted.
    touched: Nanos,
}

impl Machine {
    pub(super) fn new(rules: Rules, now: Nanos) -> Self {
        Self {
            mode: rules.mode,
            phase: Phase::Closed { ramp: None },
            generation: 0,
            since: now,
            cause: TransitionCause::ByHand,
            evidence: Evidence::new(&rules),
            bound: Witness::Nobody,
            others: 0,
            down: now,
            outage: 0,
            probes: Probes::default(),
            busy: 0.0,
            pace: 0.0,
            denied: 0,
            touched: now,
            rules,
        }
    }

    /// Whether this call may go. It may be the one that finds the open time over.
    ///
    /// Its number is for the caller to give.
    pub(super) fn admit(&mut self, now: Nanos, caller: Caller) -> (Admission, Option<Change>) {
        self.touched = self.touched.max(now);
        let mut change = None;
        if !self.binds(caller) {
            return (Ok(Some(Pass { generation: self.generation, ticket: 0, number: 0 })), change);
        }
        // One change at the most: each is told.
        match self.phase {
            Phase::Open { until } if now < until || until == NEVER => {}
            _ if self.probes.promise(now, &self.rules) >= Promise::Kept => {
                change = Some(self.close(now, TransitionCause::ProbeOutlasts));
            }
            Phase::Open { .. } => {
                change = Some(self.enter(now, Phase::HalfOpen { next: now }, TransitionCause::OpenTimeOver));
            }
            Phase::Closed { .. } | Phase::HalfOpen { .. } => {}
        }
        let ticket = match self.reserve(now) {
            Ok(ticket) => ticket,
            Err(_) if self.mode == BreakerMode::ObserveOnly => return (Ok(None), change),
            Err(denial) => return (Err(denial), change),
        };
        (Ok(Some(Pass { generation: self.generation, ticket, number: 0 })), change)
    }

    /// Whether this caller's requests are turned away while the circuit is open.
    fn binds(&self, caller: Caller) -> bool {
        matches!(self.phase, Phase::Closed { .. }) || self.bound.binds(caller)
    }

    fn reserve(&mut self, now: Nanos) -> Result<u32, Denial> {
        if let Some(denial) = self.deny(now) {
            return Err(denial);
        }
        Ok(match &mut self.phase {
            Phase::Closed { ramp } => {
                ramp.iter_mut().for_each(Ramp::take);
                0
            }
            Phase::Open { .. } => unreachable!("it denies, or it was half-opened before"),
            Phase::HalfOpen { .. } => {
                let ticket = self.probes.begin(now, &self.rules);
                let next = now.saturating_add(self.open_time(0.5));
                self.phase = Phase::HalfOpen { next };
                ticket
            }
        })
    }

    /// Turns a call away where it is certain already that it may not go, and takes no place where it may.
    pub(super) fn refuse(&mut self, now: Nanos, caller: Caller) -> Option<Denial> {
        if self.mode == BreakerMode::ObserveOnly || !self.binds(caller) { None } else { self.deny(now) }
    }

    fn deny(&mut self, now: Nanos) -> Option<Denial> {
        let since = self.since;
        match &mut self.phase {
            Phase::Closed { ramp } => {
                if ramp.as_ref().is_some_and(|ramp| ramp.is_over(now)) {
                    *ramp = None;
                }
                let until = ramp.as_mut()?.promise(now)?;
                Some(Denial { until, since, why: CircuitOpenReason::Ramping })
            }
            Phase::Open { until } if now < *until || *until == NEVER => {
                Some(Denial { until: *until, since, why: CircuitOpenReason::Opened(self.cause) })
            }
            Phase::Open { .. } => None,
            Phase::HalfOpen { next } => {
                let next = *next;
                let taken = self.probes.under_way(now);
                let promise = self.probes.promise(now, &self.rules);
                let may_go = next <= now || promise > Promise::None;
                if taken == 0 || (taken < self.rules.probes && may_go) || promise == Promise::Kept {
                    return None;
                }
                // Nobody knows how long a probe takes. Those who wait ask again after the shortest open time, give or
                // take half of it; multiples of the golden ratio spread any number of them evenly.
                self.denied = self.denied.wrapping_add(0x9E37_79B9);
                let spread = (u128::from(self.rules.open) * u128::from(self.denied)) >> 32;
                let until = now.saturating_add(self.rules.open / 2).saturating_add(spread as Nanos);
                Some(Denial { until, since, why: CircuitOpenReason::Probing })
            }
        }
    }

    /// Counts what a call ended with. `hint` is the delay that the server asked for, `draw` uniform in `[0, 1)`.
    #[allow(clippy::too_many_arguments, reason = "what a call carries, and what its end says")]
    pub(super) fn settle(
        &mut self,
        now: Nanos,
        pass: Pass,
        caller: Caller,
        mark: Mark,
        slow: bool,
        hint: Nanos,
        draw: impl FnOnce() -> f64,
    ) -> Option<Change> {
        if pass.is_probe() {
            return self.settle_probe(now, pass, mark, slow, hint, draw);
        }
        if !self.binds(caller) {
            return self.settle_other(now, pass, mark);
        }
        if pass.generation != self.generation {
            return None;
        }
        self.touched = self.touched.max(now);
        match &self.phase {
            Phase::Closed { .. } => {
                let cause = self.count(now, caller, pass.number, mark, slow)?;
                Some(self.open(now, cause, hint, draw()))
            }
            Phase::HalfOpen { .. } | Phase::Open { .. } => None,
        }
    }

    fn settle_probe(
        &mut self,
        now: Nanos,
        pass: Pass,
        mark: Mark,
        slow: bool,
        hint: Nanos,
        draw: impl FnOnce() -> f64,
    ) -> Option<Change> {
        // Of an outage that is over, or not known any more: it has no lease.
        if !self.probes.end(now, pass.ticket, mark) {
            return None;
        }
        self.touched = self.touched.max(now);
        match mark {
            Mark::Neutral => None,
            Mark::Success if !slow => {
                self.probes.good += 1;
                (self.probes.good >= self.rules.successes)
                    .then(|| self.close(now, TransitionCause::ProbesSucceeded))
            }
            // Another one has failed before it, and it has been waited for since.
            Mark::Success | Mark::Failure if matches!(self.phase, Phase::Open { .. }) => None,
            Mark::Success | Mark::Failure => Some(self.open(now, TransitionCause::ProbeFailed, hint, draw())),
        }
    }

    /// What one of those has seen whom the open circuit does not bind.
    ///
    /// A call that began before the outage says nothing of it.
    fn settle_other(&mut self, now: Nanos, pass: Pass, mark: Mark) -> Option<Change> {
        let since = |generation: u32| generation.wrapping_sub(self.outage);
        if since(pass.generation) > since(self.generation) {
            return None;
        }
        match mark {
            Mark::Neutral => None,
            // The server is well, so what the one caller has seen is its own.
            // Nobody else has waited, and nobody else is held back by a ramp.
            Mark::Success => {
                self.forget_outage();
                Some(self.enter(now, Phase::Closed { ramp: None }, TransitionCause::ProbesSucceeded))
            }
            Mark::Failure => {
                self.others += 1;
                if self.others >= OTHERS {
                    self.bound = Witness::Many;
                }
                None
            }
        }
    }

    /// Counts successes that carry this generation, which is closed.
    pub(super) fn absorb(&mut self, now: Nanos, successes: u32) {
        if successes > 0 {
            self.touched = self.touched.max(now);
            if let Phase::Closed { ramp: Some(ramp) } = &mut self.phase {
                ramp.make_up(now, successes);
            }
            self.evidence.absorb(now, successes);
        }
    }

    /// A probe that ended without a word.
    pub(super) fn release(&mut self, pass: Pass) {
        self.probes.release(pass.ticket);
    }

    /// Counts one call, and says whether the circuit opens for it.
    fn count(
        &mut self,
        now: Nanos,
        caller: Caller,
        number: u32,
        mark: Mark,
        slow: bool,
    ) -> Option<TransitionCause> {
        if let Phase::Closed { ramp: Some(ramp) } = &mut self.phase {
            match mark {
                Mark::Failure => ramp.step_back(now),
                Mark::Success => ramp.make_up(now, 1),
                Mark::Neutral => {}
            }
        }
        let cause = self.evidence.count(now, &self.rules, caller, number, mark, slow);
        cause.filter(|_| self.mode != BreakerMode::ForcedClosed)
    }

    fn open(&mut self, now: Nanos, cause: TransitionCause, hint: Nanos, draw: f64) -> Change {
        if let Phase::Closed { ramp } = &self.phase {
            let closed_for = now.saturating_sub(self.since);
            // What the ramp held back is no measure of the traffic.
            let before = if ramp.is_some() { self.busy } else { 0.0 };
            let counted = self.evidence.counts(now).calls;
            let over = |calls: f64, least: Nanos| {
                calls / closed_for.clamp(least, self.rules.window.max(least)) as f64 * SECOND as f64
            };
            let calls = f64::from(counted);
            // The row that opens it belongs to the outage, and most of it may be the client's own retries.
            let earlier = f64::from(counted.saturating_sub(self.evidence.row()));
            (self.busy, self.pace) = (before.max(over(calls, LEAST_MEASURED)), over(earlier, LEAST_PACED));
            self.down = now;
            self.outage = self.generation.wrapping_add(1);
            // A share of the window is everybody's, and only a row is anybody's.
            self.bound = if cause == TransitionCause::ConsecutiveFailures {
                self.evidence.witness()
            } else {
                Witness::Many
            };
            self.others = 0;
        }
        self.probes.good = 0;
        let wait = self.open_time(draw).max(hint.min(self.rules.max_server_delay));
        // One less than `NEVER` is an instant.
        let until = now.saturating_add(wait).min(NEVER - 1);
        self.enter(now, Phase::Open { until }, cause)
    }

    /// How long until the next probe.
    fn open_time(&self, draw: f64) -> Nanos {
        self.rules.open_time(self.probes.strikes, self.pace, draw)
    }

    fn close(&mut self, now: Nanos, cause: TransitionCause) -> Change {
        let outage = now.saturating_sub(self.down);
        self.forget_outage();
        let ramp = self.rules.ramp(now, outage, self.busy);
        self.enter(now, Phase::Closed { ramp }, cause)
    }

    /// Hands the decision to somebody else, who begins with a blank page. Nothing happens where it is the same.
    pub(super) fn set_mode(&mut self, now: Nanos, mode: BreakerMode) -> Option<Change> {
        (self.mode != mode).then(|| self.begin(now, mode))
    }

    /// The mode of the settings, and a blank page.
    pub(super) fn reset(&mut self, now: Nanos) -> Change {
        self.begin(now, self.rules.mode)
    }

    fn begin(&mut self, now: Nanos, mode: BreakerMode) -> Change {
        (self.mode, self.busy, self.pace) = (mode, 0.0, 0.0);
        self.forget_outage();
        let phase = match mode {
            BreakerMode::ForcedOpen => Phase::Open { until: NEVER },
            BreakerMode::Automatic | BreakerMode::ForcedClosed | BreakerMode::ObserveOnly => {
                Phase::Closed { ramp: None }
            }
        };
        self.enter(now, phase, TransitionCause::ByHand)
    }

    /// The next outage is another one.
    fn forget_outage(&mut self) {
        self.probes.forget();
        (self.others, self.bound) = (0, Witness::Nobody);
    }

    /// The only way from one phase to another.
    fn enter(&mut self, now: Nanos, phase: Phase, cause: TransitionCause) -> Change {
        let from = self.state();
        self.phase = phase;
        self.cause = cause;
        self.since = now;
        self.generation = self.generation.wrapping_add(1);
        self.evidence.clear();
        Change {
            generation: self.generation,
            at: now,
            from,
            to: self.state(),
            mode: self.mode,
            cause,
            until: self.until(),
        }
    }

    // ===== what it looks like from outside =====

    pub(super) fn state(&self) -> CircuitState {
        match self.phase {
            Phase::Closed { .. } => CircuitState::Closed,
            Phase::Open { .. } => CircuitState::Open,
            Phase::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    pub(super) const fn mode(&self) -> BreakerMode {
        self.mode
    }

    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) const fn since(&self) -> Nanos {
        self.since
    }

    pub(super) const fn cause(&self) -> TransitionCause {
        self.cause
    }

    pub(super) const fn row(&self) -> u32 {
        self.evidence.row()
    }

    pub(super) fn counts(&mut self, now: Nanos) -> Counts {
        self.evidence.counts(now)
    }

    pub(super) fn is_ramping(&self, now: Nanos) -> bool {
        matches!(&self.phase, Phase::Closed { ramp: Some(ramp) } if !ramp.is_over(now))
    }

    /// Of an open circuit, where somebody knows.
    pub(super) fn until(&self) -> Option<Nanos> {
        match self.phase {
            Phase::Open { until } if until != NEVER => Some(until),
            _ => None,
        }
    }

    /// Until when every request is turned away without another look: 0 where one is needed.
    ///
    /// And whom that is for: see [`shut_for`](Self::shut_for).
    pub(super) fn shut(&self) -> Nanos {
        match self.phase {
            Phase::Open { until } if self.mode != BreakerMode::ObserveOnly => until,
            _ => 0,
        }
    }

    /// Whom [`shut`](Self::shut) turns away: this caller alone, or everybody.
    pub(super) const fn shut_for(&self) -> Option<Caller> {
        match self.bound {
            Witness::One(caller) => Some(caller),
            Witness::Nobody | Witness::Many => None,
        }
    }

    /// Whether an open or half-open circuit binds one caller only.
    pub(super) const fn is_one_callers(&self) -> bool {
        self.shut_for().is_some()
    }

    /// Whether every request goes through without another look.
    pub(super) fn is_free(&self) -> bool {
        matches!(self.phase, Phase::Closed { ramp: None })
    }

    /// Whether a success changes nothing but the window.
    pub(super) fn is_even(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. }) && self.evidence.row() == 0
    }

    /// Whether nothing would be lost if it were made anew. Asked while no call is under way.
    pub(super) fn is_idle(&mut self, now: Nanos) -> bool {
        if self.mode != self.rules.mode {
            return false;
        }
        let busy_until = self.until().unwrap_or(0).max(self.touched);
        if now.saturating_sub(busy_until) >= self.rules.window.saturating_mul(STALE_WINDOWS) {
            return true;
        }
        matches!(self.phase, Phase::Closed { .. })
            && !self.is_ramping(now)
            && self.evidence.row() == 0
            && self.evidence.counts(now) == Counts::default()
    }
}

#[cfg(test)]
#[path = "tests/state.rs"]
mod tests;
