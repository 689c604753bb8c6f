//! Deadlines: how long answers take, and who is refused because none would come in time.

use std::time::Duration;

use crate::latency::Latency;

use super::{LimitKind, NEVER, Nanos, RateLimitReason, Receipt, Refusal, Scheduler, Spent, WaiterId};

fn nanos(estimate: Option<Duration>) -> Nanos {
    estimate.map_or(0, |duration| u64::try_from(duration.as_nanos()).unwrap_or(NEVER))
}

impl<W> Scheduler<W> {
    /// The head of a good answer has come. `is_sample` says whether others take as long.
    pub(in crate::rate_limit) fn answered(&mut self, now: Nanos, receipt: &mut Receipt, is_sample: bool) {
        if is_sample && self.is_scarce(now) {
            self.latency.record(self.ledger.age(now, receipt));
        }
        self.ledger.answered(now, receipt);
    }

    /// A call that was sent has ended without an answer.
    pub(in crate::rate_limit) fn unanswered(&mut self, now: Nanos, receipt: &Receipt) {
        let age = self.ledger.age(now, receipt);
        // Nothing is known but that it takes longer. Callers who give up early say nothing; that one which has taken longer
        // than most answers would take twice as long is enough to follow a server that has become slow.
        if self.is_scarce(now) && self.latency.slow().is_some_and(|slow| age > slow) {
            self.latency.record(age.saturating_mul(2));
        }
    }

    /// Whether somebody waits, or has in the last window, or strangers use the quota.
    pub(super) fn is_scarce(&self, now: Nanos) -> bool {
        self.is_queued()
            || self.ledger.has_strangers(now)
            || self.joined_at.is_some_and(|at| now < at.saturating_add(self.ledger.span()))
    }

    /// Of a request that comes while strangers use the quota: whether it would rather take what one with more time could have had
    /// than be answered itself.
    ///
    /// Half of the answers take longer than it has left, and some request of the last window had the time in which three of four
    /// come. Where all have as little, none is refused.
    pub(super) fn is_in_vain(&mut self, now: Nanos, deadline: Nanos) -> bool {
        if deadline == NEVER {
            return false;
        }
        let left = deadline.saturating_sub(now);
        let (most, at) = self.most_left;
        if left >= most || at.saturating_add(self.ledger.span()) <= now {
            self.most_left = (left, now);
        }
        let typical = nanos(self.latency.typical().map(Latency::at_most));
        left < typical && self.most_left.0 >= nanos(self.latency.fair())
    }

    /// Whether [`answered`](Self::answered) has anything to learn.
    pub(in crate::rate_limit) fn is_attentive(&self, now: Nanos) -> bool {
        self.ledger.is_attentive() || self.is_scarce(now)
    }

    /// What must be left of a deadline at an admission: nine of ten answers take longer. Nothing while nobody else waits,
    /// so that a wrong estimate cannot keep itself up.
    pub(super) fn least(&self) -> Nanos {
        if self.queue.is_empty() { 0 } else { nanos(self.latency.quick().map(Latency::at_most)) }
    }

    /// Whether the head would take the place of one who can still be answered in time, and hardly be so itself.
    ///
    /// Only where one of ten answers takes longer than the head has left, the last in the queue has that time now, and
    /// will not have it when all before it have gone. Where there is room for all, nobody is refused.
    pub(super) fn is_doomed(&self, now: Nanos, head: WaiterId) -> bool {
        let slow = nanos(self.latency.slow().map(Latency::at_most));
        if slow == 0 || self.queue.deadline(head) >= now.saturating_add(slow) {
            return false;
        }
        let Some(tail) = self.queue.tail().filter(|tail| *tail != head) else { return false };
        let deadline = self.queue.deadline(tail);
        if deadline == NEVER || deadline < now.saturating_add(slow) {
            return false;
        }
        let cost = self.queue.cost(tail);
        let tokens = self.queue.tokens().saturating_sub(self.ledger.tokens_of(cost));
        let ahead = (self.queue.len() as u64 - 1, tokens);
        let forecast = self.ledger.forecast(now, ahead, cost);
        forecast.is_ok_and(|forecast| forecast.at.saturating_add(slow) > deadline)
    }

    /// Refuses those whose deadline comes before anybody can be admitted.
    pub(super) fn refuse_hopeless(&mut self, now: Nanos, dimension: LimitKind, spent: Option<Spent>) {
        // A grant that is not fetched passes on, so there may be room when its time is over.
        let (mut before, mut why) = (self.next, RateLimitReason::Deadline);
        if self.queue.fetched_by() != NEVER {
            // Whoever has to go by then takes it back, see `claim`.
            before = before.min(now.saturating_sub(self.patience.tick));
        }
        let mut until = Some(self.next).filter(|next| *next != NEVER);
        let is_final = false;
        #[cfg(feature = "fleet")]
        if self.ledger.is_store_lost() {
            (why, until) = (RateLimitReason::Store, None);
        }
        if let Some(Spent { reset }) = spent {
            why = if reset.is_none() { RateLimitReason::Zero } else { RateLimitReason::Spent };
            (before, until) = (reset.unwrap_or(NEVER), reset.or(until));
            for place in self.queue.undated() {
                self.answer(now, place, Err(Refusal { why, dimension, until, is_final }));
            }
        }
        while let Some(place) = self.queue.too_late(before) {
            self.answer(now, place, Err(Refusal { why, dimension, until, is_final }));
        }
        while self.queue.len() > 1 {
            let Some(place) = self.queue.too_late(before.saturating_add(self.least())) else { break };
            self.answer(now, place, Err(Refusal { why, dimension, until, is_final: true }));
        }
    }
}
