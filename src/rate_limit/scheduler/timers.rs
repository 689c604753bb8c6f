//! Timers: who drives, when each waiter looks by itself, and what is taken from those who are not polled.

use super::{Admission, BACKFILL, Cost, NEAR, NEVER, Nanos, Scheduler, Settlement, WaiterId, too_large};

/// Before a waiter whose turn has come, those that are not polled are looked for until so many were found that are.
const POLLED: usize = 64;
/// Timers are set anew when those who wait have moved up by one in so many.
const TIGHTENED: u64 = 8;
/// Those who look again because their turn cannot be told do so within so many ticks.
const SPREAD: u32 = 64;

impl<W> Scheduler<W> {
    /// When a waiter with so much ahead of it, whose turn comes at `turn`, is to look by itself.
    ///
    /// If each of those ahead looks no later than at its turn, it has its turn in time by looking at that. Where those
    /// ahead may have moved up since their timers were set, they may look later than that: then it looks when it would
    /// have had its turn without. Where that is too late for it, the timers are set anew, or, where that would be done too
    /// often, it looks at every change.
    pub(super) fn look_at(
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
    pub(super) fn tighten(&mut self, now: Nanos) {
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
    pub(super) fn move_up(&mut self, tokens: u32) {
        self.moved = (self.moved.0 + 1, self.moved.1 + u64::from(tokens));
    }

    /// The timer of a waiter has come: its own, or the driver's. It does what the driver should have done.
    pub(in crate::rate_limit) fn watch(&mut self, now: Nanos, place: WaiterId) {
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
    pub(super) fn park_starved(&mut self, now: Nanos, place: WaiterId) -> bool {
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
    pub(super) fn park(&mut self, place: WaiterId) {
        if self.driver == Some(place) {
            self.driver = None;
        }
        self.move_up(self.queue.tokens_of(place));
        self.woken.extend(self.queue.park(place));
    }

    /// The last chance of a waiter whose deadline is now. Who comes before it, was to look and did not, has lost its turn,
    /// and so has who was granted and has not fetched it: they would have gone already.
    pub(super) fn claim(&mut self, now: Nanos, place: WaiterId) {
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
    pub(super) fn plan(&mut self, now: Nanos, place: WaiterId) {
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

    /// Takes the grants back that nobody has fetched in time, for those who wait.
    pub(super) fn take_back(&mut self, now: Nanos) {
        while self.queue.fetched_by() <= now {
            let Some(granted) = self.queue.granted_until(NEVER) else { return };
            self.take_back_from(granted);
        }
    }

    pub(super) fn take_back_from(&mut self, granted: WaiterId) {
        let receipt = self.queue.park_granted(granted);
        self.move_up(receipt.charged);
        self.ledger.settle(receipt, Settlement::NotSent);
    }

    /// Sees to it that somebody owns the timer, and that some of those behind it would notice soon if it were not polled.
    pub(super) fn appoint(&mut self, now: Nanos) {
        self.appoint_driver();
        if self.is_queued() {
            #[cfg(feature = "fleet")]
            self.ledger.supplies().for_each(crate::fleet::Supply::waits);
            self.post_watchers(now, self.due());
        }
    }

    /// Sees to it that somebody owns the timer, and that it is not set too late.
    pub(super) fn appoint_driver(&mut self) {
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
    pub(super) fn post_watchers(&mut self, now: Nanos, due: Nanos) {
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
