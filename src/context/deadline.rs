use std::cell::Cell;
use std::time::Duration;

use http::Request;
use tokio::time::Instant;

use crate::context::View;

/// The instant by which a request must be answered, all attempts and waits together.
///
/// A request extension that the caller puts in, or what a [`DeadlineLayer`](crate::timeout::DeadlineLayer) writes into the
/// request's context; every layer reads it, and none starts a wait that would end after it. A call that is under way is cut by a
/// [`TimeoutLayer`](crate::timeout::TimeoutLayer), and by it only. An absolute instant, so that layers and attempts cannot add
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

    /// The deadline of this request: the one in its extensions, else what a [`DeadlineLayer`](crate::timeout::DeadlineLayer) gave it,
    /// wherever the request has gone since; of another request, that of the `DeadlineLayer` inside of whose call this is
    /// asked.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        View::of(request).deadline()
    }

    /// What a [`DeadlineLayer`](crate::timeout::DeadlineLayer) around the work under way carries.
    #[inline]
    pub(crate) fn carried() -> Option<Self> {
        CARRIED.get().deadline
    }

    /// When the call under way was made, where a [`DeadlineLayer`](crate::timeout::DeadlineLayer) around it has just read the
    /// clock: the layers below need not read it again.
    #[inline]
    pub(crate) fn called_at() -> Option<Instant> {
        CARRIED.get().called_at
    }

    /// Carries this deadline until the guard is dropped.
    #[inline]
    pub(crate) fn carry(self, called_at: Option<Instant>) -> Carrying {
        Carrying(CARRIED.replace(Carried { deadline: Some(self), called_at }))
    }
}

#[derive(Clone, Copy)]
struct Carried {
    deadline: Option<Deadline>,
    /// In `call` alone: a poll may be long after it.
    called_at: Option<Instant>,
}

thread_local! {
    /// The deadline of the call that this thread is at work on. Set while a [`DeadlineLayer`](crate::timeout::DeadlineLayer)
    /// calls or polls what is inside of it, and at no other time.
    ///
    /// Beside the request's context, for the calls that are made in the course of this one with requests of their own.
    static CARRIED: Cell<Carried> = const { Cell::new(Carried { deadline: None, called_at: None }) };
}

/// While it lives, its deadline is carried. It goes back to what was carried before, also when what is inside panics.
pub(crate) struct Carrying(Carried);

impl Drop for Carrying {
    #[inline]
    fn drop(&mut self) {
        CARRIED.set(self.0);
    }
}
