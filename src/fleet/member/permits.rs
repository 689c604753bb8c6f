//! Permits: what may be sent without a message, from the part and from leases.

use super::{Amount, By, MANY, Member, Micros, Outage, UseId};

impl Member {
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
    pub(super) fn left(&self, now: Micros) -> Amount {
        let stock = if now < self.stock_ends { self.stock } else { Amount::default() };
        self.allowed(now).0.minus(self.by_part).plus(stock)
    }

    pub(crate) const fn lease(&self) -> Micros {
        self.manner.terms.lease
    }

    /// The tokens of a request as the limit counts them.
    #[inline]
    pub(super) fn counted(&self, tokens: u64) -> u64 {
        let limit = self.in_force.as_ref().unwrap_or(&self.limits).tokens;
        limit.map_or(0, |limit| tokens.min(limit))
    }

    #[inline]
    pub(super) fn permit(&mut self, now: Micros, tokens: u64) -> Option<By> {
        self.expire(now);
        // What would be lost comes first.
        if now < self.stock_ends && self.stock.requests > 0 && self.stock.tokens >= tokens {
            return Some(By::Lease);
        }
        self.permit_of_part(now, tokens)
    }

    pub(super) fn permit_of_part(&self, now: Micros, tokens: u64) -> Option<By> {
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
    pub(super) fn allowed(&self, now: Micros) -> (Amount, bool) {
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
    pub(super) fn part_now(&self, now: Micros) -> Amount {
        match self.contact {
            Some(contact) => self.manner.terms.decayed(self.part, now.saturating_sub(contact)),
            None => Amount::default(),
        }
    }
}
