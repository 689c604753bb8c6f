//! What the ledger tells a fleet, and what it is told. Pure.

use super::{DIMENSIONS, LimitKind, Limits, Nanos, QuotaState, QuotaUpdate};
use crate::fleet::{Close, Quota, Supply};
use crate::rate_limit::decision::Spent;
use crate::rate_limit::queue::NEVER;

impl QuotaState {
    /// From now on a request needs a permit of this, too.
    pub(in crate::rate_limit) fn join(&mut self, supply: Supply) {
        self.supply = Some(Box::new(supply));
    }

    /// The limits as the fleet counts: the share of the configured ones. What 429s teach stands in the store.
    pub(in crate::rate_limit) fn quota(&self, limits: Limits) -> Quota {
        let share = limits.share(self.rules.margin);
        Quota { requests: share.rpm, tokens: share.tpm, daily: share.rpd }
    }

    pub(super) fn configure_fleet(&mut self, limits: Limits) {
        let quota = self.quota(limits);
        if let Some(supply) = &mut self.supply {
            supply.configure(quota);
            // What was learnt is forgotten.
            supply.close(Close { zero: true, ..Close::new(Close::OPEN, None) });
        }
    }

    /// A 429 that was met here.
    pub(super) fn tell_closed(&mut self, now: Nanos, lesson: QuotaUpdate, ramp: bool) {
        let Some(supply) = &mut self.supply else { return };
        let QuotaUpdate { dimension, limit, until, spent, zero } = lesson;
        let lasts = until.filter(|until| *until != NEVER).map(|until| until.saturating_sub(now) / 1_000);
        // The fleet knows the limit as it is kept.
        let share = |limit: u64| Limits::new().requests_per_day(limit).share(self.rules.margin).rpd;
        let limit = limit.filter(|_| self.rules.learn && !zero).and_then(share);
        let probe = self.rules.probe_every / 1_000;
        // A store knows no more than this.
        let dimension = (dimension as u8).min(LimitKind::Other as u8);
        supply.close(Close { limit, spent, zero, ramp, probe, ..Close::new(dimension, lasts) });
    }

    pub(super) fn tell_opened(&mut self) {
        if let Some(supply) = &mut self.supply {
            supply.close(Close::new(Close::OPEN, None));
        }
    }

    /// A 429 that another member met, or the end of one.
    pub(in crate::rate_limit) fn told(&mut self, now: Nanos, close: Close) {
        let now = self.tick(now);
        if close.dimension == Close::OPEN {
            self.open();
            return;
        }
        let Some(dimension) = DIMENSIONS.into_iter().find(|dimension| *dimension as u8 == close.dimension)
        else {
            return;
        };
        let until = close.lasts.map(|lasts| now.saturating_add(lasts.saturating_mul(1_000)));
        let until = until.or(close.zero.then_some(NEVER));
        if close.ramp {
            let over_at = until.unwrap_or(now).saturating_add(self.rules.span);
            self.ramp = Some(self.ramp_of(now, 1, over_at));
        }
        if let Some(until) = until {
            self.shut(now, dimension, until, (close.spent, close.zero));
            if let Some(closed) = &mut self.closed[dimension as usize] {
                // The store says when, and which of all members may.
                let never = close.probe == 0;
                let at = if never { NEVER } else { now.saturating_add(close.probe.saturating_mul(1_000)) };
                closed.probe_at = closed.until.min(at);
            }
        }
    }

    /// What the store says of the day: it counts for all.
    pub(in crate::rate_limit) fn told_day(&mut self, now: Nanos) {
        let spent = self.supply.as_ref().is_some_and(|supply| supply.is_day_spent());
        self.tick(now);
        self.day_spent_until = if spent { self.day.ends_at } else { 0 };
    }

    /// The end of the day, where the store says that it is spent.
    pub(super) fn spent_by_others(&self, now: Nanos) -> Option<Spent> {
        (now < self.day_spent_until).then_some(Spent { reset: Some(self.day.ends_at) })
    }

    /// Whether the store does not answer, so that it is what requests wait for.
    pub(in crate::rate_limit) fn is_store_lost(&self) -> bool {
        self.supply.as_ref().is_some_and(|supply| supply.is_lost())
    }
}
