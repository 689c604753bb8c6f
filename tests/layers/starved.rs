//! Whoever waits keeps its own deadline, whatever others do.
//!
//! Each test takes one duty that a waiter carries for others, and starves that waiter: its future was polled and is not
//! polled any more (`select!` on a `&mut` future, `buffer_unordered` with a busy loop body), or it was forgotten. What
//! is asserted is when somebody else is served. All in tokio's paused time.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use support::{Answer, Body, Probe, error, quota, request};
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer, Service};
use tower_gemini::Deadline;
use tower_gemini::circuit_breaker::{CircuitBreakerLayer, CircuitState};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::request::{Target, TargetKey};
use tower_gemini::retry::ReplayBody;

const SECOND: Duration = Duration::from_secs(1);
/// A minute and its guard.
const WINDOW: Duration = Duration::from_millis(60_500);

type Call<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// In which way a future is not polled any more.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// It is kept.
    Kept,
    Forgotten,
    /// It is kept and was never polled at all.
    Unpolled,
}

const WAYS: [Way; 3] = [Way::Kept, Way::Forgotten, Way::Unpolled];

fn poll<T>(call: &mut Call<T>) -> Poll<Result<T, BoxError>> {
    call.poll_unpin(&mut Context::from_waker(Waker::noop()))
}

/// Polls a call as often as its way says, and never again; returns it where it is kept.
fn starve<T>(mut call: Call<T>, way: Way) -> Option<Call<T>> {
    if way != Way::Unpolled {
        assert!(poll(&mut call).is_pending(), "it has to wait");
    }
    if way == Way::Forgotten {
        mem::forget(call);
        return None;
    }
    Some(call)
}

/// A call that was made: it has its place in a queue before it is polled.
fn call<S>(service: &S, request: Request<Body>) -> Call<S::Response>
where
    S: Service<Request<Body>, Error = BoxError, Future: Send + 'static> + Clone,
{
    let mut service = service.clone();
    let mut noop = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut noop).is_ready(), "the probe is ready");
    Box::pin(service.call(request))
}

fn by(deadline: Instant) -> Request<Body> {
    let mut request = request();
    request.extensions_mut().insert(Deadline::at(deadline));
    request
}

// ===== rate limit =====

/// A limit of so many a minute over a server that answers at once, with its window used up.
async fn full(
    rpm: u64,
) -> (
    RateLimitLayer,
    impl Service<Request<Body>, Response: Send, Error = BoxError, Future: Send + 'static> + Clone + Send,
) {
    let layer = RateLimitLayer::new(Limits::new().requests_per_minute(rpm)).unwrap();
    let service = layer.layer(Probe::always(Answer::Ok));
    for _ in 0..rpm {
        call(&service, request()).await.unwrap();
    }
    (layer, service)
}

// The duty: the timer of the queue's next change. And the next: a grant that is not fetched.
#[tokio::test(start_paused = true)]
async fn rate_limit_the_driver_and_the_head_are_not_polled() {
    for way in WAYS {
        let (_, service) = full(1).await;
        let start = Instant::now();
        let _kept = starve(call(&service, request()), way);
        let other = tokio::spawn(call(&service, request()));
        other.await.unwrap().expect("it is served");
        let waited = Instant::now() - start;
        // Its grant passes on within a second; if the starved one had gone, the other would wait two windows.
        assert!(waited >= WINDOW && waited <= WINDOW + 2 * SECOND, "{way:?}: {waited:?}");
    }
}

// With a task that the runtime polls whenever it is woken, until it is stopped by its own busy loop.
#[tokio::test(start_paused = true)]
async fn rate_limit_the_driver_is_in_a_stream_whose_consumer_is_busy() {
    let (_, service) = full(2).await;
    let start = Instant::now();
    let busy = service.clone();
    tokio::spawn(async move {
        let calls = stream::iter((0..4).map(move |_| call(&busy, request())));
        let mut calls = std::pin::pin!(calls.buffer_unordered(4));
        while let Some(answer) = calls.next().await {
            assert!(answer.is_ok());
            sleep(3_600 * SECOND).await;
        }
    });
    sleep(SECOND).await;
    let deadline = start + 3 * WINDOW;
    let others: Vec<_> = (0..2).map(|_| tokio::spawn(call(&service, by(deadline)))).collect();
    for other in others {
        other.await.unwrap().expect("it is served before its deadline");
    }
    assert!(Instant::now() - start < 2 * WINDOW + 2 * SECOND, "{:?}", Instant::now() - start);
}

// Twenty of them, at one a minute: who comes last is queued because its deadline is just not before its turn.
#[tokio::test(start_paused = true)]
async fn rate_limit_a_crowd_before_a_waiter_is_not_polled() {
    for way in WAYS {
        let (_, service) = full(1).await;
        let start = Instant::now();
        let _kept: Vec<_> = (0..20).map(|_| starve(call(&service, request()), way)).collect();
        let deadline = start + 21 * WINDOW;
        let other = tokio::spawn(call(&service, by(deadline)));
        other.await.unwrap().ok().unwrap_or_else(|| panic!("{way:?}: its turn comes by then"));
        assert!(Instant::now() <= deadline, "{way:?}: {:?}", Instant::now() - start);
    }
}

// Every second one: each of the others drives the queue in its turn.
#[tokio::test(start_paused = true)]
async fn rate_limit_every_second_waiter_is_not_polled() {
    for way in WAYS {
        let (_, service) = full(1).await;
        let start = Instant::now();
        let mut kept = Vec::new();
        let mut others = Vec::new();
        for nth in 1..=30 {
            kept.push(starve(call(&service, request()), way));
            let deadline = start + 2 * nth * WINDOW;
            others.push((deadline, tokio::spawn(call(&service, by(deadline)))));
        }
        let mut last = start;
        for (nth, (deadline, other)) in others.into_iter().enumerate() {
            let answer = other.await.unwrap();
            assert!(answer.is_ok(), "{way:?}, {nth}, {:?}: {:?}", Instant::now() - start, answer.err());
            assert!(Instant::now() <= deadline && Instant::now() >= last, "{way:?}, {nth}: in order");
            last = Instant::now();
        }
    }
}

// Not served, but told in time: the deadline is the waiter's own duty.
#[tokio::test(start_paused = true)]
async fn rate_limit_a_deadline_behind_waiters_that_are_not_polled() {
    for way in WAYS {
        let layer = RateLimitLayer::new(Limits::new().requests_per_minute(2)).unwrap();
        let closing = quota("GenerateRequestsPerMinutePerProjectPerModel", "100s");
        let service = layer.layer(ClassifyLayer::new().layer(Probe::new([Answer::Ok, closing], Answer::Ok)));
        call(&service, request()).await.unwrap();
        let start = Instant::now();
        // The second one is under way when the others queue, and closes the door when it is answered.
        let mut second = call(&service, request());
        let _kept = starve(call(&service, request()), way);
        let deadline = start + WINDOW + SECOND;
        let other = tokio::spawn(call(&service, by(deadline)));
        sleep(SECOND).await;
        assert!(poll(&mut second).is_ready());
        assert!(other.await.unwrap().is_err(), "it cannot be served in time");
        assert!(Instant::now() <= deadline, "{way:?}: {:?}", Instant::now() - start);
    }
}

// The duty: after a 429 that nothing explains one call goes first, and the others wait for its answer.
#[tokio::test(start_paused = true)]
async fn rate_limit_the_one_call_of_a_ramp_is_not_fetched() {
    for way in WAYS {
        let layer = RateLimitLayer::default();
        let closing = quota("GenerateRequestsPerMinutePerProjectPerModel", "5s");
        let service = layer.layer(ClassifyLayer::new().layer(Probe::new([closing], Answer::Ok)));
        let answer = call(&service, request()).await.unwrap();
        assert_eq!(answer.status(), 429);
        let start = Instant::now();
        let _kept = starve(call(&service, request()), way);
        let other = tokio::spawn(call(&service, request()));
        other.await.unwrap().expect("it is served");
        let waited = Instant::now() - start;
        assert!(waited >= 5 * SECOND && waited <= 9 * SECOND, "{way:?}: {waited:?}");
    }
}

// The duty: one call tests a door that is closed for long.
#[tokio::test(start_paused = true)]
async fn rate_limit_the_probe_of_a_spent_day_is_not_fetched() {
    for way in WAYS {
        let layer = RateLimitLayer::default();
        let spent = quota("GenerateRequestsPerDayPerProjectPerModel", "5s");
        let service = layer.layer(ClassifyLayer::new().layer(Probe::new([spent], Answer::Ok)));
        call(&service, request()).await.unwrap();
        let start = Instant::now();
        let tomorrow = start + 30 * 3_600 * SECOND;
        let _kept = starve(call(&service, by(tomorrow)), way);
        let other = tokio::spawn(call(&service, by(tomorrow)));
        other.await.unwrap().expect("it is served");
        let waited = Instant::now() - start;
        assert!(waited >= 300 * SECOND && waited <= 302 * SECOND, "{way:?}: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rate_limit_who_is_polled_again_has_its_old_place() {
    let (layer, service) = full(1).await;
    let start = Instant::now();
    let mut starved = starve(call(&service, request()), Way::Kept).unwrap();
    let mut others: Vec<_> = (0..2).map(|_| tokio::spawn(call(&service, request()))).collect();
    others.remove(0).await.unwrap().unwrap();
    assert!(Instant::now() - start <= WINDOW + 2 * SECOND, "the first of the others has its turn");
    assert!(poll(&mut starved).is_pending(), "there is no room now");
    assert_eq!(layer.handle().status()[0].queued, 2);
    starved.await.unwrap();
    assert!(Instant::now() - start <= 2 * WINDOW + 2 * SECOND, "it goes before the second");
    assert!(!others[0].is_finished());
    others.remove(0).await.unwrap().unwrap();
    let status = &layer.handle().status()[0];
    assert_eq!((status.queued, status.in_flight, status.not_sent), (0, 0, 1));
    assert_eq!(status.admitted, status.settled + status.not_sent);
}

// A grant that was fetched late is charged from when it is sent: no window holds more than the limit.
#[tokio::test(start_paused = true)]
async fn rate_limit_a_grant_that_is_fetched_late_counts_from_then() {
    let (_, service) = full(1).await;
    let start = Instant::now();
    let mut late = starve(call(&service, request()), Way::Kept).unwrap();
    sleep(WINDOW + 20 * SECOND).await;
    // Nobody else waits, so the turn is still its own.
    assert!(poll(&mut late).is_ready());
    call(&service, request()).await.unwrap();
    assert!(Instant::now() - start >= 2 * WINDOW + 20 * SECOND, "{:?}", Instant::now() - start);
}

// Places of futures that are never dropped are not anybody else's.
#[tokio::test(start_paused = true)]
async fn rate_limit_forgotten_waiters_do_not_fill_the_queue() {
    let builder = RateLimitLayer::builder().limits(Limits::new().requests_per_minute(1)).max_queue(3);
    let layer = builder.build().unwrap();
    let service = layer.layer(Probe::always(Answer::Ok));
    call(&service, request()).await.unwrap();
    for _ in 0..10 {
        // Two that are forgotten each time, and one that waits.
        (0..2).for_each(|_| _ = starve(call(&service, request()), Way::Forgotten));
        call(&service, request()).await.expect("there is a place for it");
    }
}

// ===== adaptive concurrency =====

/// A limit below one: one call at a time, and a pace. Timeouts go on until the layer believes in them.
async fn paced() -> (AdaptiveConcurrencyLayer, Probe, TargetKey) {
    let layer = AdaptiveConcurrencyLayer::new();
    let ten: Vec<_> = (0..10).map(|_| Answer::Ok).collect();
    let probe = Probe::new(ten, error(504, "DEADLINE_EXCEEDED", "too late"));
    let service = layer.layer(ClassifyLayer::new().layer(probe.clone()));
    let key = Target::of(&request()).key().without_label();
    for _ in 0..500 {
        _ = call(&service, request()).await;
        sleep(10 * SECOND).await;
        if layer.handle().get(&key).and_then(|state| state.limit()).is_some_and(|limit| limit < 1.0) {
            return (layer, probe, key);
        }
    }
    panic!("500 timeouts in a row, one at a time, make no limit below one");
}

// The duty: the first of the queue has the timer of the pace, and others are let in when its slot is back.
#[tokio::test(start_paused = true)]
async fn concurrency_the_first_of_the_queue_is_not_polled() {
    for way in WAYS {
        let (layer, _, key) = paced().await;
        // Nothing that would end the pace.
        let server = Probe::always(error(400, "INVALID_ARGUMENT", "no"));
        let service = layer.layer(ClassifyLayer::new().layer(server));
        let far = Instant::now() + 3_600 * SECOND;
        // Until one has to wait for the pace.
        let mut first = None;
        for _ in 0..20 {
            let next = call(&service, by(far));
            if layer.handle().get(&key).unwrap().queued() == 1 {
                first = Some(next);
                break;
            }
            next.await.expect("it was let in");
        }
        let first = first.expect("below one, the second of two in a row has to wait");
        let start = Instant::now();
        let _kept = starve(first, way);
        let other = tokio::spawn(call(&service, by(far)));
        other.await.unwrap().expect("it is served");
        // The longest gap of the pace is 75 s, once for the starved one and once for the other.
        assert!(Instant::now() - start <= 155 * SECOND, "{way:?}: {:?}", Instant::now() - start);
    }
}

// The duty: a slot that was given to a waiter is free for others only when that fetches it and its call ends.
#[tokio::test(start_paused = true)]
async fn concurrency_a_slot_that_is_not_fetched_passes_on() {
    for way in WAYS {
        let (layer, _, key) = paced().await;
        let server = Probe::always(Answer::Ok);
        let service = layer.layer(ClassifyLayer::new().layer(server));
        let far = Instant::now() + 3_600 * SECOND;
        // Those that were made before any of them is polled are queued behind the first.
        let calls: Vec<_> = (0..3).map(|_| call(&service, by(far))).collect();
        let mut calls = calls.into_iter();
        let start = Instant::now();
        let first = tokio::spawn(calls.next().unwrap());
        let _kept = starve(calls.next().unwrap(), way);
        let last = tokio::spawn(calls.next().unwrap());
        first.await.unwrap().expect("it is served");
        last.await.unwrap().expect("it is served");
        assert!(Instant::now() - start <= 240 * SECOND, "{way:?}: {:?}", Instant::now() - start);
        assert_eq!(layer.handle().get(&key).map_or(0, |state| state.queued()), 0, "{way:?}: nobody waits");
    }
}

// Its own deadline is its own timer.
#[tokio::test(start_paused = true)]
async fn concurrency_a_deadline_behind_waiters_that_are_not_polled() {
    for way in [Way::Kept, Way::Forgotten] {
        let (layer, ..) = paced().await;
        let service = layer.layer(ClassifyLayer::new().layer(Probe::always(Answer::Hang)));
        let start = Instant::now();
        // One that holds the only slot, or waits for its pace, and is not polled again.
        let _kept = starve(call(&service, by(start + 3_600 * SECOND)), way);
        let deadline = start + 200 * SECOND;
        let mut other = call(&service, by(deadline));
        tokio::select! {
            answer = &mut other => assert!(answer.is_err(), "{way:?}: the server hangs"),
            () = tokio::time::sleep_until(deadline + SECOND) => {
                // It may have been let in: then the server has it.
                drop(other);
            }
        }
        assert!(Instant::now() <= deadline + SECOND);
    }
}

// ===== circuit breaker =====

// The duty: of a circuit that is half open one probe finds out for all. It loses its place with its lease.
#[tokio::test(start_paused = true)]
async fn circuit_breaker_a_probe_that_is_not_polled_loses_its_place_with_its_lease() {
    const LEASE: Duration = Duration::from_secs(20);
    for way in [Way::Kept, Way::Forgotten] {
        let layer = CircuitBreakerLayer::builder().probe_lease(LEASE).seed(1).build().unwrap();
        let failing = layer.layer(ClassifyLayer::new().layer(Probe::always(error(503, "UNAVAILABLE", "no"))));
        let key = Target::of(&request()).key().without_label();
        let state = || layer.handle().get(&key).map(|circuit| circuit.state);
        for _ in 0..200 {
            _ = call(&failing, request()).await;
            if state() == Some(CircuitState::Open) {
                break;
            }
        }
        assert_eq!(state(), Some(CircuitState::Open));
        sleep(20 * SECOND).await;
        // The probe's answer is never asked for.
        let hanging = layer.layer(ClassifyLayer::new().layer(Probe::always(Answer::Hang)));
        let probed = Instant::now();
        let _kept = starve(call(&hanging, request()), way);
        let well = layer.layer(ClassifyLayer::new().layer(Probe::always(Answer::Ok)));
        let mut answered = None;
        for _ in 0..100 {
            if call(&well, request()).await.is_ok() {
                answered = Some(Instant::now() - probed);
                break;
            }
            sleep(SECOND).await;
        }
        let answered = answered.unwrap_or_else(|| panic!("{way:?}: nobody is let in"));
        assert!(answered <= LEASE + 2 * SECOND, "{way:?}: {answered:?}");
    }
}

// ===== replay =====

/// A body whose frames come one by one.
fn trickle() -> http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError> {
    let frames = stream::iter(0..3).then(|_| async {
        sleep(SECOND).await;
        Ok::<_, BoxError>(http_body::Frame::data(Bytes::from_static(b"x")))
    });
    http_body_util::StreamBody::new(frames).boxed_unsync()
}

// The duty: of all copies of a body the newest reads the source for all. An older one that is not polled is in nobody's
// way, also where it was the first to be told that there is nothing yet.
#[tokio::test(start_paused = true)]
async fn replay_a_copy_that_is_not_polled_holds_up_no_other() {
    for way in [Way::Kept, Way::Forgotten] {
        let body = ReplayBody::new(trickle());
        let mut first = Box::pin(body.clone());
        assert!(first.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())).is_pending());
        let _kept = if way == Way::Kept {
            Some(first)
        } else {
            mem::forget(first);
            None
        };
        let start = Instant::now();
        let all = body.clone().collect().await.expect("it is read").to_bytes();
        assert_eq!((all.len(), Instant::now() - start), (3, 3 * SECOND), "{way:?}");
    }
}

// ===== those that carry nothing for others =====

// Retry, timeouts, deadlines, fallback, observers: each waits by a timer of its own, and what they share (a budget, a
// count) is changed within one poll.
#[tokio::test(start_paused = true)]
async fn retry_a_pause_that_is_not_polled_is_nobody_elses() {
    use tower_gemini::retry::RetryLayer;
    for way in [Way::Kept, Way::Forgotten] {
        let layer = RetryLayer::default();
        let failing = layer.layer(ClassifyLayer::new().layer(Probe::always(error(503, "UNAVAILABLE", "no"))));
        let _kept = starve(call(&failing, request()), way);
        let answers = Probe::new([error(503, "UNAVAILABLE", "no")], Answer::Ok);
        let other = layer.layer(ClassifyLayer::new().layer(answers));
        let answer: Response<_> = call(&other, request()).await.expect("it is retried");
        assert_eq!(answer.status(), 200, "{way:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fallback_and_observers_wait_for_nobody() {
    use tower_gemini::observe::ObserveLayer;
    use tower_gemini::stack::GeminiStack;
    struct Nobody;
    impl tower_gemini::event::Observer for Nobody {
        fn on_event(&self, _: &tower_gemini::event::Event<'_>) {}
    }
    for way in [Way::Kept, Way::Forgotten] {
        let stack = GeminiStack::new();
        let observe = ObserveLayer::new(Arc::new(Nobody));
        let hanging = observe.layer(stack.layer(Probe::always(Answer::Hang)));
        let _kept: Vec<_> = (0..8).map(|_| starve(call(&hanging, request()), way)).collect();
        let other = observe.layer(stack.layer(Probe::always(Answer::Ok)));
        let start = Instant::now();
        let answer = call(&other, request()).await.expect("it is answered");
        assert_eq!((answer.status().as_u16(), Instant::now()), (200, start), "{way:?}");
    }
}
