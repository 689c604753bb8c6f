use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::error::Rejected;
use crate::request::TargetKey;
use crate::time::Until;
use crate::verdict::Kind;

/// A request that was not sent because its turn did not come, or cannot come, in time.
///
/// Its [`source`](Error::source) is a [`Rejected`]: outer layers know by it that nothing was sent.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimited {
    /// Shared with the limit: a refusal copies no names.
    key: Arc<TargetKey>,
    why: ConcurrencyReason,
    rejected: Rejected,
}

/// Why a request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConcurrencyReason {
    /// As many requests wait as may.
    QueueFull,
    /// The request's [`Deadline`](crate::Deadline) came first, or is certain to.
    Deadline,
    /// It carries no deadline, and [`max_wait`](super::AdaptiveConcurrencyBuilder::max_wait) is over, or is certain to
    /// be too short.
    MaxWait,
}

impl ConcurrencyReason {
    /// The reason as a phrase.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "too many requests wait for their turn",
            Self::Deadline => "no turn before the request's deadline",
            Self::MaxWait => "no turn within `max_wait`",
        }
    }
}

impl fmt::Display for ConcurrencyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl ConcurrencyLimited {
    pub(super) fn new(key: Arc<TargetKey>, why: ConcurrencyReason, until: Option<Instant>) -> Self {
        let rejected = Rejected::new(why.as_str()).with_kind(Kind::Overloaded);
        Self { key, why, rejected: until.into_iter().fold(rejected, Rejected::with_until) }
    }

    /// Whose limit it is.
    #[must_use]
    pub fn key(&self) -> &TargetKey {
        &self.key
    }

    /// Why the request was turned away.
    #[must_use]
    pub const fn why(&self) -> ConcurrencyReason {
        self.why
    }

    /// Before this instant no further call is admitted. `None` when that depends on when the calls in flight end.
    #[must_use]
    pub const fn until(&self) -> Option<Instant> {
        self.rejected.until()
    }
}

impl fmt::Display for ConcurrencyLimited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "concurrency limit of {}: {}", self.key, self.why)?;
        match self.until() {
            Some(until) => write!(f, "; {}", Until(until)),
            None => f.write_str("; until a call in flight ends"),
        }
    }
}

impl Error for ConcurrencyLimited {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.rejected)
    }
}
