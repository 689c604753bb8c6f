//! What 429s teach: limits, how long a refusal takes, and trials of limits that may have been raised.

use super::ramp::Ramp;
use super::{
    InForce, LEARNT, Learnt, LearntLimits, LimitKind, Limits, NONE, Nanos, QuotaState, Receipt, Settlement,
    TRIED, Trial,
};

/// A call that was not refused within this many times what a refusal has taken was admitted by the server, at least and at
/// most such a part of a window after it was sent: some 60 ms and 5 s.
const DECIDED: u64 = 2;
const DECIDED_AFTER: (u64, u64) = (1024, 12);
/// The same where no 429 was seen, but another member of a fleet tells of one: about a second.
const DECIDED_ELSEWHERE: u64 = 64;

impl QuotaState {
    #[cold]
    pub(super) fn begin_trial(&mut self, now: Nanos, trial: Trial, tokens: u32) {
        let (decided_after, pressed) = (self.decided_after, trial.is_pressed());
        self.each_tried(trial, tokens, |learnt, amount| learnt.begin(now, amount, decided_after, pressed));
        self.refresh_times();
    }

    /// A call over a learnt limit is over, and was not answered.
    #[cold]
    pub(super) fn end_trial(&mut self, receipt: &Receipt, how: Settlement) {
        let (now, sent) = (self.seen, how != Settlement::NotSent);
        self.each_tried(receipt.trial, receipt.charged, |learnt, amount| learnt.ended(now, amount, sent));
    }

    pub(super) fn each_tried(&mut self, trial: Trial, tokens: u32, mut act: impl FnMut(&mut Learnt, u64)) {
        for dimension in TRIED.into_iter().filter(|dimension| trial.is_of(*dimension)) {
            let amount = if dimension == LimitKind::InputTokensPerMinute { u64::from(tokens) } else { 1 };
            if let Some(learnt) = &mut self.learnt[dimension as usize] {
                act(learnt, amount);
            }
        }
    }

    /// A probe of a day that was thought to be spent was answered: a learnt limit of it is tried on from there.
    pub(super) fn raise_day(&mut self) {
        let (count, tries) = (self.day.count, self.rules.margin == 1.0);
        let learnt = &mut self.learnt[LimitKind::RequestsPerDay as usize];
        let is_passed = |limit| tries && count > limit;
        if let Some(learnt) = learnt.as_mut().filter(|learnt| is_passed(learnt.limit())) {
            learnt.passed(count - learnt.limit());
            self.refresh();
        }
    }

    /// Whether a call that was refused for its tokens was alone, and larger than the limit by itself.
    pub(super) fn is_oversize(&self, receipt: &Receipt) -> bool {
        let charged = u64::from(receipt.charged);
        charged >= self.limits.tpm && self.window.tokens() <= charged
    }

    /// How long this 429 has taken says when a call that was sent would have been refused.
    pub(super) fn note_refusal(&mut self, now: Nanos, receipt: &Receipt) {
        let (least, most) = (self.rules.span / DECIDED_AFTER.0, self.rules.span / DECIDED_AFTER.1);
        let took = self.window.charged_at(receipt.entry).map_or(most, |at| now.saturating_sub(at));
        // Slowly down, so that a single quick one does not make the others late.
        let before = self.decided_after - self.decided_after / 4;
        self.decided_after = took.saturating_mul(DECIDED).clamp(least, most).max(before);
    }

    /// Batches from now on, the first of `most` calls.
    pub(super) fn ramp_of(&self, now: Nanos, most: u64, over_at: Nanos) -> Ramp {
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
    pub(super) fn learn(
        &mut self,
        now: Nanos,
        dimension: LimitKind,
        limit: Option<u64>,
        until: Option<Nanos>,
    ) {
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
    pub(super) fn raise(&mut self) {
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

    pub(super) fn refresh(&mut self) {
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

    pub(super) fn refresh_times(&mut self) {
        self.next_raise = if self.spans.is_some() { 0 } else { self.raise_at() };
    }

    /// When the first of the learnt limits may be raised.
    pub(super) fn raise_at(&self) -> Nanos {
        let tries = self.rules.margin == 1.0;
        let at = |learnt: &Learnt| if tries { learnt.credit_at() } else { Some(learnt.raise_at) };
        self.learnt.iter().flatten().filter_map(at).min().unwrap_or(NONE)
    }

    /// The limits that 429s have named, as they stand.
    pub(in crate::rate_limit) fn learnt(&self) -> LearntLimits {
        LEARNT.map(|dimension| self.learnt[dimension as usize].map(|learnt| learnt.limit()))
    }

    /// Takes over what a snapshot has learnt, where nothing was learnt since.
    pub(in crate::rate_limit) fn restore_learnt(&mut self, now: Nanos, learnt: LearntLimits) {
        for (dimension, limit) in LEARNT.into_iter().zip(learnt) {
            if limit.is_some() && self.rules.learn && self.learnt[dimension as usize].is_none() {
                self.learn(now, dimension, limit, None);
            }
        }
    }

    /// Whether a 429 taught a limit.
    pub(in crate::rate_limit) fn has_learnt(&self) -> bool {
        self.learnt.iter().any(Option::is_some)
    }
}
