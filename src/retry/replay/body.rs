use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::DEFAULT_MAX_BYTES;
use super::error::{LostReason, ReplayLost, Superseded};
use super::handle::{Control, Replay, Upload};
use super::tape::{Kept, Recorded, Tape};
use crate::error::BoxError;

/// A body that can be cloned and sent again, around a body `B` that cannot be cloned.
///
/// The first copy streams the inner body through, frame by frame, and shares the frames it has seen with
/// later copies (the bytes are reference-counted, not duplicated). A later copy starts at the first byte, plays
/// those back and then goes on where the first one stopped.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt, Full};
/// use tower_gemini::retry::ReplayBody;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_gemini::BoxError> {
/// let first = ReplayBody::new(Full::new(Bytes::from_static(b"{}")));
/// let second = first.clone();
/// assert_eq!(first.collect().await?.to_bytes(), "{}");
/// assert_eq!(second.collect().await?.to_bytes(), "{}");
/// # Ok(())
/// # }
/// ```
///
/// # Copies and turns
///
/// A server may answer before it has read the whole body, and the connection may then go on polling the
/// old attempt's copy while the next attempt begins. So copies are ranked by their birth, and **the first
/// poll of a newer copy ends every older one**, with [`Superseded`], waking it if it was waiting. One copy
/// alone takes from the inner body, each byte is taken once, and nobody hangs. Cloning disturbs nobody: a
/// copy that is kept for later and never polled is as good as absent.
///
/// The consequence for whoever repeats requests: send the request and keep a clone, or keep the request
/// and send a fresh clone each time. A request that was kept while its own clone was sent is *older* than
/// that clone; it can be cloned again, but not be sent itself any more. Nor do two copies of one body go
/// out side by side (hedging).
///
/// # What it costs, what is shared, what a drop gives back
///
/// All copies share one buffer. It holds at most [`max_bytes`](super::ReplayLayer::max_bytes) bytes of frames
/// (default 32 MiB) in at most 1024 + `max_bytes`/64 frames; above that, everything kept is freed at once,
/// the body streams on to the one copy that is being sent, and the request can no longer be repeated
/// ([`Replay::is_lost`]). A body that announces a larger size in its `size_hint` is never buffered at all; as long
/// as no byte was taken from it, it can still be sent by any copy, so a refused connection is retried also for
/// large uploads. A frame that is a slice of a larger allocation keeps all of that alive, and counts as what it shows.
///
/// A body whose length nobody knew is sent chunked by the first attempt, and with its `content-length` once it was
/// read to its end.
///
/// Dropping the last copy frees the buffer and the inner body; the [`Replay`] handle in the request's
/// extensions keeps neither alive. Dropping the copy that was being sent when nothing can be repeated any
/// more frees both at once, so that the producer of a stream learns that nobody listens.
///
/// # Errors
///
/// Beside the inner body's own error, which goes to the copy that met it, a copy fails once with
/// [`Superseded`] (a newer copy is being sent) or [`ReplayLost`] (the bytes are gone), and then has ended.
pub struct ReplayBody<B> {
    shared: Arc<Shared<B>>,
    place: Place,
}

/// Where one copy stands. Touched by that copy only.
struct Place {
    /// The copy's rank: 0 for the first body, and each clone has a higher one than all before it.
    birth: u64,
    /// The number of the frame it delivers next.
    next: usize,
    /// The data bytes that it has delivered.
    sent: u64,
    /// It has delivered its end or its error, and yields nothing more.
    done: bool,
}

struct Shared<B> {
    control: Arc<Control>,
    /// Held within one poll, size question or drop, never across an await.
    ///
    /// NOTE: nothing foreign is woken or dropped while it is held, see [`Swept`]; and `drop` only tries it.
    /// An executor may drop a task together with its last waker, and that task may own a copy.
    state: Mutex<State<B>>,
}

/// One body, however many copies.
///
/// The copy whose birth equals `live` has the turn: only it takes frames from `source`, and at that moment it
/// has delivered everything on the tape (`next == tape.end()`), so no frame is delivered twice to one copy or
/// withheld from it. A copy with a lower birth is superseded for good. A copy with a higher one takes the turn
/// when it is first polled, unless it could not be served anyway: what it needs is gone from the tape, or
/// the source is broken. Then it fails and the live copy goes on, for that one may yet succeed.
struct State<B> {
    tape: Tape,
    source: Source<B>,
    /// The highest birth that was ever given the turn. Only grows.
    live: u64,
    /// The waker of the live copy since it last found the source pending. The source itself knows
    /// only its newest reader, so without this a superseded copy would sleep for ever.
    waker: Option<Waker>,
}

enum Source<B> {
    // Boxed, because a body that is shared by copies has no pinned place of its own.
    Open(Pin<Box<B>>),
    /// It said that it had ended. Freed at once.
    Ended,
    /// It failed, it panicked while being polled, or nobody is left who could read it. Freed at once.
    Broken,
}

/// What a step let go of, where the drop or the wake runs somebody else's code: that happens after the lock
/// is released, also when the step panicked. So it is declared before the guard.
struct Swept<B> {
    frames: VecDeque<Kept>,
    _source: Option<Source<B>>,
    _waker: Option<Waker>,
    superseded: Option<Waker>,
}

impl<B> Swept<B> {
    const fn new() -> Self {
        Self { frames: VecDeque::new(), _source: None, _waker: None, superseded: None }
    }
}

impl<B> Drop for Swept<B> {
    fn drop(&mut self) {
        if let Some(waker) = self.superseded.take() {
            waker.wake();
        }
    }
}

impl<B> Drop for Shared<B> {
    fn drop(&mut self) {
        // The buffer goes with the last copy, and handles may be left to ask.
        self.control.set_kept(0);
    }
}

impl<B> Shared<B> {
    /// Another copy's panic inside the inner body is no reason to panic here: the state is whole at every
    /// point at which foreign code runs, and such a source was set to `Broken` before.
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> State<B> {
    /// Nobody is left who could read the rest.
    fn close(&mut self, swept: &mut Swept<B>) {
        self.tape.forget_all(&mut swept.frames);
        if let Source::Open(_) = &self.source {
            swept._source = Some(mem::replace(&mut self.source, Source::Broken));
        }
    }
}

impl<B> State<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    fn step(
        &mut self,
        place: &mut Place,
        control: &Control,
        cx: &mut Context<'_>,
        swept: &mut Swept<B>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // Before the turn is asked for: a copy that has delivered everything has an end, not an error.
        if place.next == self.tape.end() && matches!(self.source, Source::Ended) {
            return Poll::Ready(None);
        }
        if place.birth < self.live {
            return Poll::Ready(Some(Err(Superseded { _private: () }.into())));
        }
        if place.next < self.tape.gone() || matches!(self.source, Source::Broken) {
            // `BodyFailed` stays only where no other reason was there first.
            control.set_lost(LostReason::BodyFailed);
            let lost = control
                .lost()
                .unwrap_or(ReplayLost { reason: LostReason::BodyFailed, max_bytes: control.max_bytes });
            return Poll::Ready(Some(Err(lost.into())));
        }
        if place.birth > self.live {
            self.live = place.birth;
            swept.superseded = self.waker.take();
        }

        let kept = match self.tape.get(place.next) {
            Some(kept) => {
                place.next += 1;
                kept
            }
            None => match ready!(self.pull(place, control, cx, swept)) {
                Some(Ok(kept)) => kept,
                Some(Err(unkept)) => return Poll::Ready(Some(unkept)),
                None => return Poll::Ready(None),
            },
        };
        if control.is_released() {
            self.tape.release(place.next, &mut swept.frames);
            if self.tape.gone() > 0 {
                control.set_lost(LostReason::Released);
            }
        }
        if let Kept::Data(data) = &kept {
            place.sent = place.sent.saturating_add(data.len() as u64);
        }
        Poll::Ready(Some(Ok(kept.into_frame())))
    }

    /// The first frame, without a turn: no copy has moved, so each of them finds it on the tape.
    ///
    /// Only of a body whose length is known and fits, so that nothing is lost by taking it early.
    fn front(&mut self, control: &Control, swept: &mut Swept<B>) -> Option<(Bytes, bool)> {
        if self.tape.end() == 0 {
            let whole = |body: &Pin<Box<B>>| body.size_hint().exact();
            let fits = matches!(&self.source, Source::Open(body) if whole(body).is_some_and(|n| n <= control.max_bytes as u64));
            if !fits || control.is_released() || self.waker.is_some() {
                return None;
            }
            let mut nobody = Place { birth: 0, next: 0, sent: 0, done: false };
            let mut cx = Context::from_waker(Waker::noop());
            let pulled = self.pull(&mut nobody, control, &mut cx, swept);
            // Nobody waits, so nobody is to be woken, and what is missing is not the caller's doing yet.
            self.waker = None;
            if pulled.is_pending() {
                control.set_upload(Upload::Idle);
            }
        }
        let Some(Kept::Data(data)) = self.tape.get(0) else { return None };
        let is_whole = match &self.source {
            Source::Open(body) => body.is_end_stream() && self.tape.end() == 1,
            Source::Ended => self.tape.end() == 1,
            Source::Broken => false,
        };
        Some((data, is_whole))
    }

    /// Takes the next frame from the source, for the live copy, which stands at the tape's end.
    ///
    /// The inner `Err` is what cannot be kept: the source's error, or a frame of an unknown kind.
    #[allow(clippy::type_complexity)]
    fn pull(
        &mut self,
        place: &mut Place,
        control: &Control,
        cx: &mut Context<'_>,
        swept: &mut Swept<B>,
    ) -> Poll<Option<Result<Kept, Result<Frame<Bytes>, BoxError>>>> {
        // Taken out, so that a panic in there leaves `Broken` behind and drops what panicked.
        let Source::Open(mut body) = mem::replace(&mut self.source, Source::Broken) else {
            return Poll::Ready(None);
        };
        let polled = match body.as_mut().poll_frame(cx) {
            Poll::Ready(polled) => polled,
            Poll::Pending => {
                self.source = Source::Open(body);
                control.set_upload(Upload::Awaited);
                if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    swept._waker = self.waker.replace(cx.waker().clone());
                }
                return Poll::Pending;
            }
        };
        let frame = match polled {
            Some(Ok(frame)) => {
                // A client may not ask again after the last byte of a body whose length is known.
                let is_over = body.is_end_stream();
                control.set_upload(if is_over { Upload::Whole } else { Upload::Idle });
                self.source = Source::Open(body);
                frame
            }
            Some(Err(error)) => {
                control.set_upload(Upload::Failed);
                swept._source = Some(Source::Open(body));
                self.tape.forget_all(&mut swept.frames);
                control.set_lost(LostReason::BodyFailed);
                return Poll::Ready(Some(Err(Err(error.into()))));
            }
            None => {
                swept._source = Some(Source::Open(body));
                self.source = Source::Ended;
                control.set_upload(Upload::Whole);
                return Poll::Ready(None);
            }
        };

        if control.is_released() {
            self.tape.release(place.next, &mut swept.frames);
        }
        let kept = match frame.into_data() {
            Ok(data) => Kept::Data(data),
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => Kept::Trailers(Box::new(trailers)),
                Err(frame) => {
                    self.tape.record_unknown(&mut swept.frames);
                    control.set_lost(LostReason::UnknownFrame);
                    place.next = self.tape.end();
                    return Poll::Ready(Some(Err(Ok(frame))));
                }
            },
        };
        match self.tape.record(&kept, &mut swept.frames) {
            Recorded::Kept => {}
            Recorded::Passed if control.is_released() => control.set_lost(LostReason::Released),
            Recorded::Passed | Recorded::Overflowed => control.set_lost(LostReason::TooLarge),
        }
        place.next = self.tape.end();
        Poll::Ready(Some(Ok(kept)))
    }
}

impl<B: Body<Data = Bytes>> ReplayBody<B> {
    /// Wraps `inner`, keeping at most 32 MiB of it.
    #[must_use]
    pub fn new(inner: B) -> Self {
        Self::with_max_bytes(inner, DEFAULT_MAX_BYTES)
    }

    /// Wraps `inner`, keeping at most `max_bytes` bytes of it.
    #[must_use]
    pub fn with_max_bytes(inner: B, max_bytes: usize) -> Self {
        let state = State {
            tape: Tape::new(max_bytes, inner.size_hint().lower()),
            source: Source::Open(Box::pin(inner)),
            live: 0,
            waker: None,
        };
        Self {
            shared: Arc::new(Shared { control: Arc::new(Control::new(max_bytes)), state: Mutex::new(state) }),
            place: Place { birth: 0, next: 0, sent: 0, done: false },
        }
    }
}

impl<B> ReplayBody<B> {
    /// All data of the body, where it was read to its end and all of it is kept.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        let state = self.shared.lock();
        matches!(state.source, Source::Ended).then(|| state.tape.data())?
    }

    /// The first frame's data, and whether that is all of the body.
    ///
    /// A body of which nothing was read yet is asked for it, without waiting: what it yields is kept for the copies.
    pub(crate) fn front(&self) -> Option<(Bytes, bool)>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let mut swept = Swept::new();
        // NOTE: declared after `swept`, so it is dropped, and the lock released, before that is.
        let mut state = self.shared.lock();
        let front = state.front(&self.shared.control, &mut swept);
        self.shared.control.set_kept(state.tape.kept_bytes());
        front
    }

    /// A body whose bytes are all at hand, however many. Unlike one that is still to be read it can be
    /// [rewritten](crate::fallback::RewriteBody) before it is sent.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::Request;
    /// use http_body_util::Full;
    /// use tower_gemini::retry::ReplayBody;
    ///
    /// // Whoever makes the body himself, and not by `ReplayLayer`, puts in the handle that the retry layer asks.
    /// let mut request = Request::new(ReplayBody::<Full<Bytes>>::from_bytes("{}".into()));
    /// let replay = request.body().replay();
    /// request.extensions_mut().insert(replay);
    /// ```
    #[must_use]
    pub fn from_bytes(data: Bytes) -> Self {
        Self::of_bytes(data, DEFAULT_MAX_BYTES)
    }

    /// A body of these bytes, which were read already, with the bound of this one.
    pub(crate) fn with_data(&self, data: Bytes) -> Self {
        Self::of_bytes(data, self.shared.control.max_bytes)
    }

    fn of_bytes(data: Bytes, max_bytes: usize) -> Self {
        let max_bytes = max_bytes.max(data.len());
        let mut tape = Tape::new(max_bytes, 0);
        tape.record(&Kept::Data(data), &mut VecDeque::new());
        let control = Control::new(max_bytes);
        control.set_kept(tape.kept_bytes());
        let state = State { tape, source: Source::Ended, live: 0, waker: None };
        Self {
            shared: Arc::new(Shared { control: Arc::new(control), state: Mutex::new(state) }),
            place: Place { birth: 0, next: 0, sent: 0, done: false },
        }
    }

    /// The handle that tells whether this body can be repeated. All copies have the same.
    #[must_use]
    pub fn replay(&self) -> Replay {
        Replay { control: Arc::clone(&self.shared.control) }
    }
}

/// The clone starts at the first byte and outranks every copy that is there, once it is polled.
impl<B> Clone for ReplayBody<B> {
    fn clone(&self) -> Self {
        let birth = self.shared.control.birth();
        Self { shared: Arc::clone(&self.shared), place: Place { birth, next: 0, sent: 0, done: false } }
    }
}

impl<B> Body for ReplayBody<B>
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
        let this = self.get_mut();
        if this.place.done {
            return Poll::Ready(None);
        }
        let shared = &*this.shared;
        let mut swept = Swept::new();
        // NOTE: declared after `swept`, so it is dropped, and the lock released, before that is.
        let mut state = shared.lock();
        let polled = state.step(&mut this.place, &shared.control, cx, &mut swept);
        shared.control.set_kept(state.tape.kept_bytes());
        if let Poll::Ready(None | Some(Err(_))) = &polled {
            this.place.done = true;
            // Not a finished copy's task should be kept alive for the sake of waking it.
            if this.place.birth == state.live {
                swept._waker = state.waker.take();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        if self.place.done {
            return true;
        }
        let state = self.shared.lock();
        // `false` for a copy that must still deliver an error, else nobody would ever poll it.
        self.place.next == state.tape.end()
            && match &state.source {
                Source::Open(body) => self.place.birth >= state.live && body.is_end_stream(),
                Source::Ended => true,
                Source::Broken => false,
            }
    }

    fn size_hint(&self) -> SizeHint {
        if self.place.done {
            return SizeHint::with_exact(0);
        }
        let state = self.shared.lock();
        let ahead = state.tape.pulled_bytes().saturating_sub(self.place.sent);
        let mut hint = SizeHint::new();
        match &state.source {
            Source::Open(body) => {
                let rest = body.size_hint();
                hint.set_lower(ahead.saturating_add(rest.lower()));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(ahead)) {
                    hint.set_upper(upper.max(hint.lower()));
                }
            }
            Source::Ended => hint.set_exact(ahead),
            // Never exact: a client that counts would take the bytes before the error for all there are.
            Source::Broken => hint.set_lower(ahead),
        }
        hint
    }
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        let mut swept = Swept::new();
        // NOTE: only tried, see `Shared::state`. What is skipped then is freed with the last copy.
        let mut state = match self.shared.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if self.place.birth != state.live {
            return;
        }
        swept._waker = state.waker.take();
        if state.tape.gone() > 0 {
            // The one copy that could go on is leaving, and no other can begin.
            state.close(&mut swept);
            self.shared.control.set_kept(0);
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the bytes: they are the user's prompt. Not the lock: printing must not wait.
        f.debug_struct("ReplayBody")
            .field("birth", &self.place.birth)
            .field("sent", &self.place.sent)
            .field("done", &self.place.done)
            .field("replay", &Replay { control: Arc::clone(&self.shared.control) })
            .finish()
    }
}
