//! The delay that a server names.

use std::time::Duration;

/// Where a server's delay was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DelaySource {
    /// `google.rpc.RetryInfo.retryDelay` in the error's details.
    RetryInfo,
    /// The error message ("Please retry in 31.5s").
    Message,
    /// `quotaResetDelay` in the metadata of `google.rpc.ErrorInfo`, or a relay's own member for it, such as
    /// `reset_seconds` or `retryAfterMs`.
    Metadata,
    /// A `Retry-After` or `retry-after-ms` header.
    Header,
}

/// A delay that the server named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerDelay {
    delay: Duration,
    source: DelaySource,
}

impl ServerDelay {
    pub(crate) const fn new(delay: Duration, source: DelaySource) -> Self {
        Self { delay, source }
    }

    /// The delay as declared: the largest of all that the answer contains.
    #[must_use]
    pub const fn declared(&self) -> Duration {
        self.delay
    }

    /// Where it was found.
    #[must_use]
    pub const fn source(&self) -> DelaySource {
        self.source
    }

    /// The least wait that is not too early.
    ///
    /// Google cuts the fraction off when it writes `RetryInfo` (`"58s"` beside "58.93s" in the message,
    /// googleapis/python-genai#2114, read 2026-11), so one second is added to a delay of whole seconds.
    #[must_use]
    pub const fn at_least(&self) -> Duration {
        if self.delay.subsec_nanos() == 0 {
            self.delay.saturating_add(Duration::from_secs(1))
        } else {
            self.delay
        }
    }
}
