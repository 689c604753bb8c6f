//! Errors of the OpenAI-compatible surface in the form that OpenAI's SDKs read.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{Request, Response, response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use serde_json::{Map, Value};
use tower_layer::Layer;
use tower_service::Service;

use crate::error::BoxError;
use crate::request::{Surface, Target};

/// A longer error is handed on as it is.
const MAX_BYTES: usize = 256 * 1024;

/// Puts an [`OpenAiErrors`] around a service.
///
/// On the OpenAI-compatible surface Google wraps an error in an array and gives it a number as `code`; OpenAI's SDKs expect an object
/// with a text, and say that they cannot read the answer. Errors of such requests leave their array, `code` becomes Google's status
/// as a text, `type` and `param` are added; other members stay, and so do the status and the headers but for the length. Answers, other
/// surfaces, compressed errors, errors of more than 256 KiB and those in the midst of a stream pass through as they are.
///
/// **Outermost**, outside of a [`RespondLayer`](super::RespondLayer), whose answers are then in OpenAI's form, too: the layers inside
/// read both forms, but know more of Google's.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_gemini::respond::{OpenAiErrorsLayer, RespondLayer};
/// use tower_gemini::stack::GeminiStack;
///
/// # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
/// #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
/// let gemini = ServiceBuilder::new()
///     .layer(OpenAiErrorsLayer::new())
///     .layer(RespondLayer::new())
///     .service(GeminiStack::new().service(client));
/// # let _ = tower::ServiceExt::<http::Request<http_body_util::Full<bytes::Bytes>>>::oneshot(gemini, Default::default());
/// ```
///
/// It has no state. An error's body is read before its head is handed on; dropping the future drops it. Nothing is allocated for others.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct OpenAiErrorsLayer {
    enabled: bool,
}

impl OpenAiErrorsLayer {
    /// The layer.
    pub const fn new() -> Self {
        Self { enabled: true }
    }

    /// Off, every error passes through as it is, with the same type. Default on.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }
}

impl Default for OpenAiErrorsLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for OpenAiErrorsLayer {
    type Service = OpenAiErrors<S>;

    fn layer(&self, inner: S) -> Self::Service {
        OpenAiErrors { inner, enabled: self.enabled }
    }
}

/// Puts errors of the OpenAI-compatible surface into OpenAI's form. Made by [`OpenAiErrorsLayer`].
#[derive(Clone, Debug)]
pub struct OpenAiErrors<S> {
    inner: S,
    enabled: bool,
}

impl<S> OpenAiErrors<S> {
    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to change it.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, by value.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, RB> Service<Request<B>> for OpenAiErrors<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    RB: Body<Data = Bytes>,
    RB::Error: Into<BoxError>,
{
    type Response = Response<OpenAiErrorsBody<RB>>;
    type Error = S::Error;
    type Future = OpenAiErrorsFuture<S::Future, RB>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_openai = self.enabled && Target::of(&request).surface() == Surface::OpenAi;
        OpenAiErrorsFuture { state: State::Called { future: self.inner.call(request), is_openai } }
    }
}

pin_project! {
    /// The future of [`OpenAiErrors`]. Dropping it drops the call.
    #[must_use = "futures do nothing unless polled"]
    pub struct OpenAiErrorsFuture<F, B> {
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B> {
        Called { #[pin] future: F, is_openai: bool },
        // The body of an error; boxed, since it is polled here and then in the response. `None` once it was handed on.
        Reading { head: Option<Reading<B>> },
    }
}

struct Reading<B> {
    head: response::Parts,
    body: Pin<Box<B>>,
    read: BytesMut,
}

impl<B> Reading<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(), BoxError>>> {
        while self.read.len() <= MAX_BYTES {
            match ready!(self.body.as_mut().poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Ok(frame)) => self.read.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
        Poll::Ready(Some(Ok(())))
    }

    fn finish(mut self, end: Option<Result<(), BoxError>>) -> Response<OpenAiErrorsBody<B>> {
        let mut read = self.read.freeze();
        let (rest, failed) = match end {
            None => {
                if let Some(bytes) = openai_error(&read) {
                    self.head.headers.remove(CONTENT_LENGTH);
                    read = bytes;
                }
                (None, None)
            }
            Some(Ok(())) => (Some(self.body), None),
            Some(Err(error)) => (None, Some(error)),
        };
        Response::from_parts(
            self.head,
            OpenAiErrorsBody { body: Tail::Read { read: Some(read), rest, failed } },
        )
    }
}

impl<F, B, E> Future for OpenAiErrorsFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<OpenAiErrorsBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let reading = match this.state.as_mut().project() {
                StateProj::Called { future, is_openai } => {
                    let is_openai = *is_openai;
                    let response = ready!(future.poll(cx))?;
                    if !is_openai
                        || response.status().as_u16() < 400
                        || response.headers().contains_key(CONTENT_ENCODING)
                    {
                        let passed = |body| OpenAiErrorsBody { body: Tail::Passed { body } };
                        return Poll::Ready(Ok(response.map(passed)));
                    }
                    let (head, body) = response.into_parts();
                    Reading { head, body: Box::pin(body), read: BytesMut::new() }
                }
                StateProj::Reading { head } => {
                    let end = ready!(head.as_mut().expect("polled after it was ready").poll(cx));
                    return Poll::Ready(Ok(head.take().expect("just polled").finish(end)));
                }
            };
            this.state.set(State::Reading { head: Some(reading) });
        }
    }
}

impl<F, B> fmt::Debug for OpenAiErrorsFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiErrorsFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// A response's body: the inner service's, or what was made of an error's.
    ///
    /// Dropping it drops the inner body.
    pub struct OpenAiErrorsBody<B> {
        #[pin]
        body: Tail<B>,
    }
}

pin_project! {
    #[project = TailProj]
    enum Tail<B> {
        Passed { #[pin] body: B },
        // What was read, then the rest of what was too long, or how it broke off.
        Read { read: Option<Bytes>, rest: Option<Pin<Box<B>>>, failed: Option<BoxError> },
    }
}

impl<B> Body for OpenAiErrorsBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().body.project() {
            TailProj::Passed { body } => body.poll_frame(cx).map_err(Into::into),
            TailProj::Read { read, rest, failed } => {
                if let Some(read) = read.take() {
                    return Poll::Ready(Some(Ok(Frame::data(read))));
                }
                if let Some(error) = failed.take() {
                    return Poll::Ready(Some(Err(error)));
                }
                match rest {
                    Some(rest) => rest.as_mut().poll_frame(cx).map_err(Into::into),
                    None => Poll::Ready(None),
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Tail::Passed { body } => body.is_end_stream(),
            Tail::Read { read, rest, failed } => {
                read.is_none() && failed.is_none() && rest.as_ref().is_none_or(|rest| rest.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Tail::Passed { body } => body.size_hint(),
            Tail::Read { read: None, rest: Some(rest), failed: None } => rest.size_hint(),
            Tail::Read { read: Some(read), rest: None, failed: None } => {
                SizeHint::with_exact(read.len() as u64)
            }
            Tail::Read { .. } => SizeHint::default(),
        }
    }
}

impl<B> fmt::Debug for OpenAiErrorsBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiErrorsBody").finish_non_exhaustive()
    }
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
