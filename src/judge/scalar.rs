//! The pieces that every fold over JSON is made of: a value of any type, a member's name, and what to do with
//! what is not wanted.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::google_rpc::parse_duration;

/// A value of any type, of which only scalars are kept.
#[derive(Debug)]
pub(super) enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Integer(u64),
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

    pub(super) fn duration(&self) -> Option<Duration> {
        match self {
            Self::Text(text) => parse_duration(text),
            Self::Integer(n) => Some(Duration::from_secs(*n)),
            Self::Number(n) => Duration::try_from_secs_f64(*n).ok(),
            Self::Span(seconds, nanos) => {
                Duration::from_secs(*seconds).checked_add(Duration::from_nanos(*nanos))
            }
            Self::Other => None,
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
    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        skip_list(seq)?;
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

/// Passes over a list where none is wanted.
pub(super) fn skip_list<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
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
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("any value")
        }
        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
        $(fn $visit<E>(self, _: $ty) -> Result<(), E> { Ok(()) })+
    };
}
macro_rules! seed {
    ($name:ident) => { seed!(@ $name<'_, 'de>); };
    // A fold that keeps nothing of the text.
    ($name:ident<'_>) => { seed!(@ $name<'_>); };
    (@ $name:ty) => {
        impl<'de> DeserializeSeed<'de> for $name {
            type Value = ();
            fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
                de.deserialize_any(self)
            }
        }
    };
}
pub(super) use {seed, tolerant};
