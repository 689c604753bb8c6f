//! What the timeout layers fail with. Here and not in their room, because the reading of errors knows them.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::{BoxError, Rejected};
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
    fault: Fault,
    rejected: Option<Rejected>,
    model: Option<Box<str>>,
}

/// Whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Server,
    /// The caller left the server too little time, or read the answer too slowly.
    Deadline,
    /// The caller did not send the whole of the request's body.
    Upload,
}

/// Which limit it was. Prints as the snake-case name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// No head of an answer within [`first_byte`](crate::timeout::TimeoutBuilder::first_byte).
    FirstByte,
    /// No head of an answer before the request's [`Deadline`](crate::Deadline).
    Deadline,
    /// No byte of the body for as long as [`idle`](crate::timeout::TimeoutBuilder::idle), although somebody waited for it.
    Idle,
    /// The answer was not over within [`total`](crate::timeout::TimeoutBuilder::total).
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
    pub(crate) const fn new(what: Phase, after: Duration, fault: Fault) -> Self {
        Self { what, after, fault, rejected: None, model: None }
    }

    /// A request's own deadline was over this long after its call, while it waited for a call that another request made.
    pub(crate) const fn waiting_for_another(after: Duration) -> Self {
        Self::new(Phase::Deadline, after, Fault::Deadline)
    }

    /// The deadline had passed when the request came.
    pub(crate) fn not_sent() -> Self {
        let rejected = Rejected::new("too late to be answered in time").with_kind(Kind::DeadlineExceeded);
        Self {
            what: Phase::Deadline,
            after: Duration::ZERO,
            fault: Fault::Deadline,
            rejected: Some(rejected),
            model: None,
        }
    }

    /// Names the model where this is the error, by a layer outside that knows whom it asked.
    pub(crate) fn name(error: &mut BoxError, model: Option<&str>) {
        if let (Some(late), Some(model)) = (error.downcast_mut::<Self>(), model) {
            late.model.get_or_insert_with(|| model.into());
        }
    }

    /// The model that was asked, where a layer outside has named it: the [circuit breaker](crate::circuit_breaker), the
    /// [concurrency limit](crate::concurrency) or the [rate limit](crate::rate_limit), whichever is next to the timeout. `None` where the timeout stands alone, where requests are keyed without a model, and for the error of a body.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Whether the caller brought it about, so that it says nothing of the server; the
    /// [module documentation](crate::timeout) has the rule.
    #[must_use]
    pub const fn is_by_caller(&self) -> bool {
        !matches!(self.fault, Fault::Server)
    }

    /// Whether the caller had not sent the whole of the request's body.
    pub(crate) const fn is_stalled_upload(&self) -> bool {
        matches!(self.fault, Fault::Upload)
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

/// ` of` a model, where it is known.
pub(crate) struct Of<'a>(pub(crate) Option<&'a str>);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |model| write!(f, " of {model}"))
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.after;
        let of = Of(self.model());
        match self.what {
            _ if self.is_stalled_upload() => {
                write!(
                    f,
                    "attempt timeout{of}: no answer within {after:?}, for the request's body has not come whole: send all of it"
                )
            }
            Phase::Deadline if self.rejected.is_some() => {
                write!(f, "not sent{of}: the request's deadline had passed: give it more time")
            }
            Phase::FirstByte => {
                write!(
                    f,
                    "attempt timeout{of} (first_byte): no answer within {after:?}: try again, shorten the input, or raise `first_byte`"
                )
            }
            Phase::Deadline => {
                write!(
                    f,
                    "attempt timeout{of}: no answer in the {after:?} until the request's deadline: give it more time"
                )
            }
            Phase::Idle => {
                write!(
                    f,
                    "attempt timeout{of} (idle): the answer paused for {after:?}: discard what came and ask again, or raise `idle`"
                )
            }
            Phase::Total => {
                write!(
                    f,
                    "attempt timeout{of} (total): the answer was not over after {after:?}: ask for a shorter one, or raise `total`"
                )
            }
        }
    }
}

impl Error for TimedOut {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.rejected.as_ref().map(|rejected| rejected as &(dyn Error + 'static))
    }
}

/// A call failed while the caller had not sent the whole of the request's body.
///
/// Behind it, as `source()`, is the inner service's error, which may not say so: a client of HTTP/2 tells of a reset
/// alone. Only known of bodies that go through a [`ReplayLayer`](crate::retry::ReplayLayer). The verdict is that of the
/// inner error, and [by the caller](crate::Verdict::is_by_caller); where the body itself has failed, the request cannot
/// be sent again.
#[derive(Debug)]
pub struct UploadIncomplete {
    source: BoxError,
    has_failed: bool,
}

impl UploadIncomplete {
    pub(crate) const fn new(source: BoxError, has_failed: bool) -> Self {
        Self { source, has_failed }
    }

    /// Whether the body failed; else the server, or the way to it, gave up while more of it was waited for.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        self.has_failed
    }
}

impl fmt::Display for UploadIncomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.has_failed {
            "attempt: the request's body failed while it was sent"
        } else {
            "attempt: the call broke off before the request's body had come whole"
        })
    }
}

impl Error for UploadIncomplete {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}
