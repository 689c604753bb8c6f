//! One key's gate: who is in flight, who waits, and the control loop while there is something to watch.
//!
//! While all is well a call that starts adds one to a word, and one that ends adds one to another: no lock, no clock.
//! From the first timeout until nothing speaks against the server any more everything happens under one short lock;
//! wakers are woken after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::ConcurrencyState;
use super::config::Settings;
use super::control::{Control, Moment};
use super::ends::{Said, Start};
use super::evidence::Usual;
use super::limit::{Limit, Room};
use crate::blame::Caller;
use crate::event::{Event, Observed};
use crate::keyed::State;
use crate::lock::lock;
use crate::request::TargetKey;
use crate::rng::RequestRng;
use crate::time;
use crate::verdict::{Signal, Signals};

/// In `started`: what happens now happens under the lock.
const WATCHED: u64 = 1 << 63;

/// One end in `ended`; its lower half counts the answers among them, and wraps into the upper one once in 2³² answers,
/// which makes one call too few for as long as nothing is watched.
const END: u64 = 1 << 32;

/// For how long a turn that has come is kept for one who does not come for it.
const GRACE: Duration = Duration::from_secs(1);

/// By how much later each waiter looks whether those before it still do what they are there for.
const STAGGER: Duration = Duration::from_millis(20);

pub struct Gate {
    key: Arc<TargetKey>,
    settings: Arc<Settings>,
    /// Calls that were started, and whether there is something to watch. Calls in flight are those started less those
    /// ended, at any time.
    ///
    /// Orderings: a call that ends adds to `ended` and then reads `started`; whoever sets `WATCHED` does so and then
    /// reads `ended`. Both are `SeqCst`, so that one of the two sees the other, and no end is missed by the one who
    /// waits for it. All else is ordered by the lock, or is a count.
    started: AtomicU64,
    ended: AtomicU64,
    /// The highest number of a call that was answered. A lost update makes a timeout weigh more than it should, once.
    newest: AtomicU64,
    inside: Mutex<Inside>,
}

/// What the lock guards.
#[derive(Default)]
struct Inside {
    /// `Some` exactly while the word says `WATCHED`.
    control: Option<Box<Control>>,
    /// By ticket, which is the order of arrival.
    waiting: BTreeMap<u64, Waiter>,
    /// Waiters that have been given a turn and have not come for it yet.
    granted: BTreeMap<u64, Grant>,
    /// Waiters whose turn came too late, and who have not been told yet.
    late: BTreeSet<u64>,
    next_ticket: u64,
    cuts: u64,
    /// Calls that would not have been admitted, where the layer only observes.
    held: u64,
    last_cut: Option<Instant>,
    /// What the last control loop has learnt.
    usual: Usual,
    /// Made at the first cut.
    stream: Option<Box<RequestRng>>,
}

/// Who comes, and for how long it waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visitor {
    pub(super) caller: Caller,
    /// When it leaves the queue.
    pub(super) until: Instant,
    /// Its answer, too, must have come by then.
    pub(super) is_deadline: bool,
}

struct Waiter {
    visitor: Visitor,
    waker: Option<Waker>,
    /// When it was told to look again. The first of the queue holds a timer for the pace.
    timer: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Grant {
    start: Start,
    at: Instant,
}

/// What became of a request that came to the gate.
#[derive(Debug)]
pub(super) enum Entry {
    Admitted(Slot),
    Queued(WaiterId),
    /// The queue is full.
    Full(Option<Instant>),
    /// Its turn cannot come in time. With the earliest instant at which it could come, if that is known.
    Late(Option<Instant>),
}

/// What a waiter finds when it looks.
#[derive(Debug)]
pub(super) enum Turn {
    Come(Slot),
    /// Too late: an answer would not come in time.
    Late,
    /// Look again when woken, and at this instant. With the instant of the pace, if it is for the pace that it waits.
    Wait(Instant, Option<Instant>),
}

fn answers(ended: u64) -> u32 {
    ended as u32
}

impl Gate {
    pub(super) const fn key(&self) -> &Arc<TargetKey> {
        &self.key
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn new(key: TargetKey, settings: Arc<Settings>) -> Self {
        Self {
            key: Arc::new(key),
            settings,
            started: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            inside: Mutex::default(),
        }
    }

    /// Admits a call if there is nothing to watch. No lock, no clock.
    #[inline]
    pub(super) fn try_enter(self: Arc<Self>, caller: Caller) -> Result<Slot, Arc<Self>> {
        let mut word = self.started.load(Ordering::Relaxed);
        while word & WATCHED == 0 {
            match self.started.compare_exchange_weak(word, word + 1, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => {
                    let answers = answers(self.ended.load(Ordering::Relaxed));
                    return Ok(Slot::new(self, Start { number: word + 1, answers, caller }));
                }
                Err(changed) => word = changed,
            }
        }
        Err(self)
    }

    /// Admits a call, gives it a place in the queue, or turns it away.
    pub(super) fn enter(self: &Arc<Self>, visitor: Visitor, now: Instant) -> Entry {
        let mut wakes = Wakes::default();
        let entry = {
            let mut inside = lock(&self.inside);
            let entry = self.arrive(&mut inside, visitor, now, &mut wakes);
            self.settle(&mut inside, now, &mut wakes);
            entry
        };
        self.after(wakes);
        entry
    }

    fn arrive(
        self: &Arc<Self>,
        inside: &mut Inside,
        visitor: Visitor,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Entry {
        let Visitor { caller, until, .. } = visitor;
        self.rest_if_spent(inside, now, wakes);
        // Those who came before go first, also one whose pace is over and who has not looked yet.
        self.grant(inside, now, wakes);
        if inside.control.is_none() {
            // Nothing can be watched anew while the lock is held.
            let slot = Arc::clone(self).try_enter(caller).ok();
            return Entry::Admitted(slot.expect("nothing is watched"));
        }
        let in_flight = self.in_flight(inside, now);
        let tuning = &self.settings.tuning;
        let control = inside.control.as_mut().expect("it is watched");
        let room = control.room(caller, in_flight, now, tuning);
        let is_bound = control.binds(caller);
        if room == Room::Now && (inside.waiting.is_empty() || !is_bound) {
            return Entry::Admitted(Slot::new(Arc::clone(self), self.take(inside, caller, now)));
        }
        control.stands_in_the_way(now);
        if self.settings.observe_only {
            inside.held += 1;
            return Entry::Admitted(Slot::new(Arc::clone(self), self.take(inside, caller, now)));
        }
        let earliest = control.earliest(in_flight, tuning).filter(|at| *at > now);
        if until <= now || earliest.is_some_and(|at| at > until) {
            return Entry::Late(earliest);
        }
        if inside.waiting.len() >= self.settings.max_queued {
            return Entry::Full(earliest);
        }
        let ticket = inside.next_ticket;
        inside.next_ticket += 1;
        inside.waiting.insert(ticket, Waiter::new(visitor));
        Entry::Queued(WaiterId { gate: Arc::clone(self), ticket, visitor, served: false })
    }

    /// The waiter at this place looks whether its turn has come.
    fn look(self: &Arc<Self>, place: &WaiterId, now: Instant, waker: &Waker) -> Turn {
        let mut wakes = Wakes::default();
        let (turn, old) = {
            let mut inside = lock(&self.inside);
            if inside.late.remove(&place.ticket) {
                return Turn::Late;
            }
            // One whose turn had come and who did not come for it is back in its old place.
            if !inside.granted.contains_key(&place.ticket) {
                inside.waiting.entry(place.ticket).or_insert_with(|| Waiter::new(place.visitor));
            }
            self.grant(&mut inside, now, &mut wakes);
            let found = match inside.granted.remove(&place.ticket) {
                // It was its turn just now, and too late.
                None if inside.late.remove(&place.ticket) => (Turn::Late, None),
                Some(grant) => {
                    if let Some(control) = &mut inside.control {
                        control.restart(grant.start.number, now);
                    }
                    (Turn::Come(Slot::new(Arc::clone(self), grant.start)), None)
                }
                None => {
                    // A turn that has just been taken back was this one's own.
                    let waiter = || Waiter { visitor: place.visitor, waker: None, timer: None };
                    inside.waiting.entry(place.ticket).or_insert_with(waiter);
                    let (look_at, pace, old) = self.wait(&mut inside, place.ticket, now, waker);
                    (Turn::Wait(look_at, pace), old)
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

    /// When the waiter is to look again, the instant of its pace, and the waker that the new one has replaced.
    fn wait(
        &self,
        inside: &mut Inside,
        ticket: u64,
        now: Instant,
        waker: &Waker,
    ) -> (Instant, Option<Instant>, Option<Waker>) {
        let pace = self.next_timer(inside, now).filter(|(first, _)| *first == ticket).map(|(_, at)| at);
        let before = inside.waiting.first_key_value().map_or(0, |(first, _)| ticket.saturating_sub(*first));
        let waiter = inside.waiting.get_mut(&ticket).expect("it is granted, waiting, or gone");
        let known = waiter.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        let old = if known { None } else { waiter.waker.replace(waker.clone()) };
        waiter.timer = pace;
        // Nobody depends on others to be polled: whoever waits looks for itself, the sooner the nearer it is to its turn.
        let own =
            now + GRACE + STAGGER.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX).min(100_000));
        (pace.map_or(own, |pace| pace.min(own)), pace, old)
    }

    /// The waiter with this ticket is gone. A turn that it was given and did not come for passes on.
    fn leave(&self, ticket: u64, now: Instant) {
        let mut wakes = Wakes::default();
        let left = {
            let mut inside = lock(&self.inside);
            let left = inside.waiting.remove(&ticket);
            inside.late.remove(&ticket);
            if let (Some(_), Some(control)) = (&left, &mut inside.control) {
                control.stands_in_the_way(now);
            }
            if let Some(grant) = inside.granted.remove(&ticket) {
                self.give_back(&mut inside, grant.start, Signal::Neutral, now, &mut wakes);
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
    fn end(&self, signal: Signal, start: Start) {
        if signal != Signal::Timeout && self.started.load(Ordering::Relaxed) & WATCHED == 0 {
            self.count_end(signal, start);
            if self.started.load(Ordering::SeqCst) & WATCHED == 0 {
                return;
            }
            // Somebody has just begun to watch, and may have counted this call.
            return self.end_counted();
        }
        self.end_at(signal, start, time::now());
    }

    #[inline]
    fn count_end(&self, signal: Signal, start: Start) {
        let answered = signal == Signal::Success;
        self.ended.fetch_add(END + u64::from(answered), Ordering::SeqCst);
        if answered && self.newest.load(Ordering::Relaxed) < start.number {
            self.newest.store(start.number, Ordering::Relaxed);
        }
    }

    #[cold]
    fn end_counted(&self) {
        let mut wakes = Wakes::default();
        self.settle(&mut lock(&self.inside), time::now(), &mut wakes);
        self.after(wakes);
    }

    #[cold]
    fn end_at(&self, signal: Signal, start: Start, now: Instant) {
        let mut wakes = Wakes::default();
        {
            let mut inside = lock(&self.inside);
            if signal == Signal::Timeout {
                self.watch(&mut inside, now);
            }
            self.give_back(&mut inside, start, signal, now, &mut wakes);
            self.rest_if_spent(&mut inside, now, &mut wakes);
            self.settle(&mut inside, now, &mut wakes);
        }
        self.after(wakes);
    }

    /// From here on the lock is taken by all.
    fn watch(&self, inside: &mut Inside, now: Instant) {
        if inside.control.is_none() {
            let started = self.started.fetch_or(WATCHED, Ordering::SeqCst);
            inside.control = Some(Box::new(Control::new(started + 1, now, inside.usual)));
        }
    }

    /// A call is no longer in flight, and what its end says is learnt.
    fn give_back(&self, inside: &mut Inside, start: Start, signal: Signal, now: Instant, wakes: &mut Wakes) {
        let in_flight = self.in_flight(inside, now);
        self.count_end(signal, start);
        let said = match signal {
            Signal::Success => Said::Answered,
            Signal::Timeout => {
                Said::TimedOut { overtaken: self.newest.load(Ordering::Relaxed) > start.number }
            }
            _ => Said::Nothing,
        };
        let Inside { control: Some(control), stream, .. } = inside else { return };
        let draw = || stream.get_or_insert_with(|| Box::new(self.settings.chance.stream())).unit();
        let answers = answers(self.ended.load(Ordering::Relaxed));
        let started = self.started.load(Ordering::Relaxed) & !WATCHED;
        if control.end(start, said, Moment { now, started, answers, in_flight }, draw, &self.settings.tuning)
        {
            control.was_cut(started);
            inside.cuts += 1;
            inside.last_cut = Some(now);
            wakes.cut = inside.limit().map(|limit| (in_flight, limit.value()));
        }
    }

    /// Calls that were started and have not ended, and those of them that count.
    fn in_flight(&self, inside: &mut Inside, now: Instant) -> u32 {
        let all = self.all_in_flight();
        inside.control.as_mut().map_or(all, |control| control.in_flight(all, now))
    }

    fn all_in_flight(&self) -> u32 {
        let ended = self.ended.load(Ordering::SeqCst) >> 32;
        // 2³² calls in flight would need more memory than there is.
        (self.started.load(Ordering::SeqCst) as u32).wrapping_sub(ended as u32)
    }

    /// Gives turns to those who wait, first come first served. What was given and not fetched is taken back first.
    fn grant(&self, inside: &mut Inside, now: Instant, wakes: &mut Wakes) {
        while let Some((ticket, grant)) = inside.granted.first_key_value() {
            // Turns are given in the order of tickets but for those that came back, which wait a little longer then.
            if time::saturating_add(grant.at, GRACE) > now {
                break;
            }
            let (ticket, start) = (*ticket, grant.start);
            inside.granted.remove(&ticket);
            self.give_back(inside, start, Signal::Neutral, now, wakes);
        }
        while let Some((_, first)) = inside.waiting.first_key_value() {
            let Visitor { caller, until, is_deadline } = first.visitor;
            let in_flight = self.in_flight(inside, now);
            let Some(control) = &mut inside.control else { return };
            if control.room(caller, in_flight, now, &self.settings.tuning) != Room::Now {
                return;
            }
            control.stands_in_the_way(now);
            // A slot is not spent on one that will be gone before it is answered, as long as somebody else waits for it.
            let answered = time::saturating_add(now, control.least());
            let last = inside.waiting.last_key_value().map_or(until, |(_, last)| last.visitor.until);
            let is_late = until < answered || control.is_doomed(until, last, inside.waiting.len(), now);
            if is_deadline && is_late && inside.waiting.len() > 1 {
                if let Some((ticket, waiter)) = inside.waiting.pop_first() {
                    inside.late.insert(ticket);
                    wakes.wakers.extend(waiter.waker);
                }
                continue;
            }
            self.grant_first(inside, now, wakes);
        }
    }

    fn grant_first(&self, inside: &mut Inside, now: Instant, wakes: &mut Wakes) {
        if let Some((ticket, waiter)) = inside.waiting.pop_first() {
            let start = self.take(inside, waiter.visitor.caller, now);
            inside.granted.insert(ticket, Grant { start, at: now });
            wakes.wakers.extend(waiter.waker);
        }
    }

    /// Counts an admission while something is watched.
    fn take(&self, inside: &mut Inside, caller: Caller, now: Instant) -> Start {
        let in_flight = self.in_flight(inside, now);
        let number = (self.started.fetch_add(1, Ordering::SeqCst) & !WATCHED) + 1;
        let answers = answers(self.ended.load(Ordering::Relaxed));
        let Inside { control, stream, .. } = inside;
        if let Some(control) = control {
            let draw = if control.limit().is_some() {
                stream.get_or_insert_with(|| Box::new(self.settings.chance.stream())).unit()
            } else {
                0.5
            };
            control.start(number, in_flight, now, draw);
        }
        Start { number, answers, caller }
    }

    /// The first waiter and the instant of its pace, if it is for the pace alone that it waits.
    fn next_timer(&self, inside: &mut Inside, now: Instant) -> Option<(u64, Instant)> {
        let (first, caller) =
            inside.waiting.first_key_value().map(|(first, waiter)| (*first, waiter.visitor.caller))?;
        let in_flight = self.in_flight(inside, now);
        match inside.control.as_ref()?.room(caller, in_flight, now, &self.settings.tuning) {
            Room::At(at) => Some((first, at)),
            Room::Now | Room::Later => None,
        }
    }

    /// Leaves nobody behind, after anything that may have changed whose turn it is: turns are given, and the
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

    fn rest_if_spent(&self, inside: &mut Inside, now: Instant, wakes: &mut Wakes) {
        let tuning = &self.settings.tuning;
        let spent = inside.control.as_ref().is_some_and(|control| control.is_spent(now, tuning));
        if spent && inside.waiting.is_empty() {
            self.rest(inside, now, wakes);
        }
    }

    /// Nothing is watched any more: all who wait go.
    fn rest(&self, inside: &mut Inside, now: Instant, wakes: &mut Wakes) {
        let Some(control) = &inside.control else { return };
        wakes.lifted = control.limit().is_some();
        let control_usual = control.usual();
        while !inside.waiting.is_empty() {
            self.grant_first(inside, now, wakes);
        }
        inside.usual = control_usual;
        inside.control = None;
        // From here on the word is everybody's again.
        self.started.fetch_and(!WATCHED, Ordering::SeqCst);
    }

    /// Forgets what was learnt and lets all who wait go.
    pub(super) fn reset(&self) {
        let mut wakes = Wakes::default();
        self.rest(&mut lock(&self.inside), time::now(), &mut wakes);
        self.after(wakes);
    }

    pub(super) fn state(&self) -> ConcurrencyState {
        let mut inside = lock(&self.inside);
        ConcurrencyState {
            limit: inside.limit().map(Limit::value),
            in_flight: self.in_flight(&mut inside, time::now()),
            queued: inside.waiting.len(),
            cuts: inside.cuts,
            held: inside.held,
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

impl Waiter {
    const fn new(visitor: Visitor) -> Self {
        Self { visitor, waker: None, timer: None }
    }
}

impl Inside {
    fn limit(&self) -> Option<&Limit> {
        self.control.as_ref().and_then(|control| control.limit())
    }
}

impl State for Gate {
    fn is_idle(&self) -> bool {
        if self.started.load(Ordering::Relaxed) & WATCHED == 0 {
            return self.all_in_flight() == 0;
        }
        let inside = lock(&self.inside);
        let spent = |control: &Control| {
            control.has_learnt_nothing() || control.is_spent(time::now(), &self.settings.tuning)
        };
        self.all_in_flight() == 0 && inside.waiting.is_empty() && inside.control.as_deref().is_none_or(spent)
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
pub struct Slot {
    gate: Arc<Gate>,
    start: Start,
    signal: Signal,
}

impl Slot {
    const fn new(gate: Arc<Gate>, start: Start) -> Self {
        Self { gate, start, signal: Signal::Neutral }
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
        self.gate.end(self.signal, self.start);
    }
}

/// A place in the queue. Dropped, it is free, and so is the turn it may have been given meanwhile.
#[derive(Debug)]
pub(super) struct WaiterId {
    gate: Arc<Gate>,
    ticket: u64,
    visitor: Visitor,
    /// The turn was fetched: there is nothing left to leave.
    served: bool,
}

impl WaiterId {
    /// The error of a request that gives it up.
    pub(super) fn limited(
        &self,
        why: super::ConcurrencyReason,
        until: Option<Instant>,
    ) -> super::ConcurrencyLimited {
        super::ConcurrencyLimited::new(Arc::clone(self.gate.key()), why, until)
    }

    /// Not again after [`Turn::Come`].
    pub(super) fn look(&mut self, now: Instant, waker: &Waker) -> Turn {
        let gate = Arc::clone(&self.gate);
        let turn = gate.look(self, now, waker);
        self.served = matches!(turn, Turn::Come(_));
        turn
    }
}

impl Drop for WaiterId {
    fn drop(&mut self) {
        if !self.served {
            self.gate.leave(self.ticket, time::now());
        }
    }
}
