use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::budget::UnderWay;
use super::call::{Failed, Kept, Refused, Task};
use super::future::State;
use super::shared::Shared;
use super::shared_attempts::SharedAttempts;
use super::stored::{Packed, Stored};
use super::{GaveUp, ResponseFuture, RetryPolicy, budget_key, replayable};
use crate::context::{self, View};
use crate::error::BoxError;

/// Sends failed requests again. Made by [`RetryLayer`](super::RetryLayer); see the [module
/// documentation](super).
///
/// `poll_ready` is the inner service's own. The first attempt of a call goes through the instance that was polled
/// ready, the further ones through a clone, which is polled ready before each. That is cloned from a spare which this
/// service and its clones share: made at the first call, never polled, dropped with the last of them and of their calls.
pub struct Retry<S> {
    inner: S,
    shared: Arc<Shared<S>>,
}

impl<S: Clone> Clone for Retry<S> {
    fn clone(&self) -> Self {
        let Shared { settings, spare } = &*self.shared;
        let shared = Shared { settings: Arc::clone(settings), spare: Arc::clone(spare) };
        Self { inner: self.inner.clone(), shared: Arc::new(shared) }
    }
}

impl<S: fmt::Debug> fmt::Debug for Retry<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("inner", &self.inner)
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}

impl<S> Retry<S> {
    pub(super) fn new(policy: RetryPolicy, inner: S) -> Self {
        Self { inner, shared: Shared::new(policy.settings) }
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to change it: for calls of this service from now on, and not for its clones.
    pub fn get_mut(&mut self) -> &mut S {
        self.shared = Shared::new(Arc::clone(&self.shared.settings));
        &mut self.inner
    }

    /// The inner service, by value.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Why no copy is kept, and the budget's bucket where it had to be worked out.
    #[inline]
    fn refuse<B: Body>(&self, request: &Request<B>) -> (Option<GaveUp>, Option<u64>) {
        let mut refused =
            (!replayable(request, self.shared.settings.max_body_bytes)).then_some(GaveUp::BodyTooLarge);
        let mut key = None;
        if let Some(budget) = self.shared.settings.budget.as_ref().filter(|budget| !budget.is_full()) {
            let bucket = budget_key(request);
            key = Some(bucket);
            // Without a copy nothing can be waited for, also what costs no token.
            if budget.is_empty(bucket) && !self.shared.settings.has_free_waits() {
                refused.get_or_insert(GaveUp::Budget);
            }
        }
        (refused, key)
    }
}

impl<S> Retry<S> {
    /// What is kept for another attempt, unless this one is the last already.
    #[inline(always)]
    fn keep<B: Clone>(
        &self,
        request: &Request<B>,
        context: &context::Context,
        left_out: bool,
        failed: Option<&Failed>,
    ) -> Stored<B> {
        let made = failed.map_or(0, Failed::attempts);
        let reserved = context.carry().map_or(0, SharedAttempts::reserved);
        let most = self.shared.settings.most(reserved).min(context.most_attempts());
        if made + 1 < most { Stored::Packed(Packed::new(request, !left_out)) } else { Stored::Gone }
    }
}

impl<S, B, RB> Service<Request<B>> for Retry<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Clone,
{
    type Response = Response<RB>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    // NOTE: the inner service is called in one place, so that its future is made where this one's is returned.
    #[inline(always)]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let task = self.prepare(&mut request);
        ResponseFuture { state: State::Called { future: self.inner.call(request) }, task }
    }
}

impl<S: Clone> Retry<S> {
    /// What is kept of a request for when its first attempt has failed.
    #[inline(always)]
    fn prepare<B: Body + Clone>(&self, request: &mut Request<B>) -> Task<S, B> {
        if self.shared.settings.attempts <= 1 {
            return Task::PassThrough;
        }
        let view = View::of(request);
        let (mut context, left_out) = (view.effective(), view.is_plain() && view.context.is_some());
        let mut failed = None;
        if let Some(carry) = context.carry().cloned() {
            failed = Failed::resume(&carry, request);
            context = View::of(request).effective();
        }
        let (refused, key) = self.refuse(request);
        if let Some(why) = refused {
            let settings = Arc::clone(&self.shared.settings);
            let carry = context.carry().cloned();
            return Task::Refused(Refused { settings, why, key, carry, failed });
        }
        self.shared.spare.get_or_init(|| Mutex::new(self.inner.clone()));
        Task::Kept(Kept {
            // What is kept shares the context: the three allocations of an extension are not made for it.
            request: self.keep(request, &context, left_out, failed.as_deref()),
            context,
            left_out,
            shared: Arc::clone(&self.shared),
            service: None,
            started: failed.as_ref().and_then(|failed| failed.started()),
            under_way: match (&self.shared.settings.budget, key) {
                (Some(budget), Some(key)) => budget.begin(key),
                _ => UnderWay::default(),
            },
            key,
            failed,
        })
    }
}
