use std::fmt;
use std::hash::Hash;
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::body::CoalesceBody;
use super::future::{Own, ResponseFuture, State, erase};
use super::key::{Entered, Shared};
use crate::error::BoxError;

/// Answers equal requests in flight by one call. Made by [`CoalesceLayer`](super::CoalesceLayer); see the [module documentation](super).
///
/// `poll_ready` is the inner service's own. A request that joins another one's call gives the readiness back.
pub struct Coalesce<S, K, F> {
    inner: S,
    shared: Arc<Shared<K>>,
    key_of: Arc<F>,
}

impl<S, K, F> Coalesce<S, K, F> {
    pub(super) const fn new(inner: S, shared: Arc<Shared<K>>, key_of: Arc<F>) -> Self {
        Self { inner, shared, key_of }
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

impl<S: Clone, K, F> Clone for Coalesce<S, K, F> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.shared), Arc::clone(&self.key_of))
    }
}

impl<S: fmt::Debug, K, F> fmt::Debug for Coalesce<S, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalesce").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, B, RB, K, F> Service<Request<B>> for Coalesce<S, K, F>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    RB: Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
    K: Hash + Eq + Clone + Send + Sync + 'static,
    F: Fn(&Request<B>) -> Option<K>,
{
    type Response = Response<CoalesceBody<RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, K, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let key = if self.shared.enabled { (self.key_of)(&request) } else { None };
        let Some(key) = key else {
            return ResponseFuture { state: State::Plain { future: self.inner.call(request) } };
        };
        let state = match self.shared.enter(key.clone(), &request) {
            Entered::Alone => State::Plain { future: self.inner.call(request) },
            Entered::Leads(seat) => {
                seat.launch(|| erase(self.inner.call(request)));
                State::Shared { seat: Some(seat), own: None }
            }
            Entered::Joined(seat) => {
                // The readiness that the caller obtained is given back with the instance that holds it.
                let fresh = self.inner.clone();
                drop(mem::replace(&mut self.inner, fresh.clone()));
                let own = Own::new(fresh, request, key, Arc::clone(&self.shared));
                State::Shared { seat: Some(seat), own: Some(Box::new(own)) }
            }
        };
        ResponseFuture { state }
    }
}
