//! The lists of an error: its details, the violations in them, and the list of old. Pure.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::deep::{Deep, Loose};
use super::fields::{Fields, Metadata, Violation, Violations};
use super::json::ErrorFold;
use super::message;
use super::nest::Context;
use super::scalar::{Key, ScalarSeed, seed, skip_list, tolerant};

/// The legacy list `errors: [{message, domain, reason}]`, of which only a missing message is made up for.
pub(super) struct LegacyFold<'f, 'c, 'de> {
    pub(super) fields: &'f mut Fields<'de>,
    pub(super) context: &'c Context,
    pub(super) level: u8,
}
seed!(@ LegacyFold<'_, '_, 'de>);

impl<'de> Visitor<'de> for LegacyFold<'_, '_, 'de> {
    type Value = ();
    tolerant!(visit_bool(bool), visit_u64(u64), visit_i64(i64), visit_f64(f64));

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        Deep { fields: self.fields, context: self.context, level: self.level, depth: 0 }.text(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { fields, context, level } = self;
        while seq.next_element_seed(LegacyFold { fields: &mut *fields, context, level })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "message" | "domain" | "reason" | "location" | "locationType" => {
                    let (fields, context, level) = (&mut *self.fields, self.context, self.level);
                    let (value, _) = map.next_value_seed(Loose { fields, context, level, depth: 0 })?;
                    if key == "message" && self.fields.legacy.is_none() {
                        self.fields.legacy = value.text();
                    }
                }
                "code" if self.fields.listed_code.is_none() => {
                    let (fields, context, level) = (&mut *self.fields, self.context, self.level);
                    let (value, _) = map.next_value_seed(Loose { fields, context, level, depth: 0 })?;
                    self.fields.listed_code = value.text();
                }
                key => Deep { fields: &mut *self.fields, context: self.context, level: self.level, depth: 0 }
                    .member(key, &mut map)?,
            }
        }
        Ok(())
    }
}

/// The list `details`, and each detail in it, told apart by its members and not by its `@type`.
pub(super) struct DetailFold<'f, 'c, 'de> {
    pub(super) fields: &'f mut Fields<'de>,
    pub(super) context: &'c Context,
    pub(super) level: u8,
    pub(super) nested: bool,
}
seed!(@ DetailFold<'_, '_, 'de>);

impl<'de> Visitor<'de> for DetailFold<'_, '_, 'de> {
    type Value = ();
    tolerant!(visit_bool(bool), visit_u64(u64), visit_i64(i64), visit_f64(f64));

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        Deep { fields: self.fields, context: self.context, level: self.level, depth: 0 }.text(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { fields, context, level, nested } = self;
        if nested {
            return skip_list(seq);
        }
        while seq
            .next_element_seed(DetailFold { fields: &mut *fields, context, level, nested: true })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        // Of one object that is no list's, a server's own error.
        let (nested, mut own) = (self.nested, Fields::default());
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                key @ ("code" | "status" | "message") if !nested => {
                    ErrorFold { fields: &mut own, context: self.context, level: self.level }
                        .member(key, &mut map)?;
                }
                key => self.member(key, &mut map)?,
            }
        }
        if own.is_flat_error() && !self.fields.unwrapped {
            own.settle(self.context);
            self.fields.take_over(own);
        } else if !own.message.is_empty() {
            self.context.note(self.fields, &own.message);
            self.fields.localized = self.fields.localized.take().or(Some(own.message));
        }
        Ok(())
    }
}

impl<'de> DetailFold<'_, '_, 'de> {
    pub(super) fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let fields = &mut *self.fields;
        match key {
            // What Google's own details have beside what is read.
            "@type" | "links" | "fieldViolations" | "locale" | "detail" | "stackEntries" => {
                map.next_value::<IgnoredAny>()?;
            }
            "reason" => {
                let reason = map.next_value_seed(ScalarSeed)?.text();
                fields.reason = fields.reason.take().or(reason);
            }
            "domain" => {
                let domain = map.next_value_seed(ScalarSeed)?.text();
                fields.domain = fields.domain.take().or(domain);
            }
            "metadata" => map.next_value_seed(MetadataFold { into: &mut fields.metadata })?,
            "violations" => map.next_value_seed(ViolationsFold { into: &mut fields.violations })?,
            "retryDelay" | "retry_delay" => {
                let delay = map.next_value_seed(ScalarSeed)?.duration();
                fields.retry_info = fields.retry_info.max(delay);
            }
            "message" => {
                let localized = map.next_value_seed(ScalarSeed)?.text();
                fields.localized = fields.localized.take().or(localized);
            }
            _ if fields.unwrapped => drop(map.next_value::<IgnoredAny>()?),
            "error" => {
                ErrorFold::inside(fields, self.context, self.level, map)?;
            }
            key => Deep { fields, context: self.context, level: self.level, depth: 0 }.member(key, map)?,
        }
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
        let (mut v, mut description) = (Violation::default(), None);
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                "description" => description = map.next_value_seed(ScalarSeed)?.text(),
                "quotaDimensions" | "quota_dimensions" => {
                    map.next_value_seed(DimensionsFold { model: &mut v.model })?;
                }
                _ => v.set(&key, map.next_value_seed(ScalarSeed)?),
            }
        }
        // In the place of a name (gemini-cli's tests; read 2026-11).
        if v.metric.is_none() && v.id.is_none() {
            let of_quota = ["daily", "per day", "per minute"];
            v.metric = description.filter(|text| message::says(text, &of_quota));
        }
        // `PreconditionFailure` has violations, too, of another sort.
        if !v.is_empty() {
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
