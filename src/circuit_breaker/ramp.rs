//! How a stored backlog is let out after an outage. Pure: no clock, no randomness.
//!
//! A token bucket whose rate grows: it starts at `start` calls a second and doubles four times over the ramp. Who finds
//! no token is told when, at this rate, one will be free that nobody was promised yet; so callers who wait come
//! back in the order in which they were turned away, as fast as they are let through, and not all at once.
//!
//! **The numbers.** At the rate `r(t) = start · 2^(t/τ)`, a backlog of `n` is out when the rate has grown to
//! `start + n · ln 2 / τ`. With 10 a second and τ = 7.5 s, a backlog of 600 is out after 20 s, at 65 a second; one
//! bucket of burst on top, no second sees more than 75. Whoever calls less than 10 times a second never meets an
//! empty bucket.

use super::{Nanos, SECOND};

/// How often the rate doubles from the ramp's beginning to its end.
const DOUBLINGS: f64 = 4.0;

#[derive(Clone, Debug)]
pub(super) struct Ramp {
    began: Nanos,
    /// Seconds in which the rate doubles.
    tau: f64,
    /// Calls a second at the beginning; also the size of the bucket.
    start: f64,
    /// Seconds from the beginning at which the bucket was filled last.
    filled: f64,
    /// Invariant: at most `start`.
    tokens: f64,
    /// How many calls the ramp will have let through when the latest promise is due. Never decreases.
    promised: f64,
}

impl Ramp {
    /// From `now` on for `length`, beginning with `start` calls a second.
    pub(super) fn new(now: Nanos, length: Nanos, start: f64) -> Self {
        let tau = seconds(length) / DOUBLINGS;
        Self { began: now, tau, start, filled: 0.0, tokens: start, promised: 0.0 }
    }

    pub(super) fn is_over(&self, now: Nanos) -> bool {
        self.age(now) >= self.tau * DOUBLINGS
    }

    /// When to come back, if no call may go now.
    pub(super) fn promise(&mut self, now: Nanos) -> Option<Nanos> {
        let age = self.age(now).max(self.filled);
        let flow = self.volume(age) - self.volume(self.filled);
        self.filled = age;
        self.tokens = (self.tokens + flow).min(self.start);
        if self.tokens >= 1.0 {
            return None;
        }
        self.promised = self.promised.max(self.volume(age)) + 1.0;
        let wait = (self.inverse(self.promised) * SECOND as f64).ceil();
        Some(self.began.saturating_add(wait as Nanos).max(now.saturating_add(1)))
    }

    /// One call goes, after [`promise`](Self::promise) had nothing against it.
    pub(super) fn take(&mut self) {
        self.tokens -= 1.0;
    }

    fn age(&self, now: Nanos) -> f64 {
        seconds(now.saturating_sub(self.began))
    }

    /// How many calls flow in up to this age: the integral of the rate. Past the end the last rate goes on, for
    /// promises only.
    fn volume(&self, age: f64) -> f64 {
        let end = self.tau * DOUBLINGS;
        let grown = self.start * self.tau / std::f64::consts::LN_2 * ((age.min(end) / self.tau).exp2() - 1.0);
        grown + (age - end).max(0.0) * self.start * DOUBLINGS.exp2()
    }

    /// The age at which so many calls have flowed in.
    fn inverse(&self, volume: f64) -> f64 {
        let end = self.tau * DOUBLINGS;
        let past = volume - self.volume(end);
        if past > 0.0 {
            return end + past / (self.start * DOUBLINGS.exp2());
        }
        self.tau * (1.0 + volume * std::f64::consts::LN_2 / (self.start * self.tau)).log2()
    }
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / SECOND as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    const LENGTH: Nanos = 30 * SECOND;

    fn ask(ramp: &mut Ramp, now: Nanos) -> Option<Nanos> {
        let denied = ramp.promise(now);
        if denied.is_none() {
            ramp.take();
        }
        denied
    }

    /// Callers who wait as they are told and come back a millisecond late at most, as tokio's timer does, beside a
    /// stream of new ones. The calls let through, and who is left at the end.
    fn release(backlog: u64, spread: Nanos, per_second: u64) -> Vec<Nanos> {
        let mut ramp = Ramp::new(0, LENGTH, 10.0);
        let mut asking: BinaryHeap<Reverse<Nanos>> = BinaryHeap::new();
        asking.extend((0..backlog).map(|n| Reverse(spread * n / backlog.max(1))));
        asking.extend((0..90 * per_second).map(|n| Reverse(n * SECOND / per_second)));
        let mut out = Vec::new();
        while let Some(Reverse(now)) = asking.pop() {
            match if ramp.is_over(now) { None } else { ask(&mut ramp, now) } {
                None => out.push(now),
                Some(until) => {
                    assert!(until > now);
                    asking.push(Reverse(until.next_multiple_of(1_000_000)));
                }
            }
        }
        out
    }

    fn peak(calls: &[Nanos]) -> usize {
        let within = |from: usize| calls[from..].iter().take_while(|at| **at - calls[from] < SECOND).count();
        (0..calls.len()).map(within).max().unwrap_or(0)
    }

    // The backlog of a five-minute outage at 2 a second, the waits of half-open, and a crowd that asks at once.
    #[test]
    fn a_backlog_leaves_without_a_rush() {
        for (backlog, spread) in [(600, 2 * SECOND), (600, 0), (700, 2 * SECOND), (800, SECOND)] {
            let out = release(backlog, spread, 2);
            let peak = peak(&out);
            assert!(peak <= 100, "{backlog} over {spread}: {peak} in one second");
            let drained = out[usize::try_from(backlog).unwrap()];
            assert!(drained < LENGTH, "the ramp is used, not sat out: {drained}");
        }
        // More than the ramp lets through: what is promised past its end is spread, too.
        assert!(peak(&release(3000, SECOND, 2)) <= 250);
    }

    #[test]
    fn a_quiet_caller_notices_nothing() {
        for rate in [1, 2, 9] {
            let out = release(0, 0, rate);
            assert!(out.windows(2).all(|pair| pair[1] - pair[0] == SECOND / rate || rate == 9));
            assert_eq!(out[1], SECOND / rate);
        }
        let mut ramp = Ramp::new(0, LENGTH, 10.0);
        assert!((0..10).all(|_| ask(&mut ramp, 0).is_none()), "a handful at once");
        assert!(ask(&mut ramp, 0).is_some());
    }

    #[test]
    fn a_promise_is_the_inverse_of_what_flows() {
        let ramp = Ramp::new(0, LENGTH, 10.0);
        for volume in [0.5, 1.0, 10.0, 100.0, 1000.0, 1623.0, 5000.0] {
            let back = ramp.volume(ramp.inverse(volume));
            assert!((back - volume).abs() < 1e-6 * volume.max(1.0), "{volume} gives {back}");
        }
    }

    #[test]
    fn it_is_over_after_its_length() {
        let ramp = Ramp::new(7, LENGTH, 10.0);
        assert_eq!([7, 7 + LENGTH - 1000, 7 + LENGTH].map(|now| ramp.is_over(now)), [false, false, true]);
    }

    #[test]
    fn odd_times_do_no_harm() {
        let mut ramp = Ramp::new(u64::MAX - 5, LENGTH, 10.0);
        assert_eq!(ask(&mut ramp, 0), None);
        assert_eq!(ask(&mut ramp, u64::MAX), None);
        let mut short = Ramp::new(100, 1, 10.0);
        assert_eq!(ask(&mut short, 100), None);
        assert!(short.is_over(101));
    }
}
