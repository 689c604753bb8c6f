use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Kind, Pass, Ticket, Turn};
use crate::body::on_end::EndHook;
use crate::error::BoxError;
use crate::held;
use crate::verdict::Verdict;

pin_project! {
    /// The future of [`Admission`](super::Admission).
    ///
    /// Dropping it in any state drops the call, leaves the queue, and gives back what the call holds.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, F, K: Kind> {
        #[pin]
        pub(super) state: State<S, B, F, K>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<S, B, F, K: Kind> {
        // The call is under way. What it holds comes after the future, so that it is free only when the call is gone.
        Called { #[pin] future: F, pass: Option<K::Pass> },
        // In a queue, or about to be sent. Boxed, so that a call that need not wait does not carry the room for it.
        Waiting { waiting: Box<Waiting<S, B, K>> },
        // Turned away. `None` once that was said.
        Refused { error: Option<BoxError> },
    }
}

/// A request that waits.
pub(super) struct Waiting<S, B, K: Kind> {
    /// `None` once admitted.
    ticket: Option<K::Ticket>,
    pass: Option<K::Pass>,
    service: S,
    /// `service` was polled ready.
    ready: bool,
    /// Admitted, but the inner service was not ready at once.
    is_delayed: bool,
    /// `None` once it was sent.
    request: Option<Request<B>>,
}

impl<S, B, K: Kind> Waiting<S, B, K> {
    pub(super) const fn new(ticket: K::Ticket, service: S, ready: bool, request: Request<B>) -> Self {
        Self { ticket: Some(ticket), pass: None, service, ready, is_delayed: false, request: Some(request) }
    }

    /// Ready when the call can be made.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>
    where
        S: Service<Request<B>>,
        S::Error: Into<BoxError>,
    {
        while let Some(ticket) = &mut self.ticket {
            match ready!(ticket.poll(cx, self.ready))? {
                Turn::Come(pass) => (self.pass, self.ticket) = (Some(pass), None),
                Turn::AskReady => {
                    let Poll::Ready(ready) = self.service.poll_ready(cx) else {
                        ticket.delayed();
                        return Poll::Pending;
                    };
                    ready.map_err(Into::into)?;
                    self.ready = true;
                }
            }
        }
        if !self.ready {
            let Poll::Ready(ready) = self.service.poll_ready(cx) else {
                self.is_delayed = true;
                return Poll::Pending;
            };
            ready.map_err(Into::into)?;
            self.ready = true;
        }
        if let Some(pass) = self.pass.as_mut().filter(|_| self.is_delayed) {
            pass.leave_late();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S, B, F, K: Kind> fmt::Debug for ResponseFuture<S, B, F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the request: its headers hold the key.
        f.debug_struct(K::NAMES.1).finish_non_exhaustive()
    }
}

impl<S, B, RB, E, K> Future for ResponseFuture<S, B, S::Future, K>
where
    S: Service<Request<B>, Response = Response<RB>, Error = E>,
    E: Into<BoxError>,
    RB: Body,
    K: Kind,
{
    type Output = Result<Response<K::Body<RB>>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Called { future, pass } => {
                    if K::Pass::WATCHES_SENDING {
                        pass.send();
                        held::reset();
                    }
                    return match future.poll(cx) {
                        Poll::Pending => {
                            if K::Pass::WATCHES_SENDING {
                                pass.pending(held::is_held());
                            }
                            Poll::Pending
                        }
                        Poll::Ready(Ok(mut response)) => {
                            let end = headed::<K, RB>(&mut response, pass.take());
                            Poll::Ready(Ok(K::watch(response, end)))
                        }
                        Poll::Ready(Err(error)) => {
                            let error = error.into();
                            Poll::Ready(Err(match pass.take() {
                                Some(pass) => pass.errored(error),
                                None => error,
                            }))
                        }
                    };
                }
                StateProj::Waiting { waiting } => {
                    ready!(held::hold(waiting.poll(cx)))?;
                    let request = waiting.request.take().expect("it is sent once");
                    let pass = waiting.pass.take();
                    let future = waiting.service.call(request);
                    state.set(State::Called { future, pass });
                }
                StateProj::Refused { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after it was ready")));
                }
            }
        }
    }
}

/// What a head has to say is told now, the rest at the end of the body.
#[inline(always)]
fn headed<K: Kind, B: Body>(
    response: &mut Response<B>,
    pass: Option<K::Pass>,
) -> EndHook<<K::Pass as Pass>::End> {
    let Some(pass) = pass else { return EndHook::nobody() };
    let Some(cell) = Verdict::good(response) else {
        failed(response, pass);
        return EndHook::nobody();
    };
    match pass.answered(response.status()) {
        Some(end) => EndHook::of_good(response, cell.cloned(), end),
        None => EndHook::nobody(),
    }
}

#[cold]
fn failed<B, P: Pass>(response: &mut Response<B>, pass: P) {
    let verdict = Verdict::of(response);
    pass.failed(response, &verdict);
}
