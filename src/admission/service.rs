use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::both::{Both, Kinds};
use super::future::{ResponseFuture, State, Waiting};
use super::{Entry, Gate, Inner, Kind, Ticket, Visitor};
use crate::context::View;
use crate::error::BoxError;
use crate::seen::{Memo, Recent};

/// A service behind a gate. See the [module documentation](super).
pub struct Admission<S, G, K: Kind> {
    inner: S,
    /// `inner` was polled ready and not called since.
    ready: bool,
    memo: Memo<K::State>,
    shared: Arc<Shared<G, K>>,
}

struct Shared<G, K: Kind> {
    gate: G,
    /// What the clones of this service remember together.
    recent: Recent<K::State>,
}

impl<S, G, K: Kind> Admission<S, G, K> {
    pub(crate) fn new(gate: G, inner: S) -> Self {
        let shared = Arc::new(Shared { gate, recent: Recent::new() });
        Self { inner, ready: false, memo: Memo::new(), shared }
    }

    pub(crate) fn gate(&self) -> &G {
        &self.shared.gate
    }

    /// The same service behind one more gate, which is the outer one.
    pub(crate) fn behind<A, O: Kind>(self, outer: A) -> Admission<S, Both<A, G>, Kinds<O, K>>
    where
        G: Clone,
        K: Inner,
    {
        Admission::new(Both::new(outer, self.shared.gate.clone()), self.inner)
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

// By hand: `G` need not be `Clone`.
impl<S: Clone, G, K: Kind> Clone for Admission<S, G, K> {
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

impl<S: fmt::Debug, G, K: Kind> fmt::Debug for Admission<S, G, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(K::NAMES.0).field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, G, K, B, RB> Service<Request<B>> for Admission<S, G, K>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    G: Gate<B, Kind = K>,
    K: Kind,
    RB: Body,
{
    type Response = Response<K::Body<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future, K>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        if K::ASKS && self.shared.gate.is_unwell() {
            return Poll::Ready(Ok(()));
        }
        let ready = self.inner.poll_ready(cx);
        self.ready = matches!(ready, Poll::Ready(Ok(())));
        ready.map_err(Into::into)
    }

    #[inline(always)]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let ready = std::mem::take(&mut self.ready) || !K::ASKS;
        let view = View::of(&request);
        let shared = &*self.shared;
        let state =
            shared.recent.of_request(&mut self.memo, &request, view, |target| shared.gate.find(target));
        let visitor = Visitor::of(view);
        match shared.gate.enter(state, &mut request, &visitor, ready) {
            Entry::Pass(pass) => {
                ResponseFuture { state: State::Called { future: self.inner.call(request), pass: Some(pass) } }
            }
            Entry::Wait(ticket) => self.wait(request, ticket, ready),
            Entry::Refuse(error) => self.refuse(error, ready),
        }
    }
}

impl<S: Clone, G, K: Kind> Admission<S, G, K> {
    #[cold]
    fn wait<B, F>(
        &mut self,
        request: Request<B>,
        ticket: K::Ticket,
        ready: bool,
    ) -> ResponseFuture<S, B, F, K> {
        let fresh = self.inner.clone();
        let keeps = ready && ticket.keeps_readiness();
        let service = if keeps {
            // The instance that was polled ready goes with the call.
            std::mem::replace(&mut self.inner, fresh)
        } else {
            // Its reservation goes back while the request waits: nobody below has to wait for one who waits here. The
            // caller's next call polls a fresh one, and so does this call when its turn has come.
            self.inner = fresh.clone();
            fresh
        };
        let waiting = Waiting::new(ticket, service, keeps, request);
        ResponseFuture { state: State::Waiting { waiting: Box::new(waiting) } }
    }

    #[cold]
    fn refuse<B, F>(&mut self, error: BoxError, ready: bool) -> ResponseFuture<S, B, F, K> {
        if K::ASKS && ready {
            // Its reservation goes back: nobody's slot is held while a circuit is open.
            self.inner = self.inner.clone();
        }
        ResponseFuture { state: State::Refused { error: Some(error) } }
    }
}
