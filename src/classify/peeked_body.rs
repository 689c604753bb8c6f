//! An answer that is looked at before it is handed on: its head, its first frames, and the rest of its body.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::reader::{Reader, Until};
use super::size_hint::behind;
use super::watch::Watch;
use crate::judge::response::Seen;
use crate::tier::ServiceTier;

/// How long the word that an interaction was created is held in case an error follows. One in the background may say nothing
/// more for minutes; output ends the wait at once.
const GRACE: Duration = Duration::from_millis(500);

/// Frames held at most, however small: each of them takes room beside its bytes.
const MAX_FRAMES: usize = 1024;

pin_project! {
    /// Lives in one box from the head on: the body is polled here and handed on afterwards, and need not be `Unpin`.
    pub(super) struct PeekedBody<B: Body> {
        #[pin]
        rest: B,
        until: Until,
        // Taken when the answer is handed on.
        parts: Option<Parts>,
        // Apart from the others, so that the usual one frame is held without an allocation.
        first: Option<Frame<Bytes>>,
        more: VecDeque<Frame<Bytes>>,
        // Of data in the frames held.
        bytes: usize,
        // The transport's error, which comes after the frames.
        lost: Option<B::Error>,
        // While an interaction that has only begun is waited for.
        grace: Option<Pin<Box<Sleep>>>,
        // Trailers were seen, after which no data comes.
        trailed: bool,
        // `rest` has said that it is over.
        done: bool,
        along: Along,
    }
}

/// Who reads along.
#[allow(clippy::large_enum_variant, reason = "the large ones are the usual ones, and all of it is boxed")]
enum Along {
    Peeking(Reader),
    Watching(Watch),
    Nobody,
}

impl<B: Body<Data = Bytes>> PeekedBody<B> {
    pub(super) fn new(parts: Parts, rest: B, until: Until, streams: bool, model: u16) -> Self {
        let along = Along::Peeking(Reader::new(&parts, streams));
        let mut held = Self {
            rest,
            until,
            parts: Some(parts),
            first: None,
            more: VecDeque::new(),
            bytes: 0,
            lost: None,
            grace: None,
            trailed: false,
            done: false,
            along,
        };
        if let (1.., Along::Peeking(reader)) = (model, &mut held.along) {
            reader.expect(model);
        }
        held
    }

    /// Ready when enough has been seen, or there is no more to see.
    pub(super) fn poll_peek(self: Pin<&mut Self>, limit: usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Along::Peeking(reader) = this.along else { return Poll::Ready(()) };
        loop {
            let over = *this.done || *this.trailed || this.lost.is_some() || this.rest.is_end_stream();
            let full = *this.bytes >= limit || this.more.len() + 1 >= MAX_FRAMES;
            let enough = reader.has_enough(*this.until);
            if over || full || enough && !reader.may_fail_yet() {
                return Poll::Ready(());
            }
            let frame = match this.rest.as_mut().poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending if enough => {
                    let grace = this.grace.get_or_insert_with(|| Box::pin(tokio::time::sleep(GRACE)));
                    return grace.as_mut().poll(cx);
                }
                Poll::Pending => return Poll::Pending,
            };
            match frame {
                Some(Ok(frame)) => {
                    match frame.data_ref() {
                        Some(data) => {
                            reader.read(data);
                            *this.bytes += data.len();
                        }
                        None => *this.trailed = true,
                    }
                    if this.first.is_none() {
                        *this.first = Some(frame);
                    } else {
                        this.more.push_back(frame);
                    }
                }
                Some(Err(error)) => *this.lost = Some(error),
                None => *this.done = true,
            }
        }
    }

    /// The answer, with what has been seen of it: a failure, or a success so far, which is watched if asked for.
    pub(super) fn hand_on(
        mut held: Pin<Box<Self>>,
        watch: bool,
        asked: Option<ServiceTier>,
    ) -> Response<Pin<Box<Self>>> {
        let this = held.as_mut().project();
        let mut parts = this.parts.take().expect("it is handed on once");
        if let Along::Peeking(mut reader) = std::mem::replace(this.along, Along::Nobody) {
            let seen = match () {
                () if this.lost.is_some() => Seen::Lost,
                () if *this.done || *this.trailed || this.rest.is_end_stream() => Seen::Whole,
                () => Seen::Part,
            };
            if let Some(verdict) = reader.verdict(&parts, seen, *this.until) {
                parts.extensions.insert(verdict.of_tier(asked));
            } else if watch {
                *this.along = Along::Watching(Watch::new(&mut parts, reader, asked));
            }
        }
        // A body that is over may never be polled.
        if held.is_end_stream() {
            held.as_mut().project().along.complete();
        }
        Response::from_parts(parts, held)
    }

    pub(super) fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        if let Some(frame) = this.first.take().or_else(|| this.more.pop_front()) {
            *this.bytes -= frame.data_ref().map_or(0, Bytes::len);
            let last = this.more.is_empty() && this.lost.is_none();
            if last && (*this.done || this.rest.is_end_stream()) {
                this.along.complete();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = this.lost.take() {
            this.along.see(&Some(Err(())), false);
            return Poll::Ready(Some(Err(error)));
        }
        if *this.done {
            this.along.complete();
            return Poll::Ready(None);
        }
        let frame = ready!(this.rest.as_mut().poll_frame(cx));
        this.along.see(&frame, this.rest.is_end_stream());
        *this.done = frame.is_none();
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let held = self.first.is_some() || !self.more.is_empty() || self.lost.is_some();
        !held && (self.done || self.rest.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        behind(self.bytes, (!self.done).then(|| self.rest.size_hint()))
    }
}

impl Along {
    fn see<E>(&mut self, frame: &Option<Result<Frame<Bytes>, E>>, last: bool) {
        if let Self::Watching(watch) = self {
            watch.see(frame, last);
        }
    }

    fn complete(&mut self) {
        if let Self::Watching(watch) = self {
            watch.complete();
        }
    }
}
