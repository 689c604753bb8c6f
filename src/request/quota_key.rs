//! Whose quota a request draws on.

use std::fmt;

use super::{Method, Surface, Target, TargetKey};
use crate::tier::ServiceTier;

/// What kind of call a quota counts. Google counts them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Pool {
    /// Content, chats, interactions, predictions, and whatever is not known: requests, tokens and days are counted.
    Generate,
    /// Embeddings: the same, by limits of their own models.
    Embed,
    /// `countTokens`: requests only, and by no limit until a 429 names one.
    CountTokens,
    /// The Batch API: requests only, and by no limit until a 429 names one. What it enqueues is counted elsewhere.
    Batch,
    /// Files, caches, operations, lists of models, tuned models: not limited and not counted.
    Unlimited,
}

impl Pool {
    pub(crate) const fn of(method: Method) -> Self {
        match method {
            Method::CountTokens => Self::CountTokens,
            method if method.is_batch() => Self::Batch,
            method if method.is_embedding() => Self::Embed,
            Method::InteractionsGet
            | Method::InteractionsCancel
            | Method::InteractionsDelete
            | Method::ModelsList
            | Method::ModelsGet
            | Method::FilesUpload
            | Method::FilesList
            | Method::FilesGet
            | Method::FilesDelete
            | Method::FilesDownload
            | Method::CachedContents
            | Method::TunedModels
            | Method::Operations => Self::Unlimited,
            // What is not known is limited: a method that is new, a path that a gateway made up.
            _ => Self::Generate,
        }
    }

    /// Whether its calls use input tokens, and are bound by the limits that were set.
    pub(crate) const fn is_model_work(self) -> bool {
        matches!(self, Self::Generate | Self::Embed)
    }

    /// A name in snake case: `generate`, `embed`, `count_tokens`, `batch`, `unlimited`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Embed => "embed",
            Self::CountTokens => "count_tokens",
            Self::Batch => "batch",
            Self::Unlimited => "unlimited",
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The key of a quota: a kind of call, and the project and model that it is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QuotaKey {
    pool: Pool,
    target: TargetKey,
}

impl QuotaKey {
    /// A key made by hand, as a layer with [`key_by`](crate::rate_limit::RateLimitBuilder::key_by) keeps it.
    #[must_use]
    pub const fn new(pool: Pool, target: TargetKey) -> Self {
        Self { pool, target }
    }

    /// The key that a request has by default: its kind of call, label, model, and the place where its path names one.
    ///
    /// The Gemini API, its OpenAI-compatible paths and its interactions draw on the same quota, and so do all
    /// [service tiers](crate::tier).
    #[must_use]
    pub fn of(target: &Target<'_>) -> Self {
        let key = target.key().without_tier();
        let shared = matches!(key.surface(), Surface::Interactions | Surface::OpenAi);
        let surface = if key.project().is_some() { Surface::Vertex } else { Surface::GeminiApi };
        let key = if shared { key.with_surface(surface) } else { key };
        Self { pool: Pool::of(target.method()), target: key }
    }

    /// The same quota, of one tier alone.
    pub(crate) fn of_tier(self, tier: ServiceTier) -> Self {
        Self { target: self.target.with_tier(tier), ..self }
    }

    /// The kind of call.
    #[must_use]
    pub const fn pool(&self) -> Pool {
        self.pool
    }

    /// Project, model and label.
    #[must_use]
    pub const fn target(&self) -> &TargetKey {
        &self.target
    }
}

impl fmt::Display for QuotaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pool, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::ModelHint;

    fn key(path: &str, hint: Option<&str>) -> QuotaKey {
        let mut request = http::Request::post(path).body(()).expect("a valid request");
        if let Some(hint) = hint {
            request.extensions_mut().insert(ModelHint::new(hint));
        }
        QuotaKey::of(&Target::of(&request))
    }

    #[test]
    fn surfaces_of_one_quota_share_a_key() {
        let native = key("/v1beta/models/gemini-9-flash:generateContent", None);
        assert_eq!(native, key("/v1/models/gemini-9-flash:streamGenerateContent?alt=sse", None));
        assert_eq!(native, key("/v1beta/openai/chat/completions", Some("gemini-9-flash")));
        assert_eq!(native, key("/v1beta/interactions", Some("gemini-9-flash")));
        assert_ne!(native, key("/v1beta/models/gemini-9-pro:generateContent", None));
        assert_ne!(native, key("/v1beta/models/gemini-9-flash:countTokens", None));
        assert_ne!(native, key("/v1beta/models/gemini-9-flash:batchGenerateContent", None));
        let vertex = "/v1/projects/p/locations/l/publishers/google/models/gemini-9-flash:generateContent";
        assert_ne!(native, key(vertex, None));
    }

    #[test]
    fn a_key_prints_its_pool_and_its_target() {
        let key = key("/v1beta/models/gemini-9-flash:countTokens", None);
        assert_eq!(key.to_string(), format!("count_tokens {}", key.target()));
        let pools = [Pool::Generate, Pool::Embed, Pool::CountTokens, Pool::Batch, Pool::Unlimited];
        assert_eq!(
            pools.map(|pool| pool.to_string()),
            ["generate", "embed", "count_tokens", "batch", "unlimited"]
        );
        assert_eq!(pools.map(Pool::is_model_work), [true, true, false, false, false]);
    }

    #[test]
    fn each_kind_of_call_has_its_pool() {
        for (path, pool) in [
            ("/v1beta/models/m:generateContent", Pool::Generate),
            ("/v1beta/models/m:embedContent", Pool::Embed),
            ("/v1beta/models/m:batchEmbedContents", Pool::Embed),
            ("/v1beta/models/m:countTokens", Pool::CountTokens),
            ("/v1beta/models/m:batchGenerateContent", Pool::Batch),
            ("/v1beta/files", Pool::Unlimited),
            ("/v1beta/models/m:somethingNew", Pool::Generate),
            ("/a/path/of/our/own", Pool::Generate),
        ] {
            assert_eq!(key(path, None).pool(), pool, "{path}");
        }
    }
}
