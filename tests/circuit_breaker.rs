//! The circuit breaker's promises, one test each, in paused time, over the classifier and a probe that counts every
//! breach of the readiness contract.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod support;

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use support::{Answer, Body, Probe, error, quota, request};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::circuit_breaker::{
    Cause, Circuit, CircuitBreaker, CircuitBreakerBuilder, CircuitBreakerLayer, CircuitOpen, CircuitState,
    Mode, Transition, Why,
};
use tower_gemini::classify::{Classify, ClassifyLayer};
use tower_gemini::error::find;
use tower_gemini::event::{Event, Observer};
use tower_gemini::retry::{Attempts, RetryLayer, RetryPolicy};
use tower_gemini::target::TargetKey;
use tower_gemini::verdict::Signal;
use tower_gemini::{BoxError, Deadline, Rejected, Target};

const SECOND: Duration = Duration::from_secs(1);

type Stack = CircuitBreaker<Classify<Probe>>;

fn stack(layer: &CircuitBreakerLayer, probe: &Probe) -> Stack {
    ServiceBuilder::new().layer(layer.clone()).layer(ClassifyLayer::new()).service(probe.clone())
}

fn builder() -> CircuitBreakerBuilder {
    CircuitBreakerLayer::builder().seed(7)
}

fn down() -> Answer {
    error(503, "UNAVAILABLE", "down")
}

/// One call, its body read to the end: the status, or why it was turned away.
async fn ask<S, B>(service: &mut S) -> Result<u16, CircuitOpen>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    B: http_body::Body<Error: std::fmt::Debug>,
{
    match service.ready().await.unwrap().call(request()).await {
        Ok(response) => {
            let status = response.status().as_u16();
            response.into_body().collect().await.unwrap();
            Ok(status)
        }
        Err(error) => Err(find::<CircuitOpen>(error.as_ref()).expect("turned away").clone()),
    }
}

fn key() -> TargetKey {
    Target::of(&request()).key()
}

fn circuit(layer: &CircuitBreakerLayer) -> Circuit {
    layer.handle().get(&key()).expect("it was asked for")
}

/// A circuit that twelve failures have just opened, and its probe, which answers as told from now on.
async fn opened(layer: &CircuitBreakerLayer, then: Answer) -> (Stack, Probe) {
    let probe = Probe::new(std::iter::repeat_n(down(), 12), then);
    let mut service = stack(layer, &probe);
    for _ in 0..12 {
        assert_eq!(ask(&mut service).await.unwrap(), 503);
    }
    assert_eq!(circuit(layer).state, CircuitState::Open);
    (service, probe)
}

fn calls(probe: &Probe) -> usize {
    let state = probe.state();
    let state = state.lock().unwrap();
    assert_eq!(state.violations, 0, "an instance was called that had not been polled ready");
    state.calls.len()
}

// ===== opening =====

#[tokio::test(start_paused = true)]
async fn a_full_outage_opens_it_within_twelve_calls_whatever_went_well_before() {
    for healthy in [0, 1, 100, 10_000] {
        let layer = builder().build().unwrap();
        let probe = Probe::new(std::iter::repeat_n(Answer::Ok, healthy), down());
        let mut service = stack(&layer, &probe);
        for _ in 0..healthy {
            assert_eq!(ask(&mut service).await.unwrap(), 200);
        }
        for _ in 0..12 {
            assert_eq!(ask(&mut service).await.unwrap(), 503);
        }
        let turned_away = ask(&mut service).await.unwrap_err();
        assert_eq!(turned_away.why(), Why::Opened(Cause::ConsecutiveFailures));
        assert_eq!(calls(&probe), healthy + 12);
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_that_is_clearly_too_large_opens_it() {
    // Two of three fail, never twelve in a row: 14 of 20 are the first that chance does not explain.
    let layer = builder().build().unwrap();
    let answers = (0..40).map(|n| if n % 3 == 0 { Answer::Ok } else { down() });
    let probe = Probe::new(answers, Answer::Ok);
    let mut service = stack(&layer, &probe);
    let turned_away = loop {
        if let Err(turned_away) = ask(&mut service).await {
            break turned_away;
        }
    };
    assert_eq!(turned_away.why(), Why::Opened(Cause::FailureShare));
    assert!((20..40).contains(&calls(&probe)), "{}", calls(&probe));
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_of_the_server_never_opens_it() {
    let layer = builder().build().unwrap();
    for answer in [
        error(400, "INVALID_ARGUMENT", "bad"),
        error(403, "PERMISSION_DENIED", "no"),
        error(404, "NOT_FOUND", "no"),
        quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "3s"),
        quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "3s"),
        Answer::Rejected(Some(SECOND)),
    ] {
        let mut service = stack(&layer, &Probe::always(answer.clone()));
        for _ in 0..100 {
            let result = service.ready().await.unwrap().call(request()).await;
            assert!(result.err().is_none_or(|e| find::<CircuitOpen>(e.as_ref()).is_none()), "{answer:?}");
        }
        assert_eq!(circuit(&layer).calls, 0, "{answer:?} counts nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_of_every_form_open_it() {
    for answer in [
        down(),
        error(500, "INTERNAL", "oh"),
        error(503, "UNAVAILABLE", "The model is overloaded."),
        error(504, "DEADLINE_EXCEEDED", "late"),
        Answer::Status(502, "<html>".into()),
        Answer::Io(std::io::ErrorKind::ConnectionRefused),
        Answer::Io(std::io::ErrorKind::TimedOut),
    ] {
        let layer = builder().build().unwrap();
        let mut service = stack(&layer, &Probe::always(answer.clone()));
        for _ in 0..12 {
            let _ = service.ready().await.unwrap().call(request()).await;
        }
        assert_eq!(circuit(&layer).state, CircuitState::Open, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bare_429_counts_for_the_share_and_not_for_the_row() {
    let layer = builder().build().unwrap();
    let mut service = stack(&layer, &Probe::always(error(429, "RESOURCE_EXHAUSTED", "slow down")));
    for n in 0..20 {
        assert_eq!(ask(&mut service).await.unwrap(), 429);
        assert_eq!(circuit(&layer).consecutive_failures, 0, "call {n}");
    }
    assert_eq!(ask(&mut service).await.unwrap_err().why(), Why::Opened(Cause::FailureShare));
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_table_decides_where_there_is_one() {
    let table = |verdict: &tower_gemini::Verdict| match verdict.signal() {
        Signal::Timeout => Signal::Neutral,
        signal => signal,
    };
    let layer = builder().classify_with(table).build().unwrap();
    let mut service = stack(&layer, &Probe::always(error(504, "DEADLINE_EXCEEDED", "late")));
    for _ in 0..100 {
        assert_eq!(ask(&mut service).await.unwrap(), 504);
    }
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_it_where_they_matter() {
    for (delay, opens) in [(10, true), (9, false)] {
        let layer = builder().slow_calls(10 * SECOND, 0.5).build().unwrap();
        let mut service = layer.layer(tower::service_fn(move |_: Request<Body>| async move {
            tokio::time::sleep(delay * SECOND).await;
            Ok::<_, BoxError>(Response::new(Body::from("{}")))
        }));
        let many = (0..20).map(|_| service.clone().oneshot(request()));
        for response in futures_util::future::join_all(many).await {
            response.unwrap().into_body().collect().await.unwrap();
        }
        assert_eq!(ask(&mut service).await.is_err(), opens, "{delay} s");
        assert_eq!(circuit(&layer).slow_calls > 0, false, "a new window");
    }
}

#[tokio::test(start_paused = true)]
async fn one_model_that_is_down_does_not_stop_another() {
    let layer = builder().build().unwrap();
    let (mut service, _) = opened(&layer, Answer::Ok).await;
    let other =
        || Request::post("/v1beta/models/gemini-9-pro:generateContent").body(Body::default()).unwrap();
    assert_eq!(service.ready().await.unwrap().call(other()).await.unwrap().status(), 200);
    assert!(ask(&mut service).await.is_err());
    // Whose quota it is makes no difference to the server's health.
    let mut labelled = request();
    labelled.extensions_mut().insert(tower_gemini::KeyLabel::new("team-b"));
    assert!(service.ready().await.unwrap().call(labelled).await.is_err());
    // One circuit for all, where the caller wants that.
    let layer = builder().key_by(|_| TargetKey::named("all")).build().unwrap();
    let probe = Probe::always(down());
    let mut service = stack(&layer, &probe);
    for _ in 0..12 {
        ask(&mut service).await.unwrap();
    }
    assert!(service.ready().await.unwrap().call(other()).await.is_err());
}
