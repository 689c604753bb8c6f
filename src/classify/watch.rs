//! Follows a successful body and publishes its end.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::response::Parts;
use http_body::Frame;

use super::reader::Reader;
use crate::lock::lock;
use crate::tier::ServiceTier;
use crate::verdict::{Cell, End, Kind, Outcome, Says, Tiers, Verdict};

/// Publishes once. Dropped before the end, it says so.
///
/// The reader lies beside the cell, in the one allocation that there is, and not in the body: each layer outside moves
/// the response, and what the reader knows is 250 bytes. Nobody else takes its lock.
pub(super) struct Watch(Arc<Cell<Mutex<Reader>>>);

impl Watch {
    /// Goes on where the reader stands, for the answer with this head, which learns where its end will be published.
    #[inline(always)]
    pub(super) fn new(parts: &mut Parts, reader: Reader, asked: Option<ServiceTier>) -> Self {
        let (end, cell) = Cell::new(Mutex::new(reader));
        if asked.is_some() {
            // Only who asked for a tier wants to know which one it was. After the cell is made, so that the reader is not
            // moved for it.
            let served = ServiceTier::served(&parts.headers);
            lock(&cell.with).tiers = Tiers { asked, served };
        }
        parts.extensions.insert(Verdict::watched(end));
        Self(cell)
    }

    /// Asks for the model that answers, if it is another one.
    #[cold]
    pub(super) fn expect(&self, model: u16) {
        lock(&self.0.with).expect(model);
    }

    pub(super) fn see<E>(&self, frame: &Option<Result<Frame<Bytes>, E>>, last: bool) {
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    lock(&self.0.with).read(data);
                }
                // A body of known length is over with its last byte; many readers never ask for the `None`.
                if last {
                    self.complete();
                }
            }
            Some(Err(_)) => self.publish(lock(&self.0.with), Outcome::Failed(Kind::Transport)),
            None => self.complete(),
        }
    }

    pub(super) fn complete(&self) {
        if self.0.get().is_none() {
            let mut reader = lock(&self.0.with);
            let fault = reader.fault();
            self.publish(reader, fault.map_or(Outcome::Complete, Outcome::Failed));
        }
    }

    fn publish(&self, reader: MutexGuard<'_, Reader>, outcome: Outcome) {
        let usage = reader.usage();
        if let Some(reason) = reader.unknown_finish() {
            self.0.finished(reason);
        }
        drop(reader);
        self.0.publish(End::new(outcome, usage));
    }
}

impl Says for Mutex<Reader> {
    fn model_version(&self) -> Option<String> {
        lock(self).model_version().map(str::to_owned)
    }

    fn tiers(&self) -> Tiers {
        lock(self).tiers
    }

    fn tier(&self) -> Option<ServiceTier> {
        lock(self).tier()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // After the end it says nothing: the first word stands.
        if self.0.get().is_none() {
            let usage = lock(&self.0.with).usage();
            self.0.publish(self.0.dropped(usage));
        }
    }
}
