use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::RewriteBody;
use super::report::{ResumeMode, Resumed};
use super::request;
use super::shared::Shared;
use super::transcript::{Piece, Transcript};
use crate::context::deadline::Deadline;
use crate::error::BoxError;
use crate::event::Event;
use crate::lock::lock;
use crate::request::Target;
use crate::retry::Attempts;
use crate::time;
use crate::verdict::{Inner, Kind, Retryability, Sent, Verdict};

/// What a further call is made of.
pub(super) struct Kept<S, B> {
    service: S,
    request: Request<B>,
    shared: Arc<Shared>,
    resumed: Resumed,
}

impl<S, B> Kept<S, B> {
    pub(super) fn new(service: S, request: Request<B>, shared: Arc<Shared>) -> Self {
        let resumed = Resumed::new(shared.mode);
        Self { service, request, shared, resumed }
    }

    /// For the extensions of the response.
    pub(super) fn begin<RB>(&self, response: &Response<RB>) -> Resumed {
        self.resumed.add_billed(Attempts::of(response).billed());
        self.resumed.clone()
    }
}

pin_project! {
    /// A response's body: the inner service's, and behind it what further calls answered.
    ///
    /// Dropping it drops the call under way.
    pub struct ResumeBody<S, B, F, RB> {
        #[pin]
        body: Tail<S, B, F, RB>,
    }
}

pin_project! {
    #[project = TailProj]
    enum Tail<S, B, F, RB> {
        Plain { #[pin] body: RB },
        Followed { run: Box<Run<S, B, F, RB>> },
    }
}

impl<S, B, F, RB> ResumeBody<S, B, F, RB> {
    pub(super) const fn plain(body: RB) -> Self {
        Self { body: Tail::Plain { body } }
    }

    pub(super) fn followed(kept: Kept<S, B>, body: RB) -> Self {
        let run = Run {
            transcript: Transcript::new(kept.shared.max_text_bytes),
            kept,
            phase: Phase::Reading { body: Box::pin(body) },
            out: VecDeque::new(),
            end: None,
            broke: None,
        };
        Self { body: Tail::Followed { run: Box::new(run) } }
    }
}

/// One answer, over one call and perhaps more.
struct Run<S, B, F, RB> {
    kept: Kept<S, B>,
    transcript: Transcript,
    phase: Phase<F, RB>,
    /// What is handed on before anything else is done.
    out: VecDeque<Out>,
    /// How the body ends.
    end: Option<BoxError>,
    /// How the call before the present one broke off, while that has not answered.
    broke: Option<Broke>,
}

enum Phase<F, RB> {
    Reading {
        body: Pin<Box<RB>>,
    },
    /// The service is waited for, with the request that is to be sent.
    Readying,
    Calling {
        call: Pin<Box<F>>,
    },
    Over,
}

enum Out {
    Frame(Frame<Bytes>),
    /// The comment that tells of a further call.
    Mark,
}

struct Broke {
    verdict: Verdict,
    /// The last bytes, which are handed on if it cannot be gone on with: the beginning of an event, or one with an error in it.
    tail: Bytes,
    error: Option<BoxError>,
}

impl<S, B, F, RB, E> Run<S, B, F, RB>
where
    S: Service<Request<B>, Response = Response<RB>, Error = E, Future = F> + Clone,
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
    B: RewriteBody,
    RB: Body<Data = Bytes>,
    RB::Error: Into<BoxError>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(out) = self.out.pop_front() {
                return Poll::Ready(Some(Ok(match out {
                    Out::Frame(frame) => frame,
                    Out::Mark => {
                        self.kept.resumed.counts.times.fetch_add(1, Ordering::AcqRel);
                        Frame::data(mark(self.kept.shared.mode))
                    }
                })));
            }
            match &mut self.phase {
                Phase::Reading { body } => match ready!(body.as_mut().poll_frame(cx)) {
                    Some(Ok(frame)) => self.read(frame),
                    Some(Err(error)) => {
                        let error = error.into();
                        let verdict = Verdict::from_error(&*error);
                        self.break_off(verdict, Some(error));
                    }
                    None if self.transcript.is_finished || self.transcript.is_blind() => {
                        self.pay();
                        self.finish(None);
                    }
                    None => self.break_off(broken_off(), None),
                },
                Phase::Readying => match ready!(self.kept.service.poll_ready(cx)) {
                    Ok(()) => match self.further() {
                        Some(request) => {
                            let call = Box::pin(self.kept.service.call(request));
                            self.phase = Phase::Calling { call };
                        }
                        None => self.give_up(),
                    },
                    Err(_) => self.give_up(),
                },
                Phase::Calling { call } => match ready!(call.as_mut().poll(cx)) {
                    Ok(response) => {
                        self.kept.resumed.add_billed(Attempts::of(&response).billed());
                        if is_followed(&response) {
                            self.go_on(response);
                        } else {
                            self.give_up();
                        }
                    }
                    Err(_) => self.give_up(),
                },
                Phase::Over => return Poll::Ready(self.end.take().map(Err)),
            }
        }
    }

    fn read(&mut self, frame: Frame<Bytes>) {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return self.out.push_back(Out::Frame(trailers)),
        };
        self.transcript.push(&data);
        while let Some(piece) = self.transcript.next() {
            match piece {
                Piece::Event(event) => self.out.push_back(Out::Frame(Frame::data(event))),
                // Behind a finish reason it changes nothing of the answer.
                Piece::Error(event, _) if self.transcript.is_finished => {
                    self.out.push_back(Out::Frame(Frame::data(event)));
                }
                Piece::Error(event, body) => {
                    let verdict = of_error(body);
                    return self.break_off_at(verdict, event, None);
                }
            }
        }
    }

    fn break_off(&mut self, verdict: Verdict, error: Option<BoxError>) {
        if self.transcript.is_finished {
            return self.finish(error);
        }
        self.break_off_at(verdict, Bytes::new(), error);
    }

    fn break_off_at(&mut self, verdict: Verdict, event: Bytes, error: Option<BoxError>) {
        let rest = self.transcript.rest();
        let tail = if event.is_empty() { rest } else { [event, rest].concat().into() };
        let broke = Broke { verdict, tail, error };
        let (shared, resumed) = (&self.kept.shared, &self.kept.resumed);
        let may = !matches!(broke.verdict.retryability(), Retryability::Never)
            && (self.transcript.is_plain || shared.mode == ResumeMode::Restart)
            && !self.transcript.is_blind()
            && resumed.times() < shared.most
            && Deadline::of(&self.kept.request).is_none_or(|deadline| deadline.instant() > time::now())
            && lock(&shared.bucket).take();
        self.broke = Some(broke);
        if may {
            // What it says was delivered, and is paid for.
            resumed.add_billed(1);
            self.phase = Phase::Readying;
        } else {
            self.give_up();
        }
    }

    /// The request that is sent next.
    fn further(&mut self) -> Option<Request<B>> {
        let mut request = self.kept.request.clone();
        if self.kept.shared.mode == ResumeMode::Continue {
            let whole = self.kept.request.body().whole()?;
            let body = request::continued(&whole, self.transcript.text())?;
            if let Some(length) = request.headers_mut().get_mut(CONTENT_LENGTH) {
                *length = HeaderValue::from(body.len());
            }
            B::replace(&mut request, body);
        }
        Some(request)
    }

    /// A further call answers.
    fn go_on(&mut self, response: Response<RB>) {
        let kept = &self.kept;
        if let Some(broke) = self.broke.take() {
            if kept.shared.observer.is_some() {
                kept.shared.observer.tell(&Event::StreamResumed {
                    key: &Target::of(&kept.request).key(),
                    restarted: kept.shared.mode == ResumeMode::Restart,
                    verdict: &broke.verdict,
                    delivered: self.transcript.text().len(),
                    billed: kept.resumed.billed(),
                });
            }
        }
        if kept.shared.mode == ResumeMode::Restart {
            self.transcript.restart();
        }
        self.out.push_back(Out::Mark);
        self.phase = Phase::Reading { body: Box::pin(response.into_body()) };
    }

    /// It ends as it would have without this layer.
    fn give_up(&mut self) {
        match self.broke.take() {
            Some(broke) => {
                if !broke.tail.is_empty() {
                    self.out.push_back(Out::Frame(Frame::data(broke.tail)));
                }
                // An error within the stream is no end of it: what stands behind it is read on.
                match (&self.phase, broke.error) {
                    (Phase::Reading { .. }, None) if is_error(&broke.verdict) => {
                        self.transcript.is_finished = true
                    }
                    (_, error) => self.end_with(error),
                }
            }
            None => self.end_with(None),
        }
    }

    fn finish(&mut self, error: Option<BoxError>) {
        let rest = self.transcript.rest();
        if !rest.is_empty() {
            self.out.push_back(Out::Frame(Frame::data(rest)));
        }
        self.end_with(error);
    }

    fn end_with(&mut self, error: Option<BoxError>) {
        self.phase = Phase::Over;
        self.end = error;
    }

    fn pay(&self) {
        lock(&self.kept.shared.bucket).pay();
    }
}

/// Whether it is an answer whose events can be followed.
pub(super) fn is_followed<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    response.status().is_success()
        && !response.headers().contains_key(CONTENT_ENCODING)
        && kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
}

/// Whether it is the verdict of an event with an error in it.
fn is_error(verdict: &Verdict) -> bool {
    verdict.http_status().is_some()
}

/// Of a stream that is over without having said why.
fn broken_off() -> Verdict {
    let inner = Inner::new(Kind::Truncated);
    Verdict::new(Inner { retryability: Retryability::WithBackoff, sent: Sent::Yes, ..inner })
}

/// Of an event: `{"error": {"code": …}}`.
fn of_error(body: Bytes) -> Verdict {
    let value: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let code = value.as_ref().and_then(|value| value.pointer("/error/code")?.as_u64());
    let status = code.and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok());
    let status = status.filter(|status| status.as_u16() >= 400).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Verdict::from_parts(status, &HeaderMap::new(), body)
}

fn mark(mode: ResumeMode) -> Bytes {
    Bytes::from_static(match mode {
        ResumeMode::Continue => b": tower-gemini continued\n\n",
        ResumeMode::Restart => b": tower-gemini restarted\n\n",
    })
}

impl<S, B, F, RB, E> Body for ResumeBody<S, B, F, RB>
where
    S: Service<Request<B>, Response = Response<RB>, Error = E, Future = F> + Clone,
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
    B: RewriteBody,
    RB: Body<Data = Bytes>,
    RB::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().body.project() {
            TailProj::Plain { body } => body.poll_frame(cx).map_err(Into::into),
            TailProj::Followed { run } => run.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Tail::Plain { body } => body.is_end_stream(),
            Tail::Followed { run } => {
                matches!(run.phase, Phase::Over) && run.out.is_empty() && run.end.is_none()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Tail::Plain { body } => body.size_hint(),
            Tail::Followed { .. } => SizeHint::default(),
        }
    }
}

impl<S, B, F, RB> fmt::Debug for ResumeBody<S, B, F, RB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumeBody").finish_non_exhaustive()
    }
}
