use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::peeked_body::PeekedBody;
use super::size_hint::behind;
use super::watch::Watch;

pin_project! {
    /// The body of a judged response: the same bytes as the inner body's.
    ///
    /// A success passes through frame by frame, also where its first frames were held. The body of a failed status
    /// begins with what was read for the judgement, in one frame, and goes on with the rest. Dropping it drops the inner body; where it was watched, the
    /// outcome "dropped" is published.
    pub struct ClassifyBody<B: Body> {
        #[pin]
        kind: Which<B>,
    }
}

pin_project! {
    #[project = WhichProj]
    enum Which<B: Body> {
        // A success. The watcher is there only when asked for.
        Plain { #[pin] inner: B, watch: Option<Watch> },
        // An answer that was peeked at.
        PeekedBody { held: Pin<Box<PeekedBody<B>>> },
        // A failure, of which the beginning has been read.
        Read { read: Box<Read<B>> },
    }
}

/// A failure's body: what has been read of it, and what has not.
pub(super) struct Read<B: Body> {
    /// The first frame, or what has been joined.
    pub(super) front: Bytes,
    /// More than one frame, while reading. `None` before and after.
    pub(super) joined: Option<BytesMut>,
    /// The frame that went over the limit, as it came.
    pub(super) overflow: Option<Bytes>,
    /// The trailers, or the error, that came after the data while reading.
    pub(super) tail: Option<Result<Frame<Bytes>, B::Error>>,
    /// `rest` has said that it is over.
    pub(super) done: bool,
    pub(super) rest: Pin<Box<B>>,
}

impl<B: Body> Read<B> {
    pub(super) const fn new(rest: Pin<Box<B>>) -> Self {
        Self { front: Bytes::new(), joined: None, overflow: None, tail: None, done: false, rest }
    }

    pub(super) fn len(&self) -> usize {
        self.joined.as_ref().map_or(self.front.len(), BytesMut::len)
            + self.overflow.as_ref().map_or(0, Bytes::len)
    }
}

impl<B: Body<Data = Bytes>> ClassifyBody<B> {
    pub(super) const fn plain(inner: B) -> Self {
        Self { kind: Which::Plain { inner, watch: None } }
    }

    pub(super) fn watched(inner: B, watch: Watch) -> Self {
        // A body that is over from the start may never be polled.
        if inner.is_end_stream() {
            watch.complete();
        }
        Self { kind: Which::Plain { inner, watch: Some(watch) } }
    }

    pub(super) const fn held(held: Pin<Box<PeekedBody<B>>>) -> Self {
        Self { kind: Which::PeekedBody { held } }
    }

    pub(super) const fn read(read: Box<Read<B>>) -> Self {
        Self { kind: Which::Read { read } }
    }
}

impl<B: Body<Data = Bytes>> Body for ClassifyBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.project().kind.project() {
            WhichProj::Plain { mut inner, watch } => {
                let frame = ready!(inner.as_mut().poll_frame(cx));
                if let Some(watch) = watch {
                    watch.see(&frame, inner.is_end_stream());
                }
                Poll::Ready(frame)
            }
            WhichProj::PeekedBody { held } => held.as_mut().poll_frame(cx),
            WhichProj::Read { read } => {
                let front = std::mem::take(&mut read.front);
                if !front.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(front))));
                }
                if let Some(data) = read.overflow.take() {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                if let Some(tail) = read.tail.take() {
                    return Poll::Ready(Some(tail));
                }
                if read.done {
                    return Poll::Ready(None);
                }
                let frame = ready!(read.rest.as_mut().poll_frame(cx));
                read.done = frame.is_none();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Which::Plain { inner, .. } => inner.is_end_stream(),
            Which::PeekedBody { held } => held.is_end_stream(),
            Which::Read { read } => {
                read.front.is_empty()
                    && read.overflow.is_none()
                    && read.tail.is_none()
                    && (read.done || read.rest.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Which::Plain { inner, .. } => inner.size_hint(),
            Which::PeekedBody { held } => held.size_hint(),
            Which::Read { read } => behind(read.len(), (!read.done).then(|| read.rest.size_hint())),
        }
    }
}

impl<B: Body> fmt::Debug for ClassifyBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes may hold an answer or an echoed key.
        f.debug_struct("ClassifyBody").finish_non_exhaustive()
    }
}
