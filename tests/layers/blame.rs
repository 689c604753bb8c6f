//! What the caller did is not the server's: its deadline, an upload that stalls or breaks, a slow reader. Nothing that
//! callers share moves by it, so that another caller's call goes at once.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::circuit_breaker::{CircuitBreakerLayer, CircuitState};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::error::find;
use tower_gemini::retry::{Attempts, GaveUp, ReplayBody, ReplayLayer, RetryLayer, RetryPolicy};
use tower_gemini::timeout::{Phase, TimedOut, TimeoutLayer, UploadIncomplete};
use tower_gemini::verdict::{Outcome, Signal};
use tower_gemini::{BoxError, Deadline, Kind, Verdict};

const SECOND: Duration = Duration::from_secs(1);

type Body = UnsyncBoxBody<Bytes, BoxError>;

fn body(frames: impl Stream<Item = Result<&'static str, BoxError>> + std::marker::Send + 'static) -> Body {
    StreamBody::new(frames.map(|data| data.map(|data| Frame::data(Bytes::from(data))))).boxed_unsync()
}

fn request(body: Body) -> Request<Body> {
    Request::post("http://127.0.0.1/v1beta/models/gemini-9-flash:generateContent").body(body).unwrap()
}

fn whole() -> Request<Body> {
    request(body(stream::iter([Ok("{}")])))
}

/// Half a request, and then silence.
fn half() -> Request<Body> {
    request(body(stream::iter([Ok("{\"con")]).chain(stream::pending())))
}

/// Half a request, and the rest after so long.
fn slow(rest: Duration) -> Request<Body> {
    let rest = stream::once(async move {
        sleep(rest).await;
        Ok("tents\":[]}")
    });
    request(body(stream::iter([Ok("{\"con")]).chain(rest)))
}

/// Half a request, and then an error.
fn broken() -> Request<Body> {
    request(body(stream::iter([Ok("{\"con"), Err("the caller is gone".into())])))
}

/// What the model does once it has the whole request.
#[derive(Clone, Copy)]
enum Model {
    /// Answers after so long.
    Answers(Duration),
    /// Gives up on a request that is not whole after so long, with this status; 0 drops the connection.
    Gives(Duration, u16),
}

type Future<T> = Pin<Box<dyn std::future::Future<Output = T>>>;
/// Sends one request and waits for its head.
type Send = dyn FnOnce(Request<ReplayBody<Body>>) -> Future<Result<(), BoxError>>;
type Answered = Result<Response<Full<Bytes>>, BoxError>;

const GOOD: &str = r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}"#;

/// Reads requests as a client does: what goes wrong with a body it tells as a reset.
fn server(
    model: Model,
) -> impl Service<
    Request<ReplayBody<Body>>,
    Response = Response<Full<Bytes>>,
    Error = BoxError,
    Future = Future<Answered>,
> + Clone {
    tower::service_fn(move |request: Request<ReplayBody<Body>>| -> Future<Answered> {
        let answer = async move {
            let read = async { request.into_body().collect().await.map_err(|_| "the stream was reset") };
            match model {
                Model::Answers(after) => {
                    read.await?;
                    sleep(after).await;
                }
                Model::Gives(after, status) => match tokio::time::timeout(after, read).await {
                    Ok(read) => _ = read?,
                    Err(_) if status == 0 => return Err("the connection was reset".into()),
                    Err(_) => {
                        return Ok(Response::builder().status(status).body(Full::default()).unwrap());
                    }
                },
            }
            Ok(Response::new(Full::from(GOOD)))
        };
        Box::pin(answer)
    })
}

/// What callers share, and the calls of theirs.
struct Shared<S> {
    service: S,
    breaker: CircuitBreakerLayer,
    governor: AdaptiveConcurrencyLayer,
}

/// The stack below the retry layer, with a first byte of 10 s.
fn shared(
    model: Model,
) -> Shared<impl Service<Request<Body>, Response = Response<impl http_body::Body>, Error = BoxError> + Clone>
{
    let breaker = CircuitBreakerLayer::builder().consecutive_failures(3).min_calls(3).build().unwrap();
    let governor = AdaptiveConcurrencyLayer::builder().build().unwrap();
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::new())
        .layer(governor.clone())
        .layer(breaker.clone())
        .layer(TimeoutLayer::builder().first_byte(10 * SECOND).build().unwrap())
        .layer(ClassifyLayer::new().watch())
        .service(server(model));
    Shared { service, breaker, governor }
}

impl<S> Shared<S> {
    /// Nothing that callers share has moved.
    #[track_caller]
    fn is_unmoved(&self) {
        for circuit in self.breaker.handle().all() {
            assert_eq!((circuit.state, circuit.failures), (CircuitState::Closed, 0), "{circuit:?}");
        }
        for (_, state) in self.governor.handle().all() {
            assert_eq!(state.limit(), None, "no limit");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_callers_short_deadline_is_no_timeout_of_the_servers() {
    let shared = shared(Model::Answers(5 * SECOND));
    for _ in 0..10 {
        let mut request = whole();
        request.extensions_mut().insert(Deadline::within(SECOND));
        let error = shared.service.clone().oneshot(request).await.err().expect("too short");
        let late = find::<TimedOut>(error.as_ref()).unwrap();
        assert_eq!((late.what(), late.is_by_caller()), (Phase::Deadline, true));
        let verdict = Verdict::from_error(error.as_ref());
        assert_eq!((verdict.kind(), verdict.signal()), (Some(Kind::DeadlineExceeded), Signal::Neutral));
    }
    shared.is_unmoved();
    let start = Instant::now();
    assert!(shared.service.clone().oneshot(whole()).await.is_ok());
    assert_eq!(Instant::now() - start, 5 * SECOND, "at once, and as long as the model takes");
}

// Five of ten seconds are half of what this layer grants itself: from there on the silence is the server's.
#[tokio::test(start_paused = true)]
async fn a_deadline_that_leaves_half_of_the_limit_is_evidence() {
    for (deadline, by_caller) in [(4999, true), (5000, false), (10_000, false)] {
        let shared = shared(Model::Answers(60 * SECOND));
        let mut request = whole();
        request.extensions_mut().insert(Deadline::within(Duration::from_millis(deadline)));
        let error = shared.service.oneshot(request).await.err().expect("too late");
        let late = find::<TimedOut>(error.as_ref()).unwrap();
        assert_eq!((late.what(), late.is_by_caller()), (Phase::Deadline, by_caller));
        let signal = if by_caller { Signal::Neutral } else { Signal::Timeout };
        assert_eq!(Verdict::from_error(error.as_ref()).signal(), signal);
    }
}

#[tokio::test(start_paused = true)]
async fn four_uploads_that_stall_move_nothing() {
    let shared = shared(Model::Answers(SECOND));
    let stalled = (0..4).map(|_| shared.service.clone().oneshot(half()));
    for result in futures_util::future::join_all(stalled).await {
        let error = result.err().expect("no answer");
        let late = find::<TimedOut>(error.as_ref()).unwrap();
        assert_eq!((late.what(), late.is_by_caller()), (Phase::FirstByte, true));
        assert!(error.to_string().contains("body"), "{error}");
    }
    shared.is_unmoved();
    let start = Instant::now();
    assert!(shared.service.clone().oneshot(whole()).await.is_ok());
    assert_eq!(Instant::now() - start, SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_the_server_says_of_an_upload_that_stalls_moves_nothing() {
    for status in [0, 408, 504] {
        let shared = shared(Model::Gives(8 * SECOND, status));
        for _ in 0..4 {
            match shared.service.clone().oneshot(half()).await {
                Ok(response) => {
                    let verdict = Verdict::of(&response);
                    assert!(status > 0 && verdict.is_by_caller(), "{verdict:?}");
                    assert_eq!(verdict.kind(), Some(Kind::DeadlineExceeded));
                }
                Err(error) => {
                    let incomplete = find::<UploadIncomplete>(error.as_ref()).expect("named");
                    assert!(status == 0 && !incomplete.has_failed());
                    assert_eq!(Verdict::from_error(error.as_ref()).kind(), Some(Kind::Transport));
                }
            }
        }
        shared.is_unmoved();
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_breaks_moves_nothing() {
    let shared = shared(Model::Answers(SECOND));
    for _ in 0..10 {
        let error = shared.service.clone().oneshot(broken()).await.err().expect("broken");
        assert!(find::<UploadIncomplete>(error.as_ref()).is_some_and(UploadIncomplete::has_failed));
        let verdict = Verdict::from_error(error.as_ref());
        assert_eq!((verdict.kind(), verdict.signal()), (Some(Kind::Transport), Signal::Neutral));
    }
    shared.is_unmoved();
}

// The same failures of a whole request are the server's.
#[tokio::test(start_paused = true)]
async fn what_is_the_servers_counts() {
    let shared = shared(Model::Answers(60 * SECOND));
    let error = shared.service.clone().oneshot(whole()).await.err().expect("late");
    assert!(!find::<TimedOut>(error.as_ref()).unwrap().is_by_caller());
    assert_eq!(Verdict::from_error(error.as_ref()).signal(), Signal::Timeout);
    // Nor does it help the server that it does not read: nobody waits for the caller then.
    let deaf = tower::service_fn(async |request: Request<ReplayBody<Body>>| {
        let _unread = request;
        std::future::pending::<Answered>().await
    });
    let layers = (ReplayLayer::new(), TimeoutLayer::builder().first_byte(10 * SECOND).build().unwrap());
    let error = layers.layer(deaf).oneshot(half()).await.expect_err("late");
    assert!(!find::<TimedOut>(error.as_ref()).unwrap().is_by_caller());
    // An upload that is slow and leaves half of the time leaves the server's part; one that takes more does not.
    for (rest, by_caller) in [(5, false), (6, true)] {
        let error = shared.service.clone().oneshot(slow(rest * SECOND)).await.err().expect("late");
        assert_eq!(find::<TimedOut>(error.as_ref()).unwrap().is_by_caller(), by_caller, "{rest}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stalls_is_not_tried_again_and_one_that_was_slow_is() {
    let run = async |request| {
        let service = ServiceBuilder::new()
            .layer(ReplayLayer::new())
            .layer(RetryLayer::new(RetryPolicy::builder().without_deadline().attempts(3).build().unwrap()))
            .layer(TimeoutLayer::builder().first_byte(10 * SECOND).build().unwrap())
            .layer(ClassifyLayer::new())
            .service(server(Model::Answers(5 * SECOND)));
        service.oneshot(request).await
    };
    let start = Instant::now();
    assert!(run(half()).await.is_err());
    assert_eq!(Instant::now() - start, 10 * SECOND, "one attempt");
    let response = run(slow(7 * SECOND)).await.unwrap();
    assert_eq!(Attempts::of(&response).made(), 2);
    // What the server says of it is final, too.
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::new())
        .layer(RetryLayer::default())
        .layer(TimeoutLayer::new())
        .layer(ClassifyLayer::new())
        .service(server(Model::Gives(8 * SECOND, 408)));
    let response = service.oneshot(half()).await.unwrap();
    assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::NotRetryable));
}

// A total counts the reader's time as well. Where frames were there whenever it asked, the server has done its part.
#[tokio::test(start_paused = true)]
async fn a_total_that_a_slow_reader_has_used_up_is_not_the_servers() {
    for (pause, signal) in [(4, Signal::Neutral), (0, Signal::Timeout)] {
        let server = tower::service_fn(move |_: Request<Body>| async move {
            let at_hand = stream::iter([Ok("{\"candidates\":"), Ok("[")])
                .chain(stream::iter((0..100).map(|_| Ok(" "))));
            let frames = if pause > 0 { at_hand.left_stream() } else { stream::pending().right_stream() };
            Ok::<_, Infallible>(Response::new(body(frames)))
        });
        let timeout = TimeoutLayer::builder().total(10 * SECOND).build().unwrap();
        let service =
            ServiceBuilder::new().layer(timeout).layer(ClassifyLayer::new().watch()).service(server);
        let response = service.oneshot(whole()).await.unwrap();
        let verdict = Verdict::of(&response);
        let mut body = response.into_body();
        let error = loop {
            sleep(pause * SECOND).await;
            match body.frame().await.expect("it does not end well") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(verdict.outcome(), Some(Outcome::Failed(Kind::DeadlineExceeded)));
        assert_eq!(find::<TimedOut>(error.as_ref()).unwrap().is_by_caller(), pause > 0);
        assert_eq!(Verdict::from_error(error.as_ref()).signal(), signal);
    }
}

// As hyper's own client tells of it, over HTTP/1 and HTTP/2, through pipes.
#[tokio::test]
async fn a_body_that_breaks_in_a_real_client_is_the_callers() {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    for is_http2 in [false, true] {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(GOOD)))
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(far), service).await;
        });
        let near = TokioIo::new(near);
        let send: Box<Send> = if is_http2 {
            let (mut sender, line) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), near).await.unwrap();
            tokio::spawn(line);
            Box::new(move |request| {
                Box::pin(async move { Ok(sender.send_request(request).await.map(drop)?) })
            })
        } else {
            let (mut sender, line) = hyper::client::conn::http1::handshake(near).await.unwrap();
            tokio::spawn(line);
            Box::new(move |request| {
                Box::pin(async move { Ok(sender.send_request(request).await.map(drop)?) })
            })
        };
        let send = std::sync::Mutex::new(Some(send));
        let client = tower::service_fn(|request| {
            let sent = send.lock().unwrap().take().expect("once")(request);
            async move { sent.await.map(|()| Response::new(Full::<Bytes>::default())) }
        });
        let layers = (ReplayLayer::new(), TimeoutLayer::new());
        let mut request = broken();
        *request.uri_mut() = "http://127.0.0.1/v1beta/models/m:generateContent".parse().unwrap();
        request.headers_mut().insert("host", "127.0.0.1".parse().unwrap());
        let error = layers.layer(client).oneshot(request).await.expect_err("broken");
        let verdict = Verdict::from_error(error.as_ref());
        assert!(verdict.is_by_caller(), "HTTP/2: {is_http2}, {error:?}");
        assert_eq!((verdict.kind(), verdict.signal()), (Some(Kind::Transport), Signal::Neutral));
    }
}
