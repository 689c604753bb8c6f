//! A record of each call, in a SQLite file. Optional: `--history FILE`.
//!
//! [`Recorder`] makes a [`Record`] of each call that is over and hands it to its [`Sink`]s; [`History`] is one of them. A call
//! never waits for the disk: a record goes into a queue of [`Settings::queue`] places, and a thread writes them in batches, at
//! most [`GATHER`] after they came. Where the queue is full, the record is lost and counted:
//! `offered = written + lost + queued` always holds.
//!
//! The file is bounded by size and age; the oldest records go first. It is in WAL mode: what was committed survives the
//! process, so after a `kill -9` the file opens and lacks at most the last second. Other programs may read it meanwhile.
//! A disk that is full or slow, or a file that another process has locked, delays the writer, which keeps its batch and tries
//! again; records are lost only once the queue is full.
//!
//! No key, header or body is in a record: a message is the verdict's, with keys replaced and cut at 500 characters.

mod csv;
mod query;
mod record;
mod store;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub use self::csv::{HEADER, line};
pub use self::query::{Filter, Over, Reader, Shown, Summary};
pub use self::record::{Record, Recorder, Sink, Step, Trace, Traced, caused, traced};
use self::store::Store;

/// How long the first record of a batch waits for others.
pub const GATHER: Duration = Duration::from_millis(200);
/// Records in one transaction.
const BATCH: usize = 1024;
/// How often the queue is looked at meanwhile.
const NAP: Duration = Duration::from_millis(10);
/// Between attempts to write where the file does not take a batch.
const AGAIN: Duration = Duration::from_millis(200);
/// How often an idle writer removes what has become too old.
const TIDY: Duration = Duration::from_secs(1);

/// Where the file is, and what bounds it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Made where there is none, readable by its owner only.
    pub file: PathBuf,
    /// Most bytes that records use, indexes included. Default 1 GiB, at least 1 MiB. The log beside the file (`-wal`) comes on top:
    /// usually 4 MiB, more while a reader is at work.
    pub max_bytes: u64,
    /// The age at which a record is removed. Default 30 days.
    pub max_age: Duration,
    /// Records that may wait for the writer. Default 20,000, some 12 MiB if all are used.
    pub queue: usize,
}

impl Settings {
    /// The defaults.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            max_bytes: 1 << 30,
            max_age: Duration::from_secs(30 * 86_400),
            queue: 20_000,
        }
    }
}

/// What has become of the records so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Calls that ended.
    pub offered: u64,
    /// Of them, those in the file; some may have been removed since.
    pub written: u64,
    /// Of them, those that will never be in it.
    pub lost: u64,
    /// Bytes of the file that are in use.
    pub bytes: u64,
    /// Why the last batch could not be written, until one could.
    pub error: Option<String>,
}

impl Status {
    /// Records that wait to be written.
    pub const fn queued(&self) -> u64 {
        self.offered.saturating_sub(self.written).saturating_sub(self.lost)
    }
}

/// The file and its writer. Clones share it; the writer ends after the last of them.
#[derive(Clone, Debug)]
pub struct History {
    sender: SyncSender<Message>,
    counts: Arc<Counts>,
    file: Arc<Path>,
}

#[derive(Debug, Default)]
struct Counts {
    offered: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
    bytes: AtomicU64,
    error: Mutex<Option<String>>,
}

enum Message {
    Record(Arc<Record>),
    /// Answered once everything before it was written, or lost.
    Flush(oneshot::Sender<()>),
}

impl History {
    /// Opens the file and starts the writer. The error is a sentence without its full stop.
    pub fn open(settings: &Settings) -> Result<Self, String> {
        let named = |why: String| format!("the history {}: {why}", settings.file.display());
        let store = Store::open(settings).map_err(named)?;
        let counts = Arc::new(Counts::default());
        counts.bytes.store(store.bytes(), Ordering::Relaxed);
        let (sender, receiver) = mpsc::sync_channel(settings.queue.max(1));
        let told = Arc::clone(&counts);
        std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || write_all(store, &receiver, &told))
            .map_err(|error| named(format!("no thread can be started: {error}")))?;
        Ok(Self { sender, counts, file: Arc::from(settings.file.as_path()) })
    }

    pub fn status(&self) -> Status {
        let of = |count: &AtomicU64| count.load(Ordering::Acquire);
        // In this order, so that nothing is counted as done that was not counted as offered.
        let (written, lost) = (of(&self.counts.written), of(&self.counts.lost));
        let error = self.counts.error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Status { offered: of(&self.counts.offered), written, lost, bytes: of(&self.counts.bytes), error }
    }

    /// Waits until what was recorded before is in the file, for at most `patience`. Whether it is.
    pub async fn flushed(&self, patience: Duration) -> bool {
        let (done, mut written) = oneshot::channel();
        let all = async {
            let mut message = Message::Flush(done);
            while let Err(TrySendError::Full(back)) = self.sender.try_send(message) {
                message = back;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (&mut written).await.is_ok()
        };
        tokio::time::timeout(patience, all).await.unwrap_or(false)
    }

    /// Reads the file through a connection of its own.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.file))
    }
}

impl Sink for History {
    /// Never blocks.
    fn record(&self, record: &Arc<Record>) {
        self.counts.offered.fetch_add(1, Ordering::Release);
        if self.sender.try_send(Message::Record(Arc::clone(record))).is_err() {
            self.counts.lost.fetch_add(1, Ordering::Release);
        }
    }
}

/// Writes until nobody can send any more.
fn write_all(mut store: Store, receiver: &Receiver<Message>, counts: &Counts) {
    let mut batch = Vec::new();
    loop {
        let mut flush = None;
        let first = receiver.recv_timeout(TIDY);
        let ended = matches!(first, Err(RecvTimeoutError::Disconnected));
        match first {
            Ok(Message::Record(record)) => {
                batch.push(record);
                flush = gather(receiver, &mut batch);
            }
            Ok(Message::Flush(done)) => flush = Some(done),
            Err(_) => {}
        }
        write(&mut store, &mut batch, counts);
        if let Some(done) = flush {
            let _ = done.send(());
        }
        if ended {
            return;
        }
    }
}

/// Fills the batch for [`GATHER`]. Who wants to know of its end, if somebody does.
fn gather(receiver: &Receiver<Message>, batch: &mut Vec<Arc<Record>>) -> Option<oneshot::Sender<()>> {
    let until = Instant::now() + GATHER;
    while batch.len() < BATCH {
        match receiver.try_recv() {
            Ok(Message::Record(record)) => batch.push(record),
            Ok(Message::Flush(done)) => return Some(done),
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                // To be woken by each record would cost the call that ends, and this thread, more than the record.
                #[expect(clippy::disallowed_methods, reason = "a thread of its own, without an executor")]
                std::thread::sleep(left.min(NAP));
            }
        }
    }
    None
}

/// Writes the batch, as often as it takes, and removes what is too old or too much. Afterwards the batch is empty.
fn write(store: &mut Store, batch: &mut Vec<Arc<Record>>, counts: &Counts) {
    loop {
        let result = store.write(batch, Timestamp::now().as_millisecond());
        counts.bytes.store(store.bytes(), Ordering::Release);
        let many = batch.len() as u64;
        let error = match &result {
            Ok(()) => None,
            Err(error) => Some(error.to_string()),
        };
        *counts.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        match result {
            Ok(()) => {
                counts.written.fetch_add(many, Ordering::Release);
            }
            // The place may be there again in a moment, and until then the queue holds what comes.
            Err(error) if many > 0 && store::may_pass(&error) => {
                #[expect(clippy::disallowed_methods, reason = "a thread of its own, without an executor")]
                std::thread::sleep(AGAIN);
                continue;
            }
            Err(_) => {
                counts.lost.fetch_add(many, Ordering::Release);
            }
        }
        batch.clear();
        return;
    }
}
