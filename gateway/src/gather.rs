//! Small parts of an answer that are there at once, sent as one.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// What is sent without looking for more.
const ENOUGH: usize = 16 * 1024;

pin_project! {
    /// A body of unknown length whose parts are joined as long as the next one is there.
    ///
    /// hyper writes whenever no part is at hand after one: a write, and so a system call, for each event of a stream. A part that nothing
    /// follows goes on at once. An error is told a poll later than it could be: hyper ends the connection with what it has not written.
    pub struct Gather<B, E> {
        #[pin]
        body: B,
        // Of a body with a length nothing is joined: its parts are as large as reads are.
        streams: bool,
        first: Bytes,
        more: BytesMut,
        // What came behind the parts that are held.
        behind: Option<Option<Result<Frame<Bytes>, E>>>,
        // Whether the reader was let write before it is told of an error.
        written: bool,
    }
}

impl<B: Body<Data = Bytes>> Gather<B, B::Error> {
    pub fn new(body: B) -> Self {
        let streams = body.size_hint().exact().is_none();
        let (first, more) = (Bytes::new(), BytesMut::new());
        Self { body, streams, first, more, behind: None, written: false }
    }
}

impl<B: Body<Data = Bytes>> Body for Gather<B, B::Error> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        loop {
            if let Some(behind) = this.behind.take() {
                if matches!(behind, Some(Err(_))) && !std::mem::replace(this.written, true) {
                    *this.behind = Some(behind);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                return Poll::Ready(behind);
            }
            let frame = this.body.as_mut().poll_frame(cx);
            let Poll::Ready(frame) = frame else {
                if this.first.is_empty() {
                    return Poll::Pending;
                }
                break;
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) if !*this.streams => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Ok(Ok(data))) => {
                    if this.first.is_empty() {
                        *this.first = data;
                    } else {
                        if this.more.is_empty() {
                            this.more.extend_from_slice(this.first);
                        }
                        this.more.extend_from_slice(&data);
                    }
                    if this.first.len().max(this.more.len()) >= ENOUGH {
                        break;
                    }
                }
                behind => {
                    let behind = behind.map(|frame| match frame {
                        Ok(Err(trailers)) => Ok(trailers),
                        Ok(Ok(data)) => Ok(Frame::data(data)),
                        Err(error) => Err(error),
                    });
                    *this.behind = Some(behind);
                    if !this.first.is_empty() {
                        break;
                    }
                }
            }
        }
        let first = std::mem::take(this.first);
        let joined = if this.more.is_empty() { first } else { this.more.split().freeze() };
        Poll::Ready(Some(Ok(Frame::data(joined))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.behind.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.streams { SizeHint::default() } else { self.body.size_hint() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    /// `None` is a moment in which nothing is there; the body wakes itself then.
    struct Parts(VecDeque<Option<Result<Frame<Bytes>, u8>>>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = u8;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, u8>>> {
            match self.0.pop_front() {
                Some(Some(frame)) => Poll::Ready(Some(frame)),
                Some(None) => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }

    fn data(text: &[u8]) -> Option<Result<Frame<Bytes>, u8>> {
        Some(Ok(Frame::data(Bytes::copy_from_slice(text))))
    }

    #[test]
    fn what_is_there_at_once_is_one_part_and_a_pause_ends_it() {
        let parts = [data(b"a"), data(b"b"), data(b"c"), None, None, data(b"d"), Some(Err(7))];
        let mut body = Gather::new(Parts(parts.into()));
        let mut next = || body.frame().now_or_never();
        let joined = next().unwrap().unwrap().unwrap().into_data().unwrap();
        assert_eq!(&joined[..], b"abc");
        assert!(next().is_none(), "the pause, for the second time");
        assert_eq!(&next().unwrap().unwrap().unwrap().into_data().unwrap()[..], b"d");
        assert!(next().is_none(), "what came before the error is written first");
        assert_eq!(next().unwrap().unwrap().err(), Some(7));
    }

    proptest! {
        /// Whatever the parts and pauses: every byte, in its order, and the end or the error behind them.
        #[test]
        fn no_byte_is_lost_or_held_back(
            parts in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 1..9000)), 0..30),
            fails in any::<bool>(),
        ) {
            let sent: Vec<u8> = parts.iter().flatten().flatten().copied().collect();
            let mut all: VecDeque<_> = parts.iter().map(|part| part.as_deref().and_then(data)).collect();
            if fails {
                all.push_back(Some(Err(1)));
            }
            let mut body = Gather::new(Parts(all));
            let mut got = Vec::new();
            let mut polls = 0;
            let end = loop {
                polls += 1;
                prop_assert!(polls < 200, "it hangs");
                match body.frame().now_or_never() {
                    None => {}
                    Some(Some(Ok(frame))) => got.extend_from_slice(frame.data_ref().unwrap()),
                    Some(Some(Err(error))) => break Some(error),
                    Some(None) => break None,
                }
            };
            prop_assert_eq!(end, fails.then_some(1));
            prop_assert!(got == sent);
        }
    }
}
