//! The layer whose bodies do not end well where their answer failed.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::StrictBody;
use crate::error::BoxError;

/// Ends the body of an answer that failed with an error, [`AnswerFailed`](super::AnswerFailed), so that nobody takes it for a whole one.
///
/// A stream that holds an error, or that lacks its end, ends like a good one as far as HTTP can tell. Readers who
/// collect a body, or hand it on to a client of their own, see the difference with this layer: every byte comes as it
/// came, and then the error in place of the end.
///
/// # Where
///
/// Outermost, with a [`ClassifyLayer`](super::ClassifyLayer) inside that [watches](super::ClassifyLayer::watch): its
/// verdict is what this layer reads. Without one it changes nothing, but for a failure that was
/// [peeked](super::Peek) at.
///
/// # What ends with an error
///
/// An answer with a 2xx in which there is an error, which breaks off, or whose transport fails (then the transport's
/// own error is the error, as without this layer). Blocked and empty answers are whole, and say so themselves: they
/// do with [`all_failures`](Self::all_failures) only. The body of an error's status stays as it is.
///
/// A body that may end so has no upper [size hint](Body::size_hint), as readers who know the length never ask for
/// the end. (One that goes by a `content-length` header cannot be helped.)
///
/// Clones share nothing but the setting. Dropping the future or a body drops the inner one. Allocates for an error
/// only.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
/// use tower_gemini::Kind;
/// use tower_gemini::classify::{AnswerFailed, ClassifyLayer, StrictBodyLayer};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
/// # let client = service_fn(async |_: Request<()>| {
/// #     let body = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Once upon\"}]}}]}\n\n";
/// #     Ok::<_, BoxError>(Response::new(Full::new(Bytes::from(body))))
/// # });
/// let service = ServiceBuilder::new()
///     .layer(StrictBodyLayer::new())
///     .layer(ClassifyLayer::new().watch())
///     .service(client);
///
/// // The stream stops without a finish reason.
/// let error = service.oneshot(Request::new(())).await?.into_body().collect().await.unwrap_err();
/// let failed = error.downcast_ref::<AnswerFailed>().expect("it is one");
/// assert_eq!(failed.kind(), Kind::Truncated);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct StrictBodyLayer {
    ends: Ends,
}

/// Which failures end a body with an error.
#[derive(Clone, Copy, Debug)]
struct Ends {
    enabled: bool,
    /// Blocked and empty answers, too.
    all: bool,
}

impl StrictBodyLayer {
    /// A layer with the default: errors, truncations.
    pub const fn new() -> Self {
        Self { ends: Ends { enabled: true, all: false } }
    }

    /// Whether the layer does anything. Default `true`. With `false` each body ends as it comes; the type is the same.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.ends.enabled = enabled;
        self
    }

    /// Ends blocked and empty answers with an error as well. Default off.
    pub const fn all_failures(mut self) -> Self {
        self.ends.all = true;
        self
    }
}

impl Default for StrictBodyLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for StrictBodyLayer {
    type Service = StrictBodies<S>;

    fn layer(&self, inner: S) -> Self::Service {
        StrictBodies { inner, ends: self.ends }
    }
}

/// Gives each response a [`StrictBody`]. Made by [`StrictBodyLayer`].
#[derive(Clone, Copy, Debug)]
pub struct StrictBodies<S> {
    inner: S,
    ends: Ends,
}

impl<S> StrictBodies<S> {
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

impl<S, ReqB, ResB> Service<Request<ReqB>> for StrictBodies<S>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    ResB: Body,
    ResB::Error: Into<BoxError>,
{
    type Response = Response<StrictBody<ResB>>;
    type Error = S::Error;
    type Future = StrictFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        StrictFuture { inner: self.inner.call(request), ends: self.ends }
    }
}

pin_project! {
    /// The future of [`StrictBodies`]. Dropping it drops the inner one.
    #[must_use = "futures do nothing unless polled"]
    pub struct StrictFuture<F> {
        #[pin]
        inner: F,
        ends: Ends,
    }
}

impl<F, B, E> Future for StrictFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<StrictBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        Poll::Ready(Ok(match *this.ends {
            Ends { enabled: true, all } => StrictBody::of(response, all),
            Ends { enabled: false, .. } => StrictBody::as_it_is(response),
        }))
    }
}

impl<F> fmt::Debug for StrictFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrictFuture").finish_non_exhaustive()
    }
}
