use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::RateLimitBody;
use super::error::RateLimited;
use super::permit::Permit;
use super::queue::WaiterId;
use super::scheduler::Look;
use super::shared::Key;
use super::window::Nanos;
use crate::body::on_end::EndHook;
use crate::error::BoxError;
use crate::held;
use crate::tier::ServiceTier;
use crate::verdict::Verdict;

pin_project! {
    /// The future of [`RateLimit`](super::RateLimit).
    ///
    /// Dropping it while it waits gives up its place, and the next in the queue moves up at once. Dropping it while
    /// the call is under way drops the call; what was charged stays charged, since the server may have it. Dropped
    /// before it was ever polled, it gives everything back.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        pub(super) state: State<S, B, F>,
        // `None` while it waits, and for what is not limited.
        pub(super) permit: Option<Permit>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<S, B, F> {
        // Admitted: the inner call is under way.
        Called { #[pin] future: F },
        // In the queue, or admitted and waiting for the inner service. Boxed, so that a future which is admitted
        // at once does not carry the request.
        Waiting { waiting: Box<Waiting<S, B>> },
        // Not admitted.
        Refused { error: Option<RateLimited> },
    }
}

pub(super) struct Waiting<S, B> {
    service: S,
    request: Option<Request<B>>,
    /// `None` once admitted.
    ticket: Option<Ticket>,
    /// For its turn, its deadline, or the queue's next change while this waiter drives it.
    timer: Option<Pin<Box<Sleep>>>,
    /// Admitted, but the inner service was not ready at once.
    delayed: bool,
}

/// A place in a queue. Dropping it leaves the queue.
pub(super) struct Ticket {
    key: Arc<Key>,
    place: WaiterId,
    /// When the request has waited for quota as long as it may.
    patience: Nanos,
    /// That is before its deadline.
    is_impatient: bool,
    /// The place was given back with the answer.
    left: bool,
}

impl Ticket {
    pub(super) const fn new(key: Arc<Key>, place: WaiterId, patience: Nanos, is_impatient: bool) -> Self {
        Self { key, place, patience, is_impatient, left: false }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.left {
            self.key.cancel(self.place);
        }
    }
}

impl<S, B, F> ResponseFuture<S, B, F> {
    #[cold]
    pub(super) fn queued(service: S, request: Request<B>, ticket: Ticket) -> Self {
        let waiting =
            Waiting { service, request: Some(request), ticket: Some(ticket), timer: None, delayed: false };
        Self { state: State::Waiting { waiting: Box::new(waiting) }, permit: None }
    }

    #[cold]
    pub(super) const fn refused(error: RateLimited) -> Self {
        Self { state: State::Refused { error: Some(error) }, permit: None }
    }
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the request: its headers hold the key.
        f.debug_struct("rate_limit::ResponseFuture").finish_non_exhaustive()
    }
}

impl<S, B, RB, E> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<RB>, Error = E>,
    E: Into<BoxError>,
    RB: Body,
{
    type Output = Result<Response<RateLimitBody<RB>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Called { future } => {
                    if let Some(permit) = this.permit {
                        permit.send();
                        held::reset();
                    }
                    return match future.poll(cx) {
                        Poll::Pending => {
                            if let Some(permit) = this.permit {
                                permit.pending(held::is_held());
                            }
                            Poll::Pending
                        }
                        Poll::Ready(Ok(mut response)) => {
                            let told = answered(&mut response, this.permit.take());
                            Poll::Ready(Ok(RateLimitBody::watch(response, told)))
                        }
                        Poll::Ready(Err(error)) => {
                            let error = error.into();
                            if let Some(permit) = this.permit.take() {
                                permit.errored(&error);
                            }
                            Poll::Ready(Err(error))
                        }
                    };
                }
                StateProj::Waiting { waiting } => {
                    if let Some(ticket) = &mut waiting.ticket {
                        let answer = ready!(held::hold(ticket.poll(&mut waiting.timer, cx)));
                        *this.permit = Some(answer?);
                        (waiting.ticket, waiting.timer) = (None, None);
                    }
                    let Poll::Ready(ready) = waiting.service.poll_ready(cx) else {
                        waiting.delayed = true;
                        return held::hold(Poll::Pending);
                    };
                    ready.map_err(Into::into)?;
                    if waiting.delayed {
                        // The server counts from now on, not from the admission.
                        if let Some(permit) = this.permit {
                            permit.restamp();
                        }
                    }
                    let request = waiting.request.take().expect("it is taken with the change of state");
                    if let Some(permit) = this.permit.as_mut().filter(|_| is_flex(&request)) {
                        permit.mark_flex();
                    }
                    let future = waiting.service.call(request);
                    this.state.set(State::Called { future });
                }
                StateProj::Refused { error } => {
                    let error = error.take().expect("polled after it was ready");
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }
}

fn is_flex<B>(request: &Request<B>) -> bool {
    ServiceTier::of(request) == Some(ServiceTier::Flex)
}

/// What a head has to say is learnt now, what its body has used when that ends.
#[inline(always)]
fn answered<RB: Body>(response: &mut Response<RB>, permit: Option<Permit>) -> EndHook<Permit> {
    let Some(mut permit) = permit else { return EndHook::nobody() };
    let Some(cell) = Verdict::good(response) else {
        permit.refused(response);
        return EndHook::nobody();
    };
    permit.answered();
    EndHook::of_good(response, cell.cloned(), permit)
}

impl Ticket {
    fn poll(
        &mut self,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Permit, RateLimited>> {
        if timer.as_ref().is_some_and(|sleep| sleep.is_elapsed()) {
            // Before it looks, which may bring the next timer forward.
            self.key.watch(self.place);
        }
        loop {
            match self.key.look(self.place, cx.waker()) {
                Look::Answered(answer) => {
                    self.left = true;
                    return Poll::Ready(match answer {
                        Ok(mut receipt) => {
                            receipt.waited = self.key.common().waited(self.patience);
                            Ok(Permit::new(Arc::clone(&self.key), receipt, true))
                        }
                        Err(refusal) => Err(self.key.refuse(refusal, self.patience, self.is_impatient)),
                    });
                }
                // Each has a timer of its own, so that nobody waits for another one's to be polled.
                Look::Waiting(at) | Look::Driving(at) => {
                    // Nothing will happen by itself; whoever changes that wakes this one.
                    let Some(at) = self.key.common().instant(at) else {
                        *timer = None;
                        return Poll::Pending;
                    };
                    let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
                    if sleep.deadline() != at {
                        sleep.as_mut().reset(at);
                    }
                    ready!(sleep.as_mut().poll(cx));
                    self.key.watch(self.place);
                }
            }
        }
    }
}
