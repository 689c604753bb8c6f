//! What was usual before the trouble: how long answers took, and how many calls were in flight. Pure.
//!
//! A limit that was cut goes back to what the server has shown that it takes: the most calls that were in flight when one
//! began that was answered as fast as usual. No estimate by rate and time does for it: where answers vary, the median times the rate is less
//! than what is in flight on the average, and a limit of the average is a queue that grows.
//!
//! One call in 16 is looked at, and the first of a key, so that the others pay for a test only; and while nothing but evidence is
//! gathered as well, since a key whose calls time out now and then is always watched.

use std::time::Duration;

use tokio::time::Instant;

use crate::latency::Latency;

/// The first calls of a key, all of which are looked at.
const FIRST: u64 = 8;
/// And one in so many of the others.
const EVERY: u64 = 16;
/// How many are followed at the same time.
const FOLLOWED: usize = 8;
/// One that has not ended by then is no longer followed.
const LOST: Duration = Duration::from_secs(600);
/// The most in flight is that of the last so many that were answered as usual, to twice as many.
const SPELL: u32 = 16;

/// A call that is followed.
#[derive(Clone, Copy, Debug)]
struct Open {
    number: u64,
    began: Instant,
    /// Calls in flight then, with it.
    in_flight: u32,
}

#[derive(Debug)]
pub(super) struct Before {
    open: [Option<Open>; FOLLOWED],
    latency: Latency,
    /// The most calls in flight of this spell, and of the one before.
    most: [u32; 2],
    /// Calls of this spell.
    noted: u32,
}

impl Default for Before {
    fn default() -> Self {
        Self { open: [None; FOLLOWED], latency: Latency::new(), most: [0; 2], noted: 0 }
    }
}

/// Whether an answer is as fast as usual, or nearly.
pub(super) fn is_usual(took: Duration, latency: &Latency) -> bool {
    latency.typical().is_some_and(|typical| took <= typical + typical / 2)
}

impl Before {
    /// Whether the call with this number is looked at.
    #[inline]
    pub(super) const fn follows(number: u64) -> bool {
        number % EVERY == 0 || number < FIRST
    }

    /// It begins, beside others: so many in all.
    pub(super) fn start(&mut self, number: u64, in_flight: u32, now: Instant) {
        let is_free = |slot: &&mut Option<Open>| {
            slot.is_none_or(|open| now.saturating_duration_since(open.began) > LOST)
        };
        if let Some(slot) = self.open.iter_mut().find(is_free) {
            *slot = Some(Open { number, began: now, in_flight });
        }
    }

    /// It has ended; `answered` where that says how long an answer takes while all is well. Calls are known to time out after
    /// `patience`, and one that took half of that may have waited.
    pub(super) fn end(&mut self, number: u64, answered: Option<Instant>, patience: Option<Duration>) {
        let is_it = |slot: &&mut Option<Open>| slot.is_some_and(|open| open.number == number);
        let open = self.open.iter_mut().find(is_it).and_then(Option::take);
        if let Some((open, now)) = open.zip(answered) {
            let took = now.saturating_duration_since(open.began);
            if is_usual(took, &self.latency) && patience.is_none_or(|patience| took < patience / 2) {
                self.note(open.in_flight);
            }
            self.latency.record(took);
        }
    }

    fn note(&mut self, in_flight: u32) {
        if self.noted >= SPELL {
            (self.most, self.noted) = ([self.most[1], 0], 0);
        }
        self.noted += 1;
        self.most[1] = self.most[1].max(in_flight);
    }

    /// How long answers took.
    pub(super) const fn latency(&self) -> Latency {
        self.latency
    }

    /// How many calls in flight the server has answered as fast as usual. 0 where that is not known.
    pub(super) fn level(&self) -> f64 {
        f64::from(self.most[0].max(self.most[1]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Calls `gap` apart whose answers take what `took` says: what is known after them, and the most in flight of the last 600.
    fn live(calls: u64, gap: f64, took: impl Fn(u64) -> f64) -> (Before, u32) {
        let (zero, mut before, mut most) = (crate::time::now(), Before::default(), Vec::new());
        let at = |seconds: f64| zero + Duration::from_secs_f64(seconds);
        let mut under_way = Vec::<(f64, u64)>::new();
        for number in 0..calls {
            let now = number as f64 * gap;
            under_way.sort_by(|a, b| a.0.total_cmp(&b.0));
            let ended = under_way.partition_point(|(ends, _)| *ends <= now);
            under_way.drain(..ended).for_each(|(ends, number)| before.end(number, Some(at(ends)), None));
            under_way.push((now + took(number), number));
            most.push(under_way.len() as u32);
            if Before::follows(number) {
                before.start(number, under_way.len() as u32, at(now));
            }
        }
        let last = most.len().saturating_sub(600);
        (before, most[last..].iter().copied().max().unwrap_or(0))
    }

    proptest! {
        // Never more than were in flight, and where the times of answers vary no less than their mean times the rate, nearly.
        #[test]
        fn the_level_is_what_was_in_flight(
            gap in 0.01..20.0f64, median in 0.02..60.0f64, sigma in 0.0..1.0f64, calls in 600..2_000u64,
        ) {
            let unit = |number: u64| (number as f64 * 0.618_033_988_749_895).fract();
            // Logistic, for the quantiles.
            let took = |number: u64| {
                let unit = unit(number).clamp(0.02, 0.98);
                median * (sigma * 0.55 * (unit / (1.0 - unit)).ln()).exp()
            };
            let (before, most) = live(calls, gap, took);
            let mean = (0..calls).map(took).sum::<f64>() / calls as f64;
            prop_assert!(before.level() <= f64::from(most), "{} of {most}", before.level());
            // Those that are followed must have come round.
            if mean < 10.0 * gap {
                prop_assert!(before.level() >= (0.8 * mean / gap).floor(), "{} of {}", before.level(), mean / gap);
            }
        }
    }

    #[test]
    fn what_came_before_is_forgotten() {
        let (zero, mut before) = (crate::time::now(), Before::default());
        let mut call = |number: u64, in_flight: u32| {
            before.start(number, in_flight, zero);
            before.end(number, Some(zero + Duration::from_secs(1)), None);
            before.level()
        };
        assert!((0..10).all(|number| call(number, 9) == 9.0 || number <= 5));
        let last = (10..100).find(|number| call(*number, 2) == 2.0);
        assert!((26..=42).contains(&last.expect("it is forgotten")), "{last:?}");
    }

    #[test]
    fn what_may_have_waited_shows_nothing() {
        let (zero, mut before) = (crate::time::now(), Before::default());
        for number in 0..30 {
            before.start(number, 4, zero);
            before.end(number, Some(zero + Duration::from_secs(6)), Some(Duration::from_secs(10)));
        }
        assert_eq!(before.level(), 0.0, "half of the patience");
        before.start(30, 7, zero);
        before.end(30, Some(zero + Duration::from_secs(12)), None);
        assert_eq!(before.level(), 0.0, "twice as long as usual");
    }

    #[test]
    fn of_a_key_that_is_new_nothing_is_known() {
        let (now, mut before) = (crate::time::now(), Before::default());
        for number in 0..4 {
            before.start(number, 1, now);
            before.end(number, Some(now + Duration::from_secs(1)), None);
        }
        assert_eq!((before.latency.typical(), before.level()), (None, 0.0));
    }

    #[test]
    fn what_was_not_answered_says_nothing() {
        let (now, mut before) = (crate::time::now(), Before::default());
        (0..31).for_each(|number| {
            before.start(number, 1, now);
            before.end(number, None, None);
        });
        assert_eq!(before.latency.typical(), None);
        assert!(before.open.iter().all(Option::is_none), "and keeps no place");
    }
}
