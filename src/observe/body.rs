use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::report::Report;
use crate::body::on_end::{EndHook, OnEndBody, passes_on};

pin_project! {
    /// The body of a response that came through an [`Observe`](super::Observe).
    ///
    /// At its end, when it breaks off, or when it is dropped, the call is told of. Frames pass through untouched.
    pub struct ObserveBody<B> {
        #[pin]
        tail: OnEndBody<B, Report>,
    }
}

impl<B: Body> ObserveBody<B> {
    pub(super) fn watch(response: Response<B>, told: EndHook<Report>) -> Response<Self> {
        told.watch(response, |tail| Self { tail })
    }
}

passes_on!(ObserveBody);
