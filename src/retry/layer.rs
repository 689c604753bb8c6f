use tower_layer::Layer;

use super::{Retry, RetryPolicy};
use crate::config::RetryConfig;

/// Puts [`Retry`] around a service. See the [module documentation](super).
///
/// All services it makes, and their clones, share the policy's budget.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RetryLayer {
    policy: RetryPolicy,
}

impl RetryLayer {
    /// A layer with this policy. [`RetryLayer::default`] has the default policy.
    pub const fn new(policy: RetryPolicy) -> Self {
        Self { policy }
    }

    /// The policy.
    #[must_use]
    pub const fn policy(&self) -> &RetryPolicy {
        &self.policy
    }

    pub(crate) fn config(&self) -> RetryConfig {
        self.policy.config()
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::new(self.policy.clone(), inner)
    }
}
