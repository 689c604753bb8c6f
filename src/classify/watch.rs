//! Follows a successful body and publishes its end.

use bytes::Bytes;
use http_body::Frame;

use super::reader::Reader;
use crate::verdict::{End, EndCell, Kind, Outcome};

/// Publishes once. Dropped before the end, it says so.
pub(super) struct Watch {
    end: EndCell,
    reader: Reader,
}

impl Watch {
    /// Goes on where the reader stands.
    pub(super) const fn new(end: EndCell, reader: Reader) -> Self {
        Self { end, reader }
    }

    pub(super) fn see<E>(&mut self, frame: &Option<Result<Frame<Bytes>, E>>, last: bool) {
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.reader.read(data);
                }
                // A body of known length is over with its last byte; many readers never ask for the `None`.
                if last {
                    self.complete();
                }
            }
            Some(Err(_)) => self.publish(Outcome::Failed(Kind::Transport)),
            None => self.complete(),
        }
    }

    pub(super) fn complete(&mut self) {
        if self.end.get().is_none() {
            let fault = self.reader.fault();
            self.publish(fault.map_or(Outcome::Complete, Outcome::Failed));
        }
    }

    fn publish(&self, outcome: Outcome) {
        self.end.publish(End { outcome, usage: self.reader.usage() });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // After the end it says nothing: the first word stands.
        self.publish(self.end.dropped());
    }
}
