//! The time limits' promises, one test each, in paused time, over a server that keeps its own pace: it sends its frames
//! when they are due, whether anybody reads or not.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use support::{Answer, Body, Probe, error, request};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::circuit_breaker::{CircuitBreakerLayer, CircuitState};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::error::find;
use tower_gemini::retry::{Attempts, GaveUp, RetryLayer, RetryPolicy};
use tower_gemini::timeout::{DeadlineLayer, Phase, TimedOut, TimeoutBody, TimeoutBuilder, TimeoutLayer};
use tower_gemini::verdict::{Outcome, Sent, Signal};
use tower_gemini::{BoxError, Deadline, Kind, Rejected, Target, Verdict};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

// ===== a server with a pace of its own =====

#[derive(Clone, Copy)]
enum Piece {
    Data(&'static str),
    Trailers,
    Broken,
    /// Nothing more, and no end.
    Silence,
}
use Piece::{Broken, Data, Silence, Trailers};

/// Answers after so many seconds; each piece of the body so many seconds after the one before.
#[derive(Clone)]
struct Server {
    head: u32,
    pieces: &'static [(u32, Piece)],
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    calls: Mutex<Vec<(Instant, HeaderMap)>>,
    /// Calls whose future or body still lives.
    open: AtomicUsize,
}

struct Open(Arc<Seen>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    fn new(head: u32, pieces: &'static [(u32, Piece)]) -> Self {
        Self { head, pieces, seen: Arc::default() }
    }
    fn open(&self) -> usize {
        self.seen.open.load(Ordering::Relaxed)
    }
    fn calls(&self) -> usize {
        self.seen.calls.lock().unwrap().len()
    }
    /// The header of each call.
    fn told(&self) -> Vec<Option<String>> {
        let text = |headers: &HeaderMap| Some(headers.get("x-server-timeout")?.to_str().unwrap().to_owned());
        self.seen.calls.lock().unwrap().iter().map(|(_, headers)| text(headers)).collect()
    }
}

type Streamed = UnsyncBoxBody<Bytes, BoxError>;

impl Service<Request<Body>> for Server {
    type Response = Response<Streamed>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.seen.calls.lock().unwrap().push((Instant::now(), request.headers().clone()));
        self.seen.open.fetch_add(1, Ordering::Relaxed);
        let (open, head, pieces) = (Open(Arc::clone(&self.seen)), self.head, self.pieces);
        Box::pin(async move {
            if head > 0 {
                sleep(head * SECOND).await;
            }
            let (sender, mut receiver) = mpsc::channel(64);
            for (_, piece) in pieces.iter().take_while(|(wait, _)| *wait == 0) {
                send(&sender, *piece).await;
            }
            tokio::spawn(async move {
                for (wait, piece) in pieces.iter().skip_while(|(wait, _)| *wait == 0) {
                    sleep(*wait * SECOND).await;
                    send(&sender, *piece).await;
                }
                if matches!(pieces.last(), Some((_, Silence))) {
                    sender.closed().await;
                }
            });
            let stream = futures_util::stream::poll_fn(move |cx| {
                let _ = &open;
                receiver.poll_recv(cx)
            });
            Ok(Response::new(StreamBody::new(stream).boxed_unsync()))
        })
    }
}

async fn send(sender: &mpsc::Sender<Result<Frame<Bytes>, BoxError>>, piece: Piece) {
    let frame = match piece {
        Data(text) => Ok(Frame::data(Bytes::from(text))),
        Trailers => Ok(Frame::trailers(HeaderMap::new())),
        Broken => Err("the line broke".into()),
        Silence => return,
    };
    let _ = sender.send(frame).await;
}

fn builder() -> TimeoutBuilder {
    TimeoutLayer::builder()
}

async fn ask(layer: TimeoutLayer, server: &Server) -> Result<Response<TimeoutBody<Streamed>>, BoxError> {
    layer.layer(server.clone()).oneshot(request()).await
}

/// The body that the default layer hands on.
async fn body(server: &Server) -> TimeoutBody<Streamed> {
    let layer = builder().idle(60 * SECOND).build().unwrap();
    ask(layer, server).await.unwrap().into_body()
}

#[tokio::test(start_paused = true)]
async fn by_default_a_pause_may_last_five_minutes() {
    let server = Server::new(0, &[(0, Data("a")), (299, Data("b")), (0, Silence)]);
    let (layer, start) = (TimeoutLayer::new(), Instant::now());
    let mut body = ask(layer, &server).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok() && body.frame().await.unwrap().is_ok());
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(timed_out(&error, start), (Phase::Idle, 300, 599 * SECOND));
}

fn within(limit: Duration) -> Request<Body> {
    let mut request = request();
    request.extensions_mut().insert(Deadline::within(limit));
    request
}

/// What it was, after how long it says, and how long after `since` it is now.
#[track_caller]
fn timed_out(error: &BoxError, since: Instant) -> (Phase, u64, Duration) {
    let found = find::<TimedOut>(error.as_ref()).expect("it timed out");
    (found.what(), found.after().as_secs(), Instant::now() - since)
}

// ===== the first byte =====

#[tokio::test(start_paused = true)]
async fn no_head_in_time_is_a_timeout_at_the_exact_instant_and_ends_the_call() {
    let (server, start) = (Server::new(1000, &[]), Instant::now());
    let mut call = Box::pin(TimeoutLayer::new().layer(server.clone()).call(request()));
    let error = (&mut call).await.unwrap_err();
    assert_eq!(timed_out(&error, start), (Phase::FirstByte, 120, 120 * SECOND));
    assert_eq!(server.open(), 0, "dropped although its future still lives");
    let verdict = Verdict::from_error(error.as_ref());
    assert_eq!((verdict.kind(), verdict.sent()), (Some(Kind::DeadlineExceeded), Sent::Maybe));
    assert_eq!(verdict.signal(), Signal::Timeout);
    assert!(verdict.maybe_processed() && error.is::<TimedOut>());
}

#[tokio::test(start_paused = true)]
async fn a_head_in_the_last_millisecond_is_in_time() {
    let inner = tower::service_fn(async |_: Request<Body>| {
        sleep(120 * SECOND - Duration::from_millis(1)).await;
        Ok::<_, BoxError>(Response::new(Body::default()))
    });
    assert!(TimeoutLayer::new().layer(inner).oneshot(request()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_time_counts_from_the_call_also_where_the_future_is_polled_late() {
    let (server, start) = (Server::new(1000, &[]), Instant::now());
    let call = TimeoutLayer::new().layer(server).call(request());
    sleep(100 * SECOND).await;
    let error = call.await.unwrap_err();
    assert_eq!(timed_out(&error, start), (Phase::FirstByte, 120, 120 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn the_earliest_of_first_byte_deadline_and_total_counts_and_is_named() {
    let with_total = builder().total(90 * SECOND).build().unwrap();
    let without = builder().without_first_byte().build().unwrap();
    for (layer, deadline, what, seconds) in [
        (TimeoutLayer::new(), 20, Phase::Deadline, 20),
        (TimeoutLayer::new(), 200, Phase::FirstByte, 120),
        (TimeoutLayer::new(), 120, Phase::Deadline, 120),
        (with_total, 200, Phase::Total, 90),
        (with_total, 20, Phase::Deadline, 20),
        (without, 300, Phase::Deadline, 300),
    ] {
        let start = Instant::now();
        let service = layer.layer(Server::new(1000, &[]));
        let error = service.oneshot(within(deadline * SECOND)).await.unwrap_err();
        assert_eq!(timed_out(&error, start), (what, seconds, u32::try_from(seconds).unwrap() * SECOND));
        assert_eq!(Verdict::from_error(error.as_ref()).kind(), Some(Kind::DeadlineExceeded));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_off_never_ends_anything() {
    let layer = builder().without_first_byte().without_idle().build().unwrap();
    let server = Server::new(1_000_000, &[]);
    assert!(tokio::time::timeout(DAY, ask(layer, &server)).await.is_err());
    let mut body = ask(layer, &Server::new(0, &[(0, Silence)])).await.unwrap().into_body();
    assert!(tokio::time::timeout(DAY, body.frame()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_inner_error_passes_through() {
    let inner = tower::service_fn(async |_: Request<Body>| {
        Err::<Response<Body>, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    });
    let error = TimeoutLayer::new().layer(inner).oneshot(request()).await.unwrap_err();
    assert!(error.is::<std::io::Error>());
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_deadline_has_passed_is_not_sent() {
    let server = Server::new(0, &[]);
    let breaker = CircuitBreakerLayer::default();
    let concurrency = AdaptiveConcurrencyLayer::new();
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::default())
        .layer(concurrency.clone())
        .layer(breaker.clone())
        .layer(TimeoutLayer::new())
        .service(server.clone());
    let (start, late) = (Instant::now(), within(Duration::ZERO));
    let error = stack.oneshot(late).await.unwrap_err();
    assert_eq!(timed_out(&error, start), (Phase::Deadline, 0, Duration::ZERO));
    assert_eq!(server.calls(), 0);
    let verdict = Verdict::from_error(error.as_ref());
    assert_eq!((verdict.kind(), verdict.sent()), (Some(Kind::DeadlineExceeded), Sent::No));
    assert!(!verdict.maybe_processed() && find::<Rejected>(error.as_ref()).is_some());
    assert_eq!(breaker.handle().all()[0].calls, 0, "it says nothing of the server");
    assert_eq!(concurrency.handle().all()[0].1.limit(), None);
}

#[tokio::test(start_paused = true)]
async fn the_readiness_of_a_request_that_is_not_sent_is_left_for_the_next() {
    let limit = tower::limit::ConcurrencyLimitLayer::new(1);
    let probe = Probe::always(Answer::Ok);
    let mut service = TimeoutLayer::new().layer(limit.layer(probe.clone()));
    for _ in 0..2 {
        assert!(service.ready().await.unwrap().call(within(Duration::ZERO)).await.is_err());
        assert!(service.ready().await.unwrap().call(request()).await.is_ok());
    }
    let state = probe.state();
    let state = state.lock().unwrap();
    assert_eq!((state.violations, state.calls.len()), (0, 2));
}

// ===== pauses =====

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_too_long_is_one_error_and_then_the_end() {
    let server = Server::new(0, &[(0, Data("a")), (10, Data("b")), (0, Silence)]);
    let (mut body, start) = (body(&server).await, Instant::now());
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "b");
    assert!(!body.is_end_stream());
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(timed_out(&error, start), (Phase::Idle, 60, 70 * SECOND));
    assert_eq!(server.open(), 0, "the inner body is gone although this one still lives");
    assert!(body.is_end_stream() && body.size_hint().exact() == Some(0));
    assert!(body.frame().await.is_none() && body.frame().await.is_none());
    assert_eq!(Verdict::from_error(error.as_ref()).signal(), Signal::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_body_without_a_first_frame_is_cut_as_well() {
    let server = Server::new(30, &[(0, Silence)]);
    let (mut body, start) = (body(&server).await, Instant::now());
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(timed_out(&error, start), (Phase::Idle, 60, 60 * SECOND));
}

// The call's timer goes on to the body: it may be set for earlier than the pause's end, at first, and for later where the
// head took longer than a pause may.
#[tokio::test(start_paused = true)]
async fn a_body_is_cut_in_time_however_long_its_head_took() {
    for (first_byte, head, idle) in
        [(120, 30, 60), (120, 100, 60), (900, 100, 60), (30, 20, 60), (900, 0, 60), (50, 10, 7)]
    {
        let (first_byte, idle) = (first_byte * SECOND, idle * SECOND);
        let layer = builder().first_byte(first_byte).idle(idle).build().unwrap();
        let server = Server::new(head, &[(0, Data("a")), (5, Data("b")), (0, Silence)]);
        let mut body = ask(layer, &server).await.unwrap().into_body();
        let start = Instant::now();
        for _ in 0..2 {
            body.frame().await.unwrap().unwrap();
        }
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(timed_out(&error, start), (Phase::Idle, idle.as_secs(), 5 * SECOND + idle), "{head}");
        let head = Server::new(1000, &[]);
        let layer = builder().first_byte(first_byte).idle(idle).build().unwrap();
        let (start, error) = (Instant::now(), ask(layer, &head).await.unwrap_err());
        assert_eq!(timed_out(&error, start), (Phase::FirstByte, first_byte.as_secs(), first_byte));
    }
}

// 59 s, so that a timer that is not set anew would fire within the second pause.
#[tokio::test(start_paused = true)]
async fn any_frame_ends_a_pause_comments_and_trailers_too() {
    let server = Server::new(
        0,
        &[
            (59, Data("a")),
            (59, Data(":\n\n")),
            (59, Data("")),
            (1, Data("b")),
            (1, Data("c")),
            (59, Trailers),
            (59, Silence),
        ],
    );
    let (mut body, start) = (body(&server).await, Instant::now());
    for _ in 0..5 {
        assert!(body.frame().await.unwrap().unwrap().is_data());
    }
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
    assert_eq!(Instant::now() - start, 238 * SECOND);
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(timed_out(&error, start), (Phase::Idle, 60, 298 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn frames_trailers_and_errors_pass_through() {
    let server = Server::new(0, &[(0, Data("a")), (1, Data("b")), (1, Trailers)]);
    let collected = body(&server).await.collect().await.unwrap();
    assert!(collected.trailers().is_some());
    assert_eq!(collected.to_bytes(), "ab");
    let server = Server::new(0, &[(0, Data("a")), (1, Broken), (0, Silence)]);
    let mut body = body(&server).await;
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "the line broke");
    assert!(body.frame().await.is_none() && body.is_end_stream());
    let known = tower::service_fn(async |_: Request<Body>| {
        Ok::<_, BoxError>(Response::new(Body::from("0123456789")))
    });
    let body = TimeoutLayer::new().layer(known).oneshot(request()).await.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(10));
}

// ===== a slow reader =====

#[tokio::test(start_paused = true)]
async fn a_reader_who_takes_his_time_is_never_punished() {
    let server = Server::new(0, &[(0, Data("a")), (1, Data("b")), (50, Data("c")), (0, Silence)]);
    let mut body = body(&server).await;
    for expected in ["a", "b", "c"] {
        sleep(1000 * SECOND).await;
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), expected);
    }
    // The pause begins when he asks, and not with the last frame.
    sleep(1000 * SECOND).await;
    let start = Instant::now();
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(timed_out(&error, start), (Phase::Idle, 60, 60 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_asked_and_went_away_finds_what_came_meanwhile() {
    let server = Server::new(0, &[(10, Data("a")), (1900, Data("b")), (0, Silence)]);
    let mut body = body(&server).await;
    assert!(body.frame().now_or_never().is_none());
    sleep(1000 * SECOND).await;
    assert!(body.frame().await.unwrap().is_ok());
    // "b" comes at 1910 s. Nothing is there when he comes back at 1900 s, so the pause begins anew; and the next one, too.
    assert!(body.frame().now_or_never().is_none());
    sleep(900 * SECOND).await;
    assert!(body.frame().await.unwrap().is_ok());
    assert!(body.frame().now_or_never().is_none());
    sleep(1000 * SECOND).await;
    let start = Instant::now();
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(timed_out(&error, start), (Phase::Idle, 60, 60 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_does_other_things_meanwhile_still_waits() {
    let server = Server::new(0, &[(0, Silence)]);
    let (mut body, start) = (body(&server).await, Instant::now());
    let error = loop {
        tokio::select! {
            frame = body.frame() => break frame.unwrap().unwrap_err(),
            () = sleep(7 * SECOND) => {}
        }
    };
    assert_eq!(timed_out(&error, start), (Phase::Idle, 60, 60 * SECOND));
}

// 7.3 s, so that no look falls into the second after the pause is over: at 65.7 s, which spares it, and at 131.4 s.
#[tokio::test(start_paused = true)]
async fn a_reader_who_looks_in_now_and_then_meets_the_end_of_the_pause_too() {
    let (mut body, start) = (body(&Server::new(0, &[(0, Silence)])).await, Instant::now());
    let mut seen = None;
    for _ in 0..100 {
        seen = seen.or(body.frame().now_or_never());
        if seen.is_some() {
            break;
        }
        sleep(Duration::from_millis(7_300)).await;
    }
    let error = seen.expect("it was cut").unwrap().unwrap_err();
    assert_eq!(timed_out(&error, start), (Phase::Idle, 60, Duration::from_millis(131_400)));
}

// ===== the whole answer =====

#[tokio::test(start_paused = true)]
async fn the_total_ends_a_body_that_flows() {
    let layer = builder().total(100 * SECOND).build().unwrap();
    let server = Server::new(30, &[(40, Data("a")), (29, Data("b")), (2, Data("c"))]);
    let start = Instant::now();
    let mut body = ask(layer, &server).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok() && body.frame().await.unwrap().is_ok());
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(timed_out(&error, start), (Phase::Total, 100, 100 * SECOND));
    assert_eq!(server.open(), 0);
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_total_counts_the_readers_time_too() {
    let layer = builder().total(100 * SECOND).build().unwrap();
    let server = Server::new(0, &[(0, Data("a")), (0, Data("b")), (0, Data("c"))]);
    let mut body = ask(layer, &server).await.unwrap().into_body();
    sleep(99 * SECOND).await;
    assert!(body.frame().await.unwrap().is_ok());
    sleep(SECOND).await;
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(find::<TimedOut>(error.as_ref()).unwrap().what(), Phase::Total);
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_whole_is_over_and_not_late() {
    let known = tower::service_fn(async |_: Request<Body>| Ok::<_, BoxError>(Response::new(Body::from("x"))));
    let layer = builder().total(SECOND).build().unwrap();
    let mut body = layer.layer(known).oneshot(request()).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    sleep(10 * SECOND).await;
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_does_not_cut_a_body_that_has_begun() {
    let server = Server::new(5, &[(40, Data("a")), (40, Data("b"))]);
    let service = TimeoutLayer::new().layer(server);
    let body = service.oneshot(within(10 * SECOND)).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "ab");
}

// ===== what the server is told =====

async fn told(layer: TimeoutLayer, request: Request<Body>) -> Option<String> {
    let server = Server::new(0, &[]);
    let _ = layer.layer(server.clone()).oneshot(request).await.unwrap();
    server.told().pop().unwrap()
}

fn streaming() -> Request<Body> {
    Request::post("http://127.0.0.1/v1beta/models/gemini-9-flash:streamGenerateContent?alt=sse")
        .body(Body::default())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_server_is_told_the_attempts_time_in_whole_seconds_and_never_less_than_ten() {
    let ms = Duration::from_millis;
    let layer = TimeoutLayer::new();
    let total = |limit| builder().total(limit).build().unwrap();
    for (layer, request, expected) in [
        (layer, request(), "120"),
        (layer, within(ms(45_001)), "46"),
        (layer, within(ms(46_000)), "46"),
        (layer, within(ms(300_000)), "120"),
        (layer, within(ms(9_999)), "10"),
        (layer, within(ms(1)), "10"),
        (total(ms(30_500)), request(), "31"),
        (total(SECOND), request(), "10"),
        (builder().without_first_byte().build().unwrap(), within(ms(70_000)), "70"),
        (builder().first_byte(DAY).build().unwrap(), request(), "86400"),
    ] {
        assert_eq!(told(layer, request).await.as_deref(), Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn no_header_where_nothing_limits_the_answer_or_where_it_is_off() {
    assert_eq!(told(builder().without_first_byte().build().unwrap(), request()).await, None);
    assert_eq!(told(builder().without_server_timeout().build().unwrap(), request()).await, None);
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_header_is_left_alone() {
    let mut request = request();
    request.headers_mut().insert("x-server-timeout", "7".parse().unwrap());
    assert_eq!(told(TimeoutLayer::new(), request).await.as_deref(), Some("7"));
}

#[tokio::test(start_paused = true)]
async fn of_a_stream_the_server_is_told_the_total_alone() {
    assert_eq!(told(TimeoutLayer::new(), streaming()).await, None);
    let mut due = streaming();
    due.extensions_mut().insert(Deadline::within(20 * SECOND));
    assert_eq!(told(TimeoutLayer::new(), due).await, None);
    let total = builder().total(400 * SECOND).build().unwrap();
    assert_eq!(told(total, streaming()).await.as_deref(), Some("400"));
}

// ===== what the layers around it learn =====

const STARTED: &str = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"h\"}]}}],\"usageMetadata\":{\"promptTokenCount\":7}}\n\n";

fn stalling() -> Server {
    Server::new(0, &[(0, Data(STARTED)), (0, Silence)])
}

#[tokio::test(start_paused = true)]
async fn the_verdict_says_that_the_answer_was_cut_and_what_it_had_used() {
    let total = builder().total(50 * SECOND).build().unwrap();
    for layer in [TimeoutLayer::new(), total] {
        let stack =
            ServiceBuilder::new().layer(layer).layer(ClassifyLayer::new().watch()).service(stalling());
        let response = stack.oneshot(request()).await.unwrap();
        let verdict = Verdict::of(&response);
        let mut body = response.into_body();
        assert!(body.frame().await.unwrap().is_ok());
        assert_eq!(verdict.outcome(), None);
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(verdict.outcome(), Some(Outcome::Failed(Kind::DeadlineExceeded)));
        assert_eq!(verdict.usage().unwrap().input_tokens, 7);
        drop(body);
        assert_eq!(verdict.outcome(), Some(Outcome::Failed(Kind::DeadlineExceeded)), "the first word stands");
    }
}

/// Reads one answer that stalls to its end, and tells the governor's limit and what the breaker counted.
async fn learnt(classify: ClassifyLayer) -> (Option<f64>, CircuitState, u32) {
    let concurrency = AdaptiveConcurrencyLayer::new();
    let breaker = CircuitBreakerLayer::builder().consecutive_failures(1).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(concurrency.clone())
        .layer(breaker.clone())
        .layer(TimeoutLayer::new())
        .layer(classify)
        .service(stalling());
    let body = stack.oneshot(request()).await.unwrap().into_body();
    assert!(body.collect().await.is_err());
    let state = concurrency.handle().get(&Target::of(&request()).key()).unwrap();
    (state.limit(), breaker.handle().all()[0].state, state.in_flight())
}

#[tokio::test(start_paused = true)]
async fn a_stalled_answer_counts_for_the_breaker_and_cuts_no_concurrency_limit() {
    let (limit, circuit, in_flight) = learnt(ClassifyLayer::new().watch()).await;
    assert_eq!(limit, None, "its head had come");
    assert_eq!((circuit, in_flight), (CircuitState::Open, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_watcher_a_stalled_answer_is_a_transport_failure() {
    let learnt = learnt(ClassifyLayer::new()).await;
    assert_eq!(learnt, (None, CircuitState::Open, 0));
}

#[tokio::test(start_paused = true)]
async fn no_first_byte_cuts_the_concurrency_limit_too() {
    let concurrency = AdaptiveConcurrencyLayer::new();
    for _ in 0..10 {
        concurrency.layer(Server::new(1, &[])).oneshot(request()).await.unwrap();
    }
    let stack = concurrency.layer(TimeoutLayer::new().layer(Server::new(1000, &[])));
    assert!(stack.oneshot(request()).await.is_err());
    assert!(concurrency.handle().all()[0].1.limit().is_some());
}

// ===== the next attempt =====

fn patient() -> RetryPolicy {
    RetryPolicy::builder().deadline(DAY).without_budget().build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_second_attempt_has_twice_the_time() {
    let (server, start) = (Server::new(1000, &[]), Instant::now());
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(patient().to_builder().attempts(2).build().unwrap()))
        .layer(TimeoutLayer::new())
        .layer(ClassifyLayer::new())
        .service(server.clone());
    let error = stack.oneshot(request()).await.unwrap_err();
    let second = server.seen.calls.lock().unwrap()[1].0;
    assert_eq!(timed_out(&error, second), (Phase::FirstByte, 240, 240 * SECOND));
    assert!(second - start >= 120 * SECOND && second - start <= 121 * SECOND, "full jitter of 1 s");
    assert_eq!(server.told(), [Some("120".into()), Some("240".into())]);
}

#[tokio::test(start_paused = true)]
async fn what_takes_three_minutes_succeeds_at_the_second_attempt() {
    let server = Server::new(180, &[(0, Data("{}"))]);
    let stack =
        ServiceBuilder::new().layer(RetryLayer::new(patient())).layer(TimeoutLayer::new()).service(server);
    let response = stack.oneshot(request()).await.unwrap();
    assert_eq!(Attempts::of(&response).kinds(), [Kind::DeadlineExceeded]);
}

#[tokio::test(start_paused = true)]
async fn each_timeout_doubles_the_time_up_to_the_longest() {
    for (layer, expected) in [
        (TimeoutLayer::new(), [120, 240, 480, 600, 600]),
        (builder().max_first_byte(200 * SECOND).build().unwrap(), [120, 200, 200, 200, 200]),
        (builder().max_first_byte(SECOND).build().unwrap(), [120, 120, 120, 120, 120]),
        (builder().total(300 * SECOND).build().unwrap(), [120, 240, 300, 300, 300]),
    ] {
        let server = Server::new(1000, &[]);
        let policy = patient().to_builder().attempts(5).build().unwrap();
        let stack = RetryLayer::new(policy).layer(layer.layer(server.clone()));
        assert!(stack.oneshot(request()).await.is_err());
        assert_eq!(server.told(), expected.map(|seconds| Some(seconds.to_string())));
    }
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_timeout_counts_and_other_failures_do_not() {
    for (answer, second) in
        [(error(504, "DEADLINE_EXCEEDED", "late"), "240"), (error(503, "UNAVAILABLE", "down"), "120")]
    {
        let (probe, told) = (Probe::new([answer], Answer::Ok), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&told);
        let stack = ServiceBuilder::new()
            .layer(RetryLayer::new(patient()))
            .layer(TimeoutLayer::new())
            .layer(ClassifyLayer::new())
            .map_request(move |request: Request<Body>| {
                log.lock().unwrap().push(request.headers()["x-server-timeout"].clone());
                request
            })
            .service(probe);
        assert!(stack.oneshot(request()).await.is_ok());
        assert_eq!(*told.lock().unwrap(), ["120", second]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_attempt_has_no_more_than_the_deadline_leaves() {
    let (server, start) = (Server::new(1000, &[]), Instant::now());
    let stack = RetryLayer::default().layer(TimeoutLayer::new().layer(server.clone()));
    let error = stack.oneshot(within(200 * SECOND)).await.unwrap_err();
    let (what, _, after) = timed_out(&error, start);
    assert_eq!((what, server.calls()), (Phase::Deadline, 2));
    assert!(after >= 200 * SECOND && after <= 200 * SECOND + Duration::from_millis(1), "{after:?}");
}

// A plain client has three attempts in this time.
#[tokio::test(start_paused = true)]
async fn the_time_grows_no_further_than_leaves_room_for_one_more() {
    let server = Server::new(1000, &[]);
    let layer = builder().first_byte(20 * SECOND).build().unwrap();
    let stack = RetryLayer::default().layer(layer.layer(server.clone()));
    assert!(stack.oneshot(within(62 * SECOND)).await.is_err());
    // And a wait that is fitted into what the deadline leaves may make room for another one.
    assert!((3..=4).contains(&server.calls()), "{}", server.calls());
}

#[tokio::test(start_paused = true)]
async fn under_towers_own_retry_the_time_grows_as_well() {
    let server = Server::new(180, &[]);
    let stack = ServiceBuilder::new()
        .layer(tower::retry::RetryLayer::new(patient()))
        .layer(TimeoutLayer::new())
        .service(server.clone());
    assert!(stack.oneshot(request()).await.is_ok());
    assert_eq!(server.told(), [Some("120".into()), Some("240".into())]);
}

#[tokio::test(start_paused = true)]
async fn after_the_head_nothing_is_retried() {
    let server = stalling();
    let stack = RetryLayer::default().layer(TimeoutLayer::new().layer(server.clone()));
    let body = stack.oneshot(request()).await.unwrap().into_body();
    assert!(body.collect().await.is_err());
    assert_eq!(server.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_maybe_processed_retries_a_timeout_is_final() {
    let policy = RetryPolicy::builder().maybe_processed_retries(0).build().unwrap();
    let server = Server::new(1000, &[]);
    let stack = RetryLayer::new(policy).layer(TimeoutLayer::new().layer(server.clone()));
    assert!(stack.oneshot(request()).await.is_err());
    assert_eq!(server.calls(), 1);
}

// ===== dropping =====

#[tokio::test(start_paused = true)]
async fn dropping_in_any_state_drops_the_call_and_counts_nothing() {
    let concurrency = AdaptiveConcurrencyLayer::new();
    let breaker = CircuitBreakerLayer::builder().consecutive_failures(1).build().unwrap();
    let server = Server::new(10, &[(0, Data(STARTED)), (10, Data(STARTED)), (0, Silence)]);
    let mut stack = ServiceBuilder::new()
        .layer(concurrency.clone())
        .layer(breaker.clone())
        .layer(TimeoutLayer::new())
        .layer(ClassifyLayer::new().watch())
        .service(server.clone());
    let nothing_counted = |state: &str| {
        assert_eq!(server.open(), 0, "{state}");
        let limit = concurrency.handle().all()[0].1;
        assert_eq!((limit.limit(), limit.in_flight()), (None, 0), "{state}");
        let circuit = breaker.handle().all()[0].clone();
        assert_eq!((circuit.state, circuit.calls), (CircuitState::Closed, 0), "{state}");
    };

    drop(stack.call(request()));
    nothing_counted("not polled");
    let mut call = Box::pin(stack.call(request()));
    assert!((&mut call).now_or_never().is_none());
    sleep(5 * SECOND).await;
    drop(call);
    nothing_counted("waiting for the head");
    let response = stack.call(request()).await.unwrap();
    let verdict = Verdict::of(&response);
    drop(response);
    nothing_counted("the body is not begun");
    assert_eq!(verdict.outcome(), Some(Outcome::Dropped));
    for wait in [0, 30, 1000] {
        let response = stack.call(request()).await.unwrap();
        let verdict = Verdict::of(&response);
        let mut body = response.into_body();
        for _ in 0..2 {
            assert!(body.frame().await.unwrap().is_ok());
        }
        assert!(body.frame().now_or_never().is_none());
        // Also where the pause was over, unless somebody saw it.
        sleep(wait * SECOND).await;
        drop(body);
        nothing_counted("in a pause");
        assert_eq!(verdict.outcome(), Some(Outcome::Dropped));
        assert_eq!(verdict.usage().unwrap().input_tokens, 7);
    }
}

// ===== the request's deadline =====

type Given = Arc<Mutex<Vec<Option<Instant>>>>;

/// A service that notes the deadline of each request; its error is a type of its own.
fn noting() -> (
    impl Service<Request<Body>, Response = Response<Body>, Error = std::io::Error, Future: Send> + Clone,
    Given,
) {
    let given = Given::default();
    let log = Arc::clone(&given);
    let service = tower::service_fn(move |request: Request<Body>| {
        log.lock().unwrap().push(Deadline::of(&request).map(Deadline::instant));
        std::future::ready(Ok(Response::new(Body::default())))
    });
    (service, given)
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_deadline_gets_one_that_counts_from_its_call() {
    let (service, given) = noting();
    let start = Instant::now();
    let mut with = DeadlineLayer::default().layer(service.clone());
    with.call(request()).await.unwrap();
    sleep(5 * SECOND).await;
    with.call(request()).await.unwrap();
    let mut with = DeadlineLayer::new(7 * SECOND).unwrap().layer(service);
    with.call(request()).await.unwrap();
    assert_eq!(*given.lock().unwrap(), [120, 125, 12].map(|at| Some(start + at * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_given_is_kept_and_capped_where_that_is_asked_for() {
    let (service, given) = noting();
    let start = Instant::now();
    let layer = DeadlineLayer::new(100 * SECOND).unwrap();
    let (mut keeps, mut caps) = (layer.layer(service.clone()), layer.cap_given().layer(service));
    for seconds in [50, 500] {
        keeps.call(within(seconds * SECOND)).await.unwrap();
        caps.call(within(seconds * SECOND)).await.unwrap();
    }
    caps.call(request()).await.unwrap();
    assert_eq!(*given.lock().unwrap(), [50, 50, 500, 100, 100].map(|at| Some(start + at * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_carried_through_every_poll_and_no_further() {
    let given = Given::default();
    let log = Arc::clone(&given);
    // Asks in the middle of its future, as a layer does that calls the next one late.
    let late = tower::service_fn(move |request: Request<Body>| {
        let log = Arc::clone(&log);
        async move {
            sleep(SECOND).await;
            log.lock().unwrap().push(Deadline::of(&request).map(Deadline::instant));
            Ok::<_, BoxError>(Response::new(Body::default()))
        }
    });
    let start = Instant::now();
    let service = |seconds| DeadlineLayer::new(seconds * SECOND).unwrap().layer(late.clone());
    // Two at work in one task, polled in turn: each has its own.
    let (short, long) = tokio::join!(service(5).oneshot(request()), service(50).oneshot(request()));
    assert!(short.is_ok() && long.is_ok());
    given.lock().unwrap().sort();
    assert_eq!(*given.lock().unwrap(), [5, 50].map(|at| Some(start + at * SECOND)));
    assert_eq!(Deadline::of(&request()), None, "outside of all of them there is none");

    // A call in the course of another has that one's, and leaves it as it was.
    given.lock().unwrap().clear();
    let (inner, log) = (service(500), Arc::clone(&given));
    let outer = tower::service_fn(move |request: Request<Body>| {
        let (inner, log) = (inner.clone(), Arc::clone(&log));
        async move {
            inner.oneshot(self::request()).await?;
            log.lock().unwrap().push(Deadline::of(&request).map(Deadline::instant));
            Ok::<_, BoxError>(Response::new(Body::default()))
        }
    });
    let start = Instant::now();
    DeadlineLayer::new(9 * SECOND).unwrap().layer(outer).oneshot(request()).await.unwrap();
    assert_eq!(*given.lock().unwrap(), [9, 9].map(|at| Some(start + at * SECOND)));
}

#[tokio::test(start_paused = true)]
async fn a_panic_inside_takes_the_deadline_with_it() {
    let panics = tower::service_fn(|_: Request<Body>| async {
        assert_eq!(1, 2, "on purpose");
        Ok::<_, BoxError>(Response::new(Body::default()))
    });
    let call = DeadlineLayer::default().layer(panics).call(request());
    let mut call = Box::pin(call);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let polled =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call.as_mut().poll(&mut cx).is_ready()));
    assert!(polled.is_err());
    assert_eq!(Deadline::of(&request()), None);
}

#[tokio::test(start_paused = true)]
async fn all_attempts_together_end_with_the_deadline() {
    let (server, start) = (Server::new(1000, &[]), Instant::now());
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(30 * SECOND).unwrap())
        .layer(RetryLayer::default())
        .layer(builder().first_byte(20 * SECOND).build().unwrap())
        .service(server.clone());
    let error = stack.oneshot(request()).await.unwrap_err();
    let (what, _, after) = timed_out(&error, start);
    assert_eq!((what, server.calls()), (Phase::Deadline, 2));
    assert!(after >= 30 * SECOND && after <= 30 * SECOND + Duration::from_millis(1), "{after:?}");
}

// The first attempt is timed from the deadline's own look at the clock, each later one from its own call.
#[tokio::test(start_paused = true)]
async fn under_a_deadline_each_attempt_has_its_own_time() {
    let (server, start) = (Server::new(1000, &[]), Instant::now());
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(DAY).unwrap())
        .layer(RetryLayer::new(patient().to_builder().attempts(2).build().unwrap()))
        .layer(builder().first_byte(20 * SECOND).max_first_byte(20 * SECOND).build().unwrap())
        .service(server.clone());
    let error = stack.oneshot(request()).await.unwrap_err();
    let second = server.seen.calls.lock().unwrap()[1].0;
    assert!(second >= start + 20 * SECOND && server.calls() == 2);
    assert_eq!(timed_out(&error, second), (Phase::FirstByte, 20, 20 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_end_after_the_deadline_is_not_begun() {
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(3 * SECOND).unwrap())
        .layer(RetryLayer::default())
        .layer(ClassifyLayer::new())
        .service(Probe::always(support::quota("GenerateRequestsPerMinute", "20s")));
    let response = stack.oneshot(request()).await.unwrap();
    assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::Deadline));
}

// ===== the error =====

#[tokio::test(start_paused = true)]
async fn the_error_says_in_lower_case_what_to_do_next() {
    let say = |error: BoxError| find::<TimedOut>(error.as_ref()).unwrap().to_string();
    let hang = Server::new(1000, &[]);
    let total = builder().total(90 * SECOND).build().unwrap();
    let mut texts = vec![
        say(ask(TimeoutLayer::new(), &hang).await.unwrap_err()),
        say(ask(total, &hang).await.unwrap_err()),
        say(body(&Server::new(0, &[(0, Silence)])).await.frame().await.unwrap().unwrap_err()),
    ];
    for left in [20 * SECOND, Duration::ZERO] {
        texts.push(say(TimeoutLayer::new().layer(hang.clone()).oneshot(within(left)).await.unwrap_err()));
    }
    assert_eq!(
        texts,
        [
            "attempt timeout (first_byte): no answer within 120s: try again, shorten the input, or raise `first_byte`",
            "attempt timeout (total): the answer was not over after 90s: ask for a shorter one, or raise `total`",
            "attempt timeout (idle): the answer paused for 60s: discard what came and ask again, or raise `idle`",
            "attempt timeout: no answer in the 20s until the request's deadline: give it more time",
            "not sent: the request's deadline had passed: give it more time",
        ]
    );
}
