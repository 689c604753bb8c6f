//! Names for machines: snake case, as documented, and not to be changed.

use crate::event::GaveUp;
use crate::event::Refusal;
use crate::event::Why;
use crate::event::circuit::{Cause, CircuitState};
use crate::request::limits::Dimension;
use crate::verdict::Outcome;

pub(super) const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Complete => "complete",
        Outcome::Failed(_) => "failed",
        Outcome::Dropped => "dropped",
    }
}

pub(super) const fn state(state: CircuitState) -> &'static str {
    match state {
        CircuitState::Closed => "closed",
        CircuitState::Open => "open",
        CircuitState::HalfOpen => "half_open",
    }
}

pub(super) const fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::FailureShare => "failure_share",
        Cause::ConsecutiveFailures => "consecutive_failures",
        Cause::SlowShare => "slow_share",
        Cause::ProbeFailed => "probe_failed",
        Cause::OpenTimeOver => "open_time_over",
        Cause::ProbesSucceeded => "probes_succeeded",
        Cause::ProbeOutlasts => "probe_outlasts",
        Cause::ByHand => "by_hand",
    }
}

pub(super) const fn dimension(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::RequestsPerMinute => "requests_per_minute",
        Dimension::InputTokensPerMinute => "input_tokens_per_minute",
        Dimension::RequestsPerDay => "requests_per_day",
        Dimension::Other => "other",
        Dimension::Spend => "spend",
        Dimension::Requests => "requests",
        Dimension::InputTokens => "input_tokens",
        Dimension::Images => "images",
        Dimension::Texts => "texts",
    }
}

pub(super) const fn why(why: Why) -> &'static str {
    match why {
        Why::Full => "full",
        Why::Deadline => "deadline",
        Why::MaxWait => "max_wait",
        Why::Queue => "queue",
        Why::TooLarge => "too_large",
        Why::Spent => "spent",
        Why::Zero => "zero",
        Why::Store => "store",
    }
}

pub(super) const fn refusal(why: Refusal) -> &'static str {
    match why {
        Refusal::Deadline => "deadline",
        Refusal::BodyLost => "body_lost",
        Refusal::NotRewritable => "not_rewritable",
        Refusal::Unavailable => "unavailable",
    }
}

pub(super) const fn gave_up(why: GaveUp) -> &'static str {
    match why {
        GaveUp::NotRetryable => "not_retryable",
        GaveUp::Attempts => "attempts",
        GaveUp::ServerDelay => "server_delay",
        GaveUp::Deadline => "deadline",
        GaveUp::Budget => "budget",
        GaveUp::MaybeProcessed => "maybe_processed",
        GaveUp::AfterOutput => "after_output",
        GaveUp::BodyTooLarge => "body_too_large",
        GaveUp::Rejected => "rejected",
        GaveUp::Elsewhere => "elsewhere",
    }
}
