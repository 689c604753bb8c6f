//! One request on its way through its attempts: what it keeps for another one, and what is done after each.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;

use super::budget::{Budget, Milli, UnderWay, Withdrawal};
use super::config::Settings;
use super::decision::Again;
use super::failure::Failure;
use super::progress::Progress;
use super::shared::Shared;
use super::shared_attempts::SharedAttempts;
use super::stored::Stored;
use super::{GaveUp, Replay, budget_key};
use crate::context::Context;
use crate::context::deadline::Deadline;
use crate::error::{BoxError, FailedProbe, ProbeFailed};
use crate::event::Event;
use crate::time;
use crate::verdict::Verdict;

/// What this request keeps for another attempt.
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and a box would be paid per call"
)]
pub(super) enum Task<S, B> {
    /// The policy has one attempt.
    PassThrough,
    /// There is no copy, for a reason that is worth telling if the attempt fails.
    Refused(Refused),
    Kept(Kept<S, B>),
}

pub(super) struct Refused {
    pub(super) settings: Arc<Settings>,
    pub(super) why: GaveUp,
    pub(super) key: Option<u64>,
    pub(super) carry: Option<SharedAttempts>,
    /// From an earlier call.
    pub(super) failed: Option<Box<Failed>>,
}

pub(super) struct Kept<S, B> {
    pub(super) shared: Arc<Shared<S>>,
    /// For further attempts: the readiness that the caller obtained is used up by the first. `None` before there is
    /// one.
    pub(super) service: Option<Box<S>>,
    /// Gone while the last attempt runs. Without extensions where there is a context.
    pub(super) request: Stored<B>,
    /// The request's context, with its deadline wherever that was found.
    pub(super) context: Context,
    /// The copy has no extensions, and is given the context when it is sent.
    pub(super) left_out: bool,
    /// When the first attempt began.
    pub(super) started: Option<Instant>,
    /// The budget's bucket, once it had to be worked out.
    pub(super) key: Option<u64>,
    /// The attempt that is under way, where the budget counts it.
    pub(super) under_way: UnderWay,
    /// Made at the first failure, so that a success does not carry the room for it.
    pub(super) failed: Option<Box<Failed>>,
}

/// What there is to remember once an attempt has failed.
#[derive(Default)]
pub(super) struct Failed {
    progress: Progress,
    /// Paid for the attempt that comes next, or is under way; dropped, it goes back.
    token: Option<Withdrawal>,
    /// That attempt is under way: unless a layer of this process turns it away, it was sent.
    is_called: bool,
}

impl Failed {
    pub(super) fn spend(&mut self) {
        if let Some(token) = self.token.take() {
            self.progress.taken = self.progress.taken.saturating_add(token.spend());
        }
    }

    /// The request has succeeded: what its retries took, which goes back. That of the last one does so here.
    pub(super) fn pay_back(&mut self) -> Milli {
        self.is_called = false;
        self.token = None;
        std::mem::take(&mut self.progress.taken)
    }
}

impl Drop for Failed {
    fn drop(&mut self) {
        // Dropped in the midst of an attempt, nobody knows how far it got.
        if self.is_called {
            self.spend();
        }
    }
}

impl Failed {
    /// For a call that goes on where an earlier one ended: its request is told which attempt it is.
    pub(super) fn resume<B>(carry: &SharedAttempts, request: &mut Request<B>) -> Option<Box<Self>> {
        let most = Context::of(request).map_or(u32::MAX, Context::most_attempts);
        let progress = carry.take().at_most(most);
        if progress.request == 0 {
            return None;
        }
        if progress.attempts > 0 {
            progress.mark(request);
        }
        Some(Box::new(Self { progress, token: None, is_called: false }))
    }

    pub(super) fn begin(carry: Option<&SharedAttempts>, most: u32) -> Box<Self> {
        let progress = carry.map(SharedAttempts::take).unwrap_or_default().at_most(most);
        Box::new(Self { progress, token: None, is_called: false })
    }

    pub(super) const fn attempts(&self) -> u32 {
        self.progress.attempts
    }

    pub(super) const fn started(&self) -> Option<Instant> {
        self.progress.started
    }

    /// The end of this call, told in the response's extensions, and kept for another call where one may follow.
    pub(super) fn end<RB>(
        mut self: Box<Self>,
        result: &mut Result<Response<RB>, BoxError>,
        gave_up: Option<GaveUp>,
        carry: Option<&SharedAttempts>,
    ) {
        self.progress.publish(result.as_mut().map_err(|_| ()), gave_up);
        self.progress.gave_up = gave_up;
        if let Some(carry) = carry {
            let report = result.as_ref().ok().and_then(|response| response.extensions().get());
            carry.put(std::mem::take(&mut self.progress), report);
        }
    }
}

pub(super) enum Next<RB> {
    Return(Result<Response<RB>, BoxError>),
    Wait(Duration),
}

impl<S, B: Body + Clone> Task<S, B> {
    /// Notes when the first attempt began.
    ///
    /// The clock is read at the first `Pending` and not in `call`: a call that is over at once then costs no
    /// clock read, and one that is not began a synchronous poll ago.
    pub(super) fn begun(&mut self) {
        if let Self::Kept(kept) = self {
            kept.started.get_or_insert_with(time::now);
        }
    }

    /// A first attempt that succeeded while every budget is full: there is nothing to count or to report.
    pub(super) fn is_plain_success<RB>(&self, response: &Response<RB>) -> bool {
        let plain = match self {
            Self::PassThrough => true,
            Self::Kept(kept) => {
                kept.failed.is_none() && kept.shared.settings.budget.as_ref().is_none_or(Budget::is_full)
            }
            Self::Refused(_) => false,
        };
        plain && Verdict::is_good(response)
    }

    pub(super) fn after<RB>(&mut self, result: Result<Response<RB>, BoxError>) -> Next<RB> {
        match self {
            Self::PassThrough => Next::Return(bare(result)),
            Self::Refused(refused) => Next::Return(refused.after(result)),
            Self::Kept(kept) => kept.after(result),
        }
    }
}

impl Refused {
    pub(super) fn after<RB>(
        &mut self,
        mut result: Result<Response<RB>, BoxError>,
    ) -> Result<Response<RB>, BoxError> {
        let Some(verdict) = judge(&result) else {
            let taken = self.failed.as_mut().map_or(0, |failed| failed.pay_back());
            if let (Some(budget), Some(key)) = (&self.settings.budget, self.key) {
                budget.deposit(key, taken);
            }
            if let Some(failed) = self.failed.take() {
                self.settings.recovered(failed, &mut result);
            }
            return result;
        };
        let mut failed = self.failed.take().unwrap_or_else(|| Failed::begin(self.carry.as_ref(), u32::MAX));
        let verdict = failed.progress.believe(verdict, &mut result);
        let failure = Failure::of(&result, &verdict);
        self.settings.note_free_wait(&failure);
        let progress = &mut failed.progress;
        self.settings.number(progress);
        self.settings.tell_failed(progress, &failure);
        if !matches!(failure, Failure::Rejected(..)) {
            progress.count(&verdict);
        }
        if let Some(carry) = &self.carry {
            carry.has_another(&failure);
        }
        // The refusal is the reason only if there would have been another attempt.
        let why = self.settings.schedule(progress, &verdict, false, |_| 0.0).err().unwrap_or(self.why);
        self.settings.tell_gave_up(progress, &failure, why);
        self.settings.note_order(&mut result);
        failed.end(&mut result, Some(why), self.carry.as_ref());
        bare(result)
    }
}

impl<S, B: Body + Clone> Kept<S, B> {
    pub(super) fn after<RB>(&mut self, mut result: Result<Response<RB>, BoxError>) -> Next<RB> {
        self.under_way = UnderWay::default();
        let Some(verdict) = judge(&result) else {
            self.succeeded(&mut result);
            return Next::Return(result);
        };
        let begin = || Failed::begin(self.context.carry(), self.context.most_attempts());
        let mut failed = self.failed.take().unwrap_or_else(begin);
        let verdict = failed.progress.believe(verdict, &mut result);
        let failure = Failure::of(&result, &verdict);
        failed.progress.hear(Progress::said(&result));
        failed.is_called = false;
        // One that was turned away, or was a circuit's probe, keeps the token for when it goes again.
        if failure.is_counted() {
            failed.spend();
        }
        self.shared.settings.note_free_wait(&failure);
        self.shared.settings.number(&mut failed.progress);
        self.shared.settings.tell_failed(&failed.progress, &failure);
        match self.decide(&mut failed, &failure) {
            Ok(wait) => {
                self.shared.settings.tell_waiting(&failed.progress, &failure, wait);
                self.failed = Some(failed);
                // The failed response is dropped before the wait, and with it its claim on the connection.
                Next::Wait(wait)
            }
            Err(why) => {
                self.shared.settings.tell_gave_up(&failed.progress, &failure, why);
                self.shared.settings.note_order(&mut result);
                failed.progress.started = self.started;
                failed.end(&mut result, Some(why), self.context.carry());
                Next::Return(bare(result))
            }
        }
    }

    pub(super) fn decide(&mut self, failed: &mut Failed, failure: &Failure<'_>) -> Result<Duration, GaveUp> {
        let now = time::now();
        let settings = &*self.shared.settings;
        let deadline = self.context.deadline.map(Deadline::instant).or_else(|| {
            let started = *self.started.get_or_insert(now);
            settings.deadline.map(|total| time::saturating_add(started, total))
        });
        let kept = self.request.get();
        let key = &mut self.key;
        let key = || *key.get_or_insert_with(|| kept.map_or(0, budget_key));
        let quota = failed.progress.quota;
        failed.progress.started = failed.progress.started.or(self.started);
        let again = settings.decide(&mut failed.progress, failure, now, deadline, key);
        let another = self.context.carry().is_some_and(|carry| carry.has_another(failure));
        if another && may_move(&failed.progress, settings, &again) && !kept.is_some_and(super::is_lost) {
            if again.is_ok() {
                // The token goes back with `again`, and the wait was not waited.
                failed.progress.waits.pop();
                failed.progress.quota = quota;
                if let Failure::Probe(_, verdict) = failure {
                    failed.progress.count_probe(verdict);
                }
            }
            return Err(GaveUp::Elsewhere);
        }
        let again = again?;
        // Asked last, so that a failure which ends here anyway keeps its own reason. The token goes back with
        // `again`, and the wait was not waited.
        let missing = match kept {
            None => Some(GaveUp::Attempts),
            Some(request) => super::is_lost(request).then_some(GaveUp::BodyTooLarge),
        };
        if let Some(why) = missing {
            failed.progress.waits.pop();
            if let Failure::Probe(_, verdict) = failure {
                failed.progress.count_probe(verdict);
            }
            return Err(why);
        }
        if let Some(token) = &again.token {
            settings.tell_charged(&failed.progress, token);
        }
        failed.token = again.token.or(failed.token.take());
        Ok(again.wait)
    }

    pub(super) fn succeeded<RB>(&mut self, result: &mut Result<Response<RB>, BoxError>) {
        let taken = self.failed.as_mut().map_or(0, |failed| failed.pay_back());
        if let Some(budget) = self.shared.settings.budget.as_ref().filter(|budget| !budget.is_full()) {
            if let Some(key) = self.key.or_else(|| self.request.get().map(budget_key)) {
                budget.deposit(key, taken);
            }
        }
        if let Some(failed) = self.failed.take() {
            self.shared.settings.recovered(failed, result);
        }
    }

    /// The request of the next attempt: a copy of the kept one, or for the last attempt itself.
    pub(super) fn next_request(&mut self) -> Request<B> {
        let failed = self.failed.get_or_insert_default();
        let attempt = failed.progress.attempts + 1;
        // A layer of this process may turn the last one away, too, where such layers have shown themselves.
        let last = attempt >= self.shared.settings.most_here(&failed.progress)
            && !self.shared.settings.has_free_waits();
        let release = last && !self.context.carry().is_some_and(SharedAttempts::goes_on);
        let kept = self.request.get();
        let replay = kept.and_then(|request| request.extensions().get::<Replay>());
        let mut request = match replay {
            None if last => self.request.take(),
            // NOTE: of a replayed body the newest copy is served, and the kept one is older than those that
            // were sent. The last one need not keep what it sends.
            Some(replay) if release => {
                replay.release();
                kept.cloned()
            }
            _ => kept.cloned(),
        }
        .expect("a wait is begun only with a copy at hand");
        if self.left_out {
            request.extensions_mut().insert(self.context.clone());
        }
        failed.progress.mark(&mut request);
        failed.is_called = true;
        if let (Some(budget), Some(key)) = (&self.shared.settings.budget, self.key) {
            self.under_way = budget.begin(key);
        }
        request
    }
}

/// Whether a request that has come so far may be sent to another place: where there is an attempt left, and what was
/// delivered or may be paid twice is not repeated.
fn may_move(progress: &Progress, settings: &Settings, again: &Result<Again, GaveUp>) -> bool {
    progress.attempts < settings.most(progress.reserved)
        && !matches!(again, Err(GaveUp::MaybeProcessed | GaveUp::AfterOutput | GaveUp::BodyTooLarge))
}

/// As it was before a circuit breaker marked it.
fn bare<RB>(result: Result<Response<RB>, BoxError>) -> Result<Response<RB>, BoxError> {
    match result {
        Ok(mut response) => {
            FailedProbe::unmark(&mut response);
            Ok(response)
        }
        Err(error) => Err(ProbeFailed::unwrap(error)),
    }
}

/// `None` for a success, which costs a look at the status and, where the response has any, at its extensions.
fn judge<RB>(result: &Result<Response<RB>, BoxError>) -> Option<Verdict> {
    let verdict = match result {
        Ok(response) => Verdict::of(response),
        Err(error) => Verdict::from_error(error.as_ref()),
    };
    (!verdict.is_success()).then_some(verdict)
}

impl Settings {
    /// The attempt after at least one failure succeeded.
    fn recovered<RB>(&self, mut failed: Box<Failed>, result: &mut Result<Response<RB>, BoxError>) {
        failed.progress.attempts += 1;
        let Progress { request, attempts, .. } = failed.progress;
        self.observer.tell(&Event::Recovered { request, attempts });
        failed.end(result, None, None);
    }
}
