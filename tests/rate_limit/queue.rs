//! Who waits, in which order, for how long, and what a drop gives back.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use http::Request;
use tokio::time::{Instant, advance};
use tower::limit::ConcurrencyLimitLayer;
use tower::{BoxError, Layer, Service, ServiceExt};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::error::find;
use tower_gemini::event::{Event, Observer};
use tower_gemini::rate_limit::{
    AdmissionMode, InputTokens, LimitKind, Limits, RateLimit, RateLimitLayer, RateLimitReason, RateLimited,
};
use tower_gemini::retry::{Attempts, RetryLayer};
use tower_gemini::{Deadline, Kind, Rejected, RequestClass, Verdict};

use crate::support::{Answer, Body, Probe, curious, quota};
use crate::world::{MODEL, prompt, secs};

/// A layer of so many requests a minute.
fn rpm(limit: u64) -> RateLimitLayer {
    RateLimitLayer::new(Limits::new().requests_per_minute(limit)).unwrap()
}

fn tpm(limit: u64) -> RateLimitLayer {
    RateLimitLayer::new(Limits::new().input_tokens_per_minute(limit)).unwrap()
}

fn ask() -> Request<Body> {
    prompt(1)
}

fn tokens(tokens: u64) -> Request<Body> {
    let mut request = ask();
    request.extensions_mut().insert(InputTokens(tokens));
    request
}

fn by(deadline: Instant, mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(Deadline::at(deadline));
    request
}

fn limited(error: &BoxError) -> &RateLimited {
    find::<RateLimited>(error.as_ref()).expect("it was rate limited")
}

/// Refused for its input tokens.
fn token_quota() -> Answer {
    let Answer::Status(status, body) = quota("GenerateContentInputTokensPerModelPerMinute", "50s") else {
        unreachable!("it is a status")
    };
    Answer::Status(status, body.replace("m/requests", "m/input_token_count"))
}

type Limited = RateLimit<Probe>;

fn over(layer: &RateLimitLayer, probe: &Probe) -> Limited {
    layer.layer(probe.clone())
}

/// Polls once and says whether it is still on its way.
fn pends<F: Future + Unpin>(future: &mut F) -> bool {
    future.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending()
}

fn calls(probe: &Probe) -> usize {
    probe.state().lock().unwrap().calls.len()
}

#[tokio::test(start_paused = true)]
async fn the_window_opens_with_its_guard_and_not_before() {
    let probe = Probe::always(Answer::Ok);
    let service = over(&rpm(2), &probe);
    let start = Instant::now();
    for _ in 0..5 {
        service.clone().oneshot(ask()).await.unwrap();
    }
    let at: Vec<_> =
        probe.state().lock().unwrap().calls.iter().map(|call| (call.at - start).as_millis()).collect();
    // Timers have the granularity of a millisecond.
    assert_eq!(at, [0, 0, 60_500, 60_500, 121_000]);
}

#[tokio::test(start_paused = true)]
async fn clones_and_all_services_of_a_layer_share_one_quota() {
    let probe = Probe::always(Answer::Ok);
    let layer = rpm(3);
    let services = [over(&layer, &probe), over(&layer.clone(), &probe), over(&layer, &probe).clone()];
    for service in services.iter().chain(&services) {
        let _ = service.clone().oneshot(ask()).now_or_never();
    }
    assert_eq!(calls(&probe), 3);
    // Another model, label or kind of call has its own.
    let mut other = over(&layer, &probe);
    for path in ["/v1beta/models/other:generateContent", &format!("/v1beta/models/{MODEL}:countTokens")] {
        let request = Request::post(path).body(Body::default()).unwrap();
        assert!(other.ready().await.unwrap().call(request).now_or_never().is_some(), "{path}");
    }
    let mut labelled = ask();
    labelled.extensions_mut().insert(tower_gemini::KeyLabel::new("another project"));
    assert!(other.ready().await.unwrap().call(labelled).now_or_never().is_some());
    // And what is no model's work is not limited at all.
    for _ in 0..20 {
        let list = Request::get("/v1beta/models").body(Body::default()).unwrap();
        assert!(other.ready().await.unwrap().call(list).now_or_never().is_some());
    }
    assert_eq!(layer.handle().status().len(), 5, "{:#?}", layer.handle().status());
}

#[tokio::test(start_paused = true)]
async fn the_caller_can_choose_the_key() {
    let probe = Probe::always(Answer::Ok);
    let layer = RateLimitLayer::builder()
        .limits(Limits::new().requests_per_minute(2))
        .key_by(|target| target.key().without_model())
        .build()
        .unwrap();
    let service = over(&layer, &probe);
    for model in ["a", "b", "c"] {
        let request = Request::post(format!("/v1beta/models/{model}:generateContent")).body(Body::default());
        let _ = service.clone().oneshot(request.unwrap()).now_or_never();
    }
    assert_eq!(calls(&probe), 2);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_go_in_the_order_of_their_calls() {
    let probe = Probe::always(Answer::Ok);
    let mut service = over(&rpm(1), &probe);
    let mut waiting = Vec::new();
    for n in 0..5 {
        let path = format!("/v1beta/models/{MODEL}:generateContent?n={n}");
        let request = Request::post(&path).body(Body::default()).unwrap();
        waiting.push((n, service.ready().await.unwrap().call(request)));
    }
    // Polled backwards, by tasks of their own: the order is that of `call`.
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tasks: Vec<_> = waiting
        .into_iter()
        .rev()
        .map(|(n, call)| {
            let order = Arc::clone(&order);
            tokio::spawn(async move {
                call.await.unwrap();
                order.lock().unwrap().push(n);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_small_prompt_passes_a_large_one_without_delaying_it() {
    let probe = Probe::always(Answer::Ok);
    let mut service = over(&tpm(100), &probe);
    let start = Instant::now();
    service.ready().await.unwrap().call(tokens(60)).await.unwrap();
    advance(secs(1)).await;
    let mut call = |n: u64| service.ready().now_or_never().unwrap().unwrap().call(tokens(n));
    // Waits for 60 to leave; then 10 are left over.
    let mut large = call(90);
    let mut fits = call(10);
    let mut too_large = call(20);
    assert!(pends(&mut large) && !pends(&mut fits) && pends(&mut too_large));
    assert_eq!(calls(&probe), 2);
    let late = tokio::spawn(too_large);
    large.await.unwrap();
    assert_eq!((Instant::now() - start).as_millis(), 60_500, "no later than without the small one");
    late.await.unwrap().unwrap();
    // The small one's 10 leave at 61.5 s, the large one's 90 at 121 s.
    assert_eq!((Instant::now() - start).as_millis(), 121_000);
}

#[tokio::test(start_paused = true)]
async fn a_large_prompt_is_not_starved_by_small_ones() {
    let probe = Probe::always(Answer::Ok);
    let service = over(&tpm(100), &probe);
    service.clone().oneshot(tokens(50)).await.unwrap();
    let start = Instant::now();
    let large = tokio::spawn(service.clone().oneshot(tokens(100)));
    let small = tokio::spawn(async move {
        for _ in 0..200 {
            drop(tokio::spawn(service.clone().oneshot(tokens(10))));
            tokio::time::sleep(secs(1)).await;
        }
    });
    large.await.unwrap().unwrap();
    assert_eq!((Instant::now() - start).as_millis(), 60_500);
    small.abort();
}

#[tokio::test(start_paused = true)]
async fn a_small_prompt_with_a_near_deadline_still_passes_a_large_one() {
    let probe = Probe::always(Answer::Ok);
    let mut service = over(&tpm(100), &probe);
    service.ready().await.unwrap().call(tokens(60)).await.unwrap();
    advance(secs(1)).await;
    let mut large = service.ready().await.unwrap().call(tokens(90));
    assert!(pends(&mut large));
    let soon = Instant::now() + secs(5);
    service.ready().await.unwrap().call(by(soon, tokens(10))).await.unwrap();
    let error = service.ready().await.unwrap().call(by(soon, tokens(20))).await.unwrap_err();
    assert_eq!(limited(&error).why(), RateLimitReason::Deadline);
}

// ===== refusals =====

#[tokio::test(start_paused = true)]
async fn what_cannot_go_before_its_deadline_fails_now() {
    let probe = Probe::always(Answer::Ok);
    let service = over(&rpm(1), &probe);
    let start = Instant::now();
    service.clone().oneshot(ask()).await.unwrap();
    let error = service.clone().oneshot(by(start + secs(60), ask())).await.unwrap_err();
    assert_eq!(Instant::now(), start, "at once");
    let limited = limited(&error);
    assert_eq!(
        (limited.why(), limited.dimension()),
        (RateLimitReason::Deadline, LimitKind::RequestsPerMinute)
    );
    assert_eq!(limited.until().unwrap() - start, secs(60) + std::time::Duration::from_millis(500));
    assert_eq!(find::<Rejected>(error.as_ref()).unwrap().until(), limited.until());
    let text = error.to_string();
    let why = "(requests per minute): it cannot be admitted before its deadline; until 2";
    assert!(text.starts_with("rate limit of generate gemini_api ") && text.contains(why), "{text}");
    assert!(text.ends_with("Z, in 1 min 0 s"), "{text}");
    let verdict = Verdict::from_error(error.as_ref());
    assert_eq!((verdict.kind(), verdict.sent()), (Some(Kind::RateLimited), tower_gemini::verdict::Sent::No));
    // A turn in the third minute, behind one who waits, is too late for two minutes.
    let waiting = tokio::spawn(service.clone().oneshot(by(start + secs(61), ask())));
    tokio::task::yield_now().await;
    let error = service.clone().oneshot(by(start + secs(120), ask())).await.unwrap_err();
    assert_eq!(find::<RateLimited>(error.as_ref()).unwrap().until().unwrap() - start, secs(121));
    assert!(service.oneshot(by(start + secs(121), ask())).await.is_ok());
    assert!(waiting.await.unwrap().is_ok());
    assert_eq!(Instant::now() - start, secs(121));
}

#[tokio::test(start_paused = true)]
async fn the_longest_wait_can_be_set() {
    let probe = Probe::always(Answer::Ok);
    let builder = RateLimitLayer::builder().limits(Limits::new().requests_per_minute(1)).max_wait(secs(30));
    let service = over(&builder.build().unwrap(), &probe);
    service.clone().oneshot(ask()).await.unwrap();
    assert_eq!(limited(&service.oneshot(ask()).await.unwrap_err()).why(), RateLimitReason::MaxWait);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_becomes_hopeless_fails_when_that_is_known() {
    let refuse = quota("GenerateRequestsPerMinutePerProjectPerModel", "55s");
    let probe = Probe::new([Answer::Ok, refuse], Answer::Ok);
    let service = rpm(2).layer(ClassifyLayer::new().layer(probe));
    let start = Instant::now();
    service.clone().oneshot(ask()).await.unwrap();
    advance(secs(40)).await;
    let refused = service.clone().ready().await.unwrap().call(ask());
    // In time for the first one's end at 60.5 s.
    let mut waiting = service.clone();
    let mut waiting = waiting.ready().await.unwrap().call(by(start + secs(70), ask()));
    assert!(refused.await.unwrap().status() == 429);
    // The 429 says 40 s + 56 s.
    let error = waiting.now_or_never().expect("it is known at once").unwrap_err();
    assert_eq!((limited(&error).why(), Instant::now() - start), (RateLimitReason::Deadline, secs(40)));
    assert_eq!(limited(&error).until().unwrap() - start, secs(96));
    waiting = service.clone().ready().await.unwrap().call(ask());
    waiting.await.unwrap();
    assert_eq!(Instant::now() - start, secs(96));
}

#[tokio::test(start_paused = true)]
async fn reject_mode_says_when() {
    let probe = Probe::always(Answer::Ok);
    let builder =
        RateLimitLayer::builder().limits(Limits::new().requests_per_minute(2)).mode(AdmissionMode::Reject);
    let service = over(&builder.build().unwrap(), &probe);
    let start = Instant::now();
    service.clone().oneshot(ask()).await.unwrap();
    advance(secs(10)).await;
    service.clone().oneshot(ask()).await.unwrap();
    let error = service.clone().oneshot(ask()).await.unwrap_err();
    let until = limited(&error).until().unwrap();
    assert_eq!((limited(&error).why(), (until - start).as_millis()), (RateLimitReason::Full, 60_500));
    // The same instance recovers, and the instant it named was true.
    tokio::time::sleep_until(until).await;
    assert!(service.clone().oneshot(ask()).await.is_ok());
    assert!(service.oneshot(ask()).await.is_err());
}

/// Nobody waits or fails, what would have is told, and a window later it would be admitted again.
#[tokio::test(start_paused = true)]
async fn observe_mode_lets_through_and_tells() {
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    struct Told(Arc<std::sync::Mutex<Vec<RateLimitReason>>>);
    impl Observer for Told {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::RateLimited { why, .. } = event {
                self.0.lock().unwrap().push(*why);
            }
        }
    }
    let probe = Probe::always(Answer::Ok);
    let builder =
        RateLimitLayer::builder().limits(Limits::new().requests_per_minute(2)).mode(AdmissionMode::Observe);
    let layer = builder.observer(Arc::new(Told(Arc::clone(&told)))).build().unwrap();
    let service = over(&layer, &probe);
    let start = Instant::now();
    for _ in 0..5 {
        service.clone().oneshot(ask()).await.unwrap();
    }
    assert_eq!(Instant::now(), start, "nobody waits");
    assert_eq!(*told.lock().unwrap(), vec![RateLimitReason::Full; 3]);
    assert_eq!(layer.handle().status()[0].requests, 2, "those that would not have been sent are not counted");
    advance(secs(61)).await;
    service.oneshot(ask()).await.unwrap();
    assert_eq!(told.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_prompt_larger_than_the_limit_is_refused_with_that_reason() {
    let probe = Probe::always(Answer::Ok);
    let service = over(&tpm(1000), &probe);
    let error = service.clone().oneshot(tokens(1001)).await.unwrap_err();
    let limited = limited(&error);
    assert_eq!(
        (limited.why(), limited.dimension()),
        (RateLimitReason::TooLarge, LimitKind::InputTokensPerMinute)
    );
    assert_eq!((limited.until(), calls(&probe)), (None, 0));
    assert!(service.oneshot(tokens(1000)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_estimate_above_the_limit_is_refused_beyond_its_error() {
    let probe = Probe::always(Answer::Ok);
    let layer = RateLimitLayer::builder()
        .limits(Limits::new().input_tokens_per_minute(1000))
        .estimate(|request: &Request<Body>| request.extensions().get::<u64>().copied())
        .build()
        .unwrap();
    let service = layer.layer(probe.clone());
    let says = |tokens: u64| {
        let mut request = ask();
        request.extensions_mut().insert(tokens);
        request
    };
    let error = service.clone().oneshot(says(1600)).await.unwrap_err();
    assert_eq!(limited(&error).why(), RateLimitReason::TooLarge);
    assert!(service.oneshot(says(1400)).await.is_ok(), "no answer has confirmed the estimator yet");
}

#[tokio::test(start_paused = true)]
async fn a_size_that_was_refused_alone_is_not_sent_again() {
    // By its size alone a body may be an image, so it is tried, once.
    let refuse = token_quota();
    let probe = Probe::new([refuse], Answer::Ok);
    let builder = RateLimitLayer::builder().limits(Limits::new().input_tokens_per_minute(100)).learn(false);
    let service = builder.build().unwrap().layer(ClassifyLayer::new().layer(probe.clone()));
    assert_eq!(service.clone().oneshot(prompt(500)).await.unwrap().status(), 429);
    let error = service.clone().oneshot(prompt(500)).await.unwrap_err();
    assert_eq!(limited(&error).why(), RateLimitReason::TooLarge);
    // Nobody else pays for it: the door is not closed.
    let start = Instant::now();
    service.clone().oneshot(prompt(10)).await.unwrap();
    assert_eq!((Instant::now(), calls(&probe)), (start, 2));
    // Another size may be an image.
    service.oneshot(prompt(600)).await.unwrap();
    assert_eq!(calls(&probe), 3);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_takes_no_more() {
    let probe = Probe::always(Answer::Ok);
    let builder = RateLimitLayer::builder().limits(Limits::new().requests_per_minute(1)).max_queue(3);
    let layer = builder.build().unwrap();
    let service = over(&layer, &probe);
    service.clone().oneshot(ask()).await.unwrap();
    let mut waiting: Vec<_> = (0..3).map(|_| service.clone().oneshot(ask())).collect();
    assert!(waiting.iter_mut().all(pends));
    let error = service.clone().oneshot(ask()).await.unwrap_err();
    assert_eq!(limited(&error).why(), RateLimitReason::Queue);
    assert_eq!(layer.handle().status()[0].queued, 3);
    waiting.pop();
    assert!(pends(&mut service.oneshot(ask())), "there is room again");
}

#[tokio::test(start_paused = true)]
async fn retry_outside_waits_without_spending_an_attempt() {
    let probe = Probe::always(Answer::Ok);
    let builder =
        RateLimitLayer::builder().limits(Limits::new().requests_per_minute(1)).mode(AdmissionMode::Reject);
    let service = RetryLayer::default().layer(builder.build().unwrap().layer(probe.clone()));
    let start = Instant::now();
    service.clone().oneshot(ask()).await.unwrap();
    let response = service.oneshot(ask()).await.unwrap();
    assert_eq!(Attempts::of(&response).made(), 1);
    assert!((Instant::now() - start).as_millis() >= 60_500);
    assert_eq!(calls(&probe), 2);
}

// ===== the service contract =====

#[tokio::test(start_paused = true)]
async fn readiness_is_used_and_asked_for_anew() {
    let probe = Probe::always(Answer::Ok);
    probe.state().lock().unwrap().not_ready = 2;
    let mut service = over(&rpm(2), &probe);
    for _ in 0..7 {
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        service.call(ask()).await.unwrap();
    }
    let violations = probe.state().lock().unwrap().violations;
    assert_eq!((violations, calls(&probe)), (0, 7));
}

#[tokio::test(start_paused = true)]
async fn nobodys_readiness_is_held_in_the_queue() {
    let probe = Probe::always(Answer::Ok);
    let one_at_a_time = ConcurrencyLimitLayer::new(1).layer(probe.clone());
    let mut service = rpm(1).layer(one_at_a_time);
    service.ready().await.unwrap().call(ask()).await.unwrap();
    let mut waiting = service.ready().await.unwrap().call(ask());
    assert!(pends(&mut waiting));
    // `service` is alive, and the request waits; another model must get through.
    let other = Request::post("/v1beta/models/other:generateContent").body(Body::default()).unwrap();
    let mut another = service.clone();
    let done = async move { another.ready().await.unwrap().call(other).await };
    assert!(done.now_or_never().expect("the only slot is free").is_ok());
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failing_inner_readiness_reaches_who_waited_and_costs_nothing() {
    let probe = Probe::always(Answer::Ok);
    let layer = rpm(1);
    let service = over(&layer, &probe);
    service.clone().oneshot(ask()).await.unwrap();
    let waiting = service.clone().oneshot(ask());
    probe.state().lock().unwrap().fail_ready = false;
    let waiting = tokio::spawn(waiting);
    tokio::task::yield_now().await;
    probe.state().lock().unwrap().fail_ready = true;
    assert_eq!(waiting.await.unwrap().unwrap_err().to_string(), "the probe is closed");
    let status = &layer.handle().status()[0];
    assert_eq!((status.not_sent, status.in_flight), (1, 0));
}

// ===== drops: one for each state =====

#[tokio::test(start_paused = true)]
async fn a_future_that_was_never_polled_gives_everything_back() {
    let probe = Probe::always(Answer::Ok);
    let layer = rpm(1);
    let mut service = over(&layer, &probe);
    drop(service.ready().await.unwrap().call(ask()));
    let status = &layer.handle().status()[0];
    assert_eq!((status.requests, status.requests_today, status.not_sent), (0, 0, 1));
    assert!(!pends(&mut service.ready().await.unwrap().call(ask())));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_starts_its_successor_on_time() {
    for victim in 0..3 {
        let probe = Probe::always(Answer::Ok);
        let layer = rpm(1);
        let service = over(&layer, &probe);
        let start = Instant::now();
        service.clone().oneshot(ask()).await.unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| tokio::spawn(service.clone().oneshot(ask()))).collect();
        tokio::time::sleep(secs(30)).await;
        waiting.remove(victim).abort();
        for (nth, waiting) in waiting.into_iter().enumerate() {
            waiting.await.unwrap().unwrap();
            let expected = 60_500 * (nth as u128 + 1);
            assert_eq!((Instant::now() - start).as_millis(), expected, "without number {victim}");
        }
        assert_eq!(layer.handle().status()[0].queued, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_admission_that_nobody_looked_at_goes_to_the_next() {
    let probe = Probe::always(Answer::Ok);
    let layer = rpm(1);
    let service = over(&layer, &probe);
    service.clone().oneshot(ask()).await.unwrap();
    let mut first = service.clone().oneshot(ask());
    assert!(pends(&mut first));
    let mut second = service.clone().oneshot(ask());
    assert!(pends(&mut second));
    advance(secs(61)).await;
    // Somebody else's arrival admits the first, which is dropped before it sees that.
    let mut third = service.clone().oneshot(ask());
    assert!(pends(&mut third));
    layer.handle().set_limits(Limits::new().requests_per_minute(1)).unwrap();
    assert_eq!(layer.handle().status()[0].queued, 2);
    drop(first);
    assert!(!pends(&mut second), "the second goes in the same instant");
    drop(third);
    assert_eq!(layer.handle().status()[0].queued, 0);
}

#[tokio::test(start_paused = true)]
async fn an_admitted_call_whose_inner_service_is_not_ready_was_not_sent() {
    let probe = Probe::always(Answer::Ok);
    let layer = rpm(1);
    let service = over(&layer, &probe);
    service.clone().oneshot(ask()).await.unwrap();
    let mut waiting = service.clone().ready().await.unwrap().call(ask());
    assert!(pends(&mut waiting));
    probe.state().lock().unwrap().not_ready = 1000;
    advance(secs(61)).await;
    assert!(pends(&mut waiting));
    assert_eq!(layer.handle().status()[0].requests, 1, "admitted");
    drop(waiting);
    assert_eq!(layer.handle().status()[0].requests, 0, "and given back");
    assert_eq!(calls(&probe), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_sent_late_counts_from_when_it_is_sent() {
    let probe = Probe::always(Answer::Ok);
    let service = over(&rpm(1), &probe);
    let start = Instant::now();
    service.clone().oneshot(ask()).await.unwrap();
    let mut late = service.clone().ready().await.unwrap().call(ask());
    assert!(pends(&mut late));
    probe.state().lock().unwrap().not_ready = 1000;
    advance(secs(61)).await;
    assert!(pends(&mut late));
    advance(secs(20)).await;
    probe.state().lock().unwrap().not_ready = 0;
    late.await.unwrap();
    assert_eq!(Instant::now() - start, secs(81));
    service.oneshot(ask()).await.unwrap();
    assert_eq!((Instant::now() - start).as_millis(), 141_500, "the server counts from 81 s on");
}

#[tokio::test(start_paused = true)]
async fn a_call_under_way_that_is_dropped_stays_charged() {
    let probe = Probe::new([Answer::Hang], Answer::Ok);
    let layer = rpm(1);
    let service = over(&layer, &probe);
    let mut hanging = service.clone().oneshot(ask());
    assert!(pends(&mut hanging));
    drop(hanging);
    let status = &layer.handle().status()[0];
    assert_eq!((status.requests, status.settled, status.in_flight), (1, 1, 0));
    assert!(pends(&mut service.oneshot(ask())));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_is_not_polled_does_not_hold_up_the_others() {
    let probe = Probe::always(Answer::Ok);
    let mut service = over(&rpm(1), &probe);
    service.ready().await.unwrap().call(ask()).await.unwrap();
    // Never polled: it has no timer, and no way to be woken.
    let silent = service.ready().await.unwrap().call(ask());
    let second = service.clone().oneshot(ask());
    let start = Instant::now();
    second.await.unwrap();
    let waited = (Instant::now() - start).as_millis();
    assert!((61_500..61_600).contains(&waited), "the silent one had a second to come: {waited} ms");
    // It has its place again when it is polled, and the next turn.
    let third = service.clone().oneshot(ask());
    let (silent, third) = (tokio::spawn(silent), tokio::spawn(third));
    silent.await.unwrap().unwrap();
    assert_eq!((Instant::now() - start).as_millis(), waited + 60_500);
    third.await.unwrap().unwrap();
    assert_eq!((Instant::now() - start).as_millis(), waited + 121_000);
}

#[test]
fn no_waker_is_dropped_under_the_lock() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _in_runtime = runtime.enter();
    let probe = Probe::always(Answer::Ok);
    let layer = rpm(1);
    let mut service = over(&layer, &probe);
    let waker = || {
        let handle = layer.handle();
        curious(move || drop(handle.status()))
    };
    let mut call = || {
        let mut noop = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut noop).is_ready());
        service.call(ask())
    };
    assert!(!pends(&mut call()));
    // The first in the queue has a timer, which keeps its waker; the second has none.
    let mut first = call();
    assert!(pends(&mut first));
    let mut waiting = call();
    assert!(waiting.poll_unpin(&mut Context::from_waker(&waker())).is_pending());
    // Replaced by another one, then dropped with its waiter.
    assert!(waiting.poll_unpin(&mut Context::from_waker(&waker())).is_pending());
    drop(waiting);
}

// ===== at run time =====

#[tokio::test(start_paused = true)]
async fn limits_can_be_set_while_requests_wait() {
    let probe = Probe::always(Answer::Ok);
    let layer = rpm(1);
    let service = over(&layer, &probe);
    let start = Instant::now();
    service.clone().oneshot(ask()).await.unwrap();
    let waiting: Vec<_> = (0..4).map(|_| tokio::spawn(service.clone().oneshot(ask()))).collect();
    tokio::time::sleep(secs(5)).await;
    let handle = layer.handle();
    let status = &handle.status()[0];
    assert_eq!((status.limits.of(LimitKind::RequestsPerMinute), status.queued), (Some(1), 4));
    assert_eq!((status.next_admission.unwrap() - start).as_millis(), 60_500);
    let error = handle.set_limits(Limits::new().requests_per_minute(0)).unwrap_err();
    assert_eq!(error.field(), "requests_per_minute");
    handle.set_model_limits(MODEL, Limits::new().requests_per_minute(3)).unwrap();
    tokio::time::sleep(secs(1)).await;
    assert_eq!((calls(&probe), handle.status()[0].queued), (3, 2));
    // A smaller one does not call anybody back, and the two who wait go when four have left and one by one.
    handle.set_model_limits(MODEL, Limits::new().requests_per_minute(2)).unwrap();
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    let at: Vec<_> = probe.state().lock().unwrap().calls.iter().map(|c| (c.at - start).as_millis()).collect();
    assert_eq!(at, [0, 5_000, 5_000, 65_500, 65_500]);
    let line = handle.status()[0].to_string();
    assert!(line.starts_with("generate gemini_api gemini-3.5-flash, 2 of 2 requests a minute, "), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_margin_leaves_room_for_others() {
    let probe = Probe::always(Answer::Ok);
    let builder = RateLimitLayer::builder().limits(Limits::new().requests_per_minute(10)).margin(0.8);
    let service = over(&builder.build().unwrap(), &probe);
    for _ in 0..10 {
        let _ = service.clone().oneshot(ask()).now_or_never();
    }
    assert_eq!(calls(&probe), 8);
}

#[test]
fn services_futures_and_errors_can_be_sent() {
    fn send<T: Send>() {}
    fn send_and_sync<T: Send + Sync + 'static>() {}
    send_and_sync::<Limited>();
    send_and_sync::<RateLimitLayer>();
    send_and_sync::<RateLimited>();
    send_and_sync::<tower_gemini::rate_limit::RateLimits>();
    send::<<Limited as Service<Request<Body>>>::Future>();
    // No bound leaks upward: the body of a single-threaded client need not be `Send`.
    #[derive(Clone)]
    struct Local;
    impl Service<Request<std::rc::Rc<str>>> for Local {
        type Response = http::Response<Body>;
        type Error = std::io::Error;
        type Future = std::future::Ready<Result<Self::Response, std::io::Error>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<std::rc::Rc<str>>) -> Self::Future {
            std::future::ready(Ok(http::Response::new(Body::default())))
        }
    }
    let _ = rpm(1).layer(Local);
}

/// The weight decides by how many that come later a batch request is passed.
#[tokio::test(start_paused = true)]
async fn the_weight_of_interactive_requests_is_set() {
    for (weight, passed_by) in [(0, 0), (2, 2), (8, 5)] {
        let limits = Limits::new().requests_per_minute(1);
        let layer = RateLimitLayer::builder().limits(limits).interactive_weight(weight).build().unwrap();
        let service = layer.layer(Probe::always(Answer::Ok));
        service.clone().oneshot(ask()).await.unwrap();
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let wait = |mut request: Request<Body>, class| {
            request.extensions_mut().insert(class);
            let (service, order) = (service.clone(), Arc::clone(&order));
            tokio::spawn(async move {
                service.oneshot(request).await.unwrap();
                order.lock().unwrap().push(class);
            })
        };
        let mut waiting = vec![wait(ask(), RequestClass::Batch)];
        tokio::task::yield_now().await;
        for _ in 0..5 {
            waiting.push(wait(ask(), RequestClass::Interactive));
            tokio::task::yield_now().await;
        }
        for one in waiting {
            one.await.unwrap();
        }
        let order = order.lock().unwrap();
        let at = order.iter().position(|class| *class == RequestClass::Batch);
        assert_eq!(at, Some(passed_by), "weight {weight}");
    }
}
