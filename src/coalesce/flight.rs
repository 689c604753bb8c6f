//! One call that several requests wait for.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::Response;
use http::response::Parts;
use http_body::{Body, Frame};
use tokio::time::Instant;

use super::bell::Bell;
use super::error::{CallLost, FellBehind, SharedError};
use super::tape::{Next, Piece, Tape};
use crate::error::BoxError;
use crate::lock::lock;
use crate::verdict::Verdict;

pub(super) type BoxBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;
pub(super) type BoxCall = Pin<Box<dyn Future<Output = Result<Response<BoxBody>, BoxError>> + Send>>;
type Unlist = Box<dyn FnOnce() + Send>;

/// A call under way. It lives as long as somebody has a [`Seat`] in it.
///
/// Whoever is polled and finds the bell rung takes the call out of the lock, polls it, and puts it back. Whoever is polled
/// meanwhile waits for the bell, which is rung for all afterwards where there is anything new.
pub(super) struct Flight {
    state: Mutex<State>,
    bell: Arc<Bell>,
    deadline: Option<Instant>,
}

struct State {
    stage: Stage,
    head: Head,
    /// The body is over, well or badly.
    end: Option<Result<(), Failure>>,
    tape: Tape,
    /// Takes it off the list of calls that newcomers can join; `None` once it is off.
    unlist: Option<Unlist>,
}

enum Stage {
    Call(BoxCall),
    Body(BoxBody),
    /// Somebody polls it, or is about to put the call in.
    Taken,
    Over,
}

enum Head {
    Awaited,
    Good(Box<Parts>, Option<u64>),
    Failed(Failure),
}

#[derive(Clone)]
enum Failure {
    Error(Arc<BoxError>),
    Lost,
}

impl Failure {
    fn new(error: BoxError) -> Self {
        Self::Error(Arc::new(error))
    }

    fn into_error(self) -> BoxError {
        match self {
            // The last one is given the error itself.
            Self::Error(error) => {
                Arc::try_unwrap(error).unwrap_or_else(|shared| SharedError::new(shared).into())
            }
            Self::Lost => CallLost { _private: () }.into(),
        }
    }
}

/// What a person who waits for the head is given.
pub(super) enum Landed {
    /// The head, and the length of the body where it is known.
    Head(Box<Parts>, Option<u64>),
    Failed(BoxError),
    /// Others have read more of the body than is kept, or the call panicked: it never got here.
    Missed(BoxError),
}

impl State {
    /// Not the answers of calls that are over or failing, nor those whose beginning is gone.
    fn is_joinable(&self) -> bool {
        let is_good = match &self.head {
            Head::Awaited => true,
            Head::Good(parts, _) => is_good(parts),
            Head::Failed(_) => false,
        };
        is_good && self.end.is_none() && self.tape.is_open()
    }

    fn take_unlist(&mut self) -> Option<Unlist> {
        if self.is_joinable() { None } else { self.unlist.take() }
    }
}

fn is_good(parts: &Parts) -> bool {
    let verdict = parts.extensions.get::<Verdict>();
    parts.status.as_u16() < 400 && verdict.is_none_or(Verdict::is_success)
}

impl Flight {
    /// A call that [`launch`](Self::launch) is about to be made for, and the seat of who makes it.
    pub(super) fn prepare(max_bytes: usize, deadline: Option<Instant>, unlist: Unlist) -> Seat {
        let mut tape = Tape::new(max_bytes);
        let id = tape.join().expect("a new one is open");
        let state = State { stage: Stage::Taken, head: Head::Awaited, end: None, tape, unlist: Some(unlist) };
        Seat { flight: Arc::new(Self { state: Mutex::new(state), bell: Bell::new(), deadline }), id }
    }

    /// A further seat, if the call can still be joined.
    pub(super) fn join(self: &Arc<Self>, now: Option<Instant>) -> Option<Seat> {
        if self.deadline.zip(now).is_some_and(|(deadline, now)| deadline <= now) {
            return None;
        }
        let mut state = lock(&self.state);
        if !state.is_joinable() || state.tape.readers() == 0 {
            return None;
        }
        let id = state.tape.join()?;
        drop(state);
        Some(Seat { flight: Arc::clone(self), id })
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Polls what was taken out, and puts back what is left of it.
    fn drive(&self, stage: Stage) {
        let waker = Waker::from(Arc::clone(&self.bell));
        let cx = &mut Context::from_waker(&waker);
        let driving = Driving { flight: Some(self) };
        match stage {
            Stage::Call(mut call) => match call.as_mut().poll(cx) {
                Poll::Pending => driving.put_back(Stage::Call(call)),
                Poll::Ready(Err(error)) => driving.land(Stage::Over, |state| {
                    state.head = Head::Failed(Failure::new(error));
                }),
                Poll::Ready(Ok(response)) => {
                    let (parts, body) = response.into_parts();
                    let length = body.size_hint().exact();
                    let ended = body.is_end_stream();
                    let stage = if ended { Stage::Over } else { Stage::Body(body) };
                    driving.land(stage, |state| {
                        state.head = Head::Good(Box::new(parts), length);
                        state.end = ended.then_some(Ok(()));
                    });
                }
            },
            Stage::Body(mut body) => match body.as_mut().poll_frame(cx) {
                Poll::Pending => driving.put_back(Stage::Body(body)),
                Poll::Ready(None) => driving.land(Stage::Over, |state| state.end = Some(Ok(()))),
                Poll::Ready(Some(Err(error))) => {
                    driving.land(Stage::Over, |state| state.end = Some(Err(Failure::new(error))));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    let piece = piece(frame);
                    let ended = body.is_end_stream();
                    let stage = if ended { Stage::Over } else { Stage::Body(body) };
                    driving.land(stage, |state| {
                        if let Some(piece) = piece {
                            state.tape.push(piece);
                        }
                        state.end = ended.then_some(Ok(()));
                    });
                }
            },
            Stage::Taken | Stage::Over => unreachable!("neither is taken out"),
        }
    }

    fn settle(&self, stage: Stage, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        state.stage = stage;
        change(&mut state);
        if state.end.is_some() || matches!(state.head, Head::Failed(_)) {
            state.tape.close();
        }
        let unlist = state.take_unlist();
        drop(state);
        if let Some(unlist) = unlist {
            unlist();
        }
    }
}

fn piece(frame: Frame<Bytes>) -> Option<Piece> {
    match frame.into_data() {
        Ok(data) => Some(Piece::Data(data)),
        Err(frame) => frame.into_trailers().ok().map(Piece::Trailers),
    }
}

/// While somebody polls the call. Should that panic, all are told.
struct Driving<'a> {
    flight: Option<&'a Flight>,
}

impl Driving<'_> {
    fn put_back(mut self, stage: Stage) {
        let Some(flight) = self.flight.take() else { return };
        flight.settle(stage, |_| {});
        // It was rung while it was polled, and who registered since then has not heard it. Not to be left to who polls now:
        // that one may never be polled again.
        if flight.bell.is_rung() {
            flight.bell.wake_all();
        }
    }

    fn land(mut self, stage: Stage, change: impl FnOnce(&mut State)) {
        let Some(flight) = self.flight.take() else { return };
        // What comes next has not been polled yet.
        flight.bell.mark();
        flight.settle(stage, change);
        flight.bell.wake_all();
    }
}

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        if let Some(flight) = self.flight {
            flight.settle(Stage::Over, |state| match state.head {
                Head::Awaited => state.head = Head::Failed(Failure::Lost),
                _ => state.end = Some(Err(Failure::Lost)),
            });
            flight.bell.wake_all();
        }
    }
}

/// One request's place in a call. Dropping it gives the place back; with the last one goes the call.
pub(super) struct Seat {
    flight: Arc<Flight>,
    id: usize,
}

impl Seat {
    pub(super) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// Makes the call. Should that panic, all are told.
    pub(super) fn launch(&self, make: impl FnOnce() -> BoxCall) {
        let driving = Driving { flight: Some(&self.flight) };
        let call = make();
        driving.put_back(Stage::Call(call));
    }

    /// Waits until `look` finds something, and goes on with the call where nobody else does.
    fn poll<T>(&self, cx: &Context<'_>, mut look: impl FnMut(&mut State, usize) -> Option<T>) -> Poll<T> {
        let Self { flight, id } = self;
        loop {
            let mut state = lock(&flight.state);
            if let Some(found) = look(&mut state, *id) {
                return Poll::Ready(found);
            }
            let old = flight.bell.register(*id, cx.waker());
            let is_there = matches!(state.stage, Stage::Call(_) | Stage::Body(_));
            let taken = (is_there && flight.bell.take_rung())
                .then(|| std::mem::replace(&mut state.stage, Stage::Taken));
            drop(state);
            drop(old);
            match taken {
                Some(stage) => flight.drive(stage),
                None => return Poll::Pending,
            }
        }
    }

    pub(super) fn poll_head(&self, cx: &Context<'_>) -> Poll<Landed> {
        self.poll(cx, |state, id| match &mut state.head {
            Head::Awaited => None,
            Head::Failed(Failure::Lost) => Some(Landed::Missed(Failure::Lost.into_error())),
            Head::Failed(failure) => {
                let failure = if state.tape.readers() == 1 {
                    std::mem::replace(failure, Failure::Lost)
                } else {
                    failure.clone()
                };
                Some(Landed::Failed(failure.into_error()))
            }
            Head::Good(..) if state.tape.is_behind(id) => match state.tape.next(id) {
                Next::Behind(bytes) => Some(Landed::Missed(FellBehind::new(bytes).into())),
                _ => None,
            },
            Head::Good(parts, length) => Some(Landed::Head(parts.clone(), *length)),
        })
    }

    pub(super) fn poll_piece(&self, cx: &Context<'_>) -> Poll<Option<Result<Piece, BoxError>>> {
        self.poll(cx, |state, id| match state.tape.next(id) {
            Next::Piece(piece) => Some(Some(Ok(piece))),
            Next::Behind(bytes) => Some(Some(Err(FellBehind::new(bytes).into()))),
            Next::Nothing => match &mut state.end {
                None => None,
                Some(Ok(())) => Some(None),
                Some(Err(failure)) => {
                    let failure = if state.tape.readers() == 1 {
                        std::mem::replace(failure, Failure::Lost)
                    } else {
                        failure.clone()
                    };
                    Some(Some(Err(failure.into_error())))
                }
            },
        })
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let state = lock(&self.flight.state);
        matches!(state.end, Some(Ok(()))) && state.tape.is_at_end(self.id)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = lock(&self.flight.state);
        // Before the place is free for a newcomer.
        let waker = self.flight.bell.forget(self.id);
        state.tape.leave(self.id);
        let mut left = None;
        if state.tape.readers() == 0 {
            state.tape.close();
            left = Some(std::mem::replace(&mut state.stage, Stage::Over));
        }
        let unlist = state.take_unlist();
        drop(state);
        drop((left, waker));
        if let Some(unlist) = unlist {
            unlist();
        }
    }
}
