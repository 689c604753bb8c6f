//! Failures before the first event, and after it.

use std::io;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::classify::{ClassifyLayer, Peek};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::retry::{Attempts, GaveUp, RetryLayer};
use tower_gemini::verdict::{Outcome, Sent};
use tower_gemini::{Kind, Verdict};

use super::upstream::*;

#[tokio::test(start_paused = true)]
async fn an_error_in_the_first_event_is_retried_and_the_user_sees_one_whole_stream() {
    for watch in [false, true] {
        let layer = if watch { ClassifyLayer::new().watch() } else { ClassifyLayer::new() };
        let good = sse(&[WORD, WORD, STOP]);
        let array = given("application/json", &format!("[{OVERLOADED}\n]\n"), 1000);
        let bare = given("text/event-stream", &OVERLOADED.replace(',', ",\n "), 10);
        let upstream = Upstream::new([sse(&[OVERLOADED]), sse(&[LIMITED]), array, bare, good.clone()]);
        let service =
            ServiceBuilder::new().layer(RetryLayer::default()).layer(layer).service(upstream.clone());
        let start = Instant::now();
        let response = service.oneshot(stream()).await.unwrap();
        assert!(Instant::now() - start >= Duration::from_secs(17), "as long as the answer said");
        let attempts = Attempts::of(&response);
        assert_eq!((attempts.made(), upstream.calls()), (5, 5));
        let kinds = [Kind::Overloaded, Kind::RateLimited, Kind::Overloaded, Kind::Overloaded];
        assert_eq!(attempts.kinds(), kinds);
        let verdict = Verdict::of(&response);
        assert_eq!(all_of(response.into_body()).0, good.frames);
        assert_eq!(verdict.outcome(), watch.then_some(Outcome::Complete));
    }
}

#[tokio::test(start_paused = true)]
async fn the_verdict_is_that_of_a_failed_status_and_the_answer_keeps_its_200() {
    let mut answer = sse(&[SPENT]);
    let service = |given| {
        let upstream = Upstream::new([given]);
        ServiceBuilder::new()
            .layer(RetryLayer::default())
            .layer(ClassifyLayer::new().watch())
            .service(upstream)
    };
    let response = service(answer.clone()).oneshot(stream()).await.unwrap();
    let verdict = Verdict::of(&response);
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!((verdict.kind(), verdict.after_output()), (Some(Kind::QuotaExhausted), false));
    assert_eq!((verdict.quota().len(), verdict.outcome()), (1, None));
    assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::NotRetryable));
    assert_eq!(all_of(response.into_body()).0, answer.frames);

    answer = sse(&[LIMITED]);
    let response = classified(ClassifyLayer::new(), stream(), answer.clone());
    let (verdict, whole) =
        (Verdict::of(&response), Verdict::from_parts(StatusCode::OK, response.headers(), answer.bytes()));
    assert_eq!(verdict.server_delay(), whole.server_delay());
    assert_eq!(verdict.quota(), whole.quota());
    assert_eq!(verdict.message(), whole.message());
    assert_eq!(verdict.details().unwrap().details.len(), 2, "the error by itself can be read as one");
}

#[tokio::test(start_paused = true)]
async fn an_error_after_three_chunks_is_the_users_to_see() {
    let apart = sse(&[WORD, WORD, WORD, OVERLOADED]);
    // All of it in the first frame: what counts is the order, not the frames.
    let together = Given { frames: vec![apart.bytes()], ..apart.clone() };
    for answer in [apart, together] {
        for peek in [Peek::FirstEvent, Peek::Output] {
            let upstream = Upstream::new([answer.clone()]);
            let service = ServiceBuilder::new()
                .layer(RetryLayer::default())
                .layer(ClassifyLayer::new().watch().peek(peek))
                .service(upstream.clone());
            let response = service.oneshot(stream()).await.unwrap();
            let verdict = Verdict::of(&response);
            assert_eq!((verdict.kind(), upstream.calls()), (None, 1));
            assert_eq!(all_of(response.into_body()).0, answer.frames);
            assert_eq!(verdict.outcome(), Some(Outcome::Failed(Kind::Overloaded)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_fails_before_the_first_event_is_retried_once() {
    let half = &format!("data: {WORD}")[..40];
    let nothing = given("text/event-stream", "", 1).and_lost();
    let begun = given("text/event-stream", half, 7).and_lost();
    for lost in [nothing, begun] {
        let upstream = Upstream::new([lost.clone(), sse(&[STOP])]);
        let classify = || ClassifyLayer::new().watch();
        let service =
            ServiceBuilder::new().layer(RetryLayer::default()).layer(classify()).service(upstream.clone());
        let response = service.oneshot(stream()).await.unwrap();
        assert_eq!(Attempts::of(&response).kinds(), [Kind::Transport]);
        assert_eq!(all_of(response.into_body()).0, sse(&[STOP]).frames);

        let upstream = Upstream::new([lost.clone()]);
        let service =
            ServiceBuilder::new().layer(RetryLayer::default()).layer(classify()).service(upstream.clone());
        let response = service.oneshot(stream()).await.unwrap();
        let verdict = Verdict::of(&response);
        assert_eq!((verdict.kind(), verdict.sent()), (Some(Kind::Transport), Sent::Maybe));
        assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::MaybeProcessed));
        assert_eq!(upstream.calls(), 2);
        let (data, _, error) = all_of(response.into_body());
        assert_eq!(data, lost.frames);
        assert_eq!(
            error.unwrap().kind(),
            io::ErrorKind::ConnectionReset,
            "the body's own error, in its place"
        );
    }
    // Half an error says more than that the line is cut.
    let cut = given("text/event-stream", &OVERLOADED[..OVERLOADED.len() - 20], 1000).and_lost();
    let response = classified(ClassifyLayer::new(), stream(), cut);
    assert_eq!(Verdict::of(&response).kind(), Some(Kind::Overloaded));
}

#[test]
fn a_stream_that_is_over_without_output_is_a_failure() {
    let blocked = r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#;
    for (answer, kind) in [
        (sse(&[]), Kind::EmptyResponse),
        (given("text/event-stream", ": ping\n\n", 3), Kind::EmptyResponse),
        (given("text/event-stream", "data: {\"candidates\":[{\"con", 9), Kind::Truncated),
        (given("application/json", "[{\"candidates\": [{\"content\":", 9), Kind::Truncated),
    ] {
        let response = classified(ClassifyLayer::new(), stream(), answer.clone());
        assert_eq!(Verdict::of(&response).kind(), Some(kind), "{answer:?}");
    }
    // One event: it is handed on, and its end tells.
    for (event, kind) in [(blocked, Kind::ContentBlocked), (MALFORMED, Kind::EmptyResponse)] {
        let response = classified(ClassifyLayer::new().watch(), stream(), sse(&[event]));
        let verdict = Verdict::of(&response);
        assert!(verdict.is_success());
        all_of(response.into_body());
        assert_eq!(verdict.outcome(), Some(Outcome::Failed(kind)));
    }
    // A body of a stream that never was one, watched from afar.
    let response = classified(ClassifyLayer::new().watch().peek(Peek::Off), stream(), sse(&[]));
    let verdict = Verdict::of(&response);
    all_of(response.into_body());
    assert_eq!(verdict.outcome(), Some(Outcome::Failed(Kind::EmptyResponse)));
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_learns_from_a_429_in_the_first_event() {
    let upstream = Upstream::new([sse(&[LIMITED]), sse(&[STOP])]);
    let limits = Limits::new().requests_per_minute(100).input_tokens_per_minute(10_000);
    let layer = RateLimitLayer::new(limits).unwrap();
    let mut service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(ClassifyLayer::new().watch())
        .service(upstream.clone());
    let start = Instant::now();
    let response = service.ready().await.unwrap().call(stream()).await.unwrap();
    assert_eq!(Verdict::of(&response).kind(), Some(Kind::RateLimited));
    drop(response);
    let charged =
        || layer.handle().status().into_iter().map(|key| (key.requests, key.tokens)).next().unwrap();
    assert_eq!(charged(), (1, 0), "as under a 429");
    let response = service.ready().await.unwrap().call(stream()).await.unwrap();
    assert!(Verdict::of(&response).is_success());
    assert!(
        Instant::now() - start >= Duration::from_secs(17),
        "the door was closed until the server's instant"
    );
}

#[tokio::test(start_paused = true)]
async fn the_circuit_breaker_counts_a_503_in_the_first_event() {
    let layer = CircuitBreakerLayer::builder().consecutive_failures(2).build().unwrap();
    let upstream = Upstream::new([sse(&[OVERLOADED])]);
    let service = layer.layer(ClassifyLayer::new().layer(upstream.clone()));
    for _ in 0..2 {
        // Dropped unread: the head has told.
        drop(service.clone().oneshot(stream()).await.unwrap());
    }
    assert!(service.oneshot(stream()).await.is_err(), "open");
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_settles_an_empty_answer_by_what_it_says() {
    let empty = r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":7}}"#;
    let layer = RateLimitLayer::new(Limits::new().input_tokens_per_minute(10_000)).unwrap();
    let classify = ClassifyLayer::new().peek(Peek::Output);
    let service = layer.layer(classify.layer(Upstream::new([sse(&[empty])])));
    let response = service.oneshot(stream()).await.unwrap();
    let verdict = Verdict::of(&response);
    assert_eq!(verdict.kind(), Some(Kind::EmptyResponse));
    assert_eq!(verdict.usage().map(|usage| usage.input_tokens), Some(7));
    assert_eq!(layer.handle().status()[0].tokens, 7);
}
