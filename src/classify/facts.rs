//! What a body says, folded out of it in one pass: the pure part below the rules.
//!
//! The fold is a `serde_json` visitor that keeps borrowed pieces of the body and nothing else. It never
//! rejects: members of the wrong type are passed over, and when the text ends early or turns out not to be
//! JSON, whatever was folded so far stays.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::answer::{Answer, AnswerFold};
use crate::google_rpc::parse_duration;

/// How many envelopes around envelopes are opened. Two occur; gemini-cli opens ten.
const MAX_WRAPPINGS: u8 = 4;
/// Violations kept. Google sends four at most; the bound keeps a hostile body from growing a list.
const MAX_VIOLATIONS: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Facts<'a> {
    /// An `error` member was seen, or the body is one long error text.
    pub(super) has_error: bool,
    /// The status was found inside another one's message: what else the envelope says does not count.
    unwrapped: bool,
    pub(super) code: Option<u16>,
    /// The Interactions API's string code.
    pub(super) code_name: Option<Cow<'a, str>>,
    pub(super) status: Option<Cow<'a, str>>,
    /// As it stands in the body, which may be with JSON's escapes.
    pub(super) message: Cow<'a, str>,
    pub(super) escaped: bool,
    /// For want of a message: the legacy list's first, else a localized one.
    legacy: Option<Cow<'a, str>>,
    localized: Option<Cow<'a, str>>,
    pub(super) reason: Option<Cow<'a, str>>,
    pub(super) domain: Option<Cow<'a, str>>,
    pub(super) violations: Vec<Violation<'a>>,
    pub(super) retry_info: Option<Duration>,
    /// Found in prose that is not the message: a front end's page.
    pub(super) page_delay: Option<Duration>,
    pub(super) metadata: Metadata<'a>,
    /// What a 200 holds.
    pub(super) answer: Answer<'a>,
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
    pub(super) resource: Option<Cow<'a, str>>,
}

impl<'a> Facts<'a> {
    /// Folds one JSON text. `false` where it ended early or was not JSON: what was read stays.
    pub(super) fn fold(&mut self, json: &'a str) -> bool {
        let mut de = serde_json::Deserializer::from_str(json);
        let whole =
            Envelope { facts: self, wrappings: MAX_WRAPPINGS, flat: true }.deserialize(&mut de).is_ok();
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
    fn unwrap_string(&mut self, text: &str, wrappings: u8) -> bool {
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
        let _ = Envelope { facts: &mut inner, wrappings: wrappings - 1, flat: true }.deserialize(&mut de);
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
        let room = MAX_VIOLATIONS.saturating_sub(self.violations.len());
        self.violations.extend(inner.violations.into_iter().take(room).map(|v| Violation {
            metric: own(v.metric),
            id: own(v.id),
            value: v.value,
            not_omitted: v.not_omitted,
            model: own(v.model),
        }));
        let m = inner.metadata;
        self.metadata = Metadata {
            quota_metric: own(m.quota_metric),
            quota_limit: own(m.quota_limit),
            quota_limit_value: m.quota_limit_value,
            quota_unit: own(m.quota_unit),
            reset_delay: m.reset_delay,
            model: own(m.model),
            resource: own(m.resource),
        };
    }
}

/// A value of any type, of which only scalars are kept.
#[derive(Debug)]
pub(super) enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Integer(u64),
    Bool(bool),
    /// `{seconds, nanos}`, the object form of a duration.
    Span(u64, u64),
    Other,
}

impl<'a> Scalar<'a> {
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    pub(super) fn integer(&self) -> Option<u64> {
        match self {
            Self::Integer(n) => Some(*n),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn duration(&self) -> Option<Duration> {
        match self {
            Self::Text(text) => parse_duration(text),
            Self::Integer(n) => Some(Duration::from_secs(*n)),
            Self::Number(n) => Duration::try_from_secs_f64(*n).ok(),
            Self::Span(seconds, nanos) => {
                Duration::from_secs(*seconds).checked_add(Duration::from_nanos(*nanos))
            }
            Self::Bool(_) | Self::Other => None,
        }
    }
}

pub(super) struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Scalar<'de>;
    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        de.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Scalar<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_u64<E>(self, n: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Integer(n))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }
    fn visit_f64<E>(self, n: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(n))
    }
    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Bool(value))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut seconds, mut nanos) = (None, 0);
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "seconds" => seconds = map.next_value_seed(ScalarSeed)?.integer(),
                "nanos" => nanos = map.next_value_seed(ScalarSeed)?.integer().unwrap_or(0),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(seconds.map_or(Scalar::Other, |s| Scalar::Span(s, nanos)))
    }
}

/// A member's name, borrowed where it has no escapes, without blanks around it (relays write ` @type`).
pub(super) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        de.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        // A look at two bytes: trimming every name shows in the profile.
        let padded = text.starts_with(' ') || text.ends_with(' ');
        Ok(Cow::Borrowed(if padded { text.trim() } else { text }))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.trim().to_owned()))
    }
}

/// Gives a fold that only wants maps (or lists of them) a tolerant answer for every other type.
macro_rules! tolerant {
    () => { tolerant!(visit_bool(bool), visit_u64(u64), visit_i64(i64), visit_f64(f64), visit_str(&str)); };
    ($($visit:ident($ty:ty)),+ $(,)?) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any value")
        }
        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
        $(fn $visit<E>(self, _: $ty) -> Result<(), E> { Ok(()) })+
    };
}
macro_rules! seed {
    ($name:ident) => {
        impl<'de> DeserializeSeed<'de> for $name<'_, 'de> {
            type Value = ();
            fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
                de.deserialize_any(self)
            }
        }
    };
}
pub(super) use {seed, tolerant};

/// The outermost value: an object, or a list of objects.
struct Envelope<'f, 'de> {
    facts: &'f mut Facts<'de>,
    wrappings: u8,
    /// Whether the status' members may lie here without an `error` around them.
    flat: bool,
}
seed!(Envelope);

impl<'de> Visitor<'de> for Envelope<'_, 'de> {
    type Value = ();
    tolerant!(visit_bool(bool), visit_u64(u64), visit_i64(i64), visit_f64(f64));

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.facts.unwrap_string(text, self.wrappings);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { facts, wrappings, .. } = self;
        while seq.next_element_seed(Envelope { facts: &mut *facts, wrappings, flat: true })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { facts, wrappings, flat } = self;
        let mut bare = Facts::default();
        facts.answer.objects += 1;
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "error" => {
                    facts.answer.foreign = true;
                    let delivered = facts.answer.delivered();
                    map.next_value_seed(ErrorFold { facts: &mut *facts, wrappings })?;
                    facts.answer.error_after_output |= facts.has_error && delivered;
                }
                "code" | "message" | "status" | "details" | "errors" if flat => {
                    facts.answer.foreign = true;
                    ErrorFold { facts: &mut bare, wrappings }.member(&key, &mut map)?;
                }
                _ => AnswerFold(&mut facts.answer).member(&key, &mut map)?,
            }
        }
        // A trimmed envelope: `{"code": 429, "message": …}`. A numeric code is what tells it from an answer
        // that happens to have a `status`.
        if !facts.has_error && bare.code.is_some_and(|code| code >= 400) {
            *facts = Facts { has_error: true, answer: std::mem::take(&mut facts.answer), ..bare };
        }
        Ok(())
    }
}

/// The value of `error`.
struct ErrorFold<'f, 'de> {
    facts: &'f mut Facts<'de>,
    wrappings: u8,
}
seed!(ErrorFold);

impl<'de> Visitor<'de> for ErrorFold<'_, 'de> {
    type Value = ();
    tolerant!(visit_bool(bool), visit_u64(u64), visit_i64(i64), visit_f64(f64));

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        // `{"error": "…"}`: another service's form, or Google's body as a string.
        if !self.facts.unwrap_string(text, self.wrappings) && !text.is_empty() {
            self.facts.has_error = true;
            self.facts.message = Cow::Owned(text.to_owned());
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { facts, wrappings } = self;
        while seq.next_element_seed(ErrorFold { facts: &mut *facts, wrappings })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            self.facts.has_error = true;
            self.member(&key, &mut map)?;
        }
        Ok(())
    }
}

impl<'de> ErrorFold<'_, 'de> {
    fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let facts = &mut *self.facts;
        match key {
            _ if facts.unwrapped => drop(map.next_value::<IgnoredAny>()?),
            "code" => {
                let value = map.next_value_seed(ScalarSeed)?;
                match value.integer() {
                    Some(n) => facts.code = u16::try_from(n).ok().or(facts.code),
                    None => facts.code_name = value.text(),
                }
            }
            "status" => {
                let status = map.next_value_seed(ScalarSeed)?.text();
                facts.status = status.or(facts.status.take());
            }
            "message" => {
                // Raw, because almost every message of a 429 has escapes, and the rules read it as well with
                // them: nothing is copied until somebody asks for the message.
                let raw: &'de RawValue = map.next_value()?;
                let Some(text) = raw.get().strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
                    return Ok(());
                };
                let wrapped = looks_wrapped(text)
                    && serde_json::from_str::<String>(raw.get())
                        .is_ok_and(|plain| facts.unwrap_string(&plain, self.wrappings));
                if !wrapped && facts.message.is_empty() {
                    // Some relays escape quotes as `\u0027` or slashes as `\/`, and then no phrase would match.
                    let after = |at| text.as_bytes().get(at + 1);
                    let hidden = memchr::memchr_iter(b'\\', text.as_bytes())
                        .any(|at| matches!(after(at), Some(b'u' | b'/')));
                    match hidden.then(|| serde_json::from_str(raw.get())) {
                        Some(Ok(plain)) => facts.message = Cow::Owned(plain),
                        _ => {
                            facts.escaped = memchr::memchr(b'\\', text.as_bytes()).is_some();
                            facts.message = Cow::Borrowed(text);
                        }
                    }
                }
            }
            "details" => map.next_value_seed(DetailFold { facts, nested: false })?,
            "errors" => map.next_value_seed(LegacyFold { facts })?,
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// Whether another body may stand in this message: at its start, or behind a client's own prose. Such a
/// message ends with a brace, give or take a few characters; almost no other does.
fn looks_wrapped(text: &str) -> bool {
    let bytes = text.as_bytes();
    let tail = &bytes[bytes.len().saturating_sub(16)..];
    text.trim_start().starts_with(['{', '[']) || tail.contains(&b'}')
}

/// The legacy list `errors: [{message, domain, reason}]`, of which only a missing message is made up for.
struct LegacyFold<'f, 'de> {
    facts: &'f mut Facts<'de>,
}
seed!(LegacyFold);

impl<'de> Visitor<'de> for LegacyFold<'_, 'de> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(LegacyFold { facts: &mut *self.facts })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            let value = map.next_value_seed(ScalarSeed)?;
            if key == "message" && self.facts.legacy.is_none() {
                self.facts.legacy = value.text();
            }
        }
        Ok(())
    }
}

/// The list `details`, and each detail in it, told apart by its members and not by its `@type`.
struct DetailFold<'f, 'de> {
    facts: &'f mut Facts<'de>,
    nested: bool,
}
seed!(DetailFold);

impl<'de> Visitor<'de> for DetailFold<'_, 'de> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.nested {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        while seq.next_element_seed(DetailFold { facts: &mut *self.facts, nested: true })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let facts = self.facts;
        let mut localized = None;
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "reason" => {
                    let reason = map.next_value_seed(ScalarSeed)?.text();
                    facts.reason = facts.reason.take().or(reason);
                }
                "domain" => {
                    let domain = map.next_value_seed(ScalarSeed)?.text();
                    facts.domain = facts.domain.take().or(domain);
                }
                "metadata" => map.next_value_seed(MetadataFold { into: &mut facts.metadata })?,
                "violations" => map.next_value_seed(ViolationsFold { into: &mut facts.violations })?,
                "retryDelay" | "retry_delay" => {
                    let delay = map.next_value_seed(ScalarSeed)?.duration();
                    facts.retry_info = facts.retry_info.max(delay);
                }
                "message" => localized = map.next_value_seed(ScalarSeed)?.text(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        facts.localized = facts.localized.take().or(localized);
        Ok(())
    }
}

struct MetadataFold<'f, 'de> {
    into: &'f mut Metadata<'de>,
}
seed!(MetadataFold);

impl<'de> Visitor<'de> for MetadataFold<'_, 'de> {
    type Value = ();
    tolerant!(visit_bool(bool), visit_u64(u64), visit_i64(i64), visit_f64(f64), visit_str(&str));

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let into = self.into;
        while let Some(key) = map.next_key_seed(Key)? {
            let value = map.next_value_seed(ScalarSeed)?;
            into.set(&key, value);
        }
        Ok(())
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
            "resource" => self.resource = value.text(),
            _ => {}
        }
    }
}

/// A list of violations, and the dimensions inside each.
struct ViolationsFold<'f, 'de> {
    into: &'f mut Vec<Violation<'de>>,
}
seed!(ViolationsFold);

impl<'de> Visitor<'de> for ViolationsFold<'_, 'de> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(ViolationsFold { into: &mut *self.into })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut v = Violation::default();
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "quotaDimensions" | "quota_dimensions" => {
                    let mut dimensions = Metadata::default();
                    map.next_value_seed(MetadataFold { into: &mut dimensions })?;
                    v.model = dimensions.model;
                }
                _ => v.set(&key, map.next_value_seed(ScalarSeed)?),
            }
        }
        // `PreconditionFailure` has violations, too, of another sort.
        if (v.metric.is_some() || v.id.is_some()) && self.into.len() < MAX_VIOLATIONS {
            if self.into.is_empty() {
                // One is the usual number; a vector's own first step is four.
                self.into.reserve_exact(1);
            }
            self.into.push(v);
        }
        Ok(())
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
