//! The error behind a response that was made of one.

use std::sync::Arc;

use http::Response;

use crate::error::BoxError;

/// The error behind a response: an extension of each that [`Respond`](crate::respond::Respond) made of one. For a log, not for the caller:
/// its text may name addresses of the inner network.
///
/// ```
/// use tower_gemini::circuit_breaker::CircuitOpen;
/// use tower_gemini::error::find;
/// use tower_gemini::respond::Cause;
///
/// fn was_turned_away<B>(response: &http::Response<B>) -> bool {
///     Cause::of(response).is_some_and(|cause| find::<CircuitOpen>(cause.error()).is_some())
/// }
/// # assert!(!was_turned_away(&http::Response::new(())));
/// ```
#[derive(Clone, Debug)]
pub struct Cause(Arc<dyn std::error::Error + Send + Sync>);

impl Cause {
    pub(crate) fn new(error: BoxError) -> Self {
        Self(Arc::from(error))
    }

    /// The cause of this response; `None` where it is no error's.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Option<&Self> {
        response.extensions().get()
    }

    /// The error, as the inner service gave it.
    #[must_use]
    pub fn error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}
