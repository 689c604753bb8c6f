//! What is told of one request, from its beginning until its answer's last byte.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Duration, Instant};
use tower_gemini::verdict::{Outcome, Usage};
use tower_gemini::{BoxError, Kind, Verdict};

use super::log::{Line, Logger};
use super::metrics::Metrics;

/// How many calls to the upstream a request led to: an extension that all its attempts share. An answer says it by itself,
/// an error does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tries(Arc<AtomicU32>);

impl Tries {
    /// Called at the bottom of the stack.
    pub(crate) fn count<B>(request: &Request<B>) {
        if let Some(Self(count)) = request.extensions().get() {
            // One attempt follows another, and the last has ended when this is read.
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One request. Told when it is dropped: with the last byte, or because the client has left.
pub(crate) struct Record {
    metrics: Arc<Metrics>,
    logger: Logger,
    started: Instant,
    method: Method,
    path: Box<str>,
    model: Option<Box<str>>,
    tries: Tries,
    answer: Option<Answer>,
}

struct Answer {
    status: StatusCode,
    verdict: Verdict,
    after: Duration,
    ended: bool,
    broken: Option<Kind>,
}

impl Record {
    /// `path` is without its query, in which a key may be.
    pub(crate) fn begin(metrics: Arc<Metrics>, logger: Logger, method: Method, path: Box<str>) -> Self {
        metrics.begun();
        let tries = Tries::default();
        Self { metrics, logger, started: Instant::now(), method, path, model: None, tries, answer: None }
    }

    pub(crate) fn asks(&mut self, model: Box<str>) {
        self.model = Some(model);
    }

    pub(crate) fn tries(&self) -> Tries {
        self.tries.clone()
    }

    pub(crate) fn answered(&mut self, status: StatusCode, verdict: Verdict) {
        let after = Instant::now().saturating_duration_since(self.started);
        self.answer = Some(Answer { status, verdict, after, ended: false, broken: None });
    }

    /// What it came to: `ok`, a kind of failure, or that the client left.
    fn kind(&self) -> &'static str {
        const LEFT: &str = "client_left";
        let Some(answer) = &self.answer else { return LEFT };
        match (answer.verdict.kind().or(answer.broken), answer.verdict.outcome()) {
            (Some(kind), _) | (None, Some(Outcome::Failed(kind))) => kind.as_str(),
            (None, Some(Outcome::Dropped)) => LEFT,
            (None, None) if !answer.ended => LEFT,
            (None, _) => "ok",
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let latency = Instant::now().saturating_duration_since(self.started);
        let status = self.answer.as_ref().map(|answer| answer.status);
        let attempts = self.tries.0.load(Ordering::Relaxed);
        let usage: Option<Usage> = self.answer.as_ref().and_then(|answer| answer.verdict.usage());
        self.metrics.ended(status, latency, attempts, usage);
        if self.logger.is_on() {
            self.logger.write(&Line {
                method: self.method.as_str(),
                path: &self.path,
                status: status.map(|status| status.as_u16()),
                kind: self.kind(),
                model: self.model.as_deref(),
                input_tokens: usage.map(|usage| usage.input_tokens),
                output_tokens: usage.map(|usage| usage.output_tokens + usage.thought_tokens),
                first_byte: self.answer.as_ref().map(|answer| answer.after),
                latency,
                attempts,
            });
        }
    }
}

pin_project! {
    /// A body on its way out, with the record of its request.
    pub(crate) struct Recorded<B> {
        // Before the record: the verdict knows how the body ended when the body is gone.
        #[pin]
        body: Option<B>,
        record: Option<Record>,
    }
}

impl<B> Recorded<B> {
    pub(crate) const fn new(body: B, record: Record) -> Self {
        Self { body: Some(body), record: Some(record) }
    }
}

impl<B> Body for Recorded<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let polled = ready!(body.poll_frame(cx)).map(|frame| frame.map_err(Into::into));
        let over = match &polled {
            Some(Ok(_)) => this.body.as_ref().as_pin_ref().is_none_or(|body| body.is_end_stream()),
            Some(Err(_)) | None => true,
        };
        if over {
            if let Some(answer) = this.record.as_mut().and_then(|record| record.answer.as_mut()) {
                answer.ended = true;
                if let Some(Err(error)) = &polled {
                    answer.broken = Verdict::from_error(error.as_ref()).kind().or(Some(Kind::Transport));
                }
            }
            this.body.set(None);
            *this.record = None;
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
