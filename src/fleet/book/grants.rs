//! Grants: how much of the limit a message gets.

use super::{
    ALLOWANCES, Amount, Book, Held, MANY, Micros, PARTS, Quota, Reply, Room, SCARCE, Take, Terms, Wants,
    mutant, share,
};

impl Book {
    pub(super) fn grant(&mut self, now: Micros, take: &Take, me: usize) -> Reply {
        let terms = &take.terms;
        let limits = self.limits();
        let differs = self.members.iter().any(|m| !m.left && m.limits != take.limits);
        let (parts, leases, members) = self.committed(now, terms);
        let most = limits.window();
        let free = most.minus(parts).minus(leases).minus(self.charged);
        let mut left = limits.daily.map_or(MANY, |daily| daily.saturating_sub(self.day.used));
        if limits.daily.is_some() && self.day.ends <= now {
            // Nobody has said yet which day it is.
            left = 0;
        }
        let mut wants = Wants {
            now,
            me,
            free: Amount::new(free.requests.min(left), free.tokens),
            limits: most,
            want: take.want,
            sizes: &take.sizes,
            slack: 2 * terms.lease,
            soon: terms.lease / 2,
        };
        let record = &mut self.members[me];
        record.served += share::cost(take.spent, most) / f64::from(record.weight);
        let share = share::share(&mut self.members, &wants);
        let granted = share.granted;
        #[cfg(test)]
        let granted = if mutant!(self, FirstComeAll) { share::greedy(&wants) } else { granted };
        let mut reply =
            Reply { part: take.part, limits, differs, members, hungry: share.hungry, ..Reply::default() };
        let shut = self.shut(now);
        if now < self.opens {
            (reply.held, reply.wait) = (Held::New, self.opens - now);
        } else if let Some(probe_at) = shut {
            reply.held = Held::Closed;
            if probe_at > now {
                reply.wait = probe_at - now;
            } else if take.want.requests > 0 && wants.free.requests > 0 {
                let head = take.sizes.first().copied().unwrap_or(0).min(most.tokens);
                let head = if most.tokens >= MANY { 0 } else { head };
                if head <= free.tokens {
                    self.probe(now);
                    reply.probe = true;
                    reply.grant = Amount::new(1, head);
                }
            }
        } else if left == 0 {
            (reply.held, reply.wait) = (Held::Day, self.day.ends.saturating_sub(now).max(1_000));
        } else {
            let room = Room { parts: parts.minus(take.part), most, left, largest: share.largest };
            self.serve(take, &room, granted, &mut reply);
            let record = &mut self.members[me];
            // What went to the part is counted when it is used.
            record.served += share::cost(reply.grant, most) / f64::from(record.weight);
            record.want = record.want.minus(granted);
            if granted.requests < take.want.requests {
                wants.free = wants.free.minus(granted);
                let next = take.sizes.get(granted.requests as usize).copied().unwrap_or(0);
                let next = next.min(most.tokens);
                reply.wait = share::wait(&self.members, &wants, &self.ring, next, terms.heartbeat);
            }
        }
        self.write_down(now, take, me, &mut reply);
        reply
    }

    pub(in crate::fleet) fn limits(&self) -> Quota {
        let given = self.members.iter().filter(|m| !m.left).map(|m| m.limits);
        let [requests, tokens, daily] = self.learnt.map(|learnt| learnt.map(|learnt| learnt.limit));
        given.fold(Quota { requests, tokens, daily }, Quota::lowest)
    }

    /// Parts, leases, and how many members were heard lately.
    pub(in crate::fleet) fn committed(&self, now: Micros, terms: &Terms) -> (Amount, Amount, u32) {
        let (mut parts, mut leases, mut members) = (Amount::default(), Amount::default(), 0);
        for m in &self.members {
            let silent = now - m.contact;
            if mutant!(self, SilentForgotten) {
                if silent < terms.heartbeat {
                    parts = parts.plus(m.part);
                }
            } else {
                parts = parts.plus(terms.kept(m.part, silent));
            }
            let counts = if mutant!(self, LeaseDiesEarly) { 0 } else { terms.window };
            if m.lease_ends + counts > now {
                leases = leases.plus(m.lease);
            }
            if !m.left && silent < 3 * terms.window {
                members += 1;
            }
        }
        if self.lost {
            let silent = now.saturating_sub(self.unknown_since);
            parts = parts.plus(terms.kept(self.unknown, silent));
        }
        (parts, leases, members)
    }

    /// The member's share: first as a larger part, if it has less than its own, then as a lease.
    pub(super) fn serve(&self, take: &Take, room: &Room, granted: Amount, reply: &mut Reply) {
        let most = room.most;
        let members = u64::from(reply.members.max(1));
        let unit = u64::from(most.requests < MANY);
        let own = |limit: u64| if limit >= MANY { 0 } else { limit / PARTS / members };
        let mut target = Amount::new(own(most.requests), own(most.tokens));
        if most.tokens < MANY && room.largest > most.tokens / PARTS {
            // A prompt that is larger than the bank would wait for ever.
            target.tokens = 0;
        }
        target = target.min(take.used);
        let mut allowance = MANY;
        if reply.limits.daily.is_some() {
            let scarce = if most.requests >= MANY { 0 } else { SCARCE * most.requests };
            allowance = if room.left < scarce { 0 } else { room.left / ALLOWANCES / members };
            if allowance == 0 {
                target = Amount::default();
            }
        }
        let bank = |limit: u64| if limit >= MANY { MANY } else { limit / PARTS };
        let mut part = take.part;
        let (mut moved, mut tokens) = (0, 0);
        while moved < granted.requests && moved < allowance && (most.requests < MANY || most.tokens < MANY) {
            let size = take.sizes.get(moved as usize).copied().unwrap_or(0).min(most.tokens);
            let size = if most.tokens < MANY { size } else { 0 };
            let next = part.plus(Amount::new(unit, size));
            let fits = next.requests <= target.requests.max(1 - unit)
                && next.tokens <= target.tokens
                && room.parts.requests + next.requests <= bank(most.requests)
                && room.parts.tokens + next.tokens <= bank(most.tokens);
            if !fits {
                break;
            }
            (part, moved, tokens) = (next, moved + 1, tokens + size);
        }
        reply.grant = granted.minus(Amount::new(moved, tokens));
        reply.part = part.min(target);
        if reply.limits.daily.is_some() {
            let more = allowance.saturating_sub(take.day_held);
            reply.daily = more.min(room.left.saturating_sub(reply.grant.requests));
        }
    }
}
