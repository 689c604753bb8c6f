use tower_layer::Layer;

use super::config::Settings;
use super::{Timeout, TimeoutBuilder};
use crate::config::TimeoutConfig;

/// Puts [`Timeout`] around a service. See the [module documentation](super).
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct TimeoutLayer {
    pub(super) settings: Settings,
}

impl TimeoutLayer {
    /// A layer with the defaults of the [module documentation](super).
    pub fn new() -> Self {
        Self::default()
    }

    /// A builder that starts with the defaults.
    pub fn builder() -> TimeoutBuilder {
        TimeoutBuilder::default()
    }

    pub(crate) fn config(&self) -> TimeoutConfig {
        self.settings.config()
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Timeout::new(inner, self.settings)
    }
}
