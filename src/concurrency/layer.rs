use std::sync::Arc;

use tower_layer::Layer;

use super::config::Settings;
use super::service::Concurrency;
use super::shared::Shared;
use super::{AdaptiveConcurrency, AdaptiveConcurrencyBuilder, ConcurrencyHandle};
use crate::config::ConcurrencyConfig;
use crate::event::LayerKind;
use crate::keyed::Keyed;

/// Puts [`AdaptiveConcurrency`] around a service. See the [module documentation](super).
///
/// All services it makes, their clones, and its own clones share the limits.
#[derive(Clone, Debug)]
#[must_use]
pub struct AdaptiveConcurrencyLayer {
    shared: Arc<Shared>,
}

impl AdaptiveConcurrencyLayer {
    /// A layer with the defaults of the [module documentation](super).
    pub fn new() -> Self {
        Self::of(Settings::default())
    }

    pub(super) fn of(settings: Settings) -> Self {
        let gates = Keyed::new(settings.max_keys, LayerKind::Concurrency, settings.observer.clone());
        Self { shared: Arc::new(Shared { settings: Arc::new(settings), gates }) }
    }

    /// A builder that starts with the defaults.
    pub fn builder() -> AdaptiveConcurrencyBuilder {
        AdaptiveConcurrencyBuilder::default()
    }

    pub(crate) fn config(&self) -> ConcurrencyConfig {
        self.shared.settings.config()
    }

    /// For a service that has other gates beside this one.
    pub(crate) fn gate(&self) -> Concurrency {
        Concurrency(Arc::clone(&self.shared))
    }

    /// The way to read the limits, and to reset them.
    #[must_use]
    pub fn handle(&self) -> ConcurrencyHandle {
        ConcurrencyHandle::new(Arc::clone(&self.shared))
    }
}

impl Default for AdaptiveConcurrencyLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for AdaptiveConcurrencyLayer {
    type Service = AdaptiveConcurrency<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AdaptiveConcurrency::new(self.gate(), inner)
    }
}
