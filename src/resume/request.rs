//! The request that asks a model to go on. Pure.

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// Whether a request is for one candidate.
pub(super) fn is_for_one_candidate(body: &Value) -> bool {
    let of = |name| body.get(name).and_then(|config: &Value| config.get("candidateCount"));
    let count = of("generationConfig").or_else(|| {
        body.get("generation_config").and_then(|c| c.get("candidate_count").or(c.get("candidateCount")))
    });
    count.is_none_or(|count| count.as_u64() == Some(1))
}

/// The body with `text` as the model's last turn. `None` where it is none of `generateContent`, or for several candidates. Without a text it is the same body.
pub(super) fn continued(body: &Bytes, text: &str) -> Option<Bytes> {
    let mut value: Value = serde_json::from_slice(body).ok()?;
    if !is_for_one_candidate(&value) {
        return None;
    }
    if text.is_empty() {
        return Some(body.clone());
    }
    let contents = value.as_object_mut()?.get_mut("contents")?;
    // A single content may stand without its list.
    if contents.is_object() {
        let single = std::mem::take(contents);
        *contents = Value::Array(vec![single]);
    }
    let contents = contents.as_array_mut()?;
    match contents.last_mut().and_then(Value::as_object_mut).filter(|last| is_models(last)) {
        // The request began the model's turn itself.
        Some(last) => last.get_mut("parts")?.as_array_mut()?.push(json!({ "text": text })),
        None => contents.push(json!({ "role": "model", "parts": [{ "text": text }] })),
    }
    serde_json::to_vec(&value).ok().map(Bytes::from)
}

fn is_models(content: &Map<String, Value>) -> bool {
    content.get("role").and_then(Value::as_str) == Some("model")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str, text: &str) -> Option<Value> {
        continued(&Bytes::from(body.to_owned()), text)
            .map(|body| serde_json::from_slice(&body).expect("JSON"))
    }

    #[test]
    fn the_text_is_the_models_last_turn() {
        let turn = json!({ "role": "model", "parts": [{ "text": "so far" }] });
        let user = json!({ "role": "user", "parts": [{ "text": "go" }] });
        let body = json!({ "contents": [user], "tools": [] }).to_string();
        assert_eq!(of(&body, "so far"), Some(json!({ "contents": [user, turn], "tools": [] })));
        let body = json!({ "contents": user }).to_string();
        assert_eq!(of(&body, "so far"), Some(json!({ "contents": [user, turn] })));
        let begun = json!({ "role": "model", "parts": [{ "text": "{" }] });
        let body = json!({ "contents": [user, begun] }).to_string();
        let both = json!({ "role": "model", "parts": [{ "text": "{" }, { "text": "so far" }] });
        assert_eq!(of(&body, "so far"), Some(json!({ "contents": [user, both] })));
    }

    #[test]
    fn what_cannot_be_gone_on_with_is_none() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"contents":"text"}"#,
            r#"{"contents":[],"generationConfig":{"candidateCount":2}}"#,
        ] {
            assert_eq!(of(body, "so far"), None, "{body}");
        }
        assert_eq!(
            of(r#"{"contents":[],"generationConfig":{"candidateCount":1}}"#, ""),
            of(r#"{"contents":[],"generationConfig":{"candidateCount":1}}"#, "")
        );
        assert!(of(r#"{"contents":[],"generation_config":{"candidate_count":3}}"#, "x").is_none());
    }

    #[test]
    fn nothing_so_far_is_the_same_request() {
        let body = Bytes::from_static(br#"{ "contents" : [] }"#);
        assert_eq!(continued(&body, ""), Some(body));
    }
}
