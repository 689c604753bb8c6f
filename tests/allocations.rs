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
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::event::{Event, Observer};
use tower_gemini::observe::{JsonLines, ObserveLayer};
use tower_gemini::rate_limit::{Limits, Mode, RateLimitLayer};
use tower_gemini::retry::{Budget, RetryLayer, RetryPolicy};

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
        let mut response = Response::new(Body::from("{}"));
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

#[test]
fn watching_a_success_costs_the_cell_and_its_place_in_the_extensions() {
    assert_eq!(of_one_call(ClassifyLayer::new().watch().layer(Bare(200))), 4);
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
    let layer = RateLimitLayer::builder().limits(limits).mode(Mode::Reject).build().unwrap();
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
    assert_eq!(of_one_call(layer.layer(Bare(200))), 4);
    assert_eq!(of_one_call(layer.layer(ClassifyLayer::new().layer(Bare(200)))), 4);
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
    // The call, the trail, and its place in the request's extensions; then the scanner that reads the tokens.
    assert_eq!(of_one_call(observe.layer(Bare(200))), 5);
    assert_eq!(of_one_whole_call(observe.layer(Bare(200))), 6);
    let watched = ClassifyLayer::new().watch().layer(Bare(200));
    assert_eq!(of_one_whole_call(watched.clone()), 4);
    assert_eq!(of_one_whole_call(observe.layer(watched)), 9, "the classifier reads, and nobody else");
    // A copy of the request copies the trail's place.
    let retry = RetryLayer::new(policy().build().unwrap());
    assert_eq!(of_one_whole_call(retry.layer(Bare(200))), 4);
    assert_eq!(of_one_whole_call(observe.layer(retry.layer(Bare(200)))), 6 + 4 + 3);
    let log = ObserveLayer::new(Arc::new(JsonLines::new(std::io::sink())));
    assert_eq!(of_one_whole_call(log.layer(Bare(200))), 6 + 2, "the time as text, and the line");
}

#[test]
fn an_observer_that_does_nothing_costs_a_success_nothing() {
    use std::sync::Arc;
    let deaf = || Arc::new(Deaf);
    let retry = RetryLayer::new(policy().observer(deaf()).build().unwrap());
    assert_eq!(of_one_whole_call(retry.layer(Bare(200))), copy_of_a_request());
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
    let (seen, held) = (Arc::clone(&owners), data.clone());
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
