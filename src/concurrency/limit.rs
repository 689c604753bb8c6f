//! How many at once: the arithmetic of one key's limit, from the first cut until it is lifted. Pure.
//!
//! Numbers and `now` in, numbers out. A cut goes to a share of what the server has answered within one patience, which
//! is the number of calls that it can answer in that share of the patience (Little's law). A quick answer adds, a slow
//! one takes away. A limit below one is a pace: one call at a time, a gap apart.

use std::time::Duration;

use tokio::time::Instant;

use super::config::Tuning;
use crate::time::saturating_add;

/// What a slow answer takes away.
const BRAKE: f64 = 0.05;

/// The limit that follows one call at a time.
const FIRST_PACE: f64 = 0.5;

/// A limit that is in force.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    /// Finite, and at least `tuning.floor`.
    value: f64,
    /// When it was cut last.
    cut_at: Instant,
    /// When it last stood in somebody's way, or a call timed out.
    bound_at: Instant,
    /// The last admission, from which a pace counts; of a fresh limit, its cut.
    paced_from: Instant,
    /// Drawn at that admission, uniform in `[0.5, 1.5)`.
    spread: f64,
}

/// Whether one more call may start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Room {
    Now,
    /// Not before the pace allows it. Nothing is in flight that could change that.
    At(Instant),
    /// When a call ends.
    Later,
}

/// How an answer compares with the patience of the calls that time out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speed {
    /// In less than a quarter of it.
    Quick,
    /// In less than half of it.
    Fair,
    /// Longer.
    Slow,
}

impl Speed {
    /// Of an answer that took so long; without a patience that is known, nothing is slow.
    pub(super) fn of(took: Duration, patience: Option<Duration>) -> Self {
        match patience {
            Some(patience) if took >= patience / 2 => Self::Slow,
            Some(patience) if took >= patience / 4 => Self::Fair,
            _ => Self::Quick,
        }
    }
}

impl Limit {
    /// The first cut, where the server has answered so many calls while one timed out.
    pub(super) fn first(answered: u32, now: Instant, draw: f64, tuning: &Tuning) -> Self {
        let value = Self::target(answered, tuning);
        Self { value, cut_at: now, bound_at: now, paced_from: now, spread: 0.5 + draw }
    }

    /// One call at a time, or what the server has shown that it can do.
    fn target(answered: u32, tuning: &Tuning) -> f64 {
        (f64::from(answered) * tuning.decrease).max(tuning.floor.max(1.0))
    }

    pub(super) const fn value(&self) -> f64 {
        self.value
    }

    /// Whether no further call could be admitted beside these.
    pub(super) fn is_used(&self, in_flight: u32) -> bool {
        f64::from(in_flight) + 1.0 > self.value
    }

    pub(super) fn room(&self, in_flight: u32, now: Instant, tuning: &Tuning) -> Room {
        if !self.is_used(in_flight) {
            return Room::Now;
        }
        if in_flight > 0 {
            return Room::Later;
        }
        // Below one, and nothing in flight.
        let at = self.paced(self.value, tuning);
        if at <= now { Room::Now } else { Room::At(at) }
    }

    /// The earliest instant at which a call may start that has to wait now, whatever the calls in flight do:
    /// each can succeed and raise the limit. `None` when it may be at any time.
    pub(super) fn earliest(&self, in_flight: u32, tuning: &Tuning) -> Option<Instant> {
        let most =
            (0..in_flight.min(8)).fold(self.value, |value, _| Self::grown(value, Speed::Quick, tuning));
        (most < 1.0).then(|| self.paced(most, tuning))
    }

    fn paced(&self, value: f64, tuning: &Tuning) -> Instant {
        // The floor is at least 0.001 and the pace at most a minute, so this is below a day and a half.
        saturating_add(self.paced_from, tuning.pace.mul_f64(self.spread / value))
    }

    /// A call starts.
    pub(super) fn admitted(&mut self, now: Instant, draw: f64) {
        self.paced_from = now;
        self.spread = 0.5 + draw;
    }

    /// It stands in somebody's way.
    pub(super) fn bound(&mut self, now: Instant) {
        self.bound_at = self.bound_at.max(now);
    }

    /// A call succeeded while the limit was used.
    pub(super) fn answered(&mut self, speed: Speed, tuning: &Tuning) {
        self.value = Self::grown(self.value, speed, tuning).max(tuning.floor);
    }

    fn grown(value: f64, speed: Speed, tuning: &Tuning) -> f64 {
        match speed {
            // The server answers at once again: back to one call at a time.
            Speed::Quick if value < 1.0 => 1.0,
            // There are as many answers in a round trip as the limit has calls, so this is a share of it.
            Speed::Quick => value + tuning.growth,
            Speed::Fair => value + tuning.increase * value.min(1.0) / value.max(1.0),
            // Below one call at a time only timeouts lead.
            Speed::Slow if value >= 1.0 => (value - BRAKE).max(1.0),
            Speed::Slow => value - BRAKE * value,
        }
    }

    /// The server answers as it did before: as many as it had then.
    pub(super) fn raise_to(&mut self, level: f64) {
        self.value = self.value.max(level);
    }

    /// Whether there may be a cut now: at most one in the interval.
    pub(super) fn may_cut(&self, now: Instant, tuning: &Tuning) -> bool {
        now.saturating_duration_since(self.cut_at) >= tuning.cut_interval
    }

    pub(super) fn cut(&mut self, answered: u32, now: Instant, tuning: &Tuning) {
        self.value = if self.value > 1.0 {
            self.value.min(Self::target(answered, tuning))
        } else {
            // This process waits for each call before it sends another, so it is the fleet that is too many, and each
            // of its members must go far back for the server to get its head above water.
            let share = if self.value < 1.0 { tuning.paced_decrease } else { FIRST_PACE };
            (self.value * share).max(tuning.floor)
        };
        self.cut_at = now;
    }

    /// Whether it has stood in nobody's way for long enough to be lifted.
    pub(super) fn is_spent(&self, now: Instant, lift_after: Duration) -> bool {
        now.saturating_duration_since(self.bound_at) >= lift_after
    }
}
