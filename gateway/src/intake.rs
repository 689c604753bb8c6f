//! Reads bodies before calls are sent, as far as they can be kept, and bounds how long and how large they may be.
//!
//! A body that is whole before its call begins cannot make the model look slow, can be sent again, and tells its model. What is too large for
//! that, or finds no room, streams through.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use tower_gemini::retry::ReplayBody;

use crate::peer::Peer;
use crate::wire::Unread;

/// Bodies up to this size are not counted: as many as there may be calls are no more than 32 MiB.
const SMALL: usize = 8 * 1024;

/// The limits of bodies.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a whole body. Default 600 s.
    pub time: Duration,
    /// For a pause. Default 30 s.
    pub idle: Duration,
    /// Bytes of a body. Default 2 GiB.
    pub most: u64,
    /// Bytes of a body that is kept. Default 32 MiB.
    pub kept: usize,
    /// Bytes of all that are kept. Default 128 MiB.
    pub all: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let (time, idle) = (Duration::from_secs(600), Duration::from_secs(30));
        Self { time, idle, most: 2 << 30, kept: 32 << 20, all: 128 << 20 }
    }
}

/// What is kept of all bodies, in bytes. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<AtomicUsize>);

impl Room {
    pub fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// The room as this address may use it.
    pub fn of(&self, peer: &Arc<Peer>) -> Place {
        Place { room: Arc::clone(&self.0), peer: Arc::clone(peer) }
    }
}

/// The room as one address may use it.
#[derive(Clone, Debug)]
pub struct Place {
    room: Arc<AtomicUsize>,
    peer: Arc<Peer>,
}

/// A part of the room, until it is dropped.
#[derive(Debug)]
struct Taken {
    place: Place,
    bytes: usize,
}

impl Taken {
    /// Whether there was room for so many bytes more.
    fn more(&mut self, bytes: usize, most: usize) -> bool {
        let taken = self.place.peer.kept.take(bytes, &self.place.room, most);
        self.bytes += if taken { bytes } else { 0 };
        taken
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.place.peer.kept.give(self.bytes, &self.place.room);
    }
}

/// Bytes and the room that they take.
struct Counted(Bytes, #[expect(dead_code, reason = "it is dropped with the bytes")] Taken);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Why a body is not read further. The client's doing, each of them.
#[derive(Debug)]
pub enum BodyError {
    /// It paused for longer than it may.
    Idle,
    /// It took longer than it may.
    Slow,
    /// It is larger than it may be.
    Large,
    /// The client left, or what it sends is no HTTP.
    Broken(hyper::Error),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "the client's request body paused for too long",
            Self::Slow => "the client's request body took too long",
            Self::Large => "the client's request body is too large",
            Self::Broken(_) => "the client's request body broke off",
        })
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken(error) => Some(error),
            _ => None,
        }
    }
}

/// A body with the time that it may take.
pub struct Timed {
    body: Incoming,
    limits: Limits,
    until: Instant,
    /// Set when it is waited for. A box, so that a body that is there has none.
    timer: Option<(Pin<Box<Sleep>>, bool)>,
    read: u64,
}

impl Timed {
    pub fn new(body: Incoming, limits: Limits) -> Self {
        Self { body, limits, until: Instant::now() + limits.time, timer: None, read: 0 }
    }

    pub fn into_inner(self) -> Incoming {
        self.body
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some((_, waits)) = &mut this.timer {
                *waits = false;
            }
            let Some(frame) = frame else { return Poll::Ready(None) };
            let frame = frame.map_err(BodyError::Broken)?;
            this.read += frame.data_ref().map_or(0, |data| data.len() as u64);
            if this.read > this.limits.most {
                return Poll::Ready(Some(Err(BodyError::Large)));
            }
            return Poll::Ready(Some(Ok(frame)));
        }
        let now = Instant::now();
        let until = this.until.min(now + this.limits.idle);
        let (timer, waits) =
            this.timer.get_or_insert_with(|| (Box::pin(tokio::time::sleep_until(until)), true));
        if !*waits {
            timer.as_mut().reset(until);
            *waits = true;
        }
        ready!(timer.as_mut().poll(cx));
        let error = if Instant::now() >= this.until { BodyError::Slow } else { BodyError::Idle };
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What was read of a body, and the rest.
pub struct Rejoined {
    read: Option<Bytes>,
    last: Option<Result<Frame<Bytes>, BodyError>>,
    /// `None` once it is dropped.
    rest: Option<Timed>,
    unread: Unread,
}

/// The body of a request. One that comes from a client can be read once; this one keeps what it streams through.
pub type Asked = ReplayBody<Rejoined>;

impl Drop for Rejoined {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take().filter(|_| self.last.is_none()) {
            self.unread.put(rest.into_inner());
        }
    }
}

impl Body for Rejoined {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(read) = self.read.take() {
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        match self.last.take() {
            Some(last) => Poll::Ready(Some(last)),
            None => match &mut self.rest {
                Some(rest) => Pin::new(rest).poll_frame(cx),
                None => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.last.is_none() && self.rest.as_ref().is_none_or(Timed::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.read.as_ref().map_or(0, |read| read.len() as u64);
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(ahead));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(ahead)) {
            hint.set_upper(upper);
        }
        hint
    }
}

/// A body as it is sent, and all of it where it is there.
pub struct Taking {
    body: Option<Timed>,
    read: Read,
    /// `None` once it was handed on.
    taken: Option<Taken>,
    last: Option<Frame<Bytes>>,
    unread: Unread,
}

/// What was read so far. Most bodies are one part, which stays where it was read to. What is kept of others is copied: a part holds on to all of
/// the buffer that it was read to, which may be several times its length, and is not counted.
enum Read {
    One(Bytes),
    Many(BytesMut),
}

impl Read {
    fn len(&self) -> usize {
        match self {
            Self::One(one) => one.len(),
            Self::Many(many) => many.len(),
        }
    }

    /// `wanted` is the length of the whole, as far as it is known.
    fn push(&mut self, part: Bytes, wanted: usize) {
        match self {
            Self::One(one) if one.is_empty() => *one = part,
            Self::One(one) => {
                // Not all of what is announced: it may never come.
                let read = one.len() + part.len();
                let mut many = BytesMut::with_capacity(wanted.min(4 * read));
                many.extend_from_slice(one);
                many.extend_from_slice(&part);
                *self = Self::Many(many);
            }
            Self::Many(many) => many.extend_from_slice(&part),
        }
    }

    fn take(&mut self) -> Bytes {
        match std::mem::replace(self, Self::One(Bytes::new())) {
            Self::One(one) => one,
            Self::Many(many) => many.freeze(),
        }
    }
}

impl Taking {
    pub fn new(body: Incoming, limits: Limits, place: Place, unread: Unread) -> Self {
        let taken = Some(Taken { place, bytes: 0 });
        let read = Read::One(Bytes::new());
        Self { body: Some(Timed::new(body, limits)), read, taken, last: None, unread }
    }

    /// Whether it could be kept, by what its head says.
    fn may_be_kept(&self) -> bool {
        let Some(body) = &self.body else { return false };
        body.size_hint().lower() <= body.limits.kept as u64
    }

    /// Counts what is more than the small part. Whether there is room for it.
    fn count(&mut self, limits: &Limits) -> bool {
        let bytes = self.read.len();
        if bytes > limits.kept {
            return false;
        }
        let Some(taken) = &mut self.taken else { return false };
        let more = bytes.saturating_sub(SMALL).saturating_sub(taken.bytes);
        more == 0 || taken.more(more, limits.all)
    }

    /// What was read, counted until the last copy of it is dropped.
    fn counted(&mut self) -> Bytes {
        let read = self.read.take();
        match self.taken.take().filter(|taken| taken.bytes > 0) {
            Some(taken) => Bytes::from_owner(Counted(read, taken)),
            None => read,
        }
    }

    fn streamed(&mut self) -> Asked {
        let rejoined = Rejoined {
            read: Some(self.counted()).filter(|read| !read.is_empty()),
            last: self.last.take().map(Ok),
            rest: self.body.take(),
            unread: self.unread.clone(),
        };
        // Nothing of it is kept: there is no room, or it is too large.
        ReplayBody::with_max_bytes(rejoined, 0)
    }

    fn whole(&mut self) -> (Asked, Option<Bytes>) {
        self.body = None;
        let whole = self.counted();
        (ReplayBody::from_bytes(whole.clone()), Some(whole))
    }
}

impl Future for Taking {
    type Output = Result<(Asked, Option<Bytes>), BodyError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.read.len() == 0 && !this.may_be_kept() {
            if this.body.as_ref().is_some_and(|body| body.size_hint().lower() > body.limits.most) {
                return Poll::Ready(Err(BodyError::Large));
            }
            return Poll::Ready(Ok((this.streamed(), None)));
        }
        loop {
            let Some(body) = &mut this.body else { return Poll::Ready(Err(BodyError::Slow)) };
            let limits = body.limits;
            let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(frame) => frame?,
                None => return Poll::Ready(Ok(this.whole())),
            };
            match frame.into_data() {
                Ok(data) => {
                    let rest = body.size_hint().lower().min(limits.kept as u64) as usize;
                    let wanted = this.read.len() + data.len() + rest;
                    this.read.push(data, wanted);
                    if !this.count(&limits) {
                        return Poll::Ready(Ok((this.streamed(), None)));
                    }
                }
                // What follows a body of Gemini's nobody knows; it is passed on.
                Err(trailers) => {
                    this.last = Some(trailers);
                    return Poll::Ready(Ok((this.streamed(), None)));
                }
            }
            if this.body.as_ref().is_some_and(Timed::is_end_stream) {
                return Poll::Ready(Ok(this.whole()));
            }
        }
    }
}
