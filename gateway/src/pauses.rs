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
