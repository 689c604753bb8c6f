use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::ObserveBody;
use super::report::Report;
use crate::body::on_end::EndHook;
use crate::error::BoxError;

pin_project! {
    /// The future of [`Observe`](super::Observe).
    ///
    /// Dropping it drops the call, and then tells that its caller did so.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        // Before the report, so that the call is dropped before that is told.
        #[pin]
        inner: F,
        // `None` once the head is here, and where the layer is off.
        report: Option<Report>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) const fn watched(inner: F, report: Report) -> Self {
        Self { inner, report: Some(report) }
    }

    /// Of a layer that is off.
    pub(super) const fn unwatched(inner: F) -> Self {
        Self { inner, report: None }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("observe::ResponseFuture").finish_non_exhaustive()
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: Body,
{
    type Output = Result<Response<ObserveBody<B>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(report) = this.report else {
            let result = ready!(this.inner.poll(cx));
            return Poll::Ready(
                result.map(|response| ObserveBody::watch(response, EndHook::nobody())).map_err(Into::into),
            );
        };
        let result = ready!(report.span().in_scope(|| this.inner.poll(cx)));
        let report = this.report.take().expect("it was there three lines above");
        Poll::Ready(match result {
            Ok(response) => {
                let told = match report.answered(&response) {
                    Some(report) => EndHook::of(&response, report),
                    None => EndHook::nobody(),
                };
                Ok(ObserveBody::watch(response, told))
            }
            Err(error) => {
                let error = error.into();
                report.errored(&error);
                Err(error)
            }
        })
    }
}
