use std::fmt;

use ::moka::sync::Cache;

use super::store::{Answer, Key, LastGoodStore};

/// Keeps answers in a [`moka`] cache, whose owner says how many, how many bytes and for how long.
///
/// A weigher counts [`Answer::bytes`] and the key's. Clones share what is kept.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::last_good::{Answer, Key, MokaStore};
///
/// let cache = moka::sync::Cache::builder()
///     .weigher(|key: &Key, answer: &Answer| (key.as_bytes().len() + answer.bytes()).try_into().unwrap_or(u32::MAX))
///     .max_capacity(64 << 20)
///     .time_to_live(Duration::from_secs(6 * 3600))
///     .build();
/// let store = MokaStore::new(cache);
/// # let _ = store;
/// ```
#[derive(Clone)]
pub struct MokaStore(Cache<Key, Answer>);

impl MokaStore {
    /// A store that keeps its answers there.
    #[must_use]
    pub const fn new(cache: Cache<Key, Answer>) -> Self {
        Self(cache)
    }
}

impl LastGoodStore for MokaStore {
    fn put(&self, key: &Key, answer: Answer) {
        self.0.insert(key.clone(), answer);
    }

    fn get(&self, key: &Key) -> Option<Answer> {
        self.0.get(key)
    }
}

impl fmt::Debug for MokaStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MokaStore").field("entries", &self.0.entry_count()).finish_non_exhaustive()
    }
}
