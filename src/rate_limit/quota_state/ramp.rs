//! How many calls may go at once after a 429 that was not expected.

use super::{EntryId, Nanos};

/// After a 429 that our own count does not explain: how many may go at once. Somebody else uses the same quota, or its
/// limit is not known, and what waited for the reopening must not be sent in one burst.
///
/// Calls go in batches, each twice as large as the one before, up to a twelfth of the limit where one is known: so many can
/// be refused at once, and so many go in each [`DECIDED_AFTER`] without a ramp. A batch is over when the last of it would have been
/// refused by now: a quota decides when a call arrives, and what an answer takes after that says nothing of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ramp {
    /// The size of the batch.
    pub(super) most: u64,
    /// The most that it grows to.
    pub(super) largest: u64,
    /// How many of it have gone and are undecided.
    pub(super) sent: u64,
    /// When the last of them went.
    pub(super) sent_at: Nanos,
    /// How long after it went a call would have been refused.
    pub(super) decided_after: Nanos,
    /// The first entry of the window that its calls can have.
    pub(super) first: EntryId,
    pub(super) over_at: Nanos,
}

impl Ramp {
    /// Until when the next call waits; `None` where it may go.
    pub(super) fn holds_until(&self, now: Nanos) -> Option<Nanos> {
        let decided_at = self.sent_at.saturating_add(self.decided_after);
        (self.sent >= self.most && now < decided_at).then(|| decided_at.min(self.over_at))
    }

    /// A call goes.
    pub(super) fn send(&mut self, now: Nanos) {
        if self.sent >= self.most {
            (self.most, self.sent) = (self.most.saturating_mul(2).min(self.largest), 0);
        }
        self.sent += 1;
        self.sent_at = now;
    }
}
