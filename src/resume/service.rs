use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::RewriteBody;
use super::body::{Kept, ResumeBody, is_followed};
use super::shared::Shared;
use crate::error::BoxError;
use crate::request::{Method, Target};

/// Goes on with streams that broke off. Made by [`ResumeLayer`](super::ResumeLayer); see the [module documentation](super).
///
/// `poll_ready` is the inner service's own. A further call goes through a clone of it, which is polled ready first.
#[derive(Clone, Debug)]
pub struct Resume<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Resume<S> {
    pub(super) const fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
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

impl<S, B, RB> Service<Request<B>> for Resume<S>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    B: RewriteBody,
    RB: Body<Data = Bytes>,
    RB::Error: Into<BoxError>,
{
    type Response = Response<ResumeBody<S, B, S::Future, RB>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let target = Target::of(&request);
        let is_watched = self.shared.enabled && target.method() == Method::StreamGenerateContent;
        drop(target);
        let kept = is_watched.then(|| {
            // The clone is not polled: readiness is not its to hold.
            Box::new(Kept::new(self.inner.clone(), request.clone(), Arc::clone(&self.shared)))
        });
        ResponseFuture { future: self.inner.call(request), kept }
    }
}

pin_project! {
    /// The future of [`Resume`]. Dropping it drops the call.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, F> {
        #[pin]
        future: F,
        kept: Option<Box<Kept<S, B>>>,
    }
}

impl<S, B, F> fmt::Debug for ResponseFuture<S, B, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("resume::ResponseFuture").finish_non_exhaustive()
    }
}

impl<S, B, F, RB, E> Future for ResponseFuture<S, B, F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
    RB: Body<Data = Bytes>,
{
    type Output = Result<Response<ResumeBody<S, B, F, RB>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.future.poll(cx)).map_err(Into::into)?;
        let kept = this.kept.take().filter(|_| is_followed(&response));
        Poll::Ready(Ok(match kept {
            None => response.map(ResumeBody::plain),
            Some(kept) => {
                let resumed = kept.begin(&response);
                response.extensions_mut().insert(resumed);
                response.map(|body| ResumeBody::followed(*kept, body))
            }
        }))
    }
}
