//! The `model` member of a JSON body: where it stands, and the same body with another one. Pure.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Larger bodies are not looked at: above the 20 MiB that Gemini takes inline.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// What a name may have before it; it is kept.
const PREFIXES: [&str; 4] = ["publishers/google/models/", "models/google/", "models/", "google/"];

/// A body's top-level `model`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named<'a> {
    /// Without its prefix.
    pub(super) model: Cow<'a, str>,
    prefix: &'static str,
    /// What to replace: the name without its prefix, or the whole text where it is written with escapes.
    span: Range<usize>,
    whole: bool,
}

/// Reads the model that a body names. `None` where it is no JSON object, has no `model` or more than one, or where
/// that is no text.
pub(super) fn read(body: &[u8]) -> Option<Named<'_>> {
    if body.len() > MAX_BYTES {
        return None;
    }
    let raw = serde_json::Deserializer::from_slice(body).deserialize_map(TopLevel).ok()??.get();
    let text: Text<'_> = serde_json::from_str(raw).ok()?;
    let start = (raw.as_ptr() as usize).checked_sub(body.as_ptr() as usize)? + 1;
    let inside = raw.len().checked_sub(2)?;
    let prefix = PREFIXES.into_iter().find(|prefix| text.0.starts_with(prefix)).unwrap_or("");
    let model = match text.0 {
        Cow::Borrowed(text) => Cow::Borrowed(&text[prefix.len()..]),
        Cow::Owned(text) => Cow::Owned(text[prefix.len()..].to_owned()),
    };
    let whole = matches!(model, Cow::Owned(_));
    let from = if whole { start } else { start + prefix.len() };
    Some(Named { model, prefix, span: from..start + inside, whole })
}

impl Named<'_> {
    /// The body with `model` in place of what it names. `model` needs no escapes.
    pub(super) fn replaced(&self, body: &[u8], model: &str) -> Bytes {
        let mut out = BytesMut::with_capacity(body.len() + self.prefix.len() + model.len());
        out.put_slice(&body[..self.span.start]);
        if self.whole {
            out.put_slice(self.prefix.as_bytes());
        }
        out.put_slice(model.as_bytes());
        out.put_slice(&body[self.span.end..]);
        out.freeze()
    }
}

/// A text, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Finds the one `model` of an object and skips all else.
struct TopLevel;

impl<'de> Visitor<'de> for TopLevel {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut twice) = (None, false);
        while let Some(Text(key)) = map.next_key()? {
            if key == "model" {
                twice |= found.replace(map.next_value()?).is_some();
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found.filter(|_| !twice))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn to(body: &str, model: &str) -> Option<String> {
        let named = read(body.as_bytes())?;
        Some(String::from_utf8(named.replaced(body.as_bytes(), model).to_vec()).expect("text"))
    }

    #[test]
    fn only_the_bytes_of_the_name_change() {
        for (body, after) in [
            (r#"{"model":"a-1"}"#, r#"{"model":"b"}"#),
            (
                r#" { "messages" : [ ] , "model" : "models/a-1" , "x" : 1.50 } "#,
                r#" { "messages" : [ ] , "model" : "models/b" , "x" : 1.50 } "#,
            ),
            (r#"{"model":"google/a-1","n":{"model":"x"}}"#, r#"{"model":"google/b","n":{"model":"x"}}"#),
            (r#"{"model":"publishers/google/models/a-1"}"#, r#"{"model":"publishers/google/models/b"}"#),
            (
                r#"{"mod\u0065l":"models\/a\u002d1","t":"\u00e9"}"#,
                r#"{"mod\u0065l":"models/b","t":"\u00e9"}"#,
            ),
        ] {
            assert_eq!(read(body.as_bytes()).expect(body).model, "a-1", "{body}");
            assert_eq!(to(body, "b").as_deref(), Some(after));
        }
    }

    #[test]
    fn what_names_no_model_is_left_alone() {
        for body in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"model":1}"#,
            r#"{"model":null}"#,
            r#"{"model":"a""#,
            r#"[{"model":"a"}]"#,
            r#"{"model":"a","model":"b"}"#,
            r#"{"n":{"model":"a"}}"#,
            "{\"model\":\"a\u{0}\"}",
            "\u{feff}{\"model\":\"a\"}",
        ] {
            assert_eq!(read(body.as_bytes()), None, "{body}");
        }
        let padded = |len: usize| " ".repeat(len - 13) + r#"{"model":"a"}"#;
        assert!(read(padded(MAX_BYTES).as_bytes()).is_some());
        assert_eq!(read(padded(MAX_BYTES + 1).as_bytes()), None, "too large to be looked at");
        assert_eq!(read(b"{\"model\":\"a\xff\"}"), None, "not UTF-8");
    }

    /// Any JSON, three deep.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("(model|[a-z\"\\\\]{1,4})", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn parsed_before_and_after_they_differ_in_the_model_alone(
            members in prop::collection::btree_map("[a-z]{1,6}", any_json(), 0..5),
            prefix in prop::sample::select(vec!["", "models/", "google/"]),
            name in "[a-z0-9.@_-]{1,20}",
            new in "[a-z0-9.@_-]{1,20}",
            pretty in any::<bool>(),
        ) {
            let mut before = json!(members);
            before["model"] = json!(format!("{prefix}{name}"));
            let body = if pretty { serde_json::to_string_pretty(&before) } else { serde_json::to_string(&before) };
            let body = body.expect("JSON");
            let after: Value = serde_json::from_str(&to(&body, &new).expect("a model")).expect("JSON");
            before["model"] = json!(format!("{prefix}{new}"));
            prop_assert_eq!(after, before);
        }

        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..80), text in "[{}\\[\\]\",:model\\\\/a ]{0,40}") {
            for body in [&body[..], text.as_bytes()] {
                if let Some(named) = read(body) {
                    let after = named.replaced(body, "new");
                    let again = read(&after).expect("still a model");
                    prop_assert_eq!(&*again.model, "new");
                }
            }
        }
    }
}
