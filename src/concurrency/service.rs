use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::future::{State, Waiting};
use super::gate::{Entry, Gate, Visitor};
use super::shared::Shared;
use super::{ConcurrencyLimited, ConcurrencyReason, ResponseFuture};
use crate::context::View;
use crate::error::BoxError;
use crate::keyed::Memo;
use crate::time;

/// Lets as many calls out at once as the server answers in time. Made by
/// [`AdaptiveConcurrencyLayer`](super::AdaptiveConcurrencyLayer); see the [module documentation](super).
///
/// `poll_ready` is the inner service's own and holds no place under the limit.
pub struct AdaptiveConcurrency<S> {
    inner: S,
    shared: Arc<Shared>,
    memo: Memo<Gate>,
}

impl<S> AdaptiveConcurrency<S> {
    pub(super) const fn new(shared: Arc<Shared>, inner: S) -> Self {
        Self { inner, shared, memo: Memo::new() }
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to change it.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, by value.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone> Clone for AdaptiveConcurrency<S> {
    /// Whether readiness is cloned is the inner service's affair.
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared), memo: self.memo.clone() }
    }
}

impl<S: fmt::Debug> fmt::Debug for AdaptiveConcurrency<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptiveConcurrency").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, B, RB> Service<Request<B>> for AdaptiveConcurrency<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<RB>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline(always)]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = &self.shared;
        if !shared.settings.enabled {
            return ResponseFuture { state: State::Called { future: self.inner.call(request), slot: None } };
        }
        let view = View::of(&request);
        let gate = shared.gates.of_request(&mut self.memo, &request, view, |target| shared.gate(target));
        match gate.try_enter(view.caller()) {
            Ok(slot) => {
                ResponseFuture { state: State::Called { future: self.inner.call(request), slot: Some(slot) } }
            }
            Err(gate) => self.call_limited(request, &gate),
        }
    }
}

impl<S: Clone> AdaptiveConcurrency<S> {
    #[cold]
    fn call_limited<B, RB>(
        &mut self,
        request: Request<B>,
        gate: &Arc<Gate>,
    ) -> ResponseFuture<S, B, S::Future>
    where
        S: Service<Request<B>, Response = Response<RB>>,
    {
        let now = time::now();
        let view = View::of(&request);
        let (until, late) = match view.deadline() {
            Some(deadline) => (deadline.instant(), ConcurrencyReason::Deadline),
            None => (time::saturating_add(now, self.shared.settings.max_wait), ConcurrencyReason::MaxWait),
        };
        let visitor =
            Visitor { caller: view.caller(), until, is_deadline: late == ConcurrencyReason::Deadline };
        let refused = |why, earliest| State::Refused {
            error: Some(ConcurrencyLimited::new(Arc::clone(gate.key()), why, earliest)),
        };
        let state = match gate.enter(visitor, now) {
            Entry::Admitted(slot) => State::Called { future: self.inner.call(request), slot: Some(slot) },
            Entry::Full(earliest) => refused(ConcurrencyReason::QueueFull, earliest),
            Entry::Late(earliest) => refused(late, earliest),
            Entry::Queued(place) => {
                // The instance that was polled ready is dropped, and with it its reservation: nobody below has to
                // wait for one who waits here. The caller's next call polls a fresh one, and so does this call
                // when its turn has come.
                self.inner = self.inner.clone();
                let service = self.inner.clone();
                State::Waiting { waiting: Box::new(Waiting::new(place, service, request, until, late)) }
            }
        };
        ResponseFuture { state }
    }
}
