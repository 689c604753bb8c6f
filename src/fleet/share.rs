//! Who gets what is free: max-min fair over members, by weight. Pure.
//!
//! Each request costs the larger of its shares of the two limits (dominant resource fairness). A member's level is what it
//! was served by its weight. What is free is poured over the members that wait like water: those at the lowest level get it
//! first, until all stand equally high or want no more. So a member that asks twice gets no more than one that asks once,
//! a large prompt is passed for no longer than it takes others to be served as much, and whoever begins to wait begins at
//! the lowest level.

use super::book::Record;
use super::message::{Amount, MANY, Micros};

/// Rounding errors of sums of costs.
const NOTHING: f64 = 1e-9;

/// What is to be shared, and with whom.
#[derive(Debug)]
pub(super) struct Wants<'a> {
    pub(super) now: Micros,
    /// The member that asks.
    pub(super) me: usize,
    pub(super) free: Amount,
    pub(super) limits: Amount,
    pub(super) want: Amount,
    /// Tokens of the first that wait; empty where they are not limited.
    pub(super) sizes: &'a [u64],
    /// How long after its turn a member is still thought to wait.
    pub(super) slack: Micros,
    /// Members whose turn comes so soon have theirs kept for them.
    pub(super) soon: Micros,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) granted: Amount,
    /// Others that wait.
    pub(super) hungry: u32,
    /// The largest prompt at the head of a queue.
    pub(super) largest: u64,
}

/// The larger share of the two limits.
pub(super) fn cost(amount: Amount, limits: Amount) -> f64 {
    let requests = amount.requests as f64 / limits.requests as f64;
    let tokens = if limits.tokens >= MANY { 0.0 } else { amount.tokens as f64 / limits.tokens as f64 };
    requests.max(tokens)
}

impl Record {
    pub(super) fn is_hungry(&self, now: Micros, slack: Micros) -> bool {
        self.want.requests > 0 && now <= self.due + slack
    }
}

/// Works out what the member that asks may have now, and writes down what it wants.
pub(super) fn share(members: &mut [Record], wants: &Wants<'_>) -> Share {
    let Wants { now, me, slack, limits, .. } = *wants;
    let was_hungry = members[me].is_hungry(now, slack);
    let mut share = Share::default();
    let mut lowest: Option<f64> = None;
    for (at, m) in members.iter().enumerate() {
        if at != me && m.is_hungry(now, slack) {
            share.hungry += 1;
            share.largest = share.largest.max(m.head);
            lowest = Some(lowest.map_or(m.served, |low| low.min(m.served)));
        }
    }
    let head = wants.sizes.first().copied().unwrap_or(0).min(limits.tokens);
    let mine = &mut members[me];
    if let (false, Some(low)) = (was_hungry, lowest) {
        // No debt is older than what a window can hold.
        mine.served = mine.served.max(low).min(low + 1.0);
    }
    mine.want = wants.want;
    mine.head = head;
    mine.due = now + slack;
    if wants.want.requests == 0 {
        return share;
    }
    share.largest = share.largest.max(head);

    let mut most = wants.want.requests.min(wants.free.requests);
    let mut sums = Vec::new();
    if limits.tokens < MANY {
        let mut sum = 0;
        for size in wants.sizes {
            sum += (*size).min(limits.tokens);
            if sums.len() as u64 >= most || sum > wants.free.tokens {
                break;
            }
            sums.push(sum);
        }
        most = most.min(sums.len() as u64);
    }
    let amount = |count: u64| {
        let tokens = if limits.tokens < MANY { sums[count as usize - 1] } else { 0 };
        Amount::new(count, tokens)
    };
    // What is free is not kept for those who will ask later: they will find something then, and come first.
    let pour = Pour::new(members, wants, now + wants.soon);
    let free = pour.free(wants.free);
    let mut count = largest(most, |count| pour.fits(cost(amount(count), limits), free));
    if count == 0 && most > 0 && pour.before() + cost(amount(1), limits) <= free + NOTHING {
        count = 1;
    }
    if count > 0 {
        share.granted = amount(count);
    }
    share
}

/// How long until the member's next request may go, as far as charges tell that are there now.
pub(super) fn wait(
    members: &[Record],
    wants: &Wants<'_>,
    ring: &[(Micros, Amount)],
    head: u64,
    heartbeat: Micros,
) -> Micros {
    let pour = Pour::new(members, wants, Micros::MAX);
    let tokens = if wants.limits.tokens < MANY { head } else { 0 };
    let needed = pour.before() + cost(Amount::new(1, tokens), wants.limits);
    let mut free = wants.free;
    let enough =
        |free: Amount| free.requests >= 1 && free.tokens >= tokens && needed <= pour.free(free) + NOTHING;
    if enough(free) {
        // It is there for others first, who will ask soon.
        return wants.soon / 4;
    }
    for (leaves, amount) in ring {
        free = free.plus(*amount);
        if enough(free) {
            return leaves - wants.now;
        }
    }
    // Nobody knows: something may come back that is not used.
    heartbeat / 4
}

/// A mutant: whoever asks first has all.
#[cfg(test)]
pub(super) fn greedy(wants: &Wants<'_>) -> Amount {
    let mut granted = Amount::default();
    let tokens = wants.limits.tokens < MANY;
    while granted.requests < wants.want.requests.min(wants.free.requests) {
        let size = wants.sizes.get(granted.requests as usize).copied().unwrap_or(0);
        let size = if tokens { size.min(wants.limits.tokens) } else { 0 };
        if granted.tokens + size > wants.free.tokens
            || (tokens && granted.requests >= wants.sizes.len() as u64)
        {
            break;
        }
        granted = granted.plus(Amount::new(1, size));
    }
    granted
}

/// The largest number up to `most` that fits; what is smaller than one that fits does, too.
fn largest(most: u64, fits: impl Fn(u64) -> bool) -> u64 {
    if most == 0 || !fits(1) {
        return 0;
    }
    let (mut low, mut high) = (1, most);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

/// Those that wait, as costs.
struct Pour {
    /// Level, weight, what it wants, what its next request costs; and whether it comes first among equals.
    others: Vec<(f64, f64, f64, f64, bool)>,
    level: f64,
    weight: f64,
    /// All that is wanted, the member's own included.
    wanted: Amount,
    cost: f64,
    limits: Amount,
}

impl Pour {
    /// `by` is when those who count will ask at the latest.
    fn new(members: &[Record], wants: &Wants<'_>, by: Micros) -> Self {
        let limits = wants.limits;
        let me = &members[wants.me];
        let mut pour = Self {
            others: Vec::new(),
            level: me.served,
            weight: f64::from(me.weight),
            wanted: me.want,
            cost: cost(me.want, limits),
            limits,
        };
        for (at, m) in members.iter().enumerate() {
            if at != wants.me && m.due <= by && m.is_hungry(wants.now, wants.slack) {
                let want = cost(m.want, limits);
                let head = cost(Amount::new(1, m.head), limits);
                pour.others.push((m.served, f64::from(m.weight), want, head, at < wants.me));
                pour.wanted = pour.wanted.plus(m.want);
                pour.cost += want;
            }
        }
        pour
    }

    /// What is free, as a cost: the part of all that is wanted that it is enough for.
    fn free(&self, free: Amount) -> f64 {
        let part = |free: u64, wanted: u64| if wanted == 0 { 1.0 } else { free as f64 / wanted as f64 };
        let mut enough = part(free.requests, self.wanted.requests);
        if self.limits.tokens < MANY {
            enough = enough.min(part(free.tokens, self.wanted.tokens));
        }
        enough.min(1.0) * self.cost
    }

    /// Whether there is enough for everybody to stand where the member would with so much more.
    fn fits(&self, more: f64, free: f64) -> bool {
        let level = self.level + more / self.weight;
        let mut needed = more;
        for (served, weight, want, _, _) in &self.others {
            needed += (weight * (level - served)).max(0.0).min(*want);
        }
        needed <= free + NOTHING
    }

    /// What those need that stand lower than the member, or as low and come first.
    fn before(&self) -> f64 {
        let mut before = 0.0;
        for (served, weight, want, head, first) in &self.others {
            let below = self.level - served;
            if below > NOTHING || (below >= -NOTHING && *first) {
                before += (weight * below).max(*head).min(*want);
            }
        }
        before
    }
}
