//! What the ledger tells a fleet, and what it is told. Pure.

use std::time::Duration;

use super::doors::DIMENSIONS;
use super::{Cost, LimitKind, Limits, Nanos, QuotaState, QuotaUpdate};
use crate::fleet::{Close, Quota, Supply};
use crate::rate_limit::decision::Spent;
use crate::rate_limit::queue::NEVER;
use crate::request::limits::Unit;

impl QuotaState {
    /// From now on a request needs a permit of this, too.
    pub(in crate::rate_limit) fn join(&mut self, supply: Supply) {
        self.supply = Some(Box::new(supply));
    }

    /// The same of each limit over a span that has none yet.
    pub(in crate::rate_limit) fn join_spans(
        &mut self,
        supply: impl FnMut(Unit, Duration, Nanos, Quota) -> Supply,
    ) {
        if let Some(spans) = &mut self.spans {
            spans.join(supply);
        }
    }

    /// What is shared of this key: its limits of a minute and a day first, then each limit over a span.
    pub(in crate::rate_limit) fn supplies(&mut self) -> impl Iterator<Item = &mut Supply> {
        let spans = self.spans.iter_mut().flat_map(|spans| spans.supplies());
        self.supply.iter_mut().map(|supply| &mut **supply).chain(spans)
    }

    pub(in crate::rate_limit) fn supplies_of(&self) -> impl Iterator<Item = &Supply> {
        let spans = self.spans.iter().flat_map(|spans| spans.each_supply());
        self.supply.iter().map(|supply| &**supply).chain(spans)
    }

    /// Whether there are limits over spans.
    pub(in crate::rate_limit) fn has_spans(&self) -> bool {
        self.spans.is_some()
    }

    /// That of this name in the store.
    pub(in crate::rate_limit) fn supply_of(&mut self, digest: &str) -> Option<&mut Supply> {
        self.supplies().find(|supply| supply.key().digest == digest)
    }

    /// All of it, to be given back.
    pub(in crate::rate_limit) fn leave_fleet(&mut self) -> Vec<Supply> {
        let mut all: Vec<Supply> = self.supply.take().map(|supply| *supply).into_iter().collect();
        all.extend(self.spans.iter_mut().flat_map(|spans| spans.leave()));
        all
    }

    /// What was shared of limits that are no longer set.
    pub(in crate::rate_limit) fn take_gone(&mut self) -> Vec<Supply> {
        self.spans.as_mut().map_or_else(Vec::new, |spans| spans.take_gone())
    }

    /// What the nth of those that are shared counts of requests that wait, each with its input tokens.
    pub(in crate::rate_limit) fn wanted(&self, nth: usize, waiting: &[(Cost, u64)]) -> Vec<u64> {
        match (nth.checked_sub(1), &self.spans) {
            (Some(nth), Some(spans)) => spans.wanted(nth, waiting),
            _ => waiting.iter().map(|one| one.1).collect(),
        }
    }

    /// The limits that members were given different ones of, where the store says which is in force.
    pub(in crate::rate_limit) fn limits_in_force(&self, digest: &str, quota: Quota) -> Limits {
        let limits = Limits { rpm: quota.requests, tpm: quota.tokens, rpd: quota.daily, ..Limits::new() };
        match self.spans.as_ref().and_then(|spans| spans.limit_of(digest)) {
            Some((unit, span)) => {
                let limit = quota.requests.or(quota.tokens).unwrap_or(u64::MAX);
                Limits::new().per(unit, limit, span)
            }
            None => limits,
        }
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
            // The store says when, and which of all members may.
            let never = close.probe == 0;
            let at = if never { NEVER } else { now.saturating_add(close.probe.saturating_mul(1_000)) };
            self.doors.probe_at(dimension, at);
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
        self.supplies_of().any(Supply::is_lost)
    }
}
