use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use super::plan::Plan;
use super::timer::Timer;
use super::{TimedOut, TimeoutBody, UploadIncomplete};
use crate::error::BoxError;
use crate::retry::{Replay, Upload};
use crate::verdict::{Kind, Sent, Verdict};

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
        // The call is under way. The timer is made at its first `Pending`, and boxed, because it goes on to the body.
        // The handle is there where the request's body is one that can tell how far the caller has come with it.
        Called { #[pin] future: F, timer: Option<Pin<Box<Timer>>>, plan: Plan, replay: Option<Replay> },
        // It took too long, or its time was over before it began. The call is gone. `None` once that was said.
        Over { error: Option<TimedOut> },
    }
}

impl<F> ResponseFuture<F> {
    #[inline]
    pub(super) const fn called(future: F, plan: Plan, replay: Option<Replay>) -> Self {
        Self { state: State::Called { future, timer: None, plan, replay } }
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
                StateProj::Called { future, timer, plan, replay } => {
                    // An answer that is here counts, however late.
                    match future.poll(cx) {
                        Poll::Ready(Ok(mut response)) => {
                            if let Some(replay) = replay {
                                answered(&mut response, replay);
                            }
                            return Poll::Ready(Ok(TimeoutBody::limit(response, plan.rest, timer.take())));
                        }
                        Poll::Ready(Err(error)) => {
                            let error = error.into();
                            return Poll::Ready(Err(match replay {
                                Some(replay) => failed(error, replay),
                                None => error,
                            }));
                        }
                        Poll::Pending => {}
                    }
                    let Some(cut) = plan.head() else { return Poll::Pending };
                    let timer = timer.get_or_insert_with(|| Timer::new(plan.first_look().unwrap_or(cut.at)));
                    ready!(timer.as_mut().poll_until(cut.at, cx));
                    // The call is dropped here and not with this future, so that its connection closes at once.
                    let (upload, whole_since) = match replay {
                        Some(replay) => (replay.upload(), replay.whole_since()),
                        None => (Upload::Whole, None),
                    };
                    let fault = plan.fault(cut, upload, whole_since);
                    state.set(State::Over { error: Some(TimedOut::new(cut.what, cut.after, fault)) });
                }
                StateProj::Over { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after it was ready").into()));
                }
            }
        }
    }
}

/// A server that waits for the rest of a request for long enough answers 408, and a proxy 504.
fn answered<RB>(response: &mut Response<RB>, replay: &Replay) {
    if Verdict::is_good(response) || replay.upload() != Upload::Awaited {
        return;
    }
    let verdict = Verdict::of(response);
    if verdict.kind() == Some(Kind::DeadlineExceeded) {
        response.extensions_mut().insert(verdict.of_stalled_upload());
    }
}

#[cold]
fn failed(error: BoxError, replay: &Replay) -> BoxError {
    let has_failed = match replay.upload() {
        Upload::Failed => true,
        // A server gives up on a request that does not go on. One that was never sent, it did not.
        Upload::Awaited if Verdict::from_error(error.as_ref()).sent() == Sent::Maybe => false,
        _ => return error,
    };
    UploadIncomplete::new(error, has_failed).into()
}
