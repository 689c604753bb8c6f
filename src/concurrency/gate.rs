//! One key's door: who is inside, who waits, and the limit while there is one.
//!
//! While there is no limit, a call that comes or goes moves one atomic word and nothing else. From the first cut until
//! the limit is lifted everything happens under one short lock; wakers are woken after it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Waker;

use tokio::time::Instant;

use super::ConcurrencyState;
use super::limit::{Limit, Room};
use super::settings::Settings;
use crate::event::{Event, Observed};
use crate::keyed::{State, lock};
use crate::rng::Stream;
use crate::target::TargetKey;
use crate::time;
use crate::verdict::{Signal, Signals};

/// The word: calls in flight (32 bits), whether there is a limit (1 bit), and the age (31 bits), which each cut
/// moves on, so that a call admitted before a cut is known for one.
///
/// While `LIMITED` is set, only the holder of the lock changes the word, and the count in it is out of date: the one
/// under the lock counts.
///
/// Relaxed throughout: the word publishes nothing but itself. Its changes have one order whatever their ordering,
/// so each admission is before a cut and counted by it, or sees `LIMITED` and takes the lock, and the lock orders
/// the rest. Ages wrap after 2³¹ cuts: 68 years at one a second.
const COUNT: u64 = 0xFFFF_FFFF;
const LIMITED: u64 = 1 << 32;
const AGE_SHIFT: u32 = 33;

const fn age_of(word: u64) -> u32 {
    (word >> AGE_SHIFT) as u32
}

const fn count_of(word: u64) -> u32 {
    (word & COUNT) as u32
}

pub(super) struct Gate {
    key: TargetKey,
    settings: Arc<Settings>,
    word: AtomicU64,
    inside: Mutex<Inside>,
}

/// What the lock guards.
#[derive(Default)]
struct Inside {
    /// `Some` exactly while the word says `LIMITED`.
    limit: Option<Limit>,
    /// Valid while there is a limit. Counts the granted, too.
    in_flight: u32,
    /// By ticket, which is the order of arrival.
    waiting: BTreeMap<u64, Waiter>,
    /// Waiters that have been given a slot and have not come for it yet, with the age of their admission.
    granted: BTreeMap<u64, u32>,
    next_ticket: u64,
    cuts: u64,
    last_cut: Option<Instant>,
    /// Made at the first cut.
    stream: Option<Box<Stream>>,
}

#[derive(Default)]
struct Waiter {
    waker: Option<Waker>,
    /// When it was told to look again. Only the first of the queue holds a timer for the pace.
    timer: Option<Instant>,
}

/// What became of a request that came to the gate.
#[derive(Debug)]
pub(super) enum Entry {
    Admitted(Slot),
    Queued(Place),
    /// The queue is full.
    Full(Option<Instant>),
    /// Its turn cannot come in time. With the earliest instant at which it could come, if that is known.
    Late(Option<Instant>),
}

/// What a waiter finds when it looks.
#[derive(Debug)]
pub(super) enum Turn {
    Come(Slot),
    /// Look again when woken, and at this instant.
    Wait(Option<Instant>),
}

impl Gate {
    pub(super) fn new(key: TargetKey, settings: Arc<Settings>) -> Self {
        Self { key, settings, word: AtomicU64::new(0), inside: Mutex::default() }
    }

    /// Admits a call if there is no limit. No lock, no clock.
    #[inline]
    pub(super) fn try_enter(self: Arc<Self>) -> Result<Slot, Arc<Self>> {
        let mut word = self.word.load(Relaxed);
        while word & LIMITED == 0 {
            // 2³² calls in flight would need more memory than there is.
            match self.word.compare_exchange_weak(word, word + 1, Relaxed, Relaxed) {
                Ok(_) => return Ok(Slot::new(self, age_of(word))),
                Err(changed) => word = changed,
            }
        }
        Err(self)
    }

    /// Admits a call, gives it a place in the queue, or turns it away.
    pub(super) fn enter(self: &Arc<Self>, now: Instant, deadline: Instant) -> Entry {
        let mut wakes = Wakes::default();
        let entry = {
            let mut inside = lock(&self.inside);
            let entry = self.arrive(&mut inside, now, deadline, &mut wakes);
            self.settle(&mut inside, now, &mut wakes);
            entry
        };
        self.after(wakes);
        entry
    }

    fn arrive(
        self: &Arc<Self>,
        inside: &mut Inside,
        now: Instant,
        deadline: Instant,
        wakes: &mut Wakes,
    ) -> Entry {
        self.lift_if_spent(inside, now, wakes);
        // Those who came before go first, also one whose pace is over and who has not looked yet.
        self.grant(inside, now, wakes);
        let tuning = &self.settings.tuning;
        let Some(limit) = inside.limit.as_mut() else {
            // No limit can come while the lock is held.
            let slot = Arc::clone(self).try_enter().ok();
            return Entry::Admitted(slot.expect("there is no limit"));
        };
        if inside.waiting.is_empty() && limit.room(inside.in_flight, now, tuning) == Room::Now {
            self.take(inside, now);
            return Entry::Admitted(self.slot());
        }
        limit.bound(now);
        let earliest = limit.earliest(inside.in_flight, tuning).filter(|at| *at > now);
        if deadline <= now || earliest.is_some_and(|at| at > deadline) {
            return Entry::Late(earliest);
        }
        if inside.waiting.len() >= self.settings.max_queued {
            return Entry::Full(earliest);
        }
        let ticket = inside.next_ticket;
        inside.next_ticket += 1;
        inside.waiting.insert(ticket, Waiter::default());
        Entry::Queued(Place { gate: Arc::clone(self), ticket, served: false })
    }

    /// The waiter with this ticket looks whether its turn has come.
    fn look(self: &Arc<Self>, ticket: u64, now: Instant, waker: &Waker) -> Turn {
        let mut wakes = Wakes::default();
        let (turn, old) = {
            let mut inside = lock(&self.inside);
            self.grant(&mut inside, now, &mut wakes);
            let found = match inside.granted.remove(&ticket) {
                Some(age) => (Turn::Come(Slot::new(Arc::clone(self), age)), None),
                None => {
                    let (timer, old) = self.wait(&mut inside, ticket, now, waker);
                    (Turn::Wait(timer), old)
                }
            };
            self.settle(&mut inside, now, &mut wakes);
            found
        };
        self.after(wakes);
        // Dropping a waker may run the caller's code: not under the lock.
        drop(old);
        turn
    }

    /// The waiter's timer, and the waker that the new one has replaced.
    fn wait(
        &self,
        inside: &mut Inside,
        ticket: u64,
        now: Instant,
        waker: &Waker,
    ) -> (Option<Instant>, Option<Waker>) {
        let timer = self.next_timer(inside, now).filter(|(first, _)| *first == ticket).map(|(_, at)| at);
        let waiter = inside.waiting.get_mut(&ticket).expect("it is granted, waiting, or gone");
        let known = waiter.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        let old = if known { None } else { waiter.waker.replace(waker.clone()) };
        waiter.timer = timer;
        (timer, old)
    }

    /// The waiter with this ticket is gone. A slot that it was given and did not come for passes on.
    fn leave(&self, ticket: u64, now: Instant) {
        let mut wakes = Wakes::default();
        let left = {
            let mut inside = lock(&self.inside);
            let left = inside.waiting.remove(&ticket);
            if let (Some(_), Some(limit)) = (&left, &mut inside.limit) {
                limit.bound(now);
            }
            if inside.granted.remove(&ticket).is_some() {
                self.give_back(&mut inside);
            }
            self.settle(&mut inside, now, &mut wakes);
            left
        };
        self.after(wakes);
        // Dropping a waker may run the caller's code: not under the lock.
        drop(left);
    }

    /// A call is over.
    #[inline]
    fn end(&self, signal: Signal, age: u32) {
        if signal != Signal::Timeout {
            let mut word = self.word.load(Relaxed);
            while word & LIMITED == 0 {
                match self.word.compare_exchange_weak(word, word - 1, Relaxed, Relaxed) {
                    Ok(_) => return,
                    Err(changed) => word = changed,
                }
            }
        }
        self.end_at(signal, age, time::now());
    }

    #[cold]
    fn end_at(&self, signal: Signal, age: u32, now: Instant) {
        let mut wakes = Wakes::default();
        {
            let mut inside = lock(&self.inside);
            self.learn(&mut inside, signal, age, now, &mut wakes);
            self.give_back(&mut inside);
            self.lift_if_spent(&mut inside, now, &mut wakes);
            self.settle(&mut inside, now, &mut wakes);
        }
        self.after(wakes);
    }

    /// What a result does to the limit, while its call still counts as in flight.
    fn learn(&self, inside: &mut Inside, signal: Signal, age: u32, now: Instant, wakes: &mut Wakes) {
        let tuning = &self.settings.tuning;
        let in_flight = inside.in_flight;
        match (signal, &mut inside.limit) {
            (Signal::Success, Some(limit)) if limit.is_used(in_flight) => {
                limit.bound(now);
                limit.grow(tuning);
            }
            (Signal::Timeout, Some(limit)) => {
                limit.bound(now);
                if age == age_of(self.word.load(Relaxed)) && limit.may_cut(now, tuning) {
                    limit.cut(in_flight, now, tuning);
                    self.next_age(inside, now, wakes);
                }
            }
            // One that began before the last limit, which was lifted since, is news of another time.
            (Signal::Timeout, None) if age == age_of(self.word.load(Relaxed)) => {
                // From here on the word is ours, and what it counted is exact.
                inside.in_flight = count_of(self.word.fetch_or(LIMITED, Relaxed));
                let draw = self.draw(inside);
                inside.limit = Some(Limit::first(inside.in_flight, now, draw, tuning));
                self.next_age(inside, now, wakes);
            }
            _ => {}
        }
    }

    fn next_age(&self, inside: &mut Inside, now: Instant, wakes: &mut Wakes) {
        let age = u64::from(age_of(self.word.load(Relaxed)).wrapping_add(1));
        self.word.store((age << AGE_SHIFT) | LIMITED, Relaxed);
        inside.cuts += 1;
        inside.last_cut = Some(now);
        wakes.cut = inside.limit.as_ref().map(|limit| (inside.in_flight, limit.value()));
    }

    /// One call less.
    fn give_back(&self, inside: &mut Inside) {
        match inside.limit {
            Some(_) => inside.in_flight -= 1,
            // No limit can come while the lock is held, but the fast path may be at work.
            None => _ = self.word.fetch_sub(1, Relaxed),
        }
    }

    /// Gives free slots to those who wait, first come first served.
    fn grant(&self, inside: &mut Inside, now: Instant, wakes: &mut Wakes) {
        while let (Some(limit), false) = (&mut inside.limit, inside.waiting.is_empty()) {
            if limit.room(inside.in_flight, now, &self.settings.tuning) != Room::Now {
                return;
            }
            limit.bound(now);
            self.take(inside, now);
            self.grant_first(inside, wakes);
        }
    }

    fn grant_first(&self, inside: &mut Inside, wakes: &mut Wakes) {
        if let Some((ticket, waiter)) = inside.waiting.pop_first() {
            inside.granted.insert(ticket, age_of(self.word.load(Relaxed)));
            wakes.wakers.extend(waiter.waker);
        }
    }

    /// Counts an admission under a limit.
    fn take(&self, inside: &mut Inside, now: Instant) {
        inside.in_flight += 1;
        let draw = self.draw(inside);
        let limit = inside.limit.as_mut().expect("there is a limit");
        limit.admitted(now, draw);
        if limit.is_used(inside.in_flight) {
            limit.bound(now);
        }
    }

    fn slot(self: &Arc<Self>) -> Slot {
        Slot::new(Arc::clone(self), age_of(self.word.load(Relaxed)))
    }

    fn draw(&self, inside: &mut Inside) -> f64 {
        inside.stream.get_or_insert_with(|| Box::new(self.settings.chance.stream())).unit()
    }

    /// The first waiter and the instant of its pace, if it is for the pace alone that it waits.
    fn next_timer(&self, inside: &Inside, now: Instant) -> Option<(u64, Instant)> {
        let (first, _) = inside.waiting.first_key_value()?;
        match inside.limit.as_ref()?.room(inside.in_flight, now, &self.settings.tuning) {
            Room::At(at) => Some((*first, at)),
            Room::Now | Room::Later => None,
        }
    }

    /// Leaves nobody behind, after anything that may have changed whose turn it is: free slots are given, and the
    /// first waiter is woken if it does not hold the timer that it should, because it has just become the first or
    /// the pace has changed.
    fn settle(&self, inside: &mut Inside, now: Instant, wakes: &mut Wakes) {
        self.grant(inside, now, wakes);
        let Some((first, at)) = self.next_timer(inside, now) else { return };
        let waiter = inside.waiting.get_mut(&first).expect("it is the first");
        if waiter.timer != Some(at) {
            // Told once: it will look, and then hold the timer.
            waiter.timer = Some(at);
            wakes.wakers.extend(waiter.waker.clone());
        }
    }

    fn lift_if_spent(&self, inside: &mut Inside, now: Instant, wakes: &mut Wakes) {
        let spent = inside.limit.as_ref().is_some_and(|l| l.is_spent(now, self.settings.tuning.lift_after));
        if spent && inside.waiting.is_empty() {
            self.lift(inside, wakes);
        }
    }

    fn lift(&self, inside: &mut Inside, wakes: &mut Wakes) {
        if inside.limit.is_none() {
            return;
        }
        while !inside.waiting.is_empty() {
            inside.in_flight += 1;
            self.grant_first(inside, wakes);
        }
        inside.limit = None;
        let age = self.word.load(Relaxed) & !(COUNT | LIMITED);
        // From here on the word is everybody's again.
        self.word.store(age | u64::from(inside.in_flight), Relaxed);
        wakes.lifted = true;
    }

    /// Forgets the limit and lets all who wait go.
    pub(super) fn reset(&self) {
        let mut wakes = Wakes::default();
        self.lift(&mut lock(&self.inside), &mut wakes);
        self.after(wakes);
    }

    pub(super) fn state(&self) -> ConcurrencyState {
        let inside = lock(&self.inside);
        ConcurrencyState {
            limit: inside.limit.as_ref().map(Limit::value),
            in_flight: match inside.limit {
                Some(_) => inside.in_flight,
                None => count_of(self.word.load(Relaxed)),
            },
            queued: inside.waiting.len(),
            cuts: inside.cuts,
            last_cut: inside.last_cut,
        }
    }

    /// What is done once the lock is gone.
    fn after(&self, wakes: Wakes) {
        for waker in wakes.wakers {
            waker.wake();
        }
        if let Some((in_flight, limit)) = wakes.cut {
            let event = Event::ConcurrencyCut { key: &self.key, in_flight, limit };
            self.settings.observer.tell(&event);
        }
        if wakes.lifted {
            self.settings.observer.tell(&Event::ConcurrencyLifted { key: &self.key });
        }
    }
}

impl State for Gate {
    fn is_idle(&self) -> bool {
        let word = self.word.load(Relaxed);
        if word & LIMITED == 0 {
            return word & COUNT == 0;
        }
        let inside = lock(&self.inside);
        let spent = |limit: &Limit| limit.is_spent(time::now(), self.settings.tuning.lift_after);
        inside.in_flight == 0 && inside.waiting.is_empty() && inside.limit.as_ref().is_none_or(spent)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("key", &self.key).field("state", &self.state()).finish_non_exhaustive()
    }
}

/// What is left to do when the lock is gone.
#[derive(Default)]
struct Wakes {
    wakers: Vec<Waker>,
    cut: Option<(u32, f64)>,
    lifted: bool,
}

/// One call's part of the limit. Dropped, it goes back and counts nothing.
#[derive(Debug)]
pub(super) struct Slot {
    gate: Arc<Gate>,
    age: u32,
    signal: Signal,
}

impl Slot {
    const fn new(gate: Arc<Gate>, age: u32) -> Self {
        Self { gate, age, signal: Signal::Neutral }
    }

    pub(super) fn observer(&self) -> &Observed {
        &self.gate.settings.observer
    }

    /// How its call's outcome is to be read.
    #[inline]
    pub(super) fn signals(&self) -> Signals {
        self.gate.settings.signals
    }

    /// Gives it back with what the call has shown.
    #[inline]
    pub(super) fn end(mut self, signal: Signal) {
        self.signal = signal;
    }
}

impl Drop for Slot {
    #[inline]
    fn drop(&mut self) {
        self.gate.end(self.signal, self.age);
    }
}

/// A place in the queue. Dropped, it is free, and so is the slot it may have been given meanwhile.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    ticket: u64,
    /// The slot was fetched: there is nothing left to leave.
    served: bool,
}

impl Place {
    /// Not again after [`Turn::Come`].
    pub(super) fn look(&mut self, now: Instant, waker: &Waker) -> Turn {
        let turn = self.gate.look(self.ticket, now, waker);
        self.served = matches!(turn, Turn::Come(_));
        turn
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.served {
            self.gate.leave(self.ticket, time::now());
        }
    }
}
