//! Whether a request may go now, and when it may otherwise. Reads only.

use super::{
    Admission, Cost, Forecast, Full, LimitKind, NONE, Nanos, Pass, QuotaState, Spent, Trial, Tries, too_large,
};
use crate::rate_limit::error::Refusal;
use crate::rate_limit::estimate::Trust;
use crate::rate_limit::window::Freed;

/// A learnt limit is tried within this part of a window after the last admission, when the server's count is as full as
/// ours. So long is also what a 429 may take.
const TELLING: u64 = 16;

impl QuotaState {
    /// Whether this request fits now; if so, what it is charged and whether it is a probe.
    #[inline(always)]
    pub(super) fn check(&self, now: Nanos, cost: Cost, tries: Tries) -> Result<(u32, Pass), Admission> {
        let tokens = match self.fitted(cost) {
            Ok(tokens) => tokens,
            Err(refused) => return self.check_larger(now, cost, tries).ok_or(refused),
        };
        let fits = self.window.requests() < self.limits.rpm
            && self.window.tokens() + u64::from(tokens) <= self.limits.tpm
            && self.day.count < self.limits.rpd;
        if fits && now >= self.plain_from && self.ramp.is_none() {
            return Ok((tokens, Pass::default()));
        }
        let pass = self.check_closely(now, tokens, tries)?;
        self.check_spans(cost, tokens, pass).map(|pass| (tokens, pass))
    }

    /// What fits all else must fit the windows of other spans, too.
    #[cold]
    pub(super) fn check_spans(&self, cost: Cost, tokens: u32, pass: Pass) -> Result<Pass, Admission> {
        let Some(spans) = &self.spans else { return Ok(pass) };
        match spans.check(cost, tokens) {
            Ok(()) => Ok(Pass { trial: pass.trial.in_spans(), ..pass }),
            Err(Full::TooLarge(dimension)) => Err(Admission::TooLarge(dimension)),
            Err(Full::Until { at, dimension, spent }) => Err(Admission::Wait { until: at, dimension, spent }),
        }
    }

    /// Of a request that is larger than the limit by itself: whether a learnt limit may be tried with it.
    #[cold]
    pub(super) fn check_larger(&self, now: Nanos, cost: Cost, tries: Tries) -> Option<(u32, Pass)> {
        let tokens = cost.corrected(&self.ratio);
        let open = now >= self.doors.closed_until && self.ramp.is_none() && self.day.count < self.limits.rpd;
        let fits = open && self.window.requests() < self.limits.rpm;
        let dimension = LimitKind::InputTokensPerMinute;
        let may_try = fits && self.may_try(now, dimension, u64::from(tokens), true, tries);
        let trial = Trial::of(dimension).of_pressed(tries == Tries::Pressed);
        let pass = may_try.then_some(Pass { probe: false, trial })?;
        self.check_spans(cost, tokens, pass).ok().map(|pass| (tokens, pass))
    }

    /// Whether this is the moment to try a learnt limit: a success says something, and the caller of a call that is
    /// refused does not miss its turn meanwhile.
    pub(super) fn is_telling(&self, now: Nanos) -> bool {
        let while_refused = self.rules.span / TELLING;
        if now.saturating_sub(self.window.newest_at()) > while_refused {
            return false;
        }
        let back = now.saturating_add(while_refused);
        let next = |from| self.window.freed_from(from).unwrap_or(NONE);
        next(now) >= back || next(back) <= back.saturating_add(2 * while_refused)
    }

    /// Whether a call may go over the limit of this dimension, because a 429 taught it and it may have been raised.
    pub(super) fn may_try(
        &self,
        now: Nanos,
        dimension: LimitKind,
        amount: u64,
        telling: bool,
        tries: Tries,
    ) -> bool {
        let Some(learnt) = self.learnt[dimension as usize] else { return false };
        let configured = match dimension {
            LimitKind::RequestsPerMinute => self.configured.rpm,
            LimitKind::InputTokensPerMinute => self.configured.tpm,
            LimitKind::RequestsPerDay => self.configured.rpd,
            _ => None,
        };
        // Under a margin a success says nothing: the call is below the limit.
        tries != Tries::Never
            && self.rules.margin == 1.0
            && configured.is_none_or(|most| learnt.limit() < most)
            && learnt.may_try(now, amount, telling, tries == Tries::Pressed)
    }

    /// The tokens to charge: a guess may exceed the limit itself, and is then held to it.
    #[inline]
    pub(super) fn fitted(&self, cost: Cost) -> Result<u32, Admission> {
        let tokens = cost.corrected(&self.ratio);
        if u64::from(tokens) <= self.limits.tpm {
            return Ok(tokens);
        }
        let hopeless = match cost.trust {
            Trust::Exact => true,
            _ if self.oversize == Some(cost.tokens) => true,
            Trust::Estimate => self.ratio.at_least(cost.tokens) > self.limits.tpm,
            Trust::Guess => false,
        };
        if !hopeless {
            return Ok(u32::try_from(self.limits.tpm).unwrap_or(u32::MAX));
        }
        Err(Admission::TooLarge(LimitKind::InputTokensPerMinute))
    }

    #[cold]
    pub(super) fn check_closely(&self, now: Nanos, tokens: u32, tries: Tries) -> Result<Pass, Admission> {
        let wait = |until, dimension, spent| Err(Admission::Wait { until, dimension, spent });
        let (mut probe, mut trial) = (false, Trial::default());
        for (dimension, closed) in self.doors.closed(now) {
            if now < closed.probe_at {
                let reset = Some(closed.until).filter(|_| !closed.zero);
                return wait(closed.probe_at, dimension, closed.spent.then_some(Spent { reset }));
            }
            probe = true;
        }
        // The probe asks whether the day is really spent, so the day's count is not asked.
        if self.day.count >= self.limits.rpd && !probe {
            // A learnt limit of the day is tried by probes alone at first.
            let gained = self.learnt[LimitKind::RequestsPerDay as usize].is_some_and(|day| day.over() > 0);
            if !(gained && self.may_try(now, LimitKind::RequestsPerDay, 1, false, tries)) {
                let reset = self.day.ends_at;
                return wait(reset, LimitKind::RequestsPerDay, Some(Spent { reset: Some(reset) }));
            }
            trial = trial.and(LimitKind::RequestsPerDay);
        }
        let over = |used: u64, cost: u64, limit: u64| used.saturating_add(cost).saturating_sub(limit);
        let requests_over = over(self.window.requests(), 1, self.limits.rpm);
        let tokens_over = over(self.window.tokens(), u64::from(tokens), self.limits.tpm);
        let fits = |over: u64, dimension, amount| {
            over == 0 || !probe && self.may_try(now, dimension, amount, self.is_telling(now), tries)
        };
        if !fits(requests_over, LimitKind::RequestsPerMinute, 1)
            || !fits(tokens_over, LimitKind::InputTokensPerMinute, u64::from(tokens))
        {
            let dimension =
                if tokens_over > 0 { LimitKind::InputTokensPerMinute } else { LimitKind::RequestsPerMinute };
            // All that the window holds is enough: the limits are at least 1 and the tokens were fitted to them.
            let until = self.window.freed(requests_over, tokens_over).map_or(now + 1, |freed| freed.at);
            return wait(until, dimension, None);
        }
        // One that is over was taken away by the tick.
        if let Some(until) = self.ramp.and_then(|ramp| ramp.holds_until(now)) {
            return wait(until, LimitKind::Other, None);
        }
        if requests_over > 0 {
            trial = trial.and(LimitKind::RequestsPerMinute);
        }
        if tokens_over > 0 {
            trial = trial.and(LimitKind::InputTokensPerMinute);
        }
        Ok(Pass { probe, trial: trial.of_pressed(tries == Tries::Pressed) })
    }

    /// What is spent, where the next request would be turned away for it; a probe that is due would not be.
    pub(in crate::rate_limit) fn spent(&mut self, now: Nanos) -> Option<(LimitKind, Spent)> {
        let now = self.tick(now);
        match self.check_closely(now, 0, Tries::InTurn) {
            Err(Admission::Wait { dimension, spent: Some(spent), .. }) => return Some((dimension, spent)),
            Err(_) => return None,
            Ok(pass) if pass.probe => return None,
            Ok(_) => {}
        }
        match self.spans.as_ref()?.check(Cost::FREE, 0) {
            Err(Full::Until { dimension, spent: Some(spent), .. }) => Some((dimension, spent)),
            _ => None,
        }
    }

    /// When a request can be admitted that comes after so many requests and tokens, if all of them go before it and
    /// nothing else changes.
    pub(in crate::rate_limit) fn forecast(
        &self,
        now: Nanos,
        ahead: (u64, u64),
        cost: Cost,
    ) -> Result<Forecast, Refusal> {
        let of_tokens = LimitKind::InputTokensPerMinute;
        let Ok(tokens) = self.fitted(cost) else { return Err(too_large(of_tokens)) };
        let mut forecast = Forecast { at: now, dimension: LimitKind::Other, tokens, spent: None };
        for (dimension, closed) in self.doors.closed(now) {
            forecast.not_before(closed.probe_at, dimension);
            if closed.spent {
                let reset = Some(closed.until).filter(|_| !closed.zero);
                forecast.spent = Some(Spent { reset });
                forecast.dimension = dimension;
                return Ok(forecast);
            }
        }
        #[cfg(feature = "fleet")]
        let by_others = self.spent_by_others(now).is_some();
        #[cfg(not(feature = "fleet"))]
        let by_others = false;
        if by_others || self.day.count.saturating_add(ahead.0) >= self.limits.rpd {
            forecast.not_before(self.day.ends_at, LimitKind::RequestsPerDay);
            forecast.spent = Some(Spent { reset: Some(self.day.ends_at) });
            return Ok(forecast);
        }
        let (requests, limit) = (self.window.requests(), self.limits.rpm);
        let at = self.turn(now, requests, limit, ahead.0 + 1, |over| self.window.freed(over, 0));
        forecast.not_before(at, LimitKind::RequestsPerMinute);
        let needed = ahead.1.saturating_add(u64::from(tokens));
        let (used, limit) = (self.window.tokens(), self.limits.tpm);
        let at = self.turn(now, used, limit, needed, |over| self.window.freed(0, over));
        forecast.not_before(at, of_tokens);
        if let Some(spans) = &self.spans {
            spans.forecast(now, ahead, (cost, tokens), &mut forecast).map_err(too_large)?;
        }
        Ok(forecast)
    }

    /// When the `nth` unit can be admitted. What is admitted comes free again a window later, so the pattern of the
    /// window repeats for ever.
    pub(super) fn turn(
        &self,
        now: Nanos,
        used: u64,
        limit: u64,
        nth: u64,
        freed: impl Fn(u64) -> Option<Freed>,
    ) -> Nanos {
        let Some(index) = nth.checked_sub(1).filter(|_| limit != NONE) else { return now };
        let over = (used + index % limit + 1).saturating_sub(limit);
        let first = if over == 0 { now } else { freed(over).map_or(now, |freed| freed.at) };
        first.saturating_add((index / limit).saturating_mul(self.rules.span))
    }

    /// The most tokens that one other request may take now without making `head`, which waits for tokens, wait any
    /// longer. `None` where nobody may go before it.
    pub(in crate::rate_limit) fn room_before(&self, head: Cost) -> Option<u64> {
        if self.spans.is_some() {
            // What others are counted for there might make it wait.
            return None;
        }
        let head = u64::from(self.fitted(head).ok()?);
        let (window, limits) = (&self.window, &self.limits);
        let over = (window.tokens() + head).saturating_sub(limits.tpm);
        let requests_over = (window.requests() + 1).saturating_sub(limits.rpm);
        let gone = window.freed(requests_over, over)?;
        if gone.at >= self.seen.saturating_add(self.rules.span) {
            // The head waits for what was admitted in this very instant; more of it makes no difference.
            return Some(NONE);
        }
        let two_more = (window.requests() - gone.requests).saturating_add(2) <= limits.rpm
            && self.day.count.saturating_add(2) <= limits.rpd;
        two_more.then(|| limits.tpm - (window.tokens() - gone.tokens) - head)
    }

    /// Input tokens that the window has room for now.
    pub(in crate::rate_limit) const fn free_tokens(&self) -> u64 {
        self.limits.tpm.saturating_sub(self.window.tokens())
    }

    /// What a request would be charged; more than any room where it is too large.
    pub(in crate::rate_limit) fn tokens_of(&self, cost: Cost) -> u64 {
        self.fitted(cost).map_or(NONE, u64::from)
    }
}
