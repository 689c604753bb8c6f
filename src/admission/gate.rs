//! What a layer brings to the shell: how it decides, what a call holds, and where it waits.

use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use http_body::Body;

use crate::blame::Caller;
use crate::body::on_end::{EndHook, OnEnd};
use crate::context::View;
use crate::context::deadline::Deadline;
use crate::error::BoxError;
use crate::request::Target;
use crate::seen::Remembered;
use crate::tier::ServiceTier;
use crate::verdict::Verdict;

/// A gate as far as it does not depend on the request's body.
pub trait Kind {
    /// The names of its service and its future, for `Debug`.
    const NAMES: (&'static str, &'static str);
    /// Whether it may answer `poll_ready` itself, and asks for the inner service's readiness.
    const ASKS: bool = false;
    /// What is kept for a key.
    type State: Remembered;
    /// What an admitted call holds.
    type Pass: Pass;
    /// What a call holds that waits.
    type Ticket: Ticket<Pass = Self::Pass>;
    /// The body of an answer.
    type Body<B: Body>: Body<Data = B::Data, Error = B::Error>;

    /// Wraps a body, whose end somebody may have to be told.
    fn watch<B: Body>(
        response: Response<B>,
        end: EndHook<<Self::Pass as Pass>::End>,
    ) -> Response<Self::Body<B>>;
}

/// A gate that may stand inside of another one: it needs nothing of a request but what a [`Visitor`] has.
pub trait Inner: Kind {
    /// Decides about a call. `ready` says that the inner service is; where it is not, a gate that [asks](Kind::ASKS) lets nobody
    /// pass at once.
    ///
    /// `deadline` is asked by those who wait.
    fn enter(
        state: Self::State,
        visitor: &Visitor,
        ready: bool,
        deadline: impl Fn() -> Option<Deadline>,
    ) -> Entry<Self>;
}

/// What a layer brings.
pub trait Gate<B> {
    /// What of it does not depend on the body.
    type Kind: Kind;

    /// Whether `poll_ready` is to be answered at once.
    fn is_unwell(&self) -> bool {
        false
    }

    /// The state of a target's key.
    fn find(&self, target: &Target<'_>) -> <Self::Kind as Kind>::State;

    /// As [`Inner::enter`].
    fn enter(
        &self,
        state: <Self::Kind as Kind>::State,
        request: &mut Request<B>,
        visitor: &Visitor,
        ready: bool,
    ) -> Entry<Self::Kind>;
}

/// What became of a call that came to a gate.
#[allow(missing_debug_implementations, reason = "internal")]
pub enum Entry<K: Kind + ?Sized> {
    /// It is admitted.
    Pass(K::Pass),
    /// It waits.
    Wait(K::Ticket),
    /// It is refused with this error.
    Refuse(BoxError),
}

/// What gates need to know of a request, found with one look.
#[derive(Clone, Copy, Debug)]
pub struct Visitor {
    pub(crate) caller: Caller,
    pub(crate) tier: Option<ServiceTier>,
    /// There is no other extension.
    pub(crate) is_plain: bool,
}

impl Visitor {
    #[inline(always)]
    pub(crate) fn of(view: View<'_>) -> Self {
        let is_plain = view.is_plain();
        let (caller, tier) = if is_plain { (0, None) } else { (view.caller(), view.tier()) };
        Self { caller, tier, is_plain }
    }
}

/// What a call holds while it is under way. Dropped, it is given back.
pub trait Pass {
    /// Who is told of the end of a good answer.
    type End: OnEnd;

    /// Whether it matters if the call is held back by a layer inside.
    const WATCHES_SENDING: bool = false;

    /// The call is about to be polled.
    fn send(&mut self) {}

    /// The call was polled and is pending; whether a layer inside holds it back.
    fn pending(&mut self, _held: bool) {}

    /// The call was admitted a while ago and is sent only now.
    fn leave_late(&mut self) {}

    /// The head of a good answer. `None` where there is nothing to tell at its end.
    fn answered(self, status: StatusCode) -> Option<Self::End>;

    /// The head of an answer that is none.
    fn failed<B>(self, response: &mut Response<B>, verdict: &Verdict);

    /// There is no answer. The error is handed on, or one around it.
    fn errored(self, error: BoxError) -> BoxError;
}

/// What a call holds while it waits. Dropped, it leaves the queue.
pub trait Ticket {
    /// What it becomes.
    type Pass;

    /// Whether it is only at the moment of sending that it decides, so that the readiness which was obtained is kept.
    fn keeps_readiness(&self) -> bool {
        false
    }

    /// Whether the turn has come. `ready` says that the inner service is ready. Not again after it was ready.
    fn poll(&mut self, cx: &mut Context<'_>, ready: bool) -> Poll<Result<Turn<Self::Pass>, BoxError>>;

    /// After [`Turn::AskReady`] the inner service was not ready.
    fn delayed(&mut self) {}
}

/// What a ticket says.
#[derive(Debug)]
pub enum Turn<P> {
    /// It is admitted.
    Come(P),
    /// Make the inner service ready first, and ask again.
    AskReady,
}

/// A gate of a layer that is off lets pass and holds nothing.
impl<P: Pass> Pass for Option<P> {
    type End = P::End;
    const WATCHES_SENDING: bool = P::WATCHES_SENDING;

    #[inline(always)]
    fn send(&mut self) {
        if let Some(pass) = self {
            pass.send();
        }
    }
    #[inline(always)]
    fn pending(&mut self, held: bool) {
        if let Some(pass) = self {
            pass.pending(held);
        }
    }
    fn leave_late(&mut self) {
        if let Some(pass) = self {
            pass.leave_late();
        }
    }
    #[inline(always)]
    fn answered(self, status: StatusCode) -> Option<P::End> {
        match self {
            Some(pass) => pass.answered(status),
            None => None,
        }
    }
    fn failed<B>(self, response: &mut Response<B>, verdict: &Verdict) {
        if let Some(pass) = self {
            pass.failed(response, verdict);
        }
    }
    fn errored(self, error: BoxError) -> BoxError {
        match self {
            Some(pass) => pass.errored(error),
            None => error,
        }
    }
}
