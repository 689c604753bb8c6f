//! What the lock of a gate guards: who waits, whose turn it is, and the control loop while there is something to watch.
//!
//! No lock and no clock of its own; what is to be done once the lock is gone comes back in [`Wakes`].

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::before::Before;
use super::config::Settings;
use super::control::{Control, Moment};
use super::ends::{Said, Start};
use super::evidence::Usual;
use super::in_flight::InFlight;
use super::limit::{Limit, Room};
use crate::blame::Caller;
use crate::rng::RequestRng;
use crate::time;
use crate::verdict::Signal;

/// For how long a turn that has come is kept for one who does not come for it.
const GRACE: Duration = Duration::from_secs(1);

/// By how much later each waiter looks whether those before it still do what they are there for.
const STAGGER: Duration = Duration::from_millis(20);

/// What an operation is done with: the counts of the key, the settings, and when.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) calls: &'a InFlight,
    pub(super) settings: &'a Settings,
    pub(super) now: Instant,
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

/// What becomes of one who comes.
pub(super) enum Arrival {
    Admitted(Start),
    /// With its ticket.
    Queued(u64),
    /// The queue is full.
    Full(Option<Instant>),
    /// Its turn cannot come in time. With the earliest instant at which it could come, if that is known.
    Late(Option<Instant>),
}

/// What a waiter finds when it looks.
pub(super) enum Found {
    Come(Start),
    /// Too late: an answer would not come in time.
    Late,
    /// Look again at this instant. With the instant of the pace, if it is for the pace that it waits.
    Wait(Instant, Option<Instant>),
}

/// What is left to do when the lock is gone. Dropping a waker may run the caller's code, so those that are spent are
/// here as well.
#[derive(Default)]
pub(super) struct Wakes {
    pub(super) wakers: Vec<Waker>,
    pub(super) spent: Option<Waker>,
    pub(super) cut: Option<(u32, f64)>,
    pub(super) lifted: bool,
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

#[derive(Default)]
pub(super) struct Queue {
    /// `Some` exactly while something is watched.
    control: Option<Box<Control>>,
    /// By ticket, which is the order of arrival.
    waiting: BTreeMap<u64, Waiter>,
    /// Waiters that have been given a turn and have not come for it yet.
    granted: BTreeMap<u64, Grant>,
    /// Waiters whose turn came too late, and who have not been told yet.
    late: BTreeSet<u64>,
    next_ticket: u64,
    pub(super) cuts: u64,
    /// Calls that would not have been admitted, where the layer only observes.
    pub(super) held: u64,
    pub(super) last_cut: Option<Instant>,
    /// What the last control loop has learnt.
    usual: Usual,
    /// What was usual while nothing was watched.
    pub(super) before: Before,
    /// Made at the first cut.
    stream: Option<Box<RequestRng>>,
}

impl Queue {
    /// Admits a call, gives it a place in the queue, or turns it away.
    pub(super) fn arrive(&mut self, at: At<'_>, visitor: Visitor, wakes: &mut Wakes) -> Arrival {
        let Visitor { caller, until, .. } = visitor;
        let At { settings, now, .. } = at;
        self.rest_if_spent(at, wakes);
        // Those who came before go first, also one whose pace is over and who has not looked yet.
        self.grant(at, wakes);
        let in_flight = self.in_flight(at);
        let Some(control) = &mut self.control else {
            // Nothing can be watched anew while the lock is held.
            return Arrival::Admitted(at.calls.try_start(caller).expect("nothing is watched"));
        };
        let room = control.room(caller, in_flight, now, &settings.tuning);
        let is_bound = control.binds(caller);
        if room == Room::Now && (self.waiting.is_empty() || !is_bound) {
            return Arrival::Admitted(self.take(at, caller));
        }
        control.stands_in_the_way(now);
        if settings.observe_only {
            self.held += 1;
            return Arrival::Admitted(self.take(at, caller));
        }
        let earliest = control.earliest(in_flight, &settings.tuning).filter(|at| *at > now);
        if until <= now || earliest.is_some_and(|at| at > until) {
            return Arrival::Late(earliest);
        }
        if self.waiting.len() >= settings.max_queued {
            return Arrival::Full(earliest);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, Waiter::new(visitor));
        Arrival::Queued(ticket)
    }

    /// The waiter with this ticket looks whether its turn has come.
    pub(super) fn look(
        &mut self,
        at: At<'_>,
        ticket: u64,
        visitor: Visitor,
        waker: &Waker,
        wakes: &mut Wakes,
    ) -> Found {
        if self.late.remove(&ticket) {
            return Found::Late;
        }
        // One whose turn had come and who did not come for it is back in its old place.
        if !self.granted.contains_key(&ticket) {
            self.waiting.entry(ticket).or_insert_with(|| Waiter::new(visitor));
        }
        self.grant(at, wakes);
        let found = match self.granted.remove(&ticket) {
            // It was its turn just now, and too late.
            None if self.late.remove(&ticket) => Found::Late,
            Some(grant) => {
                if let Some(control) = &mut self.control {
                    control.restart(grant.start.number, at.now);
                }
                Found::Come(grant.start)
            }
            None => {
                // A turn that has just been taken back was this one's own.
                self.waiting.entry(ticket).or_insert_with(|| Waiter::new(visitor));
                self.wait(at, ticket, waker, wakes)
            }
        };
        self.settle(at, wakes);
        found
    }

    /// When the waiter is to look again.
    fn wait(&mut self, at: At<'_>, ticket: u64, waker: &Waker, wakes: &mut Wakes) -> Found {
        let pace = self.next_timer(at).filter(|(first, _)| *first == ticket).map(|(_, at)| at);
        let before = self.waiting.first_key_value().map_or(0, |(first, _)| ticket.saturating_sub(*first));
        let waiter = self.waiting.get_mut(&ticket).expect("it is granted, waiting, or gone");
        if !waiter.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            wakes.spent = waiter.waker.replace(waker.clone());
        }
        waiter.timer = pace;
        // Nobody depends on others to be polled: whoever waits looks for itself, the sooner the nearer it is to its turn.
        let before = u32::try_from(before).unwrap_or(u32::MAX).min(100_000);
        let own = at.now + GRACE + STAGGER.saturating_mul(before);
        Found::Wait(pace.map_or(own, |pace| pace.min(own)), pace)
    }

    /// The waiter with this ticket is gone. A turn that it was given and did not come for passes on.
    pub(super) fn leave(&mut self, at: At<'_>, ticket: u64, wakes: &mut Wakes) {
        let left = self.waiting.remove(&ticket);
        self.late.remove(&ticket);
        if let (Some(_), Some(control)) = (&left, &mut self.control) {
            control.stands_in_the_way(at.now);
        }
        if let Some(grant) = self.granted.remove(&ticket) {
            self.give_back(at, grant.start, Signal::Neutral, wakes);
        }
        self.settle(at, wakes);
        wakes.spent = left.and_then(|waiter| waiter.waker);
    }

    /// A call is over.
    pub(super) fn end(&mut self, at: At<'_>, signal: Signal, start: Start, wakes: &mut Wakes) {
        if signal == Signal::Timeout && self.control.is_none() {
            let started = at.calls.watch();
            let control = Control::new(started + 1, at.now, self.usual);
            let level = self.before.level(started, at.now).unwrap_or(0.0);
            self.control = Some(Box::new(control.after(level, self.before.latency())));
        }
        self.give_back(at, start, signal, wakes);
        self.rest_if_spent(at, wakes);
        self.settle(at, wakes);
    }

    /// A call is no longer in flight, and what its end says is learnt.
    fn give_back(&mut self, at: At<'_>, start: Start, signal: Signal, wakes: &mut Wakes) {
        let At { calls, settings, now } = at;
        let in_flight = self.in_flight(at);
        calls.end(signal, start);
        self.before.end(start.number, None);
        let said = match signal {
            Signal::Success => Said::Answered,
            Signal::Timeout => Said::TimedOut { overtaken: calls.is_overtaken(start) },
            _ => Said::Nothing,
        };
        let Self { control: Some(control), stream, .. } = self else { return };
        let draw = || stream.get_or_insert_with(|| Box::new(settings.chance.stream())).unit();
        let started = calls.started();
        let moment = Moment { now, started, answers: calls.answers(), in_flight };
        if control.end(start, said, moment, draw, &settings.tuning) {
            control.was_cut(started);
            self.cuts += 1;
            self.last_cut = Some(now);
            wakes.cut = self.limit().map(|limit| (in_flight, limit));
        }
    }

    /// Calls that were started and have not ended, and those of them that count.
    pub(super) fn in_flight(&mut self, at: At<'_>) -> u32 {
        let all = at.calls.count();
        self.control.as_mut().map_or(all, |control| control.in_flight(all, at.now))
    }

    /// Gives turns to those who wait, first come first served. What was given and not fetched is taken back first.
    fn grant(&mut self, at: At<'_>, wakes: &mut Wakes) {
        let At { settings, now, .. } = at;
        while let Some((ticket, grant)) = self.granted.first_key_value() {
            // Turns are given in the order of tickets but for those that came back, which wait a little longer then.
            if time::saturating_add(grant.at, GRACE) > now {
                break;
            }
            let (ticket, start) = (*ticket, grant.start);
            self.granted.remove(&ticket);
            self.give_back(at, start, Signal::Neutral, wakes);
        }
        while let Some((_, first)) = self.waiting.first_key_value() {
            let Visitor { caller, until, is_deadline } = first.visitor;
            let in_flight = self.in_flight(at);
            let Some(control) = &mut self.control else { return };
            if control.room(caller, in_flight, now, &settings.tuning) != Room::Now {
                return;
            }
            control.stands_in_the_way(now);
            // A slot is not spent on one that will be gone before it is answered, as long as somebody else waits for it.
            let answered = time::saturating_add(now, control.least());
            let last = self.waiting.last_key_value().map_or(until, |(_, last)| last.visitor.until);
            let is_late = until < answered || control.is_doomed(until, last, self.waiting.len(), now);
            if is_deadline && is_late && self.waiting.len() > 1 {
                if let Some((ticket, waiter)) = self.waiting.pop_first() {
                    self.late.insert(ticket);
                    wakes.wakers.extend(waiter.waker);
                }
                continue;
            }
            self.grant_first(at, wakes);
        }
    }

    fn grant_first(&mut self, at: At<'_>, wakes: &mut Wakes) {
        if let Some((ticket, waiter)) = self.waiting.pop_first() {
            let start = self.take(at, waiter.visitor.caller);
            self.granted.insert(ticket, Grant { start, at: at.now });
            wakes.wakers.extend(waiter.waker);
        }
    }

    /// Counts an admission while something is watched.
    fn take(&mut self, at: At<'_>, caller: Caller) -> Start {
        let in_flight = self.in_flight(at);
        let start = at.calls.start_watched(caller);
        let Self { control, stream, .. } = self;
        if let Some(control) = control {
            let draw = if control.limit().is_some() {
                stream.get_or_insert_with(|| Box::new(at.settings.chance.stream())).unit()
            } else {
                0.5
            };
            control.start(start.number, in_flight, at.now, draw);
        }
        start
    }

    /// The first waiter and the instant of its pace, if it is for the pace alone that it waits.
    fn next_timer(&mut self, at: At<'_>) -> Option<(u64, Instant)> {
        let (first, caller) =
            self.waiting.first_key_value().map(|(first, waiter)| (*first, waiter.visitor.caller))?;
        let in_flight = self.in_flight(at);
        match self.control.as_ref()?.room(caller, in_flight, at.now, &at.settings.tuning) {
            Room::At(at) => Some((first, at)),
            Room::Now | Room::Later => None,
        }
    }

    /// Leaves nobody behind, after anything that may have changed whose turn it is: turns are given, and the
    /// first waiter is woken if it does not hold the timer that it should, because it has just become the first or
    /// the pace has changed.
    pub(super) fn settle(&mut self, at: At<'_>, wakes: &mut Wakes) {
        self.grant(at, wakes);
        let Some((first, pace)) = self.next_timer(at) else { return };
        let waiter = self.waiting.get_mut(&first).expect("it is the first");
        if waiter.timer != Some(pace) {
            // Told once: it will look, and then hold the timer.
            waiter.timer = Some(pace);
            wakes.wakers.extend(waiter.waker.clone());
        }
    }

    fn rest_if_spent(&mut self, at: At<'_>, wakes: &mut Wakes) {
        let spent =
            self.control.as_ref().is_some_and(|control| control.is_spent(at.now, &at.settings.tuning));
        if spent && self.waiting.is_empty() {
            self.rest(at, wakes);
        }
    }

    /// Nothing is watched any more: all who wait go.
    pub(super) fn rest(&mut self, at: At<'_>, wakes: &mut Wakes) {
        let Some(control) = &self.control else { return };
        wakes.lifted = control.limit().is_some();
        let usual = control.usual();
        while !self.waiting.is_empty() {
            self.grant_first(at, wakes);
        }
        self.usual = usual;
        self.control = None;
        at.calls.unwatch();
    }

    /// How many calls may be in flight.
    pub(super) fn limit(&self) -> Option<f64> {
        self.control.as_ref().and_then(|control| control.limit()).map(Limit::value)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing would be lost if it were made anew. Asked while no call is in flight.
    pub(super) fn is_idle(&self, at: At<'_>) -> bool {
        let spent =
            |control: &Control| control.has_learnt_nothing() || control.is_spent(at.now, &at.settings.tuning);
        self.waiting.is_empty() && self.control.as_deref().is_none_or(spent)
    }
}

impl Waiter {
    const fn new(visitor: Visitor) -> Self {
        Self { visitor, waker: None, timer: None }
    }
}
