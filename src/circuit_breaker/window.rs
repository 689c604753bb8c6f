//! Calls and failures of the last while, in time buckets. Pure: no clock, no lock, no allocation.
//!
//! Recording and reading cost the same whatever the traffic: the sums are kept, and a bucket is subtracted when it
//! is taken for a new time. What is read covers the time since the oldest bucket began, which is the window's
//! length less at most one bucket.

use super::Nanos;

/// A finer grain would cost memory per key; the window is then off by a tenth of its length at most.
pub(super) const BUCKETS: usize = 10;

/// What was counted, in one bucket or in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: u32,
    pub(super) failures: u32,
    pub(super) slow: u32,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failures = self.failures.saturating_add(other.failures);
        self.slow = self.slow.saturating_add(other.slow);
    }
}

/// The numbers of calls between two that have ended, both included. Calls are numbered as they start.
///
/// A server refuses at once and answers in a minute. Of the calls that have *ended* most may be refused although most of
/// those that have *started* will be answered; so what is known of a range counts only where most of it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    first: u32,
    last: u32,
}

impl Range {
    pub(super) const fn of(number: u32) -> Self {
        Self { first: number, last: number }
    }

    pub(super) fn begins_after(self, number: u32) -> bool {
        is_before(number, self.first)
    }

    pub(super) fn and(self, number: u32) -> Self {
        Self {
            first: if is_before(number, self.first) { number } else { self.first },
            last: if is_before(self.last, number) { number } else { self.last },
        }
    }

    /// Whether so many calls are four of five of the range at the least.
    pub(super) fn is_mostly(self, calls: u32) -> bool {
        let all = u64::from(self.last.wrapping_sub(self.first)) + 1;
        u64::from(calls) * 5 >= all * 4
    }
}

/// Numbers wrap: of two, the later one is less than half of all numbers ahead.
const fn is_before(a: u32, b: u32) -> bool {
    b.wrapping_sub(a).wrapping_sub(1) < u32::MAX / 2
}

#[derive(Clone, Debug)]
pub(super) struct Window {
    buckets: [Counts; BUCKETS],
    /// The number of a call that ended in each, where that is known.
    numbers: [Option<u32>; BUCKETS],
    /// Invariant: the sum of all buckets, as long as no bucket is saturated.
    sums: Counts,
    /// The number, since time 0, of the bucket that is filled now. Never decreases.
    current: u64,
    /// Nanoseconds per bucket.
    width: Nanos,
}

impl Window {
    pub(super) fn new(length: Nanos) -> Self {
        let width = (length / BUCKETS as u64).max(1);
        Self {
            buckets: [Counts::default(); BUCKETS],
            numbers: [None; BUCKETS],
            sums: Counts::default(),
            current: 0,
            width,
        }
    }

    /// The call that was recorded last has this number.
    pub(super) fn number(&mut self, number: u32) {
        self.numbers[slot(self.current)].get_or_insert(number);
    }

    /// From the first of the window to this one.
    pub(super) fn range(&self, number: u32) -> Range {
        self.numbers.iter().flatten().fold(Range::of(number), |range, number| range.and(*number))
    }

    pub(super) fn record(&mut self, now: Nanos, counts: Counts) {
        self.advance(now);
        self.buckets[slot(self.current)].add(counts);
        self.sums.add(counts);
    }

    pub(super) fn read(&mut self, now: Nanos) -> Counts {
        self.advance(now);
        self.sums
    }

    pub(super) fn clear(&mut self) {
        self.buckets = [Counts::default(); BUCKETS];
        self.numbers = [None; BUCKETS];
        self.sums = Counts::default();
    }

    /// Threads hand in their clock readings in any order: an earlier one counts into the current bucket.
    fn advance(&mut self, now: Nanos) {
        let bucket = now / self.width;
        if bucket.saturating_sub(self.current) >= BUCKETS as u64 {
            self.clear();
            self.current = bucket;
        }
        while self.current < bucket {
            self.current += 1;
            self.numbers[slot(self.current)] = None;
            let old = std::mem::take(&mut self.buckets[slot(self.current)]);
            self.sums.calls = self.sums.calls.saturating_sub(old.calls);
            self.sums.failures = self.sums.failures.saturating_sub(old.failures);
            self.sums.slow = self.sums.slow.saturating_sub(old.slow);
        }
    }
}

fn slot(bucket: u64) -> usize {
    (bucket % BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Counts = Counts { calls: 1, failures: 1, slow: 0 };
    const GOOD: Counts = Counts { calls: 1, failures: 0, slow: 0 };

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut window = Window::new(100);
        window.record(5, FAILED);
        window.record(95, GOOD);
        assert_eq!(window.read(99), Counts { calls: 2, failures: 1, slow: 0 });
        assert_eq!(window.read(100), GOOD, "its bucket is taken for a new time");
        assert_eq!(window.read(189), GOOD);
        assert_eq!(window.read(190), Counts::default());
        window.record(1_000_000, FAILED);
        assert_eq!(window.read(1_000_000), FAILED, "an idle gap empties it");
    }

    #[test]
    fn a_range_counts_where_four_of_five_of_it_have_ended() {
        let range = Range::of(7).and(3).and(12);
        assert!(range.begins_after(2) && !range.begins_after(3) && !range.begins_after(20));
        assert_eq!([7, 8, 10].map(|calls| range.is_mostly(calls)), [false, true, true]);
        // Also where the numbers wrap.
        let range = Range::of(u32::MAX - 1).and(2);
        assert!(range.begins_after(u32::MAX - 2) && !range.begins_after(0));
        assert_eq!([3, 4, 5].map(|calls| range.is_mostly(calls)), [false, true, true]);
    }

    #[test]
    fn the_range_of_a_window_begins_with_its_oldest_bucket() {
        let mut window = Window::new(100);
        for (now, number) in [(5, 1), (25, 10), (95, 50)] {
            window.record(now, GOOD);
            window.number(number);
        }
        assert_eq!(window.range(60), Range::of(1).and(60));
        window.record(101, GOOD);
        assert_eq!(window.range(60), Range::of(10).and(60));
    }

    #[test]
    fn an_earlier_reading_of_the_clock_counts_now() {
        let mut window = Window::new(100);
        window.record(500, GOOD);
        window.record(3, FAILED);
        assert_eq!(window.read(500), Counts { calls: 2, failures: 1, slow: 0 });
    }

    #[test]
    fn it_is_small_and_survives_the_end_of_time() {
        assert!(size_of::<Window>() <= 240, "{}", size_of::<Window>());
        let mut window = Window::new(u64::MAX);
        window.record(u64::MAX, FAILED);
        assert_eq!(window.read(u64::MAX), FAILED);
        let mut narrow = Window::new(0);
        narrow.record(u64::MAX, GOOD);
        assert_eq!(narrow.read(u64::MAX), GOOD);
    }
}
