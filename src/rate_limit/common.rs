//! What each key needs of its layer: the clocks, the rules, the observer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::day::{Calendar, Day};
use super::decision::AdmissionMode;
use super::prices::Prices;
use super::queue::{DEFAULT_WEIGHT, NEVER};
use super::quota_state::Rules;
use super::window::Nanos;
use crate::error::ConfigError;
use crate::event::Observed;
use crate::request::limits::Limits;
use crate::sync::{Mutex, lock};
use crate::time;

pub(super) type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// What each key needs of its layer.
pub(super) struct Common {
    epoch: Instant,
    calendar: Mutex<Calendar>,
    wall_clock: WallClock,
    pub(super) rules: Rules,
    pub(super) max_queue: usize,
    pub(super) interactive_weight: u32,
    pub(super) max_wait: Option<Duration>,
    pub(super) mode: AdmissionMode,
    pub(super) observer: Observed,
    /// What calls cost, where a limit counts money.
    pub(super) prices: Option<Arc<Prices>>,
    #[cfg(feature = "fleet")]
    pub(super) fleet: Option<super::fleet::Joined>,
}

impl Common {
    pub(super) fn new(
        rules: Rules,
        (max_queue, max_wait, mode): (usize, Option<Duration>, AdmissionMode),
        wall_clock: WallClock,
        observer: Observed,
    ) -> Self {
        let calendar = Mutex::new(Calendar::new(0, wall_clock()));
        Self {
            epoch: time::now(),
            calendar,
            wall_clock,
            rules,
            max_queue,
            interactive_weight: DEFAULT_WEIGHT,
            max_wait,
            mode,
            observer,
            prices: None,
            #[cfg(feature = "fleet")]
            fleet: None,
        }
    }

    /// Whether there is what these limits need.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), ConfigError> {
        if limits.counts_money() && self.prices.is_none() {
            return Err(ConfigError::new("prices", "must be set where a limit counts money"));
        }
        Ok(())
    }

    /// What the calendar says, uncorrected.
    #[cfg(feature = "fleet")]
    pub(super) fn calendar_now(&self) -> jiff::Timestamp {
        jiff::Timestamp::try_from((self.wall_clock)()).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    pub(super) fn now(&self) -> Nanos {
        self.nanos(time::now())
    }

    #[inline]
    pub(super) fn nanos(&self, instant: Instant) -> Nanos {
        let since = instant.saturating_duration_since(self.epoch);
        since.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(since.subsec_nanos()))
    }

    pub(super) fn instant(&self, nanos: Nanos) -> Option<Instant> {
        (nanos != NEVER).then(|| time::saturating_add(self.epoch, Duration::from_nanos(nanos)))
    }

    /// The Pacific day.
    pub(super) fn day(&self, now: Nanos) -> Day {
        // The clock may be a user's: it is read before the lock is taken.
        let read = (self.wall_clock)();
        Day::of(lock(&self.calendar).at(now, read))
    }

    /// When a request has waited for quota as long as it may, over all its attempts.
    pub(super) fn patience(&self, now: Nanos, left: Option<Duration>) -> Nanos {
        let most = self.max_wait.map(|most| left.map_or(most, |left| left.min(most)));
        most.map_or(NEVER, |most| now.saturating_add(u64::try_from(most.as_nanos()).unwrap_or(NEVER)))
    }

    /// Whether a request's patience ends before its deadline.
    pub(super) fn is_impatient(&self, patience: Nanos, deadline: Option<Instant>) -> bool {
        patience != NEVER && deadline.is_none_or(|deadline| self.nanos(deadline) > patience)
    }

    /// What a request that has so much patience left has waited, in whole milliseconds, rounded up.
    pub(super) fn waited(&self, patience: Nanos) -> u32 {
        let Some(most) = self.max_wait.filter(|_| patience != NEVER) else { return 0 };
        let waited = most.saturating_sub(Duration::from_nanos(patience.saturating_sub(self.now())));
        u32::try_from(waited.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
    }
}
