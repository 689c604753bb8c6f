//! The request that costs are measured with.

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;

/// Eight headers, one of them fresh as a key is, and a fresh body of 2 KiB.
pub(crate) fn request() -> Request<Full<Bytes>> {
    request_to("http://127.0.0.1/v1beta/models/gemini-9-flash:generateContent")
}

/// The same, to another model.
pub(crate) fn request_to(uri: &str) -> Request<Full<Bytes>> {
    let mut request = Request::post(uri).body(Full::from(vec![b'x'; 2048])).expect("a valid request");
    for name in [
        header::ACCEPT,
        header::ACCEPT_ENCODING,
        header::ACCEPT_LANGUAGE,
        header::CONTENT_TYPE,
        header::HOST,
        header::ORIGIN,
        header::USER_AGENT,
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static("value"));
    }
    let fresh = HeaderValue::from_bytes(b"a key that is not static").expect("a valid value");
    request.headers_mut().insert(header::AUTHORIZATION, fresh);
    request
}
