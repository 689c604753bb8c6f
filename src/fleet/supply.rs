//! What the rate limit's ledger holds of a key that a fleet shares: the member, and what must be done for it. Pure.
//!
//! NOTE: `Ledger::admit`, `settle` and `close_until` call this; the task in `rate_limit/fleet` carries the messages.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::member::{Manner, Member, Queued, UseId};
use super::message::{Amount, Close, DayEnd, Held, Micros, Quota, Reply, StoreKey, Take};

/// Nanoseconds on the layer's clock.
type Nanos = u64;

const fn micros(now: Nanos) -> Micros {
    // One ahead, so that zero is long ago.
    now / 1_000 + 1
}

const fn nanos(at: Micros) -> Nanos {
    at.saturating_sub(1).saturating_mul(1_000)
}

#[derive(Debug)]
pub(crate) struct Supply {
    member: Member,
    key: StoreKey,
    /// Rings when the task should look.
    bell: Arc<Notify>,
    /// 429s that the store has not been told of.
    closes: Vec<Close>,
    /// Requests that were turned away for want of a permit since the last message.
    missed: u64,
    /// What an answer takes, smoothed.
    round_trip: Micros,
    /// Messages in a row that were not answered, and when the last of them is sent again.
    failures: u32,
    retry_at: Nanos,
    told_differs: bool,
    /// Messages that were answered.
    asked: u64,
    granted: u64,
}

/// What a member knows of its fleet, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) members: u32,
    pub(crate) waiting: u32,
    pub(crate) part: Amount,
    pub(crate) stock: Amount,
    pub(crate) held: Held,
    pub(crate) asked: u64,
    pub(crate) granted: u64,
    pub(crate) is_lost: bool,
    pub(crate) is_met: bool,
}

impl Supply {
    pub(crate) fn new(id: u64, key: StoreKey, manner: Manner, limits: Quota, bell: Arc<Notify>) -> Self {
        let member = Member::new(id, key.clone(), manner, limits);
        Self {
            member,
            key,
            bell,
            closes: Vec::new(),
            missed: 0,
            round_trip: 1_000,
            failures: 0,
            retry_at: 0,
            told_differs: false,
            asked: 0,
            granted: 0,
        }
    }

    // ===== the ledger's calls =====

    /// Takes a permit for one request, if there is one at hand.
    #[inline]
    pub(crate) fn admit(&mut self, now: Nanos, tokens: u32, probe: bool) -> Option<UseId> {
        let now = micros(now);
        if !probe {
            if let Some(id) = self.member.admit_quickly(now) {
                return Some(id);
            }
        }
        self.admit_closely(now, tokens, probe)
    }

    fn admit_closely(&mut self, now: Micros, tokens: u32, probe: bool) -> Option<UseId> {
        let id = self.member.admit(now, tokens.into(), probe);
        if id.is_none() {
            self.miss();
            return None;
        }
        match self.member.refill(now, self.round_trip) {
            (true, _) => self.bell.notify_one(),
            (false, needed) => self.member.quicken(now, needed),
        }
        id
    }

    /// Whether there is a permit at hand for one request.
    pub(crate) fn has_permit(&mut self, now: Nanos, tokens: u32) -> bool {
        let has = self.member.has_permit(micros(now), tokens.into());
        if !has {
            self.miss();
        }
        has
    }

    /// Until when nothing will be granted to those who wait, as far as the store has said.
    pub(crate) fn held_until(&self, now: Nanos) -> Nanos {
        nanos(self.member.held_until(micros(now)))
    }

    /// For how many of these, the first ones, there are permits at hand.
    pub(crate) fn covers(&self, now: Nanos, sizes: &[u64]) -> usize {
        self.member.covers(micros(now), sizes)
    }

    /// How long a lease lasts.
    pub(crate) const fn lease(&self) -> Nanos {
        self.member.lease() * 1_000
    }

    #[cold]
    fn miss(&mut self) {
        self.missed += 1;
        self.bell.notify_one();
    }

    /// Requests wait, and are told by themselves: none of those that found no permit was turned away.
    #[inline]
    pub(crate) const fn waits(&mut self) {
        self.missed = 0;
    }

    /// When to look again for a permit.
    #[cold]
    pub(crate) fn next(&self, now: Nanos) -> Nanos {
        nanos(self.member.next(micros(now), self.round_trip))
    }

    pub(crate) fn settle(
        &mut self,
        now: Nanos,
        id: UseId,
        charged: u32,
        tokens: u32,
        sent: bool,
        daily: bool,
    ) {
        self.member.settle(micros(now), id, charged.into(), tokens.into(), sent, daily);
    }

    pub(crate) fn restamp(&mut self, now: Nanos, id: UseId, tokens: u32) -> UseId {
        self.member.restamp(micros(now), id, tokens.into())
    }

    /// A 429, or the end of one.
    pub(crate) fn close(&mut self, close: Close) {
        self.heard(&close);
        self.closes.push(close);
        self.bell.notify_one();
    }

    pub(crate) fn configure(&mut self, limits: Quota) {
        self.member.configure(limits);
        self.bell.notify_one();
    }

    pub(crate) fn is_day_spent(&self) -> bool {
        self.member.is_day_spent()
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.member.is_lost()
    }

    /// The same limits, or another one, from now on: none of them is learnt.
    pub(crate) fn limit(&mut self, limits: Quota) {
        self.member.configure(limits);
        self.bell.notify_one();
    }

    /// Whether the store holds nothing of this member, nor it of the store's.
    pub(crate) fn is_idle(&self, now: Nanos) -> bool {
        self.closes.is_empty() && self.member.is_idle(micros(now))
    }

    // ===== the task's calls =====

    pub(crate) const fn key(&self) -> &StoreKey {
        &self.key
    }

    pub(crate) fn take_closes(&mut self) -> Vec<Close> {
        std::mem::take(&mut self.closes)
    }

    /// Those that the store did not take.
    pub(crate) fn keep_closes(&mut self, closes: Vec<Close>) {
        self.closes.splice(..0, closes);
    }

    /// When the next message is due, or the open one is sent again.
    pub(crate) fn due(&self, now: Nanos, queued: bool) -> Option<Nanos> {
        let wanting = queued || self.missed > 0 || self.member.wants_refill(micros(now), self.round_trip);
        if self.member.open().is_some() {
            return Some(self.retry_at);
        }
        self.member.due(micros(now), wanting).map(nanos)
    }

    /// The next message. `queued` are the tokens of the first that wait, `more` how many there are besides, and `share` what their
    /// class has beside others.
    pub(crate) fn ask(
        &mut self,
        now: Nanos,
        (queued, more, share): (&[u64], u64, u32),
        today: impl FnOnce(Micros) -> DayEnd,
    ) -> Take {
        let at = micros(now);
        let mut want = Amount::new(queued.len() as u64 + more, queued.iter().sum());
        let mut sizes = queued.to_vec();
        let ahead = self.member.ahead(at);
        let ahead = ahead.max(if queued.is_empty() { self.missed.min(64) } else { 0 });
        if more == 0 && ahead > 0 {
            let usual = self.member.usual_size();
            let ahead = ahead.min(64 - queued.len().min(64) as u64);
            sizes.extend((0..ahead).map(|_| usual));
            want = want.plus(Amount::new(ahead, ahead * usual));
        }
        if self.member.in_force().tokens.is_none() {
            sizes = Vec::new();
            want.tokens = 0;
        }
        if self.member.open().is_none() {
            self.missed = 0;
        }
        self.retry_at = now;
        self.member.ask(at, &Queued { want, sizes, share }, false, today)
    }

    /// Reads an answer that took so long to come.
    pub(crate) fn accept(&mut self, now: Nanos, reply: &Reply, took: Micros) -> Option<Vec<Close>> {
        let closes = self.member.accept(micros(now), reply)?;
        self.round_trip = (7 * self.round_trip + took) / 8;
        self.failures = 0;
        self.asked += 1;
        self.granted += reply.grant.requests;
        Some(closes)
    }

    /// The message was not answered: it is sent again after a pause. Returns whether the store is thought to be lost.
    pub(crate) fn failed(&mut self, now: Nanos, first: Duration, most: Duration) -> bool {
        let pause = first.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures += 1;
        self.retry_at = now.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX));
        // One answer that is late is none of an outage.
        if self.failures >= 2 {
            self.member.lose(micros(now));
        }
        self.member.is_lost()
    }

    /// The limits in force, the first time that members were given different ones.
    pub(crate) fn differs(&mut self, reply: &Reply) -> Option<Quota> {
        (reply.differs && !std::mem::replace(&mut self.told_differs, true)).then_some(reply.limits)
    }

    /// Everything is given back. Returns the message that says so, where there is anything to say.
    pub(crate) fn leave(&mut self, now: Nanos, today: impl FnOnce(Micros) -> DayEnd) -> Option<Take> {
        self.member.leave(micros(now), today)
    }

    /// Something may have been missed: asks at once.
    pub(crate) fn touch(&mut self) {
        self.member.touch();
    }

    pub(crate) fn born(&mut self, epoch: u64) {
        self.member.born(epoch);
    }

    pub(crate) fn void_all(&mut self) {
        self.member.void_all();
    }

    /// A 429, here or at another member, or the end of one.
    pub(crate) fn heard(&mut self, close: &Close) {
        self.member.void();
        self.member.learn(close);
    }

    pub(crate) fn known(&self, now: Nanos) -> Known {
        let (asked, granted) = (self.asked, self.granted);
        Known { asked, granted, ..self.member.known(micros(now)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Outage, Terms};

    const MS: Nanos = 1_000_000;

    fn supply() -> Supply {
        let manner = Manner { terms: Terms::of(60_500_000, true), outage: Outage::Strict, weight: 1 };
        let limits = Quota { requests: Some(60), ..Quota::default() };
        Supply::new(1, StoreKey::new("k".to_owned(), None), manner, limits, Arc::default())
    }

    fn granted(call: u64, requests: u64) -> Reply {
        let grant = Amount::new(requests, 0);
        Reply { call, epoch: 1, seq: call, now: 1_000_000, grant, members: 2, ..Reply::default() }
    }

    /// One that waits looks for a permit again and again; what it has got is not asked for again.
    #[test]
    fn nothing_is_fetched_for_requests_that_have_gone() {
        let mut supply = supply();
        assert_eq!(supply.admit(MS, 0, false), None);
        supply.waits();
        assert_eq!(supply.due(MS, true), Some(MS / 1_000 * 1_000));
        assert_eq!(supply.ask(MS, (&[0], 0, 1), |_| DayEnd::default()).want, Amount::new(1, 0));
        assert_eq!(supply.admit(2 * MS, 0, false), None);
        supply.waits();
        supply.accept(3 * MS, &granted(1, 1), 2_000).expect("it is the open call");
        assert!(supply.admit(3 * MS, 0, false).is_some());
        assert!(supply.due(3 * MS, false).is_none_or(|due| due > 100 * MS));
        // One that was turned away is told of, since nobody waits for it.
        assert_eq!(supply.admit(4 * MS, 0, false), None);
        assert!(supply.due(4 * MS, false).is_some_and(|due| due <= 4 * MS));
        assert_eq!(supply.ask(4 * MS, (&[], 0, 1), |_| DayEnd::default()).want, Amount::new(1, 0));
    }

    proptest::proptest! {
        /// Permits that are taken quickly are counted and told like any others.
        #[test]
        fn quick_permits_are_told_like_all(steps in proptest::collection::vec((0..10_u8, 0..60_000_000_u64), 1..300)) {
            let (mut quick, mut close, mut now, mut call) = (supply(), supply(), MS, 0);
            let mut ids = Vec::new();
            for (step, pause) in steps {
                // Mostly within a cell, and now and then beyond a lease or a window.
                now += match step { 8 => pause * 50, 9 => pause * 1_200, _ => pause / 60 };
                match step {
                    0..=5 => {
                        let probe = step == 5 && pause % 7 == 0;
                        let of_close = close.admit_closely(micros(now), 0, probe);
                        let of_quick = quick.admit(now, 0, probe);
                        proptest::prop_assert_eq!(of_quick, of_close);
                        ids.extend(of_quick);
                    }
                    6 if !ids.is_empty() => {
                        let id = ids.swap_remove(pause as usize % ids.len());
                        quick.settle(now, id, 0, 0, pause % 2 == 0, true);
                        close.settle(now, id, 0, 0, pause % 2 == 0, true);
                    }
                    _ => {
                        call += 1;
                        let [one, other] = [&mut quick, &mut close].map(|supply| {
                            let take = supply.ask(now, (&[0; 8], 0, 1), |_| DayEnd::default());
                            supply.accept(now, &granted(call, 1 + pause % 40), 2_000).expect("it is the open call");
                            take
                        });
                        proptest::prop_assert_eq!(one, other);
                    }
                }
                proptest::prop_assert_eq!(quick.known(now), close.known(now));
                proptest::prop_assert_eq!(quick.due(now, false), close.due(now, false));
            }
        }
    }
}
