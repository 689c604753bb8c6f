//! The only door to the clock.
//!
//! Delays and deadlines are measured on tokio's clock, so that tests which pause it stay in command. The
//! calendar is read in one place, for what has a date: HTTP's, a quota's day, a line of a log.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Now, on tokio's clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// `instant + duration`, or some thirty years ahead where that would overflow.
pub(crate) fn saturating_add(instant: Instant, duration: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    instant.checked_add(duration).or_else(|| instant.checked_add(FAR)).unwrap_or(instant)
}

/// The calendar. No delay is measured by it.
#[allow(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}
