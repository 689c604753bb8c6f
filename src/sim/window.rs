//! The arithmetic of one enforced limit: so much per period, by one of three algorithms.
//!
//! Pure: `now` is handed in as the time since the simulator's first call, and must not run backwards.
//! All numbers are integers (nanoseconds; for the bucket, units times nanoseconds), so a wait is exact:
//! one nanosecond before its end the request does not fit, at its end it does.

use std::collections::VecDeque;
use std::time::Duration;

/// How the two per-minute limits of a [`Quota`](super::Quota) are counted. The daily limit is always a fixed window.
///
/// Google does not say which one it uses; a client should be right with all three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// Exact: no 60 seconds ever hold more than the limit. The default.
    #[default]
    SlidingWindow,
    /// Counts start anew every 60 seconds, at `phase`, `phase + 60 s` and so on after the first call.
    FixedWindow {
        /// Where the borders lie; whole minutes in it have no effect.
        phase: Duration,
    },
    /// Starts full with one minute's limit, and refills evenly.
    TokenBucket,
}

/// Whether a request fits now, and if not, when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    Now,
    /// After this time, if nobody else is admitted until then.
    In(Duration),
    /// It is larger than the limit.
    Never,
}

/// One limit and what was charged to it.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    limit: u64,
    period: Duration,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// What was charged and when, oldest first. A charge counts for exactly one period: it is gone at
    /// `at + period`. `used` is the sum of the entries.
    Sliding { charges: VecDeque<(Duration, u64)>, used: u64 },
    /// The number of the current window and what was charged in it.
    Fixed { phase: Duration, window: u128, used: u64 },
    /// What is owed, in units times nanoseconds of the period; it decays by `limit` each nanosecond. A debt
    /// instead of a fill level, so that a change of the limit does not change what was charged.
    Bucket { debt: u128, at: Duration },
}

impl Meter {
    pub(super) fn new(algorithm: Algorithm, limit: u64, period: Duration) -> Self {
        let state = match algorithm {
            Algorithm::SlidingWindow => State::Sliding { charges: VecDeque::new(), used: 0 },
            Algorithm::FixedWindow { phase } => State::Fixed { phase, window: 0, used: 0 },
            Algorithm::TokenBucket => State::Bucket { debt: 0, at: Duration::ZERO },
        };
        Self { limit, period, state }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Changes the limit; what was charged stays charged.
    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Whether `cost` fits at `now`. A limit of zero fits nothing, not even a cost of zero.
    pub(super) fn fit(&mut self, now: Duration, cost: u64) -> Fit {
        self.forget(now);
        if self.limit == 0 || cost > self.limit {
            return Fit::Never;
        }
        let room = self.limit - cost;
        match &self.state {
            State::Sliding { charges, used } => {
                let mut used = *used;
                let mut wait = Fit::Now;
                for (at, charge) in charges {
                    if used <= room {
                        break;
                    }
                    used -= charge;
                    wait = Fit::In((*at + self.period).saturating_sub(now));
                }
                wait
            }
            State::Fixed { used, .. } if *used <= room => Fit::Now,
            State::Fixed { phase, window, .. } => {
                let next = (window + 1) * self.period.as_nanos() - back(*phase, self.period);
                Fit::In(from_nanos(next.saturating_sub(now.as_nanos())))
            }
            State::Bucket { debt, .. } => {
                let allowed = u128::from(room) * self.period.as_nanos();
                match debt.saturating_sub(allowed) {
                    0 => Fit::Now,
                    excess => Fit::In(from_nanos(excess.div_ceil(u128::from(self.limit)))),
                }
            }
        }
    }

    /// Charges `cost` at `now`, whether it fits or not.
    pub(super) fn charge(&mut self, now: Duration, cost: u64) {
        self.forget(now);
        let period = self.period.as_nanos();
        match &mut self.state {
            State::Sliding { .. } if cost == 0 => {}
            State::Sliding { charges, used } => {
                *used = used.saturating_add(cost);
                match charges.back_mut() {
                    Some((at, charge)) if *at == now => *charge = charge.saturating_add(cost),
                    _ => charges.push_back((now, cost)),
                }
            }
            State::Fixed { used, .. } => *used = used.saturating_add(cost),
            State::Bucket { debt, .. } => *debt = debt.saturating_add(u128::from(cost) * period),
        }
    }

    /// Brings the state to `now`: what has expired no longer counts.
    fn forget(&mut self, now: Duration) {
        let (limit, period) = (self.limit, self.period);
        match &mut self.state {
            State::Sliding { charges, used } => {
                while let Some(&(at, charge)) = charges.front() {
                    if now < at + period {
                        break;
                    }
                    charges.pop_front();
                    *used = used.saturating_sub(charge);
                }
            }
            State::Fixed { phase, window, used } => {
                let current = (now.as_nanos() + back(*phase, period)) / period.as_nanos();
                if current != *window {
                    *window = current;
                    *used = 0;
                }
            }
            State::Bucket { debt, at } => {
                let passed = now.saturating_sub(*at).as_nanos();
                *debt = debt.saturating_sub(passed.saturating_mul(u128::from(limit)));
                *at = now;
            }
        }
    }
}

/// How far before the epoch the window of number zero began, so that window borders lie at
/// `phase + k * period` and numbers never go below zero.
fn back(phase: Duration, period: Duration) -> u128 {
    let period = period.as_nanos();
    (period - phase.as_nanos() % period) % period
}

fn from_nanos(nanos: u128) -> Duration {
    u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn algorithms() -> impl Strategy<Value = Algorithm> {
        prop_oneof![
            Just(Algorithm::SlidingWindow),
            Just(Algorithm::TokenBucket),
            (0u64..200).prop_map(|s| Algorithm::FixedWindow { phase: secs(s) }),
        ]
    }

    /// Gaps in nanoseconds and costs; the limits below are of the same order, so both answers occur.
    fn arrivals() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((0u64..20_000_000_000, 0u64..12), 1..80)
    }

    fn admit(meter: &mut Meter, arrivals: &[(u64, u64)]) -> Vec<(Duration, u64)> {
        let mut now = Duration::ZERO;
        let mut admitted = Vec::new();
        for (gap, cost) in arrivals {
            now += Duration::from_nanos(*gap);
            if meter.fit(now, *cost) == Fit::Now {
                meter.charge(now, *cost);
                admitted.push((now, *cost));
            }
        }
        admitted
    }

    proptest! {
        #[test]
        fn no_sixty_seconds_hold_more_than_the_sliding_limit(a in arrivals(), limit in 1u64..30) {
            let admitted = admit(&mut Meter::new(Algorithm::SlidingWindow, limit, MINUTE), &a);
            for (start, _) in &admitted {
                let sum: u64 = admitted.iter()
                    .filter(|(at, _)| at >= start && *at < *start + MINUTE).map(|(_, c)| c).sum();
                prop_assert!(sum <= limit);
            }
        }

        #[test]
        fn no_aligned_minute_holds_more_than_the_fixed_limit(a in arrivals(), limit in 1u64..30, phase in 0u64..60) {
            let algorithm = Algorithm::FixedWindow { phase: secs(phase) };
            let admitted = admit(&mut Meter::new(algorithm, limit, MINUTE), &a);
            let mut windows = std::collections::BTreeMap::<u64, u64>::new();
            for (at, cost) in admitted {
                *windows.entry((at + MINUTE - secs(phase)).as_secs() / 60).or_default() += cost;
            }
            prop_assert!(windows.values().all(|sum| *sum <= limit));
        }

        #[test]
        fn a_bucket_admits_at_most_burst_plus_rate_times_time(a in arrivals(), limit in 1u64..30) {
            let admitted = admit(&mut Meter::new(Algorithm::TokenBucket, limit, MINUTE), &a);
            for (i, (start, _)) in admitted.iter().enumerate() {
                let mut sum = 0u128;
                for (at, cost) in &admitted[i..] {
                    sum += u128::from(*cost);
                    let refill = (*at - *start).as_nanos() * u128::from(limit);
                    let allowed = u128::from(limit) * MINUTE.as_nanos() + refill;
                    prop_assert!(sum * MINUTE.as_nanos() <= allowed);
                }
            }
        }

        #[test]
        fn a_wait_is_exact_to_the_nanosecond(
            algorithm in algorithms(), a in arrivals(), limit in 1u64..30, cost in 0u64..40,
        ) {
            let mut meter = Meter::new(algorithm, limit, MINUTE);
            admit(&mut meter, &a);
            let now = a.iter().map(|(gap, _)| Duration::from_nanos(*gap)).sum::<Duration>();
            match meter.fit(now, cost) {
                Fit::Now => prop_assert!(cost <= limit),
                Fit::Never => prop_assert!(cost > limit),
                Fit::In(wait) => {
                    prop_assert!(wait > Duration::ZERO && wait <= MINUTE);
                    let almost = meter.clone().fit(now + wait - Duration::from_nanos(1), cost);
                    prop_assert_eq!(almost, Fit::In(Duration::from_nanos(1)));
                    prop_assert_eq!(meter.fit(now + wait, cost), Fit::Now);
                }
            }
        }
    }

    #[test]
    fn the_three_algorithms_differ_after_a_full_minute_spent_at_once() {
        // Ten at 50 s. Sliding: free again at 110 s. Fixed with borders at full minutes: at 60 s. Bucket:
        // one more every six seconds.
        let wait = |algorithm| {
            let mut meter = Meter::new(algorithm, 10, MINUTE);
            meter.charge(secs(50), 10);
            meter.fit(secs(50), 1)
        };
        assert_eq!(wait(Algorithm::SlidingWindow), Fit::In(secs(60)));
        assert_eq!(wait(Algorithm::FixedWindow { phase: Duration::ZERO }), Fit::In(secs(10)));
        assert_eq!(wait(Algorithm::FixedWindow { phase: secs(75) }), Fit::In(secs(25)));
        assert_eq!(wait(Algorithm::TokenBucket), Fit::In(secs(6)));
    }

    #[test]
    fn a_lowered_limit_keeps_what_was_charged() {
        for algorithm in [Algorithm::SlidingWindow, Algorithm::TokenBucket] {
            let mut meter = Meter::new(algorithm, 10, MINUTE);
            meter.charge(Duration::ZERO, 5);
            meter.set_limit(4);
            assert!(matches!(meter.fit(Duration::ZERO, 0), Fit::In(_)), "{algorithm:?}");
            meter.set_limit(6);
            assert_eq!(meter.fit(Duration::ZERO, 1), Fit::Now, "{algorithm:?}");
        }
    }

    #[test]
    fn a_limit_of_zero_and_a_request_over_the_limit_never_fit() {
        assert_eq!(Meter::new(Algorithm::TokenBucket, 0, MINUTE).fit(Duration::ZERO, 0), Fit::Never);
        assert_eq!(Meter::new(Algorithm::SlidingWindow, 5, MINUTE).fit(Duration::ZERO, 6), Fit::Never);
    }
}
