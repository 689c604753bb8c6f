//! Answers that are none.

use std::time::Duration;

use http::{Request, Response};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_gemini::classify::{ClassifyBody, ClassifyLayer, Peek};
use tower_gemini::retry::{Attempts, GaveUp, RetryLayer, RetryPolicy};
use tower_gemini::{BoxError, Kind, Verdict};

use super::upstream::*;
use crate::support::Body;

fn of_empties(
    empty_answers: u32,
    peek: Peek,
    upstream: Upstream,
) -> impl Service<Request<Body>, Response = Response<ClassifyBody<Streamed>>, Error = BoxError> {
    let policy = RetryPolicy::builder().empty_answers(empty_answers).build().unwrap();
    ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(ClassifyLayer::new().watch().peek(peek))
        .service(upstream)
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_none_are_asked_for_again_if_that_is_wanted() {
    let unary = |text: &str| given("application/json", text, 20);
    let empty = r#"{"candidates":[{"content":{"role":"model"},"finishReason":"STOP"}]}"#;
    let spent = r#"{"candidates":[{"content":{"role":"model"},"finishReason":"MAX_TOKENS"}]}"#;
    let blocked = r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#;
    let spoken =
        r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"MALFORMED_FUNCTION_CALL"}]}"#;
    for (retries, peek, bad, calls, kind) in [
        (0, Peek::Output, unary(empty), 1, Some(Kind::EmptyResponse)),
        (1, Peek::Output, unary(empty), 2, Some(Kind::EmptyResponse)),
        (2, Peek::Output, unary(empty), 3, None),
        (2, Peek::Output, unary(MALFORMED), 3, None),
        (2, Peek::Output, sse(&[MALFORMED]), 3, None),
        (2, Peek::Output, sse(&[THOUGHT, MALFORMED]), 3, None),
        (2, Peek::Output, sse(&[THOUGHT]), 3, None),
        (2, Peek::Output, unary(&empty[..30]), 3, None),
        (2, Peek::Output, unary(spent), 1, Some(Kind::EmptyResponse)),
        (2, Peek::Output, unary(blocked), 1, Some(Kind::ContentBlocked)),
        // Output came first.
        (2, Peek::Output, unary(spoken), 1, None),
        (2, Peek::Output, sse(&[WORD, MALFORMED]), 1, None),
        // Handed on before that could be known.
        (2, Peek::FirstEvent, unary(empty), 1, None),
        (2, Peek::FirstEvent, sse(&[MALFORMED]), 1, None),
        (2, Peek::Off, sse(&[MALFORMED]), 1, None),
        // Nothing was handed on until all of it was there.
        (2, Peek::Whole, unary(spoken), 3, None),
        (2, Peek::Whole, sse(&[WORD]), 3, None),
        (1, Peek::Whole, sse(&[WORD]), 2, Some(Kind::Truncated)),
        (0, Peek::Whole, sse(&[WORD]), 1, Some(Kind::Truncated)),
        (2, Peek::Whole, sse(&[WORD, MALFORMED]), 3, None),
        (2, Peek::Whole, sse(&[WORD, STOP]), 1, None),
        (0, Peek::Whole, sse(&[WORD, OVERLOADED]), 3, None),
        (2, Peek::Whole, unary(blocked), 1, Some(Kind::ContentBlocked)),
        (2, Peek::Whole, unary(spent), 1, Some(Kind::EmptyResponse)),
    ] {
        let upstream = Upstream::new([bad.clone(), bad.clone(), sse(&[WORD, STOP])]);
        let response =
            of_empties(retries, peek, upstream.clone()).oneshot(request("generateContent")).await.unwrap();
        assert_eq!(
            (upstream.calls(), Verdict::of(&response).kind()),
            (calls, kind),
            "{retries} {peek:?} {bad:?}"
        );
        let answers =
            Attempts::of(&response).kinds().iter().filter(|kind| **kind != Kind::Overloaded).count();
        assert_eq!(
            Attempts::of(&response).billed() as usize,
            answers,
            "all that failed otherwise were answers"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn empty_answers_draw_on_attempts_and_deadline_like_others() {
    let mixed =
        [OVERLOADED, MALFORMED, OVERLOADED, MALFORMED, OVERLOADED, OVERLOADED, OVERLOADED, OVERLOADED];
    let mixed = mixed.into_iter().chain([OVERLOADED; 2]).map(|event| sse(&[event]));
    let upstream = Upstream::new(mixed);
    let response = of_empties(2, Peek::Output, upstream.clone()).oneshot(stream()).await.unwrap();
    assert_eq!(upstream.calls(), 10);
    assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::Attempts));

    let upstream = Upstream::new([sse(&[MALFORMED])]);
    let response = of_empties(1, Peek::Output, upstream.clone()).oneshot(stream()).await.unwrap();
    assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::Attempts));
    let mut hurried = stream();
    hurried.extensions_mut().insert(tower_gemini::Deadline::within(Duration::ZERO));
    let response = of_empties(1, Peek::Output, upstream).oneshot(hurried).await.unwrap();
    assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::Deadline));
}
