//! How far a request has come, told to whoever watches the whole of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};
use std::time::Duration;

use crate::scan::name_hash;

/// How far a request has come, where no response will tell: whoever watches the whole of it puts it into the request's
/// context, and the retry layer writes to it when it sends the request again.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttemptCounter(Arc<Marks>);

#[derive(Debug, Default)]
struct Marks {
    /// Attempts begun; 0 while there was no second one. Relaxed, as is the other: the two are numbers for a report.
    attempts: AtomicU32,
    /// The number of the model that was asked; 0 where none is named.
    model: AtomicU16,
    waited_nanos: AtomicU64,
}

impl AttemptCounter {
    pub(crate) fn note(&self, attempt: u32, waited: Duration) {
        self.0.attempts.store(attempt, Relaxed);
        self.0.waited_nanos.store(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Wants to know if another model answers than this.
    pub(crate) fn expect(&self, model: Option<&str>) {
        let number = model.map_or(0, |model| name_hash(model.as_bytes()));
        self.0.model.store(number, Relaxed);
    }

    /// What somebody around this request [expects](Self::expect); 0 for nothing.
    #[inline]
    pub(crate) fn model(&self) -> u16 {
        self.0.model.load(Relaxed)
    }

    /// Attempts begun, and how long was waited between them.
    pub(crate) fn read(&self) -> (u32, Duration) {
        let waited = Duration::from_nanos(self.0.waited_nanos.load(Relaxed));
        (self.0.attempts.load(Relaxed).max(1), waited)
    }
}
