use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Response;
use http::response::Parts;
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::body::{ClassifyBody, Read};
use super::config::Settings;
use super::peek::Asked;
use super::peeked_body::PeekedBody;
use super::reader::Reader;
use super::watch::Watch;
use crate::judge::response::judge;
use crate::tier::ServiceTier;

pin_project! {
    /// The future of [`Classify`](super::Classify).
    ///
    /// Dropping it drops the inner future, or the body that is being read or peeked at.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, B: Body> {
        #[pin]
        state: State<F, B>,
        asked: Asked,
        settings: Settings,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B: Body> {
        // The inner service is at work.
        Head { #[pin] future: F },
        // A failure: its body is being read, up to the limit and the time.
        // Boxed, so that the future of a success does not carry the room for it.
        Body { reading: Option<Box<Reading<B>>> },
        // A success whose body is being peeked at, with the head beside it.
        Peek { held: Option<Pin<Box<PeekedBody<B>>>> },
    }
}

impl<F, B: Body> ResponseFuture<F, B> {
    pub(super) const fn new(future: F, asked: Asked, settings: Settings) -> Self {
        Self { state: State::Head { future }, asked, settings }
    }
}

impl<F, B: Body> fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("classify::ResponseFuture").finish_non_exhaustive()
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<ClassifyBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Head { future } => {
                    let response = ready!(future.poll(cx))?;
                    if !this.settings.enabled {
                        return Poll::Ready(Ok(response.map(ClassifyBody::plain)));
                    }
                    if response.status().as_u16() < 400 {
                        let streams = this.settings.reads() && this.asked.streams(&response);
                        let Some(until) = this.asked.until(*this.settings, &response, streams) else {
                            return Poll::Ready(Ok(pass(response, *this.asked, *this.settings, streams)));
                        };
                        let (parts, body) = response.into_parts();
                        let held = Box::pin(PeekedBody::new(parts, body, until, streams, this.asked.model()));
                        this.state.set(State::Peek { held: Some(held) });
                        continue;
                    }
                    let (parts, body) = response.into_parts();
                    this.state.set(State::Body { reading: Some(Box::new(Reading::new(parts, body))) });
                }
                StateProj::Body { reading } => {
                    let state = reading.as_mut().expect("polled after it was ready");
                    ready!(state.poll(this.settings, cx));
                    let done = reading.take().expect("it was there a line above");
                    return Poll::Ready(Ok((*done).finish(this.settings.max_error_bytes, this.asked.tier())));
                }
                StateProj::Peek { held } => {
                    let peeked = held.as_mut().expect("polled after it was ready");
                    ready!(peeked.as_mut().poll_peek(this.settings.max_error_bytes, cx));
                    let held = held.take().expect("it was there a line above");
                    let response = PeekedBody::hand_on(held, this.settings.watch, this.asked.tier());
                    return Poll::Ready(Ok(response.map(ClassifyBody::held)));
                }
            }
        }
    }
}

/// The happy path: nothing is read, and nothing allocated unless the body is watched.
fn pass<B: Body<Data = Bytes>>(
    response: Response<B>,
    asked: Asked,
    settings: Settings,
    streams: bool,
) -> Response<ClassifyBody<B>> {
    // Only a success is watched: a redirect has no answer in it.
    if !settings.watch || !response.status().is_success() {
        return response.map(ClassifyBody::plain);
    }
    let (mut parts, body) = response.into_parts();
    let reader = Reader::new(&parts, streams);
    let watch = Watch::new(&mut parts, reader, asked.tier());
    if asked.model() != 0 {
        watch.expect(asked.model());
    }
    Response::from_parts(parts, ClassifyBody::watched(body, watch))
}

/// An error body on its way in.
struct Reading<B: Body> {
    parts: Parts,
    read: Box<Read<B>>,
    /// Made at the first `Pending`: most error bodies arrive with their head.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B: Body<Data = Bytes>> Reading<B> {
    fn new(parts: Parts, body: B) -> Self {
        // Boxed because the body is polled here and handed on afterwards, and need not be `Unpin`. This is
        // the failure path.
        Self { parts, read: Box::new(Read::new(Box::pin(body))), timer: None }
    }

    /// Ready when there is enough to judge by.
    fn poll(&mut self, settings: &Settings, cx: &mut Context<'_>) -> Poll<()> {
        while self.read.len() < settings.max_error_bytes && !self.read.ended() {
            match self.read.rest.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.read.push(frame, settings.max_error_bytes),
                Poll::Ready(Some(Err(error))) => self.read.tail = Some(Err(error)),
                Poll::Ready(None) => self.read.done = true,
                Poll::Pending => {
                    let timer =
                        self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(settings.read_timeout)));
                    return timer.as_mut().poll(cx);
                }
            }
        }
        Poll::Ready(())
    }

    fn finish(mut self, limit: usize, asked: Option<ServiceTier>) -> Response<ClassifyBody<B>> {
        let bytes = self.read.contiguous(limit);
        let Self { mut parts, read, .. } = self;
        let verdict = judge(parts.status, &parts.headers, bytes).of_tier(asked);
        parts.extensions.insert(verdict);
        Response::from_parts(parts, ClassifyBody::read(read))
    }
}

impl<B: Body<Data = Bytes>> Read<B> {
    /// Keeps a frame. The first is kept as it is; further ones are joined with it, since judging needs them
    /// in one piece, but only as far as the limit reaches, so nothing large is ever copied.
    fn push(&mut self, frame: Frame<Bytes>, limit: usize) {
        match frame.into_data() {
            Ok(data) if self.len() == 0 => self.front = data,
            Ok(data) if self.len() + data.len() <= limit => {
                self.joined
                    .get_or_insert_with(|| BytesMut::from(&*std::mem::take(&mut self.front)))
                    .extend(&data);
            }
            Ok(data) => self.overflow = Some(data),
            Err(trailers) => self.tail = Some(Ok(trailers)),
        }
    }

    fn ended(&self) -> bool {
        self.done || self.tail.is_some() || self.overflow.is_some()
    }

    /// What was read, in one piece of at most `limit` bytes.
    fn contiguous(&mut self, limit: usize) -> Bytes {
        if let Some(joined) = self.joined.take() {
            self.front = joined.freeze();
        }
        self.front.slice(..self.front.len().min(limit))
    }
}
