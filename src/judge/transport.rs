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
    /// The request's body failed: the same request fails again.
    Unsendable,
    /// The program's own mistake: the client does not take such a request.
    Usage,
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
            Some(found @ Sign::Unsendable) if sign != Sign::NotSent => {
                sign = found;
                break;
            }
            Some(found @ Sign::Usage) => {
                sign = found;
                break;
            }
            // Goes on: a client calls it a failure to connect that it has no TLS to connect with.
            Some(Sign::NotSent) => sign = Sign::NotSent,
            Some(Sign::TimedOut) if sign != Sign::NotSent => sign = Sign::TimedOut,
            Some(Sign::TimedOut | Sign::Unsendable | Sign::MaybeSent) | None => {}
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
        Sign::Usage => (Kind::Usage, Sent::No, Retryability::Never),
        Sign::Unsendable => (Kind::Transport, Sent::No, Retryability::Never),
    };
    Verdict::new(Inner { sent, retryability, alternative: Alternative::None, by_caller, ..Inner::new(kind) })
}

fn read(link: &(dyn Error + 'static)) -> Option<Sign> {
    if link.is::<Rejected>() {
        return Some(Sign::NotSent);
    }
    if is_usage(link) {
        return Some(Sign::Usage);
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
            e if e.is_builder() => Sign::Usage,
            e if e.is_connect() => Sign::NotSent,
            e if e.is_timeout() => Sign::TimedOut,
            _ => Sign::MaybeSent,
        });
    }
    #[cfg(feature = "reqwest-012")]
    if let Some(error) = link.downcast_ref::<::reqwest_012::Error>() {
        return Some(match error {
            e if e.is_builder() => Sign::Usage,
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

/// Whether a client says that it does not take such a request.
///
/// Most clients have no type or method for it that could be asked, so their texts are compared: those of hyper-util 0.1's
/// client and its `HttpConnector`, which reqwest without TLS has, too, and of hyper-rustls 0.27.
fn is_usage(link: &(dyn Error + 'static)) -> bool {
    const TEXTS: [&str; 8] = [
        "invalid URL, scheme is not http",
        "invalid URL, scheme is missing",
        "invalid URL, host is missing",
        "client error (UserAbsoluteUriRequired)",
        "client error (UserUnsupportedRequestMethod)",
        "client error (UserUnsupportedVersion)",
        "unsupported scheme http",
        "missing scheme",
    ];
    let is_of_http = link.is::<http::Error>()
        || link.is::<http::uri::InvalidUri>()
        || link.is::<http::uri::InvalidUriParts>()
        || link.is::<http::method::InvalidMethod>()
        || link.is::<http::header::InvalidHeaderName>()
        || link.is::<http::header::InvalidHeaderValue>();
    is_of_http || {
        let mut text = Beginning { bytes: [0; 48], len: 0 };
        // It ends early where the text is longer than any of these.
        let is_whole = std::fmt::Write::write_fmt(&mut text, format_args!("{link}")).is_ok();
        is_whole && TEXTS.iter().any(|known| known.as_bytes() == &text.bytes[..text.len])
    }
}

/// The beginning of an error's text: nothing is allocated for it.
struct Beginning {
    bytes: [u8; 48],
    len: usize,
}

impl std::fmt::Write for Beginning {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
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
        let usage = || http::Request::builder().uri("http://a b").body(()).expect_err("a space");
        let cases: [(BoxError, Kind, Sent); 10] = [
            (Box::new(usage()), Kind::Usage, Sent::No),
            (Box::new(io::Error::other(usage())), Kind::Usage, Sent::No),
            (Box::new(io::Error::other("missing scheme")), Kind::Usage, Sent::No),
            ("missing scheme, or so".into(), Kind::Transport, Sent::Maybe),
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
