//! The circuit's rules. Pure: no clock, no lock, no randomness but what is handed in.
//!
//! Each change of state begins a new generation. What was let through carries its generation, and what it ends with
//! counts in that generation only: a success from before the outage closes nothing, a straggler's failure opens
//! nothing. A probe carries the ticket of its lease on top; given back, dropped or expired, it counts nothing.

use super::error::CircuitOpenReason;
use super::ramp::Ramp;
use super::window::{Counts, Range, Window};
use super::{MAX_PROBES, Nanos, SECOND};
use crate::blame::{Caller, Witness};
use crate::event::circuit::{BreakerMode, CircuitState, TransitionCause};

/// Every number that the rules depend on. Checked by the builder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) mode: BreakerMode,
    pub(super) window: Nanos,
    pub(super) min_calls: u32,
    pub(super) failure_share: f64,
    pub(super) consecutive: u32,
    /// Above 1 where slow calls do not matter.
    pub(super) slow_share: f64,
    pub(super) open: Nanos,
    pub(super) open_factor: f64,
    pub(super) open_max: Nanos,
    pub(super) max_server_delay: Nanos,
    /// At most [`MAX_PROBES`].
    pub(super) probes: usize,
    pub(super) successes: u32,
    pub(super) lease: Nanos,
    pub(super) ramp: Nanos,
}

/// How far open times are spread, either way.
const JITTER: f64 = 0.2;

/// Calls a second at the beginning of a ramp, at the least.
const RAMP_START: f64 = 10.0;

/// The share of the calls a second before the outage with which a ramp begins, if that is more, by the longest outage
/// that it is for: the longer it was, the more wait, and the colder the server may be. Twice as many are what callers send
/// who back off for up to as long as the outage has lasted, and come back within as much again: no more than without a
/// breaker.
const RAMP_SHARES: [(Nanos, f64); 2] = [(90 * SECOND, 2.0), (Nanos::MAX, 0.25)];

/// The shortest time over which the calls a second before an outage are measured. At a cold start all that there is are the
/// calls that opened the circuit.
const LEAST_MEASURED: Nanos = SECOND / 4;

/// How many failures in a row of other callers show that it is not the one caller's fault for which a circuit is open.
const OTHERS: u32 = 5;

/// After so many windows without a call, what is known of a server is no longer worth keeping.
const STALE_WINDOWS: u64 = 10;

/// What is added to the time in which probes fail, against the noise of networks and timers.
const GRAIN: Nanos = SECOND / 10;

/// See [`Machine::promise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Promise {
    None,
    /// It has lasted longer than those that failed: others may try as well.
    Made,
    /// It has lasted much longer: the circuit closes.
    Kept,
}

/// What one call ended with, as the circuit sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Success,
    Failure,
    Neutral,
}

/// A call that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) generation: u32,
    /// Of a probe's lease; 0 for any other call.
    pub(super) ticket: u32,
    /// Of the call, in the order in which calls start. Wraps.
    pub(super) number: u32,
}

impl Pass {
    pub(super) const fn is_probe(self) -> bool {
        self.ticket != 0
    }
}

/// A call that was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    /// [`NEVER`] where nobody knows.
    pub(super) until: Nanos,
    pub(super) since: Nanos,
    pub(super) why: CircuitOpenReason,
}

/// `None` is let through without counting: it would have been turned away.
pub(super) type Admission = Result<Option<Pass>, Denial>;

pub(super) const NEVER: Nanos = Nanos::MAX;

/// A [`Transition`](super::Transition) on the circuit's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) generation: u32,
    pub(super) at: Nanos,
    pub(super) from: CircuitState,
    pub(super) to: CircuitState,
    pub(super) mode: BreakerMode,
    pub(super) cause: TransitionCause,
    pub(super) until: Option<Nanos>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ticket: u32,
    since: Nanos,
    ends: Nanos,
    /// It has lengthened the open time.
    struck: bool,
}

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
    window: Window,
    /// Failures in a row.
    row: u32,
    /// Whose they are.
    witness: Witness,
    /// The numbers of the calls that they began with and have come to.
    range: Range,
    /// Whom an open circuit binds.
    bound: Witness,
    /// Failures in a row of those whom it does not bind.
    others: u32,
    /// The exponent of the next open time: probes of this outage that have failed or hang.
    strikes: u32,
    /// When the outage began, and the generation that it began with.
    down: Nanos,
    outage: u32,
    /// Probes under way, and those that succeeded in this outage.
    leases: [Option<Lease>; MAX_PROBES],
    good: u32,
    /// The longest that a probe of this outage took to fail.
    fails_in: Option<Nanos>,
    /// Calls a second before the outage.
    busy: f64,
    /// Tickets handed out.
    tickets: u32,
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
            window: Window::new(rules.window),
            row: 0,
            witness: Witness::Nobody,
            range: Range::default(),
            bound: Witness::Nobody,
            others: 0,
            strikes: 0,
            down: now,
            outage: 0,
            leases: [None; MAX_PROBES],
            good: 0,
            fails_in: None,
            busy: 0.0,
            tickets: 0,
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
            _ if self.promise(now) >= Promise::Kept => {
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

    /// What the oldest probe under way lets expect: a server that refuses does so at once, and one that is at work on a
    /// probe for longer than that is back. An answer may take a minute; who waits for it may miss all of the time in which
    /// the server is up.
    fn promise(&self, now: Nanos) -> Promise {
        let oldest =
            self.leases.iter().flatten().filter(|lease| lease.ends > now).map(|lease| lease.since).min();
        // A closed circuit has no leases.
        let (Some(fails_in), Some(oldest)) = (self.fails_in, oldest) else { return Promise::None };
        let unit = fails_in.saturating_mul(4).saturating_add(GRAIN);
        match now.saturating_sub(oldest) {
            age if self.rules.successes > 1 || age < unit => Promise::None,
            age if age < unit.saturating_mul(2) => Promise::Made,
            _ => Promise::Kept,
        }
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
                // Zero is no ticket.
                self.tickets = self.tickets.checked_add(1).unwrap_or(1);
                let ends = now.saturating_add(self.rules.lease);
                // One that hangs does not keep the others from finding out; it counts as one that failed.
                let struck = self.strike();
                let lease = Lease { ticket: self.tickets, since: now, ends, struck };
                let free = self.leases.iter_mut().find(|slot| slot.is_none_or(|lease| lease.ends <= now));
                *free.expect("it does not deny, so a place is free") = Some(lease);
                let next = now.saturating_add(self.open_time(0.5));
                self.phase = Phase::HalfOpen { next };
                self.tickets
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
                let taken = self.leases.iter().flatten().filter(|lease| lease.ends > now).count();
                let promise = self.promise(now);
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
        let slot = self.leases.iter_mut().find(|slot| slot.is_some_and(|l| l.ticket == pass.ticket))?;
        let lease = slot.take().filter(|lease| lease.ends > now)?;
        if mark == Mark::Neutral {
            self.strikes -= u32::from(lease.struck);
        }
        if mark == Mark::Failure {
            let took = now.saturating_sub(lease.since);
            self.fails_in = Some(self.fails_in.map_or(took, |longest| longest.max(took)));
        }
        self.touched = self.touched.max(now);
        match mark {
            Mark::Neutral => None,
            Mark::Success if !slow => {
                self.good += 1;
                (self.good >= self.rules.successes).then(|| self.close(now, TransitionCause::ProbesSucceeded))
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
            self.row = 0;
            if let Phase::Closed { ramp: Some(ramp) } = &mut self.phase {
                ramp.make_up(now, successes);
            }
            self.window.record(now, Counts { calls: successes, failures: 0, slow: 0 });
        }
    }

    /// A probe that ended without a word.
    pub(super) fn release(&mut self, pass: Pass) {
        let slot = self.leases.iter_mut().find(|slot| slot.is_some_and(|l| l.ticket == pass.ticket));
        if let Some(lease) = slot.and_then(Option::take) {
            self.strikes -= u32::from(lease.struck);
        }
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
        match &mut self.phase {
            Phase::Closed { ramp: Some(ramp) } if failed => ramp.step_back(now),
            Phase::Closed { ramp: Some(ramp) } => ramp.make_up(now, 1),
            _ => {}
        }
        self.window.record(now, Counts { calls: 1, failures: failed.into(), slow: slow.into() });
        self.window.number(number);
        if self.mode == BreakerMode::ForcedClosed || !(failed || slow) {
            return None;
        }
        if self.row >= self.rules.consecutive && self.range.is_mostly(self.row) {
            return Some(TransitionCause::ConsecutiveFailures);
        }
        let counts = self.window.read(now);
        if counts.calls < self.rules.min_calls {
            return None;
        }
        match () {
            () if exceeds(counts.failures, counts.calls, self.rules.failure_share)
                && self.window.range(number).is_mostly(counts.calls) =>
            {
                Some(TransitionCause::FailureShare)
            }
            () if exceeds(counts.slow, counts.calls, self.rules.slow_share) => {
                Some(TransitionCause::SlowShare)
            }
            () => None,
        }
    }

    fn open(&mut self, now: Nanos, cause: TransitionCause, hint: Nanos, draw: f64) -> Change {
        if let Phase::Closed { ramp } = &self.phase {
            let closed_for = now.saturating_sub(self.since);
            // What the ramp held back is no measure of the traffic.
            let before = if ramp.is_some() { self.busy } else { 0.0 };
            let measured = closed_for.clamp(LEAST_MEASURED, self.rules.window.max(LEAST_MEASURED));
            let measured = measured as f64 / SECOND as f64;
            self.busy = before.max(f64::from(self.window.read(now).calls) / measured);
            self.down = now;
            self.outage = self.generation.wrapping_add(1);
            // A share of the window is everybody's, and only a row is anybody's.
            self.bound =
                if cause == TransitionCause::ConsecutiveFailures { self.witness } else { Witness::Many };
            self.others = 0;
        }
        self.good = 0;
        let wait = self.open_time(draw).max(hint.min(self.rules.max_server_delay));
        // One less than `NEVER` is an instant.
        let until = now.saturating_add(wait).min(NEVER - 1);
        self.enter(now, Phase::Open { until }, cause)
    }

    /// How long until the next probe, the longer the more of them have failed or hang in this outage.
    fn open_time(&self, draw: f64) -> Nanos {
        // The longest open time is a promise, and the spread stays whole below it.
        let most = self.rules.open_max as f64 / (1.0 + JITTER);
        (self.grown().min(most) * (1.0 + JITTER * (2.0 * draw - 1.0))) as Nanos
    }

    fn grown(&self) -> f64 {
        let strikes = i32::try_from(self.strikes).unwrap_or(i32::MAX);
        self.rules.open as f64 * self.rules.open_factor.powi(strikes)
    }

    /// Counts a probe that is sent. It is given back if the probe says nothing.
    fn strike(&mut self) -> bool {
        let lengthens = self.grown() < self.rules.open_max as f64;
        self.strikes += u32::from(lengthens);
        lengthens
    }

    fn close(&mut self, now: Nanos, cause: TransitionCause) -> Change {
        let outage = now.saturating_sub(self.down);
        let share =
            RAMP_SHARES.iter().find(|(longest, _)| outage < *longest).map_or(0.0, |(_, share)| *share);
        let start = RAMP_START.max(self.busy * share);
        self.forget_outage();
        let ramp = (self.rules.ramp > 0).then(|| Ramp::new(now, self.rules.ramp, start));
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
        (self.mode, self.busy) = (mode, 0.0);
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
        (self.strikes, self.good, self.others, self.fails_in) = (0, 0, 0, None);
        self.leases = [None; MAX_PROBES];
        self.bound = Witness::Nobody;
    }

    /// The only way from one phase to another.
    fn enter(&mut self, now: Nanos, phase: Phase, cause: TransitionCause) -> Change {
        let from = self.state();
        self.phase = phase;
        self.cause = cause;
        self.since = now;
        self.generation = self.generation.wrapping_add(1);
        self.window.clear();
        (self.row, self.witness) = (0, Witness::Nobody);
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
        self.row
    }

    pub(super) fn counts(&mut self, now: Nanos) -> Counts {
        self.window.read(now)
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
        matches!(self.phase, Phase::Closed { .. }) && self.row == 0
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
            && self.row == 0
            && self.window.read(now) == Counts::default()
    }
}

/// Whether so many of all calls are more than `share`, by more than chance explains.
///
/// Half of twenty is what a server with 30 % errors shows every now and then. So one and a half standard deviations of
/// that many draws come on top of the share. At 0.95 those are 20 of 20, 50 of 50, 195 of 200, 961 of 1000; at 0.5 they
/// are 14 of 20, 31 of 50, 111 of 200.
fn exceeds(bad: u32, calls: u32, share: f64) -> bool {
    const DEVIATIONS: f64 = 1.5;
    if share > 1.0 {
        return false;
    }
    let calls = f64::from(calls);
    f64::from(bad) >= (share * calls + DEVIATIONS * (share * (1.0 - share) * calls).sqrt()).min(calls)
}

#[cfg(test)]
#[path = "tests/state.rs"]
mod tests;
