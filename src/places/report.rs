//! What is told of places.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use http::Response;
use tokio::time::Instant;

use crate::error::Rejected;
use crate::error::timed_out::Of;
use crate::request::TargetKey;
use crate::verdict::Kind;

/// Which place answered: an extension of each response that has passed the layer, be it good or a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedAt {
    pub(super) place: Arc<str>,
    pub(super) position: usize,
    pub(super) moves: usize,
}

impl ServedAt {
    /// Which place answered this; `None` where no layer chose one.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Option<&Self> {
        response.extensions().get()
    }

    /// The place's name.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Its place in the layer's list, from 0.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.position
    }

    /// How many other places the request was sent to before.
    #[must_use]
    pub const fn moves(&self) -> usize {
        self.moves
    }
}

/// A request that was not sent because there is no place for it.
///
/// Its [`source`](Error::source) is a [`Rejected`]: outer layers know by it that nothing was sent, and do not wait.
#[derive(Clone, Debug)]
pub struct NoPlace {
    why: NoPlaceReason,
    model: Option<Box<str>>,
    rejected: Rejected,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoPlaceReason {
    /// The [`Residency`](super::Residency) permits none, or not the one that the request is bound to.
    Residency,
    /// The request is [bound](super::AtPlace) to a place that the layer does not have.
    Unknown,
    /// The request cannot be rewritten for any that is permitted: its path names no project or location.
    NotRewritable,
}

impl NoPlaceReason {
    /// The reason as a phrase.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Residency => "the residency permits no place for this request",
            Self::Unknown => "the place that the request is bound to is not known",
            Self::NotRewritable => {
                "the path names no project or location that a permitted place could replace"
            }
        }
    }
}

impl fmt::Display for NoPlaceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl NoPlace {
    pub(super) fn new(why: NoPlaceReason, model: Option<&str>) -> Self {
        Self {
            why,
            model: model.map(Into::into),
            rejected: Rejected::new(why.as_str()).with_kind(Kind::InvalidArgument),
        }
    }

    /// The model that was asked for, where the path or a hint named one.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Why there is none.
    #[must_use]
    pub const fn why(&self) -> NoPlaceReason {
        self.why
    }
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "places{}: not sent: {}", Of(self.model()), self.why)
    }
}

impl Error for NoPlace {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.rejected)
    }
}

/// One place for one key at one instant: what [`Places`](super::Places) shows. `Display` is one line for a person.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlaceStatus {
    /// What is asked for, as it was before it was rewritten for a place.
    pub key: TargetKey,
    /// The place's name.
    pub place: Arc<str>,
    /// Until when others are asked first; `None` where it is open.
    pub closed_until: Option<Instant>,
}

impl fmt::Display for PlaceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.closed_until.is_some() { "closed" } else { "open" };
        write!(f, "{} at {}: {state}", self.key, self.place)
    }
}
