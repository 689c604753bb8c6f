//! A body that keeps something until it is over.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// A body that passes on another's frames, and keeps a guard: dropped with the last frame, with an error, or with the body.
    pub struct Kept<B, T> {
        #[pin]
        body: B,
        guard: Option<T>,
    }
}

impl<B, T> Kept<B, T> {
    /// Keeps `guard`, where there is one, as long as `body` lasts.
    pub const fn new(body: B, guard: Option<T>) -> Self {
        Self { body, guard }
    }
}

impl<B: Body, T> Body for Kept<B, T> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = this.body.poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            *this.guard = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use bytes::Bytes;
    use futures_util::FutureExt;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, std::io::Error>>;

    fn kept(frames: Frames) -> (Kept<impl Body<Data = Bytes, Error = std::io::Error>, Arc<()>>, Arc<()>) {
        let guard = Arc::new(());
        (Kept::new(StreamBody::new(futures_util::stream::iter(frames)), Some(Arc::clone(&guard))), guard)
    }

    fn data() -> Result<Frame<Bytes>, std::io::Error> {
        Ok(Frame::data(Bytes::from_static(b"x")))
    }

    #[test]
    fn the_guard_goes_at_the_end_at_an_error_and_with_the_body() {
        let (mut body, guard) = kept(vec![data()]);
        assert!(body.frame().now_or_never().flatten().is_some_and(|frame| frame.is_ok()));
        assert_eq!(Arc::strong_count(&guard), 2, "a frame came, and more may come");
        assert!(body.frame().now_or_never().flatten().is_none());
        assert_eq!(Arc::strong_count(&guard), 1, "it is over");

        let (mut body, guard) = kept(vec![Err(std::io::Error::other("broken"))]);
        assert!(body.frame().now_or_never().flatten().is_some_and(|frame| frame.is_err()));
        assert_eq!(Arc::strong_count(&guard), 1, "it broke");

        let (body, guard) = kept(vec![data()]);
        drop(body);
        assert_eq!(Arc::strong_count(&guard), 1, "it was dropped unread");
    }

    #[test]
    fn without_a_guard_it_is_the_body() {
        let inner = http_body_util::Full::new(Bytes::from_static(b"four"));
        let body: Kept<_, ()> = Kept::new(inner, None);
        assert_eq!(body.size_hint().exact(), Some(4));
        let read: Result<_, Infallible> = body.collect().now_or_never().expect("it is there");
        assert!(read.is_ok_and(|read| read.to_bytes() == "four"));
    }
}
