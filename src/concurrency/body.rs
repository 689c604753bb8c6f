use http::{Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;

use super::gate::Slot;
use crate::tail::{OnEnd, Tail, Told, passes_on};
use crate::verdict::End;

pin_project! {
    /// A response's body that counts as in flight until it ends.
    ///
    /// Frames, trailers and errors pass through unchanged. Dropping it frees the call's place under the limit and
    /// counts nothing.
    pub struct ConcurrencyBody<B> {
        #[pin]
        tail: Tail<B, Ending>,
    }
}

/// The slot of a call whose answer is on its way.
pub(super) struct Ending {
    pub(super) slot: Slot,
    pub(super) status: StatusCode,
}

impl OnEnd for Ending {
    #[inline]
    fn on_end(self, end: End) {
        let signal = self.slot.signals().of_end(end, self.status);
        self.slot.end(signal);
    }
}

impl<B: Body> ConcurrencyBody<B> {
    #[inline(always)]
    pub(super) fn watch(response: Response<B>, told: Told<Ending>) -> Response<Self> {
        told.watch(response, |tail| Self { tail })
    }
}

passes_on!(ConcurrencyBody);
