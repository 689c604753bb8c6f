//! The dimensions that 429s have closed, each with its instant, and the probes that test whether one is still closed.

use super::{LimitKind, Nanos};

/// A dimension that a 429 closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) struct Closed {
    pub(in crate::rate_limit) until: Nanos,
    /// From here on one call may try.
    pub(in crate::rate_limit) probe_at: Nanos,
    /// Which call tried last, by its probe's number. It gives the turn back if it was not sent after all.
    pub(in crate::rate_limit) asked: u16,
    /// Nobody waits for it who has no deadline behind it: a spent day, a quota of zero.
    pub(in crate::rate_limit) spent: bool,
    /// Nobody knows when it ends.
    pub(in crate::rate_limit) zero: bool,
}

/// All of them. A request is turned away at the first that is closed, in this order.
pub(super) const DIMENSIONS: [LimitKind; LimitKind::COUNT] = [
    LimitKind::RequestsPerDay,
    LimitKind::Spend,
    LimitKind::Other,
    LimitKind::InputTokensPerMinute,
    LimitKind::RequestsPerMinute,
];

#[derive(Debug, Default)]
pub(super) struct Doors {
    closed: [Option<Closed>; LimitKind::COUNT],
    /// The latest `until` of them: nothing is closed from then on.
    pub(super) closed_until: Nanos,
    /// Probes that were let out.
    probes: u16,
}

impl Doors {
    /// The dimensions that are closed at this instant.
    pub(super) fn closed(&self, now: Nanos) -> impl Iterator<Item = (LimitKind, Closed)> {
        DIMENSIONS.into_iter().filter_map(move |dimension| {
            let closed = self.closed[dimension as usize]?;
            (now < closed.until).then_some((dimension, closed))
        })
    }

    /// Closes a dimension, for no less than it is closed already. One call may try in `every`, and at the end.
    pub(super) fn shut(
        &mut self,
        now: Nanos,
        every: Nanos,
        dimension: LimitKind,
        until: Nanos,
        (spent, zero): (bool, bool),
    ) {
        let slot = &mut self.closed[dimension as usize];
        let until = slot.map_or(until, |closed| closed.until.max(until));
        let probe_at = until.min(now.saturating_add(every));
        *slot = Some(Closed { until, probe_at, asked: 0, spent, zero });
        self.closed_until = self.closed_until.max(until);
    }

    /// The probe of a dimension that is closed may go at this instant.
    #[cfg(feature = "fleet")]
    pub(super) fn probe_at(&mut self, dimension: LimitKind, at: Nanos) {
        if let Some(closed) = &mut self.closed[dimension as usize] {
            closed.probe_at = closed.until.min(at);
        }
    }

    pub(super) fn open(&mut self) {
        self.closed = [None; LimitKind::COUNT];
        self.closed_until = 0;
    }

    /// The end of the day was predicted; here it is, also where the calendar has leapt.
    pub(super) fn open_day(&mut self) {
        let spent = &mut self.closed[LimitKind::RequestsPerDay as usize];
        *spent = spent.filter(|closed| closed.zero);
    }

    #[cold]
    pub(super) fn number_probe(&mut self, now: Nanos, every: Nanos) -> u16 {
        // Zero is no probe.
        self.probes = self.probes.checked_add(1).unwrap_or(1);
        for closed in self.closed.iter_mut().flatten() {
            closed.probe_at = closed.until.min(now.saturating_add(every));
            closed.asked = self.probes;
        }
        self.probes
    }

    /// A probe that was not sent gives its turn back, unless somebody else has had one, or the door was closed anew,
    /// since then.
    #[cold]
    pub(super) fn return_probe(&mut self, seen: Nanos, probe: u16) {
        for closed in self.closed.iter_mut().flatten().filter(|closed| closed.asked == probe) {
            closed.probe_at = closed.probe_at.min(seen);
        }
    }
}
