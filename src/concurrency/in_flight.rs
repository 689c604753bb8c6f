//! How many calls of one key are in flight, counted without a lock while there is nothing to watch.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ends::Start;
use crate::blame::Caller;
use crate::verdict::Signal;

/// In `started`: what happens now happens under the lock.
const WATCHED: u64 = 1 << 63;

/// One end in `ended`; its lower half counts the answers among them, and wraps into the upper one once in 2³² answers,
/// which makes one call too few for as long as nothing is watched.
const END: u64 = 1 << 32;

#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// Calls that were started, and whether there is something to watch. Calls in flight are those started less those
    /// ended, at any time.
    ///
    /// Orderings: a call that ends adds to `ended` and then reads `started`; whoever sets `WATCHED` does so and then
    /// reads `ended`. Both are `SeqCst`, so that one of the two sees the other, and no end is missed by the one who
    /// waits for it. All else is ordered by the lock, or is a count.
    started: AtomicU64,
    ended: AtomicU64,
    /// The highest number of a call that was answered. A lost update makes a timeout weigh more than it should, once.
    newest: AtomicU64,
}

impl InFlight {
    /// Counts a call that starts, unless there is something to watch. No lock, no clock.
    #[inline]
    pub(super) fn try_start(&self, caller: Caller) -> Option<Start> {
        let mut word = self.started.load(Ordering::Relaxed);
        while word & WATCHED == 0 {
            match self.started.compare_exchange_weak(word, word + 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return Some(Start { number: word + 1, answers: self.answers(), caller }),
                Err(changed) => word = changed,
            }
        }
        None
    }

    /// Counts a call that starts while something is watched.
    pub(super) fn start_watched(&self, caller: Caller) -> Start {
        let number = (self.started.fetch_add(1, Ordering::SeqCst) & !WATCHED) + 1;
        Start { number, answers: self.answers(), caller }
    }

    /// Counts a call that ends.
    #[inline]
    pub(super) fn end(&self, signal: Signal, start: Start) {
        let answered = signal == Signal::Success;
        self.ended.fetch_add(END + u64::from(answered), Ordering::SeqCst);
        if answered && self.newest.load(Ordering::Relaxed) < start.number {
            self.newest.store(start.number, Ordering::Relaxed);
        }
    }

    /// Whether something was watched a moment ago.
    #[inline]
    pub(super) fn looks_watched(&self) -> bool {
        self.started.load(Ordering::Relaxed) & WATCHED != 0
    }

    /// Whether something is watched, after [`end`](Self::end).
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.started.load(Ordering::SeqCst) & WATCHED != 0
    }

    /// From here on the lock is taken by all. How many calls were started before.
    pub(super) fn watch(&self) -> u64 {
        self.started.fetch_or(WATCHED, Ordering::SeqCst)
    }

    /// From here on the word is everybody's again.
    pub(super) fn unwatch(&self) {
        self.started.fetch_and(!WATCHED, Ordering::SeqCst);
    }

    /// Calls that were started.
    pub(super) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed) & !WATCHED
    }

    /// Answers that have come. Wraps.
    pub(super) fn answers(&self) -> u32 {
        self.ended.load(Ordering::Relaxed) as u32
    }

    /// Whether a call that started later was answered.
    pub(super) fn is_overtaken(&self, start: Start) -> bool {
        self.newest.load(Ordering::Relaxed) > start.number
    }

    /// Calls that were started and have not ended.
    pub(super) fn count(&self) -> u32 {
        let ended = self.ended.load(Ordering::SeqCst) >> 32;
        // 2³² calls in flight would need more memory than there is.
        (self.started.load(Ordering::SeqCst) as u32).wrapping_sub(ended as u32)
    }
}
