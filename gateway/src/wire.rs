//! What HTTP asks of a proxy: heads that it must refuse, and what becomes of a body that nobody has read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, EXPECT, HOST, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tower_gemini::{Kind, respond};

/// The most of an unread body that is read and thrown away, so that its connection can be kept.
const DRAIN_BYTES: usize = 1024 * 1024;
/// The longest that it is waited for.
const DRAIN: Duration = Duration::from_secs(2);

/// A request that must not be passed on, and the answer to it. Takes `expect` out of one that may: the server answers it itself.
///
/// `Host` by [RFC 9112, 3.2](https://www.rfc-editor.org/rfc/rfc9112#section-3.2), `Expect` by
/// [RFC 9110, 10.1.1](https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1). `TRACE` would show a client's key to whoever reads the answer.
/// A WebSocket that is passed on as a plain GET helps nobody.
pub fn refused<B>(request: &mut Request<B>) -> Option<Response<Bytes>> {
    let headers = request.headers();
    let invalid = |message| Some(respond::error(Kind::InvalidArgument, message));
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return invalid("The request has more than one Host field."),
        (None, None) if request.version() == Version::HTTP_11 => {
            return invalid("The request has no Host field.");
        }
        (Some(host), None) if !is_host(host) => return invalid("The request's Host field is not valid."),
        _ => {}
    }
    if request.method() == Method::TRACE {
        let mut response = respond::error(Kind::Unimplemented, "TRACE is not answered here.");
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        let allowed = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        response.headers_mut().insert(ALLOW, allowed);
        return Some(in_step(response));
    }
    let names_websocket =
        |value: &HeaderValue| value.to_str().is_ok_and(|v| v.to_ascii_lowercase().contains("websocket"));
    if headers.get_all(UPGRADE).iter().any(names_websocket) {
        let message = "WebSockets (the Live API) are not passed on by this gateway.";
        return Some(respond::error(Kind::Unimplemented, message));
    }
    if headers.get_all(EXPECT).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        let mut response =
            respond::error(Kind::InvalidArgument, "The request expects what this server does not do.");
        *response.status_mut() = StatusCode::EXPECTATION_FAILED;
        return Some(in_step(response));
    }
    if headers.contains_key(EXPECT) {
        request.headers_mut().remove(EXPECT);
    }
    None
}

/// Makes the code in the body that of the status.
pub fn in_step(mut response: Response<Bytes>) -> Response<Bytes> {
    if let Ok(mut body) = serde_json::from_slice::<serde_json::Value>(response.body()) {
        body["error"]["code"] = response.status().as_u16().into();
        let body = Bytes::from(body.to_string());
        response.headers_mut().insert(http::header::CONTENT_LENGTH, body.len().into());
        *response.body_mut() = body;
    }
    response
}

/// Empty, or a host with a port or without.
fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.is_empty()
        || !value.as_bytes().contains(&b'@')
            && value.to_str().is_ok_and(|text| text.parse::<http::uri::Authority>().is_ok())
}

/// Where a request's body is given back to when those who were to send it have dropped it unread.
#[derive(Clone, Debug, Default)]
pub struct Unread(Arc<Mutex<Option<Incoming>>>);

impl Unread {
    /// Gives a body back. One that has ended needs no further care.
    pub fn put(&self, body: Incoming) {
        if !body.is_end_stream() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }

    /// The body, if it was given back.
    pub fn take(&self) -> Option<Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Reads the rest of a body, at most 1 MiB and for at most 2 s, and then answers; where that was not all, the answer says that the
/// connection ends. A connection that ends unannounced is an error for whoever has sent the next request on it.
pub async fn drained<B>(mut body: Incoming, mut response: Response<B>) -> Response<B> {
    let mut left = DRAIN_BYTES;
    let announced = body.size_hint().lower() > DRAIN_BYTES as u64;
    let all = tokio::time::timeout(DRAIN, async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        true
    });
    if announced || !all.await.unwrap_or(false) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
