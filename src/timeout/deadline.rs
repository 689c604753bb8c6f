use std::cell::Cell;
use std::time::Duration;

use http::Request;
use tokio::time::Instant;

use crate::tier::ServiceTier;

/// The instant by which a request must be answered, all attempts and waits together.
///
/// A request extension that the caller puts in, or what a [`DeadlineLayer`](super::DeadlineLayer) carries beside the
/// request; every layer reads it, and none starts a wait that would end after it. A call that is under way is cut by a
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

    /// The deadline of this request: the one in its extensions, else that of the [`DeadlineLayer`](super::DeadlineLayer)
    /// inside of whose call this is asked.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        request.extensions().get().copied().or_else(Self::carried)
    }

    /// What a [`DeadlineLayer`](super::DeadlineLayer) around the work under way carries.
    pub(super) fn carried() -> Option<Self> {
        CARRIED.get().deadline
    }

    /// When the call under way was made, where a [`DeadlineLayer`](super::DeadlineLayer) around it has just read the
    /// clock: the layers below need not read it again.
    #[inline]
    pub(super) fn called_at() -> Option<Instant> {
        CARRIED.get().called.map(|called| called.at)
    }

    /// The deadline for a request of this tier, where it differs from the one that is carried: in the course of a
    /// [`DeadlineLayer`](super::DeadlineLayer)'s `call`, and where that has given the request its deadline.
    pub(crate) fn carried_for(tier: ServiceTier) -> Option<Self> {
        let called = CARRIED.get().called.filter(|_| tier == ServiceTier::Flex)?;
        let flex = crate::time::saturating_add(called.at, Duration::from_millis(called.flex_millis.into()));
        Some(Self(called.given.map_or(flex, |given| given.0.min(flex))))
    }

    /// Carries this deadline until the guard is dropped.
    #[inline]
    pub(super) fn carry(self, called: Option<Called>) -> Carrying {
        Carrying(CARRIED.replace(Carried { deadline: Some(self), called }))
    }
}

#[derive(Clone, Copy)]
struct Carried {
    deadline: Option<Deadline>,
    /// In `call` alone: a poll may be long after it.
    called: Option<Called>,
}

/// What a [`DeadlineLayer`](super::DeadlineLayer) knows of the call that it has just begun.
#[derive(Clone, Copy)]
pub(super) struct Called {
    pub(super) at: Instant,
    /// After it, the deadline of a request that turns out to be of the flex tier; the caller's own counts if that is earlier.
    pub(super) flex_millis: u32,
    pub(super) given: Option<Deadline>,
}

thread_local! {
    /// The deadline of the call that this thread is at work on. Set while a [`DeadlineLayer`](super::DeadlineLayer)
    /// calls or polls what is inside of it, and at no other time.
    ///
    /// Not in the request's extensions, because the first entry there costs three allocations, and each copy of the
    /// request as many again.
    static CARRIED: Cell<Carried> = const { Cell::new(Carried { deadline: None, called: None }) };
}

/// While it lives, its deadline is carried. It goes back to what was carried before, also when what is inside panics.
pub(super) struct Carrying(Carried);

impl Drop for Carrying {
    #[inline]
    fn drop(&mut self) {
        CARRIED.set(self.0);
    }
}
