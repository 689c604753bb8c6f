//! Where answers are kept.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, StatusCode, header};
use tokio::time::Instant;

use super::shelf::Shelf;
use crate::error::ConfigError;
use crate::lock::lock;
use crate::request::KeyLabel;
use crate::tier::ServiceTier;
use crate::time;

/// Keeps answers, and gives them back.
///
/// Both methods are called inside a call, so they must not block: an answer is put with the last frame of its body, where nothing can be
/// awaited and no task is spawned, and looked for when everything else has failed. A store on another machine is a local one that a task of your own
/// fills and empties. Keys and answers hold what callers sent and were answered.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
/// use tower_gemini::last_good::{Answer, Key, LastGoodStore};
///
/// #[derive(Default)]
/// struct Unbounded(Mutex<HashMap<Key, Answer>>);
///
/// impl LastGoodStore for Unbounded {
///     fn put(&self, key: &Key, answer: Answer) {
///         self.0.lock().expect("nobody panics under it").insert(key.clone(), answer);
///     }
///     fn get(&self, key: &Key) -> Option<Answer> {
///         self.0.lock().expect("nobody panics under it").get(key).cloned()
///     }
/// }
/// ```
pub trait LastGoodStore: Send + Sync {
    /// Keeps an answer in the place of an older one of the same key, for as long as there is room.
    fn put(&self, key: &Key, answer: Answer);

    /// The last answer that was put, if it is still there.
    fn get(&self, key: &Key) -> Option<Answer>;
}

// The trait is used as an object.
const _: Option<&dyn LastGoodStore> = None;

/// Which answers may stand in for each other: the caller's key, and what tells requests apart in any case.
///
/// Beside the caller's bytes it holds method, host, path and query (without `key`), the [`KeyLabel`], the tier, `accept` and
/// `accept-encoding`, and a hash of the credentials that is made anew in each process. It is never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// As bytes, for a store of your own.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn of<B>(key: &[u8], request: &Request<B>, hashes: Option<&[RandomState; 2]>) -> Self {
        let mut all = Vec::with_capacity(key.len() + 128);
        // Each with its length before it, so that none can be taken for another one's end.
        let mut add = |bytes: &[u8]| {
            all.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            all.extend_from_slice(bytes);
        };
        let (uri, headers, extensions) = (request.uri(), request.headers(), request.extensions());
        let query = uri.query().unwrap_or_default();
        let (mut secrets, mut open) = (Vec::new(), Vec::new());
        for pair in query.split('&') {
            if pair.starts_with("key=") || pair.starts_with("access_token=") {
                secrets.push(pair.as_bytes());
            } else {
                open.extend_from_slice(pair.as_bytes());
                open.push(b'&');
            }
        }
        add(request.method().as_str().as_bytes());
        add(uri.authority().map_or("", |authority| authority.as_str()).as_bytes());
        add(uri.path().as_bytes());
        add(&open);
        add(extensions.get::<KeyLabel>().map_or("", KeyLabel::as_str).as_bytes());
        add(ServiceTier::of(request).map_or("", ServiceTier::as_str).as_bytes());
        for name in [header::ACCEPT, header::ACCEPT_ENCODING] {
            add(headers.get(name).map_or(&[], |value| value.as_bytes()));
        }
        if let Some(hashes) = hashes {
            for name in [
                HeaderName::from_static("x-goog-api-key"),
                HeaderName::from_static("x-goog-user-project"),
                header::AUTHORIZATION,
            ] {
                secrets.push(headers.get(name).map_or(&[], |value| value.as_bytes()));
            }
            hashes.iter().for_each(|hash| add(&hash.hash_one(&secrets).to_le_bytes()));
        }
        add(key);
        Self(all.into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It holds a prompt.
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// A complete answer, and when it came.
#[derive(Clone)]
pub struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    at: Instant,
}

impl Answer {
    /// One that came so long ago, for a store that has kept it elsewhere.
    #[must_use]
    pub fn new(status: StatusCode, headers: HeaderMap, body: Bytes, age: Duration) -> Self {
        let now = time::now();
        Self { status, headers, body, at: now.checked_sub(age).unwrap_or(now) }
    }

    /// The status, below 400.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// `content-type`, `content-encoding` and `content-language`; other headers are not kept.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The whole body.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// How long ago it came, on tokio's clock.
    #[must_use]
    pub fn age(&self) -> Duration {
        time::now().saturating_duration_since(self.at)
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        self.body.len() + headers.sum::<usize>()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what was answered.
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Keeps answers in memory, within bounds: whichever was put longest ago goes first.
///
/// Clones share what is kept.
#[derive(Clone)]
pub struct MemoryStore {
    shelf: Arc<Mutex<Shelf<Key, Answer>>>,
}

impl MemoryStore {
    /// So many bytes (1 KiB to 16 GiB) and entries (1 to 10,000,000) at the most, 256 bytes for each entry added. [`MemoryStore::default`] has 16 MiB and 1,024.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when one is out of its range.
    pub fn new(max_bytes: usize, max_entries: usize) -> Result<Self, ConfigError> {
        if !(1 << 10..=16_usize.saturating_mul(1 << 30)).contains(&max_bytes) {
            return Err(ConfigError::new("max_bytes", "must be from 1 KiB to 16 GiB"));
        }
        if !(1..=10_000_000).contains(&max_entries) {
            return Err(ConfigError::new("max_entries", "must be from 1 to 10,000,000"));
        }
        Ok(Self { shelf: Arc::new(Mutex::new(Shelf::new(max_bytes, max_entries))) })
    }

    /// How many answers are kept.
    #[must_use]
    pub fn entries(&self) -> usize {
        lock(&self.shelf).len()
    }

    /// How many bytes they count.
    #[must_use]
    pub fn bytes(&self) -> usize {
        lock(&self.shelf).bytes()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(16 << 20, 1024).expect("the defaults are valid")
    }
}

impl LastGoodStore for MemoryStore {
    fn put(&self, key: &Key, answer: Answer) {
        let bytes = key.0.len() + answer.bytes();
        lock(&self.shelf).put(key.clone(), answer, bytes);
    }

    fn get(&self, key: &Key) -> Option<Answer> {
        lock(&self.shelf).get(key).cloned()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("entries", &self.entries()).field("bytes", &self.bytes()).finish()
    }
}
