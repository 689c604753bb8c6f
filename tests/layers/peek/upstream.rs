//! Answers that are given in turn, frame by frame.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tower::{Layer, Service, ServiceExt};
use tower_gemini::BoxError;
use tower_gemini::classify::{ClassifyBody, ClassifyLayer};

use crate::support::Body;

pub(crate) type Item = Result<Frame<Bytes>, io::Error>;
pub(crate) type Streamed = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// One answer: its content type, its frames, and how it ends.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) content_type: &'static str,
    pub(crate) frames: Vec<Bytes>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) lost: bool,
}

pub(crate) fn sse(events: &[&str]) -> Given {
    let frames = events.iter().map(|event| Bytes::from(format!("data: {event}\r\n\r\n"))).collect();
    Given { content_type: "text/event-stream", frames, trailers: None, lost: false }
}

pub(crate) fn given(content_type: &'static str, body: &str, size: usize) -> Given {
    let frames = body.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
    Given { content_type, frames, trailers: None, lost: false }
}

impl Given {
    pub(crate) fn and_lost(mut self) -> Self {
        self.lost = true;
        self
    }

    pub(crate) fn bytes(&self) -> Bytes {
        self.frames.concat().into()
    }

    pub(crate) fn response(self) -> Response<Streamed> {
        let data = self.frames.into_iter().map(|data| Ok(Frame::data(data)));
        let trailers = self.trailers.map(|map| Ok(Frame::trailers(map)));
        let lost = self.lost.then(|| Err(io::Error::from(io::ErrorKind::ConnectionReset)));
        let items: Vec<Item> = data.chain(trailers).chain(lost).collect();
        streamed(self.content_type, futures_util::stream::iter(items))
    }
}

pub(crate) fn streamed(
    content_type: &str,
    items: impl futures_util::Stream<Item = Item> + Send + 'static,
) -> Response<Streamed> {
    let body = StreamBody::new(items).boxed_unsync();
    Response::builder().header("content-type", content_type).body(body).unwrap()
}

/// Gives its answers in turn, and the last one for ever; counts the calls.
#[derive(Clone)]
pub(crate) struct Upstream {
    answers: Arc<Mutex<VecDeque<Given>>>,
    calls: Arc<AtomicUsize>,
}

impl Upstream {
    pub(crate) fn new(answers: impl IntoIterator<Item = Given>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), calls: Arc::default() }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Service<Request<Body>> for Upstream {
    type Response = Response<Streamed>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Response<Streamed>, BoxError>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Request<Body>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.answers.lock().unwrap();
        let next = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        std::future::ready(Ok(next.unwrap().response()))
    }
}

pub(crate) fn request(method: &str) -> Request<Body> {
    Request::post(format!("http://127.0.0.1/v1beta/models/gemini-9-flash:{method}"))
        .body(Body::from(r#"{"contents":[{"parts":[{"text":"hello"}]}]}"#))
        .unwrap()
}

pub(crate) fn stream() -> Request<Body> {
    request("streamGenerateContent?alt=sse")
}

/// Through a classifier alone, with a body that is ready at once.
pub(crate) fn classified(
    layer: ClassifyLayer,
    request: Request<Body>,
    given: Given,
) -> Response<ClassifyBody<Streamed>> {
    let mut call = Box::pin(layer.layer(Upstream::new([given])).oneshot(request));
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => response,
        _ => panic!("everything is there"),
    }
}

/// All frames, and the error at the end.
pub(crate) fn all_of<B>(body: B) -> (Vec<Bytes>, Option<HeaderMap>, Option<B::Error>)
where
    B: http_body::Body<Data = Bytes>,
{
    let mut body = Box::pin(body);
    let (mut data, mut trailers) = (Vec::new(), None);
    loop {
        match body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => data.push(bytes),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
            Poll::Ready(Some(Err(error))) => return (data, trailers, Some(error)),
            Poll::Ready(None) => return (data, trailers, None),
            Poll::Pending => panic!("everything is there"),
        }
    }
}

pub(crate) const WORD: &str = r#"{"candidates":[{"content":{"parts":[{"text":"word "}]}}]}"#;
pub(crate) const THOUGHT: &str = r#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true}]}}]}"#;
pub(crate) const STOP: &str = r#"{"candidates":[{"content":{"parts":[{"text":"end"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":7}}"#;
pub(crate) const OVERLOADED: &str =
    r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#;
pub(crate) const LIMITED: &str = r#"{"error":{"code":429,"message":"over quota","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"m/requests","quotaId":"GenerateRequestsPerMinutePerProject","quotaValue":"5"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"17s"}]}}"#;
pub(crate) const SPENT: &str = r#"{"error":{"code":429,"message":"over quota","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"m/requests","quotaId":"GenerateRequestsPerDayPerProject","quotaValue":"5"}]}]}}"#;
pub(crate) const MALFORMED: &str =
    r#"{"candidates":[{"content":{},"finishReason":"MALFORMED_FUNCTION_CALL"}]}"#;

pub(crate) const HALF: &str = r#"data: {"candidates":[{"finish"#;
