//! What the ledger is asked and what it answers. Pure.

use super::error::Refusal;
use super::window::{EntryId, Nanos};
use crate::event::RateLimitReason;
use crate::request::limits::LimitKind;

/// What to do with a request that cannot be admitted at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AdmissionMode {
    /// It queues, unless its deadline comes first. The default.
    #[default]
    Wait,
    /// It fails with [`RateLimited`](super::RateLimited), which says when it could be admitted.
    Reject,
    /// It goes through uncounted, and [`Event::RateLimited`](crate::event::Event::RateLimited) is told as if it had been rejected. To see what a
    /// limit would do before it does it.
    Observe,
}

/// What was charged for one request. Given back to [`QuotaState::settle`] exactly once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an admission must be settled"]
pub(super) struct Receipt {
    pub(super) entry: EntryId,
    pub(super) charged: u32,
    pub(super) raw: u32,
    pub(super) day: u16,
    /// The number of the probe that it is; 0 for any other call.
    pub(super) probe: u16,
    /// Under which the windows of other spans know it; 0 where there are none.
    pub(super) spans: u32,
    pub(super) counted: bool,
    /// What its request has waited for quota so far, over all its attempts, in milliseconds. Kept where the wait is bounded.
    pub(super) waited: u32,
    /// Input tokens are limited, so what the answer says of them matters.
    pub(super) wants_usage: bool,
    /// The permit of the fleet that it used; 0 where there is no fleet.
    #[cfg(feature = "fleet")]
    pub(super) permit: crate::fleet::UseId,
    /// It was refused because it went over a learnt limit.
    pub(super) was_over: bool,
    /// The learnt limits that it is over.
    pub(super) trial: Trial,
}

impl Receipt {
    pub(super) const fn is_probe(&self) -> bool {
        self.probe != 0
    }

    /// Whether a good answer to it teaches something.
    pub(super) const fn is_test(&self) -> bool {
        self.is_probe() || self.trial.is_any()
    }

    pub(super) const fn wants_usage(&self) -> bool {
        self.wants_usage
    }

    /// One of nothing.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self {
            entry: 0,
            charged: 0,
            raw: 0,
            day: 0,
            probe: 0,
            spans: 0,
            counted: false,
            waited: 0,
            wants_usage: false,
            #[cfg(feature = "fleet")]
            permit: 0,
            was_over: false,
            trial: Trial::default(),
        }
    }
}

/// The learnt limits that a call goes over, to see whether they still hold: a bit for each dimension. One more says that
/// there are windows of other spans, so that nothing else need be looked at where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trial(u8);

impl Trial {
    const PRESSED: u8 = 1 << 7;
    const FOREIGN: u8 = 1 << 6;
    const SPANS: u8 = 1 << 5;

    pub(super) const fn of(dimension: LimitKind) -> Self {
        Self(1 << dimension as u8)
    }

    pub(super) const fn and(self, dimension: LimitKind) -> Self {
        Self(self.0 | Self::of(dimension).0)
    }

    /// The same, of a request that would be refused otherwise.
    pub(super) const fn of_pressed(self, is_pressed: bool) -> Self {
        if is_pressed && self.is_any() { Self(self.0 | Self::PRESSED) } else { self }
    }

    pub(super) const fn is_pressed(self) -> bool {
        self.0 & Self::PRESSED != 0
    }

    /// The same, of a call whose 429 others than ourselves have caused.
    pub(super) const fn foreign(self) -> Self {
        Self(self.0 | Self::FOREIGN)
    }

    pub(super) const fn is_foreign(self) -> bool {
        self.0 & Self::FOREIGN != 0
    }

    /// The same, of a call that windows of other spans count.
    pub(super) const fn in_spans(self) -> Self {
        Self(self.0 | Self::SPANS)
    }

    pub(super) const fn is_in_spans(self) -> bool {
        self.0 & Self::SPANS != 0
    }

    /// No limit is tried any longer.
    pub(super) const fn over(self) -> Self {
        Self(self.0 & Self::SPANS)
    }

    #[inline]
    pub(super) const fn is_any(self) -> bool {
        self.0 & !(Self::PRESSED | Self::FOREIGN | Self::SPANS) != 0
    }

    /// Whether there is more to do about a call than about any other.
    #[inline]
    pub(super) const fn is_special(self) -> bool {
        self.0 & !(Self::PRESSED | Self::FOREIGN) != 0
    }

    pub(super) const fn is_of(self, dimension: LimitKind) -> bool {
        self.0 & Self::of(dimension).0 != 0
    }
}

/// How a call ended, as far as quotas are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settlement {
    /// It never left: nothing was used.
    NotSent,
    /// It left, and nobody knows what it used: what was charged stands.
    Unknown,
    /// It was answered, and said what it used.
    Used { input_tokens: u64 },
    /// Refused before it was processed (4xx other than 429): a request, no tokens.
    Refused,
    /// 429: a request of the minute, no tokens, no request of the day.
    TooMany,
}

impl Settlement {
    /// Input tokens used; `None` where nobody knows.
    pub(super) const fn used(self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::Used { input_tokens } => Some(input_tokens),
            Self::NotSent | Self::Refused | Self::TooMany => Some(0),
        }
    }
}

/// The decision about one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Granted(Receipt),
    /// Not before `until`, or the end of another call.
    Wait {
        until: Nanos,
        dimension: LimitKind,
        spent: Option<Spent>,
    },
    /// Larger than the limit itself.
    TooLarge(LimitKind),
}

/// When a request that has to queue will be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forecast {
    pub(super) at: Nanos,
    /// What it waits for.
    pub(super) dimension: LimitKind,
    /// What it will be charged.
    pub(super) tokens: u32,
    pub(super) spent: Option<Spent>,
}

impl Forecast {
    pub(super) fn not_before(&mut self, at: Nanos, dimension: LimitKind) {
        if at > self.at {
            (self.at, self.dimension) = (at, dimension);
        }
    }

    /// When it makes sense to ask again.
    pub(super) const fn until(&self) -> Option<Nanos> {
        match self.spent {
            Some(Spent { reset: Some(reset) }) => Some(reset),
            _ => Some(self.at),
        }
    }
}

/// Why waiting is not the thing to do, unless the caller's deadline lies behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spent {
    /// When the quota is there again; `None` where nobody knows.
    pub(super) reset: Option<Nanos>,
}

pub(super) const fn too_large(dimension: LimitKind) -> Refusal {
    Refusal { why: RateLimitReason::TooLarge, dimension, until: None, is_final: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_names_what_it_waits_for_longest_and_of_equals_the_first() {
        let mut forecast = Forecast { at: 5, dimension: LimitKind::Other, tokens: 0, spent: None };
        forecast.not_before(5, LimitKind::RequestsPerDay);
        assert_eq!((forecast.at, forecast.dimension), (5, LimitKind::Other));
        forecast.not_before(6, LimitKind::RequestsPerMinute);
        forecast.not_before(4, LimitKind::RequestsPerDay);
        assert_eq!((forecast.at, forecast.dimension), (6, LimitKind::RequestsPerMinute));
    }

    #[test]
    fn what_was_used_is_known_unless_nobody_said() {
        let used = |how: Settlement| how.used();
        assert_eq!(used(Settlement::Used { input_tokens: 7 }), Some(7));
        assert_eq!(used(Settlement::Unknown), None);
        let nothing = [Settlement::NotSent, Settlement::Refused, Settlement::TooMany];
        assert_eq!(nothing.map(used), [Some(0); 3]);
    }
}
