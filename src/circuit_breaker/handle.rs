use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::circuit::{Key, Shared};
use super::decision::Change;
use super::error::CircuitOpen;
use super::state::Machine;
use crate::event::circuit::{BreakerMode, CircuitState, Transition};
use crate::request::{KeyLabel, Target, TargetKey};

/// The circuits of a layer, to look at and to act on. Made by
/// [`CircuitBreakerLayer::handle`](super::CircuitBreakerLayer::handle).
///
/// Clones are handles to the same circuits. Dropping one changes nothing; what was forced stays so.
#[derive(Clone)]
pub struct Circuits {
    shared: Arc<Shared>,
}

/// One circuit at one instant.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Circuit {
    /// Whose circuit.
    pub key: TargetKey,
    /// What it does with requests, unless it only observes.
    pub state: CircuitState,
    /// Who decides.
    pub mode: BreakerMode,
    /// Since when it has been in this state.
    pub since: Instant,
    /// Of an open circuit: when it lets a probe through. `None` while nobody knows.
    pub until: Option<Instant>,
    /// Of an open or half-open circuit: all failures for which it opened are of the requests of one
    /// [`KeyLabel`] (or of those without one), so it turns away only those, and everybody else's go through.
    pub is_one_callers: bool,
    /// The calls a second are limited, after an outage.
    pub ramping: bool,
    /// Calls in the window.
    pub calls: u32,
    /// Those of them that failed.
    pub failures: u32,
    /// Those of them that were slow, where slow calls matter.
    pub slow_calls: u32,
    /// Failures in a row up to now.
    pub consecutive_failures: u32,
    /// Its changes so far. The last one's is its generation; 0 before the first.
    pub generation: u32,
    /// The last 16 changes, the oldest first.
    pub history: Vec<Transition>,
}

impl Circuits {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The keys of all circuits, in no order.
    #[must_use]
    pub fn keys(&self) -> Vec<TargetKey> {
        self.shared.keyed.all().into_iter().map(|(key, _)| key).collect()
    }

    /// The circuit of this key, if there is one.
    #[must_use]
    pub fn get(&self, key: &TargetKey) -> Option<Circuit> {
        self.shared.keyed.peek(key).map(|key| look(&key))
    }

    /// All circuits, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Circuit> {
        self.shared.keyed.all().iter().map(|(_, key)| look(key)).collect()
    }

    /// Whether a request for this target would be turned away now, because its circuit is open or its probes are under
    /// way. Takes no place, and makes no circuit where there is none.
    pub(crate) fn turns_away(&self, target: &Target<'_>) -> Option<Box<CircuitOpen>> {
        let key = self.shared.keyed.peek(&self.shared.key_of(target))?;
        let now = key.common.now();
        let caller = target.label().map_or(0, KeyLabel::caller);
        let look = |machine: &mut Machine, _: &_| {
            // Behind a circuit that has closed a request waits for milliseconds.
            let denial = if machine.is_ramping(now) { None } else { machine.refuse(now, caller) };
            (denial, None)
        };
        let (denial, _) = key.gate.with(now, &key.common.unwell, look);
        denial.map(|denial| key.turned_away(denial))
    }

    /// Whether this target's circuit is closed and does not limit the calls a second. One that does not exist is.
    pub(crate) fn is_well(&self, target: &Target<'_>) -> bool {
        let Some(key) = self.shared.keyed.peek(&self.shared.key_of(target)) else { return true };
        let now = key.common.now();
        let look = |machine: &mut Machine, _: &_| {
            (machine.state() == CircuitState::Closed && !machine.is_ramping(now), None)
        };
        key.gate.with(now, &key.common.unwell, look).0
    }

    /// Turns every request of this key away from now on, until somebody resets it.
    ///
    /// This and the other acts make a circuit where there is none. Each begins with an empty window, in a new
    /// generation: what is under way counts nothing. Where the circuit is in that mode already, nothing happens.
    /// Observers are told before the act returns, or by the thread that is telling them of an earlier change.
    pub fn force_open(&self, key: &TargetKey) {
        self.set(key, BreakerMode::ForcedOpen);
    }

    /// Lets every request of this key through from now on, until somebody resets it.
    pub fn force_closed(&self, key: &TargetKey) {
        self.set(key, BreakerMode::ForcedClosed);
    }

    /// Lets every request of this key through from now on, and goes on telling what it would do.
    pub fn observe_only(&self, key: &TargetKey) {
        self.set(key, BreakerMode::ObserveOnly);
    }

    /// Lets the circuit decide by itself, beginning closed.
    pub fn automatic(&self, key: &TargetKey) {
        self.set(key, BreakerMode::Automatic);
    }

    /// Begins anew, closed, in the mode of the layer's settings, and forgets how often it was open.
    pub fn reset(&self, key: &TargetKey) {
        self.act(key, |machine, now| Some(machine.reset(now)));
    }

    /// Drops the circuits that have nothing to remember and that no service or call holds; the next request makes them
    /// anew. What is forced is kept.
    pub fn evict_idle(&self) {
        self.shared.keyed.evict_idle();
    }

    fn set(&self, key: &TargetKey, mode: BreakerMode) {
        self.act(key, |machine, now| machine.set_mode(now, mode));
    }

    fn act(&self, key: &TargetKey, act: impl FnOnce(&mut Machine, super::Nanos) -> Option<Change>) {
        let key = self.shared.of_key(key.clone());
        let now = key.common.now();
        let ((), news) = key.gate.with(now, &key.common.unwell, |machine, _| ((), act(machine, now)));
        key.tell(news);
    }
}

/// How many circuits `Debug` shows.
const MAX_PRINTED: usize = 16;

fn look(key: &Key) -> Circuit {
    let common = &*key.common;
    let now = common.now();
    let look = |machine: &mut Machine, history: &VecDeque<Change>| {
        let counts = machine.counts(now);
        let circuit = Circuit {
            key: TargetKey::clone(&key.key),
            state: machine.state(),
            mode: machine.mode(),
            since: common.instant(machine.since()),
            until: machine.until().map(|until| common.instant(until)),
            is_one_callers: machine.is_one_callers(),
            ramping: machine.is_ramping(now),
            calls: counts.calls,
            failures: counts.failures,
            slow_calls: counts.slow,
            consecutive_failures: machine.row(),
            generation: machine.generation(),
            history: history.iter().map(|change| common.transition(change)).collect(),
        };
        (circuit, None)
    };
    key.gate.with(now, &common.unwell, look).0
}

impl fmt::Debug for Circuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all();
        let is_of_note = |circuit: &&Circuit| {
            circuit.state != CircuitState::Closed || circuit.ramping || circuit.mode != BreakerMode::Automatic
        };
        let of_note = all.iter().filter(is_of_note).take(MAX_PRINTED).map(|circuit| {
            let until =
                circuit.until.map_or_else(String::new, |until| format!(", {}", crate::time::Until(until)));
            let ramping = if circuit.ramping { ", ramping" } else { "" };
            format!("{}: {:?}, {:?}{ramping}{until}", circuit.key, circuit.state, circuit.mode)
        });
        f.debug_struct("Circuits")
            .field("keys", &all.len())
            .field("not_closed", &of_note.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
