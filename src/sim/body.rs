//! The body of a simulated response.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::guard::Guard;
use super::pieces::{Event, Piece};
use super::{TransportFault, reset};
use crate::time::saturating_add;

/// hyper throws away what it has not flushed when a body fails, and it flushes when a body makes it wait. So
/// a reset lets its reader wait this long, and the bytes before it arrive.
const FLUSH: Duration = Duration::from_millis(1);

/// The body of a response of a [`Simulator`](super::Simulator): chunks at their times, on tokio's clock.
///
/// The times are those of the server, fixed when the head was sent: a reader who comes late finds the chunks
/// waiting. Only a reset makes its reader wait for 1 ms, so that a server can send what came before it.
/// Dropping it before its end is noted in the log as [`Call::was_dropped`](super::Call::was_dropped).
#[must_use = "bodies do nothing unless polled"]
pub struct SimBody {
    /// What is still to come, and when. Empty after the end and after a failure.
    events: VecDeque<(Instant, Event)>,
    timer: Option<Pin<Box<Sleep>>>,
    sized: bool,
    /// Whether the wait before a reset has begun.
    flushing: bool,
    guard: Guard,
}

impl SimBody {
    pub(super) fn new(pieces: Vec<Piece>, sized: bool, head: Instant, guard: Guard) -> Self {
        let mut at = head;
        let events = pieces.into_iter().map(|piece| {
            at = saturating_add(at, piece.gap);
            (at, piece.event)
        });
        let mut body = Self { events: events.collect(), timer: None, sized, flushing: false, guard };
        body.settle();
        body
    }

    /// An announced length has been reached with its last byte; nobody need poll for the end.
    fn settle(&mut self) {
        if self.sized && matches!(self.events.front(), Some((_, Event::End))) {
            self.events.clear();
            self.guard.finish();
        }
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        let Some((at, event)) = this.events.front_mut() else { return Poll::Ready(None) };
        if matches!(event, Event::Reset) && !std::mem::replace(&mut this.flushing, true) {
            *at = saturating_add(crate::time::now(), FLUSH).max(*at);
        }
        let at = *at;
        if at > crate::time::now() {
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        match this.events.pop_front() {
            Some((_, Event::Data(data))) => {
                this.settle();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some((_, Event::Reset)) => {
                this.guard.fail(TransportFault::ResetInBody);
                Poll::Ready(Some(Err(reset())))
            }
            Some((_, Event::End)) | None => {
                this.guard.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.events.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let known = self.events.iter().map(|(_, event)| match event {
            Event::Data(data) => data.len() as u64,
            Event::Reset | Event::End => 0,
        });
        if self.sized { SizeHint::with_exact(known.sum()) } else { SizeHint::default() }
    }
}

impl fmt::Debug for SimBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimBody").field("events_left", &self.events.len()).finish_non_exhaustive()
    }
}
