use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower_service::Service;

use super::evidence::{Evidence, LATE_FOR, Paid, STRAINED_FOR, Sent};
use super::report::{Hedged, HeldBack};
use super::shared::{Key, Shared};
use super::spare::Spare;
use crate::error::{BoxError, Rejected, find};
use crate::event::Event;
use crate::event::LayerKind;
use crate::held;
use crate::layer_order;
use crate::request::Target;
use crate::retry::{Replay, Upload, is_lost};
use crate::time;
use crate::verdict::{Kind, Retryability, Verdict};

pin_project! {
    /// The future of [`Hedge`](super::Hedge).
    ///
    /// Dropping it in any state drops both calls and the copy of the request, and counts nothing; what a second try cost
    /// stays spent, since the server may have it.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, F, RB> {
        // `None` once it has failed while the second try is under way, or has come second.
        #[pin]
        first: Option<F>,
        task: Task<S, B, F, RB>,
    }
}

#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and a box would be paid per call"
)]
pub(super) enum Task<S, B, F, RB> {
    /// A call that is not repeated: nothing is measured.
    PassThrough,
    Watched(Watched<S, B, F, RB>),
}

pub(super) struct Watched<S, B, F, RB> {
    shared: Arc<Shared>,
    spare: Arc<Spare<S>>,
    key: Arc<Key>,
    /// For the second try, and when it may be made. `None` where there may be none, and once it was made.
    kept: Option<(Duration, Request<B>)>,
    deadline: Option<Instant>,
    /// The number of the call and when it was sent; `None` while it waits inside. It is under way until this is dropped.
    sent: Option<(Sent, Instant)>,
    /// For the second try; while that alone is left, for its end.
    timer: Option<Pin<Box<Sleep>>>,
    second: Option<Box<Second<F, RB>>>,
}

impl<S, B, F, RB> Drop for Watched<S, B, F, RB> {
    fn drop(&mut self) {
        if self.sent.is_some() {
            self.key.with(Evidence::end);
        }
    }
}

struct Second<F, RB> {
    /// `None` once it has failed.
    future: Option<Pin<Box<F>>>,
    after: Duration,
    sent_at: Instant,
    /// The failure of the first, which is handed on if this one fails, too.
    failed: Option<Result<Response<RB>, BoxError>>,
}

impl<S, B, F, RB> Watched<S, B, F, RB> {
    pub(super) const fn new(
        shared: Arc<Shared>,
        spare: Arc<Spare<S>>,
        key: Arc<Key>,
        kept: Option<(Duration, Request<B>)>,
        deadline: Option<Instant>,
    ) -> Self {
        Self { shared, spare, key, kept, deadline, sent: None, timer: None, second: None }
    }
}

impl<S, B, F, RB> ResponseFuture<S, B, F, RB> {
    pub(super) const fn new(task: Task<S, B, F, RB>, first: F) -> Self {
        Self { first: Some(first), task }
    }
}

impl<S, B, F, RB> fmt::Debug for ResponseFuture<S, B, F, RB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the request: its headers hold the key.
        f.debug_struct("hedge::ResponseFuture").finish_non_exhaustive()
    }
}

impl<S, B, RB, E> Future for ResponseFuture<S, B, S::Future, RB>
where
    S: Service<Request<B>, Response = Response<RB>, Error = E> + Clone,
    E: Into<BoxError>,
    B: Body + Clone,
{
    type Output = Result<Response<RB>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let watched = match this.task {
            Task::PassThrough => {
                let first = this.first.as_pin_mut().expect("it is there until it is ready");
                return first.poll(cx).map_err(Into::into);
            }
            Task::Watched(watched) => watched,
        };
        let mut is_held = false;
        if let Some(first) = this.first.as_mut().as_pin_mut() {
            held::reset();
            match first.poll(cx) {
                Poll::Ready(result) => {
                    this.first.set(None);
                    if let Some(result) = watched.first_ended(result.map_err(Into::into)) {
                        return Poll::Ready(result);
                    }
                }
                Poll::Pending => {
                    is_held = held::is_held();
                    watched.first_pending(is_held);
                }
            }
        }
        if let Some(result) = watched.poll_second(cx) {
            // The loser goes here and not with this future, so that its connection closes at once.
            this.first.set(None);
            return Poll::Ready(result);
        }
        // What a layer outside reads is whether the first waits. The second never does.
        held::reset();
        if is_held {
            return held::hold(Poll::Pending);
        }
        Poll::Pending
    }
}

impl<S, B, F, RB> Watched<S, B, F, RB> {
    fn first_pending(&mut self, is_held: bool) {
        if self.sent.is_some() {
            return;
        }
        if is_held {
            // It waits for quota, for a place or for a circuit: no second try of this one, nor of others soon.
            if self.kept.take().is_some() {
                let now = self.shared.now();
                self.key.with(|evidence| evidence.shorten(now, None));
            }
            return;
        }
        let now = time::now();
        let sent = self.key.with(|evidence| evidence.send(&self.shared.settings.rules));
        self.sent = Some((sent, now));
        if let Some((after, _)) = &self.kept {
            self.timer = Some(Box::pin(tokio::time::sleep_until(time::saturating_add(now, *after))));
        }
    }

    /// `None` where the second try may mend it.
    fn first_ended(
        &mut self,
        mut result: Result<Response<RB>, BoxError>,
    ) -> Option<Result<Response<RB>, BoxError>> {
        self.kept = None;
        let rules = &self.shared.settings.rules;
        if let Ok(response) = result.as_mut() {
            if Verdict::is_good(response) {
                let sent = self.sent;
                self.key.with(|evidence| match sent {
                    Some((sent, at)) => {
                        let took = time::now().saturating_duration_since(at);
                        evidence.answer(sent, Some(took), rules);
                    }
                    None => {
                        let sent = evidence.send(rules);
                        evidence.answer(sent, None, rules);
                        evidence.end();
                    }
                });
                if let Some(second) = self.second.take() {
                    if second.future.is_some() {
                        self.settle(&second, false);
                    }
                    mark(response, &second, false);
                }
                return Some(result);
            }
            layer_order::passed(response, LayerKind::Hedge, &self.shared.settings.observer);
        }
        let verdict = self.failed(&result);
        let Some(second) = &mut self.second else { return Some(result) };
        if second.future.is_some() && verdict.retryability() != Retryability::Never {
            second.failed = Some(result);
            // No longer than the first had when the second was sent.
            let end = time::saturating_add(time::now(), second.after);
            self.timer = Some(Box::pin(tokio::time::sleep_until(end)));
            return None;
        }
        self.lose();
        if let (Ok(response), Some(second)) = (result.as_mut(), &self.second) {
            mark(response, second, false);
        }
        Some(result)
    }

    /// Counts what a try ended with.
    fn failed(&self, result: &Result<Response<RB>, BoxError>) -> Verdict {
        let (verdict, rejected) = match result {
            Ok(response) => (Verdict::of(response), None),
            Err(error) => (
                Verdict::from_error(error.as_ref()),
                find::<Rejected>(error.as_ref()).and_then(Rejected::kind),
            ),
        };
        let kind = rejected.or_else(|| verdict.kind());
        if matches!(kind, Some(Kind::RateLimited | Kind::QuotaExhausted)) {
            let now = self.shared.now();
            let delay = verdict.server_delay().map(|delay| delay.at_least());
            self.key.with(|evidence| evidence.shorten(now, delay));
        }
        if is_the_servers(&verdict) {
            let now = self.shared.now();
            self.key.with(|evidence| evidence.fail(now, strain(kind)));
        }
        verdict
    }

    /// The second try did not come first.
    fn lose(&mut self) {
        if let Some(second) = self.second.as_mut().filter(|second| second.future.is_some()) {
            second.future = None;
            if let Some(second) = &self.second {
                self.settle(second, false);
            }
        }
    }

    fn settle(&self, second: &Second<F, RB>, won: bool) {
        self.key.with(|evidence| if won { evidence.win() } else { evidence.lose() });
        let took = time::now().saturating_duration_since(second.sent_at);
        self.shared.settings.observer.tell(&Event::HedgeSettled { key: &self.key.id.target, won, took });
    }

    /// The failure of the first, which the second did not mend.
    fn unmended(&mut self) -> Option<Result<Response<RB>, BoxError>> {
        let second = self.second.as_mut()?;
        let mut result = second.failed.take()?;
        if let Ok(response) = &mut result {
            mark(response, second, false);
        }
        Some(result)
    }
}

impl<S, B, RB> Watched<S, B, S::Future, RB>
where
    S: Service<Request<B>, Response = Response<RB>> + Clone,
    S::Error: Into<BoxError>,
    B: Body + Clone,
{
    /// Sends the second try when it is time, and polls it.
    fn poll_second(&mut self, cx: &mut Context<'_>) -> Option<Result<Response<RB>, BoxError>> {
        if let Some(future) = self.second.as_mut().and_then(|second| second.future.as_mut()) {
            if let Poll::Ready(result) = future.as_mut().poll(cx) {
                return self.second_ended(result.map_err(Into::into));
            }
        }
        let timer = self.timer.as_mut()?;
        if timer.as_mut().poll(cx).is_pending() {
            return None;
        }
        self.timer = None;
        if self.second.is_some() {
            self.lose();
            return self.unmended();
        }
        let (after, request) = self.kept.take()?;
        let paid = self.decide(&request)?;
        self.send(after, request, paid, cx)
    }

    fn decide(&self, request: &Request<B>) -> Option<Paid> {
        let replay = request.extensions().get::<Replay>();
        // A body that streams is in the first try's hands until it has gone out whole.
        let is_out = !is_lost(request) && replay.is_none_or(|replay| replay.upload() == Upload::Whole);
        let warned = if is_out { self.shared.warned(&Target::of(request)) } else { Some(HeldBack::Body) };
        let (sent, _) = self.sent?;
        let left = self.deadline.map(|at| at.saturating_duration_since(time::now()));
        let now = self.shared.now();
        self.key.with(|evidence| match warned {
            Some(why) => {
                evidence.hold_back(why);
                None
            }
            None => evidence.decide(sent, now, left).ok(),
        })
    }

    fn send(
        &mut self,
        after: Duration,
        request: Request<B>,
        paid: Paid,
        cx: &mut Context<'_>,
    ) -> Option<Result<Response<RB>, BoxError>> {
        let mut service = self.spare.service();
        let Poll::Ready(Ok(())) = service.poll_ready(cx) else {
            self.key.with(|evidence| evidence.refund(paid, HeldBack::Waiting));
            return None;
        };
        let mut future = Box::pin(service.call(request));
        held::reset();
        let polled = future.as_mut().poll(cx);
        let is_unsent = match &polled {
            // It is dropped, and gives back whatever it has.
            Poll::Pending => held::is_held(),
            Poll::Ready(Ok(_)) => false,
            Poll::Ready(Err(_)) => false,
        };
        let polled = polled.map_err(Into::<BoxError>::into);
        let is_rejected =
            matches!(&polled, Poll::Ready(Err(error)) if find::<Rejected>(error.as_ref()).is_some());
        if is_unsent || is_rejected {
            drop(future);
            let now = self.shared.now();
            self.key.with(|evidence| {
                evidence.refund(paid, HeldBack::Waiting);
                evidence.shorten(now, None);
            });
            return None;
        }
        self.shared.settings.observer.tell(&Event::Hedged { key: &self.key.id.target, after });
        let second = Second { future: Some(future), after, sent_at: time::now(), failed: None };
        self.second = Some(Box::new(second));
        match polled {
            Poll::Ready(result) => self.second_ended(result),
            Poll::Pending => None,
        }
    }

    fn second_ended(
        &mut self,
        mut result: Result<Response<RB>, BoxError>,
    ) -> Option<Result<Response<RB>, BoxError>> {
        let is_good = result.as_ref().is_ok_and(Verdict::is_good);
        if !is_good {
            self.failed(&result);
            self.lose();
            self.timer = None;
            return self.unmended();
        }
        let mut second = self.second.take()?;
        second.future = None;
        self.settle(&second, true);
        if let (Some((sent, at)), None) = (self.sent, &second.failed) {
            let had = time::now().saturating_duration_since(at);
            self.key.with(|evidence| evidence.give_up(sent, had, &self.shared.settings.rules));
        }
        if let Ok(response) = &mut result {
            mark(response, &second, true);
        }
        Some(result)
    }
}

fn mark<F, RB>(response: &mut Response<RB>, second: &Second<F, RB>, won: bool) {
    response.extensions_mut().insert(Hedged { after: second.after, won });
}

/// For how long a failure of this kind says that the server has too much to do.
fn strain(kind: Option<Kind>) -> Option<Duration> {
    match kind {
        Some(Kind::Overloaded | Kind::Unavailable) => Some(STRAINED_FOR),
        Some(Kind::DeadlineExceeded) => Some(LATE_FOR),
        _ => None,
    }
}

/// Whether a failure speaks of the server's state, and not of the request or its caller.
fn is_the_servers(verdict: &Verdict) -> bool {
    let is_of_its_kind = matches!(
        verdict.kind(),
        Some(
            Kind::RateLimited
                | Kind::QuotaExhausted
                | Kind::Overloaded
                | Kind::Unavailable
                | Kind::Internal
                | Kind::DeadlineExceeded
                | Kind::Cancelled
                | Kind::Transport
        )
    );
    is_of_its_kind && !verdict.is_by_caller()
}
