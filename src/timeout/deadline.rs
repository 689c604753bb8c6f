use std::time::Duration;

use http::Request;
use tokio::time::Instant;

/// The instant by which a request must be answered, all attempts and waits together.
///
/// A request extension: the caller puts it in, or a [`DeadlineLayer`](super::DeadlineLayer) does; every layer reads it,
/// and none starts a wait that would end after it. A call that is under way is cut by a
/// [`TimeoutLayer`](super::TimeoutLayer), and by it only. An absolute instant, so that layers and attempts cannot add
/// up to more than was meant.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::Deadline;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut request = http::Request::new(());
/// request.extensions_mut().insert(Deadline::within(Duration::from_secs(20)));
/// assert!(Deadline::of(&request).is_some());
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// At this instant, on tokio's clock.
    #[must_use]
    pub const fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// This long from now, on tokio's clock.
    #[must_use]
    pub fn within(duration: Duration) -> Self {
        Self(crate::time::saturating_add(crate::time::now(), duration))
    }

    /// The instant.
    #[must_use]
    pub const fn instant(self) -> Instant {
        self.0
    }

    /// The deadline that this request carries.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        request.extensions().get().copied()
    }
}
