use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::answer::from_error;
use crate::body::either::Either;
use crate::body::on_end::passes_on;
use crate::error::BoxError;
use crate::event::cause::Cause;
use crate::verdict::Verdict;

/// Puts a [`Respond`] around a service. See the [module documentation](super).
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct RespondLayer {
    _private: (),
}

impl RespondLayer {
    /// The layer. It has no settings.
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Respond { inner, broken: None }
    }
}

/// Answers with a response where the inner service fails. Made by [`RespondLayer`]; see the
/// [module documentation](super).
///
/// `poll_ready` waits as the inner service's does and never fails: where that one does, the next call is answered
/// with its error, and the inner service is asked again for the one after it.
pub struct Respond<S> {
    inner: S,
    /// What the inner service said instead of getting ready.
    broken: Option<BoxError>,
}

impl<S> Respond<S> {
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

impl<S: Clone> Clone for Respond<S> {
    /// Readiness is not copied, nor is the lack of it.
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), broken: None }
    }
}

impl<S: fmt::Debug> fmt::Debug for Respond<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Respond").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, R, B> Service<R> for Respond<S>
where
    S: Service<R, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes>,
{
    type Response = Response<RespondBody<B>>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.broken.is_none() {
            self.broken = ready!(self.inner.poll_ready(cx)).err().map(Into::into);
        }
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: R) -> Self::Future {
        let state = match self.broken.take() {
            None => State::Called { future: self.inner.call(request) },
            Some(error) => State::Broken { error: Some(error) },
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The future of [`Respond`]. Dropping it drops the call.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Called { #[pin] future: F },
        // `None` once it was answered.
        Broken { error: Option<BoxError> },
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("respond::ResponseFuture").finish_non_exhaustive()
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<RespondBody<B>>, Infallible>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let error = match self.project().state.project() {
            StateProj::Called { future } => match ready!(future.poll(cx)) {
                Ok(response) => return Poll::Ready(Ok(response.map(RespondBody::inner))),
                Err(error) => error.into(),
            },
            StateProj::Broken { error } => error.take().expect("polled after it was ready"),
        };
        Poll::Ready(Ok(answer(error)))
    }
}

#[cold]
fn answer<B>(error: BoxError) -> Response<RespondBody<B>> {
    let mut response = from_error(error.as_ref());
    let verdict = Verdict::from_error(error.as_ref());
    response.extensions_mut().insert(verdict);
    response.extensions_mut().insert(Cause::new(error));
    response.map(RespondBody::own)
}

pin_project! {
    /// A response's body: the inner service's, or that of an error's answer.
    ///
    /// Frames, trailers and errors pass through unchanged. Dropping it drops the inner body.
    pub struct RespondBody<B> {
        #[pin]
        tail: Either<B>,
    }
}

impl<B> RespondBody<B> {
    #[inline]
    const fn inner(body: B) -> Self {
        Self { tail: Either::inner(body) }
    }

    fn own(bytes: Bytes) -> Self {
        Self { tail: Either::own(bytes) }
    }
}

passes_on!(RespondBody, bytes::Bytes);
