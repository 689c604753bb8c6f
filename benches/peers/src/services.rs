//! The floor of a retry.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::Service;
use tower_gemini::BoxError;

use crate::floors::Body;

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
