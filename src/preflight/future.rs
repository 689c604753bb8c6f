use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use super::body::watch;
use super::body::{Head, PreflightBody};
use super::config::Settings;
use super::count::{self, MAX_ANSWER};
use super::error::BodyFailed;
use super::rule::Finding;
use super::scan::Scan;
use crate::error::BoxError;
use crate::rate_limit::InputTokens;
use crate::request::Target;

pin_project! {
    /// The future of [`Preflight`](super::Preflight): the inner service's, once the request was let through.
    ///
    /// Dropping it drops the call, the question for a count, or the body that is being read.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, F, RB> {
        #[pin]
        pub(super) state: State<S, B, F, RB>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<S, B, F, RB> {
        Called { #[pin] future: F },
        // `None` once it was told.
        Refused { error: Option<BoxError> },
        // `None` once it was sent.
        Slow { slow: Option<Box<Slow<S, B, F, RB>>> },
    }
}

/// A request whose body is still to come, or whose tokens are asked for.
pub(super) struct Slow<S, B, F, RB> {
    inner: S,
    settings: Arc<Settings>,
    head: Request<()>,
    body: Option<PreflightBody<B>>,
    scan: Scan,
    phase: Phase<F, RB>,
    /// What the head breaks, and is not refused for.
    found: Vec<Finding>,
    deadline: Option<Instant>,
    /// When the phase ends at the latest.
    timer: Pin<Box<Sleep>>,
}

enum Phase<F, RB> {
    Reading,
    /// The inner service gets ready for the question.
    Asking,
    Asked(Pin<Box<F>>),
    Answered(Pin<Box<RB>>, BytesMut),
    /// The inner service gets ready for the request.
    Ready,
}

impl<S, B, F, RB> Slow<S, B, F, RB> {
    pub(super) fn reading(
        inner: S,
        settings: Arc<Settings>,
        head: Request<()>,
        body: PreflightBody<B>,
        scan: Scan,
        found: Vec<Finding>,
        deadline: Option<Instant>,
    ) -> Self {
        let until = count::give_up_at(settings.head_wait, deadline);
        let timer = Box::pin(sleep_until(until));
        Self { inner, settings, head, body: Some(body), scan, phase: Phase::Reading, found, deadline, timer }
    }

    pub(super) fn counting(
        inner: S,
        settings: Arc<Settings>,
        head: Request<()>,
        body: PreflightBody<B>,
        scan: Scan,
        deadline: Option<Instant>,
    ) -> Self {
        let mut slow = Self::reading(inner, settings, head, body, scan, Vec::new(), deadline);
        slow.begin_count();
        slow
    }

    fn begin_count(&mut self) {
        let timeout = self.settings.count.map_or(std::time::Duration::ZERO, |count| count.timeout);
        self.timer.as_mut().reset(count::give_up_at(timeout, self.deadline));
        self.phase = Phase::Asking;
    }

    /// The beginning of the body is there, or is not waited for any longer.
    fn judge(&mut self, whole: bool) -> Result<(), BoxError> {
        let (mut found, target) = (std::mem::take(&mut self.found), Target::of(&self.head));
        self.settings.body(&target, &self.head, self.scan.facts(), &mut found);
        if let Some(refused) = self.settings.settle(&target, &found) {
            return Err(refused.into());
        }
        if whole && self.settings.counts(&target, &self.head, self.scan.facts()) {
            drop(target);
            self.begin_count();
            return Ok(());
        }
        let texts = if whole { Settings::texts(&target, &self.head, self.scan.facts()) } else { None };
        drop(target);
        if let Some(texts) = texts {
            self.head.extensions_mut().insert(texts);
        }
        if let (false, Some(body)) = (whole, &mut self.body) {
            watch(body, self.scan.clone(), &self.settings, &self.head, &found);
        }
        self.phase = Phase::Ready;
        Ok(())
    }

    /// The count is there.
    fn count(&mut self, tokens: u64) -> Result<(), BoxError> {
        let found = self.settings.counted(&self.head, self.scan.facts(), tokens);
        if let Some(refused) = self.settings.settle(&Target::of(&self.head), &found) {
            return Err(refused.into());
        }
        self.head.extensions_mut().insert(InputTokens(tokens));
        Ok(())
    }
}

impl<S, B, RB> Slow<S, B, S::Future, RB>
where
    S: Service<Request<PreflightBody<B>>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    RB: Body<Data = Bytes>,
{
    /// The call, once the request may be sent.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<S::Future, BoxError>> {
        loop {
            match &mut self.phase {
                Phase::Reading => {
                    let body = self.body.as_mut().expect("it is taken with the call");
                    let whole = match body.read(cx, self.settings.hold_bytes, &mut self.scan) {
                        Head::Whole => true,
                        Head::Full => false,
                        Head::Pending => {
                            ready!(self.timer.as_mut().poll(cx));
                            false
                        }
                        Head::Failed(error) => {
                            return Poll::Ready(Err(BodyFailed::new(error.into()).into()));
                        }
                    };
                    self.judge(whole)?;
                }
                Phase::Ready => {
                    if let Err(error) = ready!(self.inner.poll_ready(cx)) {
                        return Poll::Ready(Err(error.into()));
                    }
                    let body = self.body.take().expect("it is taken with the call");
                    let head = std::mem::take(&mut self.head);
                    return Poll::Ready(Ok(self.inner.call(head.map(|()| body))));
                }
                // Whatever goes wrong with the question, the request is sent.
                _ if self.timer.as_mut().poll(cx).is_ready() => self.phase = Phase::Ready,
                Phase::Asking => {
                    self.phase = match ready!(self.inner.poll_ready(cx)) {
                        Err(error) => return Poll::Ready(Err(error.into())),
                        Ok(()) => match self.question() {
                            Some(question) => Phase::Asked(Box::pin(self.inner.call(question))),
                            None => Phase::Ready,
                        },
                    };
                }
                Phase::Asked(answer) => {
                    self.phase = match ready!(answer.as_mut().poll(cx)) {
                        Ok(answer) if answer.status() == StatusCode::OK => {
                            Phase::Answered(Box::pin(answer.into_body()), BytesMut::new())
                        }
                        _ => Phase::Ready,
                    };
                }
                Phase::Answered(body, read) => match ready!(body.as_mut().poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        let mut data = frame.into_data().unwrap_or_default();
                        if read.len() + data.remaining() > MAX_ANSWER {
                            self.phase = Phase::Ready;
                        } else {
                            read.extend_from_slice(&data.copy_to_bytes(data.remaining()));
                        }
                    }
                    Some(Err(_)) => self.phase = Phase::Ready,
                    None => {
                        let tokens = count::total(read);
                        self.phase = Phase::Ready;
                        if let Some(tokens) = tokens {
                            self.count(tokens)?;
                        }
                    }
                },
            }
        }
    }

    fn question(&self) -> Option<Request<PreflightBody<B>>> {
        let body = self.body.as_ref()?;
        let target = Target::of(&self.head);
        // The member is asked for, and must not be there twice.
        let model = target.model().filter(|_| self.scan.facts().model.is_none());
        let own = match (model, self.scan.facts().model) {
            (None, None) => return None,
            (model, _) => model,
        };
        count::request(&self.head, body, own)
    }
}

impl<S, B, F, RB> ResponseFuture<S, B, F, RB> {
    #[cold]
    pub(super) const fn refused(error: BoxError) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }
}

impl<S, B, RB> Future for ResponseFuture<S, B, S::Future, RB>
where
    S: Service<Request<PreflightBody<B>>, Response = Response<RB>>,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    RB: Body<Data = Bytes>,
{
    type Output = Result<Response<RB>, BoxError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let future = match self.as_mut().project().state.project() {
                StateProj::Called { future } => return future.poll(cx).map_err(Into::into),
                StateProj::Refused { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after it was ready")));
                }
                StateProj::Slow { slow } => {
                    let waiting = slow.as_mut().expect("polled after it was ready");
                    // Nothing of it is pinned but what is in boxes of its own.
                    let called = ready!(crate::held::hold(waiting.poll(cx)));
                    *slow = None;
                    called?
                }
            };
            self.as_mut().project().state.set(State::Called { future });
        }
    }
}

impl<S, B, F, RB> fmt::Debug for ResponseFuture<S, B, F, RB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("preflight::ResponseFuture").finish_non_exhaustive()
    }
}
