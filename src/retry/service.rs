use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::carry::Carry;
use super::future::{Failed, Kept, Refused, State, Task};
use super::policy::Settings;
use super::{GaveUp, ResponseFuture, RetryPolicy, budget_key, replayable};
use crate::error::BoxError;
use crate::timeout::Deadline;

/// Sends failed requests again. Made by [`RetryLayer`](super::RetryLayer); see the [module
/// documentation](super).
///
/// `poll_ready` is the inner service's own.
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> Retry<S> {
    pub(super) fn new(policy: RetryPolicy, inner: S) -> Self {
        Self { inner, settings: policy.settings }
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

    /// Why no copy is kept, and the budget's bucket where it had to be worked out.
    #[inline]
    fn refuse<B: Body>(&self, request: &Request<B>) -> (Option<GaveUp>, Option<u64>) {
        let mut refused =
            (!replayable(request, self.settings.max_body_bytes)).then_some(GaveUp::BodyTooLarge);
        let mut key = None;
        if let Some(budget) = self.settings.budget.as_ref().filter(|budget| !budget.is_full()) {
            let bucket = budget_key(request);
            key = Some(bucket);
            // Without a copy nothing can be waited for, also what costs no token.
            if budget.is_empty(bucket) && !self.settings.has_free_waits() {
                refused.get_or_insert(GaveUp::Budget);
            }
        }
        (refused, key)
    }
}

impl<S> Retry<S> {
    /// A copy for another attempt, unless this one is the last already.
    #[inline]
    fn keep<B: Clone>(
        &self,
        request: &Request<B>,
        carry: Option<&Carry>,
        failed: Option<&Failed>,
    ) -> Option<Request<B>> {
        let made = failed.map_or(0, Failed::attempts);
        let reserved = carry.map_or(0, Carry::reserved);
        (made + 1 < self.settings.most(reserved)).then(|| request.clone())
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

    // Each arm builds the future in place, the copy of the request included: it is moved nowhere else.
    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if self.settings.attempts <= 1 {
            return ResponseFuture {
                task: Task::PassThrough,
                state: State::called(self.inner.call(request)),
            };
        }
        let carry = Carry::of(&request).cloned();
        let failed = carry.as_ref().and_then(|carry| Failed::resume(carry, &mut request));
        let (refused, key) = self.refuse(&request);
        if let Some(why) = refused {
            let settings = Arc::clone(&self.settings);
            let task = Task::Refused(Refused { settings, why, key, carry, failed });
            return ResponseFuture { task, state: State::called(self.inner.call(request)) };
        }
        ResponseFuture {
            task: Task::Kept(Kept {
                request: self.keep(&request, carry.as_ref(), failed.as_deref()),
                // A clone that is polled ready before each further attempt: the readiness that the caller
                // obtained is used up by the first.
                service: self.inner.clone(),
                settings: Arc::clone(&self.settings),
                deadline: Deadline::of(&request).map(Deadline::instant),
                started: failed.as_ref().and_then(|failed| failed.started()),
                key,
                failed,
                carry,
            }),
            state: State::called(self.inner.call(request)),
        }
    }
}
