//! The limits of one client, counted without a clock: `now` is handed in.

use std::collections::VecDeque;
use std::time::Duration;

/// The window of [`Limits::requests_per_minute`].
pub const MINUTE: Duration = Duration::from_secs(60);
/// A day by UTC, in seconds.
const DAY: u64 = 86_400;

/// What a client may do. Default: everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In any window of 60 s.
    pub requests_per_minute: Option<u32>,
    /// From midnight to midnight, UTC.
    pub requests_per_day: Option<u64>,
    /// Calls whose answer has not ended.
    pub concurrency: Option<u32>,
}

/// The limit that a request would exceed, and how long until it would not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The 60 s before hold as many requests as there may be.
    Minute { limit: u32, wait: Duration },
    /// The day holds as many requests as there may be.
    Day { limit: u64, wait: Duration },
    /// As many calls are open as there may be. When one ends is not known.
    Concurrency { limit: u32 },
}

/// What one client has used.
#[derive(Debug, Default)]
pub struct Used {
    /// When the requests of the last 60 s were admitted. Kept only where there is a limit.
    recent: VecDeque<Duration>,
    day: u64,
    today: u64,
    open: u32,
}

impl Used {
    /// Counts a request, if it may be made. A refused one counts nowhere.
    ///
    /// `now` is the time after any fixed start and must not go back; `wall` is the time after 1970 by UTC.
    ///
    /// # Errors
    ///
    /// The limit with the longest wait that it exceeds; concurrency where no other one is exceeded.
    pub fn admit(&mut self, limits: &Limits, now: Duration, wall: Duration) -> Result<(), Over> {
        while self.recent.front().is_some_and(|at| now.saturating_sub(*at) >= MINUTE) {
            self.recent.pop_front();
        }
        let day = wall.as_secs() / DAY;
        if day > self.day {
            (self.day, self.today) = (day, 0);
        }
        if let Some(limit) = limits.requests_per_day.filter(|limit| self.today >= *limit) {
            let next = Duration::from_secs((self.day + 1) * DAY);
            return Err(Over::Day { limit, wait: next.saturating_sub(wall) });
        }
        if let Some(limit) = limits.requests_per_minute {
            if let Some(over) = self.recent.len().checked_sub(limit as usize) {
                // Where a reload has lowered the limit several must leave.
                let wait = self.recent.get(over).map_or(MINUTE, |at| MINUTE - now.saturating_sub(*at));
                return Err(Over::Minute { limit, wait });
            }
        }
        if let Some(limit) = limits.concurrency.filter(|limit| self.open >= *limit) {
            return Err(Over::Concurrency { limit });
        }
        if limits.requests_per_minute.is_some() {
            self.recent.push_back(now);
        } else {
            self.recent.clear();
        }
        self.today += 1;
        self.open += 1;
        Ok(())
    }

    /// A call that was admitted is over.
    pub fn release(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Calls whose answer has not ended.
    pub const fn open(&self) -> u32 {
        self.open
    }

    /// Requests of the day of the last one.
    pub const fn today(&self) -> u64 {
        self.today
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list of all that was admitted.
        #[test]
        fn no_more_than_the_limits_and_no_fewer(
            limits in (prop::option::of(1_u32..6), prop::option::of(1_u64..12), prop::option::of(1_u32..4)),
            steps in prop::collection::vec((0_u64..40_000, any::<bool>()), 1..120),
            start in 0_u64..86_400,
        ) {
            let limits = Limits { requests_per_minute: limits.0, requests_per_day: limits.1, concurrency: limits.2 };
            let mut used = Used::default();
            let mut admitted: Vec<Duration> = Vec::new();
            let mut open = 0_u32;
            let mut now = Duration::ZERO;
            let wall_of = |now: Duration| Duration::from_secs(20_000 * DAY + start) + now;
            for (step, end) in steps {
                now += Duration::from_millis(step);
                if end && open > 0 {
                    used.release();
                    open -= 1;
                }
                let in_minute = admitted.iter().filter(|at| now - **at < MINUTE).count();
                let day = |at: Duration| wall_of(at).as_secs() / DAY;
                let in_day = admitted.iter().filter(|at| day(**at) == day(now)).count();
                let free = limits.requests_per_minute.is_none_or(|n| in_minute < n as usize)
                    && limits.requests_per_day.is_none_or(|n| (in_day as u64) < n)
                    && limits.concurrency.is_none_or(|n| open < n);
                let result = used.admit(&limits, now, wall_of(now));
                prop_assert_eq!(result.is_ok(), free);
                match result {
                    Ok(()) => { admitted.push(now); open += 1; }
                    Err(Over::Minute { wait, .. }) => {
                        let after = |t: Duration| admitted.iter().filter(|at| t - **at < MINUTE).count();
                        let limit = limits.requests_per_minute.unwrap_or(0) as usize;
                        prop_assert!(after(now + wait) < limit, "the wait is too short");
                        prop_assert!(after(now + wait - Duration::from_nanos(1)) >= limit, "the wait is too long");
                    }
                    Err(Over::Day { wait, .. }) => {
                        prop_assert_eq!(day(now + wait), day(now) + 1);
                        prop_assert_eq!(day(now + wait - Duration::from_nanos(1)), day(now));
                    }
                    Err(Over::Concurrency { .. }) => {}
                }
                prop_assert_eq!(used.open(), open);
            }
        }
    }
}
