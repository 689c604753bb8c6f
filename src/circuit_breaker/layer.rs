use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::circuit::Shared;
use super::config::CircuitBreakerBuilder;
use super::handle::Circuits;
use super::rules::Rules;
use super::service::{Breaker, CircuitBreaker};
use crate::config::{CircuitBreakerConfig, OpenTimeConfig, SlowCallsConfig};
use crate::event::circuit::BreakerMode;

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

    #[allow(
        clippy::field_reassign_with_default,
        reason = "one setting a line, some of them worked out between"
    )]
    pub(crate) fn config(&self) -> CircuitBreakerConfig {
        let Shared { common, keyed, .. } = &*self.shared;
        let Rules { mode, window, min_calls, failure_share, consecutive, slow_share, .. } = common.rules;
        let Rules { open, open_factor, open_max, max_server_delay, probes, successes, lease, ramp, .. } =
            common.rules;
        let nanos = |nanos| Some(Duration::from_nanos(nanos).into());
        let mut config = CircuitBreakerConfig::default();
        config.enabled = Some(common.enabled);
        config.failure_share = Some(failure_share);
        config.min_calls = Some(min_calls);
        config.window = nanos(window);
        config.consecutive_failures = Some(consecutive);
        let slow = |threshold: Duration| SlowCallsConfig::of(threshold, slow_share);
        config.slow_calls = Some(common.slow.map(slow).into());
        config.open_time =
            Some(OpenTimeConfig::of(Duration::from_nanos(open), Duration::from_nanos(open_max)));
        config.open_time_factor = Some(open_factor);
        config.max_server_delay = nanos(max_server_delay);
        config.probes = Some(probes);
        config.probe_successes = Some(successes);
        config.probe_lease = nanos(lease);
        config.ramp = nanos(ramp);
        config.fail_fast = Some(common.fail_fast);
        config.observe_only = Some(mode == BreakerMode::ObserveOnly);
        config.max_keys = Some(keyed.max_keys());
        config.seed = common.chance.seed();
        config
    }

    /// For a service that has other gates beside this one.
    pub(crate) fn gate(&self) -> Breaker {
        Breaker(Arc::clone(&self.shared))
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
        CircuitBreaker::new(self.gate(), inner)
    }
}
