//! How many at once: the arithmetic of one key's limit, from the first cut until it is lifted.
//!
//! Numbers and `now` in, numbers out. A timeout halves, a success that needed the limit adds a little, and a limit
//! below one is a pace: one call at a time, a gap apart.

use std::time::Duration;

use tokio::time::Instant;

use super::settings::Tuning;
use crate::time::saturating_add;

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

impl Limit {
    /// What a timeout makes of `in_flight` calls, its own included, that had no limit.
    pub(super) fn first(in_flight: u32, now: Instant, draw: f64, tuning: &Tuning) -> Self {
        let value = (f64::from(in_flight) * tuning.decrease).max(tuning.floor);
        Self { value, cut_at: now, bound_at: now, paced_from: now, spread: 0.5 + draw }
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
        let most = self.value + tuning.increase * f64::from(in_flight);
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
    pub(super) fn grow(&mut self, tuning: &Tuning) {
        // Below one, a success adds the share that it adds at one: 0.1/L would be a leap of five from the floor.
        self.value += tuning.increase / self.value.max(1.0);
    }

    /// Whether a timeout cuts now: at most once in the interval.
    pub(super) fn may_cut(&self, now: Instant, tuning: &Tuning) -> bool {
        now.saturating_duration_since(self.cut_at) >= tuning.cut_interval
    }

    pub(super) fn cut(&mut self, in_flight: u32, now: Instant, tuning: &Tuning) {
        // What was really in flight counts: half of a limit that nobody filled would change nothing.
        let used = self.value.min(f64::from(in_flight));
        // Below one this process waits for each call before it sends another, so it is the fleet that is too many,
        // and each of its members must go far back for the server to get its head above water.
        let share = if used < 1.0 { tuning.paced_decrease } else { tuning.decrease };
        self.value = (used * share).max(tuning.floor);
        self.cut_at = now;
    }

    /// Whether it has stood in nobody's way for long enough to be lifted.
    pub(super) fn is_spent(&self, now: Instant, lift_after: Duration) -> bool {
        now.saturating_duration_since(self.bound_at) >= lift_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start() -> Instant {
        crate::time::now()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn half_of_what_was_in_flight_then_slow_growth() {
        let tuning = Tuning::default();
        let now = start();
        let mut limit = Limit::first(64, now, 0.5, &tuning);
        assert_eq!(limit.value(), 32.0);
        assert_eq!(limit.room(31, now, &tuning), Room::Now);
        assert_eq!(limit.room(32, now, &tuning), Room::Later);
        // 32 successes, one round trip, add a tenth.
        (0..32).for_each(|_| limit.grow(&tuning));
        assert!((limit.value() - 32.1).abs() < 0.001, "{}", limit.value());
        assert!(!limit.may_cut(now + 4 * SECOND, &tuning) && limit.may_cut(now + 5 * SECOND, &tuning));
        limit.cut(10, now + 5 * SECOND, &tuning);
        assert_eq!(limit.value(), 5.0, "half of the ten, not of the limit");
    }

    #[test]
    fn below_one_is_a_pace() {
        let tuning = Tuning::default();
        let now = start();
        // The draw of one half is the mean: no spread.
        let mut limit = Limit::first(1, now, 0.5, &tuning);
        assert_eq!(limit.value(), 0.5);
        assert_eq!(limit.room(0, now, &tuning), Room::At(now + 2 * SECOND));
        assert_eq!(limit.room(0, now + 2 * SECOND, &tuning), Room::Now);
        limit.admitted(now + 2 * SECOND, 0.0);
        assert_eq!(limit.room(1, now + 9 * SECOND, &tuning), Room::Later, "one at a time");
        assert_eq!(limit.room(0, now + 2 * SECOND, &tuning), Room::At(now + 3 * SECOND), "half the gap");
        limit.admitted(now, 0.5);
        // A success in flight could make it 0.6.
        assert_eq!(limit.earliest(0, &tuning), Some(now + 2 * SECOND));
        assert_eq!(limit.earliest(1, &tuning), Some(now + SECOND.mul_f64(1.0 / 0.6)));
        assert_eq!(limit.earliest(5, &tuning), None);
        limit.cut(1, now, &tuning);
        assert_eq!(limit.value(), 0.05, "a tenth");
        limit.cut(1, now, &tuning);
        assert_eq!(limit.value(), 0.02);
        assert_eq!(limit.room(0, now, &tuning), Room::At(now + 50 * SECOND));
    }

    proptest! {
        #[test]
        fn no_sequence_leaves_the_range(
            first in 1u32..10_000,
            steps in proptest::collection::vec((0u8..3, 1u32..10_000), 0..200),
        ) {
            let tuning = Tuning::default();
            let now = start();
            let mut limit = Limit::first(first, now, 0.0, &tuning);
            for (step, in_flight) in steps {
                let before = limit.value();
                match step {
                    0 => limit.grow(&tuning),
                    1 => limit.cut(in_flight, now, &tuning),
                    _ => limit.admitted(now, 0.999),
                }
                prop_assert!(limit.value().is_finite() && limit.value() >= tuning.floor);
                prop_assert!(limit.value() <= before + tuning.increase);
                match limit.room(0, now, &tuning) {
                    Room::At(at) => prop_assert!(limit.value() < 1.0 && at <= now + 75 * SECOND),
                    room => prop_assert_eq!(room, Room::Now),
                }
            }
        }
    }
}
