use std::sync::Arc;

use tower_layer::Layer;

use super::config::ResumeBuilder;
use super::report::ResumeMode;
use super::service::Resume;
use super::shared::Shared;
use crate::event::Observed;

/// Puts a [`Resume`] around a service. See the [module documentation](super).
///
/// Clones and all services it makes share the budget.
#[derive(Clone, Debug)]
#[must_use]
pub struct ResumeLayer {
    pub(super) shared: Arc<Shared>,
}

impl ResumeLayer {
    /// With the defaults; answers go on where they broke off.
    pub fn continuing() -> Self {
        Self::builder(ResumeMode::Continue).build().expect("the defaults are valid: a test builds them")
    }

    /// With the defaults; answers begin anew.
    pub fn restarting() -> Self {
        Self::builder(ResumeMode::Restart).build().expect("the defaults are valid: a test builds them")
    }

    /// A builder that starts with the defaults.
    pub fn builder(mode: ResumeMode) -> ResumeBuilder {
        ResumeBuilder {
            mode,
            enabled: true,
            most: 1,
            budget: 0.1,
            max_text_bytes: 1 << 20,
            observer: Observed::default(),
        }
    }
}

impl<S> Layer<S> for ResumeLayer {
    type Service = Resume<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Resume::new(inner, Arc::clone(&self.shared))
    }
}
