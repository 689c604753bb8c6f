//! The state of one key in a store, and what a message does to it: the reference. Pure.
//!
//! NOTE: `redis/take.lua` and `redis/close.lua` do the same step by step, in the same order and with the same
//! arithmetic; `redis/tests.rs` sends both the same messages.
//!
//! **The bound.** At each grant, charges (`ring`), leases that may still be used (`Record::lease`) and parts (`Record::part`,
//! `unknown`) are together no more than the limit. A lease is charged until its last possible use has left the window,
//! a use until it has; a part shrinks here only once its owner's window has shrunk to it. So whatever was used in a
//! window that ends after this grant and before the next one is charged at this grant, and is no more than the limit.

mod doors;
mod grants;

use crate::fleet::message::{Amount, Close, Held, MANY, Micros, Quota, Reply, Take, Terms};
use crate::fleet::share::{self, Wants};

/// Of a limit, what parts may have: one in this many.
pub(super) const PARTS: u64 = 2;
/// Of what is left of a day, what allowances may have: one in this many.
const ALLOWANCES: u64 = 20;
/// Parts have no allowance of a day once less than so many windows' limits are left of it.
const SCARCE: u64 = 20;

/// The state of one key.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// The server's run in which it was last written; empty for no state.
    run: String,
    pub(super) epoch: u64,
    born: Micros,
    pub(super) seq: u64,
    /// Nothing is granted before.
    opens: Micros,
    /// Something was before this state, and is not known.
    lost: bool,
    /// Charges by when they leave: the bucket's number, and what is in it. In order.
    pub(super) ring: Vec<(u64, Amount)>,
    pub(super) charged: Amount,
    /// Parts of members that this state has not heard of.
    unknown: Amount,
    unknown_since: Micros,
    pub(super) members: Vec<Record>,
    learnt: [Option<Learnt>; 3],
    doors: [Option<Door>; 4],
    ramp: bool,
    close_seq: u64,
    pub(super) day: Day,
    /// A fault that was built in on purpose, for the property test to notice.
    #[cfg(test)]
    pub(super) mutant: Option<super::model::Mutant>,
}

/// One member.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) id: u64,
    pub(super) call: u64,
    pub(super) contact: Micros,
    pub(super) part: Amount,
    /// What it may still use of leases, or has used and not reported.
    pub(super) lease: Amount,
    /// When it can use none of that any more.
    pub(super) lease_ends: Micros,
    /// Its allowance of the day.
    pub(super) daily: u64,
    pub(super) want: Amount,
    /// The tokens of the first that it wants.
    pub(super) head: u64,
    pub(super) weight: u32,
    /// What it was served, by weight: the least goes first.
    pub(super) served: f64,
    /// Its lease is there to try a closed door.
    probes: bool,
    /// It has left, and is kept to know its messages again.
    pub(super) left: bool,
    /// When it was told to ask again.
    pub(super) due: Micros,
    limits: Quota,
    reply: Reply,
}

#[derive(Clone, Copy, Debug)]
struct Learnt {
    limit: u64,
    raise_at: Micros,
}

#[derive(Clone, Copy, Debug)]
struct Door {
    until: Micros,
    probe_at: Micros,
    every: Micros,
    limit: Option<u64>,
    spent: bool,
    zero: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Day {
    pub(super) number: u64,
    pub(super) ends: Micros,
    pub(super) used: u64,
    /// What may have been granted and was lost with the last state.
    margin: u64,
}

/// What there is to be shared out.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Parts of all others.
    parts: Amount,
    most: Amount,
    /// Of the day.
    left: u64,
    /// The largest prompt that waits at the head of a queue.
    largest: u64,
}

/// What an answer brought besides itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wrote {
    /// The state began anew: its members should be told.
    pub(super) born: bool,
}

#[cfg(test)]
macro_rules! mutant {
    ($of:expr, $name:ident) => {
        $of.mutant == Some(crate::fleet::model::Mutant::$name)
    };
}
#[cfg(not(test))]
macro_rules! mutant {
    ($of:expr, $name:ident) => {{
        let _ = &$of;
        false
    }};
}
pub(super) use mutant;

impl Book {
    /// Answers a message. `run` names the server's run: another one may have lost writes.
    pub(super) fn take(&mut self, now: Micros, run: &str, take: &Take) -> (Reply, Wrote) {
        let born = self.begin(now, run, take);
        if !mutant!(self, Twice) {
            let known = self.members.iter().find(|m| m.id == take.member);
            if let Some(known) = known.filter(|m| m.call >= take.call) {
                return (known.reply.clone(), Wrote { born });
            }
        }
        self.seq += 1;
        self.expire(now);
        self.raise(now, take.terms.window);
        // Nothing is left of those that were silent for so long.
        self.members.retain(|m| now - m.contact < 22 * take.terms.window);
        self.roll(now, take);
        let me = self.record(now, take);
        self.account(now, take, me);
        let mut reply = if take.leave {
            let gone = &mut self.members[me];
            (gone.left, gone.want, gone.daily) = (true, Amount::default(), 0);
            (gone.part, gone.lease) = (Amount::default(), Amount::default());
            Reply::default()
        } else {
            self.grant(now, take, me)
        };
        reply.call = take.call;
        reply.now = now;
        (reply.epoch, reply.seq, reply.close_seq) = (self.epoch, self.seq, self.close_seq);
        (reply.day, reply.day_used) = (self.day.number, self.day.used);
        let behind = take.epoch == self.epoch && take.close_seq < self.close_seq;
        if behind || take.epoch != self.epoch {
            reply.closes = self.closes(now, behind);
        }
        if let Some(me) = self.members.iter_mut().find(|m| m.id == take.member) {
            me.reply = reply.clone();
        }
        (reply, Wrote { born })
    }

    #[cfg(test)]
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    // ===== is it the state that the member knows? =====

    fn begin(&mut self, now: Micros, run: &str, take: &Take) -> bool {
        let fresh = self.run.is_empty();
        let missed = take.epoch == self.epoch && take.seq > self.seq;
        if fresh || self.run != run || missed {
            self.run = run.to_owned();
            self.born = now;
            self.epoch = now;
            self.lost = false;
            self.opens = now + take.terms.hold;
            if !fresh || take.epoch != 0 {
                self.lose(take);
            }
            return true;
        }
        let remembers = take.epoch != 0 && take.epoch != self.epoch;
        if remembers && !self.lost && now < self.born + take.terms.quarantine() {
            self.lose(take);
        }
        false
    }

    /// Something was before: nothing is granted until it has left the window, and parts may exist that nobody told.
    fn lose(&mut self, take: &Take) {
        self.lost = true;
        if mutant!(self, NoQuarantine) {
            self.opens = self.born;
            return;
        }
        self.opens = self.opens.max(self.born + take.terms.quarantine());
        self.unknown_since = self.born + take.terms.split;
        let known = self.members.iter().fold(Amount::default(), |sum, m| sum.plus(m.part));
        let limits = take.limits.window();
        if !mutant!(self, NothingUnknown) {
            let most = |limit: u64, known: u64| {
                if limit >= MANY { 0 } else { (limit / PARTS).saturating_sub(known) }
            };
            self.unknown = limits.each(known, most);
        }
        // Grants of the day that were lost: no more than a window's in the time that a split lasts, and allowances.
        if let Some(daily) = take.limits.daily {
            let allowances = daily.saturating_sub(self.day.used).div_ceil(ALLOWANCES);
            let leases = if limits.requests < MANY { limits.requests } else { 0 };
            self.day.margin = leases + allowances;
            self.day.used += self.day.margin;
        }
    }

    // ===== what is known of the past =====

    fn expire(&mut self, now: Micros) {
        let mut gone = 0;
        while gone < self.ring.len() && self.ring[gone].0 <= now {
            self.charged = self.charged.minus(self.ring[gone].1);
            gone += 1;
        }
        self.ring.drain(..gone);
    }

    /// The day changes by the server's clock: what may still be used belongs to the new one.
    fn roll(&mut self, now: Micros, take: &Take) {
        let over = self.day.ends <= now || mutant!(self, MembersDay);
        if over && take.day.number > self.day.number && (take.day.ends > now || mutant!(self, MembersDay)) {
            let carried: u64 = self.members.iter().map(|m| m.lease.requests + m.daily).sum();
            // The first day of a state has what was lost with the one before.
            let known = if self.day.number == 0 { self.day.used } else { 0 };
            let margin = if self.day.number == 0 { self.day.margin } else { 0 };
            self.day = Day { number: take.day.number, ends: take.day.ends, used: carried + known, margin };
        }
    }

    /// The member's record, made if there is none.
    fn record(&mut self, now: Micros, take: &Take) -> usize {
        let born = self.born;
        let found = self.members.iter().position(|m| m.id == take.member);
        let heard = found.is_some_and(|at| self.members[at].contact >= born && self.members[at].call > 0);
        if self.lost && !heard {
            // What it holds is no longer unknown; what it was thought to hold may be with somebody else.
            let was = found.map_or(Amount::default(), |at| self.members[at].part);
            self.unknown = self.unknown.plus(was).minus(take.part);
            if take.day.number == self.day.number {
                self.day.used = self.day.used.max(take.day_seen + self.day.margin);
            }
        }
        found.unwrap_or_else(|| {
            self.members.push(Record {
                id: take.member,
                call: 0,
                contact: now,
                part: Amount::default(),
                lease: Amount::default(),
                lease_ends: now,
                daily: 0,
                want: Amount::default(),
                head: 0,
                weight: 1,
                served: 0.0,
                probes: false,
                left: false,
                due: 0,
                limits: take.limits,
                reply: Reply::default(),
            });
            self.members.len() - 1
        })
    }

    /// What the member tells takes the place of what was known of it.
    fn account(&mut self, now: Micros, take: &Take, me: usize) {
        let (window, bucket) = (take.terms.window, take.terms.bucket);
        let early = mutant!(self, RoundedDown);
        let mut reported = 0;
        for used in &take.uses {
            if take.leave && mutant!(self, LeaveForgets) {
                break;
            }
            reported += used.amount.requests;
            let at = (now - used.age.min(now)) + window;
            // Rounded up: a charge may leave late, and never early.
            let leaves = (at / bucket + u64::from(!early)) * bucket;
            if leaves > now {
                self.charge(leaves, used.amount);
            }
        }
        for correction in &take.corrections {
            self.correct(correction.bucket, correction.requests, correction.tokens);
            self.day.used = self.day.used.saturating_sub(correction.daily);
        }
        if self.members[me].probes && take.held.is_zero() {
            self.members[me].probes = false;
            if reported == 0 {
                // It was not sent: somebody else may try.
                self.doors.iter_mut().flatten().for_each(|door| door.probe_at = door.probe_at.min(now));
            }
        }
        let held = if mutant!(self, HeldForgotten) { Amount::default() } else { take.held };
        let record = &mut self.members[me];
        let told = reported + take.held.requests + take.day_spent + take.day_held;
        let known = record.lease.requests + record.daily;
        self.day.used = (self.day.used + told).saturating_sub(known);
        if held.requests > record.lease.requests || held.tokens > record.lease.tokens {
            // A grant whose write was lost.
            record.lease_ends = now + take.terms.lease;
        }
        record.call = take.call;
        record.contact = now;
        record.part = take.part;
        record.lease = held;
        record.daily = take.day_held;
        record.weight = take.weight.max(1);
        record.limits = take.limits;
        record.left = false;
    }

    pub(super) fn charge(&mut self, leaves: Micros, amount: Amount) {
        self.charged = self.charged.plus(amount);
        let mut at = self.ring.len();
        while at > 0 && self.ring[at - 1].0 > leaves {
            at -= 1;
        }
        if at > 0 && self.ring[at - 1].0 == leaves {
            self.ring[at - 1].1 = self.ring[at - 1].1.plus(amount);
        } else {
            self.ring.insert(at, (leaves, amount));
        }
    }

    fn correct(&mut self, bucket: u64, requests: u64, tokens: i64) {
        let Some(entry) = self.ring.iter_mut().find(|entry| entry.0 == bucket) else { return };
        let requests = requests.min(entry.1.requests);
        let was = entry.1.tokens;
        entry.1.requests -= requests;
        entry.1.tokens = was.saturating_add_signed(tokens);
        self.charged.requests -= requests;
        self.charged.tokens = self.charged.tokens - was + entry.1.tokens;
    }

    // ===== what may be granted =====

    /// Writes down what was granted.
    fn write_down(&mut self, now: Micros, take: &Take, me: usize, reply: &mut Reply) {
        reply.wait = reply.wait.min(take.terms.heartbeat);
        let record = &mut self.members[me];
        if reply.grant.requests > 0 {
            record.lease = record.lease.plus(reply.grant);
            record.lease_ends = now + take.terms.lease;
        }
        // A smaller part is believed when its owner says that its window has shrunk to it.
        record.part = take.part.max(reply.part);
        record.probes |= reply.probe;
        record.daily += reply.daily;
        record.due = now + reply.wait;
        self.day.used += reply.grant.requests + reply.daily;
    }
}
