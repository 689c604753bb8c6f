//! Bodies that do not end well although their answer failed.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::error::BoxError;
use crate::verdict::{EndCell, Inner, Kind, Outcome, Verdict};

/// Ends the body of an answer that failed with an error, [`AnswerFailed`], so that nobody takes it for a whole one.
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
/// do with [`all_failures`](Self::all_failures) only. A body that fails a status above is as it was.
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
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct StrictBodyLayer {
    all: bool,
}

impl StrictBodyLayer {
    /// A layer with the default: errors, truncations.
    pub const fn new() -> Self {
        Self { all: false }
    }

    /// Ends blocked and empty answers with an error as well. Default off.
    pub const fn all_failures(mut self) -> Self {
        self.all = true;
        self
    }
}

impl<S> Layer<S> for StrictBodyLayer {
    type Service = StrictBodies<S>;

    fn layer(&self, inner: S) -> Self::Service {
        StrictBodies { inner, all: self.all }
    }
}

/// Gives each response a [`StrictBody`]. Made by [`StrictBodyLayer`].
#[derive(Clone, Copy, Debug)]
pub struct StrictBodies<S> {
    inner: S,
    all: bool,
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
        StrictFuture { inner: self.inner.call(request), all: self.all }
    }
}

pin_project! {
    /// The future of [`StrictBodies`]. Dropping it drops the inner one.
    #[must_use = "futures do nothing unless polled"]
    pub struct StrictFuture<F> {
        #[pin]
        inner: F,
        all: bool,
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
        let end = End::of(&response, *this.all);
        Poll::Ready(Ok(response.map(|inner| StrictBody { inner, end })))
    }
}

impl<F> fmt::Debug for StrictFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrictFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// A body that ends with an [`AnswerFailed`] where the answer has failed. Made by [`StrictBodies`].
    pub struct StrictBody<B> {
        #[pin]
        inner: B,
        end: End,
    }
}

/// How the body is to end.
enum End {
    /// As it does.
    Own,
    /// As the classifier will have published.
    Published { cell: EndCell, status: StatusCode, all: bool },
    /// With this failure, which was known with the head.
    Failed(Verdict),
}

impl End {
    fn of<B>(response: &Response<B>, all: bool) -> Self {
        let status = response.status();
        match response.extensions().get::<Verdict>().filter(|_| status.is_success()) {
            None => Self::Own,
            Some(verdict) => match verdict.end_cell() {
                Some(cell) => Self::Published { cell: EndCell::clone(cell), status, all },
                None if verdict.kind().is_some_and(|kind| ends_badly(kind, all)) => {
                    Self::Failed(verdict.clone())
                }
                None => Self::Own,
            },
        }
    }

    /// The failure that is to be told, if the body is over.
    fn failure(&self) -> Option<Verdict> {
        match self {
            Self::Own => None,
            Self::Failed(verdict) => Some(verdict.clone()),
            Self::Published { cell, status, all } => match cell.get()?.outcome {
                Outcome::Failed(kind) if ends_badly(kind, *all) => {
                    let inner = Inner { http: Some(*status), after_output: true, ..Inner::new(kind) };
                    Some(Verdict::new(inner))
                }
                _ => None,
            },
        }
    }

    fn fails(&self) -> bool {
        match self {
            Self::Own => false,
            Self::Failed(_) => true,
            Self::Published { cell, all, .. } => cell
                .get()
                .is_some_and(|end| matches!(end.outcome, Outcome::Failed(kind) if ends_badly(kind, *all))),
        }
    }
}

/// Whether the answer is not whole. A blocked or empty one is, such as it is.
fn ends_badly(kind: Kind, all: bool) -> bool {
    all || !matches!(kind, Kind::ContentBlocked | Kind::EmptyResponse)
}

impl<B> Body for StrictBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
        let mut this = self.project();
        let frame = if this.end.fails() && this.inner.is_end_stream() {
            // It may not like to be asked again.
            None
        } else {
            ready!(this.inner.as_mut().poll_frame(cx))
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => {
                // One error is enough.
                *this.end = End::Own;
                Some(Err(error.into()))
            }
            None => {
                let failure = this.end.failure();
                *this.end = End::Own;
                failure.map(|verdict| Err(AnswerFailed(verdict).into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && !self.end.fails()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.size_hint();
        match &self.end {
            End::Own => inner,
            End::Published { .. } | End::Failed(_) => {
                let mut hint = SizeHint::new();
                hint.set_lower(inner.lower());
                hint
            }
        }
    }
}

impl<B> fmt::Debug for StrictBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes may hold an answer or an echoed key.
        f.debug_struct("StrictBody").finish_non_exhaustive()
    }
}

/// The answer failed, after its status had promised a good one: with this a [`StrictBody`] ends.
///
/// [`error::find`](crate::error::find) finds it at any depth, and [`Verdict::from_error`] gives its verdict.
#[derive(Clone, Debug)]
pub struct AnswerFailed(Verdict);

impl AnswerFailed {
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind().unwrap_or(Kind::Unknown)
    }

    /// What is known of it: everything where it was known before the answer was handed on, else the kind. Then it is
    /// [after output](Verdict::after_output), too, as the caller has had what came before.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.0
    }
}

impl fmt::Display for AnswerFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = self.0.remedy().trim_end_matches('.');
        write!(f, "the answer failed: {}: {remedy}", self.kind())
    }
}

impl Error for AnswerFailed {}
