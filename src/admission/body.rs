use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::body::on_end::{EndHook, OnEnd, OnEndBody};

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

impl<B: Body, E: OnEnd> Body for AdmittedBody<B, E> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        self.project().tail.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.tail.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.tail.size_hint()
    }
}

impl<B, E: OnEnd> std::fmt::Debug for AdmittedBody<B, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The bytes may hold an answer or an echoed key.
        f.debug_struct("AdmittedBody").finish_non_exhaustive()
    }
}
