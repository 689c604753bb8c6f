//! What the preflight finds.

use std::borrow::Cow;
use std::fmt;

use crate::verdict::Kind;

/// What is looked at before a request is sent. Prints as [`as_str`](Self::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rule {
    /// `candidateCount`, or `n`, is in the model's range.
    CandidateCount,
    /// `temperature` is in the model's range.
    Temperature,
    /// `temperature` is not below the one that Google advises for the model: 1.0 for the models of Gemini 3.
    LowTemperature,
    /// `topP` is in the model's range.
    TopP,
    /// `topK` is in the model's range.
    TopK,
    /// `maxOutputTokens` is from 1 to the model's most.
    OutputTokens,
    /// `thinkingBudget` and `thinkingLevel` are ones that the model takes, and not both are there.
    Thinking,
    /// The catalogue knows the model, or one of which it is a variant.
    UnknownModel,
    /// The model has not retired.
    RetiredModel,
    /// The version of the API in the path has what the request asks for.
    ApiVersion,
    /// The prompt fits into the model's context.
    ContextSize,
    /// The body is not larger than what Google takes inline.
    InlineSize,
    /// A `:batchEmbedContents` has at most 100 texts.
    BatchSize,
    /// No key stands in the URL.
    KeyInUrl,
    /// No key stands in the body.
    KeyInBody,
}

impl Rule {
    /// Every rule.
    pub const ALL: &'static [Self] = &[
        Self::CandidateCount,
        Self::Temperature,
        Self::LowTemperature,
        Self::TopP,
        Self::TopK,
        Self::OutputTokens,
        Self::Thinking,
        Self::UnknownModel,
        Self::RetiredModel,
        Self::ApiVersion,
        Self::ContextSize,
        Self::InlineSize,
        Self::BatchSize,
        Self::KeyInUrl,
        Self::KeyInBody,
    ];

    /// A short name in snake case: `candidate_count`, `temperature`, `low_temperature`, …
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CandidateCount => "candidate_count",
            Self::Temperature => "temperature",
            Self::LowTemperature => "low_temperature",
            Self::TopP => "top_p",
            Self::TopK => "top_k",
            Self::OutputTokens => "output_tokens",
            Self::Thinking => "thinking",
            Self::UnknownModel => "unknown_model",
            Self::RetiredModel => "retired_model",
            Self::ApiVersion => "api_version",
            Self::ContextSize => "context_size",
            Self::InlineSize => "inline_size",
            Self::BatchSize => "batch_size",
            Self::KeyInUrl => "key_in_url",
            Self::KeyInBody => "key_in_body",
        }
    }

    /// The kind of failure that a refusal stands for.
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::ContextSize => Kind::ContextTooLong,
            Self::InlineSize => Kind::PayloadTooLarge,
            _ => Kind::InvalidArgument,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A rule that a request breaks.
///
/// Holds numbers and names of models, and neither text of the prompt nor keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    rule: Rule,
    field: &'static str,
    message: Cow<'static, str>,
}

impl Finding {
    pub(crate) fn new(rule: Rule, field: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { rule, field, message: message.into() }
    }

    /// Which one.
    #[must_use]
    pub const fn rule(&self) -> Rule {
        self.rule
    }

    /// What is wrong, by the name that Google gives it: `generation_config.temperature`, `model`, `key`, `contents`.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// What is wrong with it, and what is right: a sentence.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
