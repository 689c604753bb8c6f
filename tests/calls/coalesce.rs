//! Equal requests in flight are answered by one call: who joins, who is woken, what is given back.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use proptest::prelude::*;
use support::{Answer, Body, Probe, error, good_body, request};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::coalesce::{
    CallLost, Coalesce, CoalesceBody, CoalesceLayer, Coalesced, FellBehind, SharedError, whole_body,
};
use tower_gemini::error::find;
use tower_gemini::stack::GeminiStack;
use tower_gemini::timeout::TimedOut;
use tower_gemini::{BoxError, Deadline, KeyLabel, Kind, Verdict};

type Call = Pin<Box<dyn Future<Output = Result<Response<CoalesceBody<Stream>>, BoxError>> + Send>>;
type Stream =
    StreamBody<Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send>>>;
type KeyOf = fn(&Request<Body>) -> Option<Bytes>;

/// Calls that end when the test says so.
#[derive(Clone, Default)]
struct Manual(Arc<Mutex<Vec<Option<Made>>>>);

/// One call: its head, and its body.
struct Made {
    head: oneshot::Sender<Result<u16, BoxError>>,
    body: mpsc::UnboundedSender<Result<Bytes, std::io::Error>>,
}

impl Manual {
    fn calls(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn take(&self, n: usize) -> Made {
        self.0.lock().unwrap()[n].take().unwrap()
    }
}

impl Made {
    fn good(self) -> mpsc::UnboundedSender<Result<Bytes, std::io::Error>> {
        self.head.send(Ok(200)).ok().unwrap();
        self.body
    }
}

impl Service<Request<Body>> for Manual {
    type Response = Response<Stream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let (head, headed) = oneshot::channel();
        let (body, bodied) = mpsc::unbounded_channel();
        self.0.lock().unwrap().push(Some(Made { head, body }));
        Box::pin(async move {
            let status = headed.await.map_err(BoxError::from)??;
            let frames = stream::unfold(bodied, async |mut bodied| {
                bodied.recv().await.map(|data| (data.map(Frame::data), bodied))
            });
            let frames: Pin<Box<dyn futures_util::Stream<Item = _> + Send>> = Box::pin(frames);
            Ok(Response::builder().status(status).body(StreamBody::new(frames)).unwrap())
        })
    }
}

fn layer() -> CoalesceLayer<Bytes, KeyOf> {
    CoalesceLayer::new(whole_body::<Body>)
}

fn manual() -> (Manual, CoalesceLayer<Bytes, KeyOf>, Coalesce<Manual, Bytes, KeyOf>) {
    let (calls, layer) = (Manual::default(), layer());
    let service = layer.layer(calls.clone());
    (calls, layer, service)
}

fn call(service: &Coalesce<Manual, Bytes, KeyOf>, request: Request<Body>) -> Call {
    let mut service = service.clone();
    assert!(service.poll_ready(&mut noop()).is_ready());
    Box::pin(service.call(request))
}

fn noop() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

async fn text(response: Response<CoalesceBody<Stream>>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn equal_requests_are_answered_by_one_call_as_it_streams() {
    let (calls, layer, service) = manual();
    let waiting: Vec<_> = (0..5).map(|_| tokio::spawn(call(&service, request()))).collect();
    sleep(Duration::from_millis(1)).await;
    assert_eq!((calls.calls(), layer.in_flight()), (1, 1));
    let body = calls.take(0).good();
    let mut answers = Vec::new();
    for waiting in waiting {
        answers.push(waiting.await.unwrap().unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| Coalesced::of(answer).unwrap().joined()).count(), 4);
    body.send(Ok("a".into())).unwrap();
    let mut first = answers.remove(0);
    assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "a", "before the end is there");
    // One who comes in the midst of it has all of it, too.
    answers.push(call(&service, request()).await.unwrap());
    assert_eq!(calls.calls(), 1);
    body.send(Ok("b".into())).unwrap();
    drop(body);
    for answer in answers {
        assert_eq!(text(answer).await, "ab");
    }
    assert_eq!(text(first).await, "b");
    assert_eq!(layer.in_flight(), 0);
    // What is over is nobody's answer any more.
    let _later = call(&service, request());
    assert_eq!(calls.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_of_somebody_else_or_without_a_key_is_asked_itself() {
    let (calls, _, service) = manual();
    let mut kept = vec![call(&service, request())];
    for header in ["x-goog-api-key", "authorization", "x-goog-user-project", "accept-encoding"] {
        let mut other = request();
        other.headers_mut().insert(header, "other".parse().unwrap());
        kept.push(call(&service, other));
    }
    let mut labelled = request();
    labelled.extensions_mut().insert(KeyLabel::new("team"));
    kept.push(call(&service, labelled));
    let mut elsewhere = request();
    *elsewhere.uri_mut() = "http://127.0.0.1/v1beta/models/gemini-8-flash:generateContent".parse().unwrap();
    kept.push(call(&service, elsewhere));
    kept.push(call(&service, request().map(|_| Body::from("other"))));
    assert_eq!(calls.calls(), kept.len());
    let mut get = request();
    *get.method_mut() = http::Method::GET;
    kept.extend([call(&service, get.clone()), call(&service, get)]);
    assert_eq!(calls.calls(), kept.len(), "no key, no sharing");
}

#[tokio::test(start_paused = true)]
async fn the_one_who_made_the_call_may_go_and_with_the_last_one_goes_the_call() {
    let probe = Probe::always(Answer::Hang);
    let layer = layer();
    let service = layer.layer(probe.clone());
    let mut all: Vec<_> = (0..3).map(|_| Box::pin(service.clone().oneshot(request()))).collect();
    all.iter_mut().for_each(|one| assert!(one.poll_unpin(&mut noop()).is_pending()));
    drop(all.remove(0));
    assert_eq!(probe.state().lock().unwrap().in_flight, 1);
    drop(all.remove(0));
    assert_eq!(probe.state().lock().unwrap().dropped, 0, "one still waits");
    drop(all);
    assert_eq!(probe.state().lock().unwrap().dropped, 1);
    assert_eq!(layer.in_flight(), 0);
}

// Each waits for what another one would have to do, if anybody had a duty.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_one_who_is_not_polled_any_more() {
    for way in ["kept", "forgotten", "unpolled", "dropped", "after the head"] {
        let (calls, _, service) = manual();
        let mut leader = call(&service, request());
        if way != "unpolled" {
            assert!(leader.poll_unpin(&mut noop()).is_pending());
        }
        let follower = tokio::spawn(call(&service, request()));
        sleep(Duration::from_millis(1)).await;
        let mut kept = None;
        match way {
            "forgotten" => mem::forget(leader),
            "dropped" => drop(leader),
            _ => kept = Some(leader),
        }
        let body = calls.take(0).good();
        let answer = follower.await.unwrap().unwrap();
        let mut head = None;
        if way == "after the head" {
            // It draws on the body once, and never again.
            let mut response = kept.take().unwrap().await.unwrap();
            assert!(Pin::new(response.body_mut()).poll_frame(&mut noop()).is_pending());
            head = Some(response);
        }
        let read = tokio::spawn(text(answer));
        for piece in ["a", "b", "c"] {
            sleep(Duration::from_millis(1)).await;
            body.send(Ok(piece.into())).unwrap();
        }
        drop(body);
        let read = tokio::time::timeout(Duration::from_secs(1), read).await;
        assert_eq!(read.expect(way).unwrap(), "abc", "{way}");
        drop((kept, head));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_everybodys_and_can_be_found() {
    let (calls, layer, service) = manual();
    let mut all: Vec<_> = (0..3).map(|_| call(&service, request())).collect();
    all.iter_mut().for_each(|one| assert!(one.poll_unpin(&mut noop()).is_pending()));
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    calls.take(0).head.send(Err(refused.into())).ok().unwrap();
    let last = all.pop().unwrap();
    for one in all {
        let error = one.await.unwrap_err();
        assert!(error.is::<SharedError>());
        assert!(find::<std::io::Error>(error.as_ref()).is_some());
        assert_eq!(Verdict::from_error(error.as_ref()).kind(), Some(Kind::Transport));
        assert_eq!(Verdict::from_error(error.as_ref()).sent(), tower_gemini::verdict::Sent::No);
    }
    assert!(last.await.unwrap_err().is::<std::io::Error>(), "alone by now: the error itself");
    assert_eq!(layer.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_answer_is_given_with_its_verdict_and_nobody_joins_it() {
    let probe = Probe::always(error(503, "UNAVAILABLE", "down"));
    let service = layer().layer(ClassifyLayer::new().layer(probe.clone()));
    // Both are made before one is polled: the probe answers at once.
    let (mut first, mut second) = (service.clone(), service.clone());
    let a = first.ready().await.unwrap().call(request());
    let b = second.ready().await.unwrap().call(request());
    let (a, b) = tokio::join!(a, b);
    for response in [a.unwrap(), b.unwrap()] {
        assert_eq!(Verdict::of(&response).kind(), Some(Kind::Unavailable));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b"{\"error\""));
    }
    assert_eq!(probe.state().lock().unwrap().calls.len(), 1);
    let held = service.clone().oneshot(request()).await.unwrap();
    let _next = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(probe.state().lock().unwrap().violations, 0);
    assert_eq!(probe.state().lock().unwrap().calls.len(), 3, "after the head of a failure everybody asks");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_nobody() {
    let calls = Manual::default();
    let layer =
        CoalesceLayer::<Bytes, KeyOf>::builder(whole_body::<Body>).max_bytes(1 << 10).build().unwrap();
    let service = layer.layer(calls.clone());
    let mut all: Vec<_> = (0..4).map(|_| call(&service, request())).collect();
    all.iter_mut().for_each(|one| assert!(one.poll_unpin(&mut noop()).is_pending()));
    let body = calls.take(0).good();
    let headless = all.pop().unwrap();
    let mut slow = all.pop().unwrap().await.unwrap();
    let fast = tokio::spawn(text(all.pop().unwrap().await.unwrap()));
    let gone = all.pop().unwrap().await.unwrap();
    body.send(Ok("x".repeat(500).into())).unwrap();
    assert_eq!(slow.frame().await.unwrap().unwrap().into_data().unwrap().len(), 500);
    for _ in 0..9 {
        body.send(Ok("x".repeat(500).into())).unwrap();
    }
    drop(gone);
    sleep(Duration::from_millis(1)).await;
    let behind = slow.frame().await.unwrap().unwrap_err();
    assert!(find::<FellBehind>(behind.as_ref()).unwrap().bytes() > 1 << 10);
    assert!(behind.to_string().starts_with("coalesce: read "), "{behind}");
    assert!(slow.frame().await.is_none());
    drop(body);
    assert_eq!(fast.await.unwrap().len(), 5_000, "as if it had been alone");
    // Whoever was given nothing asks again.
    let again = tokio::spawn(headless);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(calls.calls(), 2);
    let body = calls.take(1).good();
    body.send(Ok("again".into())).unwrap();
    drop(body);
    assert_eq!(text(again.await.unwrap().unwrap()).await, "again");
}

fn until(deadline: Instant) -> Request<Body> {
    let mut request = request();
    request.extensions_mut().insert(Deadline::at(deadline));
    request
}

#[tokio::test(start_paused = true)]
async fn each_keeps_its_own_deadline() {
    let (calls, _, service) = manual();
    let start = Instant::now();
    let secs = Duration::from_secs;
    let leader = tokio::spawn(call(&service, until(start + secs(10))));
    let short = tokio::spawn(call(&service, until(start + secs(2))));
    let long = tokio::spawn(call(&service, until(start + secs(30))));
    let longer = tokio::spawn(call(&service, until(start + secs(40))));
    let late = short.await.unwrap().unwrap_err();
    assert_eq!(Instant::now() - start, secs(2));
    assert!(find::<TimedOut>(late.as_ref()).unwrap().is_by_caller());
    assert_eq!(Verdict::from_error(late.as_ref()).kind(), Some(Kind::DeadlineExceeded));
    assert_eq!(calls.calls(), 1);
    sleep(secs(8)).await;
    // The call ends with its deadline, as the timeout layer inside makes it. Those who have more time ask again, by one call.
    calls.take(0).head.send(Err("late".into())).ok().unwrap();
    assert!(leader.await.unwrap().is_err());
    sleep(secs(1)).await;
    assert_eq!(calls.calls(), 2);
    let body = calls.take(1).good();
    body.send(Ok("there".into())).unwrap();
    drop(body);
    assert_eq!(text(long.await.unwrap().unwrap()).await, "there");
    assert_eq!(text(longer.await.unwrap().unwrap()).await, "there");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_has_passed_is_not_joined_and_a_failure_in_time_is_not_asked_again() {
    let (calls, _, service) = manual();
    let start = Instant::now();
    let secs = Duration::from_secs;
    let mut stuck = call(&service, until(start + secs(1)));
    assert!(stuck.poll_unpin(&mut noop()).is_pending());
    let joined = tokio::spawn(call(&service, until(start + secs(60))));
    sleep(secs(2)).await;
    let _fresh = call(&service, until(start + secs(60)));
    assert_eq!(calls.calls(), 2);
    drop((joined, stuck));

    let (calls, _, service) = manual();
    let leader = tokio::spawn(call(&service, until(Instant::now() + secs(10))));
    let joined = tokio::spawn(call(&service, until(Instant::now() + secs(60))));
    sleep(secs(1)).await;
    calls.take(0).head.send(Err("down".into())).ok().unwrap();
    assert!(leader.await.unwrap().is_err() && joined.await.unwrap().is_err());
    assert_eq!(calls.calls(), 1, "an outage is not asked by everybody");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_call_leaves_nobody_waiting() {
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let inner = tower::service_fn(move |_: Request<Body>| {
        let first = counter.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            sleep(Duration::from_secs(1)).await;
            assert!(!first, "the first call panics, as this test wants");
            Ok::<_, BoxError>(Response::new(Body::from(good_body())))
        }
    });
    let service = layer().layer(inner);
    let all: Vec<_> = (0..4).map(|_| tokio::spawn(service.clone().oneshot(request()))).collect();
    let mut answered = 0;
    for one in all {
        match one.await {
            Ok(Ok(_)) => answered += 1,
            Ok(Err(error)) => assert!(error.is::<CallLost>()),
            Err(panicked) => assert!(panicked.is_panic()),
        }
    }
    assert!(answered >= 2, "who joined asks again; one may have been the one that polled");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_shared_calls_is_bounded() {
    let calls = Manual::default();
    let layer = CoalesceLayer::<Bytes, KeyOf>::builder(whole_body::<Body>).max_calls(2).build().unwrap();
    let service = layer.layer(calls.clone());
    let kept: Vec<_> =
        (0..10).map(|n| call(&service, request().map(|_| Body::from(format!("{}", n % 5))))).collect();
    assert_eq!((layer.in_flight(), calls.calls()), (2, 8), "two are shared by two each, six go alone");
    drop(kept);
    assert_eq!(layer.in_flight(), 0);
    assert!(CoalesceLayer::<Bytes, KeyOf>::builder(whole_body::<Body>).max_calls(0).build().is_err());
    assert!(CoalesceLayer::<Bytes, KeyOf>::builder(whole_body::<Body>).max_bytes(1).build().is_err());
}

#[tokio::test(start_paused = true)]
async fn in_the_stack_the_retries_are_shared_too() {
    let probe = Probe::new([error(503, "UNAVAILABLE", "down")], Answer::Ok);
    let service = GeminiStack::new().coalesce(layer()).layer(probe.clone());
    let all: Vec<_> = (0..10).map(|_| tokio::spawn(service.clone().oneshot(request()))).collect();
    for one in all {
        let response = one.await.unwrap().unwrap();
        assert!(Verdict::of(&response).is_success());
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), good_body());
    }
    assert_eq!(probe.state().lock().unwrap().calls.len(), 2);
    assert_eq!(probe.state().lock().unwrap().violations, 0);
}

// ===== any order =====

#[derive(Clone, Debug)]
enum Op {
    Join,
    Poll(usize),
    Drop(usize),
    Starve(usize),
    Head(bool),
    Piece(usize),
    End(bool),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        3 => Just(Op::Join),
        6 => (0_usize..8).prop_map(Op::Poll),
        2 => (0_usize..8).prop_map(Op::Drop),
        1 => (0_usize..8).prop_map(Op::Starve),
        2 => proptest::bool::weighted(0.9).prop_map(Op::Head),
        5 => (1_usize..700).prop_map(Op::Piece),
        1 => any::<bool>().prop_map(Op::End),
    ];
    proptest::collection::vec(op, 1..60)
}

enum Person {
    Waits(Call, Waiting),
    Reads(CoalesceBody<Stream>, usize, Waiting),
    Starved(#[allow(dead_code, reason = "it only holds its place")] Box<Person>),
    Gone,
}

/// Whether somebody who is waiting has been woken since.
type Waiting = Arc<Flag>;
#[derive(Default)]
struct Flag(std::sync::atomic::AtomicBool);
impl std::task::Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Person {
    /// Polls until it waits or is done; checks what it reads.
    fn step(self, sent: &[u8], outcome: &mut Vec<&'static str>) -> Self {
        let mut person = self;
        loop {
            person = match person {
                Person::Waits(mut call, flag) => {
                    flag.0.store(false, Ordering::SeqCst);
                    let waker = Waker::from(Arc::clone(&flag));
                    match call.poll_unpin(&mut Context::from_waker(&waker)) {
                        Poll::Pending => return Person::Waits(call, flag),
                        Poll::Ready(Ok(response)) => Person::Reads(response.into_body(), 0, flag),
                        Poll::Ready(Err(_)) => {
                            outcome.push("failed");
                            return Person::Gone;
                        }
                    }
                }
                Person::Reads(mut body, at, flag) => {
                    flag.0.store(false, Ordering::SeqCst);
                    let waker = Waker::from(Arc::clone(&flag));
                    match Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker)) {
                        Poll::Pending => return Person::Reads(body, at, flag),
                        Poll::Ready(Some(Ok(frame))) => {
                            let data = frame.into_data().unwrap();
                            assert_eq!(data, sent[at..at + data.len()], "exactly what was sent");
                            Person::Reads(body, at + data.len(), flag)
                        }
                        Poll::Ready(Some(Err(error))) => {
                            outcome.push(if error.is::<FellBehind>() { "behind" } else { "failed" });
                            return Person::Gone;
                        }
                        Poll::Ready(None) => {
                            assert_eq!(at, sent.len(), "all of it");
                            outcome.push("complete");
                            return Person::Gone;
                        }
                    }
                }
                other => return other,
            }
        }
    }

    fn is_woken(&self) -> bool {
        match self {
            Person::Waits(_, flag) | Person::Reads(_, _, flag) => flag.0.load(Ordering::SeqCst),
            _ => false,
        }
    }
}

proptest! {
    // Drops, errors, slow and starved readers in any order: once the answer is over, everybody who is polled when woken has come to
    // an end, and has read the answer from its first byte on.
    #[test]
    fn everybody_comes_to_an_end(ops in ops()) {
        let calls = Manual::default();
        let layer = CoalesceLayer::<Bytes, KeyOf>::builder(whole_body::<Body>).max_bytes(1 << 10).build().unwrap();
        let service = layer.layer(calls.clone());
        let mut people = vec![Person::Waits(call(&service, request()), Waiting::default())];
        let Made { head, body } = calls.take(0);
        let (mut head, mut body) = (Some(head), Some(body));
        let (mut sent, mut outcome) = (Vec::new(), Vec::new());
        for op in ops {
            // Nobody who asks again is of interest here: one call is looked at.
            match op {
                Op::Join if calls.calls() == 1 && head.is_some() => {
                    people.push(Person::Waits(call(&service, request()), Waiting::default()));
                }
                Op::Poll(n) => if let Some(person) = people.get_mut(n) {
                    *person = mem::replace(person, Person::Gone).step(&sent, &mut outcome);
                },
                Op::Drop(n) => if let Some(person) = people.get_mut(n) { *person = Person::Gone; },
                Op::Starve(n) => if let Some(person) = people.get_mut(n) {
                    let starved = mem::replace(person, Person::Gone).step(&sent, &mut outcome);
                    *person = Person::Starved(Box::new(starved));
                },
                Op::Head(good) => if let Some(head) = head.take() {
                    let _ = head.send(if good { Ok(200) } else { Err("down".into()) });
                },
                Op::Piece(len) => if let Some(body) = &body {
                    let byte = u8::try_from(sent.len() % 251).unwrap();
                    if body.send(Ok(Bytes::from(vec![byte; len]))).is_ok() {
                        sent.extend(vec![byte; len]);
                    }
                },
                Op::End(good) => if let Some(body) = body.take() {
                    if !good { let _ = body.send(Err(std::io::Error::other("cut"))); }
                },
                Op::Join => {}
            }
        }
        if let Some(head) = head { let _ = head.send(Ok(200)); }
        drop(body);
        // Each begins to wait, and from then on only those who were woken are polled.
        for person in &mut people {
            *person = mem::replace(person, Person::Gone).step(&sent, &mut outcome);
        }
        for _ in 0..1_000 {
            let Some(person) = people.iter_mut().find(|person| person.is_woken()) else { break };
            *person = mem::replace(person, Person::Gone).step(&sent, &mut outcome);
        }
        for person in &people {
            // Who was given no head and fell behind has asked again, and waits for that call.
            let is_over = match person {
                Person::Waits(..) => calls.calls() > 1,
                Person::Reads(..) => false,
                Person::Starved(_) | Person::Gone => true,
            };
            prop_assert!(is_over, "{outcome:?}");
        }
        drop(people);
        prop_assert_eq!(layer.in_flight(), 0);
    }
}

// On threads: every request is answered, each call is counted once, and nothing is left.
#[test]
fn on_threads_the_sums_are_exact() {
    const TASKS: u64 = 32;
    const ROUNDS: u64 = 200;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    /// Of a request that is dropped after its first poll.
    #[derive(Clone)]
    struct Leaves;
    // Calls by those who stay, and by those who leave; and a token that each call holds until it is gone.
    let made = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let token = Arc::new(());
    let (counter, tokens) = (Arc::clone(&made), Arc::downgrade(&token));
    let inner = tower::service_fn(move |request: Request<Body>| {
        let leaves = request.extensions().get::<Leaves>().is_some();
        let n = counter[usize::from(leaves)].fetch_add(1, Ordering::Relaxed);
        let token = tokens.upgrade();
        async move {
            for _ in 0..n % 4 {
                tokio::task::yield_now().await;
            }
            let pieces = stream::iter(0..20).then(move |n| {
                let token = token.clone();
                async move {
                    tokio::task::yield_now().await;
                    drop(token);
                    Ok::<_, std::io::Error>(Frame::data(Bytes::from(format!("{n},"))))
                }
            });
            let pieces: Pin<Box<dyn futures_util::Stream<Item = _> + Send>> = Box::pin(pieces);
            Ok::<_, std::io::Error>(Response::new(StreamBody::new(pieces)))
        }
    });
    let layer = layer();
    let service = layer.layer(inner);
    let whole: String = (0..20).map(|n| format!("{n},")).collect();
    let one = |task: u64| {
        let (service, whole) = (service.clone(), whole.clone());
        let all = async move {
            let (mut led, mut joined, mut dropped) = (0, 0, 0);
            for round in 0..ROUNDS {
                let mut asked = request().map(|_| Full::from(format!("{}", round % 3)));
                let leaves = (task + round) % 5 == 0;
                if leaves {
                    asked.extensions_mut().insert(Leaves);
                }
                let mut future = Box::pin(service.clone().oneshot(asked));
                if leaves {
                    let _ = future.as_mut().now_or_never();
                    dropped += 1;
                    continue;
                }
                let response = future.await.unwrap();
                if Coalesced::of(&response).unwrap().joined() {
                    joined += 1
                } else {
                    led += 1
                }
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), whole);
            }
            (led, joined, dropped)
        };
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(60), all).await })
            .expect("nobody hangs")
    };
    let (led, joined, dropped) = std::thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = (0..TASKS).map(|task| scope.spawn(move || one(task))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .fold((0, 0, 0), |sum, (led, joined, dropped)| (sum.0 + led, sum.1 + joined, sum.2 + dropped))
    });
    assert_eq!(led + joined + dropped, TASKS * ROUNDS);
    let [by_those_who_stay, by_those_who_leave] = [0, 1].map(|who: usize| made[who].load(Ordering::Relaxed));
    assert_eq!(by_those_who_stay, led, "each call that was made is the answer of the one who made it");
    assert!(by_those_who_leave <= dropped, "{by_those_who_leave} of {dropped}");
    assert!(joined > 0, "somebody shared");
    assert_eq!(layer.in_flight(), 0);
    assert_eq!(Arc::strong_count(&token), 1, "no call is left, also of those who made one and left");
}
