use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::error::{LostReason, ReplayLost};

/// What the layers around a [`ReplayBody`](super::ReplayBody) may know of it and ask of it.
///
/// [`ReplayLayer`](super::ReplayLayer) puts one into the request's extensions. Clones speak of the same
/// body. A handle keeps neither the kept bytes nor the inner body alive.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt, Full};
/// use tower_gemini::retry::ReplayBody;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_gemini::BoxError> {
/// let body = ReplayBody::with_max_bytes(Full::new(Bytes::from_static(b"too long")), 4);
/// let replay = body.replay();
/// assert!(!replay.is_lost(), "nothing was sent yet, so any copy can still send it");
/// body.collect().await?;
/// assert!(replay.is_lost(), "eight bytes are gone and four were allowed");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Replay {
    pub(super) control: Arc<Control>,
}

/// Written under the lock of the shared body (`births` and `released` apart), read by anybody.
///
/// Every field stands for itself and none of them guards other memory, so `Relaxed` is enough everywhere.
pub(super) struct Control {
    pub(super) max_bytes: usize,
    /// How many clones were made. The next one's rank, which is why it only grows.
    births: AtomicU64,
    /// 0 as long as a new copy could send the whole body, else a `LostReason`; set once.
    lost: AtomicU8,
    /// Never taken back: bytes that are gone do not return.
    released: AtomicBool,
    /// Bytes in the buffer, never above `max_bytes`.
    kept: AtomicUsize,
    /// An `Upload`.
    upload: AtomicU8,
    /// Somebody has had to wait for the source.
    was_awaited: AtomicBool,
    /// When the source ended, if so.
    whole_since: OnceLock<Instant>,
}

/// How far the source of a body has come, which is the caller's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Upload {
    /// Nobody waits for it: it was not read yet, or whoever reads it does not go on.
    Idle,
    /// Whoever sends it waits for more of it.
    Awaited,
    /// It has come to its end.
    Whole,
    /// It ended with an error.
    Failed,
}

impl Control {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            births: AtomicU64::new(0),
            lost: AtomicU8::new(0),
            released: AtomicBool::new(false),
            kept: AtomicUsize::new(0),
            upload: AtomicU8::new(Upload::Idle as u8),
            was_awaited: AtomicBool::new(false),
            whole_since: OnceLock::new(),
        }
    }

    pub(super) fn set_upload(&self, upload: Upload) {
        self.upload.store(upload as u8, Ordering::Relaxed);
        match upload {
            Upload::Awaited => self.was_awaited.store(true, Ordering::Relaxed),
            // A body that was at hand whenever it was asked for costs no look at the clock.
            Upload::Whole if self.was_awaited.load(Ordering::Relaxed) => {
                let _ = self.whole_since.set(crate::time::now());
            }
            _ => {}
        }
    }

    /// The rank of a new clone; the first body has rank 0.
    pub(super) fn birth(&self) -> u64 {
        self.births.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn is_released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }

    pub(super) fn set_kept(&self, bytes: usize) {
        self.kept.store(bytes, Ordering::Relaxed);
    }

    /// The first reason stays: what comes later is its consequence.
    pub(super) fn set_lost(&self, reason: LostReason) {
        let code = match reason {
            LostReason::TooLarge => 1,
            LostReason::Released => 2,
            LostReason::BodyFailed => 3,
            LostReason::UnknownFrame => 4,
        };
        let _ = self.lost.compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn lost(&self) -> Option<ReplayLost> {
        let reason = match self.lost.load(Ordering::Relaxed) {
            0 => return None,
            1 => LostReason::TooLarge,
            2 => LostReason::Released,
            3 => LostReason::BodyFailed,
            _ => LostReason::UnknownFrame,
        };
        Some(ReplayLost { reason, max_bytes: self.max_bytes })
    }
}

impl Replay {
    /// Whether a new copy could no longer send the whole body, so that the request cannot be repeated.
    ///
    /// Mostly because it was larger than [`max_bytes`](Self::max_bytes). Not before bytes were really taken
    /// from the body: an attempt that found no connection leaves also a large body as it was.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost().is_some()
    }

    /// Why the request cannot be repeated; `None` as long as it can.
    #[must_use]
    pub fn lost(&self) -> Option<ReplayLost> {
        self.control.lost()
    }

    /// How far the caller has come with sending it.
    pub(crate) fn upload(&self) -> Upload {
        match self.control.upload.load(Ordering::Relaxed) {
            1 => Upload::Awaited,
            2 => Upload::Whole,
            3 => Upload::Failed,
            _ => Upload::Idle,
        }
    }

    /// When the caller had sent the whole of it; `None` as well where it was at hand.
    pub(crate) fn whole_since(&self) -> Option<Instant> {
        self.control.whole_since.get().copied()
    }

    /// The most bytes that are kept.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.control.max_bytes
    }

    /// How many bytes are kept at this moment.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.control.kept.load(Ordering::Relaxed)
    }

    /// Says that the copy which is being sent, or the next one to be, is the last.
    ///
    /// From its next poll on, that copy frees what it has sent and keeps nothing new; a last attempt then
    /// costs no memory beyond what it still has to send. As soon as that happened, the body counts as lost.
    /// Cannot be undone.
    pub fn release(&self) {
        self.control.released.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("max_bytes", &self.max_bytes())
            .field("kept_bytes", &self.kept_bytes())
            .field("lost", &self.lost().map(|lost| lost.reason()))
            .finish()
    }
}
