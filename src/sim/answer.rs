//! The bodies of answers that come with a 200.

use super::json::{Json, object};
use super::prompt::{Prompt, tokens_of};

/// How much of a prompt is echoed, in characters, so that a huge prompt does not get a huge answer.
const MAX_ECHO: usize = 4_000;
/// Embeddings are this long unless `outputDimensionality` asks for another length.
const DEFAULT_DIMENSIONS: u64 = 16;
/// The largest `outputDimensionality` that is obeyed; it is that of Google's largest embedding.
const MAX_DIMENSIONS: u64 = 3_072;
/// When the first chat completion says that it was made, in seconds since 1970; each later one a second later. Not the time of day, so
/// that a simulator repeats itself to the byte.
const CREATED: u64 = 1_767_225_600;

/// What a generated answer is made from.
pub(super) struct Answer<'a> {
    pub(super) number: u64,
    pub(super) model: &'a str,
    pub(super) prompt: &'a Prompt,
    pub(super) text: String,
    pub(super) chunks: usize,
    pub(super) flavour: Flavour,
}

/// What a generated answer turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    Good,
    BlockedPrompt,
    BlockedAnswer,
    Empty,
}

/// The configured answer, or an echo of the prompt.
pub(super) fn text(configured: Option<&str>, prompt: &Prompt) -> String {
    match configured {
        Some(text) => text.to_owned(),
        None if prompt.last_text.is_empty() => "There was nothing to echo, so this is all.".to_owned(),
        None => format!("Echo: {}", prompt.last_text.chars().take(MAX_ECHO).collect::<String>()),
    }
}

impl Answer<'_> {
    /// The body of `generateContent`.
    pub(super) fn whole(&self) -> Json {
        let tokens = tokens_of(&self.text);
        match self.flavour {
            Flavour::Good => self.message(Some(content(Some(&self.text))), Some("STOP"), tokens),
            Flavour::Empty => self.message(Some(content(None)), Some("STOP"), 0),
            Flavour::BlockedAnswer => self.message(None, Some("SAFETY"), 0),
            Flavour::BlockedPrompt => self.blocked(),
        }
    }

    /// The bodies of `streamGenerateContent`, in order. Never empty; only the last has a `finishReason`.
    pub(super) fn parts(&self) -> Vec<Json> {
        match self.flavour {
            Flavour::BlockedPrompt => return vec![self.blocked()],
            Flavour::Empty => return vec![self.whole()],
            Flavour::Good | Flavour::BlockedAnswer => {}
        }
        let chars: Vec<char> = self.text.chars().collect();
        let count = self.chunks.max(1);
        (0..count)
            .map(|i| {
                let (start, end) = (i * chars.len() / count, (i + 1) * chars.len() / count);
                // The counts of a stream are those up to here, not those of the chunk.
                let tokens = (end as u64).div_ceil(4);
                let piece: String = chars[start..end].iter().collect();
                match (i + 1 == count, self.flavour) {
                    (false, _) => self.message(Some(content(Some(&piece))), None, tokens),
                    (true, Flavour::BlockedAnswer) => {
                        self.message(None, Some("SAFETY"), (start as u64).div_ceil(4))
                    }
                    (true, _) => self.message(Some(content(Some(&piece))), Some("STOP"), tokens),
                }
            })
            .collect()
    }

    fn message(&self, content: Option<Json>, finish: Option<&str>, tokens: u64) -> Json {
        let mut candidate = object([]);
        if let Some(content) = content {
            candidate = candidate.and("content", content);
        }
        if let Some(reason) = finish {
            candidate = candidate.and("finishReason", reason);
        }
        candidate = candidate.and("index", 0);
        if finish == Some("SAFETY") {
            candidate = candidate.and("safetyRatings", ratings("MEDIUM"));
        }
        self.frame(object([("candidates", vec![candidate].into())]), Some(tokens))
    }

    fn blocked(&self) -> Json {
        let feedback = object([("blockReason", "SAFETY".into()), ("safetyRatings", ratings("HIGH"))]);
        self.frame(object([("promptFeedback", feedback)]), None)
    }

    fn frame(&self, body: Json, tokens: Option<u64>) -> Json {
        let prompt = self.prompt.tokens;
        let mut usage = object([("promptTokenCount", prompt.into())]);
        if let Some(tokens) = tokens {
            usage = usage.and("candidatesTokenCount", tokens);
        }
        let total = prompt.saturating_add(tokens.unwrap_or(0));
        let mut usage = usage.and("totalTokenCount", total);
        if let Some(tier) = self.prompt.tier {
            usage = usage.and("serviceTier", tier.as_str());
        }
        body.and("usageMetadata", usage)
            .and("modelVersion", self.model)
            .and("responseId", format!("sim-{:06}", self.number))
    }

    /// The body of a chat completion.
    pub(super) fn chat(&self) -> Json {
        let message = object([("role", "assistant".into()), ("content", self.text.as_str().into())]);
        let choice = object([("index", 0.into()), ("message", message), ("finish_reason", "stop".into())]);
        self.completion("chat.completion", choice).and("usage", self.usage())
    }

    /// The events of a streamed chat completion, without the `[DONE]` behind them. Never empty; the last has the `finish_reason` and
    /// the usage.
    pub(super) fn chat_parts(&self) -> Vec<Json> {
        let chars: Vec<char> = self.text.chars().collect();
        let count = self.chunks.max(1);
        let event = |i: usize| {
            let piece: String =
                chars[i * chars.len() / count..(i + 1) * chars.len() / count].iter().collect();
            let delta = object([("role", "assistant".into()), ("content", piece.into())]);
            let mut choice = object([("index", 0.into()), ("delta", delta)]);
            let is_last = i + 1 == count;
            if is_last {
                choice = choice.and("finish_reason", "stop");
            }
            let event = self.completion("chat.completion.chunk", choice);
            if is_last { event.and("usage", self.usage()) } else { event }
        };
        (0..count).map(event).collect()
    }

    fn usage(&self) -> Json {
        let (prompt, completion) = (self.prompt.tokens, tokens_of(&self.text));
        object([
            ("prompt_tokens", prompt.into()),
            ("completion_tokens", completion.into()),
            ("total_tokens", prompt.saturating_add(completion).into()),
        ])
    }

    fn completion(&self, what: &str, choice: Json) -> Json {
        object([
            ("id", format!("sim-{:06}", self.number).into()),
            ("object", what.into()),
            ("created", CREATED.saturating_add(self.number).into()),
            ("model", self.model.into()),
            ("choices", vec![choice].into()),
        ])
    }
}

fn content(text: Option<&str>) -> Json {
    match text {
        Some(text) => {
            object([("parts", vec![object([("text", text.into())])].into()), ("role", "model".into())])
        }
        None => object([("role", "model".into())]),
    }
}

fn ratings(probability: &str) -> Json {
    let rating =
        object([("category", "HARM_CATEGORY_DANGEROUS_CONTENT".into()), ("probability", probability.into())]);
    vec![rating].into()
}

/// The body of `countTokens`.
pub(super) fn token_count(prompt: &Prompt) -> Json {
    let text = object([("modality", "TEXT".into()), ("tokenCount", prompt.tokens.into())]);
    object([("totalTokens", prompt.tokens.into()), ("promptTokensDetails", vec![text].into())])
}

/// The body of `embedContent`, or of `batchEmbedContents`.
pub(super) fn embeddings(prompt: &Prompt, batch: bool) -> Json {
    let length = prompt.dimensions.unwrap_or(DEFAULT_DIMENSIONS).clamp(1, MAX_DIMENSIONS);
    // A unit vector, so that code which normalises or compares embeddings has nothing to divide by zero.
    let value = 1.0 / (length as f64).sqrt();
    let values = || object([("values", vec![Json::Float(value); length as usize].into())]);
    if batch {
        object([("embeddings", (0..prompt.requests).map(|_| values()).collect::<Vec<_>>().into())])
    } else {
        object([("embedding", values())])
    }
}

/// The body of `models.get`.
pub(super) fn model(name: &str) -> Json {
    let methods = if name.contains("embedding") {
        vec!["embedContent".into(), "batchEmbedContents".into(), "countTokens".into()]
    } else {
        vec!["generateContent".into(), "streamGenerateContent".into(), "countTokens".into()]
    };
    object([
        ("name", format!("models/{name}").into()),
        ("version", "001".into()),
        ("displayName", name.into()),
        ("inputTokenLimit", 1_048_576.into()),
        ("outputTokenLimit", 65_536.into()),
        ("supportedGenerationMethods", methods.into()),
    ])
}

/// The body of `models.list`: one page with everything.
pub(super) fn models<'a>(names: impl Iterator<Item = &'a str>) -> Json {
    object([("models", names.map(model).collect::<Vec<_>>().into())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_stream_make_up_the_whole_text() {
        let prompt = Prompt { tokens: 3, ..Prompt::default() };
        for (text, chunks) in [("Grüße aus der Kiste", 5), ("ab", 5), ("abc", 1)] {
            let answer = Answer {
                number: 1,
                model: "m",
                prompt: &prompt,
                text: text.into(),
                chunks,
                flavour: Flavour::Good,
            };
            let parts: Vec<serde_json::Value> =
                answer.parts().iter().filter_map(|part| serde_json::from_str(&part.compact()).ok()).collect();
            assert_eq!(parts.len(), chunks);
            let joined: String = parts
                .iter()
                .filter_map(|part| part.pointer("/candidates/0/content/parts/0/text")?.as_str())
                .collect();
            assert_eq!(joined, text);
            let finished = parts.iter().filter(|part| part.pointer("/candidates/0/finishReason").is_some());
            assert_eq!(finished.count(), 1);
            let last = parts.last().and_then(|part| part.pointer("/usageMetadata/totalTokenCount"));
            assert_eq!(last.and_then(|n| n.as_u64()), Some(3 + tokens_of(text)));
        }
    }
}
