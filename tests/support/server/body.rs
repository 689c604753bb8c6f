//! What a server answers with: all at once, or event by event.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{Instant, Sleep};
use tower_gemini::BoxError;

/// How answers are streamed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    /// From the first event to the last: the median, and the standard deviation of the logarithm.
    pub(crate) lasts: Duration,
    pub(crate) sigma: f64,
    pub(crate) events: u32,
    /// The share that falls silent in the middle.
    pub(crate) stalls: f64,
}

impl Streams {
    pub(super) fn draw(&self, luck: &mut StdRng) -> Stream {
        let lasts = self.lasts.mul_f64(super::model::log_normal(self.sigma, luck.random(), luck.random()));
        let (stalls, when): (f64, f64) = (luck.random(), luck.random());
        // At least one event comes.
        let after = 1 + (when * f64::from(self.events - 1)) as u32;
        Stream {
            gap: lasts / (self.events - 1).max(1),
            events: self.events,
            stalls_after: (stalls < self.stalls).then_some(after),
        }
    }
}

/// One answer that is streamed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) gap: Duration,
    pub(crate) events: u32,
    /// After so many events nothing comes any more.
    pub(crate) stalls_after: Option<u32>,
}

#[allow(dead_code, reason = "the storm's policies ask")]
impl Stream {
    /// When its last event comes, after the head; `None` is never.
    pub(crate) fn lasts(&self) -> Option<Duration> {
        self.stalls_after.is_none().then(|| self.gap * (self.events - 1))
    }

    /// How long it is before it falls silent.
    pub(crate) fn until_silence(&self) -> Duration {
        self.gap * self.stalls_after.unwrap_or(self.events).saturating_sub(1)
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum ServerBody {
    Whole(Full<Bytes>),
    Stream { stream: Stream, sent: u32, next: Pin<Box<Sleep>> },
}

impl ServerBody {
    pub(super) fn stream(stream: Stream) -> Self {
        Self::Stream { stream, sent: 0, next: Box::pin(tokio::time::sleep_until(Instant::now())) }
    }
}

const EVENT: &str = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hi\"}]}}]}\r\n\r\n";
const LAST: &str = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hi\"}]},\"finishReason\":\"STOP\"}]}\r\n\r\n";

impl Body for ServerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Stream { stream, sent, next } => {
                if *sent == stream.events {
                    return Poll::Ready(None);
                }
                if stream.stalls_after == Some(*sent) {
                    return Poll::Pending;
                }
                ready!(next.as_mut().poll(cx));
                *sent += 1;
                let after = next.deadline() + stream.gap;
                next.as_mut().reset(after);
                let event = if *sent == stream.events { LAST } else { EVENT };
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(event.as_bytes())))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Stream { stream, sent, .. } => *sent == stream.events,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Stream { .. } => SizeHint::default(),
        }
    }
}
