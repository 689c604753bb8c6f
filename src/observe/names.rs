//! Names for machines: snake case, as documented, and not to be changed.

use crate::event::FallbackRefusal;
use crate::event::GaveUp;
use crate::event::RateLimitReason;
use crate::event::circuit::{CircuitState, TransitionCause};
use crate::request::limits::LimitKind;
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

pub(super) const fn cause(cause: TransitionCause) -> &'static str {
    match cause {
        TransitionCause::FailureShare => "failure_share",
        TransitionCause::ConsecutiveFailures => "consecutive_failures",
        TransitionCause::SlowShare => "slow_share",
        TransitionCause::ProbeFailed => "probe_failed",
        TransitionCause::OpenTimeOver => "open_time_over",
        TransitionCause::ProbesSucceeded => "probes_succeeded",
        TransitionCause::ProbeOutlasts => "probe_outlasts",
        TransitionCause::ByHand => "by_hand",
    }
}

pub(super) const fn dimension(dimension: LimitKind) -> &'static str {
    match dimension {
        LimitKind::RequestsPerMinute => "requests_per_minute",
        LimitKind::InputTokensPerMinute => "input_tokens_per_minute",
        LimitKind::RequestsPerDay => "requests_per_day",
        LimitKind::Other => "other",
        LimitKind::Spend => "spend",
        LimitKind::Requests => "requests",
        LimitKind::InputTokens => "input_tokens",
        LimitKind::Images => "images",
        LimitKind::Texts => "texts",
    }
}

pub(super) const fn why(why: RateLimitReason) -> &'static str {
    match why {
        RateLimitReason::Full => "full",
        RateLimitReason::Deadline => "deadline",
        RateLimitReason::MaxWait => "max_wait",
        RateLimitReason::Queue => "queue",
        RateLimitReason::TooLarge => "too_large",
        RateLimitReason::Spent => "spent",
        RateLimitReason::Zero => "zero",
        RateLimitReason::Store => "store",
    }
}

pub(super) const fn refusal(why: FallbackRefusal) -> &'static str {
    match why {
        FallbackRefusal::Deadline => "deadline",
        FallbackRefusal::BodyLost => "body_lost",
        FallbackRefusal::NotRewritable => "not_rewritable",
        FallbackRefusal::Unavailable => "unavailable",
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
