//! Who gets what is free: max-min fair over members, by weight. Pure.
//!
//! Each member has a level, which is what it was served by its weight. What is free is poured over the members that
//! wait like water: those at the lowest level get it first, until all stand equally high or want no more. So a member that
//! asks twice gets no more than one that asks once, a large prompt is passed for no longer than it takes others to be
//! served as much, and whoever begins to wait begins at the lowest level.

use super::book::Record;
use super::message::{Amount, MANY, Micros};

/// What is to be shared, and with whom.
#[derive(Debug)]
pub(super) struct Wants<'a> {
    pub(super) now: Micros,
    /// The member that asks.
    pub(super) me: usize,
    pub(super) free: Amount,
    pub(super) limits: Amount,
    pub(super) want: Amount,
    pub(super) sizes: &'a [u64],
    /// How long after its turn a member is still thought to wait.
    pub(super) slack: Micros,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) granted: Amount,
    /// Others that wait.
    pub(super) hungry: u32,
    /// The largest prompt at the head of a queue.
    pub(super) largest: u64,
}

/// One of the two things that are shared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Requests,
    Tokens,
}

impl Of {
    const fn want(self, member: &Record) -> u64 {
        match self {
            Self::Requests => member.want.requests,
            Self::Tokens => member.want.tokens,
        }
    }

    const fn level(self, member: &Record) -> f64 {
        match self {
            Self::Requests => member.served.0,
            Self::Tokens => member.served.1,
        }
    }
}

impl Record {
    fn is_hungry(&self, now: Micros, slack: Micros) -> bool {
        self.want.requests > 0 && now <= self.due + slack
    }
}

/// Works out what the member that asks may have now, and writes down what it wants.
pub(super) fn share(members: &mut [Record], wants: &Wants<'_>) -> Share {
    let Wants { now, me, slack, .. } = *wants;
    let was_hungry = members[me].is_hungry(now, slack);
    let mut share = Share::default();
    let mut lowest: Option<(f64, f64)> = None;
    for (at, m) in members.iter().enumerate() {
        if at != me && m.is_hungry(now, slack) {
            share.hungry += 1;
            share.largest = share.largest.max(m.head);
            let low = lowest.unwrap_or(m.served);
            lowest = Some((low.0.min(m.served.0), low.1.min(m.served.1)));
        }
    }
    let head = wants.sizes.first().copied().unwrap_or(0).min(wants.limits.tokens);
    let mine = &mut members[me];
    if let (false, Some(low)) = (was_hungry, lowest) {
        // No debt is older than what a window can hold.
        let within = |level: f64, low: f64, limit: u64| level.max(low).min(low + limit as f64);
        mine.served.0 = within(mine.served.0, low.0, wants.limits.requests);
        mine.served.1 = within(mine.served.1, low.1, wants.limits.tokens);
    }
    mine.want = wants.want;
    mine.head = head;
    mine.due = now + slack;
    if wants.want.requests == 0 {
        return share;
    }
    share.largest = share.largest.max(head);

    let requests = Pour::new(Of::Requests, members, wants, wants.free.requests);
    let most = wants.want.requests.min(wants.free.requests);
    let mut granted = largest(most, |count| requests.fits(count));
    if granted == 0 && requests.is_next(1) {
        granted = 1;
    }
    if wants.limits.tokens >= MANY {
        share.granted = Amount::new(granted, 0);
        return share;
    }
    let mut sums = vec![0];
    for size in wants.sizes.iter().take(usize::try_from(granted).unwrap_or(usize::MAX)) {
        sums.push(sums[sums.len() - 1] + (*size).min(wants.limits.tokens));
    }
    let tokens = Pour::new(Of::Tokens, members, wants, wants.free.tokens);
    let mut count = largest(sums.len() as u64 - 1, |count| tokens.fits(sums[count as usize]));
    if count == 0 && granted > 0 && sums.len() > 1 && tokens.is_next(head) {
        count = 1;
    }
    share.granted = Amount::new(count, sums[count as usize]);
    share
}

/// A mutant: whoever asks first has all.
#[cfg(test)]
pub(super) fn greedy(wants: &Wants<'_>) -> Amount {
    let mut granted = Amount::default();
    let tokens = wants.limits.tokens < MANY;
    while granted.requests < wants.want.requests.min(wants.free.requests) {
        let size = wants.sizes.get(granted.requests as usize).copied().unwrap_or(0);
        let size = if tokens { size.min(wants.limits.tokens) } else { 0 };
        if granted.tokens + size > wants.free.tokens || (tokens && granted.requests >= wants.sizes.len() as u64) {
            break;
        }
        granted = granted.plus(Amount::new(1, size));
    }
    granted
}

/// How long until the member's next request may go, as far as charges tell that are there now.
pub(super) fn wait(
    members: &[Record],
    wants: &Wants<'_>,
    ring: &[(Micros, Amount)],
    head: u64,
    heartbeat: Micros,
) -> Micros {
    let requests = Pour::new(Of::Requests, members, wants, wants.free.requests);
    let mut needed = Amount::new(requests.before() + 1, 0);
    if wants.limits.tokens < MANY {
        needed.tokens = Pour::new(Of::Tokens, members, wants, wants.free.tokens).before() + head;
    }
    let mut free = wants.free;
    let enough = |free: Amount| free.requests >= needed.requests && free.tokens >= needed.tokens;
    if enough(free) {
        // What is free is there for others first; it is not known when they take it.
        return 1_000;
    }
    for (leaves, amount) in ring {
        free = free.plus(*amount);
        if enough(free) {
            return leaves - wants.now;
        }
    }
    heartbeat
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

/// One of the two, poured over those that wait.
struct Pour<'a> {
    of: Of,
    members: &'a [Record],
    wants: &'a Wants<'a>,
    free: u64,
}

impl<'a> Pour<'a> {
    const fn new(of: Of, members: &'a [Record], wants: &'a Wants<'a>, free: u64) -> Self {
        Self { of, members, wants, free }
    }

    /// Others that wait for it.
    fn others(&self) -> impl Iterator<Item = (usize, &'a Record)> {
        let (of, wants) = (self.of, self.wants);
        self.members.iter().enumerate().filter(move |(at, m)| {
            *at != wants.me && of.want(m) > 0 && m.is_hungry(wants.now, wants.slack)
        })
    }

    /// Whether there is enough for everybody to stand where the member would with so much more.
    fn fits(&self, amount: u64) -> bool {
        let me = &self.members[self.wants.me];
        let level = self.of.level(me) + amount as f64 / f64::from(me.weight);
        let mut needed = amount as f64;
        for (_, m) in self.others() {
            let to_level = f64::from(m.weight) * (level - self.of.level(m));
            needed += to_level.max(0.0).min(self.of.want(m) as f64);
        }
        needed <= self.free as f64 + 1e-6
    }

    /// Whether what is left over in fractions is the member's turn.
    fn is_next(&self, amount: u64) -> bool {
        self.before() + amount <= self.free
    }

    /// What those need that stand lower than the member, or as low and come first.
    fn before(&self) -> u64 {
        let me = &self.members[self.wants.me];
        let level = self.of.level(me);
        let mut before = 0;
        for (at, m) in self.others() {
            let below = level - self.of.level(m);
            if below > 0.0 || (below == 0.0 && at < self.wants.me) {
                let to_level = (f64::from(m.weight) * below - 1e-6).ceil();
                before += (to_level as u64).max(1).min(self.of.want(m));
            }
        }
        before
    }
}
