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

use std::time::Duration;

use super::decision::{Admission, Receipt, Settlement, Spent, too_large};
use super::error::Refusal;
use super::estimate::Cost;
use super::queue::{NEVER, Queue, WaiterId};
use super::quota_state::QuotaState;
use super::window::Nanos;
#[cfg(feature = "fleet")]
use crate::call_options::RequestClass;
use crate::event::RateLimitReason;
use crate::keyed::Need;
use crate::latency::Latency;
use crate::request::limits::LimitKind;

/// How many behind the head are looked at for one that fits before it.
const BACKFILL: usize = 64;
/// How long after a key's last request the limits that it was taught are worth more than another key's place.
const REMEMBERED: Nanos = 3600 * 1_000_000_000;
/// How many of those that are let through are exchanged for one that fits better.
const EXCHANGES: usize = 4;

/// How many behind the head look right after the driver should have acted.
const NEAR: u32 = 8;
/// Before a waiter whose turn has come, those that are not polled are looked for until so many were found that are.
const POLLED: usize = 64;
/// Timers are set anew when those who wait have moved up by one in so many.
const TIGHTENED: u64 = 8;
/// Those who look again because their turn cannot be told do so within so many ticks.
const SPREAD: u32 = 64;

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
}

/// Of a request that would be answered too late.
const LATE: Refusal =
    Refusal { why: RateLimitReason::Deadline, dimension: LimitKind::Other, until: None, is_final: true };

fn nanos(estimate: Option<Duration>) -> Nanos {
    estimate.map_or(0, |duration| u64::try_from(duration.as_nanos()).unwrap_or(NEVER))
}

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
            queue: Queue::new(),
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
        }
    }

    /// The usual case: nobody waits, and the request fits.
    #[inline]
    pub(super) fn grant(&mut self, now: Nanos, cost: Cost) -> Option<Receipt> {
        self.asked_at = now;
        if self.queue.is_empty() {
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

    /// When a waiter with so much ahead of it, whose turn comes at `turn`, is to look by itself.
    ///
    /// If each of those ahead looks no later than at its turn, it has its turn in time by looking at that. Where those
    /// ahead may have moved up since their timers were set, they may look later than that: then it looks when it would
    /// have had its turn without. Where that is too late for it, the timers are set anew, or, where that would be done too
    /// often, it looks at every change.
    fn look_at(
        &mut self,
        now: Nanos,
        ahead: (u64, u64),
        (cost, turn): (Cost, Nanos),
        deadline: Nanos,
        joins: bool,
    ) -> Nanos {
        if self.moved == (0, 0) {
            return turn.min(deadline);
        }
        let ahead = (ahead.0 + self.moved.0, ahead.1 + self.moved.1);
        let late = self.ledger.forecast(now, ahead, cost).map_or(turn, |forecast| forecast.at);
        if late <= deadline {
            return late;
        }
        if joins && self.moved.0 * TIGHTENED >= self.queue.len() as u64 {
            self.tighten(now);
            return turn.min(deadline);
        }
        self.due().min(deadline)
    }

    /// Brings the timers of all who wait forward to their turns.
    fn tighten(&mut self, now: Nanos) {
        let (mut ahead, mut next) = ((0, 0), self.queue.head());
        while let Some(place) = next {
            next = self.queue.after(place);
            let cost = self.queue.cost(place);
            let turn = self.ledger.forecast(now, ahead, cost).map_or(now, |forecast| forecast.at);
            if turn < self.queue.look_at(place) && self.queue.look_at(place) >= now {
                self.queue.set_look_at(place, turn);
                self.woken.extend(self.queue.waker(place).take());
            }
            ahead = (ahead.0 + 1, ahead.1 + u64::from(self.queue.tokens_of(place)));
        }
        self.queue.renumber();
        self.moved = (0, 0);
    }

    /// Those who wait have moved up.
    fn move_up(&mut self, tokens: u32) {
        self.moved = (self.moved.0 + 1, self.moved.1 + u64::from(tokens));
    }

    /// The timer of a waiter has come: its own, or the driver's. It does what the driver should have done.
    pub(super) fn watch(&mut self, now: Nanos, place: WaiterId) {
        if !self.queue.is_queued(place) {
            // Answered in this very moment, or parked: it will see when it looks.
            return;
        }
        let late = now.saturating_sub(self.queue.look_at(place));
        if self.driver != Some(place) && self.armed < now {
            // The driver was to look before now.
            (self.driver, self.armed) = (Some(place), 0);
        }
        // Who is late itself cannot tell who else is: the whole program may have stood still.
        let mut has_parked = false;
        if late < self.patience.fetch / 2 {
            has_parked = self.park_starved(now, place);
            if self.queue.deadline(place) <= now {
                self.claim(now, place);
            }
        }
        let drives = self.driver.is_none_or(|driver| driver == place);
        // Before the driver's time there is nothing to do. Whoever looks early is not to be the occasion for a trial of a
        // learnt limit: that goes right after the window was filled, not when somebody happens to look.
        if has_parked || drives || now >= self.armed || now >= self.queue.deadline(place) {
            self.advance(now);
        }
        if self.queue.is_queued(place) && self.queue.look_at(place) <= now {
            self.plan(now, place);
        }
    }

    /// Parks those before `place` who were to look a while ago and did not. Whether there were any.
    fn park_starved(&mut self, now: Nanos, place: WaiterId) -> bool {
        let (mut next, mut polled, mut has_parked) = (self.queue.head(), 0, false);
        let is_ahead = |before: &WaiterId, polled| *before != place && polled < POLLED;
        while let Some(before) = next.filter(|before| is_ahead(before, polled)) {
            next = self.queue.after(before);
            polled += 1;
            if self.queue.look_at(before).saturating_add(self.patience.fetch) <= now {
                polled -= 1;
                self.park(before);
                has_parked = true;
            }
        }
        has_parked
    }

    /// Parks one that is queued. It is woken, so that one that only was late is back soon.
    fn park(&mut self, place: WaiterId) {
        if self.driver == Some(place) {
            self.driver = None;
        }
        self.move_up(self.queue.tokens_of(place));
        self.woken.extend(self.queue.park(place));
    }

    /// The last chance of a waiter whose deadline is now. Who comes before it, was to look and did not, has lost its turn,
    /// and so has who was granted and has not fetched it: they would have gone already.
    fn claim(&mut self, now: Nanos, place: WaiterId) {
        loop {
            while let Some(head) = self.queue.head() {
                if head != place && self.queue.look_at(head) < now {
                    self.park(head);
                    continue;
                }
                match self.ledger.admit(now, self.queue.cost(head)) {
                    Admission::Granted(receipt) => self.answer(now, head, Ok(receipt)),
                    Admission::TooLarge(of) => self.answer(now, head, Err(too_large(of))),
                    Admission::Wait { .. } => break,
                }
                if head == place {
                    return;
                }
            }
            let Some(granted) = self.queue.granted_until(now.saturating_add(self.patience.fetch)) else {
                return;
            };
            self.take_back_from(granted);
        }
    }

    /// Works out when this waiter is to look again if nobody wakes it.
    fn plan(&mut self, now: Nanos, place: WaiterId) {
        let (rank, len) = (u64::from(self.queue.rank(place)), self.queue.len() as u64);
        let tokens = self.queue.tokens() / len.max(1) * rank;
        let (cost, deadline) = (self.queue.cost(place), self.queue.deadline(place));
        let turn = self.ledger.forecast(now, (rank, tokens), cost).map_or(now, |forecast| forecast.at);
        let mut at = self.look_at(now, (rank, tokens), (cost, turn), deadline, false).max(self.due());
        if at <= now {
            // Not too often where the turn cannot be told, and not all in the same moment.
            let ticks = u64::from(self.queue.number(place) % SPREAD);
            at = now.saturating_add(self.patience.fetch / 4).saturating_add(self.patience.tick * ticks);
        }
        self.queue.set_look_at(place, at.min(deadline).max(now.saturating_add(1)));
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

    /// Whether somebody may be waiting for what has just changed.
    #[inline]
    pub(super) const fn is_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) const fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The first who wait and their tokens, and how many wait besides; and their class. Batch requests at the end of the queue are left
    /// out while others wait.
    #[cfg(feature = "fleet")]
    pub(super) fn wanted(&self) -> (Vec<(Cost, u64)>, u64, RequestClass) {
        let (wanted, class) = match self.queue.interactive() {
            0 if self.is_queued() => (self.queue.len(), RequestClass::Batch),
            wanted => (wanted, RequestClass::Interactive),
        };
        let cost = |place| self.queue.cost(place);
        let first = self.queue.iter().take(wanted.min(BACKFILL)).map(cost);
        let waiting: Vec<_> = first.map(|cost| (cost, self.ledger.tokens_of(cost))).collect();
        let more = (wanted - waiting.len()) as u64;
        (waiting, more, class)
    }

    /// Places in use: those who wait, those who were answered and have not looked yet, and those who are parked.
    #[cfg(test)]
    pub(super) const fn places(&self) -> usize {
        self.queue.used()
    }

    /// How much would be lost if this key were forgotten.
    pub(super) fn need(&self, now: Nanos) -> Need {
        let ledger = &self.ledger;
        let counts = ledger.counts();
        let open = counts.admitted - counts.settled - counts.not_sent - counts.too_many;
        let (today, limits) = (ledger.today().map_or(0, |today| today.1), ledger.limits());
        let day_is_spent = limits.rpd.is_some_and(|rpd| today >= rpd) && now < ledger.day_ends_at();
        let is_recent = now < self.asked_at.saturating_add(REMEMBERED);
        let binds = day_is_spent || ledger.closed(now).next().is_some();
        let has_learnt = ledger.has_learnt() || ledger.is_attentive();
        #[cfg(feature = "fleet")]
        let binds = binds || ledger.supplies_of().any(|supply| !supply.is_idle(now));
        if open > 0 || self.queue.used() > 0 || binds || (has_learnt && is_recent) {
            Need::All
        } else if self.taught && (is_recent || !ledger.is_idle(now)) {
            Need::Counts
        } else {
            Need::Nothing
        }
    }

    /// When the next one may be admitted; `None` where nobody waits.
    pub(super) fn next(&self) -> Option<Nanos> {
        Some(self.next).filter(|_| self.is_queued())
    }

    /// When somebody must act, if nothing happens before: the next admission, or the end of the time for a grant.
    pub(super) fn due(&self) -> Nanos {
        if self.is_queued() { self.next.min(self.queue.fetched_by()) } else { NEVER }
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

    /// The head of a good answer has come. `is_sample` says whether others take as long.
    pub(super) fn answered(&mut self, now: Nanos, receipt: &mut Receipt, is_sample: bool) {
        if is_sample && self.is_scarce(now) {
            self.latency.record(self.ledger.age(now, receipt));
        }
        self.ledger.answered(now, receipt);
    }

    /// A call that was sent has ended without an answer.
    pub(super) fn unanswered(&mut self, now: Nanos, receipt: &Receipt) {
        let age = self.ledger.age(now, receipt);
        // Nothing is known but that it takes longer. Callers who give up early say nothing; that one which has taken longer
        // than most answers would take twice as long is enough to follow a server that has become slow.
        if self.is_scarce(now) && self.latency.slow().is_some_and(|slow| age > slow) {
            self.latency.record(age.saturating_mul(2));
        }
    }

    /// Whether somebody waits, or has in the last window.
    fn is_scarce(&self, now: Nanos) -> bool {
        self.is_queued() || self.joined_at.is_some_and(|at| now < at.saturating_add(self.ledger.span()))
    }

    /// Whether [`answered`](Self::answered) has anything to learn.
    pub(super) fn is_attentive(&self, now: Nanos) -> bool {
        self.ledger.is_attentive() || self.is_scarce(now)
    }

    /// What must be left of a deadline at an admission: nine of ten answers take longer. Nothing while nobody else waits,
    /// so that a wrong estimate cannot keep itself up.
    fn least(&self) -> Nanos {
        if self.queue.is_empty() { 0 } else { nanos(self.latency.quick()) }
    }

    /// Whether the head would take the place of one who can still be answered in time, and hardly be so itself.
    ///
    /// Only where one of ten answers takes longer than the head has left, the last in the queue has that time now, and
    /// will not have it when all before it have gone. Where there is room for all, nobody is refused.
    fn is_doomed(&self, now: Nanos, head: WaiterId) -> bool {
        let slow = nanos(self.latency.slow());
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
    fn refuse_hopeless(&mut self, now: Nanos, dimension: LimitKind, spent: Option<Spent>) {
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

    /// Lets those behind the head go that fit and do not make it wait any longer.
    fn backfill(&mut self, now: Nanos, head: WaiterId) {
        self.passing = true;
        let wanted = self.queue.cost(head);
        let (mut places, mut sizes) = ([0; BACKFILL], [0; BACKFILL]);
        while let Some(room) = self.ledger.room_before(wanted) {
            let mut count = 0;
            for place in self.queue.iter().skip(1).take(BACKFILL) {
                places[count] = place;
                sizes[count] = self.ledger.tokens_of(self.queue.cost(place));
                count += 1;
            }
            let (places, sizes) = (&places[..count], &sizes[..count]);
            let picked = pick(sizes, room.min(self.ledger.free_tokens()));
            let mut went = false;
            for (nth, place) in places.iter().enumerate() {
                if picked >> nth & 1 == 0 {
                    continue;
                }
                match self.ledger.admit_within(now, self.queue.cost(*place)) {
                    Admission::Granted(receipt) => {
                        self.answer(now, *place, Ok(receipt));
                        went = true;
                    }
                    // Something else than tokens is in the way: the requests of the minute, a ramp.
                    Admission::Wait { .. } | Admission::TooLarge(_) => break,
                }
            }
            if !went {
                // The smallest that may pass does so as soon as it fits, which may be before the head's turn.
                let fitting = places.iter().zip(sizes).filter(|one| *one.1 <= room);
                if let Some((place, _)) = fitting.min_by_key(|one| *one.1) {
                    let cost = self.queue.cost(*place);
                    if let Admission::Wait { until, .. } = self.ledger.admit_within(now, cost) {
                        self.next = self.next.min(until);
                    }
                }
                break;
            }
        }
    }

    /// Whether a newcomer that is too late at the end of the queue may still go before its head.
    fn may_pass(&self, now: Nanos, cost: Cost, deadline: Nanos) -> bool {
        let Some(head) = self.queue.head().filter(|_| self.passing && self.queue.len() <= BACKFILL) else {
            return false;
        };
        let room = self.ledger.room_before(self.queue.cost(head));
        let alone = self.ledger.forecast(now, (0, 0), cost).is_ok_and(|forecast| forecast.at <= deadline);
        alone && room.is_some_and(|room| self.ledger.tokens_of(cost) <= room)
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

    /// Takes the grants back that nobody has fetched in time, for those who wait.
    fn take_back(&mut self, now: Nanos) {
        while self.queue.fetched_by() <= now {
            let Some(granted) = self.queue.granted_until(NEVER) else { return };
            self.take_back_from(granted);
        }
    }

    fn take_back_from(&mut self, granted: WaiterId) {
        let receipt = self.queue.park_granted(granted);
        self.move_up(receipt.charged);
        self.ledger.settle(receipt, Settlement::NotSent);
    }

    /// Sees to it that somebody owns the timer, and that some of those behind it would notice soon if it were not polled.
    fn appoint(&mut self, now: Nanos) {
        self.appoint_driver();
        if self.is_queued() {
            #[cfg(feature = "fleet")]
            self.ledger.supplies().for_each(crate::fleet::Supply::waits);
            self.post_watchers(now, self.due());
        }
    }

    /// Sees to it that somebody owns the timer, and that it is not set too late.
    fn appoint_driver(&mut self) {
        if self.queue.is_empty() {
            (self.driver, self.next, self.moved) = (None, NEVER, (0, 0));
            return;
        }
        let due = self.due();
        match self.driver {
            Some(driver) if due < self.armed => {
                self.armed = due;
                self.woken.extend(self.queue.waker(driver).take());
            }
            Some(_) => {}
            None => {
                // One that was never polled cannot be woken; it takes over by itself when it is.
                let able = self.queue.iter().take(BACKFILL).find(|place| self.queue.has_waker(*place));
                if let Some(able) = able {
                    (self.driver, self.armed) = (Some(able), due);
                    self.woken.extend(self.queue.waker(able).take());
                }
            }
        }
    }

    /// Wakes the first who wait and whose own timers would come long after the driver's, so that they set them anew:
    /// each once while it moves up, and one that is not polled not again.
    fn post_watchers(&mut self, now: Nanos, due: Nanos) {
        let late = due.saturating_add(self.patience.fetch);
        let (mut next, mut watchers) = (self.queue.head(), 0);
        for _ in 0..BACKFILL {
            let Some(place) = next.filter(|_| watchers < NEAR) else { return };
            next = self.queue.after(place);
            let look_at = self.queue.look_at(place);
            // One that cannot be woken was not polled since; one that is late may not be polled any more.
            if self.driver == Some(place) || !self.queue.has_waker(place) || look_at < now {
                continue;
            }
            if look_at > late {
                let soon = due.saturating_add(self.patience.tick.saturating_mul(u64::from(watchers)));
                self.queue.set_look_at(place, soon);
                self.woken.extend(self.queue.waker(place).take());
            }
            watchers += 1;
        }
    }
}

/// Which of these to let through so that little room is left: a bit for each. The first that fit, in order; then one
/// of them is exchanged for another where that fills the room better.
///
/// Without the exchange a third of a percent of each window stays empty when prompts are large, and with many windows
/// that adds up to one more.
pub(super) fn pick(sizes: &[u64], room: u64) -> u64 {
    let sizes = &sizes[..sizes.len().min(BACKFILL)];
    let (mut picked, mut left) = (0_u64, room);
    for (nth, size) in sizes.iter().enumerate() {
        if *size <= left {
            picked |= 1 << nth;
            left -= size;
        }
    }
    let is_picked = |picked: u64, nth: usize| picked >> nth & 1 == 1;
    for _ in 0..EXCHANGES {
        let mut best = None;
        for (ours, size) in sizes.iter().enumerate().filter(|one| is_picked(picked, one.0)) {
            for (other, instead) in sizes.iter().enumerate().filter(|one| !is_picked(picked, one.0)) {
                let more = instead.saturating_sub(*size);
                if more <= left && more > best.map_or(0, |best: (u64, usize, usize)| best.0) {
                    best = Some((more, ours, other));
                }
            }
        }
        let Some((more, ours, other)) = best else { break };
        picked = picked & !(1 << ours) | 1 << other;
        left -= more;
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::day::Day;
    use crate::rate_limit::quota_state::Rules;
    use crate::rate_limit::quota_update::QuotaUpdate;
    use crate::request::limits::Limits;
    use proptest::prelude::*;

    const SPAN: Nanos = 60;
    const DAY: Nanos = 1_000;

    /// A scheduler whose waiters leave their number as their waker.
    fn scheduler(limits: Limits) -> Scheduler<u32> {
        let rules = Rules { span: SPAN, margin: 1.0, learn: true, probe_every: 40, guard: 0 };
        let mut ledger = QuotaState::new(rules, limits, 0);
        ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: DAY });
        Scheduler::new(ledger, 1000, true, Patience { fetch: 4, tick: 0 })
    }

    fn of(tokens: u32) -> Cost {
        Cost::exact(tokens)
    }

    fn queued(scheduler: &mut Scheduler<u32>, now: Nanos, tokens: u32, deadline: Nanos) -> WaiterId {
        match scheduler.arrive(now, of(tokens), deadline) {
            Arrival::Queued(place, _) => place,
            other => panic!("{tokens} at {now}: {other:?}"),
        }
    }

    fn look(scheduler: &mut Scheduler<u32>, place: WaiterId, number: u32) -> Look {
        scheduler.look(place, || 0, |waker| *waker = Some(number))
    }

    #[test]
    fn a_spent_day_is_waited_for_only_with_a_deadline_that_is_not_before_its_end() {
        let mut scheduler = scheduler(Limits::new().requests_per_day(1));
        assert!(scheduler.grant(0, of(1)).is_some());
        let refused = Arrival::Refused(Refusal {
            why: RateLimitReason::Spent,
            dimension: LimitKind::RequestsPerDay,
            until: Some(DAY),
            is_final: false,
        });
        assert_eq!(scheduler.arrive(1, of(1), NEVER), refused);
        assert_eq!(scheduler.arrive(1, of(1), DAY - 1), refused);
        queued(&mut scheduler, 1, 1, DAY);
    }

    #[test]
    fn the_last_of_those_that_are_looked_at_passes_at_once() {
        let mut scheduler = scheduler(Limits::new().input_tokens_per_minute(100));
        assert!(scheduler.grant(0, of(60)).is_some());
        // The head leaves room for 20 beside it, which is too little for the next.
        queued(&mut scheduler, 10, 80, NEVER);
        for _ in 1..BACKFILL {
            queued(&mut scheduler, 10, 30, NEVER);
        }
        let last = queued(&mut scheduler, 10, 20, NEVER);
        assert!(matches!(look(&mut scheduler, last, 0), Look::Answered(Ok(_))));
        assert_eq!(scheduler.queued(), BACKFILL);
    }

    #[test]
    fn when_one_of_those_that_are_looked_at_leaves_the_next_one_is() {
        let mut scheduler = scheduler(Limits::new().input_tokens_per_minute(100));
        assert!(scheduler.grant(0, of(60)).is_some());
        queued(&mut scheduler, 10, 80, NEVER);
        let large = [(); BACKFILL].map(|()| queued(&mut scheduler, 10, 30, NEVER));
        let small = queued(&mut scheduler, 10, 20, NEVER);
        assert_eq!(look(&mut scheduler, small, 0), Look::Driving(SPAN));
        scheduler.cancel(20, large[7]);
        assert!(matches!(look(&mut scheduler, small, 0), Look::Answered(Ok(_))));
    }

    #[test]
    fn who_is_too_late_at_the_end_queues_only_if_it_may_pass_the_head() {
        let mut scheduler = scheduler(Limits::new().input_tokens_per_minute(100));
        assert!(scheduler.grant(0, of(60)).is_some());
        queued(&mut scheduler, 10, 80, NEVER);
        let late = scheduler.arrive(10, of(30), SPAN - 1);
        assert!(matches!(late, Arrival::Refused(Refusal { why: RateLimitReason::Deadline, .. })), "{late:?}");
        let small = queued(&mut scheduler, 10, 15, SPAN - 1);
        assert!(matches!(look(&mut scheduler, small, 0), Look::Answered(Ok(_))));
    }

    #[test]
    fn before_a_closed_door_nobody_passes() {
        let mut scheduler = scheduler(Limits::new().input_tokens_per_minute(100));
        let mut refused = scheduler.grant(0, of(1)).expect("it fits");
        let lesson = QuotaUpdate {
            dimension: LimitKind::Other,
            limit: None,
            until: Some(40),
            spent: false,
            zero: false,
        };
        scheduler.ledger.close_until(0, &mut refused, lesson);
        scheduler.settle(refused, Settlement::TooMany);
        queued(&mut scheduler, 10, 50, NEVER);
        queued(&mut scheduler, 10, 50, NEVER);
        let late = scheduler.arrive(10, of(20), 50);
        assert!(matches!(late, Arrival::Refused(Refusal { why: RateLimitReason::Deadline, .. })), "{late:?}");
    }

    #[test]
    fn the_driver_is_woken_when_its_timer_is_set_too_late_and_only_then() {
        let mut scheduler = scheduler(Limits::new().input_tokens_per_minute(100));
        assert!(scheduler.grant(0, of(60)).is_some());
        let second = scheduler.grant(5, of(40)).expect("it fits");
        let head = queued(&mut scheduler, 10, 80, NEVER);
        assert_eq!(look(&mut scheduler, head, 0), Look::Driving(5 + SPAN));
        scheduler.advance(15);
        assert!(scheduler.take_woken().is_empty(), "nothing has changed");
        assert!(scheduler.settle(second, Settlement::Used { input_tokens: 20 }));
        scheduler.advance(20);
        assert_eq!(scheduler.take_woken(), [0]);
        assert_eq!(look(&mut scheduler, head, 0), Look::Driving(SPAN));
    }

    #[test]
    fn one_that_fits_is_exchanged_for_the_one_that_fills_the_room_best() {
        assert_eq!(pick(&[50, 30, 70], 100), 0b110);
        assert_eq!(pick(&[50, 30, 60, 70, 71], 100), 0b1010);
        assert_eq!(pick(&[50, 50, 70], 100), 0b11, "it is full already");
    }

    #[test]
    fn a_day_that_turns_out_spent_refuses_those_who_cannot_wait_for_the_next() {
        let mut scheduler = scheduler(Limits::new().requests_per_minute(1));
        let mut first = scheduler.grant(0, of(1)).expect("it fits");
        let [undated, early, late] =
            [NEVER, DAY - 1, DAY].map(|deadline| queued(&mut scheduler, 10, 1, deadline));
        let lesson = QuotaUpdate {
            dimension: LimitKind::RequestsPerDay,
            limit: None,
            until: Some(DAY),
            spent: true,
            zero: false,
        };
        scheduler.ledger.close_until(20, &mut first, lesson);
        scheduler.settle(first, Settlement::TooMany);
        scheduler.advance(20);
        let refusal = Refusal {
            why: RateLimitReason::Spent,
            dimension: LimitKind::RequestsPerDay,
            until: Some(DAY),
            is_final: false,
        };
        assert_eq!(look(&mut scheduler, undated, 0), Look::Answered(Err(refusal)));
        assert_eq!(look(&mut scheduler, early, 1), Look::Answered(Err(refusal)));
        assert!(matches!(look(&mut scheduler, late, 2), Look::Driving(_)));
    }

    #[test]
    fn with_nobody_waiting_there_is_nothing_to_advance() {
        let mut scheduler = scheduler(Limits::new().requests_per_minute(2));
        let receipts = [(); 2].map(|()| scheduler.grant(0, of(1)).expect("it fits"));
        assert_eq!((scheduler.is_queued(), scheduler.next()), (false, None));
        let [first, second] = receipts;
        assert!(!scheduler.settle(first, Settlement::NotSent));
        assert!(scheduler.grant(1, of(1)).is_some());
        queued(&mut scheduler, 1, 1, NEVER);
        assert_eq!((scheduler.is_queued(), scheduler.next()), (true, Some(SPAN)));
        assert!(scheduler.settle(second, Settlement::NotSent));
    }

    #[test]
    fn when_the_driver_leaves_another_one_is_woken_and_only_then() {
        let mut scheduler = scheduler(Limits::new().requests_per_minute(1));
        assert!(scheduler.grant(0, of(1)).is_some());
        let places = [(); 3].map(|()| queued(&mut scheduler, 10, 1, NEVER));
        assert_eq!(look(&mut scheduler, places[0], 0), Look::Driving(SPAN));
        assert!(matches!(look(&mut scheduler, places[1], 1), Look::Waiting(_)));
        assert!(matches!(look(&mut scheduler, places[2], 2), Look::Waiting(_)));
        assert!(scheduler.take_woken().is_empty());
        assert_eq!(scheduler.cancel(20, places[1]), Some(1));
        assert!(scheduler.take_woken().is_empty(), "the driver is still there");
        assert_eq!(scheduler.cancel(20, places[0]), Some(0));
        assert_eq!(scheduler.take_woken(), [2]);
        assert_eq!(look(&mut scheduler, places[2], 2), Look::Driving(SPAN));
    }

    #[test]
    fn who_goes_first_and_is_not_polled_holds_nobody_up() {
        let mut scheduler = scheduler(Limits::new().requests_per_minute(1));
        assert!(scheduler.grant(0, of(1)).is_some());
        let other = queued(&mut scheduler, 10, 1, NEVER);
        assert_eq!(look(&mut scheduler, other, 0), Look::Driving(SPAN));
        let Arrival::Queued(first, _) = scheduler.arrive_first(20, of(1), NEVER) else {
            panic!("there is no room")
        };
        scheduler.watch(SPAN, other);
        // The turn is that of the first, until it has not come for it in time.
        assert_eq!(look(&mut scheduler, other, 0), Look::Driving(SPAN + 4));
        scheduler.watch(SPAN + 4, other);
        assert!(matches!(look(&mut scheduler, other, 0), Look::Answered(Ok(_))));
        assert!(!matches!(look(&mut scheduler, first, 1), Look::Answered(_)));
        scheduler.advance(2 * SPAN + 4);
        assert!(matches!(look(&mut scheduler, first, 1), Look::Answered(Ok(_))));
    }

    #[test]
    fn a_trial_that_nobody_fetches_passes_on() {
        const SECOND: Nanos = 1_000_000_000;
        let rules = Rules { span: 61 * SECOND, margin: 1.0, learn: true, probe_every: 60 * SECOND, guard: 0 };
        let mut ledger = QuotaState::new(rules, Limits::new(), 0);
        ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: 3600 * SECOND });
        let mut scheduler: Scheduler<u32> =
            Scheduler::new(ledger, 1000, true, Patience { fetch: SECOND, tick: 0 });
        let mut refused = scheduler.grant(0, of(1)).expect("it fits");
        let dimension = LimitKind::RequestsPerMinute;
        let lesson = QuotaUpdate { dimension, limit: Some(1), until: None, spent: false, zero: false };
        scheduler.ledger.close_until(0, &mut refused, lesson);
        scheduler.settle(refused, Settlement::TooMany);
        let places = [(); 4].map(|()| queued(&mut scheduler, SECOND, 1, NEVER));
        let see = |scheduler: &mut Scheduler<u32>, now, place: WaiterId| {
            scheduler.look(place, || now, |waker| *waker = Some(0))
        };
        assert_eq!(see(&mut scheduler, SECOND, places[2]), Look::Driving(61 * SECOND));
        // One has its turn, and another one goes over the limit. Neither is polled.
        scheduler.watch(61 * SECOND, places[2]);
        assert_eq!(scheduler.queued(), 2);
        assert_eq!(see(&mut scheduler, 61 * SECOND, places[2]), Look::Driving(62 * SECOND));
        scheduler.watch(62 * SECOND, places[2]);
        let answers = [places[2], places[3]].map(|place| see(&mut scheduler, 62 * SECOND, place));
        let trials = answers.map(|answer| match answer {
            Look::Answered(Ok(receipt)) => receipt.trial.is_any(),
            other => panic!("{other:?}"),
        });
        assert_eq!(trials, [false, true]);
        for place in [places[0], places[1]] {
            assert!(
                !matches!(see(&mut scheduler, 62 * SECOND, place), Look::Answered(_)),
                "they have their places again"
            );
        }
    }

    #[test]
    fn an_answer_of_a_slower_tier_is_no_sample() {
        const SECOND: Nanos = 1_000_000_000;
        let rules = Rules { span: 60 * SECOND, margin: 1.0, learn: true, probe_every: 60 * SECOND, guard: 0 };
        let mut ledger = QuotaState::new(rules, Limits::new().requests_per_minute(1), 0);
        ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: 36_000 * SECOND });
        let mut scheduler: Scheduler<u32> =
            Scheduler::new(ledger, 1000, true, Patience { fetch: SECOND, tick: 0 });
        for n in 0..40 {
            let (at, is_flex) = (n * 1_000 * SECOND, n % 2 == 1);
            let mut receipt = scheduler.grant(at, of(1)).expect("it fits");
            let place = queued(&mut scheduler, at, 1, NEVER);
            let took = if is_flex { 840 * SECOND } else { 2 * SECOND };
            scheduler.answered(at + took, &mut receipt, !is_flex);
            scheduler.settle(receipt, Settlement::Unknown);
            scheduler.cancel(at + took, place);
        }
        let slow = scheduler.latency.slow().expect("there were twenty samples");
        assert!(slow < std::time::Duration::from_secs(3), "{slow:?}");
    }

    #[test]
    fn a_grant_that_is_not_fetched_does_not_refuse_who_can_be_answered_in_time() {
        const SECOND: Nanos = 1_000_000_000;
        let rules = Rules { span: 60 * SECOND, margin: 1.0, learn: true, probe_every: 60 * SECOND, guard: 0 };
        let mut ledger = QuotaState::new(rules, Limits::new().requests_per_minute(1), 0);
        ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: 3600 * SECOND });
        let mut scheduler: Scheduler<u32> =
            Scheduler::new(ledger, 1000, true, Patience { fetch: SECOND, tick: 0 });
        let at = |minute: u64, second: u64| (60 * minute + second) * SECOND;
        // Answers take 20 s.
        for minute in 0..6 {
            let mut receipt = scheduler.grant(at(minute, 0), of(1)).expect("it fits");
            let place = queued(&mut scheduler, at(minute, 0), 1, NEVER);
            scheduler.answered(at(minute, 20), &mut receipt, true);
            scheduler.settle(receipt, Settlement::Unknown);
            scheduler.cancel(at(minute, 20), place);
        }
        let _last = scheduler.grant(at(6, 0), of(1)).expect("it fits");
        let hopeless = scheduler.arrive(at(6, 0), of(1), at(7, 10));
        assert!(matches!(hopeless, Arrival::Queued(..)), "alone it may try");
        let late = scheduler.arrive(at(6, 0), of(1), at(8, 10));
        assert!(matches!(late, Arrival::Refused(Refusal { is_final: true, .. })), "{late:?}");
        let Arrival::Queued(hopeless, _) = hopeless else { unreachable!() };
        scheduler.cancel(at(6, 0), hopeless);
        let other = queued(&mut scheduler, at(6, 0), 1, at(7, 30));
        let behind = queued(&mut scheduler, at(6, 0), 1, NEVER);
        // One goes before it and is not polled.
        assert!(matches!(scheduler.arrive_first(at(6, 10), of(1), NEVER), Arrival::Queued(..)));
        let look = |scheduler: &mut Scheduler<u32>, now, place| {
            scheduler.look(place, || now, |waker| *waker = Some(0))
        };
        assert_eq!(look(&mut scheduler, at(6, 10), other), Look::Driving(at(7, 0)));
        scheduler.watch(at(7, 0), other);
        // The next turn would be too late for it; but the grant before it passes on within a second.
        assert_eq!(look(&mut scheduler, at(7, 0), other), Look::Driving(at(7, 1)));
        scheduler.watch(at(7, 1), other);
        assert!(matches!(look(&mut scheduler, at(7, 1), other), Look::Answered(Ok(_))));
        assert!(matches!(look(&mut scheduler, at(7, 1), behind), Look::Driving(_)));
    }

    #[test]
    fn who_looks_early_is_no_occasion_for_a_trial() {
        const SECOND: Nanos = 1_000_000_000;
        let rules = Rules { span: 61 * SECOND, margin: 1.0, learn: true, probe_every: 60 * SECOND, guard: 0 };
        let mut ledger = QuotaState::new(rules, Limits::new(), 0);
        ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: 3600 * SECOND });
        let mut scheduler: Scheduler<u32> =
            Scheduler::new(ledger, 1000, true, Patience { fetch: SECOND, tick: 0 });
        let mut refused = scheduler.grant(0, of(1)).expect("it fits");
        let dimension = LimitKind::RequestsPerMinute;
        let lesson = QuotaUpdate { dimension, limit: Some(1), until: None, spent: false, zero: false };
        scheduler.ledger.close_until(10 * SECOND, &mut refused, lesson);
        scheduler.settle(refused, Settlement::TooMany);
        // It goes before the limit may be tried, at 70 s, and within the time in which that says something.
        scheduler.advance(61 * SECOND);
        let _last = scheduler.grant(69 * SECOND, of(1)).expect("the window is empty");
        let [driver, other] = [(); 2].map(|()| queued(&mut scheduler, 69 * SECOND, 1, NEVER));
        let look = |scheduler: &mut Scheduler<u32>, now, place| {
            scheduler.look(place, || now, |waker| *waker = Some(0))
        };
        assert_eq!(look(&mut scheduler, 69 * SECOND, driver), Look::Driving(130 * SECOND));
        assert!(matches!(look(&mut scheduler, 69 * SECOND, other), Look::Waiting(_)));
        scheduler.watch(71 * SECOND, other);
        assert_eq!(scheduler.queued(), 2);
        scheduler.advance(71 * SECOND);
        assert_eq!(scheduler.queued(), 1, "there would have been one");
    }

    #[test]
    fn who_goes_first_takes_back_what_nobody_has_fetched() {
        let mut scheduler = scheduler(Limits::new().requests_per_minute(2));
        let _both = [(); 2].map(|()| scheduler.grant(0, of(1)).expect("it fits"));
        let places = [(); 2].map(|()| queued(&mut scheduler, 10, 1, NEVER));
        scheduler.advance(SPAN);
        let other = queued(&mut scheduler, SPAN, 1, NEVER);
        assert!(matches!(look(&mut scheduler, other, 0), Look::Driving(_)));
        assert!(matches!(scheduler.arrive_first(SPAN + 4, of(1), NEVER), Arrival::Granted(_)));
        assert!(matches!(look(&mut scheduler, other, 0), Look::Answered(Ok(_))), "there was room for two");
        assert!(places.into_iter().all(|place| !matches!(look(&mut scheduler, place, 1), Look::Answered(_))));
    }

    /// One that waits, in a world where some are not polled.
    struct Waits {
        place: WaiterId,
        deadline: Nanos,
        /// Its timer; `None` where it is not polled any more.
        timer: Option<Nanos>,
        /// It was woken, and not by its timer.
        woken: bool,
        answered: Option<Nanos>,
    }

    /// Every waiter that is polled has its turn at most one window after it would have had it if all had been polled.
    fn starve(rpm: u64, arrivals: &[(Nanos, u8)]) -> Result<(), TestCaseError> {
        const MINUTE: Nanos = 60_000;
        let rules = Rules { span: MINUTE, margin: 1.0, learn: true, probe_every: 40, guard: 0 };
        let mut ledger = QuotaState::new(rules, Limits::new().requests_per_minute(rpm), 0);
        ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: NEVER / 2 });
        let mut scheduler: Scheduler<usize> =
            Scheduler::new(ledger, 1_000, true, Patience { fetch: 1_000, tick: 1 });
        let mut open: Vec<Receipt> = (0..rpm).map(|_| scheduler.grant(0, of(1)).expect("it fits")).collect();
        let mut all: Vec<Waits> = Vec::new();
        let (mut now, mut arrivals) = (1, arrivals.iter().peekable());
        for step in 0.. {
            prop_assert!(step < 5_000, "{step} steps for {} waiters", all.len());
            let wakes = all.iter().enumerate().filter_map(|(nth, one)| Some((one.timer?, nth))).min();
            let next = arrivals.peek().map(|one| now + one.0);
            if next.is_some_and(|at| wakes.is_none_or(|(timer, _)| at <= timer)) {
                let (after, kind) = *arrivals.next().expect("it was looked at");
                now += after;
                // Its turn is told to one that has no deadline.
                let turn = match scheduler.arrive(now, of(1), NEVER) {
                    Arrival::Granted(receipt) => {
                        scheduler.settle(receipt, Settlement::NotSent);
                        now
                    }
                    Arrival::Queued(place, held) => {
                        scheduler.cancel(now, place);
                        // One more window: a turn may be missed where the driver and the watchers behind it are starved
                        // at once, since timers are not set anew when the queue moves up.
                        held.until + MINUTE
                    }
                    Arrival::Refused(refusal) => panic!("{refusal:?}"),
                };
                match scheduler.arrive(now, of(1), if kind == 0 { turn } else { NEVER }) {
                    Arrival::Granted(receipt) => open.push(receipt),
                    Arrival::Queued(place, _) => {
                        let mut waits =
                            Waits { place, deadline: turn, timer: None, woken: false, answered: None };
                        if kind == 0 {
                            (waits.timer, waits.woken) = (Some(now), true);
                        } else if kind == 1 {
                            // Polled once, and not again.
                            let look = scheduler.look(place, || now, |waker| *waker = Some(all.len()));
                            prop_assert!(!matches!(look, Look::Answered(_)), "there was no room");
                        }
                        all.push(waits);
                    }
                    Arrival::Refused(refusal) => prop_assert!(false, "{refusal:?}"),
                }
            } else if let Some((timer, nth)) = wakes {
                if timer > now {
                    now = timer;
                }
                let place = all[nth].place;
                if !std::mem::take(&mut all[nth].woken) {
                    scheduler.watch(now, place);
                }
                match scheduler.look(place, || now, |waker| *waker = Some(nth)) {
                    Look::Answered(answer) => {
                        prop_assert!(answer.is_ok(), "{nth} at {now}: {answer:?}");
                        open.extend(answer);
                        prop_assert!(now <= all[nth].deadline, "{nth} at {now}, by {}", all[nth].deadline);
                        (all[nth].timer, all[nth].answered) = (None, Some(now));
                    }
                    Look::Waiting(at) | Look::Driving(at) => {
                        prop_assert!(at != NEVER, "{nth} at {now}");
                        all[nth].timer = Some(at.max(now));
                    }
                }
            } else {
                break;
            }
            for woken in scheduler.take_woken() {
                // The timer stands for the wake-up as well. Who is not polled has none.
                if all[woken].timer.is_some() {
                    (all[woken].timer, all[woken].woken) = (Some(now), true);
                }
            }
        }
        let answered: Vec<_> = all.iter().filter_map(|one| one.answered).collect();
        prop_assert!(answered.is_sorted(), "first come, first served: {answered:?}");
        for receipt in open {
            scheduler.settle(receipt, Settlement::Unknown);
        }
        for one in all.iter().filter(|one| one.answered.is_none()) {
            scheduler.cancel(now, one.place);
        }
        let counts = scheduler.ledger.counts();
        prop_assert_eq!((scheduler.places(), scheduler.queued()), (0, 0));
        prop_assert_eq!(counts.admitted, counts.settled + counts.not_sent);
        Ok(())
    }

    proptest! {
        #[test]
        fn who_is_polled_has_its_turn_whoever_is_not(
            rpm in 1..5_u64, arrivals in proptest::collection::vec((0..20_000_u64, 0..3_u8), 1..60),
        ) {
            starve(rpm, &arrivals)?;
        }

        #[test]
        fn what_is_picked_fits_and_fills_at_least_as_much_as_the_first_that_fit(
            sizes in proptest::collection::vec(0..1000_u64, 0..80), room in 0..9000_u64,
        ) {
            let picked = pick(&sizes, room);
            let sizes = &sizes[..sizes.len().min(BACKFILL)];
            let is_picked = |nth: &usize| picked >> nth & 1 == 1;
            let sum: u64 = (0..sizes.len()).filter(is_picked).map(|nth| sizes[nth]).sum();
            let (mut first, mut count) = (0, 0);
            for size in sizes {
                if first + size <= room {
                    (first, count) = (first + size, count + 1);
                }
            }
            prop_assert!((first..=room).contains(&sum));
            prop_assert_eq!(picked.count_ones(), count, "an exchange is one for one");
        }
    }
}
