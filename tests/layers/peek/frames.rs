//! What was held is handed on as it came, and judged as the whole would be.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use proptest::prelude::*;
use tower::{Layer, ServiceExt};
use tower_gemini::classify::{ClassifyLayer, Peek};
use tower_gemini::verdict::Outcome;
use tower_gemini::{BoxError, Kind, Verdict};

use super::upstream::*;
use crate::support::Body;

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
