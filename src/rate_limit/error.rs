//! The named error of a request that was not admitted.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::window::Nanos;
use crate::context::quota_wait::QuotaWait;
use crate::error::Rejected;
use crate::event::RateLimitReason;
use crate::request::limits::LimitKind;
use crate::request::quota_key::QuotaKey;
use crate::time::Until;
use crate::verdict::Kind;

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
    /// Shared with the quota: a refusal copies no names.
    key: Arc<QuotaKey>,
    why: RateLimitReason,
    dimension: LimitKind,
    until: Option<Instant>,
    rejected: Rejected,
}

impl RateLimited {
    pub(super) fn new(
        key: Arc<QuotaKey>,
        why: RateLimitReason,
        dimension: LimitKind,
        until: Option<Instant>,
    ) -> Self {
        let kind = match why {
            RateLimitReason::Spent | RateLimitReason::Zero => Kind::QuotaExhausted,
            _ => Kind::RateLimited,
        };
        let rejected = Rejected::new(why.as_str()).with_kind(kind);
        let rejected = match until {
            Some(until) => rejected.with_until(until),
            None => rejected,
        };
        Self { key, why, dimension, until, rejected }
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

    /// Whose quota it is.
    #[must_use]
    pub fn key(&self) -> &QuotaKey {
        &self.key
    }

    /// Why.
    #[must_use]
    pub const fn why(&self) -> RateLimitReason {
        self.why
    }

    /// Which limit stood in the way.
    #[must_use]
    pub const fn dimension(&self) -> LimitKind {
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
            LimitKind::Other => write!(f, "rate limit of {}: {}", self.key, self.why)?,
            dimension => write!(f, "rate limit of {} ({dimension}): {}", self.key, self.why)?,
        }
        match self.until {
            Some(until) => write!(f, "; {}", Until(until)),
            None => Ok(()),
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
    pub(super) why: RateLimitReason,
    pub(super) dimension: LimitKind,
    pub(super) until: Option<Nanos>,
    /// Coming back is of no use, whatever `until` says.
    pub(super) is_final: bool,
}
