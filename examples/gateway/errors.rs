//! Failures of the gateway's own, told as Google would: a JSON error that every SDK understands.

use std::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower_gemini::error::find;
use tower_gemini::rate_limit::{self, RateLimited};
use tower_gemini::{BoxError, Kind, Rejected, Verdict};

use super::stack::Down;

const DOMAIN: &str = "gateway.tower-gemini";

/// The answer to a request that has none of the upstream's, `now` being tokio's. Never repeats what an error says of
/// itself: it may hold a URL, and with it a key.
pub(crate) fn response(error: &BoxError, now: Instant) -> Response<Body> {
    let error = error.as_ref();
    let after = |until: Option<Instant>| until.map(|until| until.saturating_duration_since(now));
    if let Some(down) = find::<Down>(error) {
        let message = "The upstream is not well: too many calls for this model failed. Try again later.";
        return of(
            StatusCode::SERVICE_UNAVAILABLE,
            "UNAVAILABLE",
            "CIRCUIT_OPEN",
            message,
            after(down.until()),
        );
    }
    if let Some(limited) = find::<RateLimited>(error) {
        let message = format!("Not sent, {limited}.");
        let delay = match limited.why() {
            // Waiting does not make it smaller.
            rate_limit::Why::TooLarge | rate_limit::Why::Zero => None,
            _ => after(limited.until()),
        };
        return of(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", "RATE_LIMITED", &message, delay);
    }
    if let Some(rejected) = find::<Rejected>(error) {
        let message = format!("Not sent: {}.", rejected.why());
        let delay = after(rejected.until());
        return of(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "NOT_SENT", &message, delay);
    }
    let verdict = Verdict::from_error(error);
    match verdict.kind() {
        Some(Kind::DeadlineExceeded) => {
            let message = "The upstream did not answer in time.";
            of(StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED", "NO_ANSWER", message, None)
        }
        _ if verdict.maybe_processed() => {
            let message = "The connection to the upstream was lost before it answered.";
            of(StatusCode::BAD_GATEWAY, "UNAVAILABLE", "CONNECTION_LOST", message, None)
        }
        _ => {
            let message = "The upstream cannot be reached.";
            of(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "NOT_CONNECTED", message, None)
        }
    }
}

/// The answer to a request that no upstream would understand.
pub(crate) fn bad_request(message: &str) -> Response<Body> {
    of(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", "BAD_REQUEST", message, None)
}

fn of(
    code: StatusCode,
    status: &str,
    reason: &str,
    message: &str,
    delay: Option<Duration>,
) -> Response<Body> {
    let mut response = Response::new(Body::from(body(code, status, reason, message, delay)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    if let Some(delay) = delay {
        // Whole seconds, and never too few.
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// `google.rpc.Status` with its details.
pub(crate) fn body(
    code: StatusCode,
    status: &str,
    reason: &str,
    message: &str,
    delay: Option<Duration>,
) -> String {
    let mut details = vec![json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": DOMAIN,
    })];
    details.extend(delay.map(|delay| -> Value {
        json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{:.3}s", delay.as_secs_f64()),
        })
    }));
    let error = json!({ "code": code.as_u16(), "message": message, "status": status, "details": details });
    let mut text = format!("{:#}", json!({ "error": error }));
    text.push('\n');
    text
}
