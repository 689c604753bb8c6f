//! The adaptive concurrency layer's promises, one test each, in paused time, over a probe that counts every breach of
//! the readiness contract.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

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
    AdaptiveConcurrency, AdaptiveConcurrencyLayer, ConcurrencyHandle, ConcurrencyLimited, ConcurrencyReason,
    ConcurrencyState,
};
use tower_gemini::error::find;
use tower_gemini::event::{Event, Observer};
use tower_gemini::request::{KeyLabel, TargetKey};
use tower_gemini::retry::{Attempts, RetryLayer, RetryPolicy};
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
    /// Answers the call that has been inside for the shortest time.
    fn answer_last(&self, status: u16) {
        let next = self.0.lock().unwrap().waiting.pop_back();
        next.expect("a call inside").1.send(status).ok();
    }
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

/// Ten answers, after which a timeout weighs what it weighs. Forgets their names.
async fn experienced(service: &AdaptiveConcurrency<Server>, server: &Server) {
    let ten: Vec<_> = (0..10).map(|_| spawn(service, request())).collect();
    settle().await;
    server.answer_all(200);
    for call in ten {
        call.await.unwrap().unwrap();
    }
    server.0.lock().unwrap().seen.clear();
}

/// A service that has had ten answers, over the server with so many calls inside, and the handle.
async fn busy(inside: usize) -> (AdaptiveConcurrency<Server>, Server, ConcurrencyHandle, Vec<Task>) {
    busy_with(AdaptiveConcurrencyLayer::builder().seed(1).build().unwrap(), inside).await
}

async fn busy_with(
    layer: AdaptiveConcurrencyLayer,
    inside: usize,
) -> (AdaptiveConcurrency<Server>, Server, ConcurrencyHandle, Vec<Task>) {
    let server = Server::default();
    let service = layer.layer(server.clone());
    experienced(&service, &server).await;
    let tasks = (0..inside).map(|i| spawn(&service, named(i))).collect();
    settle().await;
    (service, server, layer.handle(), tasks)
}

/// A limit of 14, of the 20 answers that came while two calls waited in vain.
async fn limited_to_14() -> (AdaptiveConcurrency<Server>, Server, ConcurrencyHandle, Vec<Task>) {
    let (service, server, handle, tasks) = busy(22).await;
    (0..20).for_each(|_| server.answer(200));
    settle().await;
    server.answer_all(504);
    settle().await;
    assert_eq!(counts(&handle), (Some(14.0), 0, 0));
    (service, server, handle, tasks)
}

/// One call at a time and a pace, of calls that time out after 20 s.
async fn paced(
    layer: AdaptiveConcurrencyLayer,
) -> (AdaptiveConcurrency<Server>, Server, ConcurrencyHandle, Vec<Task>) {
    let (service, server, handle, mut tasks) = busy_with(layer, 1).await;
    server.answer(504);
    settle().await;
    tasks.push(spawn(&service, named("late")));
    tokio::time::sleep(20 * SECOND).await;
    server.answer(504);
    settle().await;
    assert_eq!(counts(&handle), (Some(0.5), 0, 0));
    server.0.lock().unwrap().seen.clear();
    (service, server, handle, tasks)
}

fn labelled(label: &str) -> Request<Body> {
    let mut request = named(label);
    request.extensions_mut().insert(KeyLabel::new(label));
    request
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
async fn a_timeout_leaves_a_share_of_the_answers_meanwhile_and_one_batch_cuts_once() {
    let (service, server, handle, _tasks) = busy(30).await;
    (0..20).for_each(|_| server.answer(200));
    settle().await;
    server.answer(504);
    settle().await;
    assert_eq!(counts(&handle), (None, 9, 0), "others were answered: half the evidence");
    server.answer(504);
    settle().await;
    assert_eq!(counts(&handle), (Some(14.0), 8, 0), "0.7 of the 20 answers");
    // The rest of the batch, seconds later: all were admitted before the cut.
    tokio::time::sleep(20 * SECOND).await;
    server.answer_all(504);
    settle().await;
    assert_eq!((counts(&handle), state(&handle).cuts()), ((Some(14.0), 0, 0), 1));
    let _calls: Vec<_> = (0..15).map(|_| spawn(&service, request())).collect();
    settle().await;
    assert_eq!(counts(&handle), (Some(14.0), 14, 1), "no room for another one");
}

#[tokio::test(start_paused = true)]
async fn the_first_timeout_while_nobody_is_answered_leaves_one_call_at_a_time() {
    let (service, server, handle, _tasks) = busy(64).await;
    tokio::time::sleep(20 * SECOND).await;
    server.answer(504);
    settle().await;
    assert_eq!((counts(&handle), state(&handle).cuts()), ((Some(1.0), 63, 0), 1));
    assert_eq!(state(&handle).last_cut(), Some(Instant::now()));
    let waiting = spawn(&service, request());
    server.answer_all(504);
    settle().await;
    assert_eq!(counts(&handle), (Some(1.0), 1, 0));
    // Of the one that came after the cut.
    tokio::time::sleep(20 * SECOND).await;
    server.answer(504);
    assert_eq!(waiting.await.unwrap().unwrap(), 504);
    assert_eq!((counts(&handle), state(&handle).cuts()), ((Some(0.5), 0, 0), 2));
}

#[tokio::test(start_paused = true)]
async fn timeouts_that_a_later_call_has_overtaken_cut_nothing() {
    // One in twenty hangs, and the others are answered.
    let (service, server, handle, _tasks) = busy(0).await;
    for _ in 0..60 {
        let _calls: Vec<_> = (0..20).map(|_| spawn(&service, request())).collect();
        settle().await;
        (0..19).for_each(|_| server.answer_last(200));
        settle().await;
        tokio::time::sleep(20 * SECOND).await;
        server.answer(504);
        settle().await;
        assert_eq!(counts(&handle), (None, 0, 0));
    }
    assert_eq!(state(&handle).cuts(), 0);
}

#[tokio::test(start_paused = true)]
async fn before_ten_answers_one_timeout_cuts_nothing() {
    let layer = AdaptiveConcurrencyLayer::new();
    let service = layer.layer(Probe::new([error(504, "DEADLINE_EXCEEDED", "late")], Answer::Ok));
    let _ = service.oneshot(request()).await.unwrap();
    assert_eq!(counts(&layer.handle()), (None, 0, 0));
}

// Answers at a rate of one a second to a crowd that comes at once, with 20 s of patience: most time out, and what
// follows finds a limit that lets them through.
#[tokio::test(start_paused = true)]
async fn a_cold_start_into_a_server_that_queues_finds_its_limit() {
    let layer = AdaptiveConcurrencyLayer::builder().seed(1).build().unwrap();
    let server = Server::default();
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(ClassifyLayer::new())
        .layer(tower::timeout::TimeoutLayer::new(20 * SECOND))
        .service(server.clone());
    // The server works on what its callers have given up, too.
    tokio::spawn({
        let server = server.clone();
        async move {
            loop {
                tokio::time::sleep(SECOND).await;
                let next = server.0.lock().unwrap().waiting.pop_front();
                next.into_iter().for_each(|(_, sender)| _ = sender.send(200));
            }
        }
    });
    let calls: Vec<_> = (0..100).map(|_| spawn(&service, within(3_000))).collect();
    let mut served = 0;
    for call in calls {
        served += u32::from(call.await.unwrap().is_ok());
    }
    assert!((15..=25).contains(&served), "those of the first 20 s: {served}");
    // The next hundred come when the server still works on the first.
    let calls: Vec<_> = (0..100).map(|_| spawn(&service, within(3_000))).collect();
    let mut served = 0;
    for call in calls {
        served += u32::from(call.await.unwrap().is_ok());
    }
    assert!(served >= 60, "{served} of 100, {:?}", state(&layer.handle()));
}

#[tokio::test(start_paused = true)]
async fn two_cuts_are_at_least_the_interval_apart() {
    let (service, server, handle, _tasks) = busy(1).await;
    let late = async || {
        let call = spawn(&service, request());
        settle().await;
        server.answer(504);
        call.await.unwrap().unwrap();
    };
    server.answer(504);
    settle().await;
    late().await;
    assert_eq!((state(&handle).cuts(), state(&handle).limit()), (1, Some(1.0)), "too soon");
    tokio::time::advance(5 * SECOND).await;
    late().await;
    assert_eq!((state(&handle).cuts(), state(&handle).limit()), (2, Some(0.5)));
}

#[tokio::test(start_paused = true)]
async fn an_inner_timeout_layers_error_is_a_timeout_and_a_dropped_call_is_not() {
    let layer = AdaptiveConcurrencyLayer::new();
    let probe = Probe::new((0..10).map(|_| Answer::Ok).collect::<Vec<_>>(), Answer::Hang);
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(ClassifyLayer::new())
        .layer(tower::timeout::TimeoutLayer::new(30 * SECOND))
        .service(probe.clone());
    for _ in 0..10 {
        service.clone().oneshot(request()).await.unwrap();
    }
    let call = tokio::time::timeout(SECOND, service.clone().oneshot(request()));
    assert!(call.await.is_err());
    assert_eq!(counts(&layer.handle()), (None, 0, 0), "the caller went away");
    let error = service.oneshot(request()).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "passed through as it came");
    assert_eq!(counts(&layer.handle()), (Some(1.0), 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_callers_table_decides_what_cuts() {
    let table = |verdict: &tower_gemini::Verdict| match verdict.kind() {
        Some(tower_gemini::Kind::Overloaded) => Signal::Timeout,
        _ => Signal::Neutral,
    };
    let layer = AdaptiveConcurrencyLayer::builder().signals(table).build().unwrap();
    let mut script: Vec<_> = (0..10).map(|_| Answer::Ok).collect();
    script.push(error(504, "DEADLINE_EXCEEDED", "late"));
    script.push(error(503, "UNAVAILABLE", "The model is overloaded."));
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(ClassifyLayer::new())
        .service(Probe::new(script, Answer::Ok));
    for _ in 0..11 {
        let _ = service.clone().oneshot(request()).await.unwrap();
    }
    assert_eq!(counts(&layer.handle()).0, None);
    let _ = service.oneshot(request()).await.unwrap();
    assert_eq!(counts(&layer.handle()).0, Some(1.0));
}

// ===== growth, pace, lift =====

#[tokio::test(start_paused = true)]
async fn answers_move_it_by_how_quick_they_are_and_only_while_it_is_used() {
    let (service, server, handle, _tasks) = paced(AdaptiveConcurrencyLayer::new()).await;
    let answered = async |after: u32| {
        let call = spawn(&service, request());
        while server.inside() == 0 {
            tokio::time::sleep(SECOND / 100).await;
        }
        tokio::time::sleep(after * SECOND).await;
        server.answer(200);
        call.await.unwrap().unwrap();
        state(&handle).limit().unwrap()
    };
    // The patience is 20 s: quick below 5, fair below 10, slow from there.
    for (after, limit) in [(0, 1.0), (1, 1.2), (11, 1.15), (6, 1.15 + 0.1 / 1.15)] {
        let found = answered(after).await;
        assert!((found - limit).abs() < 1e-9, "{found} after an answer in {after} s");
    }
    for _ in 0..3 {
        answered(11).await;
    }
    assert!(answered(12).await >= 1.0, "slow answers lead to one call at a time and no further");
    let mut last = 0.0;
    for _ in 0..20 {
        last = answered(0).await;
    }
    assert!((2.0..2.2).contains(&last), "one call leaves room under a limit of two: {last}");
}

// Two calls a second, each answered after 8 s, and timed out after 20 s: 8 s is no quick answer by itself. Nothing is answered from
// 100 s to 250 s. With the first answer after that the limit is 16 again, and whoever comes from then on is served.
#[tokio::test(start_paused = true)]
async fn an_answer_as_before_the_trouble_brings_back_what_the_server_took_then() {
    let (layer, start) = (AdaptiveConcurrencyLayer::builder().seed(1).build().unwrap(), Instant::now());
    let server = tower::service_fn(move |_: Request<Body>| async move {
        let is_down = (100..250).contains(&(Instant::now() - start).as_secs());
        tokio::time::sleep(if is_down { 20 } else { 8 } * SECOND).await;
        Ok::<_, BoxError>(respond(if is_down { 504 } else { 200 }, "{}".into()))
    });
    let (service, handle) = (layer.layer(server), layer.handle());
    let mut calls = Vec::new();
    for n in 0..800_u32 {
        tokio::time::sleep_until(start + n * SECOND / 2).await;
        calls.push((n / 2, spawn(&service, within(60))));
        if n == 2 * 240 {
            assert!(state(&handle).limit().is_some_and(|limit| limit < 1.0), "it has found the outage");
        }
    }
    let mut failed = Vec::new();
    for (at, call) in calls {
        let is_served = call.await.unwrap().is_ok_and(|status| status == 200);
        failed.extend(Some(at).filter(|_| !is_served));
    }
    // A probe within 37 s of the end, its answer 8 s later; those that wait then have their deadline.
    assert!(failed.iter().all(|at| (60..300).contains(at)), "{failed:?}");
    assert!(failed.len() < 2 * 220, "{}", failed.len());
}

#[tokio::test(start_paused = true)]
async fn where_nothing_times_out_any_more_slow_answers_raise_it() {
    let (service, server, handle, _tasks) = busy(1).await;
    server.answer(504);
    settle().await;
    let call = spawn(&service, request());
    tokio::time::sleep(20 * SECOND).await;
    server.answer(504);
    call.await.unwrap().unwrap();
    for _ in 0..200 {
        let call = spawn(&service, request());
        while server.inside() == 0 {
            tokio::time::sleep(SECOND / 10).await;
        }
        tokio::time::sleep(15 * SECOND).await;
        server.answer(200);
        call.await.unwrap().unwrap();
    }
    let limit = state(&handle).limit();
    assert!(limit.is_none_or(|limit| limit > 1.9), "fifteen seconds are how this model answers: {limit:?}");
}

#[tokio::test(start_paused = true)]
async fn below_one_it_is_one_call_at_a_time_and_a_gap() {
    let slow = AdaptiveConcurrencyLayer::builder()
        .pace(30 * SECOND)
        .max_wait(3_000 * SECOND)
        .seed(1)
        .build()
        .unwrap();
    let (service, server, handle, _tasks) = paced(slow).await;
    let _waiting: Vec<_> = (0..4).map(|i| spawn(&service, named(i))).collect();
    settle().await;
    let mut last = None;
    for limit in [0.5, 0.55, 0.605] {
        while server.inside() == 0 {
            tokio::time::sleep(SECOND / 100).await;
        }
        assert_eq!(server.inside(), 1);
        let now = Instant::now();
        assert!((state(&handle).limit().unwrap() - limit).abs() < 1e-9);
        if let Some(last) = last.replace(now) {
            let gap = (now - last).as_secs_f64() / 30.0 * limit;
            assert!((0.499..=1.501).contains(&gap), "{gap} of the gap that {limit} means");
        }
        // Fair: a tenth more.
        tokio::time::sleep(6 * SECOND).await;
        server.answer(200);
        settle().await;
    }
    assert_eq!(server.seen(), ["0", "1", "2"], "first come, first served");
}

#[tokio::test(start_paused = true)]
async fn a_quick_answer_ends_the_pace() {
    let (service, server, handle, _tasks) = paced(AdaptiveConcurrencyLayer::new()).await;
    let _waiting: Vec<_> = (0..3).map(|i| spawn(&service, named(i))).collect();
    while server.inside() == 0 {
        tokio::time::sleep(SECOND / 100).await;
    }
    server.answer(200);
    settle().await;
    assert_eq!(counts(&handle), (Some(1.0), 1, 1), "the next one has not waited for a gap");
    server.answer(200);
    settle().await;
    assert_eq!(counts(&handle), (Some(1.2), 1, 0));
}

#[tokio::test(start_paused = true)]
async fn it_is_lifted_when_it_stood_in_nobodys_way_for_two_minutes() {
    let (service, server, handle, _tasks) = limited_to_14().await;
    let once = async || {
        let call = spawn(&service, request());
        settle().await;
        server.answer(200);
        call.await.unwrap().unwrap();
    };
    // A call a second, with room for more, for just not two minutes.
    for _ in 0..119 {
        tokio::time::advance(SECOND).await;
        once().await;
    }
    assert!(state(&handle).limit().is_some());
    // Fifteen at once need it: it begins anew.
    let calls: Vec<_> = (0..15).map(|_| spawn(&service, request())).collect();
    settle().await;
    assert_eq!(state(&handle).queued(), 1);
    server.answer_all(200);
    settle().await;
    server.answer_all(200);
    settle().await;
    assert!(calls.iter().all(Task::is_finished));
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
    assert_eq!(counts(&handle), (Some(1.0), 3, 20));
    server.answer_all(503);
    settle().await;
    let mut order = Vec::new();
    for _ in 0..60 {
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
    assert_eq!(counts(&handle), (Some(1.0), 0, 0));
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
    // Dropped before its gap is over, and just when it is.
    for waited in [0, 10] {
        let (service, server, handle, _tasks) = paced(AdaptiveConcurrencyLayer::new()).await;
        let mut head = by_hand(service.clone().oneshot(named("head")));
        assert!(head.poll().is_pending());
        let next = by_hand(service.clone().oneshot(named("next")));
        let next = tokio::spawn(async move {
            let Manual { future, .. } = next;
            future.await
        });
        settle().await;
        tokio::time::advance(SECOND / 100 * waited).await;
        drop(head);
        let started = Instant::now();
        settle().await;
        while server.inside() == 0 {
            tokio::time::sleep(SECOND / 100).await;
            assert!(Instant::now() - started <= 4 * SECOND, "nobody kept the time");
        }
        server.answer(200);
        next.await.unwrap().unwrap();
        assert_eq!(counts(&handle).1, 0);
    }
}

// A turn that is not fetched passes on within a second, and whoever lost it comes first again.
#[tokio::test(start_paused = true)]
async fn a_turn_that_is_not_fetched_passes_on() {
    let (service, server, handle, _tasks) = busy(2).await;
    server.answer(504);
    settle().await;
    let mut asleep = by_hand(service.clone().oneshot(named("asleep")));
    assert!(asleep.poll().is_pending());
    let next = spawn(&service, named("next"));
    settle().await;
    server.answer(503);
    settle().await;
    assert!(asleep.take_woken());
    assert_eq!((counts(&handle), server.inside()), ((Some(1.0), 1, 1), 0), "its turn is kept");
    let start = Instant::now();
    while server.inside() == 0 {
        tokio::time::sleep(SECOND / 100).await;
        assert!(Instant::now() - start <= 2 * SECOND, "it has passed on");
    }
    let behind = spawn(&service, named("behind"));
    settle().await;
    assert!(asleep.poll().is_pending());
    server.answer(503);
    next.await.unwrap().unwrap();
    assert!(asleep.take_woken() && asleep.poll().is_pending());
    settle().await;
    assert_eq!(server.seen()[2..], ["next", "asleep"], "it has kept its place");
    drop((asleep, behind));
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_not_spent_on_one_that_will_be_gone_before_it_is_answered() {
    let (service, server, handle, _tasks) = busy(1).await;
    server.answer(504);
    settle().await;
    // Answers take ten seconds.
    for _ in 0..6 {
        let call = spawn(&service, request());
        tokio::time::sleep(10 * SECOND).await;
        server.answer(503);
        call.await.unwrap().unwrap();
        let call = spawn(&service, request());
        tokio::time::sleep(10 * SECOND).await;
        server.answer(200);
        call.await.unwrap().unwrap();
    }
    let _inside: Vec<_> = (0..2).map(|_| spawn(&service, request())).collect();
    settle().await;
    let inside = server.inside();
    let short = spawn(&service, within(12));
    let long = spawn(&service, within(60));
    settle().await;
    assert_eq!(state(&handle).queued(), 2, "{:?}", state(&handle));
    tokio::time::sleep(9 * SECOND).await;
    (0..inside).for_each(|_| server.answer(503));
    settle().await;
    let error = short.await.unwrap().unwrap_err();
    assert_eq!(find::<ConcurrencyLimited>(error.as_ref()).unwrap().why(), ConcurrencyReason::Deadline);
    server.answer_all(200);
    assert_eq!(long.await.unwrap().unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn it_waits_until_the_deadline_and_no_longer() {
    let (service, server, handle, _tasks) = busy(2).await;
    server.answer(504);
    settle().await;
    let start = Instant::now();
    for (seconds, why) in [
        (7, ConcurrencyReason::Deadline),
        (120, ConcurrencyReason::MaxWait),
        (300, ConcurrencyReason::Deadline),
    ] {
        let request = if why == ConcurrencyReason::MaxWait { request() } else { within(seconds) };
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
    // From one down to the floor: the next gap is 12.5 s at the least.
    while state(&handle).limit() != Some(0.04) {
        let call = spawn(&service, request());
        while server.inside() == 0 {
            tokio::time::sleep(SECOND / 10).await;
        }
        tokio::time::sleep(6 * SECOND).await;
        server.answer(504);
        call.await.unwrap().unwrap();
    }
    let now = Instant::now();
    for (request, why) in [(within(0), ConcurrencyReason::Deadline), (within(5), ConcurrencyReason::Deadline)]
    {
        let error = service.clone().oneshot(request).await.unwrap_err();
        let limited = find::<ConcurrencyLimited>(error.as_ref()).unwrap();
        assert_eq!((limited.why(), Instant::now()), (why, now), "at once");
        let until = limited.until().expect("the gap is known") - now;
        assert!(until > 6 * SECOND && until < 32 * SECOND, "{until:?}");
        assert_eq!(find::<Rejected>(error.as_ref()).unwrap().until(), limited.until());
    }
    assert_eq!(counts(&handle), (Some(0.04), 0, 0));
}

/// The limit moves as else; those whom it would have held go through and are counted.
#[tokio::test(start_paused = true)]
async fn one_that_only_observes_lets_through_and_counts() {
    let layer = AdaptiveConcurrencyLayer::builder().seed(1).observe_only().build().unwrap();
    let (service, server, handle, _tasks) = busy_with(layer, 2).await;
    server.answer(504);
    settle().await;
    assert_eq!((state(&handle).limit(), state(&handle).cuts(), state(&handle).held()), (Some(1.0), 1, 0));
    let _four: Vec<_> = (0..4).map(|_| spawn(&service, request())).collect();
    settle().await;
    assert_eq!(server.inside(), 5, "all of them are sent");
    assert_eq!((state(&handle).queued(), state(&handle).held()), (0, 4));
    server.answer_all(200);
    settle().await;
    assert_eq!(state(&handle).in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_turns_the_next_away() {
    let layer = AdaptiveConcurrencyLayer::builder().max_queued(3).build().unwrap();
    let server = Server::default();
    let service = layer.layer(server.clone());
    experienced(&service, &server).await;
    let _two: Vec<_> = (0..2).map(|_| spawn(&service, request())).collect();
    settle().await;
    server.answer(504);
    settle().await;
    let _three: Vec<_> = (0..3).map(|_| spawn(&service, request())).collect();
    settle().await;
    let error = service.clone().oneshot(request()).await.unwrap_err();
    assert_eq!(find::<ConcurrencyLimited>(error.as_ref()).unwrap().why(), ConcurrencyReason::QueueFull);
    let text = error.to_string();
    assert!(text.starts_with("concurrency limit of gemini_api "), "{text}");
    assert!(text.contains(": too many requests wait for their turn; until "), "{text}");
    let source = error.source().map(ToString::to_string);
    assert_eq!(source.as_deref(), Some("not sent: too many requests wait for their turn"));
    let handle = format!("{:?}", layer.handle());
    assert!(handle.contains("in flight, 3 waiting"), "{handle}");
    for _ in 0..5 {
        server.answer_all(200);
        settle().await;
    }
    // The same service is as good as before.
    let call = spawn(&service, request());
    settle().await;
    assert_eq!(counts(&layer.handle()).1, 1);
    server.answer_all(200);
    assert_eq!(call.await.unwrap().unwrap(), 200);
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
    }
    settle().await;
    tasks.retain(|task| !task.is_finished());
    let held = state(&handle);
    assert!(held.in_flight() as usize <= server.inside(), "those that are not lost: {held:?}");
    assert_eq!(held.queued() + server.inside(), tasks.len());
    assert!(held.cuts() >= 1, "{held:?}");
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
    // Ten answers, and three timeouts one at a time: a pace of 10 s at the least.
    for status in [200; 10].into_iter().chain([504; 3]) {
        let call = spawn(&service, request());
        tokio::time::sleep(6 * SECOND).await;
        server.answer(status);
        call.await.unwrap().unwrap();
    }
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
    let late = || error(504, "DEADLINE_EXCEEDED", "late");
    let mut script: Vec<_> = (0..10).map(|_| Answer::Ok).collect();
    // One call at a time, a pace, an answer that ends it, and a pace again.
    script.extend([late(), late(), Answer::Ok, late(), late(), late()]);
    let probe = Probe::new(script, Answer::Ok);
    let service = layer.layer(probe.clone());
    probe.state().lock().unwrap().not_ready = 3;
    for _ in 0..16 {
        let response = service.clone().oneshot(request()).await.unwrap();
        let _ = response.into_body().collect().await;
        tokio::time::sleep(6 * SECOND).await;
    }
    assert_eq!(probe.state().lock().unwrap().violations, 0);
    let limit = state(&layer.handle()).limit().unwrap();
    assert!(limit < 0.1, "{limit}");
    // Its turn has come, and the inner service is not ready: it holds a place until it is dropped.
    let mut call = by_hand({
        let mut service = service.clone();
        service.ready().await.unwrap();
        async move { service.call(request()).await }
    });
    probe.state().lock().unwrap().not_ready = u32::MAX;
    assert!(call.poll().is_pending());
    tokio::time::advance(40 * SECOND).await;
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
    tokio::time::advance(40 * SECOND).await;
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
async fn a_call_is_in_flight_until_the_head_of_its_answer() {
    let layer = AdaptiveConcurrencyLayer::new();
    let (mut body, sender) = streaming(&layer).await;
    assert_eq!(counts(&layer.handle()), (None, 0, 0), "a body that is delivered holds no place");
    sender.send(Ok(Frame::data(Bytes::from("data: {}\n\n")))).unwrap();
    body.frame().await.unwrap().unwrap();
    // What goes wrong later in a stream is no timeout of a queue.
    let late = r#"data: {"error":{"code":504,"message":"late","status":"DEADLINE_EXCEEDED"}}"#;
    sender.send(Ok(Frame::data(Bytes::from(format!("{late}\n\n"))))).unwrap();
    drop(sender);
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
    assert_eq!(counts(&layer.handle()), (None, 0, 0));
    assert!(body.size_hint().exact().is_none());
}

// One stream is being read for a minute and another call times out.
#[tokio::test(start_paused = true)]
async fn an_open_stream_and_one_timeout_keep_nobody_waiting() {
    for head_came_meanwhile in [true, false] {
        let layer = AdaptiveConcurrencyLayer::new();
        let server = Server::default();
        let service = layer.layer(server.clone());
        experienced(&service, &server).await;
        let mut open = Vec::new();
        if !head_came_meanwhile {
            open.push(streaming(&layer).await);
        }
        let late = spawn(&service, request());
        settle().await;
        if head_came_meanwhile {
            open.push(streaming(&layer).await);
        }
        tokio::time::sleep(20 * SECOND).await;
        server.answer(504);
        late.await.unwrap().unwrap();
        let start = Instant::now();
        let ten: Vec<_> = (0..10).map(|_| spawn(&service, request())).collect();
        settle().await;
        if head_came_meanwhile {
            assert_eq!((server.inside(), counts(&layer.handle())), (10, (None, 10, 0)), "at once");
        }
        // Answers in a tenth of a second each: also one at a time it is about a second.
        while !ten.iter().all(Task::is_finished) {
            tokio::time::sleep(SECOND / 10).await;
            server.answer_all(200);
            settle().await;
            assert!(Instant::now() - start <= SECOND * 3 / 2, "{:?}", state(&layer.handle()));
        }
        drop(open);
    }
}

// ===== keys, handle, events, retry =====

#[tokio::test(start_paused = true)]
async fn another_model_has_a_limit_of_its_own_and_labels_share_one() {
    let (service, server, handle, _tasks) = busy(2).await;
    let _bad = spawn(&service, labelled("team-b"));
    settle().await;
    // What two callers have seen binds all.
    server.answer(504);
    settle().await;
    server.answer(504);
    server.answer(504);
    settle().await;
    let b = spawn(&service, labelled("team-b"));
    tokio::time::sleep(20 * SECOND).await;
    server.answer(504);
    b.await.unwrap().unwrap();
    let calls = [spawn(&service, labelled("team-b")), spawn(&service, request())];
    let mut other = request();
    *other.uri_mut() = "http://127.0.0.1/v1beta/models/gemini-9-pro:generateContent".parse().unwrap();
    let passing = spawn(&service, other);
    settle().await;
    assert_eq!(counts(&handle), (Some(1.0), 1, 1));
    let mut limits: Vec<_> = handle
        .all()
        .into_iter()
        .map(|(key, state)| (key.model().unwrap().to_owned(), state.limit()))
        .collect();
    limits.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(limits, [("gemini-9-flash".into(), Some(1.0)), ("gemini-9-pro".into(), None)]);
    drop((calls, passing));
}

// One label whose every call times out beside ten whose every call is answered: in every order within a round, and
// also where the good ones come after a pause, a good one's next call goes at once.
#[tokio::test(start_paused = true)]
async fn one_bad_label_binds_no_other() {
    for place in 0..=10usize {
        for pause in [false, true] {
            let (service, server, handle, _tasks) = busy(0).await;
            for round in 0..40 {
                let mut bad = None;
                let mut good = Vec::new();
                for nth in 0..=10usize {
                    if nth == place {
                        bad = Some(spawn(&service, labelled("bad")));
                    } else if !pause || round % 8 == 7 {
                        good.push(spawn(&service, labelled(&format!("good-{nth}"))));
                    }
                    settle().await;
                }
                tokio::time::sleep(SECOND).await;
                let (late, now): (VecDeque<_>, VecDeque<_>) =
                    server.0.lock().unwrap().waiting.drain(..).partition(|(name, _)| name == "bad");
                assert_eq!(now.len(), good.len(), "{place} {pause} {round} {:?}", state(&handle));
                now.into_iter().for_each(|(_, call)| _ = call.send(200));
                server.0.lock().unwrap().waiting = late;
                tokio::time::sleep(19 * SECOND).await;
                while server.inside() > 0 {
                    server.answer(504);
                    settle().await;
                }
                if let Some(bad) = bad {
                    bad.abort();
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_caller_chooses_what_shares_a_limit() {
    let layer =
        AdaptiveConcurrencyLayer::builder().key_by(|_| TargetKey::named("everything")).build().unwrap();
    let mut script: Vec<_> = (0..10).map(|_| Answer::Ok).collect();
    script.push(error(504, "DEADLINE_EXCEEDED", "late"));
    let service = layer.layer(Probe::new(script, Answer::Ok));
    for _ in 0..11 {
        let _ = service.clone().oneshot(request()).await.unwrap();
    }
    assert_eq!(layer.handle().get(&TargetKey::named("everything")).unwrap().limit(), Some(1.0));
    assert!(layer.handle().get(&key()).is_none());
}

#[tokio::test(start_paused = true)]
async fn all_services_and_clones_of_a_layer_share_its_limits() {
    let layer = AdaptiveConcurrencyLayer::new();
    let server = Server::default();
    let services: Vec<_> = (0..10).map(|_| layer.clone().layer(server.clone())).collect();
    experienced(&services[0], &server).await;
    let _calls: Vec<_> = services.iter().map(|service| spawn(&service.clone(), request())).collect();
    settle().await;
    server.answer(504);
    settle().await;
    assert_eq!(counts(&layer.handle()), (Some(1.0), 9, 0));
    let _one_more = spawn(&services[3], request());
    settle().await;
    assert_eq!(counts(&layer.handle()), (Some(1.0), 9, 1));
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
    experienced(&service, &server).await;
    let _calls: Vec<_> = (0..3).map(|_| spawn(&service, request())).collect();
    settle().await;
    server.answer(504);
    settle().await;
    let _waiting: Vec<_> = (0..10).map(|_| spawn(&service, request())).collect();
    settle().await;
    assert_eq!(counts(&handle), (Some(1.0), 2, 10));
    handle.reset(&key());
    settle().await;
    assert_eq!((counts(&handle), server.inside()), ((None, 12, 0), 12));
    server.answer(503);
    server.answer(503);
    server.answer(504);
    settle().await;
    assert_eq!(counts(&handle), (Some(1.0), 9, 0));
    handle.reset_all();
    let name = "gemini_api gemini-9-flash";
    let told = told.0.lock().unwrap().clone();
    let expected = ["3 cut to 1", "lifted", "10 cut to 1", "lifted"].map(|what| format!("{name}: {what}"));
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
