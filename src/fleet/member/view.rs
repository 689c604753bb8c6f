//! What a member looks like from outside.

use super::{Amount, Held, Known, Member, Micros, Quota, Take};

impl Member {
    #[cfg(test)]
    pub(in crate::fleet) fn knows(&self, epoch: u64) -> bool {
        self.epoch == epoch && epoch != 0
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

    pub(crate) fn in_force(&self) -> Quota {
        self.in_force.unwrap_or(self.limits)
    }

    pub(super) fn limits_part(&self) -> bool {
        let limits = self.in_force();
        limits.requests.is_some() || limits.tokens.is_some()
    }

    /// The call that is under way, to be sent again.
    pub(crate) fn open(&self) -> Option<&Take> {
        self.open.as_ref().map(|open| &open.take)
    }
}
