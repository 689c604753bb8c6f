//! What stands at the bottom of each row, and what makes one of it.

use std::future::{Ready, ready};
use std::hint::black_box;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::Service;
use tower_gemini::BoxError;

pub(crate) type Body = Full<Bytes>;

/// One call, polled once: nothing here may wait.
pub(crate) fn one<S: Service<R>, R>(service: &mut S, request: R) {
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

/// Reads the answer to its end, which is when a breaker counts it.
#[derive(Clone)]
pub(crate) struct Reading<S>(pub(crate) S);

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

/// The least policy that tower's Retry can have.
#[derive(Clone)]
pub(crate) struct Counting(pub(crate) u32);

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
