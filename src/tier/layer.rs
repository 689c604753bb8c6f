use tower_layer::Layer;

use super::SetTier;
use crate::config::TierConfig;

/// Tells the layers inside which [`ServiceTier`](super::ServiceTier) a request is of. See the [module
/// documentation](super).
///
/// An extension that the caller put in counts first, then a header (`X-Vertex-AI-LLM-Shared-Request-Type`, else
/// `x-gemini-service-tier`), then the body. Nothing of the request is changed but its extensions, which get a
/// `ServiceTier` where one is named, and a longer [`Deadline`](crate::Deadline) for flex where a
/// [`DeadlineLayer`](crate::timeout::DeadlineLayer) around has given it one of its own.
///
/// Of a body in memory the first and the last 64 KiB are searched; of a
/// [`ReplayBody`](crate::retry::ReplayBody) its first frame, if that is there at once.
/// Of another body around one of these nothing, such as that of a [`PreflightLayer`](crate::preflight::PreflightLayer) inside of the
/// replay: there the extension and the headers count.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct TierLayer {
    enabled: bool,
}

impl TierLayer {
    /// A layer.
    pub const fn new() -> Self {
        Self { enabled: true }
    }

    /// Off, it reads nothing: a tier that the caller put into the extensions counts all the same. Default on.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    pub(crate) const fn config(&self) -> TierConfig {
        TierConfig::of(self.enabled)
    }
}

impl Default for TierLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for TierLayer {
    type Service = SetTier<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SetTier::new(inner, self.enabled)
    }
}
