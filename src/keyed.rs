//! State that layers keep per key: a bounded map that all clones share, and before it what is remembered of
//! [targets](crate::seen).
//!
//! **Sharing**: the map lives behind the layer's `Arc`; what it hands out are `Arc`s of the states.
//!
//! **Bounds**: at most `max_keys` states are kept. When another key comes, the state that is [needed](Need) least makes
//! room: one that would be made anew just the same, or else one whose loss binds nobody wrongly. While all of them are
//! needed (a call under way, somebody waiting, a closed door, a learnt limit), the newcomer is given a state of its
//! own that lasts as long as its call. It is bound by nothing that was learnt before, of its own key or of another,
//! and an event tells of it. No two keys ever share a state.
//!
//! **Cost**: a flood of new keys costs each newcomer a constant number of looks at other states, on average. A key is
//! looked at for the first time when it has become the oldest of those that nobody has looked at yet, and is put aside
//! if it is needed; those put aside are looked at again, at most [`LOOKS`] of them for each newcomer.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::Request;
use tokio::time::Instant;

use crate::context::View;
use crate::event::LayerKind;
use crate::event::{Event, Observed};
use crate::lock::lock;
use crate::request::Target;
pub(crate) use crate::seen::Memo;
use crate::seen::Recent;
use crate::time;

/// How many keys a layer keeps apart, where it has no setting of its own.
pub(crate) const MAX_KEYS: usize = 1024;

/// Looks at states that were put aside as needed, for each newcomer. What a newcomer does not use is saved up for
/// later ones, up to one look at each state or [`MOST_LOOKS`].
const LOOKS: usize = 16;
const MOST_LOOKS: usize = 4096;

/// How far apart the events are told that all keys are needed.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// A bounded map from keys to shared states.
pub(crate) struct Keyed<K, T> {
    states: Mutex<States<K, T>>,
    max_keys: usize,
    /// Whose keys they are, for the event.
    part: LayerKind,
    observer: Observed,
    /// Made by the first that asks it: the layers that admit calls remember by themselves, several together.
    recent: OnceLock<Recent<Arc<T>>>,
}

struct States<K, T> {
    by_key: HashMap<Arc<K>, Arc<T>>,
    /// Keys that were not looked at since they were added, the oldest first. Each key of the map is here or in
    /// `aside`, once.
    fresh: VecDeque<Arc<K>>,
    /// Keys that were needed when they were looked at, the next to look at first.
    aside: VecDeque<Arc<K>>,
    /// Looks at `aside` that are paid for.
    looks: usize,
    /// A key was turned away for lack of room, and none has found room since.
    exhausted: bool,
    told_at: Option<Instant>,
}

/// How much would be lost if a state were dropped and made anew. The order is that of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// Nothing: no call taught it anything, or what it was taught is out of date.
    Nothing,
    /// Some counts. Nothing that it turns away or holds back, and nothing that a server's answer taught.
    Counts,
    /// What binds the calls of its key now: a closed door, a learnt limit, calls under way, somebody who waits.
    All,
}

/// What a layer keeps per key.
pub(crate) trait State {
    /// Whether nothing would be lost if this state were dropped and made anew.
    fn is_idle(&self) -> bool;

    /// How much would be lost.
    fn need(&self) -> Need {
        if self.is_idle() { Need::Nothing } else { Need::All }
    }
}

impl<K: Eq + Hash + Clone, T: State> Keyed<K, T> {
    pub(crate) fn new(max_keys: usize, part: LayerKind, observer: Observed) -> Self {
        let states = States {
            by_key: HashMap::new(),
            fresh: VecDeque::new(),
            aside: VecDeque::new(),
            looks: max_keys.min(MOST_LOOKS),
            exhausted: false,
            told_at: None,
        };
        Self { states: Mutex::new(states), max_keys, part, observer, recent: OnceLock::new() }
    }

    /// The state of this key, made if there is none. Where all states are needed it is the caller's alone and is not
    /// kept.
    pub(crate) fn get(&self, key: K, make: impl FnOnce(&K) -> T) -> Arc<T> {
        let mut states = lock(&self.states);
        if let Some(state) = states.by_key.get(&key) {
            return Arc::clone(state);
        }
        // What makes room is dropped without the lock.
        let (room, dropped) = states.make_room(self.max_keys);
        if room {
            let state = Arc::new(make(&key));
            states.add(key, &state);
            drop(states);
            drop(dropped);
            return state;
        }
        let tell = states.turn_away();
        drop(states);
        drop(dropped);
        if tell {
            self.observer.tell(&Event::KeysExhausted { layer: self.part, max_keys: self.max_keys });
        }
        Arc::new(make(&key))
    }

    /// The state of this key, made and kept if there is none, also beyond the bound: for what is done by hand.
    pub(crate) fn keep(&self, key: K, make: impl FnOnce(&K) -> T) -> Arc<T> {
        let mut states = lock(&self.states);
        if let Some(state) = states.by_key.get(&key) {
            return Arc::clone(state);
        }
        let (_, dropped) = states.make_room(self.max_keys);
        let state = Arc::new(make(&key));
        states.add(key, &state);
        drop(states);
        drop(dropped);
        state
    }

    /// The state of this key, if there is one.
    pub(crate) fn peek(&self, key: &K) -> Option<Arc<T>> {
        lock(&self.states).by_key.get(key).map(Arc::clone)
    }

    /// Every key and its state, in no order. Keys beyond the bound are not among them.
    pub(crate) fn all(&self) -> Vec<(K, Arc<T>)> {
        lock(&self.states).by_key.iter().map(|(key, state)| (K::clone(key), Arc::clone(state))).collect()
    }

    /// Drops the states of which nothing would be lost and that nobody holds.
    pub(crate) fn evict_idle(&self) {
        let mut states = lock(&self.states);
        let keys: Vec<_> = states.by_key.keys().map(Arc::clone).collect();
        let dropped: Vec<_> =
            keys.iter().filter_map(|key| states.drop_unless_needed(key, Need::Nothing).ok()).collect();
        let States { by_key, fresh, aside, .. } = &mut *states;
        fresh.retain(|key| by_key.contains_key(key));
        aside.retain(|key| by_key.contains_key(key));
        drop(states);
        drop(dropped);
    }

    /// The state of a request's target: what this service or this layer remembers, or what `find` finds.
    #[inline]
    pub(crate) fn of_request<B>(
        &self,
        memo: &mut Memo<Arc<T>>,
        request: &Request<B>,
        view: View<'_>,
        find: impl FnOnce(&Target<'_>) -> Arc<T>,
    ) -> Arc<T> {
        self.recent.get_or_init(Recent::new).of_request(memo, request, view, find)
    }
}

impl<K: Eq + Hash, T: State> States<K, T> {
    fn add(&mut self, key: K, state: &Arc<T>) {
        let key = Arc::new(key);
        self.by_key.insert(Arc::clone(&key), Arc::clone(state));
        self.fresh.push_back(key);
    }

    /// A newcomer found no room. Whether that is to be told.
    fn turn_away(&mut self) -> bool {
        if self.exhausted {
            return false;
        }
        let now = time::now();
        if self.told_at.is_some_and(|told| now.saturating_duration_since(told) < TOLD_AGAIN) {
            // Still news, when the next newcomer comes later than that.
            return false;
        }
        (self.exhausted, self.told_at) = (true, Some(now));
        true
    }

    /// Whether there is room for one more, and what was dropped for it.
    fn make_room(&mut self, max_keys: usize) -> (bool, Option<T>) {
        if self.by_key.len() < max_keys {
            self.exhausted = false;
            return (true, None);
        }
        self.looks = (self.looks + LOOKS).min(max_keys.clamp(LOOKS, MOST_LOOKS));
        let dropped = self.drop_least_needed();
        let room = self.by_key.len() < max_keys;
        if room {
            self.exhausted = false;
        }
        (room, dropped)
    }

    fn drop_least_needed(&mut self) -> Option<T> {
        // Each key comes this way once after it was added, so these looks are paid for by the newcomers.
        while let Some(key) = self.fresh.pop_front() {
            match self.drop_unless_needed(&key, Need::Nothing) {
                Ok(state) => return Some(state),
                Err(_) => self.aside.push_back(key),
            }
        }
        let mut counts = None;
        for _ in 0..self.looks.min(self.aside.len()) {
            let key = self.aside.pop_front()?;
            self.looks -= 1;
            match self.drop_unless_needed(&key, Need::Nothing) {
                Ok(state) => return Some(state),
                Err(Need::Counts) if counts.is_none() => counts = Some(Arc::clone(&key)),
                Err(_) => {}
            }
            self.aside.push_back(key);
        }
        let key = counts?;
        let state = self.drop_unless_needed(&key, Need::Counts).ok()?;
        // It stands no further from the end than was looked.
        let at = self.aside.iter().rposition(|one| Arc::ptr_eq(one, &key))?;
        self.aside.remove(at);
        Some(state)
    }

    /// Takes the state of this key out of the map if nobody holds it and no more than `most` would be lost. Who takes
    /// it for the last one gets it by value, so that no call can have come between the look and the drop: a state
    /// that is held is reached through the map, whose lock is held here, or through a weak reference, which finds
    /// it whole or not at all.
    fn drop_unless_needed(&mut self, key: &Arc<K>, most: Need) -> Result<T, Need> {
        let Some(state) = self.by_key.get(key) else { return Err(Need::All) };
        if Arc::strong_count(state) > 1 {
            return Err(Need::All);
        }
        let need = state.need();
        if need > most {
            return Err(need);
        }
        let Some(state) = self.by_key.remove(key) else { return Err(Need::All) };
        let state = match Arc::try_unwrap(state) {
            Ok(state) => state,
            Err(held) => {
                self.by_key.insert(Arc::clone(key), held);
                return Err(Need::All);
            }
        };
        // Somebody may have held it between the look above and the moment in which it became ours.
        let need = state.need();
        if need > most {
            self.by_key.insert(Arc::clone(key), Arc::new(state));
            return Err(need);
        }
        Ok(state)
    }
}

impl<K, T> Keyed<K, T> {
    pub(crate) const fn max_keys(&self) -> usize {
        self.max_keys
    }
}

impl<K, T> fmt::Debug for Keyed<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("keys", &lock(&self.states).by_key.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "keyed_tests.rs"]
mod tests;
