//! What one member knows of one key: its part, its leases, what it must tell. Pure: it is handed its own steady clock.
//!
//! The local log of the rate limit decides as before; beside it a request needs a permit of the fleet, from the part or
//! from a lease. [`Member::admit`] takes one without a message. [`Member::ask`] writes the next message, as of that
//! moment, and [`Member::accept`] reads its answer.

use std::collections::VecDeque;

use super::book::mutant;
use super::message::{
    Amount, Close, Correction, DayEnd, Held, MANY, Micros, Quota, Reply, StoreKey, Take, Terms, Use,
};
use super::supply::Known;

/// What members do while the store does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Outage {
    /// Keeps to the part that it had: the fleet sends at most half of the limit for two windows, then half of that
    /// each two windows, and nothing after twenty. A member that never reached the store sends nothing. No window ever
    /// holds more than the limit. The default.
    #[default]
    Strict,
    /// Keeps to `share` of the limit by the number of members, for as long as it takes. While `m` of `n` members are cut
    /// off from a store that others reach, a window may hold `1 + share · m / n` times the limit.
    #[non_exhaustive]
    Share {
        /// Of the limit, above 0 and up to 1.
        share: f64,
        /// How many members there are, for one that never reached the store.
        members: u32,
    },
    /// Sends nothing as soon as the store does not answer.
    Closed,
    /// Each member keeps the whole limit for itself, as without a store: a window may hold as many times the limit as
    /// there are members.
    Local,
}

impl Outage {
    /// [`Outage::Share`] of this share, for a fleet of so many members where nobody has told yet.
    #[must_use]
    pub const fn share(share: f64, members: u32) -> Self {
        Self::Share { share, members }
    }
}

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

    /// Takes a permit of the stock like the one before, where nothing else is to be looked at.
    #[inline]
    pub(crate) fn admit_quickly(&mut self, now: Micros) -> Option<UseId> {
        if now >= self.quick_until || self.stock.requests <= self.quick_above {
            return None;
        }
        let last = self.sent.back_mut()?;
        last.at = now;
        last.amount.requests += 1;
        self.stock.requests -= 1;
        self.by_lease.requests += 1;
        self.peak.0.requests = self.peak.0.requests.max(self.by_part.requests + self.by_lease.requests);
        Some(self.first + self.sent.len() as u64 - 1)
    }

    /// From now on [quickly](Self::admit_quickly), after a permit of the stock, while there are more than `above`.
    pub(crate) fn quicken(&mut self, now: Micros, above: u64) {
        let (terms, cell) = (&self.manner.terms, self.manner.terms.bucket / 4);
        let counts_tokens = self.in_force.as_ref().unwrap_or(&self.limits).tokens.is_some();
        let (Some(first), Some(last)) = (self.sent.front(), self.sent.back()) else { return };
        if counts_tokens || cell == 0 || last.by != By::Lease || last.bucket != 0 || last.at != now {
            return;
        }
        let of_cell = (now / cell + 1) * cell;
        let expires = (first.at + terms.window).min(self.peak_since + terms.window);
        self.quick_until = self.stock_ends.min(of_cell).min(expires);
        self.quick_above = above;
    }

    /// Takes a permit for one request, if there is one at hand. `probe` is whether it goes through a closed door: of a fleet one
    /// may, which the store picks.
    #[inline]
    pub(crate) fn admit(&mut self, now: Micros, tokens: u64, probe: bool) -> Option<UseId> {
        self.quick_until = 0;
        if probe && self.lost.is_none() && !std::mem::take(&mut self.probes) {
            return None;
        }
        let tokens = self.counted(tokens);
        let by = self.permit(now, tokens)?;
        Some(self.send(now, tokens, by))
    }

    /// Whether [`admit`](Self::admit) would find a permit.
    pub(crate) fn has_permit(&mut self, now: Micros, tokens: u64) -> bool {
        let tokens = self.counted(tokens);
        self.permit(now, tokens).is_some()
    }

    /// When the store said to ask again, where nothing is at hand.
    pub(crate) fn held_until(&self, now: Micros) -> Micros {
        let left = self.left(now);
        let is_empty = left.requests == 0 || left.tokens == 0;
        if is_empty && self.lost.is_none() { self.ask_at } else { 0 }
    }

    /// For how many of these, the first ones, there are permits at hand.
    pub(crate) fn covers(&self, now: Micros, sizes: &[u64]) -> usize {
        let left = self.left(now);
        let mut sum = 0_u64;
        let fit = |size: &&u64| {
            sum = sum.saturating_add(self.counted(**size));
            sum <= left.tokens
        };
        let most = usize::try_from(left.requests).unwrap_or(usize::MAX);
        sizes.iter().take(most).take_while(fit).count()
    }

    /// Of the part and of leases.
    fn left(&self, now: Micros) -> Amount {
        let stock = if now < self.stock_ends { self.stock } else { Amount::default() };
        self.allowed(now).0.minus(self.by_part).plus(stock)
    }

    pub(crate) const fn lease(&self) -> Micros {
        self.manner.terms.lease
    }

    /// The tokens of a request as the limit counts them.
    #[inline]
    fn counted(&self, tokens: u64) -> u64 {
        let limit = self.in_force.as_ref().unwrap_or(&self.limits).tokens;
        limit.map_or(0, |limit| tokens.min(limit))
    }

    #[inline]
    fn permit(&mut self, now: Micros, tokens: u64) -> Option<By> {
        self.expire(now);
        // What would be lost comes first.
        if now < self.stock_ends && self.stock.requests > 0 && self.stock.tokens >= tokens {
            return Some(By::Lease);
        }
        self.permit_of_part(now, tokens)
    }

    fn permit_of_part(&self, now: Micros, tokens: u64) -> Option<By> {
        let limits = self.in_force();
        let (part, more) = self.allowed(now);
        let used = if more { self.by_part.plus(self.by_lease) } else { self.by_part };
        let fits = used.requests < part.requests && used.tokens + tokens <= part.tokens;
        if fits && (limits.daily.is_none() || self.daily > 0 || more) {
            // What goes beyond the part is told to the store like the use of a lease.
            return Some(if more { By::Lease } else { By::Part });
        }
        None
    }

    /// The most that the member may have in its window without a lease, and whether that is more than its part.
    fn allowed(&self, now: Micros) -> (Amount, bool) {
        let limits = self.in_force();
        let most = limits.window();
        if self.lost.is_some() {
            match self.manner.outage {
                Outage::Strict => {}
                Outage::Closed => return (Amount::default(), false),
                Outage::Local => return (most, true),
                Outage::Share { share, members } => {
                    let members = if self.contact.is_some() { self.members } else { members };
                    let share = |limit: u64| {
                        if limit >= MANY {
                            MANY
                        } else {
                            (limit as f64 * share) as u64 / u64::from(members.max(1))
                        }
                    };
                    let own = Amount::new(share(most.requests), share(most.tokens));
                    return (own.max(self.part_now(now)), true);
                }
            }
        }
        let part = self.part_now(now);
        if self.contact.is_none() {
            return (part, false);
        }
        let open = |limit: u64, part: u64| if limit >= MANY { MANY } else { part };
        (most.each(part, open), false)
    }

    /// The part, as far as it has not decayed in silence.
    fn part_now(&self, now: Micros) -> Amount {
        match self.contact {
            Some(contact) => self.manner.terms.decayed(self.part, now.saturating_sub(contact)),
            None => Amount::default(),
        }
    }

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

    /// When the next message should be sent; `None` for never, as far as can be told now. `queued` is whether requests
    /// wait that need a permit.
    pub(crate) fn due(&self, now: Micros, queued: bool) -> Option<Micros> {
        let terms = &self.manner.terms;
        if self.open.is_some() {
            return None;
        }
        let mut due = None;
        let mut at = |when: Micros| due = Some(due.map_or(when, |due: Micros| due.min(when)));
        if queued {
            at(self.ask_at.max(now));
        }
        if let Some(since) = self.untold {
            at(since + if self.hungry > 0 { terms.lease / 2 } else { terms.heartbeat });
        }
        if !self.stock.is_zero() {
            at(self.stock_ends + if self.hungry > 0 { 0 } else { terms.heartbeat / 2 });
        }
        // A day that is spent may have some left again, when others give back what they do not use.
        if self.held == Held::Day {
            at(self.ask_at.max(now));
        }
        // Others wait, and this one does not use all of its part.
        let is_wanted = self.hungry > 0 && !queued && self.is_part_idle(now);
        if let (true, Some(contact)) = (is_wanted, self.contact) {
            at(contact + terms.lease / 2);
        }
        let holds = !self.part.is_zero() || self.daily > 0;
        if let (true, Some(contact)) = (holds || queued, self.contact) {
            at(contact + terms.heartbeat);
        }
        due
    }

    fn turn_peak(&mut self, now: Micros) {
        let since = now.saturating_sub(self.peak_since);
        if since >= self.manner.terms.window {
            let before = if since < 2 * self.manner.terms.window { self.peak.0 } else { Amount::default() };
            self.peak = (self.by_part.plus(self.by_lease), before);
            self.peak_since = now;
        }
    }

    fn is_part_idle(&self, now: Micros) -> bool {
        let part = self.part_now(now);
        self.by_part.requests < part.requests || self.by_part.tokens < part.tokens
    }

    /// Requests in the time of a lease, at the pace of the last window.
    fn pace(&self) -> u64 {
        let used = self.by_part.plus(self.by_lease).requests;
        used.saturating_mul(self.manner.terms.lease) / self.manner.terms.window
    }

    /// What is at hand: of the part and of leases.
    fn at_hand(&self, now: Micros) -> u64 {
        let part = self.allowed(now).0.minus(self.by_part).requests;
        let part = if self.in_force().daily.is_some() { part.min(self.daily) } else { part };
        part.saturating_add(if now < self.stock_ends { self.stock.requests } else { 0 })
    }

    /// Whether what is at hand will not last until an answer can come. Never at a slow pace, where each request asks for
    /// itself, nor while others wait, who would go without what is fetched ahead.
    pub(crate) fn wants_refill(&self, now: Micros, round_trip: Micros) -> bool {
        self.refill(now, round_trip).0
    }

    /// The same, and how many must be in stock for it not to be so, for a while.
    pub(crate) fn refill(&self, now: Micros, round_trip: Micros) -> (bool, u64) {
        if self.hungry > 0 || self.lost.is_some() || self.open.is_some() || now < self.ask_at {
            return (false, 0);
        }
        let pace = self.pace();
        if pace == 0 {
            return (false, 0);
        }
        let horizon = 2 * round_trip + 50_000;
        let needed = pace * horizon / self.manner.terms.lease;
        // Of leases alone, which is the quicker to tell, or with the part.
        let is_stocked = now < self.stock_ends && self.stock.requests > needed;
        (!is_stocked && self.at_hand(now) <= needed, needed)
    }

    /// How many requests to fetch ahead: what the time of a lease takes, and at most a twentieth of the limit.
    pub(crate) fn ahead(&self, now: Micros) -> u64 {
        if self.hungry > 0 || self.lost.is_some() {
            return 0;
        }
        let most = self.in_force().requests.map_or(64, |limit| limit / 20);
        let pace = self.pace().min(most);
        if self.at_hand(now) < pace { pace } else { 0 }
    }

    /// The tokens of a request, as those of the last window were.
    pub(crate) fn usual_size(&self) -> u64 {
        let used = self.by_part.plus(self.by_lease);
        used.tokens.checked_div(used.requests).unwrap_or(0)
    }

    /// When to look again for a permit: soon where an answer is on its way; else when the part's window or the store will
    /// have some, as far as that is known.
    pub(crate) fn next(&self, now: Micros, round_trip: Micros) -> Micros {
        let soon = now + (2 * round_trip).clamp(1_000, self.manner.terms.lease / 8);
        if self.lost.is_none() && (self.open.is_some() || self.ask_at <= now) {
            return soon;
        }
        let first = self.sent.iter().find(|sent| sent.by == By::Part && sent.amount.requests > 0);
        let freed = first.map_or(u64::MAX, |first| first.at + self.manner.terms.window);
        // Whatever was told, it is looked at now and then: others may give back what they do not use.
        let ask_at = if self.lost.is_some() { now } else { self.ask_at };
        ask_at.min(freed).min(now + self.manner.terms.lease).max(now + self.manner.terms.lease / 8)
    }

    /// Writes the next message, or gives the open one again. `today` is asked for the day at a time of the server's.
    pub(crate) fn ask(
        &mut self,
        now: Micros,
        queued: &Queued,
        leave: bool,
        today: impl FnOnce(Micros) -> DayEnd,
    ) -> Take {
        self.quick_until = 0;
        if let Some(open) = &self.open {
            return open.take.clone();
        }
        self.expire(now);
        self.turn_peak(now);
        self.calls += 1;
        let mut uses: Vec<Use> = Vec::new();
        if !self.faded.is_zero() {
            let age = 2 * self.manner.terms.window;
            uses.push(Use { age, amount: std::mem::take(&mut self.faded) });
        }
        let mut told = self.first.saturating_sub(1);
        let mut leaving = 0;
        for (at, sent) in self.sent.iter().enumerate() {
            told = self.first + at as u64;
            let by_part = sent.by == By::Part;
            if (by_part && !leave) || sent.bucket != 0 || sent.amount.is_zero() {
                continue;
            }
            if by_part {
                // The day knows of it.
                leaving += sent.amount.requests;
            }
            // Rounded down twice, as both instants were: too young is safe.
            let age = (now - sent.at.min(now)).saturating_sub(1);
            uses.push(Use { age, amount: sent.amount });
        }
        if self.hungry > 0 && queued.want.is_zero() && self.lost.is_none() {
            // Others wait for what is not used here.
            self.part = self.part.min(self.by_part);
        }
        let part = self.part_now(now);
        let stocked = now < self.stock_ends && !leave;
        if !stocked {
            self.stock = Amount::default();
        }
        if part.is_zero() && self.limits_part() {
            // Without a part there is nothing to spend an allowance on.
            self.daily = 0;
        }
        if leave {
            (self.part, self.daily) = (Amount::default(), 0);
            self.corrections.push(Correction { bucket: 0, requests: 0, tokens: 0, daily: leaving });
        }
        // Until its window has shrunk, a smaller part still counts as what is in it.
        let held_part = match leave {
            true => Amount::default(),
            false if mutant!(self, NotDrained) => part,
            false => part.max(self.by_part),
        };
        let day = self.ahead.map_or(DayEnd::default(), |ahead| today(now.saturating_add_signed(ahead)));
        let corrections = std::mem::take(&mut self.corrections);
        let (ready, later): (Vec<_>, Vec<_>) =
            corrections.into_iter().partition(|correction| correction.bucket & NAMED == 0);
        self.corrections = later;
        let take = Take {
            key: self.key.clone(),
            member: self.id,
            call: self.calls,
            epoch: self.epoch,
            seq: self.seq,
            terms: self.manner.terms,
            limits: self.limits,
            day,
            day_seen: self.day_seen,
            held: self.stock,
            part: held_part,
            day_held: self.daily,
            day_spent: std::mem::take(&mut self.daily_spent),
            spent: std::mem::take(&mut self.spent),
            uses,
            corrections: ready,
            used: self.peak.0.max(self.peak.1),
            want: queued.want,
            sizes: queued.sizes.clone(),
            weight: self.manner.weight.saturating_mul(queued.share.max(1)),
            close_seq: self.close_seq,
            leave,
        };
        self.untold = None;
        self.open = Some(Open { take: take.clone(), sent: now, told });
        take
    }

    /// Reads an answer. Returns the doors that it tells of; an answer to another call than the open one tells nothing.
    pub(crate) fn accept(&mut self, now: Micros, reply: &Reply) -> Option<Vec<Close>> {
        self.quick_until = 0;
        let open = self.open.take_if(|open| open.take.call == reply.call)?;
        let terms = self.manner.terms;
        self.lost = None;
        self.contact = Some(open.sent);
        (self.epoch, self.seq, self.close_seq) = (reply.epoch, reply.seq, reply.close_seq);
        (self.day, self.day_seen) = (reply.day, reply.day_used);
        (self.members, self.hungry, self.held) = (reply.members, reply.hungry, reply.held);
        if !open.take.leave {
            self.in_force = Some(self.limits.lowest(reply.limits));
        }
        let server = i64::try_from(reply.now).unwrap_or(0);
        self.ahead = Some(server - i64::try_from(now).unwrap_or(0));
        // Where the store charged what the call told of.
        for (at, sent) in self.sent.iter_mut().enumerate() {
            let id = self.first + at as u64;
            if id <= open.told && sent.by == By::Lease && sent.bucket == 0 {
                let age = (open.sent - sent.at.min(open.sent)).saturating_sub(1);
                let leaves = (reply.now - age.min(reply.now)) + terms.window;
                sent.bucket = (leaves / terms.bucket + 1) * terms.bucket;
            }
        }
        let (first, sent) = (self.first, &self.sent);
        for correction in &mut self.corrections {
            if correction.bucket & NAMED != 0 {
                let id = correction.bucket & !NAMED;
                let at = id.checked_sub(first).and_then(|at| usize::try_from(at).ok());
                correction.bucket = at.and_then(|at| sent.get(at)).map_or(0, |sent| sent.bucket);
            }
        }
        if self.epoch != open.take.epoch && open.take.epoch != 0 {
            // What was charged to another state cannot be corrected in this one.
            self.corrections.iter_mut().for_each(|correction| correction.bucket = 0);
        }
        let from = if mutant!(self, LeaseFromReply) { now } else { open.sent };
        if !reply.grant.is_zero() {
            self.stock = self.stock.plus(reply.grant);
            self.stock_ends = self.stock_ends.max(from + terms.lease);
        }
        if !open.take.leave {
            self.part = reply.part;
        }
        self.daily += reply.daily;
        self.probes = reply.probe;
        self.ask_at = now + reply.wait;
        Some(reply.closes.clone())
    }

    /// The call that is under way, to be sent again.
    pub(crate) fn open(&self) -> Option<&Take> {
        self.open.as_ref().map(|open| &open.take)
    }

    /// The store does not answer.
    pub(crate) fn lose(&mut self, now: Micros) {
        self.quick_until = 0;
        self.lost.get_or_insert(now);
    }

    #[cfg(test)]
    pub(super) fn knows(&self, epoch: u64) -> bool {
        self.epoch == epoch && epoch != 0
    }

    /// A state began anew: says what the member holds at once, if it holds anything.
    pub(crate) fn born(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.touch();
        }
    }

    /// Gives everything back, and says so if there is anything that the store may know of.
    pub(crate) fn leave(&mut self, now: Micros, today: impl FnOnce(Micros) -> DayEnd) -> Option<Take> {
        self.quick_until = 0;
        // NOTE: an open call may have been processed or not. What it told is told again: charged twice is safe, and if it comes
        // after this one it is not looked at.
        self.open = None;
        (self.calls > 0).then(|| self.ask(now, &Queued::default(), true, today))
    }

    /// Asks as soon as it can.
    pub(crate) fn touch(&mut self) {
        if self.contact.is_some() {
            (self.untold, self.hungry) = (Some(0), self.hungry.max(1));
        }
    }

    /// Whether the store says that the day is spent.
    pub(crate) fn is_day_spent(&self) -> bool {
        self.held == Held::Day && self.day > 0
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Whether nothing is lost when this is forgotten.
    pub(crate) fn is_idle(&self, now: Micros) -> bool {
        let window = self.manner.terms.window;
        let used = self.sent.iter().any(|sent| !sent.amount.is_zero() && sent.at + window > now);
        let holds = !self.part.is_zero() || self.daily > 0 || !self.stock.is_zero();
        !used && !holds && self.open.is_none() && self.untold.is_none()
    }

    pub(crate) fn known(&self, now: Micros) -> Known {
        Known {
            members: self.members,
            waiting: self.hungry,
            part: self.part_now(now),
            stock: if now < self.stock_ends { self.stock } else { Amount::default() },
            held: self.held,
            asked: 0,
            granted: 0,
            is_lost: self.lost.is_some(),
            is_met: self.contact.is_some(),
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

    // ===== to look at =====

    pub(crate) fn in_force(&self) -> Quota {
        self.in_force.unwrap_or(self.limits)
    }

    fn limits_part(&self) -> bool {
        let limits = self.in_force();
        limits.requests.is_some() || limits.tokens.is_some()
    }
}

/// Marks a correction whose bucket is not known yet: the number of its use stands there. Buckets are microseconds since
/// 1970 and far below.
const NAMED: u64 = 1 << 63;
