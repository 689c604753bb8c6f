//! What a request went through, told on the side.

use std::fmt;
use std::sync::Arc;

use http::Response;

use crate::tier::ServiceTier;

/// Who answered, where it was not the model that was asked, or not in the tier that was asked for: an extension of the response, be it good or a failure.
///
/// A response of the model that was asked carries none, so that it costs nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnsweredBy {
    pub(crate) model: Option<Arc<str>>,
    pub(crate) tier: Option<ServiceTier>,
    pub(crate) position: usize,
}

impl AnsweredBy {
    /// Who answered this; `None` where it was the model that was asked.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Option<&Self> {
        response.extensions().get()
    }

    /// The model; `None` for the last resort, and in another [tier](Self::tier) of a model that the request does not name.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The service tier, where it is not the one that was asked for.
    #[must_use]
    pub const fn tier(&self) -> Option<ServiceTier> {
        self.tier
    }

    /// Its place among all that may stand in for what was asked, from 1: the tiers of the ladder, then the models of the
    /// chain. The last resort comes after all of them.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.position
    }
}

/// Why no other model was called although one would have helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FallbackRefusal {
    /// The deadline has passed.
    Deadline,
    /// The request's body is gone: it was streamed through and was too large to be kept.
    BodyLost,
    /// The request cannot be rewritten: its body names the model and is not at hand, or names another one than the
    /// request's [`ModelHint`](crate::request::ModelHint).
    NotRewritable,
    /// Circuits are open and quotas spent: every other model of the chain would be turned away.
    Unavailable,
}

impl FallbackRefusal {
    /// The reason as a phrase.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "the deadline has passed",
            Self::BodyLost => "the request's body is gone",
            Self::NotRewritable => "the request cannot be rewritten for another model",
            Self::Unavailable => "every other model is turned away at the moment",
        }
    }
}

impl fmt::Display for FallbackRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
