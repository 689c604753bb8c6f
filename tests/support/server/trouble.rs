//! What goes wrong with a share of the calls, and when.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Answer, Call, Down, Reason};

/// One fault of a server. A call that several hit is failed by the first of them.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) fault: Fault,
    /// Of the calls at such a time, at random.
    pub(crate) share: f64,
    /// When it may hit; always, where this is [`ALWAYS`].
    pub(crate) when: Down,
    /// Seconds between two spells and seconds of one, exponentially distributed each: it hits in spells alone.
    pub(crate) spells: Option<(f64, f64)>,
    /// From the call to the failure.
    pub(crate) after: Duration,
    /// Calls of this tenant alone.
    pub(crate) tenant: Option<usize>,
    /// Calls of this model of the chain alone.
    pub(crate) model: Option<usize>,
    /// Calls at this place alone.
    pub(crate) place: Option<usize>,
}

/// The whole time.
#[allow(dead_code, reason = "the weather alone makes troubles that are not read from a file")]
pub(crate) const ALWAYS: Down = Down { from: Duration::ZERO, until: Duration::MAX, every: None };

/// What becomes of a call that is hit.
#[allow(dead_code, reason = "the storm alone has troubles")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 500, 503 or 504 without a body.
    Status(u16),
    /// The 503 of a model that is overloaded.
    Overloaded,
    /// A 429 that says nothing more.
    Bare,
    /// The 429 of a model without capacity.
    Capacity,
    /// It is never answered.
    Hang,
}

impl Fault {
    /// `None` never comes.
    pub(super) fn answer(self) -> Option<Answer> {
        let (status, reason) = match self {
            Self::Status(status) => (status, Reason::None),
            Self::Overloaded => (503, Reason::Overloaded),
            Self::Bare => (429, Reason::Bare),
            Self::Capacity => (429, Reason::Capacity),
            Self::Hang => return None,
        };
        Some(Answer { reason, ..Answer::of(status) })
    }

    /// Whether the call counts for a quota.
    pub(super) const fn is_charged(self) -> bool {
        matches!(self, Self::Status(_) | Self::Hang)
    }
}

/// The two states of a process that is on and off by turns; off at first.
#[derive(Debug)]
pub(super) struct Spells {
    rng: StdRng,
    on: bool,
    until: f64,
}

impl Spells {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), on: true, until: 0.0 }
    }

    /// Asked with times that never fall.
    fn holds(&mut self, (off, on): (f64, f64), now: Duration) -> bool {
        while self.until <= now.as_secs_f64() {
            self.on = !self.on;
            let mean = if self.on { on } else { off };
            self.until += (-(1.0 - self.rng.random::<f64>()).ln() * mean).max(1e-3);
        }
        self.on
    }
}

impl Trouble {
    /// Whether it hits this call. The draw is made in any case, so that one fault's state moves no other's luck.
    pub(super) fn hits(&self, call: &Call, now: Duration, spells: &mut Spells, luck: &mut StdRng) -> bool {
        let draw: f64 = luck.random();
        let in_spell = self.spells.is_none_or(|means| spells.holds(means, now));
        let concerned = self.tenant.is_none_or(|tenant| tenant == call.tenant)
            && self.model.is_none_or(|model| model == call.model)
            && self.place.is_none_or(|place| place == call.place);
        concerned && in_spell && self.when.holds(now) && draw < self.share
    }
}
