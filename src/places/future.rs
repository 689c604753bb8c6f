use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::report::{NoPlace, ServedAt};
use super::work::{Next, Work};
use crate::error::BoxError;

pin_project! {
    /// The future of [`PlaceChoice`](super::PlaceChoice).
    ///
    /// Dropping it drops the call under way and the kept copy of the request; no further place is asked. A call that was to
    /// find out whether a place is open leaves that to the next one.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        pub(super) state: State<F>,
        // `None` for a request that has one place.
        pub(super) work: Option<Box<Work<S, B>>>,
        // That place.
        pub(super) served: Option<(Arc<str>, usize)>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<F> {
        // A place is asked.
        Called { #[pin] future: F },
        // The next one is to be asked; the inner service is not ready yet. There is work.
        Readying,
        // There is no place. `None` once that was said.
        Refused { error: Option<NoPlace> },
    }
}

impl<F> State<F> {
    pub(super) const fn called(future: F) -> Self {
        Self::Called { future }
    }
}

impl<S, B, F> ResponseFuture<S, B, F> {
    pub(super) const fn refused(error: NoPlace) -> Self {
        Self { state: State::Refused { error: Some(error) }, work: None, served: None }
    }
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the request: its headers hold the key.
        f.debug_struct("places::ResponseFuture").finish_non_exhaustive()
    }
}

impl<S, B, RB, E> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<RB>, Error = E>,
    E: Into<BoxError>,
    B: Clone,
{
    type Output = Result<Response<RB>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Called { future } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into);
                    let Some(work) = this.work else {
                        let mut response = result?;
                        if let Some((place, position)) = this.served.take() {
                            response.extensions_mut().insert(ServedAt { place, position, moves: 0 });
                        }
                        return Poll::Ready(Ok(response));
                    };
                    match work.after(result) {
                        Next::Return(result) => return Poll::Ready(result),
                        Next::Ask => this.state.set(State::Readying),
                    }
                }
                StateProj::Readying => {
                    let work = this.work.as_mut().expect("only a request with several places goes on");
                    ready!(work.service.poll_ready(cx)).map_err(Into::into)?;
                    let request = work.next.take().expect("it was put there when the state was set");
                    let future = work.service.call(request);
                    this.state.set(State::called(future));
                }
                StateProj::Refused { error } => {
                    let error = error.take().expect("polled after it was ready");
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }
}
