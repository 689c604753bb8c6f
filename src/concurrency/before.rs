//! What was usual before the trouble: how long answers took, and how many calls were made. Pure.
//!
//! A limit that was cut goes back to what the server took before: that many calls a second, each in flight for as long as an
//! answer took (Little's law). So many at once are no more than the server had, however it is now: at a server that can do
//! only a share of it, an answer takes as much longer, and no queue grows.
//!
//! One call in 16 is looked at, and the first of a key, so that the others pay for a test only.

use std::time::Duration;

use tokio::time::Instant;

use crate::latency::Latency;

/// The first calls of a key, all of which are looked at.
const FIRST: u64 = 8;
/// And one in so many of the others.
const EVERY: u64 = 16;
/// How many are followed at the same time.
const FOLLOWED: usize = 8;
/// How many calls the rate is taken over, at the least.
const SPAN: u64 = 16;
/// One that has not ended by then is no longer followed.
const LOST: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Before {
    /// Calls that are followed, and when they began.
    open: [Option<(u64, Instant)>; FOLLOWED],
    latency: Latency,
    /// A call of late, and the one before it: their numbers, and when they began.
    marks: [Option<(u64, Instant)>; 2],
}

impl Default for Before {
    fn default() -> Self {
        Self { open: [None; FOLLOWED], latency: Latency::new(), marks: [None; 2] }
    }
}

impl Before {
    /// Whether the call with this number is looked at.
    #[inline]
    pub(super) const fn follows(number: u64) -> bool {
        number % EVERY == 0 || number < FIRST
    }

    pub(super) fn start(&mut self, number: u64, now: Instant) {
        if self.marks[1].is_none_or(|(last, _)| number >= last + SPAN) {
            self.marks = [self.marks[1], Some((number, now))];
        }
        let is_free = |slot: &&mut Option<(u64, Instant)>| {
            slot.is_none_or(|(_, at)| now.saturating_duration_since(at) > LOST)
        };
        if let Some(slot) = self.open.iter_mut().find(is_free) {
            *slot = Some((number, now));
        }
    }

    /// It has ended; `answered` where that says how long an answer takes while all is well.
    pub(super) fn end(&mut self, number: u64, answered: Option<Instant>) {
        let is_it = |slot: &&mut Option<(u64, Instant)>| slot.is_some_and(|(open, _)| open == number);
        let began = self.open.iter_mut().find(is_it).and_then(Option::take);
        if let Some(((_, began), now)) = began.zip(answered) {
            self.latency.record(now.saturating_duration_since(began));
        }
    }

    /// How long answers took.
    pub(super) const fn latency(&self) -> Latency {
        self.latency
    }

    /// How many calls were in flight, as long as all was well: by their rate and by how long answers took.
    pub(super) fn level(&self, started: u64, now: Instant) -> Option<f64> {
        let (from, at) = self.marks[0].or(self.marks[1])?;
        let time = now.saturating_duration_since(at).as_secs_f64();
        let calls = started.saturating_sub(from);
        (calls >= SPAN && time > 0.0).then_some(calls as f64 / time * self.latency.typical()?.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // Calls at a steady rate, each answered after the same time: as many are in flight as that makes, within the 17 % of
        // the latency's estimate. So it is while no more than a few of those that are followed hang.
        #[test]
        fn the_level_is_the_rate_times_the_time_of_an_answer(
            gap in 0.005..20.0f64, took in 0.02..60.0f64, hanging in 0..FOLLOWED, calls in 100..2_000u64,
        ) {
            let (zero, mut before) = (crate::time::now(), Before::default());
            let at = |seconds: f64| zero + Duration::from_secs_f64(seconds);
            let hangs = |number: u64| number < hanging as u64;
            let mut under_way = std::collections::VecDeque::<(u64, f64)>::new();
            let end = (0..calls).map(|n| n as f64 * gap).next_back().unwrap_or(0.0);
            for number in 0..calls {
                let now = number as f64 * gap;
                while let Some((first, ends)) = under_way.front().copied().filter(|(_, ends)| *ends <= now) {
                    under_way.pop_front();
                    before.end(first, Some(at(ends)));
                }
                if Before::follows(number) {
                    before.start(number, at(now));
                    if !hangs(number) {
                        under_way.push_back((number, now + took));
                    }
                }
            }
            if let Some(typical) = before.latency.typical() {
                let level = before.level(calls - 1, at(end)).expect("more than a span of calls");
                let ratio = level / (took / gap);
                prop_assert!((0.8..1.25).contains(&ratio), "{level} of {}", took / gap);
                prop_assert!((0.8..1.25).contains(&(typical.as_secs_f64() / took)));
            } else {
                // With one place left each of the five waits for the next call that is looked at.
                let each = took + EVERY as f64 * gap;
                prop_assert!(end < 5.0 * each + FIRST as f64 * gap, "nothing was learnt");
            }
        }
    }

    #[test]
    fn of_a_key_that_is_new_nothing_is_known() {
        let (now, mut before) = (crate::time::now(), Before::default());
        for number in 0..4 {
            before.start(number, now);
            before.end(number, Some(now + Duration::from_secs(1)));
        }
        assert_eq!((before.latency.typical(), before.level(4, now + Duration::from_secs(9))), (None, None));
    }

    #[test]
    fn what_was_not_answered_says_nothing() {
        let (now, mut before) = (crate::time::now(), Before::default());
        (0..31).for_each(|number| {
            before.start(number, now);
            before.end(number, None);
        });
        assert_eq!(before.latency.typical(), None);
        assert!(before.open.iter().all(Option::is_none), "and keeps no place");
    }
}
