//! One key at one moment.

use tokio::time::Instant;

/// One key at one moment. See [`ConcurrencyHandle`](super::ConcurrencyHandle).
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConcurrencyState {
    pub(super) limit: Option<f64>,
    pub(super) in_flight: u32,
    pub(super) queued: usize,
    pub(super) cuts: u64,
    pub(super) held: u64,
    pub(super) last_cut: Option<Instant>,
}

impl ConcurrencyState {
    /// How many calls may be in flight; below 1, one at a time and a pace. `None` is without a limit.
    #[must_use]
    pub const fn limit(&self) -> Option<f64> {
        self.limit
    }

    /// Calls that wait for the head of their answer, and those that have their turn and are about to start. Calls that
    /// have neither ended nor been dropped for three times as long as calls wait before they time out are not counted
    /// while a timeout is remembered.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Requests that wait for their turn.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.queued
    }

    /// How often a timeout has cut the limit, the first limit included.
    #[must_use]
    pub const fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Calls that were let through although the limit would have held them, of a layer that [only
    /// observes](super::AdaptiveConcurrencyBuilder::observe_only).
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// When that was last, on tokio's clock.
    #[must_use]
    pub const fn last_cut(&self) -> Option<Instant> {
        self.last_cut
    }
}
