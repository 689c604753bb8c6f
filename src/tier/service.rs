use std::task::{self, Poll};

use http::Request;
use tower_service::Service;

use super::{ServiceTier, of_body};
use crate::context::{Context, View};
use crate::fallback::RewriteBody;
use crate::retry::Replay;

/// Reads the tier of requests. Made by [`TierLayer`](super::TierLayer).
///
/// `poll_ready`, the future, the error and the response are the inner service's own.
#[derive(Clone, Copy, Debug)]
pub struct SetTier<S> {
    inner: S,
    enabled: bool,
}

impl<S> SetTier<S> {
    pub(super) const fn new(inner: S, enabled: bool) -> Self {
        Self { inner, enabled }
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

impl<S, B> Service<Request<B>> for SetTier<S>
where
    S: Service<Request<B>>,
    B: RewriteBody,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if self.enabled && request.method() == http::Method::POST {
            if let Some(tier) = find(&request) {
                tell(&mut request, tier);
            }
        }
        self.inner.call(request)
    }
}

#[inline]
fn find<B: RewriteBody>(request: &Request<B>) -> Option<ServiceTier> {
    let view = View::of(request);
    view.tier().or_else(|| ServiceTier::of_headers(request.headers())).or_else(|| {
        // NOTE: a copy of a `ReplayBody` inside of another body would end the one that is to be sent; alone it knows better.
        let of_replay =
            std::any::type_name::<B>().starts_with("tower_gemini::retry::replay::body::ReplayBody<");
        if !of_replay && view.get::<Replay>().is_some() {
            return None;
        }
        let (front, is_whole) = request.body().front()?;
        of_body(&front, is_whole)
    })
}

#[cold]
fn tell<B>(request: &mut Request<B>, tier: ServiceTier) {
    let given = Context::of(request).filter(|_| tier == ServiceTier::Flex);
    let deadline = given.and_then(Context::flex_deadline);
    let extensions = request.extensions_mut();
    extensions.insert(tier);
    if let Some(deadline) = deadline {
        extensions.insert(deadline);
    }
}
