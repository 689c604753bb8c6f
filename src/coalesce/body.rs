use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::flight::Seat;
use super::tape::Piece;
use crate::error::BoxError;

pin_project! {
    /// The body of a response that came through a [`Coalesce`](super::Coalesce).
    ///
    /// The same frames as the inner body's, for each of those who share it, at its own pace. Errors are boxed; one that several are given is a
    /// [`SharedError`](super::SharedError). Dropping it gives the place back; with the last one the inner body is dropped.
    pub struct CoalesceBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    enum Kind<B> {
        Plain { #[pin] inner: B },
        // `None` after an error. What is left of the body, where its length is known.
        Shared { seat: Option<Seat>, left: Option<u64> },
    }
}

impl<B> CoalesceBody<B> {
    #[inline]
    pub(super) const fn plain(inner: B) -> Self {
        Self { kind: Kind::Plain { inner } }
    }

    pub(super) const fn shared(seat: Seat, left: Option<u64>) -> Self {
        Self { kind: Kind::Shared { seat: Some(seat), left } }
    }
}

impl<B> Body for CoalesceBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProj::Plain { inner } => inner.poll_frame(cx).map_err(Into::into),
            KindProj::Shared { seat: slot, left } => {
                let Some(seat) = slot else { return Poll::Ready(None) };
                let piece = match ready!(seat.poll_piece(cx)) {
                    Some(Ok(piece)) => piece,
                    end => {
                        *slot = None;
                        return Poll::Ready(end.and_then(Result::err).map(Err));
                    }
                };
                Poll::Ready(Some(Ok(match piece {
                    Piece::Trailers(trailers) => Frame::trailers(trailers),
                    Piece::Data(data) => {
                        *left = left.map(|left| left.saturating_sub(data.len() as u64));
                        Frame::data(data)
                    }
                })))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Plain { inner } => inner.is_end_stream(),
            Kind::Shared { seat, .. } => seat.as_ref().is_none_or(Seat::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Plain { inner } => inner.size_hint(),
            Kind::Shared { seat: None, .. } => SizeHint::with_exact(0),
            Kind::Shared { left, .. } => left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl<B> fmt::Debug for CoalesceBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes may hold an answer or an echoed key.
        f.debug_struct("CoalesceBody").finish_non_exhaustive()
    }
}

pin_project! {
    /// An inner body whose errors are boxed.
    pub(super) struct Erased<B> {
        #[pin]
        inner: B,
    }
}

impl<B> Erased<B> {
    pub(super) const fn new(inner: B) -> Self {
        Self { inner }
    }
}

impl<B> Body for Erased<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.project().inner.poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
