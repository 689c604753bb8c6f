//! What a fleet shares: a place that answers messages, one after another for each key.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::message::{Close, Micros, Notice, Reply, StoreKey, Take};

/// A boxed future, as [`Store`] returns it.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps the state that the members of a fleet share. [`MemoryStore`](super::MemoryStore) is one for a single process;
/// with the feature `redis`, `RedisStore` is one for many.
///
/// A store of your own (etcd, Postgres) keeps for each key what `MemoryStore` keeps and does to it what that does:
/// `docs/fleet.md` has the steps. What members rely on:
///
/// - The messages of one key are processed one after another, each wholly or not at all, by one clock.
/// - A message that arrives twice is processed once, and answered alike: its member and call tell.
/// - When writes may have been lost, the state begins anew under another epoch.
///
/// The methods are called by one task of each layer and may be slow; they are given up after
/// [`timeout`](Self::timeout) and called again with the same messages.
///
/// ```
/// use tower_gemini::fleet::{Close, Reply, Store, StoreError, StoreFuture, StoreKey, Take};
///
/// #[derive(Debug)]
/// struct Nowhere;
///
/// impl Store for Nowhere {
///     fn take<'a>(&'a self, _: &'a [Take]) -> StoreFuture<'a, Result<Vec<Reply>, StoreError>> {
///         Box::pin(async { Err(StoreError::unreachable("there is none")) })
///     }
///     fn close<'a>(&'a self, _: &'a StoreKey, _: Close, _: u64) -> StoreFuture<'a, Result<(), StoreError>> {
///         Box::pin(async { Err(StoreError::unreachable("there is none")) })
///     }
/// }
/// ```
pub trait Store: fmt::Debug + Send + Sync {
    /// Answers messages, each of another key, in their order.
    ///
    /// # Errors
    ///
    /// When any of them could not be answered. All are sent again then.
    fn take<'a>(&'a self, takes: &'a [Take]) -> StoreFuture<'a, Result<Vec<Reply>, StoreError>>;

    /// Closes a dimension of a key, or opens all, and tells the members. `window` is that of the members'
    /// [`Terms`](super::Terms).
    ///
    /// # Errors
    ///
    /// When it is not known whether that was done. It is done again then.
    fn close<'a>(
        &'a self,
        key: &'a StoreKey,
        close: Close,
        window: Micros,
    ) -> StoreFuture<'a, Result<(), StoreError>>;

    /// What the store tells of its own accord: doors that were closed, states that began anew. `None` where it never does;
    /// then members learn with each answer, and a new state waits longer for those who remember another one. Default
    /// `None`.
    fn subscribe(&self) -> Option<Box<dyn Notices>> {
        None
    }

    /// Whether [`subscribe`](Self::subscribe) tells of both. Default `false`.
    fn pushes(&self) -> bool {
        false
    }

    /// How long an old master may go on granting after a new one was promoted; `None` for a twelfth of the window.
    /// Default `None`.
    fn split(&self) -> Option<std::time::Duration> {
        None
    }

    /// How long an answer may take. Default 250 ms.
    fn timeout(&self) -> std::time::Duration {
        std::time::Duration::from_millis(250)
    }

    /// Where it is, for people: no password. Default `store`.
    fn place(&self) -> String {
        "store".to_owned()
    }
}

/// What one subscriber of a [`Store`] is told.
pub trait Notices: Send {
    /// Waits for the next notice; `None` where some may have been missed. A future that is dropped loses none.
    fn next(&mut self) -> StoreFuture<'_, Option<Notice>>;
}

// The traits are used as objects.
const _: Option<(&dyn Store, &dyn Notices)> = None;

/// Why a store did not answer. Prints what to do; never a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    kind: StoreFault,
    detail: String,
}

/// What kind of [`StoreError`] it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreFault {
    /// No connection, no answer in time, or one that broke off.
    Unreachable,
    /// It wants another name or password, or this user may not do what is needed.
    Denied,
    /// It is a replica, or cannot write.
    ReadOnly,
    /// The state is of a newer protocol than this version knows.
    Newer,
    /// Something else stands under the state's name.
    Foreign,
    /// It answered something that is no answer.
    Unexpected,
}

impl StoreFault {
    /// What to do, as a phrase.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Unreachable => "check that the store runs and that its address can be reached from here",
            Self::Denied => "check the user name and password, and what the user may do",
            Self::ReadOnly => "give the address of the master, or of Sentinel",
            Self::Newer => "update this process: newer ones share the quota already",
            Self::Foreign => "delete the key, or give the fleet another namespace",
            Self::Unexpected => "check that it is Redis 6 or later, or Valkey",
        }
    }
}

impl StoreError {
    /// An error of this kind; `detail` is shown to people and must hold no secret.
    #[must_use]
    pub fn new(kind: StoreFault, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// No answer.
    #[must_use]
    pub fn unreachable(detail: impl Into<String>) -> Self {
        Self::new(StoreFault::Unreachable, detail)
    }

    pub(crate) fn unexpected(detail: impl Into<String>) -> Self {
        Self::new(StoreFault::Unexpected, detail)
    }

    /// Whether it is about one key, and others may do.
    pub(crate) const fn is_of_a_key(&self) -> bool {
        matches!(self.kind, StoreFault::Newer | StoreFault::Foreign | StoreFault::Unexpected)
    }

    /// What kind of error it is.
    #[must_use]
    pub const fn fault(&self) -> StoreFault {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the quota store failed: {}; {}", self.detail, self.kind.advice())
    }
}

impl Error for StoreError {}
