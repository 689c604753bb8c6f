//! What one key may do, and what it has done: the decision about one request. Pure.
//!
//! NOTE: this is the seam for a store that a fleet shares. Three calls decide everything about a key, each over all
//! its dimensions at once: [`admit`](QuotaState::admit), [`settle`](QuotaState::settle) and
//! [`close_until`](QuotaState::close_until). The queue and the layer above know nothing of windows and days.

use std::time::Duration;

use super::day::Day;
use super::day_count::DayCount;
use super::decision::{Admission, Forecast, Receipt, Settlement, Spent, Trial, too_large};
use super::error::Refusal;
use super::estimate::{Cost, Ratio, Trust};
use super::learnt::{Learnt, LearntLimits};
use super::prices::Purse;
use super::quota_update::QuotaUpdate;
use super::spans::{Full, Spans};
use super::window::{EntryId, Freed, Nanos, Window};
use crate::request::limits::{LimitKind, Limits};
use crate::tier::ServiceTier;
use crate::verdict::Usage;

/// No limit.
const NONE: u64 = u64::MAX;
/// A learnt limit is tried within this part of a window after the last admission, when the server's count is as full as
/// ours. So long is also what a 429 may take.
const TELLING: u64 = 16;
/// A call that was not refused within this many times what a refusal has taken was admitted by the server, at least and at
/// most such a part of a window after it was sent: some 60 ms and 5 s.
const DECIDED: u64 = 2;
const DECIDED_AFTER: (u64, u64) = (1024, 12);
/// So many windows after a 429 that our own count did not explain, strangers are thought to use the quota.
const STRANGERS: u64 = 10;
/// The same where no 429 was seen, but another member of a fleet tells of one: about a second.
const DECIDED_ELSEWHERE: u64 = 64;

/// The settings of a key that do not change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// The window and its guard band.
    pub(super) span: Nanos,
    pub(super) margin: f64,
    pub(super) learn: bool,
    /// How often a call may test a closed door.
    pub(super) probe_every: Nanos,
    /// How long after midnight the new day begins.
    pub(super) guard: Nanos,
}

#[derive(Debug)]
pub(super) struct QuotaState {
    rules: Rules,
    window: Window,
    /// Limits over other spans.
    spans: Option<Box<Spans>>,
    purse: Option<Purse>,
    configured: Limits,
    /// What 429s taught, by dimension.
    learnt: [Option<Learnt>; LimitKind::COUNT],
    /// When the first of them may be raised: trials of it have passed, or it has stood for an hour under a margin. Always, where
    /// there are windows of other spans to be looked after.
    next_raise: Nanos,
    /// From when on a request that fits the limits need not be looked at closely: nothing is closed any longer. Never, where there
    /// are windows of other spans.
    plain_from: Nanos,
    limits: InForce,
    day: DayCount,
    closed: [Option<Closed>; LimitKind::COUNT],
    /// The latest `until` of them: nothing is closed from then on.
    closed_until: Nanos,
    ramp: Option<Ramp>,
    /// Until when strangers are thought to use the quota as well: ten windows after a 429 that our own count did not explain.
    strangers_until: Nanos,
    /// How long after it went a call would have been refused, judging by the last 429s.
    decided_after: Nanos,
    ratio: Ratio,
    /// A guess that was refused although it was alone in the window.
    oversize: Option<u32>,
    /// Admitted, and not settled or answered yet.
    in_flight: u64,
    counts: Counts,
    /// Probes that were let out.
    probes: u16,
    /// The latest instant that this key has seen. Threads read the clock before they take the lock, so one of
    /// them may come with an older reading.
    seen: Nanos,
    /// Where a fleet shares the quota: its permits.
    #[cfg(feature = "fleet")]
    pub(super) supply: Option<Box<crate::fleet::Supply>>,
    /// Until when the fleet's day is spent, as far as the store has said.
    #[cfg(feature = "fleet")]
    day_spent_until: Nanos,
}

/// The limits as they are applied: the share of the configured ones, lowered by the learnt. [`NONE`] is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InForce {
    rpm: u64,
    tpm: u64,
    rpd: u64,
}

/// Whether a request may go over a learnt limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tries {
    Never,
    /// It is its turn.
    InTurn,
    /// It would be refused otherwise.
    Pressed,
}

/// How a request is let through.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    /// Through a closed door.
    probe: bool,
    /// Over a learnt limit.
    trial: Trial,
}

/// A dimension that a 429 closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    pub(super) until: Nanos,
    /// From here on one call may try.
    pub(super) probe_at: Nanos,
    /// Which call tried last, by its probe's number. It gives the turn back if it was not sent after all.
    pub(super) asked: u16,
    /// Nobody waits for it who has no deadline behind it: a spent day, a quota of zero.
    pub(super) spent: bool,
    /// Nobody knows when it ends.
    pub(super) zero: bool,
}

/// After a 429 that our own count does not explain: how many may go at once. Somebody else uses the same quota, or its
/// limit is not known, and what waited for the reopening must not be sent in one burst.
///
/// Calls go in batches, each twice as large as the one before, up to a twelfth of the limit where one is known: so many can
/// be refused at once, and so many go in each [`DECIDED_AFTER`] without a ramp. A batch is over when the last of it would have been
/// refused by now: a quota decides when a call arrives, and what an answer takes after that says nothing of it.
#[derive(Clone, Copy, Debug)]
struct Ramp {
    /// The size of the batch.
    most: u64,
    /// The most that it grows to.
    largest: u64,
    /// How many of it have gone and are undecided.
    sent: u64,
    /// When the last of them went.
    sent_at: Nanos,
    /// How long after it went a call would have been refused.
    decided_after: Nanos,
    /// The first entry of the window that its calls can have.
    first: EntryId,
    over_at: Nanos,
}

impl Ramp {
    /// Until when the next call waits; `None` where it may go.
    fn holds_until(&self, now: Nanos) -> Option<Nanos> {
        let decided_at = self.sent_at.saturating_add(self.decided_after);
        (self.sent >= self.most && now < decided_at).then(|| decided_at.min(self.over_at))
    }

    /// A call goes.
    fn send(&mut self, now: Nanos) {
        if self.sent >= self.most {
            (self.most, self.sent) = (self.most.saturating_mul(2).min(self.largest), 0);
        }
        self.sent += 1;
        self.sent_at = now;
    }
}

/// Everything that was ever decided. `admitted` is the sum of the others and of what is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) admitted: u64,
    pub(super) settled: u64,
    pub(super) not_sent: u64,
    pub(super) too_many: u64,
}

impl QuotaState {
    #[cfg(test)]
    pub(super) fn new(rules: Rules, configured: Limits, now: Nanos) -> Self {
        Self::with_prices(rules, configured, None, now)
    }

    /// With what tells the money that calls cost.
    pub(super) fn with_prices(rules: Rules, configured: Limits, purse: Option<Purse>, now: Nanos) -> Self {
        let day = DayCount::new(now);
        let mut ledger = Self {
            rules,
            window: Window::new(rules.span),
            spans: Spans::new(&configured.share(rules.margin), rules.guard, purse.clone()),
            purse,
            configured,
            learnt: [None; LimitKind::COUNT],
            next_raise: NONE,
            plain_from: 0,
            limits: InForce { rpm: NONE, tpm: NONE, rpd: NONE },
            day,
            closed: [None; LimitKind::COUNT],
            closed_until: 0,
            ramp: None,
            strangers_until: 0,
            decided_after: 0,
            ratio: Ratio::default(),
            oversize: None,
            in_flight: 0,
            counts: Counts::default(),
            probes: 0,
            seen: now,
            #[cfg(feature = "fleet")]
            supply: None,
            #[cfg(feature = "fleet")]
            day_spent_until: 0,
        };
        ledger.refresh_plain();
        ledger.refresh();
        ledger
    }

    // ===== the three calls =====

    /// Admits one request and charges it to every dimension, or charges nothing and says when to ask again.
    #[inline]
    pub(super) fn admit(&mut self, now: Nanos, cost: Cost) -> Admission {
        let now = self.tick(now);
        match self.check(now, cost, Tries::InTurn) {
            Ok((tokens, pass)) => self.charge_fleet(now, cost, tokens, pass),
            Err(refused) => refused,
        }
    }

    /// As [`admit`](Self::admit), and never over a learnt limit: for those who may go before their turn.
    pub(super) fn admit_within(&mut self, now: Nanos, cost: Cost) -> Admission {
        let now = self.tick(now);
        match self.check(now, cost, Tries::Never) {
            Ok((tokens, pass)) => self.charge_fleet(now, cost, tokens, pass),
            Err(refused) => refused,
        }
    }

    /// Lets a request that would be refused over a learnt limit, where that has not been tried for a while.
    pub(super) fn try_over(&mut self, now: Nanos, cost: Cost) -> Option<Receipt> {
        let now = self.tick(now);
        match self.check(now, cost, Tries::Pressed) {
            Ok((tokens, pass)) if pass.trial.is_any() => match self.charge_fleet(now, cost, tokens, pass) {
                Admission::Granted(receipt) => Some(receipt),
                _ => None,
            },
            _ => None,
        }
    }

    /// Charges a request that fits here; where a fleet shares the quota it needs a permit of that, too.
    #[inline]
    fn charge_fleet(&mut self, now: Nanos, cost: Cost, tokens: u32, pass: Pass) -> Admission {
        #[cfg(feature = "fleet")]
        if let Some(supply) = &mut self.supply {
            if let Some(Err((until, dimension))) =
                self.spans.as_mut().map(|spans| spans.has_permits(now, cost, tokens))
            {
                // It is asked for after the other, and not before that is there.
                let until = if supply.has_permit(now, tokens) { until } else { until.max(supply.next(now)) };
                return Admission::Wait { until, dimension, spent: None };
            }
            let Some(permit) = supply.admit(now, tokens, pass.probe) else {
                let until = supply.next(now);
                return match self.spent_by_others(now) {
                    Some(spent) => {
                        let until = self.day.ends_at;
                        Admission::Wait { until, dimension: LimitKind::RequestsPerDay, spent: Some(spent) }
                    }
                    None => Admission::Wait { until, dimension: LimitKind::RequestsPerMinute, spent: None },
                };
            };
            let mut receipt = self.charge(now, cost, tokens, pass);
            receipt.permit = permit;
            return Admission::Granted(receipt);
        }
        Admission::Granted(self.charge(now, cost, tokens, pass))
    }

    /// Corrects what was charged, now that the call is over. Returns whether somebody who waits may go because of it.
    #[inline]
    pub(super) fn settle(&mut self, receipt: Receipt, how: Settlement) -> bool {
        let charged = receipt.charged;
        let (tokens, keep_request, keep_day) = match how {
            Settlement::NotSent => (0, false, false),
            Settlement::Unknown => (charged, true, true),
            Settlement::Used { input_tokens } => {
                self.ratio.learn(receipt.raw, input_tokens);
                (u32::try_from(input_tokens).unwrap_or(u32::MAX), true, true)
            }
            Settlement::Refused => (0, true, true),
            // What was over the limit was not counted, or the limit would be overstepped for a minute to come.
            Settlement::TooMany => (0, !receipt.was_over && !receipt.trial.is_foreign(), false),
        };
        let mut has_room = false;
        if receipt.trial.is_special() {
            has_room = self.end_special(&receipt, how);
        }
        match how {
            Settlement::NotSent => {
                self.counts.not_sent += 1;
                self.decide(receipt.entry, false);
                if receipt.is_probe() {
                    self.return_probe(receipt.probe);
                }
            }
            Settlement::TooMany => self.counts.too_many += 1,
            _ => self.counts.settled += 1,
        }
        #[cfg(feature = "fleet")]
        let is_corrected = tokens != charged || !keep_request || !keep_day;
        #[cfg(feature = "fleet")]
        if let Some(supply) = self.supply.as_mut().filter(|_| is_corrected) {
            supply.settle(self.seen, receipt.permit, charged, tokens, keep_request, keep_day);
        }
        if tokens != charged || !keep_request {
            self.window.correct(receipt.entry, charged, tokens, keep_request);
        }
        if !keep_day && receipt.day == self.day.number as u16 {
            self.day.count = self.day.count.saturating_sub(1);
        }
        if receipt.counted {
            self.in_flight -= 1;
        }
        has_room || tokens != charged || !keep_request || !keep_day || self.ramp.is_some()
    }

    /// A 429: closes `dimension`, and learns its limit where the answer named one. `receipt` is that of the refused
    /// call, which is still charged.
    ///
    /// Returns whether the call went over a learnt limit, on purpose or because that had seemed to be higher: then the log
    /// alone holds others back, and no door is closed.
    pub(super) fn close_until(&mut self, now: Nanos, receipt: &mut Receipt, lesson: QuotaUpdate) -> bool {
        let now = self.tick(now);
        let QuotaUpdate { dimension, limit, until, spent, zero } = lesson;
        self.note_refusal(now, receipt);
        let sent = self.window.charged_at(receipt.entry);
        let misled = self.learnt[dimension as usize]
            .is_some_and(|learnt| sent.is_some_and(|sent| learnt.has_misled(sent)));
        if self.rules.learn && !zero {
            self.learn(now, dimension, limit.filter(|limit| *limit > 0), until);
        }
        if receipt.trial.is_of(dimension) && dimension != LimitKind::RequestsPerDay {
            // It was over the limit on purpose, and says no more than that the limit holds.
            return true;
        }
        if receipt.trial.is_any() && dimension == LimitKind::Other && !spent {
            for tried in TRIED.into_iter().filter(|tried| receipt.trial.is_of(*tried)) {
                self.learn(now, tried, None, until);
            }
            return true;
        }
        // One prompt larger than the limit itself closes the door to nobody else.
        if dimension == LimitKind::InputTokensPerMinute && self.is_oversize(receipt) {
            self.oversize = Some(receipt.raw);
            return false;
        }
        let explained = match dimension {
            LimitKind::RequestsPerMinute => self.window.requests() >= self.limits.rpm,
            LimitKind::InputTokensPerMinute => self.ratio.at_most(self.window.tokens()) >= self.limits.tpm,
            LimitKind::RequestsPerDay => true,
            _ => spent,
        };
        if misled && explained && dimension != LimitKind::RequestsPerDay {
            return true;
        }
        if !explained {
            self.strangers_until = now.saturating_add(STRANGERS * self.rules.span);
            // Others have filled the quota, and a call on top of a full one is not counted by the server. Where it is, the
            // next 429 says so; were it counted here where it is not, polling would use up our own share. A configured limit
            // is one of calls, refused or not.
            if self.configured.rpm.is_none() {
                receipt.trial = receipt.trial.foreign();
            }
            let most = if until.is_some() { 1 } else { (self.in_flight / 2).max(1) };
            let over_at = until.unwrap_or(now).saturating_add(self.rules.span);
            let most = self.ramp.map_or(most, |ramp| ramp.most.min(most));
            self.ramp = Some(self.ramp_of(now, most, over_at));
        }
        #[cfg(feature = "fleet")]
        self.tell_closed(now, lesson, !explained);
        let Some(until) = until else { return false };
        self.shut(now, dimension, until, (spent, zero));
        false
    }

    fn shut(&mut self, now: Nanos, dimension: LimitKind, until: Nanos, (spent, zero): (bool, bool)) {
        let every = self.rules.probe_every;
        let slot = &mut self.closed[dimension as usize];
        let until = slot.map_or(until, |closed| closed.until.max(until));
        let probe_at = until.min(now.saturating_add(every));
        *slot = Some(Closed { until, probe_at, asked: 0, spent, zero });
        self.closed_until = self.closed_until.max(until);
        self.refresh_plain();
    }

    fn refresh_plain(&mut self) {
        self.plain_from = if self.spans.is_some() { NONE } else { self.closed_until };
    }

    // ===== what the three are made of =====

    /// Brings the window up to date; returns the latest instant seen.
    #[inline]
    fn tick(&mut self, now: Nanos) -> Nanos {
        self.seen = self.seen.max(now);
        self.window.expire(self.seen);
        if self.seen >= self.next_raise {
            self.tick_rare();
        }
        if self.ramp.is_some_and(|ramp| ramp.over_at <= self.seen) {
            self.ramp = None;
        }
        self.seen
    }

    #[cold]
    fn tick_rare(&mut self) {
        if let Some(spans) = &mut self.spans {
            spans.expire(self.seen);
        }
        if self.seen >= self.raise_at() {
            self.raise();
        }
    }

    /// Whether this request fits now; if so, what it is charged and whether it is a probe.
    #[inline]
    fn check(&self, now: Nanos, cost: Cost, tries: Tries) -> Result<(u32, Pass), Admission> {
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
    fn check_spans(&self, cost: Cost, tokens: u32, pass: Pass) -> Result<Pass, Admission> {
        let Some(spans) = &self.spans else { return Ok(pass) };
        match spans.check(cost, tokens) {
            Ok(()) => Ok(Pass { trial: pass.trial.in_spans(), ..pass }),
            Err(Full::TooLarge(dimension)) => Err(Admission::TooLarge(dimension)),
            Err(Full::Until { at, dimension, spent }) => Err(Admission::Wait { until: at, dimension, spent }),
        }
    }

    /// Of a request that is larger than the limit by itself: whether a learnt limit may be tried with it.
    #[cold]
    fn check_larger(&self, now: Nanos, cost: Cost, tries: Tries) -> Option<(u32, Pass)> {
        let tokens = cost.corrected(&self.ratio);
        let open = now >= self.closed_until && self.ramp.is_none() && self.day.count < self.limits.rpd;
        let fits = open && self.window.requests() < self.limits.rpm;
        let dimension = LimitKind::InputTokensPerMinute;
        let may_try = fits && self.may_try(now, dimension, u64::from(tokens), true, tries);
        let trial = Trial::of(dimension).of_pressed(tries == Tries::Pressed);
        let pass = may_try.then_some(Pass { probe: false, trial })?;
        self.check_spans(cost, tokens, pass).ok().map(|pass| (tokens, pass))
    }

    /// Whether this is the moment to try a learnt limit: a success says something, and the caller of a call that is
    /// refused does not miss its turn meanwhile.
    fn is_telling(&self, now: Nanos) -> bool {
        let while_refused = self.rules.span / TELLING;
        if now.saturating_sub(self.window.newest_at()) > while_refused {
            return false;
        }
        let back = now.saturating_add(while_refused);
        let next = |from| self.window.freed_from(from).unwrap_or(NONE);
        next(now) >= back || next(back) <= back.saturating_add(2 * while_refused)
    }

    /// Whether a call may go over the limit of this dimension, because a 429 taught it and it may have been raised.
    fn may_try(&self, now: Nanos, dimension: LimitKind, amount: u64, telling: bool, tries: Tries) -> bool {
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
    fn fitted(&self, cost: Cost) -> Result<u32, Admission> {
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
    fn check_closely(&self, now: Nanos, tokens: u32, tries: Tries) -> Result<Pass, Admission> {
        let wait = |until, dimension, spent| Err(Admission::Wait { until, dimension, spent });
        let (mut probe, mut trial) = (false, Trial::default());
        for dimension in DIMENSIONS {
            let Some(closed) = self.closed[dimension as usize].filter(|closed| now < closed.until) else {
                continue;
            };
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
    pub(super) fn spent(&mut self, now: Nanos) -> Option<(LimitKind, Spent)> {
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
    pub(super) fn forecast(&self, now: Nanos, ahead: (u64, u64), cost: Cost) -> Result<Forecast, Refusal> {
        let of_tokens = LimitKind::InputTokensPerMinute;
        let Ok(tokens) = self.fitted(cost) else { return Err(too_large(of_tokens)) };
        let mut forecast = Forecast { at: now, dimension: LimitKind::Other, tokens, spent: None };
        for (dimension, closed) in self.closed(now) {
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
    fn turn(
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
    pub(super) fn room_before(&self, head: Cost) -> Option<u64> {
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
    pub(super) const fn free_tokens(&self) -> u64 {
        self.limits.tpm.saturating_sub(self.window.tokens())
    }

    /// What a request would be charged; more than any room where it is too large.
    pub(super) fn tokens_of(&self, cost: Cost) -> u64 {
        self.fitted(cost).map_or(NONE, u64::from)
    }

    #[inline]
    fn charge(&mut self, now: Nanos, cost: Cost, charged: u32, pass: Pass) -> Receipt {
        let entry = self.window.charge(now, charged);
        self.day.count += 1;
        self.in_flight += 1;
        self.counts.admitted += 1;
        if let Some(ramp) = &mut self.ramp {
            ramp.send(now);
        }
        let probe = if pass.probe { self.number_probe(now) } else { 0 };
        let mut wants_usage = self.limits.tpm != NONE;
        let mut spans = 0;
        if pass.trial.is_special() {
            spans = self.begin_special(now, pass.trial, cost, charged);
            wants_usage |= self.spans.as_ref().is_some_and(|spans| spans.wants_usage());
        }
        let day = self.day.number as u16;
        let trial = pass.trial;
        Receipt {
            entry,
            charged,
            raw: cost.tokens,
            day,
            probe,
            spans,
            waited: 0,
            counted: true,
            wants_usage,
            #[cfg(feature = "fleet")]
            permit: 0,
            was_over: false,
            trial,
        }
    }

    #[cold]
    fn begin_special(&mut self, now: Nanos, trial: Trial, cost: Cost, charged: u32) -> u32 {
        if trial.is_any() {
            self.begin_trial(now, trial, charged);
        }
        self.spans.as_mut().map_or(0, |spans| spans.charge(now, cost, charged))
    }

    /// Returns whether there is room in the windows of other spans.
    #[cold]
    fn end_special(&mut self, receipt: &Receipt, how: Settlement) -> bool {
        if receipt.trial.is_any() {
            self.end_trial(receipt, how);
        }
        self.spans.as_mut().is_some_and(|spans| spans.settle(self.seen, receipt.spans, how))
    }

    /// What a call has used, before it is settled, by the model and the tier that answered. Matters only where
    /// [`is_in_spans`](Trial::is_in_spans).
    pub(super) fn bill(
        &mut self,
        receipt: &Receipt,
        usage: &Usage,
        model: Option<&str>,
        tier: Option<ServiceTier>,
    ) {
        if let Some(spans) = &mut self.spans {
            spans.bill(receipt.spans, usage, model, tier);
        }
    }

    #[cold]
    fn begin_trial(&mut self, now: Nanos, trial: Trial, tokens: u32) {
        let (decided_after, pressed) = (self.decided_after, trial.is_pressed());
        self.each_tried(trial, tokens, |learnt, amount| learnt.begin(now, amount, decided_after, pressed));
        self.refresh_times();
    }

    /// A call over a learnt limit is over, and was not answered.
    #[cold]
    fn end_trial(&mut self, receipt: &Receipt, how: Settlement) {
        let (now, sent) = (self.seen, how != Settlement::NotSent);
        self.each_tried(receipt.trial, receipt.charged, |learnt, amount| learnt.ended(now, amount, sent));
    }

    fn each_tried(&mut self, trial: Trial, tokens: u32, mut act: impl FnMut(&mut Learnt, u64)) {
        for dimension in TRIED.into_iter().filter(|dimension| trial.is_of(*dimension)) {
            let amount = if dimension == LimitKind::InputTokensPerMinute { u64::from(tokens) } else { 1 };
            if let Some(learnt) = &mut self.learnt[dimension as usize] {
                act(learnt, amount);
            }
        }
    }

    #[cold]
    fn number_probe(&mut self, now: Nanos) -> u16 {
        // Zero is no probe.
        self.probes = self.probes.checked_add(1).unwrap_or(1);
        for closed in self.closed.iter_mut().flatten() {
            closed.probe_at = closed.until.min(now.saturating_add(self.rules.probe_every));
            closed.asked = self.probes;
        }
        self.probes
    }

    /// A probe that was not sent gives its turn back, unless somebody else has had one, or the door was closed anew,
    /// since then.
    #[cold]
    fn return_probe(&mut self, probe: u16) {
        let seen = self.seen;
        for closed in self.closed.iter_mut().flatten().filter(|closed| closed.asked == probe) {
            closed.probe_at = closed.probe_at.min(seen);
        }
    }

    /// Charges an admitted call anew, because it is sent only now.
    pub(super) fn restamp(&mut self, now: Nanos, receipt: &mut Receipt) {
        let now = self.tick(now);
        self.window.correct(receipt.entry, receipt.charged, 0, false);
        receipt.entry = self.window.charge(now, receipt.charged);
        if receipt.trial.is_in_spans() {
            self.restamp_spans(now, receipt.spans);
        }
        #[cfg(feature = "fleet")]
        if let Some(supply) = &mut self.supply {
            receipt.permit = supply.restamp(now, receipt.permit, receipt.charged);
        }
    }

    #[cold]
    fn restamp_spans(&mut self, now: Nanos, number: u32) {
        if let Some(spans) = &mut self.spans {
            spans.restamp(now, number);
        }
    }

    /// The head of a good answer has come: the ramp and a probe learn from it before the body is over.
    pub(super) fn answered(&mut self, now: Nanos, receipt: &mut Receipt) {
        self.tick(now);
        if std::mem::take(&mut receipt.counted) {
            self.in_flight -= 1;
        }
        self.decide(receipt.entry, true);
        if std::mem::take(&mut receipt.probe) != 0 {
            // It was let through a closed door, and was welcome.
            self.reopen();
            self.raise_day();
        }
        let trial = receipt.trial;
        receipt.trial = trial.over();
        if trial.is_any() {
            self.each_tried(trial, receipt.charged, Learnt::passed);
            self.refresh();
        }
    }

    /// A call of the ramp's is decided before its time: it was answered, or was not sent.
    fn decide(&mut self, entry: EntryId, answered: bool) {
        if let Some(ramp) = self.ramp.as_mut().filter(|ramp| entry >= ramp.first) {
            ramp.sent = ramp.sent.saturating_sub(1);
            ramp.most = (ramp.most + u64::from(answered)).min(ramp.largest);
        }
    }

    /// A probe of a day that was thought to be spent was answered: a learnt limit of it is tried on from there.
    fn raise_day(&mut self) {
        let (count, tries) = (self.day.count, self.rules.margin == 1.0);
        let learnt = &mut self.learnt[LimitKind::RequestsPerDay as usize];
        let is_passed = |limit| tries && count > limit;
        if let Some(learnt) = learnt.as_mut().filter(|learnt| is_passed(learnt.limit())) {
            learnt.passed(count - learnt.limit());
            self.refresh();
        }
    }

    /// Whether [`answered`](Self::answered) has anything to learn.
    pub(super) const fn is_attentive(&self) -> bool {
        self.ramp.is_some()
    }

    /// The window and its guard band.
    pub(super) const fn span(&self) -> Nanos {
        self.rules.span
    }

    /// How long ago a call was sent, at most a window.
    pub(super) fn age(&self, now: Nanos, receipt: &Receipt) -> Duration {
        let age = self.window.charged_at(receipt.entry).map(|at| now.saturating_sub(at));
        Duration::from_nanos(age.unwrap_or(self.rules.span))
    }

    /// Whether a call that was refused for its tokens was alone, and larger than the limit by itself.
    fn is_oversize(&self, receipt: &Receipt) -> bool {
        let charged = u64::from(receipt.charged);
        charged >= self.limits.tpm && self.window.tokens() <= charged
    }

    /// How long this 429 has taken says when a call that was sent would have been refused.
    fn note_refusal(&mut self, now: Nanos, receipt: &Receipt) {
        let (least, most) = (self.rules.span / DECIDED_AFTER.0, self.rules.span / DECIDED_AFTER.1);
        let took = self.window.charged_at(receipt.entry).map_or(most, |at| now.saturating_sub(at));
        // Slowly down, so that a single quick one does not make the others late.
        let before = self.decided_after - self.decided_after / 4;
        self.decided_after = took.saturating_mul(DECIDED).clamp(least, most).max(before);
    }

    /// Batches from now on, the first of `most` calls.
    fn ramp_of(&self, now: Nanos, most: u64, over_at: Nanos) -> Ramp {
        let first = self.window.next_id();
        let decided_after =
            if self.decided_after == 0 { self.rules.span / DECIDED_ELSEWHERE } else { self.decided_after };
        // As many as go in that time at the pace of the last window, and half of what was too many last time.
        let pace = self.window.requests() * decided_after / self.rules.span + 1;
        let halved = self.ramp.map_or(NONE, |ramp| (ramp.most / 2).max(pace));
        let largest = (self.limits.rpm / DECIDED_AFTER.1).min(halved).max(most);
        Ramp { most, largest, sent: 0, sent_at: now, decided_after, first, over_at }
    }

    /// `limit` is `None` where a 429 speaks of the dimension without a number.
    fn learn(&mut self, now: Nanos, dimension: LimitKind, limit: Option<u64>, until: Option<Nanos>) {
        let (span, calls) = (self.rules.span, self.window.requests());
        match (&mut self.learnt[dimension as usize], limit) {
            (Some(learnt), _) => learnt.name(now, limit, until, (span, calls), now < self.strangers_until),
            (learnt, Some(limit)) => *learnt = Some(Learnt::new(now, limit, until, span, calls)),
            (None, None) => return,
        }
        self.refresh();
    }

    /// Under a margin a learnt limit is not tried, so a tenth more is taken each hour in which nothing contradicted.
    /// Without one, trials that would have been refused by now have passed.
    #[cold]
    fn raise(&mut self) {
        let (now, tries) = (self.seen, self.rules.margin == 1.0);
        for learnt in self.learnt.iter_mut().flatten() {
            if tries {
                learnt.credit(now);
            } else if learnt.raise_at <= now {
                learnt.raise(now);
            }
        }
        self.refresh();
    }

    fn refresh(&mut self) {
        let known = |configured: Option<u64>, learnt: Option<Learnt>| match (configured, learnt) {
            (Some(configured), Some(learnt)) => Some(configured.min(learnt.limit())),
            (configured, learnt) => configured.or(learnt.map(|learnt| learnt.limit())),
        };
        let learnt = |dimension: LimitKind| self.learnt[dimension as usize];
        let known = Limits {
            rpm: known(self.configured.rpm, learnt(LimitKind::RequestsPerMinute)),
            tpm: known(self.configured.tpm, learnt(LimitKind::InputTokensPerMinute)),
            rpd: known(self.configured.rpd, learnt(LimitKind::RequestsPerDay)),
            ..Limits::new()
        };
        let share = known.share(self.rules.margin);
        self.limits = InForce {
            rpm: share.rpm.unwrap_or(NONE),
            tpm: share.tpm.unwrap_or(NONE),
            rpd: share.rpd.unwrap_or(NONE),
        };
        self.refresh_times();
    }

    fn refresh_times(&mut self) {
        self.next_raise = if self.spans.is_some() { 0 } else { self.raise_at() };
    }

    /// When the first of the learnt limits may be raised.
    fn raise_at(&self) -> Nanos {
        let tries = self.rules.margin == 1.0;
        let at = |learnt: &Learnt| if tries { learnt.credit_at() } else { Some(learnt.raise_at) };
        self.learnt.iter().flatten().filter_map(at).min().unwrap_or(NONE)
    }

    // ===== the day =====

    /// Whether the calendar must be looked at before the next decision.
    #[inline]
    pub(super) const fn is_day_due(&self, now: Nanos) -> bool {
        now >= self.day.look_at
    }

    /// What the calendar says.
    pub(super) fn set_day(&mut self, now: Nanos, day: Day) {
        if self.day.set(now, day, self.rules.guard) {
            // The end of the day was predicted; here it is, also where the calendar has leapt.
            let spent = &mut self.closed[LimitKind::RequestsPerDay as usize];
            *spent = spent.filter(|closed| closed.zero);
        }
    }

    /// The limits that 429s have named, as they stand.
    pub(super) fn learnt(&self) -> LearntLimits {
        LEARNT.map(|dimension| self.learnt[dimension as usize].map(|learnt| learnt.limit()))
    }

    /// Takes over what a snapshot has learnt, where nothing was learnt since.
    pub(super) fn restore_learnt(&mut self, now: Nanos, learnt: LearntLimits) {
        for (dimension, limit) in LEARNT.into_iter().zip(learnt) {
            if limit.is_some() && self.rules.learn && self.learnt[dimension as usize].is_none() {
                self.learn(now, dimension, limit, None);
            }
        }
    }

    /// Adds what a snapshot counted today, once however often it is told.
    pub(super) fn restore(&mut self, count: u64) {
        self.day.restore(count);
    }

    /// When the new day begins, as far as the calendar was looked at.
    pub(super) const fn day_ends_at(&self) -> Nanos {
        self.day.ends_at
    }

    pub(super) const fn today(&self) -> Option<(jiff::civil::Date, u64)> {
        self.day.today()
    }

    // ===== by hand, and to look at =====

    /// Other limits, from now on. What was learnt is forgotten: the new ones are thought to be right.
    pub(super) fn configure(&mut self, limits: Limits) {
        #[cfg(feature = "fleet")]
        self.configure_fleet(limits);
        self.configured = limits;
        let share = limits.share(self.rules.margin);
        match &mut self.spans {
            Some(spans) => spans.configure(&share, self.rules.guard),
            None => self.spans = Spans::new(&share, self.rules.guard, self.purse.clone()),
        }
        self.refresh_plain();
        self.learnt = [None; LimitKind::COUNT];
        self.oversize = None;
        self.refresh();
    }

    /// Opens every door that a 429 closed.
    pub(super) fn reopen(&mut self) {
        #[cfg(feature = "fleet")]
        self.tell_opened();
        self.open();
    }

    fn open(&mut self) {
        self.closed = [None; LimitKind::COUNT];
        self.closed_until = 0;
        self.refresh_plain();
    }

    /// The doors that are closed at this instant.
    pub(super) fn closed(&self, now: Nanos) -> impl Iterator<Item = (LimitKind, Closed)> {
        DIMENSIONS.into_iter().filter_map(move |dimension| {
            let closed = self.closed[dimension as usize]?;
            (now < closed.until).then_some((dimension, closed))
        })
    }

    /// The limits in force.
    pub(super) fn limits(&self) -> Limits {
        let limit = |n: u64| Some(n).filter(|n| *n != NONE);
        let spans = self.configured.share(self.rules.margin);
        Limits {
            rpm: limit(self.limits.rpm),
            tpm: limit(self.limits.tpm),
            rpd: limit(self.limits.rpd),
            ..spans
        }
    }

    /// The windows of other spans.
    pub(super) fn spans(&self) -> Vec<super::spans::SpanState> {
        self.spans.as_ref().map_or_else(Vec::new, |spans| spans.states().collect())
    }

    pub(super) const fn window(&self) -> &Window {
        &self.window
    }

    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) const fn ratio(&self) -> &Ratio {
        &self.ratio
    }

    /// Brings the sums up to date for somebody who looks.
    pub(super) fn look(&mut self, now: Nanos) -> Nanos {
        self.tick(now)
    }

    /// Whether a 429 taught a limit.
    pub(super) fn has_learnt(&self) -> bool {
        self.learnt.iter().any(Option::is_some)
    }

    /// Whether forgetting this key would lose nothing but what one 429 teaches anew.
    pub(super) fn is_idle(&self, now: Nanos) -> bool {
        let day_counts = self.day.count > 0 && self.limits.rpd != NONE && now < self.day.ends_at;
        #[cfg(feature = "fleet")]
        let day_counts = day_counts || self.supplies_of().any(|supply| !supply.is_idle(now));
        let empty_at = self.spans.as_ref().map_or(0, |spans| spans.empty_at()).max(self.window.empty_at());
        now >= empty_at && now >= self.closed_until && self.in_flight == 0 && !day_counts
    }
}

/// Those whose learnt limits are tried.
const TRIED: [LimitKind; 3] =
    [LimitKind::RequestsPerMinute, LimitKind::InputTokensPerMinute, LimitKind::RequestsPerDay];

/// The dimensions whose learnt limits outlive a process.
pub(super) const LEARNT: [LimitKind; 3] =
    [LimitKind::RequestsPerMinute, LimitKind::InputTokensPerMinute, LimitKind::RequestsPerDay];

const DIMENSIONS: [LimitKind; LimitKind::COUNT] = [
    LimitKind::RequestsPerDay,
    LimitKind::Spend,
    LimitKind::Other,
    LimitKind::InputTokensPerMinute,
    LimitKind::RequestsPerMinute,
];

#[cfg(feature = "fleet")]
#[path = "quota_state_fleet.rs"]
mod fleet;

#[cfg(test)]
#[path = "tests/quota_state.rs"]
mod tests;
