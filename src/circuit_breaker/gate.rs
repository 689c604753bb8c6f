//! The circuit between threads: the rules under a lock, and the one word that spares most calls the lock.
//!
//! While a circuit is closed, all is well and nobody holds the lock, a call loads the word to be let through and
//! adds one to it to be counted: no lock, no clock. Every eighth success takes the lock and the clock, and counts
//! those before it; so does any other event. A success may thus be counted up to seven calls later than it came,
//! which matters only where seven calls take longer than a bucket of the window.
//!
//! ```text
//! 63          32 31        10 9     8    7        0
//! [ generation ] [ unused ] [even] [free] [ pending ]
//! ```
//!
//! **free**: the circuit is closed and no ramp limits it, so a call of this generation goes through. **even**: it is
//! closed, no failures stand in a row and nobody holds the lock, so a success is one more **pending** and nothing else.
//!
//! **Orderings.** Whatever is behind the lock is published by the lock. The word publishes nothing but itself, so
//! relaxed operations do: who takes the lock clears `even` and takes `pending` in one step, which sees the last
//! value there is; from then on every exchange by others fails (it would need `even`), so the store that gives the
//! word back overwrites nothing. A load may be late and let one more call through, in the old generation, where it
//! counts for nothing; the same happens when the thread is put to sleep between the load and the call.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

use super::Nanos;
use super::decision::{Admission, Change, Denial, Pass};
use super::error::CircuitOpenReason;
use super::state::Machine;
use crate::blame::Caller;
use crate::event::circuit::TransitionCause;
use crate::sync::{AtomicU32, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock};

const PENDING: u64 = 0xff;
const FREE: u64 = 1 << 8;
const EVEN: u64 = 1 << 9;

/// How many successes are counted at once. At most 256.
const BATCH: u64 = 8;

/// Everybody. No caller has this number: they are odd, or 0 without a label.
const ALL: Caller = Caller::MAX - 1;

/// Changes that are remembered per circuit.
const HISTORY: usize = 16;

pub(super) struct Gate {
    word: AtomicU64,
    /// Calls that were let through.
    started: AtomicU32,
    /// [`Machine::shut`], so that a request is turned away without the lock, too.
    shut: AtomicU64,
    /// Since when, with the cause in the last four bits: sixteen nanoseconds more or less.
    ///
    /// Read beside `shut` and not together with it: in the instant of a change the two may speak of different
    /// openings. Only the text of an error depends on it.
    opened: AtomicU64,
    /// Whom `shut` turns away: a caller, or [`ALL`]. Beside it as well.
    shut_for: AtomicU64,
    inside: Mutex<Inside>,
}

pub(super) struct Inside {
    machine: Machine,
    history: VecDeque<Change>,
    /// Changes that the observer has not been told of yet, in their order.
    untold: VecDeque<Change>,
    /// Somebody is telling them.
    telling: bool,
    is_observed: bool,
    /// This circuit is one of those that `unwell` counts.
    counted: bool,
}

impl Gate {
    pub(super) fn new(machine: Machine, is_observed: bool) -> Self {
        Self {
            word: AtomicU64::new(word_of(&machine)),
            started: AtomicU32::new(0),
            shut: AtomicU64::new(machine.shut()),
            opened: AtomicU64::new(0),
            shut_for: AtomicU64::new(ALL),
            inside: Mutex::new(Inside {
                machine,
                history: VecDeque::new(),
                untold: VecDeque::new(),
                telling: false,
                is_observed,
                counted: false,
            }),
        }
    }

    /// A pass, where that needs no look at the clock.
    #[inline]
    pub(super) fn admit_free(&self) -> Option<Pass> {
        let word = self.word.load(Ordering::Relaxed);
        if word & FREE == 0 {
            return None;
        }
        Some(Pass { generation: generation(word), ticket: 0, number: self.next_number() })
    }

    /// Relaxed: numbers are only compared, and a call that starts at the same time as another may have either's.
    #[inline]
    fn next_number(&self) -> u32 {
        self.started.fetch_add(1, Ordering::Relaxed)
    }

    /// A denial, where that needs no lock.
    #[inline]
    pub(super) fn deny_shut(&self, now: Nanos, caller: Caller) -> Option<Denial> {
        let until = self.shut.load(Ordering::Relaxed);
        let shut_for = self.shut_for.load(Ordering::Relaxed);
        (now < until && (shut_for == ALL || shut_for == caller)).then(|| {
            let (since, cause) = unpack(self.opened.load(Ordering::Relaxed));
            Denial { until, since: since.min(now), why: CircuitOpenReason::Opened(cause) }
        })
    }

    /// Decides with the lock. Whether there is something to tell comes second.
    pub(super) fn admit(&self, now: Nanos, caller: Caller, unwell: &AtomicUsize) -> (Admission, bool) {
        let mut inside = self.enter(now, unwell);
        let (mut admission, change) = inside.machine.admit(now, caller);
        if let Ok(Some(pass)) = &mut admission {
            // Not of one that is turned away.
            pass.number = self.next_number();
        }
        (admission, inside.note(change))
    }

    /// Counts a success, where that needs neither lock nor clock.
    #[inline]
    pub(super) fn succeed_quietly(&self, pass: Pass) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if generation(word) != pass.generation {
                // Of another age: nothing to count, unless it is of an outage that lasts and that does not bind it.
                return word & (FREE | EVEN) != 0;
            }
            if word & EVEN == 0 || word & PENDING >= BATCH - 1 {
                return false;
            }
            match self.word.compare_exchange_weak(word, word + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
    }

    /// A probe that ended without a word.
    pub(super) fn release(&self, pass: Pass) {
        // The machine alone: a lease given back changes nothing that the word tells.
        lock(&self.inside).machine.release(pass);
    }

    /// Anything else that needs the rules, and may change them. Whether there is something to tell comes second.
    pub(super) fn with<T>(
        &self,
        now: Nanos,
        unwell: &AtomicUsize,
        act: impl FnOnce(&mut Machine, &VecDeque<Change>) -> (T, Option<Change>),
    ) -> (T, bool) {
        let mut inside = self.enter(now, unwell);
        let Inside { machine, history, .. } = &mut *inside;
        let (result, change) = act(machine, history);
        (result, inside.note(change))
    }

    /// Tells what is untold, in order, without holding the lock while it tells.
    ///
    /// One thread tells at a time, and what others add meanwhile is told by it; so an observer that acts on the
    /// circuit does not meet itself.
    pub(super) fn tell(&self, tell: impl Fn(Change)) {
        struct Telling<'a>(&'a Mutex<Inside>);
        impl Drop for Telling<'_> {
            // Also when the observer panics, or nothing would ever be told again.
            fn drop(&mut self) {
                lock(self.0).telling = false;
            }
        }
        let mut telling = None;
        loop {
            let mut inside = lock(&self.inside);
            if telling.is_none() && inside.telling {
                return;
            }
            let Some(change) = inside.untold.pop_front() else {
                // Here and not in the drop, so that nobody adds a change between the look and the farewell.
                inside.telling = false;
                drop(inside);
                if let Some(telling) = telling {
                    std::mem::forget::<Telling<'_>>(telling);
                }
                return;
            };
            inside.telling = true;
            drop(inside);
            // Not made unless it is needed: a second one would end the telling when it is dropped.
            telling.get_or_insert_with(|| Telling(&self.inside));
            tell(change);
        }
    }

    /// Takes the lock, and what was counted without it.
    fn enter<'a>(&'a self, now: Nanos, unwell: &'a AtomicUsize) -> Entered<'a> {
        let mut inside = lock(&self.inside);
        let word = self.word.fetch_and(!(EVEN | PENDING), Ordering::Relaxed);
        inside.machine.absorb(now, (word & PENDING) as u32);
        Entered { gate: self, inside, unwell }
    }
}

impl Inside {
    fn note(&mut self, change: Option<Change>) -> bool {
        let Some(change) = change else { return false };
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(change);
        if self.is_observed {
            self.untold.push_back(change);
        }
        self.is_observed
    }
}

/// The lock, held. Dropping it gives the word back first.
struct Entered<'a> {
    gate: &'a Gate,
    inside: MutexGuard<'a, Inside>,
    unwell: &'a AtomicUsize,
}

impl Deref for Entered<'_> {
    type Target = Inside;
    fn deref(&self) -> &Inside {
        &self.inside
    }
}

impl DerefMut for Entered<'_> {
    fn deref_mut(&mut self) -> &mut Inside {
        &mut self.inside
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let machine = &self.inside.machine;
        let (word, shut) = (word_of(machine), machine.shut());
        self.gate.shut_for.store(machine.shut_for().unwrap_or(ALL), Ordering::Relaxed);
        self.gate.opened.store(pack(machine.since(), machine.cause()), Ordering::Relaxed);
        self.gate.shut.store(shut, Ordering::Relaxed);
        self.gate.word.store(word, Ordering::Relaxed);
        let counted = word & FREE == 0 && machine.mode() != super::BreakerMode::ObserveOnly;
        if counted != std::mem::replace(&mut self.inside.counted, counted) {
            // Only ever a hint about whether to ask the inner service for readiness.
            let step = if counted { 1 } else { usize::MAX };
            self.unwell.fetch_add(step, Ordering::Relaxed);
        }
    }
}

impl Gate {
    /// Takes this circuit out of the count of those that are unwell, before it is dropped.
    pub(super) fn retire(&self, unwell: &AtomicUsize) {
        if std::mem::take(&mut lock(&self.inside).counted) {
            unwell.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn word_of(machine: &Machine) -> u64 {
    let mut word = u64::from(machine.generation()) << 32;
    if machine.is_free() {
        word |= FREE;
    }
    if machine.is_even() {
        word |= EVEN;
    }
    word
}

const fn generation(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The causes for which a circuit opens, by their number.
const CAUSES: [TransitionCause; 5] = [
    TransitionCause::ByHand,
    TransitionCause::FailureShare,
    TransitionCause::ConsecutiveFailures,
    TransitionCause::SlowShare,
    TransitionCause::ProbeFailed,
];

fn pack(since: Nanos, cause: TransitionCause) -> u64 {
    let number = CAUSES.iter().position(|known| *known == cause).unwrap_or(0);
    (since & !0xf) | number as u64
}

fn unpack(opened: u64) -> (Nanos, TransitionCause) {
    (opened & !0xf, CAUSES.get((opened & 0xf) as usize).copied().unwrap_or(TransitionCause::ByHand))
}

#[cfg(test)]
#[path = "tests/gate.rs"]
mod tests;
