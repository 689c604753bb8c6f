//! What a body says, folded out of it in one pass: the pure part below the rules.
//!
//! The fold is a `serde_json` visitor that keeps borrowed pieces of the body and nothing else. It never
//! rejects: members of the wrong type are passed over, and when the text ends early or turns out not to be
//! JSON, whatever was folded so far stays.

use std::borrow::Cow;
use std::time::Duration;

use serde::de::DeserializeSeed;

use super::fold::Envelope;
use super::scalar::Scalar;
use crate::scan::Answer;

/// How many envelopes around envelopes are opened. Two occur; gemini-cli opens ten.
const MAX_WRAPPINGS: u8 = 4;
/// Violations kept. Google sends four at most; the bound keeps a hostile body from growing a list.
const MAX_VIOLATIONS: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    /// An `error` member was seen, or the body is one long error text.
    pub(super) has_error: bool,
    /// The status was found inside another one's message: what else the envelope says does not count.
    pub(super) unwrapped: bool,
    pub(super) code: Option<u16>,
    /// The Interactions API's string code.
    pub(super) code_name: Option<Cow<'a, str>>,
    pub(super) status: Option<Cow<'a, str>>,
    /// As it stands in the body, which may be with JSON's escapes.
    pub(super) message: Cow<'a, str>,
    pub(super) escaped: bool,
    /// For want of a message: the legacy list's first, else a localized one.
    pub(super) legacy: Option<Cow<'a, str>>,
    pub(super) localized: Option<Cow<'a, str>>,
    pub(super) reason: Option<Cow<'a, str>>,
    pub(super) domain: Option<Cow<'a, str>>,
    pub(super) violations: Violations<'a>,
    pub(super) retry_info: Option<Duration>,
    /// Found in prose that is not the message: a front end's page.
    pub(super) page_delay: Option<Duration>,
    pub(super) metadata: Metadata<'a>,
    /// What a 200 holds.
    pub(super) answer: Answer,
    pub(super) model_version: Option<Cow<'a, str>>,
}

/// At most [`MAX_VIOLATIONS`]. One is the usual number, and it needs no list.
#[derive(Debug, Default)]
pub(super) struct Violations<'a> {
    first: Option<Violation<'a>>,
    rest: Vec<Violation<'a>>,
}

impl<'a> Violations<'a> {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Violation<'a>> {
        self.first.iter().chain(&self.rest)
    }

    /// Adds one, unless there are too many already.
    pub(super) fn push(&mut self, violation: Violation<'a>) {
        match &self.first {
            None => self.first = Some(violation),
            Some(_) if self.len() < MAX_VIOLATIONS => self.rest.push(violation),
            Some(_) => {}
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Violation<'a> {
    pub(super) metric: Option<Cow<'a, str>>,
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) value: Option<u64>,
    /// The value was there or may have been cut off: its absence is no zero.
    pub(super) not_omitted: bool,
    pub(super) model: Option<Cow<'a, str>>,
}

/// The members of `ErrorInfo.metadata` that the rules read.
#[derive(Debug, Default)]
pub(super) struct Metadata<'a> {
    pub(super) quota_metric: Option<Cow<'a, str>>,
    pub(super) quota_limit: Option<Cow<'a, str>>,
    pub(super) quota_limit_value: Option<u64>,
    pub(super) quota_unit: Option<Cow<'a, str>>,
    pub(super) reset_delay: Option<Duration>,
    pub(super) model: Option<Cow<'a, str>>,
}

impl<'a> Facts<'a> {
    /// Folds one JSON text. `false` where it ended early or was not JSON: what was read stays.
    pub(super) fn fold(&mut self, json: &'a str) -> bool {
        let mut de = serde_json::Deserializer::from_str(json);
        let whole = Envelope { facts: self, wrappings: MAX_WRAPPINGS }.deserialize(&mut de).is_ok();
        self.settle();
        whole
    }

    /// Once all is read: members come in any order, and the message outranks what stands in for it.
    fn settle(&mut self) {
        if self.message.is_empty() {
            self.message = self.legacy.take().or(self.localized.take()).unwrap_or_default();
        }
    }

    /// Opens a string that holds the whole body once more, as SDKs and relays make them.
    pub(super) fn unwrap_string(&mut self, text: &str, wrappings: u8) -> bool {
        let trimmed = text.trim_start();
        // Also "got status: 429 . {"error": …": the prose of a client in front of the body.
        let json = match trimmed.as_bytes().first() {
            Some(b'{' | b'[') => trimmed,
            _ => match embedded(trimmed) {
                Some(at) => &trimmed[at..],
                None => return false,
            },
        };
        if wrappings == 0 {
            return false;
        }
        let mut inner = Facts::default();
        let mut de = serde_json::Deserializer::from_str(json);
        // A cut inner body still counts for what could be read of it.
        let _ = Envelope { facts: &mut inner, wrappings: wrappings - 1 }.deserialize(&mut de);
        if !inner.has_error {
            return false;
        }
        inner.settle();
        // The inner body is Google's own and outranks the envelope around it. Its pieces borrow from a text
        // that goes away, so they are copied; this is not the common path.
        self.take_over(inner);
        true
    }

    fn take_over(&mut self, inner: Facts<'_>) {
        fn own<'a>(piece: Option<Cow<'_, str>>) -> Option<Cow<'a, str>> {
            piece.map(|p| Cow::Owned(p.into_owned()))
        }
        self.has_error = true;
        self.unwrapped = true;
        self.code = inner.code.or(self.code);
        self.code_name = own(inner.code_name);
        self.status = own(inner.status);
        self.message = Cow::Owned(inner.message.into_owned());
        self.escaped = inner.escaped;
        self.reason = own(inner.reason).or(self.reason.take());
        self.domain = own(inner.domain).or(self.domain.take());
        self.retry_info = inner.retry_info.or(self.retry_info);
        for v in inner.violations.first.into_iter().chain(inner.violations.rest) {
            self.violations.push(Violation {
                metric: own(v.metric),
                id: own(v.id),
                value: v.value,
                not_omitted: v.not_omitted,
                model: own(v.model),
            });
        }
        let m = inner.metadata;
        self.metadata = Metadata {
            quota_metric: own(m.quota_metric),
            quota_limit: own(m.quota_limit),
            quota_limit_value: m.quota_limit_value,
            quota_unit: own(m.quota_unit),
            reset_delay: m.reset_delay,
            model: own(m.model),
        };
    }
}

impl<'a> Metadata<'a> {
    pub(super) fn set(&mut self, key: &str, value: Scalar<'a>) {
        match key {
            "quota_metric" => self.quota_metric = value.text(),
            "quota_limit" => self.quota_limit = value.text(),
            "quota_limit_value" => self.quota_limit_value = value.integer(),
            "quota_unit" => self.quota_unit = value.text(),
            "quotaResetDelay" => self.reset_delay = value.duration(),
            "model" => self.model = value.text(),
            _ => {}
        }
    }
}

impl<'a> Violation<'a> {
    pub(super) fn set(&mut self, key: &str, value: Scalar<'a>) {
        match key {
            "quotaMetric" | "quota_metric" => self.metric = value.text(),
            "quotaId" | "quota_id" => self.id = value.text(),
            "quotaValue" | "quota_value" => (self.value, self.not_omitted) = (value.integer(), true),
            _ => {}
        }
    }
}

/// Where a body begins behind a client's prose: `{"error"`, also with line breaks in it.
pub(super) fn embedded(text: &str) -> Option<usize> {
    memchr::memmem::find_iter(text.as_bytes(), b"\"error\"").find_map(|at| {
        let before = text[..at].trim_end();
        before.ends_with('{').then(|| before.len() - 1)
    })
}
