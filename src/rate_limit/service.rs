use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::desk::Arrival;
use super::estimate::{Cost, Estimate};
use super::future::{ResponseFuture, State, Ticket};
use super::permit::Permit;
use super::shared::{Key, Shared};
use super::{BySize, RateLimitBody, RateLimits};
use crate::context::View;
use crate::error::BoxError;
use crate::keyed::Memo;
use crate::request::quota_key::Pool;
use crate::tier::ServiceTier;
use crate::timeout::Deadline;

/// Admits requests at the pace of their quota. Made by [`RateLimitLayer`](super::RateLimitLayer); see the [module
/// documentation](super).
///
/// `poll_ready` is the inner service's own: it takes no permit and no place in the queue.
pub struct RateLimit<S, E = BySize> {
    inner: S,
    core: Arc<Core<E>>,
    memo: Memo<Key>,
}

/// What the services of one layer share.
pub(super) struct Core<E> {
    pub(super) shared: Arc<Shared>,
    pub(super) estimate: E,
}

impl<S, E> RateLimit<S, E> {
    pub(super) const fn new(core: Arc<Core<E>>, inner: S) -> Self {
        Self { inner, core, memo: Memo::new() }
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

    /// What the layer knows, to look at and to change.
    #[must_use]
    pub fn handle(&self) -> RateLimits {
        RateLimits::new(Arc::clone(&self.core.shared))
    }
}

// By hand: `E` need not be `Clone`, and a clone shares everything but the inner service.
impl<S: Clone, E> Clone for RateLimit<S, E> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), core: Arc::clone(&self.core), memo: self.memo.clone() }
    }
}

impl<S: fmt::Debug, E> fmt::Debug for RateLimit<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, E, B, RB> Service<Request<B>> for RateLimit<S, E>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    E: Estimate<B>,
    B: Body,
    RB: Body,
{
    type Response = Response<RateLimitBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline(always)]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let core = &self.core;
        let keys = &core.shared.keys;
        let view = View::of(&request);
        let key = keys.of_request(&mut self.memo, &request, view, |target| core.shared.key_of(target));
        let cost = match key.id().pool() {
            Pool::Unlimited => {
                let state = State::Called { future: self.inner.call(request) };
                return ResponseFuture { state, permit: None };
            }
            pool if pool.is_model_work() => Cost::of(&request, view.get(), &core.estimate),
            _ => Cost::FREE,
        };
        let deadline = view.deadline().map(Deadline::instant);
        let quota = || view.more().map(|more| more.quota).unwrap_or_default();
        let (arrival, patience) = key.enter(cost, deadline, quota);
        match arrival {
            Arrival::Granted(receipt) => {
                let permit = Permit::new(key, receipt, view.tier() != Some(ServiceTier::Flex));
                ResponseFuture {
                    state: State::Called { future: self.inner.call(request) },
                    permit: Some(permit),
                }
            }
            Arrival::Queued(place, _) => {
                let ticket = Ticket::new(key, place, patience);
                // The readiness that the caller obtained goes back while the request waits: others may need it.
                // What waits asks a clone of its own when its turn has come.
                let fresh = self.inner.clone();
                drop(std::mem::replace(&mut self.inner, fresh.clone()));
                ResponseFuture::queued(fresh, request, ticket)
            }
            Arrival::Refused(refusal) => ResponseFuture::refused(key.refuse(refusal, patience)),
        }
    }
}
