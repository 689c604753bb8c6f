//! Any body of a 200, looked at before it is handed on: every frame comes as it was sent, what is called a failure is one by
//! the bytes that were held, and everything else ends as it does without a look.
//!
//! The first byte chooses how far is looked, what is asked for, how the body ends and whether frames are waited for, the
//! next two the sizes of the frames, which take turns; the rest is the body.
#![no_main]

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use tower_gemini::classify::{ClassifyLayer, Peek};
use tower_gemini::verdict::{Outcome, Usage};
use tower_gemini::{Kind, Verdict};
use tower_layer::Layer;
use tower_service::Service;

const STREAM: &str = "http://127.0.0.1/v1beta/models/m:streamGenerateContent";
const UNARY: &str = "http://127.0.0.1/v1beta/models/m:generateContent";

fuzz_target!(|data: &[u8]| {
    let [how, first, second, body @ ..] = data else { return };
    let given = Given {
        uri: if how & 1 == 0 { STREAM } else { UNARY },
        events: how & 2 != 0,
        lost: how & 4 != 0,
        waits: how & 8 != 0,
        frames: cut(body, [*first, *second]),
    };
    let mut layer = ClassifyLayer::new().peek(Peek::Off).watch();
    let plain = pass(layer, &given);
    assert!(plain.verdict.is_success() && plain.held == 0);
    for peek in [Peek::FirstEvent, Peek::Output] {
        layer = layer.peek(peek);
        check(&pass(layer, &given), &given, &plain);
    }
});

fn cut(body: &[u8], sizes: [u8; 2]) -> Vec<Bytes> {
    let (mut frames, mut rest) = (Vec::new(), body);
    let mut sizes = sizes.map(|size| usize::from(size) + 1).into_iter().cycle();
    while !rest.is_empty() {
        let (frame, after) = rest.split_at(rest.len().min(sizes.next().expect("they take turns")));
        frames.push(Bytes::copy_from_slice(frame));
        rest = after;
    }
    frames
}

#[derive(Clone)]
struct Given {
    uri: &'static str,
    events: bool,
    lost: bool,
    waits: bool,
    frames: Vec<Bytes>,
}

struct Passed {
    verdict: Verdict,
    /// Frames that had been taken when the head was handed on.
    held: usize,
    outcome: Option<Outcome>,
    usage: Option<Usage>,
    headers: HeaderMap,
}

fn check(seen: &Passed, given: &Given, plain: &Passed) {
    if seen.verdict.is_success() {
        assert_eq!((seen.outcome, seen.usage), (plain.outcome, plain.usage));
        return;
    }
    assert!(!seen.verdict.after_output());
    assert_eq!(seen.verdict.http_status(), Some(StatusCode::OK));
    let held = Bytes::from(given.frames[..seen.held].concat());
    let lost = given.lost && seen.verdict.kind() == Some(Kind::Transport);
    // Of what is no JSON, and of no body at all, the two readers may think differently.
    if lost || held.iter().all(u8::is_ascii_whitespace) || !is_json(&held) {
        return;
    }
    let whole = Verdict::from_parts(StatusCode::OK, &seen.headers, held);
    assert_eq!(seen.verdict.kind(), whole.kind());
    assert_eq!(seen.verdict.retryability(), whole.retryability());
    assert_eq!(seen.verdict.server_delay(), whole.server_delay());
    assert!(!whole.after_output());
}

/// Whether the body is one text of JSON, or events with one each.
fn is_json(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    let valid = |text: &str| serde_json::from_str::<IgnoredAny>(text).is_ok();
    let mut events = text.split("\n\n").filter(|event| !event.is_empty());
    valid(text)
        || events.all(|event| {
            event.strip_prefix("data: ").is_some_and(|json| !json.contains(['\r', '\n']) && valid(json))
        })
}

/// Through the layer; everything that was sent must come, frame by frame.
fn pass(layer: ClassifyLayer, given: &Given) -> Passed {
    let taken = Arc::new(AtomicUsize::new(0));
    let mut service = layer.layer(Canned(given.clone(), Arc::clone(&taken)));
    let mut cx = Context::from_waker(Waker::noop());
    let request = Request::post(given.uri).body(()).expect("a request");
    let mut call = pin!(service.call(request));
    let response = loop {
        if let Poll::Ready(response) = call.as_mut().poll(&mut cx) {
            break response.expect("the service never fails");
        }
    };
    let (verdict, held) = (Verdict::of(&response), taken.load(Ordering::Relaxed));
    let headers = response.headers().clone();
    let mut body = pin!(response.into_body());
    let (mut frames, mut lost) = (Vec::new(), false);
    loop {
        assert!(!body.is_end_stream() || frames.len() == given.frames.len());
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                frames.push(frame.into_data().expect("nothing but data was sent"))
            }
            Poll::Ready(Some(Err(_))) => lost = true,
            Poll::Ready(None) => break,
        }
    }
    assert_eq!(frames, given.frames);
    assert_eq!(lost, given.lost);
    Passed { outcome: verdict.outcome(), usage: verdict.usage(), verdict, held, headers }
}

struct Canned(Given, Arc<AtomicUsize>);

impl Service<Request<()>> for Canned {
    type Response = Response<Frames>;
    type Error = io::Error;
    type Future = Ready<io::Result<Response<Frames>>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Request<()>) -> Self::Future {
        let Given { events, lost, waits, ref mut frames, .. } = self.0;
        let frames = std::mem::take(frames).into();
        let mut response =
            Response::new(Frames { frames, lost, waits, waited: false, taken: self.1.clone() });
        let content_type = if events { "text/event-stream" } else { "application/json" };
        response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
        ready(Ok(response))
    }
}

struct Frames {
    frames: VecDeque<Bytes>,
    lost: bool,
    /// Each frame makes its reader wait once.
    waits: bool,
    waited: bool,
    taken: Arc<AtomicUsize>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = io::Error;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.waited = self.waits && !self.waited;
        if self.waited {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(data) = self.frames.pop_front() {
            self.taken.fetch_add(1, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let lost = std::mem::take(&mut self.lost);
        Poll::Ready(lost.then(|| Err(io::ErrorKind::ConnectionReset.into())))
    }
}
