//! What one member knows of one key: its part, its leases, what it must tell. Pure: it is handed its own steady clock.
//!
//! The local log of the rate limit decides as before; beside it a request needs a permit of the fleet, from the part or
//! from a lease. [`Member::admit`] takes one without a message. [`Member::ask`] writes the next message, as of that
//! moment, and [`Member::accept`] reads its answer.

mod permits;
mod talk;
mod view;
mod wants;

use std::collections::VecDeque;

use crate::fleet::book::mutant;
use crate::fleet::message::{
    Amount, Close, Correction, DayEnd, Held, MANY, Micros, Quota, Reply, StoreKey, Take, Terms, Use,
};
use crate::fleet::outage::Outage;
use crate::fleet::supply::Known;

/// The name of a use, to settle it by. 0 is none.
pub(crate) type UseId = u64;

/// The settings of a member.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) terms: Terms,
    pub(crate) outage: Outage,
    pub(crate) weight: u32,
}

/// What was sent lately.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// When the last of it was.
    at: Micros,
    amount: Amount,
    by: By,
    /// The bucket that the store charged it to, once that is known.
    bucket: u64,
    /// The call that told the store.
    call: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Part,
    Lease,
}

/// A call under way.
#[derive(Clone, Debug)]
struct Open {
    take: Take,
    sent: Micros,
    /// The last use that it tells of.
    told: UseId,
}

/// What waits at the member's own queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) want: Amount,
    pub(crate) sizes: Vec<u64>,
    /// What the class of those that wait has beside other classes, from 1: times the member's own weight.
    pub(crate) share: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    id: u64,
    key: StoreKey,
    manner: Manner,
    limits: Quota,
    /// As the store says, once it has said so.
    in_force: Option<Quota>,
    calls: u64,
    epoch: u64,
    seq: u64,
    close_seq: u64,
    day: u64,
    day_seen: u64,
    /// The server's clock less this one, once it is known.
    ahead: Option<i64>,
    /// When the last answered call was sent.
    contact: Option<Micros>,
    part: Amount,
    /// Sums over `sent`, of the part.
    by_part: Amount,
    by_lease: Amount,
    /// The most that a window held lately: since `peak_since`, and in the window before. All of a window may leave at once, and
    /// that is no reason to give the part up.
    peak: (Amount, Amount),
    peak_since: Micros,
    stock: Amount,
    stock_ends: Micros,
    /// The stock is there to try a closed door.
    probes: bool,
    /// Allowance of the day for the part, and what was spent of it and not told.
    daily: u64,
    daily_spent: u64,
    /// What the part used and was not told.
    spent: Amount,
    sent: VecDeque<Sent>,
    /// The number of the first of them.
    first: UseId,
    /// Uses of leases that left the window before they could be told.
    faded: Amount,
    corrections: Vec<Correction>,
    /// Since when there is something to tell.
    untold: Option<Micros>,
    open: Option<Open>,
    ask_at: Micros,
    members: u32,
    hungry: u32,
    held: Held,
    /// The store does not answer: since when.
    lost: Option<Micros>,
    /// Until then a request that counts no tokens takes one of the stock and nothing else changes: the last use is of the same cell,
    /// nothing leaves the window, and the stock does not end. 0 for looking closely.
    quick_until: Micros,
    /// Below so many in stock it is looked at closely whether more should be fetched.
    quick_above: u64,
    #[cfg(test)]
    pub(super) mutant: Option<super::model::Mutant>,
}

impl Member {
    pub(crate) fn new(id: u64, key: StoreKey, manner: Manner, limits: Quota) -> Self {
        Self {
            id,
            key,
            manner,
            limits,
            in_force: None,
            calls: 0,
            epoch: 0,
            seq: 0,
            close_seq: 0,
            day: 0,
            day_seen: 0,
            ahead: None,
            contact: None,
            part: Amount::default(),
            by_part: Amount::default(),
            by_lease: Amount::default(),
            peak: (Amount::default(), Amount::default()),
            peak_since: 0,
            stock: Amount::default(),
            stock_ends: 0,
            probes: false,
            daily: 0,
            daily_spent: 0,
            spent: Amount::default(),
            sent: VecDeque::new(),
            first: 1,
            faded: Amount::default(),
            corrections: Vec::new(),
            untold: None,
            open: None,
            ask_at: 0,
            members: 0,
            hungry: 0,
            held: Held::Quota,
            lost: None,
            quick_until: 0,
            quick_above: 0,
            #[cfg(test)]
            mutant: None,
        }
    }

    // ===== permits =====

    #[inline]
    fn send(&mut self, now: Micros, tokens: u64, by: By) -> UseId {
        let amount = Amount::new(1, tokens);
        match by {
            By::Part => {
                self.by_part = self.by_part.plus(amount);
                self.spent = self.spent.plus(amount);
                if self.in_force().daily.is_some() {
                    self.daily -= 1;
                    self.daily_spent += 1;
                }
            }
            By::Lease => {
                self.by_lease = self.by_lease.plus(amount);
                if now < self.stock_ends {
                    self.stock = self.stock.minus(amount);
                }
                self.untold.get_or_insert(now);
            }
        }
        self.turn_peak(now);
        self.peak.0 = self.peak.0.max(self.by_part.plus(self.by_lease));
        // One entry for what was sent within a quarter of a bucket, so that memory and messages are bounded.
        let cell = self.manner.terms.bucket / 4;
        let call = self.calls;
        if let Some(last) = self.sent.back_mut() {
            if last.by == by
                && last.call == call
                && last.bucket == 0
                && now - last.at <= cell
                && last.at / cell.max(1) == now / cell.max(1)
            {
                last.at = now;
                last.amount = last.amount.plus(amount);
                return self.first + self.sent.len() as u64 - 1;
            }
        }
        self.sent.push_back(Sent { at: now, amount, by, bucket: 0, call });
        self.first + self.sent.len() as u64 - 1
    }

    /// Corrects a use: `charged` tokens were `tokens`, the request was sent or not, and counts for the day or not.
    pub(crate) fn settle(
        &mut self,
        now: Micros,
        id: UseId,
        charged: u64,
        tokens: u64,
        sent: bool,
        daily: bool,
    ) {
        self.quick_until = 0;
        self.expire(now);
        let counts_daily = self.in_force().daily.is_some();
        let Some(at) = id.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else { return };
        let told = self.open.as_ref().map_or(0, |open| open.told);
        let Some(entry) = self.sent.get_mut(at) else { return };
        let was = entry.amount;
        let back = u64::from(!sent).min(was.requests);
        entry.amount.requests -= back;
        entry.amount.tokens = (was.tokens.saturating_sub(charged)).saturating_add(tokens);
        let (is, by) = (entry.amount, entry.by);
        let known = entry.bucket != 0;
        let bucket = entry.bucket;
        let on_its_way = id <= told && !known;
        let sum = if by == By::Part { &mut self.by_part } else { &mut self.by_lease };
        *sum = sum.minus(was).plus(is);
        let undone = u64::from(!daily && counts_daily);
        if by == By::Part {
            if undone > 0 && self.daily_spent > 0 {
                self.daily_spent -= 1;
                self.daily += 1;
            } else if undone > 0 {
                self.corrections.push(Correction { bucket: 0, requests: 0, tokens: 0, daily: 1 });
                self.untold.get_or_insert(now);
            }
            return;
        }
        if on_its_way || known {
            let more = i64::try_from(tokens).unwrap_or(i64::MAX) - i64::try_from(charged).unwrap_or(i64::MAX);
            if back == 0 && more == 0 && undone == 0 {
                return;
            }
            // The bucket of one that is on its way is known with the answer.
            let bucket = if known { bucket } else { id | NAMED };
            self.corrections.push(Correction { bucket, requests: back, tokens: more, daily: undone });
            self.untold.get_or_insert(now);
        } else if undone > 0 {
            // Not told yet: it is told as what it turned out to be, and of the day it was none.
            if back == 0 {
                self.corrections.push(Correction { bucket: 0, requests: 0, tokens: 0, daily: 1 });
            }
            self.untold.get_or_insert(now);
        }
    }

    /// Sent only now, a while after it was admitted.
    pub(crate) fn restamp(&mut self, now: Micros, id: UseId, tokens: u64) -> UseId {
        self.quick_until = 0;
        let by =
            id.checked_sub(self.first).and_then(|at| self.sent.get(usize::try_from(at).ok()?)).map(|s| s.by);
        let (daily, spent, stock) = (self.daily, self.daily_spent, self.stock);
        let by = by.unwrap_or(By::Lease);
        // The use is told anew; of the day it was told once, and the correction takes that back.
        self.settle(now, id, tokens, 0, false, by == By::Part);
        self.daily += 1;
        let id = self.send(now, self.counted(tokens), by);
        (self.daily, self.daily_spent, self.stock) = (daily, spent, stock);
        id
    }

    #[inline]
    fn expire(&mut self, now: Micros) {
        if self.sent.front().is_some_and(|first| first.at + self.manner.terms.window <= now) {
            self.expire_some(now);
        }
    }

    fn expire_some(&mut self, now: Micros) {
        self.quick_until = 0;
        let window = self.manner.terms.window;
        while let Some(first) = self.sent.front() {
            if first.at + window > now {
                break;
            }
            let on_its_way = self.open.as_ref().is_some_and(|open| self.first <= open.told);
            if first.by == By::Lease && first.bucket == 0 && !on_its_way {
                // It counts for the day all the same.
                self.faded = self.faded.plus(first.amount);
            }
            let sum = if first.by == By::Part { &mut self.by_part } else { &mut self.by_lease };
            *sum = sum.minus(first.amount);
            self.sent.pop_front();
            self.first += 1;
        }
    }

    // ===== messages =====

    /// Asks as soon as it can.
    pub(crate) fn touch(&mut self) {
        if self.contact.is_some() {
            (self.untold, self.hungry) = (Some(0), self.hungry.max(1));
        }
    }

    /// What is at hand is void: a door was closed, or the machine has slept.
    pub(crate) fn void(&mut self) {
        self.quick_until = 0;
        self.stock = Amount::default();
    }

    /// The same of the part as well.
    pub(crate) fn void_all(&mut self) {
        self.void();
        self.part = Amount::default();
    }

    /// A 429 named a limit. What counts is what the store says of it; until then it is kept to here.
    pub(crate) fn learn(&mut self, close: &Close) {
        self.quick_until = 0;
        let mut learnt = Quota::default();
        match close.dimension {
            0 => learnt.requests = close.limit,
            1 => learnt.tokens = close.limit,
            2 => learnt.daily = close.limit,
            _ => return,
        }
        self.in_force = Some(self.in_force().lowest(learnt));
    }

    /// Other limits from now on.
    pub(crate) fn configure(&mut self, limits: Quota) {
        self.quick_until = 0;
        self.limits = limits;
        self.in_force = self.in_force.map(|_| limits);
    }
}

/// Marks a correction whose bucket is not known yet: the number of its use stands there. Buckets are microseconds since
/// 1970 and far below.
const NAMED: u64 = 1 << 63;
