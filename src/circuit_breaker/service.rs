use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::body::CircuitBody;
use super::circuit::{Guard, Key, Shared};
use super::future::{Asking, ResponseFuture, State};
use crate::blame::Caller;
use crate::context::View;
use crate::error::BoxError;
use crate::keyed::Memo;

/// Turns requests away while the server is unwell. Made by [`CircuitBreakerLayer`](super::CircuitBreakerLayer);
/// see the [module documentation](super).
///
/// `poll_ready` is the inner service's own while every circuit of the layer is closed. While one is not, it is ready at
/// once, without a word to the inner service: whose request will come is known in `call` only, and the future of
/// one that may go makes a clone of the inner service ready by itself.
pub struct CircuitBreaker<S> {
    inner: S,
    /// `inner` was polled ready and not called since.
    ready: bool,
    memo: Memo<Key>,
    shared: Arc<Shared>,
}

impl<S> CircuitBreaker<S> {
    pub(super) const fn new(shared: Arc<Shared>, inner: S) -> Self {
        Self { inner, ready: false, memo: Memo::new(), shared }
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

impl<S: Clone> CircuitBreaker<S> {
    /// For a request that is turned away, or that must be decided about when it is sent.
    #[inline(never)]
    fn ask<B, F>(&mut self, key: Arc<Key>, request: Request<B>, caller: Caller) -> ResponseFuture<S, B, F> {
        let ready = std::mem::take(&mut self.ready);
        if let Some(refusal) = key.refuse(caller) {
            if ready {
                // Its reservation goes back: nobody's slot is held while the circuit is open.
                self.inner = self.inner.clone();
            }
            return ResponseFuture { state: State::Refused { refusal: Some(refusal) } };
        }
        // The instance that was polled ready goes with the call.
        let service = self.inner.clone();
        let service = if ready { std::mem::replace(&mut self.inner, service) } else { service };
        ResponseFuture {
            state: State::Asking { asking: Some(Asking { service, ready, request, key, caller }) },
        }
    }
}

impl<S: Clone> Clone for CircuitBreaker<S> {
    /// Readiness is not copied: it is the inner instance's own.
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            ready: false,
            memo: self.memo.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for CircuitBreaker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl<S, B, RB> Service<Request<B>> for CircuitBreaker<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    RB: Body,
{
    type Response = Response<CircuitBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if self.shared.common.is_any_unwell() {
            return Poll::Ready(Ok(()));
        }
        let ready = self.inner.poll_ready(cx);
        self.ready = matches!(ready, Poll::Ready(Ok(())));
        ready.map_err(Into::into)
    }

    #[inline(always)]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = &*self.shared;
        if !shared.common.enabled && self.ready {
            self.ready = false;
            return ResponseFuture { state: State::Called { future: self.inner.call(request), guard: None } };
        }
        let view = View::of(&request);
        let key = shared.keyed.of_request(&mut self.memo, &request, view, |target| shared.of_target(target));
        let caller = view.caller();
        if self.ready {
            if let Some(pass) = key.gate.admit_free() {
                self.ready = false;
                let guard = Some(Guard::new(key, pass, caller));
                return ResponseFuture { state: State::Called { future: self.inner.call(request), guard } };
            }
        }
        self.ask(key, request, caller)
    }
}
