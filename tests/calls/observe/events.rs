//! The events that other layers tell of calls which succeed, or will.

use std::sync::Arc;

use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::BoxError;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::event::{Event, Observer};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::retry::{Budget, RetryLayer, RetryPolicy};

use super::support::{Answer, Probe, request};
use super::{Each, USED, read, server, streamed};

#[tokio::test(start_paused = true)]
async fn the_budget_tells_what_it_paid_for_and_what_is_left() {
    let log = Each::new(|event: &Event<'_>| match event {
        Event::BudgetCharged { request, attempt, cost, left, .. } => Some((*request, *attempt, *cost, *left)),
        _ => None,
    });
    let policy =
        RetryPolicy::builder().budget(Budget::new(3, 0.5).unwrap()).observer(log.clone()).build().unwrap();
    let down = Answer::Status(503, super::OVERLOADED.to_owned());
    // A wait that the server names costs nothing.
    let named = super::support::quota("PerMinute", "1s");
    let probe = Probe::new([down.clone(), named, down], Answer::Ok);
    let service =
        ServiceBuilder::new().layer(RetryLayer::new(policy)).layer(ClassifyLayer::new()).service(probe);
    service.oneshot(request()).await.unwrap();
    assert_eq!(log.seen(), [(1, 2, 1.0, 2.0), (1, 4, 1.0, 1.0)]);
}

#[tokio::test(start_paused = true)]
async fn the_rate_limit_tells_what_it_charged_and_what_was_used() {
    let log = Each::new(|event: &Event<'_>| match event {
        Event::Settled { charged, used, .. } => Some((*charged > 0, *used)),
        _ => None,
    });
    let layer = |limits| RateLimitLayer::builder().limits(limits).observer(log.clone()).build().unwrap();
    let limits = Limits::new().input_tokens_per_minute(1_000);
    let script = || {
        let refused = r#"{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"no"}}"#;
        server(vec![(200, vec![Some(USED)]), (400, vec![Some(refused)]), (0, vec![])])
    };
    let service = layer(limits).layer(script());
    read(service.clone(), streamed()).await.unwrap();
    let _ = read(service.clone(), streamed()).await;
    let _: Result<(), BoxError> = read(service, streamed()).await;
    assert_eq!(log.seen(), [(true, Some(7)), (true, Some(0)), (true, None)]);
    // Without a limit of tokens there is nothing to settle.
    let service = layer(Limits::new().requests_per_minute(10)).layer(script());
    read(service, streamed()).await.unwrap();
    assert_eq!(log.seen(), []);
}

#[test]
fn several_observers_are_told_in_turn() {
    let (first, second) = (Each::new(|_: &Event<'_>| Some(())), Each::new(|_: &Event<'_>| Some(())));
    let both: Arc<dyn Observer> = Arc::new(vec![first.clone() as Arc<dyn Observer>, second.clone()]);
    let layer = tower_gemini::circuit_breaker::CircuitBreakerLayer::builder().observer(both).build().unwrap();
    layer.handle().force_open(&tower_gemini::request::TargetKey::named("x"));
    assert_eq!((first.seen().len(), second.seen().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_and_a_wrong_order_have_lines_of_their_own() {
    use std::sync::{Arc, Mutex};
    use tower::{Layer, ServiceExt};
    use tower_gemini::event::Observer;
    use tower_gemini::fallback::ModelFallbackLayer;
    use tower_gemini::observe::JsonLines;
    use tower_gemini::retry::{RetryLayer, RetryPolicy};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let written = Written::default();
    let log: Arc<dyn Observer> = Arc::new(JsonLines::new(written.clone()).with_events());
    let down = Answer::Status(503, super::OVERLOADED.to_owned());
    // Inside of retry, where it does not belong.
    let fallback = ModelFallbackLayer::builder()
        .chain("gemini-9-flash", ["gemini-9-lite"])
        .observer(Arc::clone(&log))
        .build()
        .unwrap();
    let inner = fallback.layer(tower_gemini::classify::ClassifyLayer::new().layer(Probe::always(down)));
    let retry = RetryLayer::new(RetryPolicy::builder().attempts(2).observer(log).build().unwrap());
    retry.layer(inner).oneshot(super::streamed()).await.unwrap();
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    let of = |event: &str| -> serde_json::Value {
        let line = text
            .lines()
            .find(|line| line.contains(&format!("\"{event}\"")))
            .unwrap_or_else(|| panic!("{text}"));
        serde_json::from_str(line).unwrap()
    };
    let fell_back = of("fell_back");
    assert_eq!((&fell_back["from"], &fell_back["to"]), (&"gemini-9-flash".into(), &"gemini-9-lite".into()));
    assert_eq!(fell_back["error"], "overloaded");
    let misplaced = of("misplaced");
    assert_eq!((&misplaced["layer"], &misplaced["inside"]), (&"retry".into(), &"fallback".into()));
}
