//! Reads along with a successful body, through its coding.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::response::Parts;
use http::{HeaderMap, StatusCode};

#[cfg(feature = "gzip")]
use crate::judge::gunzip::Gunzip;
use crate::judge::response::{Seen, judge_held, judge_scanned};
use crate::scan::Scanner;
use crate::tier::ServiceTier;
use crate::verdict::{Kind, Tiers, Usage, Verdict};

/// What the head waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Until {
    Event,
    Output,
    Whole,
}

/// What has been read of an answer. It is shown every byte once, and whether the body has ended.
pub(super) struct Reader {
    status: StatusCode,
    /// The answer is to be a stream, so that a body without a byte is none.
    streams: bool,
    coding: Coding,
    finished: bool,
    /// Set where a tier was asked for.
    pub(super) tiers: Tiers,
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

impl Reader {
    #[inline(always)]
    pub(super) fn new(parts: &Parts, streams: bool) -> Self {
        let coding = if is_readable(&parts.headers) { Coding::Unknown } else { Coding::Other };
        let streams = streams && parts.status == StatusCode::OK;
        Self {
            status: parts.status,
            streams,
            coding,
            finished: false,
            tiers: Tiers::NONE,
            scanner: Scanner::new(),
        }
    }

    pub(super) fn read(&mut self, data: &[u8]) {
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

    pub(super) fn unknown_finish(&self) -> Option<&str> {
        self.scanner.unknown_finish()
    }

    /// The body is over.
    fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            self.scanner.finish();
        }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        match &self.coding {
            #[cfg(feature = "gzip")]
            Coding::Gzip(gunzip) if gunzip.is_damaged() => None,
            _ => self.scanner.usage(),
        }
    }

    /// Asks for the model that answers, if it is another one.
    #[cold]
    pub(super) fn expect(&mut self, model: u16) {
        self.scanner.expect(model);
    }

    pub(super) fn tier(&self) -> Option<ServiceTier> {
        self.scanner.tier()
    }

    pub(super) fn model_version(&self) -> Option<&str> {
        self.scanner.model_version()
    }

    /// What is wrong with the answer, now that its body is over.
    pub(super) fn fault(&mut self) -> Option<Kind> {
        self.finish();
        match &self.coding {
            Coding::Other => None,
            // There was more than is decoded.
            #[cfg(feature = "gzip")]
            Coding::Gzip(gunzip) if gunzip.is_over() || gunzip.is_damaged() => None,
            _ if self.streams && self.scanner.is_blank() && self.reads_on() => Some(Kind::EmptyResponse),
            _ => judge_scanned(self.status, &self.scanner),
        }
    }

    /// Whether there is no reason to hold the head any longer.
    pub(super) fn has_enough(&self, until: Until) -> bool {
        let scanner = &self.scanner;
        let settled = scanner.has_error() || until != Until::Whole && scanner.delivered();
        let hopeless = !self.reads_on() || scanner.is_text() || scanner.is_broken();
        settled
            || hopeless
            || scanner.has_said()
                && match until {
                    Until::Event => true,
                    Until::Output => !scanner.tells_output(),
                    Until::Whole => false,
                }
    }

    /// Whether an error may follow at once all the same: an interaction's first word is that it was created.
    pub(super) fn may_fail_yet(&self) -> bool {
        self.reads_on() && self.scanner.has_only_begun() && !self.scanner.has_error()
    }

    /// The failure that the answer is, where none of it was handed on.
    pub(super) fn verdict(&mut self, parts: &Parts, seen: Seen, until: Until) -> Option<Verdict> {
        let fault = match seen {
            Seen::Part => None,
            Seen::Whole => self.fault(),
            Seen::Lost => {
                self.finish();
                None
            }
        };
        judge_held(parts, &self.scanner, seen, fault, until == Until::Whole)
    }

    fn reads_on(&self) -> bool {
        match &self.coding {
            Coding::Unknown | Coding::Plain => true,
            #[cfg(feature = "gzip")]
            Coding::Gzip(gunzip) => !gunzip.has_stopped(),
            Coding::Other => false,
        }
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
pub(super) fn is_readable(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_none_or(|coding| {
        let coding = coding.as_bytes().trim_ascii();
        ["gzip", "x-gzip", "identity", ""].iter().any(|name| coding.eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// Whether the answer says that it is an event stream.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    const NAME: &[u8] = b"text/event-stream";
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes().trim_ascii_start();
        if !matches!(kind, [b't' | b'T', ..]) {
            return false;
        }
        let (name, rest) = kind.split_at(kind.len().min(NAME.len()));
        name.eq_ignore_ascii_case(NAME) && matches!(rest.first(), None | Some(b';' | b' ' | b'\t'))
    })
}
