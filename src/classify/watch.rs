//! Reads along with a successful body and publishes its end.

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use http_body::Frame;

#[cfg(feature = "gzip")]
use super::gunzip::Gunzip;
use super::judge_scanned;
use crate::scan::Scanner;
use crate::verdict::{End, EndCell, Kind, Outcome};

/// Publishes once. Dropped before the end, it says so.
pub(super) struct Watch {
    end: EndCell,
    status: StatusCode,
    coding: Coding,
    scanner: Scanner,
}

enum Coding {
    /// The first byte will tell.
    Unknown,
    Plain,
    #[cfg(feature = "gzip")]
    Gzip(Box<Gunzip>),
    /// One that is not undone: only the transport's end is judged.
    Other,
}

impl Watch {
    pub(super) fn new(end: EndCell, parts: &Parts) -> Self {
        let coding = if is_readable(&parts.headers) { Coding::Unknown } else { Coding::Other };
        Self { end, status: parts.status, coding, scanner: Scanner::new() }
    }

    pub(super) fn see<E>(&mut self, frame: &Option<Result<Frame<Bytes>, E>>, last: bool) {
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.read(data);
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

    fn read(&mut self, data: &[u8]) {
        if let (Coding::Unknown, Some(first)) = (&self.coding, data.first()) {
            // The first byte tells, not the header: recorders lose headers, and no text begins with it.
            self.coding = if *first == 0x1f { gzip() } else { Coding::Plain };
        }
        match &mut self.coding {
            Coding::Plain => self.scanner.feed(data),
            #[cfg(feature = "gzip")]
            Coding::Gzip(gunzip) => gunzip.feed(data, &mut self.scanner),
            Coding::Unknown | Coding::Other => {}
        }
    }

    pub(super) fn complete(&mut self) {
        if self.end.get().is_some() {
            return;
        }
        self.scanner.finish();
        #[cfg(feature = "gzip")]
        if matches!(&self.coding, Coding::Gzip(gunzip) if gunzip.is_over()) {
            return self.publish(Outcome::Complete);
        }
        let fault = judge_scanned(self.status, &self.scanner);
        self.publish(fault.map_or(Outcome::Complete, Outcome::Failed));
    }

    fn publish(&self, outcome: Outcome) {
        self.end.publish(End { outcome, usage: self.scanner.usage() });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // After the end it says nothing: the first word stands.
        self.publish(self.end.dropped());
    }
}

#[cfg(feature = "gzip")]
fn gzip() -> Coding {
    Coding::Gzip(Box::new(Gunzip::new()))
}

#[cfg(not(feature = "gzip"))]
fn gzip() -> Coding {
    Coding::Other
}

/// Whether the body is plain text, or coded in a way whose first byte tells.
fn is_readable(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_none_or(|coding| {
        let coding = coding.as_bytes().trim_ascii();
        ["gzip", "x-gzip", "identity", ""].iter().any(|name| coding.eq_ignore_ascii_case(name.as_bytes()))
    })
}
