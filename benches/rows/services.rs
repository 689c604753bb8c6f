//! The service at the bottom, and the yardsticks around it.

use std::future::ready;
use std::hint::black_box;
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use tower::{Layer, Service};
use tower_gemini::BoxError;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;

use crate::floors::{Bare, Body, one};
use crate::measured::request;

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
    // A timeout counts in full once the key has had ten answers, and where it took longer than they did.
    let answers = (0..12).map(|_| 200).chain((0..20).map(|_| 504));
    for status in answers {
        let mut service = layer.layer(tower::service_fn(move |_: Request<Body>| {
            if status == 504 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            ready(Ok::<_, BoxError>(Response::builder().status(status).body(Body::default()).unwrap()))
        }));
        one(&mut service, request());
        if layer.handle().all().first().is_some_and(|(_, state)| state.limit().is_some()) {
            return layer;
        }
    }
    panic!("timeouts start the limit");
}
