//! The circuit's rules. Pure: no clock, no lock, no randomness but what is handed in.
//!
//! Each change of state begins a new generation. What was let through carries its generation, and what it ends with
//! counts in that generation only: a success from before the outage closes nothing, a straggler's failure opens
//! nothing. A probe carries the ticket of its lease on top; given back, dropped or expired, it counts nothing.

use super::error::Why;
use super::ramp::Ramp;
use super::transition::{Cause, CircuitState, Mode};
use super::window::{Counts, Window};
use super::{MAX_PROBES, Nanos, SECOND};

/// Every number that the rules depend on. Checked by the builder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) mode: Mode,
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

/// The share of the calls a second before the outage with which a ramp begins, if that is more.
const RAMP_SHARE: f64 = 0.25;

/// After so many windows without a call, what is known of a server is no longer worth keeping.
const STALE_WINDOWS: u64 = 10;

/// What one call ended with, as the circuit sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Success,
    /// A soft one counts for the share and not for the row.
    Failure {
        hard: bool,
    },
    Neutral,
}

/// A call that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) generation: u32,
    /// Of a probe's lease; 0 for any other call.
    pub(super) ticket: u32,
}

/// A call that was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    /// [`NEVER`] where nobody knows.
    pub(super) until: Nanos,
    pub(super) since: Nanos,
    pub(super) why: Why,
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
    pub(super) mode: Mode,
    pub(super) cause: Cause,
    pub(super) until: Option<Nanos>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ticket: u32,
    ends: Nanos,
}

#[derive(Clone, Debug)]
enum Phase {
    Closed { ramp: Option<Ramp> },
    Open { until: Nanos },
    HalfOpen { leases: [Option<Lease>; MAX_PROBES], good: u32 },
}

#[derive(Clone, Debug)]
pub(super) struct Machine {
    rules: Rules,
    mode: Mode,
    phase: Phase,
    /// Of the phase. Every change of phase or mode adds one, and nothing else does.
    generation: u32,
    since: Nanos,
    /// Why the phase was entered.
    cause: Cause,
    window: Window,
    /// Hard failures in a row.
    row: u32,
    /// The exponent of the next open time.
    strikes: u32,
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
            cause: Cause::ByHand,
            window: Window::new(rules.window),
            row: 0,
            strikes: 0,
            busy: 0.0,
            tickets: 0,
            denied: 0,
            touched: now,
            rules,
        }
    }

    /// Whether this call may go. It may be the one that finds the open time over.
    pub(super) fn admit(&mut self, now: Nanos) -> (Admission, Option<Change>) {
        self.touched = self.touched.max(now);
        let mut change = None;
        if let Phase::Open { until } = self.phase {
            if now >= until && until != NEVER {
                let phase = Phase::HalfOpen { leases: [None; MAX_PROBES], good: 0 };
                change = Some(self.enter(now, phase, Cause::OpenTimeOver));
            }
        }
        let ticket = match self.reserve(now) {
            Ok(ticket) => ticket,
            Err(_) if self.mode == Mode::ObserveOnly => return (Ok(None), change),
            Err(denial) => return (Err(denial), change),
        };
        (Ok(Some(Pass { generation: self.generation, ticket })), change)
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
            Phase::HalfOpen { leases, .. } => {
                // Zero is no ticket.
                self.tickets = self.tickets.checked_add(1).unwrap_or(1);
                let lease = Lease { ticket: self.tickets, ends: now.saturating_add(self.rules.lease) };
                let free = leases.iter_mut().find(|slot| slot.is_none_or(|lease| lease.ends <= now));
                *free.expect("it does not deny, so a place is free") = Some(lease);
                self.tickets
            }
        })
    }

    /// Turns a call away where it is certain already that it may not go, and takes no place where it may.
    pub(super) fn refuse(&mut self, now: Nanos) -> Option<Denial> {
        if self.mode == Mode::ObserveOnly { None } else { self.deny(now) }
    }

    fn deny(&mut self, now: Nanos) -> Option<Denial> {
        let since = self.since;
        match &mut self.phase {
            Phase::Closed { ramp } => {
                if ramp.as_ref().is_some_and(|ramp| ramp.is_over(now)) {
                    *ramp = None;
                }
                let until = ramp.as_mut()?.promise(now)?;
                Some(Denial { until, since, why: Why::Ramping })
            }
            Phase::Open { until } if now < *until || *until == NEVER => {
                Some(Denial { until: *until, since, why: Why::Opened(self.cause) })
            }
            Phase::Open { .. } => None,
            Phase::HalfOpen { leases, .. } => {
                let taken = leases.iter().flatten().filter(|lease| lease.ends > now).count();
                if taken < self.rules.probes {
                    return None;
                }
                // Nobody knows how long a probe takes. Those who wait ask again after the shortest open time, give or
                // take half of it; multiples of the golden ratio spread any number of them evenly.
                self.denied = self.denied.wrapping_add(0x9E37_79B9);
                let spread = (u128::from(self.rules.open) * u128::from(self.denied)) >> 32;
                let until = now.saturating_add(self.rules.open / 2).saturating_add(spread as Nanos);
                Some(Denial { until, since, why: Why::Probing })
            }
        }
    }

    /// Counts what a call ended with. `hint` is the delay that the server asked for, `draw` uniform in `[0, 1)`.
    pub(super) fn settle(
        &mut self,
        now: Nanos,
        pass: Pass,
        mark: Mark,
        slow: bool,
        hint: Nanos,
        draw: impl FnOnce() -> f64,
    ) -> Option<Change> {
        if pass.generation != self.generation {
            return None;
        }
        self.touched = self.touched.max(now);
        let cause = match &mut self.phase {
            Phase::Closed { .. } => self.count(now, mark, slow)?,
            Phase::HalfOpen { leases, good } => {
                let slot = leases.iter_mut().find(|slot| slot.is_some_and(|l| l.ticket == pass.ticket))?;
                if slot.take().is_some_and(|lease| lease.ends <= now) {
                    return None;
                }
                match mark {
                    Mark::Neutral => return None,
                    Mark::Success if !slow => {
                        *good += 1;
                        return (*good >= self.rules.successes).then(|| self.close(now));
                    }
                    Mark::Success | Mark::Failure { .. } => Cause::ProbeFailed,
                }
            }
            Phase::Open { .. } => return None,
        };
        Some(self.open(now, cause, hint, draw()))
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
        if let Phase::HalfOpen { leases, .. } = &mut self.phase {
            if pass.generation == self.generation {
                let slot = leases.iter_mut().find(|slot| slot.is_some_and(|l| l.ticket == pass.ticket));
                slot.map(Option::take);
            }
        }
    }

    /// Counts one call, and says whether the circuit opens for it.
    fn count(&mut self, now: Nanos, mark: Mark, slow: bool) -> Option<Cause> {
        let failed = match mark {
            Mark::Neutral => return None,
            Mark::Success => {
                self.row = 0;
                false
            }
            Mark::Failure { hard } => {
                self.row = self.row.saturating_add(u32::from(hard));
                true
            }
        };
        match &mut self.phase {
            Phase::Closed { ramp: Some(ramp) } if failed => ramp.step_back(now),
            Phase::Closed { ramp: Some(ramp) } => ramp.make_up(now, 1),
            _ => {}
        }
        self.window.record(now, Counts { calls: 1, failures: failed.into(), slow: slow.into() });
        if self.mode == Mode::ForcedClosed || !(failed || slow) {
            return None;
        }
        if self.row >= self.rules.consecutive {
            return Some(Cause::ConsecutiveFailures);
        }
        let counts = self.window.read(now);
        if counts.calls < self.rules.min_calls {
            return None;
        }
        match () {
            () if exceeds(counts.failures, counts.calls, self.rules.failure_share) => {
                Some(Cause::FailureShare)
            }
            () if exceeds(counts.slow, counts.calls, self.rules.slow_share) => Some(Cause::SlowShare),
            () => None,
        }
    }

    fn open(&mut self, now: Nanos, cause: Cause, hint: Nanos, draw: f64) -> Change {
        if let Phase::Closed { ramp } = &self.phase {
            let closed_for = now.saturating_sub(self.since);
            // What the ramp held back is no measure of the traffic.
            let before = if ramp.is_some() { self.busy } else { 0.0 };
            let measured = closed_for.clamp(SECOND, self.rules.window.max(SECOND)) as f64 / SECOND as f64;
            self.busy = before.max(f64::from(self.window.read(now).calls) / measured);
            // A circuit that flaps keeps its memory: one step less for each healthy window.
            let healthy = closed_for / self.rules.window.max(1);
            self.strikes = self.strikes.saturating_sub(u32::try_from(healthy).unwrap_or(u32::MAX));
        }
        let (base, max) = (self.rules.open as f64, self.rules.open_max as f64);
        let grown = base * self.rules.open_factor.powi(i32::try_from(self.strikes).unwrap_or(i32::MAX));
        // Not counted beyond the longest open time, or forgetting would take as long as the outage.
        self.strikes += u32::from(grown < max);
        // The longest open time is a promise, and the spread stays whole below it.
        let own = grown.min(max / (1.0 + JITTER)) * (1.0 + JITTER * (2.0 * draw - 1.0));
        let wait = (own as Nanos).max(hint.min(self.rules.max_server_delay));
        // One less than `NEVER` is an instant.
        let until = now.saturating_add(wait).min(NEVER - 1);
        self.enter(now, Phase::Open { until }, cause)
    }

    fn close(&mut self, now: Nanos) -> Change {
        let start = RAMP_START.max(self.busy * RAMP_SHARE);
        let ramp = (self.rules.ramp > 0).then(|| Ramp::new(now, self.rules.ramp, start));
        self.enter(now, Phase::Closed { ramp }, Cause::ProbesSucceeded)
    }

    /// Hands the decision to somebody else, who begins with a blank page. Nothing happens where it is the same.
    pub(super) fn set_mode(&mut self, now: Nanos, mode: Mode) -> Option<Change> {
        (self.mode != mode).then(|| self.begin(now, mode))
    }

    /// The mode of the settings, and a blank page.
    pub(super) fn reset(&mut self, now: Nanos) -> Change {
        self.begin(now, self.rules.mode)
    }

    fn begin(&mut self, now: Nanos, mode: Mode) -> Change {
        (self.mode, self.strikes, self.busy) = (mode, 0, 0.0);
        let phase = match mode {
            Mode::ForcedOpen => Phase::Open { until: NEVER },
            Mode::Automatic | Mode::ForcedClosed | Mode::ObserveOnly => Phase::Closed { ramp: None },
        };
        self.enter(now, phase, Cause::ByHand)
    }

    /// The only way from one phase to another.
    fn enter(&mut self, now: Nanos, phase: Phase, cause: Cause) -> Change {
        let from = self.state();
        self.phase = phase;
        self.cause = cause;
        self.since = now;
        self.generation = self.generation.wrapping_add(1);
        self.window.clear();
        self.row = 0;
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

    pub(super) const fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) const fn since(&self) -> Nanos {
        self.since
    }

    pub(super) const fn cause(&self) -> Cause {
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
    pub(super) fn shut(&self) -> Nanos {
        match self.phase {
            Phase::Open { until } if self.mode != Mode::ObserveOnly => until,
            _ => 0,
        }
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
        let healthy = now.saturating_sub(self.since) / self.rules.window.max(1);
        matches!(self.phase, Phase::Closed { .. })
            && !self.is_ramping(now)
            && self.row == 0
            && u64::from(self.strikes) <= healthy
            && self.window.read(now) == Counts::default()
    }
}

/// Whether so many of all calls are more than `share`, by more than chance explains.
///
/// Half of twenty is what a server with 30 % errors shows every now and then: judged by the bare share, a circuit
/// at one call a second opens on such a server in three of four ten-minute spells, where retries alone would have
/// carried every request. So one and a half standard deviations of that many draws come on top: 14 of 20, 31 of
/// 50, 111 of 200.
fn exceeds(bad: u32, calls: u32, share: f64) -> bool {
    const DEVIATIONS: f64 = 1.5;
    if share > 1.0 {
        return false;
    }
    let calls = f64::from(calls);
    f64::from(bad) >= (share * calls + DEVIATIONS * (share * (1.0 - share) * calls).sqrt()).min(calls)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
