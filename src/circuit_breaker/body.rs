use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::key::Guard;
use crate::tail::{OnEnd, Tail};
use crate::verdict::End;

pin_project! {
    /// The body of a response that came through a [`CircuitBreaker`](super::CircuitBreaker).
    ///
    /// It tells the circuit how the answer ended: at its end, or when it breaks off. Dropping it earlier counts
    /// nothing, and gives a probe's place back. Frames pass through untouched.
    pub struct CircuitBody<B> {
        #[pin]
        tail: Tail<B, Watch>,
    }
}

/// The call, until its body ends.
pub(super) struct Watch {
    pub(super) guard: Guard,
    pub(super) status: StatusCode,
}

impl OnEnd for Watch {
    #[inline]
    fn on_end(self, end: End) {
        let signal = self.guard.signals().of_end(end, self.status);
        self.guard.report(signal, None);
    }
}

impl<B: Body> CircuitBody<B> {
    #[inline]
    pub(super) fn watch(response: Response<B>, watch: Option<Watch>) -> Response<Self> {
        Tail::watch(response, watch, |tail| Self { tail })
    }
}

impl<B: Body> Body for CircuitBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
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

impl<B> fmt::Debug for CircuitBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBody").finish_non_exhaustive()
    }
}
