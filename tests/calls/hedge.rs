//! Second tries in virtual time: when there is one, when there is none, who is handed on, what is given back.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;
#[path = "../support/tail.rs"]
mod tail;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::event::{Event, Observer};
use tower_gemini::hedge::{HedgeBuilder, HedgeLayer, HedgeStatus, Hedged, Hedges, HeldBack};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::retry::{ReplayLayer, RetryLayer};
use tower_gemini::stack::GeminiStack;
use tower_gemini::{BoxError, Deadline, Rejected, ServiceTier, Verdict};

use support::{Body, error, request};
use tail::Times;

/// Enough for the first second try, and for the bucket to hold ten.
const TAUGHT: usize = 500;

fn secs(secs: f64) -> Duration {
    Duration::from_secs_f64(secs)
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Status, and after how many seconds.
    Answer(u16, f64),
    Rejected(f64),
    Hang,
}

/// Answers in a second, but for the calls of which a test says otherwise, by their number from 0.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    fates: HashMap<usize, Fate>,
    /// From this call on, all.
    from_now_on: Option<Fate>,
    calls: Vec<Instant>,
    dropped: Vec<usize>,
    /// Polls of readiness that are refused, from now on.
    busy: bool,
}

impl Server {
    fn calls(&self) -> usize {
        self.0.lock().unwrap().calls.len()
    }

    /// The fate of the n-th call from now, from 0.
    fn next(&self, n: usize, fate: Fate) {
        let mut state = self.0.lock().unwrap();
        let at = state.calls.len() + n;
        state.fates.insert(at, fate);
    }

    fn all(&self, fate: Option<Fate>) {
        self.0.lock().unwrap().from_now_on = fate;
    }

    fn dropped(&self) -> Vec<usize> {
        self.0.lock().unwrap().dropped.clone()
    }
}

struct Flight(Server, usize, bool);

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.2 {
            self.0.0.lock().unwrap().dropped.push(self.1);
        }
    }
}

impl<B> Service<Request<B>> for Server {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.0.lock().unwrap().busy { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let mut state = self.0.lock().unwrap();
        let number = state.calls.len();
        state.calls.push(Instant::now());
        let usual = state.from_now_on.unwrap_or(Fate::Answer(200, 1.0));
        let fate = state.fates.remove(&number).unwrap_or(usual);
        let flight = Flight(self.clone(), number, false);
        Box::pin(async move {
            let mut flight = flight;
            let answer = match fate {
                Fate::Answer(status, after) => {
                    sleep(secs(after)).await;
                    let body = match error(status, "x", "failed") {
                        support::Answer::Status(_, body) if status >= 400 => body,
                        _ => support::good_body().to_owned(),
                    };
                    Ok(support::respond(status, body))
                }
                Fate::Rejected(after) => {
                    sleep(secs(after)).await;
                    Err(Rejected::new("closed").into())
                }
                Fate::Hang => std::future::pending().await,
            };
            flight.2 = true;
            answer
        })
    }
}

type Boxed = tower::util::BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

fn around(builder: HedgeBuilder, server: &Server) -> (Boxed, Hedges) {
    let layer = builder.build().unwrap();
    let handle = layer.handle();
    (Boxed::new(layer.layer(server.clone())), handle)
}

fn plain(server: &Server) -> (Boxed, Hedges) {
    around(HedgeLayer::builder(), server)
}

async fn teach(service: &Boxed, calls: usize) {
    for _ in 0..calls {
        service.clone().oneshot(request()).await.unwrap();
    }
}

async fn taught(server: &Server) -> (Boxed, Hedges) {
    let (service, handle) = plain(server);
    teach(&service, TAUGHT).await;
    (service, handle)
}

fn status(handle: &Hedges) -> HedgeStatus {
    let all = handle.all();
    assert_eq!(all.len(), 1);
    all[0].clone()
}

fn held_back(handle: &Hedges) -> Vec<(HeldBack, u64)> {
    status(handle).held_back
}

/// The answer, and how many seconds it took.
async fn timed(service: &Boxed, request: Request<Body>) -> (Result<Response<Body>, BoxError>, f64) {
    let start = Instant::now();
    let answer = service.clone().oneshot(request).await;
    (answer, (Instant::now() - start).as_secs_f64())
}

#[tokio::test(start_paused = true)]
async fn a_late_call_is_answered_by_the_second_try() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    let after = status(&handle).after.unwrap();
    assert!((0.95..1.06).contains(&after.as_secs_f64()), "{after:?}");
    server.next(0, Fate::Answer(200, 30.0));
    let (answer, took) = timed(&service, request()).await;
    let answer = answer.unwrap();
    assert!((1.9..2.1).contains(&took), "{took}");
    assert_eq!(Hedged::of(&answer).map(|hedged| (hedged.won(), hedged.after())), Some((true, after)));
    assert_eq!(server.dropped(), [TAUGHT], "the first is dropped when the second is answered");
    let status = status(&handle);
    assert_eq!((status.calls, status.sent, status.won, status.lost), (TAUGHT as u64 + 1, 1, 1, 0));
    assert!((status.budget - 9.0).abs() < 0.03, "{}", status.budget);
}

#[tokio::test(start_paused = true)]
async fn the_first_may_still_come_first() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    server.next(0, Fate::Answer(200, 1.5));
    let (answer, took) = timed(&service, request()).await;
    assert_eq!(Hedged::of(&answer.unwrap()).map(Hedged::won), Some(false));
    assert!((1.49..1.51).contains(&took), "{took}");
    assert_eq!(server.dropped(), [TAUGHT + 1], "the second is dropped");
    assert_eq!((status(&handle).won, status(&handle).lost), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_in_time_is_sent_once_and_says_nothing() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    let answer = timed(&service, request()).await.0.unwrap();
    assert_eq!(Hedged::of(&answer), None);
    assert_eq!((server.calls(), status(&handle).sent), (TAUGHT + 1, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_twice_before_a_hundred_answers() {
    let server = Server::default();
    let (service, handle) = plain(&server);
    teach(&service, 99).await;
    server.next(0, Fate::Answer(200, 30.0));
    let (_, took) = timed(&service, request()).await;
    assert!(took > 29.0);
    assert_eq!((server.calls(), status(&handle).after.is_some()), (100, true));
}

#[tokio::test(start_paused = true)]
async fn the_share_of_the_calls_is_never_exceeded() {
    let server = Server::default();
    let (service, handle) = plain(&server);
    teach(&service, 100).await;
    let mut sent = 0;
    for n in 0..3_000_u64 {
        // One of 25 is late.
        if n % 25 == 0 {
            server.next(0, Fate::Answer(200, 8.0));
        }
        let answer = service.clone().oneshot(request()).await.unwrap();
        sent += u64::from(Hedged::of(&answer).is_some());
        assert!(sent * 50 <= n + 101, "{sent} of {n}");
    }
    let status = status(&handle);
    assert_eq!(status.sent, sent);
    assert!(sent >= 59, "and it is used: {sent}");
    assert!(status.held_back.iter().any(|(why, times)| *why == HeldBack::Budget && *times > 20));
}

#[tokio::test(start_paused = true)]
async fn one_that_failed_does_not_end_the_call() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    server.next(0, Fate::Answer(200, 3.0));
    server.next(1, Fate::Answer(503, 0.5));
    let (answer, took) = timed(&service, request()).await;
    let answer = answer.unwrap();
    assert_eq!((answer.status().as_u16(), Hedged::of(&answer).map(Hedged::won)), (200, Some(false)));
    assert!((2.9..3.1).contains(&took), "{took}");
    assert_eq!(status(&handle).lost, 1);
}

#[tokio::test(start_paused = true)]
async fn the_second_try_mends_a_first_that_fails_meanwhile() {
    let server = Server::default();
    let (service, _) = taught(&server).await;
    server.next(0, Fate::Answer(503, 1.5));
    let (answer, took) = timed(&service, request()).await;
    let answer = answer.unwrap();
    assert_eq!((answer.status().as_u16(), Hedged::of(&answer).map(Hedged::won)), (200, Some(true)));
    assert!((1.9..2.1).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_first_waits_for_the_second_no_longer_than_that_waited() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    server.next(0, Fate::Answer(503, 1.5));
    server.next(1, Fate::Hang);
    let (answer, took) = timed(&service, request()).await;
    assert_eq!(answer.unwrap().status(), 503);
    assert!((2.4..2.6).contains(&took), "{took}");
    assert_eq!((server.dropped(), status(&handle).lost), (vec![TAUGHT + 1], 1));
}

#[tokio::test(start_paused = true)]
async fn if_both_fail_the_first_failure_is_the_answer() {
    let server = Server::default();
    let (service, _) = taught(&server).await;
    server.next(0, Fate::Answer(503, 1.5));
    server.next(1, Fate::Answer(500, 0.8));
    let (answer, took) = timed(&service, request()).await;
    assert_eq!(answer.unwrap().status(), 503);
    assert!((1.7..1.9).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_would_be_the_same_again_is_handed_on_at_once() {
    let server = Server::default();
    let (service, _) = taught(&server).await;
    server.next(0, Fate::Answer(400, 1.5));
    let (answer, took) = timed(&service, request()).await;
    assert_eq!(answer.unwrap().status(), 400);
    assert!((1.49..1.51).contains(&took), "{took}");
    assert_eq!(server.dropped(), [TAUGHT + 1]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_call_drops_both_and_counts_nothing() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    server.next(0, Fate::Hang);
    server.next(1, Fate::Hang);
    let call = service.clone().oneshot(request());
    assert!(tokio::time::timeout(secs(5.0), call).await.is_err());
    let mut dropped = server.dropped();
    dropped.sort_unstable();
    assert_eq!(dropped, [TAUGHT, TAUGHT + 1]);
    let status = status(&handle);
    assert_eq!((status.sent, status.won, status.lost), (1, 0, 0));
    assert!(status.budget < 9.1, "what was sent stays paid for");
}

#[tokio::test(start_paused = true)]
async fn a_failure_among_the_last_sixteen_stops_it() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    server.next(0, Fate::Answer(500, 1.0));
    service.clone().oneshot(request()).await.unwrap();
    server.next(0, Fate::Answer(200, 30.0));
    assert!(timed(&service, request()).await.1 > 29.0);
    assert_eq!(held_back(&handle), [(HeldBack::Failures, 1)]);
    teach(&service, 16).await;
    server.next(0, Fate::Answer(200, 30.0));
    assert!(timed(&service, request()).await.1 < 3.0, "sixteen later it may again");
}

#[tokio::test(start_paused = true)]
async fn a_400_is_no_failure_of_the_servers() {
    let server = Server::default();
    let (service, _) = taught(&server).await;
    server.next(0, Fate::Answer(400, 1.0));
    service.clone().oneshot(request()).await.unwrap();
    server.next(0, Fate::Answer(200, 30.0));
    assert!(timed(&service, request()).await.1 < 3.0);
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_that_hangs_there_is_one() {
    for every in [0.2, 3.0, 20.0] {
        let server = Server::default();
        let (service, handle) = taught(&server).await;
        server.all(Some(Fate::Hang));
        let mut tasks = Vec::new();
        for _ in 0..100 {
            tasks.push(tokio::spawn(tokio::time::timeout(secs(60.0), service.clone().oneshot(request()))));
            sleep(secs(every)).await;
        }
        for task in tasks {
            assert!(task.await.unwrap().is_err());
        }
        let sent = status(&handle).sent;
        assert!(sent <= 1, "every {every} s: {sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_that_refuses_there_is_none() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    // As slow as it fails, so that each is late.
    server.all(Some(Fate::Answer(503, 5.0)));
    let mut tasks = Vec::new();
    for _ in 0..200 {
        tasks.push(tokio::spawn(service.clone().oneshot(request())));
        sleep(secs(0.2)).await;
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(status(&handle).sent, 0, "nobody overtakes anybody");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_slows_down_for_all_gets_no_second_calls() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    server.all(Some(Fate::Answer(200, 8.0)));
    let mut tasks = Vec::new();
    for _ in 0..300 {
        tasks.push(tokio::spawn(service.clone().oneshot(request())));
        sleep(secs(0.2)).await;
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let status = status(&handle);
    assert_eq!(status.sent, 0);
    assert!(status.held_back.iter().any(|(why, n)| *why == HeldBack::NotOvertaken && *n > 10));
    assert!(status.after.unwrap() > secs(7.0), "and the new pace is learnt");
}

#[tokio::test(start_paused = true)]
async fn a_429_stops_it_for_a_minute() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    server.next(0, Fate::Answer(429, 0.1));
    service.clone().oneshot(request()).await.unwrap();
    teach(&service, 20).await;
    server.next(0, Fate::Answer(200, 10.0));
    assert!(timed(&service, request()).await.1 > 9.0);
    assert_eq!(held_back(&handle), [(HeldBack::Quota, 1)]);
    sleep(secs(30.0)).await;
    server.next(0, Fate::Answer(200, 10.0));
    assert!(timed(&service, request()).await.1 < 3.0);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_repeated_is_never_sent_twice() {
    let server = Server::default();
    let (service, _) = taught(&server).await;
    let post = |path: &str| Request::post(format!("http://127.0.0.1{path}")).body(Body::from("{}")).unwrap();
    let mut flex = request();
    flex.extensions_mut().insert(ServiceTier::Flex);
    let requests = [
        post("/v1beta/interactions"),
        post("/v1beta/models/veo:predictLongRunning"),
        post("/v1beta/models/imagen:predict"),
        post("/v1beta/models/gemini-9-flash:batchGenerateContent"),
        post("/v1beta/cachedContents"),
        post("/upload/v1beta/files"),
        post("/anything"),
        flex,
    ];
    for once in requests {
        for _ in 0..150 {
            service.clone().oneshot(once.clone()).await.unwrap();
        }
        let before = server.calls();
        server.next(0, Fate::Answer(200, 30.0));
        let path = once.uri().path().to_owned();
        service.clone().oneshot(once).await.unwrap();
        assert_eq!(server.calls(), before + 1, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn methods_and_models_are_timed_apart() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    let stream = Request::post("http://127.0.0.1/v1beta/models/gemini-9-flash:streamGenerateContent?alt=sse");
    server.next(0, Fate::Answer(200, 9.0));
    let (_, took) = timed(&service, stream.body(Body::from("{}")).unwrap()).await;
    assert!(took > 8.0, "nothing is known of streams");
    assert_eq!(handle.all().len(), 2);
    let target = tower_gemini::Target::of(&request()).key();
    let unary = handle.get(&target, tower_gemini::request::Method::GenerateContent).unwrap();
    assert_eq!(unary.calls, TAUGHT as u64);
    assert!(
        unary.to_string().starts_with("gemini_api gemini-9-flash generateContent: 500 calls, 0 sent twice")
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_leaves_too_little_is_left_alone() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    let mut hurried = request();
    hurried.extensions_mut().insert(Deadline::within(secs(1.5)));
    server.next(0, Fate::Answer(200, 3.0));
    timed(&service, hurried).await.0.unwrap();
    assert_eq!(held_back(&handle), [(HeldBack::Deadline, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_not_sent_twice() {
    let server = Server::default();
    let layer = HedgeLayer::new();
    let handle = layer.handle();
    let service = ServiceBuilder::new().layer(RetryLayer::default()).layer(layer).service(server.clone());
    let service = Boxed::new(service);
    teach(&service, TAUGHT).await;
    server.next(0, Fate::Answer(503, 0.1));
    server.next(1, Fate::Answer(200, 30.0));
    assert!(timed(&service, request()).await.1 > 29.0);
    assert_eq!(status(&handle).sent, 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_would_have_to_wait_is_not_sent_and_is_given_back() {
    // Ten a minute: the calls that teach are of a time before.
    let server = Server::default();
    let limit = RateLimitLayer::new(Limits::new()).unwrap();
    let quotas = limit.handle();
    let layer = HedgeLayer::new();
    let handle = layer.handle();
    let service = Boxed::new(
        ServiceBuilder::new()
            .layer(layer)
            .map_response(|response: Response<_>| response.map(|_| Body::default()))
            .layer(limit)
            .service(server.clone()),
    );
    teach(&service, TAUGHT).await;
    sleep(secs(120.0)).await;
    quotas.set_limits(Limits::new().requests_per_minute(1)).unwrap();
    server.next(0, Fate::Answer(200, 9.0));
    let (answer, took) = timed(&service, request()).await;
    assert_eq!(Hedged::of(&answer.unwrap()), None);
    assert!(took > 8.0);
    let hedges = status(&handle);
    assert_eq!((hedges.sent, hedges.held_back), (0, vec![(HeldBack::Waiting, 1)]));
    assert!(hedges.budget > 9.9, "its price went back: {}", hedges.budget);
    let quota = &quotas.status()[0];
    assert_eq!((quota.admitted, quota.queued, quota.in_flight), (TAUGHT as u64 + 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn handles_are_asked_first() {
    let server = Server::default();
    let (limit, breaker) = (RateLimitLayer::default(), CircuitBreakerLayer::default());
    let concurrency = AdaptiveConcurrencyLayer::new();
    let (quotas, circuits) = (limit.handle(), breaker.handle());
    let layer = HedgeLayer::builder()
        .rate_limits(limit.handle())
        .circuits(breaker.handle())
        .concurrency(concurrency.handle())
        .build()
        .unwrap();
    let handle = layer.handle();
    let service = Boxed::new(
        ServiceBuilder::new()
            .layer(layer)
            .map_response(|response: Response<_>| response.map(|_| Body::default()))
            .layer(limit)
            .layer(concurrency)
            .layer(breaker)
            .service(server.clone()),
    );
    teach(&service, TAUGHT).await;
    // Nine tenths of a limit are used: the last second's call is the first of the ten that are allowed.
    sleep(secs(120.0)).await;
    quotas.set_limits(Limits::new().requests_per_minute(10)).unwrap();
    teach(&service, 8).await;
    server.next(0, Fate::Answer(200, 9.0));
    assert!(timed(&service, request()).await.1 > 8.0);
    assert_eq!(held_back(&handle), [(HeldBack::Quota, 1)]);
    quotas.set_limits(Limits::new()).unwrap();
    circuits.force_closed(&tower_gemini::Target::of(&request()).key().without_label());
    server.next(0, Fate::Answer(200, 9.0));
    assert!(timed(&service, request()).await.1 < 3.0, "with room and a closed circuit it may");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_gets_no_second_call() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    server.next(0, Fate::Answer(200, 9.0));
    let call = tokio::spawn(service.clone().oneshot(request()));
    sleep(secs(0.5)).await;
    server.0.lock().unwrap().busy = true;
    call.await.unwrap().unwrap();
    assert_eq!((status(&handle).sent, held_back(&handle)), (0, vec![(HeldBack::Waiting, 1)]));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_turned_away_inside_is_given_back() {
    let server = Server::default();
    let (service, handle) = taught(&server).await;
    server.next(0, Fate::Answer(200, 9.0));
    server.next(1, Fate::Rejected(0.0));
    let (answer, _) = timed(&service, request()).await;
    assert_eq!(answer.unwrap().status(), 200);
    // It was polled once before the timer's zero was over: one that is turned away later has been sent.
    let status = status(&handle);
    assert!(status.sent <= 1 && status.won == 0);
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_is_sent_twice_only_once_it_has_gone_out() {
    // The server reads no body, so none has gone out.
    let server = Server::default();
    let layer = HedgeLayer::new();
    let handle = layer.handle();
    let service = ServiceBuilder::new().layer(ReplayLayer::default()).layer(layer).service(server.clone());
    for _ in 0..TAUGHT {
        service.clone().oneshot(request()).await.unwrap();
    }
    server.next(0, Fate::Answer(200, 9.0));
    service.oneshot(request()).await.unwrap();
    assert_eq!((status(&handle).sent, held_back(&handle)), (0, vec![(HeldBack::Body, 1)]));
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        let told = match event {
            Event::Hedged { key, .. } => format!("sent {}", key.model().unwrap()),
            Event::HedgeSettled { won, .. } => format!("won {won}"),
            _ => return,
        };
        self.0.lock().unwrap().push(told);
    }
}

#[tokio::test(start_paused = true)]
async fn observers_are_told_of_what_it_costs() {
    let (server, told) = (Server::default(), Arc::new(Told::default()));
    let (service, _) =
        around(HedgeLayer::builder().observer(Arc::clone(&told) as Arc<dyn Observer>), &server);
    teach(&service, TAUGHT).await;
    server.next(0, Fate::Answer(200, 9.0));
    service.clone().oneshot(request()).await.unwrap();
    server.next(0, Fate::Answer(200, 1.2));
    service.clone().oneshot(request()).await.unwrap();
    let told = told.0.lock().unwrap().clone();
    assert_eq!(told, ["sent gemini-9-flash", "won true", "sent gemini-9-flash", "won false"]);
}

#[tokio::test(start_paused = true)]
async fn in_the_stack_it_is_off_until_it_is_asked_for() {
    for hedging in [false, true] {
        let server = Server::default();
        let late = Fate::Answer(200, 30.0);
        let took = if hedging {
            let stack = GeminiStack::new().hedging(HedgeLayer::builder()).unwrap();
            let hedges = stack.get_hedge().handle();
            let took = a_late_call(stack.layer(server.clone()), &server, late).await;
            assert_eq!(status(&hedges).won, 1);
            took
        } else {
            a_late_call(GeminiStack::new().layer(server.clone()), &server, late).await
        };
        assert_eq!(took < 3.0, hedging, "{took}");
    }
}

async fn a_late_call<S, RB>(service: S, server: &Server, late: Fate) -> f64
where
    S: Service<Request<Full<Bytes>>, Response = Response<RB>, Error = BoxError> + Clone,
{
    for _ in 0..TAUGHT {
        let answer = service.clone().oneshot(request()).await.unwrap();
        assert!(Verdict::of(&answer).is_success());
    }
    server.next(0, late);
    let start = Instant::now();
    service.oneshot(request()).await.unwrap();
    (Instant::now() - start).as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn without_the_classifier_and_with_it_the_same() {
    let server = Server::default();
    let layer = HedgeLayer::new();
    let handle = layer.handle();
    let service = ServiceBuilder::new().layer(layer).layer(ClassifyLayer::new()).service(server.clone());
    for _ in 0..TAUGHT {
        service.clone().oneshot(request()).await.unwrap();
    }
    server.next(0, Fate::Answer(200, 30.0));
    service.oneshot(request()).await.unwrap();
    assert_eq!(status(&handle).won, 1);
}

#[test]
fn bad_settings_are_named_with_their_rule() {
    let error = |builder: HedgeBuilder| builder.build().unwrap_err().to_string();
    for share in [0.0, -1.0, 0.21, f64::NAN, f64::INFINITY] {
        let text = error(HedgeLayer::builder().budget(share));
        assert_eq!(text, "invalid setting `budget`: must be from 0.001 to 0.2");
    }
    for samples in [0, 19, 1_001] {
        let text = error(HedgeLayer::builder().samples(samples));
        assert_eq!(text, "invalid setting `samples`: must be from 20 to 1000");
    }
    let text = error(HedgeLayer::builder().max_keys(0));
    assert_eq!(text, "invalid setting `max_keys`: must be from 1 to 1000000");
    let _ = HedgeLayer::default();
}

/// As scenario s05 of the storm has it: three of a hundred take eight times longer.
const S05: Times = Times { median: 2.0, sigma: 0.42, share: 0.03, factor: 8.0 };

/// So many calls, 5 a second.
async fn slow_days(times: Times, builder: HedgeBuilder, calls: usize, seed: u64) -> (Vec<f64>, HedgeStatus) {
    use rand::{RngExt, SeedableRng};
    // Which calls are slow is spread evenly, or chance would decide how many of them are among some thousands.
    let luck = Arc::new(Mutex::new((rand::rngs::StdRng::seed_from_u64(seed), seed as f64 / 7.0)));
    let server = tower::service_fn(move |_: Request<Body>| {
        let mut luck = luck.lock().unwrap();
        let [u, v]: [f64; 2] = [(); 2].map(|()| luck.0.random());
        luck.1 = (luck.1 + 0.618_033_988_75).fract();
        let slower = if luck.1 < times.share { times.factor } else { 1.0 };
        drop(luck);
        let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        let secs = times.median * (times.sigma * normal).exp() * slower;
        async move {
            sleep(Duration::from_secs_f64(secs)).await;
            Ok::<_, BoxError>(support::respond(200, support::good_body().to_owned()))
        }
    });
    let layer = builder.build().unwrap();
    let handle = layer.handle();
    let service = Boxed::new(layer.layer(server));
    let mut tasks = Vec::new();
    for _ in 0..calls {
        let service = service.clone();
        tasks.push(tokio::spawn(async move {
            let start = Instant::now();
            service.oneshot(request()).await.unwrap();
            (Instant::now() - start).as_secs_f64()
        }));
        sleep(secs(0.2)).await;
    }
    let mut times = Vec::new();
    for (n, task) in tasks.into_iter().enumerate() {
        let took = task.await.unwrap();
        // Those before have taught.
        if n >= 1_000 {
            times.push(took);
        }
    }
    times.sort_unstable_by(f64::total_cmp);
    (times, status(&handle))
}

/// Without second tries the 99th percentile is 19.2 s; with one for each call that is past the 95th, at 5 %, 7.2 s. Two in a hundred
/// cannot do better than 10.9 s, whenever they are sent: three calls in a hundred are slow, and most of one of them is left.
#[test]
fn no_rule_of_two_in_a_hundred_comes_near_one_of_five() {
    let least = [0.02, 0.025, 0.03, 0.05].map(|budget| S05.least_p99(budget));
    let known = [10.9, 9.3, 8.5, 7.2];
    assert!(least.iter().zip(known).all(|(least, known)| (least - known).abs() < 0.1), "{least:?}");
}

/// Near the least that its budget allows, whatever the shape of the tail: measured are 1.05 in `s05`, and 1.01 to 1.06 in the others.
#[tokio::test(start_paused = true)]
async fn a_tail_is_cut_within_the_budget() {
    let shapes = [
        (S05, 0.02, 1.12),
        (S05, 0.03, 1.12),
        (S05, 0.05, 1.12),
        (Times { share: 0.02, factor: 5.0, ..S05 }, 0.02, 1.12),
        (Times { share: 0.04, factor: 12.0, sigma: 0.3, ..S05 }, 0.02, 1.2),
        (Times { median: 0.6, share: 0.015, factor: 20.0, sigma: 0.6 }, 0.02, 1.12),
        (Times { share: 0.0, factor: 1.0, sigma: 0.8, ..S05 }, 0.02, 1.2),
    ];
    for (n, (shape, budget, most)) in shapes.into_iter().enumerate() {
        let mut sum = 0.0;
        let seeds = if n == 0 { 4 } else { 2 };
        for seed in 0..seeds {
            let (times, status) =
                slow_days(shape, HedgeLayer::builder().budget(budget), 6_000, 10 * n as u64 + seed).await;
            sum += times[times.len() * 99 / 100];
            assert!(status.sent as f64 <= budget * status.calls as f64, "{status}");
        }
        let times_least = sum / seeds as f64 / shape.least_p99(budget);
        println!(
            "shape {n} at {budget}: {times_least:.3} times the least of {:.1} s",
            shape.least_p99(budget)
        );
        assert!(times_least < most, "shape {n} at {budget}: {times_least} times the least");
    }
}
