use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, Response};
use tower_layer::Layer;

use super::chain::{Chains, Ladders};
use super::config::Settings;
use super::service::ModelFallback;
use crate::circuit_breaker::Circuits;
use crate::config::FallbackConfig;
use crate::error::ConfigError;
use crate::event::{Observed, Observer};
use crate::rate_limit::RateLimits;
use crate::tier::ServiceTier;
use crate::verdict::Verdict;

/// Puts a [`ModelFallback`] around a service. See the [module documentation](super).
///
/// Clones and all services it makes share the settings; there is no other state. [`ModelFallbackLayer::default`] has
/// no chain and passes everything on.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ModelFallbackLayer {
    settings: Arc<Settings>,
}

impl ModelFallbackLayer {
    /// A builder that starts without a chain.
    pub fn builder() -> ModelFallbackBuilder {
        ModelFallbackBuilder::default()
    }

    pub(crate) fn config(&self) -> FallbackConfig {
        let Settings { chains, ladders, header, .. } = &*self.settings;
        let mut config = FallbackConfig::default();
        config.enabled = Some(!self.settings.disabled);
        config.chain = Some(chains.names());
        config.larger_context = Some(chains.larger());
        config.tier_ladder = Some(ladders.tiers());
        config.header = header.clone().map(crate::config::HeaderName);
        config
    }
}

impl<S> Layer<S> for ModelFallbackLayer {
    type Service = ModelFallback<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ModelFallback::new(Arc::clone(&self.settings), inner)
    }
}

/// Collects settings for a [`ModelFallbackLayer`]; [`build`](Self::build) checks them.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ModelFallbackBuilder {
    chains: Vec<Vec<Arc<str>>>,
    ladders: Vec<Vec<ServiceTier>>,
    larger: Vec<Box<str>>,
    settings: Settings,
}

impl ModelFallbackBuilder {
    /// Whether the layer does anything. Default `true`. With `false` each call passes through; the type is the same.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.settings.disabled = !enabled;
        self
    }

    /// The models that stand in for `model`, in the order in which they are asked: 1 to 15. Names are those of the
    /// API without `models/`. Give one chain for each model; a model may stand in several.
    ///
    /// A model that stands in does not bring a chain of its own: only the chain of the model that was asked counts.
    pub fn chain<T: Into<Arc<str>>>(
        mut self,
        model: impl Into<Arc<str>>,
        others: impl IntoIterator<Item = T>,
    ) -> Self {
        self.chains.push(std::iter::once(model.into()).chain(others.into_iter().map(Into::into)).collect());
        self
    }

    /// The service tiers in which a request of the tier `asked` is sent again where there is no capacity for that, in this
    /// order: 1 or 2 of flex, standard and priority. Give one ladder for each tier. Default none.
    ///
    /// A further request begins in its own tier again; with [`circuits`](Self::circuits), one whose circuit is open is passed
    /// over until it is back. Another tier has another price: priority costs 75 to 100 % more than standard, and flex half
    /// (read 2026-11-29). The request's `service_tier` is rewritten, on Vertex AI its header.
    ///
    /// The tier of a request is the [`ServiceTier`] that it carries: put a [`TierLayer`](crate::tier::TierLayer) outside.
    ///
    /// ```
    /// use tower_gemini::fallback::ModelFallbackLayer;
    /// use tower_gemini::tier::ServiceTier::{Flex, Priority, Standard};
    ///
    /// # fn main() -> Result<(), tower_gemini::ConfigError> {
    /// let fallback = ModelFallbackLayer::builder()
    ///     .tier_ladder(Flex, [Standard, Priority])
    ///     .tier_ladder(Priority, [Standard])
    ///     .build()?;
    /// # let _ = fallback; Ok(()) }
    /// ```
    pub fn tier_ladder(mut self, asked: ServiceTier, others: impl IntoIterator<Item = ServiceTier>) -> Self {
        self.ladders.push(std::iter::once(asked).chain(others).collect());
        self
    }

    /// Marks a model that takes longer inputs than those before it in its chains. A request that is too long for a
    /// model ([`ContextTooLong`](crate::Kind::ContextTooLong)) goes on to the next one that is marked. Default: none
    /// is, and such a failure is handed on.
    pub fn larger_context(mut self, model: impl Into<Box<str>>) -> Self {
        self.larger.push(model.into());
        self
    }

    /// Passes over a model whose circuit is open, instead of calling and leaving it to the retry layer to wait for
    /// it. Give the [handle](crate::circuit_breaker::CircuitBreakerLayer::handle) of the circuit breaker that is
    /// inside. Default none.
    pub fn circuits(mut self, circuits: Circuits) -> Self {
        self.settings.circuits = Some(circuits);
        self
    }

    /// Passes over a model whose quota is spent, for the day or longer, or zero; a call that may test whether that
    /// is still so goes through. Give the [handle](crate::rate_limit::RateLimitLayer::handle) of the rate limit that
    /// is inside. Default none.
    pub fn rate_limits(mut self, limits: RateLimits) -> Self {
        self.settings.rate_limits = Some(limits);
        self
    }

    /// A response header that names the model, where another one answered than was asked; `x-gemini-model` is a
    /// good name for it. Default none: [`AnsweredBy`](super::AnsweredBy) in the extensions tells it.
    pub fn header(mut self, name: HeaderName) -> Self {
        self.settings.header = Some(name);
        self
    }

    /// What answers when no model did: say, the last answer to the same question. Default none.
    ///
    /// It is asked for each failure of a model with a chain that is about to be handed on, whatever its kind, with the
    /// request as it came and the failure; `None` hands the failure on. It runs inside the call, so it must not
    /// block; what has to be waited for belongs into a layer outside. The request's headers may hold the key.
    pub fn last_resort<F>(mut self, answer: F) -> Self
    where
        F: Fn(&Parts, &Verdict) -> Option<Response<Bytes>> + Send + Sync + 'static,
    {
        self.settings.last_resort = Some(Arc::new(answer));
        self
    }

    /// Who is told when a request goes on to another model, or would have and could not.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.settings.observer = Observed::by(observer);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// The first chain that breaks a rule, and the rule: a name is empty, longer than 256 bytes or holds anything but
    /// letters, digits, `-`, `.`, `_` and `@`; a model stands twice in one chain, or has two chains; a chain is empty
    /// or too long; [`larger_context`](Self::larger_context) names a model of no chain; a
    /// [ladder](Self::tier_ladder) has one tier, one twice or one that is not known, or a tier has two ladders.
    pub fn build(self) -> Result<ModelFallbackLayer, ConfigError> {
        let Self { chains, ladders, larger, mut settings } = self;
        settings.chains = Chains::new(&chains, &larger)?;
        settings.ladders = Ladders::new(&ladders)?;
        Ok(ModelFallbackLayer { settings: Arc::new(settings) })
    }
}
