use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::future::{Kept, Refused, Task};
use super::policy::{Progress, Settings};
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

    /// What is kept while the first attempt runs. Nothing is copied, cloned or counted when there is nothing
    /// to retry.
    fn task<B>(&self, request: &Request<B>) -> Task<S, B>
    where
        S: Clone,
        B: Body + Clone,
    {
        let settings = &self.settings;
        if settings.attempts <= 1 {
            return Task::PassThrough;
        }
        let mut key = None;
        let mut refused = (!replayable(request, settings.max_body_bytes)).then_some(GaveUp::BodyTooLarge);
        if let Some(budget) = &settings.budget
            && !budget.is_full()
        {
            let bucket = budget_key(request.uri());
            key = Some(bucket);
            if budget.is_empty(bucket) {
                refused.get_or_insert(GaveUp::Budget);
            }
        }
        if let Some(why) = refused {
            return Task::Refused(Refused { settings: Arc::clone(settings), why, key });
        }
        Task::Kept(Kept {
            settings: Arc::clone(settings),
            // A clone that is polled ready before each further attempt: the readiness that the caller
            // obtained is used up by the first.
            service: self.inner.clone(),
            request: Some(request.clone()),
            deadline: Deadline::of(request).map(Deadline::instant),
            progress: Progress::default(),
            key,
            token: None,
        })
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let task = self.task(&request);
        ResponseFuture::new(self.inner.call(request), task)
    }
}
