use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::asked::Asked;
use super::body::LastGoodBody;
use super::config::Settings;
use super::future::ResponseFuture;
use super::store::Key;
use crate::error::BoxError;
use crate::request::Target;

/// Answers with the last good answer where everything else failed. Made by [`LastGoodLayer`](super::LastGoodLayer); see the [module documentation](super).
///
/// `poll_ready` is the inner service's own.
pub struct WithLastGood<S, F> {
    inner: S,
    settings: Arc<Settings>,
    key_of: Arc<F>,
}

impl<S, F> WithLastGood<S, F> {
    pub(super) const fn new(inner: S, settings: Arc<Settings>, key_of: Arc<F>) -> Self {
        Self { inner, settings, key_of }
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

impl<S: Clone, F> Clone for WithLastGood<S, F> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.settings), Arc::clone(&self.key_of))
    }
}

impl<S: fmt::Debug, F> fmt::Debug for WithLastGood<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithLastGood").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, B, RB, F> Service<Request<B>> for WithLastGood<S, F>
where
    S: Service<Request<B>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    RB: Body<Data = Bytes>,
    F: Fn(&Request<B>) -> Option<Bytes>,
{
    type Response = Response<LastGoodBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let key = if self.settings.enabled { (self.key_of)(&request) } else { None };
        let asked = key.map(|key| {
            let key = Key::of(&key, &request, self.settings.hashes.as_ref());
            let target = self.settings.observer.is_some().then(|| Target::of(&request).key());
            Box::new(Asked { key, target, settings: Arc::clone(&self.settings) })
        });
        ResponseFuture { future: self.inner.call(request), asked }
    }
}
