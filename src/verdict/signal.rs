//! What an outcome says of the server's health: the one table that every controller reads.

use std::fmt;

use http::StatusCode;

use super::{End, Inner, Kind, Outcome, Retryability, Verdict};

/// What one outcome says of the server's health.
///
/// [`Verdict::signal`] reads it off the verdict; the circuit breaker and the layers
/// beside it act on it. It stands in one place so that each controller is driven by its own kind: a timeout says
/// that the server queues, a fast failure that it sheds or is down, and one that answers "no" is well.
///
/// | signal | kinds |
/// |---|---|
/// | [`Success`](Self::Success) | none: the answer was good |
/// | [`Failure`](Self::Failure) | `unavailable`, `overloaded`, `internal`, `transport`, `truncated`; `unknown` with a 5xx |
/// | [`Timeout`](Self::Timeout) | `deadline_exceeded` |
/// | [`Soft`](Self::Soft) | `rate_limited` without a quota that it names, `cancelled` |
/// | [`Neutral`](Self::Neutral) | all others: the caller's mistakes, quotas, `content_blocked`, `empty_response`, `conflict` |
///
/// Neutral as well, whatever the kind: a request that a layer of this process turned away ([`Rejected`](crate::Rejected)), one that
/// the client refused to send, a call or a body that the caller dropped, and a failure that the caller brought about
/// ([`Verdict::is_by_caller`]).
///
/// Prints as the lower-case name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// The server did what it was asked.
    Success,
    /// The server, or the way to it, is unwell, and said so or broke off.
    Failure,
    /// No answer in time: the server queues, or hangs.
    Timeout,
    /// Unwell perhaps: a 429 that names no quota may be a full model or a full purse, and a call that the server
    /// cancelled may be load or policy.
    Soft,
    /// Says nothing of the server's health.
    Neutral,
}

impl Signal {
    /// The lower-case name, as printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Timeout => "timeout",
            Self::Soft => "soft",
            Self::Neutral => "neutral",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Verdict {
    /// What this outcome says of the server's health; the table is on [`Signal`].
    ///
    /// A [`Rejected`](crate::Rejected) behind an error is not visible here: the verdict says `transport`, which is a
    /// [`Failure`](Signal::Failure). The layers look for it first and take it for [`Neutral`](Signal::Neutral).
    #[must_use]
    pub fn signal(&self) -> Signal {
        let Some(inner) = self.inner() else { return Signal::Success };
        match inner.kind {
            _ if inner.by_caller => Signal::Neutral,
            // The client would not send it, and will not the next time.
            Kind::Transport if inner.retryability == Retryability::Never && !inner.after_output => {
                Signal::Neutral
            }
            Kind::Unavailable | Kind::Overloaded | Kind::Internal | Kind::Transport | Kind::Truncated => {
                Signal::Failure
            }
            Kind::Unknown if inner.http.is_some_and(|status| status.is_server_error()) => Signal::Failure,
            Kind::DeadlineExceeded => Signal::Timeout,
            Kind::RateLimited if inner.quota.is_empty() => Signal::Soft,
            Kind::Cancelled => Signal::Soft,
            _ => Signal::Neutral,
        }
    }
}

/// How a layer reads outcomes: the table of [`Signal`], or the caller's own.
#[derive(Clone, Copy)]
pub(crate) struct Signals(fn(&Verdict) -> Signal);

impl Default for Signals {
    fn default() -> Self {
        Self(Verdict::signal)
    }
}

impl Signals {
    pub(crate) const fn by(table: fn(&Verdict) -> Signal) -> Self {
        Self(table)
    }

    /// Of a response's head. A success may still turn out otherwise at its end.
    pub(crate) fn of_verdict(self, verdict: &Verdict) -> Signal {
        if verdict.is_success() {
            Signal::Success
        } else if verdict.is_by_caller() {
            Signal::Neutral
        } else {
            (self.0)(verdict)
        }
    }

    /// Of the end of a body whose head was a success with this status.
    #[inline]
    pub(crate) fn of_end(self, end: End, status: StatusCode) -> Signal {
        match end.outcome {
            Outcome::Complete => Signal::Success,
            Outcome::Dropped => Signal::Neutral,
            Outcome::Failed(_) if end.by_caller => Signal::Neutral,
            Outcome::Failed(kind) => {
                (self.0)(&Verdict::new(Inner { http: Some(status), after_output: true, ..Inner::new(kind) }))
            }
        }
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signals(_)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The table of `Signal`, the other way round: every kind there is, each once.
    #[test]
    fn each_kind_has_its_signal() {
        use Kind::*;
        for (signal, kinds) in [
            (Signal::Failure, &[Unavailable, Overloaded, Internal, Truncated][..]),
            (Signal::Timeout, &[DeadlineExceeded]),
            (Signal::Soft, &[RateLimited, Cancelled]),
            (
                Signal::Neutral,
                &[
                    InvalidArgument,
                    ApiKeyInvalid,
                    FailedPrecondition,
                    ContextTooLong,
                    PayloadTooLarge,
                    Unauthenticated,
                    PermissionDenied,
                    KeyLeaked,
                    ServiceDisabled,
                    NotFound,
                    QuotaExhausted,
                    Conflict,
                    Unimplemented,
                    ContentBlocked,
                    EmptyResponse,
                    Unknown,
                    Transport,
                ],
            ),
        ] {
            for kind in kinds {
                assert_eq!(Verdict::new(Inner::new(*kind)).signal(), signal, "{kind}");
            }
        }
        assert_eq!(Verdict::default().signal(), Signal::Success);
    }

    #[test]
    fn a_signal_prints_its_name() {
        assert_eq!(format!("{:?}", Signals::default()), "Signals(_)");
        let all = [Signal::Success, Signal::Failure, Signal::Timeout, Signal::Soft, Signal::Neutral];
        assert_eq!(all.map(|s| s.to_string()), ["success", "failure", "timeout", "soft", "neutral"]);
    }

    #[test]
    fn the_callers_table_sees_the_status_of_an_answer_that_failed_at_its_end() {
        let by_status = Signals::by(|verdict| {
            if verdict.http_status() == Some(StatusCode::OK) { Signal::Soft } else { Signal::Failure }
        });
        let end = End::new(Outcome::Failed(Kind::Truncated), None);
        assert_eq!(by_status.of_end(end, StatusCode::OK), Signal::Soft);
    }

    #[test]
    fn the_end_of_a_body_is_read_by_the_same_table() {
        let end = |outcome| Signals::default().of_end(End::new(outcome, None), StatusCode::OK);
        let slow_reader = End { by_caller: true, ..End::new(Outcome::Failed(Kind::DeadlineExceeded), None) };
        assert_eq!(Signals::by(|_| Signal::Failure).of_end(slow_reader, StatusCode::OK), Signal::Neutral);
        assert_eq!(end(Outcome::Complete), Signal::Success);
        assert_eq!(end(Outcome::Dropped), Signal::Neutral);
        assert_eq!(end(Outcome::Failed(Kind::Transport)), Signal::Failure);
        assert_eq!(end(Outcome::Failed(Kind::Truncated)), Signal::Failure);
        assert_eq!(end(Outcome::Failed(Kind::ContentBlocked)), Signal::Neutral);
        assert_eq!(end(Outcome::Failed(Kind::DeadlineExceeded)), Signal::Timeout);
    }
}
