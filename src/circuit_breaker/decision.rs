//! The words of the circuit's decisions: what is let through, what is turned away, what a call ended with, and each change.

use super::Nanos;
use super::error::CircuitOpenReason;
use crate::event::circuit::{BreakerMode, CircuitState, TransitionCause};

/// What one call ended with, as the circuit sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Success,
    Failure,
    Neutral,
}

/// A call that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) generation: u32,
    /// Of a probe's lease; 0 for any other call.
    pub(super) ticket: u32,
    /// Of the call, in the order in which calls start. Wraps.
    pub(super) number: u32,
}

impl Pass {
    pub(super) const fn is_probe(self) -> bool {
        self.ticket != 0
    }
}

/// A call that was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    /// [`NEVER`] where nobody knows.
    pub(super) until: Nanos,
    pub(super) since: Nanos,
    pub(super) why: CircuitOpenReason,
}

/// `None` is let through without counting: it would have been turned away.
pub(super) type Admission = Result<Option<Pass>, Denial>;

pub(super) const NEVER: Nanos = Nanos::MAX;

/// A [`Transition`](super::Transition) on the circuit's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) generation: u32,
    pub(super) at: Nanos,
    pub(super) from: CircuitState,
    pub(super) to: CircuitState,
    pub(super) mode: BreakerMode,
    pub(super) cause: TransitionCause,
    pub(super) until: Option<Nanos>,
}
