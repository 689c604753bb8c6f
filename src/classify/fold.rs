//! One pass over the JSON of an error: which members are looked at, and how tolerantly. Pure.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::answer::AnswerFold;
use super::facts::{Facts, Metadata, Violation, Violations};
use super::scalar::{Key, ScalarSeed, seed, skip_list, tolerant};

/// The outermost value: an object, or a list of objects.
pub(super) struct Envelope<'f, 'de> {
    pub(super) facts: &'f mut Facts<'de>,
    pub(super) wrappings: u8,
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
        let Self { facts, wrappings } = self;
        while seq.next_element_seed(Envelope { facts: &mut *facts, wrappings })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { facts, wrappings } = self;
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
                "code" | "message" | "status" | "details" | "errors" => {
                    facts.answer.foreign = true;
                    ErrorFold { facts: &mut bare, wrappings }.member(&key, &mut map)?;
                }
                _ => AnswerFold { answer: &mut facts.answer, model_version: &mut facts.model_version }
                    .member(&key, &mut map)?,
            }
        }
        // A trimmed envelope: `{"code": 429, "message": …}`. A numeric code is what tells it from an answer
        // that happens to have a `status`.
        if !facts.has_error && bare.code.is_some_and(|code| code >= 400) {
            let mut answer = facts.answer;
            answer.error_after_output |= answer.delivered();
            *facts = Facts { has_error: true, answer, ..bare };
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
                    let (mut escaped, mut hidden) = (false, false);
                    for at in memchr::memchr_iter(b'\\', text.as_bytes()) {
                        escaped = true;
                        hidden |= matches!(text.as_bytes().get(at + 1), Some(b'u' | b'/'));
                    }
                    match hidden.then(|| serde_json::from_str(raw.get())) {
                        Some(Ok(plain)) => facts.message = Cow::Owned(plain),
                        _ => {
                            facts.escaped = escaped;
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
            return skip_list(seq);
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

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        skip_list(seq)
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

/// A list of violations, and the dimensions inside each.
struct ViolationsFold<'f, 'de> {
    into: &'f mut Violations<'de>,
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
                    map.next_value_seed(DimensionsFold { model: &mut v.model })?;
                }
                _ => v.set(&key, map.next_value_seed(ScalarSeed)?),
            }
        }
        // `PreconditionFailure` has violations, too, of another sort.
        if v.metric.is_some() || v.id.is_some() {
            self.into.push(v);
        }
        Ok(())
    }
}

/// A violation's dimensions, of which the model is kept.
struct DimensionsFold<'f, 'de> {
    model: &'f mut Option<Cow<'de, str>>,
}
seed!(DimensionsFold);

impl<'de> Visitor<'de> for DimensionsFold<'_, 'de> {
    type Value = ();
    tolerant!();

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        skip_list(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "model" => *self.model = map.next_value_seed(ScalarSeed)?.text(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}
