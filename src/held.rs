//! How a layer inside tells one outside that a call waits here and was not sent.
//!
//! The rate limit charges a call when it admits it, and what is dropped after that may have reached the server. But
//! layers inside of it wait, too: for a place under the concurrency limit, for readiness. A future of this crate that
//! is pending for such a reason says so in a thread-local while it is polled, and whoever polled it reads it there.
//! Layers that poll elsewhere, such as `tower::buffer`, hide it: then the call is taken to be sent.

use std::cell::Cell;
use std::task::Poll;

thread_local! {
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// Before a future is polled of which it matters.
#[inline]
pub(crate) fn reset() {
    HELD.set(false);
}

/// Whether the future that was polled since the [`reset`] and is pending holds its call back.
#[inline]
pub(crate) fn is_held() -> bool {
    HELD.get()
}

/// What a future is that holds its call back while this is pending.
#[inline]
pub(crate) fn hold<T>(poll: Poll<T>) -> Poll<T> {
    if poll.is_pending() {
        HELD.set(true);
    }
    poll
}
