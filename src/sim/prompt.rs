//! What the simulator takes from a request's body: the text to count and to echo, and little else.

use serde_json::Value;

use crate::tier::ServiceTier;

/// How deep a request is searched for text. Real requests nest six levels.
const MAX_DEPTH: usize = 32;

/// A request's body, read.
#[derive(Clone, Debug, Default)]
pub(super) struct Prompt {
    /// One token for every four characters of text, rounded up.
    pub(super) tokens: u64,
    /// The last text of the request, to be echoed.
    pub(super) last_text: String,
    /// `model`, as chat completions send it, without a leading `models/`.
    pub(super) model: Option<String>,
    /// How many embeddings are asked for: the length of `requests`, at least one.
    pub(super) requests: usize,
    /// `outputDimensionality`, of the request or of the first of several.
    pub(super) dimensions: Option<u64>,
    /// Of an interaction: as a stream, in the background, and the token of one that is continued.
    pub(super) stream: bool,
    pub(super) background: bool,
    pub(super) continuation: Option<String>,
    /// `service_tier`, in either spelling.
    pub(super) tier: Option<ServiceTier>,
}

impl Prompt {
    /// Reads what there is. What is not JSON counts as text from its first to its last character.
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            let text = String::from_utf8_lossy(body);
            return Self {
                tokens: tokens_of(&text),
                last_text: text.into_owned(),
                requests: 1,
                ..Self::default()
            };
        };
        let mut texts = Vec::new();
        // An interaction's, where it is one text.
        texts.extend(value.get("input").and_then(Value::as_str));
        collect(&value, MAX_DEPTH, &mut texts);
        let chars: u64 = texts.iter().map(|text| text.chars().count() as u64).sum();
        let dimensions = |value: &Value| value.get("outputDimensionality").and_then(Value::as_u64);
        let requests = value.get("requests").and_then(Value::as_array);
        let model = value.get("model").and_then(Value::as_str);
        let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
        let tier = value.get("service_tier").or_else(|| value.get("serviceTier")).and_then(Value::as_str);
        Self {
            stream: flag("stream"),
            background: flag("background"),
            continuation: value.get("continuation_token").and_then(Value::as_str).map(str::to_owned),
            tokens: chars.div_ceil(4),
            last_text: texts.last().map(|text| (*text).to_owned()).unwrap_or_default(),
            model: model.map(|m| m.strip_prefix("models/").unwrap_or(m).to_owned()),
            requests: requests.map_or(1, |r| r.len().max(1)),
            dimensions: dimensions(&value).or_else(|| requests?.first().and_then(dimensions)),
            tier: tier.and_then(ServiceTier::from_name),
        }
    }
}

/// Tokens of a text by the same rule.
pub(super) fn tokens_of(text: &str) -> u64 {
    (text.chars().count() as u64).div_ceil(4)
}

/// The strings under `text` (Gemini) and `content` (chat completions), in the order in which `serde_json`
/// lists them.
fn collect<'a>(value: &'a Value, depth: usize, texts: &mut Vec<&'a str>) {
    if depth == 0 {
        return;
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, depth - 1, texts)),
        Value::Object(members) => {
            // The system's instruction first, so that the last text is what the user said last.
            let system = |name: &str| name.starts_with("system");
            let (first, rest): (Vec<_>, Vec<_>) = members.iter().partition(|(name, _)| system(name));
            for (name, member) in first.into_iter().chain(rest) {
                match member {
                    Value::String(text) if name == "text" || name == "content" => texts.push(text),
                    _ => collect(member, depth - 1, texts),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_a_token_for_every_four_characters_of_text() {
        let body =
            br#"{"contents":[{"role":"user","parts":[{"text":"12345"},{"inlineData":{"data":"AAAAAAAA"}}]}],
            "systemInstruction":{"parts":[{"text":"be brief"}]}}"#;
        let prompt = Prompt::read(body);
        assert_eq!(prompt.tokens, 4, "13 characters, and neither role nor data");
        assert_eq!(prompt.last_text, "12345");
    }

    #[test]
    fn reads_chat_completions_embeddings_and_what_is_not_json() {
        let chat = Prompt::read(br#"{"model":"models/m","messages":[{"role":"user","content":"hello"}]}"#);
        assert_eq!((chat.model.as_deref(), chat.tokens), (Some("m"), 2));
        let batch = Prompt::read(br#"{"requests":[{"outputDimensionality":3},{}]}"#);
        assert_eq!((batch.requests, batch.dimensions), (2, Some(3)));
        assert_eq!(Prompt::read("äöüß!".as_bytes()).tokens, 2);
        assert_eq!(Prompt::read(b"").tokens, 0);
    }
}
