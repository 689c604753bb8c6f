//! The service at the bottom, and the yardsticks around it.

use std::future::{Ready, ready};
use std::hint::black_box;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use tower::{Layer, Service};
use tower_gemini::BoxError;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;

use super::Body;
use crate::measured::request;

/// One call, polled once: nothing here may wait.
pub(crate) fn one<S: Service<Request<Body>>>(service: &mut S, request: Request<Body>) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut call = std::pin::pin!(service.call(request));
    match call.as_mut().poll(&mut cx) {
        Poll::Ready(result) => drop(black_box(result)),
        Poll::Pending => unreachable!("the bare service is ready at once"),
    }
}

/// Drops the request and answers 200 at once.
#[derive(Clone)]
pub(crate) struct Bare;

impl Service<Request<Body>> for Bare {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Body>, BoxError>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        drop(black_box(request));
        ready(Ok(Response::new(Body::new(Bytes::from_static(b"{}")))))
    }
}

/// Copies the request, calls, and drops the copy: what no retry can do without. More than a `Request::clone`,
/// since dropping a request that was copied costs more, too.
#[derive(Clone)]
pub(super) struct Copying<S>(pub(super) S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Copying<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let copy = black_box(request.clone());
        let future = self.0.call(request);
        drop(copy);
        future
    }
}

/// Reads the answer to its end, which is when a breaker counts it.
#[derive(Clone)]
pub(super) struct Reading<S>(pub(super) S);

impl<S, B> Service<Request<Body>> for Reading<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body,
{
    type Response = ();
    type Error = S::Error;
    type Future = Ready<Result<(), S::Error>>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut cx = Context::from_waker(Waker::noop());
        let mut call = std::pin::pin!(self.0.call(request));
        if let Poll::Ready(Ok(response)) = call.as_mut().poll(&mut cx) {
            let mut body = std::pin::pin!(response.into_body());
            while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
                drop(black_box(frame));
            }
        }
        ready(Ok(()))
    }
}

/// Calls a clone each time, as `oneshot` on a shared service does.
#[derive(Clone)]
pub(super) struct Cloning<S>(pub(super) S);

impl<S: Service<Request<Body>> + Clone> Service<Request<Body>> for Cloning<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut clone = self.0.clone();
        assert!(clone.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        clone.call(request)
    }
}

/// The least policy that tower's Retry can have.
#[derive(Clone)]
pub(super) struct Counting(pub(super) u32);

impl tower::retry::Policy<Request<Body>, Response<Body>, BoxError> for Counting {
    type Future = Ready<()>;
    fn retry(
        &mut self,
        _: &mut Request<Body>,
        result: &mut Result<Response<Body>, BoxError>,
    ) -> Option<Self::Future> {
        let failed = result.as_ref().map_or(true, |response| response.status().is_server_error());
        (failed && self.0 > 0).then(|| {
            self.0 -= 1;
            ready(())
        })
    }
    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}

/// The bare service, after a look at the clock.
#[derive(Clone)]
pub(super) struct Clocked(pub(super) Bare);

impl Service<Request<Body>> for Clocked {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = <Bare as Service<Request<Body>>>::Future;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        black_box(tokio::time::Instant::now());
        self.0.call(request)
    }
}

/// With room under a limit, which takes the lock and the clock.
pub(super) fn limited() -> AdaptiveConcurrencyLayer {
    let layer = AdaptiveConcurrencyLayer::builder().floor(64.0).build().unwrap();
    let late = tower::service_fn(|_: Request<Body>| {
        ready(Ok::<_, BoxError>(Response::builder().status(504).body(Body::default()).unwrap()))
    });
    let mut late = layer.layer(late);
    one(&mut late, request());
    assert!(layer.handle().all()[0].1.limit().is_some());
    layer
}
