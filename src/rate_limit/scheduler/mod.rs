//! Where requests are admitted or queue: the ledger and the queue together. Pure, under one lock per key.
//!
//! The order is that of arrival, among interactive and among batch requests; while both wait, eight of the former go for each of
//! the latter. The head of the queue goes as soon as the ledger admits it; while it waits for
//! tokens, one of the next [`BACKFILL`] may go before it if that does not make the head wait any longer. So a large
//! prompt is never starved by small ones, and small ones use the room that it cannot.
//!
//! One waiter, the *driver*, owns the timer for the next change. Everybody else is woken once, with their answer.
//! When the driver leaves, another one is woken to take over.
//!
//! Nobody depends on the driver, nor on anybody else who waits: a future may be polled once and then kept without being
//! polled again, or be forgotten. So each waiter has a timer of its own for the instant at which its turn comes if all
//! before it take theirs, and not after its deadline; the first [`NEAR`] look right after the driver should have acted.
//! Whoever is woken by it acts as the driver should have, and takes its place. While everybody is polled, these timers
//! are cancelled before they fire.
//!
//! A grant must be fetched within a bound, or it passes on to the next. Its owner, when it is polled again, is back in
//! its old place.

pub(super) mod backfill;
mod deadlines;
mod timers;
mod view;

use crate::event::RateLimitReason;
use crate::keyed::Need;
use crate::latency::Latency;
use crate::rate_limit::decision::{Admission, Receipt, Settlement, Spent, too_large};
use crate::rate_limit::error::Refusal;
use crate::rate_limit::estimate::Cost;
use crate::rate_limit::queue::{DEFAULT_WEIGHT, NEVER, Queue, WaiterId};
use crate::rate_limit::quota_state::QuotaState;
use crate::rate_limit::window::Nanos;
use crate::request::limits::LimitKind;

/// How many behind the head are looked at for one that fits before it.
const BACKFILL: usize = 64;
/// How many behind the head look right after the driver should have acted.
const NEAR: u32 = 8;

/// How long waiters are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// How long a grant may go unfetched while others wait.
    pub(super) fetch: Nanos,
    /// What timers for the same instant are apart.
    pub(super) tick: Nanos,
}

impl Patience {
    pub(super) const DEFAULT: Self = Self { fetch: 1_000_000_000, tick: 1_000_000 };
}

#[derive(Debug)]
pub(super) struct Scheduler<W> {
    pub(super) ledger: QuotaState,
    queue: Queue<W>,
    max_queue: usize,
    waits: bool,
    patience: Patience,
    /// When the next one may be admitted, if nothing happens before.
    next: Nanos,
    /// Who owns the timer.
    driver: Option<WaiterId>,
    /// What the driver's timer is set to.
    armed: Nanos,
    /// The head waits for tokens, so that others may pass it.
    passing: bool,
    /// Who must be woken when the lock is released.
    woken: Vec<W>,
    /// How long good answers take, while somebody waits.
    latency: Latency,
    /// When the last one has joined the queue.
    joined_at: Option<Nanos>,
    /// By how many requests and tokens those who wait may have moved up since their timers were set.
    moved: (u64, u64),
    /// A call ended in a way that says something of its key: not one that was never sent, and none that was refused
    /// with a 4xx, which any name can earn.
    taught: bool,
    /// When a request came last.
    asked_at: Nanos,
    /// The most time that a request had left of late, and when it came.
    most_left: (Nanos, Nanos),
}

/// Of a request that would be answered too late.
const LATE: Refusal =
    Refusal { why: RateLimitReason::Deadline, dimension: LimitKind::Other, until: None, is_final: true };

/// What a request that queues waits for, as far as can be told when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) dimension: LimitKind,
    pub(super) until: Nanos,
}

/// What became of a request that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Granted(Receipt),
    Queued(WaiterId, Held),
    Refused(Refusal),
}

/// What a waiter learns when it looks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Answered(Result<Receipt, Refusal>),
    /// Not yet; somebody will wake it, and if nobody does, [watch](Scheduler::watch) at this instant.
    Waiting(Nanos),
    /// Not yet, and this waiter is the driver: [watch](Scheduler::watch) at this instant.
    Driving(Nanos),
}

impl<W> Scheduler<W> {
    pub(super) const fn new(ledger: QuotaState, max_queue: usize, waits: bool, patience: Patience) -> Self {
        Self {
            ledger,
            queue: Queue::new(DEFAULT_WEIGHT),
            max_queue,
            waits,
            patience,
            next: NEVER,
            driver: None,
            armed: NEVER,
            passing: false,
            woken: Vec::new(),
            latency: Latency::new(),
            joined_at: None,
            moved: (0, 0),
            taught: false,
            asked_at: 0,
            most_left: (0, 0),
        }
    }

    /// How many interactive requests go for each batch request while both wait.
    #[cfg(feature = "fleet")]
    pub(super) const fn weight(&self) -> u32 {
        self.queue.weight()
    }

    /// So many interactive requests go for each batch request while both wait. Before anybody waits.
    pub(super) const fn with_weight(mut self, weight: u32) -> Self {
        self.queue.set_weight(weight);
        self
    }

    /// The usual case: nobody waits, and the request fits.
    #[inline(always)]
    pub(super) fn grant(&mut self, now: Nanos, cost: Cost) -> Option<Receipt> {
        self.asked_at = now;
        if self.queue.is_empty() && !self.ledger.has_strangers(now) {
            if let Admission::Granted(receipt) = self.ledger.admit(now, cost) {
                return Some(receipt);
            }
        }
        None
    }

    /// A request arrives. `deadline` is [`NEVER`] where there is none.
    pub(super) fn arrive(&mut self, now: Nanos, cost: Cost, deadline: Nanos) -> Arrival {
        match self.grant(now, cost) {
            Some(receipt) => Arrival::Granted(receipt),
            None => self.arrive_slow(now, cost, deadline),
        }
    }

    /// A request arrives that goes before all who wait.
    pub(super) fn arrive_first(&mut self, now: Nanos, cost: Cost, deadline: Nanos) -> Arrival {
        self.asked_at = now;
        if let Admission::Granted(receipt) = self.ledger.admit(now, cost) {
            return Arrival::Granted(receipt);
        }
        self.wait_for_turn(now, cost, deadline, true)
    }

    fn arrive_slow(&mut self, now: Nanos, cost: Cost, deadline: Nanos) -> Arrival {
        if self.ledger.has_strangers(now) {
            if self.is_in_vain(now, deadline) {
                return Arrival::Refused(LATE);
            }
            if self.queue.is_empty() {
                if let Admission::Granted(receipt) = self.ledger.admit(now, cost) {
                    return Arrival::Granted(receipt);
                }
            }
        }
        self.wait_for_turn(now, cost, deadline, false)
    }

    fn wait_for_turn(&mut self, now: Nanos, cost: Cost, deadline: Nanos, first: bool) -> Arrival {
        let now = self.ledger.look(now);
        if self.queue.fetched_by() <= now {
            // Somebody waits for it now.
            self.take_back(now);
            if first || self.queue.is_empty() {
                if let Admission::Granted(receipt) = self.ledger.admit(now, cost) {
                    // There may be more than one has taken.
                    self.advance(now);
                    return Arrival::Granted(receipt);
                }
            }
            self.advance(now);
        }
        let ahead = if first { (0, 0) } else { self.queue.turn_of(cost).1 };
        let forecast = match self.ledger.forecast(now, ahead, cost) {
            Ok(forecast) => forecast,
            Err(refusal) => return Arrival::Refused(refusal),
        };
        let refusal =
            |why| Refusal { why, dimension: forecast.dimension, until: forecast.until(), is_final: false };
        let refuse = |why| Arrival::Refused(refusal(why));
        if let Some(Spent { reset }) = forecast.spent {
            // Whoever has all day may wait for tomorrow.
            if deadline == NEVER || reset.is_none_or(|reset| reset > deadline) {
                return refuse(if reset.is_none() { RateLimitReason::Zero } else { RateLimitReason::Spent });
            }
        }
        if !self.waits {
            return refuse(RateLimitReason::Full);
        }
        if forecast.at > deadline && !self.may_pass(now, cost, deadline) {
            return self.last_resort(now, cost, refusal(RateLimitReason::Deadline));
        }
        let in_time = forecast.at.saturating_add(self.least()) <= deadline;
        if !first && !in_time && forecast.at <= deadline {
            return self.last_resort(
                now,
                cost,
                Refusal { is_final: true, ..refusal(RateLimitReason::Deadline) },
            );
        }
        if self.queue.busy() >= self.max_queue {
            return refuse(RateLimitReason::Queue);
        }
        // Its turn, if all before it take theirs. Not a moment later: who is served late by its own timer would make all
        // those behind it late.
        let look_at = self.look_at(now, ahead, (cost, forecast.at), deadline, true);
        let place = match first {
            true => self.queue.join_first(cost, forecast.tokens, deadline, look_at),
            false => self.queue.join(cost, forecast.tokens, deadline, look_at),
        };
        self.joined_at = Some(now);
        if self.queue.head() == Some(place) || (self.passing && self.queue.len() <= BACKFILL + 1) {
            self.advance(now);
        }
        Arrival::Queued(place, Held { dimension: forecast.dimension, until: forecast.at })
    }

    /// Lets one go over a learnt limit that would be refused, or refuses it.
    fn last_resort(&mut self, now: Nanos, cost: Cost, refusal: Refusal) -> Arrival {
        self.ledger.try_over(now, cost).map_or(Arrival::Refused(refusal), Arrival::Granted)
    }

    /// A waiter looks whether it was answered, and leaves a way to wake it where it was not. The clock is read only
    /// where it matters.
    pub(super) fn look(
        &mut self,
        place: WaiterId,
        now: impl Fn() -> Nanos,
        waker: impl FnOnce(&mut Option<W>),
    ) -> Look {
        if self.queue.is_parked(place) {
            // It is polled again after all.
            let now = now();
            self.queue.unpark(place);
            self.advance(now);
            if self.queue.is_queued(place) {
                self.plan(now, place);
            }
        }
        if let Some((mut answer, fetch_by)) = self.queue.take(place) {
            if let Ok(receipt) = &mut answer {
                let now = now();
                if now.saturating_add(self.patience.fetch) > fetch_by.saturating_add(self.patience.fetch / 16)
                {
                    // The server counts from when it is sent, and that is not when it was admitted.
                    self.ledger.restamp(now, receipt);
                }
            }
            return Look::Answered(answer);
        }
        waker(self.queue.waker(place));
        let due = self.due();
        if *self.driver.get_or_insert(place) == place {
            self.armed = due;
            self.queue.set_look_at(place, due);
            return Look::Driving(due);
        }
        let rank = self.queue.rank(place);
        if rank < NEAR {
            let soon = due.saturating_add(self.patience.tick.saturating_mul(u64::from(rank)));
            self.queue.set_look_at(place, soon.min(self.queue.look_at(place)));
        }
        Look::Waiting(self.queue.look_at(place))
    }

    /// A waiter goes away, answered or not. Its waker comes back: dropping it may run a user's code, which is not to
    /// happen under the lock.
    pub(super) fn cancel(&mut self, now: Nanos, place: WaiterId) -> Option<W> {
        let waker = self.queue.waker(place).take();
        let was_head = self.queue.head() == Some(place);
        if self.queue.head().is_some() && self.queue.tail() != Some(place) && !self.queue.is_parked(place) {
            self.move_up(self.queue.tokens_of(place));
        }
        if self.driver == Some(place) {
            self.driver = None;
        }
        if let Some(Ok(receipt)) = self.queue.leave(place) {
            // It was admitted and never knew.
            self.ledger.settle(receipt, Settlement::NotSent);
            self.advance(now);
        } else if was_head || self.passing {
            self.advance(now);
        } else {
            self.appoint(now);
        }
        waker
    }

    /// A call is over. Returns whether the queue must [advance](Self::advance).
    #[inline]
    pub(super) fn settle(&mut self, receipt: Receipt, how: Settlement) -> bool {
        self.taught |= !matches!(how, Settlement::NotSent | Settlement::Refused);
        let charged = receipt.charged;
        let freed = self.ledger.settle(receipt, how) && self.is_queued();
        if freed {
            self.move_up(charged);
        }
        freed
    }

    /// Whom to wake, once the lock is released.
    pub(super) fn take_woken(&mut self) -> Vec<W> {
        std::mem::take(&mut self.woken)
    }

    /// Admits all who may go now, refuses those who cannot go in time, and works out when to look again.
    pub(super) fn advance(&mut self, now: Nanos) {
        self.next = NEVER;
        self.passing = false;
        if self.is_queued() {
            self.take_back(now);
        }
        while let Some(head) = self.queue.head() {
            if self.is_doomed(now, head) {
                self.answer(now, head, Err(LATE));
                continue;
            }
            match self.ledger.admit(now, self.queue.cost(head)) {
                Admission::Granted(receipt) => self.answer(now, head, Ok(receipt)),
                Admission::TooLarge(of) => self.answer(now, head, Err(too_large(of))),
                Admission::Wait { until, dimension, spent } => {
                    self.next = until;
                    if dimension == LimitKind::InputTokensPerMinute {
                        self.backfill(now, head);
                    }
                    self.refuse_hopeless(now, dimension, spent);
                    if self.queue.head() == Some(head) {
                        break;
                    }
                }
            }
        }
        self.appoint(now);
    }

    fn answer(&mut self, now: Nanos, place: WaiterId, answer: Result<Receipt, Refusal>) {
        if self.driver == Some(place) {
            self.driver = None;
        }
        let mut fetch_by = now.saturating_add(self.patience.fetch);
        if self.queue.look_at(place) < now {
            // It is late already, see `claim`.
            fetch_by -= 1;
        }
        self.woken.extend(self.queue.answer(place, answer, fetch_by));
    }
}

#[cfg(test)]
#[path = "../tests/scheduler.rs"]
mod tests;
