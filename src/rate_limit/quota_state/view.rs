//! What is set from outside, by hand, by the calendar or a snapshot, and what a key's state looks like.

use std::time::Duration;

use super::doors::Closed;
use super::{Counts, LimitKind, Limits, NONE, Nanos, QuotaState, Ratio, Receipt, Window};
use crate::rate_limit::day::Day;
use crate::rate_limit::spans::{SpanState, Spans};

impl QuotaState {
    /// Whether [`answered`](Self::answered) has anything to learn.
    pub(in crate::rate_limit) const fn is_attentive(&self) -> bool {
        self.ramp.is_some()
    }

    /// The window and its guard band.
    pub(in crate::rate_limit) const fn span(&self) -> Nanos {
        self.rules.span
    }

    /// How long ago a call was sent, at most a window.
    pub(in crate::rate_limit) fn age(&self, now: Nanos, receipt: &Receipt) -> Duration {
        let age = self.window.charged_at(receipt.entry).map(|at| now.saturating_sub(at));
        Duration::from_nanos(age.unwrap_or(self.rules.span))
    }

    /// When the new day begins, as far as the calendar was looked at.
    pub(in crate::rate_limit) const fn day_ends_at(&self) -> Nanos {
        self.day.ends_at
    }

    pub(in crate::rate_limit) const fn today(&self) -> Option<(jiff::civil::Date, u64)> {
        self.day.today()
    }

    /// The doors that are closed at this instant.
    pub(in crate::rate_limit) fn closed(&self, now: Nanos) -> impl Iterator<Item = (LimitKind, Closed)> {
        self.doors.closed(now)
    }

    /// The limits in force.
    pub(in crate::rate_limit) fn limits(&self) -> Limits {
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
    pub(in crate::rate_limit) fn spans(&self) -> Vec<SpanState> {
        self.spans.as_ref().map_or_else(Vec::new, |spans| spans.states().collect())
    }

    pub(in crate::rate_limit) const fn window(&self) -> &Window {
        &self.window
    }

    pub(in crate::rate_limit) const fn counts(&self) -> Counts {
        self.counts
    }

    pub(in crate::rate_limit) const fn ratio(&self) -> &Ratio {
        &self.ratio
    }

    /// Brings the sums up to date for somebody who looks.
    pub(in crate::rate_limit) fn look(&mut self, now: Nanos) -> Nanos {
        self.tick(now)
    }

    /// Whether forgetting this key would lose nothing but what one 429 teaches anew.
    pub(in crate::rate_limit) fn is_idle(&self, now: Nanos) -> bool {
        let day_counts = self.day.count > 0 && self.limits.rpd != NONE && now < self.day.ends_at;
        #[cfg(feature = "fleet")]
        let day_counts = day_counts || self.supplies_of().any(|supply| !supply.is_idle(now));
        let empty_at = self.spans.as_ref().map_or(0, |spans| spans.empty_at()).max(self.window.empty_at());
        now >= empty_at && now >= self.doors.closed_until && self.in_flight == 0 && !day_counts
    }

    /// What the calendar says.
    pub(in crate::rate_limit) fn set_day(&mut self, now: Nanos, day: Day) {
        if self.day.set(now, day, self.rules.guard) {
            self.doors.open_day();
        }
    }

    /// Whether the calendar must be looked at before the next decision.
    #[inline]
    pub(in crate::rate_limit) const fn is_day_due(&self, now: Nanos) -> bool {
        now >= self.day.look_at
    }

    /// Other limits, from now on. What was learnt is forgotten: the new ones are thought to be right.
    pub(in crate::rate_limit) fn configure(&mut self, limits: Limits) {
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

    /// Adds what a snapshot counted today, once however often it is told.
    pub(in crate::rate_limit) fn restore(&mut self, count: u64) {
        self.day.restore(count);
    }

    /// Opens every door that a 429 closed.
    pub(in crate::rate_limit) fn reopen(&mut self) {
        #[cfg(feature = "fleet")]
        self.tell_opened();
        self.open();
    }
}
