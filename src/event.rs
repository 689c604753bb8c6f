//! What the layers tell while they work.
//!
//! An [`Observer`] is called on the path of a failure only: a call that succeeds at once costs it nothing. It
//! runs inside the call, so it should be quick and must not panic; hand slow work to a channel.
//!
//! Events hold no request, no header and no body. What they show of an error message has keys and tokens
//! replaced.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::retry::GaveUp;
use crate::verdict::Verdict;

/// Something that happened to one request, which its number tells from others at work at the same time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An attempt failed.
    #[non_exhaustive]
    AttemptFailed {
        /// Which request: its number among those of this policy that had a failure, from 1.
        request: u64,
        /// Which one; the first is 1.
        attempt: u32,
        /// Why.
        verdict: &'a Verdict,
    },
    /// The next attempt waits.
    #[non_exhaustive]
    Waiting {
        /// Which request.
        request: u64,
        /// The attempt that will follow; the first is 1.
        attempt: u32,
        /// How long.
        wait: Duration,
        /// What the wait is for.
        verdict: &'a Verdict,
    },
    /// A request succeeded after at least one failure.
    #[non_exhaustive]
    Recovered {
        /// Which request.
        request: u64,
        /// Attempts made in all.
        attempts: u32,
    },
    /// A failure is handed to the caller although, or because, it cannot be retried.
    #[non_exhaustive]
    GaveUp {
        /// Which request.
        request: u64,
        /// Attempts made in all.
        attempts: u32,
        /// Why there is no further one. [`GaveUp::BodyTooLarge`] says that a replay was refused.
        why: GaveUp,
        /// The failure.
        verdict: &'a Verdict,
    },
}

/// Is told of events. Implement it for what you count or log.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use tower_gemini::event::{Event, Observer};
///
/// #[derive(Default)]
/// struct Retries(AtomicU32);
///
/// impl Observer for Retries {
///     fn on_event(&self, event: &Event<'_>) {
///         if let Event::Waiting { .. } = event {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
/// ```
pub trait Observer: Send + Sync {
    /// Called with each event, in the order of one request's.
    fn on_event(&self, event: &Event<'_>);
}

// The trait is used as an object.
const _: Option<&dyn Observer> = None;

/// An observer, or none.
#[derive(Clone, Default)]
pub(crate) struct Observed(Option<Arc<dyn Observer>>);

impl Observed {
    pub(crate) fn by(observer: Arc<dyn Observer>) -> Self {
        Self(Some(observer))
    }

    pub(crate) fn tell(&self, event: &Event<'_>) {
        if let Some(observer) = &self.0 {
            observer.on_event(event);
        }
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Some(_)" } else { "None" })
    }
}
