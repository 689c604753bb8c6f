//! Values as people write them: durations with units, settings that can be off, and words for enums.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::fmt::friendly::{Spacing, SpanPrinter};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::PresetName;
use crate::classify::Peek;
use crate::places::RequestType;
use crate::preflight::Rule;
use crate::rate_limit::Unit;
use crate::tier::ServiceTier;
use crate::verdict::Kind;
use crate::{preflight, rate_limit};

/// A duration that is written with its units: `"1m30s"`, `"500ms"`, `"1.5h"`, `"2 minutes"`, or ISO 8601's `"PT1M30S"`.
///
/// Units are hours, minutes, seconds, milliseconds, microseconds and nanoseconds, with their usual short and long names. A
/// number without a unit is refused, and so is a negative duration. Prints in the short form.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::config::HumanDuration;
///
/// let parsed: HumanDuration = "1m30s".parse()?;
/// assert_eq!(parsed, Duration::from_secs(90).into());
/// assert_eq!(parsed.to_string(), "1m30s");
/// # Ok::<(), tower_gemini::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(Duration);

/// What is wrong with a text that is none.
const DURATION: &str = "must be a duration with a unit, such as \"1m30s\" or \"500ms\"";

impl HumanDuration {
    /// The duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl std::str::FromStr for HumanDuration {
    type Err = crate::ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = crate::ConfigError::new("duration", DURATION);
        let parsed: SignedDuration = text.trim().parse().map_err(|_| error)?;
        Duration::try_from(parsed).map(Self).map_err(|_| error)
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHORT: SpanPrinter = SpanPrinter::new().spacing(Spacing::None);
        f.pad(&SHORT.unsigned_duration_to_string(&self.0))
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = HumanDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with a unit, such as \"1m30s\" or \"500ms\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<HumanDuration, E> {
                text.parse().map_err(|_| E::custom(DURATION))
            }
        }
        // Not `deserialize_str`: a format without types would then read a number as text.
        deserializer.deserialize_any(Text)
    }
}

/// A setting that can be off: `"off"`, or its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrOff<T> {
    /// Written `"off"`, or `false`.
    Off,
    /// The value.
    Is(T),
}

impl<T> OrOff<T> {
    /// The value, unless it is off.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::Is(value) => Some(value),
        }
    }
}

impl<T> From<Option<T>> for OrOff<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Off, Self::Is)
    }
}

impl<T: Serialize> Serialize for OrOff<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::Is(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrOff<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(std::marker::PhantomData<fn() -> T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OrOff<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value, or \"off\"")
            }

            fn visit_bool<E: Error>(self, on: bool) -> Result<OrOff<T>, E> {
                if on { Err(E::custom("must be a value, or \"off\"")) } else { Ok(OrOff::Off) }
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OrOff<T>, E> {
                let text = text.trim();
                if text.eq_ignore_ascii_case("off") {
                    return Ok(OrOff::Off);
                }
                T::deserialize(StrDeserializer::new(text)).map(OrOff::Is)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<OrOff<T>, E> {
                T::deserialize(number.into_deserializer()).map(OrOff::Is)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<OrOff<T>, E> {
                T::deserialize(number.into_deserializer()).map(OrOff::Is)
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<OrOff<T>, E> {
                T::deserialize(number.into_deserializer()).map(OrOff::Is)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OrOff<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(OrOff::Is)
            }
        }
        deserializer.deserialize_any(Either(std::marker::PhantomData))
    }
}

/// What stands over something of the same kind: a value takes its place, a table and a map are laid over it member by member.
pub(super) trait Over {
    fn over(self, base: Self) -> Self;
}

pub(super) fn over<T: Over>(own: Option<T>, base: Option<T>) -> Option<T> {
    match (own, base) {
        (Some(own), Some(base)) => Some(own.over(base)),
        (own, base) => own.or(base),
    }
}

macro_rules! takes_its_place {
    ($($ty:ty),+) => {$(
        impl Over for $ty {
            fn over(self, _: Self) -> Self {
                self
            }
        }
    )+};
}

takes_its_place!(
    bool,
    u32,
    u64,
    usize,
    f64,
    HumanDuration,
    HeaderName,
    Vec<String>,
    String,
    StoreUrl,
    RequestType,
    crate::resume::ResumeMode,
    super::OutageName,
    Vec<ServiceTier>,
    Vec<super::PerConfig>,
    Vec<super::PlaceConfig>,
    crate::retry::Jitter,
    Peek,
    preflight::RuleMode,
    rate_limit::AdmissionMode
);

impl<T: Over> Over for OrOff<T> {
    fn over(self, base: Self) -> Self {
        match (self, base) {
            (Self::Is(own), Self::Is(base)) => Self::Is(own.over(base)),
            (own, _) => own,
        }
    }
}

impl<K: Ord, V: Over> Over for std::collections::BTreeMap<K, V> {
    fn over(self, mut base: Self) -> Self {
        for (key, own) in self {
            let value = match base.remove(&key) {
                Some(below) => own.over(below),
                None => own,
            };
            base.insert(key, value);
        }
        base
    }
}

/// A name of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderName(pub http::HeaderName);

impl Serialize for HeaderName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for HeaderName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map(Self).map_err(|_| D::Error::custom("must be the name of a header"))
    }
}

/// The address of a store, which may hold a password: `Debug` shows none. Written to a file it is whole.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreUrl(pub String);

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        write!(f, "StoreUrl({scheme}://{host})")
    }
}

/// An enum that is written as one of some words.
trait Word: Copy + PartialEq + 'static {
    fn all() -> impl Iterator<Item = (&'static str, Self)>;
}

macro_rules! word {
    ($ty:ty, $all:expr) => {
        impl Word for $ty {
            fn all() -> impl Iterator<Item = (&'static str, Self)> {
                $all
            }
        }

        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match <Self as Word>::all().find(|(_, word)| word == self) {
                    Some((name, _)) => serializer.serialize_str(name),
                    None => Err(serde::ser::Error::custom("has no name in a configuration")),
                }
            }
        }

        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Words;
                impl Visitor<'_> for Words {
                    type Value = $ty;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        let names: Vec<&str> = <$ty as Word>::all().map(|(name, _)| name).collect();
                        write!(f, "one of {}", names.join(", "))
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$ty, E> {
                        let found = <$ty as Word>::all().find(|(name, _)| *name == text);
                        found
                            .map(|(_, word)| word)
                            .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
                    }
                }
                deserializer.deserialize_str(Words)
            }
        }
    };
}

word!(Kind, Kind::ALL.iter().map(|kind| (kind.as_str(), *kind)));
word!(Rule, Rule::ALL.iter().map(|rule| (rule.as_str(), *rule)));
word!(
    ServiceTier,
    [ServiceTier::Standard, ServiceTier::Flex, ServiceTier::Priority]
        .into_iter()
        .map(|tier| (tier.as_str(), tier))
);
word!(
    Peek,
    [("off", Peek::Off), ("first_event", Peek::FirstEvent), ("output", Peek::Output), ("whole", Peek::Whole)]
        .into_iter()
);
word!(
    rate_limit::AdmissionMode,
    [
        ("wait", rate_limit::AdmissionMode::Wait),
        ("reject", rate_limit::AdmissionMode::Reject),
        ("observe", rate_limit::AdmissionMode::Observe)
    ]
    .into_iter()
);
word!(
    Unit,
    [
        ("requests", Unit::Requests),
        ("input_tokens", Unit::InputTokens),
        ("images", Unit::Images),
        ("texts", Unit::Texts),
        ("money", Unit::Money)
    ]
    .into_iter()
);
word!(
    crate::resume::ResumeMode,
    [("continue", crate::resume::ResumeMode::Continue), ("restart", crate::resume::ResumeMode::Restart)]
        .into_iter()
);
word!(
    RequestType,
    [RequestType::Dedicated, RequestType::Shared].into_iter().map(|word| (word.as_str(), word))
);
word!(
    preflight::RuleMode,
    [
        ("off", preflight::RuleMode::Off),
        ("warn", preflight::RuleMode::Warn),
        ("reject", preflight::RuleMode::Reject)
    ]
    .into_iter()
);
word!(
    super::OutageName,
    [
        ("strict", super::OutageName::Strict),
        ("share", super::OutageName::Share),
        ("closed", super::OutageName::Closed),
        ("local", super::OutageName::Local)
    ]
    .into_iter()
);
word!(
    PresetName,
    [
        ("default", PresetName::Default),
        ("interactive", PresetName::Interactive),
        ("batch", PresetName::Batch),
        ("gateway", PresetName::Gateway),
    ]
    .into_iter()
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_has_a_unit_and_is_not_negative() {
        let parse = |text: &str| text.parse::<HumanDuration>().map(HumanDuration::get).ok();
        for (text, millis) in [
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
            (" 2 minutes ", 120_000),
            ("PT1M", 60_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "30", "1.5", "-5s", "5s ago", "five seconds", "1m30", "10 years", "1mo", "NaNs", "9e9h"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        for number in ["30", "1.5", "true", "[1]", "{}", "null"] {
            let error = serde_json::from_str::<HumanDuration>(number).expect_err(number).to_string();
            assert!(error.contains("a duration with a unit, such as \"1m30s\""), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_is_read_as_it_was_printed(seconds in 0..400 * 86_400_u64, nanos in 0..1_000_000_000_u32) {
            let duration = HumanDuration(Duration::new(seconds, nanos));
            prop_assert_eq!(duration.to_string().parse::<HumanDuration>(), Ok(duration));
            let json = serde_json::to_string(&OrOff::Is(duration)).expect("text");
            prop_assert_eq!(serde_json::from_str::<OrOff<HumanDuration>>(&json).expect("the same"), OrOff::Is(duration));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<HumanDuration>();
        }
    }

    #[test]
    fn off_is_a_word() {
        let parse = serde_json::from_str::<OrOff<HumanDuration>>;
        assert_eq!(parse("\"off\"").expect("off"), OrOff::Off);
        assert_eq!(parse("false").expect("off"), OrOff::Off);
        assert!(parse("true").is_err());
        let error = parse("30").expect_err("no unit").to_string();
        assert!(error.contains("a duration with a unit"), "{error}");
    }

    #[test]
    fn a_word_that_is_none_is_told_with_those_that_are() {
        let error = serde_json::from_str::<PresetName>("\"fast\"").expect_err("no such preset").to_string();
        assert!(error.contains("default, interactive, batch, gateway"), "{error}");
        assert!(serde_json::from_str::<ServiceTier>("\"other\"").is_err());
        assert!(serde_json::to_string(&ServiceTier::Other).is_err());
    }
}
