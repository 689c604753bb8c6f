//! Streams that broke off are gone on with where the caller said so: what is delivered, what is asked, what it costs, and when it is left alone.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::{Layer, Service, ServiceExt};
use tower_gemini::event::{Event, Observer};
use tower_gemini::resume::{ResumeLayer, ResumeMode, Resumed};
use tower_gemini::retry::ReplayLayer;
use tower_gemini::stack::GeminiStack;
use tower_gemini::{BoxError, Deadline};

type Body = Full<Bytes>;
type Frames = Vec<Result<Bytes, io::Error>>;
type Streamed =
    StreamBody<std::pin::Pin<Box<dyn stream::Stream<Item = Result<Frame<Bytes>, io::Error>> + Send>>>;

/// Answers each call by the next script; what it was asked is kept.
#[derive(Clone, Default)]
struct Server {
    scripts: Arc<Mutex<VecDeque<(u16, Frames)>>>,
    asked: Arc<Mutex<Vec<Bytes>>>,
}

impl Server {
    fn new(scripts: impl IntoIterator<Item = Frames>) -> Self {
        let server = Self::default();
        scripts.into_iter().for_each(|frames| server.then(200, frames));
        server
    }

    fn then(&self, status: u16, frames: Frames) {
        self.scripts.lock().unwrap().push_back((status, frames));
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().iter().map(|body| serde_json::from_slice(body).unwrap()).collect()
    }

    fn service<B>(
        &self,
    ) -> impl Service<Request<B>, Response = Response<Streamed>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + use<B>
    where
        B: http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send + 'static,
    {
        let server = self.clone();
        tower::service_fn(move |request: Request<B>| {
            let server = server.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                server.asked.lock().unwrap().push(body);
                let script = server.scripts.lock().unwrap().pop_front();
                let (status, frames) = script
                    .ok_or_else(|| BoxError::from(io::Error::from(io::ErrorKind::ConnectionRefused)))?;
                // One frame at a time: each is read by itself.
                let frames = stream::iter(frames).then(async |frame| {
                    tokio::task::yield_now().await;
                    frame.map(Frame::data)
                });
                let body: Streamed = StreamBody::new(Box::pin(frames));
                let response = Response::builder().status(status).header("content-type", "text/event-stream");
                Ok::<_, BoxError>(response.body(body).unwrap())
            }
        })
    }
}

fn event(part: &Value, end: Option<&str>) -> Bytes {
    let mut candidate = json!({ "content": { "role": "model", "parts": [part] } });
    if let Some(end) = end {
        candidate["finishReason"] = end.into();
    }
    format!("data: {}\r\n\r\n", json!({ "candidates": [candidate] })).into()
}

fn text(text: &str) -> Result<Bytes, io::Error> {
    Ok(event(&json!({ "text": text }), None))
}

fn end(text: &str) -> Result<Bytes, io::Error> {
    Ok(event(&json!({ "text": text }), Some("STOP")))
}

fn lost() -> Result<Bytes, io::Error> {
    Err(io::ErrorKind::ConnectionReset.into())
}

fn error(code: u16, status: &str) -> Result<Bytes, io::Error> {
    Ok(format!("data: {}\r\n\r\n", json!({ "error": { "code": code, "status": status, "message": "m" } }))
        .into())
}

fn request() -> Request<Body> {
    let body = json!({ "contents": [{ "role": "user", "parts": [{ "text": "A story." }] }] });
    Request::post("https://h/v1beta/models/gemini-9-flash:streamGenerateContent?alt=sse")
        .body(Full::from(body.to_string()))
        .unwrap()
}

/// What a caller has read.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    text: String,
    /// Comments among it.
    marks: Vec<String>,
    error: Option<String>,
    times: u32,
    billed: u32,
}

async fn read<S, RB>(service: S, request: Request<Body>) -> Read
where
    S: Service<Request<Body>, Response = Response<RB>, Error = BoxError>,
    RB: http_body::Body<Data = Bytes, Error = BoxError>,
{
    let response = service.oneshot(request).await.unwrap();
    let resumed = Resumed::of(&response);
    let mut body = std::pin::pin!(response.into_body());
    let (mut bytes, mut failed) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap()),
            Err(error) => failed = Some(error.to_string()),
        }
    }
    let (mut text, mut marks) = (String::new(), Vec::new());
    for line in std::str::from_utf8(&bytes).unwrap().lines() {
        if let Some(data) = line.strip_prefix("data: ") {
            if let Ok(value) = serde_json::from_str::<Value>(data) {
                text += value
                    .pointer("/candidates/0/content/parts/0/text")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
            }
        } else if line.starts_with(':') {
            marks.push(line.to_owned());
        }
    }
    let (times, billed) = resumed.map_or((0, 0), |resumed| (resumed.times(), resumed.billed()));
    Read { text, marks, error: failed, times, billed }
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_behind_the_text_so_far() {
    let server = Server::new([vec![text("Once "), text("upon "), lost()], vec![text("a "), end("time.")]]);
    let read = read(ResumeLayer::continuing().layer(server.service()), request()).await;
    assert_eq!(read.text, "Once upon a time.");
    assert_eq!((read.error, read.times, read.billed), (None, 1, 1));
    assert_eq!(read.marks, [": tower-gemini continued"]);
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1]["contents"][0], asked[0]["contents"][0]);
    assert_eq!(asked[1]["contents"][1], json!({ "role": "model", "parts": [{ "text": "Once upon " }] }));
}

#[tokio::test(start_paused = true)]
async fn it_begins_anew_and_says_so() {
    let server = Server::new([vec![text("One "), lost()], vec![text("Two "), end("three.")]]);
    let read = read(ResumeLayer::restarting().layer(server.service()), request()).await;
    assert_eq!((read.text.as_str(), read.times, read.billed), ("One Two three.", 1, 1));
    assert_eq!(read.marks, [": tower-gemini restarted"]);
    assert_eq!(server.asked()[0], server.asked()[1], "the same request");
}

/// In each way that is one, and not in the others.
#[tokio::test(start_paused = true)]
async fn what_is_broken_off() {
    let call = json!({ "functionCall": { "name": "f", "args": {} } });
    let blocked = || Ok(Bytes::from_static(b"data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n"));
    for (name, frames, calls) in [
        ("a connection that is lost", vec![text("x"), lost()], 2),
        ("an end without a reason", vec![text("x")], 2),
        ("half an event", vec![text("x"), Ok(Bytes::from_static(b"data: {\"candi"))], 2),
        ("a 503 in the stream", vec![text("x"), error(503, "UNAVAILABLE")], 2),
        ("a 500 in the stream", vec![text("x"), error(500, "INTERNAL")], 2),
        ("a 400 in the stream", vec![text("x"), error(400, "INVALID_ARGUMENT")], 1),
        ("an end", vec![text("x"), end("y")], 1),
        ("lost behind the end", vec![text("x"), end("y"), lost()], 1),
        ("blocked", vec![blocked()], 1),
        ("cut by its length", vec![Ok(event(&json!({ "text": "x" }), Some("MAX_TOKENS")))], 1),
        ("a call of a function", vec![Ok(event(&call, None)), lost()], 1),
    ] {
        let server = Server::new([frames, vec![end("z")]]);
        let read = read(ResumeLayer::continuing().layer(server.service()), request()).await;
        assert_eq!(server.asked().len(), calls, "{name}");
        assert_eq!(read.text.contains('z'), calls == 2, "{name}: {read:?}");
        assert!(calls == 1 || read.error.is_none(), "{name}: {read:?}");
    }
    // To begin anew does not need the text.
    let server = Server::new([vec![Ok(event(&call, None)), lost()], vec![end("z")]]);
    assert_eq!(read(ResumeLayer::restarting().layer(server.service()), request()).await.times, 1);
}

/// Without help it ends as without the layer: byte for byte, and with its own error.
#[tokio::test(start_paused = true)]
async fn where_the_further_call_fails_it_ends_as_it_broke() {
    let half = || Ok(Bytes::from_static(b"data: {\"candi"));
    for status in [None, Some(503)] {
        for last in [lost(), error(503, "UNAVAILABLE")] {
            let is_lost = last.is_err();
            let tail = last.as_ref().map_or_else(|_| b"data: {\"candi".to_vec(), |event| event.to_vec());
            let frames = if is_lost { vec![text("x"), half(), last] } else { vec![text("x"), last] };
            let server = Server::new([frames]);
            if let Some(status) = status {
                server.then(status, vec![]);
            }
            let response =
                ResumeLayer::continuing().layer(server.service()).oneshot(request()).await.unwrap();
            let resumed = Resumed::of(&response).unwrap();
            let mut body = response.into_body();
            let (mut bytes, mut failed) = (Vec::new(), false);
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap()),
                    Err(error) => failed = error.downcast_ref::<io::Error>().is_some(),
                }
            }
            assert!(bytes.ends_with(&tail), "{}", String::from_utf8_lossy(&bytes));
            assert_eq!((failed, resumed.times(), server.asked().len()), (is_lost, 0, 2));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_often_than_was_said() {
    for most in [1, 3] {
        let server = Server::new((0..9).map(|n| vec![text(&n.to_string()), lost()]));
        let layer = ResumeLayer::builder(ResumeMode::Continue).most(most).build().unwrap();
        let read = read(layer.layer(server.service()), request()).await;
        assert_eq!((read.times, read.billed), (most, most));
        assert_eq!(server.asked().len() as u32, most + 1);
        assert!(read.error.is_some());
        let last = &server.asked()[most as usize]["contents"][1]["parts"][0]["text"];
        assert_eq!(last.as_str().unwrap().len() as u32, most, "all that was said so far");
    }
}

/// Ten at first, and then one for ten streams that ended well: all clones share it.
#[tokio::test(start_paused = true)]
async fn the_budget_bounds_an_outage() {
    let layer = ResumeLayer::continuing();
    for n in 0..30 {
        let server = Server::new([vec![text("x"), lost()], vec![end("y")]]);
        let read = read(layer.clone().layer(server.service()), request()).await;
        // Each that was gone on with ended well, and paid a tenth.
        assert_eq!(read.times, u32::from(n < 11), "{n}");
    }
    for _ in 0..10 {
        read(layer.layer(Server::new([vec![end("x")]]).service()), request()).await;
    }
    let server = Server::new([vec![text("x"), lost()], vec![end("y")]]);
    assert_eq!(read(layer.layer(server.service()), request()).await.times, 1);
}

#[tokio::test(start_paused = true)]
async fn what_it_does_not_follow_passes_through() {
    let off = ResumeLayer::builder(ResumeMode::Continue).enabled(false).build().unwrap();
    let server = Server::new([vec![text("x"), lost()]]);
    assert!(read(off.layer(server.service()), request()).await.error.is_some());

    let unary = request().map(|body| body);
    let (mut head, body) = unary.into_parts();
    head.uri = "https://h/v1beta/models/gemini-9-flash:generateContent".parse().unwrap();
    let server = Server::new([vec![text("x"), lost()]]);
    let read_unary =
        read(ResumeLayer::continuing().layer(server.service()), Request::from_parts(head, body)).await;
    assert_eq!((read_unary.times, read_unary.error.is_some()), (0, true));

    let two = request().map(|_| Full::from(r#"{"contents":[],"generationConfig":{"candidateCount":2}}"#));
    let server = Server::new([vec![text("x"), lost()], vec![end("y")]]);
    let read = read(ResumeLayer::continuing().layer(server.service()), two).await;
    assert_eq!((read.times, server.asked().len()), (0, 1));
    assert!(read.error.is_some());
}

#[tokio::test(start_paused = true)]
async fn not_behind_the_deadline() {
    let server = Server::new([vec![text("x"), lost()], vec![end("y")]]);
    let mut late = request();
    late.extensions_mut().insert(Deadline::at(tokio::time::Instant::now() - Duration::from_secs(1)));
    let read = read(ResumeLayer::continuing().layer(server.service()), late).await;
    assert_eq!((read.times, server.asked().len()), (0, 1));
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);
impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::StreamResumed { key, restarted, verdict, delivered, billed, .. } = event {
            let line =
                format!("{:?} {restarted} {:?} {delivered} {billed}", key.model(), verdict.kind().unwrap());
            self.0.lock().unwrap().push(line);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_is_told_what_it_cost() {
    let log = Arc::new(Log::default());
    let layer = ResumeLayer::builder(ResumeMode::Continue).observer(Arc::clone(&log) as Arc<dyn Observer>);
    let server = Server::new([vec![text("four"), error(503, "UNAVAILABLE")], vec![end("y")]]);
    read(layer.build().unwrap().layer(server.service()), request()).await;
    assert_eq!(*log.0.lock().unwrap(), ["Some(\"gemini-9-flash\") false Unavailable 4 1"]);
}

/// Around the stack: a silence that the timeout ends, a further call whose first attempts fail, and a body that is replayed.
#[tokio::test(start_paused = true)]
async fn around_the_stack_its_retries_count_for_the_further_call() {
    let server = Server::new([vec![text("Once "), lost()]]);
    server.then(503, vec![]);
    server.then(200, vec![end("upon.")]);
    let stack = GeminiStack::new().service(server.service::<Body>());
    let read_one = read(ResumeLayer::continuing().layer(stack), request()).await;
    assert_eq!((read_one.text.as_str(), read_one.times, read_one.error), ("Once upon.", 1, None));
    assert_eq!(server.asked().len(), 3);

    let server = Server::new([vec![text("Once "), lost()], vec![end("upon.")]]);
    let stack = GeminiStack::new().service(server.service());
    let service = ReplayLayer::new().layer(ResumeLayer::continuing().layer(stack));
    let response = service.oneshot(request()).await.unwrap();
    assert!(response.into_body().collect().await.is_ok());
    assert_eq!(server.asked()[1]["contents"][1]["parts"][0]["text"], "Once ");
}

#[test]
fn bad_settings_are_named_with_their_rule() {
    let of = |builder: tower_gemini::resume::ResumeBuilder| builder.build().unwrap_err().to_string();
    let builder = || ResumeLayer::builder(ResumeMode::Restart);
    assert_eq!(of(builder().most(0)), "invalid setting `most`: must be from 1 to 5");
    assert_eq!(of(builder().budget(f64::NAN)), "invalid setting `budget`: must be from 0 to 1");
    assert_eq!(
        of(builder().max_text_bytes(1)),
        "invalid setting `max_text_bytes`: must be from 1 KiB to 16 MiB"
    );
}

proptest! {
    // Wherever it breaks, wherever the frames are cut, and wherever the reader leaves: the texts are those of the calls in their order, no event is
    // delivered in half, and nobody hangs.
    #[test]
    fn the_texts_of_all_calls_in_their_order(
        first in proptest::collection::vec("[a-z]{1,5}", 0..5),
        second in proptest::collection::vec("[a-z]{1,5}", 0..5),
        cuts in proptest::collection::vec(0..300_usize, 0..8),
        cut_off in 0..30_usize,
        leaves in proptest::option::weighted(0.2, 0..6_usize),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut bytes: Vec<u8> = first.iter().flat_map(|one| text(one).unwrap()).collect();
            // The last event may be cut short: then it was never said.
            let half = text("lost").unwrap();
            bytes.extend_from_slice(&half[..cut_off]);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let bytes = Bytes::from(bytes);
            let mut frames: Frames = cuts.windows(2).map(|cut| Ok(bytes.slice(cut[0]..cut[1]))).collect();
            frames.push(lost());
            let mut rest: Frames = second.iter().map(|one| text(one)).collect();
            rest.push(end("!"));
            let server = Server::new([frames, rest]);
            let service = ResumeLayer::continuing().layer(server.service());
            if let Some(frames) = leaves {
                let mut body = service.oneshot(request()).await.unwrap().into_body();
                for _ in 0..frames {
                    let _ = body.frame().await;
                }
                return Ok(());
            }
            let read = read(service, request()).await;
            prop_assert_eq!(&read.text, &format!("{}{}!", first.concat(), second.concat()));
            prop_assert_eq!((read.error, read.times), (None, 1));
            let so_far = server.asked()[1]["contents"].get(1).map(|turn| turn["parts"][0]["text"].clone());
            prop_assert_eq!(so_far, (!first.is_empty()).then(|| Value::from(first.concat())));
            Ok(())
        })?;
    }
}
