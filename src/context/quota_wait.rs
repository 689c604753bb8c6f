//! What the rate limit and the retry layer above it tell each other about one request's waits for quota.

use std::time::Duration;

use http::Response;

/// An extension of a failed response, from the rate limit to the retry layer; the other way it goes in the context of the
/// request that is sent again. A request that does not fail has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QuotaWait {
    /// How long the request may still wait for quota; `None` where nothing bounds it.
    pub(crate) left: Option<Duration>,
    /// It was let through over a learnt limit to see whether that still holds, and goes before all who wait.
    pub(crate) first: bool,
}

impl QuotaWait {
    /// What a rate limit inside has said of this failure.
    pub(crate) fn said<B>(response: &Response<B>) -> Option<Self> {
        response.extensions().get().copied()
    }

    /// Of one request, after the attempts before and this one.
    pub(crate) fn and(self, said: Self) -> Self {
        let left = match (self.left, said.left) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self { left, first: said.first }
    }

    /// Whether a wait of this length is within the bound.
    pub(crate) fn allows(self, wait: Duration) -> bool {
        self.left.is_none_or(|left| wait <= left)
    }

    /// A wait begins.
    pub(crate) fn spend(&mut self, wait: Duration) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(wait);
        }
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}
