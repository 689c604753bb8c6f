use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::gate::{Slot, Turn, WaiterId};
use super::{ConcurrencyLimited, ConcurrencyReason};
use crate::error::BoxError;
use crate::event::LayerKind;
use crate::held;
use crate::layer_order;
use crate::time;
use crate::verdict::{Signal, Verdict};

pin_project! {
    /// The future of [`AdaptiveConcurrency`](super::AdaptiveConcurrency).
    ///
    /// Dropping it in any state drops the call, and gives back its place under the limit or in the queue. A turn
    /// that had come and was not used yet passes on to the next in the queue. Nothing is counted.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        pub(super) state: State<S, B, F>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<S, B, F> {
        // The call is under way. The slot comes after the future, so that it is free only when the call is gone.
        Called { #[pin] future: F, slot: Option<Slot> },
        // In the queue, or about to be sent. Boxed, so that a call that need not wait does not carry the room for it.
        Waiting { waiting: Box<Waiting<S, B>> },
        // Turned away.
        Refused { error: Option<ConcurrencyLimited> },
    }
}

/// A request that waits. Holds no readiness of the inner service until its turn has come.
pub(super) struct Waiting<S, B> {
    /// The turn that has come; then the inner service is being made ready. Before it, `place` is held.
    slot: Option<Slot>,
    place: WaiterId,
    service: S,
    /// `None` once it was sent.
    request: Option<Request<B>>,
    deadline: Instant,
    late: ConcurrencyReason,
    /// For the deadline, and for the pace while this is the first of the queue.
    sleep: Pin<Box<Sleep>>,
}

impl<S, B> Waiting<S, B> {
    pub(super) fn new(
        place: WaiterId,
        service: S,
        request: Request<B>,
        deadline: Instant,
        late: ConcurrencyReason,
    ) -> Self {
        let sleep = Box::pin(tokio::time::sleep_until(deadline));
        Self { slot: None, place, service, request: Some(request), deadline, late, sleep }
    }

    /// Ready when it has a slot, or when it is too late for one.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConcurrencyLimited>> {
        while self.slot.is_none() {
            let now = time::now();
            match self.place.look(now, cx.waker()) {
                Turn::Come(slot) => self.slot = Some(slot),
                Turn::Late => return Poll::Ready(Err(self.place.limited(self.late, None))),
                Turn::Wait(_, pace) if self.deadline <= now => {
                    return Poll::Ready(Err(self.place.limited(self.late, pace)));
                }
                Turn::Wait(look_again, _) => {
                    let timer = look_again.min(self.deadline);
                    if self.sleep.deadline() != timer {
                        self.sleep.as_mut().reset(timer);
                    }
                    ready!(self.sleep.as_mut().poll(cx));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S, B, RB, E> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<RB>, Error = E>,
    E: Into<BoxError>,
{
    type Output = Result<Response<RB>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Called { future, slot } => {
                    return match future.poll(cx) {
                        Poll::Pending => Poll::Pending,
                        Poll::Ready(Ok(mut response)) => {
                            headed(&mut response, slot.take());
                            Poll::Ready(Ok(response))
                        }
                        Poll::Ready(Err(error)) => Poll::Ready(Err(errored(error.into(), slot.take()))),
                    };
                }
                StateProj::Waiting { waiting } => {
                    ready!(held::hold(waiting.poll_turn(cx)))?;
                    ready!(held::hold(waiting.service.poll_ready(cx))).map_err(Into::into)?;
                    let request = waiting.request.take().expect("it is sent once");
                    let slot = waiting.slot.take();
                    let future = waiting.service.call(request);
                    this.state.set(State::Called { future, slot });
                }
                StateProj::Refused { error } => {
                    let error = error.take().expect("polled after it was ready");
                    return Poll::Ready(Err(error.into()));
                }
            }
        }
    }
}

/// The call is no longer in flight: the server has shown that it answers, or what is wrong with it.
#[inline(always)]
fn headed<RB>(response: &mut Response<RB>, slot: Option<Slot>) {
    let Some(slot) = slot else { return };
    if Verdict::good(response).is_some() {
        return slot.end(Signal::Success);
    }
    failed(response, slot);
}

#[cold]
fn failed<RB>(response: &mut Response<RB>, slot: Slot) {
    layer_order::passed(response, LayerKind::Concurrency, slot.observer());
    let signal = slot.signals().of_verdict(&Verdict::of(response));
    slot.end(signal);
}

#[cold]
fn errored(error: BoxError, slot: Option<Slot>) -> BoxError {
    if let Some(slot) = slot {
        let signal = slot.signals().of_error(error.as_ref());
        slot.end(signal);
    }
    error
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the request: its headers hold the key.
        f.debug_struct("concurrency::ResponseFuture").finish_non_exhaustive()
    }
}
