//! How long an answer takes: quantiles of a stream of durations in constant memory. Pure.
//!
//! A histogram whose buckets grow by a fixed ratio, so that the error is relative, and whose counts are halved when they
//! are full, so that old answers are forgotten. No clock is read and nothing is allocated; a tracker takes 52 bytes, one
//! for high quantiles 312.

#![cfg_attr(not(test), allow(dead_code, reason = "each layer uses the quantile that it needs"))]

use std::time::Duration;

/// With [`RATIO`] they reach from [`LEAST`] to half an hour.
const BUCKETS: usize = 48;
/// The upper end of a bucket over its lower end.
const RATIO: f32 = 1.35;
/// The lower end of the first bucket, in seconds. Shorter durations count as this one.
const LEAST: f32 = 0.001;
/// What one sample adds. More than one, so that a rare value survives two halvings.
const WEIGHT: u8 = 4;
/// The sum at which the counts are halved: 63 samples. Below 256, so that no count overflows.
const FULL: u8 = 63 * WEIGHT;
/// Fewer samples are no evidence.
const ENOUGH: u8 = 5;

/// Estimates quantiles of how long the last answers took.
///
/// An estimate is the geometric middle of the bucket that holds the quantile, which is within 17 % of it, for durations
/// from 1 ms to 30 minutes; what is shorter or longer counts as the nearest of these. The quantile is that of the last
/// 32 to 63 samples in the main: all that came before weigh as much as 31 of them at most, and half of that after 32 more.
/// After a change of pace the median is that of the new one within 64 samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    counts: [u8; BUCKETS],
    /// The sum of `counts`.
    sum: u8,
    /// Samples so far, up to [`ENOUGH`].
    seen: u8,
}

impl Latency {
    pub(crate) const fn new() -> Self {
        Self { counts: [0; BUCKETS], sum: 0, seen: 0 }
    }

    /// Adds the duration of an answer.
    pub(crate) fn record(&mut self, took: Duration) {
        self.counts[bucket(took)] += WEIGHT;
        self.sum += WEIGHT;
        self.seen = self.seen.saturating_add(1).min(ENOUGH);
        if self.sum >= FULL {
            self.sum = 0;
            for count in &mut self.counts {
                *count /= 2;
                self.sum += *count;
            }
        }
    }

    /// What nine of ten answers take longer than. `None` before the fifth sample.
    pub(crate) fn quick(&self) -> Option<Duration> {
        self.quantile(1, 10)
    }

    /// The median. `None` before the fifth sample.
    pub(crate) fn typical(&self) -> Option<Duration> {
        self.quantile(1, 2)
    }

    /// What one of four answers takes longer than. `None` before the fifth sample.
    pub(crate) fn fair(&self) -> Option<Duration> {
        self.quantile(3, 4)
    }

    /// What one of ten answers takes longer than. `None` before the fifth sample.
    pub(crate) fn slow(&self) -> Option<Duration> {
        self.quantile(9, 10)
    }

    /// The most that an estimate may be of: the upper end of its bucket. Where places are scarce, nobody is to have one whose
    /// time is a little too short: in a queue that is served in order all would be such.
    pub(crate) fn at_most(estimate: Duration) -> Duration {
        estimate.mul_f32(RATIO.sqrt())
    }

    fn quantile(&self, share: u32, of: u32) -> Option<Duration> {
        if self.seen < ENOUGH {
            return None;
        }
        let mut below = 0;
        let at = self.counts.iter().position(|count| {
            below += u32::from(*count);
            below * of > u32::from(self.sum) * share
        })?;
        Some(Duration::from_secs_f32(LEAST * RATIO.powf(at as f32 + 0.5)))
    }
}

/// `as` saturates: what is shorter than [`LEAST`] is in the first one.
fn bucket(took: Duration) -> usize {
    let at = (took.as_secs_f32() / LEAST).log2() / RATIO.log2();
    (at as usize).min(BUCKETS - 1)
}

/// With [`FINE_RATIO`] they reach from [`LEAST`] to half an hour.
const FINE_BUCKETS: usize = 152;
const FINE_RATIO: f32 = 1.1;
const FINE_WEIGHT: u16 = 8;
/// The sum at which the fine counts are halved: 1,023 samples. Below 65,536, so that no count overflows.
const FINE_FULL: u32 = 1_023 * FINE_WEIGHT as u32;

/// Estimates high quantiles, of the last 512 to 1,023 samples in the main, within 5 %, in 312 bytes.
///
/// [`Latency`] cannot: of its 32 to 63 samples two or three are above the 95th percentile, and chance decides which.
#[derive(Clone, Debug)]
pub(crate) struct Tails {
    counts: [u16; FINE_BUCKETS],
    /// The sum of `counts`.
    sum: u32,
}

impl Tails {
    pub(crate) const fn new() -> Self {
        Self { counts: [0; FINE_BUCKETS], sum: 0 }
    }

    /// Adds the duration of an answer.
    pub(crate) fn record(&mut self, took: Duration) {
        self.counts[Self::bucket(took.as_secs_f32())] += FINE_WEIGHT;
        self.sum += u32::from(FINE_WEIGHT);
        if self.sum >= FINE_FULL {
            self.sum = 0;
            for count in &mut self.counts {
                *count /= 2;
                self.sum += u32::from(*count);
            }
        }
    }

    /// What half of the answers take at most that take longer than this; the time itself where none does.
    pub(crate) fn beyond(&self, had: Duration) -> Duration {
        let from = Self::bucket(had.as_secs_f32()) + 1;
        let longer: u32 = self.counts[from.min(FINE_BUCKETS)..].iter().map(|count| u32::from(*count)).sum();
        if longer == 0 {
            return had;
        }
        self.quantile(1.0 - longer as f32 / 2.0 / self.sum as f32).map_or(had, |half| half.max(had))
    }

    /// The bucket of so many seconds.
    pub(crate) fn bucket(secs: f32) -> usize {
        let at = (secs / LEAST).log2() / FINE_RATIO.log2();
        (at as usize).min(FINE_BUCKETS - 1)
    }

    /// The upper end of a bucket, in seconds.
    pub(crate) fn upper(at: usize) -> f32 {
        LEAST * FINE_RATIO.powf(at as f32 + 1.0)
    }

    /// For each bucket the share of the answers that are in it or below.
    pub(crate) fn shares(&self) -> [f32; FINE_BUCKETS] {
        let (mut below, sum) = (0, self.sum.max(1) as f32);
        self.counts.map(|count| {
            below += u32::from(count);
            below as f32 / sum
        })
    }

    /// What this share of the answers takes at most. `None` before the first sample.
    pub(crate) fn quantile(&self, share: f32) -> Option<Duration> {
        let mut below = 0;
        let at = self.counts.iter().position(|count| {
            below += u32::from(*count);
            below as f32 > self.sum as f32 * share
        })?;
        Some(Duration::from_secs_f32(LEAST * FINE_RATIO.powf(at as f32 + 0.5)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Half a fine bucket, and the last digit.
    const FINE_ERROR: f64 = 1.051;

    #[test]
    fn the_fine_sum_is_that_of_the_counts() {
        let mut tails = Tails::new();
        assert_eq!(tails.quantile(0.95), None);
        for unit in units(0.3, 10_000) {
            tails.record(Duration::from_secs_f64(normal(unit).exp()));
            assert_eq!(tails.sum, tails.counts.iter().map(|n| u32::from(*n)).sum::<u32>());
            assert!(tails.sum < FINE_FULL);
        }
        tails.record(Duration::MAX);
        tails.record(Duration::ZERO);
        assert!(size_of::<Tails>() <= 312);
    }

    proptest! {
        /// As long as nothing was forgotten, against the sorted samples.
        #[test]
        fn a_high_quantile_is_that_of_the_samples(
            samples in proptest::collection::vec(0.001..1_800.0_f64, 20..1_000), share in 0.5..0.999_f32,
        ) {
            let mut tails = Tails::new();
            samples.iter().for_each(|sample| tails.record(Duration::from_secs_f64(*sample)));
            let mut sorted = samples;
            sorted.sort_unstable_by(f64::total_cmp);
            let rank = sorted.len() as f32 * share;
            let truth = [rank - 0.01, rank + 0.01].map(|rank| sorted[(rank as usize).min(sorted.len() - 1)]);
            let near = truth.iter().any(|truth| is_near(tails.quantile(share), *truth, FINE_ERROR));
            prop_assert!(near, "{:?} {truth:?}", tails.quantile(share));
        }

        #[test]
        fn half_of_those_that_take_longer_take_longer_still(
            samples in proptest::collection::vec(0.001..1_800.0_f64, 1..900), had in 0.0..2_000.0_f64,
        ) {
            let mut tails = Tails::new();
            samples.iter().for_each(|sample| tails.record(Duration::from_secs_f64(*sample)));
            let beyond = tails.beyond(Duration::from_secs_f64(had)).as_secs_f64();
            // The bucket of `had` ends somewhere between it and a tenth above.
            let [mut most, mut least] = [1.0, 1.1].map(|times| {
                samples.iter().copied().filter(|sample| *sample > had * times).collect::<Vec<_>>()
            });
            prop_assert!(beyond >= had * 0.999);
            if least.is_empty() {
                prop_assert!(beyond <= had.max(0.001) * 1.22, "{beyond} {had}");
            } else if least.len() > 20 {
                most.sort_unstable_by(f64::total_cmp);
                least.sort_unstable_by(f64::total_cmp);
                let (low, high) = (most[most.len() * 4 / 10], least[least.len() * 6 / 10]);
                prop_assert!(beyond >= low / 1.11 && beyond <= high * 1.11, "{low} {beyond} {high}");
            }
        }

        /// Of two modes with a share of slow answers that is well above or below, whatever was before 1,600 samples.
        #[test]
        fn a_tail_is_found_and_forgotten(slow in 0.0..0.15_f64, before in 0.01..100.0_f64, start in 0.0..1.0_f64) {
            let mut tails = Tails::new();
            (0..2_000).for_each(|_| tails.record(Duration::from_secs_f64(before)));
            for unit in units(start, 6_000) {
                tails.record(Duration::from_secs_f64(if unit < slow { 16.0 } else { 2.0 }));
            }
            let expected = if slow > 0.06 { 16.0 } else { 2.0 };
            prop_assume!(!(0.04..0.06).contains(&slow));
            prop_assert!(is_near(tails.quantile(0.95), expected, FINE_ERROR));
        }
    }

    /// Half a bucket, and the last digit.
    const ERROR: f64 = 1.163;

    fn seconds(estimate: Option<Duration>) -> f64 {
        estimate.expect("there are samples enough").as_secs_f64()
    }

    fn is_near(estimate: Option<Duration>, truth: f64, factor: f64) -> bool {
        let ratio = seconds(estimate) / truth;
        ratio <= factor && ratio >= 1.0 / factor
    }

    /// Evenly spread numbers from 0 to 1, in an order in which any few of them are evenly spread, too.
    fn units(start: f64, count: usize) -> impl Iterator<Item = f64> {
        (0..count).map(move |n| (start + n as f64 * 0.618_033_988_749_895).fract())
    }

    /// The quantile function of a normal distribution, to 0.000 5 (Abramowitz and Stegun, 26.2.23).
    fn normal(unit: f64) -> f64 {
        let (tail, sign) = if unit < 0.5 { (unit, -1.0) } else { (1.0 - unit, 1.0) };
        let t = (-2.0 * tail.max(1e-9).ln()).sqrt();
        let over = 2.515_517 + t * (0.802_853 + t * 0.010_328);
        let under = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
        sign * (t - over / under)
    }

    fn fed(samples: impl IntoIterator<Item = f64>) -> Latency {
        let mut latency = Latency::new();
        samples.into_iter().for_each(|sample| latency.record(Duration::from_secs_f64(sample)));
        latency
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Latency>() <= 64, "{}", size_of::<Latency>());
    }

    #[test]
    fn four_samples_are_no_evidence() {
        let mut latency = fed([1.0; 4]);
        assert_eq!((latency.quick(), latency.typical()), (None, None));
        latency.record(Duration::from_secs(1));
        assert!(is_near(latency.quick(), 1.0, ERROR) && is_near(latency.typical(), 1.0, ERROR));
    }

    #[test]
    fn the_ends_of_the_range_hold_what_lies_beyond() {
        let at_the_least = fed([0.0; 9]);
        assert!(is_near(at_the_least.typical(), 0.001, ERROR));
        let mut longest = Latency::new();
        (0..1_000).for_each(|_| longest.record(Duration::MAX));
        assert!((1_500.0..2_000.0).contains(&seconds(longest.quick())), "{:?}", longest.quick());
    }

    #[test]
    fn the_sum_is_that_of_the_counts() {
        let mut latency = Latency::new();
        for unit in units(0.3, 10_000) {
            latency.record(Duration::from_secs_f64(normal(unit).exp()));
            assert_eq!(u32::from(latency.sum), latency.counts.iter().map(|n| u32::from(*n)).sum::<u32>());
            assert!(latency.sum < FULL);
        }
    }

    proptest! {
        #[test]
        fn any_durations_are_taken(samples in proptest::collection::vec(any::<u64>(), 5..300)) {
            let mut latency = Latency::new();
            samples.iter().for_each(|nanos| latency.record(Duration::from_nanos(*nanos)));
            prop_assert!(latency.quick() <= latency.typical());
            prop_assert!(latency.quick().is_some());
        }

        /// As long as nothing was forgotten, against the sorted samples.
        #[test]
        fn it_is_the_quantile_of_what_it_was_fed(samples in proptest::collection::vec(0.001..1_800.0_f64, 5..62)) {
            let latency = fed(samples.iter().copied());
            let mut sorted = samples;
            sorted.sort_unstable_by(f64::total_cmp);
            let quantile = |share: f64| sorted[(share * sorted.len() as f64 + 1e-9) as usize];
            prop_assert!(is_near(latency.quick(), quantile(0.1), ERROR));
            prop_assert!(is_near(latency.typical(), quantile(0.5), ERROR));
        }

        #[test]
        fn a_constant_is_found(took in 0.001..1_800.0_f64, count in 5..500_usize) {
            let latency = fed(std::iter::repeat_n(took, count));
            prop_assert!(is_near(latency.quick(), took, ERROR) && is_near(latency.typical(), took, ERROR));
        }

        /// Within 17 % for the bucket of a quantile that is off by seven of a hundred at most: what a few dozen samples can
        /// tell, whose counts are rounded down when they are halved.
        #[test]
        fn a_log_normal_stream_is_found(
            median in 0.05..100.0_f64, sigma in 0.05..1.3_f64, start in 0.0..1.0_f64, count in 40..400_usize,
        ) {
            let latency = fed(units(start, count).map(|unit| median * (sigma * normal(unit)).exp()));
            let is = |estimate, share: f64| {
                let [low, high] = [-0.07, 0.07].map(|off| median * (sigma * normal(share + off)).exp());
                (low / ERROR..=high * ERROR).contains(&seconds(estimate))
            };
            prop_assert!(is(latency.typical(), 0.5), "{latency:?}");
            prop_assert!(is(latency.quick(), 0.1), "{latency:?}");
        }

        /// The median is the mode that has at least 58 % of the answers, the tenth percentile the short one where it has
        /// at least 16 %.
        #[test]
        fn of_two_modes_it_is_one_of_them(
            short in 0.1..5.0_f64, times in 2.0..50.0_f64, share in 0.0..1.0_f64, start in 0.0..1.0_f64, count in 60..400_usize,
        ) {
            let long = short * times;
            let latency = fed(units(start, count).map(|unit| if unit < share { short } else { long }));
            let is = |estimate, mode| is_near(estimate, mode, ERROR);
            prop_assert!(is(latency.typical(), short) || is(latency.typical(), long));
            if share > 0.58 {
                prop_assert!(is(latency.typical(), short));
            } else if share < 0.42 {
                prop_assert!(is(latency.typical(), long));
            }
            if share > 0.16 {
                prop_assert!(is(latency.quick(), short));
            } else if share < 0.04 {
                prop_assert!(is(latency.quick(), long));
            }
        }

        #[test]
        fn a_change_of_pace_is_seen_within_64_samples(
            before in 0.01..500.0_f64, after in 0.01..500.0_f64, count in 5..300_usize,
        ) {
            let latency = fed(std::iter::repeat_n(before, count).chain(std::iter::repeat_n(after, 64)));
            prop_assert!(is_near(latency.typical(), after, ERROR));
        }
    }
}
