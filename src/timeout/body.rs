use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::plan::{Cut, Rest};
use super::timer::{Pause, Timer};
use super::{Phase, TimedOut};
use crate::error::BoxError;
use crate::error::timed_out::Fault;
use crate::time;
use crate::verdict::{EndCell, Kind, Verdict};

/// A reader that comes back so much later than a timer woke it was busy elsewhere, and not waiting. A busy executor
/// wakes its tasks sooner.
const AWAY: Duration = Duration::from_secs(1);

pin_project! {
    /// The body of a response that came through a [`Timeout`](super::Timeout).
    ///
    /// Frames, trailers and errors pass through unchanged, errors boxed. When a limit is over the inner body is
    /// dropped, one [`TimedOut`] follows, and then the end. Dropping it drops the inner body, and its timer.
    ///
    /// # Panics
    ///
    /// Its `poll_frame` does, where the inner body is not ready at once and there is no tokio runtime with time enabled.
    pub struct TimeoutBody<B> {
        // `None` once it has ended, failed or was cut.
        #[pin]
        inner: Option<B>,
        limits: Limits,
        // Where the classifier publishes how the body ended.
        cell: Option<EndCell>,
    }
}

struct Limits {
    rest: Rest,
    /// The call's, if that had to wait; else made at the first wait of the body.
    timer: Option<Pin<Box<Timer>>>,
}

impl<B> TimeoutBody<B> {
    #[inline(always)]
    pub(super) fn limit(response: Response<B>, rest: Rest, timer: Option<Pin<Box<Timer>>>) -> Response<Self> {
        let cell = if rest.is_empty() {
            None
        } else {
            response.extensions().get::<Verdict>().and_then(Verdict::end_cell).cloned()
        };
        response.map(|inner| Self { inner: Some(inner), limits: Limits { rest, timer }, cell })
    }
}

impl Limits {
    /// The inner body has nothing at the moment. Ready when that has lasted too long.
    #[inline(never)]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        let Self { rest, timer } = self;
        let total = rest.total();
        loop {
            // A pause does not begin with the last frame: until somebody asks for the next one, the silence is the
            // reader's.
            let idle = rest.idle().map(|after| {
                let known = timer.as_ref().and_then(|timer| timer.pause.until);
                let at = known.unwrap_or_else(|| time::saturating_add(time::now(), after));
                Cut { at, what: Phase::Idle, after }
            });
            let Some(cut) = [total, idle].into_iter().flatten().min_by_key(|cut| cut.at) else {
                return Poll::Pending;
            };
            let mut timer = timer.get_or_insert_with(|| Timer::new(cut.at)).as_mut();
            let pause = timer.as_mut().pause();
            pause.until = idle.map(|idle| idle.at);
            pause.is_asked = true;
            ready!(timer.as_mut().poll_until(cut.at, cx));
            let pause = timer.pause();
            if cut.what == Phase::Idle && !pause.is_spared && is_long_ago(cut.at) {
                (pause.until, pause.is_spared) = (None, true);
            } else {
                return Poll::Ready(cut);
            }
        }
    }

    /// A frame has come.
    #[inline]
    fn went_on(&mut self) {
        if let Some(timer) = &mut self.timer {
            *timer.as_mut().pause() = Pause::default();
        }
    }

    /// A body that is read slowly has no pauses, but it has an end. Whose doing that is: the reader's, if no frame that it
    /// asked for is missing.
    #[inline]
    fn is_over_time(&self) -> Option<(Cut, Fault)> {
        let total = self.rest.total().filter(|total| total.at <= time::now())?;
        let is_asked = self.timer.as_ref().is_some_and(|timer| timer.pause.is_asked);
        Some((total, if is_asked { Fault::Server } else { Fault::Deadline }))
    }
}

fn is_long_ago(at: Instant) -> bool {
    time::now() > time::saturating_add(at, AWAY)
}

impl<B> Body for TimeoutBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let late = if inner.is_end_stream() { None } else { this.limits.is_over_time() };
        let (cut, fault) = match late {
            Some(late) => late,
            None => match inner.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    this.limits.went_on();
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(end) => {
                    this.inner.set(None);
                    this.limits.timer = None;
                    return Poll::Ready(end.map(|result| result.map_err(Into::into)));
                }
                Poll::Pending => (ready!(this.limits.poll(cx)), Fault::Server),
            },
        };
        // Said before the inner body is dropped: its watcher publishes then.
        if let Some(cell) = this.cell {
            cell.cut(Kind::DeadlineExceeded, fault != Fault::Server);
        }
        this.inner.set(None);
        this.limits.timer = None;
        Poll::Ready(Some(Err(TimedOut::new(cut.what, cut.after, fault).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> fmt::Debug for TimeoutBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes may hold an answer or an echoed key.
        f.debug_struct("TimeoutBody").finish_non_exhaustive()
    }
}
