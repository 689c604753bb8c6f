//! What is told of second tries.

use std::fmt;
use std::time::Duration;

use http::Response;

use crate::request::{Method, TargetKey};

/// That a response's call was sent a second time, and is perhaps paid twice: an extension of the response.
///
/// A response whose call was sent once carries none, so that it costs nothing. A call that ends in an error has no response
/// to carry it: an [`Observer`](crate::event::Observer) is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedged {
    pub(super) after: Duration,
    pub(super) won: bool,
}

impl Hedged {
    /// Whether this response's call was sent a second time; `None` where it was sent once.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Option<Self> {
        response.extensions().get().copied()
    }

    /// How long after the first the second try was sent.
    #[must_use]
    pub const fn after(self) -> Duration {
        self.after
    }

    /// Whether this is the answer to the second try.
    #[must_use]
    pub const fn won(self) -> bool {
        self.won
    }
}

/// Why a call that was late got no second try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeldBack {
    /// Fewer answers were timed than are needed.
    Samples,
    /// A 429 within the last minute, or for as long as it said; a call that had to wait for quota or a place within the
    /// last minute; by the handle, a closed door, somebody in the queue, nine tenths of a limit used.
    Quota,
    /// One of the last 16 calls has failed; or one within the last ten minutes because the server has too much to do, or within
    /// the last minute because it took too long.
    Failures,
    /// A second try was sent, and nothing was answered since.
    Unanswered,
    /// Of the calls that were sent later too few are answered: it is not this call that is late, but the server.
    NotOvertaken,
    /// More calls are under way than usual: the server has enough to do.
    Crowd,
    /// Of the last 16 answers 13 or more took longer than usual: it is not this call that is late, but the server.
    Slow,
    /// Answers take longer the more calls are under way: one more would make the others later.
    Load,
    /// The deadline leaves less than half of the answers take.
    Deadline,
    /// The bucket is empty.
    Budget,
    /// By the handle, the circuit is not closed, or has just closed.
    Circuit,
    /// By the handle, the calls in flight are limited.
    Concurrency,
    /// The body of the first try has not been sent, or cannot be sent again.
    Body,
    /// The second try would have had to wait, and was not sent.
    Waiting,
}

impl HeldBack {
    /// Every reason there is today.
    pub const ALL: &'static [Self] = &[
        Self::Samples,
        Self::Quota,
        Self::Failures,
        Self::Unanswered,
        Self::NotOvertaken,
        Self::Crowd,
        Self::Slow,
        Self::Load,
        Self::Deadline,
        Self::Budget,
        Self::Circuit,
        Self::Concurrency,
        Self::Body,
        Self::Waiting,
    ];

    /// A short name in snake case: `samples`, `quota`, `failures`, `unanswered`, `not_overtaken`, `crowd`, `slow`, `load`,
    /// `deadline`, `budget`, `circuit`, `concurrency`, `body`, `waiting`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Quota => "quota",
            Self::Failures => "failures",
            Self::Unanswered => "unanswered",
            Self::NotOvertaken => "not_overtaken",
            Self::Crowd => "crowd",
            Self::Slow => "slow",
            Self::Load => "load",
            Self::Deadline => "deadline",
            Self::Budget => "budget",
            Self::Circuit => "circuit",
            Self::Concurrency => "concurrency",
            Self::Body => "body",
            Self::Waiting => "waiting",
        }
    }
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One key at one instant: what [`Hedges`](super::Hedges) shows. `Display` is one line for a person.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HedgeStatus {
    /// Whose calls.
    pub key: TargetKey,
    /// Of which method: a stream's first byte comes at another time than a whole answer.
    pub method: Method,
    /// After how long a second try may be made; `None` while too few answers were timed.
    pub after: Option<Duration>,
    /// Calls sent, second tries not counted.
    pub calls: u64,
    /// Second tries sent. Each may be billed.
    pub sent: u64,
    /// Of them, those that were answered first.
    pub won: u64,
    /// Of them, those that failed or came second. What is left is under way, or was dropped by its caller.
    pub lost: u64,
    /// Second tries that the budget has left.
    pub budget: f64,
    /// How often a late call got no second try, by reason; reasons that have not occurred are left out.
    pub held_back: Vec<(HeldBack, u64)>,
}

impl fmt::Display for HedgeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {} calls, {} sent twice", self.key, self.method, self.calls, self.sent)?;
        write!(f, ", {} of them answered by the second", self.won)?;
        if let Some(after) = self.after {
            write!(f, ", after {:.1} s", after.as_secs_f64())?;
        }
        for (why, times) in &self.held_back {
            write!(f, ", {why} {times}")?;
        }
        Ok(())
    }
}
