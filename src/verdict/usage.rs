//! What an answer says it has used.

/// The tokens that an answer's `usageMetadata` reports, or the `usage` of the OpenAI-compatible surface and of the
/// Interactions API.
///
/// In a stream each event repeats them, so far: the last one with any count in it is taken. Names and meanings are those of
/// [`UsageMetadata`](https://ai.google.dev/api/generate-content#UsageMetadata), read 2026-11; a member that is
/// absent is zero, as proto3's JSON has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt, cached content included, and of the results of tools: what an input-token quota counts.
    pub input_tokens: u64,
    /// Those of them that came from a cache.
    pub cached_tokens: u64,
    /// Tokens of the candidates, without thoughts.
    pub output_tokens: u64,
    /// Tokens of the model's thoughts.
    pub thought_tokens: u64,
    /// All of them together, as the answer says.
    pub total_tokens: u64,
}
