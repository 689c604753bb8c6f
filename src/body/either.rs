//! The body of a response that is the inner service's, or one of our own.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    #[project = EitherProj]
    pub(crate) enum Either<B> {
        Inner { #[pin] body: B },
        // `None` once they were delivered, and where there are none.
        Own { bytes: Option<Bytes> },
    }
}

impl<B> Either<B> {
    #[inline]
    pub(crate) const fn inner(body: B) -> Self {
        Self::Inner { body }
    }

    pub(crate) fn own(bytes: Bytes) -> Self {
        Self::Own { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()) }
    }
}

impl<B: Body<Data = Bytes>> Body for Either<B> {
    type Data = Bytes;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.project() {
            EitherProj::Inner { body } => body.poll_frame(cx),
            EitherProj::Own { bytes } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Inner { body } => body.is_end_stream(),
            Self::Own { bytes } => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Inner { body } => body.size_hint(),
            Self::Own { bytes } => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}
