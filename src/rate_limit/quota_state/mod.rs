//! What one key may do, and what it has done: the decision about one request. Pure.
//!
//! NOTE: this is the seam for a store that a fleet shares. Three calls decide everything about a key, each over all
//! its dimensions at once: [`admit`](QuotaState::admit), [`settle`](QuotaState::settle) and
//! [`close_until`](QuotaState::close_until). The queue and the layer above know nothing of windows and days.

mod check;
mod doors;
#[cfg(feature = "fleet")]
mod fleet;
mod learning;
mod ramp;
mod view;

use self::doors::Doors;
use self::ramp::Ramp;
use crate::rate_limit::day_count::DayCount;
use crate::rate_limit::decision::{Admission, Forecast, Receipt, Settlement, Spent, Trial, too_large};
use crate::rate_limit::estimate::{Cost, Ratio};
use crate::rate_limit::learnt::{Learnt, LearntLimits};
use crate::rate_limit::prices::Purse;
use crate::rate_limit::quota_update::QuotaUpdate;
use crate::rate_limit::spans::{Full, Spans};
use crate::rate_limit::window::{EntryId, Nanos, Window};
use crate::request::limits::{LimitKind, Limits};
use crate::tier::ServiceTier;
use crate::verdict::Usage;

/// No limit.
const NONE: u64 = u64::MAX;
/// So many windows after a 429 that our own count did not explain, strangers are thought to use the quota.
const STRANGERS: u64 = 10;

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
    doors: Doors,
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

/// Everything that was ever decided. `admitted` is the sum of the others and of what is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::rate_limit) struct Counts {
    pub(in crate::rate_limit) admitted: u64,
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
            doors: Doors::default(),
            ramp: None,
            strangers_until: 0,
            decided_after: 0,
            ratio: Ratio::default(),
            oversize: None,
            in_flight: 0,
            counts: Counts::default(),
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
    #[inline(always)]
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
            _ => {
                self.learnt.iter_mut().flatten().for_each(Learnt::deny);
                None
            }
        }
    }

    /// Whether strangers are thought to use the quota, too.
    pub(super) const fn has_strangers(&self, now: Nanos) -> bool {
        now < self.strangers_until
    }

    /// Charges a request that fits here; where a fleet shares the quota it needs a permit of that, too.
    #[inline(always)]
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
                    self.doors.return_probe(self.seen, receipt.probe);
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
        self.doors.shut(now, self.rules.probe_every, dimension, until, (spent, zero));
        self.refresh_plain();
    }

    fn refresh_plain(&mut self) {
        self.plain_from = if self.spans.is_some() { NONE } else { self.doors.closed_until };
    }

    // ===== what the three are made of =====

    /// Brings the window up to date; returns the latest instant seen.
    #[inline(always)]
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

    #[inline(always)]
    fn charge(&mut self, now: Nanos, cost: Cost, charged: u32, pass: Pass) -> Receipt {
        let entry = self.window.charge(now, charged);
        self.day.count += 1;
        self.in_flight += 1;
        self.counts.admitted += 1;
        if let Some(ramp) = &mut self.ramp {
            ramp.send(now);
        }
        let probe = if pass.probe { self.doors.number_probe(now, self.rules.probe_every) } else { 0 };
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

    // ===== by hand, and to look at =====

    fn open(&mut self) {
        self.doors.open();
        self.refresh_plain();
    }
}

/// Those whose learnt limits are tried.
const TRIED: [LimitKind; 3] =
    [LimitKind::RequestsPerMinute, LimitKind::InputTokensPerMinute, LimitKind::RequestsPerDay];

/// The dimensions whose learnt limits outlive a process.
pub(super) const LEARNT: [LimitKind; 3] =
    [LimitKind::RequestsPerMinute, LimitKind::InputTokensPerMinute, LimitKind::RequestsPerDay];

#[cfg(test)]
#[path = "../tests/quota_state.rs"]
mod tests;
