//! How long to wait before the n-th retry, when nobody else says. Pure: no clock, randomness handed in.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// How the wait is spread, so that callers who failed together do not return together.
///
/// With `x = min(cap, base · 2ⁿ)` before the n-th retry, counted from 0, and every bound kept under the cap at
/// every draw. What each is worth was measured with the contention experiment of the [AWS architecture
/// blog](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/) (read 2026-11): full jitter
/// needs within 2 % of the fewest calls everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Jitter {
    /// Uniform in `[0, x)`. The default.
    Full,
    /// `x/2` and uniform in `[0, x/2)` on top: a minimum wait, at the price of a slower end.
    Equal,
    /// Uniform between the base and three times the wait before: fast for up to about a hundred contenders.
    Decorrelated,
    /// `x` give or take this share of it, in `[0, 1]`: predictable, and the most collisions. 0 is no jitter.
    Proportional(f64),
}

/// An exponential backoff with a cap.
///
/// The cap is a promise: no delay exceeds it, at any attempt and any draw.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::retry::{Backoff, Jitter};
///
/// let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(20)).jitter(Jitter::Equal);
/// # let _ = backoff;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    jitter: Jitter,
}

impl Backoff {
    /// Full jitter from `base`, doubling, up to `cap`.
    ///
    /// Valid are `base` above zero and `cap` from `base` to one day; [`RetryPolicyBuilder::build`] checks it.
    ///
    /// [`RetryPolicyBuilder::build`]: super::RetryPolicyBuilder::build
    #[must_use]
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, jitter: Jitter::Full }
    }

    /// With another jitter.
    #[must_use]
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Base, cap and jitter.
    pub(crate) const fn parts(&self) -> (Duration, Duration, Jitter) {
        (self.base, self.cap, self.jitter)
    }

    pub(super) fn check(&self, field: &'static str) -> Result<(), ConfigError> {
        const DAY: Duration = Duration::from_secs(86_400);
        let rule = match self.jitter {
            _ if self.base.is_zero() => "the base must be above zero",
            _ if self.cap < self.base => "the cap must be at least the base",
            _ if self.cap > DAY => "the cap must be at most one day",
            // Not `r < 0.0 || r > 1.0`, through which NaN would slip.
            Jitter::Proportional(r) if !(0.0..=1.0).contains(&r) => {
                "the share of proportional jitter must be from 0 to 1"
            }
            _ => return Ok(()),
        };
        Err(ConfigError::new(field, rule))
    }

    /// The wait before retry `n` (from 0), after the wait `before`; `draw` is uniform in `[0, 1)`.
    #[must_use]
    pub fn delay(&self, n: u32, before: Option<Duration>, draw: f64) -> Duration {
        let (base, cap) = (self.base.as_secs_f64(), self.cap.as_secs_f64());
        // Infinity for a large n; the minimum mends it.
        let grown = base * 2f64.powi(i32::try_from(n).unwrap_or(i32::MAX));
        let seconds = match self.jitter {
            Jitter::Full => grown.min(cap) * draw,
            Jitter::Equal => grown.min(cap) * (0.5 + 0.5 * draw),
            Jitter::Decorrelated => {
                // The upper bound is cut and not the draw: else a share of all waits would be the cap exactly,
                // and callers in step again.
                let before = before.map_or(base, |d| d.as_secs_f64().max(base));
                let upper = (3.0 * before).min(cap);
                base + (upper - base).max(0.0) * draw
            }
            // For the same reason the room for the jitter is left under the cap.
            Jitter::Proportional(r) => grown.min(cap / (1.0 + r)) * (1.0 + r * (2.0 * draw - 1.0)),
        };
        // The sums above may come out a rounding error over the cap; the promise has no such error.
        Duration::try_from_secs_f64(seconds).unwrap_or(self.cap).min(self.cap)
    }
}

/// The draw for a request's next wait: the first is random, each further one the golden ratio's fraction past the one
/// before.
///
/// Each alone is as uniform as the first, so callers stay as far apart as with draws of their own; but one request's
/// draws fall apart from each other, where independent ones would be small all four times once in a while and
/// spend five attempts within a second. With full jitter from 1 s four waits add up to 3.2 s at the least.
pub(super) fn next_draw(before: Option<f64>, random: impl FnOnce() -> f64) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    before.map_or_else(random, |before| (before + GOLDEN).fract())
}

impl Default for Backoff {
    /// 1 s, doubling, full jitter, cap 60 s.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(60))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_jitter() -> impl Strategy<Value = Jitter> {
        prop_oneof![
            Just(Jitter::Full),
            Just(Jitter::Equal),
            Just(Jitter::Decorrelated),
            (0.0..=1.0f64).prop_map(Jitter::Proportional)
        ]
    }

    // Zero, the middle, and the last number below one: the edges are where caps break.
    fn any_draw() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.0), Just(1.0 - f64::EPSILON / 2.0), 0.0..1.0f64]
    }

    proptest! {
        #[test]
        fn no_delay_exceeds_the_cap(
            base in 1u64..86_400_000_000_000, cap in 1u64..86_400_000_000_000,
            n in prop_oneof![0..8u32, Just(1023), Just(1024), Just(u32::MAX)],
            before in prop::option::of(0u64..u64::MAX / 4), draw in any_draw(), jitter in any_jitter(),
        ) {
            let (base, cap) = (Duration::from_nanos(base.min(cap)), Duration::from_nanos(cap));
            let backoff = Backoff::new(base, cap).jitter(jitter);
            prop_assert!(backoff.check("backoff").is_ok());
            let delay = backoff.delay(n, before.map(Duration::from_nanos), draw);
            prop_assert!(delay <= cap, "{delay:?} > {cap:?}");
            match jitter {
                // Nanosecond rounding aside.
                Jitter::Equal => prop_assert!(delay + Duration::from_nanos(2) >= base / 2),
                Jitter::Decorrelated => prop_assert!(delay + Duration::from_nanos(2) >= base),
                _ => {}
            }
        }
    }

    /// The draws of one request, from the first.
    fn draws(first: f64) -> impl Iterator<Item = f64> {
        std::iter::successors(Some(first), |before| Some(next_draw(Some(*before), || unreachable!())))
    }

    #[test]
    fn a_requests_attempts_are_not_spent_at_once() {
        for first in 0..10_000 {
            let waits = draws(f64::from(first) / 10_000.0).zip(0..4);
            let sum: f64 = waits.map(|(draw, n)| Backoff::default().delay(n, None, draw).as_secs_f64()).sum();
            assert!((3.2..15.0).contains(&sum), "{first}: {sum}");
        }
    }

    // Before each retry, the callers are spread as evenly as before the first.
    #[test]
    fn each_draw_of_many_callers_is_uniform() {
        for n in 0..20 {
            let mut tenths = [0; 10];
            for first in 0..10_000 {
                let draw = draws(f64::from(first) / 10_000.0).nth(n).expect("endless");
                assert!((0.0..1.0).contains(&draw));
                tenths[(draw * 10.0) as usize] += 1;
            }
            assert!(tenths.iter().all(|count| (999..=1001).contains(count)), "{n}: {tenths:?}");
        }
    }

    #[test]
    fn each_jitter_draws_from_its_own_range() {
        let s = Duration::from_secs_f64;
        let wait = |jitter, n, before: Option<f64>, draw| {
            Backoff::new(s(3.0), s(60.0)).jitter(jitter).delay(n, before.map(s), draw)
        };
        // 3 s doubled twice are 12 s.
        assert_eq!(wait(Jitter::Full, 2, None, 0.5), s(6.0));
        assert_eq!(wait(Jitter::Equal, 2, None, 0.25), s(7.5));
        assert_eq!(
            wait(Jitter::Decorrelated, 2, None, 0.25),
            s(4.5),
            "from the base to three times the base"
        );
        assert_eq!(wait(Jitter::Decorrelated, 2, Some(5.0), 0.25), s(6.0), "to three times the wait before");
        assert_eq!(wait(Jitter::Decorrelated, 2, Some(1.0), 0.25), s(4.5), "which is never below the base");
        let share = Jitter::Proportional(0.2);
        assert_eq!([0.0, 0.25, 0.5].map(|draw| wait(share, 2, None, draw)), [9.6, 10.8, 12.0].map(s));
        assert_eq!([0.0, 0.25, 0.5].map(|draw| wait(share, 9, None, draw)), [40.0, 45.0, 50.0].map(s));
    }

    #[test]
    fn the_longest_cap_is_one_day_exactly() {
        let day = Duration::from_secs(86_400);
        assert!(Backoff::new(day, day).check("backoff").is_ok());
        assert!(Backoff::new(day, day + Duration::from_nanos(1)).check("backoff").is_err());
    }

    #[test]
    fn at_the_cap_callers_still_differ() {
        for jitter in [Jitter::Full, Jitter::Equal, Jitter::Decorrelated, Jitter::Proportional(0.2)] {
            let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8)).jitter(jitter);
            let delays: std::collections::HashSet<_> = (0..200)
                .map(|i| backoff.delay(30, Some(Duration::from_secs(8)), f64::from(i) / 200.0))
                .collect();
            assert_eq!(delays.len(), 200, "{jitter:?}");
        }
    }

    #[test]
    fn bad_settings_name_the_rule() {
        let s = Duration::from_secs;
        for (backoff, rule) in [
            (Backoff::new(s(0), s(1)), "above zero"),
            (Backoff::new(s(2), s(1)), "at least the base"),
            (Backoff::new(s(2), Duration::MAX), "one day"),
            (Backoff::new(s(1), s(1)).jitter(Jitter::Proportional(f64::NAN)), "from 0 to 1"),
            (Backoff::new(s(1), s(1)).jitter(Jitter::Proportional(-0.1)), "from 0 to 1"),
            (Backoff::new(s(1), s(1)).jitter(Jitter::Proportional(f64::INFINITY)), "from 0 to 1"),
        ] {
            let error = backoff.check("backoff").unwrap_err().to_string();
            assert!(error.contains("backoff") && error.contains(rule), "{error}");
        }
    }
}
