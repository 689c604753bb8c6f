use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::plan::Cut;
use crate::error::Rejected;
use crate::verdict::Kind;

/// An attempt, or the answer to it, took too long.
///
/// [`Verdict::from_error`](crate::Verdict::from_error) takes it for `deadline_exceeded` and maybe sent. The one
/// exception is a request whose deadline had passed before it came: it was **not sent**, and behind the error, as
/// `source()`, is the [`Rejected`] that says so.
#[derive(Clone, Debug)]
pub struct TimedOut {
    what: Phase,
    after: Duration,
    rejected: Option<Rejected>,
}

/// Which limit it was. Prints as the snake-case name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// No head of an answer within [`first_byte`](super::TimeoutBuilder::first_byte).
    FirstByte,
    /// No head of an answer before the request's [`Deadline`](crate::Deadline).
    Deadline,
    /// No byte of the body for as long as [`idle`](super::TimeoutBuilder::idle), although somebody waited for it.
    Idle,
    /// The answer was not over within [`total`](super::TimeoutBuilder::total).
    Total,
}

impl Phase {
    /// The snake-case name, as printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstByte => "first_byte",
            Self::Deadline => "deadline",
            Self::Idle => "idle",
            Self::Total => "total",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl TimedOut {
    pub(super) const fn new(cut: Cut) -> Self {
        Self { what: cut.what, after: cut.after, rejected: None }
    }

    /// The deadline had passed when the request came.
    pub(super) fn not_sent() -> Self {
        let rejected = Rejected::new("too late to be answered in time").with_kind(Kind::DeadlineExceeded);
        Self { what: Phase::Deadline, after: Duration::ZERO, rejected: Some(rejected) }
    }

    /// Which limit it was.
    #[must_use]
    pub const fn what(&self) -> Phase {
        self.what
    }

    /// The limit: of [`Idle`](Phase::Idle) how long the silence lasted, of the others how long after the call it cut.
    #[must_use]
    pub const fn after(&self) -> Duration {
        self.after
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.after;
        match self.what {
            Phase::Deadline if self.rejected.is_some() => {
                f.write_str("the request's deadline had passed: give it more time")
            }
            Phase::FirstByte => {
                write!(f, "no answer within {after:?}: try again, shorten the input, or raise `first_byte`")
            }
            Phase::Deadline => {
                write!(f, "no answer in the {after:?} until the request's deadline: give it more time")
            }
            Phase::Idle => {
                write!(f, "the answer paused for {after:?}: discard what came and ask again, or raise `idle`")
            }
            Phase::Total => {
                write!(f, "the answer was not over after {after:?}: ask for a shorter one, or raise `total`")
            }
        }
    }
}

impl Error for TimedOut {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.rejected.as_ref().map(|rejected| rejected as &(dyn Error + 'static))
    }
}
