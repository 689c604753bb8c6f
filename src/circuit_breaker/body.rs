use http::{Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;

use super::circuit::Guard;
use crate::body::on_end::{EndHook, OnEnd, OnEndBody, passes_on};
use crate::verdict::End;

pin_project! {
    /// The body of a response that came through a [`CircuitBreaker`](super::CircuitBreaker).
    ///
    /// It tells the circuit how the answer ended: at its end, or when it breaks off. Dropping it earlier counts
    /// nothing, and gives a probe's place back. Frames pass through untouched.
    pub struct CircuitBody<B> {
        #[pin]
        tail: OnEndBody<B, Watch>,
    }
}

/// The call, until its body ends.
#[derive(Debug)]
pub struct Watch {
    pub(super) guard: Guard,
    pub(super) status: StatusCode,
}

impl OnEnd for Watch {
    #[inline]
    fn on_end(self, end: End) {
        let signal = self.guard.signals().of_end(end, self.status);
        let _ = self.guard.report(signal, None);
    }
}

impl<B: Body> CircuitBody<B> {
    #[inline(always)]
    pub(super) fn watch(response: Response<B>, told: EndHook<Watch>) -> Response<Self> {
        told.watch(response, |tail| Self { tail })
    }
}

passes_on!(CircuitBody);
