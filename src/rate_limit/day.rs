//! The Pacific day. Pure: it is handed the clocks' readings.
//!
//! Google counts requests per day until midnight Pacific time
//! ([rate limits](https://ai.google.dev/gemini-api/docs/rate-limits), read 2026-11), and so a day has 23 hours in
//! March and 25 in November. The zone is compiled in, so that no file of the machine is needed or trusted.

use std::time::SystemTime;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::window::Nanos;

static PACIFIC: TimeZone = jiff::tz::get!("America/Los_Angeles");

/// A day that is over in one week at the latest, if the calendar cannot tell.
const A_DAY: SignedDuration = SignedDuration::from_hours(24);
/// How far the calendar may run ahead of the steady clock before that counts as a leap of the calendar: a machine
/// that slept, or a clock that was set.
const SLACK: SignedDuration = SignedDuration::from_secs(2);

/// The calendar, carried forward by the steady clock.
///
/// The steady clock is trusted for what passes, the calendar for where to begin. A calendar that leaps ahead (a
/// paused machine, whose steady clock stood still) or that runs backwards (it was set right) is believed and begun
/// anew; one that only lags is not, so that tests in paused time see their days pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calendar {
    begun: (Nanos, Timestamp),
    last_read: Timestamp,
}

impl Calendar {
    pub(super) fn new(now: Nanos, read: SystemTime) -> Self {
        let read = timestamp(read);
        Self { begun: (now, read), last_read: read }
    }

    /// The time of day, given both clocks.
    pub(super) fn at(&mut self, now: Nanos, read: SystemTime) -> Timestamp {
        let read = timestamp(read);
        let carried = self.carried(now);
        let leapt = read.duration_since(carried) > SLACK || read < self.last_read;
        self.last_read = read;
        if leapt {
            self.begun = (now, read);
            return read;
        }
        carried
    }

    fn carried(&self, now: Nanos) -> Timestamp {
        let passed =
            SignedDuration::from_nanos(i64::try_from(now.saturating_sub(self.begun.0)).unwrap_or(i64::MAX));
        self.begun.1.checked_add(passed).unwrap_or(Timestamp::MAX)
    }
}

fn timestamp(read: SystemTime) -> Timestamp {
    // A clock beyond the year 9999 or before -9999 is no clock; any fixed instant will do.
    Timestamp::try_from(read).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A Pacific day, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) date: Date,
    /// Nanoseconds until the next one begins.
    pub(super) left: Nanos,
}

impl Day {
    pub(super) fn of(at: Timestamp) -> Self {
        let zoned = at.to_zoned(PACIFIC.clone());
        let next = zoned.tomorrow().and_then(|tomorrow| tomorrow.start_of_day());
        let next =
            next.map_or_else(|_| at.checked_add(A_DAY).unwrap_or(Timestamp::MAX), |next| next.timestamp());
        let left = next.duration_since(at).as_nanos();
        Self { date: zoned.date(), left: Nanos::try_from(left).unwrap_or(0).max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const HOUR: Nanos = 3_600_000_000_000;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a valid instant")
    }

    fn wall(text: &str) -> SystemTime {
        at(text).into()
    }

    #[test]
    fn days_have_23_24_and_25_hours() {
        for (start, date, hours) in [
            ("2026-03-08T08:00:00Z", "2026-03-08", 23),
            ("2026-11-01T07:00:00Z", "2026-11-01", 25),
            ("2026-11-02T08:00:00Z", "2026-11-02", 24),
            ("2027-03-14T08:00:00Z", "2027-03-14", 23),
        ] {
            let day = Day::of(at(start));
            assert_eq!((day.date.to_string().as_str(), day.left), (date, hours * HOUR), "{start}");
            let before = Day::of(at(start).checked_sub(SignedDuration::from_nanos(1)).expect("in range"));
            assert_eq!(before.left, 1, "a nanosecond before midnight");
            assert_ne!(before.date, day.date);
        }
    }

    #[test]
    fn the_steady_clock_carries_the_calendar() {
        let start = wall("2026-11-21T12:00:00Z");
        let mut calendar = Calendar::new(0, start);
        // Paused time: the machine's calendar stands still.
        assert_eq!(calendar.at(5 * HOUR, start), at("2026-11-21T17:00:00Z"));
        // A calendar that agrees within the slack changes nothing.
        assert_eq!(calendar.at(6 * HOUR, wall("2026-11-21T18:00:02Z")), at("2026-11-21T18:00:00Z"));
        // A machine that slept for a night: the steady clock did not see it.
        assert_eq!(calendar.at(7 * HOUR, wall("2026-11-22T09:00:00Z")), at("2026-11-22T09:00:00Z"));
        assert_eq!(calendar.at(8 * HOUR, wall("2026-11-22T10:00:00Z")), at("2026-11-22T10:00:00Z"));
        // Set back by an hour: believed, since a calendar does not run backwards by itself.
        let back = wall("2026-11-22T10:00:00Z") + Duration::from_secs(60) - Duration::from_secs(3600);
        assert_eq!(calendar.at(8 * HOUR + 60_000_000_000, back), timestamp(back));
    }

    #[test]
    fn absurd_clocks_do_not_panic() {
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50);
        let mut calendar = Calendar::new(0, far);
        let _ = Day::of(calendar.at(u64::MAX, far));
        let _ = Day::of(Timestamp::MAX);
        let _ = Day::of(Timestamp::MIN);
    }
}
