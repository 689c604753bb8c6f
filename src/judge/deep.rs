//! Members of an error without a name of ours, at any depth: bodies, prints and delays are told by their form. Pure.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::details::DetailFold;
use super::fields::{Fields, Violation};
use super::json::ErrorFold;
use super::nest::{Context, Unit};
use super::scalar::{Key, Scalar, ScalarSeed, seed, skip_list, tolerant};

/// Objects and lists inside each other in which a body is looked for.
const MAX_DEPTH: u8 = 12;

/// A member without a name of ours: is there a body in it, a client's print of one, or a relay's own delay? Told by its
/// form, whatever it is called.
pub(super) struct Deep<'f, 'c, 'de> {
    pub(super) fields: &'f mut Fields<'de>,
    pub(super) context: &'c Context,
    pub(super) level: u8,
    pub(super) depth: u8,
}
seed!(@ Deep<'_, '_, 'de>);

impl<'de> Deep<'_, '_, 'de> {
    pub(super) fn text(self, text: &str) {
        if !self.fields.unwrapped && !self.context.open(self.fields, text, self.level) {
            self.context.note(self.fields, text);
        }
    }

    pub(super) fn member<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let Self { context, level, depth, .. } = *self;
        let fields = &mut *self.fields;
        if fields.unwrapped || depth > MAX_DEPTH {
            return map.next_value::<IgnoredAny>().map(drop);
        }
        if Violation::has_member(key) {
            let value = map.next_value_seed(ScalarSeed)?;
            // gRPC's text has no commas, and looks like one long string.
            if !matches!(&value, Scalar::Text(text) if text.contains(['"', '{'])) {
                fields.stray.set(key, value);
            }
            return Ok(());
        }
        if let Some(unit) = Unit::of(key) {
            let (value, is_scalar) =
                map.next_value_seed(Loose { fields: &mut *fields, context, level, depth })?;
            if is_scalar {
                fields.reset = fields.reset.max(unit.of_value(&value));
            }
            return Ok(());
        }
        let (value, _) = map.next_value_seed(Loose { fields: &mut *fields, context, level, depth })?;
        let names_a_message = matches!(
            key,
            "detail"
                | "msg"
                | "description"
                | "error_message"
                | "errorMessage"
                | "error_description"
                | "title"
                | "reason"
        );
        // RFC 9457 has a title that says the status, and a detail that says more.
        let says_more = |text: &str| match &fields.spare {
            None => true,
            Some(spare) => key == "detail" && spare.len() < text.len(),
        };
        match value {
            Scalar::Text(text) if names_a_message && says_more(&text) => fields.spare = Some(text),
            _ => {}
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Deep<'_, '_, 'de> {
    type Value = ();
    tolerant!(visit_bool(bool), visit_u64(u64), visit_i64(i64), visit_f64(f64));

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.text(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { fields, context, level, depth } = self;
        if depth > MAX_DEPTH {
            return skip_list(seq);
        }
        let depth = depth + 1;
        while seq.next_element_seed(Deep { fields: &mut *fields, context, level, depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { fields, context, level, depth } = self;
        let (mut bare, mut typed) = (Fields::default(), false);
        while let Some(key) = map.next_key_seed(Key)? {
            match key.as_ref() {
                _ if fields.unwrapped || depth > MAX_DEPTH => drop(map.next_value::<IgnoredAny>()?),
                "error" => {
                    ErrorFold::inside(fields, context, level, &mut map)?;
                }
                "code" | "message" | "status" | "details" | "errors" => {
                    ErrorFold { fields: &mut bare, context, level }.member(&key, &mut map)?;
                }
                "@type" => {
                    let name = map.next_value_seed(ScalarSeed)?.text();
                    typed = name.is_some_and(|name| name.contains("google.rpc."));
                }
                key if typed => {
                    DetailFold { fields: &mut bare, context, level, nested: true }.member(key, &mut map)?;
                }
                "violations" | "retryDelay" | "quotaViolations" => {
                    DetailFold { fields: &mut bare, context, level, nested: true }.member(&key, &mut map)?;
                }
                key => {
                    Deep { fields: &mut *fields, context, level, depth: depth + 1 }.member(key, &mut map)?
                }
            }
        }
        if fields.unwrapped {
            return Ok(());
        }
        let says_more = bare.status.is_some() || !bare.message.is_empty() || bare.has_details();
        if bare.is_flat_error() && (bare.unwrapped || says_more) {
            bare.settle(context);
            fields.take_over(bare);
        } else {
            // Details that have lost their envelope, or the number of a client's `response`.
            fields.take_inner_code(bare.code, context);
            fields.merge_details(bare);
        }
        Ok(())
    }
}

/// A value of which a scalar is kept, and in which a body is looked for.
pub(super) struct Loose<'f, 'c, 'de> {
    pub(super) fields: &'f mut Fields<'de>,
    pub(super) context: &'c Context,
    pub(super) level: u8,
    pub(super) depth: u8,
}

impl<'de> DeserializeSeed<'de> for Loose<'_, '_, 'de> {
    type Value = (Scalar<'de>, bool);
    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Self::Value, D::Error> {
        de.deserialize_any(self)
    }
}

impl<'de> Loose<'_, '_, 'de> {
    fn text(self, text: Cow<'de, str>) -> (Scalar<'de>, bool) {
        if !self.context.open(self.fields, &text, self.level) {
            self.context.note(self.fields, &text);
        }
        (Scalar::Text(text), true)
    }
}

impl<'de> Visitor<'de> for Loose<'_, '_, 'de> {
    type Value = (Scalar<'de>, bool);
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(self.text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.text(Cow::Owned(text.to_owned())))
    }
    fn visit_u64<E>(self, n: u64) -> Result<Self::Value, E> {
        Ok((Scalar::Integer(n), true))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok((Scalar::Other, true))
    }
    fn visit_f64<E>(self, n: f64) -> Result<Self::Value, E> {
        Ok((Scalar::Number(n), true))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok((Scalar::Other, true))
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok((Scalar::Other, true))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        let Self { fields, context, level, depth } = self;
        Deep { fields, context, level, depth: depth + 1 }.visit_seq(seq)?;
        Ok((Scalar::Other, false))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let Self { fields, context, level, depth } = self;
        Deep { fields, context, level, depth: depth + 1 }.visit_map(map)?;
        Ok((Scalar::Other, false))
    }
}
