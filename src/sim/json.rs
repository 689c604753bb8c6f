//! JSON whose members keep the order they were written in.
//!
//! `serde_json::Value` sorts its members, but Google writes `code` before `message` and `@type` first,
//! and a parser under test deserves to see them in that order.

use serde::ser::{Serialize, SerializeMap, Serializer};

/// A JSON value with ordered members.
#[derive(Clone, Debug)]
pub(super) enum Json {
    Text(String),
    Number(u64),
    Float(f64),
    List(Vec<Json>),
    Map(Vec<(&'static str, Json)>),
}

/// An object with these members, in this order.
pub(super) fn object<const N: usize>(members: [(&'static str, Json); N]) -> Json {
    Json::Map(members.into())
}

impl Json {
    /// Adds a member at the end. Anything but an object is left alone.
    pub(super) fn and(mut self, name: &'static str, value: impl Into<Json>) -> Self {
        if let Json::Map(members) = &mut self {
            members.push((name, value.into()));
        }
        self
    }

    /// On one line, as in a `data:` event.
    pub(super) fn compact(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Indented by two blanks, as Google writes everything else.
    pub(super) fn pretty(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Json::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Json::Text(text)
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Self {
        Json::Number(number)
    }
}

impl From<Vec<Json>> for Json {
    fn from(list: Vec<Json>) -> Self {
        Json::List(list)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Text(text) => serializer.serialize_str(text),
            Json::Number(number) => serializer.serialize_u64(*number),
            Json::Float(number) => serializer.serialize_f64(*number),
            Json::List(list) => serializer.collect_seq(list),
            Json::Map(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order() {
        let json = object([("z", 1.into()), ("a", "x\"y".into())]).and("m", vec![Json::Float(0.5)]);
        assert_eq!(json.compact(), r#"{"z":1,"a":"x\"y","m":[0.5]}"#);
        assert!(json.pretty().starts_with("{\n  \"z\": 1,"));
    }
}
