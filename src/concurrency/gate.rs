//! One key's gate: who is in flight, who waits, and the control loop while there is something to watch.
//!
//! While all is well a call that starts adds one to a word, and one that ends adds one to another; one in 16 takes the lock and looks at
//! the clock, to know what is usual.
//! From the first timeout until nothing speaks against the server any more everything happens under one short lock;
//! wakers are woken after it.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use tokio::time::Instant;

use super::ConcurrencyState;
use super::before::Before;
use super::config::Settings;
use super::ends::Start;
use super::in_flight::InFlight;
use super::queue::{Arrival, At, Found, Queue, Visitor, Wakes};
use crate::blame::Caller;
use crate::event::{Event, Observed};
use crate::keyed::State;
use crate::lock::lock;
use crate::request::TargetKey;
use crate::time;
use crate::verdict::{Signal, Signals};

pub struct Gate {
    key: Arc<TargetKey>,
    settings: Arc<Settings>,
    calls: InFlight,
    queue: Mutex<Queue>,
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

impl Gate {
    pub(super) const fn key(&self) -> &Arc<TargetKey> {
        &self.key
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn new(key: TargetKey, settings: Arc<Settings>) -> Self {
        Self { key: Arc::new(key), settings, calls: InFlight::default(), queue: Mutex::default() }
    }

    /// Admits a call if there is nothing to watch. No lock and no clock but for one in 16.
    #[inline]
    pub(super) fn try_enter(self: Arc<Self>, caller: Caller) -> Result<Slot, Arc<Self>> {
        match self.calls.try_start(caller) {
            Some(start) => {
                if Before::follows(start.number) {
                    self.follow(start.number);
                }
                Ok(Slot::new(self, start))
            }
            None => Err(self),
        }
    }

    /// Admits a call, gives it a place in the queue, or turns it away.
    pub(super) fn enter(self: &Arc<Self>, visitor: Visitor, now: Instant) -> Entry {
        let arrival = self.with(now, |queue, at, wakes| {
            let arrival = queue.arrive(at, visitor, wakes);
            queue.settle(at, wakes);
            arrival
        });
        match arrival {
            Arrival::Admitted(start) => Entry::Admitted(Slot::new(Arc::clone(self), start)),
            Arrival::Queued(ticket) => {
                Entry::Queued(WaiterId { gate: Arc::clone(self), ticket, visitor, served: false })
            }
            Arrival::Full(earliest) => Entry::Full(earliest),
            Arrival::Late(earliest) => Entry::Late(earliest),
        }
    }

    /// A call is over.
    #[inline]
    fn end(&self, signal: Signal, start: Start) {
        if signal != Signal::Timeout && !self.calls.looks_watched() {
            self.calls.end(signal, start);
            if Before::follows(start.number) {
                self.followed(signal, start.number);
            }
            if !self.calls.is_watched() {
                return;
            }
            // Somebody has just begun to watch, and may have counted this call.
            return self.end_counted();
        }
        self.end_at(signal, start, time::now());
    }

    /// Notes when one call in some began, while all is well.
    #[cold]
    fn follow(&self, number: u64) {
        lock(&self.queue).before.start(number, time::now());
    }

    #[cold]
    fn followed(&self, signal: Signal, number: u64) {
        let answered = (signal == Signal::Success).then(time::now);
        lock(&self.queue).before.end(number, answered);
    }

    #[cold]
    fn end_counted(&self) {
        self.with(time::now(), |queue, at, wakes| queue.settle(at, wakes));
    }

    #[cold]
    fn end_at(&self, signal: Signal, start: Start, now: Instant) {
        self.with(now, |queue, at, wakes| queue.end(at, signal, start, wakes));
    }

    /// Forgets what was learnt and lets all who wait go.
    pub(super) fn reset(&self) {
        self.with(time::now(), |queue, at, wakes| queue.rest(at, wakes));
    }

    pub(super) fn state(&self) -> ConcurrencyState {
        let mut queue = lock(&self.queue);
        ConcurrencyState {
            limit: queue.limit(),
            in_flight: queue.in_flight(self.at(time::now())),
            queued: queue.len(),
            cuts: queue.cuts,
            held: queue.held,
            last_cut: queue.last_cut,
        }
    }

    fn at(&self, now: Instant) -> At<'_> {
        At { calls: &self.calls, settings: &self.settings, now }
    }

    /// Acts under the lock, and does what is left to do once it is gone.
    fn with<T>(&self, now: Instant, act: impl FnOnce(&mut Queue, At<'_>, &mut Wakes) -> T) -> T {
        let mut wakes = Wakes::default();
        let result = act(&mut lock(&self.queue), self.at(now), &mut wakes);
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
        result
    }
}

impl State for Gate {
    fn is_idle(&self) -> bool {
        if !self.calls.looks_watched() {
            return self.calls.count() == 0;
        }
        let queue = lock(&self.queue);
        self.calls.count() == 0 && queue.is_idle(self.at(time::now()))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("key", &self.key).field("state", &self.state()).finish_non_exhaustive()
    }
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

    pub(super) fn key(&self) -> &TargetKey {
        self.gate.key()
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
        let (ticket, visitor) = (self.ticket, self.visitor);
        let look =
            |queue: &mut Queue, at: At<'_>, wakes: &mut Wakes| queue.look(at, ticket, visitor, waker, wakes);
        let turn = match self.gate.with(now, look) {
            Found::Come(start) => Turn::Come(Slot::new(Arc::clone(&self.gate), start)),
            Found::Late => Turn::Late,
            Found::Wait(look_again, pace) => Turn::Wait(look_again, pace),
        };
        self.served = matches!(turn, Turn::Come(_));
        turn
    }
}

impl Drop for WaiterId {
    fn drop(&mut self) {
        if !self.served {
            self.gate.with(time::now(), |queue, at, wakes| queue.leave(at, self.ticket, wakes));
        }
    }
}
