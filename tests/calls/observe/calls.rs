//! `Event::Finished`, once for each call, with every field right.

use std::io::ErrorKind;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::event::{Event, GaveUp};
use tower_gemini::observe::{Call, ObserveLayer};
use tower_gemini::request::{Method, Surface};
use tower_gemini::respond::RespondLayer;
use tower_gemini::retry::{RetryLayer, RetryPolicy};
use tower_gemini::verdict::Outcome;
use tower_gemini::{BoxError, Kind};

use super::support::{Answer, Probe, request};
use super::{BEGUN, Each, HEAD, PIECE, USED, overloaded, read, server, streamed};

#[derive(Debug, PartialEq)]
struct Told {
    status: Option<u16>,
    outcome: Outcome,
    attempts: u32,
    waited: Duration,
    head: Option<Duration>,
    latency: Duration,
    tokens: Option<(u64, u64)>,
    gave_up: Option<GaveUp>,
}

fn told(call: &Call) -> Told {
    Told {
        status: call.status().map(|status| status.as_u16()),
        outcome: call.outcome(),
        attempts: call.attempts(),
        waited: call.waited(),
        head: call.time_to_head(),
        latency: call.latency(),
        tokens: call.usage().map(|usage| (usage.input_tokens, usage.output_tokens)),
        gave_up: call.gave_up(),
    }
}

/// A good answer of one attempt, as `server` gives it.
fn good() -> Told {
    Told {
        status: Some(200),
        outcome: Outcome::Complete,
        attempts: 1,
        waited: Duration::ZERO,
        head: Some(HEAD),
        latency: HEAD,
        tokens: None,
        gave_up: None,
    }
}

fn failed(kind: Kind) -> Told {
    Told { status: None, outcome: Outcome::Failed(kind), head: None, ..good() }
}

fn finished() -> std::sync::Arc<Each<Told, impl Fn(&Event<'_>) -> Option<Told>>> {
    Each::new(|event: &Event<'_>| match event {
        Event::Finished { call, .. } => Some(told(call)),
        _ => None,
    })
}

fn retries() -> RetryLayer {
    RetryLayer::new(RetryPolicy::builder().seed(1).build().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_told_at_its_end_with_its_tokens() {
    let log = finished();
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::new(log.clone()))
        .layer(ClassifyLayer::new().watch())
        .service(server(vec![(200, vec![Some(BEGUN), Some(BEGUN), Some(USED)])]));
    let mut body = service.oneshot(streamed()).await.unwrap().into_body();
    let _ = body.frame().await.unwrap().unwrap();
    assert_eq!(log.seen(), [], "it is not over");
    let _ = body.collect().await.unwrap();
    assert_eq!(log.seen(), [Told { latency: HEAD + 2 * PIECE, tokens: Some((7, 5)), ..good() }]);
}

#[tokio::test(start_paused = true)]
async fn without_a_watching_classifier_the_tokens_are_read_all_the_same() {
    let log = finished();
    let service = ObserveLayer::new(log.clone()).layer(server(vec![(200, vec![Some(USED)])]));
    read(service, streamed()).await.unwrap();
    assert_eq!(log.seen(), [Told { tokens: Some((7, 5)), ..good() }]);
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_is_told() {
    let log = Each::new(|event: &Event<'_>| {
        let Event::Finished { call, .. } = event else { return None };
        assert_eq!(
            (call.target().surface(), call.method()),
            (Surface::GeminiApi, Method::StreamGenerateContent)
        );
        assert_eq!((call.model(), call.is_streaming()), (Some("gemini-9-flash"), true));
        assert_eq!(call.target().label().map(tower_gemini::KeyLabel::as_str), Some("team-a"));
        assert_eq!(
            (call.http_method(), call.host()),
            (&http::Method::POST, Some("generativelanguage.googleapis.com"))
        );
        assert_eq!(
            (call.path().into_owned(), call.port()),
            ("/v1beta/models/gemini-9-flash:streamGenerateContent".to_owned(), Some(443))
        );
        assert_eq!((call.operation(), call.provider()), ("generate_content", "gcp.gemini"));
        Some(())
    });
    read(ObserveLayer::new(log.clone()).layer(server(vec![(200, vec![])])), streamed()).await.unwrap();
    assert_eq!(log.seen(), [()]);
    let plain = Each::new(|event: &Event<'_>| match event {
        Event::Finished { call, .. } => {
            Some((call.model().map(str::to_owned), call.port(), call.path().into_owned()))
        }
        _ => None,
    });
    let request = Request::get("http://127.0.0.1:8080/x?y").body(super::Body::default()).unwrap();
    read(ObserveLayer::new(plain.clone()).layer(server(vec![(200, vec![])])), request).await.unwrap();
    assert_eq!(plain.seen(), [(None, Some(8080), "/x".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_recovers_is_told_once_with_its_attempts_and_waits() {
    let (log, waits) = (
        finished(),
        Each::new(|event: &Event<'_>| match event {
            Event::Waiting { wait, .. } => Some(*wait),
            _ => None,
        }),
    );
    let policy = RetryPolicy::builder().observer(waits.clone()).build().unwrap();
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::new(log.clone()))
        .layer(RetryLayer::new(policy))
        .layer(ClassifyLayer::new().watch())
        .service(server(vec![overloaded(), overloaded(), (200, vec![Some(USED)])]));
    let begun = tokio::time::Instant::now();
    read(service, streamed()).await.unwrap();
    let (took, waited) = (tokio::time::Instant::now() - begun, waits.seen().iter().sum());
    let told = Told { attempts: 3, waited, head: Some(took), latency: took, tokens: Some((7, 5)), ..good() };
    assert_eq!(log.seen(), [told]);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_told_where_the_layer_is_inside() {
    let log = Each::new(|event: &Event<'_>| match event {
        Event::Finished { call, .. } => Some((
            call.attempt(),
            call.attempts(),
            call.resends(),
            call.status().map(|s| s.as_u16()),
            call.latency(),
        )),
        _ => None,
    });
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::new(log.clone()))
        .layer(retries())
        .layer(ObserveLayer::new(log.clone()))
        .layer(ClassifyLayer::new())
        .service(server(vec![overloaded(), (0, vec![]), (200, vec![])]));
    read(service, streamed()).await.unwrap();
    let seen = log.seen();
    let attempts = [(1, 1, 0, Some(503), HEAD), (2, 1, 1, None, HEAD), (3, 1, 2, Some(200), HEAD)];
    assert_eq!(seen[..3], attempts);
    assert_eq!((seen[3].0, seen[3].1, seen[3].2, seen[3].3), (1, 3, 2, Some(200)), "the whole of it");
    assert_eq!(seen.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_with_its_head_and_why_it_ended() {
    let log = finished();
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::new(log.clone()))
        .layer(retries())
        .layer(ClassifyLayer::new())
        .service(Probe::always(super::support::error(403, "PERMISSION_DENIED", "no")));
    let response = service.clone().oneshot(request()).await.unwrap();
    let told = Told {
        status: Some(403),
        head: Some(Duration::ZERO),
        latency: Duration::ZERO,
        ..failed(Kind::PermissionDenied)
    };
    assert_eq!(log.seen(), [Told { gave_up: Some(GaveUp::NotRetryable), ..told }]);
    drop(response);
    assert_eq!(log.seen(), [], "its body is of no more interest");
}

#[tokio::test(start_paused = true)]
async fn an_error_is_told_with_the_attempts_that_no_response_could_carry() {
    let log = finished();
    let stack = |answer: Answer| {
        ServiceBuilder::new()
            .layer(ObserveLayer::new(log.clone()))
            .layer(retries())
            .service(Probe::always(answer))
    };
    let begun = tokio::time::Instant::now();
    let error = stack(Answer::Io(ErrorKind::ConnectionRefused)).oneshot(request()).await.unwrap_err();
    assert!(error.is::<std::io::Error>(), "the error itself is passed on");
    let took = tokio::time::Instant::now() - begun;
    let seen = log.seen();
    // tokio's timer counts whole milliseconds, the waits as decided do not.
    let waited = seen[0].waited;
    assert!(waited <= took && took - waited < Duration::from_millis(5), "{waited:?} of {took:?}");
    assert_eq!(seen, [Told { attempts: 10, waited, latency: took, ..failed(Kind::Transport) }]);
    // Under tower's own `Retry` as well.
    let policy = RetryPolicy::builder().attempts(3).build().unwrap();
    let probe = Probe::always(Answer::Io(ErrorKind::ConnectionRefused));
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::new(log.clone()))
        .layer(tower::retry::RetryLayer::new(policy))
        .service(probe);
    let _ = service.oneshot(request()).await;
    let seen = log.seen();
    assert_eq!((seen.len(), seen[0].attempts, seen[0].outcome), (1, 3, Outcome::Failed(Kind::Transport)));
    // Turned away at once: no attempt was made.
    let _ = stack(Answer::Rejected(None)).oneshot(request()).await;
    assert_eq!(log.seen(), [Told { attempts: 0, latency: Duration::ZERO, ..failed(Kind::Transport) }]);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_was_answered_is_told_with_its_attempts_too() {
    let log = finished();
    let ask = async |answer: Answer| {
        let service = ServiceBuilder::new()
            .layer(ObserveLayer::new(log.clone()))
            .layer(RespondLayer::new())
            .layer(retries())
            .service(Probe::always(answer));
        let response = service.oneshot(request()).await.unwrap();
        (response.status().as_u16(), log.seen().pop().unwrap())
    };
    let (status, seen) = ask(Answer::Io(ErrorKind::ConnectionRefused)).await;
    assert_eq!((status, seen.status, seen.attempts), (503, Some(503), 10));
    assert_eq!(seen.outcome, Outcome::Failed(Kind::Transport));
    assert!(seen.waited > Duration::ZERO && seen.head == Some(seen.latency));
    let (_, seen) = ask(Answer::Rejected(None)).await;
    assert_eq!((seen.attempts, seen.waited), (0, Duration::ZERO), "turned away: no attempt was made");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_is_told_wherever_it_was() {
    let log = finished();
    let dropped = || Told { status: None, outcome: Outcome::Dropped, head: None, ..good() };
    let stack = |script: Vec<_>| {
        ServiceBuilder::new()
            .layer(ObserveLayer::new(log.clone()))
            .layer(retries())
            .layer(ClassifyLayer::new())
            .service(server(script))
    };
    drop(stack(vec![]).oneshot(request()));
    assert_eq!(log.seen(), [], "it was never called");
    let millis = Duration::from_millis;
    let late = tokio::time::timeout(millis(30), stack(vec![(200, vec![])]).oneshot(request()));
    assert!(late.await.is_err());
    assert_eq!(log.seen(), [Told { latency: millis(30), ..dropped() }]);
    // Between two attempts: one was begun.
    let late = tokio::time::timeout(millis(71), stack(vec![overloaded()]).oneshot(request()));
    assert!(late.await.is_err());
    assert_eq!(log.seen(), [Told { latency: millis(71), ..dropped() }]);
    // In the midst of the fourth.
    let probe = Probe::new((0..3).map(|_| Answer::Status(503, super::OVERLOADED.to_owned())), Answer::Hang);
    let service = ServiceBuilder::new().layer(ObserveLayer::new(log.clone())).layer(retries()).service(probe);
    assert!(tokio::time::timeout(millis(100_000), service.oneshot(request())).await.is_err());
    let seen = log.seen();
    assert_eq!((seen.len(), seen[0].attempts, seen[0].outcome), (1, 4, Outcome::Dropped));
    assert!(seen[0].waited > Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_body_is_told_with_what_was_read_of_it() {
    let log = finished();
    for watch in [true, false] {
        let classify = if watch { ClassifyLayer::new().watch() } else { ClassifyLayer::new() };
        let service = ServiceBuilder::new()
            .layer(ObserveLayer::new(log.clone()))
            .layer(classify)
            .service(server(vec![(200, vec![Some(USED), Some(BEGUN)])]));
        let mut body = service.oneshot(streamed()).await.unwrap().into_body();
        let _ = body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(
            log.seen(),
            [Told { outcome: Outcome::Dropped, tokens: Some((7, 5)), ..good() }],
            "{watch}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_badly_is_a_failure_with_the_status_that_it_began_with() {
    const INSIDE: &str = "data: {\"error\":{\"code\":500,\"status\":\"INTERNAL\"}}\n\n";
    let log = finished();
    for (tail, kind) in [(None, Kind::Transport), (Some(INSIDE), Kind::Internal)] {
        let service = ServiceBuilder::new()
            .layer(ObserveLayer::new(log.clone()))
            .layer(ClassifyLayer::new().watch())
            .service(server(vec![(200, vec![Some(BEGUN), tail])]));
        let _: Result<(), BoxError> = read(service, streamed()).await;
        let told = Told { outcome: Outcome::Failed(kind), latency: HEAD + PIECE, ..good() };
        assert_eq!(log.seen(), [told]);
    }
}

/// Off, nobody is told, the answer comes as it is, and the type is the same.
#[tokio::test(start_paused = true)]
async fn a_layer_that_is_off_tells_nobody() {
    let told = Each::new(|event| matches!(event, Event::Finished { .. }).then_some(()));
    let answers = || server(vec![(200, vec![Some(BEGUN), Some(USED)]), overloaded(), (0, vec![])]);
    for (enabled, calls) in [(false, 0), (true, 3)] {
        let layer = ObserveLayer::new(told.clone()).enabled(enabled);
        let service = layer.layer(answers());
        for fails in [false, false, true] {
            assert_eq!(read(service.clone(), streamed()).await.is_err(), fails);
        }
        assert_eq!(told.seen().len(), calls, "{enabled}");
    }
}
