use std::error::Error;
use std::fmt;

/// Why a body can no longer be sent from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostReason {
    /// The body was larger than the limit, so what had been kept was freed.
    TooLarge,
    /// [`Replay::release`](super::Replay::release) was called, and sending went on after that.
    Released,
    /// The body itself failed; its error went to the copy that was being sent.
    BodyFailed,
    /// The body had a frame that is neither data nor trailers, which nobody can copy.
    UnknownFrame,
}

/// The error of a copy that would have to send bytes which nobody has any more.
///
/// It is delivered by the copy's first poll. The copy that is being sent at that time is not disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayLost {
    pub(super) reason: LostReason,
    pub(super) max_bytes: usize,
}

impl ReplayLost {
    /// What made it impossible.
    #[must_use]
    pub const fn reason(&self) -> LostReason {
        self.reason
    }

    /// How many bytes the body was allowed to keep.
    #[must_use]
    pub const fn max_bytes(&self) -> usize {
        self.max_bytes
    }
}

impl fmt::Display for ReplayLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("replay: the request body cannot be sent again: ")?;
        match self.reason {
            LostReason::TooLarge => write!(f, "it was larger than {} bytes", self.max_bytes),
            LostReason::Released => f.write_str("its copy was released"),
            LostReason::BodyFailed => f.write_str("it failed while it was first read"),
            LostReason::UnknownFrame => f.write_str("it had a frame of an unknown kind"),
        }
    }
}

impl Error for ReplayLost {}

/// The error of a copy that lost its turn: a newer copy of the same body began to be sent.
///
/// It ends the body of an abandoned attempt, so its only reader is the connection that still held it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superseded {
    pub(super) _private: (),
}

impl fmt::Display for Superseded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("replay: a newer copy of the request body took over")
    }
}

impl Error for Superseded {}
