//! The open log entry of a call under way.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::simulator::Shared;
use super::{Call, TransportFault};

/// Keeps the log entry of a call; dropped before [`finish`](Self::finish), it notes that the client let go.
pub(super) struct Guard {
    shared: Arc<Shared>,
    number: u64,
    at: Duration,
    /// Whether the end has still to be noted.
    open: bool,
}

impl Guard {
    pub(super) fn new(shared: Arc<Shared>, number: u64, at: Duration) -> Self {
        Self { shared, number, at, open: true }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// When the call came.
    pub(super) fn at(&self) -> Duration {
        self.at
    }

    /// Changes the entry, if the log still has it.
    pub(super) fn note(&self, change: impl FnOnce(&mut Call)) {
        self.shared.note(self.number, |call, _| change(call));
    }

    pub(super) fn answered(&self, status: StatusCode) {
        self.note(|call| call.status = Some(status));
    }

    /// The call has ended as it should. What follows is not noted.
    pub(super) fn finish(&mut self) {
        self.end(|_| {});
    }

    /// The call has ended without an end.
    pub(super) fn fail(&mut self, fault: TransportFault) {
        self.end(|call| call.transport = Some(fault));
    }

    fn end(&mut self, change: impl FnOnce(&mut Call)) {
        if !std::mem::replace(&mut self.open, false) {
            return;
        }
        self.shared.note(self.number, |call, now| {
            call.ended_at = Some(now);
            change(call);
        });
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end(|call| call.dropped = true);
    }
}
