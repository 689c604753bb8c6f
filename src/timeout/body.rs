use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::plan::{Cut, Plan};
use super::{Phase, TimedOut};
use crate::error::BoxError;
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
    total: Option<Cut>,
    idle: Option<Duration>,
    /// When the pause is over that the body makes now; `None` while nobody waits for it.
    pause: Option<Instant>,
    /// This pause was begun anew for a reader who had been away. Once, so that one who looks in now and then meets
    /// the end of it, too.
    spared: bool,
    /// Made at the first wait, and boxed: a body that must be pinned could not be read frame by frame without
    /// ceremony. It may be set for an earlier pause, and is set anew only when it fires.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> TimeoutBody<B> {
    #[inline]
    pub(super) fn limit(response: Response<B>, plan: Plan) -> Response<Self> {
        let cell = if plan.is_empty() {
            None
        } else {
            response.extensions().get::<Verdict>().and_then(Verdict::end_cell).cloned()
        };
        let limits = Limits { total: plan.total, idle: plan.idle, pause: None, spared: false, timer: None };
        response.map(|inner| Self { inner: Some(inner), limits, cell })
    }
}

impl Limits {
    /// The inner body has nothing at the moment. Ready when that has lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        loop {
            let idle = self.idle.map(|after| {
                // Not from the last frame on: until somebody asks for the next one, the silence is the reader's.
                let at = *self.pause.get_or_insert_with(|| time::saturating_add(time::now(), after));
                Cut { at, what: Phase::Idle, after }
            });
            let Some(cut) = [self.total, idle].into_iter().flatten().min_by_key(|cut| cut.at) else {
                return Poll::Pending;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(cut.at)));
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() < cut.at {
                // It was set for an earlier pause, which ended in time.
                timer.as_mut().reset(cut.at);
            } else if cut.what == Phase::Idle && !self.spared && is_long_ago(cut.at) {
                (self.pause, self.spared) = (None, true);
            } else {
                return Poll::Ready(cut);
            }
        }
    }

    /// A body that is read slowly has no pauses, but it has an end.
    fn is_over_time(&self) -> Option<Cut> {
        self.total.filter(|total| total.at <= time::now())
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
        let cut = match late {
            Some(cut) => cut,
            None => match inner.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    this.limits.pause = None;
                    this.limits.spared = false;
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(end) => {
                    this.inner.set(None);
                    this.limits.timer = None;
                    return Poll::Ready(end.map(|result| result.map_err(Into::into)));
                }
                Poll::Pending => ready!(this.limits.poll(cx)),
            },
        };
        // Said before the inner body is dropped: its watcher publishes then.
        if let Some(cell) = this.cell {
            cell.cut(Kind::DeadlineExceeded);
        }
        this.inner.set(None);
        this.limits.timer = None;
        Poll::Ready(Some(Err(TimedOut::new(cut).into())))
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
