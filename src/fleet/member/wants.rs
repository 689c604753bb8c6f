//! When a member asks the store, and for how much.

use super::{Amount, By, Held, Member, Micros};

impl Member {
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

    pub(super) fn turn_peak(&mut self, now: Micros) {
        let since = now.saturating_sub(self.peak_since);
        if since >= self.manner.terms.window {
            let before = if since < 2 * self.manner.terms.window { self.peak.0 } else { Amount::default() };
            self.peak = (self.by_part.plus(self.by_lease), before);
            self.peak_since = now;
        }
    }

    pub(super) fn is_part_idle(&self, now: Micros) -> bool {
        let part = self.part_now(now);
        self.by_part.requests < part.requests || self.by_part.tokens < part.tokens
    }

    /// Requests in the time of a lease, at the pace of the last window.
    pub(super) fn pace(&self) -> u64 {
        let used = self.by_part.plus(self.by_lease).requests;
        used.saturating_mul(self.manner.terms.lease) / self.manner.terms.window
    }

    /// What is at hand: of the part and of leases.
    pub(super) fn at_hand(&self, now: Micros) -> u64 {
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
}
