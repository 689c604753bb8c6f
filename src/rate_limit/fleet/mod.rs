//! The task that carries a layer's messages to the store of its fleet and back.
//!
//! One for each layer, started with the first key and ended with the layer: it holds no state, only a weak reference. Requests
//! do not need it to keep their deadlines, since whoever waits looks again by itself.
//!
//! One message of a key is under way at a time, and all that are due go together. What closes a door goes at once, beside
//! them.

mod task;
mod wire;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::task::run;
use self::wire::{Last, Wire};
use crate::fleet::{Fleet, Known, Manner, Micros, StoreError, Supply, Terms};
use crate::rate_limit::quota_state::QuotaState;
use crate::rate_limit::shared::Shared;
use crate::request::limits::Unit;
use crate::request::quota_key::QuotaKey;
use crate::rng::RngSource;
use crate::sync::{AtomicBool, Mutex, Ordering, lock};
use crate::time;

/// A layer's part in a fleet.
pub(in crate::rate_limit) struct Joined {
    fleet: Fleet,
    wire: Arc<Wire>,
    shared: Weak<Shared>,
    is_started: AtomicBool,
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
    pub(in crate::rate_limit) fn new(fleet: Fleet, window: Duration, shared: Weak<Shared>) -> Self {
        let store = Arc::clone(&fleet.store);
        let terms = Terms::of(micros(window), store.pushes()).with_split(store.split().map(micros));
        let (place, bell) = (store.place(), Arc::new(Notify::new()));
        let (lost, last) = (Mutex::new(None), Mutex::new(None));
        let wire = Arc::new(Wire { store, place, terms, bell, lost, last });
        Self { fleet, wire, shared, is_started: AtomicBool::new(false) }
    }

    /// A key's part in the fleet, and the task if it does not run yet.
    pub(in crate::rate_limit) fn supply(&self, key: &QuotaKey, quota: crate::fleet::Quota) -> Supply {
        self.start();
        let manner = Manner { terms: self.wire.terms, outage: self.fleet.outage, weight: self.fleet.weight };
        let id = RngSource::default().stream().id();
        Supply::new(id, self.fleet.key(key), manner, quota, Arc::clone(&self.wire.bell))
    }

    /// The same of each limit over a span that has no part yet.
    pub(in crate::rate_limit) fn join_spans(&self, key: &QuotaKey, ledger: &mut QuotaState) {
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

    pub(in crate::rate_limit) fn health(&self) -> StoreHealth {
        let lost = lock(&self.wire.lost).clone();
        StoreHealth { place: self.wire.place.clone(), lost: lost.map(|lost| (lost.since, lost.error)) }
    }

    /// The layer is gone: its members leave.
    pub(in crate::rate_limit) fn leave(&self, shared: &Shared) {
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
    pub(in crate::rate_limit) fn of(known: Known) -> Self {
        let Known { members, waiting, part, stock, held, asked, granted, is_lost, .. } = known;
        Self { members, waiting, part, stock, held, asked, granted, is_lost }
    }
}
