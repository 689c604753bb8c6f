use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::body::{CircuitBody, Watch};
use super::circuit::{Guard, Key};
use super::error::CircuitOpen;
use crate::blame::Caller;
use crate::body::on_end::EndHook;
use crate::error::{BoxError, FailedProbe, ProbeFailed};
use crate::event::LayerKind;
use crate::held;
use crate::layer_order;
use crate::verdict::{Signal, Verdict};

pin_project! {
    /// The future of [`CircuitBreaker`](super::CircuitBreaker).
    ///
    /// Dropping it in any state counts nothing; a probe's place is free again at once.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        pub(super) state: State<S, B, F>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<S, B, F> {
        // The call is under way. Without a guard it counts nothing.
        Called { #[pin] future: F, guard: Option<Guard> },
        // The circuit is open. `None` once that was said.
        Refused { refusal: Option<Box<CircuitOpen>> },
        // Not decided yet, or the inner service is not ready yet. Holds no place of the circuit's. `None` only
        // while it turns into a call.
        Asking { asking: Option<Asking<S, B>> },
    }
}

pub(super) struct Asking<S, B> {
    pub(super) service: S,
    /// This instance was polled ready.
    pub(super) ready: bool,
    pub(super) request: Request<B>,
    pub(super) key: Arc<Key>,
    pub(super) caller: Caller,
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the request: its headers hold the key.
        f.debug_struct("circuit_breaker::ResponseFuture").finish_non_exhaustive()
    }
}

impl<S, B, RB, E> Future for ResponseFuture<S, B, S::Future>
where
    S: Service<Request<B>, Response = Response<RB>, Error = E>,
    E: Into<BoxError>,
    RB: Body,
{
    type Output = Result<Response<CircuitBody<RB>>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Called { future, guard } => {
                    return match future.poll(cx) {
                        Poll::Pending => Poll::Pending,
                        Poll::Ready(Ok(mut response)) => {
                            let told = headed(&mut response, guard.take());
                            Poll::Ready(Ok(CircuitBody::watch(response, told)))
                        }
                        Poll::Ready(Err(error)) => Poll::Ready(Err(report_error(error.into(), guard.take()))),
                    };
                }
                StateProj::Refused { refusal } => {
                    let refusal = refusal.take().expect("polled after it was ready");
                    return Poll::Ready(Err(refusal));
                }
                StateProj::Asking { asking } => {
                    let waiting = asking.as_mut().expect("polled after it was ready");
                    if !waiting.ready {
                        // The inner service is asked only if its readiness may be of use.
                        if let Some(refusal) = waiting.key.refuse(waiting.caller) {
                            state.set(State::Refused { refusal: Some(refusal) });
                            continue;
                        }
                        ready!(held::hold(waiting.service.poll_ready(cx))).map_err(Into::into)?;
                        waiting.ready = true;
                    }
                    // The place is taken here and not before: nothing is waited for from here to the call.
                    match waiting.key.admit(waiting.caller) {
                        Ok(guard) => {
                            let Asking { mut service, request, .. } = asking.take().expect("it is there");
                            let future = service.call(request);
                            state.set(State::Called { future, guard });
                        }
                        Err(refusal) => state.set(State::Refused { refusal: Some(refusal) }),
                    }
                }
            }
        }
    }
}

/// The head is here, or there will be none: what can be told now is told now, the rest at the end of the body.
#[inline(always)]
fn headed<RB: Body>(response: &mut Response<RB>, guard: Option<Guard>) -> EndHook<Watch> {
    let Some(mut guard) = guard else { return EndHook::nobody() };
    guard.headed();
    if let Some(cell) = Verdict::good(response) {
        if guard.is_probe() {
            // The server is back. How long the answer is has nothing to do with it.
            let _ = guard.report(Signal::Success, None);
            return EndHook::nobody();
        }
        return EndHook::of_good(response, cell.cloned(), Watch { guard, status: response.status() });
    }
    report_failure(response, guard);
    EndHook::nobody()
}

#[cold]
fn report_failure<RB>(response: &mut Response<RB>, guard: Guard) {
    layer_order::passed(response, LayerKind::CircuitBreaker, guard.observer());
    let verdict = Verdict::of(response);
    let hint = verdict.server_delay().map(|delay| delay.at_least());
    let signal = guard.signals().of_verdict(&verdict);
    if let Some(until) = guard.report(signal, hint) {
        FailedProbe::mark(response, until);
    }
}

#[cold]
fn report_error(error: BoxError, guard: Option<Guard>) -> BoxError {
    let Some(mut guard) = guard else { return error };
    guard.headed();
    let signal = guard.signals().of_error(error.as_ref());
    match guard.report(signal, None) {
        Some(until) => Box::new(ProbeFailed::new(until, error)),
        None => error,
    }
}
