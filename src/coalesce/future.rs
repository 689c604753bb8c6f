use std::fmt;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::body::{CoalesceBody, Erased};
use super::flight::{BoxBody, BoxCall, Landed, Seat};
use super::key::{Entered, Shared};
use crate::error::{BoxError, Rejected, find};
use crate::event::GaveUp;
use crate::retry::Attempts;
use crate::time;
use crate::timeout::{Deadline, TimedOut};
use crate::verdict::Verdict;

pin_project! {
    /// The future of [`Coalesce`](super::Coalesce).
    ///
    /// Dropping it gives its place in the call back. The call goes on as long as another request waits for it, also if this one made it.
    ///
    /// # Panics
    ///
    /// Its `poll` does where a request that joined has a deadline and there is no tokio runtime with time enabled.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, K, F> {
        #[pin]
        pub(super) state: State<S, B, K, F>,
    }
}

pin_project! {
    #[project = StateProj]
    pub(super) enum State<S, B, K, F> {
        // A call of its own, which nobody can join.
        Plain { #[pin] future: F },
        // A shared call. What it needs to ask again is there if it joined.
        Shared { seat: Option<Seat>, own: Option<Box<Own<S, B, K>>> },
        // It joined, came away with nothing, and asks again once the inner service is ready.
        Readying { own: Option<Box<Own<S, B, K>>> },
    }
}

/// What a request that joined keeps, so that it can ask itself.
pub(super) struct Own<S, B, K> {
    service: S,
    request: Request<B>,
    key: K,
    shared: Arc<Shared<K>>,
    deadline: Option<Instant>,
    called: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S, B, K> Own<S, B, K> {
    pub(super) fn new(service: S, request: Request<B>, key: K, shared: Arc<Shared<K>>) -> Self {
        let deadline = Deadline::of(&request).map(Deadline::instant);
        Self { service, request, key, shared, deadline, called: time::now(), timer: None }
    }

    /// Whether its own deadline is over.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<TimedOut> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(TimedOut::waiting_for_another(deadline.saturating_duration_since(self.called)))
    }

    /// Whether it has more time than the call had, and that is why it failed.
    fn asks_again(&self, of_call: Option<Instant>, why: &Why<'_>) -> bool {
        let Some(of_call) = of_call else { return false };
        self.deadline.is_none_or(|own| own > of_call && own > time::now())
            && why.is_the_deadline(of_call, time::now())
    }
}

/// How a shared call failed.
enum Why<'a> {
    Answered(Option<GaveUp>),
    Error(&'a BoxError),
}

impl Why<'_> {
    fn is_the_deadline(&self, deadline: Instant, now: Instant) -> bool {
        let by_word = match self {
            Self::Answered(gave_up) => *gave_up == Some(GaveUp::Deadline),
            // Turned away, because its turn would have come too late.
            Self::Error(error) => find::<Rejected>(error.as_ref())
                .and_then(Rejected::until)
                .is_some_and(|until| until > deadline),
        };
        by_word || now >= deadline
    }
}

pin_project! {
    /// The inner service's call, with a body of a type that all services share.
    struct ErasedCall<F> {
        #[pin]
        future: F,
    }
}

impl<F, RB, E> Future for ErasedCall<F>
where
    F: Future<Output = Result<Response<RB>, E>>,
    E: Into<BoxError>,
    RB: Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
    type Output = Result<Response<BoxBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().future.poll(cx));
        Poll::Ready(match result {
            Ok(response) => Ok(response.map(|body| Box::pin(Erased::new(body)) as BoxBody)),
            Err(error) => Err(error.into()),
        })
    }
}

pub(super) fn erase<F, RB, E>(future: F) -> BoxCall
where
    F: Future<Output = Result<Response<RB>, E>> + Send + 'static,
    E: Into<BoxError>,
    RB: Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
    Box::pin(ErasedCall { future })
}

impl<S, B, K, F> fmt::Debug for ResponseFuture<S, B, K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the request: its headers hold the key.
        f.debug_struct("coalesce::ResponseFuture").finish_non_exhaustive()
    }
}

impl<S, B, RB, E, K> Future for ResponseFuture<S, B, K, S::Future>
where
    S: Service<Request<B>, Response = Response<RB>, Error = E>,
    S::Future: Send + 'static,
    E: Into<BoxError>,
    RB: Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    type Output = Result<Response<CoalesceBody<RB>>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Plain { future } => {
                    let result = ready!(future.poll(cx)).map_err(Into::into)?;
                    return Poll::Ready(Ok(result.map(CoalesceBody::plain)));
                }
                StateProj::Shared { seat: slot, own } => {
                    let seat = slot.as_ref().expect("it is taken with the answer");
                    let Poll::Ready(landed) = seat.poll_head(cx) else {
                        let Some(own) = own else { return Poll::Pending };
                        return own.poll_deadline(cx).map(|late| Err(late.into()));
                    };
                    let of_call = seat.flight().deadline();
                    let joined = own.is_some();
                    let again = own.as_ref().is_some_and(|own| match &landed {
                        Landed::Head(parts, _) if is_failed(parts) => {
                            let gave_up = parts.extensions.get::<Attempts>().and_then(Attempts::gave_up);
                            own.asks_again(of_call, &Why::Answered(gave_up))
                        }
                        Landed::Head(..) => false,
                        Landed::Failed(error) => own.asks_again(of_call, &Why::Error(error)),
                        Landed::Missed(_) => true,
                    });
                    if again {
                        let own = own.take();
                        this.state.set(State::Readying { own });
                        continue;
                    }
                    match landed {
                        Landed::Failed(error) | Landed::Missed(error) => return Poll::Ready(Err(error)),
                        Landed::Head(parts, length) => {
                            let mut response = Response::from_parts(*parts, ());
                            response.extensions_mut().insert(Coalesced { joined });
                            let seat = slot.take().expect("it was there above");
                            return Poll::Ready(Ok(response.map(|()| CoalesceBody::shared(seat, length))));
                        }
                    }
                }
                StateProj::Readying { own: slot } => {
                    let own = slot.as_mut().expect("it is taken when the state is left");
                    if let Poll::Ready(late) = own.poll_deadline(cx) {
                        return Poll::Ready(Err(late.into()));
                    }
                    ready!(own.service.poll_ready(cx)).map_err(Into::into)?;
                    let next = match own.shared.enter(own.key.clone(), &own.request) {
                        Entered::Joined(seat) => State::Shared { seat: Some(seat), own: slot.take() },
                        entered => {
                            let mut own = *slot.take().expect("it was there above");
                            match entered {
                                Entered::Leads(seat) => {
                                    seat.launch(|| erase(own.service.call(own.request)));
                                    State::Shared { seat: Some(seat), own: None }
                                }
                                _ => State::Plain { future: own.service.call(own.request) },
                            }
                        }
                    };
                    this.state.set(next);
                }
            }
        }
    }
}

fn is_failed(parts: &http::response::Parts) -> bool {
    parts.status.as_u16() >= 400
        || parts.extensions.get::<Verdict>().is_some_and(|verdict| !verdict.is_success())
}

/// In the extensions of a response that came from a call which equal requests could join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalesced {
    joined: bool,
}

impl Coalesced {
    /// What is known of this response; `None` where its call was its request's own, which nobody could join.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Option<Self> {
        response.extensions().get().copied()
    }

    /// Whether another request made the call. One that joined used no quota of its own, and its [usage](crate::verdict::Usage) is the other's.
    #[must_use]
    pub const fn joined(self) -> bool {
        self.joined
    }
}
