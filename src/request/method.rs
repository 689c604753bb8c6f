//! The tables: which API, which of its methods.

use std::fmt;

/// Which of Google's APIs a request speaks. Prints as [`as_str`](Self::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Surface {
    /// The Gemini API: `/v1beta/models/{m}:{method}` and its sister resources (`tunedModels`, `files`,
    /// `cachedContents`, `batches`, …), also under `/v1` and `/v1alpha`.
    GeminiApi,
    /// The Interactions API: `/v1beta/interactions`; on Vertex AI below `projects/{p}/locations/{l}`.
    Interactions,
    /// The OpenAI-compatible surface: `/v1beta/openai/…`; on Vertex AI `…/endpoints/openapi/…`, and
    /// `…/endpoints/{id}/chat/completions` for a model of one's own.
    OpenAi,
    /// Vertex AI: `/v1/projects/{p}/locations/{l}/publishers/{pub}/models/{m}:{method}`,
    /// `…/endpoints/{id}:{method}`, and in express mode `/v1/publishers/google/models/{m}:{method}`.
    Vertex,
    /// Gemini Code Assist: `/v1internal:{method}`.
    CodeAssist,
    /// None of these.
    Unknown,
}

impl Surface {
    /// A short name in snake case: `gemini_api`, `interactions`, `openai`, `vertex`, `code_assist`, `unknown`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GeminiApi => "gemini_api",
            Self::Interactions => "interactions",
            Self::OpenAi => "openai",
            Self::Vertex => "vertex",
            Self::CodeAssist => "code_assist",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a request wants done. Prints as [`as_str`](Self::as_str).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Method {
    /// `:generateContent`.
    GenerateContent,
    /// `:streamGenerateContent`.
    StreamGenerateContent,
    /// `:countTokens`.
    CountTokens,
    /// `:embedContent`.
    EmbedContent,
    /// `:batchEmbedContents`: many texts in one call, answered at once.
    BatchEmbedContents,
    /// `:asyncBatchEmbedContent`: enqueued.
    AsyncBatchEmbedContent,
    /// `:batchGenerateContent`: enqueued.
    BatchGenerateContent,
    /// `:generateAnswer`.
    GenerateAnswer,
    /// `:predict`: Imagen, and the embedding models of Vertex AI.
    Predict,
    /// `:predictLongRunning`: Veo.
    PredictLongRunning,
    /// `:rawPredict`: the models of Vertex AI's partners.
    RawPredict,
    /// `:streamRawPredict`: the same, streamed.
    StreamRawPredict,
    /// `chat/completions` of the OpenAI-compatible surface.
    ChatCompletions,
    /// `embeddings` of the OpenAI-compatible surface.
    Embeddings,
    /// Creates an interaction.
    InteractionsCreate,
    /// Reads an interaction, or takes up its stream again.
    InteractionsGet,
    /// Cancels an interaction that runs in the background.
    InteractionsCancel,
    /// Deletes an interaction.
    InteractionsDelete,
    /// Lists models.
    ModelsList,
    /// Describes a model.
    ModelsGet,
    /// Uploads a file: `/upload/v1beta/files` and every step of a resumable upload.
    FilesUpload,
    /// Lists files.
    FilesList,
    /// Describes a file.
    FilesGet,
    /// Deletes a file.
    FilesDelete,
    /// Downloads a file: `files/{id}:download`, `/download/v1beta/files/{id}`.
    FilesDownload,
    /// Anything about cached contents.
    CachedContents,
    /// Anything about tuned models (on Vertex AI: tuning jobs) but to run one.
    TunedModels,
    /// Anything about batches that exist (on Vertex AI: batch prediction jobs, also their creation).
    Batches,
    /// Anything about long-running operations, `:fetchPredictOperation` included.
    Operations,
    /// Anything else.
    Other,
}

impl Method {
    /// The method behind the colon. Google's are case-sensitive.
    pub(super) fn from_verb(verb: &str) -> Self {
        match verb {
            "generateContent" => Self::GenerateContent,
            "streamGenerateContent" => Self::StreamGenerateContent,
            "countTokens" => Self::CountTokens,
            "embedContent" => Self::EmbedContent,
            "batchEmbedContents" => Self::BatchEmbedContents,
            "asyncBatchEmbedContent" => Self::AsyncBatchEmbedContent,
            "batchGenerateContent" => Self::BatchGenerateContent,
            "generateAnswer" => Self::GenerateAnswer,
            "predict" => Self::Predict,
            "predictLongRunning" => Self::PredictLongRunning,
            "rawPredict" => Self::RawPredict,
            "streamRawPredict" => Self::StreamRawPredict,
            "fetchPredictOperation" => Self::Operations,
            _ => Self::Other,
        }
    }

    /// The API's own name for it: `generateContent`, `chat.completions`, `interactions.create`, `other`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GenerateContent => "generateContent",
            Self::StreamGenerateContent => "streamGenerateContent",
            Self::CountTokens => "countTokens",
            Self::EmbedContent => "embedContent",
            Self::BatchEmbedContents => "batchEmbedContents",
            Self::AsyncBatchEmbedContent => "asyncBatchEmbedContent",
            Self::BatchGenerateContent => "batchGenerateContent",
            Self::GenerateAnswer => "generateAnswer",
            Self::Predict => "predict",
            Self::PredictLongRunning => "predictLongRunning",
            Self::RawPredict => "rawPredict",
            Self::StreamRawPredict => "streamRawPredict",
            Self::ChatCompletions => "chat.completions",
            Self::Embeddings => "embeddings",
            Self::InteractionsCreate => "interactions.create",
            Self::InteractionsGet => "interactions.get",
            Self::InteractionsCancel => "interactions.cancel",
            Self::InteractionsDelete => "interactions.delete",
            Self::ModelsList => "models.list",
            Self::ModelsGet => "models.get",
            Self::FilesUpload => "files.upload",
            Self::FilesList => "files.list",
            Self::FilesGet => "files.get",
            Self::FilesDelete => "files.delete",
            Self::FilesDownload => "files.download",
            Self::CachedContents => "cachedContents",
            Self::TunedModels => "tunedModels",
            Self::Batches => "batches",
            Self::Operations => "operations",
            Self::Other => "other",
        }
    }

    /// Whether a model is put to work on new content by this very call: the calls that cost output and that are
    /// not idempotent. Enqueueing a batch is [`is_batch`](Self::is_batch) instead.
    #[must_use]
    pub const fn is_generation(self) -> bool {
        matches!(
            self,
            Self::GenerateContent
                | Self::StreamGenerateContent
                | Self::GenerateAnswer
                | Self::Predict
                | Self::PredictLongRunning
                | Self::RawPredict
                | Self::StreamRawPredict
                | Self::ChatCompletions
                | Self::InteractionsCreate
        )
    }

    /// Whether the method by itself means a stream. [`Target::is_streaming`](super::Target::is_streaming) also
    /// looks at the query.
    #[must_use]
    pub const fn is_streaming(self) -> bool {
        matches!(self, Self::StreamGenerateContent | Self::StreamRawPredict)
    }

    /// Whether it embeds. [`Predict`](Self::Predict) may do so as well; the path does not tell.
    #[must_use]
    pub const fn is_embedding(self) -> bool {
        matches!(
            self,
            Self::EmbedContent | Self::BatchEmbedContents | Self::AsyncBatchEmbedContent | Self::Embeddings
        )
    }

    /// Whether it belongs to the Batch API, whose quotas are its own. `batchEmbedContents` does not: it is answered
    /// at once.
    #[must_use]
    pub const fn is_batch(self) -> bool {
        matches!(self, Self::BatchGenerateContent | Self::AsyncBatchEmbedContent | Self::Batches)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
