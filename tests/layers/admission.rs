//! Several gates in one shell: what one holds while another one makes the call wait, refuses it, or is told of its end.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::oneshot;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_gemini::circuit_breaker::{CircuitBreakerLayer, CircuitOpen};
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::error::find;
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::stack::GeminiStack;
use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};
use tower_gemini::{BoxError, Target};
use tower_layer::Identity;

type Body = Full<Bytes>;

fn request() -> Request<Body> {
    Request::post("http://127.0.0.1/v1beta/models/m:generateContent").body(Body::from("{}")).unwrap()
}

fn answer(status: u16) -> Response<Body> {
    Response::builder().status(status).body(Body::from("{}")).unwrap()
}

/// What each call waits for: the status of its answer.
type Asked = Arc<Mutex<Vec<oneshot::Sender<u16>>>>;

type Gates = GeminiStack<
    DeadlineLayer,
    Identity,
    Identity,
    Identity,
    RateLimitLayer,
    AdaptiveConcurrencyLayer,
    CircuitBreakerLayer,
    TimeoutLayer,
>;

/// The three gates, of which the middle one lets one call out at a time.
fn gates() -> Gates {
    let one_at_a_time = AdaptiveConcurrencyLayer::builder().floor(1.0).build().unwrap();
    let limits = Limits::new().requests_per_minute(100);
    GeminiStack::new()
        .without_retry()
        .rate_limit(RateLimitLayer::new(limits).unwrap())
        .concurrency(one_at_a_time)
}

type Called = tower::util::BoxCloneService<Request<Body>, Response<()>, BoxError>;

/// The gates around a client that is asked by hand.
async fn limited(gates: &Gates) -> (Called, Asked) {
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let client = service_fn(move |_: Request<Body>| {
        let (sender, status) = oneshot::channel();
        seen.lock().unwrap().push(sender);
        async move { Ok::<_, BoxError>(answer(status.await.unwrap())) }
    });
    let service = gates.layer(client).map_response(|response| response.map(drop));
    let mut service = Called::new(service);
    for status in [200; 12].into_iter().chain([504]) {
        let mut call = boxed(service.ready().await.unwrap().call(request()));
        assert!(poll(&mut call).is_pending());
        asked.lock().unwrap().pop().unwrap().send(status).unwrap();
        call.await.unwrap();
    }
    assert_eq!(gates.get_concurrency().handle().all()[0].1.limit(), Some(1.0));
    (service, asked)
}

type Call = futures_util::future::BoxFuture<'static, Result<Response<()>, BoxError>>;

fn boxed(call: impl Future<Output = Result<Response<()>, BoxError>> + Send + 'static) -> Call {
    call.boxed()
}

fn poll(call: &mut Call) -> Poll<Result<Response<()>, BoxError>> {
    call.poll_unpin(&mut Context::from_waker(Waker::noop()))
}

/// Requests of the minute, and calls in flight.
fn quota(gates: &Gates) -> (u64, u64) {
    let status = gates.get_rate_limit().handle().status();
    (status[0].requests, status[0].in_flight)
}

#[tokio::test(start_paused = true)]
async fn what_the_outer_gate_has_admitted_goes_back_where_the_call_leaves_an_inner_queue() {
    let gates = gates();
    let (mut service, asked) = limited(&gates).await;
    let before = quota(&gates).0;
    let mut first = service.ready().await.unwrap().call(request()).boxed();
    assert!(poll(&mut first).is_pending());
    let mut second = service.ready().await.unwrap().call(request()).boxed();
    assert!(poll(&mut second).is_pending());
    assert_eq!(asked.lock().unwrap().len(), 1, "the second one waits inside");
    assert_eq!(quota(&gates), (before + 2, 2));
    drop(second);
    assert_eq!(quota(&gates), (before + 1, 1), "it was not sent");
    assert_eq!(gates.get_concurrency().handle().all()[0].1.queued(), 0);
    drop(first);
    assert_eq!(quota(&gates), (before + 1, 0), "the server may have it");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_an_inner_gate_holds_back_counts_from_when_it_is_sent() {
    let gates = gates();
    let (mut service, asked) = limited(&gates).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(quota(&gates).0, 0, "what was before is over");
    let mut first = service.ready().await.unwrap().call(request()).boxed();
    assert!(poll(&mut first).is_pending());
    let second = service.ready().await.unwrap().call(request());
    let second = tokio::spawn(second);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let answered = asked.lock().unwrap().pop().unwrap();
    answered.send(200).unwrap();
    assert!(poll(&mut first).is_ready());
    drop(first);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(asked.lock().unwrap().len(), 1, "now it is sent");
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(quota(&gates), (1, 1), "72 s after its admission and 40 s after it was sent");
    asked.lock().unwrap().pop().unwrap().send(200).unwrap();
    second.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(21)).await;
    assert_eq!(quota(&gates), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_inner_refusal_gives_back_what_the_outer_gates_have_admitted() {
    let gates = gates();
    let client = service_fn(async |_: Request<Body>| Ok::<_, BoxError>(answer(200)));
    let mut service = gates.layer(client);
    service.ready().await.unwrap().call(request()).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(quota(&gates), (1, 0));
    let circuits = gates.get_circuit_breaker().handle();
    circuits.force_open(&Target::of(&request()).key());
    for _ in 0..3 {
        let error = service.ready().await.unwrap().call(request()).await.err().unwrap();
        assert!(find::<CircuitOpen>(error.as_ref()).is_some(), "{error}");
    }
    assert_eq!(quota(&gates), (1, 0), "nothing was sent");
    assert_eq!(gates.get_concurrency().handle().all()[0].1.in_flight(), 0);
    circuits.reset(&Target::of(&request()).key());
    service.ready().await.unwrap().call(request()).await.unwrap();
    assert_eq!(quota(&gates).0, 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_dropped_settles_all_gates() {
    let gates = gates();
    let client = service_fn(async |_: Request<Body>| Ok::<_, BoxError>(answer(200)));
    let response = gates.layer(client).oneshot(request()).await.unwrap();
    assert_eq!(quota(&gates), (1, 1), "its body is open");
    assert_eq!(gates.get_concurrency().handle().all()[0].1.in_flight(), 0, "its head is here");
    drop(response);
    assert_eq!(quota(&gates), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_readiness_of_no_use() {
    /// Never ready.
    #[derive(Clone)]
    struct Busy;
    impl Service<Request<Body>> for Busy {
        type Response = Response<Body>;
        type Error = BoxError;
        type Future = std::future::Pending<Result<Response<Body>, BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Pending
        }
        fn call(&mut self, _: Request<Body>) -> Self::Future {
            unreachable!("it is never ready")
        }
    }
    let gates = gates();
    let mut service = gates.layer(Busy);
    assert!(service.ready().now_or_never().is_none(), "all is well, so its readiness is asked");
    let key = Target::of(&request()).key();
    gates.get_circuit_breaker().handle().force_open(&key);
    let ready = service.ready().now_or_never().expect("at once").unwrap();
    let error = ready.call(request()).now_or_never().expect("at once").err().unwrap();
    assert!(find::<CircuitOpen>(error.as_ref()).is_some());
    // A call that may go, since its circuit is another one, waits for it: admitted, and not sent.
    let other =
        Request::post("http://127.0.0.1/v1beta/models/n:generateContent").body(Body::default()).unwrap();
    let mut waits = service.ready().now_or_never().expect("at once").unwrap().call(other).boxed();
    assert!(waits.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
    let in_flight = || gates.get_rate_limit().handle().status().iter().map(|key| key.in_flight).sum::<u64>();
    assert_eq!(in_flight(), 1);
    drop(waits);
    assert_eq!(in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn gates_that_are_off_let_pass_and_hold_nothing() {
    let client = service_fn(async |_: Request<Body>| Ok::<_, BoxError>(answer(503)));
    for off in 0..8_u32 {
        let is_on = |gate: u32| off & 1 << gate == 0;
        let gates = GeminiStack::new()
            .without_retry()
            .rate_limit(RateLimitLayer::builder().enabled(is_on(0)).build().unwrap())
            .concurrency(AdaptiveConcurrencyLayer::builder().enabled(is_on(1)).build().unwrap())
            .circuit_breaker(CircuitBreakerLayer::builder().enabled(is_on(2)).build().unwrap());
        let response = gates.layer(client).oneshot(request()).await.unwrap();
        assert_eq!(response.status(), 503);
        let kept = [
            gates.get_rate_limit().handle().status().len(),
            gates.get_concurrency().handle().all().len(),
            gates.get_circuit_breaker().handle().all().len(),
        ];
        assert_eq!(kept, [0, 1, 2].map(|gate| usize::from(is_on(gate))));
    }
}
