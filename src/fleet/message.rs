//! What members and a store say to each other. Plain data: times are microseconds, durations count from the message.

use std::fmt;

/// Microseconds: on the server's clock (since 1970) where a store says it, on a member's own otherwise.
pub type Micros = u64;

/// Stands for "no limit" in arithmetic. Small enough that sums of it are exact in a double, which is what Lua counts in.
pub(super) const MANY: u64 = 1 << 50;

/// A number of requests and of input tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a pair of numbers")]
pub struct Amount {
    /// Requests.
    pub requests: u64,
    /// Input tokens.
    pub tokens: u64,
}

impl Amount {
    /// So many requests and so many input tokens.
    #[must_use]
    pub const fn new(requests: u64, tokens: u64) -> Self {
        Self { requests, tokens }
    }

    pub(super) const fn is_zero(self) -> bool {
        self.requests == 0 && self.tokens == 0
    }

    pub(super) fn each(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self { requests: of(self.requests, other.requests), tokens: of(self.tokens, other.tokens) }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    pub(super) fn minus(self, other: Self) -> Self {
        self.each(other, u64::saturating_sub)
    }

    pub(super) fn min(self, other: Self) -> Self {
        self.each(other, u64::min)
    }

    pub(super) fn max(self, other: Self) -> Self {
        self.each(other, u64::max)
    }
}

/// The limits of a key: of a window, and of a day. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "what a store must know of limits")]
pub struct Quota {
    /// Requests in any window.
    pub requests: Option<u64>,
    /// Input tokens in any window.
    pub tokens: Option<u64>,
    /// Requests in a day.
    pub daily: Option<u64>,
}

impl Quota {
    /// The window's limits, [`MANY`] where there is none.
    pub(super) fn window(&self) -> Amount {
        Amount::new(self.requests.unwrap_or(MANY), self.tokens.unwrap_or(MANY))
    }

    /// The lower limit of each dimension.
    pub(super) fn lowest(self, other: Self) -> Self {
        let low = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self {
            requests: low(self.requests, other.requests),
            tokens: low(self.tokens, other.tokens),
            daily: low(self.daily, other.daily),
        }
    }
}

/// The durations of the protocol. All members of a key use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// How long a use counts: the quota's window and its guard.
    pub window: Micros,
    /// How long a lease may be used, from before it was asked for.
    pub lease: Micros,
    /// What charges are rounded up to.
    pub bucket: Micros,
    /// How long an old master may go on granting after a new one was promoted.
    pub split: Micros,
    /// The longest time between two calls of a member that holds something or waits.
    pub heartbeat: Micros,
    /// How long a new state waits for members that remember another one.
    pub hold: Micros,
}

impl Terms {
    /// The terms of a window (with its guard): a lease of a thirtieth, buckets of a 240th, a split of a twelfth, a
    /// heartbeat of a quarter. `pushes` says whether the store tells members at once when a state begins anew.
    #[must_use]
    pub const fn of(window: Micros, pushes: bool) -> Self {
        let (lease, split, heartbeat) = (window / 30, window / 12, window / 4);
        let hold = split + if pushes { lease } else { heartbeat + heartbeat / 5 };
        Self { window, lease, bucket: window / 240, split, heartbeat, hold }
    }

    /// The terms of a window (with its guard) of any span: a minute's, or a shorter window's own. For longer ones a lease of 2 s, a
    /// split of 5 s, and a heartbeat of a minute at the most.
    #[must_use]
    pub const fn of_span(window: Micros, pushes: bool) -> Self {
        let own = Self::of(window, pushes);
        if window <= 61_000_000 {
            return own;
        }
        let (lease, split) = (2_000_000, 5_000_000);
        let heartbeat = if own.heartbeat < 60_000_000 { own.heartbeat } else { 60_000_000 };
        let hold = split + if pushes { lease } else { heartbeat + heartbeat / 5 };
        Self { lease, split, heartbeat, hold, ..own }
    }

    /// The same where an old master goes on for so long.
    #[must_use]
    pub(crate) const fn with_split(mut self, split: Option<Micros>) -> Self {
        if let Some(split) = split {
            self.hold = self.hold - self.split + split;
            self.split = split;
        }
        self
    }

    /// How long a state that was lost grants nothing: until nothing from before it can be in the window any more.
    pub(super) const fn quarantine(&self) -> Micros {
        self.window + 2 * self.lease + self.split
    }

    /// What is left of a part so long after its owner was last heard: the store's view.
    pub(super) fn kept(&self, part: Amount, silent: Micros) -> Amount {
        // One window later than the owner: by then what it used while it had more has left its window.
        self.decayed(part, silent.saturating_sub(self.window))
    }

    /// The same in its owner's view.
    pub(super) fn decayed(&self, part: Amount, silent: Micros) -> Amount {
        let halvings = silent / (2 * self.window);
        let halved = |n: u64| if halvings >= 10 { 0 } else { n >> halvings };
        Amount::new(halved(part.requests), halved(part.tokens))
    }
}

/// The name under which a store keeps the state of one key.
///
/// Its digest is what members agree by; the name is for people, and absent where names are hidden.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct StoreKey {
    /// 32 hexadecimal digits.
    pub digest: String,
    /// `generate gemini-3-flash`; never a key of the API.
    pub name: Option<String>,
}

impl StoreKey {
    /// A key of this digest and name.
    #[must_use]
    pub const fn new(digest: String, name: Option<String>) -> Self {
        Self { digest, name }
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name.as_deref().unwrap_or(&self.digest))
    }
}

/// The day that a member believes it is: its number, and when it ends on the calendar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a pair of numbers")]
pub struct DayEnd {
    /// Days are numbered upwards.
    pub number: u64,
    /// Microseconds since 1970.
    pub ends: Micros,
}

/// Requests that were sent on a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "a pair")]
pub struct Use {
    /// How long before the message the last of them was sent, rounded down.
    pub age: Micros,
    /// How many, and their tokens.
    pub amount: Amount,
}

/// What a use that was reported before turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "plain data")]
pub struct Correction {
    /// The bucket that the use was charged to; 0 where it was none of the store's.
    pub bucket: u64,
    /// Requests that were not sent after all.
    pub requests: u64,
    /// More (or fewer) tokens.
    pub tokens: i64,
    /// Requests of the day that were none.
    pub daily: u64,
}

/// What a member asks and tells, in one message: all of it is as of the moment in which it was first sent. Processed
/// once, however often it arrives.
///
/// What a member holds is said in absolute numbers, so that a store which lost some of its writes learns it again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Take {
    /// Whose quota.
    pub key: StoreKey,
    /// Who asks: a number that nobody else has.
    pub member: u64,
    /// The member's calls are numbered from 1, and the next one follows the answer to the last.
    pub call: u64,
    /// The state that the member knows; 0 for none.
    pub epoch: u64,
    /// The number of writes in that state as of the last answer.
    pub seq: u64,
    /// The durations.
    pub terms: Terms,
    /// The limits that the member was given.
    pub limits: Quota,
    /// Which day it is.
    pub day: DayEnd,
    /// The day's count, as of the last answer.
    pub day_seen: u64,
    /// What is left of leases, and may be used while this message is under way.
    pub held: Amount,
    /// What the member keeps its part's uses to from now on; they are no more than this now.
    pub part: Amount,
    /// What is left of its allowance of the day.
    pub day_held: u64,
    /// What it spent of that allowance since its last call.
    pub day_spent: u64,
    /// What its part used since its last call: for its share beside others.
    pub spent: Amount,
    /// Uses of leases since its last call.
    pub uses: Vec<Use>,
    /// What uses of earlier calls turned out to be.
    pub corrections: Vec<Correction>,
    /// The most that it used in one window lately, by part and by leases.
    pub used: Amount,
    /// What waits, or will soon.
    pub want: Amount,
    /// The tokens of the first that wait, in order: no more are granted than stand here. Not said where tokens are
    /// not limited.
    pub sizes: Vec<u64>,
    /// Its share beside others, from 1.
    pub weight: u32,
    /// The last close that it knows.
    pub close_seq: u64,
    /// It goes away: everything is given back.
    pub leave: bool,
}

/// Why a member was granted less than it wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Held {
    /// It was not, or others have the rest.
    #[default]
    Quota,
    /// A 429 closed a dimension.
    Closed,
    /// The state is new, and what was used before it is not known.
    New,
    /// The day is spent.
    Day,
}

/// A store's answer to a [`Take`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reply {
    /// The call that it answers.
    pub call: u64,
    /// The state's number.
    pub epoch: u64,
    /// Its writes, this one included.
    pub seq: u64,
    /// The server's clock.
    pub now: Micros,
    /// A lease, usable until [`Terms::lease`] after the call was first sent.
    pub grant: Amount,
    /// The most that the member's part may have in its window from now on.
    pub part: Amount,
    /// More allowance of the day, for the part.
    pub daily: u64,
    /// When to ask again, if something is wanted still; 0 where all of it was granted.
    pub wait: Micros,
    /// Why there is not more.
    pub held: Held,
    /// The limits in force: the lowest that any member was given, and what 429s taught.
    pub limits: Quota,
    /// Some member was given other limits.
    pub differs: bool,
    /// Members that were heard lately.
    pub members: u32,
    /// Of them, others that wait.
    pub hungry: u32,
    /// The day's number, and its count.
    pub day: u64,
    /// Requests of the day, allowances included.
    pub day_used: u64,
    /// This grant is to try a door that is closed.
    pub probe: bool,
    /// The last close.
    pub close_seq: u64,
    /// Doors that are closed, where the member did not know the last close.
    pub closes: Vec<Close>,
}

/// A dimension that a 429 closed, or all of them opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Close {
    /// Which one: 0 requests per minute, 1 input tokens per minute, 2 requests per day, 3 other;
    /// [`Close::OPEN`] opens all.
    pub dimension: u8,
    /// For how long from now; `None` where nobody knows.
    pub lasts: Option<Micros>,
    /// The limit that the answer named.
    pub limit: Option<u64>,
    /// It is no use to wait for it.
    pub spent: bool,
    /// There is no quota at all; with [`Close::OPEN`], that limits which 429s taught are forgotten, too.
    pub zero: bool,
    /// Others use the quota, too: afterwards calls go out one by one first.
    pub ramp: bool,
    /// When a call may test the door, and how long after that another one; 0 for never.
    pub probe: Micros,
}

impl Close {
    /// Opens every door: a probe was answered, or somebody paid.
    pub const OPEN: u8 = 4;

    /// A close of this dimension.
    #[must_use]
    pub const fn new(dimension: u8, lasts: Option<Micros>) -> Self {
        Self { dimension, lasts, limit: None, spent: false, zero: false, ramp: false, probe: 0 }
    }
}

/// What a store tells members of its own accord.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A door was closed, or all were opened.
    #[non_exhaustive]
    Closed {
        /// Whose: the digest of its [`StoreKey`].
        digest: String,
        /// What.
        close: Close,
    },
    /// A state began anew: whoever holds something of this key should say so now.
    #[non_exhaustive]
    Born {
        /// Whose.
        digest: String,
        /// The new state.
        epoch: u64,
    },
}

impl Notice {
    /// A door of this key was closed.
    #[must_use]
    pub const fn closed(digest: String, close: Close) -> Self {
        Self::Closed { digest, close }
    }

    /// This key's state began anew.
    #[must_use]
    pub const fn born(digest: String, epoch: u64) -> Self {
        Self::Born { digest, epoch }
    }

    /// Whose.
    #[must_use]
    pub fn digest(&self) -> &str {
        match self {
            Self::Closed { digest, .. } | Self::Born { digest, .. } => digest,
        }
    }
}
