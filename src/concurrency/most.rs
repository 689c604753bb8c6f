//! Where most calls time out: is it that there are too many of them? Pure.
//!
//! Not every server queues in order. One that shares its time among all calls makes each of them slower, and short answers
//! overtake long ones: order says nothing. Nor does the share of timeouts alone: a patience that is too short for the
//! model looks the same. So it is tried. When most of the last calls have timed out, the limit is cut once; if the share of
//! timeouts among the calls that start then is not half of what it was, the cut did no good and is taken back, and the next
//! try comes ten times as much later.

use std::time::Duration;

use tokio::time::Instant;

use super::ends::{Said, Start};
use crate::blame::{Caller, Witness};
use crate::time::saturating_add;

/// How many ends the share is taken over.
const SPAN: f64 = 20.0;

/// The share that calls for a try.
const MOST: f64 = 0.5;

/// Calls that must have ended before the share, or a try, is judged.
const ENOUGH: u32 = 20;

/// How many timeouts must all be one caller's for the try to bind that caller only.
const ONES_OWN: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Most {
    share: f64,
    seen: u32,
    /// Whose the last timeouts were, in turn.
    callers: [Caller; ONES_OWN],
    timeouts: usize,
    trial: Option<Trial>,
    /// No try before.
    rests_until: Option<Instant>,
    rest: Option<Duration>,
}

#[derive(Debug)]
struct Trial {
    /// Calls with a higher number began after the cut.
    from: u64,
    /// Whom the cut binds: the others' calls show nothing of what it did.
    bound: Witness,
    began: Instant,
    /// The share of timeouts before it.
    share: f64,
    answered: u32,
    timed_out: u32,
}

impl Most {
    /// A call has ended. Whether a try has just shown that it did no good.
    pub(super) fn ended(&mut self, start: Start, said: Said, now: Instant) -> bool {
        let timed_out = match said {
            Said::Nothing => return false,
            Said::Answered => false,
            Said::TimedOut { .. } => true,
        };
        self.seen = self.seen.saturating_add(1);
        self.share += (f64::from(u8::from(timed_out)) - self.share) / SPAN;
        if timed_out {
            self.callers[self.timeouts % ONES_OWN] = start.caller;
            self.timeouts += 1;
        }
        let shows = |trial: &&mut Trial| start.number > trial.from && trial.bound.binds(start.caller);
        let Some(trial) = self.trial.as_mut().filter(shows) else { return false };
        if timed_out {
            trial.timed_out += 1;
        } else {
            trial.answered += 1;
        }
        let ended = trial.answered + trial.timed_out;
        if ended < ENOUGH / 2 {
            return false;
        }
        let did_good = f64::from(trial.timed_out) < trial.share / 2.0 * f64::from(ended);
        let lasted = now.saturating_duration_since(trial.began);
        self.trial = None;
        if did_good {
            (self.rest, self.rests_until) = (None, None);
        } else {
            let rest = self.rest.unwrap_or(lasted).saturating_mul(10);
            self.rest = Some(rest);
            self.rests_until = Some(saturating_add(now, rest));
        }
        !did_good
    }

    /// Whether it is time for a try.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        self.trial.is_none()
            && self.seen >= ENOUGH
            && self.share >= MOST
            && self.rests_until.is_none_or(|until| now >= until)
    }

    /// The limit is cut on trial, for calls with a higher number than this. Whom it is to bind: one caller, if the last
    /// timeouts were all its own.
    pub(super) fn try_from(&mut self, started: u64, now: Instant) -> Witness {
        let bound = self.callers.iter().fold(Witness::Nobody, |witness, caller| witness.and(*caller));
        let share = self.share;
        self.trial = Some(Trial { from: started, bound, began: now, share, answered: 0, timed_out: 0 });
        bound
    }

    pub(super) const fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }
}
