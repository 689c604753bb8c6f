//! From an error to what Google would have said. Pure, but for [`from_error`]'s look at the clock.

use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use tokio::time::Instant;

use crate::circuit_breaker::CircuitOpen;
use crate::concurrency::ConcurrencyLimited;
use crate::error::{Rejected, find};
use crate::google_rpc::Code;
use crate::preflight::{BodyFailed, Finding, PreflightRefused};
use crate::rate_limit::{LimitKind, RateLimited};
use crate::time;
use crate::verdict::{Kind, Retryability, Sent, Verdict};

/// Who says so, in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "tower-gemini";

/// The response that says what an error means, as [`RespondLayer`](super::RespondLayer) makes it.
///
/// Reads tokio's clock where the error names an instant.
///
/// ```
/// use tower_gemini::{Kind, Rejected, respond};
///
/// let response = respond::from_error(&Rejected::new("maintenance").with_kind(Kind::Unavailable));
/// assert_eq!(response.status(), 503);
/// ```
#[must_use]
pub fn from_error(error: &(dyn Error + 'static)) -> Response<Bytes> {
    Fault::of(error).response(time::now)
}

/// A response of one's own in Google's form: for a server that turns a request away before it has asked anybody.
///
/// Status and code are those of the table in the [module documentation](super). `message` is sent as it is, so it
/// should hold nothing that the caller may not see. Read back, the kind is the same where status, code and reason
/// tell it; `context_too_long` and `payload_too_large` are read from Google's own words only, and come back as
/// `invalid_argument` otherwise.
///
/// ```
/// use tower_gemini::{Kind, respond};
///
/// let response = respond::error(Kind::PayloadTooLarge, "The request is larger than 20 MiB.");
/// assert_eq!(response.status(), 413);
/// assert!(response.body().starts_with(br#"{"error":{"code":413,"#));
/// ```
#[must_use]
pub fn error(kind: Kind, message: &str) -> Response<Bytes> {
    let (status, code) = status_of(kind);
    Fault { message, ..Fault::new(status, code, reason_of(kind)) }.response(time::now)
}

/// All that the response says.
struct Fault<'a> {
    status: u16,
    code: Code,
    reason: &'static str,
    message: &'a str,
    /// Said after the message.
    remedy: &'static str,
    model: Option<&'a str>,
    quota: Option<Violation>,
    findings: &'a [Finding],
    until: Option<Instant>,
}

impl<'a> Fault<'a> {
    const fn new(status: u16, code: Code, reason: &'static str) -> Self {
        Self {
            status,
            code,
            reason,
            message: "",
            remedy: "",
            model: None,
            quota: None,
            findings: &[],
            until: None,
        }
    }

    /// NOTE: nothing here prints the error: its text may hold an address of the inner network, or a key.
    fn of(error: &'a (dyn Error + 'static)) -> Self {
        let verdict = Verdict::from_error(error);
        let kind = verdict.kind().unwrap_or(Kind::Unknown);
        let rejected = find::<Rejected>(error);
        let (status, code) = match kind {
            // The same request fails again, and not for the server's sake.
            Kind::Transport if verdict.retryability() == Retryability::Never => (400, Code::InvalidArgument),
            Kind::Transport if verdict.sent() == Sent::Maybe => (502, Code::Unavailable),
            kind => status_of(kind),
        };
        let fault = Self {
            remedy: remedy_of(kind),
            until: rejected.and_then(Rejected::until),
            ..Self::new(status, code, reason_of(kind))
        };
        if let Some(limited) = find::<RateLimited>(error) {
            return Self {
                message: if kind == Kind::QuotaExhausted {
                    "The quota of this model is spent, so the request was not sent."
                } else {
                    "The rate limit in front of this model did not admit the request, so it was not sent."
                },
                quota: Violation::of(limited.dimension(), kind),
                // Also where no layer of this process is to wait for it.
                until: limited.until(),
                ..fault
            };
        }
        if let Some(open) = find::<CircuitOpen>(error) {
            return Self {
                reason: "CIRCUIT_OPEN",
                message: "The circuit of this model is open after many failures, so the request was not sent.",
                model: open.key().model(),
                // Also where no layer of this process is to wait for it.
                until: open.until(),
                ..fault
            };
        }
        if let Some(refused) = find::<PreflightRefused>(error) {
            // Its sentences are fixed: they hold numbers and names of models.
            return Self { message: refused.text(), remedy: "", findings: refused.findings(), ..fault };
        }
        if find::<BodyFailed>(error).is_some() {
            let (status, code) = status_of(Kind::InvalidArgument);
            let fault = Self::new(status, code, reason_of(Kind::InvalidArgument));
            return Self { message: "The request's body broke off, so the request was not sent.", ..fault };
        }
        if find::<ConcurrencyLimited>(error).is_some() {
            return Self {
                message: "The model is overloaded: the request's turn did not come in time, so it was not sent.",
                ..fault
            };
        }
        let message = match (rejected, kind) {
            (Some(_), _) => "A layer in front of the model turned the request away; it was not sent.",
            (_, Kind::DeadlineExceeded) => "The model did not answer in time.",
            _ if status == 400 => "The request could not be sent as it is.",
            _ if status == 502 => "The connection was lost before the answer was complete.",
            _ => "The server could not be reached.",
        };
        Self { message, ..fault }
    }

    fn response(&self, now: impl FnOnce() -> Instant) -> Response<Bytes> {
        let delay = self.until.map(|until| until.saturating_duration_since(now()));
        let message = match self.remedy {
            "" => Cow::Borrowed(self.message),
            remedy => Cow::Owned([self.message, remedy].join(" ")),
        };
        let body = Body {
            error: Status {
                code: self.status,
                message: &message,
                status: self.code.as_str(),
                details: self.details(delay),
            },
        };
        let body = serde_json::to_vec(&body).expect("text and numbers");
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = StatusCode::from_u16(self.status).expect("each of them is one");
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
        if let Some(delay) = delay {
            let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn details(&self, delay: Option<Duration>) -> Vec<Detail<'_>> {
        let metadata = self.model.map(|model| Metadata { model });
        let info = Detail::ErrorInfo { reason: self.reason, domain: DOMAIN, metadata };
        let quota = self.quota.map(|violation| Detail::QuotaFailure { violations: [violation] });
        let retry = delay.map(|delay| Detail::RetryInfo { retry_delay: seconds(delay) });
        let request = (!self.findings.is_empty()).then(|| {
            let field_violations = self.findings.iter().map(FieldViolation::of).collect();
            Detail::BadRequest { field_violations }
        });
        [Some(info), request, quota, retry].into_iter().flatten().collect()
    }
}

/// The spelling of `google.protobuf.Duration`: `3.2s`.
fn seconds(delay: Duration) -> String {
    let text = format!("{}.{:09}", delay.as_secs(), delay.subsec_nanos());
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// The HTTP status of a kind, and the canonical code beside it.
const fn status_of(kind: Kind) -> (u16, Code) {
    match kind {
        Kind::InvalidArgument
        | Kind::ApiKeyInvalid
        | Kind::ContextTooLong
        | Kind::ContentBlocked
        | Kind::Usage => (400, Code::InvalidArgument),
        Kind::FailedPrecondition => (400, Code::FailedPrecondition),
        Kind::PayloadTooLarge => (413, Code::InvalidArgument),
        Kind::Unauthenticated => (401, Code::Unauthenticated),
        Kind::PermissionDenied | Kind::KeyLeaked | Kind::ServiceDisabled => (403, Code::PermissionDenied),
        Kind::NotFound => (404, Code::NotFound),
        Kind::RateLimited | Kind::QuotaExhausted => (429, Code::ResourceExhausted),
        Kind::Overloaded | Kind::Unavailable | Kind::Transport => (503, Code::Unavailable),
        Kind::DeadlineExceeded => (504, Code::DeadlineExceeded),
        Kind::Cancelled => (499, Code::Cancelled),
        Kind::Conflict => (409, Code::Aborted),
        Kind::Unimplemented => (501, Code::Unimplemented),
        Kind::Internal | Kind::EmptyResponse | Kind::Truncated | Kind::Unknown => (500, Code::Internal),
    }
}

/// `google.rpc.ErrorInfo.reason`: Google's own where there is one, by which the kind is read back.
const fn reason_of(kind: Kind) -> &'static str {
    match kind {
        Kind::InvalidArgument => "INVALID_ARGUMENT",
        Kind::ApiKeyInvalid => "API_KEY_INVALID",
        Kind::FailedPrecondition => "FAILED_PRECONDITION",
        Kind::ContextTooLong => "CONTEXT_TOO_LONG",
        Kind::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
        Kind::Unauthenticated => "UNAUTHENTICATED",
        Kind::PermissionDenied => "PERMISSION_DENIED",
        Kind::KeyLeaked => "KEY_LEAKED",
        Kind::ServiceDisabled => "SERVICE_DISABLED",
        Kind::NotFound => "NOT_FOUND",
        Kind::RateLimited => "RATE_LIMITED",
        Kind::QuotaExhausted => "QUOTA_EXHAUSTED",
        Kind::Overloaded => "MODEL_CAPACITY_EXHAUSTED",
        Kind::Unavailable => "UNAVAILABLE",
        Kind::Internal => "INTERNAL",
        Kind::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Kind::Cancelled => "CANCELLED",
        Kind::Conflict => "ABORTED",
        Kind::Unimplemented => "UNIMPLEMENTED",
        Kind::ContentBlocked => "CONTENT_BLOCKED",
        Kind::EmptyResponse => "EMPTY_RESPONSE",
        Kind::Truncated => "TRUNCATED",
        Kind::Transport => "TRANSPORT",
        Kind::Usage => "USAGE",
        Kind::Unknown => "UNKNOWN",
    }
}

const fn remedy_of(kind: Kind) -> &'static str {
    match kind {
        // The kind's own speaks of money, by which a reader would take it for a bill.
        Kind::QuotaExhausted => "Use another model, or come back when the quota does.",
        kind => kind.remedy(),
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: Status<'a>,
}

#[derive(Serialize)]
struct Status<'a> {
    code: u16,
    message: &'a str,
    status: &'a str,
    details: Vec<Detail<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "@type")]
enum Detail<'a> {
    #[serde(rename = "type.googleapis.com/google.rpc.ErrorInfo")]
    ErrorInfo {
        reason: &'a str,
        domain: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<Metadata<'a>>,
    },
    #[serde(rename = "type.googleapis.com/google.rpc.BadRequest", rename_all = "camelCase")]
    BadRequest { field_violations: Vec<FieldViolation<'a>> },
    #[serde(rename = "type.googleapis.com/google.rpc.QuotaFailure")]
    QuotaFailure { violations: [Violation; 1] },
    #[serde(rename = "type.googleapis.com/google.rpc.RetryInfo", rename_all = "camelCase")]
    RetryInfo { retry_delay: String },
}

#[derive(Serialize)]
struct Metadata<'a> {
    model: &'a str,
}

#[derive(Serialize)]
struct FieldViolation<'a> {
    field: &'a str,
    description: &'a str,
}

impl<'a> FieldViolation<'a> {
    fn of(finding: &'a Finding) -> Self {
        Self { field: finding.field(), description: finding.message() }
    }
}

/// Without an id: one without its value would be read as a quota of zero, and the value is not known here.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Violation {
    quota_metric: &'static str,
    description: &'static str,
}

impl Violation {
    fn of(dimension: LimitKind, kind: Kind) -> Option<Self> {
        let (quota_metric, description) = match dimension {
            LimitKind::RequestsPerMinute => ("tower-gemini/requests_per_minute", "requests per minute"),
            LimitKind::InputTokensPerMinute => {
                ("tower-gemini/input_tokens_per_minute", "input tokens per minute")
            }
            // One that is waited for all the same is no spent one, and a violation of a day would say so.
            LimitKind::RequestsPerDay if kind == Kind::QuotaExhausted => {
                ("tower-gemini/requests_per_day", "requests per day")
            }
            _ => return None,
        };
        Some(Self { quota_metric, description })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::google_rpc::parse_duration;

    fn judged(response: &Response<Bytes>) -> Verdict {
        Verdict::from_parts(response.status(), response.headers(), response.body().clone())
    }

    #[test]
    fn a_kind_is_read_back_from_the_answer_to_it() {
        for &kind in Kind::ALL {
            let expected = match kind {
                // Read from Google's own words only, or never said by a status.
                Kind::ContextTooLong | Kind::PayloadTooLarge | Kind::ContentBlocked => Kind::InvalidArgument,
                Kind::KeyLeaked => Kind::PermissionDenied,
                Kind::Usage => Kind::InvalidArgument,
                Kind::Transport => Kind::Unavailable,
                Kind::EmptyResponse | Kind::Truncated | Kind::Unknown => Kind::Internal,
                kind => kind,
            };
            assert_eq!(judged(&error(kind, "Something.")).kind(), Some(expected), "{kind}");
        }
    }

    #[test]
    fn durations_are_written_as_google_writes_them() {
        for (delay, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_millis(3_200), "3.2s"),
            (Duration::from_secs(30), "30s"),
            (Duration::from_nanos(1), "0.000000001s"),
        ] {
            assert_eq!(seconds(delay), text);
        }
    }

    proptest! {
        #[test]
        fn any_delay_is_read_back_exactly(secs in 0..1_000_000_000u64, nanos in 0..1_000_000_000u32) {
            let delay = Duration::new(secs, nanos);
            prop_assert_eq!(parse_duration(&seconds(delay)), Some(delay));
        }

        #[test]
        fn any_message_is_sent_as_it_is(message in "\\PC{0,40}") {
            let response = error(Kind::InvalidArgument, &message);
            let body: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
            prop_assert_eq!(body["error"]["message"].as_str(), Some(&*message));
        }
    }
}
