//! Bodies in any pieces, of any size: what is found, what is held, what arrives.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use serde_json::json;
use tower::{Layer, Service, ServiceExt};
use tower_gemini::error::find;
use tower_gemini::preflight::{BodyFailed, PreflightBody, PreflightRefused, Rule};
use tower_gemini::retry::ReplayBody;
use tower_gemini::{BoxError, Deadline};

use super::world::{Frames, Got, Told, URI, builder, send};

fn request<B>(body: B) -> Request<B> {
    Request::post(URI).body(body).unwrap()
}

fn bad() -> String {
    json!({
        "contents": [{"parts": [{"text": "Hello, \"world\" \\ {"}, {"inlineData": {"data": "AAAA"}}]}],
        "generationConfig": {"temperature": 3, "topP": 0.5, "thinkingConfig": {"thinkingLevel": "none"}},
    })
    .to_string()
}

#[tokio::test(start_paused = true)]
async fn what_is_found_does_not_depend_on_the_frames() {
    for size in 1..=bad().len() {
        for pauses in [false, true] {
            let (mut frames, got) = (Frames::of(&bad(), size), Got::default());
            frames.pauses = pauses;
            let error = send(builder().build().unwrap(), request(frames), &got).await.unwrap_err();
            let refused = error.downcast::<PreflightRefused>().unwrap();
            let rules: Vec<_> = refused.findings().iter().map(|finding| finding.rule()).collect();
            assert_eq!(rules, [Rule::Temperature, Rule::Thinking], "frames of {size}, pauses {pauses}");
            assert!(got.bodies().is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_body_arrives_byte_for_byte(
        body in prop::collection::vec(any::<u8>(), 0..6_000),
        sizes in prop::collection::vec(1..900usize, 1..5),
        pauses in any::<bool>(),
        announced in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (mut rest, mut pieces, mut sizes) = (&body[..], Vec::new(), sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            pieces.push(Bytes::copy_from_slice(piece));
            rest = after;
        }
        let mut frames = Frames::new(pieces);
        frames.pauses = pauses;
        frames.announced = announced.then_some(body.len() as u64);
        let got = Got::default();
        runtime.block_on(send(builder().hold_bytes(1_024).build().unwrap(), request(frames), &got)).unwrap();
        prop_assert_eq!(got.bodies(), [Bytes::from(body)]);
    }
}

/// A body that makes its bytes when it is asked for them, and knows how far it has come.
struct Endless {
    left: usize,
    given: Arc<std::sync::atomic::AtomicUsize>,
    tail: Option<&'static str>,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        const PIECE: usize = 16 * 1024;
        self.given.fetch_add(PIECE, std::sync::atomic::Ordering::Relaxed);
        if self.left == 0 {
            return Poll::Ready(
                self.tail.take().map(|tail| Ok(Frame::data(Bytes::from_static(tail.as_bytes())))),
            );
        }
        let first = self.left == 20 * 1024 * 1024;
        self.left -= PIECE;
        let mut piece = vec![b'A'; PIECE];
        if first {
            let begin = br#"{"contents":[{"parts":[{"inlineData":{"data":""#;
            piece[..begin.len()].copy_from_slice(begin);
        }
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }
}

#[test]
fn twenty_mib_pass_with_flat_memory_and_are_looked_at_to_their_end() {
    let (told, given) = (Told::default(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let layer = builder().observer(Arc::new(told.clone())).build().unwrap();
    let tail = r#""}}]}],"generationConfig":{"temperature":3}}"#;
    let body = Endless { left: 20 * 1024 * 1024, given: Arc::clone(&given), tail: Some(tail) };
    let seen = Arc::clone(&given);
    let server = tower::service_fn(move |request: Request<PreflightBody<Endless>>| {
        let held = seen.load(std::sync::atomic::Ordering::Relaxed);
        assert!(held <= 5 * 16 * 1024, "{held} bytes were read before it was sent");
        let mut body = request.into_body();
        async move {
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                bytes += frame.unwrap().into_data().unwrap().len();
            }
            Ok::<_, BoxError>(http::Response::new(Full::new(Bytes::from(bytes.to_string()))))
        }
    });
    let mut service = layer.layer(server);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut answer = None;
    let measured = allocation_counter::measure(|| {
        answer = Some(runtime.block_on(service.call(request(body))).unwrap());
    });
    let bytes = runtime.block_on(answer.unwrap().into_body().collect()).unwrap().to_bytes();
    assert_eq!(bytes, (20 * 1024 * 1024 + tail.len()).to_string());
    // The 64 KiB that are held, one frame on its way, and a few boxes.
    assert!(measured.bytes_max < 128 * 1024, "{} bytes at once", measured.bytes_max);
    // Too late to be refused, and told.
    assert_eq!(told.all(), [(Rule::Temperature, "generation_config.temperature", false)]);
}

#[tokio::test(start_paused = true)]
async fn a_body_in_one_frame_is_judged_whole_whatever_its_size() {
    let text = json!({"contents": [{"parts": [{"inlineData": {"data": "A".repeat(5_000_000)}}]}], "generationConfig": {"topP": 2}});
    let got = Got::default();
    let error = send(builder().build().unwrap(), request(Full::new(Bytes::from(text.to_string()))), &got)
        .await
        .unwrap_err();
    assert!(error.is::<PreflightRefused>() && got.bodies().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_found_after_it_was_sent_is_told_once() {
    let (told, got) = (Told::default(), Got::default());
    let layer =
        builder().max_inline_bytes(3_000).hold_bytes(1_024).observer(Arc::new(told.clone())).build().unwrap();
    // A hint of the head's, a finding in the head of the body, and two more behind it.
    let text = format!(
        r#"{{"generationConfig":{{"temperature":0.5}},"contents":"{}","tools":"{}"}}"#,
        "x".repeat(2_000),
        "y".repeat(2_000)
    );
    send(layer, Request::post(format!("{URI}?key=K")).body(Frames::of(&text, 100)).unwrap(), &got)
        .await
        .unwrap();
    assert_eq!(got.bodies(), [Bytes::from(text)]);
    assert_eq!(
        told.all(),
        [
            (Rule::KeyInUrl, "key", false),
            (Rule::LowTemperature, "generation_config.temperature", false),
            (Rule::InlineSize, "contents", false),
        ]
    );
}

/// Never goes on after its first frame.
struct Stuck(Option<Bytes>);

impl Body for Stuck {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.take().map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Frame::data(data)))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_beginning_that_does_not_come_is_waited_for_no_longer_than_told_and_not_beyond_the_deadline() {
    for (deadline, secs) in [(None, 10), (Some(3), 3)] {
        let begin = tokio::time::Instant::now();
        let server = tower::service_fn(move |request: Request<PreflightBody<Stuck>>| async move {
            let first = request.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(first, "{");
            Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default()))
        });
        let mut request = request(Stuck(Some(Bytes::from_static(b"{"))));
        if let Some(secs) = deadline {
            request.extensions_mut().insert(Deadline::within(Duration::from_secs(secs)));
        }
        builder().build().unwrap().layer(server).oneshot(request).await.unwrap();
        assert_eq!((tokio::time::Instant::now() - begin).as_secs(), secs);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_in_its_beginning_is_not_sent() {
    struct Broken(u8);
    impl Body for Broken {
        type Data = Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            self.0 += 1;
            match self.0 {
                1 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"{"))))),
                2 => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                _ => Poll::Ready(Some(Err(std::io::ErrorKind::BrokenPipe.into()))),
            }
        }
    }
    for begins in [0, 2] {
        let got = Got::default();
        let error = send(builder().build().unwrap(), request(Broken(begins)), &got).await.unwrap_err();
        assert!(find::<BodyFailed>(error.as_ref()).is_some() && got.bodies().is_empty());
        assert!(find::<std::io::Error>(error.as_ref()).is_some());
        assert_eq!(tower_gemini::respond::from_error(error.as_ref()).status(), 400);
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_pass_and_hints_are_exact() {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("1"));
    let body =
        Full::new(Bytes::from_static(b"{}")).with_trailers(std::future::ready(Some(Ok(trailers.clone()))));
    let server = tower::service_fn(move |request: Request<PreflightBody<_>>| {
        let expected = trailers.clone();
        async move {
            let body = request.into_body().collect().await?;
            assert_eq!(body.trailers(), Some(&expected));
            assert_eq!(body.to_bytes(), "{}");
            Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default()))
        }
    });
    builder().build().unwrap().layer(server).oneshot(request(Box::pin(body))).await.unwrap();
    let held = PreflightBody::<Full<Bytes>>::from(Bytes::from_static(b"1234"));
    assert_eq!(held.size_hint().exact(), Some(4));
    assert!(!held.is_end_stream() && !format!("{held:?}").contains("1234"));
}

#[tokio::test(start_paused = true)]
async fn each_copy_of_a_body_has_all_of_it_also_where_copies_begin_anew() {
    let text = format!("{{\"contents\":\"{}\"}}", "x".repeat(200_000));
    let server = |expected: String| {
        tower::service_fn(move |request: Request<PreflightBody<ReplayBody<Frames>>>| {
            let expected = expected.clone();
            async move {
                let body = request.into_body();
                let (first, second) = (body.clone(), body.clone());
                for body in [body, first, second] {
                    assert_eq!(
                        body.size_hint().exact().unwrap_or(expected.len() as u64),
                        expected.len() as u64
                    );
                    assert_eq!(body.collect().await?.to_bytes(), expected);
                }
                Ok::<_, BoxError>(http::Response::new(Full::<Bytes>::default()))
            }
        })
    };
    for (size, text) in [(1_000, &*text), (300_000, &text), (10, "{\"contents\":[]}")] {
        let body = ReplayBody::new(Frames::of(text, size));
        let service = builder().build().unwrap().layer(server(text.to_owned()));
        service.oneshot(request(body)).await.unwrap();
    }
}
