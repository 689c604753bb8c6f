//! One request on its way from place to place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Request, Response};

use super::choose::{another, choose};
use super::health::{Blame, Nanos, Rank, Standing};
use super::report::ServedAt;
use super::shared::{Key, Permitted, Shared};
use crate::context::Context;
use crate::error::{BoxError, Rejected, find};
use crate::event::LayerKind;
use crate::event::{Event, GaveUp};
use crate::layer_order;
use crate::request::Target;
use crate::retry::{self, Elsewhere, SharedAttempts};
use crate::time;
use crate::timeout::Deadline;
use crate::verdict::Verdict;

/// What is kept for a request with several places.
pub(super) struct Work<S, B> {
    shared: Arc<Shared>,
    key: Arc<Key>,
    /// For every place but the first that is called.
    pub(super) service: S,
    /// Ready to be sent, while the service is not.
    pub(super) next: Option<Request<B>>,
    /// The request as it came.
    kept: Request<B>,
    permitted: Permitted,
    tried: Permitted,
    moves: usize,
    carry: SharedAttempts,
    /// The call under way.
    visit: Option<Arc<Visit>>,
}

pub(super) enum Next<RB> {
    Return(Result<Response<RB>, BoxError>),
    /// There is a request in `next`.
    Ask,
}

/// One call to one place, all attempts there together.
struct Visit {
    shared: Arc<Shared>,
    key: Arc<Key>,
    at: usize,
    sent: Nanos,
    /// Where the request may go besides.
    others: Permitted,
    /// It finds out whether the place is open: until when it has to.
    lease: Option<Nanos>,
    /// A retry layer inside tells of the failures.
    is_told: AtomicBool,
}

impl Visit {
    /// Blames the place where it is to blame, and says whether another one would help and is open.
    fn judge(&self, verdict: &Verdict, rejected: Option<&Rejected>) -> bool {
        let until = rejected.and_then(Rejected::until);
        let ahead = until.map(|until| until.saturating_duration_since(time::now()));
        let Some(blame) = Blame::of(verdict, rejected, ahead) else { return false };
        let now = self.shared.now();
        if let Some(until) = self.key.with(self.at, |health| health.fail(blame, now)) {
            let (place, until) = (self.shared.places[self.at].name(), self.shared.instant(until));
            self.shared.observer.tell(&Event::PlaceClosed { place, key: &self.key.key, until, verdict });
        }
        another(&self.key.candidates(self.others, Permitted::NONE, now)).is_some()
    }
}

impl Elsewhere for Visit {
    fn failed(&self, verdict: &Verdict, rejected: Option<&Rejected>) -> bool {
        // Relaxed: read by the same call, once this one has returned.
        self.is_told.store(true, Ordering::Relaxed);
        self.judge(verdict, rejected)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(lease) = self.lease {
            self.key.with(self.at, |health| health.leave(lease));
        }
    }
}

impl<S, B: Clone> Work<S, B> {
    pub(super) fn new(
        shared: Arc<Shared>,
        key: Arc<Key>,
        service: S,
        request: Request<B>,
        permitted: Permitted,
    ) -> Self {
        // All places of all models share what a fallback outside counts.
        let carry = Context::of(&request).and_then(Context::carry).cloned().unwrap_or_default();
        Self {
            shared,
            key,
            service,
            next: None,
            kept: request,
            permitted,
            tried: Permitted::NONE,
            moves: 0,
            carry,
            visit: None,
        }
    }

    /// The model that is asked for.
    pub(super) fn model(&self) -> Option<&str> {
        self.key.key.model()
    }

    /// The request for the first place; `None` where it cannot be rewritten for any.
    pub(super) fn first(&mut self) -> Option<Request<B>> {
        let (at, request) = self.pick(choose)?;
        Some(self.enter(at, request))
    }

    /// A place that can be asked, and the request for it. One at which it would wait inside counts as closed, as long as
    /// there is another.
    fn pick(
        &mut self,
        choice: fn(&[super::choose::Candidate]) -> Option<usize>,
    ) -> Option<(usize, Request<B>)> {
        let now = self.shared.now();
        let mut candidates = self.key.candidates(self.permitted, self.tried, now);
        loop {
            let at = choice(&candidates)?;
            let mut request = self.kept.clone();
            if self.shared.places[at].rewrite(&mut request).is_none() {
                self.permitted = self.permitted.without(at);
                candidates[at].permitted = false;
                continue;
            }
            let is_open = candidates[at].standing == Standing::Open;
            if is_open && self.shared.would_wait(&Target::of(&request)) {
                candidates[at].standing = Standing::Closed(now);
                candidates[at].rank = Rank::Due(0);
                continue;
            }
            return Some((at, request));
        }
    }

    fn enter(&mut self, at: usize, mut request: Request<B>) -> Request<B> {
        let now = self.shared.now();
        let others = self.permitted.without(at);
        self.tried = self.tried.with(at);
        let visit = Arc::new(Visit {
            shared: Arc::clone(&self.shared),
            key: Arc::clone(&self.key),
            at,
            sent: now,
            others: (0..self.shared.places.len())
                .fold(others, |others, n| if self.tried.has(n) { others.without(n) } else { others }),
            lease: self.key.with(at, |health| health.enter(now)),
            is_told: AtomicBool::new(false),
        });
        self.visit = Some(Arc::clone(&visit));
        let carry = self.carry.leaving_to(visit);
        Context::write_more(&mut request, |more| more.carry = Some(carry));
        request
    }

    /// Decides what follows what a place answered.
    pub(super) fn after<RB>(&mut self, mut result: Result<Response<RB>, BoxError>) -> Next<RB> {
        let Some(visit) = self.visit.take() else { return Next::Return(result) };
        let at = visit.at;
        let verdict = match &result {
            Ok(response) if Verdict::is_good(response) => {
                self.key.with(at, |health| health.succeed(visit.sent));
                self.mark(at, &mut result);
                return Next::Return(result);
            }
            Ok(response) => Verdict::of(response),
            Err(error) => Verdict::from_error(error.as_ref()),
        };
        let rejected = result.as_ref().err().and_then(|error| find::<Rejected>(error.as_ref()));
        let moves = if visit.is_told.load(Ordering::Relaxed) {
            // The retry layer inside knows what may be repeated.
            self.carry.gave_up() == Some(GaveUp::Elsewhere)
        } else {
            visit.judge(&verdict, rejected) && !verdict.maybe_processed()
        };
        drop(visit);
        let is_late = Deadline::of(&self.kept).is_some_and(|deadline| deadline.instant() <= time::now());
        if moves && !is_late && !retry::is_lost(&self.kept) {
            if let Some((to, request)) = self.pick(another) {
                let name = |at: usize| self.shared.places[at].name();
                self.shared.observer.tell(&Event::Moved { from: name(at), to: name(to), verdict: &verdict });
                self.moves += 1;
                let request = self.enter(to, request);
                self.next = Some(request);
                return Next::Ask;
            }
        }
        if let Ok(response) = &mut result {
            layer_order::passed(response, LayerKind::Places, &self.shared.observer);
        }
        self.mark(at, &mut result);
        Next::Return(result)
    }

    fn mark<RB>(&self, at: usize, result: &mut Result<Response<RB>, BoxError>) {
        if let Ok(response) = result {
            let place = Arc::clone(self.shared.places[at].name());
            let served = ServedAt { place, position: at, moves: self.moves };
            response.extensions_mut().insert(served);
        }
    }
}
