use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::config::Settings;
use super::report::Report;
use super::span::CallSpan;
use super::{Call, ObserveBody, ResponseFuture};
use crate::context;
use crate::context::AttemptCounter;
use crate::error::BoxError;

/// Looks at each call once. Made by [`ObserveLayer`](super::ObserveLayer); see the [module documentation](super).
///
/// `poll_ready` is the inner service's own.
#[derive(Clone, Debug)]
pub struct Observe<S> {
    inner: S,
    settings: Settings,
}

impl<S> Observe<S> {
    pub(super) const fn new(inner: S, settings: Settings) -> Self {
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
}

impl<S, B, RB> Service<Request<B>> for Observe<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    RB: Body,
{
    type Response = Response<ObserveBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if !self.settings.enabled {
            return ResponseFuture::unwatched(self.inner.call(request));
        }
        let trail = AttemptCounter::default();
        let call = Box::new(Call::begin(&request, trail.clone()));
        // One that is there belongs to a layer outside, and to the retries between: it stays.
        if context::Context::more(&request).is_none_or(|more| more.trail.is_none()) {
            context::Context::write_more(&mut request, |more| more.trail = Some(trail));
        }
        let span = CallSpan::open(&self.settings, &call);
        let inner = span.in_scope(|| self.inner.call(request));
        ResponseFuture::watched(inner, Report::new(call, self.settings.observer.clone(), span))
    }
}
