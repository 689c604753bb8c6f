//! The adaptive concurrency layer's promises, one test each, in paused time, over a probe that counts every breach of
//! the readiness contract.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod support;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use support::{Answer, Body, Probe, error, quota, request, respond};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::{
    AdaptiveConcurrency, AdaptiveConcurrencyLayer, ConcurrencyHandle, ConcurrencyLimited, ConcurrencyState,
    Refusal,
};
use tower_gemini::error::find;
use tower_gemini::event::{Event, Observer};
use tower_gemini::retry::{Attempts, RetryLayer, RetryPolicy};
use tower_gemini::target::{KeyLabel, TargetKey};
use tower_gemini::verdict::Signal;
use tower_gemini::{BoxError, Deadline, Rejected, Target};

const SECOND: Duration = Duration::from_secs(1);

// ===== a server that answers when told =====

/// Answers each call when the test says so; counts what is inside.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Calls>>);

#[derive(Default)]
struct Calls {
    waiting: VecDeque<(String, oneshot::Sender<u16>)>,
    seen: Vec<String>,
    at: Vec<Instant>,
}

impl Server {
    /// Answers the call that has been inside for longest.
    fn answer(&self, status: u16) {
        let next = self.0.lock().unwrap().waiting.pop_front();
        next.expect("a call inside").1.send(status).ok();
    }
    fn answer_all(&self, status: u16) {
        while self.inside() > 0 {
            self.answer(status);
        }
    }
    fn inside(&self) -> usize {
        let mut calls = self.0.lock().unwrap();
        calls.waiting.retain(|(_, sender)| !sender.is_closed());
        calls.waiting.len()
    }
    fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().seen.clone()
    }
}

impl Service<Request<Body>> for Server {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (sender, answer) = oneshot::channel();
        let mut calls = self.0.lock().unwrap();
        let name = request.headers().get("name").map_or("", |name| name.to_str().unwrap()).to_owned();
        calls.seen.push(name.clone());
        calls.at.push(Instant::now());
        calls.waiting.push_back((name, sender));
        Box::pin(async move { Ok(respond(answer.await?, "{}".into())) })
    }
}

fn named(name: impl ToString) -> Request<Body> {
    let mut request = request();
    request.headers_mut().insert("name", name.to_string().parse().unwrap());
    request
}

fn within(seconds: u64) -> Request<Body> {
    let mut request = request();
    request.extensions_mut().insert(Deadline::within(Duration::from_secs(seconds)));
    request
}

/// The state of the one key that these tests use.
fn state(handle: &ConcurrencyHandle) -> ConcurrencyState {
    handle.get(&key()).expect("the key is known")
}

fn key() -> TargetKey {
    Target::of(&request()).key()
}

fn counts(handle: &ConcurrencyHandle) -> (Option<f64>, u32, usize) {
    let state = state(handle);
    (state.limit(), state.in_flight(), state.queued())
}

/// Lets every task run until it waits for time or for the test.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

type Task = tokio::task::JoinHandle<Result<u16, BoxError>>;

fn spawn<S>(service: &S, request: Request<Body>) -> Task
where
    S: Service<Request<Body>, Response: Answered, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    let call = service.clone().oneshot(request);
    tokio::spawn(async move { Ok(call.await?.status_and_end().await) })
}

/// Reads a response to its end.
trait Answered: Send {
    fn status_and_end(self) -> impl Future<Output = u16> + Send;
}

impl<B: http_body::Body<Data: Send, Error: Send> + Send> Answered for Response<B> {
    async fn status_and_end(self) -> u16 {
        let status = self.status().as_u16();
        let _ = std::pin::pin!(self.into_body()).collect().await;
        status
    }
}

/// A service over the server with so many calls inside, and the handle.
async fn busy(inside: usize) -> (AdaptiveConcurrency<Server>, Server, ConcurrencyHandle, Vec<Task>) {
    let layer = AdaptiveConcurrencyLayer::builder().seed(1).build().unwrap();
    let server = Server::default();
    let service = layer.layer(server.clone());
    let tasks = (0..inside).map(|i| spawn(&service, named(i))).collect();
    settle().await;
    (service, server, layer.handle(), tasks)
}

// ===== no limit before the first timeout =====

#[tokio::test(start_paused = true)]
async fn sixty_four_at_once_all_go_out_at_once_and_whatever_fails_but_a_timeout_leaves_it_so() {
    let (service, server, handle, _tasks) = busy(64).await;
    assert_eq!((server.inside(), counts(&handle)), (64, (None, 64, 0)));
    for status in [200, 400, 429, 500, 502, 503] {
        (0..10).for_each(|_| server.answer(status));
    }
    settle().await;
    assert_eq!(counts(&handle), (None, 4, 0));
    let _more: Vec<_> = (0..1000).map(|i| spawn(&service, named(i))).collect();
    settle().await;
    assert_eq!(counts(&handle), (None, 1004, 0));
    assert_eq!((state(&handle).cuts(), state(&handle).last_cut()), (0, None));
}

// ===== a cut =====

#[tokio::test(start_paused = true)]
async fn a_timeout_leaves_half_of_what_was_in_flight_and_one_batch_cuts_once() {
    let (service, server, handle, _tasks) = busy(64).await;
    server.answer(504);
    settle().await;
    assert_eq!(counts(&handle), (Some(32.0), 63, 0));
    let late = spawn(&service, request());
    settle().await;
    assert_eq!(counts(&handle), (Some(32.0), 63, 1), "no room for another one");
    // The rest of the batch, seconds later: all were admitted before the cut.
    tokio::time::sleep(20 * SECOND).await;
    (0..31).for_each(|_| server.answer(504));
    settle().await;
    assert_eq!((counts(&handle), server.inside()), ((Some(32.0), 32, 1), 32));
    server.answer(504);
    settle().await;
    assert_eq!(counts(&handle), (Some(32.0), 32, 0), "one left, one came");
    (0..31).for_each(|_| server.answer(504));
    settle().await;
    assert_eq!(state(&handle).cuts(), 1);
    // The one that came after the cut: half of the one in flight.
    server.answer(504);
    assert_eq!(late.await.unwrap().unwrap(), 504);
    assert_eq!((counts(&handle), state(&handle).cuts()), ((Some(0.5), 0, 0), 2));
    assert_eq!(state(&handle).last_cut(), Some(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn two_cuts_are_at_least_the_interval_apart() {
    let (service, server, handle, _tasks) = busy(8).await;
    server.answer(504);
    settle().await;
    server.answer_all(200);
    settle().await;
    let _after: Vec<_> = (0..4).map(|_| spawn(&service, request())).collect();
    settle().await;
    server.answer(504);
    settle().await;
    assert_eq!(state(&handle).cuts(), 1, "too soon");
    tokio::time::advance(5 * SECOND).await;
    server.answer(504);
    settle().await;
    assert_eq!((state(&handle).cuts(), state(&handle).limit()), (2, Some(1.5)), "half of the three");
}

#[tokio::test(start_paused = true)]
async fn an_inner_timeout_layers_error_is_a_timeout_and_a_dropped_call_is_not() {
    let layer = AdaptiveConcurrencyLayer::new();
    let probe = Probe::always(Answer::Hang);
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(ClassifyLayer::new())
        .layer(tower::timeout::TimeoutLayer::new(30 * SECOND))
        .service(probe.clone());
    let call = tokio::time::timeout(SECOND, service.clone().oneshot(request()));
    assert!(call.await.is_err());
    assert_eq!(counts(&layer.handle()), (None, 0, 0), "the caller went away");
    let error = service.oneshot(request()).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "passed through as it came");
    assert_eq!(counts(&layer.handle()), (Some(0.5), 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_callers_table_decides_what_cuts() {
    let table = |verdict: &tower_gemini::Verdict| match verdict.kind() {
        Some(tower_gemini::Kind::Overloaded) => Signal::Timeout,
        _ => Signal::Neutral,
    };
    let layer = AdaptiveConcurrencyLayer::builder().signals(table).build().unwrap();
    let script =
        [error(504, "DEADLINE_EXCEEDED", "late"), error(503, "UNAVAILABLE", "The model is overloaded.")];
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(ClassifyLayer::new())
        .service(Probe::new(script, Answer::Ok));
    let _ = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(counts(&layer.handle()).0, None);
    let _ = service.oneshot(request()).await.unwrap();
    assert_eq!(counts(&layer.handle()).0, Some(0.5));
}

// ===== growth, pace, lift =====

#[tokio::test(start_paused = true)]
async fn it_grows_only_while_it_is_used() {
    let (service, server, handle, _tasks) = busy(20).await;
    server.answer(504);
    settle().await;
    (0..9).for_each(|_| server.answer(200));
    settle().await;
    assert!((state(&handle).limit().unwrap() - 10.09).abs() < 0.01, "{:?}", state(&handle));
    server.answer_all(200);
    settle().await;
    // One more as ten were in flight; the others left room.
    let before = state(&handle).limit().unwrap();
    assert!((before - 10.1).abs() < 0.01, "{before}");
    for _ in 0..50 {
        let call = spawn(&service, request());
        settle().await;
        server.answer(200);
        call.await.unwrap().unwrap();
    }
    assert_eq!(state(&handle).limit(), Some(before));
}

#[tokio::test(start_paused = true)]
async fn below_one_it_is_one_call_at_a_time_and_a_gap() {
    let (service, server, handle, tasks) = busy(1).await;
    server.answer(504);
    settle().await;
    let cut = Instant::now();
    let waiting: Vec<_> = (0..3).map(|i| spawn(&service, named(i))).collect();
    settle().await;
    assert_eq!((counts(&handle), server.inside()), ((Some(0.5), 0, 3), 0));
    for limit in [0.5, 0.6, 0.7] {
        let before = Instant::now();
        while server.inside() == 0 {
            tokio::time::sleep(SECOND / 100).await;
        }
        let gap = (Instant::now() - before).as_secs_f64() * limit;
        assert!((0.5..=1.5).contains(&gap), "{gap} of the gap that {limit} means");
        assert_eq!(server.inside(), 1);
        server.answer(200);
        settle().await;
    }
    assert_eq!(server.seen(), ["0", "0", "1", "2"], "first come, first served");
    assert!(Instant::now() - cut < 9 * SECOND && (state(&handle).limit().unwrap() - 0.8).abs() < 1e-9);
    drop((tasks, waiting));
}

#[tokio::test(start_paused = true)]
async fn it_is_lifted_when_it_stood_in_nobodys_way_for_two_minutes() {
    let (service, server, handle, _tasks) = busy(8).await;
    server.answer(504);
    settle().await;
    server.answer_all(200);
    settle().await;
    let once = async || {
        let call = spawn(&service, request());
        settle().await;
        server.answer(200);
        call.await.unwrap().unwrap();
    };
    // A call a second, with room for three more, for just not two minutes.
    for _ in 0..119 {
        tokio::time::advance(SECOND).await;
        once().await;
    }
    assert!(state(&handle).limit().is_some());
    // Five at once need it: it begins anew.
    let five: Vec<_> = (0..5).map(|_| spawn(&service, request())).collect();
    settle().await;
    assert_eq!(state(&handle).queued(), 1);
    server.answer_all(200);
    settle().await;
    server.answer_all(200);
    settle().await;
    assert!(five.iter().all(Task::is_finished));
    for _ in 0..119 {
        tokio::time::advance(SECOND).await;
        once().await;
    }
    assert!(state(&handle).limit().is_some());
    tokio::time::advance(SECOND).await;
    once().await;
    assert_eq!(counts(&handle), (None, 0, 0));
    let _burst: Vec<_> = (0..64).map(|_| spawn(&service, request())).collect();
    settle().await;
    assert_eq!(server.inside(), 64);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_night_lifts_it_before_the_first_call_of_the_morning() {
    let (service, server, handle, _tasks) = busy(1).await;
    server.answer(504);
    settle().await;
    tokio::time::advance(120 * SECOND).await;
    let _burst: Vec<_> = (0..64).map(|_| spawn(&service, request())).collect();
    settle().await;
    assert_eq!((server.inside(), counts(&handle)), (64, (None, 64, 0)));
}

// ===== the queue =====

#[tokio::test(start_paused = true)]
async fn first_come_first_served_and_one_release_wakes_one() {
    let (service, server, handle, _tasks) = busy(4).await;
    server.answer(504);
    settle().await;
    let mut calls: Vec<_> =
        (0..20).map(|i| by_hand(service.clone().oneshot(named(format!("w{i}"))))).collect();
    calls.iter_mut().for_each(|call| assert!(call.poll().is_pending()));
    assert_eq!(counts(&handle), (Some(2.0), 3, 20));
    server.answer_all(503);
    settle().await;
    let mut order = Vec::new();
    for _ in 0..30 {
        let woken: Vec<_> = (0..calls.len()).filter(|i| calls[*i].take_woken()).collect();
        assert!(woken.len() <= 2, "no herd: {woken:?}");
        for i in woken {
            if !order.contains(&i) {
                order.push(i);
            }
            let _ = calls[i].poll();
        }
        if server.inside() > 0 {
            // A failure frees its place and leaves the limit as it is.
            server.answer(503);
        }
        settle().await;
    }
    assert_eq!(order, (0..20).collect::<Vec<_>>());
    assert_eq!(server.seen()[4..], (0..20).map(|i| format!("w{i}")).collect::<Vec<_>>());
    assert_eq!(counts(&handle), (Some(2.0), 0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_waker_is_dropped_under_the_lock() {
    let (service, server, handle, _tasks) = busy(2).await;
    server.answer(504);
    settle().await;
    let waker = || {
        let handle = handle.clone();
        support::curious(move || _ = handle.get(&key()))
    };
    let mut waiting = Box::pin(service.clone().oneshot(named("waiting")));
    // Replaced by another one, then dropped with its waiter.
    for _ in 0..2 {
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
    }
    drop(waiting);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_waiter_and_a_dropped_turn_pass_on() {
    let (service, server, handle, _tasks) = busy(2).await;
    server.answer(504);
    settle().await;
    let mut calls: Vec<_> =
        (0..4).map(|i| Some(by_hand(service.clone().oneshot(named(format!("w{i}")))))).collect();
    calls.iter_mut().flatten().for_each(|call| assert!(call.poll().is_pending()));
    assert_eq!(counts(&handle), (Some(1.0), 1, 4));
    // The first goes while it waits; the second when its turn has come and it has not looked yet.
    calls[0] = None;
    assert_eq!(counts(&handle), (Some(1.0), 1, 3));
    server.answer(503);
    settle().await;
    assert!(calls[1].as_mut().unwrap().take_woken() && !calls[2].as_mut().unwrap().take_woken());
    assert_eq!(counts(&handle), (Some(1.0), 1, 2));
    calls[1] = None;
    assert!(calls[2].as_mut().unwrap().take_woken(), "the turn passed on");
    assert_eq!(counts(&handle), (Some(1.0), 1, 1));
    assert!(calls[2].as_mut().unwrap().poll().is_pending());
    assert_eq!(server.seen()[2..], ["w2"]);
    // In flight: dropping the call frees its place, too.
    calls[2] = None;
    assert!(calls[3].as_mut().unwrap().take_woken());
    calls[3] = None;
    assert_eq!(counts(&handle), (Some(1.0), 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_successor_of_a_dropped_head_keeps_the_pace() {
    let (service, server, handle, _tasks) = busy(1).await;
    server.answer(504);
    settle().await;
    let mut head = by_hand(service.clone().oneshot(named("head")));
    assert!(head.poll().is_pending());
    let next = spawn(&service, named("next"));
    settle().await;
    // Dropped before its gap is over, and again just when it is.
    drop(head);
    let started = Instant::now();
    settle().await;
    while server.inside() == 0 {
        tokio::time::sleep(SECOND / 100).await;
        assert!(Instant::now() - started <= 4 * SECOND, "nobody kept the time");
    }
    server.answer(200);
    next.await.unwrap().unwrap();
    let mut head = by_hand(service.clone().oneshot(named("head")));
    assert!(head.poll().is_pending());
    let next = spawn(&service, named("next"));
    settle().await;
    tokio::time::advance(10 * SECOND).await;
    drop(head);
    settle().await;
    assert_eq!(server.inside(), 1, "its time had come");
    server.answer(200);
    next.await.unwrap().unwrap();
    assert_eq!(counts(&handle).1, 0);
}

#[tokio::test(start_paused = true)]
async fn it_waits_until_the_deadline_and_no_longer() {
    let (service, server, handle, _tasks) = busy(2).await;
    server.answer(504);
    settle().await;
    let start = Instant::now();
    for (seconds, why) in [(7, Refusal::Deadline), (120, Refusal::MaxWait), (300, Refusal::Deadline)] {
        let request = if why == Refusal::MaxWait { request() } else { within(seconds) };
        let before = Instant::now();
        let error = service.clone().oneshot(request).await.unwrap_err();
        assert_eq!((Instant::now() - before).as_secs(), seconds, "{error}");
        assert_eq!(find::<ConcurrencyLimited>(error.as_ref()).unwrap().why(), why);
        assert!(find::<Rejected>(error.as_ref()).is_some(), "not sent");
        assert_eq!(counts(&handle), (Some(1.0), 1, 0));
    }
    assert!(Instant::now() - start > 400 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_is_certain_to_be_late_is_turned_away_at_once() {
    let (service, server, handle, _tasks) = busy(1).await;
    server.answer(504);
    settle().await;
    // From 0.5 down to the floor: the next gap is 25 s at the least.
    while state(&handle).limit() != Some(0.02) {
        let call = spawn(&service, request());
        while server.inside() == 0 {
            tokio::time::sleep(SECOND / 10).await;
        }
        tokio::time::sleep(6 * SECOND).await;
        server.answer(504);
        call.await.unwrap().unwrap();
    }
    let now = Instant::now();
    for (request, why) in [(within(0), Refusal::Deadline), (within(10), Refusal::Deadline)] {
        let error = service.clone().oneshot(request).await.unwrap_err();
        let limited = find::<ConcurrencyLimited>(error.as_ref()).unwrap();
        assert_eq!((limited.why(), Instant::now()), (why, now), "at once");
        let until = limited.until().expect("the gap is known") - now;
        assert!(until > 15 * SECOND && until < 75 * SECOND, "{until:?}");
        assert_eq!(find::<Rejected>(error.as_ref()).unwrap().until(), limited.until());
    }
    assert_eq!(counts(&handle), (Some(0.02), 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_turns_the_next_away() {
    let layer = AdaptiveConcurrencyLayer::builder().max_queued(3).build().unwrap();
    let server = Server::default();
    let service = layer.layer(server.clone());
    let _two: Vec<_> = (0..2).map(|_| spawn(&service, request())).collect();
    settle().await;
    server.answer(504);
    settle().await;
    let _three: Vec<_> = (0..3).map(|_| spawn(&service, request())).collect();
    settle().await;
    let error = service.clone().oneshot(request()).await.unwrap_err();
    assert_eq!(find::<ConcurrencyLimited>(error.as_ref()).unwrap().why(), Refusal::QueueFull);
    let mut chain = vec![error.to_string()];
    chain.extend(error.source().map(ToString::to_string));
    assert_eq!(
        chain,
        [
            "concurrency limited",
            "not sent: too many requests wait for their turn under the concurrency limit"
        ]
    );
    server.answer_all(200);
    settle().await;
    // The same service is as good as before.
    let call = spawn(&service, request());
    settle().await;
    server.answer_all(200);
    settle().await;
    assert_eq!(counts(&layer.handle()).1, 1);
    drop(call);
}

// Callers that come, wait, run and go at random: the count stays exact, and whoever stays is served.
#[tokio::test(start_paused = true)]
async fn a_storm_of_cancellations_loses_no_place() {
    let mut random = 12_345u64;
    let mut draw = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (service, server, handle, mut tasks) = busy(40).await;
    server.answer(504);
    for _ in 0..20_000 {
        match draw(10) {
            0..4 => tasks.push(spawn(&service, within(100 + draw(1000)))),
            4..6 if !tasks.is_empty() => {
                let at = draw(tasks.len() as u64) as usize;
                tasks.swap_remove(at).abort();
            }
            6..9 if server.inside() > 0 => server.answer(if draw(200) == 0 { 504 } else { 200 }),
            9 => tokio::time::sleep(Duration::from_millis(draw(200))).await,
            _ => tokio::task::yield_now().await,
        }
        tasks.retain(|task| !task.is_finished());
        let state = state(&handle);
        assert!(state.in_flight() as usize >= server.inside());
    }
    settle().await;
    tasks.retain(|task| !task.is_finished());
    let held = state(&handle);
    assert_eq!(held.in_flight() as usize, server.inside());
    assert_eq!(held.queued() + server.inside(), tasks.len());
    assert!(held.cuts() > 5, "{held:?}");
    // Whoever is left is served or turned away by its deadline.
    let end = Instant::now() + 1200 * SECOND;
    while Instant::now() < end {
        server.answer_all(200);
        tokio::time::sleep(SECOND / 10).await;
    }
    assert!(tasks.iter().all(Task::is_finished));
    assert_eq!((state(&handle).in_flight(), state(&handle).queued()), (0, 0));
}

// ===== readiness =====

#[tokio::test(start_paused = true)]
async fn who_waits_holds_no_readiness_of_the_inner_service() {
    // Room for one inside: the second caller waits at the limit, and a stranger beside it must pass.
    let inside = Arc::new(Semaphore::new(1));
    let limit = tower::limit::GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&inside));
    let layer = AdaptiveConcurrencyLayer::new();
    let server = Server::default();
    let mut service = layer.layer(limit.layer(server.clone()));
    let first = spawn(&service, request());
    settle().await;
    server.answer(504);
    first.await.unwrap().unwrap();
    // Polled ready, so the one permit is taken, and then it has to wait for its pace.
    let call = service.ready().await.unwrap().call(request());
    assert_eq!(inside.available_permits(), 1, "given up again");
    let call = tokio::spawn(call);
    settle().await;
    let stranger = tokio::spawn(limit.layer(server.clone()).oneshot(request()));
    settle().await;
    assert_eq!(server.inside(), 1);
    server.answer(200);
    stranger.await.unwrap().unwrap();
    // In its turn it takes the permit.
    while server.inside() == 0 {
        tokio::time::sleep(SECOND / 10).await;
    }
    assert_eq!(inside.available_permits(), 0);
    server.answer(200);
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_second_clone_is_polled_ready_as_well_and_may_be_dropped_or_fail_there() {
    let layer = AdaptiveConcurrencyLayer::new();
    let probe = Probe::new([error(504, "DEADLINE_EXCEEDED", "late")], Answer::Ok);
    let service = layer.layer(probe.clone());
    probe.state().lock().unwrap().not_ready = 3;
    for _ in 0..4 {
        let response = service.clone().oneshot(request()).await.unwrap();
        let _ = response.into_body().collect().await;
    }
    assert_eq!(probe.state().lock().unwrap().violations, 0);
    let limit = state(&layer.handle()).limit().unwrap();
    // Its turn has come, and the inner service is not ready: it holds a place until it is dropped.
    let mut call = by_hand({
        let mut service = service.clone();
        service.ready().await.unwrap();
        async move { service.call(request()).await }
    });
    probe.state().lock().unwrap().not_ready = u32::MAX;
    assert!(call.poll().is_pending());
    tokio::time::advance(5 * SECOND).await;
    assert!(call.poll().is_pending());
    assert_eq!(counts(&layer.handle()), (Some(limit), 1, 0));
    drop(call);
    assert_eq!(counts(&layer.handle()), (Some(limit), 0, 0));
    // And an inner service that closes is handed on.
    probe.state().lock().unwrap().not_ready = 0;
    let mut call = by_hand({
        let mut service = service.clone();
        service.ready().await.unwrap();
        async move { service.call(request()).await }
    });
    assert!(call.poll().is_pending());
    probe.state().lock().unwrap().fail_ready = true;
    tokio::time::advance(5 * SECOND).await;
    let Poll::Ready(Err(error)) = call.poll() else { panic!("it is closed") };
    assert_eq!(error.to_string(), "the probe is closed");
    assert_eq!(counts(&layer.handle()), (Some(limit), 0, 0));
    assert_eq!(probe.state().lock().unwrap().violations, 0);
}

// ===== bodies =====

/// Answers with a stream that goes on as long as the test wants.
async fn streaming(
    layer: &AdaptiveConcurrencyLayer,
) -> (
    Pin<Box<impl http_body::Body<Data = Bytes, Error = std::io::Error>>>,
    tokio::sync::mpsc::UnboundedSender<Result<Frame<Bytes>, std::io::Error>>,
) {
    let (sender, mut frames) = tokio::sync::mpsc::unbounded_channel();
    let body = StreamBody::new(futures_util::stream::poll_fn(move |cx| frames.poll_recv(cx)));
    let body = Mutex::new(Some(body));
    let service = layer.layer(ClassifyLayer::new().watch().layer(tower::service_fn({
        let body = Arc::new(body);
        move |_: Request<Body>| {
            let body = body.lock().unwrap().take().unwrap();
            std::future::ready(Ok::<_, BoxError>(Response::new(body)))
        }
    })));
    let response = service.oneshot(request()).await.unwrap();
    (Box::pin(response.into_body()), sender)
}

#[tokio::test(start_paused = true)]
async fn a_call_is_in_flight_until_its_body_has_ended() {
    let layer = AdaptiveConcurrencyLayer::new();
    let in_flight = || state(&layer.handle()).in_flight();
    let frame = || Ok(Frame::data(Bytes::from("data: {}\n\n")));
    let (mut body, sender) = streaming(&layer).await;
    for _ in 0..3 {
        sender.send(frame()).unwrap();
        body.frame().await.unwrap().unwrap();
        assert_eq!(in_flight(), 1);
    }
    drop(sender);
    assert!(body.frame().await.is_none());
    assert_eq!(in_flight(), 0, "at the end, not when the caller lets go");
    drop(body);
    // Dropped: unread, and in the middle.
    let (body, _sender) = streaming(&layer).await;
    assert_eq!(in_flight(), 1);
    drop(body);
    assert_eq!(in_flight(), 0);
    let (mut body, sender) = streaming(&layer).await;
    sender.send(frame()).unwrap();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(counts(&layer.handle()), (None, 0, 0));
    // Broken off.
    let (mut body, sender) = streaming(&layer).await;
    sender.send(Err(std::io::ErrorKind::ConnectionReset.into())).unwrap();
    assert!(body.frame().await.unwrap().is_err());
    assert_eq!(counts(&layer.handle()), (None, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_inside_a_stream_cuts_as_well() {
    let layer = AdaptiveConcurrencyLayer::new();
    let (mut body, sender) = streaming(&layer).await;
    let (held, _open) = streaming(&layer).await;
    let late = r#"data: {"error":{"code":504,"message":"late","status":"DEADLINE_EXCEEDED"}}"#;
    sender.send(Ok(Frame::data(Bytes::from(format!("{late}\n\n"))))).unwrap();
    drop(sender);
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
    assert_eq!(counts(&layer.handle()), (Some(1.0), 1, 0));
    assert!(held.size_hint().exact().is_none());
}

// ===== keys, handle, events, retry =====

#[tokio::test(start_paused = true)]
async fn another_model_has_a_limit_of_its_own_and_labels_share_one() {
    let (service, server, handle, _tasks) = busy(2).await;
    server.answer(504);
    settle().await;
    let mut labelled = request();
    labelled.extensions_mut().insert(KeyLabel::new("team-b"));
    let waiting = spawn(&service, labelled);
    let mut other = request();
    *other.uri_mut() = "http://127.0.0.1/v1beta/models/gemini-9-pro:generateContent".parse().unwrap();
    let passing = spawn(&service, other);
    settle().await;
    assert_eq!(server.inside(), 2);
    assert_eq!(counts(&handle), (Some(1.0), 1, 1));
    let mut limits: Vec<_> = handle
        .all()
        .into_iter()
        .map(|(key, state)| (key.model().unwrap().to_owned(), state.limit()))
        .collect();
    limits.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(limits, [("gemini-9-flash".into(), Some(1.0)), ("gemini-9-pro".into(), None)]);
    drop((waiting, passing));
}

#[tokio::test(start_paused = true)]
async fn the_caller_chooses_what_shares_a_limit() {
    let layer =
        AdaptiveConcurrencyLayer::builder().key_by(|_| TargetKey::named("everything")).build().unwrap();
    let script = [error(504, "DEADLINE_EXCEEDED", "late")];
    let service = layer.layer(Probe::new(script, Answer::Ok));
    let _ = service.oneshot(request()).await.unwrap();
    assert_eq!(layer.handle().get(&TargetKey::named("everything")).unwrap().limit(), Some(0.5));
    assert!(layer.handle().get(&key()).is_none());
}

#[tokio::test(start_paused = true)]
async fn all_services_and_clones_of_a_layer_share_its_limits() {
    let layer = AdaptiveConcurrencyLayer::new();
    let server = Server::default();
    let services: Vec<_> = (0..10).map(|_| layer.clone().layer(server.clone())).collect();
    let _calls: Vec<_> = services.iter().map(|service| spawn(&service.clone(), request())).collect();
    settle().await;
    server.answer(504);
    settle().await;
    assert_eq!(counts(&layer.handle()), (Some(5.0), 9, 0));
    let _one_more = spawn(&services[3], request());
    settle().await;
    assert_eq!(counts(&layer.handle()), (Some(5.0), 9, 1));
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(match event {
            Event::ConcurrencyCut { key, in_flight, limit, .. } => {
                format!("{key}: {in_flight} cut to {limit}")
            }
            Event::ConcurrencyLifted { key, .. } => format!("{key}: lifted"),
            event => format!("{event:?}"),
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_lets_all_go_and_the_observer_is_told() {
    let told = Arc::new(Told::default());
    let layer = AdaptiveConcurrencyLayer::builder().observer(told.clone()).build().unwrap();
    let (server, handle) = (Server::default(), layer.handle());
    let service = layer.layer(server.clone());
    let _calls: Vec<_> = (0..3).map(|_| spawn(&service, request())).collect();
    settle().await;
    server.answer(504);
    settle().await;
    let _waiting: Vec<_> = (0..10).map(|_| spawn(&service, request())).collect();
    settle().await;
    assert_eq!(counts(&handle), (Some(1.5), 2, 10));
    handle.reset(&key());
    settle().await;
    assert_eq!((counts(&handle), server.inside()), ((None, 12, 0), 12));
    // Those that began before the limit that was taken away make no new one.
    server.answer(504);
    server.answer(504);
    settle().await;
    assert_eq!(counts(&handle), (None, 10, 0));
    server.answer(504);
    settle().await;
    assert_eq!(counts(&handle), (Some(5.0), 9, 0));
    handle.reset_all();
    let name = "gemini_api gemini-9-flash";
    let told = told.0.lock().unwrap().clone();
    let expected = ["3 cut to 1.5", "lifted", "10 cut to 5", "lifted"].map(|what| format!("{name}: {what}"));
    assert_eq!(told, expected);
    server.answer_all(200);
    settle().await;
    handle.evict_idle();
    assert!(handle.all().is_empty(), "nobody has it");
}

#[tokio::test(start_paused = true)]
async fn a_retry_outside_waits_for_its_turn_without_an_attempt() {
    let layer = AdaptiveConcurrencyLayer::builder().max_wait(Duration::ZERO).build().unwrap();
    let probe = Probe::new([error(504, "DEADLINE_EXCEEDED", "late"), quota("PerMinute", "1s")], Answer::Ok);
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::default()))
        .layer(layer.clone())
        .layer(ClassifyLayer::new())
        .service(probe.clone());
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!((response.status().as_u16(), Attempts::of(&response).made()), (200, 3));
    assert_eq!(probe.state().lock().unwrap().calls.len(), 3);
}

// ===== a future that is polled by hand =====

struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

struct Manual<F> {
    future: Pin<Box<F>>,
    woken: Arc<Woken>,
}

fn by_hand<F: Future>(future: F) -> Manual<F> {
    Manual { future: Box::pin(future), woken: Arc::new(Woken(false.into())) }
}

impl<F: Future> Manual<F> {
    fn poll(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
    fn take_woken(&self) -> bool {
        self.woken.0.swap(false, std::sync::atomic::Ordering::Relaxed)
    }
}
