//! Answers that pause for longer than they may, where they are only counted: `--idle-mode observe`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// Where pauses are counted, and which.
#[derive(Clone, Debug)]
pub struct Watch {
    pub metrics: Arc<Metrics>,
    pub most: Duration,
}

#[derive(Debug)]
struct Pause {
    of: Watch,
    since: Option<Instant>,
}

impl Pause {
    fn end(&mut self) {
        if self.since.take().is_some_and(|since| Instant::now() - since >= self.of.most) {
            self.of.metrics.would_be_cut();
        }
    }
}

/// The client that leaves in a pause ends it, too.
impl Drop for Pause {
    fn drop(&mut self) {
        self.end();
    }
}

pin_project! {
    /// A body whose long pauses are counted, where there is somebody who counts.
    pub struct Pauses<B> {
        #[pin]
        body: B,
        pause: Option<Pause>,
    }
}

impl<B> Pauses<B> {
    pub fn new(body: B, watch: Option<Watch>) -> Self {
        let pause = watch.map(|of| Pause { of, since: Some(Instant::now()) });
        Self { body, pause }
    }
}

impl<B: Body> Body for Pauses<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = this.body.poll_frame(cx);
        if let Some(pause) = this.pause {
            match &frame {
                Poll::Pending => drop(pause.since.get_or_insert_with(Instant::now)),
                Poll::Ready(_) => pause.end(),
            }
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
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    /// `None` is a moment in which nothing is there.
    struct Parts(VecDeque<Option<Bytes>>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.pop_front() {
                Some(Some(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(None) => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }

    const MOST: Duration = Duration::from_secs(5);

    fn counted(metrics: &Metrics) -> bool {
        let mut text = String::new();
        metrics.write(&mut text);
        assert!(
            text.contains("gateway_idle_would_cut_total 0\n")
                || text.contains("gateway_idle_would_cut_total 1\n")
        );
        text.contains("gateway_idle_would_cut_total 1\n")
    }

    /// A body that waits now, and who counts.
    fn waiting() -> (Pauses<Parts>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::default());
        let parts = Parts([Some(Bytes::from_static(b"a")), None, Some(Bytes::from_static(b"b"))].into());
        let mut body = Pauses::new(parts, Some(Watch { metrics: Arc::clone(&metrics), most: MOST }));
        assert!(body.frame().now_or_never().is_some());
        assert!(body.frame().now_or_never().is_none());
        (body, metrics)
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_pause_is_counted_once_whether_a_part_or_a_drop_ends_it() {
        for drops in [false, true] {
            for (after, counts) in [(MOST - Duration::from_millis(1), false), (MOST, true)] {
                let (mut body, metrics) = waiting();
                tokio::time::advance(after).await;
                assert!(!counted(&metrics), "it is not over");
                if !drops {
                    assert!(body.frame().now_or_never().is_some());
                    assert_eq!(counted(&metrics), counts);
                }
                drop(body);
                assert_eq!(counted(&metrics), counts);
                assert_eq!(Arc::strong_count(&metrics), 1, "the count is given back");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_before_the_first_part_is_a_pause_and_that_of_a_slow_reader_is_none() {
        let metrics = Arc::new(Metrics::default());
        let watch = || Some(Watch { metrics: Arc::clone(&metrics), most: MOST });
        let mut body = Pauses::new(Parts([Some(Bytes::new())].into()), watch());
        tokio::time::advance(MOST).await;
        assert!(body.frame().now_or_never().is_some());
        assert!(counted(&metrics));
        // Nothing was asked for meanwhile.
        tokio::time::advance(MOST).await;
        drop(body);
        assert!(counted(&metrics));
        drop(Pauses::new(Parts(VecDeque::new()), None));
    }
}
