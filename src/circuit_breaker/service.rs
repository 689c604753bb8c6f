use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use http_body::Body;

use super::body::{CircuitBody, Watch};
use super::circuit::{Guard, Key, Shared};
use crate::admission::{self, Admission, Entry, Gate, Inner, Kind, Pass, Turn, Visitor};
use crate::blame::Caller;
use crate::body::on_end::EndHook;
use crate::context::deadline::Deadline;
use crate::error::timed_out::TimedOut;
use crate::error::{BoxError, FailedProbe, ProbeFailed};
use crate::event::LayerKind;
use crate::layer_order;
use crate::request::Target;
use crate::verdict::{Signal, Verdict};

/// Turns requests away while the server is unwell. Made by [`CircuitBreakerLayer`](super::CircuitBreakerLayer);
/// see the [module documentation](super).
///
/// `poll_ready` is the inner service's own while every circuit of the layer is closed. While one is not, it is ready at
/// once, without a word to the inner service: whose request will come is known in `call` only, and the future of
/// one that may go makes a clone of the inner service ready by itself.
pub type CircuitBreaker<S> = Admission<S, Breaker, Guards>;

/// The future of [`CircuitBreaker`].
///
/// Dropping it in any state counts nothing; a probe's place is free again at once.
pub type ResponseFuture<S, B, F> = admission::ResponseFuture<S, B, F, Guards>;

/// The gate of a circuit breaker.
#[derive(Clone, Debug)]
pub struct Breaker(pub(super) Arc<Shared>);

/// Calls hold guards.
#[derive(Debug)]
pub struct Guards;

impl Kind for Guards {
    const NAMES: (&'static str, &'static str) = ("CircuitBreaker", "circuit_breaker::ResponseFuture");
    const ASKS: bool = true;
    type State = Option<Arc<Key>>;
    /// `None` counts nothing.
    type Pass = Option<Guard>;
    type Ticket = Asking;
    type Body<B: Body> = CircuitBody<B>;

    #[inline(always)]
    fn watch<B: Body>(response: Response<B>, end: EndHook<Watch>) -> Response<CircuitBody<B>> {
        CircuitBody::watch(response, end)
    }
}

impl Inner for Guards {
    #[inline(always)]
    fn enter(
        key: Option<Arc<Key>>,
        visitor: &Visitor,
        ready: bool,
        _: impl Fn() -> Option<Deadline>,
    ) -> Entry<Self> {
        let Some(key) = key else {
            return if ready { Entry::Pass(None) } else { Entry::Wait(Asking { key: None, caller: 0 }) };
        };
        if ready {
            if let Some(pass) = key.gate.admit_free() {
                return Entry::Pass(Some(Guard::new(key, pass, visitor.caller)));
            }
        }
        ask(key, visitor.caller)
    }
}

/// A request that is turned away, or that must be decided about when it is sent.
#[inline(never)]
fn ask(key: Arc<Key>, caller: Caller) -> Entry<Guards> {
    match key.refuse(caller) {
        Some(refusal) => Entry::Refuse(refusal),
        None => Entry::Wait(Asking { key: Some(key), caller }),
    }
}

impl<B> Gate<B> for Breaker {
    type Kind = Guards;

    #[inline]
    fn is_unwell(&self) -> bool {
        self.0.common.is_any_unwell()
    }

    fn find(&self, target: &Target<'_>) -> Option<Arc<Key>> {
        self.0.common.enabled.then(|| self.0.of_target(target))
    }

    #[inline(always)]
    fn enter(
        &self,
        state: Option<Arc<Key>>,
        _: &mut Request<B>,
        visitor: &Visitor,
        ready: bool,
    ) -> Entry<Guards> {
        Guards::enter(state, visitor, ready, || None)
    }
}

/// A request that is not decided about yet. Holds no place of the circuit's.
pub struct Asking {
    /// `None` where the layer is off.
    key: Option<Arc<Key>>,
    caller: Caller,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").finish_non_exhaustive()
    }
}

impl admission::Ticket for Asking {
    type Pass = Option<Guard>;

    fn keeps_readiness(&self) -> bool {
        true
    }

    fn poll(&mut self, _: &mut Context<'_>, ready: bool) -> Poll<Result<Turn<Self::Pass>, BoxError>> {
        let Some(key) = &self.key else {
            return Poll::Ready(Ok(if ready { Turn::Come(None) } else { Turn::AskReady }));
        };
        Poll::Ready(if ready {
            // The place is taken here and not before: nothing is waited for from here to the call.
            key.admit(self.caller).map(Turn::Come).map_err(Into::into)
        } else {
            // The inner service is asked only if its readiness may be of use.
            match key.refuse(self.caller) {
                Some(refusal) => Err(refusal),
                None => Ok(Turn::AskReady),
            }
        })
    }
}

impl Pass for Guard {
    type End = Watch;

    #[inline(always)]
    fn answered(mut self, status: StatusCode) -> Option<Watch> {
        self.headed();
        if self.is_probe() {
            // The server is back. How long the answer is has nothing to do with it.
            let _ = self.report(Signal::Success, None);
            return None;
        }
        Some(Watch { guard: self, status })
    }

    fn failed<B>(mut self, response: &mut Response<B>, verdict: &Verdict) {
        self.headed();
        layer_order::passed(response, LayerKind::CircuitBreaker, self.observer());
        let hint = verdict.server_delay().map(|delay| delay.at_least());
        let signal = self.signals().of_verdict(verdict);
        if let Some(until) = self.report(signal, hint) {
            FailedProbe::mark(response, until);
        }
    }

    fn errored(mut self, mut error: BoxError) -> BoxError {
        TimedOut::name(&mut error, self.key().model());
        self.headed();
        let signal = self.signals().of_error(error.as_ref());
        match self.report(signal, None) {
            Some(until) => Box::new(ProbeFailed::new(until, error)),
            None => error,
        }
    }
}
