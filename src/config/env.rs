//! Settings out of environment variables.

use std::fmt;

use serde::de::value::{self, SeqDeserializer, StrDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

/// What every variable begins with.
pub(super) const PREFIX: &str = "GEMINI_";

/// A variable with a wrong value. Names the variable and the rule, and never the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvError {
    variable: Box<str>,
    rule: Box<str>,
}

impl EnvError {
    pub(super) fn new(variable: &str, rule: impl Into<Box<str>>) -> Self {
        Self { variable: variable.into(), rule: rule.into() }
    }

    /// The name of the variable.
    #[must_use]
    pub fn variable(&self) -> &str {
        &self.variable
    }

    /// What a valid value is, such as `must be from 1 to 100`.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

impl fmt::Display for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid environment variable {}: {}", self.variable, self.rule)
    }
}

impl std::error::Error for EnvError {}

/// `GEMINI_RETRY_ATTEMPTS`.
pub(super) fn variable(section: &str, member: &str) -> String {
    let between = if section.is_empty() { "" } else { "_" };
    format!("{PREFIX}{section}{between}{member}").to_ascii_uppercase()
}

/// Whether an orchestrator sets such a variable for a service that happens to be called so: Kubernetes does, for a service
/// `gemini-retry`.
pub(super) fn is_of_a_service(variable: &str) -> bool {
    variable.contains("_SERVICE_HOST")
        || variable.contains("_SERVICE_PORT")
        || variable.ends_with("_PORT")
        || variable.contains("_PORT_")
}

/// The text of a variable, read as what is asked for: numbers and words as they are, lists separated by commas, and tables and
/// maps as JSON.
pub(super) struct EnvValue<'a>(pub(super) &'a str);

impl EnvValue<'_> {
    fn is_json(&self) -> bool {
        self.0.starts_with(['{', '['])
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $ty:ty, $what:literal;)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
            let number: $ty = self.0.parse().map_err(|_| value::Error::custom(concat!("must be ", $what)))?;
            visitor.$visit(number)
        }
    )+};
}

impl<'de> Deserializer<'de> for EnvValue<'de> {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        if self.is_json() {
            let mut json = serde_json::Deserializer::from_str(self.0);
            let value = json.deserialize_any(visitor).map_err(value::Error::custom)?;
            json.end().map_err(value::Error::custom)?;
            return Ok(value);
        }
        visitor.visit_borrowed_str(self.0)
    }

    numbers! {
        deserialize_u8 visit_u8 u8, "a whole number";
        deserialize_u16 visit_u16 u16, "a whole number";
        deserialize_u32 visit_u32 u32, "a whole number";
        deserialize_u64 visit_u64 u64, "a whole number";
        deserialize_i8 visit_i8 i8, "a whole number";
        deserialize_i16 visit_i16 i16, "a whole number";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        match self.0.to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => visitor.visit_bool(true),
            "false" | "0" | "off" | "no" => visitor.visit_bool(false),
            _ => Err(value::Error::custom("must be true or false")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        if self.is_json() {
            return self.deserialize_any(visitor);
        }
        let words = self.0.split(',').map(str::trim).filter(|word| !word.is_empty());
        visitor.visit_seq(SeqDeserializer::new(words.map(Word)))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        if self.is_json() {
            return self.deserialize_any(visitor);
        }
        Err(value::Error::custom("must be a JSON object"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        StrDeserializer::new(self.0).deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct identifier ignored_any
    }
}

/// One of a list.
struct Word<'a>(&'a str);

impl<'de> IntoDeserializer<'de, value::Error> for Word<'de> {
    type Deserializer = EnvValue<'de>;

    fn into_deserializer(self) -> EnvValue<'de> {
        EnvValue(self.0)
    }
}
