//! What a body says, folded out of it in one pass: the data that all readers fill in and the rules read.
//!
//! The fold ([`json`](super::json)) is a `serde_json` visitor that keeps borrowed pieces of the body and nothing else. It never
//! rejects: members of the wrong type are passed over, and when the text ends early or turns out not to be
//! JSON, whatever was folded so far stays.

use std::borrow::Cow;
use std::time::Duration;

use super::scalar::Scalar;

/// Violations kept. Google sends four at most; the bound keeps a hostile body from growing a list.
const MAX_VIOLATIONS: usize = 32;

/// How far a text is JSON.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Read {
    Whole,
    /// It ends early.
    Cut,
    /// It is something else from some byte on.
    Broken,
}

#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    /// An `error` member was seen, or the body is one long error text.
    pub(super) has_error: bool,
    /// The status was found inside another one's message: what else the envelope says does not count.
    pub(super) unwrapped: bool,
    pub(super) code: Option<u16>,
    /// The Interactions API's string code.
    pub(super) code_name: Option<Cow<'a, str>>,
    /// The `type` of OpenAI's and Anthropic's form.
    pub(super) sort: Option<Cow<'a, str>>,
    pub(super) status: Option<Cow<'a, str>>,
    /// As it stands in the body, which may be with JSON's escapes.
    pub(super) message: Cow<'a, str>,
    pub(super) escaped: bool,
    /// For want of a message: the legacy list's first, else a localized one.
    pub(super) legacy: Option<Cow<'a, str>>,
    /// The code of the first in a list of errors, as a failed interaction has them.
    pub(super) listed_code: Option<Cow<'a, str>>,
    pub(super) localized: Option<Cow<'a, str>>,
    pub(super) reason: Option<Cow<'a, str>>,
    pub(super) domain: Option<Cow<'a, str>>,
    pub(super) violations: Violations<'a>,
    /// The members of a violation that stand outside of one.
    pub(super) stray: Violation<'a>,
    pub(super) retry_info: Option<Duration>,
    pub(super) metadata: Metadata<'a>,
    /// A relay's own word for the delay.
    pub(super) reset: Option<Duration>,
    /// A message under another name, for want of one.
    pub(super) spare: Option<Cow<'a, str>>,
    /// A client's print of an error, in a member without a name of ours.
    pub(super) print: Option<Box<Print>>,
}

/// What a client's print of an error says in words.
#[derive(Debug)]
pub(super) struct Print {
    pub(super) fields: Fields<'static>,
    /// It names no status, and says one of Google's sentences.
    pub(super) is_sentence: bool,
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

impl<'a> Fields<'a> {
    /// Takes the facts of a body that was found inside this one. It is Google's own, or closer to it, and outranks what is
    /// around it. Its pieces borrow from a text that goes away, so they are copied; this is not the common path.
    pub(super) fn take_over(&mut self, mut inner: Fields<'_>) {
        inner.take_stray();
        self.has_error = true;
        self.unwrapped = true;
        if inner.code.is_some() || inner.status.is_some() || inner.code_name.is_some() {
            self.code = inner.code.or(self.code);
            self.code_name = own(inner.code_name);
            self.status = own(inner.status);
        }
        self.sort = own(inner.sort).or(self.sort.take());
        if !inner.message.is_empty() {
            self.message = Cow::Owned(inner.message.into_owned());
            self.escaped = inner.escaped;
        }
        self.reason = own(inner.reason).or(self.reason.take());
        self.domain = own(inner.domain).or(self.domain.take());
        self.retry_info = inner.retry_info.or(self.retry_info);
        self.reset = self.reset.max(inner.reset);
        for v in inner.violations.first.into_iter().chain(inner.violations.rest) {
            self.violations.push(v.into_owned());
        }
        if !inner.metadata.is_empty() {
            self.metadata = inner.metadata.into_owned();
        }
    }

    /// The same, borrowed from nothing.
    pub(super) fn into_owned(self) -> Fields<'static> {
        let mut owned = Fields::default();
        let (has_error, unwrapped) = (self.has_error, self.unwrapped);
        owned.take_over(self);
        (owned.has_error, owned.unwrapped) = (has_error, unwrapped);
        owned
    }

    /// Relays write the number here.
    pub(super) fn set_status(&mut self, value: Scalar<'a>) {
        match value.integer().and_then(|n| u16::try_from(n).ok()).filter(|n| (400..600).contains(n)) {
            Some(n) => self.code = self.code.or(Some(n)),
            None => self.status = value.text().or(self.status.take()),
        }
    }

    /// Makes a violation of the members of one that stand elsewhere, where there is no other.
    pub(super) fn take_stray(&mut self) {
        let stray = std::mem::take(&mut self.stray);
        if self.violations.len() == 0 && !stray.is_empty() {
            // Whoever takes a violation apart leaves more out than zeros.
            self.violations.push(Violation { not_omitted: true, ..stray });
        }
    }

    /// Adds what details without an envelope say.
    pub(super) fn merge_details(&mut self, mut inner: Fields<'_>) {
        inner.take_stray();
        self.reset = self.reset.max(inner.reset);
        if self.print.is_none() {
            self.print = inner.print;
        }
        if self.spare.is_none() {
            let message = Some(inner.message).filter(|message| !message.is_empty());
            self.spare = own(message.or(inner.spare));
        }
        self.sort = self.sort.take().or(own(inner.sort));
        self.retry_info = self.retry_info.max(inner.retry_info);
        self.reason = self.reason.take().or(own(inner.reason));
        self.domain = self.domain.take().or(own(inner.domain));
        for v in inner.violations.first.into_iter().chain(inner.violations.rest) {
            self.violations.push(v.into_owned());
        }
        if self.metadata.is_empty() {
            self.metadata = inner.metadata.into_owned();
        }
    }

    /// Whether there is a number, a status or a message of an error, and not only a code that means nothing.
    pub(super) fn is_flat_error(&self) -> bool {
        self.unwrapped || self.code.is_some_and(|code| code >= 400)
    }

    /// Makes the first of the list that a failed interaction has the error. Whether there is one.
    pub(super) fn take_listed(&mut self) -> bool {
        let is_error = self.listed_code.is_some() || self.legacy.is_some();
        if is_error {
            // `failed` is the interaction's status, and no error's.
            self.status = None;
            self.code_name = self.code_name.take().or(self.listed_code.take());
        }
        is_error
    }

    /// Whether a print or a detail says more than that there is an error.
    pub(super) fn has_details(&self) -> bool {
        self.violations.len() > 0
            || self.retry_info.is_some()
            || self.reason.is_some()
            || !self.metadata.is_empty()
    }
}

fn own<'a>(piece: Option<Cow<'_, str>>) -> Option<Cow<'a, str>> {
    piece.map(|p| Cow::Owned(p.into_owned()))
}

impl<'a> Metadata<'a> {
    pub(super) fn is_empty(&self) -> bool {
        let Self { quota_metric, quota_limit, quota_limit_value, quota_unit, reset_delay, model } = self;
        let texts = [quota_metric, quota_limit, quota_unit, model];
        texts.iter().all(|text| text.is_none()) && quota_limit_value.is_none() && reset_delay.is_none()
    }

    fn into_owned(self) -> Metadata<'static> {
        Metadata {
            quota_metric: own(self.quota_metric),
            quota_limit: own(self.quota_limit),
            quota_limit_value: self.quota_limit_value,
            quota_unit: own(self.quota_unit),
            reset_delay: self.reset_delay,
            model: own(self.model),
        }
    }

    pub(super) fn set(&mut self, key: &str, value: Scalar<'a>) {
        match key {
            "quota_metric" => self.quota_metric = value.text(),
            "quota_limit" => self.quota_limit = value.text(),
            "quota_limit_value" => self.quota_limit_value = value.integer(),
            "quota_unit" => self.quota_unit = value.text(),
            "quotaResetDelay" | "quota_reset_delay" => self.reset_delay = value.duration(),
            "model" => self.model = value.text(),
            _ => {}
        }
    }
}

impl<'a> Violation<'a> {
    fn into_owned(self) -> Violation<'static> {
        Violation {
            metric: own(self.metric),
            id: own(self.id),
            value: self.value,
            not_omitted: self.not_omitted,
            model: own(self.model),
        }
    }

    /// Whether it does not say which quota it is.
    pub(super) const fn is_empty(&self) -> bool {
        self.metric.is_none() && self.id.is_none()
    }

    pub(super) fn has_member(key: &str) -> bool {
        key.starts_with("quota")
            && matches!(
                key,
                "quotaMetric" | "quota_metric" | "quotaId" | "quota_id" | "quotaValue" | "quota_value"
            )
    }

    pub(super) fn set(&mut self, key: &str, value: Scalar<'a>) {
        match key {
            "quotaMetric" | "quota_metric" => self.metric = value.text(),
            "quotaId" | "quota_id" => self.id = value.text(),
            "quotaValue" | "quota_value" => (self.value, self.not_omitted) = (value.integer(), true),
            _ => {}
        }
    }
}
