//! Who waits, in the order of arrival. Pure: it knows no time and decides nothing.
//!
//! A doubly linked list in a slab, so that the head leaves, a newcomer joins and anybody cancels in constant time;
//! the deadlines lie in a tree beside it. A place takes 88 bytes, and memory goes back when the queue is empty.

use std::collections::BTreeSet;

use super::admission::Receipt;
use super::estimate::Cost;
use super::refusal::Refusal;
use super::window::Nanos;

/// No place.
const NIL: u32 = u32::MAX;
/// No deadline.
pub(super) const NEVER: Nanos = Nanos::MAX;
/// Places that are kept when the queue has emptied.
const KEPT: usize = 64;

/// A waiter's place. Valid until [`Queue::leave`] or [`Queue::take`] gave it back.
pub(super) type Place = u32;

#[derive(Debug)]
pub(super) struct Queue<W> {
    places: Vec<Waiter<W>>,
    /// The first of the free places, which are linked by `next`.
    free: Place,
    head: Place,
    tail: Place,
    /// Who is queued, without those that were answered.
    len: usize,
    /// Of them, those without a deadline.
    undated: usize,
    /// The tokens of all that are queued, as they were when they came.
    tokens: u64,
    deadlines: BTreeSet<(Nanos, Place)>,
    /// Places in use, answered ones included.
    used: usize,
}

#[derive(Debug)]
struct Waiter<W> {
    prev: Place,
    next: Place,
    cost: Cost,
    /// What was added to `Queue::tokens`.
    tokens: u32,
    deadline: Nanos,
    state: State,
    waker: Option<W>,
}

#[derive(Debug)]
enum State {
    Free,
    Queued,
    Answered(Result<Receipt, Refusal>),
}

impl<W> Queue<W> {
    pub(super) const fn new() -> Self {
        Self {
            places: Vec::new(),
            free: NIL,
            head: NIL,
            tail: NIL,
            len: 0,
            undated: 0,
            tokens: 0,
            deadlines: BTreeSet::new(),
            used: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Places in use: those who wait, and those who were answered and have not looked yet.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    pub(super) const fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Joins the end of the queue.
    pub(super) fn join(&mut self, cost: Cost, tokens: u32, deadline: Nanos) -> Place {
        self.join_between(self.tail, NIL, cost, tokens, deadline)
    }

    /// Joins before all others.
    pub(super) fn join_first(&mut self, cost: Cost, tokens: u32, deadline: Nanos) -> Place {
        self.join_between(NIL, self.head, cost, tokens, deadline)
    }

    fn join_between(&mut self, prev: Place, next: Place, cost: Cost, tokens: u32, deadline: Nanos) -> Place {
        let waiter = Waiter { prev, next, cost, tokens, deadline, state: State::Queued, waker: None };
        let place = if self.free == NIL {
            self.places.push(waiter);
            // A queue is bounded far below 2³².
            self.places.len() as Place - 1
        } else {
            let place = self.free;
            self.free = self.places[place as usize].next;
            self.places[place as usize] = waiter;
            place
        };
        match prev {
            NIL => self.head = place,
            prev => self.places[prev as usize].next = place,
        }
        match next {
            NIL => self.tail = place,
            next => self.places[next as usize].prev = place,
        }
        self.len += 1;
        self.used += 1;
        self.tokens += u64::from(tokens);
        if deadline == NEVER {
            self.undated += 1;
        } else {
            self.deadlines.insert((deadline, place));
        }
        place
    }

    pub(super) fn head(&self) -> Option<Place> {
        Some(self.head).filter(|place| *place != NIL)
    }

    pub(super) fn tail(&self) -> Option<Place> {
        Some(self.tail).filter(|place| *place != NIL)
    }

    pub(super) fn deadline(&self, place: Place) -> Nanos {
        self.places[place as usize].deadline
    }

    /// The next in the queue.
    pub(super) fn after(&self, place: Place) -> Option<Place> {
        Some(self.places[place as usize].next).filter(|next| *next != NIL)
    }

    /// The queued ones, first come first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Place> {
        std::iter::successors(self.head(), |place| self.after(*place))
    }

    pub(super) fn cost(&self, place: Place) -> Cost {
        self.places[place as usize].cost
    }

    pub(super) fn is_queued(&self, place: Place) -> bool {
        matches!(self.places[place as usize].state, State::Queued)
    }

    /// Answers a waiter, who then is no longer queued; its place stays until it has looked. Returns whom to wake.
    pub(super) fn answer(&mut self, place: Place, answer: Result<Receipt, Refusal>) -> Option<W> {
        self.unlink(place);
        let waiter = &mut self.places[place as usize];
        waiter.state = State::Answered(answer);
        waiter.waker.take()
    }

    /// The answer, if there is one; the place is given back then.
    pub(super) fn take(&mut self, place: Place) -> Option<Result<Receipt, Refusal>> {
        if self.is_queued(place) {
            return None;
        }
        let state = std::mem::replace(&mut self.places[place as usize].state, State::Free);
        self.give_back(place);
        match state {
            State::Answered(answer) => Some(answer),
            State::Free | State::Queued => unreachable!("a place is looked at by its owner only"),
        }
    }

    /// Leaves, queued or answered. Returns the answer that was not looked at.
    pub(super) fn leave(&mut self, place: Place) -> Option<Result<Receipt, Refusal>> {
        if self.is_queued(place) {
            self.unlink(place);
            self.places[place as usize].state = State::Free;
            self.give_back(place);
            return None;
        }
        self.take(place)
    }

    pub(super) fn waker(&mut self, place: Place) -> &mut Option<W> {
        &mut self.places[place as usize].waker
    }

    pub(super) fn has_waker(&self, place: Place) -> bool {
        self.places[place as usize].waker.is_some()
    }

    /// Somebody whose deadline is before `instant`.
    pub(super) fn too_late(&self, instant: Nanos) -> Option<Place> {
        self.deadlines.first().filter(|first| first.0 < instant).map(|first| first.1)
    }

    /// Those who have no deadline.
    pub(super) fn undated(&self) -> Vec<Place> {
        if self.undated == 0 {
            return Vec::new();
        }
        self.iter().filter(|place| self.places[*place as usize].deadline == NEVER).collect()
    }

    fn unlink(&mut self, place: Place) {
        let Waiter { prev, next, tokens, deadline, .. } = self.places[place as usize];
        match prev {
            NIL => self.head = next,
            prev => self.places[prev as usize].next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => self.places[next as usize].prev = prev,
        }
        self.len -= 1;
        self.tokens -= u64::from(tokens);
        if deadline == NEVER {
            self.undated -= 1;
        } else {
            self.deadlines.remove(&(deadline, place));
        }
    }

    fn give_back(&mut self, place: Place) {
        let waiter = &mut self.places[place as usize];
        waiter.next = self.free;
        waiter.waker = None;
        self.free = place;
        self.used -= 1;
        if self.used == 0 && self.places.len() > KEPT {
            // A storm is over: its memory goes back.
            self.places = Vec::new();
            self.free = NIL;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limit::estimate::Trust;

    #[test]
    fn a_place_is_small_and_memory_goes_back() {
        assert!(size_of::<Waiter<std::task::Waker>>() <= 96, "{}", size_of::<Waiter<std::task::Waker>>());
        let mut queue: Queue<()> = Queue::new();
        let cost = Cost { tokens: 1, trust: Trust::Exact };
        let places: Vec<_> = (0..1_000).map(|n| queue.join(cost, 1, NEVER - n % 2)).collect();
        assert_eq!((queue.len(), queue.tokens(), queue.deadlines.len()), (1_000, 1_000, 500));
        for place in places {
            assert!(queue.leave(place).is_none());
        }
        assert_eq!((queue.used(), queue.places.capacity(), queue.deadlines.len()), (0, 0, 0));
        assert_eq!((queue.len(), queue.tokens(), queue.undated), (0, 0, 0));
        // And it works again.
        let place = queue.join(cost, 1, NEVER);
        assert_eq!(queue.head(), Some(place));
    }

    #[test]
    fn a_few_places_are_kept() {
        let cost = Cost { tokens: 1, trust: Trust::Exact };
        for (count, kept) in [(KEPT, KEPT), (KEPT + 1, 0)] {
            let mut queue: Queue<()> = Queue::new();
            let places: Vec<_> = (0..count).map(|_| queue.join(cost, 1, NEVER)).collect();
            for place in places {
                queue.leave(place);
            }
            assert_eq!(queue.places.len(), kept);
        }
    }

    #[test]
    fn those_without_a_deadline_are_found() {
        let mut queue: Queue<()> = Queue::new();
        let cost = Cost { tokens: 1, trust: Trust::Exact };
        let places = [NEVER, 7, NEVER, 9].map(|deadline| queue.join(cost, 1, deadline));
        assert_eq!(queue.undated(), [places[0], places[2]]);
        queue.leave(places[0]);
        queue.leave(places[2]);
        assert_eq!((queue.undated(), queue.undated), (Vec::new(), 0));
    }
}
