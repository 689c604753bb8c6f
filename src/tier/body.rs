//! The `service_tier` member of a JSON body: which tier it names, and the same body with another one. Pure.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem::Finder;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::ServiceTier;

/// How much is searched at either end. A member that stands in the middle of a longer body is not seen: SDKs write it
/// after the contents, or before.
const END: usize = 64 * 1024;
/// Larger bodies are not parsed: above the 20 MiB that Gemini takes inline.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// What both spellings begin with.
static NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"service"));

/// The tier that a body names as a member of its outermost object.
///
/// `bytes` may be the beginning of a body that is longer: then the member counts wherever it stands, since the object cannot
/// be parsed.
#[inline]
pub(crate) fn of_body(bytes: &[u8], is_whole: bool) -> Option<ServiceTier> {
    let ends = bytes.len().saturating_sub(END);
    let found = if ends <= END {
        mentioned(bytes)
    } else {
        mentioned(&bytes[..END]).or_else(|| mentioned(&bytes[ends..]))
    }?;
    if !is_whole { Some(found) } else { read(bytes)?.tier() }
}

/// The tier that is named anywhere. Inside a text a quote would have a backslash before it, and the name no colon behind.
#[inline]
fn mentioned(bytes: &[u8]) -> Option<ServiceTier> {
    NAME.find(bytes)?;
    mentioned_somewhere(bytes)
}

#[cold]
fn mentioned_somewhere(bytes: &[u8]) -> Option<ServiceTier> {
    NAME.find_iter(bytes).find_map(|at| value_at(bytes, at))
}

#[cold]
fn value_at(bytes: &[u8], at: usize) -> Option<ServiceTier> {
    if at > 0 && bytes[at - 1] == b'\\' {
        return None;
    }
    let rest = &bytes[at + NAME.needle().len()..];
    let rest = rest.strip_prefix(b"_tier\"").or_else(|| rest.strip_prefix(b"Tier\""))?;
    let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', &rest[..rest.len().min(64)])?;
    ServiceTier::from_name(std::str::from_utf8(&rest[..end]).ok()?)
}

/// Where a body's tier stands.
struct Named<'a> {
    value: Cow<'a, str>,
    /// The text, without its quotes.
    span: Range<usize>,
}

impl Named<'_> {
    fn tier(&self) -> Option<ServiceTier> {
        ServiceTier::from_name(&self.value)
    }
}

/// `None` where the body is no JSON object, has no such member or more than one, or where that is no text.
fn read(body: &[u8]) -> Option<Named<'_>> {
    if body.len() > MAX_BYTES {
        return None;
    }
    let raw = serde_json::Deserializer::from_slice(body).deserialize_map(TopLevel).ok()?.ok()??.get();
    let Text(value) = serde_json::from_str(raw).ok()?;
    let start = (raw.as_ptr() as usize).checked_sub(body.as_ptr() as usize)? + 1;
    Some(Named { value, span: start..start + raw.len().checked_sub(2)? })
}

/// The body with `tier` in place of the one it names, or as its first member. `None` where it is no JSON object, or has
/// that member twice.
///
/// `standard` is how the surface spells the standard tier.
pub(crate) fn rewritten(body: &[u8], tier: ServiceTier, standard: &str) -> Option<Bytes> {
    if body.len() > MAX_BYTES {
        return None;
    }
    let name = if tier == ServiceTier::Standard { standard } else { tier.as_str() };
    let mut out = BytesMut::with_capacity(body.len() + 32);
    if let Some(named) = read(body) {
        out.put_slice(&body[..named.span.start]);
        out.put_slice(name.as_bytes());
        out.put_slice(&body[named.span.end..]);
        return Some(out.freeze());
    }
    // Without the member, and an object all the same.
    let found = serde_json::Deserializer::from_slice(body).deserialize_map(TopLevel).ok()?;
    if !matches!(found, Ok(None)) {
        return None;
    }
    let open = memchr::memchr(b'{', body)?;
    let is_empty = body[open + 1..].trim_ascii_start().starts_with(b"}");
    out.put_slice(&body[..=open]);
    out.put_slice(b"\"service_tier\":\"");
    out.put_slice(name.as_bytes());
    out.put_slice(if is_empty { b"\"" } else { b"\"," });
    out.put_slice(&body[open + 1..]);
    Some(out.freeze())
}

/// A text, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The member is there more than once.
struct Twice;

/// Finds the one `service_tier` of an object and skips all else.
struct TopLevel;

impl<'de> Visitor<'de> for TopLevel {
    type Value = Result<Option<&'de RawValue>, Twice>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut twice) = (None, false);
        while let Some(Text(key)) = map.next_key()? {
            if key == "service_tier" || key == "serviceTier" {
                twice |= found.replace(map.next_value()?).is_some();
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(if twice { Err(Twice) } else { Ok(found) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_a_member_of_the_outermost_object_names_a_tier() {
        for (body, tier) in [
            (r#"{"contents":[],"service_tier":"flex"}"#, Some(ServiceTier::Flex)),
            (r#"{ "serviceTier" : "FLEX" , "contents" : [ ] }"#, Some(ServiceTier::Flex)),
            (r#"{"model":"m","service_tier":"priority","input":"x"}"#, Some(ServiceTier::Priority)),
            (r#"{"service_tier":"standard"}"#, Some(ServiceTier::Standard)),
            (r#"{"service_tier":"new"}"#, Some(ServiceTier::Other)),
            (r#"{"service_tier":null}"#, None),
            (r#"{"service_tier":"flex","service_tier":"priority"}"#, None),
            (r#"{"contents":[{"parts":[{"text":"\"service_tier\": \"flex\""}]}]}"#, None),
            (r#"{"contents":[{"args":{"service_tier":"flex"}}]}"#, None),
            (
                r#"{"contents":[{"args":{"service_tier":"flex"}}],"serviceTier":"priority"}"#,
                Some(ServiceTier::Priority),
            ),
            (r#"{"text":"service_tier"}"#, None),
            (r#"{"x":"service_tier","y":"flex"}"#, None),
            (r#"["service_tier","flex"]"#, None),
            ("", None),
            ("{", None),
        ] {
            assert_eq!(of_body(body.as_bytes(), true), tier, "{body}");
        }
    }

    #[test]
    fn a_long_body_is_looked_at_on_either_end() {
        let long = |front: &str, back: &str| {
            let fill = "x".repeat(3 * END);
            of_body(format!(r#"{{{front}"fill":"{fill}"{back}}}"#).as_bytes(), true)
        };
        assert_eq!(long(r#""service_tier":"flex","#, ""), Some(ServiceTier::Flex));
        assert_eq!(long("", r#","service_tier":"flex""#), Some(ServiceTier::Flex));
        let fill = "x".repeat(END + 1);
        let middle = format!(r#"{{"a":"{fill}","service_tier":"flex","b":"{fill}"}}"#);
        assert_eq!(of_body(middle.as_bytes(), true), None, "documented");
    }

    #[test]
    fn the_first_frame_of_a_body_tells_without_the_rest() {
        let front = br#"{"service_tier":"flex","contents":[{"parts":[{"te"#;
        assert_eq!(of_body(front, false), Some(ServiceTier::Flex));
        assert_eq!(of_body(front, true), None, "it is no object");
    }

    #[test]
    fn another_tier_replaces_the_member_or_is_the_first_one() {
        let to = |body: &str, tier| {
            rewritten(body.as_bytes(), tier, "standard").map(|b| String::from_utf8(b.to_vec()).expect("text"))
        };
        for (body, after) in [
            (r#"{"a":1,"service_tier":"flex"}"#, r#"{"a":1,"service_tier":"standard"}"#),
            (r#"{"serviceTier" : "FLEX", "a": 1.50 }"#, r#"{"serviceTier" : "standard", "a": 1.50 }"#),
            (r#" {"a":1}"#, r#" {"service_tier":"standard","a":1}"#),
            ("{ }", r#"{"service_tier":"standard" }"#),
        ] {
            assert_eq!(to(body, ServiceTier::Standard).as_deref(), Some(after));
        }
        for body in ["", "[]", "{", r#"{"service_tier":1}"#, r#"{"service_tier":"a","service_tier":"b"}"#] {
            assert_eq!(to(body, ServiceTier::Priority), None, "{body}");
        }
        let chat =
            rewritten(br#"{"service_tier":"flex"}"#, ServiceTier::Standard, "default").expect("an object");
        assert_eq!(&*chat, br#"{"service_tier":"default"}"#);
    }

    proptest! {
        #[test]
        fn parsed_before_and_after_they_differ_in_the_tier_alone(
            members in prop::collection::btree_map("[a-z]{1,6}", "\\PC{0,12}", 0..5),
            named in prop::option::of(prop::sample::select(vec!["service_tier", "serviceTier"])),
            before in prop::sample::select(vec!["flex", "priority", "standard"]),
            after in prop::sample::select(vec![ServiceTier::Flex, ServiceTier::Priority, ServiceTier::Standard]),
            pretty in any::<bool>(),
        ) {
            let mut value = json!(members);
            if let Some(named) = named {
                value[named] = json!(before);
            }
            let body = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let body = body.expect("JSON");
            prop_assert_eq!(of_body(body.as_bytes(), true), named.and_then(|_| ServiceTier::from_name(before)));
            let out = rewritten(body.as_bytes(), after, "standard").expect("an object");
            let read: Value = serde_json::from_slice(&out).expect("JSON");
            value[named.unwrap_or("service_tier")] = json!(after.as_str());
            prop_assert_eq!(read, value);
            prop_assert_eq!(of_body(&out, true), Some(after));
        }

        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..80), text in "(\"service|_tier\"|Tier\"|[{}:,\" \\\\a]){0,12}") {
            for body in [&body[..], text.as_bytes()] {
                let _ = of_body(body, true);
                let _ = of_body(body, false);
                let _ = rewritten(body, ServiceTier::Flex, "standard");
            }
        }
    }
}
