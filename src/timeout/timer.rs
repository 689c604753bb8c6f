//! The one timer of an attempt.
//!
//! Made at the first `Pending` of the call, armed for the shorter of what limits the head and a pause, and handed on to the
//! body. Arming a timer for later is a store, and for earlier, or making one, a lock and a place in the runtime's wheel: so
//! it may fire early, and is set anew then. An attempt that waits longer than its body may pause is polled once more for it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

pin_project! {
    pub(super) struct Timer {
        // Set for what it is to be waited for, or for something earlier.
        #[pin]
        sleep: Sleep,
        pub(super) pause: Pause,
    }
}

/// How the body's reader has waited, since its last frame.
#[derive(Default)]
pub(super) struct Pause {
    /// When the pause is over that the body makes now; `None` while nobody waits for it.
    pub(super) until: Option<Instant>,
    /// Somebody has asked for a frame that has not come.
    pub(super) is_asked: bool,
    /// This pause was begun anew for a reader who had been away. Once, so that one who looks in now and then
    /// meets the end of it, too.
    pub(super) is_spared: bool,
}

impl Timer {
    /// # Panics
    ///
    /// Without a tokio runtime with time enabled.
    pub(super) fn new(at: Instant) -> Pin<Box<Self>> {
        Box::pin(Self { sleep: tokio::time::sleep_until(at), pause: Pause::default() })
    }

    /// What is known of the body's pause.
    pub(super) fn pause(self: Pin<&mut Self>) -> &mut Pause {
        self.project().pause
    }

    /// Ready at this instant.
    pub(super) fn poll_until(self: Pin<&mut Self>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleep = self.project().sleep;
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}
