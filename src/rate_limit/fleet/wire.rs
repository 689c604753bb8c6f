//! The messages of a layer to the store of its fleet: what is due, what is sent, and what the answers change.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::call_options::RequestClass;
use crate::event::Event;
use crate::fleet::{Close, DayEnd, Micros, Reply, Store, StoreError, StoreKey, Supply, Take, Terms};
use crate::rate_limit::day::Day;
use crate::rate_limit::gate::Key;
use crate::rate_limit::scheduler::Scheduler;
use crate::rate_limit::shared::Shared;
use crate::rate_limit::window::Nanos;
use crate::sync::{Mutex, lock};
use crate::time;

/// The first pause after a message that was not answered, and the longest.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What the layer and its task share.
pub(super) struct Wire {
    pub(super) store: Arc<dyn Store>,
    pub(super) place: String,
    pub(super) terms: Terms,
    pub(super) bell: Arc<Notify>,
    pub(super) lost: Mutex<Option<Lost>>,
    /// What is to be said when the layer is gone.
    pub(super) last: Mutex<Option<Last>>,
}

/// What is left of a layer that is gone, to be given back.
pub(super) struct Last {
    pub(super) members: Vec<Supply>,
    /// An instant on the layer's clock, and when it was.
    pub(super) since: (Nanos, Instant),
    pub(super) guard: Nanos,
}

impl Last {
    pub(super) fn now(&self) -> Nanos {
        let passed = time::now().saturating_duration_since(self.since.1).as_nanos();
        self.since.0.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// The answers to what was under way. Without them it would be told again, and charged twice.
    pub(super) fn accept(&mut self, answers: &Answers) {
        let now = self.now();
        let took = u64::try_from(answers.took.as_micros()).unwrap_or(u64::MAX);
        for (_, name, answer) in &answers.each {
            let of = self.members.iter_mut().find(|supply| supply.key().digest == name.digest);
            if let (Some(supply), Ok(reply)) = (of, answer) {
                let _ = supply.accept(now, reply, took);
            }
        }
    }

    pub(super) fn leave(&mut self) -> Vec<Take> {
        let (now, guard) = (self.now(), self.guard);
        self.members.iter_mut().filter_map(|supply| supply.leave(now, |at| today(guard, at))).collect()
    }
}

#[derive(Clone)]
pub(super) struct Lost {
    pub(super) since: Instant,
    pub(super) error: StoreError,
}

pub(super) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What became of messages that were sent together.
pub(super) struct Answers {
    pub(super) took: Duration,
    pub(super) each: Vec<(Arc<Key>, StoreKey, Result<Reply, StoreError>)>,
}

/// What became of a closed door.
pub(super) struct Told {
    pub(super) key: Arc<Key>,
    pub(super) untold: Vec<Close>,
}

/// The Pacific day at a time of the server's, as the store counts it: it ends a guard after midnight.
fn today(guard: Nanos, at: Micros) -> DayEnd {
    let guard = guard / 1_000;
    let then = i64::try_from(at.saturating_sub(guard)).unwrap_or(i64::MAX);
    let Ok(then) = Timestamp::from_microsecond(then) else { return DayEnd::default() };
    let day = Day::of(then);
    let date = day.date;
    let number = i64::from(date.year()) * 10_000 + i64::from(date.month()) * 100 + i64::from(date.day());
    DayEnd { number: u64::try_from(number).unwrap_or(0), ends: at.saturating_add(day.left / 1_000) }
}

/// What is due of one key. One that waits for quota of one span for longer than a lease lasts asks for no other meanwhile: it would
/// hold what it cannot use.
fn look_at(
    scheduler: &mut Scheduler<Waker>,
    now: Nanos,
    may_ask: bool,
    day: impl Fn(Micros) -> DayEnd,
    soonest: &mut Option<Nanos>,
) -> Vec<Take> {
    let mut takes = Vec::new();
    let is_queued = scheduler.is_queued();
    // Most have no limits over spans: then nobody looks who waits before it is time to ask.
    let has_spans = scheduler.ledger.has_spans();
    let mut waiting = has_spans.then(|| scheduler.wanted());
    let until = |supply: &Supply| supply.held_until(now).saturating_sub(supply.lease());
    let held: Vec<bool> = match has_spans && is_queued {
        true => scheduler.ledger.supplies_of().map(|supply| until(supply) > now).collect(),
        false => Vec::new(),
    };
    // Of each limit no more is asked for than there are permits of those before it, and what is at hand is not asked for.
    let mut most = usize::MAX;
    for nth in 0.. {
        let is_held = held.iter().enumerate().any(|(other, is_held)| other != nth && *is_held);
        let mut sizes = waiting.as_ref().map(|(first, ..)| scheduler.ledger.wanted(nth, first));
        let Some(supply) = scheduler.ledger.supplies().nth(nth) else { break };
        let (mut covered, mut all) = (0, true);
        if let Some(sizes) = &mut sizes {
            covered = supply.covers(now, sizes);
            all = sizes.len() <= most;
            sizes.truncate(most);
            sizes.drain(..covered.min(sizes.len()));
            most = most.min(covered);
        }
        let queued = is_queued && !is_held && sizes.as_ref().is_none_or(|sizes| !sizes.is_empty());
        let Some(due) = supply.due(now, queued) else { continue };
        if due > now {
            *soonest = Some(soonest.map_or(due, |soonest| soonest.min(due)));
            continue;
        }
        if !may_ask {
            // It is looked at again with the answers.
            continue;
        }
        let (first, more, class) = waiting.get_or_insert_with(|| scheduler.wanted());
        let sizes = sizes.unwrap_or_else(|| scheduler.ledger.wanted(nth, first));
        // Those besides are told where all of the first count, and are asked for.
        let more = if all && covered + sizes.len() == first.len() { *more } else { 0 };
        let wanted = if queued { (&*sizes, more) } else { (&[][..], 0) };
        let share = if *class == RequestClass::Batch { 1 } else { scheduler.weight().max(1) };
        let supply = scheduler.ledger.supplies().nth(nth);
        takes.extend(supply.map(|supply| supply.ask(now, (wanted.0, wanted.1, share), &day)));
    }
    if may_ask {
        for mut gone in scheduler.ledger.take_gone() {
            // As well as it can be told: what is not heard is given back by time.
            takes.extend(gone.leave(now, &day));
        }
    }
    takes
}

impl Wire {
    /// What is due, and when something will be.
    pub(super) fn look(&self, shared: &Shared, may_ask: bool) -> (Vec<(Arc<Key>, Take)>, Option<Nanos>) {
        let now = shared.common.now();
        let mut takes = Vec::new();
        let mut soonest: Option<Nanos> = None;
        for (_, key) in shared.keys.all() {
            let day = |at| today(shared.common.rules.guard, at);
            let due = key.with_state(now, |scheduler| look_at(scheduler, now, may_ask, day, &mut soonest));
            takes.extend(due.into_iter().map(|take| (Arc::clone(&key), take)));
        }
        (takes, soonest)
    }

    pub(super) fn ask(&self, takes: Vec<(Arc<Key>, Take)>) -> Boxed<Answers> {
        let store = Arc::clone(&self.store);
        Box::pin(async move {
            let (keys, takes): (Vec<_>, Vec<_>) = takes.into_iter().unzip();
            let names: Vec<StoreKey> = takes.iter().map(|take| take.key.clone()).collect();
            let begun = time::now();
            let within = store.timeout();
            let mut each = Vec::with_capacity(takes.len());
            match tokio::time::timeout(within, store.take(&takes)).await {
                Ok(Ok(replies)) if replies.len() == takes.len() => each.extend(replies.into_iter().map(Ok)),
                Ok(Err(error)) if takes.len() > 1 && error.is_of_a_key() => {
                    // One of them fails, and the others need not.
                    for take in &takes {
                        each.push(one(&*store, take).await);
                    }
                }
                failed => {
                    let error = match failed {
                        Ok(Err(error)) => error,
                        Ok(Ok(_)) => StoreError::unexpected("another number of answers than messages"),
                        Err(_) => StoreError::unreachable(format!("no answer within {within:?}")),
                    };
                    each.extend(keys.iter().map(|_| Err(error.clone())));
                }
            }
            let took = time::now().saturating_duration_since(begun);
            let each = keys.into_iter().zip(names).zip(each);
            Answers { took, each: each.map(|((key, name), answer)| (key, name, answer)).collect() }
        })
    }

    /// Tells the store of the first door that was closed, or opened, here.
    pub(super) fn tell(&self, shared: &Shared) -> Option<Boxed<Told>> {
        let now = shared.common.now();
        let (key, closes) = shared.keys.all().into_iter().find_map(|(_, key)| {
            let closes =
                key.with_state(now, |scheduler| Some(scheduler.ledger.supply.as_mut()?.take_closes()))?;
            (!closes.is_empty()).then_some((key, closes))
        })?;
        let name = key.with_state(now, |scheduler| {
            scheduler.ledger.supply.as_ref().map(|supply| supply.key().clone())
        })?;
        let (store, window) = (Arc::clone(&self.store), self.terms.window);
        Some(Box::pin(async move {
            let mut untold = closes.into_iter();
            while let Some(close) = untold.next() {
                let told = tokio::time::timeout(store.timeout(), store.close(&name, close, window)).await;
                if !matches!(told, Ok(Ok(()))) {
                    return Told { key, untold: std::iter::once(close).chain(untold).collect() };
                }
            }
            Told { key, untold: Vec::new() }
        }))
    }

    pub(super) fn accept(&self, shared: &Shared, answers: Answers) {
        let common = &shared.common;
        let now = common.now();
        let took = u64::try_from(answers.took.as_micros()).unwrap_or(u64::MAX);
        let mut failed = None;
        for (key, name, answer) in answers.each {
            match answer {
                Ok(reply) => {
                    let differs = key.carry(now, |scheduler| {
                        let supply = scheduler.ledger.supply_of(&name.digest)?;
                        let closes = supply.accept(now, &reply, took)?;
                        let differs = supply.differs(&reply);
                        for close in closes {
                            scheduler.ledger.told(now, close);
                        }
                        scheduler.ledger.told_day(now);
                        differs.map(|quota| scheduler.ledger.limits_in_force(&name.digest, quota))
                    });
                    if let Some(limits) = differs {
                        common.observer.tell(&Event::LimitsDiffer { key: key.id(), limits: &limits });
                    }
                }
                Err(error) => {
                    let is_lost = key.carry(now, |scheduler| {
                        let supply = scheduler.ledger.supply_of(&name.digest)?;
                        Some(supply.failed(now, PAUSES.0, PAUSES.1))
                    });
                    if is_lost == Some(true) {
                        failed = Some(error);
                    }
                }
            }
        }
        self.judge(shared, now, failed);
    }

    /// Says once that the store is lost, and once that it is found.
    fn judge(&self, shared: &Shared, now: Nanos, failed: Option<StoreError>) {
        let common = &shared.common;
        let known = lock(&self.lost).clone();
        match (known, failed) {
            (None, Some(error)) => {
                *lock(&self.lost) = Some(Lost { since: time::now(), error: error.clone() });
                let why = error.to_string();
                common.observer.tell(&Event::StoreLost { store: &self.place, why: &why });
            }
            (Some(lost), None) => {
                let still = shared
                    .keys
                    .all()
                    .iter()
                    .any(|(_, key)| key.with_state(now, |scheduler| scheduler.ledger.is_store_lost()));
                if !still {
                    *lock(&self.lost) = None;
                    let lost_for = time::now().saturating_duration_since(lost.since);
                    common.observer.tell(&Event::StoreFound { store: &self.place, lost_for });
                }
            }
            _ => {}
        }
    }
}

async fn one(store: &dyn Store, take: &Take) -> Result<Reply, StoreError> {
    let within = store.timeout();
    let answer = tokio::time::timeout(within, store.take(std::slice::from_ref(take))).await;
    match answer {
        Ok(Ok(replies)) => replies.into_iter().next().ok_or_else(|| StoreError::unexpected("no answer")),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StoreError::unreachable(format!("no answer within {within:?}"))),
    }
}
