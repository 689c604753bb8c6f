use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::body::{FallbackBody, RewriteBody};
use super::work::{Next, Work};
use crate::error::BoxError;

pin_project! {
    /// The future of [`ModelFallback`](super::ModelFallback).
    ///
    /// Dropping it drops the call under way and the kept copy of the request; no further model is called.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        pub(super) state: State<F>,
        // `None` for a request without a chain, which carries nothing.
        pub(super) work: Option<Box<Work<S, B>>>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<F> {
        // A model is asked.
        Called { #[pin] future: F },
        // The next one is to be asked; the inner service is not ready yet. There is work.
        Readying,
    }
}

impl<F> State<F> {
    pub(super) const fn called(future: F) -> Self {
        Self::Called { future }
    }
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the request: its headers hold the key.
        f.debug_struct("fallback::ResponseFuture").finish_non_exhaustive()
    }
}

impl<S, B, RB, E> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<RB>, Error = E>,
    E: Into<BoxError>,
    B: RewriteBody,
    RB: Body<Data = Bytes>,
{
    type Output = Result<Response<FallbackBody<RB>>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Called { future } => {
                    let result = ready!(future.poll(cx));
                    let Some(work) = this.work else {
                        return Poll::Ready(
                            result.map(|response| response.map(FallbackBody::inner)).map_err(Into::into),
                        );
                    };
                    match work.after(result.map_err(Into::into)) {
                        Next::Return(result) => return Poll::Ready(result),
                        Next::Ask => this.state.set(State::Readying),
                    }
                }
                StateProj::Readying => {
                    let work = this.work.as_mut().expect("only a request with a chain goes on");
                    ready!(work.service.poll_ready(cx)).map_err(Into::into)?;
                    let request = work.next.take().expect("it was put there when the state was set");
                    let future = work.service.call(request);
                    this.state.set(State::called(future));
                }
            }
        }
    }
}
