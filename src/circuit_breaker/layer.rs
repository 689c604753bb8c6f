use std::sync::Arc;

use tower_layer::Layer;

use super::config::CircuitBreakerBuilder;
use super::handle::Circuits;
use super::key::Shared;
use super::service::CircuitBreaker;

/// Puts a [`CircuitBreaker`] around a service. See the [module documentation](super).
///
/// Clones of the layer, all services it makes, and their clones, share the circuits.
#[derive(Clone, Debug)]
#[must_use]
pub struct CircuitBreakerLayer {
    pub(super) shared: Arc<Shared>,
}

impl CircuitBreakerLayer {
    /// A builder that starts with the defaults.
    pub fn builder() -> CircuitBreakerBuilder {
        CircuitBreakerBuilder::new()
    }

    /// A handle to look at the circuits and to act on them.
    #[must_use]
    pub fn handle(&self) -> Circuits {
        Circuits::new(Arc::clone(&self.shared))
    }
}

impl Default for CircuitBreakerLayer {
    fn default() -> Self {
        Self::builder().build().expect("the defaults are valid")
    }
}

impl<S> Layer<S> for CircuitBreakerLayer {
    type Service = CircuitBreaker<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(Arc::clone(&self.shared), inner)
    }
}
