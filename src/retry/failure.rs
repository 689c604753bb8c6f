//! What an attempt ended with, as the decision reads it.

use http::Response;
use tokio::time::Instant;

use crate::error::{BoxError, FailedProbe, ProbeFailed, Rejected, find};
use crate::verdict::{Kind, Verdict};

/// What an attempt ended with, apart from success.
pub(super) enum Failure<'a> {
    Verdict(&'a Verdict),
    /// Not sent; the verdict is for the observer.
    Rejected(&'a Rejected, &'a Verdict),
    /// Sent as a circuit's probe, which may be followed by another call from this instant on.
    Probe(Instant, &'a Verdict),
}

impl<'a> Failure<'a> {
    pub(super) fn verdict(&self) -> &'a Verdict {
        match self {
            Self::Verdict(verdict) | Self::Rejected(_, verdict) | Self::Probe(_, verdict) => verdict,
        }
    }

    /// Whether what follows is a wait for quota, and not for a server that is unwell.
    pub(super) fn is_of_quota(&self) -> bool {
        match self {
            Self::Rejected(..) => true,
            Self::Probe(..) => false,
            Self::Verdict(verdict) => {
                verdict.kind() == Some(Kind::RateLimited)
                    && (verdict.server_delay().is_some() || verdict.quota_window().is_some())
            }
        }
    }

    pub(super) fn of<RB>(result: &'a Result<Response<RB>, BoxError>, verdict: &'a Verdict) -> Self {
        let error = match result {
            Ok(response) => {
                return match FailedProbe::of(response) {
                    Some(until) => Self::Probe(until, verdict),
                    None => Self::Verdict(verdict),
                };
            }
            Err(error) => error.as_ref(),
        };
        if let Some(probe) = find::<ProbeFailed>(error) {
            return Self::Probe(probe.until(), verdict);
        }
        match find::<Rejected>(error) {
            Some(rejected) => Self::Rejected(rejected, verdict),
            None => Self::Verdict(verdict),
        }
    }

    /// Whether the attempt was sent and counts.
    pub(super) const fn is_counted(&self) -> bool {
        matches!(self, Self::Verdict(_))
    }
}

/// A failure of the server's own that can be over the next moment, and of which it does not say how long it lasts.
pub(super) fn may_be_quick(verdict: &Verdict) -> bool {
    matches!(verdict.kind(), Some(Kind::Internal | Kind::Unavailable | Kind::Overloaded))
        && verdict.server_delay().is_none()
}

/// A layer of this process turns the request away because the model's server is unwell: its circuit is open.
pub(super) fn is_of_the_server(rejected: &Rejected) -> bool {
    matches!(rejected.kind(), Some(Kind::Unavailable | Kind::Overloaded))
}

/// Nothing came back in time, by the server's clock or the client's.
pub(super) fn is_timeout(verdict: &Verdict) -> bool {
    verdict.kind() == Some(Kind::DeadlineExceeded)
}

/// The request, or the answer to it, may have been lost on the way.
pub(super) fn may_be_lost(verdict: &Verdict) -> bool {
    verdict.maybe_processed() && !is_timeout(verdict)
}

/// A 429 for a model that has retired, which says neither which quota it was nor when it is back: there is nothing to wait
/// for. One that says so is believed, since another model may answer under the old name.
pub(super) fn is_gone(verdict: &Verdict) -> bool {
    verdict.kind() == Some(Kind::RateLimited)
        && verdict.server_delay().is_none()
        && verdict.quota().iter().all(|violation| violation.limit().is_none())
        && verdict.retired().is_some()
}
