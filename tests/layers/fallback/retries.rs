//! The fallback is no way round the retry policy.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tower::{ServiceBuilder, ServiceExt};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::event::{Event, GaveUp, Observer};
use tower_gemini::fallback::ModelFallbackLayer;
use tower_gemini::retry::{Attempts, Budget, RetryLayer, RetryPolicy, RetryPolicyBuilder};

use super::world::{Server, ask, chain, run_with, told};
use crate::support::{Answer, error, quota};

fn busy() -> Answer {
    error(503, "UNAVAILABLE", "The model is overloaded.")
}

fn policy(attempts: u32) -> RetryPolicyBuilder {
    RetryPolicy::builder().attempts(attempts).without_budget().without_deadline()
}

fn all_down() -> Server {
    Server::new([("pro", busy()), ("flash", busy()), ("lite", busy())])
}

// (attempts of the policy, calls of each model): one attempt is left for each model that comes after, and three are
// the most while there is one.
#[tokio::test(start_paused = true)]
async fn an_outage_of_a_whole_chain_costs_the_attempts_of_one_request() {
    for (attempts, calls) in [
        (1, [1, 1, 1]),
        (2, [1, 1, 1]),
        (3, [1, 1, 1]),
        // Where another model is left, what would need a wait goes to it.
        (4, [1, 1, 2]),
        (5, [1, 1, 3]),
        (8, [1, 1, 6]),
        (10, [1, 1, 8]),
    ] {
        let server = all_down();
        let answered =
            run_with(policy(attempts).build().unwrap(), chain(), &server, ask("pro")).await.unwrap();
        assert_eq!(answered, (503, Some("lite".into())));
        let models = server.models();
        let count = |name: &str| models.iter().filter(|model| *model == name).count();
        assert_eq!(["pro", "flash", "lite"].map(count), calls, "{attempts} attempts");
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_model_leaves_goes_to_the_next() {
    let server = all_down();
    server.set("pro", quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "5s"));
    run_with(policy(5).build().unwrap(), chain(), &server, ask("pro")).await.unwrap();
    assert_eq!(server.models(), ["pro", "flash", "lite", "lite", "lite"]);
    let attempts: Vec<_> = server.seen().iter().map(|call| call.attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5], "counted through");
}

// That it answers what another model did not is no merit of the attempts at that one.
#[tokio::test(start_paused = true)]
async fn a_success_of_another_model_pays_no_retry_back() {
    let server = Server::new([("pro", error(500, "INTERNAL", "oh"))]);
    let policy = RetryPolicy::builder().attempts(3).budget(Budget::new(2, 3.0).unwrap()).build().unwrap();
    let fallback = || ModelFallbackLayer::builder().chain("pro", ["flash"]);
    for calls in [2, 2, 1, 1] {
        let before = server.seen().len();
        let answered = run_with(policy.clone(), fallback(), &server, ask("pro")).await.unwrap();
        assert_eq!(answered, (200, Some("flash".into())));
        assert_eq!(server.seen().len() - before, calls + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_report_counts_all_models_as_one_request() {
    /// What the retry layer tells: attempt or end, and the request's number.
    #[derive(Default)]
    struct Numbers(Mutex<Vec<(u64, u32)>>);
    impl Observer for Numbers {
        fn on_event(&self, event: &Event<'_>) {
            self.0.lock().unwrap().push(match event {
                Event::AttemptFailed { request, attempt, .. } => (*request, *attempt),
                Event::Recovered { request, attempts, .. } => (*request, *attempts),
                _ => return,
            });
        }
    }
    let (numbers, server) = (Arc::new(Numbers::default()), Server::new([("pro", busy()), ("flash", busy())]));
    let stack = ServiceBuilder::new()
        .layer(chain().build().unwrap())
        .layer(RetryLayer::new(policy(4).observer(numbers.clone()).build().unwrap()))
        .layer(ClassifyLayer::new())
        .service(server.service());
    let response = stack.oneshot(ask("pro")).await.unwrap();
    let attempts = Attempts::of(&response);
    assert_eq!((attempts.made(), attempts.kinds().len(), attempts.waits().len()), (3, 2, 0));
    assert_eq!(attempts.gave_up(), None);
    assert_eq!(*numbers.0.lock().unwrap(), [(1, 1), (1, 2), (1, 3)]);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_processed_is_repeated_as_often_as_the_policy_allows() {
    let late = || error(499, "CANCELLED", "gone");
    // The one repeat was spent on the first model.
    let server = Server::new([("pro", late())]);
    let answered = run_with(policy(5).build().unwrap(), chain(), &server, ask("pro")).await.unwrap();
    assert_eq!((answered, server.models()), ((499, None), vec!["pro".to_owned(); 2]));
    // A timeout is a failure like any other, unless nothing is repeated that may have been processed.
    for (retries, answered) in [(1, (200, Some("flash".into()))), (0, (504, None))] {
        let server = Server::new([("pro", error(504, "DEADLINE_EXCEEDED", "late"))]);
        let policy = policy(5).maybe_processed_retries(retries).build().unwrap();
        assert_eq!(run_with(policy, chain(), &server, ask("pro")).await.unwrap(), answered);
    }
    // The attempts are counted across models.
    let late = || error(504, "DEADLINE_EXCEEDED", "late");
    let server = Server::new([("pro", late()), ("flash", late())]);
    let fallback = ModelFallbackLayer::builder().chain("pro", ["flash"]);
    run_with(policy(3).build().unwrap(), fallback, &server, ask("pro")).await.unwrap();
    assert_eq!(server.models(), ["pro", "pro", "flash"]);
}

#[tokio::test(start_paused = true)]
async fn the_policys_deadline_runs_from_the_first_models_first_call() {
    let minute = error(429, "RESOURCE_EXHAUSTED", "Please retry in 40s.");
    let server = Server::new([("pro", minute.clone()), ("flash", minute.clone()), ("lite", minute)]);
    let policy = RetryPolicy::builder().attempts(20).without_budget().deadline(Duration::from_secs(60));
    let start = Instant::now();
    run_with(policy.build().unwrap(), chain(), &server, ask("pro")).await.unwrap();
    assert_eq!(server.models(), ["pro", "pro", "flash", "lite"], "one wait fits, and no second one");
    assert!(Instant::now() - start < Duration::from_secs(60));
}

// Three models, 200 requests, budgets of 20: the retries of each model are bounded by its own budget, and the step to
// another model costs one call of it.
#[tokio::test(start_paused = true)]
async fn in_a_long_outage_the_budgets_bound_the_retries_of_each_model() {
    let server = all_down();
    let budget = Budget::new(20, 0.5).unwrap();
    let policy = RetryPolicy::builder().attempts(10).budget(budget).build().unwrap();
    for _ in 0..200 {
        run_with(policy.clone(), chain(), &server, ask("pro")).await.unwrap();
    }
    let models = server.models();
    let count = |name: &str| models.iter().filter(|model| *model == name).count();
    // The first few are retried soon, until it is known that none succeeds.
    assert!((201..=212).contains(&count("pro")), "{}", count("pro"));
    for other in ["flash", "lite"] {
        assert!((200..=220).contains(&count(other)), "{other}: {}", count(other));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_longer_than_allowed_is_given_to_another_model_at_once() {
    let server = Server::new([("pro", error(429, "RESOURCE_EXHAUSTED", "Please retry in 40s."))]);
    let start = Instant::now();
    let quick = policy(5).max_server_delay(Duration::from_secs(5)).build().unwrap();
    let answered = run_with(quick, chain(), &server, ask("pro")).await.unwrap();
    assert_eq!((answered, Instant::now() - start), ((200, Some("flash".into())), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn without_a_chain_the_retry_layer_counts_as_before() {
    let server = all_down();
    let stack = ServiceBuilder::new()
        .layer(chain().build().unwrap())
        .layer(RetryLayer::new(policy(5).build().unwrap()))
        .layer(ClassifyLayer::new())
        .service(server.service());
    let response = stack.oneshot(ask("lite")).await.unwrap();
    let attempts = Attempts::of(&response);
    assert_eq!((attempts.made(), attempts.gave_up()), (5, Some(GaveUp::Attempts)));
    assert_eq!(told(Ok(response)).unwrap(), (503, None));
}
