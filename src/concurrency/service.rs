use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response, StatusCode};
use http_body::Body;
use tokio::time::{Instant, Sleep};

use super::gate::{Entry, Gate, Slot, Turn, WaiterId};
use super::queue::Visitor;
use super::shared::Shared;
use super::{ConcurrencyLimited, ConcurrencyReason};
use crate::admission::{self, Admission, Inner, Kind, Pass};
use crate::blame::Caller;
use crate::body::on_end::{EndHook, OnEnd};
use crate::context::View;
use crate::context::deadline::Deadline;
use crate::error::BoxError;
use crate::error::timed_out::TimedOut;
use crate::event::LayerKind;
use crate::layer_order;
use crate::request::Target;
use crate::time;
use crate::verdict::{End, Signal, Verdict};

/// Lets as many calls out at once as the server answers in time. Made by
/// [`AdaptiveConcurrencyLayer`](super::AdaptiveConcurrencyLayer); see the [module documentation](super).
///
/// `poll_ready` is the inner service's own and holds no place under the limit.
pub type AdaptiveConcurrency<S> = Admission<S, Concurrency, Slots>;

/// The future of [`AdaptiveConcurrency`].
///
/// Dropping it in any state drops the call, and gives back its place under the limit or in the queue. A turn
/// that had come and was not used yet passes on to the next in the queue. Nothing is counted.
pub type ResponseFuture<S, B, F> = admission::ResponseFuture<S, B, F, Slots>;

/// The gate of a concurrency limit.
#[derive(Clone, Debug)]
pub struct Concurrency(pub(super) Arc<Shared>);

/// Calls hold slots.
#[derive(Debug)]
pub struct Slots;

impl Kind for Slots {
    const NAMES: (&'static str, &'static str) = ("AdaptiveConcurrency", "concurrency::ResponseFuture");
    type State = Option<Arc<Gate>>;
    type Pass = Option<Slot>;
    type Ticket = Ticket;
    /// The call is over with its head.
    type Body<B: Body> = B;

    #[inline(always)]
    fn watch<B: Body>(response: Response<B>, _: EndHook<Nobody>) -> Response<B> {
        response
    }
}

impl Inner for Slots {
    #[inline(always)]
    fn enter(
        gate: Option<Arc<Gate>>,
        visitor: &admission::Visitor,
        _ready: bool,
        deadline: impl Fn() -> Option<Deadline>,
    ) -> admission::Entry<Self> {
        let Some(gate) = gate else { return admission::Entry::Pass(None) };
        match gate.try_enter(visitor.caller) {
            Ok(slot) => admission::Entry::Pass(Some(slot)),
            Err(gate) => enter_limited(&gate, visitor.caller, deadline()),
        }
    }
}

#[cold]
fn enter_limited(gate: &Arc<Gate>, caller: Caller, deadline: Option<Deadline>) -> admission::Entry<Slots> {
    let now = time::now();
    let (until, late) = match deadline {
        Some(deadline) => (deadline.instant(), ConcurrencyReason::Deadline),
        None => (time::saturating_add(now, gate.settings().max_wait), ConcurrencyReason::MaxWait),
    };
    let is_deadline = late == ConcurrencyReason::Deadline;
    let refused = |why, earliest| {
        let error = ConcurrencyLimited::new(Arc::clone(gate.key()), why, earliest);
        admission::Entry::Refuse(error.into())
    };
    match gate.enter(Visitor { caller, until, is_deadline }, now) {
        Entry::Admitted(slot) => admission::Entry::Pass(Some(slot)),
        Entry::Full(earliest) => refused(ConcurrencyReason::QueueFull, earliest),
        Entry::Late(earliest) => refused(late, earliest),
        Entry::Queued(place) => {
            let sleep = Box::pin(tokio::time::sleep_until(until));
            admission::Entry::Wait(Ticket { place, deadline: until, late, sleep })
        }
    }
}

impl<B> admission::Gate<B> for Concurrency {
    type Kind = Slots;

    fn find(&self, target: &Target<'_>) -> Option<Arc<Gate>> {
        self.0.settings.enabled.then(|| self.0.gate(target))
    }

    #[inline(always)]
    fn enter(
        &self,
        state: Option<Arc<Gate>>,
        request: &mut Request<B>,
        visitor: &admission::Visitor,
        ready: bool,
    ) -> admission::Entry<Slots> {
        Slots::enter(state, visitor, ready, || View::of(request).deadline())
    }
}

/// A place in the queue.
pub struct Ticket {
    place: WaiterId,
    deadline: Instant,
    late: ConcurrencyReason,
    /// For the deadline, and for the pace while this is the first of the queue.
    sleep: Pin<Box<Sleep>>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl admission::Ticket for Ticket {
    type Pass = Option<Slot>;

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        _ready: bool,
    ) -> Poll<Result<admission::Turn<Self::Pass>, BoxError>> {
        loop {
            let now = time::now();
            match self.place.look(now, cx.waker()) {
                Turn::Come(slot) => return Poll::Ready(Ok(admission::Turn::Come(Some(slot)))),
                Turn::Late => return Poll::Ready(Err(self.place.limited(self.late, None).into())),
                Turn::Wait(_, pace) if self.deadline <= now => {
                    return Poll::Ready(Err(self.place.limited(self.late, pace).into()));
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
    }
}

/// Nobody is told of an end: with its head a call is no longer in flight.
#[derive(Debug)]
pub enum Nobody {}

impl OnEnd for Nobody {
    fn on_end(self, _: End) {
        match self {}
    }
}

impl Pass for Slot {
    type End = Nobody;

    /// The server has shown that it answers.
    #[inline(always)]
    fn answered(self, _: StatusCode) -> Option<Nobody> {
        self.end(Signal::Success);
        None
    }

    fn failed<B>(self, response: &mut Response<B>, verdict: &Verdict) {
        layer_order::passed(response, LayerKind::Concurrency, self.observer());
        let signal = self.signals().of_verdict(verdict);
        self.end(signal);
    }

    fn errored(self, mut error: BoxError) -> BoxError {
        TimedOut::name(&mut error, self.key().model());
        let signal = self.signals().of_error(error.as_ref());
        self.end(signal);
        error
    }
}
