//! The state of one key between threads: its scheduler under a lock, what wakes those who wait, and what is told.

use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::common::Common;
use super::decision::{AdmissionMode, Receipt, Settlement};
use super::error::{RateLimited, Refusal};
use super::estimate::Cost;
use super::learnt::Remembered;
use super::prices::Purse;
use super::queue::{NEVER, WaiterId};
use super::quota_state::QuotaState;
use super::quota_update::updates_from;
use super::scheduler::{Arrival, Look, Patience, Scheduler};
use super::window::Nanos;
use crate::context::deadline::Deadline;
use crate::context::quota_wait::QuotaWait;
use crate::event::{Event, RateLimitReason};
use crate::keyed::{Need, State};
use crate::request::limits::Limits;
use crate::request::quota_key::{Pool, QuotaKey};
use crate::sync::{AtomicBool, AtomicU8, Mutex, Ordering, lock};
use crate::tier::ServiceTier;
use crate::verdict::{Kind, Usage, Verdict};

/// What the calls of a key are counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing: they pass.
    Nothing,
    /// Requests.
    Requests,
    /// Requests and input tokens.
    Tokens,
    /// All that there is to be counted, because of a limit over a span.
    Units,
}

impl Work {
    fn of(pool: Pool, limits: &Limits) -> Self {
        match pool {
            Pool::Unlimited => Self::Nothing,
            pool if !pool.is_model_work() => Self::Requests,
            _ if limits.spans().next().is_some() => Self::Units,
            _ => Self::Tokens,
        }
    }
}

/// The state of one key.
pub struct Key {
    pub(super) id: Arc<QuotaKey>,
    common: Arc<Common>,
    scheduler: Mutex<Scheduler<Waker>>,
    /// Whether the heads of answers are of interest. Relaxed: a head that misses the moment in which this was set
    /// belongs to a call from before it.
    attentive: AtomicBool,
    /// What its calls are counted for: a [`Work`]. Relaxed: a call beside a change of the limits is counted by one or the other.
    work: AtomicU8,
    /// Whether it has been given its part in a fleet, if there is one. Relaxed: what is given is under the lock.
    #[cfg(feature = "fleet")]
    pub(super) is_met: AtomicBool,
}

impl Key {
    pub(super) fn new(
        common: Arc<Common>,
        id: QuotaKey,
        limits: Limits,
        restored: Option<Remembered>,
    ) -> Self {
        let now = common.now();
        let work = AtomicU8::new(Work::of(id.pool(), &limits) as u8);
        let model = || id.target().model().map(Into::into);
        let purse = common.prices.as_ref().map(|prices| Purse::new(Arc::clone(prices), model()));
        let mut ledger = QuotaState::with_prices(common.rules, limits, purse, now);
        let day = common.day(now);
        ledger.set_day(now, day);
        if let Some(restored) = restored {
            if restored.date == day.date {
                ledger.restore(restored.requests);
            }
            ledger.restore_learnt(now, restored.learnt);
        }
        let waits = common.mode == AdmissionMode::Wait;
        let scheduler = Scheduler::new(ledger, common.max_queue, waits, Patience::DEFAULT)
            .with_weight(common.interactive_weight);
        let scheduler = Mutex::new(scheduler);
        Self {
            id: Arc::new(id),
            common,
            scheduler,
            attentive: AtomicBool::new(false),
            work,
            #[cfg(feature = "fleet")]
            is_met: AtomicBool::new(false),
        }
    }

    pub(super) const fn id(&self) -> &Arc<QuotaKey> {
        &self.id
    }

    /// What its calls are counted for.
    #[inline]
    pub(super) fn work(&self) -> Work {
        [Work::Nothing, Work::Requests, Work::Tokens, Work::Units]
            [usize::from(self.work.load(Ordering::Relaxed) & 3)]
    }

    /// Other limits from now on.
    pub(super) fn configure(&self, limits: Limits) {
        let now = self.common.now();
        self.work.store(Work::of(self.id.pool(), &limits) as u8, Ordering::Relaxed);
        self.with_state(now, |scheduler| {
            scheduler.ledger.configure(limits);
            #[cfg(feature = "fleet")]
            if let (Some(joined), Some(_)) = (&self.common.fleet, &scheduler.ledger.supply) {
                joined.join_spans(&self.id, &mut scheduler.ledger);
            }
            scheduler.advance(now);
        });
    }

    /// What a call has used, by the model and the tier that answered, where a limit over a span counts it.
    #[cold]
    pub(super) fn bill(
        &self,
        receipt: &Receipt,
        usage: &Usage,
        model: Option<&str>,
        tier: Option<ServiceTier>,
    ) {
        lock(&self.scheduler).ledger.bill(receipt, usage, model, tier);
    }

    pub(super) fn common(&self) -> &Common {
        &self.common
    }

    /// Does something at the scheduler and then, without the lock, wakes whom it concerns.
    pub(super) fn with_state<R>(&self, now: Nanos, act: impl FnOnce(&mut Scheduler<Waker>) -> R) -> R {
        let mut scheduler = lock(&self.scheduler);
        if scheduler.ledger.is_day_due(now) {
            drop(scheduler);
            let day = self.common.day(now);
            scheduler = lock(&self.scheduler);
            scheduler.ledger.set_day(now, day);
        }
        let result = act(&mut scheduler);
        let woken = scheduler.take_woken();
        drop(scheduler);
        woken.into_iter().for_each(Waker::wake);
        result
    }

    /// Does something that may let those go who wait.
    #[cfg(feature = "fleet")]
    pub(super) fn carry<R>(&self, now: Nanos, act: impl FnOnce(&mut Scheduler<Waker>) -> R) -> R {
        self.with_state(now, |scheduler| {
            let result = act(scheduler);
            if scheduler.is_queued() {
                scheduler.advance(now);
            }
            self.attentive.store(scheduler.is_attentive(now), Ordering::Relaxed);
            result
        })
    }

    #[cfg(test)]
    pub(super) fn arrive(&self, cost: Cost, deadline: Option<Instant>) -> Arrival {
        match self.grant(cost) {
            Ok(receipt) => Arrival::Granted(receipt),
            Err(now) => self.enter_late(now, cost, deadline, QuotaWait::default()).0,
        }
    }

    /// A permit for a request that arrives, if there is one at once; else the time of its arrival.
    #[inline]
    pub(super) fn grant(&self, cost: Cost) -> Result<Receipt, Nanos> {
        // A layer around has just read the clock, if there is a deadline.
        let now = Deadline::called_at().map_or_else(|| self.common.now(), |called| self.common.nanos(called));
        let mut scheduler = lock(&self.scheduler);
        if scheduler.ledger.is_day_due(now) {
            return Err(now);
        }
        scheduler.grant(now, cost).ok_or(now)
    }

    /// A request that was not granted one at once. Beside what became of it stands when it has waited as long as it may.
    #[cold]
    pub(super) fn enter_late(
        &self,
        now: Nanos,
        cost: Cost,
        deadline: Option<Instant>,
        quota: QuotaWait,
    ) -> (Arrival, Nanos) {
        let patience = self.common.patience(now, quota.left);
        let deadline = deadline.map_or(NEVER, |instant| self.common.nanos(instant)).min(patience);
        let arrival = self.with_state(now, |scheduler| match quota.first {
            true => scheduler.arrive_first(now, cost, deadline),
            false => scheduler.arrive(now, cost, deadline),
        });
        if let Arrival::Queued(_, held) = &arrival {
            self.attentive.store(true, Ordering::Relaxed);
            let until = self.common.instant(held.until);
            self.common.observer.tell(&Event::Queued { key: &self.id, dimension: held.dimension, until });
        }
        (arrival, patience)
    }

    pub(super) fn look(&self, place: WaiterId, waker: &Waker) -> Look {
        // NOTE: the waker that is replaced may run a user's code when it is dropped: not under the lock.
        let mut old = None;
        let mut scheduler = lock(&self.scheduler);
        let look = scheduler.look(
            place,
            || self.common.now(),
            |slot| match slot {
                Some(known) if known.will_wake(waker) => {}
                slot => old = slot.replace(waker.clone()),
            },
        );
        let woken = scheduler.take_woken();
        drop(scheduler);
        woken.into_iter().for_each(Waker::wake);
        look
    }

    /// The timer of a waiter has come.
    pub(super) fn watch(&self, place: WaiterId) {
        let now = self.common.now();
        self.with_state(now, |scheduler| scheduler.watch(now, place));
    }

    fn advance(&self) {
        let now = self.common.now();
        self.with_state(now, |scheduler| scheduler.advance(now));
    }

    pub(super) fn cancel(&self, place: WaiterId) {
        let now = self.common.now();
        drop(self.with_state(now, |scheduler| scheduler.cancel(now, place)));
    }

    #[inline]
    pub(super) fn settle(&self, receipt: Receipt, how: Settlement) {
        let charged = receipt.wants_usage().then_some(receipt.charged);
        let freed = lock(&self.scheduler).settle(receipt, how);
        if freed {
            self.advance();
        }
        self.tell_settled(charged, how);
    }

    /// `charged` is `None` where input tokens are not limited.
    #[inline]
    fn tell_settled(&self, charged: Option<u32>, how: Settlement) {
        let observer = &self.common.observer;
        if let Some(charged) = charged.filter(|_| observer.is_some()) {
            let (key, charged, used) = (&self.id, u64::from(charged), how.used());
            observer.tell(&Event::Settled { key, charged, used });
        }
    }

    pub(super) fn restamp(&self, receipt: &mut Receipt) {
        let now = self.common.now();
        lock(&self.scheduler).ledger.restamp(now, receipt);
    }

    /// The head of a good answer.
    #[inline]
    pub(super) fn welcomed(&self, receipt: &mut Receipt, is_sample: bool) {
        if !receipt.is_test() && !self.attentive.load(Ordering::Relaxed) {
            return;
        }
        let now = self.common.now();
        self.with_state(now, |scheduler| {
            scheduler.answered(now, receipt, is_sample);
            if scheduler.is_queued() {
                scheduler.advance(now);
            }
            self.attentive.store(scheduler.is_attentive(now), Ordering::Relaxed);
        });
    }

    /// An answer that is none: learns from it. What there is to say to a retry layer outside.
    pub(super) fn failed(
        &self,
        mut receipt: Receipt,
        verdict: &Verdict,
        is_sample: bool,
    ) -> Option<QuotaWait> {
        let now = self.common.now();
        let day_ends = lock(&self.scheduler).ledger.day_ends_at();
        let mut updates_from = updates_from(verdict, now, day_ends);
        if !is_sample && verdict.quota().is_empty() && verdict.kind() == Some(Kind::RateLimited) {
            // A shortage of flex capacity, which is none of the other tiers'.
            updates_from.clear();
        }
        let (charged, how) = (receipt.wants_usage().then_some(receipt.charged), settlement(verdict));
        let waited = Duration::from_millis(u64::from(receipt.waited));
        let left = self.common.max_wait.map(|most| most.saturating_sub(waited));
        if receipt.trial.is_in_spans() {
            if let Some(usage) = verdict.usage() {
                self.bill(&receipt, &usage, None, None);
            }
        }
        let late = is_sample && verdict.kind() == Some(Kind::DeadlineExceeded);
        let is_pressed = receipt.trial.is_pressed();
        let first = self.with_state(now, |scheduler| {
            if late {
                scheduler.unanswered(now, &receipt);
            }
            // Over one limit, and at no other.
            let mut over = !updates_from.is_empty();
            for lesson in &updates_from {
                over &= scheduler.ledger.close_until(now, &mut receipt, *lesson);
            }
            receipt.was_over = over;
            // One that would have been refused comes again like any other.
            let first = receipt.was_over && !is_pressed;
            scheduler.settle(receipt, how);
            self.attentive.store(scheduler.is_attentive(now), Ordering::Relaxed);
            if scheduler.is_queued() {
                scheduler.advance(now);
            }
            first
        });
        self.tell_settled(charged, how);
        for lesson in updates_from {
            let until = lesson.until.filter(|_| !first).and_then(|until| self.common.instant(until));
            let (key, dimension, limit) = (&self.id, lesson.dimension, lesson.limit);
            self.common.observer.tell(&Event::QuotaExceeded { key, dimension, limit, until });
        }
        let quota = QuotaWait { left, first };
        (!quota.is_empty()).then_some(quota)
    }

    /// A call that was sent is dropped.
    pub(super) fn dropped(&self, receipt: Receipt, is_sample: bool) {
        if is_sample && self.attentive.load(Ordering::Relaxed) {
            let now = self.common.now();
            self.with_state(now, |scheduler| scheduler.unanswered(now, &receipt));
        }
        self.settle(receipt, Settlement::Unknown);
    }

    /// The named error of a refusal.
    ///
    /// `is_impatient` says that the request's patience ends before its deadline.
    pub(super) fn refuse(&self, refusal: Refusal, patience: Nanos, is_impatient: bool) -> RateLimited {
        let until = refusal.until.and_then(|until| self.common.instant(until));
        let why = match refusal.why {
            RateLimitReason::Deadline if is_impatient => RateLimitReason::MaxWait,
            why => why,
        };
        let mut error = RateLimited::new(Arc::clone(&self.id), why, refusal.dimension, until);
        if patience != NEVER {
            error = error.with_quota(Duration::from_nanos(patience.saturating_sub(self.common.now())));
        }
        if refusal.is_final || refusal.until.is_some_and(|until| until > patience) {
            error = error.for_good();
        }
        self.common.observer.tell(&Event::RateLimited {
            key: &self.id,
            why: error.why(),
            dimension: error.dimension(),
            until: error.until(),
        });
        error
    }
}

/// How a failure is charged. The rules and their reasons stand on the module's front page.
fn settlement(verdict: &Verdict) -> Settlement {
    use crate::verdict::Sent;
    match (verdict.sent(), verdict.http_status().map(|status| status.as_u16())) {
        (Sent::No, _) => Settlement::NotSent,
        (_, Some(429)) => Settlement::TooMany,
        (_, Some(400..=498)) => Settlement::Refused,
        // A body may say what the status does not: gRPC's text, an error in a 200.
        (_, None | Some(200..=299))
            if matches!(verdict.kind(), Some(Kind::RateLimited | Kind::QuotaExhausted)) =>
        {
            Settlement::TooMany
        }
        // An answer that failed under a 200 may say.
        _ => verdict
            .usage()
            .map_or(Settlement::Unknown, |usage| Settlement::Used { input_tokens: usage.input_tokens }),
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl State for Key {
    fn is_idle(&self) -> bool {
        self.need() == Need::Nothing
    }

    fn need(&self) -> Need {
        let now = self.common.now();
        lock(&self.scheduler).need(now)
    }
}

#[cfg(all(test, tower_gemini_loom))]
#[path = "tests/loom.rs"]
mod models;

#[cfg(all(test, not(tower_gemini_loom)))]
mod tests {
    use super::*;
    use crate::rate_limit::RateLimitLayer;
    use crate::request::Target;

    #[tokio::test(start_paused = true)]
    async fn a_poisoned_lock_loses_no_count() {
        let handle = RateLimitLayer::new(Limits::new().requests_per_minute(2)).expect("in range").handle();
        let request = http::Request::post("/v1beta/models/m:generateContent").body(()).expect("valid");
        let key = handle.shared().key_of(&Target::of(&request));
        let cost = Cost::exact(7);
        let Arrival::Granted(first) = key.arrive(cost, None) else { panic!("the first is granted") };
        let poisoned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _desk = key.scheduler.lock();
            panic!("while the lock is held");
        }));
        assert!(poisoned.is_err() && key.scheduler.is_poisoned());
        let status = &handle.status()[0];
        assert_eq!((status.requests, status.tokens, status.in_flight), (1, 7, 1));
        let Arrival::Granted(second) = key.arrive(cost, None) else { panic!("so is the second") };
        let Arrival::Queued(place, _) = key.arrive(cost, None) else { panic!("the third waits") };
        assert!(matches!(key.look(place, Waker::noop()), Look::Driving(_)));
        key.settle(first, Settlement::NotSent);
        let Look::Answered(Ok(third)) = key.look(place, Waker::noop()) else { panic!("it goes") };
        key.settle(second, Settlement::Unknown);
        key.settle(third, Settlement::Unknown);
        assert_eq!(handle.status()[0].requests, 2);
    }
}
