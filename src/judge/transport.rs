//! Failures without a response: was the request sent? Pure, by walking along `source()`.

use std::error::Error;
use std::io;

use crate::error::{Rejected, chain};
use crate::timeout::{TimedOut, UploadIncomplete};
use crate::verdict::{Alternative, AnswerFailed, Inner, Kind, Retryability, Sent, Verdict};

/// What one link of the chain says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sign {
    /// It never left, or was never taken up.
    NotSent,
    /// A time limit passed after it may have left.
    TimedOut,
    /// It may have left.
    MaybeSent,
    /// The caller's own mistake: the same request fails again.
    Unsendable,
}

/// Judges a failure. See [`Verdict::from_error`].
pub(crate) fn judge_error(error: &(dyn Error + 'static)) -> Verdict {
    // It was an answer, and it has been judged.
    if let Some(failed) = crate::error::find::<AnswerFailed>(error) {
        return failed.verdict().clone();
    }
    // The strongest sign of the whole chain: "connect" beats the "timed out" below it, and any sign beats
    // the plain "maybe" that a wrapper gives.
    let mut sign = Sign::MaybeSent;
    let (mut by_caller, mut stalled) = (false, false);
    for link in chain(error) {
        if let Some(late) = link.downcast_ref::<TimedOut>() {
            by_caller |= late.is_by_caller();
            stalled |= late.is_stalled_upload();
        }
        by_caller |= link.is::<UploadIncomplete>();
        match read(link) {
            Some(found @ (Sign::NotSent | Sign::Unsendable)) => {
                sign = found;
                break;
            }
            Some(Sign::TimedOut) => sign = Sign::TimedOut,
            Some(Sign::MaybeSent) | None => {}
        }
    }
    // A layer of this process knows what its own refusal stands for.
    let own = crate::error::find::<Rejected>(error).and_then(Rejected::kind);
    let (kind, sent, retryability) = match sign {
        Sign::NotSent if own.is_some() => {
            (own.unwrap_or(Kind::Transport), Sent::No, Retryability::WithBackoff)
        }
        Sign::NotSent => (Kind::Transport, Sent::No, Retryability::WithBackoff),
        Sign::MaybeSent => (Kind::Transport, Sent::Maybe, Retryability::WithBackoff),
        // Another attempt would wait for the same caller.
        Sign::TimedOut if stalled => (Kind::DeadlineExceeded, Sent::Maybe, Retryability::Never),
        Sign::TimedOut => (Kind::DeadlineExceeded, Sent::Maybe, Retryability::WithBackoff),
        Sign::Unsendable => (Kind::Transport, Sent::No, Retryability::Never),
    };
    Verdict::new(Inner { sent, retryability, alternative: Alternative::None, by_caller, ..Inner::new(kind) })
}

fn read(link: &(dyn Error + 'static)) -> Option<Sign> {
    if link.is::<Rejected>() {
        return Some(Sign::NotSent);
    }
    if let Some(error) = link.downcast_ref::<io::Error>() {
        return Some(read_io(error));
    }
    if link.is::<TimedOut>() {
        return Some(Sign::TimedOut);
    }
    if link.downcast_ref::<UploadIncomplete>().is_some_and(UploadIncomplete::has_failed) {
        return Some(Sign::Unsendable);
    }
    if link.is::<tower::timeout::error::Elapsed>() || link.is::<tokio::time::error::Elapsed>() {
        return Some(Sign::TimedOut);
    }
    #[cfg(feature = "reqwest")]
    if let Some(error) = link.downcast_ref::<::reqwest::Error>() {
        return Some(match error {
            e if e.is_builder() => Sign::Unsendable,
            e if e.is_connect() => Sign::NotSent,
            e if e.is_timeout() => Sign::TimedOut,
            _ => Sign::MaybeSent,
        });
    }
    #[cfg(feature = "hyper")]
    if let Some(error) = link.downcast_ref::<hyper_util::client::legacy::Error>() {
        return Some(if error.is_connect() { Sign::NotSent } else { Sign::MaybeSent });
    }
    #[cfg(feature = "hyper")]
    if let Some(error) = link.downcast_ref::<hyper::Error>() {
        return Some(match error {
            // "Canceled": the connection was gone before the request was written to it.
            e if e.is_canceled() => Sign::NotSent,
            // The caller's body failed or the request breaks a rule.
            e if e.is_user() => Sign::Unsendable,
            e if e.is_timeout() => Sign::TimedOut,
            _ => Sign::MaybeSent,
        });
    }
    #[cfg(feature = "tower-http-06")]
    if link.is::<tower_http_06::timeout::TimeoutError>() {
        return Some(Sign::TimedOut);
    }
    #[cfg(feature = "tower-http-07")]
    if link.is::<tower_http_07::timeout::TimeoutError>() {
        return Some(Sign::TimedOut);
    }
    None
}

fn read_io(error: &io::Error) -> Sign {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => Sign::NotSent,
        io::ErrorKind::TimedOut => Sign::TimedOut,
        _ => Sign::MaybeSent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::BoxError;

    #[test]
    fn what_was_sent_by_kind_of_error() {
        let io = |kind| -> BoxError { Box::new(io::Error::from(kind)) };
        let cases: [(BoxError, Kind, Sent); 6] = [
            (io(io::ErrorKind::ConnectionRefused), Kind::Transport, Sent::No),
            (io(io::ErrorKind::ConnectionReset), Kind::Transport, Sent::Maybe),
            (io(io::ErrorKind::TimedOut), Kind::DeadlineExceeded, Sent::Maybe),
            (Box::new(tower::timeout::error::Elapsed::new()), Kind::DeadlineExceeded, Sent::Maybe),
            (Box::new(io::Error::other(Rejected::new("closed"))), Kind::Transport, Sent::No),
            ("something else".into(), Kind::Transport, Sent::Maybe),
        ];
        for (error, kind, sent) in cases {
            let verdict = judge_error(error.as_ref());
            assert_eq!((verdict.kind(), verdict.sent()), (Some(kind), sent), "{error}");
        }
    }
}
