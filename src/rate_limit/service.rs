use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response, StatusCode};
use http_body::Body;
use tokio::time::Sleep;

use super::decision::AdmissionMode;
use super::estimate::{Cost, Estimate, Units};
use super::gate::{Key, Work};
use super::permit::Permit;
use super::queue::WaiterId;
use super::scheduler::{Arrival, Look};
use super::shared::Shared;
use super::window::Nanos;
use super::{BySize, RateLimitBody, RateLimits};
use crate::admission::{self, Admission, Entry, Gate, Kind, Pass, Turn, Visitor};
use crate::body::on_end::EndHook;
use crate::call_options::RequestClass;
use crate::context::deadline::Deadline;
use crate::context::{self, View};
use crate::error::BoxError;
use crate::error::timed_out::TimedOut;
use crate::event::LayerKind;
use crate::layer_order;
use crate::request::Target;
use crate::tier::ServiceTier;
use crate::verdict::Verdict;

/// Admits requests at the pace of their quota. Made by [`RateLimitLayer`](super::RateLimitLayer); see the [module
/// documentation](super).
///
/// `poll_ready` is the inner service's own: it takes no permit and no place in the queue.
pub type RateLimit<S, E = BySize> = Admission<S, Quota<E>, Permits>;

/// The future of [`RateLimit`].
///
/// Dropping it while it waits gives up its place, and the next in the queue moves up at once. Dropping it while
/// the call is under way drops the call; what was charged stays charged, since the server may have it. Dropped
/// before it was ever polled, it gives everything back.
pub type ResponseFuture<S, B, F> = admission::ResponseFuture<S, B, F, Permits>;

/// The gate of a rate limit.
pub struct Quota<E>(pub(super) Arc<Core<E>>);

/// What the services of one layer share.
pub(super) struct Core<E> {
    pub(super) shared: Arc<Shared>,
    pub(super) estimate: E,
}

impl<S, E> RateLimit<S, E> {
    /// What the layer knows, to look at and to change.
    #[must_use]
    pub fn handle(&self) -> RateLimits {
        RateLimits::new(Arc::clone(&self.gate().0.shared))
    }
}

impl<E> fmt::Debug for Quota<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota").finish_non_exhaustive()
    }
}

/// Calls hold permits.
#[derive(Debug)]
pub struct Permits;

impl Kind for Permits {
    const NAMES: (&'static str, &'static str) = ("RateLimit", "rate_limit::ResponseFuture");
    type State = Option<Arc<Key>>;
    type Pass = Option<Permit>;
    type Ticket = Ticket;
    type Body<B: Body> = RateLimitBody<B>;

    #[inline(always)]
    fn watch<B: Body>(response: Response<B>, end: EndHook<Permit>) -> Response<RateLimitBody<B>> {
        RateLimitBody::watch(response, end)
    }
}

impl<E: Estimate<B>, B: Body> Gate<B> for Quota<E> {
    type Kind = Permits;

    fn find(&self, target: &Target<'_>) -> Option<Arc<Key>> {
        let shared = &self.0.shared;
        shared.enabled.then(|| shared.key_of(target))
    }

    #[inline(always)]
    fn enter(
        &self,
        key: Option<Arc<Key>>,
        request: &mut Request<B>,
        visitor: &Visitor,
        _ready: bool,
    ) -> Entry<Permits> {
        let Some(key) = key else { return Entry::Pass(None) };
        let estimate = &self.0.estimate;
        let cost = match key.work() {
            Work::Nothing => return Entry::Pass(None),
            Work::Tokens if visitor.is_plain => Cost::of(request, None, estimate),
            Work::Tokens => Cost::of(request, request.extensions().get(), estimate),
            Work::Requests => Cost::FREE,
            Work::Units => cost_of_units(request, estimate, &key),
        };
        match key.grant(cost) {
            Ok(receipt) => {
                Entry::Pass(Some(Permit::new(key, receipt, visitor.tier != Some(ServiceTier::Flex))))
            }
            Err(now) => late(key, now, cost, request, visitor),
        }
    }
}

/// There is no permit at once.
#[cold]
fn late<B>(key: Arc<Key>, now: Nanos, cost: Cost, request: &Request<B>, visitor: &Visitor) -> Entry<Permits> {
    let view = View::of(request);
    let quota = view.more().map(|more| more.quota).unwrap_or_default();
    let cost = cost.of_class(view.get::<RequestClass>().copied().unwrap_or_default());
    let deadline = view.deadline().map(Deadline::instant);
    let (arrival, patience) = key.enter_late(now, cost, deadline, quota);
    let is_sample = visitor.tier != Some(ServiceTier::Flex);
    let is_impatient = key.common().is_impatient(patience, deadline);
    match arrival {
        Arrival::Granted(receipt) => Entry::Pass(Some(Permit::new(key, receipt, is_sample))),
        Arrival::Queued(place, _) => {
            Entry::Wait(Ticket { key, place, patience, is_impatient, is_sample, left: false, timer: None })
        }
        Arrival::Refused(refusal) => {
            let error = key.refuse(refusal, patience, is_impatient);
            match key.common().mode {
                AdmissionMode::Observe => Entry::Pass(None),
                _ => Entry::Refuse(error.into()),
            }
        }
    }
}

/// What a request is counted for where there are limits over spans.
#[cold]
fn cost_of_units<B: Body>(request: &mut Request<B>, estimate: &impl Estimate<B>, key: &Key) -> Cost {
    let units = Units::of(request, estimate);
    if key.common().prices.is_some() {
        // The answer is read for the model that gave it, by whose price it is settled.
        let model = key.id().target().model();
        let expected = View::of(request).expected_model();
        if model.is_none() || expected == 0 {
            context::Context::write_more(request, |more| {
                more.trail.get_or_insert_default().expect(Some(model.unwrap_or("")));
            });
        }
    }
    let stated = request.extensions().get();
    Cost { units, ..Cost::of(request, stated, estimate) }
}

/// A place in a queue. Dropping it leaves the queue.
pub struct Ticket {
    key: Arc<Key>,
    place: WaiterId,
    /// When the request has waited for quota as long as it may.
    patience: Nanos,
    /// That is before its deadline.
    is_impatient: bool,
    /// How long the call takes is a sample for others.
    is_sample: bool,
    /// The place was given back with the answer.
    left: bool,
    /// For its turn, its deadline, or the queue's next change while this waiter drives it.
    timer: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.left {
            self.key.cancel(self.place);
        }
    }
}

impl admission::Ticket for Ticket {
    type Pass = Option<Permit>;

    fn poll(&mut self, cx: &mut Context<'_>, _ready: bool) -> Poll<Result<Turn<Self::Pass>, BoxError>> {
        if self.timer.as_ref().is_some_and(|sleep| sleep.is_elapsed()) {
            // Before it looks, which may bring the next timer forward.
            self.key.watch(self.place);
        }
        loop {
            match self.key.look(self.place, cx.waker()) {
                Look::Answered(answer) => {
                    self.left = true;
                    self.timer = None;
                    return Poll::Ready(match answer {
                        Ok(mut receipt) => {
                            receipt.waited = self.key.common().waited(self.patience);
                            let permit = Permit::new(Arc::clone(&self.key), receipt, self.is_sample);
                            Ok(Turn::Come(Some(permit)))
                        }
                        Err(refusal) => {
                            Err(self.key.refuse(refusal, self.patience, self.is_impatient).into())
                        }
                    });
                }
                // Each has a timer of its own, so that nobody waits for another one's to be polled.
                Look::Waiting(at) | Look::Driving(at) => {
                    // Nothing will happen by itself; whoever changes that wakes this one.
                    let Some(at) = self.key.common().instant(at) else {
                        self.timer = None;
                        return Poll::Pending;
                    };
                    let sleep = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
                    if sleep.deadline() != at {
                        sleep.as_mut().reset(at);
                    }
                    ready!(sleep.as_mut().poll(cx));
                    self.key.watch(self.place);
                }
            }
        }
    }
}

impl Pass for Permit {
    type End = Self;
    const WATCHES_SENDING: bool = true;

    #[inline(always)]
    fn send(&mut self) {
        self.begin();
    }

    #[inline(always)]
    fn pending(&mut self, held: bool) {
        self.is_pending(held);
    }

    fn leave_late(&mut self) {
        // The server counts from now on, not from the admission.
        self.restamp();
    }

    #[inline(always)]
    fn answered(mut self, _: StatusCode) -> Option<Self> {
        self.is_answered();
        Some(self)
    }

    fn failed<B>(self, response: &mut Response<B>, verdict: &Verdict) {
        layer_order::passed(response, LayerKind::RateLimit, self.observer());
        if let Some(quota) = self.refused(verdict) {
            response.extensions_mut().insert(quota);
        }
    }

    fn errored(self, mut error: BoxError) -> BoxError {
        TimedOut::name(&mut error, self.key().target().model());
        let _ = self.refused(&Verdict::from_error(error.as_ref()));
        error
    }
}
