use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::future::{ResponseFuture, State};
use super::is_movable;
use super::report::{NoPlace, NoPlaceReason};
use super::shared::{Key, Shared};
use super::work::Work;
use crate::context::View;
use crate::error::BoxError;
use crate::keyed::Memo;
use crate::request::Target;

/// Sends each request to one of several places. Made by [`PlacesLayer`](super::PlacesLayer); see the [module
/// documentation](super).
///
/// `poll_ready` is the inner service's own.
pub struct PlaceChoice<S> {
    inner: S,
    shared: Arc<Shared>,
    memo: Memo<Arc<Key>>,
}

impl<S> PlaceChoice<S> {
    pub(super) const fn new(shared: Arc<Shared>, inner: S) -> Self {
        Self { inner, shared, memo: Memo::new() }
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

impl<S: Clone> Clone for PlaceChoice<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared), memo: self.memo.clone() }
    }
}

impl<S: std::fmt::Debug> std::fmt::Debug for PlaceChoice<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlaceChoice")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl<S, B, RB> Service<Request<B>> for PlaceChoice<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    B: Clone,
{
    type Response = Response<RB>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let shared = &self.shared;
        if !shared.enabled {
            return ResponseFuture {
                state: State::called(self.inner.call(request)),
                work: None,
                served: None,
            };
        }
        let permitted = match shared.permitted(&request) {
            Ok(permitted) => permitted,
            Err(why) => return ResponseFuture::refused(NoPlace::new(why, Target::of(&request).model())),
        };
        if permitted.count() == 1 || !is_movable(&Target::of(&request)) {
            // What is kept at a place is found there again.
            let at = permitted.first();
            let place = &shared.places[at];
            if place.rewrite(&mut request).is_none() {
                let model = Target::of(&request);
                return ResponseFuture::refused(NoPlace::new(NoPlaceReason::NotRewritable, model.model()));
            }
            let served = (Arc::clone(place.name()), at);
            return ResponseFuture {
                state: State::called(self.inner.call(request)),
                work: None,
                served: Some(served),
            };
        }
        let key = shared
            .keys
            .of_request(&mut self.memo, &request, View::of(&request), |target| shared.of_target(target));
        // A clone that is polled ready before each further place: the readiness that the caller obtained is used up by
        // the first.
        let mut work = Work::new(Arc::clone(shared), key, self.inner.clone(), request, permitted);
        match work.first() {
            Some(first) => ResponseFuture {
                state: State::called(self.inner.call(first)),
                work: Some(Box::new(work)),
                served: None,
            },
            None => ResponseFuture::refused(NoPlace::new(NoPlaceReason::NotRewritable, work.model())),
        }
    }
}
