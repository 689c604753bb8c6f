//! Targets that were met, and the states that they led to: what spares a call the reading of its path and the hashing of a
//! key.
//!
//! **Sharing**: [`Recent`] is the layer's, behind locks that are held for a look; a [`Memo`] is one service's. Both hold the
//! states by weak references, so that nothing but a call or a waiter keeps a state in use.
//!
//! **Bounds**: [`MOST`] targets a layer. A shard that is full forgets those whose state is gone, or else all.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, Weak};

use http::Request;
use http::uri::PathAndQuery;

use crate::context::View;
use crate::lock::lock;
use crate::request::{KeyLabel, ModelHint, Target};
use crate::tier::ServiceTier;

/// Targets that a layer remembers: about 200 bytes each. Several methods of one model, and several labels, are as many
/// targets.
pub(crate) const MOST: usize = 2048;
const SHARDS: usize = 16;

/// What the services of a layer remember together.
pub(crate) struct Recent<R: Remembered> {
    shards: [Mutex<Shard<R>>; SHARDS],
}

type Shard<R> = HashMap<u64, Arc<Seen<R>>, BuildHasherDefault<Identity>>;

/// States that a target leads to: one, or those of several layers together.
pub trait Remembered: Sized {
    /// What does not keep them in use.
    type Weak;
    /// So that they are not kept in use.
    fn downgrade(&self) -> Self::Weak;
    /// All of them, where none was dropped.
    fn upgrade(weak: &Self::Weak) -> Option<Self>;
    /// Whether one of them was dropped.
    fn is_gone(weak: &Self::Weak) -> bool;
    /// Whether somebody else, who is the map, has all of them, too. What is not kept is not to be remembered: it ends with its
    /// call, and by the next one there may be room.
    fn is_kept(&self) -> bool;
}

impl<T> Remembered for Arc<T> {
    type Weak = Weak<T>;
    #[inline]
    fn downgrade(&self) -> Weak<T> {
        Self::downgrade(self)
    }
    #[inline(always)]
    fn upgrade(weak: &Weak<T>) -> Option<Self> {
        weak.upgrade()
    }
    fn is_gone(weak: &Weak<T>) -> bool {
        weak.strong_count() == 0
    }
    fn is_kept(&self) -> bool {
        Self::strong_count(self) > 1
    }
}

/// `None` of a layer that is off.
impl<R: Remembered> Remembered for Option<R> {
    type Weak = Option<R::Weak>;
    fn downgrade(&self) -> Self::Weak {
        self.as_ref().map(R::downgrade)
    }
    #[inline(always)]
    fn upgrade(weak: &Self::Weak) -> Option<Self> {
        match weak {
            Some(weak) => R::upgrade(weak).map(Some),
            None => Some(None),
        }
    }
    fn is_gone(weak: &Self::Weak) -> bool {
        weak.as_ref().is_some_and(R::is_gone)
    }
    fn is_kept(&self) -> bool {
        self.as_ref().is_none_or(R::is_kept)
    }
}

impl<A: Remembered, Z: Remembered> Remembered for (A, Z) {
    type Weak = (A::Weak, Z::Weak);
    fn downgrade(&self) -> Self::Weak {
        (self.0.downgrade(), self.1.downgrade())
    }
    #[inline(always)]
    fn upgrade((a, z): &Self::Weak) -> Option<Self> {
        Some((A::upgrade(a)?, Z::upgrade(z)?))
    }
    fn is_gone((a, z): &Self::Weak) -> bool {
        A::is_gone(a) || Z::is_gone(z)
    }
    fn is_kept(&self) -> bool {
        self.0.is_kept() && self.1.is_kept()
    }
}

/// Hashes nothing: the keys are hashes already.
#[derive(Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = mix(self.0, bytes);
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

impl<R: Remembered> Recent<R> {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// The states of a request's target: what this service or those beside it remember, or what `find` finds.
    #[inline(always)]
    pub(crate) fn of_request<B>(
        &self,
        memo: &mut Memo<R>,
        request: &Request<B>,
        view: View<'_>,
        find: impl FnOnce(&Target<'_>) -> R,
    ) -> R {
        if let Some(state) = memo.seen.as_ref().and_then(|seen| seen.state_of(request, view)) {
            return state;
        }
        self.recall(memo, request, view, find)
    }

    #[inline(never)]
    fn recall<B>(
        &self,
        memo: &mut Memo<R>,
        request: &Request<B>,
        view: View<'_>,
        find: impl FnOnce(&Target<'_>) -> R,
    ) -> R {
        let hash = hash_of(request, view);
        let (state, seen) = match self.found(hash, request, view) {
            Some(found) => found,
            None => {
                let state = find(&Target::of(request));
                if !state.is_kept() {
                    return state;
                }
                let seen = self.put(hash, request, view, &state);
                (state, seen)
            }
        };
        memo.keep(seen);
        state
    }

    /// What is remembered of a request's target.
    #[inline]
    fn found<B>(&self, hash: u64, request: &Request<B>, view: View<'_>) -> Option<(R, Arc<Seen<R>>)> {
        let shard = lock(self.shard(hash));
        let seen = shard.get(&hash)?;
        seen.state_of(request, view).map(|state| (state, Arc::clone(seen)))
    }

    #[cfg(test)]
    fn get<B>(&self, hash: u64, request: &Request<B>, view: View<'_>) -> Option<R> {
        self.found(hash, request, view).map(|(state, _)| state)
    }

    /// Remembers a request's target, instead of one of the same hash.
    fn put<B>(&self, hash: u64, request: &Request<B>, view: View<'_>, state: &R) -> Arc<Seen<R>> {
        let seen = Arc::new(Seen::new(request, view, state));
        let mut shard = lock(self.shard(hash));
        // What is dropped is so without the lock.
        let forgotten = if shard.len() >= MOST / SHARDS { forget(&mut shard) } else { Vec::new() };
        let old = shard.insert(hash, Arc::clone(&seen));
        drop(shard);
        drop((old, forgotten));
        seen
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard<R>> {
        // The map takes the lowest bits and the highest seven.
        &self.shards[(hash >> 48) as usize % SHARDS]
    }
}

/// Makes room: half of it, at least.
#[cold]
fn forget<R: Remembered>(shard: &mut Shard<R>) -> Vec<Arc<Seen<R>>> {
    let gone = |seen: &Arc<Seen<R>>| R::is_gone(&seen.state);
    let live = shard.values().filter(|seen| !gone(seen)).count();
    let all = live > MOST / SHARDS / 2;
    let mut forgotten = Vec::new();
    shard.retain(|_, seen| {
        let keep = !all && !gone(seen);
        if !keep {
            forgotten.push(Arc::clone(seen));
        }
        keep
    });
    forgotten
}

/// A service's memory of the last target it met, so that a caller who asks the same model again and again pays for
/// a comparison of paths alone.
pub(crate) struct Memo<R: Remembered> {
    seen: Option<Arc<Seen<R>>>,
    called: bool,
}

impl<R: Remembered> Memo<R> {
    pub(crate) const fn new() -> Self {
        Self { seen: None, called: false }
    }

    /// Keeps what the layer remembers. A service that is cloned for one call need not remember anything.
    #[inline]
    fn keep(&mut self, seen: Arc<Seen<R>>) {
        if std::mem::replace(&mut self.called, true) {
            self.seen = Some(seen);
        }
    }
}

impl<R: Remembered> Clone for Memo<R> {
    /// The copy remembers nothing. A copy is made for each call, by those who keep one service for many tasks and by the
    /// retry layer for an attempt that mostly never comes, and what it remembered would be paid for each time.
    fn clone(&self) -> Self {
        Self::new()
    }
}

/// All that a [`Target`](crate::request::Target) is read from, and the state that it led to.
///
/// It holds the request's path and query, which may contain an API key: nothing here is ever printed.
struct Seen<R: Remembered> {
    method: http::Method,
    path: PathAndQuery,
    label: Option<KeyLabel>,
    hint: Option<ModelHint>,
    tier: Option<ServiceTier>,
    /// There is neither label nor hint nor tier, as there is not in a request that has nothing but its context.
    is_plain: bool,
    state: R::Weak,
}

impl<R: Remembered> Seen<R> {
    fn new<B>(request: &Request<B>, view: View<'_>, state: &R) -> Self {
        let path = request.uri().path_and_query().cloned();
        let label: Option<KeyLabel> = view.get().cloned();
        let hint: Option<ModelHint> = view.get().cloned();
        let tier = view.tier();
        Self {
            method: request.method().clone(),
            path: path.unwrap_or_else(|| PathAndQuery::from_static("/")),
            is_plain: label.is_none() && hint.is_none() && tier.is_none(),
            label,
            hint,
            tier,
            state: state.downgrade(),
        }
    }

    /// The state, if it is that of this request's target and was not dropped.
    #[inline(always)]
    fn state_of<B>(&self, request: &Request<B>, view: View<'_>) -> Option<R> {
        if self.is_of(request, view) { R::upgrade(&self.state) } else { None }
    }

    #[inline(always)]
    fn is_of<B>(&self, request: &Request<B>, view: View<'_>) -> bool {
        request.uri().path_and_query().is_some_and(|path| path.as_str() == self.path.as_str())
            && *request.method() == self.method
            && if view.is_plain() { self.is_plain } else { self.has(view) }
    }

    #[inline]
    fn has(&self, view: View<'_>) -> bool {
        view.get::<KeyLabel>() == self.label.as_ref()
            && view.get::<ModelHint>() == self.hint.as_ref()
            && view.get::<ServiceTier>() == self.tier.as_ref()
    }
}

/// The hash of a request's target: of what tells most targets apart. Those that share one take turns in being remembered.
#[inline]
fn hash_of<B>(request: &Request<B>, view: View<'_>) -> u64 {
    let hash = mix(0, request.uri().path().as_bytes());
    match view.get::<KeyLabel>() {
        None => hash,
        Some(label) => mix(hash, label.as_str().as_bytes()),
    }
}

/// Eight bytes at a time, the last eight of them twice where they are no multiple.
#[inline]
fn mix(hash: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    let rest = words.remainder();
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let mut hash = words.fold(hash, |hash, eight| step(hash, word(eight)));
    if !rest.is_empty() {
        let last = bytes.last_chunk::<8>().map_or_else(|| word(rest), |last| u64::from_le_bytes(*last));
        hash = step(hash, last);
    }
    step(hash, bytes.len() as u64)
}

/// The two halves of a product, as wyhash folds them.
#[inline]
fn step(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * 0x9E37_79B9_7F4A_7C15;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(uri: &str) -> Request<()> {
        Request::post(uri).body(()).expect("valid")
    }

    fn hash_of(request: &Request<()>) -> u64 {
        super::hash_of(request, View::of(request))
    }

    fn get(recent: &Recent<Arc<u8>>, hash: u64, request: &Request<()>) -> Option<u8> {
        recent.get(hash, request, View::of(request)).map(|state| *state)
    }

    #[test]
    fn targets_have_hashes_of_their_own() {
        let models = (0..10_000).map(|n| format!("/v1beta/models/gemini-{n}:generateContent"));
        let short = (0..1_000).map(|n| format!("/{n}"));
        let mut hashes: Vec<_> = models.chain(short).map(|uri| hash_of(&to(&uri))).collect();
        let all = hashes.len();
        // In each shard and in each place of a map.
        for bits in [0, 48, 57] {
            let mut counts = [0; 16];
            hashes.iter().for_each(|hash| counts[(hash >> bits) as usize % 16] += 1);
            assert!(counts.iter().all(|n| (all / 20..all / 12).contains(n)), "{bits}: {counts:?}");
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), all);
        let mut labelled = to("/a");
        labelled.extensions_mut().insert(KeyLabel::new("team-a"));
        assert_ne!(hash_of(&labelled), hash_of(&to("/a")));
        assert_ne!(mix(0, b"12345678"), mix(0, b"123456780"));
        assert_ne!(mix(0, b"a"), mix(0, b"a\0"));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_holds_no_state() {
        let (recent, state) = (Recent::<Arc<u8>>::new(), Arc::new(7));
        let put = |n: usize, state: &Arc<u8>| {
            let request = to(&format!("/{n}"));
            recent.put(hash_of(&request), &request, View::of(&request), state);
        };
        (0..4 * MOST).for_each(|n| put(n, &state));
        let sizes = || recent.shards.iter().map(|shard| lock(shard).len()).collect::<Vec<_>>();
        assert!(sizes().iter().all(|n| *n <= MOST / SHARDS), "{:?}", sizes());
        assert!(sizes().iter().sum::<usize>() >= MOST / 4);
        let last = to(&format!("/{}", 4 * MOST - 1));
        assert_eq!(get(&recent, hash_of(&last), &last), Some(7));
        assert_eq!(get(&recent, hash_of(&last), &to("/other")), None, "the same hash is not the same target");
        assert_eq!(Arc::strong_count(&state), 1);
        drop(state);
        assert_eq!(get(&recent, hash_of(&last), &last), None);
        // Those whose state is gone make room for the others.
        let other = Arc::new(8);
        let kept = (0..MOST / 8).map(|n| 5 * MOST + n);
        kept.clone().for_each(|n| put(n, &other));
        (6 * MOST..7 * MOST).for_each(|n| put(n, &Arc::new(9)));
        let is_kept = |n: &usize| {
            let request = to(&format!("/{n}"));
            get(&recent, hash_of(&request), &request).is_some()
        };
        assert_eq!(kept.clone().filter(is_kept).count(), kept.len());
    }
}
