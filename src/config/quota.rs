//! The settings of the rate limit: limits, prices, and how they are kept.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::{HumanDuration, OrOff};
use crate::rate_limit::{
    AdmissionMode, LimitKind, Limits, Price, Prices, RateLimitBuilder, RateLimitLayer, Unit,
};
use crate::tier::ServiceTier;

plain_table! {
    /// The limits of one model. See [`Limits`].
    LimitsConfig {
        /// [`Limits::requests_per_minute`].
        requests_per_minute: u64,
        /// [`Limits::input_tokens_per_minute`].
        input_tokens_per_minute: u64,
        /// [`Limits::requests_per_day`].
        requests_per_day: u64,
        /// [`Limits::per`]: limits over other spans.
        per: Vec<PerConfig>,
    }
}

/// A limit over a span of its own. See [`Limits::per`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PerConfig {
    /// What is counted: `"requests"`, `"input_tokens"`, `"images"`, `"texts"` or `"money"`.
    pub unit: Unit,
    /// The most in any such span; money in millionths.
    pub limit: u64,
    /// How long the span is.
    pub span: HumanDuration,
}

impl PerConfig {
    /// A limit over a span.
    #[must_use]
    pub fn new(unit: Unit, limit: u64, span: Duration) -> Self {
        Self { unit, limit, span: span.into() }
    }

    pub(crate) fn all_of(limits: &Limits) -> Vec<Self> {
        limits.spans().map(|one| Self::new(one.unit, one.limit, one.span)).collect()
    }
}

impl LimitsConfig {
    pub(crate) fn of(limits: &Limits) -> Self {
        Self {
            requests_per_minute: limits.of(LimitKind::RequestsPerMinute),
            input_tokens_per_minute: limits.of(LimitKind::InputTokensPerMinute),
            requests_per_day: limits.of(LimitKind::RequestsPerDay),
            per: Some(PerConfig::all_of(limits)),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        let mut limits = Limits::new();
        apply!(limits, self: requests_per_minute input_tokens_per_minute requests_per_day);
        self.per.iter().flatten().fold(limits, |limits, one| limits.per(one.unit, one.limit, one.span.get()))
    }
}

plain_table! {
    /// What a million tokens of a model cost. See [`Price`].
    PriceConfig {
        /// Input tokens. Default 0.
        input: f64,
        /// Output tokens, thoughts included. Default 0.
        output: f64,
        /// Input tokens that come from a cache. Default: as other input.
        cached: f64,
    }
}

impl PriceConfig {
    pub(crate) fn of(input: f64, output: f64, cached: f64) -> Self {
        Self { input: Some(input), output: Some(output), cached: Some(cached) }
    }

    fn price(&self) -> Price {
        let input = self.input.unwrap_or_default();
        Price::per_million(input, self.output.unwrap_or_default()).cached(self.cached.unwrap_or(input))
    }
}

plain_table! {
    /// Prices, as they were read on some day. See [`Prices`].
    PricesConfig {
        /// The day, such as `2026-11-29`. Must be there.
        read_on: String,
        /// [`Prices::output_tokens`].
        output_tokens: u32,
        /// [`Prices::model`], by the model's name.
        model: BTreeMap<String, PriceConfig>,
        /// [`Prices::tier`], by the tier (`flex`, `priority`) and then by the model's name.
        tier: BTreeMap<ServiceTier, BTreeMap<String, PriceConfig>>,
    }
}

impl PricesConfig {
    fn prices(&self) -> Prices {
        // An empty date is refused by its rule when the layer is built.
        let mut prices = Prices::read_on(self.read_on.as_deref().unwrap_or_default());
        for (model, price) in self.model.iter().flatten() {
            prices = prices.model(&**model, price.price());
        }
        for (tier, models) in self.tier.iter().flatten() {
            for (model, price) in models {
                prices = prices.tier(&**model, *tier, price.price());
            }
        }
        apply!(prices, self: output_tokens);
        prices
    }
}

plain_table! {
    /// `[rate_limit]`: the quotas that are kept. See [`RateLimitBuilder`].
    RateLimitConfig {
        /// [`RateLimitBuilder::enabled`].
        enabled: bool,
        /// [`Limits::requests_per_minute`] of each model that has no limits of its own.
        requests_per_minute: u64,
        /// [`Limits::input_tokens_per_minute`] of each model that has no limits of its own.
        input_tokens_per_minute: u64,
        /// [`Limits::requests_per_day`] of each model that has no limits of its own.
        requests_per_day: u64,
        /// [`Limits::per`] of each model that has no limits of its own.
        per: Vec<PerConfig>,
        /// [`RateLimitBuilder::prices`], for limits that count money.
        prices: PricesConfig,
        /// [`RateLimitBuilder::model_limits`], by the model's name.
        model_limits: BTreeMap<String, LimitsConfig>,
        /// [`RateLimitBuilder::margin`].
        margin: f64,
        /// [`RateLimitBuilder::guard`].
        guard: HumanDuration,
        /// [`RateLimitBuilder::mode`]: `"wait"` or `"reject"`.
        mode: AdmissionMode,
        /// [`RateLimitBuilder::max_wait`], or off.
        max_wait: OrOff<HumanDuration>,
        /// [`RateLimitBuilder::max_queue`].
        max_queue: usize,
        /// [`RateLimitBuilder::interactive_weight`].
        interactive_weight: u32,
        /// [`RateLimitBuilder::max_keys`].
        max_keys: usize,
        /// [`RateLimitBuilder::learn`].
        learn: bool,
        /// [`RateLimitBuilder::probe_every`].
        probe_every: HumanDuration,
        /// [`RateLimitBuilder::by_tier`].
        by_tier: bool,
        /// [`RateLimitBuilder::window`].
        window: HumanDuration,
    }
}

impl RateLimitConfig {
    /// A builder with these settings and else the defaults.
    pub fn to_builder(&self) -> RateLimitBuilder {
        let all = self.clone();
        let limits = LimitsConfig {
            requests_per_minute: all.requests_per_minute,
            input_tokens_per_minute: all.input_tokens_per_minute,
            requests_per_day: all.requests_per_day,
            per: all.per,
        };
        let mut builder = RateLimitLayer::builder().limits(limits.limits());
        for (model, limits) in all.model_limits.into_iter().flatten() {
            builder = builder.model_limits(model, limits.limits());
        }
        if let Some(prices) = all.prices {
            builder = builder.prices(prices.prices());
        }
        if let Some(OrOff::Is(wait)) = all.max_wait {
            builder = builder.max_wait(wait.get());
        }
        if all.by_tier == Some(true) {
            builder = builder.by_tier();
        }
        apply!(builder, all: enabled margin guard mode max_queue interactive_weight max_keys learn probe_every window);
        builder
    }
}
