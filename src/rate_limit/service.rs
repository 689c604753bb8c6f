use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::estimate::{Cost, Estimate, Units};
use super::future::{ResponseFuture, State, Ticket};
use super::permit::Permit;
use super::scheduler::Arrival;
use super::shared::{Key, Shared, Work};
use super::{BySize, RateLimitBody, RateLimits};
use crate::call_options::RequestClass;
use crate::context::deadline::Deadline;
use crate::context::{Context, View};
use crate::error::BoxError;
use crate::keyed::Memo;
use crate::tier::ServiceTier;

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

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline(always)]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let core = &self.core;
        if !core.shared.enabled {
            return ResponseFuture {
                state: State::Called { future: self.inner.call(request) },
                permit: None,
            };
        }
        let keys = &core.shared.keys;
        let mut view = View::of(&request);
        let key = keys.of_request(&mut self.memo, &request, view, |target| core.shared.key_of(target));
        let cost = match key.work() {
            Work::Nothing => {
                let state = State::Called { future: self.inner.call(request) };
                return ResponseFuture { state, permit: None };
            }
            Work::Tokens => Cost::of(&request, view.get(), &core.estimate),
            Work::Requests => Cost::FREE,
            Work::Units => {
                let cost = cost_of_units(&mut request, &core.estimate, &key);
                view = View::of(&request);
                cost
            }
        };
        let deadline = view.deadline().map(Deadline::instant);
        let quota = || {
            let class = view.get::<RequestClass>().copied().unwrap_or_default();
            (view.more().map(|more| more.quota).unwrap_or_default(), class)
        };
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
                let is_impatient = key.common().is_impatient(patience, deadline);
                let ticket = Ticket::new(key, place, patience, is_impatient);
                // The readiness that the caller obtained goes back while the request waits: others may need it.
                // What waits asks a clone of its own when its turn has come.
                let fresh = self.inner.clone();
                drop(std::mem::replace(&mut self.inner, fresh.clone()));
                ResponseFuture::queued(fresh, request, ticket)
            }
            Arrival::Refused(refusal) => {
                let is_impatient = key.common().is_impatient(patience, deadline);
                ResponseFuture::refused(key.refuse(refusal, patience, is_impatient))
            }
        }
    }
}

/// What a request is counted for where there are limits over spans.
#[cold]
fn cost_of_units<B: Body>(request: &mut Request<B>, estimate: &impl Estimate<B>, key: &Key) -> Cost {
    let units = Units::of(request, estimate);
    if key.common().prices.is_some() {
        // The answer is read for the model that gave it, by whose price it is settled.
        let model = key.id().target().model();
        let expected = View::of(request).expected_model();
        if model.is_none() || expected == 0 {
            Context::write_more(request, |more| {
                more.trail.get_or_insert_default().expect(Some(model.unwrap_or("")));
            });
        }
    }
    let stated = request.extensions().get();
    Cost { units, ..Cost::of(request, stated, estimate) }
}
