//! What a request went through, told on the side.

use std::fmt;
use std::time::Duration;

use http::{Request, Response};

use crate::verdict::Kind;

/// Which attempt a request is: an extension of every request that the retry layer sends again.
///
/// ```
/// use tower_gemini::retry::Attempt;
///
/// assert_eq!(Attempt::of(&http::Request::new(())), 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt(pub(super) u32);

impl Attempt {
    /// The number of this attempt. The first is 1 and carries no extension, so that it costs nothing.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> u32 {
        request.extensions().get::<Self>().map_or(1, |attempt| attempt.0)
    }
}

/// Why a failure was handed on and not retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GaveUp {
    /// Another attempt would fail the same way.
    NotRetryable,
    /// All attempts of the policy, or of this kind's schedule, are used up.
    Attempts,
    /// The server asks for a longer wait than the policy allows.
    ServerDelay,
    /// The next wait would end after the deadline.
    Deadline,
    /// The retry budget is empty.
    Budget,
    /// The request may have been processed, and the policy repeats such requests no more often.
    MaybeProcessed,
    /// Part of the answer had already been delivered.
    AfterOutput,
    /// The request's body is larger than the policy keeps for another attempt.
    BodyTooLarge,
    /// A layer of this process turned the request away and does not know until when.
    Rejected,
}

impl GaveUp {
    /// The reason as a phrase.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRetryable => "another attempt would fail the same way",
            Self::Attempts => "all attempts are used up",
            Self::ServerDelay => "the server asks for a longer wait than allowed",
            Self::Deadline => "the next wait would end after the deadline",
            Self::Budget => "the retry budget is empty",
            Self::MaybeProcessed => "the request may have been processed",
            Self::AfterOutput => "part of the answer had been delivered",
            Self::BodyTooLarge => "the request body is too large to be kept",
            Self::Rejected => "turned away with no known end",
        }
    }
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a request went through: an extension of the final response.
///
/// A response that came at once and needs no explanation carries none, so that it costs nothing;
/// [`Attempts::of`] knows. A request that ends in an error has no response to carry it: an
/// [`Observer`](crate::event::Observer) is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attempts {
    pub(super) made: u32,
    pub(super) waits: Vec<Duration>,
    pub(super) kinds: Vec<Kind>,
    pub(super) gave_up: Option<GaveUp>,
}

impl Attempts {
    /// What this response went through.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Self {
        response.extensions().get().cloned().unwrap_or(Self { made: 1, ..Self::default() })
    }

    /// Attempts that were made, the first included. Requests that were not sent are not counted.
    #[must_use]
    pub const fn made(&self) -> u32 {
        self.made
    }

    /// Each wait, in order, as decided.
    #[must_use]
    pub fn waits(&self) -> &[Duration] {
        &self.waits
    }

    /// The kind of each failure, in order, the final one included.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Why the final failure was not retried; `None` for a success.
    #[must_use]
    pub const fn gave_up(&self) -> Option<GaveUp> {
        self.gave_up
    }
}
