//! The requests of a Pacific day, counted across clocks that are set. Pure.

use jiff::civil::Date;

use super::day::Day;
use super::window::Nanos;

/// How often the calendar is looked at.
const LOOK: Nanos = 60 * 1_000_000_000;

/// The count of the day.
#[derive(Clone, Copy, Debug)]
pub(super) struct DayCount {
    today: Option<Date>,
    pub(super) count: u64,
    /// Of them, what a snapshot brought.
    restored: u64,
    /// The day before, in case the calendar is set back to it.
    before: Option<(Date, u64)>,
    /// When the calendar must be looked at again.
    pub(super) look_at: Nanos,
    pub(super) ends_at: Nanos,
    /// Tells receipts of another day.
    pub(super) number: u32,
}

impl DayCount {
    pub(super) const fn new(now: Nanos) -> Self {
        Self {
            today: None,
            count: 0,
            restored: 0,
            before: None,
            look_at: now,
            ends_at: Nanos::MAX,
            number: 0,
        }
    }

    /// What the calendar says. A new day begins at zero, `guard` after midnight; a calendar that was set back to the
    /// day before gives that day its count back, and keeps what was counted since. Returns whether a new day began.
    pub(super) fn set(&mut self, now: Nanos, day: Day, guard: Nanos) -> bool {
        let mut begun = false;
        match self.today {
            None => self.today = Some(day.date),
            Some(today) if day.date > today => {
                if now < self.ends_at && self.ends_at - now <= guard {
                    // The guard band still belongs to the old day.
                    self.look_at = self.ends_at;
                    return false;
                }
                self.before = Some((today, self.count));
                self.today = Some(day.date);
                (self.count, self.restored) = (0, 0);
                self.number = self.number.wrapping_add(1);
                begun = true;
            }
            Some(today) if day.date < today => {
                let earlier = self.before.take().filter(|(date, _)| *date == day.date);
                self.count += earlier.map_or(0, |(_, earlier)| earlier);
                self.today = Some(day.date);
            }
            Some(_) => {}
        }
        self.ends_at = now.saturating_add(day.left).saturating_add(guard);
        self.look_at = self.ends_at.min(now.saturating_add(LOOK));
        begun
    }

    /// Adds what a snapshot counted today, once however often it is told.
    pub(super) fn restore(&mut self, count: u64) {
        let more = count.saturating_sub(self.restored);
        self.count = self.count.saturating_add(more);
        self.restored += more;
    }

    /// The date and its count, once the calendar was looked at.
    pub(super) const fn today(&self) -> Option<(Date, u64)> {
        match self.today {
            Some(date) => Some((date, self.count)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn a_calendar_that_leaps_begins_its_day_at_once() {
        let day = |of, left| Day { date: date(2026, 7, of), left };
        let mut tally = DayCount::new(0);
        tally.set(0, day(1, 1_000), 5);
        tally.count = 4;
        assert!(tally.set(600, day(2, 9_000), 5), "405 before the end: no guard band is so long");
        assert_eq!((tally.count, tally.ends_at, tally.number), (0, 9_605, 1));
    }

    #[test]
    fn no_count_is_lost_when_the_calendar_moves() {
        let day = |of, left| Day { date: date(2026, 7, of), left };
        let mut tally = DayCount::new(0);
        assert!(!tally.set(0, day(1, 1_000), 5));
        tally.count = 4;
        assert!(!tally.set(1_003, day(2, 9_000), 5), "the guard band belongs to the old day");
        assert!(tally.set(1_005, day(2, 9_000), 5));
        tally.count += 2;
        assert!(!tally.set(1_007, day(2, 8_998), 5), "the same day");
        assert!(!tally.set(1_010, day(1, 500), 5), "set back");
        assert_eq!(tally.today(), Some((date(2026, 7, 1), 6)));
        tally.restore(10);
        tally.restore(10);
        tally.restore(12);
        assert_eq!(tally.count, 18);
        assert!(tally.set(9_000, day(3, 1_000), 5));
        assert_eq!(tally.today(), Some((date(2026, 7, 3), 0)));
    }
}
