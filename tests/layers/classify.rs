//! The classifier layer's promises over services and bodies of every temper.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use support::{Answer, Body, Probe, error, request};
use tokio::time::Instant;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_gemini::classify::{ClassifyBody, ClassifyLayer};
use tower_gemini::verdict::Outcome;
use tower_gemini::{Kind, Verdict};

/// A body that gives its frames one by one, with waits and an end of choice, and counts what is dropped.
struct Script {
    frames: std::collections::VecDeque<Step>,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    polled: Arc<AtomicUsize>,
    exact: Option<u64>,
}

#[derive(Clone)]
enum Step {
    Data(Bytes),
    Wait(Duration),
    Trailers(HeaderMap),
    Fail,
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { frames: steps.into_iter().collect(), sleep: None, polled: Arc::default(), exact: None }
    }
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.polled.fetch_add(1, Ordering::Relaxed);
        loop {
            if let Some(sleep) = &mut self.sleep {
                std::task::ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            return Poll::Ready(match self.frames.pop_front() {
                Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
                Some(Step::Wait(wait)) => {
                    self.sleep = Some(Box::pin(tokio::time::sleep(wait)));
                    continue;
                }
                Some(Step::Trailers(map)) => Some(Ok(Frame::trailers(map))),
                Some(Step::Fail) => Some(Err(std::io::ErrorKind::ConnectionReset.into())),
                None => None,
            });
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

async fn classify(layer: ClassifyLayer, status: u16, body: Script) -> Response<ClassifyBody<Script>> {
    classify_response(layer, Response::builder().status(status).body(body).unwrap()).await
}

async fn classify_response(
    layer: ClassifyLayer,
    response: Response<Script>,
) -> Response<ClassifyBody<Script>> {
    let mut response = Some(response);
    let service = service_fn(move |_: Request<()>| {
        std::future::ready(Ok::<_, std::convert::Infallible>(response.take().unwrap()))
    });
    layer.layer(service).oneshot(Request::new(())).await.unwrap()
}

fn chunks(text: &str, size: usize) -> Vec<Step> {
    text.as_bytes().chunks(size).map(|chunk| Step::Data(Bytes::copy_from_slice(chunk))).collect()
}

const OVERLOADED: &str =
    r#"{"error":{"code":503,"message":"The model is overloaded, come back later.","status":"UNAVAILABLE"}}"#;

#[tokio::test(start_paused = true)]
async fn an_error_body_arrives_byte_for_byte_however_it_is_framed() {
    for size in [1, 7, 64, 1000] {
        let response = classify(ClassifyLayer::new(), 503, Script::new(chunks(OVERLOADED, size))).await;
        assert_eq!(Verdict::of(&response).kind(), Some(Kind::Overloaded));
        assert_eq!(response.body().size_hint().lower(), OVERLOADED.len() as u64);
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes, OVERLOADED);
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_and_errors_come_after_the_bytes_they_followed() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", "1".parse().unwrap());
    let steps = chunks(OVERLOADED, 30).into_iter().chain([Step::Trailers(trailers.clone())]);
    let collected =
        classify(ClassifyLayer::new(), 503, Script::new(steps)).await.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers));
    assert_eq!(collected.to_bytes(), OVERLOADED);

    let cut = chunks(&OVERLOADED[..80], 30).into_iter().chain([Step::Fail]);
    let response = classify(ClassifyLayer::new(), 503, Script::new(cut)).await;
    assert_eq!(Verdict::of(&response).kind(), Some(Kind::Overloaded), "judged by what arrived");
    let mut body = response.into_body();
    let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(data, OVERLOADED[..80]);
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the inner error, untouched");
    assert!(body.frame().await.is_none() || body.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_limit_is_judged_by_its_beginning_and_streams_through() {
    let long = format!("{}{}", &OVERLOADED[..OVERLOADED.len() - 2], " ".repeat(5000));
    for size in [50, 500, 10_000] {
        let script = Script::new(chunks(&long, size));
        let polled = Arc::clone(&script.polled);
        let response = classify(ClassifyLayer::new().max_error_bytes(200), 503, script).await;
        assert!(polled.load(Ordering::Relaxed) <= 200 / size + 2, "no more is read than the limit needs");
        assert_eq!(Verdict::of(&response).kind(), Some(Kind::Overloaded));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), long);
    }
    let script = Script::new(chunks(OVERLOADED, 10));
    let polled = Arc::clone(&script.polled);
    let response = classify(ClassifyLayer::new().max_error_bytes(0), 503, script).await;
    assert_eq!(polled.load(Ordering::Relaxed), 0, "a limit of 0 reads nothing");
    assert_eq!(Verdict::of(&response).kind(), Some(Kind::Unavailable), "judged by the status");
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_judged_when_its_time_is_up_and_goes_on_streaming() {
    let start = Instant::now();
    let mut steps = chunks(OVERLOADED, 80);
    steps.insert(1, Step::Wait(Duration::from_secs(3600)));
    let response = classify(ClassifyLayer::new(), 503, Script::new(steps)).await;
    assert_eq!(Instant::now() - start, Duration::from_secs(5), "the default");
    assert_eq!(Verdict::of(&response).kind(), Some(Kind::Overloaded));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), OVERLOADED);

    let start = Instant::now();
    let drip =
        (0..40).flat_map(|_| [Step::Data(Bytes::from_static(b" ")), Step::Wait(Duration::from_millis(200))]);
    let layer = ClassifyLayer::new().read_timeout(Duration::from_secs(1));
    let response = classify(layer, 500, Script::new(drip)).await;
    assert_eq!(Instant::now() - start, Duration::from_secs(1), "one limit for the whole, not one per frame");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_success_passes_through_untouched() {
    let script = Script::new(chunks(support::good_body(), 9));
    let polled = Arc::clone(&script.polled);
    let response = classify(ClassifyLayer::new(), 200, script).await;
    assert_eq!(polled.load(Ordering::Relaxed), 0, "nothing is read ahead");
    assert!(response.extensions().is_empty());
    let mut frames = 0;
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frames += 1;
        assert!(frame.unwrap().into_data().unwrap().len() <= 9, "frames are not merged");
    }
    assert_eq!(frames, support::good_body().len().div_ceil(9));
}

#[tokio::test(start_paused = true)]
async fn a_watched_body_publishes_its_end_once() {
    let stream = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hi\"}]}}]}\r\n\r\n";
    let stop = "data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\r\n\r\n";
    let error = "data: {\"error\":{\"code\":503,\"message\":\"The model is overloaded.\",\"status\":\"UNAVAILABLE\"}}\r\n\r\n";
    for (text, outcome) in [
        (format!("{stream}{stop}"), Outcome::Complete),
        (stream.to_owned(), Outcome::Failed(Kind::Truncated)),
        (format!("{stream}{error}"), Outcome::Failed(Kind::Overloaded)),
        (r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#.to_owned(), Outcome::Failed(Kind::ContentBlocked)),
        ("a downloaded file\n".repeat(1000), Outcome::Complete),
        ("no answer of Gemini's".to_owned(), Outcome::Failed(Kind::Unknown)),
    ] {
        for size in [1, 40, 10_000] {
            let response =
                classify(ClassifyLayer::new().watch(), 200, Script::new(chunks(&text, size))).await;
            let verdict = Verdict::of(&response);
            assert_eq!((verdict.kind(), verdict.outcome()), (None, None), "not known yet");
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), text);
            assert_eq!(verdict.outcome(), Some(outcome), "{text:.200}");
        }
    }
    let broken = chunks(stream, 30).into_iter().chain([Step::Fail]);
    let response = classify(ClassifyLayer::new().watch(), 200, Script::new(broken)).await;
    let verdict = Verdict::of(&response);
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(verdict.outcome(), Some(Outcome::Failed(Kind::Transport)));

    let response = classify(ClassifyLayer::new().watch(), 200, Script::new(chunks(stream, 30))).await;
    let verdict = Verdict::of(&response);
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(verdict.outcome(), Some(Outcome::Dropped));
}

fn event(text: &str, rest: &str) -> String {
    format!(
        "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{text}\"}}]}}{rest}}}],\
         \"usageMetadata\":{{\"promptTokenCount\":11,\"toolUsePromptTokenCount\":4,\"cachedContentTokenCount\":3,\
         \"candidatesTokenCount\":{},\"thoughtsTokenCount\":7,\"totalTokenCount\":99}}}}\r\n\r\n",
        text.len()
    )
}

#[tokio::test(start_paused = true)]
async fn a_watched_body_of_any_length_is_judged_by_what_it_says() {
    let long = event(&"word ".repeat(60_000), "");
    for (last, outcome) in [
        (",\"finishReason\":\"STOP\"", Outcome::Complete),
        (",\"finishReason\":\"SAFETY\"", Outcome::Failed(Kind::ContentBlocked)),
        ("", Outcome::Failed(Kind::Truncated)),
    ] {
        let text = format!("{long}{}", event("end", last));
        assert!(text.len() > 256 * 1024, "more than any error body");
        let layer = ClassifyLayer::new().watch().max_error_bytes(0);
        let response = classify(layer, 200, Script::new(chunks(&text, 16_384))).await;
        let verdict = Verdict::of(&response);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), text);
        assert_eq!(verdict.outcome(), Some(outcome));
        assert_eq!(verdict.usage().unwrap().output_tokens, 3, "the last word about it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watched_body_publishes_its_usage_however_it_ends() {
    let (first, second) = (event("four", ""), event("sixsix", ",\"finishReason\":\"STOP\""));
    let steps = [first, second].map(|event| Step::Data(event.into()));
    for (end, outcome, output) in [
        (None, Outcome::Complete, 6),
        (Some(Step::Fail), Outcome::Failed(Kind::Transport), 6),
        (Some(Step::Wait(Duration::MAX)), Outcome::Dropped, 6),
    ] {
        let script = Script::new(steps.clone().into_iter().chain(end));
        let response = classify(ClassifyLayer::new().watch(), 200, script).await;
        let verdict = Verdict::of(&response);
        let mut body = Box::pin(response.into_body());
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(_))) = body.as_mut().poll_frame(&mut cx) {}
        drop(body);
        let usage = verdict.usage().unwrap();
        assert_eq!(verdict.outcome(), Some(outcome));
        assert_eq!((usage.input_tokens, usage.cached_tokens), (15, 3), "results of tools are input");
        assert_eq!((usage.output_tokens, usage.thought_tokens, usage.total_tokens), (output, 7, 99));
    }
    let response = classify(ClassifyLayer::new().watch(), 200, Script::new(steps)).await;
    let verdict = Verdict::of(&response);
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(verdict.usage(), None, "not before the end");
    drop(body);
    assert_eq!(verdict.usage().unwrap().output_tokens, 4, "as far as it was read");
}

#[cfg(feature = "gzip")]
#[tokio::test(start_paused = true)]
async fn a_watched_body_is_read_through_its_gzip_coding_and_handed_on_in_it() {
    use std::io::Write;
    let members =
        [event(&"word ".repeat(30_000), ""), event("end", ",\"finishReason\":\"SAFETY\"")].map(|text| {
            let coder = flate2::GzBuilder::new().filename("a name").extra([1, 2, 3]).comment("a comment");
            let mut coder = coder.write(Vec::new(), flate2::Compression::fast());
            coder.write_all(text.as_bytes()).unwrap();
            coder.finish().unwrap()
        });
    let coded = members.concat();
    let response = |body: &[u8], size| {
        let steps = body.chunks(size).map(|chunk| Step::Data(Bytes::copy_from_slice(chunk)));
        Response::builder().header("content-encoding", "gzip").body(Script::new(steps)).unwrap()
    };
    for size in [1, 7, 1000, 1_000_000] {
        let response = classify_response(ClassifyLayer::new().watch(), response(&coded, size)).await;
        let verdict = Verdict::of(&response);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), coded);
        assert_eq!(verdict.outcome(), Some(Outcome::Failed(Kind::ContentBlocked)));
        assert_eq!(verdict.usage().unwrap().output_tokens, 3);
    }
    // The first event is whole, and there was to be more; and noise after the mark of the coding.
    for (body, outcome) in [
        (&coded[..members[0].len() + 20], Outcome::Failed(Kind::Truncated)),
        (&b"\x1f\x8b\x08\0\0\0\0\0\0\0\xff\xff\xff"[..], Outcome::Complete),
        (b"\x1f noise", Outcome::Complete),
    ] {
        let response = classify_response(ClassifyLayer::new().watch(), response(body, 50)).await;
        let verdict = Verdict::of(&response);
        response.into_body().collect().await.unwrap();
        assert_eq!(verdict.outcome(), Some(outcome));
    }
    // Noise behind a whole member is passed over; damage in one leaves nothing, however the bytes are cut.
    let noise = [&members[1], &b"noise"[..]].concat();
    // A stored block, and one of a kind that there is not.
    let text = event("word", "");
    let length = u16::try_from(text.len()).unwrap().to_le_bytes();
    let stored = [0, length[0], length[1], !length[0], !length[1]];
    let damaged = [&b"\x1f\x8b\x08\0\0\0\0\0\0\0"[..], &stored, text.as_bytes(), &[7, 1, 2, 3]].concat();
    for size in [1, 7, 100, 1_000_000] {
        for (body, outcome, used) in
            [(&noise, Outcome::Failed(Kind::ContentBlocked), true), (&damaged, Outcome::Complete, false)]
        {
            let response = classify_response(ClassifyLayer::new().watch(), response(body, size)).await;
            let verdict = Verdict::of(&response);
            response.into_body().collect().await.unwrap();
            assert_eq!((verdict.outcome(), verdict.usage().is_some()), (Some(outcome), used), "{size}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_watched_body_in_another_coding_is_judged_by_the_transports_end() {
    let body = Script::new(chunks("{\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}", 9));
    let response = Response::builder().header("content-encoding", "br").body(body).unwrap();
    let response = classify_response(ClassifyLayer::new().watch(), response).await;
    let verdict = Verdict::of(&response);
    response.into_body().collect().await.unwrap();
    assert_eq!(verdict.outcome(), Some(Outcome::Complete));
}

#[tokio::test(start_paused = true)]
async fn a_watched_body_of_known_length_ends_with_its_last_byte() {
    // Readers that know the length never ask for the end.
    let service = service_fn(async |_: Request<()>| {
        Ok::<_, BoxError>(Response::new(Full::new(Bytes::from_static(support::good_body().as_bytes()))))
    });
    let response = ClassifyLayer::new().watch().layer(service).oneshot(Request::new(())).await.unwrap();
    let verdict = Verdict::of(&response);
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(verdict.outcome(), Some(Outcome::Complete));
    drop(body);
    assert_eq!(verdict.outcome(), Some(Outcome::Complete), "the first word stands");
}

#[tokio::test(start_paused = true)]
async fn the_inner_error_passes_through_with_its_type() {
    #[derive(Debug, PartialEq)]
    struct Mine;
    let service = service_fn(async |_: Request<()>| Err::<Response<Body>, _>(Mine));
    assert_eq!(ClassifyLayer::new().layer(service).oneshot(Request::new(())).await.unwrap_err(), Mine);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_the_inner_services_own() {
    let probe = Probe::always(error(503, "UNAVAILABLE", "down"));
    probe.state().lock().unwrap().not_ready = 3;
    ClassifyLayer::new().layer(probe.clone()).oneshot(request()).await.unwrap();
    let state = probe.state();
    let state = state.lock().unwrap();
    assert_eq!((state.violations, state.ready_polls), (0, 4));
}

// ===== what a drop gives back, in each state of the future =====

#[tokio::test(start_paused = true)]
async fn dropped_while_the_head_is_awaited_ends_the_call() {
    let probe = Probe::always(Answer::Hang);
    let mut call = Box::pin(ClassifyLayer::new().layer(probe.clone()).oneshot(request()));
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(call);
    assert_eq!(probe.state().lock().unwrap().dropped, 1);
}

#[tokio::test(start_paused = true)]
async fn dropped_while_the_body_is_read_drops_the_body() {
    let script = Script::new([Step::Wait(Duration::from_secs(1))]);
    let alive = Arc::clone(&script.polled);
    let mut call = Box::pin(classify(ClassifyLayer::new(), 503, script));
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(Arc::strong_count(&alive), 2);
    drop(call);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[tokio::test(start_paused = true)]
async fn a_judged_body_dropped_before_its_end_drops_the_rest() {
    let long = "x".repeat(5000);
    let script = Script::new(chunks(&long, 500));
    let alive = Arc::clone(&script.polled);
    let response = classify(ClassifyLayer::new().max_error_bytes(1000), 503, script).await;
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(Arc::strong_count(&alive), 2, "most of it is still to come");
    drop(body);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn nothing_is_asked_of_bodies_and_services_but_what_is_used() {
    // A body that is neither `Send` nor `Unpin` nor `Debug` nor `Clone`, on one thread.
    struct Odd(std::rc::Rc<()>, std::marker::PhantomPinned);
    impl http_body::Body for Odd {
        type Data = Bytes;
        type Error = std::rc::Rc<()>;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(Some(Err(std::rc::Rc::clone(&self.0))))
        }
    }
    let service = service_fn(async |_: Request<()>| {
        let odd = Odd(std::rc::Rc::default(), std::marker::PhantomPinned);
        Ok::<_, BoxError>(Response::builder().status(500).body(odd).unwrap())
    });
    let mut call = Box::pin(ClassifyLayer::new().layer(service).oneshot(Request::new(())));
    let Poll::Ready(Ok(response)) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it is ready at once")
    };
    assert_eq!(Verdict::of(&response).kind(), Some(Kind::Internal));

    let service = service_fn(async |_: Request<()>| {
        let odd = Odd(std::rc::Rc::default(), std::marker::PhantomPinned);
        Ok::<_, BoxError>(Response::builder().header("content-type", "text/event-stream").body(odd).unwrap())
    });
    let mut call = Box::pin(ClassifyLayer::new().layer(service).oneshot(Request::new(())));
    let Poll::Ready(Ok(response)) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it is ready at once")
    };
    assert_eq!(Verdict::of(&response).kind(), Some(Kind::Transport), "peeked at");
}
