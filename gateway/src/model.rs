//! The model of a request whose path does not name it, and every model that a body names.

use std::borrow::Cow;
use std::fmt;

use http::{Method, Request};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tower_gemini::request::{Surface, Target};

/// Whether the model of this request stands in its body.
pub fn is_in_body<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    // What ends in a verb of Google's names its model before it. The whole target is read once more by the layers.
    let has_verb = path.rsplit('/').next().is_some_and(|last| last.contains(':'));
    request.method() == Method::POST
        && (!has_verb || path.contains("interactions") || path.contains('%'))
        && matches!(Target::of(request).surface(), Surface::OpenAi | Surface::Interactions)
}

/// The member `model` of an object that may have been cut.
pub fn model(json: &[u8]) -> Option<Box<str>> {
    struct Find<'a>(&'a mut Option<Box<str>>);

    impl<'de> Visitor<'de> for Find<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                if name == "model" {
                    *self.0 = Some(map.next_value()?);
                    return Ok(());
                }
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    let mut found = None;
    // The rest of the object, or that it was cut, is an error by then and of no interest.
    let _ = serde_json::Deserializer::from_slice(json).deserialize_map(Find(&mut found));
    found
}

/// Members whose values are the caller's own words, in which a `model` is no model of Gemini's.
const WORDS: [&str; 20] = [
    "contents",
    "content",
    "messages",
    "systemInstruction",
    "system_instruction",
    "tools",
    "toolConfig",
    "tool_config",
    "generationConfig",
    "generation_config",
    "response_format",
    "instances",
    "parameters",
    "metadata",
    "labels",
    "functions",
    "tool_choice",
    "safetySettings",
    "safety_settings",
    "instructions",
];

/// Every `model` that a body names, however often and however deep, but for those in the caller's own words. `None` where it is no JSON
/// that can be read, or names a file whose content may name others.
pub fn all(json: &[u8]) -> Option<Vec<String>> {
    let mut found = Found::default();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = serde::de::DeserializeSeed::deserialize(&mut found, &mut reader);
    (read.is_ok() && reader.end().is_ok() && !found.file).then_some(found.models)
}

#[derive(Default)]
struct Found {
    models: Vec<String>,
    file: bool,
}

impl<'de> serde::de::DeserializeSeed<'de> for &mut Found {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Found {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match &*name {
                "model" | "agent" => {
                    // An object may describe a job, and is passed over.
                    if let Text(Some(model)) = map.next_value::<Text>()? {
                        self.models.push(model.strip_prefix("models/").unwrap_or(&model).to_owned());
                    }
                }
                // A batch whose requests stand in a file.
                "file_name" | "fileName" | "input_file_id" | "gcsSource" | "bigquerySource" | "inputUri" => {
                    self.file = true;
                    map.next_value::<IgnoredAny>()?;
                }
                name if WORDS.contains(&name) => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ => map.next_value_seed(&mut *self)?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A text, or anything else.
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(from)?;
        Ok(Self(value.as_str().map(str::to_owned)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_of_a_body_is_found_and_no_word_of_the_caller() {
        let found = |json: &str| all(json.as_bytes());
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            found(r#"{"model":"a","messages":[{"model":"x"}],"model":"models/b"}"#),
            names(&["a", "b"])
        );
        assert_eq!(found(r#"{"mo\u0064el":"a"}"#), names(&["a"]), "an escape");
        assert_eq!(
            found(
                r#"{"batch":{"inputConfig":{"requests":{"requests":[{"request":{"model":"models/c"}}]}}}}"#
            ),
            names(&["c"])
        );
        assert_eq!(
            found(r#"{"contents":[{"parts":[{"functionCall":{"args":{"model":"T"}}}]}]}"#),
            names(&[])
        );
        assert_eq!(found(r#"{"batch":{"inputConfig":{"fileName":"files/1"}}}"#), None);
        for broken in ["", "{", "{'model':'a'}", r#"{"model":"a"} {"model":"b"}"#, "[1,]"] {
            assert_eq!(found(broken), None, "{broken}");
        }
        assert_eq!(found("[1,null,true,-2,0.5,\"model\"]"), names(&[]));
    }
}
