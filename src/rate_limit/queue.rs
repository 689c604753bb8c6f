//! Who waits, in the order of arrival. Pure: it knows no time and decides nothing.
//!
//! Interactive requests join before the batch ones that are the last of the queue, up to their weight for each of them: so a batch
//! request is passed by at most that many that came later, and as many for each batch request before it.
//!
//! A doubly linked list in a slab, so that the head leaves, a newcomer joins and anybody cancels in constant time;
//! the deadlines lie in a tree beside it. Those who were granted and have not looked yet are a second list of the same
//! places. A place takes 96 bytes, and memory goes back when the queue is empty.
//!
//! A waiter that is not polled is *parked*: it is in neither list, nobody waits for it, and when it is polled again it
//! is back where it was.

use std::collections::BTreeSet;

use super::decision::Receipt;
use super::error::Refusal;
use super::estimate::Cost;
use super::window::Nanos;

/// No place.
const NIL: u32 = u32::MAX;
/// No deadline.
pub(super) const NEVER: Nanos = Nanos::MAX;
/// How many of the grants that are not fetched are looked at.
const GRANTS: usize = 64;
/// How many interactive requests go for each batch request while both wait, unless set.
pub(super) const DEFAULT_WEIGHT: u32 = 8;
/// Places that are kept when the queue has emptied.
const KEPT: usize = 64;

/// A waiter's place. Valid until [`Queue::leave`] or [`Queue::take`] gave it back.
pub(super) type WaiterId = u32;

#[derive(Debug)]
pub(super) struct Queue<W> {
    places: Vec<Waiter<W>>,
    /// The first of the free places, which are linked by `next`.
    free: WaiterId,
    queued: Ends,
    granted: Ends,
    /// The number of the next that joins. Wraps: two that wait at the same time are never 2³¹ apart.
    joined: u32,
    /// Who is queued, without those that were answered or parked.
    len: usize,
    /// Who is parked.
    parked: usize,
    /// Of them, those without a deadline.
    undated: usize,
    /// How many interactive requests go for each batch request while both wait.
    weight: u32,
    /// Who is queued and is a batch request.
    batch: usize,
    /// Interactive requests that were granted since a batch request was, while one waited.
    since_batch: u32,
    /// The tokens of all that are queued, as they were when they came.
    tokens: u64,
    deadlines: BTreeSet<(Nanos, WaiterId)>,
    /// Places in use, answered ones included.
    used: usize,
}

/// The first and the last of a list.
#[derive(Clone, Copy, Debug)]
struct Ends {
    head: WaiterId,
    tail: WaiterId,
}

impl Ends {
    const NONE: Self = Self { head: NIL, tail: NIL };
}

#[derive(Debug)]
struct Waiter<W> {
    prev: WaiterId,
    next: WaiterId,
    cost: Cost,
    /// What was added to `Queue::tokens`.
    tokens: u32,
    /// Those who came before have a smaller one.
    number: u32,
    deadline: Nanos,
    /// When its owner looks again at the latest, by a timer of its own; once it is granted, until when it has to fetch
    /// its grant.
    look_at: Nanos,
    state: State,
    waker: Option<W>,
}

#[derive(Debug)]
enum State {
    Free,
    Queued,
    Answered(Result<Receipt, Refusal>),
    Parked,
}

impl<W> Queue<W> {
    /// So many interactive requests go for each batch request while both wait; with 0 all are in the order of arrival.
    pub(super) const fn new(weight: u32) -> Self {
        Self {
            weight,
            places: Vec::new(),
            free: NIL,
            queued: Ends::NONE,
            granted: Ends::NONE,
            joined: 0,
            len: 0,
            parked: 0,
            undated: 0,
            batch: 0,
            since_batch: 0,
            tokens: 0,
            deadlines: BTreeSet::new(),
            used: 0,
        }
    }

    pub(super) const fn set_weight(&mut self, weight: u32) {
        self.weight = weight;
    }

    /// How many interactive requests go for each batch request.
    #[cfg(feature = "fleet")]
    pub(super) const fn weight(&self) -> u32 {
        self.weight
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Places in use: those who wait, those who were answered and have not looked yet, and those who are parked.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Places that count as waiting: all in use but the parked ones.
    pub(super) const fn busy(&self) -> usize {
        self.used - self.parked
    }

    pub(super) const fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Where a request joins: before this one, or at the end; and how many requests and tokens are ahead of it there.
    pub(super) fn turn_of(&self, cost: Cost) -> (Option<WaiterId>, (u64, u64)) {
        let mut ahead = (self.len as u64, self.tokens);
        if self.batch == 0 || self.weight == 0 || cost.is_batch() {
            return (None, ahead);
        }
        let is_batch = |place: WaiterId| self.places[place as usize].cost.is_batch();
        let (mut before, mut last) = (NIL, self.queued.tail);
        while last != NIL && is_batch(last) {
            let Waiter { prev, tokens, .. } = self.places[last as usize];
            ahead = (ahead.0 - 1, ahead.1 - u64::from(tokens));
            (before, last) = (last, prev);
        }
        // Those that the first of them is passed by already.
        let mut passed = 0;
        while passed < self.weight && last != NIL && !is_batch(last) {
            (passed, last) = (passed + 1, self.places[last as usize].prev);
        }
        if last == NIL {
            passed += self.since_batch;
        }
        if passed >= self.weight && before != NIL {
            let Waiter { next, tokens, .. } = self.places[before as usize];
            ahead = (ahead.0 + 1, ahead.1 + u64::from(tokens));
            before = next;
        }
        (Some(before).filter(|before| *before != NIL), ahead)
    }

    /// Joins where [its turn](Self::turn_of) is.
    pub(super) fn join(&mut self, cost: Cost, tokens: u32, deadline: Nanos, look_at: Nanos) -> WaiterId {
        if cost.is_batch() && self.batch == 0 {
            self.since_batch = 0;
        }
        let before = self.turn_of(cost).0;
        let number = before.map_or(self.joined, |before| self.number(before));
        if before.is_some() {
            // Those behind it, and the parked ones that will be, move up by one.
            for waiter in &mut self.places {
                if waiter.number.wrapping_sub(number) < 1 << 31 {
                    waiter.number = waiter.number.wrapping_add(1);
                }
            }
        }
        self.joined = self.joined.wrapping_add(1);
        self.join_before(before.unwrap_or(NIL), number, (cost, tokens), deadline, look_at)
    }

    /// How many are queued up to the last interactive request; 0 where only batch requests are.
    #[cfg(feature = "fleet")]
    pub(super) fn interactive(&self) -> usize {
        if self.batch == 0 {
            return self.len;
        }
        let before = |place: &WaiterId| Some(self.places[*place as usize].prev).filter(|prev| *prev != NIL);
        let batch = |place: &WaiterId| self.places[*place as usize].cost.is_batch();
        self.len - std::iter::successors(self.tail(), before).take_while(batch).count()
    }

    /// Joins before all who are queued. Those who are parked and came before the present head still come before it.
    pub(super) fn join_first(
        &mut self,
        cost: Cost,
        tokens: u32,
        deadline: Nanos,
        look_at: Nanos,
    ) -> WaiterId {
        let Some(head) = self.head() else { return self.join(cost, tokens, deadline, look_at) };
        // Nobody else who is queued has this number; one that is parked may, and then came first.
        let number = self.number(head).wrapping_sub(1);
        self.join_before(head, number, (cost, tokens), deadline, look_at)
    }

    fn join_before(
        &mut self,
        before: WaiterId,
        number: u32,
        (cost, tokens): (Cost, u32),
        deadline: Nanos,
        look_at: Nanos,
    ) -> WaiterId {
        let waiter = Waiter {
            prev: NIL,
            next: NIL,
            cost,
            tokens,
            number,
            deadline,
            look_at,
            state: State::Queued,
            waker: None,
        };
        let place = if self.free == NIL {
            self.places.push(waiter);
            // A queue is bounded far below 2³².
            self.places.len() as WaiterId - 1
        } else {
            let place = self.free;
            self.free = self.places[place as usize].next;
            self.places[place as usize] = waiter;
            place
        };
        self.used += 1;
        link(&mut self.places, &mut self.queued, place, before);
        self.count(place);
        place
    }

    /// Counts one that was queued.
    fn count(&mut self, place: WaiterId) {
        let Waiter { tokens, deadline, cost, .. } = self.places[place as usize];
        self.len += 1;
        self.batch += usize::from(cost.is_batch());
        self.tokens += u64::from(tokens);
        if deadline == NEVER {
            self.undated += 1;
        } else {
            self.deadlines.insert((deadline, place));
        }
    }

    pub(super) fn head(&self) -> Option<WaiterId> {
        Some(self.queued.head).filter(|place| *place != NIL)
    }

    pub(super) fn tail(&self) -> Option<WaiterId> {
        Some(self.queued.tail).filter(|place| *place != NIL)
    }

    /// The next in the queue.
    pub(super) fn after(&self, place: WaiterId) -> Option<WaiterId> {
        Some(self.places[place as usize].next).filter(|next| *next != NIL)
    }

    /// The queued ones, first come first.
    pub(super) fn iter(&self) -> impl Iterator<Item = WaiterId> {
        std::iter::successors(self.head(), |place| self.after(*place))
    }

    /// How many are before this one, which is queued; those who have left from between count, too.
    pub(super) fn rank(&self, place: WaiterId) -> u32 {
        let number = |place: WaiterId| self.places[place as usize].number;
        self.head().map_or(0, |head| number(place).wrapping_sub(number(head)))
    }

    /// Numbers those who are queued without gaps, so that [`rank`](Self::rank) is exact.
    pub(super) fn renumber(&mut self) {
        let (mut number, mut next) = (self.joined.wrapping_sub(self.len as u32), self.queued.head);
        while let Some(waiter) = self.places.get_mut(next as usize) {
            (waiter.number, next) = (number, waiter.next);
            number = number.wrapping_add(1);
        }
    }

    /// What was added to [`tokens`](Self::tokens) for one.
    pub(super) fn tokens_of(&self, place: WaiterId) -> u32 {
        self.places[place as usize].tokens
    }

    pub(super) fn number(&self, place: WaiterId) -> u32 {
        self.places[place as usize].number
    }

    pub(super) fn deadline(&self, place: WaiterId) -> Nanos {
        self.places[place as usize].deadline
    }

    pub(super) fn look_at(&self, place: WaiterId) -> Nanos {
        self.places[place as usize].look_at
    }

    pub(super) fn set_look_at(&mut self, place: WaiterId, at: Nanos) {
        self.places[place as usize].look_at = at;
    }

    pub(super) fn is_parked(&self, place: WaiterId) -> bool {
        matches!(self.places[place as usize].state, State::Parked)
    }

    /// Until when the first of the grants has to be fetched.
    pub(super) fn fetched_by(&self) -> Nanos {
        self.places.get(self.granted.head as usize).map_or(NEVER, |waiter| waiter.look_at)
    }

    /// The first of the first grants that has to be fetched before `instant`.
    pub(super) fn granted_until(&self, instant: Nanos) -> Option<WaiterId> {
        let after = |place: &WaiterId| Some(self.places[*place as usize].next).filter(|next| *next != NIL);
        let first = Some(self.granted.head).filter(|place| *place != NIL);
        let mut grants = std::iter::successors(first, after).take(GRANTS);
        grants.find(|place| self.look_at(*place) < instant)
    }

    /// Parks one that was granted, and returns what it was granted.
    pub(super) fn park_granted(&mut self, place: WaiterId) -> Receipt {
        unlink(&mut self.places, &mut self.granted, place);
        self.parked += 1;
        let waiter = &mut self.places[place as usize];
        waiter.waker = None;
        match std::mem::replace(&mut waiter.state, State::Parked) {
            State::Answered(Ok(receipt)) => receipt,
            _ => unreachable!("those in the list of grants have one"),
        }
    }

    /// Parks one that is queued. Returns its waker, which is not to be dropped under the lock.
    pub(super) fn park(&mut self, place: WaiterId) -> Option<W> {
        self.unlink(place);
        let waiter = &mut self.places[place as usize];
        waiter.state = State::Parked;
        self.parked += 1;
        waiter.waker.take()
    }

    /// Brings one that is parked back to its old place.
    pub(super) fn unpark(&mut self, place: WaiterId) {
        let number = self.number(place);
        // The parked ones are old: what came before them has mostly gone.
        let later = |other: &WaiterId| self.number(*other).wrapping_sub(number) < 1 << 31;
        let before = self.iter().find(later).unwrap_or(NIL);
        self.parked -= 1;
        self.places[place as usize].state = State::Queued;
        link(&mut self.places, &mut self.queued, place, before);
        self.count(place);
    }

    pub(super) fn cost(&self, place: WaiterId) -> Cost {
        self.places[place as usize].cost
    }

    pub(super) fn is_queued(&self, place: WaiterId) -> bool {
        matches!(self.places[place as usize].state, State::Queued)
    }

    /// Answers a waiter, who then is no longer queued; its place stays until it has looked, or until a grant that it
    /// does not fetch is taken back. Returns whom to wake.
    pub(super) fn answer(
        &mut self,
        place: WaiterId,
        answer: Result<Receipt, Refusal>,
        fetch_by: Nanos,
    ) -> Option<W> {
        self.unlink(place);
        if answer.is_ok() {
            link(&mut self.places, &mut self.granted, place, NIL);
            let is_batch = self.places[place as usize].cost.is_batch();
            self.since_batch = if is_batch { 0 } else { self.since_batch.saturating_add(1) };
        }
        let waiter = &mut self.places[place as usize];
        waiter.state = State::Answered(answer);
        waiter.look_at = fetch_by;
        waiter.waker.take()
    }

    /// The answer, if there is one, and until when it was to be fetched; the place is given back then.
    pub(super) fn take(&mut self, place: WaiterId) -> Option<(Result<Receipt, Refusal>, Nanos)> {
        let waiter = &mut self.places[place as usize];
        match std::mem::replace(&mut waiter.state, State::Free) {
            State::Answered(answer) => {
                let fetch_by = waiter.look_at;
                if answer.is_ok() {
                    unlink(&mut self.places, &mut self.granted, place);
                }
                self.give_back(place);
                Some((answer, fetch_by))
            }
            waiting @ (State::Queued | State::Parked) => {
                waiter.state = waiting;
                None
            }
            State::Free => unreachable!("a place is looked at by its owner only"),
        }
    }

    /// Leaves, queued, answered or parked. Returns the answer that was not looked at.
    pub(super) fn leave(&mut self, place: WaiterId) -> Option<Result<Receipt, Refusal>> {
        if self.is_queued(place) {
            self.unlink(place);
        } else if self.is_parked(place) {
            self.parked -= 1;
        } else {
            return self.take(place).map(|(answer, _)| answer);
        }
        self.places[place as usize].state = State::Free;
        self.give_back(place);
        None
    }

    pub(super) fn waker(&mut self, place: WaiterId) -> &mut Option<W> {
        &mut self.places[place as usize].waker
    }

    pub(super) fn has_waker(&self, place: WaiterId) -> bool {
        self.places[place as usize].waker.is_some()
    }

    /// Somebody whose deadline is before `instant`.
    pub(super) fn too_late(&self, instant: Nanos) -> Option<WaiterId> {
        self.deadlines.first().filter(|first| first.0 < instant).map(|first| first.1)
    }

    /// Those who have no deadline.
    pub(super) fn undated(&self) -> Vec<WaiterId> {
        if self.undated == 0 {
            return Vec::new();
        }
        self.iter().filter(|place| self.places[*place as usize].deadline == NEVER).collect()
    }

    /// Takes one out of the queue.
    fn unlink(&mut self, place: WaiterId) {
        let Waiter { tokens, deadline, cost, .. } = self.places[place as usize];
        unlink(&mut self.places, &mut self.queued, place);
        self.len -= 1;
        self.batch -= usize::from(cost.is_batch());
        self.tokens -= u64::from(tokens);
        if deadline == NEVER {
            self.undated -= 1;
        } else {
            self.deadlines.remove(&(deadline, place));
        }
    }

    fn give_back(&mut self, place: WaiterId) {
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

/// Links a place into a list, before another one of it or at its end.
fn link<W>(places: &mut [Waiter<W>], ends: &mut Ends, place: WaiterId, before: WaiterId) {
    let prev = match before {
        NIL => std::mem::replace(&mut ends.tail, place),
        before => std::mem::replace(&mut places[before as usize].prev, place),
    };
    match prev {
        NIL => ends.head = place,
        prev => places[prev as usize].next = place,
    }
    let waiter = &mut places[place as usize];
    (waiter.prev, waiter.next) = (prev, before);
}

fn unlink<W>(places: &mut [Waiter<W>], ends: &mut Ends, place: WaiterId) {
    let Waiter { prev, next, .. } = places[place as usize];
    match prev {
        NIL => ends.head = next,
        prev => places[prev as usize].next = next,
    }
    match next {
        NIL => ends.tail = prev,
        next => places[next as usize].prev = prev,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call_options::RequestClass;

    #[test]
    fn a_place_is_small_and_memory_goes_back() {
        assert!(size_of::<Waiter<std::task::Waker>>() <= 96, "{}", size_of::<Waiter<std::task::Waker>>());
        let mut queue: Queue<()> = Queue::new(DEFAULT_WEIGHT);
        let cost = Cost::exact(1);
        let places: Vec<_> = (0..1_000).map(|n| queue.join(cost, 1, NEVER - n % 2, NEVER)).collect();
        assert_eq!((queue.len(), queue.tokens(), queue.deadlines.len()), (1_000, 1_000, 500));
        for place in places {
            assert!(queue.leave(place).is_none());
        }
        assert_eq!((queue.used(), queue.places.capacity(), queue.deadlines.len()), (0, 0, 0));
        assert_eq!((queue.len(), queue.tokens(), queue.undated), (0, 0, 0));
        // And it works again.
        let place = queue.join(cost, 1, NEVER, NEVER);
        assert_eq!(queue.head(), Some(place));
    }

    #[test]
    fn a_few_places_are_kept() {
        let cost = Cost::exact(1);
        for (count, kept) in [(KEPT, KEPT), (KEPT + 1, 0)] {
            let mut queue: Queue<()> = Queue::new(DEFAULT_WEIGHT);
            let places: Vec<_> = (0..count).map(|_| queue.join(cost, 1, NEVER, NEVER)).collect();
            for place in places {
                queue.leave(place);
            }
            assert_eq!(queue.places.len(), kept);
        }
    }

    #[test]
    fn those_without_a_deadline_are_found() {
        let mut queue: Queue<()> = Queue::new(DEFAULT_WEIGHT);
        let cost = Cost::exact(1);
        let places = [NEVER, 7, NEVER, 9].map(|deadline| queue.join(cost, 1, deadline, NEVER));
        assert_eq!(queue.undated(), [places[0], places[2]]);
        queue.leave(places[0]);
        queue.leave(places[2]);
        assert_eq!((queue.undated(), queue.undated), (Vec::new(), 0));
    }

    #[test]
    fn who_was_parked_comes_back_to_its_old_place() {
        let mut queue: Queue<()> = Queue::new(DEFAULT_WEIGHT);
        let cost = Cost::exact(2);
        // The numbers wrap between them.
        queue.joined = u32::MAX - 1;
        let places = [NEVER, 7, NEVER, 9].map(|deadline| queue.join(cost, 2, deadline, NEVER));
        let order = |queue: &Queue<()>| queue.iter().collect::<Vec<_>>();
        for place in [places[2], places[0], places[3]] {
            queue.park(place);
            assert!(queue.is_parked(place) && queue.take(place).is_none());
        }
        assert_eq!((order(&queue), queue.len(), queue.tokens()), (vec![places[1]], 1, 2));
        assert_eq!((queue.used(), queue.busy()), (4, 1));
        for place in [places[3], places[0], places[2]] {
            queue.unpark(place);
        }
        assert_eq!((order(&queue), queue.len(), queue.tokens(), queue.busy()), (places.to_vec(), 4, 8, 4));
        assert_eq!((queue.undated(), queue.too_late(8)), (vec![places[0], places[2]], Some(places[1])));
        assert_eq!(places.map(|place| queue.rank(place)), [0, 1, 2, 3]);
        queue.park(places[1]);
        assert!(queue.leave(places[1]).is_none());
        assert_eq!((queue.used(), queue.busy(), queue.too_late(8)), (3, 3, None));
    }

    #[test]
    fn who_joins_first_is_before_all_who_are_queued() {
        let mut queue: Queue<()> = Queue::new(DEFAULT_WEIGHT);
        let cost = Cost::exact(2);
        let order = |queue: &Queue<()>| queue.iter().collect::<Vec<_>>();
        // The numbers wrap before the first.
        let alone = queue.join_first(cost, 2, NEVER, NEVER);
        let second = queue.join(cost, 2, NEVER, NEVER);
        let first = queue.join_first(cost, 2, 7, NEVER);
        let before = queue.join_first(cost, 2, NEVER, NEVER);
        let all = [before, first, alone, second];
        assert_eq!((order(&queue), queue.head(), queue.tail()), (all.to_vec(), Some(before), Some(second)));
        assert_eq!(all.map(|place| queue.rank(place)), [0, 1, 2, 3]);
        assert_eq!((queue.len(), queue.tokens(), queue.too_late(8)), (4, 8, Some(first)));
        // Parked, it comes back before those who came after it, and not before one that took its place then.
        for place in all {
            queue.park(place);
        }
        let [last, other] = [queue.join(cost, 2, NEVER, NEVER), queue.join_first(cost, 2, NEVER, NEVER)];
        assert_eq!(order(&queue), [other, last]);
        for place in [first, second, before, alone] {
            queue.unpark(place);
        }
        assert_eq!(order(&queue), [before, first, alone, second, other, last]);
        assert_eq!((queue.len(), queue.busy(), queue.tokens()), (6, 6, 12));
    }

    #[test]
    fn a_batch_request_is_passed_by_eight() {
        let mut queue: Queue<()> = Queue::new(DEFAULT_WEIGHT);
        // The numbers wrap between them.
        queue.joined = u32::MAX - 3;
        let (chat, batch) = (Cost::exact(1), Cost::exact(2).of_class(RequestClass::Batch));
        let old = queue.join(chat, 1, NEVER, NEVER);
        let nights = [(); 3].map(|()| queue.join(batch, 2, NEVER, NEVER));
        queue.park(nights[2]);
        let chats: Vec<_> = (0..20).map(|_| queue.join(chat, 1, NEVER, NEVER)).collect();
        queue.unpark(nights[2]);
        // One that is parked comes back to its old place.
        let expected = [&[old][..], &chats[..7], &nights[..1], &chats[7..15], &nights[1..], &chats[15..]];
        assert_eq!(queue.iter().collect::<Vec<_>>(), expected.concat());
        let ranks: Vec<u32> = queue.iter().map(|place| queue.rank(place)).collect();
        assert_eq!(ranks, (0..24).collect::<Vec<_>>());
        assert_eq!((queue.turn_of(chat), queue.turn_of(batch)), ((None, (24, 27)), (None, (24, 27))));
    }

    #[test]
    fn the_weight_says_by_how_many() {
        let order = |weight| {
            let mut queue: Queue<()> = Queue::new(weight);
            let join =
                |queue: &mut Queue<()>, class| queue.join(Cost::exact(1).of_class(class), 1, NEVER, NEVER);
            let night = join(&mut queue, RequestClass::Batch);
            for _ in 0..30 {
                join(&mut queue, RequestClass::Interactive);
            }
            queue.rank(night)
        };
        assert_eq!([0, 1, 8, 20, 1_000].map(order), [0, 1, 8, 20, 30]);
    }

    /// Those that were granted while a batch request waits have passed it, too.
    #[test]
    fn a_batch_request_at_the_head_is_not_passed_for_ever() {
        let mut queue: Queue<()> = Queue::new(DEFAULT_WEIGHT);
        let (chat, batch) = (Cost::exact(1), Cost::exact(2).of_class(RequestClass::Batch));
        let nights = [(); 2].map(|()| queue.join(batch, 2, NEVER, NEVER));
        for _ in 0..DEFAULT_WEIGHT {
            let place = queue.join(chat, 1, NEVER, NEVER);
            assert_eq!(queue.head(), Some(place));
            queue.answer(place, Ok(Receipt::none()), NEVER);
            queue.take(place);
        }
        assert_eq!(queue.turn_of(chat), (Some(nights[1]), (1, 2)));
        queue.answer(nights[0], Ok(Receipt::none()), NEVER);
        assert_eq!(queue.turn_of(chat), (Some(nights[1]), (0, 0)));
    }

    proptest::proptest! {
        /// In each class first come, first served; a batch request is passed by at most the weight for each that is not served before
        /// it; and what is said of a turn is where it joins.
        #[test]
        fn classes_take_turns(weight in 0..20_u32, steps in proptest::collection::vec(0..8_u8, 1..200)) {
            let mut queue: Queue<()> = Queue::new(weight);
            // Those that wait in the order of arrival, with the interactive ones that passed each, and the batch ones before it.
            let mut waits: Vec<(WaiterId, bool, u32, u32)> = Vec::new();
            for step in steps {
                if step < 6 {
                    let is_batch = step < 2;
                    let cost = Cost::exact(1).of_class(if is_batch { RequestClass::Batch } else { RequestClass::Interactive });
                    let (_, ahead) = queue.turn_of(cost);
                    let place = queue.join(cost, 1, NEVER, NEVER);
                    proptest::prop_assert_eq!(ahead.0, u64::from(queue.rank(place)));
                    let rank = queue.rank(place);
                    for other in &mut waits {
                        other.2 += u32::from(queue.rank(other.0) > rank);
                    }
                    let before = waits.iter().filter(|other| other.1).count() as u32;
                    waits.push((place, is_batch, 0, before));
                } else if let Some(head) = queue.head() {
                    let receipt = Receipt::none();
                    queue.answer(head, Ok(receipt), NEVER);
                    queue.take(head);
                    let at = waits.iter().position(|one| one.0 == head).expect("it waits");
                    let (_, is_batch, passed, before) = waits.remove(at);
                    proptest::prop_assert!(waits[..at].iter().all(|one| one.1 != is_batch));
                    let most = if is_batch { weight * (before + 1) } else { 0 };
                    proptest::prop_assert!(passed <= most, "passed by {} of {}", passed, most);
                }
            }
        }
    }
}
