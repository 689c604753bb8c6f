//! What a call allocates, counted. Each figure is a promise of the documentation.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::future::{Ready, ready};
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use tower::{Layer, Service};
use tower_gemini::BoxError;
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::classify::{ClassifyLayer, Peek, StrictBodyLayer};
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::event::{Event, Observer};
use tower_gemini::fallback::ModelFallbackLayer;
use tower_gemini::observe::{JsonLines, ObserveLayer};
use tower_gemini::rate_limit::{AdmissionMode, Limits, RateLimitLayer};
use tower_gemini::respond::RespondLayer;
use tower_gemini::retry::{Budget, RetryLayer, RetryPolicy};
use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};

#[path = "support/measured.rs"]
mod measured;
use measured::request;

type Body = Full<Bytes>;

/// Drops the request and answers at once.
#[derive(Clone)]
struct Bare(u16);

impl Service<Request<Body>> for Bare {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Body>, BoxError>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Request<Body>) -> Self::Future {
        // Of a known answer: JSON that is none is kept, because it may name an error.
        let answer = r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}"#;
        let mut response = Response::new(Body::from(answer));
        *response.status_mut() = http::StatusCode::from_u16(self.0).unwrap();
        ready(Ok(response))
    }
}

/// Allocations of one call, after one to warm up; the request's own are not counted.
fn of_one_call<S, B>(mut service: S) -> u64
where
    S: Service<Request<Body>, Response = Response<B>>,
{
    let mut counts = (0..2).map(|_| {
        let (mut request, mut done) = (Some(request()), None);
        let info = measure(|| {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(service.poll_ready(&mut cx).is_ready());
            let mut call = std::pin::pin!(service.call(request.take().unwrap()));
            let Poll::Ready(result) = call.as_mut().poll(&mut cx) else { panic!("it is ready at once") };
            done = result.ok();
        });
        assert!(done.is_some());
        info.count_total
    });
    counts.nth(1).unwrap()
}

fn copy_of_a_request() -> u64 {
    let request = request();
    measure(|| drop(request.clone())).count_total
}

/// As [`of_one_call`], of a call that fails.
fn of_one_refusal<S: Service<Request<Body>>>(mut service: S) -> u64 {
    let mut request = Some(request());
    let mut refused = None;
    let info = measure(|| {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut call = std::pin::pin!(service.call(request.take().unwrap()));
        let Poll::Ready(result) = call.as_mut().poll(&mut cx) else { panic!("it is ready at once") };
        refused = result.err();
    });
    assert!(refused.is_some());
    info.count_total
}

fn policy() -> tower_gemini::retry::RetryPolicyBuilder {
    RetryPolicy::builder()
}

#[test]
fn the_classifier_allocates_nothing_for_a_success() {
    assert_eq!(of_one_call(Bare(200)), 0, "the yardstick");
    assert_eq!(of_one_call(ClassifyLayer::new().layer(Bare(200))), 0);
}

/// The context in the extensions of a request that had none: the map, its table, and a box.
const CONTEXT: u64 = 3;

/// What only some calls carry in it.
const MORE: u64 = 1;

/// What the retry layer keeps of a request: a share of its body, which was not shared before, and its headers in one block.
const KEPT: u64 = 2;

/// Beside the copy of the request: the box of the work, the shared attempts, and the context.
const CHAINED: u64 = 2 + CONTEXT + MORE;

#[test]
fn a_fallback_costs_nothing_where_there_is_no_chain() {
    let other = ModelFallbackLayer::builder().chain("another", ["b"]).build().unwrap();
    assert_eq!(of_one_call(ModelFallbackLayer::default().layer(Bare(200))), 0);
    assert_eq!(of_one_call(other.layer(Bare(200))), 0);
    assert_eq!(of_one_call(other.layer(Bare(503))), 0);
    let own = ModelFallbackLayer::builder().chain("gemini-9-flash", ["b", "c"]).build().unwrap();
    assert_eq!(of_one_call(own.layer(Bare(200))), copy_of_a_request() + CHAINED);
}

type KeyOf = fn(&Request<Body>) -> Option<Bytes>;

#[test]
fn a_request_without_a_key_is_shared_and_kept_for_nothing() {
    use tower_gemini::coalesce::CoalesceLayer;
    use tower_gemini::last_good::LastGoodLayer;

    let none = |_: &Request<Body>| None;
    assert_eq!(of_one_call(CoalesceLayer::<Bytes, _>::new(none as KeyOf).layer(Bare(200))), 0);
    assert_eq!(of_one_call(LastGoodLayer::new(none as KeyOf).layer(Bare(200))), 0);
}

#[test]
fn a_key_costs_what_the_documentation_says() {
    use tower_gemini::coalesce::CoalesceLayer;
    use tower_gemini::last_good::LastGoodLayer;

    let all = |_: &Request<Body>| Some(Bytes::from_static(b"key"));
    let shared = of_one_call(CoalesceLayer::<Bytes, _>::new(all as KeyOf).layer(Bare(200)));
    let kept = of_one_call(LastGoodLayer::new(all as KeyOf).layer(Bare(200)));
    assert_eq!((shared, kept), (14, 7));
}

#[test]
fn a_success_that_needs_no_answer_of_our_own_costs_nothing() {
    assert_eq!(of_one_call(RespondLayer::new().layer(Bare(200))), 0);
    assert_eq!(of_one_call(RespondLayer::new().layer(Bare(503))), 0);
}

#[test]
fn a_good_request_is_looked_at_without_allocating() {
    use tower_gemini::preflight::{PreflightBody, PreflightLayer};

    /// As [`Bare`], for the bodies of the preflight.
    #[derive(Clone)]
    struct AsIs;
    impl Service<Request<PreflightBody<Body>>> for AsIs {
        type Response = Response<Body>;
        type Error = BoxError;
        type Future = std::future::Ready<Result<Response<Body>, BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<PreflightBody<Body>>) -> Self::Future {
            std::future::ready(Ok(Response::new(Body::default())))
        }
    }
    struct Nobody;
    impl tower_gemini::event::Observer for Nobody {
        fn on_event(&self, event: &Event<'_>) {
            panic!("{event:?}");
        }
    }
    assert_eq!(of_one_call(PreflightLayer::new().layer(AsIs)), 0);
    let known = r#"{"read": "2026-11-29", "models": [{"name": "gemini-9-flash"}]}"#;
    let catalogue = tower_gemini::catalogue::Catalogue::from_json(known).unwrap();
    let told = PreflightLayer::builder().catalogue(catalogue).observer(std::sync::Arc::new(Nobody)).build();
    assert_eq!(of_one_call(told.unwrap().layer(AsIs)), 0);
}

#[test]
fn watching_a_success_costs_the_cell_and_its_place_in_the_extensions() {
    assert_eq!(of_one_call(ClassifyLayer::new().watch().layer(Bare(200))), 4);
}

/// As [`Bare`], with one event of a stream in one frame, or in two.
#[derive(Clone)]
struct Streaming {
    pieces: &'static [&'static [u8]],
}

type Stream = http_body_util::StreamBody<
    futures_util::stream::Map<
        futures_util::stream::Iter<std::slice::Iter<'static, &'static [u8]>>,
        fn(&'static &'static [u8]) -> Result<http_body::Frame<Bytes>, BoxError>,
    >,
>;

impl Service<Request<Body>> for Streaming {
    type Response = Response<Stream>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Stream>, BoxError>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let frame: fn(&'static &'static [u8]) -> Result<http_body::Frame<Bytes>, BoxError> =
            |data| Ok(http_body::Frame::data(Bytes::from_static(data)));
        let items = futures_util::stream::iter(self.pieces);
        let body = http_body_util::StreamBody::new(futures_util::StreamExt::map(items, frame));
        let mut response = Response::new(body);
        let kind = http::HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        ready(Ok(response))
    }
}

#[test]
fn a_look_at_the_first_event_costs_the_box_that_it_is_held_in() {
    let event: &[&[u8]] = &[b"data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hi\"}]}}]}\n\n"];
    let halves: &[&[u8]] =
        &[b"data: {\"candidates\":[{\"content\":{\"parts\":[", b"{\"text\":\"hi\"}]}}]}\n\n"];
    let bare = of_one_call(Streaming { pieces: event });
    let peeked = |layer: ClassifyLayer, pieces| of_one_call(layer.layer(Streaming { pieces })) - bare;
    assert_eq!(peeked(ClassifyLayer::new().peek(Peek::Off), event), 0);
    assert_eq!(peeked(ClassifyLayer::new(), event), 1);
    assert_eq!(peeked(ClassifyLayer::new(), halves), 2, "the list of further frames");
    assert_eq!(peeked(ClassifyLayer::new().watch(), event), 5);
    // An answer that is no stream is held only where its output is waited for.
    assert_eq!(of_one_call(ClassifyLayer::new().peek(Peek::FirstEvent).layer(Bare(200))), 0);
    assert_eq!(of_one_call(ClassifyLayer::new().peek(Peek::Output).layer(Bare(200))), 1);
    assert_eq!(of_one_call(StrictBodyLayer::new().layer(Bare(200))), 0);
}

#[test]
fn reading_along_allocates_nothing_for_a_frame() {
    use http_body_util::StreamBody;
    let event = "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"h\\u00e9llo\"}]},\"finishReason\": \"STOP\"}],\
        \"usageMetadata\": {\"promptTokenCount\": 7},\"modelVersion\": \"gemini-9-flash\",\"x\": [{}, [1.5]]}\r\n\r\n";
    // Whole events, and pieces of them.
    for size in [event.len(), 100, 7] {
        let whole: Vec<u8> = event.repeat(100).into_bytes();
        let frames: Vec<_> = whole.chunks(size).map(Bytes::copy_from_slice).collect();
        let mut frames = frames.into_iter().map(|data| Ok::<_, BoxError>(http_body::Frame::data(data)));
        let stream = StreamBody::new(futures_util::stream::poll_fn(move |_| Poll::Ready(frames.next())));
        let mut response = Some(Response::new(stream));
        let mut service = ClassifyLayer::new().watch().layer(tower::service_fn(move |_: Request<()>| {
            ready(Ok::<_, BoxError>(response.take().unwrap()))
        }));
        let mut cx = Context::from_waker(Waker::noop());
        let mut call = std::pin::pin!(service.call(Request::new(())));
        let Poll::Ready(Ok(response)) = call.as_mut().poll(&mut cx) else { panic!("it is ready at once") };
        let verdict = tower_gemini::Verdict::of(&response);
        let mut body = std::pin::pin!(response.into_body());
        let info = measure(|| while let Poll::Ready(Some(Ok(_))) = body.as_mut().poll_frame(&mut cx) {});
        assert_eq!(info.count_total, 0, "frames of {size} bytes");
        assert_eq!(verdict.outcome(), Some(tower_gemini::verdict::Outcome::Complete));
        assert_eq!(verdict.usage().unwrap().input_tokens, 7);
    }
}

#[test]
fn the_rate_limit_allocates_nothing_for_a_grant() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _in_runtime = runtime.enter();
    let limits = Limits::new()
        .requests_per_minute(1_000_000)
        .input_tokens_per_minute(1_000_000_000)
        .requests_per_day(1_000_000);
    let service = RateLimitLayer::new(limits).unwrap().layer(Bare(200));
    // The window's log doubles its room now and then until it holds a minute's worth: 8,192 entries.
    for _ in 0..20_000 {
        of_one_call(service.clone());
    }
    let counts: Vec<_> = (0..100).map(|_| of_one_call(service.clone())).collect();
    assert!(counts.iter().all(|count| *count == 0), "{counts:?}");
    let mut one = service;
    assert_eq!(of_one_call(&mut one), 0);
}

#[test]
fn a_refusal_of_the_rate_limit_allocates_the_box_of_its_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _in_runtime = runtime.enter();
    let limits = Limits::new().requests_per_minute(1);
    let layer = RateLimitLayer::builder().limits(limits).mode(AdmissionMode::Reject).build().unwrap();
    let mut service = layer.layer(Bare(200));
    drop(service.call(request()).poll_unpin(&mut Context::from_waker(Waker::noop())));
    of_one_refusal(&mut service);
    assert_eq!(of_one_refusal(&mut service), 1);
}

#[test]
fn the_circuit_breaker_allocates_nothing_while_it_is_closed() {
    // Also not where a success is counted under the lock, as every eighth is.
    let service = CircuitBreakerLayer::default().layer(Bare(200));
    for _ in 0..10 {
        assert_eq!(of_one_call(service.clone()), 0);
    }
}

#[test]
fn the_circuit_breaker_allocates_the_box_of_an_error_while_it_is_open() {
    let layer = CircuitBreakerLayer::default();
    layer.handle().force_open(&tower_gemini::Target::of(&request()).key());
    let mut service = layer.layer(Bare(200));
    of_one_refusal(&mut service);
    assert_eq!(of_one_refusal(&mut service), 1);
}

#[test]
fn the_retry_layer_allocates_nothing_beyond_the_copy() {
    assert_eq!(copy_of_a_request(), 4);
    let layer = RetryLayer::new(policy().build().unwrap());
    assert_eq!(of_one_call(layer.layer(Bare(200))), KEPT);
    assert_eq!(of_one_call(layer.layer(ClassifyLayer::new().layer(Bare(200)))), KEPT);
}

#[test]
fn the_retry_layer_allocates_nothing_when_there_is_nothing_to_retry() {
    let one_attempt = policy().attempts(1).build().unwrap();
    assert_eq!(of_one_call(RetryLayer::new(one_attempt).layer(Bare(200))), 0);

    let too_large = policy().max_body_bytes(2047).build().unwrap();
    assert_eq!(of_one_call(RetryLayer::new(too_large).layer(Bare(200))), 0);
}

#[tokio::test(start_paused = true)]
async fn the_retry_layer_copies_nothing_while_the_budget_is_empty() {
    use tower::ServiceExt;
    let layer = RetryLayer::new(policy().budget(Budget::new(1, 0.001).unwrap()).build().unwrap());
    let _ = layer.layer(Bare(503)).oneshot(request()).await;
    assert_eq!(of_one_call(layer.layer(Bare(200))), 0);
}

#[test]
fn the_concurrency_layer_allocates_nothing_without_a_limit() {
    assert_eq!(of_one_call(AdaptiveConcurrencyLayer::new().layer(Bare(200))), 0);
}

#[tokio::test(start_paused = true)]
async fn nor_under_a_limit_that_has_room() {
    use tower::ServiceExt;
    let layer = AdaptiveConcurrencyLayer::builder().floor(10.0).build().unwrap();
    for _ in 0..10 {
        let _ = layer.layer(Bare(200)).oneshot(request()).await;
    }
    let _ = layer.layer(Bare(504)).oneshot(request()).await;
    assert_eq!(layer.handle().all()[0].1.limit(), Some(10.0));
    assert_eq!(of_one_call(layer.layer(Bare(200))), 0);
}

/// Listens, and does nothing.
struct Deaf;

impl Observer for Deaf {
    fn on_event(&self, _: &Event<'_>) {}
}

/// As [`of_one_call`], with the end of the answer.
fn of_one_whole_call<S, B>(mut service: S) -> u64
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body,
{
    let mut counts = (0..2).map(|_| {
        let mut request = Some(request());
        let info = measure(|| {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(service.poll_ready(&mut cx).is_ready());
            let mut call = std::pin::pin!(service.call(request.take().unwrap()));
            let Poll::Ready(Ok(response)) = call.as_mut().poll(&mut cx) else { panic!("ready at once") };
            let mut body = std::pin::pin!(response.into_body());
            while let Poll::Ready(Some(_)) = body.as_mut().poll_frame(&mut cx) {}
        });
        info.count_total
    });
    counts.nth(1).unwrap()
}

#[test]
fn observing_calls_costs_the_call_and_the_trail_of_its_retries() {
    use std::sync::Arc;
    assert_eq!(of_one_whole_call(Bare(200)), 0, "the yardstick");
    let observe = ObserveLayer::new(Arc::new(Deaf));
    // The call, the trail, and the context; then the scanner that reads the tokens.
    assert_eq!(of_one_call(observe.layer(Bare(200))), 2 + CONTEXT + MORE);
    assert_eq!(of_one_whole_call(observe.layer(Bare(200))), 3 + CONTEXT + MORE);
    let watched = ClassifyLayer::new().watch().layer(Bare(200));
    assert_eq!(of_one_whole_call(watched.clone()), 4);
    let read = of_one_whole_call(observe.layer(watched));
    assert_eq!(read, 2 + CONTEXT + MORE + 4, "the classifier reads, and nobody else");
    // A copy of the request shares the context.
    let retry = RetryLayer::new(policy().build().unwrap());
    assert_eq!(of_one_whole_call(retry.layer(Bare(200))), KEPT);
    assert_eq!(of_one_whole_call(observe.layer(retry.layer(Bare(200)))), 3 + CONTEXT + MORE + KEPT);
    let log = ObserveLayer::new(Arc::new(JsonLines::new(std::io::sink())));
    assert_eq!(
        of_one_whole_call(log.layer(Bare(200))),
        3 + CONTEXT + MORE + 2,
        "the time as text, and the line"
    );
}

#[test]
fn an_observer_that_does_nothing_costs_a_success_nothing() {
    use std::sync::Arc;
    let deaf = || Arc::new(Deaf);
    let retry = RetryLayer::new(policy().observer(deaf()).build().unwrap());
    assert_eq!(of_one_whole_call(retry.layer(Bare(200))), KEPT);
    let limits = Limits::new().input_tokens_per_minute(1_000_000_000);
    let limit = RateLimitLayer::builder().limits(limits).observer(deaf()).build().unwrap().layer(Bare(200));
    let quiet = RateLimitLayer::new(limits).unwrap().layer(Bare(200));
    assert_eq!(of_one_whole_call(limit), of_one_whole_call(quiet));
    let breaker = CircuitBreakerLayer::builder().observer(deaf()).build().unwrap();
    assert_eq!(of_one_whole_call(breaker.layer(Bare(200))), 0);
    let governor = AdaptiveConcurrencyLayer::builder().observer(deaf()).build().unwrap();
    assert_eq!(of_one_whole_call(governor.layer(Bare(200))), 0);
}

#[test]
fn the_timeout_layer_allocates_nothing_for_a_call_that_is_ready_at_once() {
    // The header included: the request's map has room for it.
    assert_eq!(of_one_call(TimeoutLayer::new().layer(Bare(200))), 0);
    let total = TimeoutLayer::builder().total(std::time::Duration::from_secs(300)).build().unwrap();
    assert_eq!(of_one_call(total.layer(Bare(200))), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_has_one_timer_in_one_box_and_its_body_has_no_other() {
    use tokio::sync::{mpsc, oneshot};
    let (head, answer) = oneshot::channel();
    let (sender, mut frames) = mpsc::channel::<Result<http_body::Frame<Bytes>, BoxError>>(32);
    let stream = futures_util::stream::poll_fn(move |cx| frames.poll_recv(cx));
    let mut inner = Some(async move {
        answer.await.unwrap();
        Ok::<_, BoxError>(Response::new(http_body_util::StreamBody::new(stream)))
    });
    let inner = tower::service_fn(move |_: Request<Body>| inner.take().unwrap());
    let mut service = TimeoutLayer::new().layer(inner);
    let mut cx = Context::from_waker(Waker::noop());
    let mut call = std::pin::pin!(service.call(request()));
    let info = measure(|| assert!(call.as_mut().poll(&mut cx).is_pending()));
    assert_eq!(info.count_total, 1, "the timer is made");
    head.send(()).unwrap();
    let Poll::Ready(Ok(response)) = call.as_mut().poll(&mut cx) else { panic!("it was answered") };
    let mut body = std::pin::pin!(response.into_body());
    let frame = || Ok(http_body::Frame::data(Bytes::from_static(b"x")));
    let mut counts = Vec::new();
    for _ in 0..3 {
        for _ in 0..10 {
            sender.try_send(frame()).unwrap();
        }
        // What the channel itself allocates or frees is not counted: it is filled outside.
        let info = measure(|| {
            for _ in 0..10 {
                assert!(body.as_mut().poll_frame(&mut cx).is_ready());
            }
        });
        let pause = measure(|| assert!(body.as_mut().poll_frame(&mut cx).is_pending()));
        counts.push((info.count_total, pause.count_total));
    }
    assert_eq!(counts, [(0, 0), (0, 0), (0, 0)]);
}

#[test]
fn a_deadline_costs_the_context_that_it_goes_in() {
    assert_eq!(of_one_call(DeadlineLayer::default().layer(Bare(200))), CONTEXT);
    // The header for what it leaves costs nothing, and the copy for a retry shares the context.
    let timed = DeadlineLayer::default().layer(TimeoutLayer::new().layer(Bare(200)));
    assert_eq!(of_one_call(timed), CONTEXT);
    let retried = DeadlineLayer::default().layer(RetryLayer::default().layer(Bare(200)));
    assert_eq!(of_one_call(retried), CONTEXT + KEPT);
}

/// Two of what is kept of the request, three of its context, and four of the cell that carries the end of the body: itself, and its
/// place in the response's extensions.
#[test]
fn the_whole_stack_allocates_what_is_kept_and_the_cell() {
    let stack = tower_gemini::stack::GeminiStack::new();
    assert_eq!(of_one_call(stack.layer(Bare(200))), KEPT + 4 + CONTEXT);
    // Nothing of it is the timeouts' or the limits'.
    let bare = stack.without_retry().without_tier();
    assert_eq!(of_one_call(bare.clone().layer(Bare(200))), 4 + CONTEXT);
    assert_eq!(of_one_call(bare.without_deadline().layer(Bare(200))), 4);
}

/// A buffer that nobody shares yet is made one that can be shared, once: by the tier's look, or by the copy for a retry.
#[test]
fn a_tier_is_looked_for_without_allocating_where_the_body_is_shared() {
    let tier = tower_gemini::tier::TierLayer::new();
    assert_eq!(of_one_call(tier.layer(Bare(200))), 1);
    let retry = RetryLayer::new(policy().build().unwrap());
    let without = of_one_call(retry.layer(Bare(200)));
    assert_eq!(of_one_call(tier.layer(retry.layer(Bare(200)))), without);
}

#[test]
fn a_target_and_its_key_are_read_without_allocating() {
    use tower_gemini::Target;
    let request = request();
    let info = measure(|| assert_eq!(Target::of(&request).key().model(), Some("gemini-9-flash")));
    assert_eq!(info.count_total, 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_attempt_is_no_copy() {
    use std::sync::{Arc, Mutex};
    use tower::ServiceExt;
    // The body's buffer is the same one in every attempt, and each attempt before the last leaves one more
    // owner behind in the layer: none after the last.
    let data = Bytes::from(vec![b'x'; 2048]);
    let owners = Arc::new(Mutex::new(Vec::new()));
    // Shared, so that a clone of the service is no further owner.
    let (seen, held) = (Arc::clone(&owners), Arc::new(data.clone()));
    let service = tower::service_fn(move |request: Request<Body>| {
        drop(request);
        // Unique again once nobody else holds it: `is_unique` looks at the count.
        seen.lock().unwrap().push(held.is_unique());
        ready(Ok::<_, BoxError>(Response::builder().status(503).body(Body::default()).unwrap()))
    });
    let request = Request::post("http://127.0.0.1/x").body(Full::new(data)).unwrap();
    let layer = RetryLayer::new(policy().attempts(3).without_budget().build().unwrap());
    let _ = layer.layer(service).oneshot(request).await;
    assert_eq!(*owners.lock().unwrap(), [false, false, true]);
}

#[test]
fn a_response_of_100_mib_passes_with_flat_memory() {
    for (status, watch) in [(200, false), (200, true), (503, false)] {
        // 1,600 frames of 64 KiB, each freed by the reader before the next is made.
        let mut left = 1600;
        let body = http_body_util::StreamBody::new(futures_util::stream::poll_fn(move |_| {
            left -= 1;
            Poll::Ready(
                (left >= 0).then(|| Ok::<_, BoxError>(http_body::Frame::data(vec![b'x'; 65_536].into()))),
            )
        }));
        let mut response = Some(Response::builder().status(status).body(body).unwrap());
        let layer = if watch { ClassifyLayer::new().watch() } else { ClassifyLayer::new() };
        let mut service = layer.layer(tower::service_fn(move |_: Request<()>| {
            ready(Ok::<_, BoxError>(response.take().unwrap()))
        }));
        let (mut bytes, mut cx) = (0, Context::from_waker(Waker::noop()));
        let info = measure(|| {
            let mut call = std::pin::pin!(service.call(Request::new(())));
            let Poll::Ready(Ok(response)) = call.as_mut().poll(&mut cx) else { panic!("ready at once") };
            let mut body = std::pin::pin!(response.into_body());
            while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx) {
                bytes += frame.into_data().unwrap().len();
            }
        });
        assert_eq!(bytes, 100 * 1024 * 1024);
        assert!(info.bytes_max < 1024 * 1024, "{status} {watch}: {} bytes at most", info.bytes_max);
    }
}
