use http::{Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;

use super::gate::Slot;
use crate::tail::{OnEnd, Tail, passes_on};
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
    slot: Slot,
    status: StatusCode,
}

impl OnEnd for Ending {
    #[inline]
    fn on_end(self, end: End) {
        let signal = self.slot.signals().of_end(end, self.status);
        self.slot.end(signal);
    }
}

impl<B: Body> ConcurrencyBody<B> {
    /// With a slot, the body holds it until its end.
    #[inline]
    pub(super) fn watch(response: Response<B>, slot: Option<Slot>) -> Response<Self> {
        let status = response.status();
        Tail::watch(response, slot.map(|slot| Ending { slot, status }), |tail| Self { tail })
    }
}

passes_on!(ConcurrencyBody);
