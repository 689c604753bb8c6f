//! The messages of a member: the next one, what its answer changes, and the last.

use super::{
    Amount, By, Close, Correction, DayEnd, Member, Micros, NAMED, Open, Queued, Reply, Take, Use, mutant,
};

impl Member {
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

    /// The store does not answer.
    pub(crate) fn lose(&mut self, now: Micros) {
        self.quick_until = 0;
        self.lost.get_or_insert(now);
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
}
