//! How a stored backlog is let out after an outage. Pure: no clock, no randomness.
//!
//! A token bucket whose rate grows: it starts at `start` calls a second and doubles four times over the ramp, or sooner: with
//! as many successes as it lets through in a second. Time alone tells nothing of the server; successes do. Who finds
//! no token is told when, at this rate, one will be free that nobody was promised yet; so callers who wait come
//! back in the order in which they were turned away, as fast as they are let through, and not all at once.
//!
//! A server that comes back may take less than before. Each failure takes the ramp back by [`BACK`], and two successes
//! make up for it before any moves it forward: where more than a third of the calls fail the rate falls until they do not, or until it is the one of
//! the beginning. A smaller share is left to the retries, as plain errors are everywhere. It is over for good when it has
//! lasted [`LONGEST`] times its length.
//!
//! **The numbers.** At the rate `r(t) = start · 2^(t/τ)`, a backlog of `n` is out when the rate has grown to
//! `start + n · ln 2 / τ`. With 10 a second and τ = 7.5 s, a backlog of 600 is out after 20 s, at 65 a second; one
//! bucket of burst on top, no second sees more than 75. Whoever calls less than 10 times a second never meets an
//! empty bucket.

use super::{Nanos, SECOND};

/// How often the rate doubles from the ramp's beginning to its end.
const DOUBLINGS: f64 = 4.0;

/// What one failure takes back, and twice what one success makes up for.
const BACK: Nanos = SECOND;

/// How many times its length it lasts, whatever fails.
const LONGEST: u64 = 4;

#[derive(Clone, Debug)]
pub(super) struct Ramp {
    began: Nanos,
    length: Nanos,
    /// What failures have taken back, and successes did not make up for.
    behind: Nanos,
    /// What successes have moved it forward.
    ahead: Nanos,
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
        Self {
            began: now,
            length,
            behind: 0,
            ahead: 0,
            tau,
            start,
            filled: 0.0,
            tokens: start,
            promised: 0.0,
        }
    }

    pub(super) fn is_over(&self, now: Nanos) -> bool {
        self.age(now) >= self.tau * DOUBLINGS
    }

    /// When to come back, if no call may go now.
    pub(super) fn promise(&mut self, now: Nanos) -> Option<Nanos> {
        self.fill(now);
        if self.tokens >= 1.0 {
            return None;
        }
        self.promised = self.promised.max(self.volume(self.filled)) + 1.0;
        let wait = (self.inverse(self.promised) * SECOND as f64).ceil();
        let until = self.began.saturating_add(self.behind).saturating_add(wait as Nanos);
        let until = until.saturating_sub(self.ahead);
        Some(until.max(now.saturating_add(1)))
    }

    /// One call goes, after [`promise`](Self::promise) had nothing against it.
    pub(super) fn take(&mut self) {
        self.tokens -= 1.0;
    }

    /// A call failed.
    pub(super) fn step_back(&mut self, now: Nanos) {
        let longest = self.length.saturating_mul(LONGEST - 1).saturating_sub(self.behind);
        let back = BACK.min(longest).min(self.nanos(now));
        self.turn(now, self.behind + back, self.ahead);
    }

    /// So many calls succeeded.
    pub(super) fn make_up(&mut self, now: Nanos, successes: u32) {
        if self.behind > 0 {
            self.turn(now, self.behind.saturating_sub(BACK / 2 * Nanos::from(successes)), self.ahead);
        } else {
            let rate = self.start * (self.age(now) / self.tau).exp2();
            let forward = f64::from(successes) * self.tau / rate * SECOND as f64;
            self.turn(now, 0, self.ahead.saturating_add(forward as Nanos));
        }
    }

    /// From now on it is so far behind, and ahead. What has flowed in stays; promises are made anew from here, and those
    /// who come back on an older one are given another.
    fn turn(&mut self, now: Nanos, behind: Nanos, ahead: Nanos) {
        if self.is_over(now) {
            return;
        }
        self.fill(now);
        (self.behind, self.ahead) = (behind, ahead);
        self.filled = self.age(now);
        self.promised = self.volume(self.filled);
    }

    fn fill(&mut self, now: Nanos) {
        let age = self.age(now).max(self.filled);
        let flow = self.volume(age) - self.volume(self.filled);
        self.filled = age;
        self.tokens = (self.tokens + flow).min(self.start);
    }

    /// How far it has come, in seconds.
    fn age(&self, now: Nanos) -> f64 {
        seconds(self.nanos(now))
    }

    fn nanos(&self, now: Nanos) -> Nanos {
        now.saturating_sub(self.began).saturating_add(self.ahead).saturating_sub(self.behind)
    }

    /// How many calls flow in up to this age: the integral of the rate. Past the end the last rate goes on, for
    /// promises only.
    fn volume(&self, age: f64) -> f64 {
        let end = self.tau * DOUBLINGS;
        let grown = self.start * self.tau / std::f64::consts::LN_2 * ((age.min(end) / self.tau).exp2() - 1.0);
        grown + (age - end).max(0.0) * self.start * DOUBLINGS.exp2()
    }

    /// How far it has come when so many calls have flowed in.
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
    use proptest::prelude::*;

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

    // A server that takes 20 a second and keeps 100 waiting; who is refused comes back after two seconds. Without a step
    // back 230 calls go in one second, and 3,263 in all.
    #[test]
    fn a_server_that_takes_less_is_met_at_what_it_takes() {
        let mut ramp = Ramp::new(0, LENGTH, 10.0);
        let mut asking: BinaryHeap<Reverse<Nanos>> = (0..1000).map(|n| Reverse(n * 1_000_000)).collect();
        let (mut out, mut served, mut free) = (Vec::new(), 0, 0);
        while let Some(Reverse(now)) = asking.pop() {
            match if ramp.is_over(now) { None } else { ask(&mut ramp, now) } {
                Some(until) => asking.push(Reverse(until.next_multiple_of(1_000_000))),
                None => {
                    out.push(now);
                    free = now.max(free);
                    if free - now >= 100 * SECOND / 20 {
                        ramp.step_back(now);
                        asking.push(Reverse(now + 2 * SECOND));
                    } else {
                        free += SECOND / 20;
                        served += 1;
                        ramp.make_up(now, 1);
                    }
                }
            }
        }
        assert!(served == 1000 && free < 52 * SECOND, "the server is kept busy: {free}");
        assert!(peak(&out) <= 100, "{} in one second", peak(&out));
        assert!(out.len() <= 1500, "{} calls", out.len());
    }

    #[test]
    fn plain_errors_do_not_hold_it_back() {
        for per_second in [1, 10, 100, 1000] {
            let mut ramp = Ramp::new(0, LENGTH, 10.0);
            for n in 0..40 * per_second {
                let now = n * SECOND / per_second;
                if n % 10 < 3 { ramp.step_back(now) } else { ramp.make_up(now, 1) }
            }
            assert!(ramp.behind <= 4 * SECOND && ramp.is_over(LENGTH + 4 * SECOND), "{per_second}");
        }
    }

    proptest! {
        // Whatever fails: it ends, it grows no faster than by its successes, and the bucket holds what it holds.
        #[test]
        fn it_runs_ahead_by_its_successes_only_and_is_over_in_the_end(
            ops in prop::collection::vec((0..SECOND, any::<bool>(), 1..20u32), 1..500), length in 1..60 * SECOND,
        ) {
            let mut ramp = Ramp::new(7, length, 10.0);
            let plain = ramp.clone();
            let (mut now, mut most, mut by_successes) = (7, 0.0, 0.0);
            for (step, failed, successes) in ops {
                now += step;
                if failed { ramp.step_back(now) } else { ramp.make_up(now, successes) }
                by_successes += if failed { 0.0 } else { f64::from(successes) * ramp.tau / ramp.start };
                prop_assert!(ramp.age(now) <= plain.age(now) + by_successes + 1e-6);
                prop_assert!(ramp.behind <= 3 * length);
                if let Some(until) = ask(&mut ramp, now) {
                    prop_assert!(until > now);
                } else {
                    most += 1.0;
                    prop_assert!(most <= 10.0 + plain.volume(ramp.age(now).max(plain.age(now))) + 1e-6);
                }
                prop_assert!(ramp.tokens <= ramp.start);
            }
            prop_assert!(ramp.is_over(7 + LONGEST * length));
        }
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
