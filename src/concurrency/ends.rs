//! What a call carries from its start to its end, and what its end says.

use crate::blame::Caller;

/// What a call carries from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) number: u64,
    /// Answers in time, before it.
    pub(super) answers: u32,
    pub(super) caller: Caller,
}

/// What an end says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Answered,
    TimedOut {
        /// A call that started later has been answered.
        overtaken: bool,
    },
    Nothing,
}
