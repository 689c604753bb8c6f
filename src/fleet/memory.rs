use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::broadcast;
use tokio::time::Instant;

use super::book::Book;
use super::message::{Close, Micros, Notice, Reply, StoreKey, Take};
use super::store::{Notices, Store, StoreError, StoreFuture};
use crate::lock::lock;
use crate::time;

/// Notices that one who does not look may lag behind.
const LAG: usize = 1024;

/// A store in this process's memory: for several layers of one process that draw on the same quota, and for tests.
///
/// Clones are the same store. Its clock is tokio's, and pauses with it. State is kept until the last clone is dropped: about
/// 400 bytes for each member of each key, and 6 KiB for a window.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    books: Mutex<HashMap<String, Book>>,
    /// An instant, and what the calendar said at it.
    begun: (Instant, Micros),
    notices: broadcast::Sender<Notice>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let since = time::wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let begun = (time::now(), u64::try_from(since.as_micros()).unwrap_or(0));
        let inner = Inner { books: Mutex::default(), begun, notices: broadcast::channel(LAG).0 };
        Self { inner: Arc::new(inner) }
    }

    fn now(&self) -> Micros {
        let (instant, calendar) = self.inner.begun;
        let passed = time::now().saturating_duration_since(instant).as_micros();
        calendar.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    fn tell(&self, notice: Notice) {
        // Nobody may be listening.
        let _ = self.inner.notices.send(notice);
    }

    fn answer(&self, take: &Take) -> Reply {
        let now = self.now();
        let mut books = lock(&self.inner.books);
        let book = books.entry(take.key.digest.clone()).or_default();
        let (reply, wrote) = book.take(now, "memory", take);
        drop(books);
        if wrote.born {
            self.tell(Notice::born(take.key.digest.clone(), reply.epoch));
        }
        reply
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").field("keys", &lock(&self.inner.books).len()).finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    fn take<'a>(&'a self, takes: &'a [Take]) -> StoreFuture<'a, Result<Vec<Reply>, StoreError>> {
        Box::pin(async move { Ok(takes.iter().map(|take| self.answer(take)).collect()) })
    }

    fn close<'a>(
        &'a self,
        key: &'a StoreKey,
        close: Close,
        window: Micros,
    ) -> StoreFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let now = self.now();
            lock(&self.inner.books).entry(key.digest.clone()).or_default().close(now, window, close);
            self.tell(Notice::closed(key.digest.clone(), close));
            Ok(())
        })
    }

    fn subscribe(&self) -> Option<Box<dyn Notices>> {
        Some(Box::new(Heard(self.inner.notices.subscribe())))
    }

    fn pushes(&self) -> bool {
        true
    }

    fn split(&self) -> Option<std::time::Duration> {
        // There is one of it.
        Some(std::time::Duration::ZERO)
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}

struct Heard(broadcast::Receiver<Notice>);

impl Notices for Heard {
    fn next(&mut self) -> StoreFuture<'_, Option<Notice>> {
        Box::pin(async move {
            match self.0.recv().await {
                Ok(notice) => Some(notice),
                Err(broadcast::error::RecvError::Lagged(_)) => None,
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        })
    }
}
