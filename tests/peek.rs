//! Answers that are looked at before they are handed on: what is retried, what is held, and that it is handed on as it
//! came.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod support;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use support::Body;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::BoxError;
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::classify::{AnswerFailed, ClassifyBody, ClassifyLayer, Peek, StrictBodyLayer};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::retry::{Attempts, GaveUp, RetryLayer, RetryPolicy};
use tower_gemini::verdict::{Outcome, Sent};
use tower_gemini::{Kind, Verdict, error};

// ===== an upstream =====

type Item = Result<Frame<Bytes>, io::Error>;
type Streamed = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// One answer: its content type, its frames, and how it ends.
#[derive(Clone, Debug)]
struct Given {
    content_type: &'static str,
    frames: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    lost: bool,
}

fn sse(events: &[&str]) -> Given {
    let frames = events.iter().map(|event| Bytes::from(format!("data: {event}\r\n\r\n"))).collect();
    Given { content_type: "text/event-stream", frames, trailers: None, lost: false }
}

fn given(content_type: &'static str, body: &str, size: usize) -> Given {
    let frames = body.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
    Given { content_type, frames, trailers: None, lost: false }
}

impl Given {
    fn and_lost(mut self) -> Self {
        self.lost = true;
        self
    }

    fn bytes(&self) -> Bytes {
        self.frames.concat().into()
    }

    fn response(self) -> Response<Streamed> {
        let data = self.frames.into_iter().map(|data| Ok(Frame::data(data)));
        let trailers = self.trailers.map(|map| Ok(Frame::trailers(map)));
        let lost = self.lost.then(|| Err(io::Error::from(io::ErrorKind::ConnectionReset)));
        let items: Vec<Item> = data.chain(trailers).chain(lost).collect();
        streamed(self.content_type, futures_util::stream::iter(items))
    }
}

fn streamed(
    content_type: &str,
    items: impl futures_util::Stream<Item = Item> + Send + 'static,
) -> Response<Streamed> {
    let body = StreamBody::new(items).boxed_unsync();
    Response::builder().header("content-type", content_type).body(body).unwrap()
}

/// Gives its answers in turn, and the last one for ever; counts the calls.
#[derive(Clone)]
struct Upstream {
    answers: Arc<Mutex<VecDeque<Given>>>,
    calls: Arc<AtomicUsize>,
}

impl Upstream {
    fn new(answers: impl IntoIterator<Item = Given>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), calls: Arc::default() }
    }

    fn calls(&self) -> usize {
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

fn request(method: &str) -> Request<Body> {
    Request::post(format!("http://127.0.0.1/v1beta/models/gemini-9-flash:{method}"))
        .body(Body::from(r#"{"contents":[{"parts":[{"text":"hello"}]}]}"#))
        .unwrap()
}

fn stream() -> Request<Body> {
    request("streamGenerateContent?alt=sse")
}

/// Through a classifier alone, with a body that is ready at once.
fn classified(
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
fn all_of<B>(body: B) -> (Vec<Bytes>, Option<HeaderMap>, Option<B::Error>)
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

const WORD: &str = r#"{"candidates":[{"content":{"parts":[{"text":"word "}]}}]}"#;
const THOUGHT: &str = r#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true}]}}]}"#;
const STOP: &str = r#"{"candidates":[{"content":{"parts":[{"text":"end"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":7}}"#;
const OVERLOADED: &str =
    r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#;
const LIMITED: &str = r#"{"error":{"code":429,"message":"over quota","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"m/requests","quotaId":"GenerateRequestsPerMinutePerProject","quotaValue":"5"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"17s"}]}}"#;
const SPENT: &str = r#"{"error":{"code":429,"message":"over quota","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"m/requests","quotaId":"GenerateRequestsPerDayPerProject","quotaValue":"5"}]}]}}"#;
const MALFORMED: &str = r#"{"candidates":[{"content":{},"finishReason":"MALFORMED_FUNCTION_CALL"}]}"#;

const HALF: &str = r#"data: {"candidates":[{"finish"#;

// ===== failures before the first event =====

#[tokio::test(start_paused = true)]
async fn an_error_in_the_first_event_is_retried_and_the_user_sees_one_whole_stream() {
    for watch in [false, true] {
        let layer = if watch { ClassifyLayer::new().watch() } else { ClassifyLayer::new() };
        let good = sse(&[WORD, WORD, STOP]);
        let array = given("application/json", &format!("[{OVERLOADED}\n]\n"), 1000);
        let bare = given("text/event-stream", &OVERLOADED.replace(',', ",\n "), 10);
        let upstream = Upstream::new([sse(&[OVERLOADED]), sse(&[LIMITED]), array, bare, good.clone()]);
        let service =
            ServiceBuilder::new().layer(RetryLayer::default()).layer(layer).service(upstream.clone());
        let start = Instant::now();
        let response = service.oneshot(stream()).await.unwrap();
        assert!(Instant::now() - start >= Duration::from_secs(17), "as long as the answer said");
        let attempts = Attempts::of(&response);
        assert_eq!((attempts.made(), upstream.calls()), (5, 5));
        let kinds = [Kind::Overloaded, Kind::RateLimited, Kind::Overloaded, Kind::Overloaded];
        assert_eq!(attempts.kinds(), kinds);
        let verdict = Verdict::of(&response);
        assert_eq!(all_of(response.into_body()).0, good.frames);
        assert_eq!(verdict.outcome(), watch.then_some(Outcome::Complete));
    }
}

#[tokio::test(start_paused = true)]
async fn the_verdict_is_that_of_a_failed_status_and_the_answer_keeps_its_200() {
    let mut answer = sse(&[SPENT]);
    let service = |given| {
        let upstream = Upstream::new([given]);
        ServiceBuilder::new()
            .layer(RetryLayer::default())
            .layer(ClassifyLayer::new().watch())
            .service(upstream)
    };
    let response = service(answer.clone()).oneshot(stream()).await.unwrap();
    let verdict = Verdict::of(&response);
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((verdict.kind(), verdict.after_output()), (Some(Kind::QuotaExhausted), false));
    assert_eq!((verdict.quota().len(), verdict.outcome()), (1, None));
    assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::NotRetryable));
    assert_eq!(all_of(response.into_body()).0, answer.frames);

    answer = sse(&[LIMITED]);
    let response = classified(ClassifyLayer::new(), stream(), answer.clone());
    let (verdict, whole) =
        (Verdict::of(&response), Verdict::from_parts(StatusCode::OK, response.headers(), answer.bytes()));
    assert_eq!(verdict.server_delay(), whole.server_delay());
    assert_eq!(verdict.quota(), whole.quota());
    assert_eq!(verdict.message(), whole.message());
    assert_eq!(verdict.details().unwrap().details.len(), 2, "the error by itself can be read as one");
}

#[tokio::test(start_paused = true)]
async fn an_error_after_three_chunks_is_the_users_to_see() {
    let apart = sse(&[WORD, WORD, WORD, OVERLOADED]);
    // All of it in the first frame: what counts is the order, not the frames.
    let together = Given { frames: vec![apart.bytes()], ..apart.clone() };
    for answer in [apart, together] {
        for peek in [Peek::FirstEvent, Peek::Output] {
            let upstream = Upstream::new([answer.clone()]);
            let service = ServiceBuilder::new()
                .layer(RetryLayer::default())
                .layer(ClassifyLayer::new().watch().peek(peek))
                .service(upstream.clone());
            let response = service.oneshot(stream()).await.unwrap();
            let verdict = Verdict::of(&response);
            assert_eq!((verdict.kind(), upstream.calls()), (None, 1));
            assert_eq!(all_of(response.into_body()).0, answer.frames);
            assert_eq!(verdict.outcome(), Some(Outcome::Failed(Kind::Overloaded)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_fails_before_the_first_event_is_retried_once() {
    let half = &format!("data: {WORD}")[..40];
    let nothing = given("text/event-stream", "", 1).and_lost();
    let begun = given("text/event-stream", half, 7).and_lost();
    for lost in [nothing, begun] {
        let upstream = Upstream::new([lost.clone(), sse(&[STOP])]);
        let classify = || ClassifyLayer::new().watch();
        let service =
            ServiceBuilder::new().layer(RetryLayer::default()).layer(classify()).service(upstream.clone());
        let response = service.oneshot(stream()).await.unwrap();
        assert_eq!(Attempts::of(&response).kinds(), [Kind::Transport]);
        assert_eq!(all_of(response.into_body()).0, sse(&[STOP]).frames);

        let upstream = Upstream::new([lost.clone()]);
        let service =
            ServiceBuilder::new().layer(RetryLayer::default()).layer(classify()).service(upstream.clone());
        let response = service.oneshot(stream()).await.unwrap();
        let verdict = Verdict::of(&response);
        assert_eq!((verdict.kind(), verdict.sent()), (Some(Kind::Transport), Sent::Maybe));
        assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::MaybeProcessed));
        assert_eq!(upstream.calls(), 2);
        let (data, _, error) = all_of(response.into_body());
        assert_eq!(data, lost.frames);
        assert_eq!(
            error.unwrap().kind(),
            io::ErrorKind::ConnectionReset,
            "the body's own error, in its place"
        );
    }
    // Half an error says more than that the line is cut.
    let cut = given("text/event-stream", &OVERLOADED[..OVERLOADED.len() - 20], 1000).and_lost();
    let response = classified(ClassifyLayer::new(), stream(), cut);
    assert_eq!(Verdict::of(&response).kind(), Some(Kind::Overloaded));
}

#[test]
fn a_stream_that_is_over_without_output_is_a_failure() {
    let blocked = r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#;
    for (answer, kind) in [
        (sse(&[]), Kind::EmptyResponse),
        (given("text/event-stream", ": ping\n\n", 3), Kind::EmptyResponse),
        (given("text/event-stream", "data: {\"candidates\":[{\"con", 9), Kind::EmptyResponse),
        (given("application/json", "[{\"candidates\": [{\"content\":", 9), Kind::Truncated),
    ] {
        let response = classified(ClassifyLayer::new(), stream(), answer.clone());
        assert_eq!(Verdict::of(&response).kind(), Some(kind), "{answer:?}");
    }
    // One event: it is handed on, and its end tells.
    for (event, kind) in [(blocked, Kind::ContentBlocked), (MALFORMED, Kind::EmptyResponse)] {
        let response = classified(ClassifyLayer::new().watch(), stream(), sse(&[event]));
        let verdict = Verdict::of(&response);
        assert!(verdict.is_success());
        all_of(response.into_body());
        assert_eq!(verdict.outcome(), Some(Outcome::Failed(kind)));
    }
    // A body of a stream that never was one, watched from afar.
    let response = classified(ClassifyLayer::new().watch().peek(Peek::Off), stream(), sse(&[]));
    let verdict = Verdict::of(&response);
    all_of(response.into_body());
    assert_eq!(verdict.outcome(), Some(Outcome::Failed(Kind::EmptyResponse)));
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_learns_from_a_429_in_the_first_event() {
    let upstream = Upstream::new([sse(&[LIMITED]), sse(&[STOP])]);
    let layer = RateLimitLayer::new(Limits::new().requests_per_minute(100)).unwrap();
    let mut service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(ClassifyLayer::new().watch())
        .service(upstream.clone());
    let start = Instant::now();
    let response = service.ready().await.unwrap().call(stream()).await.unwrap();
    assert_eq!(Verdict::of(&response).kind(), Some(Kind::RateLimited));
    drop(response);
    let response = service.ready().await.unwrap().call(stream()).await.unwrap();
    assert!(Verdict::of(&response).is_success());
    assert!(
        Instant::now() - start >= Duration::from_secs(17),
        "the door was closed until the server's instant"
    );
}

#[tokio::test(start_paused = true)]
async fn the_circuit_breaker_counts_a_503_in_the_first_event() {
    let layer = CircuitBreakerLayer::builder().consecutive_failures(2).build().unwrap();
    let upstream = Upstream::new([sse(&[OVERLOADED])]);
    let service = layer.layer(ClassifyLayer::new().layer(upstream.clone()));
    for _ in 0..2 {
        // Dropped unread: the head has told.
        drop(service.clone().oneshot(stream()).await.unwrap());
    }
    assert!(service.oneshot(stream()).await.is_err(), "open");
    assert_eq!(upstream.calls(), 2);
}

// ===== what is held, and how long =====

/// A stream that is fed by the test.
fn fed() -> (mpsc::UnboundedSender<Item>, Response<Streamed>) {
    let (feed, mut fed) = mpsc::unbounded_channel();
    (feed, streamed("text/event-stream", futures_util::stream::poll_fn(move |cx| fed.poll_recv(cx))))
}

type Call = Pin<Box<dyn Future<Output = Response<ClassifyBody<Streamed>>> + Send>>;

fn fed_call(
    layer: ClassifyLayer,
    request: Request<Body>,
) -> (impl FnMut(&'static str), impl FnMut() -> Option<Response<ClassifyBody<Streamed>>>) {
    let (feed, response) = fed();
    let mut response = Some(response);
    let service = layer.layer(tower::service_fn(move |_: Request<Body>| {
        std::future::ready(Ok::<_, BoxError>(response.take().unwrap()))
    }));
    let mut call: Call = Box::pin(async move { service.oneshot(request).await.unwrap() });
    let poll = move || match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(response) => Some(response),
        Poll::Pending => None,
    };
    (move |data: &'static str| feed.send(Ok(Frame::data(Bytes::from(data)))).unwrap(), poll)
}

#[test]
fn the_head_waits_for_the_first_event_and_for_nothing_more() {
    for watch in [false, true] {
        let layer = if watch { ClassifyLayer::new().watch() } else { ClassifyLayer::new() };
        let (mut feed, mut poll) = fed_call(layer, stream());
        assert!(poll().is_none());
        for piece in [
            ": ping\n\n",
            ":\n",
            "event: message\nid: 7\n",
            "data: {\"candidates\":[{\"content\":{\"parts\":[",
        ] {
            feed(piece);
            assert!(poll().is_none(), "{piece}: a comment is no event, nor is half of one");
        }
        feed("{\"text\":\"hi\"}]}}]}");
        let response = poll().expect("the object is complete, although the event's empty line is not here");
        let mut body = Box::pin(response.into_body());
        let mut cx = Context::from_waker(Waker::noop());
        let mut held = Vec::new();
        while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx) {
            held.push(frame.into_data().unwrap());
        }
        assert_eq!(held.len(), 5, "as they came, not joined");
        feed("\n\n");
        assert!(body.as_mut().poll_frame(&mut cx).is_ready(), "the rest passes through");
    }
}

#[test]
fn what_is_no_stream_of_events_is_not_held() {
    for first in ["plain text", "data: {oops}\n\n", "<html>", "data: \"a word\"\n\n", "data: 5\n"] {
        let (mut feed, mut poll) = fed_call(ClassifyLayer::new(), stream());
        feed(first);
        assert!(poll().is_some(), "{first}");
    }
    let (_feed, mut poll) = fed_call(ClassifyLayer::new().peek(Peek::Off), stream());
    assert!(poll().is_some());
    let (_feed, mut poll) = fed_call(ClassifyLayer::new().max_error_bytes(0), stream());
    assert!(poll().is_some());
}

#[test]
fn the_hold_is_bounded_in_bytes_and_frames() {
    let (mut feed, mut poll) = fed_call(ClassifyLayer::new().max_error_bytes(100), stream());
    for _ in 0..9 {
        feed(": 8 bytes\n\n");
        assert!(poll().is_none());
    }
    feed(": 8 bytes\n\n");
    assert!(poll().is_some());
    let (mut feed, mut poll) = fed_call(ClassifyLayer::new(), stream());
    for _ in 0..1023 {
        feed("");
    }
    assert!(poll().is_none());
    feed("");
    assert!(poll().is_some());
}

#[test]
fn output_waits_for_what_a_user_would_see() {
    let layer = || ClassifyLayer::new().peek(Peek::Output);
    let (mut feed, mut poll) = fed_call(layer(), stream());
    feed("data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hm\",\"thought\":true}]}}]}\n\n");
    assert!(poll().is_none(), "a thought");
    feed("data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"f\"}}]}}]}\n\n");
    assert!(poll().is_some());

    let chat =
        || Request::post("http://127.0.0.1/v1beta/openai/chat/completions").body(Body::default()).unwrap();
    for last in ["{\"content\":\"Hi\"}", "{\"tool_calls\":[{\"index\":0}]}"] {
        let (mut feed, mut poll) = fed_call(layer(), chat());
        feed(
            "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        );
        assert!(poll().is_none(), "nobody sees a role");
        feed(Box::leak(
            format!("data: {{\"id\":\"c1\",\"choices\":[{{\"delta\":{last}}}]}}\n\n").into_boxed_str(),
        ));
        assert!(poll().is_some());
    }
    // Of these forms it cannot be told.
    let create = Request::post("http://127.0.0.1/v1beta/interactions").body(Body::default()).unwrap();
    let (mut feed, mut poll) = fed_call(layer(), create);
    feed(
        "event: interaction.created\ndata: {\"event_type\":\"interaction.created\",\"interaction\":{\"id\":\"v1\"}}\n\n",
    );
    assert!(poll().is_some());
}

#[tokio::test(start_paused = true)]
async fn dropped_while_it_is_peeked_at_drops_the_body() {
    let (feed, response) = fed();
    let mut response = Some(response);
    let service = ClassifyLayer::new().watch().layer(tower::service_fn(move |_: Request<Body>| {
        std::future::ready(Ok::<_, BoxError>(response.take().unwrap()))
    }));
    let mut call = Box::pin(service.oneshot(stream()));
    feed.send(Ok(Frame::data(Bytes::from(": ping\n\n")))).unwrap();
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(!feed.is_closed());
    drop(call);
    assert!(feed.is_closed());
}

#[test]
fn a_held_body_that_is_dropped_says_so() {
    let response = classified(ClassifyLayer::new().watch(), stream(), sse(&[WORD, WORD, STOP]));
    let verdict = Verdict::of(&response);
    drop(response);
    assert_eq!(verdict.outcome(), Some(Outcome::Dropped));
}

#[test]
fn an_answer_that_is_no_stream_is_not_touched() {
    for path in ["generateContent", "countTokens", "embedContent"] {
        let polled = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&polled);
        let items = futures_util::stream::poll_fn(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(None)
        });
        let mut response = Some(streamed("application/json; charset=UTF-8", items));
        let service = ClassifyLayer::new().layer(tower::service_fn(move |_: Request<Body>| {
            std::future::ready(Ok::<_, BoxError>(response.take().unwrap()))
        }));
        let mut call = Box::pin(service.oneshot(request(path)));
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        assert_eq!(polled.load(Ordering::Relaxed), 0, "{path}");
    }
}

// ===== handed on as it came =====

#[test]
fn trailers_come_where_they_were() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", "1".parse().unwrap());
    for events in [&[][..], &[WORD, STOP], &[OVERLOADED]] {
        let answer = Given { trailers: Some(trailers.clone()), ..sse(events) };
        let response = classified(ClassifyLayer::new().watch(), stream(), answer.clone());
        let verdict = Verdict::of(&response);
        let (frames, seen, error) = all_of(response.into_body());
        assert_eq!((frames, seen), (answer.frames, Some(trailers.clone())));
        assert!(error.is_none());
        assert!(verdict.kind().is_some() || verdict.outcome() == Some(Outcome::Complete));
    }
}

#[cfg(feature = "gzip")]
#[test]
fn a_gzip_stream_is_peeked_through_its_coding() {
    use std::io::Write;
    for (event, kind) in [(OVERLOADED, Some(Kind::Overloaded)), (WORD, None)] {
        let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        coder.write_all(format!("data: {event}\r\n\r\n").as_bytes()).unwrap();
        // As servers do after each event.
        coder.flush().unwrap();
        let first = coder.get_ref().clone();
        coder.write_all(format!("data: {STOP}\r\n\r\n").as_bytes()).unwrap();
        let coded = coder.finish().unwrap();
        for size in [1, 7, first.len()] {
            let frames: Vec<_> = coded.chunks(size).map(Bytes::copy_from_slice).collect();
            let answer = Given {
                content_type: "text/event-stream",
                frames: frames.clone(),
                trailers: None,
                lost: false,
            };
            let mut response = answer.response();
            response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
            let mut response = Some(response);
            let service = ClassifyLayer::new().watch().layer(tower::service_fn(move |_: Request<Body>| {
                std::future::ready(Ok::<_, BoxError>(response.take().unwrap()))
            }));
            let mut call = Box::pin(service.oneshot(stream()));
            let Poll::Ready(Ok(response)) = call.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            else {
                panic!("everything is there")
            };
            let verdict = Verdict::of(&response);
            assert_eq!(verdict.kind(), kind);
            assert_eq!(all_of(response.into_body()).0, frames);
            assert_eq!(verdict.outcome(), kind.is_none().then_some(Outcome::Complete));
        }
    }
}

#[derive(Clone, Debug)]
struct Case {
    pieces: Vec<&'static str>,
    array: bool,
    sizes: Vec<usize>,
    lost: bool,
}

impl Case {
    fn given(&self) -> Given {
        let body = if self.array {
            let objects: Vec<_> =
                self.pieces.iter().filter(|piece| piece.starts_with('{')).copied().collect();
            format!("[{}\n]\n", objects.join("\n,\r\n"))
        } else {
            self.pieces
                .iter()
                .map(|piece| {
                    let field = if piece.starts_with('{') || *piece == "[DONE]" { "data: " } else { "" };
                    format!("{field}{piece}\r\n\r\n")
                })
                .collect()
        };
        let (mut frames, mut rest) = (Vec::new(), body.as_bytes());
        for size in self.sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (frame, after) = rest.split_at(rest.len().min(*size));
            frames.push(Bytes::copy_from_slice(frame));
            rest = after;
        }
        let content_type = if self.array { "application/json" } else { "text/event-stream" };
        Given { content_type, frames, trailers: None, lost: self.lost }
    }
}

fn case() -> impl Strategy<Value = Case> {
    // One error of one sort: of two, the reader of whole bodies takes words from both.
    let before = prop::sample::select(vec![WORD, THOUGHT, STOP, MALFORMED, ": ping", "event: x", "{}"]);
    let error = prop::option::of(prop::sample::select(vec![OVERLOADED, LIMITED, SPENT]));
    let after = prop::sample::select(vec![WORD, STOP, "[DONE]", HALF]);
    (
        prop::collection::vec(before, 0..4),
        error,
        prop::collection::vec(after, 0..2),
        any::<bool>(),
        prop::collection::vec(1..200_usize, 1..6),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(before, error, after, array, sizes, lost)| Case {
            pieces: before.into_iter().chain(error).chain(after).collect(),
            array,
            sizes,
            lost,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn every_body_is_handed_on_as_it_came_and_judged_as_the_whole(
        case in case(), peek in prop::sample::select(vec![Peek::Off, Peek::FirstEvent, Peek::Output]), watch: bool,
    ) {
        let answer = case.given();
        let layer = ClassifyLayer::new().peek(peek);
        let layer = if watch { layer.watch() } else { layer };
        let response = classified(layer, request("streamGenerateContent"), answer.clone());
        let (verdict, headers) = (Verdict::of(&response), response.headers().clone());
        let (frames, _, error) = all_of(response.into_body());
        prop_assert_eq!(&frames, &answer.frames);
        prop_assert_eq!(error.is_some(), answer.lost);

        let whole = Verdict::from_parts(StatusCode::OK, &headers, answer.bytes());
        if verdict.is_success() {
            // As without a look at the beginning.
            let off = classified(ClassifyLayer::new().watch().peek(Peek::Off), request("streamGenerateContent"), answer.clone());
            let plain = Verdict::of(&off);
            all_of(off.into_body());
            prop_assert_eq!(verdict.outcome(), plain.outcome().filter(|_| watch));
            // A failure that can be seen before any output is seen.
            let first_is_error = answer.bytes().windows(9).position(|w| w == b"{\"error\":").is_some_and(|at| {
                !answer.bytes()[..at].contains(&b'{')
            });
            prop_assert!(peek == Peek::Off || !first_is_error);
            // Those hand an answer on, being no events that are known.
            let of_known_form = !case.pieces.iter().any(|piece| ["{}", HALF].contains(piece));
            let bad = whole.kind().is_some_and(|kind| kind != Kind::Unknown) && !whole.after_output();
            prop_assert!(peek != Peek::Output || answer.lost || !of_known_form || !bad, "{:?}", whole);
        } else {
            prop_assert!(peek != Peek::Off && !verdict.after_output());
            prop_assert_eq!(verdict.http_status(), Some(StatusCode::OK));
            let unlike_a_whole = answer.bytes().is_empty() || (answer.lost && verdict.kind() == Some(Kind::Transport));
            if !unlike_a_whole {
                prop_assert_eq!(verdict.kind(), whole.kind());
                prop_assert_eq!(verdict.retryability(), whole.retryability());
                prop_assert_eq!(verdict.server_delay(), whole.server_delay());
                prop_assert_eq!(verdict.quota(), whole.quota());
                prop_assert!(!whole.after_output());
            }
        }
    }
}

// ===== strict bodies =====

async fn strict(
    layer: StrictBodyLayer,
    classify: Option<ClassifyLayer>,
    answer: Given,
) -> (Bytes, Option<BoxError>) {
    let upstream = Upstream::new([answer]);
    let (frames, _, error) = match classify {
        Some(classify) => {
            let service = ServiceBuilder::new().layer(layer).layer(RetryLayer::default()).layer(classify);
            all_of(service.service(upstream).oneshot(stream()).await.unwrap().into_body())
        }
        None => all_of(layer.layer(upstream).oneshot(stream()).await.unwrap().into_body()),
    };
    (frames.concat().into(), error)
}

#[tokio::test(start_paused = true)]
async fn a_strict_body_ends_with_an_error_where_the_answer_did() {
    let watching = || Some(ClassifyLayer::new().watch());
    let kept = || StrictBodyLayer::new();
    let all = || StrictBodyLayer::new().all_failures();
    let blocked = r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"SAFETY"}]}"#;
    for (layer, classify, answer, kind, after_output) in [
        (kept(), watching(), sse(&[WORD, STOP]), None, true),
        (kept(), watching(), sse(&[WORD]), Some(Kind::Truncated), true),
        (kept(), watching(), sse(&[WORD, OVERLOADED]), Some(Kind::Overloaded), true),
        (kept(), watching(), sse(&[SPENT]), Some(Kind::QuotaExhausted), false),
        (kept(), Some(ClassifyLayer::new()), sse(&[SPENT]), Some(Kind::QuotaExhausted), false),
        (kept(), watching(), sse(&[WORD, blocked]), None, true),
        (all(), watching(), sse(&[WORD, blocked]), Some(Kind::ContentBlocked), true),
        (kept(), watching(), sse(&[]), None, false),
        (all(), watching(), sse(&[]), Some(Kind::EmptyResponse), false),
        (kept(), None, sse(&[WORD]), None, true),
        (kept(), Some(ClassifyLayer::new()), sse(&[WORD]), None, true),
    ] {
        let (bytes, error) = strict(layer, classify, answer.clone()).await;
        assert_eq!(bytes, answer.bytes(), "every byte before the error");
        let failed = error.as_deref().map(|error| error::find::<AnswerFailed>(error).unwrap());
        assert_eq!(failed.map(AnswerFailed::kind), kind, "{answer:?}");
        if let Some(error) = &error {
            let wrapped = io::Error::other(error.to_string());
            assert_eq!(Verdict::from_error(&wrapped).kind(), Some(Kind::Transport), "the text says nothing");
            let verdict = Verdict::from_error(error.as_ref());
            assert_eq!((verdict.kind(), verdict.after_output()), (kind, after_output));
            let text = error.to_string();
            assert!(
                text.contains(kind.unwrap().as_str())
                    && text.ends_with(kind.unwrap().remedy().trim_end_matches('.'))
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_strict_body_leaves_the_transports_own_error() {
    let answer = sse(&[WORD]).and_lost();
    let (bytes, error) =
        strict(StrictBodyLayer::new(), Some(ClassifyLayer::new().watch()), answer.clone()).await;
    assert_eq!(bytes, answer.bytes());
    assert_eq!(
        error.unwrap().downcast_ref::<io::Error>().map(io::Error::kind),
        Some(io::ErrorKind::ConnectionReset)
    );
}

#[tokio::test(start_paused = true)]
async fn a_strict_body_of_known_length_is_read_to_its_end() {
    // Readers that know the length, or that it is over, never ask for the end.
    let cut = r#"{"candidates":[{"content":{"parts":[{"text":"Once"#;
    let service =
        ServiceBuilder::new().layer(StrictBodyLayer::new()).layer(ClassifyLayer::new().watch()).service(
            tower::service_fn(async |_: Request<Body>| Ok::<_, BoxError>(Response::new(Body::from(cut)))),
        );
    let mut body = service.oneshot(request("generateContent")).await.unwrap().into_body();
    assert_eq!((body.size_hint().lower(), body.size_hint().upper()), (cut.len() as u64, None));
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), cut);
    assert!(!body.is_end_stream(), "there is a word to come");
    assert!(body.frame().await.unwrap().unwrap_err().is::<AnswerFailed>());
    assert!(body.is_end_stream() && body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_failed_status_is_left_as_it_is() {
    let service = ServiceBuilder::new()
        .layer(StrictBodyLayer::new())
        .layer(ClassifyLayer::new().watch())
        .service(tower::service_fn(async |_: Request<Body>| {
            Ok::<_, BoxError>(support::respond(503, OVERLOADED.to_owned()))
        }));
    let response = service.oneshot(stream()).await.unwrap();
    assert_eq!(all_of(response.into_body()).0.concat(), OVERLOADED.as_bytes());
}

// ===== answers that are none =====

fn of_empties(
    empty_answers: u32,
    peek: Peek,
    upstream: Upstream,
) -> impl Service<Request<Body>, Response = Response<ClassifyBody<Streamed>>, Error = BoxError> {
    let policy = RetryPolicy::builder().empty_answers(empty_answers).build().unwrap();
    ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(ClassifyLayer::new().watch().peek(peek))
        .service(upstream)
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_none_are_asked_for_again_if_that_is_wanted() {
    let unary = |text: &str| given("application/json", text, 20);
    let empty = r#"{"candidates":[{"content":{"role":"model"},"finishReason":"STOP"}]}"#;
    let spent = r#"{"candidates":[{"content":{"role":"model"},"finishReason":"MAX_TOKENS"}]}"#;
    let blocked = r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#;
    let spoken =
        r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"MALFORMED_FUNCTION_CALL"}]}"#;
    for (retries, peek, bad, calls, kind) in [
        (0, Peek::Output, unary(empty), 1, Some(Kind::EmptyResponse)),
        (1, Peek::Output, unary(empty), 2, Some(Kind::EmptyResponse)),
        (2, Peek::Output, unary(empty), 3, None),
        (2, Peek::Output, unary(MALFORMED), 3, None),
        (2, Peek::Output, sse(&[MALFORMED]), 3, None),
        (2, Peek::Output, sse(&[THOUGHT, MALFORMED]), 3, None),
        (2, Peek::Output, sse(&[THOUGHT]), 3, None),
        (2, Peek::Output, unary(&empty[..30]), 3, None),
        (2, Peek::Output, unary(spent), 1, Some(Kind::EmptyResponse)),
        (2, Peek::Output, unary(blocked), 1, Some(Kind::ContentBlocked)),
        // Output came first.
        (2, Peek::Output, unary(spoken), 1, None),
        (2, Peek::Output, sse(&[WORD, MALFORMED]), 1, None),
        // Handed on before that could be known.
        (2, Peek::FirstEvent, unary(empty), 1, None),
        (2, Peek::FirstEvent, sse(&[MALFORMED]), 1, None),
        (2, Peek::Off, sse(&[MALFORMED]), 1, None),
    ] {
        let upstream = Upstream::new([bad.clone(), bad.clone(), sse(&[WORD, STOP])]);
        let response =
            of_empties(retries, peek, upstream.clone()).oneshot(request("generateContent")).await.unwrap();
        assert_eq!(
            (upstream.calls(), Verdict::of(&response).kind()),
            (calls, kind),
            "{retries} {peek:?} {bad:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn empty_answers_draw_on_attempts_and_deadline_like_others() {
    let mixed =
        [sse(&[OVERLOADED]), sse(&[MALFORMED]), sse(&[OVERLOADED]), sse(&[MALFORMED]), sse(&[OVERLOADED])];
    let upstream = Upstream::new(mixed);
    let response = of_empties(2, Peek::Output, upstream.clone()).oneshot(stream()).await.unwrap();
    assert_eq!(upstream.calls(), 5);
    assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::Attempts));

    let upstream = Upstream::new([sse(&[MALFORMED])]);
    let response = of_empties(1, Peek::Output, upstream.clone()).oneshot(stream()).await.unwrap();
    assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::Attempts));
    let mut hurried = stream();
    hurried.extensions_mut().insert(tower_gemini::Deadline::within(Duration::ZERO));
    let response = of_empties(1, Peek::Output, upstream).oneshot(hurried).await.unwrap();
    assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::Deadline));
}

// ===== over the simulator =====

#[cfg(feature = "sim")]
#[tokio::test(start_paused = true)]
async fn a_bad_beginning_at_the_simulator_is_absorbed() {
    use tower_gemini::sim::{Fault, Rule, Simulator};
    for sse in [true, false] {
        let sim = Simulator::builder()
            .rule(Rule::new(Fault::overloaded().in_stream_after(0)).on_call(1))
            .rule(Rule::new(Fault::overloaded().as_stream_tail_after(0)).on_call(2))
            .rule(Rule::new(Fault::reset_after_bytes(10)).on_call(3))
            .build()
            .unwrap();
        let service = ServiceBuilder::new()
            .layer(StrictBodyLayer::new())
            .layer(RetryLayer::default())
            .layer(ClassifyLayer::new().watch())
            .service(sim.clone());
        let query = if sse { "?alt=sse" } else { "" };
        let uri = format!("/v1beta/models/gemini-2.5-flash:streamGenerateContent{query}");
        let request =
            Request::post(uri).body(Body::from(r#"{"contents":[{"parts":[{"text":"Hello"}]}]}"#)).unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(Attempts::of(&response).kinds(), [Kind::Overloaded, Kind::Overloaded, Kind::Transport]);
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&text).contains("STOP"));
        assert_eq!(sim.calls().len(), 4);
    }
}
