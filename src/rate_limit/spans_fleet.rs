//! Limits over spans that a fleet shares: each has a state of its own in the store, and a request needs a permit of each that
//! counts it. Pure.
//!
//! A call is charged only where all have one, in one step. A limit of requests is one of the state's requests; any other unit is
//! counted as its tokens.

use std::time::Duration;

use super::{Cost, LimitKind, Nanos, Span, Spans, Unit};
use crate::fleet::{Quota, Supply, UseId};
use crate::request::limits::MAX_SPANS;

impl Span {
    fn quota(&self) -> Quota {
        match self.unit {
            Unit::Requests => Quota { requests: Some(self.limit), ..Quota::default() },
            _ => Quota { tokens: Some(self.limit), ..Quota::default() },
        }
    }

    /// What the store counts as tokens of an amount.
    fn tokens(&self, amount: u32) -> u32 {
        if self.unit == Unit::Requests { 0 } else { amount }
    }

    /// The same window was set anew.
    pub(super) fn keep_supply(&mut self, before: &mut Self) {
        self.supply = before.supply.take();
        let quota = self.quota();
        if let Some(supply) = self.supply.as_mut().filter(|_| before.limit != self.limit) {
            supply.limit(quota);
        }
    }

    pub(super) fn settle_permit(&mut self, now: Nanos, permit: UseId, charged: u32, used: u32) {
        let (charged, tokens) = (self.tokens(charged), self.tokens(used));
        if let Some(supply) = self.supply.as_mut().filter(|_| permit != 0) {
            supply.settle(now, permit, charged, tokens, used > 0, true);
        }
    }

    pub(super) fn restamp_permit(&mut self, now: Nanos, permit: &mut UseId, charged: u32) {
        let tokens = self.tokens(charged);
        if let Some(supply) = self.supply.as_mut().filter(|_| *permit != 0) {
            *permit = supply.restamp(now, *permit, tokens);
        }
    }
}

impl Spans {
    /// Whether there is a permit for a request in each span that counts it; else when to look again, and for what.
    pub(in crate::rate_limit) fn has_permits(
        &mut self,
        now: Nanos,
        cost: Cost,
        tokens: u32,
    ) -> Result<(), (Nanos, LimitKind)> {
        let amounts = self.amounts(cost, tokens).unwrap_or_default();
        let mut wait: Option<(Nanos, LimitKind)> = None;
        for (span, amount) in self.spans.iter_mut().zip(amounts) {
            let tokens = span.tokens(amount);
            let dimension = span.unit.dimension();
            let Some(supply) = span.supply.as_mut().filter(|_| amount > 0) else { continue };
            if !supply.has_permit(now, tokens) {
                let until = supply.next(now);
                if wait.is_none_or(|wait| wait.0 < until) {
                    wait = Some((until, dimension));
                }
            }
        }
        wait.map_or(Ok(()), Err)
    }

    /// Takes the permits that [are there](Self::has_permits).
    pub(super) fn take_permits(&mut self, now: Nanos, amounts: [u32; MAX_SPANS]) -> [UseId; MAX_SPANS] {
        let mut permits = [0; MAX_SPANS];
        for ((span, amount), permit) in self.spans.iter_mut().zip(amounts).zip(&mut permits) {
            let tokens = span.tokens(amount);
            if let Some(supply) = span.supply.as_mut().filter(|_| amount > 0) {
                *permit = supply.admit(now, tokens, false).unwrap_or(0);
            }
        }
        permits
    }

    /// Gives each span that has none its part in the fleet.
    pub(in crate::rate_limit) fn join(
        &mut self,
        mut supply: impl FnMut(Unit, Duration, Nanos, Quota) -> Supply,
    ) {
        for span in self.spans.iter_mut().filter(|span| span.supply.is_none()) {
            span.supply = Some(Box::new(supply(span.unit, span.span, span.length, span.quota())));
        }
    }

    pub(in crate::rate_limit) fn supplies(&mut self) -> impl Iterator<Item = &mut Supply> {
        self.spans.iter_mut().filter_map(|span| span.supply.as_deref_mut())
    }

    pub(in crate::rate_limit) fn each_supply(&self) -> impl Iterator<Item = &Supply> {
        self.spans.iter().filter_map(|span| span.supply.as_deref())
    }

    /// What is shared of all spans, and of those that are no longer set.
    pub(in crate::rate_limit) fn leave(&mut self) -> Vec<Supply> {
        let mut all = self.take_gone();
        all.extend(self.spans.iter_mut().filter_map(|span| span.supply.take()).map(|supply| *supply));
        all
    }

    pub(in crate::rate_limit) fn take_gone(&mut self) -> Vec<Supply> {
        std::mem::take(&mut self.gone)
    }

    /// What of these requests, each with its input tokens, the nth span that is shared counts.
    pub(in crate::rate_limit) fn wanted(&self, nth: usize, waiting: &[(Cost, u64)]) -> Vec<u64> {
        let Some((at, _)) = self.spans.iter().enumerate().filter(|(_, span)| span.supply.is_some()).nth(nth)
        else {
            return Vec::new();
        };
        let amount = |(cost, tokens): &(Cost, u64)| {
            let tokens = u32::try_from(*tokens).unwrap_or(u32::MAX);
            self.amounts(*cost, tokens).unwrap_or_default()[at]
        };
        let tokens = |amount: u32| u64::from(self.spans[at].tokens(amount));
        waiting.iter().map(amount).filter(|amount| *amount > 0).map(tokens).collect()
    }

    /// The limit of the span that a store knows by this digest, to tell of it.
    pub(in crate::rate_limit) fn limit_of(&self, digest: &str) -> Option<(Unit, Duration)> {
        let is_it = |span: &&Span| span.supply.as_ref().is_some_and(|supply| supply.key().digest == digest);
        self.spans.iter().find(is_it).map(|span| (span.unit, span.span))
    }
}
