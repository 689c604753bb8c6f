//! That each layer of the stack is there, with the settings of the command line.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use tower_gemini::BoxError;
use tower_gemini::error::find;
use tower_gemini::event::Observer;
use tower_gemini::respond::RespondLayer;
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::timeout::{Phase, TimedOut};

use crate::world::{GENERATE, Gate, HELLO, KEY, settings};
use tower_gemini_gateway::stack::stack;

const STREAM: &str = "/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent?alt=sse";
const PRO: &str = "/v1beta/models/gemini-3.8-flash:generateContent";
const FALLBACK: &str = "--fallback=gemini-3.8-flash=gemini-2.5-flash-lite,gemini-3.5-flash-lite";

struct Quiet;

impl Observer for Quiet {
    fn on_event(&self, _: &tower_gemini::event::Event<'_>) {}
}

/// In virtual time, by the stack alone.
async fn ask(
    simulator: &Simulator,
    args: &[&str],
    path: &str,
) -> Response<impl http_body::Body<Data = Bytes, Error = BoxError> + use<>> {
    let observer: Arc<dyn Observer> = Arc::new(Quiet);
    let (stack, _) = stack(&settings(args), &observer, None).unwrap();
    let service = (RespondLayer::new(), stack).layer(simulator.clone());
    let request = Request::post(format!("http://upstream{path}")).body(Full::from(HELLO)).unwrap();
    let response = service.oneshot(request).await.unwrap_or_else(|never| match never {});
    response.map(|body| body.map_err(Into::into))
}

fn simulator(rules: impl IntoIterator<Item = Rule>) -> Simulator {
    rules.into_iter().fold(Simulator::builder(), |simulator, rule| simulator.rule(rule)).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_falls_silent_ends_after_a_minute() {
    let day = Duration::from_secs(86_400);
    let simulator = simulator([Rule::new(Fault::stalled_stream_after(1, day))]);
    let response = ask(&simulator, &[], STREAM).await;
    assert_eq!(response.status(), StatusCode::OK);
    let headed = Instant::now();
    let error = response.into_body().collect().await.err().unwrap();
    assert_eq!(find::<TimedOut>(error.as_ref()).unwrap().what(), Phase::Idle);
    let after = Instant::now() - headed;
    assert!((60..62).contains(&after.as_secs()), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn an_error_in_the_first_event_of_a_stream_is_retried_unseen() {
    let simulator = simulator([Rule::new(Fault::overloaded().in_stream_after(0)).times(1)]);
    let response = ask(&simulator, &[], STREAM).await;
    assert_eq!((response.status(), simulator.call_count()), (StatusCode::OK, 2));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(!body.windows(5).any(|part| part == b"error"), "{body:?}");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_for_all_attempts_together() {
    let simulator = simulator([Rule::new(Fault::stalled(Duration::from_secs(3600)))]);
    let began = Instant::now();
    let response = ask(&simulator, &["--attempts=9", "--deadline=7"], GENERATE).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!((Instant::now() - began).as_secs(), 7);

    let simulator = self::simulator([Rule::new(Fault::unavailable().delayed(Duration::from_secs(2)))]);
    let began = Instant::now();
    let response = ask(&simulator, &["--attempts=9", "--deadline=7"], GENERATE).await;
    assert!(response.status().is_server_error());
    assert!((Instant::now() - began).as_secs() <= 7);
    assert!((2..=4).contains(&simulator.call_count()), "{}", simulator.call_count());
}

/// It was cut at 90 s whatever the deadline, and sent twice.
#[tokio::test(start_paused = true)]
async fn a_slow_model_is_asked_once_where_the_deadline_gives_it_the_time() {
    let simulator = Simulator::builder().head_latency(Duration::from_secs(100)).build().unwrap();
    let response = ask(&simulator, &["--deadline=200"], GENERATE).await;
    assert_eq!((response.status(), simulator.call_count()), (StatusCode::OK, 1));
}

/// The first one that stands in is unwell, too.
#[tokio::test]
async fn another_model_answers_and_the_answer_says_which() {
    let spent = |model| Rule::new(Fault::daily_quota_exhausted()).for_model(model);
    let simulator = simulator([spent("gemini-3.8-flash"), spent("gemini-2.5-flash-lite")]);
    let server = simulator.serve().await.unwrap();
    let gate = Gate::to(&server.base_url(), &[FALLBACK]).await;
    let answer = gate.post(PRO, HELLO).await;
    assert_eq!(
        (answer.status, answer.header("x-gemini-model")),
        (StatusCode::OK, Some("gemini-3.5-flash-lite"))
    );
    assert_eq!(simulator.call_count(), 3);

    let chat = r#"{"messages":[{"role":"user","content":"Hello"}],"model":"gemini-3.8-flash"}"#;
    let answer = gate.post("/v1beta/openai/chat/completions", chat).await;
    assert_eq!(
        (answer.status, answer.header("x-gemini-model")),
        (StatusCode::OK, Some("gemini-3.5-flash-lite"))
    );
    let whole: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(whole["model"], "gemini-3.5-flash-lite");

    // Of a length that nobody says.
    let chunked = format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{chat}\r\n0\r\n\r\n", chat.len());
    let head = format!(
        "POST /v1beta/openai/chat/completions HTTP/1.1\r\nhost: gate\r\nx-goog-api-key: {KEY}\r\nconnection: close\r\n"
    );
    let answer = gate.say(head + &chunked).await;
    assert_eq!(
        (answer.status, answer.header("x-gemini-model")),
        (StatusCode::OK, Some("gemini-3.5-flash-lite"))
    );

    let before = simulator.call_count();
    let answer = gate.post(PRO, HELLO).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(simulator.call_count(), before + 1, "spent days are passed over");

    let answer = gate.post(GENERATE, HELLO).await;
    assert_eq!((answer.status, answer.header("x-gemini-model")), (StatusCode::OK, None));
    let metrics = gate.page("/metrics").await;
    let metrics = std::str::from_utf8(&metrics.body).unwrap();
    assert!(metrics.lines().any(|line| line == "gateway_fallbacks_total 8"), "{metrics}");
}

/// All data of a stream, and whether it ended as it should.
async fn read_all(
    response: Response<impl http_body::Body<Data = Bytes, Error = BoxError>>,
) -> (String, bool) {
    let mut body = std::pin::pin!(response.into_body());
    let mut text = String::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => text += std::str::from_utf8(&frame.into_data().unwrap_or_default()).unwrap(),
            Err(_) => return (text, false),
        }
    }
    (text, true)
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_is_gone_on_with_where_that_is_asked_for() {
    for (args, calls, mark) in [
        (&[][..], 1, None),
        (&["--resume-streams=continue"][..], 2, Some(": tower-gemini continued\n\n")),
        (&["--resume-streams=restart"][..], 2, Some(": tower-gemini restarted\n\n")),
    ] {
        let simulator = simulator([Rule::new(Fault::reset_after_chunks(2)).times(1)]);
        let (text, is_whole) = read_all(ask(&simulator, args, STREAM).await).await;
        assert_eq!((simulator.call_count(), is_whole), (calls, mark.is_some()), "{args:?}: {text}");
        assert_eq!(text.contains("finishReason"), mark.is_some(), "{args:?}");
        assert!(mark.is_none_or(|mark| text.contains(mark)), "{args:?}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_asked_for_again_where_that_is_asked_for() {
    for (args, calls) in [(&[][..], 1), (&["--empty-answers=1"][..], 2)] {
        let simulator = simulator([Rule::new(Fault::empty_answer()).times(1)]);
        let (text, _) = read_all(ask(&simulator, args, GENERATE).await).await;
        assert_eq!(simulator.call_count(), calls, "{args:?}");
        assert_eq!(text.contains("Echo"), calls == 2, "{args:?}: {text}");
    }
}

#[tokio::test]
async fn errors_are_in_openais_form_where_that_is_asked_for() {
    let chat = r#"{"messages":[{"role":"user","content":"Hello"}],"model":"gemini-3.5-flash-lite"}"#;
    for (args, is_openais) in [(&[][..], false), (&["--openai-errors=openai"][..], true)] {
        let simulator = simulator([Rule::new(Fault::permission_denied().as_array())]);
        let server = simulator.serve().await.unwrap();
        let gate = Gate::to(&server.base_url(), args).await;
        let answer = gate.post("/v1beta/openai/chat/completions", chat).await;
        let error: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, error.is_array()), (StatusCode::FORBIDDEN, !is_openais));
        let code = is_openais.then(|| "PERMISSION_DENIED".into());
        assert_eq!(error.pointer("/error/code"), code.as_ref());
        // Google's own paths have Google's form.
        let answer = gate.post(GENERATE, HELLO).await;
        assert!(String::from_utf8_lossy(&answer.body).contains("\"code\": 403"), "{:?}", answer.body);
    }
}
