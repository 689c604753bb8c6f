//! What a request went through, told on the side.

use std::time::Duration;

use http::Request;

use crate::context::Context;
use crate::event::GaveUp;
use crate::verdict::Kind;

/// Which attempt a request is, as the retry layer notes it in the context of each request that it sends again.
///
/// ```
/// use tower_gemini::retry::Attempt;
///
/// assert_eq!(Attempt::of(&http::Request::new(())), 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt(u32);

impl Attempt {
    /// The number of this attempt. The first is 1.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> u32 {
        Context::more(request).map_or(1, |more| more.attempt.max(1))
    }
}

/// What a request went through: an extension of the final response.
///
/// A response that came at once and needs no explanation carries none, so that it costs nothing;
/// [`Attempts::of`] knows. A request that ends in an error has no response to carry it: an
/// [`Observer`](crate::event::Observer) is told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attempts {
    pub(crate) made: u32,
    pub(crate) probes: u32,
    pub(crate) waits: Vec<Duration>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) gave_up: Option<GaveUp>,
}

impl Attempts {
    /// What this response went through.
    #[must_use]
    pub fn of<R: crate::AnyResponse>(response: &R) -> Self {
        response.extensions().get().cloned().unwrap_or(Self { made: 1, ..Self::default() })
    }

    /// Attempts that were made, the first included. Not counted are requests that were not sent, and
    /// [`probes`](Self::probes).
    #[must_use]
    pub const fn made(&self) -> u32 {
        self.made
    }

    /// Times that this request was sent as a circuit breaker's probe and failed, beside the attempts: the
    /// [`ProbeFailed`](crate::error::ProbeFailed) cost it nothing but a wait. A failed probe that was handed on is an
    /// attempt like any other, and not counted here.
    #[must_use]
    pub const fn probes(&self) -> u32 {
        self.probes
    }

    /// Each wait, in order, as decided.
    #[must_use]
    pub fn waits(&self) -> &[Duration] {
        &self.waits
    }

    /// The kind of each failure, in order, the final one included; not those of [`probes`](Self::probes).
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Failed attempts that were billed, or may have been: answers that were empty, malformed, broken off or blocked, and
    /// attempts that ended in a timeout or a cancellation. Not counted are connections that were lost, of which some never reached
    /// the server. The answer that was handed on in the end is not counted if it is good.
    #[must_use]
    pub fn billed(&self) -> u32 {
        let is_billed = |kind: &&Kind| {
            matches!(
                kind,
                Kind::EmptyResponse
                    | Kind::Truncated
                    | Kind::ContentBlocked
                    | Kind::DeadlineExceeded
                    | Kind::Cancelled
            )
        };
        u32::try_from(self.kinds.iter().filter(is_billed).count()).unwrap_or(u32::MAX)
    }

    /// Why the final failure was not retried; `None` for a success.
    #[must_use]
    pub const fn gave_up(&self) -> Option<GaveUp> {
        self.gave_up
    }
}
