//! When a second try is worth the most. Pure.

use std::time::Duration;

use crate::latency::Tails;

/// No second try before so many answers are there.
const LATE: f32 = 0.95;
/// What is to be made small: the times that all but these shares of the calls take at most. The 99th percentile, and those
/// around it, because of several hundred answers only a few are there: the least of one percentile is mostly chance.
const RESTS: [f32; 5] = [0.015, 0.0125, 0.01, 0.0075, 0.006];
/// What is spread over its neighbours: a bucket with at most this share, where it is chance that it is this one.
const THIN: f32 = 0.01;
/// How it is spread, in ninths.
const SPREAD: [f32; 5] = [1.0, 2.0, 3.0, 2.0, 1.0];

/// How long after the first the second try is sent, by the answers' times and the share of the calls that may have one.
///
/// A call that lasts longer than `h` gets a second try with the chance `q` of the budget's share over the share of such
/// calls, at most 1. Then more than `t` lasts a share of `S(t) (1 - q F(t - h))`, if the second try is as quick as any other
/// call: `S` is the share that lasts longer, `F` the rest. For each `h` from the 95th percentile on, one for each bucket,
/// and each of [`RESTS`] there is a least `t` that leaves no more than that. Of all `h` the one is taken whose times are the
/// least on the geometric mean, and of several the first.
pub(super) fn moment<const N: usize>(shares: &[f32; N], budget: f32) -> Duration {
    let first = shares.iter().position(|share| *share >= LATE).unwrap_or(N - 1);
    let last = shares.iter().position(|share| *share >= 1.0).unwrap_or(N - 1);
    let smooth = smooth(shares);
    let mut best = (usize::MAX, first);
    for at in first..=last {
        let late = 1.0 - smooth[at];
        if late <= 0.0 {
            break;
        }
        // Buckets are of one ratio: the sum of their numbers is the mean of the times' logarithms.
        let times = reached(&smooth, at, (budget / late).min(1.0));
        best = best.min((times, at));
    }
    Duration::from_secs_f32(Tails::upper(best.1))
}

/// The sum of the buckets of the least times for [`RESTS`].
fn reached<const N: usize>(shares: &[f32; N], at: usize, served: f32) -> usize {
    let (h, mut t, mut sum) = (Tails::upper(at), at, 0);
    for rest in RESTS {
        // A smaller rest is reached later.
        while t < N - 1 && left(shares, h, t, served) > rest {
            t += 1;
        }
        sum += t;
    }
    sum
}

/// The share of the calls that lasts longer than the bucket `t`.
fn left<const N: usize>(shares: &[f32; N], h: f32, t: usize, served: f32) -> f32 {
    // What is in the bucket of this time may be above it.
    let quick = match Tails::bucket((Tails::upper(t) - h).max(0.0)) {
        0 => 0.0,
        bucket => shares[bucket - 1],
    };
    (1.0 - shares[t]) * (1.0 - served * quick)
}

/// The shares with thin buckets spread over their neighbours.
fn smooth<const N: usize>(shares: &[f32; N]) -> [f32; N] {
    let mut each = [0.0; N];
    let mut before = 0.0;
    for (at, share) in shares.iter().enumerate() {
        let own = share - before;
        before = *share;
        if own > THIN {
            each[at] += own;
        } else if own > 0.0 {
            for (n, part) in SPREAD.iter().enumerate() {
                let to = (at + n).saturating_sub(SPREAD.len() / 2).min(N - 1);
                each[to] += own * part / 9.0;
            }
        }
    }
    let mut sum = 0.0;
    each.map(|own| {
        sum += own;
        sum
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(samples: impl IntoIterator<Item = f64>, budget: f32) -> f64 {
        let mut tails = Tails::new();
        samples.into_iter().for_each(|secs| tails.record(Duration::from_secs_f64(secs)));
        moment(&tails.shares(), budget).as_secs_f64()
    }

    /// So many of a thousand take eight times as long.
    fn two_modes(slow: usize) -> impl Iterator<Item = f64> {
        (0..1_000).map(move |n| if n < slow { 16.0 } else { 2.0 })
    }

    #[test]
    fn of_two_modes_it_is_right_behind_the_quick_one() {
        for slow in [12, 20, 30, 40, 49] {
            for budget in [0.01, 0.02, 0.05] {
                let at = of(two_modes(slow), budget);
                assert!((2.0..2.3).contains(&at), "{slow} {budget}: {at}");
            }
        }
    }

    #[test]
    fn slowness_that_is_not_rare_is_not_late() {
        assert!(of(two_modes(100), 0.02) > 15.0);
    }

    #[test]
    fn a_small_budget_waits_until_few_are_left() {
        // A body whose 95th percentile is 3.9 s, and three hundredths from 8 s on.
        let body = (0..970).map(|n| 1.0 + 3.0 * f64::from(n) / 970.0);
        let all = || body.clone().chain((0..30).map(|n| 8.0 + f64::from(n)));
        let (small, ample) = (of(all(), 0.02), of(all(), 0.05));
        assert!(small >= 4.0 && ample < small, "{small} {ample}");
    }

    proptest! {
        /// Never before the 95th percentile, and never much behind the last answer.
        #[test]
        fn it_is_late(samples in proptest::collection::vec(0.002..1_700.0_f64, 20..900), budget in 0.001..0.2_f32) {
            let at = of(samples.iter().copied(), budget);
            let mut sorted = samples;
            sorted.sort_unstable_by(f64::total_cmp);
            let late = sorted[(sorted.len() * 95).div_ceil(100) - 1];
            prop_assert!(at >= late * 0.999, "{at} {late}");
            prop_assert!(at <= sorted[sorted.len() - 1] * 1.11, "{at}");
        }

        /// Of all moments none makes the times around the 99th percentile less.
        #[test]
        fn it_is_the_best_of_all(samples in proptest::collection::vec(0.01..60.0_f64, 20..400), budget in 0.001..0.2_f32) {
            let mut tails = Tails::new();
            samples.iter().for_each(|secs| tails.record(Duration::from_secs_f64(*secs)));
            let (raw, shares) = (tails.shares(), smooth(&tails.shares()));
            let times = |h: usize| -> usize {
                let served = (budget / (1.0 - shares[h])).min(1.0);
                let least = |rest| (h..shares.len()).find(|t| left(&shares, Tails::upper(h), *t, served) <= rest);
                RESTS.map(|rest| least(rest).unwrap_or(shares.len() - 1)).iter().sum()
            };
            let from = raw.iter().position(|share| *share >= LATE).unwrap();
            let to = raw.iter().position(|share| *share >= 1.0).unwrap_or(raw.len() - 1);
            let chosen = Tails::bucket(moment(&raw, budget).as_secs_f32() * 0.999);
            if let Some(best) = (from..=to).filter(|h| shares[*h] < 1.0).map(times).min() {
                prop_assert_eq!(times(chosen), best);
            }
        }

        /// Nothing is lost by spreading, and nothing is moved by more than two buckets.
        #[test]
        fn spreading_keeps_the_sum_and_the_place(samples in proptest::collection::vec(0.01..60.0_f64, 1..400)) {
            let mut tails = Tails::new();
            samples.iter().for_each(|secs| tails.record(Duration::from_secs_f64(*secs)));
            let (raw, shares) = (tails.shares(), smooth(&tails.shares()));
            prop_assert!((shares[shares.len() - 1] - 1.0).abs() < 1e-4);
            for at in 2..raw.len() - 2 {
                prop_assert!(shares[at] >= raw[at - 2] - 1e-4 && shares[at] <= raw[at + 2] + 1e-4);
            }
        }
    }
}
