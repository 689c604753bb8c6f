//! When a second try is worth the most. Pure.

use std::time::Duration;

use crate::latency::Tails;

/// No second try before so many answers are there.
const LATE: f32 = 0.95;
/// What is to be made small: the time that all but this share of the calls take at most.
const REST: f32 = 0.01;

/// How long after the first the second try is sent, by the answers' times and the share of the calls that may have one.
///
/// A call that lasts longer than `h` gets a second try with the chance `q` of the budget's share over the share of such
/// calls, at most 1. Then more than `t` lasts a share of `S(t) (1 - q F(t - h))`, if the second try is as quick as any other
/// call: `S` is the share that lasts longer, `F` the rest. Of all `h` from the 95th percentile on, one for each bucket, that is
/// taken for which the least `t` leaves a hundredth; of several the one that leaves the least.
pub(super) fn moment<const N: usize>(shares: &[f32; N], budget: f32) -> Duration {
    let first = shares.iter().position(|share| *share >= LATE).unwrap_or(N - 1);
    let mut best = (N, f32::INFINITY, first);
    for (at, share) in shares.iter().enumerate().skip(first) {
        let (h, late) = (Tails::upper(at), 1.0 - share);
        if late <= 0.0 {
            break;
        }
        let served = (budget / late).min(1.0);
        // From here on it can be no better.
        let last = best.0.min(N - 1);
        for t in at..=last {
            let since = Tails::upper(t) - h;
            // What is in the bucket of this time may be above it.
            let quick = match Tails::bucket(since.max(0.0)) {
                0 => 0.0,
                bucket => shares[bucket - 1],
            };
            let left = (1.0 - shares[t]) * (1.0 - served * quick);
            if left <= REST {
                if (t, left) < (best.0, best.1) {
                    best = (t, left, at);
                }
                break;
            }
        }
    }
    Duration::from_secs_f32(Tails::upper(best.2))
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

        /// The same as trying each pair.
        #[test]
        fn it_is_the_best_of_all(samples in proptest::collection::vec(0.01..60.0_f64, 20..400), budget in 0.001..0.2_f32) {
            let mut tails = Tails::new();
            samples.iter().for_each(|secs| tails.record(Duration::from_secs_f64(*secs)));
            let shares = tails.shares();
            let reached = |h: usize| {
                let served = (budget / (1.0 - shares[h])).min(1.0);
                (h..shares.len()).find(|t| {
                    let bucket = Tails::bucket((Tails::upper(*t) - Tails::upper(h)).max(0.0));
                    let quick = if bucket == 0 { 0.0 } else { shares[bucket - 1] };
                    (1.0 - shares[*t]) * (1.0 - served * quick) <= 0.01
                })
            };
            let candidates = (0..shares.len()).filter(|h| (0.95..1.0).contains(&shares[*h]));
            let chosen = Tails::bucket(moment(&shares, budget).as_secs_f32() * 0.999);
            if let Some(best) = candidates.filter_map(reached).min() {
                prop_assert_eq!(reached(chosen), Some(best));
            }
        }
    }
}
