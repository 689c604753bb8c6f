//! What a scheduler looks like from outside.

#[cfg(feature = "fleet")]
use super::{BACKFILL, Cost};
use super::{NEVER, Nanos, Need, Scheduler};
#[cfg(feature = "fleet")]
use crate::call_options::RequestClass;

/// How long after a key's last request the limits that it was taught are worth more than another key's place.
const REMEMBERED: Nanos = 3600 * 1_000_000_000;

impl<W> Scheduler<W> {
    /// The first who wait and their tokens, and how many wait besides; and their class. Batch requests at the end of the queue are left
    /// out while others wait.
    #[cfg(feature = "fleet")]
    pub(in crate::rate_limit) fn wanted(&self) -> (Vec<(Cost, u64)>, u64, RequestClass) {
        let (wanted, class) = match self.queue.interactive() {
            0 if self.is_queued() => (self.queue.len(), RequestClass::Batch),
            wanted => (wanted, RequestClass::Interactive),
        };
        let cost = |place| self.queue.cost(place);
        let first = self.queue.iter().take(wanted.min(BACKFILL)).map(cost);
        let waiting: Vec<_> = first.map(|cost| (cost, self.ledger.tokens_of(cost))).collect();
        let more = (wanted - waiting.len()) as u64;
        (waiting, more, class)
    }

    /// Places in use: those who wait, those who were answered and have not looked yet, and those who are parked.
    #[cfg(test)]
    pub(in crate::rate_limit) const fn places(&self) -> usize {
        self.queue.used()
    }

    /// How much would be lost if this key were forgotten.
    pub(in crate::rate_limit) fn need(&self, now: Nanos) -> Need {
        let ledger = &self.ledger;
        let counts = ledger.counts();
        let open = counts.admitted - counts.settled - counts.not_sent - counts.too_many;
        let (today, limits) = (ledger.today().map_or(0, |today| today.1), ledger.limits());
        let day_is_spent = limits.rpd.is_some_and(|rpd| today >= rpd) && now < ledger.day_ends_at();
        let is_recent = now < self.asked_at.saturating_add(REMEMBERED);
        let binds = day_is_spent || ledger.closed(now).next().is_some();
        let has_learnt = ledger.has_learnt() || ledger.is_attentive();
        #[cfg(feature = "fleet")]
        let binds = binds || ledger.supplies_of().any(|supply| !supply.is_idle(now));
        if open > 0 || self.queue.used() > 0 || binds || (has_learnt && is_recent) {
            Need::All
        } else if self.taught && (is_recent || !ledger.is_idle(now)) {
            Need::Counts
        } else {
            Need::Nothing
        }
    }

    /// When the next one may be admitted; `None` where nobody waits.
    pub(in crate::rate_limit) fn next(&self) -> Option<Nanos> {
        Some(self.next).filter(|_| self.is_queued())
    }

    /// When somebody must act, if nothing happens before: the next admission, or the end of the time for a grant.
    pub(in crate::rate_limit) fn due(&self) -> Nanos {
        if self.is_queued() { self.next.min(self.queue.fetched_by()) } else { NEVER }
    }

    /// Whether somebody may be waiting for what has just changed.
    #[inline]
    pub(in crate::rate_limit) const fn is_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(in crate::rate_limit) const fn queued(&self) -> usize {
        self.queue.len()
    }
}
