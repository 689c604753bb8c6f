use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::plan::Plan;
use super::{TimedOut, TimeoutBody};
use crate::error::BoxError;

pin_project! {
    /// The future of [`Timeout`](super::Timeout).
    ///
    /// Dropping it in any state drops the call, and its timer.
    ///
    /// # Panics
    ///
    /// Its `poll` does, where the inner service is not ready at once and there is no tokio runtime with time enabled.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        // The call is under way. The timer is made at its first `Pending`, and lies here rather than in a box.
        Called { #[pin] future: F, #[pin] timer: Option<Sleep>, plan: Plan },
        // It took too long, or its time was over before it began. The call is gone. `None` once that was said.
        Over { error: Option<TimedOut> },
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) const fn called(future: F, plan: Plan) -> Self {
        Self { state: State::Called { future, timer: None, plan } }
    }

    pub(super) const fn over(error: TimedOut) -> Self {
        Self { state: State::Over { error: Some(error) } }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("timeout::ResponseFuture").finish_non_exhaustive()
    }
}

impl<F, RB, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<TimeoutBody<RB>>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Called { future, mut timer, plan } => {
                    // An answer that is here counts, however late.
                    match future.poll(cx) {
                        Poll::Ready(Ok(response)) => {
                            return Poll::Ready(Ok(TimeoutBody::limit(response, plan.rest)));
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                        Poll::Pending => {}
                    }
                    let Some(cut) = plan.head() else { return Poll::Pending };
                    if timer.is_none() {
                        timer.set(Some(tokio::time::sleep_until(cut.at)));
                    }
                    ready!(timer.as_pin_mut().expect("it was set a line above").poll(cx));
                    // The call is dropped here and not with this future, so that its connection closes at once.
                    state.set(State::Over { error: Some(TimedOut::new(cut)) });
                }
                StateProj::Over { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after it was ready").into()));
                }
            }
        }
    }
}
