//! What is shared: the settings, the circuits by key, and the guard that a call holds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::decision::{Change, Denial, Mark, NEVER, Pass};
use super::error::{CircuitOpen, CircuitOpenReason};
use super::gate::Gate;
use super::rules::Rules;
use super::state::Machine;
use super::{Nanos, nanos};
use crate::blame::Caller;
use crate::event::circuit::Transition;
use crate::event::{Event, Observed};
use crate::keyed::{Keyed, Need, State};
use crate::request::{Target, TargetKey};
use crate::rng::RngSource;
use crate::sync::{AtomicUsize, Ordering};
use crate::time;
use crate::verdict::{Signal, Signals};

pub(super) type KeyBy = Arc<dyn Fn(&Target<'_>) -> TargetKey + Send + Sync>;

/// What all circuits of a layer have in common.
pub(super) struct Common {
    /// Else calls pass through.
    pub(super) enabled: bool,
    pub(super) rules: Rules,
    /// Only where slow calls matter.
    pub(super) slow: Option<Duration>,
    /// Nobody waits for an open circuit.
    pub(super) fail_fast: bool,
    pub(super) signals: Signals,
    pub(super) observer: Observed,
    pub(super) chance: RngSource,
    /// Time 0 of the circuits' clock.
    pub(super) epoch: Instant,
    /// Circuits that do not let every request through.
    pub(super) unwell: AtomicUsize,
}

impl Common {
    pub(super) fn is_any_unwell(&self) -> bool {
        self.unwell.load(Ordering::Relaxed) > 0
    }

    pub(super) fn now(&self) -> Nanos {
        self.at(time::now())
    }

    fn at(&self, instant: Instant) -> Nanos {
        nanos(instant.saturating_duration_since(self.epoch))
    }

    pub(super) fn instant(&self, at: Nanos) -> Instant {
        time::saturating_add(self.epoch, Duration::from_nanos(at))
    }

    pub(super) fn transition(&self, change: &Change) -> Transition {
        Transition {
            generation: change.generation,
            at: self.instant(change.at),
            from: change.from,
            to: change.to,
            mode: change.mode,
            cause: change.cause,
            until: change.until.map(|until| self.instant(until)),
        }
    }
}

/// What a layer, its services, their clones and its handles share.
pub(super) struct Shared {
    pub(super) common: Arc<Common>,
    pub(super) keyed: Keyed<TargetKey, Key>,
    pub(super) key_by: Option<KeyBy>,
}

impl Shared {
    pub(super) fn of_target(&self, target: &Target<'_>) -> Arc<Key> {
        self.keyed.get(self.key_of(target), |key| Key::new(key.clone(), Arc::clone(&self.common)))
    }

    pub(super) fn key_of(&self, target: &Target<'_>) -> TargetKey {
        match &self.key_by {
            Some(key_by) => key_by(target),
            // Health is the server's and not the project's.
            None => target.key().without_label(),
        }
    }

    /// The circuit of a key that is acted on by hand.
    pub(super) fn of_key(&self, key: TargetKey) -> Arc<Key> {
        self.keyed.keep(key, |key| Key::new(key.clone(), Arc::clone(&self.common)))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("rules", &self.common.rules)
            .field("keyed", &self.keyed)
            .finish_non_exhaustive()
    }
}

/// One circuit.
pub struct Key {
    pub(super) key: Arc<TargetKey>,
    pub(super) common: Arc<Common>,
    pub(super) gate: Gate,
}

impl Key {
    fn new(key: TargetKey, common: Arc<Common>) -> Self {
        let machine = Machine::new(common.rules, common.now());
        let gate = Gate::new(machine, common.observer.is_some());
        Self { key: Arc::new(key), common, gate }
    }

    /// Decides about a call that is about to be sent. `None` goes through and counts nothing.
    pub(super) fn admit(self: &Arc<Self>, caller: Caller) -> Result<Option<Guard>, Box<CircuitOpen>> {
        if let Some(pass) = self.gate.admit_free() {
            return Ok(Some(Guard::new(Arc::clone(self), pass, caller)));
        }
        let now = self.common.now();
        let admission = match self.gate.deny_shut(now, caller) {
            Some(denial) => Err(denial),
            None => {
                let (admission, news) = self.gate.admit(now, caller, &self.common.unwell);
                self.tell(news);
                admission
            }
        };
        match admission {
            Ok(pass) => Ok(pass.map(|pass| Guard::new(Arc::clone(self), pass, caller))),
            Err(denial) => Err(self.turned_away(denial)),
        }
    }

    /// Turns a call away where it is certain already that it may not go. Takes no place where it may.
    pub(super) fn refuse(&self, caller: Caller) -> Option<Box<CircuitOpen>> {
        if self.gate.admit_free().is_some() {
            return None;
        }
        let now = self.common.now();
        let denial = self.gate.deny_shut(now, caller).or_else(|| {
            self.gate.with(now, &self.common.unwell, |machine, _| (machine.refuse(now, caller), None)).0
        });
        denial.map(|denial| self.turned_away(denial))
    }

    pub(super) fn turned_away(&self, denial: Denial) -> Box<CircuitOpen> {
        let until = (denial.until != NEVER).then(|| self.common.instant(denial.until));
        let since = self.common.instant(denial.since);
        let is_waited_for = !self.common.fail_fast || denial.why == CircuitOpenReason::Ramping;
        Box::new(CircuitOpen::new(Arc::clone(&self.key), since, until, denial.why, is_waited_for))
    }

    pub(super) fn tell(&self, news: bool) {
        if news {
            self.gate.tell(|change| {
                self.common.observer.tell(&Event::CircuitChanged {
                    key: &self.key,
                    transition: &self.common.transition(&change),
                });
            });
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("key", &self.key).finish_non_exhaustive()
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl State for Key {
    fn is_idle(&self) -> bool {
        let now = self.common.now();
        self.gate.with(now, &self.common.unwell, |machine, _| (machine.is_idle(now), None)).0
    }

    fn need(&self) -> Need {
        let now = self.common.now();
        let need = |machine: &mut Machine| match () {
            () if machine.is_idle(now) => Need::Nothing,
            // It lets every call through, by its own rule, and forgets no more than what it has counted.
            () if machine.is_free() && machine.mode() == self.common.rules.mode => Need::Counts,
            () => Need::All,
        };
        self.gate.with(now, &self.common.unwell, |machine, _| (need(machine), None)).0
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.gate.retire(&self.common.unwell);
    }
}

/// A call under way. Reporting consumes it; dropped without a report it counts nothing, and a probe's place is free
/// again.
pub struct Guard {
    key: Arc<Key>,
    pass: Pass,
    caller: Caller,
    /// When the call was sent, where slow calls matter.
    sent: Option<Instant>,
    slow: bool,
}

impl Guard {
    #[inline]
    pub(super) fn new(key: Arc<Key>, pass: Pass, caller: Caller) -> Self {
        let sent = key.common.slow.map(|_| time::now());
        Self { key, pass, caller, sent, slow: false }
    }

    /// Whether it is to find out if the server is back.
    #[inline]
    pub(super) const fn is_probe(&self) -> bool {
        self.pass.is_probe()
    }

    pub(super) fn signals(&self) -> Signals {
        self.key.common.signals
    }

    pub(super) fn observer(&self) -> &Observed {
        &self.key.common.observer
    }

    pub(super) fn key(&self) -> &TargetKey {
        &self.key.key
    }

    /// The first byte is here.
    #[inline]
    pub(super) fn headed(&mut self) {
        if let (Some(sent), Some(slow)) = (self.sent, self.key.common.slow) {
            self.slow = time::now().saturating_duration_since(sent) >= slow;
        }
    }

    /// Counts what the call ended with; `hint` is the delay that the server asked for.
    ///
    /// Of a probe that failed: when the next one may go.
    #[inline]
    pub(super) fn report(mut self, signal: Signal, hint: Option<Duration>) -> Option<Instant> {
        let pass = std::mem::replace(&mut self.pass, Pass { generation: 0, ticket: 0, number: 0 });
        let ordinary = pass.ticket == 0;
        let quiet = match signal {
            Signal::Neutral => ordinary,
            Signal::Success => ordinary && !self.slow && self.key.gate.succeed_quietly(pass),
            _ => false,
        };
        if quiet { None } else { self.settle(pass, signal, hint) }
    }

    #[cold]
    fn settle(&self, pass: Pass, signal: Signal, hint: Option<Duration>) -> Option<Instant> {
        let mark = match signal {
            Signal::Success => Mark::Success,
            // A timeout is the governor's business first. The circuit opens only when most calls end so, or all of a
            // row: then shrinking did not help, nobody shrinks, or the server is gone without a word.
            Signal::Failure | Signal::Timeout | Signal::Soft => Mark::Failure,
            Signal::Neutral => Mark::Neutral,
        };
        let common = &*self.key.common;
        let (hint, draw) = (hint.map_or(0, nanos), || common.chance.stream().unit());
        let now = common.now();
        let settle = |machine: &mut Machine, _: &_| {
            let change = machine.settle(now, pass, self.caller, mark, self.slow, hint, draw);
            (machine.until(), change)
        };
        let (until, news) = self.key.gate.with(now, &common.unwell, settle);
        self.key.tell(news);
        until.filter(|_| pass.is_probe() && mark == Mark::Failure).map(|until| common.instant(until))
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        if self.pass.ticket != 0 {
            self.key.gate.release(self.pass);
        }
    }
}
