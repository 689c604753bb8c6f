//! What every layer keeps: the readiness contract over a service that forgets readiness on clone, the auto
//! traits, and secrets.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

use std::marker::PhantomData;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use support::{Answer, Body, Probe, error, request};
use tower::{Layer, Service, ServiceExt};
use tower_gemini::BoxError;
use tower_gemini::circuit_breaker::{
    CircuitBody, CircuitBreaker, CircuitBreakerLayer, CircuitOpen, Circuits,
};
use tower_gemini::classify::{
    AnswerFailed, Classify, ClassifyBody, ClassifyLayer, Peek, StrictBodies, StrictBody, StrictBodyLayer,
    StrictFuture,
};
use tower_gemini::coalesce::{
    CallLost, Coalesce, CoalesceBody, CoalesceLayer, FellBehind, SharedError, whole_body,
};
use tower_gemini::concurrency::{
    AdaptiveConcurrency, AdaptiveConcurrencyLayer, ConcurrencyHandle, ConcurrencyLimited,
};
use tower_gemini::error::find;
use tower_gemini::fallback::{FallbackBody, ModelFallback, ModelFallbackLayer};
use tower_gemini::hedge::{Hedge, HedgeLayer, Hedges};
use tower_gemini::last_good::{Answer as Kept, LastGoodBody, LastGoodLayer, MemoryStore, WithLastGood};
use tower_gemini::observe::{Call, JsonLines, Observe, ObserveBody, ObserveLayer};
use tower_gemini::places::{NoPlace, Place, PlaceChoice, Places, PlacesLayer};
use tower_gemini::preflight::{
    BodyFailed, Finding, Preflight, PreflightBody, PreflightLayer, PreflightRefused,
};
use tower_gemini::rate_limit::{Limits, RateLimit, RateLimitBody, RateLimitLayer, RateLimited, RateLimits};
use tower_gemini::respond::{
    Cause, OpenAiErrors, OpenAiErrorsBody, OpenAiErrorsLayer, Respond, RespondBody, RespondLayer,
};
use tower_gemini::resume::{Resume, ResumeLayer, Resumed};
use tower_gemini::retry::{
    Attempts, Backoff, Budget, GaveUp, ReplayBody, ReplayLayer, Retry, RetryLayer, RetryPolicy,
};
use tower_gemini::timeout::{
    DeadlineLayer, SetDeadline, TimedOut, Timeout, TimeoutBody, TimeoutBuilder, TimeoutLayer,
};

/// Under a limit below one, so that every further call waits for its turn.
async fn limited_layer() -> AdaptiveConcurrencyLayer {
    let layer = AdaptiveConcurrencyLayer::new();
    let ten: Vec<_> = (0..10).map(|_| Answer::Ok).collect();
    let service = layer.layer(Probe::new(ten, error(504, "DEADLINE_EXCEEDED", "late")));
    // After ten answers the first timeout cuts, and each further one in a row cuts again.
    for _ in 0..12 {
        let _ = service.clone().oneshot(request()).await;
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    }
    assert!(layer.handle().all()[0].1.limit().is_some_and(|limit| limit < 1.0));
    layer
}

/// Two models stand in for the one of the requests.
fn chain() -> ModelFallbackLayer {
    ModelFallbackLayer::builder().chain("gemini-9-flash", ["b", "c"]).build().unwrap()
}

/// Each is asked where the one before fails.
fn places() -> PlacesLayer {
    let builder =
        ["a", "b", "c"].into_iter().fold(PlacesLayer::builder(), |all, name| all.place(Place::new(name)));
    builder.build().unwrap()
}

/// Lets the probe, which takes bodies of one type, be called with those of the preflight.
#[derive(Clone)]
struct AnyBody;

impl<S> Layer<S> for AnyBody {
    type Service = OfAnyBody<S>;
    fn layer(&self, inner: S) -> OfAnyBody<S> {
        OfAnyBody(inner)
    }
}

#[derive(Clone)]
struct OfAnyBody<S>(S);

impl<S: Service<Request<Body>>, B> Service<Request<B>> for OfAnyBody<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<B>) -> S::Future {
        self.0.call(request.map(|_| Body::default()))
    }
}

/// A request whose body is not there at once.
fn slow_request() -> Request<Late> {
    request().map(|_| Late(2))
}

/// Pending once, and then a piece.
#[derive(Clone)]
struct Late(u8);

impl http_body::Body for Late {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::convert::Infallible>>> {
        self.0 = self.0.saturating_sub(1);
        match self.0 {
            1 => {
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            }
            _ => std::task::Poll::Ready(None),
        }
    }
}

/// At least three attempts, two clones, readiness polled twice, an inner service that is not ready at once.
async fn keeps_the_contract<L, B>(layer: L, make: impl Fn() -> Request<B>)
where
    L: Layer<Probe>,
    L::Service: Service<Request<B>, Error: Into<BoxError>> + Clone,
{
    let down = || error(503, "UNAVAILABLE", "down");
    let probe = Probe::new([down(), down(), Answer::Ok, down(), down(), Answer::Ok], Answer::Ok);
    probe.state().lock().unwrap().not_ready = 2;
    let mut first = layer.layer(probe.clone());
    let mut second = first.clone();
    for service in [&mut first, &mut second] {
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.ok().unwrap();
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.ok().unwrap();
        let _ = service.call(make()).await;
    }
    // The same instances again, after their readiness was used up.
    for service in [&mut first, &mut second] {
        let _ = service.ready().await.ok().unwrap().call(make()).await;
    }
    let state = probe.state();
    let state = state.lock().unwrap();
    assert_eq!(state.violations, 0);
    assert!(state.calls.len() >= 4);
}

#[tokio::test(start_paused = true)]
async fn every_layer_calls_only_what_was_polled_ready() {
    keeps_the_contract(ClassifyLayer::new(), request).await;
    keeps_the_contract(ClassifyLayer::new().watch(), request).await;
    keeps_the_contract(ClassifyLayer::new().peek(Peek::Output), request).await;
    keeps_the_contract(StrictBodyLayer::new(), request).await;
    keeps_the_contract(RetryLayer::default(), request).await;
    keeps_the_contract(tower_layer::Stack::new(ClassifyLayer::new(), RetryLayer::default()), request).await;
    keeps_the_contract(CircuitBreakerLayer::default(), request).await;
    // Two failures open it, so it is open between `poll_ready` and `call`, half-open, and closed again.
    let jumpy = CircuitBreakerLayer::builder().consecutive_failures(2).build().unwrap();
    keeps_the_contract(tower_layer::Stack::new(jumpy, RetryLayer::default()), request).await;
    keeps_the_contract(RateLimitLayer::default(), request).await;
    // Two a minute, so that every other call waits and asks a clone of its own for readiness.
    let narrow = || RateLimitLayer::new(Limits::new().requests_per_minute(2)).unwrap();
    keeps_the_contract(narrow(), request).await;
    keeps_the_contract(tower_layer::Stack::new(narrow(), RetryLayer::default()), request).await;
    keeps_the_contract(AdaptiveConcurrencyLayer::new(), request).await;
    keeps_the_contract(tower_layer::Stack::new(limited_layer().await, RetryLayer::default()), request).await;
    keeps_the_contract(TimeoutLayer::new(), request).await;
    keeps_the_contract(tower_layer::Stack::new(TimeoutLayer::new(), RetryLayer::default()), request).await;
    keeps_the_contract(DeadlineLayer::default(), request).await;
    keeps_the_contract(ModelFallbackLayer::default(), request).await;
    keeps_the_contract(HedgeLayer::new(), request).await;
    keeps_the_contract(places(), request).await;
    keeps_the_contract(chain(), request).await;
    keeps_the_contract(tower_layer::Stack::new(RetryLayer::default(), chain()), request).await;
    keeps_the_contract(RespondLayer::new(), request).await;
    keeps_the_contract(CoalesceLayer::new(whole_body::<Body>), request).await;
    keeps_the_contract(
        tower_layer::Stack::new(RetryLayer::default(), CoalesceLayer::new(whole_body::<Body>)),
        request,
    )
    .await;
    keeps_the_contract(LastGoodLayer::new(whole_body::<Body>), request).await;
    keeps_the_contract(ResumeLayer::continuing(), request).await;
    keeps_the_contract(OpenAiErrorsLayer::new(), request).await;
    keeps_the_contract(tower_layer::Stack::new(AnyBody, PreflightLayer::new()), request).await;
    keeps_the_contract(
        tower_layer::Stack::new(
            AnyBody,
            tower_layer::Stack::new(RetryLayer::default(), PreflightLayer::new()),
        ),
        slow_request,
    )
    .await;
    keeps_the_contract(tower_layer::Stack::new(chain(), RespondLayer::new()), request).await;
    let observe = || ObserveLayer::new(std::sync::Arc::new(JsonLines::new(std::io::sink())));
    keeps_the_contract(observe(), request).await;
    keeps_the_contract(tower_layer::Stack::new(observe(), RetryLayer::default()), request).await;
    keeps_the_contract(tower_layer::Stack::new(RetryLayer::default(), observe()), request).await;
    keeps_the_contract(
        tower_layer::Stack::new(ClassifyLayer::new(), tower::retry::RetryLayer::new(RetryPolicy::default())),
        request,
    )
    .await;
}

// ===== bodies that cannot be cloned =====

/// A body that is neither `Clone` nor `Sync`, in two frames.
fn stream() -> impl http_body::Body<Data = Bytes, Error = std::io::Error> {
    let frames = ["{\"contents\":", "[]}"].map(|text| Ok(http_body::Frame::data(Bytes::from(text))));
    let not_sync = std::cell::Cell::new(());
    http_body_util::StreamBody::new(futures_util::StreamExt::map(
        futures_util::stream::iter(frames),
        move |frame| {
            not_sync.set(());
            frame
        },
    ))
}

/// Reads each request's whole body, and fails as often as told.
async fn read_by_a_failing_server(max_bytes: usize, failures: usize) -> (Vec<String>, Option<GaveUp>) {
    use std::sync::{Arc, Mutex};
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let server = tower::service_fn(move |request: Request<ReplayBody<_>>| {
        let log = Arc::clone(&log);
        async move {
            let bytes = request.into_body().collect().await?.to_bytes();
            let mut log = log.lock().unwrap();
            log.push(String::from_utf8(bytes.to_vec()).unwrap());
            let status = if log.len() <= failures { 503 } else { 200 };
            Ok::<_, BoxError>(support::respond(status, String::new()))
        }
    });
    let stack = tower::ServiceBuilder::new()
        .layer(ReplayLayer::new().max_bytes(max_bytes))
        .layer(RetryLayer::default())
        .service(server);
    let response = stack.oneshot(Request::post("http://127.0.0.1/x").body(stream()).unwrap()).await.unwrap();
    (seen.lock().unwrap().clone(), Attempts::of(&response).gave_up())
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_arrives_whole_at_every_attempt_and_the_last() {
    let whole = "{\"contents\":[]}";
    assert_eq!(read_by_a_failing_server(1000, 2).await, (vec![whole.to_owned(); 3], None));
    assert_eq!(
        read_by_a_failing_server(1000, 11).await,
        (vec![whole.to_owned(); 10], Some(GaveUp::Attempts))
    );
    assert_eq!(read_by_a_failing_server(3, 9).await, (vec![whole.to_owned()], Some(GaveUp::BodyTooLarge)));
    assert_eq!(read_by_a_failing_server(3, 0).await, (vec![whole.to_owned()], None));
}

// ===== errors =====

#[tokio::test(start_paused = true)]
async fn an_inner_error_is_found_three_layers_deep_and_printed_once() {
    #[derive(Debug)]
    struct Mine;
    impl std::fmt::Display for Mine {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("mine")
        }
    }
    impl std::error::Error for Mine {}
    let inner = tower::service_fn(async |_: Request<Body>| Err::<http::Response<Body>, _>(Mine));
    let stack = tower::ServiceBuilder::new()
        .layer(tower::timeout::TimeoutLayer::new(std::time::Duration::from_secs(900)))
        .layer(RetryLayer::default())
        .layer(ClassifyLayer::new())
        .service(inner);
    let error = stack.oneshot(request()).await.unwrap_err();
    assert!(find::<Mine>(error.as_ref()).is_some() && error.is::<Mine>());
    let mut printed = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        printed.push(error.to_string());
        source = error.source();
    }
    assert_eq!(printed, ["mine"]);
}

// ===== auto traits =====

#[test]
fn services_futures_and_errors_have_the_auto_traits_their_parameters_allow() {
    fn shared<T: Send + Sync + 'static>() {}
    fn sendable<T: Send>() {}
    fn unpin<T: Unpin>() {}
    /// `Send` and `Sync`, but neither `Clone` nor `Debug`.
    struct Plain;
    shared::<Classify<Plain>>();
    shared::<Retry<Plain>>();
    shared::<RateLimit<Plain>>();
    shared::<RateLimitLayer>();
    shared::<RateLimits>();
    shared::<RateLimited>();
    shared::<AdaptiveConcurrency<Plain>>();
    shared::<AdaptiveConcurrencyLayer>();
    shared::<ConcurrencyHandle>();
    shared::<ConcurrencyLimited>();
    shared::<Timeout<Plain>>();
    shared::<TimeoutLayer>();
    shared::<TimeoutBuilder>();
    shared::<SetDeadline<Plain>>();
    shared::<DeadlineLayer>();
    shared::<TimedOut>();
    shared::<ClassifyLayer>();
    shared::<StrictBodyLayer>();
    shared::<StrictBodies<Plain>>();
    shared::<AnswerFailed>();
    shared::<CircuitBreaker<Plain>>();
    shared::<CircuitBreakerLayer>();
    shared::<Circuits>();
    shared::<CircuitOpen>();
    shared::<Observe<Plain>>();
    shared::<ObserveLayer>();
    shared::<Call>();
    shared::<JsonLines<Vec<u8>>>();
    shared::<RetryLayer>();
    shared::<ModelFallback<Plain>>();
    shared::<Hedge<Plain>>();
    shared::<HedgeLayer>();
    shared::<Hedges>();
    shared::<PlaceChoice<Plain>>();
    shared::<PlacesLayer>();
    shared::<Places>();
    shared::<NoPlace>();
    shared::<ModelFallbackLayer>();
    shared::<Coalesce<Plain, Bytes, Plain>>();
    shared::<CoalesceLayer<Bytes, Plain>>();
    shared::<CoalesceBody<Body>>();
    unpin::<CoalesceBody<Body>>();
    shared::<SharedError>();
    shared::<FellBehind>();
    shared::<CallLost>();
    sendable::<tower_gemini::coalesce::ResponseFuture<Plain, Body, Bytes, std::future::Ready<()>>>();
    shared::<Resume<Plain>>();
    shared::<ResumeLayer>();
    shared::<Resumed>();
    shared::<OpenAiErrors<Plain>>();
    shared::<OpenAiErrorsBody<Body>>();
    shared::<WithLastGood<Plain, Plain>>();
    shared::<LastGoodLayer<Plain>>();
    shared::<LastGoodBody<Body>>();
    unpin::<LastGoodBody<Body>>();
    shared::<MemoryStore>();
    shared::<Kept>();
    sendable::<tower_gemini::last_good::ResponseFuture<std::future::Ready<()>>>();
    shared::<Respond<Plain>>();
    shared::<RespondLayer>();
    shared::<Preflight<Plain>>();
    shared::<PreflightLayer>();
    shared::<PreflightRefused>();
    shared::<BodyFailed>();
    shared::<Finding>();
    shared::<PreflightBody<Body>>();
    unpin::<PreflightBody<Body>>();
    sendable::<tower_gemini::preflight::ResponseFuture<Plain, Body, std::future::Ready<()>, Body>>();
    shared::<Cause>();
    shared::<RetryPolicy>();
    shared::<Budget>();
    shared::<Backoff>();
    shared::<ReplayLayer>();
    shared::<tower_gemini::Verdict>();
    shared::<tower_gemini::Rejected>();
    shared::<tower_gemini::ConfigError>();
    shared::<tower_gemini::google_rpc::Status>();
    sendable::<tower_gemini::retry::ResponseFuture<Plain, Body, std::future::Ready<()>>>();
    sendable::<tower_gemini::concurrency::ResponseFuture<Plain, Body, std::future::Ready<()>>>();
    sendable::<tower_gemini::classify::ResponseFuture<std::future::Ready<()>, Body>>();
    sendable::<tower_gemini::timeout::ResponseFuture<std::future::Ready<()>>>();
    sendable::<StrictFuture<std::future::Ready<()>>>();
    sendable::<tower_gemini::retry::Wait>();
    sendable::<tower_gemini::hedge::ResponseFuture<Plain, Body, std::future::Ready<()>, Body>>();
    sendable::<tower_gemini::places::ResponseFuture<Plain, Body, std::future::Ready<()>>>();
    sendable::<tower_gemini::fallback::ResponseFuture<Plain, Body, std::future::Ready<()>>>();
    sendable::<tower_gemini::respond::ResponseFuture<std::future::Ready<()>>>();
    unpin::<FallbackBody<Body>>();
    shared::<FallbackBody<Body>>();
    unpin::<RespondBody<Body>>();
    shared::<RespondBody<Body>>();
    sendable::<tower_gemini::circuit_breaker::ResponseFuture<Plain, Body, std::future::Ready<()>>>();
    unpin::<CircuitBody<Body>>();
    shared::<CircuitBody<Body>>();
    unpin::<RateLimitBody<Body>>();
    shared::<RateLimitBody<Body>>();
    unpin::<TimeoutBody<Body>>();
    shared::<TimeoutBody<Body>>();
    unpin::<ObserveBody<Body>>();
    shared::<ObserveBody<Body>>();
    sendable::<tower_gemini::observe::ResponseFuture<std::future::Ready<()>>>();
    unpin::<ClassifyBody<Body>>();
    shared::<ClassifyBody<Body>>();
    unpin::<StrictBody<Body>>();
    shared::<StrictBody<Body>>();
    // A body that is `Send` only makes futures that are, as well.
    sendable::<ReplayBody<PhantomData<std::cell::Cell<()>>>>();
}

// ===== secrets =====

#[tokio::test(start_paused = true)]
async fn no_debug_output_shows_a_key() {
    const KEY: &str = "AIzaSyD-not-a-real-key-0123456789abcdef";
    let echo = error(403, "PERMISSION_DENIED", &format!("Consumer 'api_key:{KEY}' has been suspended."));
    let probe = Probe::always(echo);
    let mut with_key = request();
    with_key.headers_mut().insert("x-goog-api-key", KEY.parse().unwrap());
    *with_key.uri_mut() =
        format!("http://127.0.0.1/v1beta/models/m:generateContent?key={KEY}").parse().unwrap();
    let breaker = CircuitBreakerLayer::default();
    let limit = RateLimitLayer::new(Limits::new().requests_per_minute(1)).unwrap();
    let stack = limit.layer(breaker.layer(ClassifyLayer::new().layer(probe.clone())));
    let mut service = RetryLayer::default().layer(stack);
    let (copy, limited) = (with_key.clone(), service.get_ref().clone());
    let future = service.ready().await.unwrap().call(with_key);
    let mut seen = format!("{future:?} ");
    let response = future.await.unwrap();
    // The second one waits in the queue, key and all.
    let mut queued = limited.clone();
    let queued = queued.ready().await.unwrap().call(copy);
    seen += &format!("{queued:?} {limit:?} {:?} {:?}", limit.handle(), limit.handle().status());
    assert_eq!(limit.handle().status()[0].queued, 1);
    let verdict = tower_gemini::Verdict::of(&response);
    seen +=
        &format!("{verdict:?} {} {:?} {:?}", verdict.message(), verdict.details(), Attempts::of(&response));
    seen += &format!("{:?} {breaker:?} {:?}", response.body(), breaker.handle().all());
    assert!(seen.contains("[redacted]"), "the message is there, without the key: {seen}");
    assert!(!seen.contains(&KEY[4..]), "{seen}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains(KEY), "the body itself is as it came");
}
