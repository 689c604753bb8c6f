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
    /// Input and output together, in any window of 60 s. What a call uses is known at its end, so calls under way may exceed it.
    pub tokens_per_minute: Option<u64>,
    /// The same from midnight to midnight, UTC.
    pub tokens_per_day: Option<u64>,
    /// By the user's prices, in billionths of their currency, from midnight to midnight, UTC.
    pub money_per_day: Option<u64>,
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
    /// The calls that ended in the 60 s before used as many tokens as they may.
    Tokens { limit: u64, wait: Duration },
    /// Those of the day did.
    TokensOfDay { limit: u64, wait: Duration },
    /// The day has cost as much as it may, in billionths.
    Money { limit: u64, wait: Duration },
}

/// What one client has used.
#[derive(Debug, Default)]
pub struct Used {
    /// When the requests of the last 60 s were admitted. Kept only where there is a limit.
    recent: VecDeque<Duration>,
    /// Tokens of the last 60 s, summed up by the tenth of a second in which their calls ended.
    tokens: VecDeque<(Duration, u64)>,
    day: u64,
    today: u64,
    tokens_today: u64,
    money_today: u64,
    open: u32,
}

/// Tokens of calls that end within so long are summed up.
const TENTH: Duration = Duration::from_millis(100);

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
        self.begin(now, wall);
        let wait = Duration::from_secs((self.day + 1) * DAY).saturating_sub(wall);
        if let Some(limit) = limits.requests_per_day.filter(|limit| self.today >= *limit) {
            return Err(Over::Day { limit, wait });
        }
        if let Some(limit) = limits.tokens_per_day.filter(|limit| self.tokens_today >= *limit) {
            return Err(Over::TokensOfDay { limit, wait });
        }
        if let Some(limit) = limits.money_per_day.filter(|limit| self.money_today >= *limit) {
            return Err(Over::Money { limit, wait });
        }
        if let Some(limit) = limits.tokens_per_minute {
            let mut left: u64 = self.tokens.iter().map(|(_, tokens)| *tokens).sum();
            if left >= limit {
                let enough = self.tokens.iter().find(|(_, tokens)| {
                    left = left.saturating_sub(*tokens);
                    left < limit
                });
                let wait = enough.map_or(MINUTE, |(at, _)| MINUTE.saturating_sub(now.saturating_sub(*at)));
                return Err(Over::Tokens { limit, wait });
            }
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

    /// Forgets what is over: the day before, and tokens of more than a minute ago.
    fn begin(&mut self, now: Duration, wall: Duration) {
        let day = wall.as_secs() / DAY;
        if day > self.day {
            (self.day, self.today, self.tokens_today, self.money_today) = (day, 0, 0, 0);
        }
        while self.tokens.front().is_some_and(|(at, _)| now.saturating_sub(*at) >= MINUTE) {
            self.tokens.pop_front();
        }
    }

    /// A call has used so many tokens, and cost so much, in billionths. They count for the minute and the day in which it ended.
    pub fn spend(&mut self, now: Duration, wall: Duration, tokens: u64, money: u64) {
        self.begin(now, wall);
        self.tokens_today = self.tokens_today.saturating_add(tokens);
        self.money_today = self.money_today.saturating_add(money);
        match self.tokens.back_mut() {
            // Those that ended a little later leave a little too early: by less than a tenth of a second.
            Some((at, sum)) if now.saturating_sub(*at) < TENTH => *sum = sum.saturating_add(tokens),
            _ if tokens > 0 => self.tokens.push_back((now, tokens)),
            _ => {}
        }
    }

    /// Tokens of the day of the last call.
    pub const fn tokens_today(&self) -> u64 {
        self.tokens_today
    }

    /// What that day has cost, in billionths.
    pub const fn money_today(&self) -> u64 {
        self.money_today
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
            let limits = Limits { requests_per_minute: limits.0, requests_per_day: limits.1, concurrency: limits.2, ..Limits::default() };
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
                    Err(Over::Tokens { .. } | Over::TokensOfDay { .. } | Over::Money { .. }) => prop_assert!(false, "no such limit"),
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

    proptest! {
        /// Against the sum of all that was spent. Ends are whole tenths apart, so that none is summed up with another.
        #[test]
        fn tokens_and_money_stop_a_client_until_they_leave(
            limits in (prop::option::of(1_u64..400), prop::option::of(1_u64..900), prop::option::of(1_u64..900)),
            steps in prop::collection::vec((1_u64..400, 0_u64..100, 0_u64..100), 1..80),
            start in 0_u64..86_400,
        ) {
            let limits = Limits {
                tokens_per_minute: limits.0, tokens_per_day: limits.1, money_per_day: limits.2, ..Limits::default()
            };
            let (mut used, mut spent, mut now) = (Used::default(), Vec::<(Duration, u64, u64)>::new(), Duration::ZERO);
            let wall_of = |now: Duration| Duration::from_secs(20_000 * DAY + start) + now;
            let day = |at: Duration| wall_of(at).as_secs() / DAY;
            for (step, tokens, money) in steps {
                now += Duration::from_millis(step * 100);
                let in_minute = |at: Duration, spent: &[(Duration, u64, u64)]| -> u64 {
                    spent.iter().filter(|(then, ..)| at - *then < MINUTE).map(|(_, tokens, _)| *tokens).sum()
                };
                let today: Vec<_> = spent.iter().filter(|(at, ..)| day(*at) == day(now)).collect();
                let free = limits.tokens_per_minute.is_none_or(|n| in_minute(now, &spent) < n)
                    && limits.tokens_per_day.is_none_or(|n| today.iter().map(|(_, tokens, _)| tokens).sum::<u64>() < n)
                    && limits.money_per_day.is_none_or(|n| today.iter().map(|(.., money)| money).sum::<u64>() < n);
                match used.admit(&limits, now, wall_of(now)) {
                    Ok(()) => {
                        prop_assert!(free);
                        used.release();
                        used.spend(now, wall_of(now), tokens, money);
                        spent.push((now, tokens, money));
                    }
                    Err(Over::Tokens { limit, wait }) => {
                        prop_assert!(!free && in_minute(now + wait, &spent) < limit);
                        prop_assert!(in_minute(now + wait - Duration::from_nanos(1), &spent) >= limit);
                    }
                    Err(Over::TokensOfDay { wait, .. } | Over::Money { wait, .. }) => {
                        prop_assert!(!free);
                        prop_assert_eq!(day(now + wait), day(now) + 1);
                    }
                    Err(other) => prop_assert!(false, "{other:?}"),
                }
            }
        }
    }
}
