use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::permit::Permit;
use crate::body::on_end::{EndHook, OnEndBody, passes_on};

pin_project! {
    /// The body of an admitted call's answer: the same frames as the inner body's.
    ///
    /// At its end, and when it is dropped before, the call is settled by what the answer says it has used.
    pub struct RateLimitBody<B> {
        #[pin]
        tail: OnEndBody<B, Permit>,
    }
}

impl<B: Body> RateLimitBody<B> {
    #[inline(always)]
    pub(super) fn watch(response: Response<B>, told: EndHook<Permit>) -> Response<Self> {
        told.watch(response, |tail| Self { tail })
    }
}

passes_on!(RateLimitBody);
