use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::future::{ResponseFuture, Task, Watched};
use super::may_be_repeated;
use super::shared::{Key, Shared};
use super::spare::Spare;
use crate::context::View;
use crate::error::BoxError;
use crate::keyed::Memo;
use crate::request::Target;
use crate::retry::Attempt;
use crate::timeout::Deadline;

/// Sends late calls a second time. Made by [`HedgeLayer`](super::HedgeLayer); see the [module documentation](super).
///
/// `poll_ready` is the inner service's own. A second try goes through a clone of it, which is polled ready once; it is
/// cloned from a spare that this service and its clones share, made at the first call and never polled.
pub struct Hedge<S> {
    inner: S,
    shared: Arc<Shared>,
    spare: Arc<Spare<S>>,
    memo: Memo<Arc<Key>>,
}

impl<S> Hedge<S> {
    pub(super) fn new(shared: Arc<Shared>, inner: S) -> Self {
        Self { inner, shared, spare: Arc::new(Spare(OnceLock::new())), memo: Memo::new() }
    }

    /// The inner service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to change it: for calls of this service from now on, and not for its clones.
    pub fn get_mut(&mut self) -> &mut S {
        self.spare = Arc::new(Spare(OnceLock::new()));
        &mut self.inner
    }

    /// The inner service, by value.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone> Clone for Hedge<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Arc::clone(&self.shared),
            spare: Arc::clone(&self.spare),
            memo: self.memo.clone(),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Hedge<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge")
            .field("inner", &self.inner)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl<S, B, RB> Service<Request<B>> for Hedge<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Clone,
{
    type Response = Response<RB>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future, RB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !self.shared.settings.enabled || !may_be_repeated(&Target::of(&request)) {
            return ResponseFuture::new(Task::PassThrough, self.inner.call(request));
        }
        let shared = &self.shared;
        let key = shared
            .keys
            .of_request(&mut self.memo, &request, View::of(&request), |target| shared.of_target(target));
        let settings = &shared.settings;
        let fits = request.body().size_hint().lower() <= settings.max_body_bytes as u64;
        // A repeated request has shown that the server is not well. Nothing is copied before it can be of use.
        let wanted = fits && Attempt::of(&request) == 1;
        let after = if wanted { key.with(|evidence| evidence.after()) } else { None };
        let kept = after.map(|after| {
            self.spare.0.get_or_init(|| Mutex::new(self.inner.clone()));
            (after, request.clone())
        });
        let deadline = Deadline::of(&request).map(Deadline::instant);
        let watched = Watched::new(Arc::clone(shared), Arc::clone(&self.spare), key, kept, deadline);
        ResponseFuture::new(Task::Watched(watched), self.inner.call(request))
    }
}
