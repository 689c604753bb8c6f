use std::fmt;

use tokio::time::Instant;

/// What a circuit does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CircuitState {
    /// Lets them through, and counts how they end. After an outage, only so many a second for a while.
    Closed,
    /// Turns them away.
    Open,
    /// Lets a few through to see whether the server is back, and turns the others away.
    HalfOpen,
}

/// Who decides about a circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerMode {
    /// The circuit itself.
    #[default]
    Automatic,
    /// Held open by hand: every request is turned away, until nobody knows when.
    ForcedOpen,
    /// Held closed by hand: every request goes through. What they end with is counted.
    ForcedClosed,
    /// The circuit changes its state as it would, and tells, but turns nobody away.
    ///
    /// A call that it would have turned away counts as not made.
    ObserveOnly,
}

/// Why a circuit changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransitionCause {
    /// The share of failures in the window.
    FailureShare,
    /// Failures in a row.
    ConsecutiveFailures,
    /// The share of slow calls in the window.
    SlowShare,
    /// A probe failed.
    ProbeFailed,
    /// The open time is over, and a request came.
    OpenTimeOver,
    /// Enough probes succeeded.
    ProbesSucceeded,
    /// A probe has not failed in the time in which those before it did.
    ProbeOutlasts,
    /// Somebody asked for it.
    ByHand,
}

impl TransitionCause {
    /// The cause as a phrase.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailureShare => "too large a share of calls failed",
            Self::ConsecutiveFailures => "too many calls failed in a row",
            Self::SlowShare => "too large a share of calls was slow",
            Self::ProbeFailed => "a probe failed",
            Self::OpenTimeOver => "the open time is over",
            Self::ProbesSucceeded => "the probes succeeded",
            Self::ProbeOutlasts => "a probe outlasts those that failed",
            Self::ByHand => "by hand",
        }
    }
}

impl fmt::Display for TransitionCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One change of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// Counts the changes of this circuit, from 1; each number occurs once.
    pub generation: u32,
    /// When.
    pub at: Instant,
    /// What it was.
    pub from: CircuitState,
    /// What it is from then on.
    pub to: CircuitState,
    /// Who decides from then on.
    pub mode: BreakerMode,
    /// Why.
    pub cause: TransitionCause,
    /// Of an open circuit: the instant from which on a request may be let through as a probe. `None` for the
    /// other states, and where it is held open by hand.
    pub until: Option<Instant>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_prints_as_a_phrase() {
        for (cause, phrase) in [
            (TransitionCause::FailureShare, "too large a share of calls failed"),
            (TransitionCause::ConsecutiveFailures, "too many calls failed in a row"),
            (TransitionCause::SlowShare, "too large a share of calls was slow"),
            (TransitionCause::ProbeFailed, "a probe failed"),
            (TransitionCause::OpenTimeOver, "the open time is over"),
            (TransitionCause::ProbesSucceeded, "the probes succeeded"),
            (TransitionCause::ProbeOutlasts, "a probe outlasts those that failed"),
            (TransitionCause::ByHand, "by hand"),
        ] {
            assert_eq!(cause.to_string(), phrase);
        }
    }
}
