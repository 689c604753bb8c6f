//! The services at the bottom, and the yardsticks that are not a layer of anybody's.

use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use tower::Service;
use tower_gemini::BoxError;

use crate::Body;

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

/// Reads the answer to its end, which is when this crate's breaker counts it.
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
        let mut cx = Context::from_waker(std::task::Waker::noop());
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

/// What a retry costs at the least: the copy of the request, and the look at the answer. It never waits.
#[derive(Clone)]
pub(crate) struct RetryFloor<S>(pub(crate) S);

impl<S> Service<Request<Body>> for RetryFloor<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Unpin> + Clone + Unpin,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Retrying<S, S::Future>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The service that was made ready is the one to call.
        let service = self.0.clone();
        let mut service = std::mem::replace(&mut self.0, service);
        let copy = request.clone();
        let future = service.call(request);
        Retrying { service, copy, future: Some(future), left: 4 }
    }
}

pub(crate) struct Retrying<S, F> {
    service: S,
    copy: Request<Body>,
    /// None until the service is ready for another attempt.
    future: Option<F>,
    left: u32,
}

impl<S> Future for Retrying<S, S::Future>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Unpin> + Unpin,
{
    type Output = Result<Response<Body>, BoxError>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let Some(future) = &mut this.future else {
                std::task::ready!(this.service.poll_ready(cx))?;
                this.future = Some(this.service.call(this.copy.clone()));
                continue;
            };
            let result = std::task::ready!(Pin::new(future).poll(cx));
            let failed = result.as_ref().map_or(true, |response| response.status().is_server_error());
            if !failed || this.left == 0 {
                return Poll::Ready(result);
            }
            this.left -= 1;
            this.future = None;
        }
    }
}
