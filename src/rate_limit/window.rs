//! The exact sliding window. Pure.
//!
//! A log of what was admitted, oldest first. At any moment the sums are those of the last `span` nanoseconds, so
//! that *no* position of the window holds more than the limit. A bucket of the same rate would let twice the limit
//! through in one window.
//!
//! Memory is bounded: what was admitted in the same instant is one entry, and above [`EXACT`] entries those of one
//! [`EXACT`]th of the window are. A joined entry leaves with its last member, which is never too early.

use std::collections::VecDeque;

/// Nanoseconds on the layer's own clock, which starts with the layer.
pub(super) type Nanos = u64;

/// Entries that are kept one by one. There are never more than twice as many and one, for which 128 KiB are enough.
const EXACT: usize = 4_000;

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// When the last of its members was admitted.
    at: Nanos,
    tokens: u32,
    requests: u32,
}

/// What was charged in the last `span` nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Window {
    span: Nanos,
    /// In the order of `at`.
    entries: VecDeque<Entry>,
    /// The number of the first entry. Numbers are never used again, so a receipt finds its entry or learns that it
    /// has left.
    first: u64,
    /// Sums over `entries`.
    requests: u64,
    tokens: u64,
}

/// The names under which an entry can be found again.
pub(super) type EntryId = u64;

impl Window {
    pub(super) const fn new(span: Nanos) -> Self {
        Self { span, entries: VecDeque::new(), first: 0, requests: 0, tokens: 0 }
    }

    /// Requests in the window, as of the last [`expire`](Self::expire).
    pub(super) const fn requests(&self) -> u64 {
        self.requests
    }

    /// Input tokens in the window, as of the last [`expire`](Self::expire).
    pub(super) const fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Lets go of what is older than the window.
    #[inline]
    pub(super) fn expire(&mut self, now: Nanos) {
        while let Some(entry) = self.entries.front().filter(|entry| entry.at.saturating_add(self.span) <= now)
        {
            self.requests -= u64::from(entry.requests);
            self.tokens -= u64::from(entry.tokens);
            self.entries.pop_front();
            self.first += 1;
        }
    }

    /// Charges one request. `now` is never before that of an earlier call.
    #[inline]
    pub(super) fn charge(&mut self, now: Nanos, tokens: u32) -> EntryId {
        self.requests += 1;
        self.tokens += u64::from(tokens);
        let crowded = self.entries.len() >= EXACT;
        let cell = self.span / EXACT as u64;
        if let Some(last) = self.entries.back_mut() {
            let joins = last.at == now || (crowded && last.at / cell.max(1) == now / cell.max(1));
            if let (true, Some(sum)) = (joins, last.tokens.checked_add(tokens)) {
                *last = Entry { at: now, tokens: sum, requests: last.requests + 1 };
                return self.first + self.entries.len() as u64 - 1;
            }
        }
        self.entries.push_back(Entry { at: now, tokens, requests: 1 });
        self.first + self.entries.len() as u64 - 1
    }

    /// Corrects what was charged: `charged` tokens become `tokens`, and the request is taken back or not. Nothing
    /// happens where the entry has left the window.
    #[inline]
    pub(super) fn correct(&mut self, id: EntryId, charged: u32, tokens: u32, keep_request: bool) {
        let Some(index) = id.checked_sub(self.first) else { return };
        let Some(entry) = usize::try_from(index).ok().and_then(|index| self.entries.get_mut(index)) else {
            return;
        };
        let back = u32::from(!keep_request);
        entry.requests -= back;
        self.requests -= u64::from(back);
        let corrected = (entry.tokens - charged).saturating_add(tokens);
        self.tokens = self.tokens - u64::from(entry.tokens) + u64::from(corrected);
        entry.tokens = corrected;
    }

    /// When at least so many requests and so many tokens will have left, and how many will have by then. `None`
    /// where the window holds less.
    ///
    /// Walks over what has to leave, which is bounded by the window's limits and not by who waits for it.
    pub(super) fn freed(&self, requests: u64, tokens: u64) -> Option<Freed> {
        let mut freed = Freed { at: 0, requests: 0, tokens: 0 };
        let mut entries = self.entries.iter();
        while freed.requests < requests || freed.tokens < tokens {
            let entry = entries.next()?;
            freed.at = entry.at.saturating_add(self.span);
            freed.requests += u64::from(entry.requests);
            freed.tokens += u64::from(entry.tokens);
        }
        Some(freed)
    }

    /// The number of the next entry.
    pub(super) fn next_id(&self) -> EntryId {
        self.first + self.entries.len() as u64
    }

    /// When the last one was charged that is still in the window; 0 where it is empty.
    pub(super) fn newest_at(&self) -> Nanos {
        self.entries.back().map_or(0, |entry| entry.at)
    }

    /// When the first one leaves that does so at `instant` or later.
    pub(super) fn freed_from(&self, instant: Nanos) -> Option<Nanos> {
        let leaves = |entry: &Entry| entry.at.saturating_add(self.span);
        let index = self.entries.partition_point(|entry| leaves(entry) < instant);
        self.entries.get(index).map(leaves)
    }

    /// When this one was charged, to within a joined entry's width; `None` where it has left the window.
    pub(super) fn charged_at(&self, id: EntryId) -> Option<Nanos> {
        let index = usize::try_from(id.checked_sub(self.first)?).ok()?;
        self.entries.get(index).map(|entry| entry.at)
    }

    /// When the window will be empty if nothing more is charged.
    pub(super) fn empty_at(&self) -> Nanos {
        self.entries.back().map_or(0, |entry| entry.at.saturating_add(self.span))
    }
}

/// What will have left the window at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Freed {
    pub(super) at: Nanos,
    pub(super) requests: u64,
    pub(super) tokens: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPAN: Nanos = 60_000;

    #[test]
    fn what_has_left_cannot_be_corrected() {
        let mut window = Window::new(SPAN);
        let id = window.charge(0, 100);
        window.charge(10, 50);
        window.expire(SPAN);
        assert_eq!((window.requests(), window.tokens()), (1, 50));
        window.correct(id, 100, 0, false);
        assert_eq!((window.requests(), window.tokens()), (1, 50));
    }

    #[test]
    fn a_joined_charge_is_corrected_in_the_entry_that_it_joined() {
        let mut window = Window::new(SPAN);
        window.charge(3, 7);
        let (first, joined) = (window.charge(5, 100), window.charge(5, 50));
        assert_eq!((joined, window.entries.len()), (first, 2));
        window.correct(joined, 50, 20, true);
        assert_eq!((window.requests(), window.tokens()), (3, 127));
        window.expire(SPAN + 3);
        assert_eq!((window.requests(), window.tokens()), (2, 120));
    }

    #[test]
    fn it_is_empty_when_the_last_has_left() {
        let mut window = Window::new(SPAN);
        assert_eq!(window.empty_at(), 0);
        window.charge(3, 7);
        window.charge(5, 7);
        assert_eq!(window.empty_at(), 5 + SPAN);
    }

    #[test]
    fn memory_is_bounded_whatever_the_rate() {
        let mut window = Window::new(60_000_000_000);
        for n in 0..3_000_000_u64 {
            let now = n * 50_000;
            window.expire(now);
            window.charge(now, 1);
        }
        assert!(window.entries.len() <= 2 * EXACT + 1, "{}", window.entries.len());
        assert!(window.entries.capacity() * size_of::<Entry>() <= 128 * 1024);
        // Sixty seconds hold 1,200,000 of them; joined entries keep theirs a little longer.
        assert!((1_200_000..1_201_000).contains(&window.requests()), "{}", window.requests());
    }

    #[test]
    fn tokens_beyond_an_entrys_room_open_another() {
        let mut window = Window::new(SPAN);
        window.charge(0, u32::MAX);
        let id = window.charge(0, u32::MAX);
        window.correct(id, u32::MAX, 1, true);
        assert_eq!(window.tokens(), u64::from(u32::MAX) + 1);
    }

    proptest! {
        /// Against a list of all charges that is summed up anew each time.
        #[test]
        fn sums_are_those_of_the_last_span(
            steps in proptest::collection::vec((0..20_000_u64, 0..1000_u32, 0..4_u8, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut window = Window::new(SPAN);
            let mut naive: Vec<(Nanos, u32, u32, EntryId)> = Vec::new();
            let mut now = 0;
            for (wait, tokens, what, which) in steps {
                now += wait / 4;
                window.expire(now);
                match what {
                    0 | 1 => {
                        let id = window.charge(now, tokens);
                        naive.push((now, 1, tokens, id));
                    }
                    2 if !naive.is_empty() => {
                        let one = which.index(naive.len());
                        let (_, requests, charged, id) = naive[one];
                        if requests == 1 {
                            window.correct(id, charged, 0, false);
                            naive[one] = (naive[one].0, 0, 0, id);
                        }
                    }
                    3 if !naive.is_empty() => {
                        let one = which.index(naive.len());
                        window.correct(naive[one].3, naive[one].2, tokens, true);
                        naive[one].2 = tokens;
                    }
                    _ => {}
                }
                let live = || naive.iter().filter(|c| c.0 + SPAN > now);
                prop_assert_eq!(window.requests(), live().map(|c| u64::from(c.1)).sum::<u64>());
                prop_assert_eq!(window.tokens(), live().map(|c| u64::from(c.2)).sum::<u64>());
                if let Some(freed) = window.freed(1, 0) {
                    let left = |t: Nanos| naive.iter().filter(move |c| c.0 + SPAN > t).map(|c| u64::from(c.1)).sum::<u64>();
                    prop_assert!(left(freed.at) < left(now) && left(freed.at - 1) == left(now));
                }
            }
        }
    }
}
