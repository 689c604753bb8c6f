//! Why a rate limit does not admit a request.

use std::fmt;

/// Why a request was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RateLimitReason {
    /// It would have to wait, and the layer is set to [reject](crate::rate_limit::AdmissionMode::Reject).
    Full,
    /// It cannot be admitted before its deadline.
    Deadline,
    /// It cannot be admitted within [`max_wait`](crate::rate_limit::RateLimitBuilder::max_wait), which is over before its deadline.
    MaxWait,
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

impl RateLimitReason {
    /// The reason as a phrase.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "the limit is reached",
            Self::Deadline => "it cannot be admitted before its deadline",
            Self::MaxWait => "it cannot be admitted within `max_wait`",
            Self::Queue => "too many requests wait already",
            Self::TooLarge => "it is larger than the limit itself",
            Self::Spent => "the quota is spent",
            Self::Zero => "there is no quota for this model",
            Self::Store => "the store of the fleet's quota does not answer",
        }
    }
}

impl fmt::Display for RateLimitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
