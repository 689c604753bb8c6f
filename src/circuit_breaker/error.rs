use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::error::Rejected;
use crate::event::circuit::TransitionCause;
use crate::request::TargetKey;
use crate::time::Until;
use crate::verdict::Kind;

/// Why a circuit turned a request away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CircuitOpenReason {
    /// The circuit is open, for this cause.
    Opened(TransitionCause),
    /// Probes are under way, and no more of them are permitted.
    Probing,
    /// The server is back, and those who waited for it are let through bit by bit.
    Ramping,
}

impl CircuitOpenReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Opened(TransitionCause::ByHand) => "the circuit is held open by hand",
            Self::Opened(TransitionCause::FailureShare) => {
                "the circuit is open: too large a share of calls failed"
            }
            Self::Opened(TransitionCause::ConsecutiveFailures) => {
                "the circuit is open: too many calls failed in a row"
            }
            Self::Opened(TransitionCause::SlowShare) => {
                "the circuit is open: too large a share of calls was slow"
            }
            Self::Opened(TransitionCause::ProbeFailed) => "the circuit is open: a probe failed",
            Self::Opened(_) => "the circuit is open",
            Self::Probing => "the circuit is half-open and a probe is under way",
            Self::Ramping => "the circuit has closed and lets requests through bit by bit",
        }
    }
}

impl fmt::Display for CircuitOpenReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The circuit of this request's target turned it away; it was **not sent**.
///
/// Behind it, as `source()`, is the [`Rejected`] that layers outside look for: the retry layer waits for
/// [`until`](Self::until) without spending an attempt if the deadline permits, and else, or where the breaker is to
/// [fail fast](super::CircuitBreakerBuilder::fail_fast), hands this on at once.
#[derive(Clone, Debug)]
pub struct CircuitOpen {
    /// Shared with the circuit: a refusal copies no names.
    key: Arc<TargetKey>,
    since: Instant,
    until: Option<Instant>,
    why: CircuitOpenReason,
    /// Without an instant where nobody is to wait for it.
    rejected: Rejected,
}

impl CircuitOpen {
    pub(super) const fn new(
        key: Arc<TargetKey>,
        since: Instant,
        until: Option<Instant>,
        why: CircuitOpenReason,
        is_waited_for: bool,
    ) -> Self {
        let rejected = Rejected::new(why.as_str()).with_kind(Kind::Unavailable);
        let rejected = match until {
            Some(until) if is_waited_for => rejected.with_until(until),
            _ => rejected,
        };
        Self { key, since, until, why, rejected }
    }

    /// Whose circuit it is.
    #[must_use]
    pub fn key(&self) -> &TargetKey {
        &self.key
    }

    /// Since when the circuit has been in the state that turned the request away.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// When to come back; `None` while the circuit is held open by hand.
    ///
    /// Of an open circuit the instant at which it lets a probe through. Of the others an instant of this
    /// request's own, so that those who wait do not come back together.
    #[must_use]
    pub const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Why.
    #[must_use]
    pub const fn why(&self) -> CircuitOpenReason {
        self.why
    }
}

impl fmt::Display for CircuitOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "circuit breaker of {}: {}", self.key, self.why)?;
        match self.until {
            Some(until) => write!(f, "; {}", Until(until)),
            None => f.write_str("; until it is set free"),
        }
    }
}

impl Error for CircuitOpen {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.rejected)
    }
}
