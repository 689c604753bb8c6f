//! What stands at the bottom of each row, and what makes one of it.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::Frame;
use http_body_util::Full;
use tower::Service;
use tower_gemini::BoxError;

pub(crate) type Body = Full<Bytes>;

/// One call, polled once: nothing here may wait.
pub(crate) fn one<S: Service<R>, R>(service: &mut S, request: R) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut call = std::pin::pin!(service.call(request));
    match call.as_mut().poll(&mut cx) {
        Poll::Ready(result) => drop(black_box(result)),
        Poll::Pending => unreachable!("the bare service is ready at once"),
    }
}

/// Drops the request and answers 200 at once.
#[derive(Clone)]
pub(crate) struct Bare;

impl Service<Request<Body>> for Bare {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Body>, BoxError>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        drop(black_box(request));
        ready(Ok(Response::new(Body::new(Bytes::from_static(b"{}")))))
    }
}

/// Answers as Gemini does: four headers, and 485 bytes in one frame of a body whose length is not told.
#[derive(Clone)]
pub(crate) struct Answering {
    answer: Bytes,
    /// Head and body are pending once each, as they are in every call over a network.
    pends: bool,
}

impl Answering {
    pub(crate) fn at_once() -> Self {
        Self { answer: answer(), pends: false }
    }

    pub(crate) fn pending_once() -> Self {
        Self { answer: answer(), pends: true }
    }
}

/// 485 bytes, in a buffer that is shared as a client's are.
fn answer() -> Bytes {
    const ANSWER: &str = r#"{"candidates":[{"content":{"parts":[{"text":"The sky is blue because the air scatters the short waves of sunlight more than the long ones, which is known as Rayleigh scattering. At dusk that way is long, red stays"}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":512,"candidatesTokenCount":41,"totalTokenCount":553,"promptTokensDetails":[{"modality":"TEXT","tokenCount":512}]},"modelVersion":"gemini-9-flash","responseId":"AbCdEfGhIjKlMnOp0123"}"#;
    assert_eq!(ANSWER.len(), 485);
    let answer = Bytes::from(ANSWER.to_owned());
    drop(answer.clone());
    answer
}

impl Service<Request<Body>> for Answering {
    type Response = Response<AnswerBody>;
    type Error = BoxError;
    type Future = AnswerHead;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Body>) -> AnswerHead {
        drop(black_box(request));
        let mut response = Response::new(AnswerBody { data: Some(self.answer.clone()), pends: self.pends });
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, "application/json; charset=UTF-8"),
            (header::VARY, "Origin"),
            (header::DATE, "Sun, 29 Nov 2026 16:00:00 GMT"),
            (header::SERVER, "scaffolding on HTTPServer2"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        AnswerHead { response: Some(response), pends: self.pends }
    }
}

/// The head of an answer, on its way.
pub(crate) struct AnswerHead {
    response: Option<Response<AnswerBody>>,
    pends: bool,
}

impl Future for AnswerHead {
    type Output = Result<Response<AnswerBody>, BoxError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.pends) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(self.response.take().unwrap()))
    }
}

/// The body of an answer.
pub(crate) struct AnswerBody {
    data: Option<Bytes>,
    pends: bool,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if std::mem::take(&mut self.pends) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }
}

/// Reads the answer to its end, which is when a breaker counts it. Polls again what is pending.
#[derive(Clone)]
pub(crate) struct Reading<S>(pub(crate) S);

impl<S, B> Service<Request<Body>> for Reading<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body,
{
    type Response = ();
    type Error = S::Error;
    type Future = Ready<Result<(), S::Error>>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut cx = Context::from_waker(Waker::noop());
        let mut call = std::pin::pin!(self.0.call(request));
        let result = loop {
            if let Poll::Ready(result) = call.as_mut().poll(&mut cx) {
                break result;
            }
        };
        if let Ok(response) = result {
            let mut body = std::pin::pin!(response.into_body());
            loop {
                match body.as_mut().poll_frame(&mut cx) {
                    Poll::Ready(Some(frame)) => drop(black_box(frame)),
                    Poll::Ready(None) => break,
                    Poll::Pending => {}
                }
            }
        }
        ready(Ok(()))
    }
}

/// The least policy that tower's Retry can have.
#[derive(Clone)]
pub(crate) struct Counting(pub(crate) u32);

impl tower::retry::Policy<Request<Body>, Response<Body>, BoxError> for Counting {
    type Future = Ready<()>;
    fn retry(
        &mut self,
        _: &mut Request<Body>,
        result: &mut Result<Response<Body>, BoxError>,
    ) -> Option<Self::Future> {
        let failed = result.as_ref().map_or(true, |response| response.status().is_server_error());
        (failed && self.0 > 0).then(|| {
            self.0 -= 1;
            ready(())
        })
    }
    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}
