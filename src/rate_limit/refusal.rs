//! The named error of a request that was not admitted.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::Dimension;
use super::window::Nanos;
use crate::error::Rejected;
use crate::quota_wait::QuotaWait;
use crate::verdict::Kind;

/// Why a request was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// It would have to wait, and the layer is set to [reject](super::Mode::Reject).
    Full,
    /// It cannot be admitted before its deadline.
    Deadline,
    /// So many wait already that the queue takes no more.
    Queue,
    /// It needs more input tokens, texts or images than a whole limit: it can never be admitted. Make it smaller, or ask
    /// for a higher limit.
    TooLarge,
    /// The quota of the day, or another long one, is spent.
    Spent,
    /// The project has no quota at all for this model.
    Zero,
    /// The store that a fleet shares does not answer, and no permit came before the deadline.
    Store,
}

impl Why {
    /// The reason as a phrase.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "the limit is reached",
            Self::Deadline => "it cannot be admitted before its deadline",
            Self::Queue => "too many requests wait already",
            Self::TooLarge => "it is larger than the limit itself",
            Self::Spent => "the quota is spent",
            Self::Zero => "there is no quota for this model",
            Self::Store => "the store of the fleet's quota does not answer",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A request was not admitted, and **not sent**: the error of [`RateLimit`](super::RateLimit).
///
/// Its `source()` is a [`Rejected`], so a retry layer outside waits for [`until`](Self::until) without spending an
/// attempt, if its deadline permits. Where that is later than [`max_wait`](super::RateLimitBuilder::max_wait) allows, or an
/// answer would come after the deadline, the `Rejected` has no end, and the retry layer hands this on at once.
///
/// ```
/// use tower_gemini::error::{BoxError, find};
/// use tower_gemini::rate_limit::RateLimited;
///
/// fn report(error: &BoxError) {
///     if let Some(limited) = find::<RateLimited>(error.as_ref()) {
///         println!("{limited}: {:?}", limited.until());
///     }
/// }
/// # report(&"another error".into());
/// ```
#[derive(Clone, Debug)]
pub struct RateLimited {
    why: Why,
    dimension: Dimension,
    until: Option<Instant>,
    rejected: Rejected,
}

impl RateLimited {
    pub(super) fn new(why: Why, dimension: Dimension, until: Option<Instant>) -> Self {
        let kind = match why {
            Why::Spent | Why::Zero => Kind::QuotaExhausted,
            _ => Kind::RateLimited,
        };
        let rejected = Rejected::new(why.as_str()).with_kind(kind);
        let rejected = match until {
            Some(until) => rejected.with_until(until),
            None => rejected,
        };
        Self { why, dimension, until, rejected }
    }

    /// Of a request whose waits for quota are bounded.
    pub(super) fn with_quota(mut self, left: Duration) -> Self {
        self.rejected = self.rejected.with_quota(QuotaWait { left: Some(left), first: false });
        self
    }

    /// A retry layer outside need not come back.
    pub(super) fn for_good(mut self) -> Self {
        self.rejected = self.rejected.for_good();
        self
    }

    /// Why.
    #[must_use]
    pub const fn why(&self) -> Why {
        self.why
    }

    /// Which limit stood in the way.
    #[must_use]
    pub const fn dimension(&self) -> Dimension {
        self.dimension
    }

    /// When the request could be admitted, on tokio's clock, as far as window and queue can tell now: exact where
    /// nobody waits, and behind others the turn it would have after all of them. `None` where it never can be, or
    /// nobody knows.
    #[must_use]
    pub const fn until(&self) -> Option<Instant> {
        self.until
    }
}

impl fmt::Display for RateLimited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dimension {
            // "Too many wait already" and the like say it all.
            Dimension::Other => write!(f, "rate limited: {}", self.why),
            dimension => write!(f, "rate limited by {dimension}: {}", self.why),
        }
    }
}

impl Error for RateLimited {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.rejected)
    }
}

/// The same before it has met the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) why: Why,
    pub(super) dimension: Dimension,
    pub(super) until: Option<Nanos>,
    /// Coming back is of no use, whatever `until` says.
    pub(super) is_final: bool,
}
