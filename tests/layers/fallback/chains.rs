//! Which model is asked, when, and what the answer says.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::fallback::{AnsweredBy, ModelFallbackLayer};
use tower_gemini::rate_limit::RateLimitLayer;
use tower_gemini::request::{Target, TargetKey};
use tower_gemini::retry::RetryLayer;
use tower_gemini::{Deadline, Kind, Verdict};

use super::world::{Body, Notes, Server, ask, chain, run, told};
use crate::support::{Answer, Probe, error, quota};

fn busy() -> Answer {
    error(503, "UNAVAILABLE", "The model is overloaded.")
}

fn daily() -> Answer {
    quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "5s")
}

#[tokio::test]
async fn the_next_model_answers_where_one_would_help() {
    let not_found = error(404, "NOT_FOUND", "models/pro is not found for API version v1beta");
    let late = error(504, "DEADLINE_EXCEEDED", "late");
    for answer in
        [busy(), daily(), late, not_found, error(500, "INTERNAL", "oh"), error(503, "UNAVAILABLE", "no")]
    {
        let server = Server::new([("pro", answer.clone())]);
        let answered = run(chain(), &server, ask("pro")).await.unwrap();
        assert_eq!(answered, (200, Some("flash".into())), "{answer:?}");
        assert_eq!(server.models(), ["pro", "flash"]);
        assert_eq!(server.seen()[1].uri, "http://127.0.0.1/v1beta/models/flash:generateContent?key=k");
    }
}

#[tokio::test]
async fn no_model_is_asked_where_none_would_help() {
    let long = "The input token count (9) exceeds the maximum number of tokens allowed (8).";
    for answer in [
        Answer::Ok,
        error(400, "INVALID_ARGUMENT", "bad"),
        error(400, "INVALID_ARGUMENT", long),
        error(401, "UNAUTHENTICATED", "who"),
        error(403, "PERMISSION_DENIED", "no"),
        error(404, "NOT_FOUND", "no such file"),
        error(429, "RESOURCE_EXHAUSTED", "Your project has exceeded its monthly spending cap."),
    ] {
        let server = Server::new([("pro", answer.clone())]);
        let (_, by) = run(chain(), &server, ask("pro")).await.unwrap();
        assert_eq!((by, server.models()), (None, vec!["pro".to_owned()]), "{answer:?}");
    }
    for kind in [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset, ErrorKind::TimedOut] {
        let server = Server::new([("pro", Answer::Io(kind))]);
        assert!(run(chain(), &server, ask("pro")).await.is_err());
        assert_eq!(server.models(), ["pro"], "{kind}");
    }
}

#[tokio::test]
async fn the_chain_is_followed_to_its_end_and_its_last_failure_is_the_answer() {
    let server = Server::new([("pro", busy()), ("flash", daily())]);
    assert_eq!(run(chain(), &server, ask("pro")).await.unwrap(), (200, Some("lite".into())));
    server.set("lite", error(500, "INTERNAL", "oh"));
    assert_eq!(run(chain(), &server, ask("pro")).await.unwrap(), (500, Some("lite".into())));
    assert_eq!(server.models(), ["pro", "flash", "lite", "pro", "flash", "lite"]);
}

#[tokio::test]
async fn a_model_that_stands_in_brings_no_chain_of_its_own() {
    let fallback = ModelFallbackLayer::builder().chain("pro", ["flash"]).chain("flash", ["lite", "pro"]);
    let server = Server::new([("pro", busy()), ("flash", busy())]);
    assert_eq!(run(fallback.clone(), &server, ask("pro")).await.unwrap(), (503, Some("flash".into())));
    assert_eq!(run(fallback, &server, ask("flash")).await.unwrap(), (200, Some("lite".into())));
    assert_eq!(server.models(), ["pro", "flash", "flash", "lite"]);
}

#[tokio::test]
async fn a_request_that_is_too_long_goes_only_to_a_model_that_takes_more() {
    let long = error(
        400,
        "INVALID_ARGUMENT",
        "The input token count (9) exceeds the maximum number of tokens allowed (8).",
    );
    let server = Server::new([("pro", long)]);
    let answered = run(chain().larger_context("lite"), &server, ask("pro")).await.unwrap();
    assert_eq!(answered, (200, Some("lite".into())));
    assert_eq!(server.models(), ["pro", "lite"]);
}

#[tokio::test]
async fn the_answer_says_who_gave_it_and_the_first_model_says_nothing() {
    let server = Server::default();
    let header = HeaderName::from_static("x-gemini-model");
    let stack = ServiceBuilder::new()
        .layer(chain().header(header.clone()).build().unwrap())
        .layer(ClassifyLayer::new())
        .service(server.service());
    let first = stack.clone().oneshot(ask("pro")).await.unwrap();
    assert!(AnsweredBy::of(&first).is_none() && first.headers().get(&header).is_none());
    server.set("pro", busy());
    server.set("flash", busy());
    let third = stack.oneshot(ask("pro")).await.unwrap();
    let by = AnsweredBy::of(&third).unwrap();
    assert_eq!(
        (by.model(), by.position(), &third.headers()[&header]),
        (Some("lite"), 2, &"lite".parse().unwrap())
    );
    let body = third.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, crate::support::good_body(), "byte for byte");
}

#[tokio::test]
async fn an_answer_that_fails_after_its_head_is_not_repeated() {
    // A good head: what follows is the caller's to see.
    let cut = Answer::Status(200, r#"{"candidates":[{"content"#.into());
    let server = Server::new([("pro", cut)]);
    assert_eq!(run(chain(), &server, ask("pro")).await.unwrap(), (200, None));
    assert_eq!(server.models(), ["pro"]);
}

#[tokio::test(start_paused = true)]
async fn no_model_is_asked_after_the_deadline() {
    let (notes, server) = (Arc::new(Notes::default()), Server::new([("pro", busy())]));
    let mut request = ask("pro");
    request.extensions_mut().insert(Deadline::at(Instant::now()));
    let answered = run(chain().observer(notes.clone()), &server, request).await.unwrap();
    assert_eq!((answered, server.models().len()), ((503, None), 1));
    assert_eq!(notes.all(), ["pro -> nobody, the deadline has passed: overloaded"]);
    let mut request = ask("pro");
    request.extensions_mut().insert(Deadline::within(Duration::from_secs(1)));
    assert_eq!(run(chain(), &server, request).await.unwrap(), (200, Some("flash".into())));
}

#[tokio::test]
async fn each_step_is_told_with_its_reason() {
    let notes = Arc::new(Notes::default());
    let server = Server::new([("pro", busy()), ("flash", daily())]);
    run(chain().observer(notes.clone()), &server, ask("pro")).await.unwrap();
    assert_eq!(notes.all(), ["pro -> flash: overloaded", "flash -> lite: quota_exhausted"]);
}

// ===== handles =====

fn key(model: &str) -> TargetKey {
    Target::from_path(&format!("/v1beta/models/{model}:generateContent")).key()
}

#[tokio::test(start_paused = true)]
async fn a_model_whose_circuit_is_open_is_passed_over_without_waiting() {
    let (notes, server, breaker) =
        (Arc::new(Notes::default()), Server::default(), CircuitBreakerLayer::default());
    let circuits = breaker.handle();
    let fallback = chain().circuits(breaker.handle()).observer(notes.clone()).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(fallback)
        .layer(RetryLayer::default())
        .layer(breaker)
        .layer(ClassifyLayer::new())
        .service(server.service());
    circuits.force_open(&key("pro"));
    circuits.force_open(&key("flash"));
    let start = Instant::now();
    assert_eq!(told(stack.clone().oneshot(ask("pro")).await).unwrap(), (200, Some("lite".into())));
    assert_eq!((server.models(), Instant::now() - start), (vec!["lite".to_owned()], Duration::ZERO));
    assert_eq!(notes.all(), ["pro -> lite: unavailable", "flash -> lite: unavailable"]);

    // All of them: the error of the model that was asked.
    circuits.force_open(&key("lite"));
    let error = stack.clone().oneshot(ask("pro")).await.unwrap_err();
    let open =
        tower_gemini::error::find::<tower_gemini::circuit_breaker::CircuitOpen>(error.as_ref()).unwrap();
    assert_eq!(open.key().model(), Some("pro"));
    assert_eq!(
        notes.all()[2..],
        ["pro -> nobody, every other model is turned away at the moment: unavailable"]
    );

    circuits.reset(&key("pro"));
    assert_eq!(told(stack.oneshot(ask("pro")).await).unwrap(), (200, None), "well again");
}

/// One failure opens a circuit, for ten seconds.
fn quick_breaker() -> CircuitBreakerLayer {
    let second = Duration::from_secs;
    CircuitBreakerLayer::builder().consecutive_failures(1).open_time(second(10), second(10)).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn no_open_circuit_is_waited_for_while_another_model_is_left() {
    let (server, breaker) = (Server::new([("pro", Answer::Status(503, String::new()))]), quick_breaker());
    let stack = ServiceBuilder::new()
        .layer(chain().build().unwrap())
        .layer(RetryLayer::default())
        .layer(breaker)
        .layer(ClassifyLayer::new())
        .service(server.service());
    // The first opens the circuit, the second meets it open, and the third is its probe, which fails.
    for wait in [0, 0, 10] {
        tokio::time::advance(Duration::from_secs(wait)).await;
        let start = Instant::now();
        assert_eq!(told(stack.clone().oneshot(ask("pro")).await).unwrap(), (200, Some("flash".into())));
        assert!(Instant::now() - start < Duration::from_secs(1), "{:?}", Instant::now() - start);
    }
    assert_eq!(server.models(), ["pro", "flash", "flash", "pro", "flash"]);
}

#[tokio::test(start_paused = true)]
async fn where_every_circuit_is_open_the_first_to_open_is_waited_for() {
    let down = || Answer::Status(503, String::new());
    let (server, breaker) =
        (Server::new([("pro", down()), ("flash", down()), ("lite", down())]), quick_breaker());
    let stack = ServiceBuilder::new()
        .layer(chain().circuits(breaker.handle()).build().unwrap())
        .layer(RetryLayer::default())
        .layer(breaker)
        .layer(ClassifyLayer::new())
        .service(server.service());
    // They are down for 4 s: whoever comes meanwhile is answered when the circuits let calls through again.
    let call = || tokio::spawn(stack.clone().oneshot(ask("pro")));
    let first = call();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let second = call();
    tokio::time::sleep(Duration::from_secs(2)).await;
    for model in ["pro", "flash", "lite"] {
        server.set(model, Answer::Ok);
    }
    for call in [first, second] {
        assert_eq!(told(call.await.unwrap()).unwrap().0, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_whose_day_is_spent_is_passed_over_and_tested_now_and_then() {
    let (server, limit) = (Server::new([("pro", daily())]), RateLimitLayer::default());
    let fallback = chain().rate_limits(limit.handle()).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(fallback)
        .layer(RetryLayer::default())
        .layer(limit)
        .layer(ClassifyLayer::new().watch())
        .service(server.service());
    for _ in 0..3 {
        let answered = told(stack.clone().oneshot(ask("pro")).await).unwrap();
        assert_eq!(answered, (200, Some("flash".into())));
    }
    assert_eq!(server.models(), ["pro", "flash", "flash", "flash"], "one 429 taught it");
    // Five minutes later one request tests whether the day is really spent.
    tokio::time::advance(Duration::from_secs(301)).await;
    server.set("pro", Answer::Ok);
    assert_eq!(told(stack.clone().oneshot(ask("pro")).await).unwrap(), (200, None));
    assert_eq!(told(stack.oneshot(ask("pro")).await).unwrap(), (200, None), "and it was not");
}

// ===== the last resort =====

#[tokio::test]
async fn the_last_resort_is_asked_for_each_failure_of_a_chained_model() {
    let (notes, server) = (Arc::new(Notes::default()), Server::default());
    let fallback = || {
        chain().observer(notes.clone()).last_resort(|request, verdict| {
            assert!(request.uri.path().contains("/pro:"), "the request as it came");
            let text = format!("{}", verdict.kind().unwrap());
            (verdict.kind() != Some(Kind::PermissionDenied)).then(|| Response::new(Bytes::from(text)))
        })
    };
    let stack = || {
        ServiceBuilder::new()
            .layer(fallback().build().unwrap())
            .layer(ClassifyLayer::new())
            .service(server.service())
    };
    for model in ["pro", "flash", "lite"] {
        server.set(model, busy());
    }
    let response = stack().oneshot(ask("pro")).await.unwrap();
    let by = AnsweredBy::of(&response).unwrap();
    assert_eq!((response.status().as_u16(), by.model(), by.position()), (200, None, 3));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "overloaded");
    assert_eq!(notes.all().last().unwrap(), "lite -> last resort: overloaded");

    server.set("pro", Answer::Io(ErrorKind::ConnectionRefused));
    let response = stack().oneshot(ask("pro")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "transport");
    server.set("pro", error(403, "PERMISSION_DENIED", "no"));
    assert_eq!(told(stack().oneshot(ask("pro")).await).unwrap(), (403, None), "it had no answer");
    assert_eq!(told(stack().oneshot(ask("lite")).await).unwrap(), (503, None), "no chain, no last resort");
}

// ===== readiness and dropping =====

/// The probe's calls go to any model.
fn probe_chain() -> ModelFallbackLayer {
    ModelFallbackLayer::builder().chain("gemini-9-flash", ["b", "c"]).build().unwrap()
}

#[tokio::test]
async fn dropping_the_future_drops_the_call_and_asks_nobody_else() {
    for calls in [1, 2, 3] {
        let failures = vec![busy(); calls - 1];
        let probe = Probe::new(failures, Answer::Hang);
        let mut service = probe_chain().layer(ClassifyLayer::new().layer(probe.clone()));
        let mut future = Box::pin(service.ready().await.unwrap().call(crate::support::request()));
        use futures_util::FutureExt;
        assert!((&mut future).now_or_never().is_none());
        drop(future);
        let state = probe.state();
        let state = state.lock().unwrap();
        assert_eq!((state.calls.len(), state.dropped, state.in_flight, state.violations), (calls, 1, 0, 0));
    }
}

#[tokio::test]
async fn dropped_while_the_next_model_is_not_ready_asks_nobody_else() {
    use futures_util::FutureExt;
    let probe = Probe::new([busy()], Answer::Ok);
    let mut service = probe_chain().layer(ClassifyLayer::new().layer(probe.clone()));
    let mut future = Box::pin(service.ready().await.unwrap().call(crate::support::request()));
    probe.state().lock().unwrap().not_ready = u32::MAX;
    assert!((&mut future).now_or_never().is_none());
    drop(future);
    let state = probe.state();
    let state = state.lock().unwrap();
    assert_eq!((state.calls.len(), state.in_flight, state.violations), (1, 0, 0));
}

#[tokio::test]
async fn a_service_that_is_not_ready_for_the_next_model_is_waited_for() {
    let probe = Probe::new([busy()], Answer::Ok);
    probe.state().lock().unwrap().not_ready = 3;
    let mut service = probe_chain().layer(ClassifyLayer::new().layer(probe.clone()));
    let response = service.ready().await.unwrap().call(crate::support::request()).await.unwrap();
    assert_eq!(AnsweredBy::of(&response).unwrap().model(), Some("b"));
    let state = probe.state();
    let state = state.lock().unwrap();
    assert_eq!((state.violations, state.calls[1].path.as_str()), (0, "/v1beta/models/b:generateContent"));
}

#[tokio::test]
async fn an_inner_service_that_is_broken_for_the_next_model_says_so() {
    let probe = Probe::new([busy()], Answer::Hang);
    let state = probe.state();
    let mut service = probe_chain().layer(ClassifyLayer::new().layer(probe));
    let future = service.ready().await.unwrap().call(crate::support::request());
    state.lock().unwrap().fail_ready = true;
    assert_eq!(future.await.unwrap_err().to_string(), "the probe is closed");
}

#[tokio::test]
async fn no_debug_output_shows_a_key() {
    let header = HeaderName::from_static("x-gemini-model");
    let layer = chain().header(header).last_resort(|_, _| None).build().unwrap();
    let server = Server::default();
    let mut service =
        layer.layer(tower::service_fn(move |request| server.service::<Body>().oneshot(request)));
    let future = service.ready().await.unwrap().call(ask("pro"));
    let seen = format!("{future:?} {layer:?} {:?}", ModelFallbackLayer::builder());
    assert!(seen.contains("flash") && !seen.contains("key="), "{seen}");
    let response = future.await.unwrap();
    assert!(!format!("{response:?}").contains("candidates"));
}

#[tokio::test]
async fn without_the_classifier_the_status_decides() {
    let server = Server::new([("pro", Answer::Status(503, "down".into()))]);
    let stack = chain().build().unwrap().layer(server.service::<Body>());
    let response = stack.oneshot(ask("pro")).await.unwrap();
    assert!(Verdict::of(&response).is_success());
    assert_eq!(server.models(), ["pro", "flash"]);
}

#[tokio::test]
async fn other_calls_and_other_models_pass_through_as_they_are() {
    for uri in [
        "/v1beta/models/other:generateContent",
        "/v1beta/models/pro:embedContent",
        "/v1beta/models/pro:countTokens",
        "/v1beta/tunedModels/pro:generateContent",
        "/v1/projects/p/locations/l/publishers/anthropic/models/pro:generateContent",
        "/v1beta/files",
        "/",
    ] {
        let server = Server::new([("pro", busy()), ("other", busy())]);
        let request = Request::post(uri).body(Body::from("{\"x\":1}")).unwrap();
        let (_, by) = run(chain(), &server, request).await.unwrap();
        let seen = server.seen();
        assert_eq!((by, seen.len(), &*seen[0].uri, &*seen[0].body), (None, 1, uri, "{\"x\":1}"));
    }
}
