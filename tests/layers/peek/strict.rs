//! Bodies that end with an error where the answer failed.

use std::io;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::classify::{AnswerFailed, ClassifyLayer, StrictBodyLayer};
use tower_gemini::retry::RetryLayer;
use tower_gemini::{BoxError, Kind, Verdict, error};

use super::upstream::*;
use crate::support::{self, Body};

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
        (all().enabled(false), watching(), sse(&[WORD]), None, true),
        (all().enabled(false), watching(), sse(&[SPENT]), None, false),
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
