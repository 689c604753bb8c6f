//! Errors of the OpenAI-compatible surface in the form that OpenAI's SDKs read.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::{Map, Value};

use crate::error::BoxError;

/// A longer error is handed on as it is.
const MAX_BYTES: usize = 256 * 1024;

/// The body of a proxy's response: the stack's, behind what was read of it.
///
/// Boxed, since a body that was looked at is polled from two places.
pub(super) struct ProxyBody<B> {
    read: Option<Bytes>,
    rest: Option<Pin<Box<B>>>,
    /// How the body broke off while it was read.
    failed: Option<BoxError>,
}

impl<B> ProxyBody<B> {
    pub(super) fn passed(body: B) -> Self {
        Self { read: None, rest: Some(Box::pin(body)), failed: None }
    }
}

impl<B> Body for ProxyBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(read) = self.read.take() {
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match &mut self.rest {
            Some(rest) => rest.as_mut().poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none()
            && self.failed.is_none()
            && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.read, &self.rest, &self.failed) {
            (None, Some(rest), None) => rest.size_hint(),
            (Some(read), None, None) => SizeHint::with_exact(read.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

/// The response, its error in OpenAI's form where it is one of Google's.
pub(super) async fn normalised<B>(response: Response<B>) -> Response<ProxyBody<B>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (mut head, body) = response.into_parts();
    if head.status.as_u16() < 400 || head.headers.contains_key(CONTENT_ENCODING) {
        return Response::from_parts(head, ProxyBody::passed(body));
    }
    let (mut body, mut read) = (Box::pin(body), BytesMut::new());
    let (rest, failed) = loop {
        if read.len() > MAX_BYTES {
            break (Some(body), None);
        }
        match body.frame().await {
            None => break (None, None),
            Some(Ok(frame)) => read.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(error)) => break (None, Some(error.into())),
        }
    };
    let mut read = read.freeze();
    if rest.is_none() && failed.is_none() {
        if let Some(bytes) = openai_error(&read) {
            head.headers.remove(CONTENT_LENGTH);
            read = bytes;
        }
    }
    Response::from_parts(head, ProxyBody { read: Some(read), rest, failed })
}

/// `[{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", …}}]`, or without the array, as
/// `{"error": {"code": "RESOURCE_EXHAUSTED", "type": "rate_limit_error", "param": null, …}}`. `None` where it is neither.
fn openai_error(body: &[u8]) -> Option<Bytes> {
    let mut value = serde_json::from_slice::<Value>(body).ok()?;
    if let Value::Array(items) = value {
        let [item] = <[Value; 1]>::try_from(items).ok()?;
        value = item;
    }
    let error: &mut Map<String, Value> = value.get_mut("error")?.as_object_mut()?;
    let status = error.get("code")?.as_u64()?;
    let name = error.get("status").and_then(Value::as_str).map_or_else(|| status.to_string(), str::to_owned);
    let class = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    error.insert("code".to_owned(), name.into());
    error.entry("type").or_insert_with(|| class.into());
    error.entry("param").or_insert(Value::Null);
    serde_json::to_vec(&value).ok().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_leaves_its_array_and_its_code_is_a_text() {
        let google =
            br#"[{"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "details": [1]}}]"#;
        let value: Value = serde_json::from_slice(&openai_error(google).expect("an error")).expect("JSON");
        let error = &value["error"];
        assert_eq!(
            (&error["code"], &error["type"]),
            (&"RESOURCE_EXHAUSTED".into(), &"rate_limit_error".into())
        );
        assert_eq!(
            (&error["message"], &error["details"][0], &error["param"]),
            (&"m".into(), &1.into(), &Value::Null)
        );
        assert!(openai_error(br#"{"error": {"code": 503}}"#).is_some());
        for other in ["", "<html>", "[]", "[{},{}]", r#"{"error": "no"}"#, r#"{"error": {"code": "text"}}"#] {
            assert_eq!(openai_error(other.as_bytes()), None, "{other}");
        }
    }
}
