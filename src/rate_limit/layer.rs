use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::config::RateLimitBuilder;
use super::quota_state::Rules;
use super::service::{Core, Quota};
use super::shared::{Config, Shared};
use super::{BySize, ConfigError, RateLimit, RateLimits};
use crate::config::{LimitsConfig, PerConfig, RateLimitConfig};
use crate::request::limits::Limits;
use crate::sync::lock;

/// Puts [`RateLimit`] around a service. See the [module documentation](super).
///
/// All services it makes, and their clones, draw on the same quotas; so do clones of the layer.
pub struct RateLimitLayer<E = BySize> {
    pub(super) core: Arc<Core<E>>,
}

impl RateLimitLayer {
    /// A layer with these limits for every model, and the defaults.
    ///
    /// # Errors
    ///
    /// When a limit is zero or absurd. See [`RateLimitBuilder::build`].
    pub fn new(limits: Limits) -> Result<Self, ConfigError> {
        Self::builder().limits(limits).build()
    }

    /// Settings, beginning with the defaults: no limit but those that Google's own 429s name.
    pub fn builder() -> RateLimitBuilder {
        RateLimitBuilder::new()
    }
}

impl<E> RateLimitLayer<E> {
    /// For a service that has other gates beside this one.
    pub(crate) fn gate(&self) -> Quota<E> {
        Quota(Arc::clone(&self.core))
    }

    /// What the layer knows, to look at and to change.
    #[must_use]
    pub fn handle(&self) -> RateLimits {
        RateLimits::new(Arc::clone(&self.core.shared))
    }

    #[allow(
        clippy::field_reassign_with_default,
        reason = "one setting a line, some of them worked out between"
    )]
    pub(crate) fn config(&self) -> RateLimitConfig {
        let Shared { common, keys, by_tier, .. } = &*self.core.shared;
        let Config { limits, by_model, .. } = &*lock(&self.core.shared.config);
        let Rules { span, margin, learn, probe_every, guard, .. } = common.rules;
        let mut config = RateLimitConfig::default();
        config.enabled = Some(self.core.shared.enabled);
        config.requests_per_minute = limits.rpm;
        config.input_tokens_per_minute = limits.tpm;
        config.requests_per_day = limits.rpd;
        config.per = Some(PerConfig::all_of(limits));
        config.prices = common.prices.as_ref().map(|prices| prices.config());
        config.model_limits = Some(
            by_model.iter().map(|(model, limits)| (model.to_string(), LimitsConfig::of(limits))).collect(),
        );
        config.margin = Some(margin);
        config.guard = Some(Duration::from_nanos(guard).into());
        config.mode = Some(common.mode);
        config.max_wait = Some(common.max_wait.map(Into::into).into());
        config.max_queue = Some(common.max_queue);
        config.interactive_weight = Some(common.interactive_weight);
        config.max_keys = Some(keys.max_keys());
        config.learn = Some(learn);
        config.probe_every = Some(Duration::from_nanos(probe_every).into());
        config.by_tier = Some(*by_tier);
        config.window = Some(Duration::from_nanos(span - guard).into());
        config
    }
}

impl Default for RateLimitLayer {
    /// No limits, until Google's own 429s name some.
    fn default() -> Self {
        Self::builder().build().expect("the defaults are in range")
    }
}

impl<E> Clone for RateLimitLayer<E> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core) }
    }
}

impl<E> fmt::Debug for RateLimitLayer<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer").field("shared", &self.core.shared).finish_non_exhaustive()
    }
}

impl<S, E> Layer<S> for RateLimitLayer<E> {
    type Service = RateLimit<S, E>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit::new(self.gate(), inner)
    }
}
