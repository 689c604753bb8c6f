//! Two gates in one shell, of which either may be two.

use std::marker::PhantomData;
use std::task::{Context, Poll, ready};

use http::{Request, Response, StatusCode};
use http_body::Body;

use super::body::AdmittedBody;
use super::{Entry, Gate, Inner, Kind, Pass, Ticket, Turn, Visitor};
use crate::body::on_end::{EndHook, OnEnd};
use crate::context::View;
use crate::context::deadline::Deadline;
use crate::error::BoxError;
use crate::request::Target;
use crate::verdict::{End, EndCell, Verdict};

/// A gate around another one.
#[derive(Clone, Debug)]
pub struct Both<A, Z> {
    outer: A,
    inner: Z,
}

impl<A, Z> Both<A, Z> {
    pub(crate) const fn new(outer: A, inner: Z) -> Self {
        Self { outer, inner }
    }
}

/// The kind of [`Both`].
#[derive(Debug)]
pub struct Kinds<A, Z>(PhantomData<(A, Z)>);

impl<A: Kind, Z: Inner> Kind for Kinds<A, Z> {
    const NAMES: (&'static str, &'static str) = ("Admission", "admission::ResponseFuture");
    const ASKS: bool = A::ASKS || Z::ASKS;
    type State = (A::State, Z::State);
    type Pass = Passes<A::Pass, Z::Pass>;
    type Ticket = Tickets<A, Z>;
    type Body<B: Body> = AdmittedBody<B, Ends<<A::Pass as Pass>::End, <Z::Pass as Pass>::End>>;

    #[inline(always)]
    fn watch<B: Body>(
        response: Response<B>,
        end: EndHook<<Self::Pass as Pass>::End>,
    ) -> Response<Self::Body<B>> {
        AdmittedBody::watch(response, end)
    }
}

impl<A: Inner, Z: Inner> Inner for Kinds<A, Z> {
    #[inline(always)]
    fn enter(
        state: Self::State,
        visitor: &Visitor,
        ready: bool,
        deadline: impl Fn() -> Option<Deadline>,
    ) -> Entry<Self> {
        let outer = A::enter(state.0, visitor, ready, &deadline);
        go_on(outer, state.1, visitor, ready, deadline)
    }
}

impl<B, A, Z> Gate<B> for Both<A, Z>
where
    A: Gate<B>,
    Z: Gate<B, Kind: Inner>,
{
    type Kind = Kinds<A::Kind, Z::Kind>;

    #[inline]
    fn is_unwell(&self) -> bool {
        self.outer.is_unwell() || self.inner.is_unwell()
    }

    fn find(&self, target: &Target<'_>) -> <Self::Kind as Kind>::State {
        (self.outer.find(target), self.inner.find(target))
    }

    #[inline(always)]
    fn enter(
        &self,
        state: <Self::Kind as Kind>::State,
        request: &mut Request<B>,
        visitor: &Visitor,
        ready: bool,
    ) -> Entry<Self::Kind> {
        let outer = self.outer.enter(state.0, request, visitor, ready);
        go_on(outer, state.1, visitor, ready, || View::of(request).deadline())
    }
}

/// From the outer gate to the inner one.
#[inline(always)]
fn go_on<A: Kind, Z: Inner>(
    entry: Entry<A>,
    state: Z::State,
    visitor: &Visitor,
    ready: bool,
    deadline: impl Fn() -> Option<Deadline>,
) -> Entry<Kinds<A, Z>> {
    match entry {
        Entry::Pass(outer) => match Z::enter(state, visitor, ready, deadline) {
            Entry::Pass(inner) => Entry::Pass(Passes { inner, outer }),
            Entry::Wait(ticket) => {
                Entry::Wait(Tickets::Second { ticket, outer: Some(outer), is_delayed: false })
            }
            Entry::Refuse(error) => Entry::Refuse(outer.errored(error)),
        },
        Entry::Wait(ticket) => Entry::Wait(Tickets::First {
            ticket,
            state: Some(state),
            visitor: *visitor,
            deadline: deadline(),
        }),
        Entry::Refuse(error) => Entry::Refuse(error),
    }
}

/// What a call holds of both. The inner one's is dropped first.
#[derive(Debug)]
pub struct Passes<A, Z> {
    inner: Z,
    outer: A,
}

impl<A: Pass, Z: Pass> Pass for Passes<A, Z> {
    type End = Ends<A::End, Z::End>;
    const WATCHES_SENDING: bool = A::WATCHES_SENDING || Z::WATCHES_SENDING;

    #[inline(always)]
    fn send(&mut self) {
        self.outer.send();
        self.inner.send();
    }
    #[inline(always)]
    fn pending(&mut self, held: bool) {
        self.inner.pending(held);
        self.outer.pending(held);
    }
    fn leave_late(&mut self) {
        self.outer.leave_late();
        self.inner.leave_late();
    }
    #[inline(always)]
    fn answered(self, status: StatusCode) -> Option<Self::End> {
        let inner = self.inner.answered(status);
        let outer = self.outer.answered(status);
        if inner.is_none() && outer.is_none() { None } else { Some(Ends { inner, outer }) }
    }
    fn failed<B>(self, response: &mut Response<B>, verdict: &Verdict) {
        self.inner.failed(response, verdict);
        self.outer.failed(response, verdict);
    }
    fn errored(self, error: BoxError) -> BoxError {
        let error = self.inner.errored(error);
        self.outer.errored(error)
    }
}

/// Who is told of the end of a body, the inner one first.
#[derive(Debug)]
pub struct Ends<A, Z> {
    inner: Option<Z>,
    outer: Option<A>,
}

impl<A: OnEnd, Z: OnEnd> OnEnd for Ends<A, Z> {
    #[inline]
    fn on_end(self, end: End) {
        self.on_end_of(end, None);
    }

    #[inline]
    fn on_end_of(self, end: End, cell: Option<&EndCell>) {
        if let Some(inner) = self.inner {
            inner.on_end_of(end, cell);
        }
        if let Some(outer) = self.outer {
            outer.on_end_of(end, cell);
        }
    }

    fn wants_usage(&self) -> bool {
        self.inner.as_ref().is_some_and(OnEnd::wants_usage)
            || self.outer.as_ref().is_some_and(OnEnd::wants_usage)
    }
}

/// Where a call waits.
#[allow(missing_debug_implementations, reason = "internal")]
pub enum Tickets<A: Kind, Z: Inner> {
    /// At the outer gate, with the inner one's state for later.
    First { ticket: A::Ticket, state: Option<Z::State>, visitor: Visitor, deadline: Option<Deadline> },
    /// At the inner one. What the outer has admitted is dropped after the ticket.
    Second { ticket: Z::Ticket, outer: Option<A::Pass>, is_delayed: bool },
}

impl<A: Kind, Z: Inner> Ticket for Tickets<A, Z> {
    type Pass = Passes<A::Pass, Z::Pass>;

    fn keeps_readiness(&self) -> bool {
        match self {
            Self::First { ticket, .. } => ticket.keeps_readiness(),
            Self::Second { ticket, .. } => ticket.keeps_readiness(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, ready: bool) -> Poll<Result<Turn<Self::Pass>, BoxError>> {
        loop {
            match self {
                Self::First { ticket, state, visitor, deadline } => {
                    let outer = match ready!(ticket.poll(cx, ready))? {
                        Turn::Come(outer) => outer,
                        Turn::AskReady => return Poll::Ready(Ok(Turn::AskReady)),
                    };
                    let state = state.take().expect("the outer gate is passed once");
                    match Z::enter(state, visitor, ready, || *deadline) {
                        Entry::Pass(inner) => return Poll::Ready(Ok(Turn::Come(Passes { inner, outer }))),
                        Entry::Wait(ticket) => {
                            *self = Self::Second { ticket, outer: Some(outer), is_delayed: false };
                        }
                        Entry::Refuse(error) => return Poll::Ready(Err(outer.errored(error))),
                    }
                }
                Self::Second { ticket, outer, is_delayed } => {
                    let turn = match ticket.poll(cx, ready) {
                        Poll::Pending => {
                            *is_delayed = true;
                            return Poll::Pending;
                        }
                        Poll::Ready(Ok(turn)) => turn,
                        Poll::Ready(Err(error)) => {
                            let outer = outer.take().expect("it is refused once");
                            return Poll::Ready(Err(outer.errored(error)));
                        }
                    };
                    let Turn::Come(inner) = turn else { return Poll::Ready(Ok(Turn::AskReady)) };
                    let mut outer = outer.take().expect("the inner gate is passed once");
                    if *is_delayed {
                        outer.leave_late();
                    }
                    return Poll::Ready(Ok(Turn::Come(Passes { inner, outer })));
                }
            }
        }
    }

    fn delayed(&mut self) {
        match self {
            Self::First { ticket, .. } => ticket.delayed(),
            Self::Second { ticket, is_delayed, .. } => {
                ticket.delayed();
                *is_delayed = true;
            }
        }
    }
}
