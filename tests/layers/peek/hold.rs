//! What is held, and how long.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use tokio::sync::mpsc;
use tower::{Layer, ServiceExt};
use tower_gemini::classify::{ClassifyBody, ClassifyLayer, Peek};
use tower_gemini::verdict::Outcome;
use tower_gemini::{BoxError, Verdict};

use super::upstream::*;
use crate::support::Body;

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
    let create = || Request::post("http://127.0.0.1/v1beta/interactions").body(Body::default()).unwrap();
    let (mut feed, mut poll) = fed_call(layer(), create());
    feed(
        "event: interaction.created\ndata: {\"event_type\":\"interaction.created\",\"interaction\":{\"id\":\"v1\"}}\n\n",
    );
    assert!(poll().is_none(), "nobody sees that it has begun");
    feed("data: {\"event_type\":\"step.delta\",\"delta\":{\"type\":\"thought_summary\"}}\n\n");
    assert!(poll().is_none(), "a thought");
    feed("data: {\"event_type\":\"step.delta\",\"delta\":{\"type\":\"text\",\"text\":\"Hi\"}}\n\n");
    assert!(poll().is_some());
    // Of a partner's form it cannot be told.
    let (mut feed, mut poll) = fed_call(layer(), create());
    feed("event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m1\"}}\n\n");
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
