//! The circuit breaker's promises, one test each, in paused time, over the classifier and a probe that counts every
//! breach of the readiness contract.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

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
    BreakerMode, Circuit, CircuitBreaker, CircuitBreakerBuilder, CircuitBreakerLayer, CircuitOpen,
    CircuitOpenReason, CircuitState, Transition, TransitionCause,
};
use tower_gemini::classify::{Classify, ClassifyLayer};
use tower_gemini::error::find;
use tower_gemini::event::{Event, Observer};
use tower_gemini::request::TargetKey;
use tower_gemini::retry::{Attempts, RetryLayer, RetryPolicy};
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

/// So many failures in a row open a circuit.
const ROW: usize = 20;

/// A circuit that a row of failures has just opened, and its probe, which answers as told from now on.
async fn opened(layer: &CircuitBreakerLayer, then: Answer) -> (Stack, Probe) {
    let probe = Probe::new(std::iter::repeat_n(down(), ROW), then);
    let mut service = stack(layer, &probe);
    for _ in 0..ROW {
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
async fn a_full_outage_opens_it_within_twenty_calls_whatever_went_well_before() {
    for healthy in [0, 1, 100, 10_000] {
        let layer = builder().build().unwrap();
        let probe = Probe::new(std::iter::repeat_n(Answer::Ok, healthy), down());
        let mut service = stack(&layer, &probe);
        for _ in 0..healthy {
            assert_eq!(ask(&mut service).await.unwrap(), 200);
        }
        for _ in 0..ROW {
            assert_eq!(ask(&mut service).await.unwrap(), 503);
        }
        let turned_away = ask(&mut service).await.unwrap_err();
        assert_eq!(turned_away.why(), CircuitOpenReason::Opened(TransitionCause::ConsecutiveFailures));
        assert_eq!(calls(&probe), healthy + ROW);
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_that_is_clearly_too_large_opens_it() {
    // Two of three fail, never twenty in a row: at a half, 14 of 20 are the first that chance does not explain.
    let layer = builder().failure_share(0.5).build().unwrap();
    let answers = (0..40).map(|n| if n % 3 == 0 { Answer::Ok } else { down() });
    let probe = Probe::new(answers, Answer::Ok);
    let mut service = stack(&layer, &probe);
    let turned_away = loop {
        if let Err(turned_away) = ask(&mut service).await {
            break turned_away;
        }
    };
    assert_eq!(turned_away.why(), CircuitOpenReason::Opened(TransitionCause::FailureShare));
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
        for _ in 0..ROW {
            let _ = service.ready().await.unwrap().call(request()).await;
        }
        assert_eq!(circuit(&layer).state, CircuitState::Open, "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn bare_429s_are_failures_like_others() {
    let layer = builder().build().unwrap();
    let mut service = stack(&layer, &Probe::always(error(429, "RESOURCE_EXHAUSTED", "slow down")));
    for n in 1..=ROW {
        assert_eq!(ask(&mut service).await.unwrap(), 429);
        let row = circuit(&layer).consecutive_failures as usize;
        assert_eq!(row, if n < ROW { n } else { 0 }, "the row is over when the circuit opens");
    }
    assert_eq!(
        ask(&mut service).await.unwrap_err().why(),
        CircuitOpenReason::Opened(TransitionCause::ConsecutiveFailures)
    );
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
        assert_eq!(circuit(&layer).slow_calls, 0, "nothing was slow, or the window is new");
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
    // One circuit for all, where the caller wants that.
    let layer = builder().key_by(|_| TargetKey::named("all")).build().unwrap();
    let probe = Probe::always(down());
    let mut service = stack(&layer, &probe);
    for _ in 0..ROW {
        ask(&mut service).await.unwrap();
    }
    assert!(service.ready().await.unwrap().call(other()).await.is_err());
}

// ===== open, half-open, closed again =====

#[tokio::test(start_paused = true)]
async fn an_open_circuit_never_polls_or_calls_the_inner_service() {
    let layer = builder().build().unwrap();
    let (mut service, probe) = opened(&layer, Answer::Ok).await;
    // From now on the inner service is never ready: what it guards against has happened.
    probe.state().lock().unwrap().not_ready = u32::MAX;
    let polls = probe.state().lock().unwrap().ready_polls;
    for mut service in [service.clone(), stack(&layer, &probe), service.clone()] {
        let turned_away = ask(&mut service).await.unwrap_err();
        assert!(turned_away.until().is_some_and(|until| until > Instant::now()));
        assert_eq!((turned_away.key(), turned_away.since()), (&key(), circuit(&layer).since));
    }
    assert!(ask(&mut service).await.is_err());
    assert_eq!(calls(&probe), ROW);
    assert_eq!(probe.state().lock().unwrap().ready_polls, polls);
}

#[tokio::test(start_paused = true)]
async fn an_inner_reservation_is_not_held_while_the_circuit_is_open() {
    let layer = builder().build().unwrap();
    let limit = tower::limit::ConcurrencyLimitLayer::new(1);
    let probe = Probe::always(Answer::Ok);
    let limited = limit.layer(ClassifyLayer::new().layer(probe.clone()));
    let mut service = layer.layer(limited.clone());
    service.ready().await.unwrap();
    layer.handle().force_open(&key());
    // It holds the only permit until it is used; turned away, it gives the permit back.
    assert!(service.call(request()).await.is_err());
    let mut other = limited;
    let ready = tokio::time::timeout(SECOND, other.ready()).await;
    assert!(ready.is_ok_and(|ready| ready.is_ok()), "the permit is back");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_no_error_of_the_service_and_the_same_instance_recovers() {
    let layer = builder().ramp(Duration::ZERO).build().unwrap();
    let (mut service, _) = opened(&layer, Answer::Ok).await;
    let turned_away = ask(&mut service).await.unwrap_err();
    tokio::time::sleep_until(turned_away.until().unwrap()).await;
    assert_eq!(ask(&mut service).await.unwrap(), 200);
    assert_eq!(circuit(&layer).state, CircuitState::Closed);
    for _ in 0..100 {
        assert_eq!(ask(&mut service).await.unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_opens_it_for_longer() {
    let layer = builder().build().unwrap();
    let (mut service, probe) = opened(&layer, down()).await;
    let mut waits = Vec::new();
    for _ in 0..8 {
        let until = circuit(&layer).until.unwrap();
        waits.push((until - circuit(&layer).since).as_secs_f64());
        tokio::time::sleep_until(until).await;
        assert_eq!(ask(&mut service).await.unwrap(), 503);
    }
    for (wait, middle) in waits.iter().zip((0..8).map(|failed| 0.5 * 1.06_f64.powi(failed))) {
        assert!((middle * 0.8..=middle * 1.2).contains(wait) && *wait <= 15.0, "{waits:?}");
    }
    assert_eq!(calls(&probe), ROW + 8, "one call for each open time");
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_instant_counts_if_it_is_later() {
    let layer = builder().build().unwrap();
    let mut service = stack(&layer, &Probe::always(Answer::Header(503, "retry-after", "40")));
    for _ in 0..ROW {
        ask(&mut service).await.unwrap();
    }
    let open = circuit(&layer);
    assert_eq!(open.until.unwrap() - open.since, 41 * SECOND, "one second for the fraction that is cut off");
}

#[tokio::test(start_paused = true)]
async fn at_the_instant_of_half_open_one_gets_through_and_others_follow_up_to_the_permitted_number() {
    for probes in [1, 3] {
        let layer = builder().probes(probes).build().unwrap();
        let (service, probe) = opened(&layer, Answer::Hang).await;
        tokio::time::sleep_until(circuit(&layer).until.unwrap()).await;
        for wave in 1..=5 {
            let tasks: Vec<_> = (0..64)
                .map(|_| {
                    let mut service = service.clone();
                    tokio::spawn(async move { ask(&mut service).await })
                })
                .collect();
            // Longer than any open time is by then.
            tokio::time::sleep(SECOND).await;
            assert_eq!(calls(&probe), ROW + probes.min(wave), "wave {wave}");
            let under_way = tasks.iter().filter(|task| !task.is_finished()).count();
            assert_eq!(under_way, usize::from(wave <= probes), "wave {wave}");
        }
    }
}

// The same on real threads: the tasks meet at a barrier, and the clock does not wait for them.
#[test]
fn on_many_threads_one_probe_gets_through_as_well() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let short = Duration::from_millis(20);
        let layer = builder().probes(1).open_time(short, short).build().unwrap();
        let (service, probe) = opened(&layer, Answer::Hang).await;
        tokio::time::sleep_until(circuit(&layer).until.unwrap()).await;
        let barrier = Arc::new(tokio::sync::Barrier::new(64));
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let (mut service, barrier) = (service.clone(), Arc::clone(&barrier));
                tokio::spawn(async move {
                    barrier.wait().await;
                    ask(&mut service).await
                })
            })
            .collect();
        while tasks.iter().filter(|task| task.is_finished()).count() < 63 {
            tokio::task::yield_now().await;
        }
        assert_eq!(calls(&probe), ROW + 1);
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    });
}

#[tokio::test(start_paused = true)]
async fn results_from_another_age_move_nothing() {
    // Two calls are under way when the circuit opens; a probe is out when they end.
    let layer = builder().probes(1).build().unwrap();
    let (ends, answers) = (Arc::new(tokio::sync::Notify::new()), Arc::new(Mutex::new(Vec::new())));
    let (wake, script) = (Arc::clone(&ends), Arc::clone(&answers));
    let mut service = layer.layer(tower::service_fn(move |request: Request<Body>| {
        let (wake, script) = (Arc::clone(&wake), Arc::clone(&script));
        async move {
            let status = match request.headers().get("wait") {
                Some(_) => {
                    wake.notified().await;
                    script.lock().unwrap().pop().unwrap()
                }
                None => 503,
            };
            Ok::<_, BoxError>(support::respond(status, String::new()))
        }
    }));
    let mut slow = request();
    slow.headers_mut().insert("wait", "1".parse().unwrap());
    let mut old: Vec<_> = (0..3).map(|_| tokio::spawn(service.clone().oneshot(slow.clone()))).collect();
    tokio::task::yield_now().await;
    for _ in 0..ROW {
        ask(&mut service).await.unwrap();
    }
    tokio::time::sleep_until(circuit(&layer).until.unwrap()).await;
    let probe = tokio::spawn(service.clone().oneshot(slow));
    tokio::task::yield_now().await;
    let before = circuit(&layer);
    assert_eq!(before.state, CircuitState::HalfOpen);
    // Two old successes would close it, an old failure would open it.
    for status in [200, 200, 503] {
        answers.lock().unwrap().push(status);
        ends.notify_one();
        let response = old.remove(0).await.unwrap().unwrap();
        assert_eq!(response.status().as_u16(), status);
        response.into_body().collect().await.unwrap();
        assert_eq!(circuit(&layer).generation, before.generation);
    }
    assert!(ask(&mut service).await.is_err(), "the probe's place is still taken");
    answers.lock().unwrap().push(503);
    ends.notify_one();
    probe.await.unwrap().unwrap();
    assert_eq!(circuit(&layer).history.last().unwrap().cause, TransitionCause::ProbeFailed);
}

#[tokio::test(start_paused = true)]
async fn neutral_probes_free_their_place_and_count_nothing() {
    let layer = builder().build().unwrap();
    let (mut service, _) = opened(&layer, error(400, "INVALID_ARGUMENT", "bad")).await;
    tokio::time::sleep_until(circuit(&layer).until.unwrap()).await;
    for _ in 0..20 {
        assert_eq!(ask(&mut service).await.unwrap(), 400);
        assert_eq!(circuit(&layer).state, CircuitState::HalfOpen);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_probe_loses_its_place_after_the_lease() {
    let layer = builder().probes(1).probe_lease(10 * SECOND).build().unwrap();
    let (service, probe) = opened(&layer, Answer::Hang).await;
    tokio::time::sleep_until(circuit(&layer).until.unwrap()).await;
    let _hung = tokio::spawn(service.clone().oneshot(request()));
    tokio::time::sleep(9 * SECOND).await;
    let turned_away = ask(&mut service.clone()).await.unwrap_err();
    assert_eq!(turned_away.why(), CircuitOpenReason::Probing);
    let wait = turned_away.until().unwrap() - Instant::now();
    assert!((SECOND / 4..SECOND).contains(&wait), "soon, since nobody knows: {wait:?}");
    tokio::time::sleep(SECOND).await;
    let _next = tokio::spawn(service.oneshot(request()));
    tokio::task::yield_now().await;
    assert_eq!(calls(&probe), ROW + 2);
}

// ===== streams =====

/// A body of two frames, of which the second may be an error, and the end may never come.
fn stream(
    second: Option<Result<&'static str, &'static str>>,
) -> impl http_body::Body<Data = Bytes, Error = BoxError> {
    let first = futures_util::stream::iter([Ok("a"), second.unwrap_or(Ok("b"))]);
    let frames = futures_util::StreamExt::map(first, |frame: Result<_, &str>| {
        frame.map(|data| http_body::Frame::data(Bytes::from(data))).map_err(BoxError::from)
    });
    http_body_util::StreamBody::new(frames)
}

/// A service that answers at once, with a body made for each call.
fn answering<B>(
    body: impl Fn() -> B + Clone,
) -> impl Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone {
    tower::service_fn(move |_: Request<Body>| std::future::ready(Ok(Response::new(body()))))
}

#[tokio::test(start_paused = true)]
async fn a_stream_reports_when_its_body_ends() {
    let layer = builder().build().unwrap();
    let service = |second| layer.layer(answering(move || stream(Some(second))));
    // Whole, broken off, dropped half-way, dropped unread.
    let whole = service(Ok("b")).oneshot(request()).await.unwrap();
    assert_eq!(circuit(&layer).calls, 0, "not yet");
    assert_eq!(whole.into_body().collect().await.unwrap().to_bytes(), "ab");
    assert_eq!((circuit(&layer).calls, circuit(&layer).failures), (1, 0));
    let broken = service(Err("cut")).oneshot(request()).await.unwrap();
    assert!(broken.into_body().collect().await.is_err());
    assert_eq!((circuit(&layer).calls, circuit(&layer).failures), (2, 1));
    let mut half = Box::pin(service(Ok("b")).oneshot(request()).await.unwrap().into_body());
    half.frame().await.unwrap().unwrap();
    drop(half);
    drop(service(Ok("b")).oneshot(request()).await.unwrap());
    assert_eq!((circuit(&layer).calls, circuit(&layer).failures), (2, 1), "the caller's word counts nothing");
}

#[tokio::test(start_paused = true)]
async fn streams_that_die_half_way_open_it() {
    let layer = builder().build().unwrap();
    let mut service = layer.layer(answering(|| stream(Some(Err("cut")))));
    for _ in 0..ROW {
        let response = service.ready().await.unwrap().call(request()).await.unwrap();
        assert!(response.into_body().collect().await.is_err());
    }
    assert_eq!(circuit(&layer).state, CircuitState::Open);
}

// ===== what a drop gives back, in each state of the future and the body =====

/// A half-open circuit whose one place must be free again.
async fn assert_place_is_free(layer: &CircuitBreakerLayer, service: &Stack, probe: &Probe) {
    assert_eq!(circuit(layer).state, CircuitState::HalfOpen);
    let before = calls(probe);
    let mut next = Box::pin(service.clone().oneshot(request()));
    let _ = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(calls(probe), before + 1, "the next caller is let through");
}

async fn half_openable(then: Answer) -> (CircuitBreakerLayer, Stack, Probe) {
    let layer = builder().build().unwrap();
    let (service, probe) = opened(&layer, then).await;
    tokio::time::sleep_until(circuit(&layer).until.unwrap()).await;
    (layer, service, probe)
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn dropped_before_its_first_poll_takes_no_place() {
    let (layer, mut service, probe) = half_openable(Answer::Hang).await;
    let unpolled = service.ready().await.unwrap().call(request());
    assert_eq!(circuit(&layer).state, CircuitState::Open, "the place is taken when it is sent");
    let mut other = Box::pin(service.clone().oneshot(request()));
    assert!(poll(&mut other).is_pending());
    drop((unpolled, other));
    assert_place_is_free(&layer, &service, &probe).await;
}

#[tokio::test(start_paused = true)]
async fn dropped_while_the_inner_service_is_not_ready_holds_no_place() {
    let (layer, mut service, probe) = half_openable(Answer::Hang).await;
    probe.state().lock().unwrap().not_ready = u32::MAX;
    let mut waiting = Box::pin(service.ready().await.unwrap().call(request()));
    assert!(poll(&mut waiting).is_pending());
    // While it waits, another caller whose inner service is ready goes.
    probe.state().lock().unwrap().not_ready = 0;
    let mut other = Box::pin(service.clone().oneshot(request()));
    assert!(poll(&mut other).is_pending());
    assert_eq!(calls(&probe), ROW + 1);
    drop((waiting, other));
    assert_place_is_free(&layer, &service, &probe).await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_dropped_while_called_frees_its_place() {
    let (layer, mut service, probe) = half_openable(Answer::Hang).await;
    let mut called = Box::pin(service.ready().await.unwrap().call(request()));
    assert!(poll(&mut called).is_pending());
    assert!(ask(&mut service.clone()).await.is_err());
    drop(called);
    assert_eq!(probe.state().lock().unwrap().in_flight, 0);
    assert_place_is_free(&layer, &service, &probe).await;
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_streamed_answer_closes_it() {
    let layer = builder().build().unwrap();
    let (_, _) = opened(&layer, Answer::Ok).await;
    tokio::time::sleep_until(circuit(&layer).until.unwrap()).await;
    let response = layer.layer(answering(|| stream(None))).oneshot(request()).await.unwrap();
    assert_eq!(circuit(&layer).state, CircuitState::Closed, "before the body is read");
    drop(response);
    assert_eq!(circuit(&layer).state, CircuitState::Closed);
}

// ===== whom it binds =====

fn labelled(label: &'static str) -> Request<Body> {
    let mut request = request();
    request.extensions_mut().insert(tower_gemini::KeyLabel::new(label));
    request
}

const GOOD: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// A server that answers 500 to one label.
fn refuses_bad() -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone {
    tower::service_fn(|request: Request<Body>| {
        let label = request.extensions().get::<tower_gemini::KeyLabel>().cloned();
        let status = if label == Some(tower_gemini::KeyLabel::new("bad")) { 500 } else { 200 };
        std::future::ready(Ok(support::respond(status, String::new())))
    })
}

#[tokio::test(start_paused = true)]
async fn one_bad_label_beside_ten_good_ones_binds_nobody_else_in_any_order() {
    for (bad_calls, pause) in [(1, 0), (7, 0), (19, 0), (25, 0), (25, 60), (25, 1800), (100, 3)] {
        let layer = builder().build().unwrap();
        let service = layer.layer(refuses_bad());
        for round in 0..20 {
            for _ in 0..bad_calls {
                let _ = service.clone().oneshot(labelled("bad")).await;
            }
            tokio::time::sleep(pause * SECOND).await;
            for good in 0..10 {
                let label = GOOD[(good + round) % 10];
                let response = service.clone().oneshot(labelled(label)).await;
                let response =
                    response.unwrap_or_else(|e| panic!("{bad_calls} {pause} {round} {label}: {e}"));
                response.into_body().collect().await.unwrap();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cut_streams_of_one_label_bind_that_label_only() {
    for cut in [11, 30] {
        let layer = builder().build().unwrap();
        let bad = layer.layer(answering(|| stream(Some(Err("cut")))));
        let mut turned_away = 0;
        for _ in 0..cut {
            match bad.clone().oneshot(labelled("bad")).await {
                Ok(response) => assert!(response.into_body().collect().await.is_err()),
                Err(_) => turned_away += 1,
            }
        }
        assert_eq!(turned_away, cut.max(ROW) - ROW, "the label itself is bound");
        assert_eq!(circuit(&layer).is_one_callers, cut > ROW);
        let start = Instant::now();
        let good = layer.layer(answering(|| stream(None)));
        let response = good.oneshot(labelled("good")).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!((Instant::now(), circuit(&layer).state), (start, CircuitState::Closed));
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_refusals_and_ordinary_calls_leave_nothing() {
    let layer = builder().build().unwrap();
    let (mut service, probe) = opened(&layer, Answer::Hang).await;
    drop(service.ready().await.unwrap().call(request()));
    layer.handle().reset(&key());
    let mut called = Box::pin(service.ready().await.unwrap().call(request()));
    assert!(poll(&mut called).is_pending());
    drop(called);
    assert_eq!((circuit(&layer).calls, probe.state().lock().unwrap().in_flight), (0, 0));
}

// ===== with the retry layer outside =====

#[tokio::test(start_paused = true)]
async fn retry_does_not_wait_for_a_circuit_that_fails_fast() {
    let layer = CircuitBreakerLayer::builder().fail_fast().consecutive_failures(1).build().unwrap();
    let probe = Probe::always(error(503, "UNAVAILABLE", "down"));
    let inner = layer.layer(ClassifyLayer::new().layer(probe.clone()));
    let _ = inner.clone().oneshot(request()).await.unwrap();
    let begun = Instant::now();
    let error = RetryLayer::default().layer(inner).oneshot(request()).await.err().unwrap();
    assert_eq!(Instant::now(), begun);
    let open = find::<CircuitOpen>(error.as_ref()).unwrap();
    let wait = open.until().unwrap() - begun;
    assert!(wait >= 2 * SECOND / 5 && wait <= 3 * SECOND / 5, "it says when all the same: {wait:?}");
    let answer = tower_gemini::respond::from_error(error.as_ref());
    let after: f64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert_eq!(after, wait.as_secs_f64().ceil());
    assert_eq!(probe.state().lock().unwrap().calls.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn retry_waits_for_the_circuit_without_spending_an_attempt() {
    let layer = builder().build().unwrap();
    let (service, probe) = opened(&layer, Answer::Ok).await;
    let policy = RetryPolicy::builder().attempts(2).without_budget().build().unwrap();
    let retry = RetryLayer::new(policy).layer(service);
    let until = circuit(&layer).until.unwrap();
    let response = retry.clone().oneshot(request()).await.unwrap();
    assert_eq!((response.status().as_u16(), calls(&probe)), (200, ROW + 1));
    assert!(Instant::now() >= until);
    assert_eq!(Attempts::of(&response).made(), 1, "it was never sent before");

    // No longer than the deadline permits: then at once.
    layer.handle().reset(&key());
    let (service, _) = opened(&layer, Answer::Ok).await;
    let mut hurried = request();
    hurried.extensions_mut().insert(Deadline::within(SECOND / 10));
    let start = Instant::now();
    let error = RetryLayer::default().layer(service.clone()).oneshot(hurried).await.unwrap_err();
    assert!(find::<CircuitOpen>(error.as_ref()).is_some() && find::<Rejected>(error.as_ref()).is_some());
    assert_eq!(Instant::now(), start);

    // Held open by hand: nobody knows until when.
    layer.handle().force_open(&key());
    let error = RetryLayer::default().layer(service).oneshot(request()).await.unwrap_err();
    assert_eq!(find::<CircuitOpen>(error.as_ref()).unwrap().until(), None);
    assert_eq!(Instant::now(), start);
}

// A five-minute outage at 2 requests a second, deadline 600 s: all are served, hardly any call is wasted, and when the
// server is back no second sees more than a hundred calls.
#[tokio::test(start_paused = true)]
async fn a_backlog_is_carried_over_an_outage_and_released_without_a_rush() {
    let start = Instant::now();
    let over = start + 300 * SECOND;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let server = tower::service_fn(move |_: Request<Body>| {
        log.lock().unwrap().push(Instant::now());
        let status = if Instant::now() < over { 503 } else { 200 };
        async move { Ok::<_, BoxError>(support::respond(status, String::new())) }
    });
    let layer = builder().build().unwrap();
    let policy = RetryPolicy::builder().deadline(600 * SECOND).without_budget().attempts(20).build().unwrap();
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy)).layer(layer.clone()).service(server);
    let mut tasks = Vec::new();
    for _ in 0..600 {
        let mut service = service.clone();
        tasks.push(tokio::spawn(async move {
            let response = service.ready().await.ok()?.call(request()).await.ok()?;
            let good = response.status() == 200;
            response.into_body().collect().await.ok()?;
            good.then_some(())
        }));
        tokio::time::sleep(SECOND / 2).await;
    }
    let mut served = 0;
    for task in tasks {
        served += usize::from(task.await.unwrap().is_some());
    }
    let seen = seen.lock().unwrap();
    let wasted = seen.iter().filter(|at| **at < over).count();
    let peak =
        (0..seen.len()).map(|n| seen[n..].iter().take_while(|at| **at - seen[n] < SECOND).count()).max();
    assert!(served >= 594, "{served} of 600 served");
    assert!(wasted <= 120, "{wasted} calls in the outage");
    assert!(peak <= Some(100), "{peak:?} calls in one second");
    let healthy = Instant::now() - over;
    assert!(healthy <= 60 * SECOND, "the last one was served {healthy:?} after the outage");
}

// ===== the handle =====

#[tokio::test(start_paused = true)]
async fn a_circuit_can_be_held_by_hand() {
    let layer = builder().build().unwrap();
    let handle = layer.handle();
    let probe = Probe::always(down());
    let mut service = stack(&layer, &probe);
    handle.force_closed(&key());
    for _ in 0..50 {
        assert_eq!(ask(&mut service).await.unwrap(), 503);
    }
    assert_eq!((circuit(&layer).mode, circuit(&layer).failures), (BreakerMode::ForcedClosed, 50));
    handle.force_open(&key());
    tokio::time::sleep(3600 * SECOND).await;
    let turned_away = ask(&mut service).await.unwrap_err();
    assert_eq!(
        (turned_away.why(), turned_away.until()),
        (CircuitOpenReason::Opened(TransitionCause::ByHand), None)
    );
    handle.observe_only(&key());
    for _ in 0..50 {
        assert_eq!(ask(&mut service).await.unwrap(), 503);
    }
    assert_eq!((circuit(&layer).mode, circuit(&layer).state), (BreakerMode::ObserveOnly, CircuitState::Open));
    handle.reset(&key());
    assert_eq!((circuit(&layer).mode, circuit(&layer).state), (BreakerMode::Automatic, CircuitState::Closed));
    for _ in 0..ROW {
        assert_eq!(ask(&mut service).await.unwrap(), 503);
    }
    assert!(ask(&mut service).await.is_err());
    let history = circuit(&layer).history;
    assert!(
        history
            .windows(2)
            .all(|pair| pair[0].to == pair[1].from && pair[0].generation + 1 == pair[1].generation)
    );
    assert_eq!(history.first().map(|first| first.mode), Some(BreakerMode::ForcedClosed));
}

#[tokio::test(start_paused = true)]
async fn observers_are_told_of_each_change_in_order() {
    #[derive(Default)]
    struct Log(Mutex<Vec<Transition>>);
    impl Observer for Log {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::CircuitChanged { key, transition, .. } = event {
                assert_eq!(key.model(), Some("gemini-9-flash"));
                self.0.lock().unwrap().push(**transition);
            }
        }
    }
    let log = Arc::new(Log::default());
    let layer = builder().observer(Arc::clone(&log) as Arc<dyn Observer>).build().unwrap();
    let (mut service, _) = opened(&layer, Answer::Ok).await;
    tokio::time::sleep_until(circuit(&layer).until.unwrap()).await;
    ask(&mut service).await.unwrap();
    let told = log.0.lock().unwrap();
    let told: Vec<_> = told.iter().map(|change| (change.generation, change.to, change.cause)).collect();
    assert_eq!(
        told,
        [
            (1, CircuitState::Open, TransitionCause::ConsecutiveFailures),
            (2, CircuitState::HalfOpen, TransitionCause::OpenTimeOver),
            (3, CircuitState::Closed, TransitionCause::ProbesSucceeded),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn idle_circuits_are_dropped_and_made_anew() {
    let layer = builder().build().unwrap();
    let (service, probe) = opened(&layer, Answer::Ok).await;
    let handle = layer.handle();
    drop(service);
    handle.evict_idle();
    assert_eq!(handle.keys(), [key()], "it is open");
    tokio::time::sleep(400 * SECOND).await;
    let mut held = stack(&layer, &probe);
    handle.evict_idle();
    assert!(handle.keys().is_empty(), "nobody asked for it for long");
    assert_eq!(ask(&mut held).await.unwrap(), 200);
    tokio::time::sleep(400 * SECOND).await;
    handle.evict_idle();
    assert_eq!(handle.all().len(), 1, "a service remembers it");
    drop(held);
    handle.evict_idle();
    handle.force_open(&key());
    tokio::time::sleep(4000 * SECOND).await;
    handle.evict_idle();
    assert_eq!(handle.keys(), [key()], "what is forced is kept");
}

#[tokio::test(start_paused = true)]
async fn with_no_circuit_open_it_is_ready_when_the_inner_service_is() {
    let layer = builder().build().unwrap();
    let (service, probe) = opened(&layer, Answer::Ok).await;
    drop(service);
    probe.state().lock().unwrap().not_ready = u32::MAX;
    let mut service = stack(&layer, &probe);
    assert!(poll(&mut ServiceExt::<Request<Body>>::ready(&mut service)).is_ready(), "the call asks instead");
    // The open circuit is forgotten, and is no reason any more.
    tokio::time::sleep(400 * SECOND).await;
    layer.handle().evict_idle();
    assert!(poll(&mut ServiceExt::<Request<Body>>::ready(&mut service)).is_pending());
    probe.state().lock().unwrap().not_ready = 0;
    assert!(poll(&mut ServiceExt::<Request<Body>>::ready(&mut service)).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_layer_prints_its_rules() {
    let printed = format!("{:?}", builder().build().unwrap());
    assert!(printed.contains("rules") && printed.contains("min_calls: 20"), "{printed}");
}

#[tokio::test(start_paused = true)]
async fn a_layer_shares_its_circuits_with_all_services_and_clones() {
    let layer = builder().build().unwrap();
    let probe = Probe::always(down());
    for service in 0..ROW {
        let one = if service % 2 == 0 { stack(&layer, &probe) } else { stack(&layer.clone(), &probe) };
        ask(&mut one.clone()).await.unwrap();
    }
    assert!(ask(&mut stack(&layer, &probe)).await.is_err());
    // Another layer knows nothing of it.
    assert!(ask(&mut stack(&builder().build().unwrap(), &probe)).await.is_ok());
}
