//! Where requests are admitted or queue: the ledger and the queue together. Pure, under one lock per key.
//!
//! The order is that of arrival. The head of the queue goes as soon as the ledger admits it; while it waits for
//! tokens, one of the next [`BACKFILL`] may go before it if that does not make the head wait any longer. So a large
//! prompt is never starved by small ones, and small ones use the room that it cannot.
//!
//! One waiter, the *driver*, owns the timer for the next change. Everybody else is woken once, with their answer.
//! When the driver leaves, another one is woken to take over.

use std::time::Duration;

use super::admission::{Admission, Receipt, Settlement, Spent, TOO_LARGE};
use super::estimate::Cost;
use super::ledger::Ledger;
use super::limits::Dimension;
use super::queue::{NEVER, Place, Queue};
use super::refusal::{Refusal, Why};
use super::window::Nanos;
use crate::latency::Latency;

/// How many behind the head are looked at for one that fits before it.
const BACKFILL: usize = 64;
/// How many of those that are let through are exchanged for one that fits better.
const EXCHANGES: usize = 4;

#[derive(Debug)]
pub(super) struct Desk<W> {
    pub(super) ledger: Ledger,
    queue: Queue<W>,
    max_queue: usize,
    waits: bool,
    /// When the next one may be admitted, if nothing happens before.
    next: Nanos,
    /// Who owns the timer.
    driver: Option<Place>,
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
}

/// Of a request that would be answered too late.
const LATE: Refusal =
    Refusal { why: Why::Deadline, dimension: Dimension::Other, until: None, is_final: true };

fn nanos(estimate: Option<Duration>) -> Nanos {
    estimate.map_or(0, |duration| u64::try_from(duration.as_nanos()).unwrap_or(NEVER))
}

/// What a request that queues waits for, as far as can be told when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) dimension: Dimension,
    pub(super) until: Nanos,
}

/// What became of a request that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Granted(Receipt),
    Queued(Place, Held),
    Refused(Refusal),
}

/// What a waiter learns when it looks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Answered(Result<Receipt, Refusal>),
    /// Not yet; somebody will wake it.
    Waiting,
    /// Not yet, and this waiter is the driver: look again at this instant.
    Driving(Nanos),
}

impl<W> Desk<W> {
    pub(super) const fn new(ledger: Ledger, max_queue: usize, waits: bool) -> Self {
        Self {
            ledger,
            queue: Queue::new(),
            max_queue,
            waits,
            next: NEVER,
            driver: None,
            armed: NEVER,
            passing: false,
            woken: Vec::new(),
            latency: Latency::new(),
            joined_at: None,
        }
    }

    /// The usual case: nobody waits, and the request fits.
    #[inline]
    pub(super) fn grant(&mut self, now: Nanos, cost: Cost) -> Option<Receipt> {
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
            None => self.arrive_late(now, cost, deadline),
        }
    }

    /// A request arrives that goes before all who wait.
    pub(super) fn arrive_first(&mut self, now: Nanos, cost: Cost, deadline: Nanos) -> Arrival {
        if let Admission::Granted(receipt) = self.ledger.admit(now, cost) {
            return Arrival::Granted(receipt);
        }
        self.wait_for_turn(now, cost, deadline, true)
    }

    fn arrive_late(&mut self, now: Nanos, cost: Cost, deadline: Nanos) -> Arrival {
        self.wait_for_turn(now, cost, deadline, false)
    }

    fn wait_for_turn(&mut self, now: Nanos, cost: Cost, deadline: Nanos, first: bool) -> Arrival {
        let now = self.ledger.look(now);
        let ahead = if first { (0, 0) } else { (self.queue.len() as u64, self.queue.tokens()) };
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
                return refuse(if reset.is_none() { Why::Zero } else { Why::Spent });
            }
        }
        if !self.waits {
            return refuse(Why::Full);
        }
        if forecast.at > deadline && !self.may_pass(now, cost, deadline) {
            return self.last_resort(now, cost, refusal(Why::Deadline));
        }
        let in_time = forecast.at.saturating_add(self.least()) <= deadline;
        if !first && !in_time && forecast.at <= deadline {
            return self.last_resort(now, cost, Refusal { is_final: true, ..refusal(Why::Deadline) });
        }
        if self.queue.used() >= self.max_queue {
            return refuse(Why::Queue);
        }
        let place = match first {
            true => self.queue.join_first(cost, forecast.tokens, deadline),
            false => self.queue.join(cost, forecast.tokens, deadline),
        };
        self.joined_at = Some(now);
        if self.queue.len() == 1 || first || (self.passing && self.queue.len() <= BACKFILL + 1) {
            self.advance(now);
        }
        Arrival::Queued(place, Held { dimension: forecast.dimension, until: forecast.at })
    }

    /// Lets one go over a learnt limit that would be refused, or refuses it.
    fn last_resort(&mut self, now: Nanos, cost: Cost, refusal: Refusal) -> Arrival {
        self.ledger.try_over(now, cost).map_or(Arrival::Refused(refusal), Arrival::Granted)
    }

    /// A waiter looks whether it was answered, and leaves a way to wake it where it was not.
    pub(super) fn look(&mut self, place: Place, waker: impl FnOnce(&mut Option<W>)) -> Look {
        if let Some(answer) = self.queue.take(place) {
            return Look::Answered(answer);
        }
        waker(self.queue.waker(place));
        if *self.driver.get_or_insert(place) == place {
            self.armed = self.next;
            return Look::Driving(self.next);
        }
        Look::Waiting
    }

    /// A waiter goes away, answered or not. Its waker comes back: dropping it may run a user's code, which is not to
    /// happen under the lock.
    pub(super) fn cancel(&mut self, now: Nanos, place: Place) -> Option<W> {
        let waker = self.queue.waker(place).take();
        let was_head = self.queue.head() == Some(place);
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
            self.appoint();
        }
        waker
    }

    /// A call is over. Returns whether the queue must [advance](Self::advance).
    #[inline]
    pub(super) fn settle(&mut self, receipt: Receipt, how: Settlement) -> bool {
        self.ledger.settle(receipt, how) && self.is_queued()
    }

    /// Whether somebody may be waiting for what has just changed.
    #[inline]
    pub(super) const fn is_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) const fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Tokens of the first who wait, and how many wait besides.
    #[cfg(feature = "fleet")]
    pub(super) fn wanted(&self) -> (Vec<u64>, u64) {
        let sizes: Vec<u64> = self
            .queue
            .iter()
            .take(BACKFILL)
            .map(|place| self.ledger.tokens_of(self.queue.cost(place)))
            .collect();
        let more = (self.queue.len() - sizes.len()) as u64;
        (sizes, more)
    }

    /// Places in use: those who wait, and those who were answered and have not looked yet.
    #[cfg(test)]
    pub(super) const fn places(&self) -> usize {
        self.queue.used()
    }

    /// When the next one may be admitted; `None` where nobody waits.
    pub(super) fn next(&self) -> Option<Nanos> {
        Some(self.next).filter(|_| self.is_queued())
    }

    /// Whom to wake, once the lock is released.
    pub(super) fn take_woken(&mut self) -> Vec<W> {
        std::mem::take(&mut self.woken)
    }

    /// Admits all who may go now, refuses those who cannot go in time, and works out when to look again.
    pub(super) fn advance(&mut self, now: Nanos) {
        self.next = NEVER;
        self.passing = false;
        while let Some(head) = self.queue.head() {
            if self.is_doomed(now, head) {
                self.answer(head, Err(LATE));
                continue;
            }
            match self.ledger.admit(now, self.queue.cost(head)) {
                Admission::Granted(receipt) => self.answer(head, Ok(receipt)),
                Admission::TooLarge => self.answer(head, Err(TOO_LARGE)),
                Admission::Wait { until, dimension, spent } => {
                    self.next = until;
                    if dimension == Dimension::InputTokensPerMinute {
                        self.backfill(now, head);
                    }
                    self.refuse_hopeless(dimension, spent);
                    if self.queue.head() == Some(head) {
                        break;
                    }
                }
            }
        }
        self.appoint();
    }

    /// The head of a good answer has come.
    pub(super) fn answered(&mut self, now: Nanos, receipt: &mut Receipt) {
        if self.is_scarce(now) {
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
    fn is_doomed(&self, now: Nanos, head: Place) -> bool {
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
    fn refuse_hopeless(&mut self, dimension: Dimension, spent: Option<Spent>) {
        let (mut before, mut why) = (self.next, Why::Deadline);
        let mut until = Some(self.next).filter(|next| *next != NEVER);
        let is_final = false;
        #[cfg(feature = "fleet")]
        if self.ledger.is_store_lost() {
            (why, until) = (Why::Store, None);
        }
        if let Some(Spent { reset }) = spent {
            why = if reset.is_none() { Why::Zero } else { Why::Spent };
            (before, until) = (reset.unwrap_or(NEVER), reset.or(until));
            for place in self.queue.undated() {
                self.answer(place, Err(Refusal { why, dimension, until, is_final }));
            }
        }
        while let Some(place) = self.queue.too_late(before) {
            self.answer(place, Err(Refusal { why, dimension, until, is_final }));
        }
        while self.queue.len() > 1 {
            let Some(place) = self.queue.too_late(before.saturating_add(self.least())) else { break };
            self.answer(place, Err(Refusal { why, dimension, until, is_final: true }));
        }
    }

    /// Lets those behind the head go that fit and do not make it wait any longer.
    fn backfill(&mut self, now: Nanos, head: Place) {
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
                        self.answer(*place, Ok(receipt));
                        went = true;
                    }
                    // Something else than tokens is in the way: the requests of the minute, a ramp.
                    Admission::Wait { .. } | Admission::TooLarge => break,
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

    fn answer(&mut self, place: Place, answer: Result<Receipt, Refusal>) {
        if self.driver == Some(place) {
            self.driver = None;
        }
        self.woken.extend(self.queue.answer(place, answer));
    }

    /// Sees to it that somebody owns the timer, and that it is not set too late.
    fn appoint(&mut self) {
        if self.queue.is_empty() {
            (self.driver, self.next) = (None, NEVER);
            return;
        }
        match self.driver {
            Some(driver) if self.next < self.armed => {
                self.armed = self.next;
                self.woken.extend(self.queue.waker(driver).take());
            }
            Some(_) => {}
            None => {
                // One that was never polled cannot be woken; it takes over by itself when it is.
                let able = self.queue.iter().take(BACKFILL).find(|place| self.queue.has_waker(*place));
                if let Some(able) = able {
                    (self.driver, self.armed) = (Some(able), self.next);
                    self.woken.extend(self.queue.waker(able).take());
                }
            }
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
    use crate::rate_limit::estimate::Trust;
    use crate::rate_limit::ledger::Rules;
    use crate::rate_limit::lesson::Lesson;
    use crate::rate_limit::limits::Limits;
    use proptest::prelude::*;

    const SPAN: Nanos = 60;
    const DAY: Nanos = 1_000;

    /// A desk whose waiters leave their number as their waker.
    fn desk(limits: Limits) -> Desk<u32> {
        let rules = Rules { span: SPAN, margin: 1.0, learn: true, probe_every: 40, guard: 0 };
        let mut ledger = Ledger::new(rules, limits, 0);
        ledger.set_day(0, Day { date: jiff::civil::date(2026, 11, 21), left: DAY });
        Desk::new(ledger, 1000, true)
    }

    fn of(tokens: u32) -> Cost {
        Cost { tokens, trust: Trust::Exact }
    }

    fn queued(desk: &mut Desk<u32>, now: Nanos, tokens: u32, deadline: Nanos) -> Place {
        match desk.arrive(now, of(tokens), deadline) {
            Arrival::Queued(place, _) => place,
            other => panic!("{tokens} at {now}: {other:?}"),
        }
    }

    fn look(desk: &mut Desk<u32>, place: Place, number: u32) -> Look {
        desk.look(place, |waker| *waker = Some(number))
    }

    #[test]
    fn a_spent_day_is_waited_for_only_with_a_deadline_that_is_not_before_its_end() {
        let mut desk = desk(Limits::new().requests_per_day(1));
        assert!(desk.grant(0, of(1)).is_some());
        let refused = Arrival::Refused(Refusal {
            why: Why::Spent,
            dimension: Dimension::RequestsPerDay,
            until: Some(DAY),
            is_final: false,
        });
        assert_eq!(desk.arrive(1, of(1), NEVER), refused);
        assert_eq!(desk.arrive(1, of(1), DAY - 1), refused);
        queued(&mut desk, 1, 1, DAY);
    }

    #[test]
    fn the_last_of_those_that_are_looked_at_passes_at_once() {
        let mut desk = desk(Limits::new().input_tokens_per_minute(100));
        assert!(desk.grant(0, of(60)).is_some());
        // The head leaves room for 20 beside it, which is too little for the next.
        queued(&mut desk, 10, 80, NEVER);
        for _ in 1..BACKFILL {
            queued(&mut desk, 10, 30, NEVER);
        }
        let last = queued(&mut desk, 10, 20, NEVER);
        assert!(matches!(look(&mut desk, last, 0), Look::Answered(Ok(_))));
        assert_eq!(desk.queued(), BACKFILL);
    }

    #[test]
    fn when_one_of_those_that_are_looked_at_leaves_the_next_one_is() {
        let mut desk = desk(Limits::new().input_tokens_per_minute(100));
        assert!(desk.grant(0, of(60)).is_some());
        queued(&mut desk, 10, 80, NEVER);
        let large = [(); BACKFILL].map(|()| queued(&mut desk, 10, 30, NEVER));
        let small = queued(&mut desk, 10, 20, NEVER);
        assert_eq!(look(&mut desk, small, 0), Look::Driving(SPAN));
        desk.cancel(20, large[7]);
        assert!(matches!(look(&mut desk, small, 0), Look::Answered(Ok(_))));
    }

    #[test]
    fn who_is_too_late_at_the_end_queues_only_if_it_may_pass_the_head() {
        let mut desk = desk(Limits::new().input_tokens_per_minute(100));
        assert!(desk.grant(0, of(60)).is_some());
        queued(&mut desk, 10, 80, NEVER);
        let late = desk.arrive(10, of(30), SPAN - 1);
        assert!(matches!(late, Arrival::Refused(Refusal { why: Why::Deadline, .. })), "{late:?}");
        let small = queued(&mut desk, 10, 15, SPAN - 1);
        assert!(matches!(look(&mut desk, small, 0), Look::Answered(Ok(_))));
    }

    #[test]
    fn before_a_closed_door_nobody_passes() {
        let mut desk = desk(Limits::new().input_tokens_per_minute(100));
        let refused = desk.grant(0, of(1)).expect("it fits");
        let lesson =
            Lesson { dimension: Dimension::Other, limit: None, until: Some(40), spent: false, zero: false };
        desk.ledger.close_until(0, &refused, lesson);
        desk.settle(refused, Settlement::TooMany);
        queued(&mut desk, 10, 50, NEVER);
        queued(&mut desk, 10, 50, NEVER);
        let late = desk.arrive(10, of(20), 50);
        assert!(matches!(late, Arrival::Refused(Refusal { why: Why::Deadline, .. })), "{late:?}");
    }

    #[test]
    fn the_driver_is_woken_when_its_timer_is_set_too_late_and_only_then() {
        let mut desk = desk(Limits::new().input_tokens_per_minute(100));
        assert!(desk.grant(0, of(60)).is_some());
        let second = desk.grant(5, of(40)).expect("it fits");
        let head = queued(&mut desk, 10, 80, NEVER);
        assert_eq!(look(&mut desk, head, 0), Look::Driving(5 + SPAN));
        desk.advance(15);
        assert!(desk.take_woken().is_empty(), "nothing has changed");
        assert!(desk.settle(second, Settlement::Used { input_tokens: 20 }));
        desk.advance(20);
        assert_eq!(desk.take_woken(), [0]);
        assert_eq!(look(&mut desk, head, 0), Look::Driving(SPAN));
    }

    #[test]
    fn one_that_fits_is_exchanged_for_the_one_that_fills_the_room_best() {
        assert_eq!(pick(&[50, 30, 70], 100), 0b110);
        assert_eq!(pick(&[50, 30, 60, 70, 71], 100), 0b1010);
        assert_eq!(pick(&[50, 50, 70], 100), 0b11, "it is full already");
    }

    #[test]
    fn a_day_that_turns_out_spent_refuses_those_who_cannot_wait_for_the_next() {
        let mut desk = desk(Limits::new().requests_per_minute(1));
        let first = desk.grant(0, of(1)).expect("it fits");
        let [undated, early, late] = [NEVER, DAY - 1, DAY].map(|deadline| queued(&mut desk, 10, 1, deadline));
        let lesson = Lesson {
            dimension: Dimension::RequestsPerDay,
            limit: None,
            until: Some(DAY),
            spent: true,
            zero: false,
        };
        desk.ledger.close_until(20, &first, lesson);
        desk.settle(first, Settlement::TooMany);
        desk.advance(20);
        let refusal = Refusal {
            why: Why::Spent,
            dimension: Dimension::RequestsPerDay,
            until: Some(DAY),
            is_final: false,
        };
        assert_eq!(look(&mut desk, undated, 0), Look::Answered(Err(refusal)));
        assert_eq!(look(&mut desk, early, 1), Look::Answered(Err(refusal)));
        assert!(matches!(look(&mut desk, late, 2), Look::Driving(_)));
    }

    #[test]
    fn with_nobody_waiting_there_is_nothing_to_advance() {
        let mut desk = desk(Limits::new().requests_per_minute(2));
        let receipts = [(); 2].map(|()| desk.grant(0, of(1)).expect("it fits"));
        assert_eq!((desk.is_queued(), desk.next()), (false, None));
        let [first, second] = receipts;
        assert!(!desk.settle(first, Settlement::NotSent));
        assert!(desk.grant(1, of(1)).is_some());
        queued(&mut desk, 1, 1, NEVER);
        assert_eq!((desk.is_queued(), desk.next()), (true, Some(SPAN)));
        assert!(desk.settle(second, Settlement::NotSent));
    }

    #[test]
    fn when_the_driver_leaves_another_one_is_woken_and_only_then() {
        let mut desk = desk(Limits::new().requests_per_minute(1));
        assert!(desk.grant(0, of(1)).is_some());
        let places = [(); 3].map(|()| queued(&mut desk, 10, 1, NEVER));
        assert_eq!(look(&mut desk, places[0], 0), Look::Driving(SPAN));
        assert_eq!(look(&mut desk, places[1], 1), Look::Waiting);
        assert_eq!(look(&mut desk, places[2], 2), Look::Waiting);
        assert!(desk.take_woken().is_empty());
        assert_eq!(desk.cancel(20, places[1]), Some(1));
        assert!(desk.take_woken().is_empty(), "the driver is still there");
        assert_eq!(desk.cancel(20, places[0]), Some(0));
        assert_eq!(desk.take_woken(), [2]);
        assert_eq!(look(&mut desk, places[2], 2), Look::Driving(SPAN));
    }

    proptest! {
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
