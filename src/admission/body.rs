use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::body::on_end::{EndHook, OnEnd, OnEndBody, passes_on};

pin_project! {
    /// The body of an answer that came through several gates: the same frames as the inner body's.
    ///
    /// At its end, and when it is dropped before, each gate is told, the inner one first.
    pub struct AdmittedBody<B, E: OnEnd> {
        #[pin]
        tail: OnEndBody<B, E>,
    }
}

impl<B: Body, E: OnEnd> AdmittedBody<B, E> {
    #[inline(always)]
    pub(super) fn watch(response: Response<B>, end: EndHook<E>) -> Response<Self> {
        end.watch(response, |tail| Self { tail })
    }
}

passes_on!(AdmittedBody; E);
