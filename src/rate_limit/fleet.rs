//! The task that carries a layer's messages to the store of its fleet and back.
//!
//! One for each layer, started with the first key and ended with the layer: it holds no state, only a weak reference. Requests
//! do not need it to keep their deadlines, since whoever waits looks again by itself.
//!
//! One message of a key is under way at a time, and all that are due go together. What closes a door goes at once, beside
//! them.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::day::Day;
use super::queue::PASSES;
use super::quota_state::QuotaState;
use super::scheduler::Scheduler;
use super::shared::{Common, Key, Shared};
use super::window::Nanos;
use crate::call_options::RequestClass;
use crate::event::Event;
use crate::fleet::{
    Close, DayEnd, Fleet, Known, Manner, Micros, Notice, Notices, Reply, Store, StoreError, StoreKey, Supply,
    Take, Terms,
};
use crate::request::limits::Unit;
use crate::request::quota_key::QuotaKey;
use crate::rng::RngSource;
use crate::sync::{AtomicBool, Mutex, Ordering, lock};
use crate::time;

/// The first pause after a message that was not answered, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// A calendar that runs so far ahead of the steady clock shows that the machine has slept.
const SLEPT: Duration = Duration::from_secs(1);
/// How long a layer that ends tries to say so.
const GOODBYE: Duration = Duration::from_secs(2);

/// A layer's part in a fleet.
pub(super) struct Joined {
    fleet: Fleet,
    wire: Arc<Wire>,
    shared: Weak<Shared>,
    is_started: AtomicBool,
}

/// What the layer and its task share.
struct Wire {
    store: Arc<dyn Store>,
    place: String,
    terms: Terms,
    bell: Arc<Notify>,
    lost: Mutex<Option<Lost>>,
    /// What is to be said when the layer is gone.
    last: Mutex<Option<Last>>,
}

/// What is left of a layer that is gone, to be given back.
struct Last {
    members: Vec<Supply>,
    /// An instant on the layer's clock, and when it was.
    since: (Nanos, Instant),
    guard: Nanos,
}

impl Last {
    fn now(&self) -> Nanos {
        let passed = time::now().saturating_duration_since(self.since.1).as_nanos();
        self.since.0.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// The answers to what was under way. Without them it would be told again, and charged twice.
    fn accept(&mut self, answers: &Answers) {
        let now = self.now();
        let took = u64::try_from(answers.took.as_micros()).unwrap_or(u64::MAX);
        for (_, name, answer) in &answers.each {
            let of = self.members.iter_mut().find(|supply| supply.key().digest == name.digest);
            if let (Some(supply), Ok(reply)) = (of, answer) {
                let _ = supply.accept(now, reply, took);
            }
        }
    }

    fn leave(&mut self) -> Vec<Take> {
        let (now, guard) = (self.now(), self.guard);
        self.members.iter_mut().filter_map(|supply| supply.leave(now, |at| today(guard, at))).collect()
    }
}

#[derive(Clone)]
struct Lost {
    since: Instant,
    error: StoreError,
}

/// How the store of a fleet does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreHealth {
    /// Where it is.
    pub place: String,
    /// Since when it does not answer, and why; `None` while it does.
    pub lost: Option<(Instant, StoreError)>,
}

/// What a layer knows of the fleet that shares a key's quota.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FleetStatus {
    /// Members that were heard in the last three windows, this one included; 0 until the store has answered.
    pub members: u32,
    /// Others that wait for quota.
    pub waiting: u32,
    /// What may be sent in a window without asking: requests and tokens.
    pub part: crate::fleet::Amount,
    /// What is left of leases.
    pub stock: crate::fleet::Amount,
    /// Why the store granted less than was wanted, at the last answer.
    pub held: crate::fleet::Held,
    /// Messages that were answered.
    pub asked: u64,
    /// Requests that leases were granted for.
    pub granted: u64,
    /// The store does not answer for this key.
    pub is_lost: bool,
}

impl Joined {
    pub(super) fn new(fleet: Fleet, window: Duration, shared: Weak<Shared>) -> Self {
        let store = Arc::clone(&fleet.store);
        let terms = Terms::of(micros(window), store.pushes()).with_split(store.split().map(micros));
        let (place, bell) = (store.place(), Arc::new(Notify::new()));
        let (lost, last) = (Mutex::new(None), Mutex::new(None));
        let wire = Arc::new(Wire { store, place, terms, bell, lost, last });
        Self { fleet, wire, shared, is_started: AtomicBool::new(false) }
    }

    /// A key's part in the fleet, and the task if it does not run yet.
    pub(super) fn supply(&self, key: &QuotaKey, quota: crate::fleet::Quota) -> Supply {
        self.start();
        let manner = Manner { terms: self.wire.terms, outage: self.fleet.outage, weight: self.fleet.weight };
        let id = RngSource::default().stream().id();
        Supply::new(id, self.fleet.key(key), manner, quota, Arc::clone(&self.wire.bell))
    }

    /// The same of each limit over a span that has no part yet.
    pub(super) fn join_spans(&self, key: &QuotaKey, ledger: &mut QuotaState) {
        let name = self.fleet.key(key);
        ledger.join_spans(|unit, span, length, quota| {
            self.start();
            let store = &self.wire.store;
            let terms = Terms::of_span(length / 1_000, store.pushes());
            let terms = terms.with_split(store.split().map(micros));
            let manner = Manner { terms, outage: self.fleet.outage, weight: self.fleet.weight };
            let id = RngSource::default().stream().id();
            let name = self.fleet.span_key(&name, name_of(unit), span);
            Supply::new(id, name, manner, quota, Arc::clone(&self.wire.bell))
        });
    }

    fn start(&self) {
        // Without a runtime nobody can send requests either; the next key tries again.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.is_started.swap(true, Ordering::Relaxed) {
            let (wire, shared) = (Arc::clone(&self.wire), self.shared.clone());
            drop(runtime.spawn(run(wire, shared)));
        }
    }

    pub(super) fn health(&self) -> StoreHealth {
        let lost = lock(&self.wire.lost).clone();
        StoreHealth { place: self.wire.place.clone(), lost: lost.map(|lost| (lost.since, lost.error)) }
    }

    /// The layer is gone: its members leave.
    pub(super) fn leave(&self, shared: &Shared) {
        let now = shared.common.now();
        let mut members = Vec::new();
        for (_, key) in shared.keys.all() {
            members.extend(key.with_state(now, |scheduler| scheduler.ledger.leave_fleet()));
        }
        let (since, guard) = ((now, time::now()), shared.common.rules.guard);
        *lock(&self.wire.last) = Some(Last { members, since, guard });
        self.wire.bell.notify_one();
    }
}

fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// As members of other versions call it, too: it must not change.
const fn name_of(unit: Unit) -> &'static str {
    match unit {
        Unit::Requests => "requests",
        Unit::InputTokens => "input tokens",
        Unit::Images => "images",
        Unit::Texts => "texts",
        Unit::Money => "money",
    }
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fleet.fmt(f)
    }
}

impl FleetStatus {
    pub(super) fn of(known: Known) -> Self {
        let Known { members, waiting, part, stock, held, asked, granted, is_lost, .. } = known;
        Self { members, waiting, part, stock, held, asked, granted, is_lost }
    }
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

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What became of messages that were sent together.
struct Answers {
    took: Duration,
    each: Vec<(Arc<Key>, StoreKey, Result<Reply, StoreError>)>,
}

/// What became of a closed door.
struct Told {
    key: Arc<Key>,
    untold: Vec<Close>,
}

async fn run(wire: Arc<Wire>, shared: Weak<Shared>) {
    let mut notices = wire.store.subscribe();
    let mut asking: Option<Boxed<Answers>> = None;
    let mut telling: Option<Boxed<Told>> = None;
    let mut clocks = Clocks::default();
    let mut tell_at: Option<Instant> = None;
    loop {
        let due = {
            let Some(shared) = shared.upgrade() else { break };
            if clocks.have_slept(&shared.common) {
                each_supply(&shared, Supply::void_all);
            }
            if telling.is_none() && tell_at.is_none_or(|at| at <= time::now()) {
                telling = wire.tell(&shared);
                tell_at = None;
            }
            let (takes, due) = wire.look(&shared, asking.is_none());
            if !takes.is_empty() {
                asking = Some(wire.ask(takes));
            }
            let soonest = due.and_then(|due| shared.common.instant(due));
            [soonest, tell_at].into_iter().flatten().min()
        };
        tokio::select! {
            answers = maybe(&mut asking) => {
                asking = None;
                let Some(shared) = shared.upgrade() else { break };
                wire.accept(&shared, answers);
            }
            told = maybe(&mut telling) => {
                telling = None;
                if !told.untold.is_empty() {
                    tell_at = Some(time::saturating_add(time::now(), PAUSES.0));
                    let now = told.key.common().now();
                    told.key.with_state(now, |scheduler| {
                        if let Some(supply) = &mut scheduler.ledger.supply {
                            supply.keep_closes(told.untold);
                        }
                    });
                }
            }
            notice = next(&mut notices) => {
                let Some(shared) = shared.upgrade() else { break };
                hear(&shared, notice);
            }
            () = wire.bell.notified() => {}
            () = sleep(due) => {}
        }
    }
    drop((telling, notices));
    let last = lock(&wire.last).take();
    if let Some(mut last) = last {
        let goodbye = async {
            if asking.is_some() {
                last.accept(&maybe(&mut asking).await);
            }
            let takes = last.leave();
            while !takes.is_empty() && wire.store.take(&takes).await.is_err() {
                tokio::time::sleep(PAUSES.0).await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

async fn maybe<T>(future: &mut Option<Boxed<T>>) -> T {
    match future {
        Some(future) => future.as_mut().await,
        None => std::future::pending().await,
    }
}

async fn next(notices: &mut Option<Box<dyn Notices>>) -> Option<Notice> {
    match notices {
        Some(notices) => notices.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn each_supply(shared: &Shared, act: impl Fn(&mut Supply)) {
    let now = shared.common.now();
    for (_, key) in shared.keys.all() {
        key.with_state(now, |scheduler| scheduler.ledger.supplies().for_each(&act));
    }
}

/// What the store says of its own accord.
fn hear(shared: &Shared, notice: Option<Notice>) {
    let Some(notice) = notice else {
        // Something may have been missed: all ask.
        each_supply(shared, Supply::touch);
        return;
    };
    let now = shared.common.now();
    for (_, key) in shared.keys.all() {
        key.carry(now, |scheduler| {
            let Some(supply) = scheduler.ledger.supply_of(notice.digest()) else { return };
            match &notice {
                Notice::Born { epoch, .. } => supply.born(*epoch),
                Notice::Closed { close, .. } => {
                    supply.heard(close);
                    scheduler.ledger.told(now, *close);
                }
            }
        });
    }
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
        let share = if *class == RequestClass::Batch { 1 } else { PASSES };
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
    fn look(&self, shared: &Shared, may_ask: bool) -> (Vec<(Arc<Key>, Take)>, Option<Nanos>) {
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

    fn ask(&self, takes: Vec<(Arc<Key>, Take)>) -> Boxed<Answers> {
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
    fn tell(&self, shared: &Shared) -> Option<Boxed<Told>> {
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

    fn accept(&self, shared: &Shared, answers: Answers) {
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

/// Notices that the machine has slept: the steady clock stands still meanwhile, and what was leased is long void.
#[derive(Default)]
struct Clocks {
    begun: Option<(Instant, Timestamp)>,
}

impl Clocks {
    fn have_slept(&mut self, common: &Common) -> bool {
        let now = time::now();
        let read = common.calendar_now();
        let Some((instant, calendar)) = self.begun else {
            self.begun = Some((now, read));
            return false;
        };
        let passed = now.saturating_duration_since(instant);
        let ahead = read
            .duration_since(calendar)
            .checked_sub(jiff::SignedDuration::try_from(passed).unwrap_or_default());
        let leapt =
            ahead.is_some_and(|ahead| ahead > jiff::SignedDuration::try_from(SLEPT).unwrap_or_default());
        let lags = ahead.is_none_or(|ahead| ahead.is_negative());
        if leapt || lags {
            self.begun = Some((now, read));
        }
        leapt
    }
}
