//! What a value is for: the paths that are followed, as a table of names.

/// What is looked for in a value. Where it is a container that is followed, its place on the stack has this name.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Slot {
    /// Nothing: the value is passed over.
    #[default]
    Skip,

    // Followed into objects.
    /// The outermost object, and lists of it.
    Envelope,
    /// Code Assist's `response`.
    Wrapped,
    /// What a relay puts its provider's answer in, of which only an error is read.
    Holder,
    /// The answer in an operation that makes videos.
    VideoResponse,
    /// `interaction` in an event of the Interactions API.
    Interaction,
    /// A step, an output or a delta of an interaction, and what is in one.
    Output,
    OutputContent,
    /// Why media were refused, as a list of texts.
    Reasons,
    Candidates,
    Content,
    Part,
    /// A choice's `delta` or `message`.
    Message,
    ToolCalls,
    Feedback,
    Predictions,
    /// What an interaction's event says beside itself: its usage so far.
    Metadata,
    Usage,
    UsageDetails,

    // Scalars that are read.
    Index,
    FinishReason,
    BlockReason,
    Thought,
    Input,
    ToolInput,
    Cached,
    OutputTokens,
    Thoughts,
    Total,
    /// The tier that served, beside the counts.
    ServedTier,
    /// The model that answered.
    ModelVersion,
    /// How many media were refused.
    Refused,
    /// The type of an interaction's output.
    Sort,
    /// What an event of an interaction is about.
    EventType,
    /// The status of an interaction in an event.
    InteractionStatus,
    /// The status of the outermost object, kept as text, too.
    Status,
    /// A trimmed envelope's `code`, kept as text, too.
    Code,

    // Strings that need only not be empty.
    Text,
    Refusal,

    // Values that are kept as text.
    Error,
    Flat,
}

impl Slot {
    pub(super) fn is_object(self) -> bool {
        (Self::Envelope as u8..=Self::UsageDetails as u8).contains(&(self as u8))
    }

    /// Whether a list stands for each of its elements.
    pub(super) fn is_list(self) -> bool {
        matches!(
            self,
            Self::Envelope
                | Self::Candidates
                | Self::Content
                | Self::Part
                | Self::ToolCalls
                | Self::Predictions
                | Self::Output
                | Self::OutputContent
                | Self::Reasons
        )
    }

    pub(super) fn is_scalar(self) -> bool {
        (Self::Index as u8..=Self::Code as u8).contains(&(self as u8))
    }

    /// Whether a string here need only not be empty.
    pub(super) fn is_any(self) -> bool {
        matches!(self, Self::Text | Self::Refusal | Self::Output)
    }

    pub(super) fn is_kept(self) -> bool {
        matches!(self, Self::Error | Self::Flat | Self::Code | Self::Status)
    }

    /// A token count by its name: Gemini's, the OpenAI-compatible surface's, and the Interactions API's in the
    /// spellings of [Gemini](https://ai.google.dev/gemini-api/docs/interactions/streaming) and of
    /// [Vertex](https://docs.cloud.google.com/gemini-enterprise-agent-platform/reference/rest/v1beta1/Usage), read
    /// 2026-11.
    pub(super) fn of_usage(key: &[u8]) -> Self {
        match key {
            b"promptTokenCount" | b"prompt_tokens" | b"total_input_tokens" | b"totalInputTokens" => {
                Self::Input
            }
            b"toolUsePromptTokenCount" | b"total_tool_use_tokens" | b"totalToolUseTokens" => Self::ToolInput,
            b"cachedContentTokenCount" | b"total_cached_tokens" | b"totalCachedTokens" => Self::Cached,
            b"candidatesTokenCount"
            | b"completion_tokens"
            | b"total_output_tokens"
            | b"totalOutputTokens" => Self::OutputTokens,
            b"thoughtsTokenCount" | b"total_thought_tokens" | b"totalThoughtTokens" => Self::Thoughts,
            b"totalTokenCount" | b"total_tokens" | b"totalTokens" => Self::Total,
            b"prompt_tokens_details" => Self::UsageDetails,
            b"serviceTier" | b"service_tier" | b"trafficType" | b"traffic_type" => Self::ServedTier,
            _ => Self::Skip,
        }
    }
}
