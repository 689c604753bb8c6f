//! The adapters, against a local server and against sockets that misbehave.
//!
//! Nothing sleeps: what must time out does so in tokio's paused time, and what must happen in an order is told so
//! by a channel or by the bytes themselves.
#![cfg(feature = "reqwest")]
#![allow(clippy::unwrap_used)] // Clippy excuses test functions by itself, but not their helpers.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tower::util::BoxCloneService;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_gemini::error::find;
use tower_gemini::reqwest::{FinalUrl, ReqwestClient, ReqwestService};
use tower_gemini::retry::{Replay, ReplayBody};
use tower_gemini::{BoxError, CallOptions, Deadline, KeyLabel, RequestClass};

const KEY: &str = "AIza-very-secret";

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn plain() -> ReqwestClient<ReqwestService> {
    ReqwestClient::new(ReqwestService::new(client()))
}

/// A server that answers each request by `handler`, given its head and its whole body.
async fn serve<B>(
    handler: impl Fn(http::request::Parts, Bytes) -> Response<B> + Clone + Send + Sync + 'static,
) -> SocketAddr
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handler = handler.clone();
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let handler = handler.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    Ok::<_, hyper::Error>(handler(parts, body.collect().await?.to_bytes()))
                }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(async move { connection.serve_connection(TokioIo::new(stream), service).await });
        }
    });
    address
}

/// A server whose one connection is a script over the bare socket.
async fn raw<F>(script: impl FnOnce(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        script(stream).await;
    });
    address
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "the client hung up");
    }
    String::from_utf8(seen).unwrap()
}

async fn refused() -> SocketAddr {
    // Bound and closed again, so nobody listens there.
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Everything that logging an error in any of the usual ways would print.
fn printed(error: &(dyn Error + 'static)) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(link) = source {
        text += &format!(" {link} {link:?}");
        source = link.source();
    }
    text
}

/// What a layer of somebody else does to errors.
#[derive(Debug)]
struct Wrapped(BoxError);
impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wrapped")
    }
}
impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.0.as_ref())
    }
}

/// A stack that boxes its errors twice above the client, as layers do.
macro_rules! wrapping {
    () => {
        ReqwestClient::new(
            ServiceBuilder::new()
                .map_err(|error: BoxError| -> BoxError { Wrapped(error).into() })
                .map_err(|error: reqwest::Error| -> BoxError { Wrapped(error.into()).into() })
                .service(ReqwestService::new(client())),
        )
    };
}

// ===== There and back =====

#[tokio::test]
async fn one_line_changes_and_json_goes_both_ways() {
    let address = serve(|parts, body| {
        assert_eq!(parts.headers["content-length"], body.len().to_string());
        assert!(!parts.headers.contains_key("transfer-encoding"));
        assert_eq!(parts.headers["content-type"], "application/json");
        assert_eq!(parts.headers["x-goog-api-key"], KEY);
        assert_eq!(parts.uri.query(), Some("alt=json"));
        let asked: Value = serde_json::from_slice(&body).unwrap();
        Response::new(Full::new(Bytes::from(json!({ "asked": asked }).to_string())))
    })
    .await;
    let request = client()
        .post(format!("http://{address}/v1beta/models/m:generateContent?alt=json"))
        .header("x-goog-api-key", KEY)
        .json(&json!({ "contents": [] }));
    let response = plain().send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.content_length(), Some(25));
    assert_eq!(response.url().path(), "/v1beta/models/m:generateContent");
    assert_eq!(response.json::<Value>().await.unwrap(), json!({ "asked": { "contents": [] } }));
}

#[tokio::test]
async fn a_request_without_a_body_stays_without_one() {
    let address = serve(|parts, body| {
        assert!(!parts.headers.contains_key("content-length"));
        assert!(!parts.headers.contains_key("transfer-encoding"));
        assert!(body.is_empty());
        Response::new(Full::new(Bytes::new()))
    })
    .await;
    assert!(plain().send(client().get(format!("http://{address}/"))).await.unwrap().status().is_success());
}

#[tokio::test]
async fn a_streamed_answer_arrives_as_it_is_sent() {
    let (go_on, wait) = oneshot::channel::<()>();
    let wait = Arc::new(Mutex::new(Some(wait)));
    let address = serve(move |_, _| {
        let wait = wait.lock().unwrap().take().unwrap();
        let chunks =
            stream::once(async { Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"data: 1\n\n"))) })
                .chain(stream::once(async move {
                    // Only when the client has the first chunk in its hands.
                    wait.await.unwrap();
                    Ok(Frame::data(Bytes::from_static(b"data: 2\n\n")))
                }));
        Response::new(StreamBody::new(chunks))
    })
    .await;
    let response = plain().send(client().get(format!("http://{address}/"))).await.unwrap();
    assert_eq!(response.content_length(), None);
    let mut chunks = response.bytes_stream();
    assert_eq!(chunks.next().await.unwrap().unwrap(), "data: 1\n\n");
    go_on.send(()).unwrap();
    assert_eq!(chunks.next().await.unwrap().unwrap(), "data: 2\n\n");
    assert!(chunks.next().await.is_none());
}

#[tokio::test]
async fn extensions_survive_in_both_directions() {
    #[derive(Clone, Debug, PartialEq)]
    struct Attempts(u32);
    #[derive(Clone, Debug, PartialEq)]
    struct Tag(&'static str);

    let address = serve(|_, _| Response::new(Full::new(Bytes::new()))).await;
    let stack = ServiceBuilder::new()
        .map_request(|request: Request<ReplayBody<reqwest::Body>>| {
            assert!(request.extensions().get::<Replay>().is_some());
            assert_eq!(request.extensions().get::<Tag>(), Some(&Tag("mine")));
            request
        })
        .map_response(|mut response: Response<reqwest::Body>| {
            response.extensions_mut().insert(Attempts(3));
            response
        })
        .service(ReqwestService::new(client()));
    // The only way to put one into a `reqwest::Request`.
    let request = Request::get(format!("http://{address}/")).extension(Tag("mine")).body("").unwrap();
    let request = reqwest::Request::try_from(request).unwrap();
    let response = ReqwestClient::new(stack).execute(request).await.unwrap();
    assert_eq!(response.extensions().get::<Attempts>(), Some(&Attempts(3)));
    assert!(response.remote_addr().is_some(), "reqwest's own extensions as well");
}

#[tokio::test]
async fn the_url_after_a_redirect_survives_and_its_key_does_not() {
    let address = serve(|parts, _| {
        let response = Response::builder();
        let response = match parts.uri.path() {
            "/here" => response.status(302).header("location", format!("/there?key={KEY}&alt=sse")),
            _ => response.status(400),
        };
        response.body(Full::new(Bytes::from_static(b"no json"))).unwrap()
    })
    .await;
    let there = format!("http://{address}/there?key=redacted&alt=sse");

    let request = Request::get(format!("http://{address}/here")).body(Full::<Bytes>::default()).unwrap();
    let response = ReqwestService::new(client()).oneshot(request).await.unwrap();
    assert_eq!(response.extensions().get::<FinalUrl>().unwrap().get().as_str(), there);

    for read in [0, 1] {
        let response = plain().send(client().get(format!("http://{address}/here?key={KEY}"))).await.unwrap();
        assert_eq!(response.url().as_str(), there);
        // What people do next, and what puts the URL into an error.
        let error = match read {
            0 => response.error_for_status().unwrap_err(),
            _ => response.json::<Value>().await.unwrap_err(),
        };
        assert!(printed(&error).contains("/there"));
        assert!(!printed(&error).contains(KEY), "{error:?}");
    }
}

#[tokio::test]
async fn what_differs_for_one_call_reaches_the_layers() {
    let stack = service_fn(async |request: Request<ReplayBody<reqwest::Body>>| {
        let options = request.extensions();
        let label = options.get::<KeyLabel>().map(|label| label.as_str().to_owned());
        let told = (label, options.get::<RequestClass>().copied(), options.get::<Deadline>().is_some());
        assert_eq!(request.headers()["content-type"], "application/json");
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("{told:?}")))))
    });
    let gemini = ReqwestClient::new(stack);
    let ask = || client().post("http://gemini.test/").json(&json!({}));
    let options = CallOptions::new().label("batch").class(RequestClass::Batch).within(Duration::from_secs(9));
    let response = gemini.send_with(&options, ask()).await.unwrap();
    assert_eq!(response.text().await.unwrap(), r#"(Some("batch"), Some(Batch), true)"#);
    let response = gemini.send(ask()).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "(None, None, false)");
}

#[tokio::test]
async fn a_stack_without_reqwest_at_its_bottom_shows_the_url_that_was_asked_for() {
    let stack = service_fn(async |request: Request<ReplayBody<reqwest::Body>>| {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    let request = client().post(format!("http://gemini.test/echo?key={KEY}")).body("hello");
    let response = ReqwestClient::new(stack).send(request).await.unwrap();
    assert_eq!(response.url().as_str(), "http://gemini.test/echo?key=redacted");
    assert_eq!(response.text().await.unwrap(), "hello");
}

// ===== Repeating =====

/// Repeats everything that is not a success, as a retry layer would.
#[derive(Clone)]
struct Again(u32);

impl<B, R, E> tower::retry::Policy<Request<ReplayBody<B>>, Response<R>, E> for Again {
    type Future = std::future::Ready<()>;

    fn retry(
        &mut self,
        request: &mut Request<ReplayBody<B>>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<Self::Future> {
        let lost = request.extensions().get::<Replay>().is_some_and(Replay::is_lost);
        let good = result.as_ref().is_ok_and(|response| response.status().is_success());
        if lost || good || self.0 == 0 {
            return None;
        }
        self.0 -= 1;
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<ReplayBody<B>>) -> Option<Request<ReplayBody<B>>> {
        Some(request.clone())
    }
}

/// Answers 503 twice, then 200, and reports each request's headers and body.
async fn third_time_lucky() -> (SocketAddr, mpsc::UnboundedReceiver<(HeaderMap, Bytes)>) {
    let (seen, received) = mpsc::unbounded_channel();
    let calls = Arc::new(AtomicUsize::new(0));
    let address = serve(move |parts, body| {
        seen.send((parts.headers, body)).unwrap();
        let status = if calls.fetch_add(1, Ordering::SeqCst) < 2 { 503 } else { 200 };
        Response::builder().status(status).body(Full::<Bytes>::default()).unwrap()
    })
    .await;
    (address, received)
}

#[tokio::test]
async fn a_body_in_memory_is_sent_three_times_with_its_length() {
    let (address, mut received) = third_time_lucky().await;
    let stack = ServiceBuilder::new().retry(Again(5)).service(ReqwestService::new(client()));
    let request = client().post(format!("http://{address}/")).json(&json!({ "a": 1 }));
    assert_eq!(ReqwestClient::new(stack).send(request).await.unwrap().status(), 200);
    for _ in 0..3 {
        let (headers, body) = received.recv().await.unwrap();
        assert_eq!((&headers["content-length"], &body[..]), (&"7".parse().unwrap(), &b"{\"a\":1}"[..]));
    }
}

fn streamed() -> reqwest::Body {
    reqwest::Body::wrap_stream(stream::iter(["one ", "two ", "three"].map(Ok::<_, Infallible>)))
}

#[tokio::test]
async fn a_streamed_body_is_sent_three_times() {
    let (address, mut received) = third_time_lucky().await;
    let stack = ServiceBuilder::new().retry(Again(5)).service(ReqwestService::new(client()));
    let request = client().post(format!("http://{address}/")).body(streamed());
    assert_eq!(ReqwestClient::new(stack).send(request).await.unwrap().status(), 200);
    // Nobody knew the length before it was read once.
    for header in [("transfer-encoding", "chunked"), ("content-length", "13"), ("content-length", "13")] {
        let (headers, body) = received.recv().await.unwrap();
        assert_eq!((&headers[header.0], &body[..]), (&header.1.parse().unwrap(), &b"one two three"[..]));
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_sent_whole_and_once() {
    let (address, mut received) = third_time_lucky().await;
    let stack = ServiceBuilder::new().retry(Again(5)).service(ReqwestService::new(client()));
    let request = client().post(format!("http://{address}/")).body(streamed());
    let response = ReqwestClient::new(stack).max_replay_bytes(12).send(request).await.unwrap();
    assert_eq!(response.status(), 503, "the real answer, not an error of ours");
    assert_eq!(received.recv().await.unwrap().1, "one two three");
    assert!(received.try_recv().is_err());
}

#[tokio::test]
async fn the_bytes_of_a_body_in_memory_are_never_copied() {
    let bytes = Bytes::from(vec![b'x'; 1000]);
    let address = bytes.as_ptr() as usize;
    let stack = service_fn(move |request: Request<ReplayBody<reqwest::Body>>| async move {
        for mut copy in [request.body().clone(), request.body().clone()] {
            let frame = copy.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!((frame.as_ptr() as usize, frame.len()), (address, 1000));
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    ReqwestClient::new(stack).send(client().post("http://gemini.test/").body(bytes)).await.unwrap();
}

#[tokio::test]
async fn a_redirect_that_would_send_the_body_again_is_the_callers() {
    let address = serve(|_, _| {
        Response::builder().status(307).header("location", "/there").body(Full::<Bytes>::default()).unwrap()
    })
    .await;
    let response = plain().send(client().post(format!("http://{address}/here")).body("a")).await.unwrap();
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
}

// ===== Failures =====

#[tokio::test]
async fn a_refused_connection_is_connect_at_any_depth() {
    let url = format!("http://{}/?key={KEY}", refused().await);
    let request = Request::post(&url).body(Full::<Bytes>::default()).unwrap();
    let bare = ReqwestService::new(client()).oneshot(request).await.unwrap_err();
    assert!(bare.is_connect() && !bare.is_timeout());
    assert!(bare.url().is_none());

    let error = wrapping!().send(client().post(&url).json(&json!({}))).await.unwrap_err();
    let found = find::<reqwest::Error>(error.as_ref()).expect("behind two boxes");
    assert!(found.is_connect() && found.is_request() && !found.is_timeout());
    for text in [printed(&bare), printed(error.as_ref())] {
        assert!(!text.contains(KEY), "{text}");
    }
}

/// Both futures, dropped while the head is awaited: the server sees the line close.
#[tokio::test]
async fn a_call_dropped_while_it_waits_closes_the_line() {
    for through_the_way_back in [false, true] {
        let ((arrived, has_arrived), (closed, is_closed)) = (oneshot::channel(), oneshot::channel());
        let address = raw(async move |mut stream: TcpStream| {
            let mut bytes = [0; 4096];
            assert!(stream.read(&mut bytes).await.unwrap() > 0);
            arrived.send(()).unwrap();
            // The end, or a reset: either way nobody is there any more.
            while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
            closed.send(()).unwrap();
        })
        .await;
        let url = format!("http://{address}/");
        if through_the_way_back {
            tokio::select! {
                _ = plain().send(client().post(&url).body("{}")) => panic!("nobody answers"),
                _ = has_arrived => {}
            }
        } else {
            let request = Request::post(&url).body(Full::from("{}")).unwrap();
            tokio::select! {
                _ = ReqwestService::new(client()).oneshot(request) => panic!("nobody answers"),
                _ = has_arrived => {}
            }
        }
        // Bounded, so that a line which stays open fails the test and does not hang it.
        tokio::time::timeout(Duration::from_secs(10), is_closed).await.expect("the line closes").unwrap();
    }
}

// Paused time: the only thing left to happen is the timeout, so it happens at once.
#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_request_is_honoured_and_found() {
    let address = raw(async |stream| {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let url = format!("http://{address}/?key={KEY}");
    let start = tokio::time::Instant::now();
    let request = client().post(&url).timeout(Duration::from_secs(30)).body("a");
    let error = wrapping!().send(request).await.unwrap_err();
    assert_eq!((tokio::time::Instant::now() - start).as_secs(), 30);
    let found = find::<reqwest::Error>(error.as_ref()).expect("behind two boxes");
    assert!(found.is_timeout() && !found.is_connect());
    assert!(!printed(error.as_ref()).contains(KEY));
}

#[tokio::test]
async fn the_timeout_of_a_request_covers_the_body_of_its_answer() {
    let address = raw(async |mut stream| {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let request = client().get(format!("http://{address}/?key={KEY}")).timeout(Duration::from_secs(30));
    let response = wrapping!().send(request).await.unwrap();
    // Not before the head is here, else paused time would overtake the socket.
    tokio::time::pause();
    let error = response.bytes().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(!printed(&error).contains(KEY));
}

#[tokio::test]
async fn a_line_that_is_cut_before_the_head_is_no_connect_error() {
    let address = raw(async |mut stream| {
        read_head(&mut stream).await;
    })
    .await;
    let error = wrapping!().send(client().get(format!("http://{address}/?key={KEY}"))).await.unwrap_err();
    let found = find::<reqwest::Error>(error.as_ref()).expect("behind two boxes");
    assert!(found.is_request() && !found.is_connect() && !found.is_timeout());
    let hyper = find::<hyper::Error>(error.as_ref()).expect("hyper's own error is further down");
    assert!(hyper.is_incomplete_message());
    assert!(!printed(error.as_ref()).contains(KEY));
}

#[tokio::test]
async fn a_line_that_is_cut_mid_body_is_an_error_of_the_body() {
    let address = raw(async |mut stream| {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
    })
    .await;
    let response = plain().send(client().get(format!("http://{address}/?key={KEY}"))).await.unwrap();
    assert_eq!(response.content_length(), Some(100));
    let mut chunks = response.bytes_stream();
    let mut got = Vec::new();
    let error = loop {
        match chunks.next().await.expect("a cut must not look like an end") {
            Ok(chunk) => got.extend_from_slice(&chunk),
            Err(error) => break error,
        }
    };
    assert_eq!(got, b"half");
    assert!(error.is_body() || error.is_decode(), "{error:?}");
    assert!(find::<hyper::Error>(&error).is_some(), "{error:?}");
    let io = find::<std::io::Error>(&error).map(std::io::Error::kind);
    assert_eq!(io, Some(std::io::ErrorKind::UnexpectedEof), "{error:?}");
    assert!(!printed(&error).contains(KEY));
}

#[tokio::test]
async fn errors_of_building_are_the_builders() {
    let scheme = client().get(format!("gopher://h/?key={KEY}"));
    let no_json = client().post("http://h/").json(&std::collections::HashMap::from([((1, 2), 3)]));
    for builder in [client().get("no url"), no_json, scheme] {
        let error = plain().send(builder).await.unwrap_err();
        assert!(error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_builder), "{error:?}");
        assert!(!printed(error.as_ref()).contains(KEY), "{error:?}");
    }
    let relative = Request::get(format!("/?key={KEY}")).body(Full::<Bytes>::default()).unwrap();
    let error = ReqwestService::new(client()).oneshot(relative).await.unwrap_err();
    assert!(error.is_builder());
    assert!(!printed(&error).contains(KEY));
    let verdict = tower_gemini::Verdict::from_error(&error);
    assert_eq!(verdict.kind(), Some(tower_gemini::Kind::Usage));
    assert_eq!(verdict.retryability(), tower_gemini::verdict::Retryability::Never);
}

#[test]
fn nothing_prints_the_key() {
    let headers = HeaderMap::from_iter([("x-goog-api-key".parse().unwrap(), KEY.parse().unwrap())]);
    let client = reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap();
    assert!(format!("{client:?}").contains(KEY), "else this test proves nothing");
    let mut service = ReqwestService::new(client);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let request = Request::get(format!("http://h/?key={KEY}")).body(Full::<Bytes>::default()).unwrap();
    let future = service.call(request);
    assert!(!format!("{service:?} {future:?} {:?}", ReqwestClient::new(service.clone())).contains(KEY));
}

// ===== Tower's contract =====

#[tokio::test]
async fn the_stack_is_polled_ready_before_each_call() {
    // `ConcurrencyLimit` panics when it is called unready, and forgets readiness on clone.
    let address = serve(|_, _| Response::new(Full::new(Bytes::new()))).await;
    let stack = ServiceBuilder::new().concurrency_limit(1).service(ReqwestService::new(client()));
    let client_of_stack = ReqwestClient::new(stack);
    for _ in 0..3 {
        client_of_stack.send(client().get(format!("http://{address}/"))).await.unwrap();
    }
}

#[tokio::test]
async fn the_future_is_send_also_for_a_stack_that_is_not_sync() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let stack: BoxCloneService<Request<ReplayBody<reqwest::Body>>, _, _> =
        BoxCloneService::new(ReqwestService::new(client()));
    let address = serve(|_, _| Response::new(Full::new(Bytes::from_static(b"hi")))).await;
    let response =
        send(ReqwestClient::new(stack).send(client().get(format!("http://{address}/")))).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "hi");
}
