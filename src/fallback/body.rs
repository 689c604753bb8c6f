//! Bodies: of requests, to be rewritten, and of responses.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body::Body;
use pin_project_lite::pin_project;

use crate::body::either::Either;
use crate::body::on_end::passes_on;
use crate::error::BoxError;
use crate::retry::ReplayBody;

/// A request's body that can be looked at and replaced, for APIs that name the model in there.
///
/// Implemented for every body that is `Clone` and made of `Bytes` (`Full<Bytes>`), and for
/// [`ReplayBody`](crate::retry::ReplayBody). Implement it for a body of your own, say an enum of several; where the
/// bytes are not at hand say so, and such a request falls back only where its path names the model.
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use tower_gemini::fallback::RewriteBody;
///
/// #[derive(Clone)]
/// enum Mine {
///     Json(Full<Bytes>),
///     Upload,
/// }
///
/// impl RewriteBody for Mine {
///     fn whole(&self) -> Option<Bytes> {
///         match self {
///             Self::Json(body) => body.whole(),
///             Self::Upload => None,
///         }
///     }
///
///     fn replace(request: &mut Request<Self>, bytes: Bytes) {
///         *request.body_mut() = Self::Json(Full::new(bytes));
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "the request body `{Self}` is not `Clone + From<Bytes>` with `http_body::Body<Data = Bytes>`",
    label = "this request body cannot be looked at and replaced",
    note = "send a `Full<Bytes>`, put a `ReplayLayer` around the stack, or implement `RewriteBody` for it"
)]
pub trait RewriteBody: Clone {
    /// All of its bytes, if they are at hand now. Asked before the request is sent, and again after it has failed.
    /// Must not use the body up.
    fn whole(&self) -> Option<Bytes>;

    /// The first bytes of it, if they are at hand now, and whether they are all. Asked once before the request is sent, by
    /// [`TierLayer`](crate::tier::TierLayer). Must not use the body up. By default [`whole`](Self::whole).
    fn front(&self) -> Option<(Bytes, bool)> {
        self.whole().map(|bytes| (bytes, true))
    }

    /// Puts a body of these bytes into the request. Its `content-length`, where it has one, is set by the layer.
    fn replace(request: &mut Request<Self>, bytes: Bytes);
}

#[diagnostic::do_not_recommend]
impl<B> RewriteBody for B
where
    B: Body<Data = Bytes> + Clone + From<Bytes>,
{
    /// Reads a copy, as far as that is ready at once.
    fn whole(&self) -> Option<Bytes> {
        let mut body = pin!(self.clone());
        let mut cx = Context::from_waker(Waker::noop());
        let mut next = || match body.as_mut().poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => Some(Some(frame.into_data().unwrap_or_default())),
            Poll::Ready(None) => Some(None),
            Poll::Ready(Some(Err(_))) | Poll::Pending => None,
        };
        let Some(first) = next()? else { return Some(Bytes::new()) };
        let Some(second) = next()? else { return Some(first) };
        let mut all = BytesMut::from(&*first);
        all.extend_from_slice(&second);
        while let Some(data) = next()? {
            all.extend_from_slice(&data);
        }
        Some(all.freeze())
    }

    /// The first frame of a copy.
    #[inline]
    fn front(&self) -> Option<(Bytes, bool)> {
        let mut body = pin!(self.clone());
        match body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => Some((frame.into_data().ok()?, body.is_end_stream())),
            _ => None,
        }
    }

    fn replace(request: &mut Request<Self>, bytes: Bytes) {
        *request.body_mut() = Self::from(bytes);
    }
}

impl<B> RewriteBody for ReplayBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// Once an attempt has read all of it and all of it was kept.
    fn whole(&self) -> Option<Bytes> {
        Self::whole(self)
    }

    /// Its first frame, which is taken from the inner body where that has it at once, and kept for the first attempt.
    fn front(&self) -> Option<(Bytes, bool)> {
        Self::front(self)
    }

    fn replace(request: &mut Request<Self>, bytes: Bytes) {
        let body = request.body().with_data(bytes);
        // The retry layer asks the handle whether the body can be repeated.
        request.extensions_mut().insert(body.replay());
        *request.body_mut() = body;
    }
}

pin_project! {
    /// A response's body: the inner service's, or the last resort's.
    ///
    /// Frames, trailers and errors pass through unchanged. Dropping it drops the inner body.
    pub struct FallbackBody<B> {
        #[pin]
        tail: Either<B>,
    }
}

impl<B> FallbackBody<B> {
    #[inline]
    pub(super) const fn inner(body: B) -> Self {
        Self { tail: Either::inner(body) }
    }

    pub(super) fn own(bytes: Bytes) -> Self {
        Self { tail: Either::own(bytes) }
    }
}

passes_on!(FallbackBody, bytes::Bytes);
