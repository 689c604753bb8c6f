//! The end of a WebSocket session, as the Live API and the Interactions API's own transport have them. Pure.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::message::says;
use super::response::judge;
use crate::verdict::{Alternative, Inner, Kind, Retryability, Sent, Verdict};

/// Judges the close of a WebSocket session by its code and reason ([RFC 6455, 7.4](https://www.rfc-editor.org/rfc/rfc6455#section-7.4);
/// the codes from 1012 to 1014 are in the [IANA registry](https://www.iana.org/assignments/websocket/websocket.xhtml)).
///
/// For those who hold such a session themselves: no layer of this crate carries frames. A normal close (1000) is a success.
/// The reason outranks the code, because Gemini closes with 1007, 1008 and 1011 for quotas, keys, models and faults alike, and
/// says which in the reason, in the words of its HTTP errors. A reason has 123 bytes at most, so details are missing: a spent
/// day cannot be told from a minute's quota unless the reason says so.
///
/// | code | without a reason that says more |
/// |---|---|
/// | 1000 | success |
/// | 1001, 1012, 1013, 1014 | [`Unavailable`](Kind::Unavailable) |
/// | 1002, 1003, 1007, 1010 | [`InvalidArgument`](Kind::InvalidArgument) |
/// | 1005, 1006 | [`Transport`](Kind::Transport), which may have been sent |
/// | 1008, 3003 | [`PermissionDenied`](Kind::PermissionDenied) |
/// | 1009 | [`PayloadTooLarge`](Kind::PayloadTooLarge) |
/// | 1011 | [`Internal`](Kind::Internal) |
/// | 1015 | [`Transport`](Kind::Transport), not sent |
/// | 3000 | [`Unauthenticated`](Kind::Unauthenticated) |
/// | others | [`Unknown`](Kind::Unknown) |
///
/// Whether anything had been delivered in the session is the caller's to know:
/// [`after_output`](Verdict::after_output) is `false`, and [`http_status`](Verdict::http_status) is `None`.
///
/// ```
/// use tower_gemini::{Kind, classify};
///
/// let verdict = classify::close(1011, "You exceeded your current quota, please check your plan and billing details.");
/// assert_eq!(verdict.kind(), Some(Kind::RateLimited), "and not an internal error");
/// assert!(classify::close(1000, "").is_success());
/// ```
#[must_use]
pub fn close(code: u16, reason: &str) -> Verdict {
    if code == 1000 {
        return Verdict::default();
    }
    let by_code = match code {
        1001 | 1012..=1014 => 503,
        1002 | 1003 | 1007 | 1010 => 400,
        1008 | 3003 => 403,
        1009 => 413,
        1011 => 500,
        3000 => 401,
        // An observer's code that is never sent: the connection is gone.
        1005 | 1006 | 1015 if by_reason(reason).is_none() => return lost(code),
        _ => 418,
    };
    let status = by_reason(reason).unwrap_or(by_code);
    let status = StatusCode::from_u16(status).expect("one of those above");
    judge(status, &HeaderMap::new(), Bytes::copy_from_slice(reason.as_bytes())).without_status()
}

fn lost(code: u16) -> Verdict {
    // 1015: the TLS handshake failed.
    let sent = if code == 1015 { Sent::No } else { Sent::Maybe };
    let retryability = Retryability::WithBackoff;
    Verdict::new(Inner { sent, retryability, alternative: Alternative::None, ..Inner::new(Kind::Transport) })
}

/// The HTTP status under which Google says the same.
fn by_reason(reason: &str) -> Option<u16> {
    const PHRASES: [(u16, &[&str]); 10] = [
        (
            429,
            &[
                "xceeded your current quota",
                "uota exceeded",
                "esource has been exhausted",
                "esource exhausted",
                "spending cap",
                "repayment credits",
                "free quota tier",
                "too many requests",
                "Too Many Requests",
                "RESOURCE_EXHAUSTED",
            ],
        ),
        (
            400,
            &[
                "API key not valid",
                "API key not found",
                "API Key not found",
                "API key expired",
                "ser location is not supported",
                "nvalid argument",
                "INVALID_ARGUMENT",
                "nvalid JSON payload",
                "oken count",
                "recondition",
            ],
        ),
        (401, &["authentication credentials", "UNAUTHENTICATED", "nvalid authentication"]),
        (
            403,
            &[
                "reported as leaked",
                "does not have permission",
                "ermission denied",
                "PERMISSION_DENIED",
                "denied access",
                "unregistered callers",
                "or it is disabled",
            ],
        ),
        (404, &["is not found", "was not found", "not found", "NOT_FOUND", "no longer available"]),
        (501, &["not implemented", "UNIMPLEMENTED"]),
        (504, &["eadline expired", "DEADLINE_EXCEEDED", "timed out"]),
        (503, &["verloaded", "high demand", "navailable", "UNAVAILABLE", "o capacity"]),
        (499, &["was cancelled", "was canceled", "CANCELLED"]),
        (500, &["nternal error", "INTERNAL"]),
    ];
    PHRASES.iter().find(|(_, phrases)| says(reason, phrases)).map(|(status, _)| *status)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_code_has_its_kind() {
        for code in [1001, 1012, 1013, 1014] {
            assert_eq!(close(code, "").kind(), Some(Kind::Unavailable), "{code}");
        }
        for (code, kind) in [
            (1002, Kind::InvalidArgument),
            (1003, Kind::InvalidArgument),
            (1007, Kind::InvalidArgument),
            (1010, Kind::InvalidArgument),
            (1008, Kind::PermissionDenied),
            (3003, Kind::PermissionDenied),
            (1009, Kind::PayloadTooLarge),
            (1011, Kind::Internal),
            (3000, Kind::Unauthenticated),
            (1004, Kind::Unknown),
            (4999, Kind::Unknown),
            (0, Kind::Unknown),
        ] {
            let verdict = close(code, "");
            assert_eq!((verdict.kind(), verdict.http_status()), (Some(kind), None), "{code}");
        }
        for (code, sent) in [(1005, Sent::Maybe), (1006, Sent::Maybe), (1015, Sent::No)] {
            let verdict = close(code, "");
            assert_eq!((verdict.kind(), verdict.sent()), (Some(Kind::Transport), sent), "{code}");
            assert_eq!(verdict.retryability(), Retryability::WithBackoff, "{code}");
        }
        assert!(close(1000, "bye").is_success());
    }

    #[test]
    fn the_reason_outranks_the_code() {
        for (reason, kind) in [
            (
                "You exceeded your current quota, please check your plan and billing details. For more informati",
                Kind::RateLimited,
            ),
            ("Quota exceeded for metric: g.com/x, limit: 0, model: m", Kind::QuotaExhausted),
            ("Your prepayment credits are depleted.", Kind::QuotaExhausted),
            ("Resource has been exhausted (e.g. check quota).", Kind::RateLimited),
            ("API key not valid. Please pass a valid API key.", Kind::ApiKeyInvalid),
            ("Your API key was reported as leaked. Please use another API key.", Kind::KeyLeaked),
            (
                "models/gemini-9-live is not found for API version v1beta, or is not supported for bidiGenerateContent.",
                Kind::NotFound,
            ),
            ("Operation is not implemented, or supported, or enabled.", Kind::Unimplemented),
            ("Deadline expired before operation could complete.", Kind::DeadlineExceeded),
            ("The service is currently unavailable.", Kind::Unavailable),
            ("The model is overloaded. Please try again later.", Kind::Overloaded),
            ("Request contains an invalid argument.", Kind::InvalidArgument),
            ("User location is not supported for the API use.", Kind::FailedPrecondition),
            ("The operation was cancelled.", Kind::Cancelled),
            ("Internal error encountered.", Kind::Internal),
            ("The caller does not have permission", Kind::PermissionDenied),
        ] {
            for code in [1006, 1007, 1008, 1011, 4000] {
                let verdict = close(code, reason);
                assert_eq!(verdict.kind(), Some(kind), "{code} {reason}");
                assert_eq!(verdict.message(), reason, "{code}");
            }
        }
        assert_eq!(close(1008, "models/gemini-9-live is not found").model(), Some("gemini-9-live"));
    }

    proptest! {
        #[test]
        fn any_close_is_judged(code in any::<u16>(), reason in ".{0,123}") {
            let verdict = close(code, &reason);
            prop_assert_eq!(verdict.is_success(), code == 1000);
        }
    }
}
