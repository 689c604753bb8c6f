//! State that layers keep per key: a bounded map that all clones share, a small cache of targets before it, and each
//! service's memory of the last target it met.
//!
//! **Sharing**: the map lives behind the layer's `Arc`; what it hands out are `Arc`s of the states. **Bounds**: when
//! `max_keys` are in use, states that are idle and that nobody holds are dropped; if there are none, further keys
//! share one state, so that a caller who invents model names cannot fill the memory. **Dropping** a service drops
//! its memory of the last key, and with it its claim on that state.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Request;
use http::uri::PathAndQuery;

use crate::target::{KeyLabel, ModelHint, Target};

/// How many keys a layer keeps apart, where it has no setting of its own.
pub(crate) const MAX_KEYS: usize = 1024;

/// Locks, also where another thread panicked while it held the lock.
///
/// NOTE: what is kept under a lock in this crate is whole between any two statements that could panic, and of a
/// user's code nothing runs under one but `clone` (of a waker; of the service that retries are cloned from), so a
/// poisoned lock is no reason to give up the counts behind it.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A bounded map from keys to shared states.
pub(crate) struct Keyed<K, T> {
    states: Mutex<States<K, T>>,
    max_keys: usize,
    recent: [Mutex<Option<Seen<T>>>; RECENT],
}

/// Targets that a layer remembers for services that were cloned for one call.
const RECENT: usize = 16;

struct States<K, T> {
    by_key: HashMap<K, Arc<T>>,
    /// What keys beyond the bound share.
    overflow: Option<Arc<T>>,
    /// Keys that were turned to the overflow since the map was last searched for idle states.
    turned_away: usize,
}

/// What a layer keeps per key.
pub(crate) trait State {
    /// Whether nothing would be lost if this state were dropped and made anew. Asked while nobody else holds it.
    fn is_idle(&self) -> bool;
}

impl<K: Eq + Hash + Clone, T: State> Keyed<K, T> {
    pub(crate) fn new(max_keys: usize) -> Self {
        let states = States { by_key: HashMap::new(), overflow: None, turned_away: 0 };
        Self { states: Mutex::new(states), max_keys, recent: std::array::from_fn(|_| Mutex::new(None)) }
    }

    /// The state of this key, made if there is none.
    pub(crate) fn get(&self, key: K, make: impl FnOnce(&K) -> T) -> Arc<T> {
        let mut states = lock(&self.states);
        if let Some(state) = states.by_key.get(&key) {
            return Arc::clone(state);
        }
        if states.by_key.len() >= self.max_keys && !self.make_room(&mut states) {
            return Arc::clone(states.overflow.get_or_insert_with(|| Arc::new(make(&key))));
        }
        let state = Arc::new(make(&key));
        states.by_key.insert(key, Arc::clone(&state));
        state
    }

    /// The state of this key, if there is one.
    pub(crate) fn peek(&self, key: &K) -> Option<Arc<T>> {
        lock(&self.states).by_key.get(key).map(Arc::clone)
    }

    /// Every key and its state, in no order. Keys beyond the bound are not among them.
    pub(crate) fn all(&self) -> Vec<(K, Arc<T>)> {
        lock(&self.states).by_key.iter().map(|(key, state)| (key.clone(), Arc::clone(state))).collect()
    }

    /// Drops the states that are idle and that nobody holds.
    pub(crate) fn evict_idle(&self) {
        self.evict(&mut lock(&self.states));
    }

    /// Looks for idle states, but not for each newcomer: a flood of new keys would search the whole map each time.
    fn make_room(&self, states: &mut States<K, T>) -> bool {
        if states.turned_away % (self.max_keys / 8).max(1) == 0 {
            self.evict(states);
        }
        let room = states.by_key.len() < self.max_keys;
        states.turned_away = if room { 0 } else { states.turned_away + 1 };
        room
    }

    fn evict(&self, states: &mut States<K, T>) {
        // The cache holds states, too, which is no reason to keep them.
        self.recent.iter().for_each(|slot| drop(lock(slot).take()));
        // A state whose only owner is the map can gain another one only through the map, whose lock is held here.
        states.by_key.retain(|_, state| Arc::strong_count(state) > 1 || !state.is_idle());
    }

    /// The state of a request's target: what this service or this layer remembers, or what `find` finds.
    #[inline(always)]
    pub(crate) fn of_request<B>(
        &self,
        memo: &mut Memo<T>,
        request: &Request<B>,
        find: impl FnOnce(&Target<'_>) -> Arc<T>,
    ) -> Arc<T> {
        match &memo.seen {
            Some(seen) if seen.is_of(request) => Arc::clone(&seen.state),
            _ => self.recall(memo, request, find),
        }
    }

    #[inline(never)]
    fn recall<B>(
        &self,
        memo: &mut Memo<T>,
        request: &Request<B>,
        find: impl FnOnce(&Target<'_>) -> Arc<T>,
    ) -> Arc<T> {
        let slot = &self.recent[slot_of(request) % RECENT];
        let known =
            lock(slot).as_ref().filter(|seen| seen.is_of(request)).map(|seen| Arc::clone(&seen.state));
        let state = known.unwrap_or_else(|| {
            let state = find(&Target::of(request));
            let old = lock(slot).replace(Seen::new(request, Arc::clone(&state)));
            drop(old);
            state
        });
        // A service that is cloned for one call need not remember anything.
        if std::mem::replace(&mut memo.called, true) {
            memo.seen = Some(Seen::new(request, Arc::clone(&state)));
        }
        state
    }
}

/// Where a target is looked for. Any function will do that is quick and spreads models and labels.
fn slot_of<B>(request: &Request<B>) -> usize {
    let mix = |hash: u64, bytes: &[u8]| {
        bytes.chunks(8).fold(hash, |hash, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517C_C1B7_2722_0A95)
        })
    };
    let mut hash = mix(0, request.uri().path().as_bytes());
    if let Some(label) = request.extensions().get::<KeyLabel>() {
        hash = mix(hash, label.as_str().as_bytes());
    }
    // The high bits are the mixed ones.
    (hash >> 48) as usize
}

impl<K, T> fmt::Debug for Keyed<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("keys", &lock(&self.states).by_key.len()).finish_non_exhaustive()
    }
}

/// A service's memory of the last target it met, so that a caller who asks the same model again and again pays for
/// a comparison of paths instead of for reading a path and hashing a key.
///
/// It holds the request's path and query, which may contain an API key: nothing here is ever printed.
pub(crate) struct Memo<T> {
    seen: Option<Seen<T>>,
    called: bool,
}

/// All that a [`Target`] is read from, and the state that it led to.
struct Seen<T> {
    method: http::Method,
    path: PathAndQuery,
    label: Option<KeyLabel>,
    hint: Option<ModelHint>,
    state: Arc<T>,
}

impl<T> Memo<T> {
    pub(crate) const fn new() -> Self {
        Self { seen: None, called: false }
    }
}

impl<T> Seen<T> {
    fn new<B>(request: &Request<B>, state: Arc<T>) -> Self {
        let path = request.uri().path_and_query().cloned();
        Self {
            method: request.method().clone(),
            path: path.unwrap_or_else(|| PathAndQuery::from_static("/")),
            label: request.extensions().get().cloned(),
            hint: request.extensions().get().cloned(),
            state,
        }
    }

    #[inline(always)]
    fn is_of<B>(&self, request: &Request<B>) -> bool {
        let extensions = request.extensions();
        request.uri().path_and_query().is_some_and(|path| path.as_str() == self.path.as_str())
            && *request.method() == self.method
            && extensions.get::<KeyLabel>() == self.label.as_ref()
            && extensions.get::<ModelHint>() == self.hint.as_ref()
    }
}

impl<T> Clone for Memo<T> {
    /// The copy remembers nothing. A copy is made for each call, by those who keep one service for many tasks and by the
    /// retry layer for an attempt that mostly never comes, and what it remembered would be paid for each time.
    fn clone(&self) -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    #[derive(Default)]
    struct Busy(AtomicBool);
    impl State for Busy {
        fn is_idle(&self) -> bool {
            !self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_key_has_one_state() {
        let keyed = Keyed::new(8);
        let state = keyed.get("a", |_| Busy::default());
        assert!(Arc::ptr_eq(&state, &keyed.get("a", |_| Busy::default())));
        assert!(!Arc::ptr_eq(&state, &keyed.get("b", |_| Busy::default())));
        assert!(keyed.peek(&"c").is_none());
        assert_eq!(keyed.all().len(), 2);
    }

    #[test]
    fn what_is_held_or_busy_is_never_dropped() {
        let keyed = Keyed::new(2);
        let held = keyed.get(0, |_| Busy::default());
        keyed.get(1, |_| Busy::default()).0.store(true, Ordering::Relaxed);
        // Both stay, so the others share one.
        let third = keyed.get(2, |_| Busy::default());
        assert!(Arc::ptr_eq(&third, &keyed.get(3, |_| Busy::default())));
        assert!(Arc::ptr_eq(&held, &keyed.get(0, |_| Busy::default())));
        assert!(!keyed.get(1, |_| Busy::default()).is_idle());
        // Let go, it makes room for the next one.
        drop(held);
        keyed.evict_idle();
        assert!(keyed.peek(&0).is_none());
        assert!(!Arc::ptr_eq(&third, &keyed.get(4, |_| Busy::default())));
    }

    #[test]
    fn a_flood_of_keys_stays_within_the_bound() {
        let keyed = Keyed::new(16);
        for key in 0..100_000 {
            keyed.get(key, |_| Busy(AtomicBool::new(key % 3 == 0)));
        }
        assert!(keyed.all().len() <= 16);
    }

    #[test]
    fn a_memo_answers_for_the_same_target_only() {
        let keyed: Keyed<u8, Busy> = Keyed::new(8);
        let mut memo = Memo::new();
        let found = AtomicU32::new(0);
        let request = |path: &str, label: Option<&str>| {
            let mut request = Request::post(path).body(()).expect("a valid request");
            if let Some(label) = label {
                request.extensions_mut().insert(KeyLabel::new(label));
            }
            request
        };
        let mut ask = |request: &Request<()>| {
            let before = found.load(Ordering::Relaxed);
            keyed.of_request(&mut memo, request, |_| {
                found.fetch_add(1, Ordering::Relaxed);
                Arc::new(Busy::default())
            });
            found.load(Ordering::Relaxed) > before
        };
        let path = "/v1beta/models/gemini-2.5-flash:generateContent";
        assert!(ask(&request(path, None)));
        assert!(!ask(&request(path, None)));
        assert!(ask(&request(path, Some("a"))));
        assert!(!ask(&request(path, Some("a"))));
        assert!(ask(&request(path, Some("b"))));
        assert!(ask(&request("/v1beta/models/gemini-2.5-pro:generateContent", Some("b"))));
        let mut hinted = request("/v1beta/models/gemini-2.5-pro:generateContent", Some("b"));
        hinted.extensions_mut().insert(ModelHint::new("x"));
        assert!(ask(&hinted));
        *hinted.method_mut() = http::Method::GET;
        assert!(ask(&hinted));
        assert!(!ask(&hinted));
        assert!(!ask(&hinted));
        // A service that was made for one call finds what another one has met.
        memo = Memo::new();
        keyed.of_request(&mut memo, &hinted, |_| panic!("the layer remembers it"));
        keyed.evict_idle();
        let found = std::cell::Cell::new(false);
        keyed.of_request(&mut Memo::new(), &hinted, |_| {
            found.set(true);
            Arc::new(Busy::default())
        });
        assert!(found.get(), "what was dropped is not remembered");
    }
}
