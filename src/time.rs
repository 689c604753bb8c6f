//! The only door to the clock.
//!
//! Delays and deadlines are measured on tokio's clock, so that tests which pause it stay in command. The
//! calendar is read in one place, for what has a date: HTTP's, a quota's day, a line of a log.

use std::fmt;
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

/// Prints when something is over, for people: `until 2026-11-29T17:45:03Z, in 4.2 s`. The calendar is read for it when it is
/// printed.
pub(crate) struct Until(pub(crate) Instant);

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.0.saturating_duration_since(now());
        if left.is_zero() {
            return f.write_str("until just now");
        }
        let date = wall_clock().checked_add(left).and_then(|date| jiff::Timestamp::try_from(date).ok());
        if let Some(date) = date {
            // Up to the second after it, so that nobody comes early by it.
            let whole =
                jiff::Timestamp::from_second(date.as_second() + i64::from(date.subsec_nanosecond() > 0));
            write!(f, "until {}, ", whole.unwrap_or(date))?;
        }
        write!(f, "in {}", InWords(left))
    }
}

/// Prints a duration to two digits or the second: `250 ms`, `4.2 s`, `3 min 20 s`, `7 h 12 min`.
struct InWords(Duration);

impl fmt::Display for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0 => write!(f, "{} ms", self.0.as_millis().max(1)),
            1..10 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            10..60 => write!(f, "{seconds} s"),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {} min", seconds / 3600, seconds % 3600 / 60),
        }
    }
}

/// The calendar. No delay is measured by it.
#[allow(clippy::disallowed_methods, reason = "this is the door")]
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_end_is_told_as_an_instant_and_in_words() {
        for (millis, words) in [
            (0, "until just now"),
            (1, "in 1 ms"),
            (999, "in 999 ms"),
            (4_240, "in 4.2 s"),
            (59_999, "in 59 s"),
            (200_000, "in 3 min 20 s"),
            (86_400_000, "in 24 h 0 min"),
        ] {
            let text = Until(now() + Duration::from_millis(millis)).to_string();
            assert!(text.ends_with(words), "{text}");
            if millis > 0 {
                let (date, _) =
                    text.strip_prefix("until ").and_then(|text| text.split_once(',')).expect("a date");
                let date: jiff::Timestamp = date.parse().expect("of RFC 3339");
                let left = SystemTime::from(date).duration_since(wall_clock()).unwrap_or_default();
                assert!(left <= Duration::from_millis(millis + 1_000), "{text}");
                assert!(left + Duration::from_secs(5) >= Duration::from_millis(millis), "{text}");
            }
        }
    }
}
