use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::permit::Permit;
use crate::tail::Tail;

pin_project! {
    /// The body of an admitted call's answer: the same frames as the inner body's.
    ///
    /// At its end, and when it is dropped before, the call is settled by what the answer says it has used.
    pub struct RateLimitBody<B> {
        #[pin]
        tail: Tail<B, Permit>,
    }
}

impl<B: Body> RateLimitBody<B> {
    #[inline]
    pub(super) fn watch(response: Response<B>, permit: Option<Permit>) -> Response<Self> {
        Tail::watch(response, permit, |tail| Self { tail })
    }
}

impl<B: Body> Body for RateLimitBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.project().tail.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.tail.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.tail.size_hint()
    }
}

impl<B> fmt::Debug for RateLimitBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitBody").finish_non_exhaustive()
    }
}
