use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::body::{FallbackBody, RewriteBody};
use super::chain::Plan;
use super::config::Settings;
use super::future::{ResponseFuture, State};
use super::work::Work;
use crate::error::BoxError;

/// Asks another model where the one that was asked cannot answer. Made by
/// [`ModelFallbackLayer`](super::ModelFallbackLayer); see the [module documentation](super).
///
/// `poll_ready` is the inner service's own.
#[derive(Clone, Debug)]
pub struct ModelFallback<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> ModelFallback<S> {
    pub(super) const fn new(settings: Arc<Settings>, inner: S) -> Self {
        Self { inner, settings }
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

    /// For a request with a chain.
    #[inline(never)]
    fn call_planned<B>(&mut self, request: Request<B>, plan: Plan) -> ResponseFuture<S, B, S::Future>
    where
        S: Service<Request<B>> + Clone,
        B: RewriteBody,
    {
        // A clone that is polled ready before each further model: the readiness that the caller obtained is used
        // up by the first.
        let mut work = Work::new(Arc::clone(&self.settings), self.inner.clone(), request, plan);
        let first = work.first();
        ResponseFuture { state: State::called(self.inner.call(first)), work: Some(Box::new(work)) }
    }
}

impl<S, B, RB> Service<Request<B>> for ModelFallback<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    B: RewriteBody,
    RB: Body<Data = Bytes>,
{
    type Response = Response<FallbackBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.settings.disabled {
            return ResponseFuture { state: State::called(self.inner.call(request)), work: None };
        }
        match self.settings.chains.plan(&self.settings.ladders, &request) {
            None => ResponseFuture { state: State::called(self.inner.call(request)), work: None },
            Some(plan) => self.call_planned(request, plan),
        }
    }
}
