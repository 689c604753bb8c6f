use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::asked::Asked;
use super::config::Settings;
use super::store::Answer;
use crate::body::either::Either;
use crate::judge::response::is_whole_answer;
use crate::verdict::{EndCell, Outcome, Verdict};

pin_project! {
    /// The body of a response that came through a [`WithLastGood`](super::WithLastGood): the inner service's, or a kept one.
    ///
    /// Frames, trailers and errors pass through unchanged. A good one is kept with its last frame. Dropping it before drops the inner body, and
    /// nothing is kept.
    pub struct LastGoodBody<B> {
        #[pin]
        inner: Either<B>,
        reading: Option<Box<Reading>>,
    }
}

/// A good answer that is being read.
struct Reading {
    asked: Box<Asked>,
    status: StatusCode,
    headers: HeaderMap,
    cell: Option<EndCell>,
    pieces: Vec<Bytes>,
    held: Held,
}

/// Bytes of this answer among those of all that are being read.
struct Held {
    bytes: usize,
    settings: Arc<Settings>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.settings.reading.fetch_sub(self.bytes, Relaxed);
    }
}

impl Held {
    /// Whether there is room for so many more.
    fn grow(&mut self, bytes: usize) -> bool {
        let Self { bytes: held, settings } = self;
        *held += bytes;
        // Added first, so that two cannot both see the last room; given back when this is dropped.
        let all = settings.reading.fetch_add(bytes, Relaxed).saturating_add(bytes);
        *held <= settings.max_answer_bytes && all <= settings.max_reading_bytes
    }
}

impl<B> LastGoodBody<B> {
    #[inline]
    pub(super) const fn inner(body: B) -> Self {
        Self { inner: Either::inner(body), reading: None }
    }

    pub(super) fn own(bytes: Bytes) -> Self {
        Self { inner: Either::own(bytes), reading: None }
    }
}

impl<B: Body<Data = Bytes>> LastGoodBody<B> {
    /// Of a response that is good so far.
    pub(super) fn reading(response: Response<B>, asked: Box<Asked>) -> Response<Self> {
        let too_large = response.body().size_hint().lower() > asked.settings.max_answer_bytes as u64;
        let reading = (!too_large && !response.body().is_end_stream()).then(|| {
            let headers = [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE]
                .into_iter()
                .filter_map(|name| response.headers().get(&name).map(|value| (name, value.clone())))
                .collect();
            let held = Held { bytes: 0, settings: Arc::clone(&asked.settings) };
            let cell = response.extensions().get::<Verdict>().and_then(Verdict::end_cell).cloned();
            Box::new(Reading { asked, status: response.status(), headers, cell, pieces: Vec::new(), held })
        });
        response.map(|body| Self { inner: Either::inner(body), reading })
    }
}

impl Reading {
    /// The body is over. Keeps it, if it is a complete answer.
    fn keep(self) {
        let Self { asked, status, headers, cell, pieces, held } = self;
        let is_complete = match &cell {
            Some(cell) => cell.get().is_some_and(|end| end.outcome == Outcome::Complete),
            None => true,
        };
        if !is_complete {
            return;
        }
        // A copy, since pieces may be small parts of large buffers.
        let mut body = BytesMut::with_capacity(held.bytes);
        pieces.iter().for_each(|piece| body.extend_from_slice(piece));
        let body = body.freeze();
        if is_whole_answer(status, &headers, &body) {
            let answer = Answer::new(status, headers, body, Duration::ZERO);
            asked.settings.store.put(&asked.key, answer);
        }
    }
}

impl<B: Body<Data = Bytes>> Body for LastGoodBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(cx));
        if let Some(reading) = this.reading {
            let is_over = match &frame {
                Some(Ok(frame)) => {
                    let data = frame.data_ref().cloned().unwrap_or_default();
                    if reading.held.grow(data.len()) {
                        reading.pieces.push(data);
                        this.inner.is_end_stream()
                    } else {
                        *this.reading = None;
                        false
                    }
                }
                Some(Err(_)) => {
                    *this.reading = None;
                    false
                }
                None => true,
            };
            if is_over {
                if let Some(reading) = this.reading.take() {
                    reading.keep();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> std::fmt::Debug for LastGoodBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The bytes hold an answer.
        f.debug_struct("LastGoodBody").finish_non_exhaustive()
    }
}
