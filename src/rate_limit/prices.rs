//! What calls cost, by prices that the user states. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{PriceConfig, PricesConfig};
use crate::error::ConfigError;
use crate::tier::ServiceTier;
use crate::verdict::Usage;

/// What a million tokens of a model cost, in any currency.
///
/// ```
/// use tower_gemini::rate_limit::Price;
///
/// // 0.30 for the input, 0.03 for what of it comes from a cache, 2.50 for the output and the thoughts.
/// let price = Price::per_million(0.30, 2.50).cached(0.03);
/// # let _ = price;
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Price {
    input: f64,
    output: f64,
    cached: f64,
}

impl Price {
    /// The price of a million input tokens and of a million output tokens, thoughts included; each from 0 to 1,000,000.
    ///
    /// Where a model has a higher price for long prompts, state that one: too much is reserved then, and never too little.
    pub const fn per_million(input: f64, output: f64) -> Self {
        Self { input, output, cached: input }
    }

    /// The price of a million input tokens that come from a cache. Default: as other input.
    pub const fn cached(mut self, cached: f64) -> Self {
        self.cached = cached;
        self
    }

    fn is_valid(&self) -> bool {
        [self.input, self.output, self.cached].iter().all(|price| (0.0..=1_000_000.0).contains(price))
    }

    /// Millionths, rounded up. A price per million tokens is one in millionths per token.
    fn cost(&self, input: u64, cached: u64, output: u64) -> u32 {
        let cached = cached.min(input);
        let sum =
            (input - cached) as f64 * self.input + cached as f64 * self.cached + output as f64 * self.output;
        // `as` saturates. The part of a millionth that is taken off is the error of the sum.
        (sum - 1e-6).ceil() as u32
    }

    fn sum(&self) -> f64 {
        self.input + self.output
    }
}

/// Prices of models by service tier, as the user read them on some day: this crate knows none.
///
/// A call is reserved by the price of the model and tier that it asks for, and settled by that of the model (`modelVersion`) and
/// tier that answered, as far as the [classifier](crate::classify) watches the answer. A tier without a price costs what the
/// dearest of its model does, and a model without one what the dearest of all does, so that a limit is kept in any case. A name
/// with a version (`gemini-3.5-flash-001`) has the price of the name without it.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::rate_limit::{Limits, Price, Prices, RateLimitLayer, Unit};
/// use tower_gemini::tier::ServiceTier;
///
/// # fn main() -> Result<(), tower_gemini::ConfigError> {
/// let prices = Prices::read_on("2026-11-29")
///     .model("gemini-3.5-flash", Price::per_million(0.30, 2.50).cached(0.03))
///     .tier("gemini-3.5-flash", ServiceTier::Flex, Price::per_million(0.15, 1.25));
/// let layer = RateLimitLayer::builder()
///     .limits(Limits::new().per(Unit::Money, 10_000_000, Duration::from_secs(600)))
///     .prices(prices)
///     .build()?;
/// # let _ = layer; Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Prices {
    date: Box<str>,
    rows: Vec<(Box<str>, ServiceTier, Price)>,
    output_tokens: u32,
}

impl Prices {
    /// Prices that were read on this day, `2026-11-29`. None yet.
    pub fn read_on(date: impl Into<Box<str>>) -> Self {
        Self { date: date.into(), rows: Vec::new(), output_tokens: 1_000 }
    }

    /// The price of a model's standard tier.
    pub fn model(self, model: impl Into<Box<str>>, price: Price) -> Self {
        self.tier(model, ServiceTier::Standard, price)
    }

    /// The price of one tier of a model, in place of one that was stated before.
    pub fn tier(mut self, model: impl Into<Box<str>>, tier: ServiceTier, price: Price) -> Self {
        let model = model.into();
        self.rows.retain(|row| (&row.0, row.1) != (&model, tier));
        self.rows.push((model, tier, price));
        self
    }

    /// How many tokens of output a call is thought to have before a model's answers have shown it, up to 1,000,000. Default 1,000.
    pub const fn output_tokens(mut self, tokens: u32) -> Self {
        self.output_tokens = tokens;
        self
    }

    /// The day on which they were read.
    #[must_use]
    pub fn date(&self) -> &str {
        &self.date
    }

    #[allow(clippy::field_reassign_with_default, reason = "one setting a line, as in the other layers")]
    pub(super) fn config(&self) -> PricesConfig {
        let of = |price: &Price| PriceConfig::of(price.input, price.output, price.cached);
        let rows = |tier: ServiceTier| self.rows.iter().filter(move |row| row.1 == tier);
        let all = |tier| rows(tier).map(|row| (row.0.to_string(), of(&row.2))).collect::<BTreeMap<_, _>>();
        let mut config = PricesConfig::default();
        config.read_on = Some(self.date.to_string());
        config.output_tokens = Some(self.output_tokens);
        config.model = Some(all(ServiceTier::Standard));
        let others = [ServiceTier::Flex, ServiceTier::Priority].map(|tier| (tier, all(tier)));
        config.tier = Some(others.into_iter().filter(|(_, models)| !models.is_empty()).collect());
        config
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.date.parse::<jiff::civil::Date>().is_err() {
            return Err(ConfigError::new("prices", "must have a date like 2026-11-29"));
        }
        if self.rows.is_empty() {
            return Err(ConfigError::new("prices", "must have the price of one model at the least"));
        }
        if !self.rows.iter().all(|row| row.2.is_valid()) {
            return Err(ConfigError::new("prices", "must be from 0 to 1,000,000 for a million tokens"));
        }
        if self.output_tokens > 1_000_000 {
            return Err(ConfigError::new("prices", "must expect at most 1,000,000 tokens of output"));
        }
        Ok(())
    }

    fn listed(&self, model: &str, tier: ServiceTier) -> Option<Price> {
        let of_model = |name: &str| {
            let mine = || self.rows.iter().filter(|row| &*row.0 == name);
            let exact = mine().find(|row| row.1 == tier);
            exact.or_else(|| mine().max_by(|a, b| a.2.sum().total_cmp(&b.2.sum()))).map(|row| row.2)
        };
        let name = model.rsplit('/').next().unwrap_or(model);
        of_model(name).or_else(|| of_model(without_version(name)?))
    }

    fn dearest(&self) -> Price {
        let prices = self.rows.iter().map(|row| row.2);
        prices.max_by(|a, b| a.sum().total_cmp(&b.sum())).unwrap_or(Price::per_million(0.0, 0.0))
    }
}

/// `gemini-3.5-flash` of `gemini-3.5-flash-001`.
fn without_version(name: &str) -> Option<&str> {
    let (base, version) = name.rsplit_once('-')?;
    (version.len() == 3 && version.bytes().all(|byte| byte.is_ascii_digit())).then_some(base)
}

/// The prices of one key's calls, and how much output they have.
#[derive(Clone, Debug)]
pub(super) struct Purse {
    prices: Arc<Prices>,
    model: Option<Box<str>>,
    /// Output of the answers: its mean and mean deviation, as TCP keeps its round trips (RFC 6298).
    output: Option<(f64, f64)>,
}

impl Purse {
    pub(super) const fn new(prices: Arc<Prices>, model: Option<Box<str>>) -> Self {
        Self { prices, model, output: None }
    }

    fn price(&self, model: Option<&str>, tier: ServiceTier) -> Price {
        let listed = |model: &str| self.prices.listed(model, tier);
        let asked = || self.model.as_deref().and_then(listed);
        model.and_then(listed).or_else(asked).unwrap_or_else(|| self.prices.dearest())
    }

    /// What to reserve for a call with so many input tokens. `embeds` has no output.
    pub(super) fn reserve(&self, tier: ServiceTier, tokens: u32, embeds: bool) -> u32 {
        let expected =
            self.output.map_or(f64::from(self.prices.output_tokens), |(mean, deviation)| mean + deviation);
        let output = if embeds { 0 } else { expected.ceil() as u64 };
        self.price(None, tier).cost(u64::from(tokens), 0, output)
    }

    /// What a call has cost, by the model and tier that answered, where they are known.
    pub(super) fn bill(&mut self, usage: &Usage, model: Option<&str>, tier: ServiceTier) -> u32 {
        const WEIGHT: f64 = 1.0 / 8.0;
        let output = usage.output_tokens.saturating_add(usage.thought_tokens);
        let seen = output as f64;
        self.output = Some(match self.output {
            None => (seen, seen / 2.0),
            Some((mean, deviation)) => {
                (mean + (seen - mean) * WEIGHT, deviation + ((seen - mean).abs() - deviation) * 2.0 * WEIGHT)
            }
        });
        self.price(model, tier).cost(usage.input_tokens, usage.cached_tokens, output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ServiceTier::{Flex, Priority, Standard};

    fn prices() -> Prices {
        Prices::read_on("2026-11-29")
            .model("gemini-9-flash", Price::per_million(0.30, 2.50).cached(0.03))
            .tier("gemini-9-flash", Flex, Price::per_million(0.15, 1.25))
            .model("gemini-9-pro", Price::per_million(2.0, 12.0))
    }

    fn usage(input: u64, cached: u64, output: u64, thoughts: u64) -> Usage {
        Usage {
            input_tokens: input,
            cached_tokens: cached,
            output_tokens: output,
            thought_tokens: thoughts,
            ..Usage::default()
        }
    }

    fn purse(model: &str) -> Purse {
        Purse::new(Arc::new(prices()), Some(model.into()))
    }

    #[test]
    fn a_call_costs_by_what_answered() {
        let mut purse = purse("gemini-9-flash");
        let used = usage(1_000, 400, 200, 100);
        for (model, tier, cost) in [
            (None, Standard, 600.0 * 0.30 + 400.0 * 0.03 + 300.0 * 2.50),
            (None, Flex, 1_000.0 * 0.15 + 300.0 * 1.25),
            // It has no price for priority: the dearest of the model's.
            (None, Priority, 600.0 * 0.30 + 400.0 * 0.03 + 300.0 * 2.50),
            (Some("models/gemini-9-pro"), Standard, 1_000.0 * 2.0 + 300.0 * 12.0),
            (Some("gemini-9-pro-001"), Standard, 1_000.0 * 2.0 + 300.0 * 12.0),
            (Some("gemini-9-flash-preview"), Flex, 1_000.0 * 0.15 + 300.0 * 1.25),
        ] {
            assert_eq!(purse.bill(&used, model, tier), f64::ceil(cost) as u32, "{model:?} {tier:?}");
        }
    }

    #[test]
    fn a_model_that_has_no_price_costs_as_the_dearest() {
        assert_eq!(purse("gemini-9-mini").reserve(Standard, 1_000, false), 2_000 + 12_000);
        let nobody = Purse::new(Arc::new(prices()), None);
        assert_eq!(nobody.reserve(Standard, 10, true), 20);
    }

    #[test]
    fn what_is_reserved_follows_the_output_of_the_answers() {
        let mut purse = purse("gemini-9-pro");
        let reserved = |purse: &Purse| purse.reserve(Standard, 0, false);
        assert_eq!(reserved(&purse), 12_000);
        purse.bill(&usage(1, 0, 100, 0), None, Standard);
        assert_eq!(reserved(&purse), 1_800, "half as much again");
        for _ in 0..100 {
            purse.bill(&usage(1, 0, 100, 0), None, Standard);
        }
        assert!((1_200..=1_212).contains(&reserved(&purse)), "{}", reserved(&purse));
    }

    #[test]
    fn costs_are_rounded_up_and_never_wrap() {
        let price = Price::per_million(0.3, 0.0);
        assert_eq!([0, 1, 10, 11].map(|tokens| price.cost(tokens, 0, 0)), [0, 1, 3, 4]);
        assert_eq!(price.cost(u64::MAX, u64::MAX, u64::MAX), u32::MAX);
        assert_eq!(price.cost(5, 9, 0), 2, "no more is cached than there is");
    }

    #[test]
    fn wrong_prices_are_named() {
        let refused = |prices: Prices| prices.check().expect_err("out of range").to_string();
        assert!(prices().check().is_ok());
        assert!(refused(Prices::read_on("today").model("m", Price::per_million(1.0, 1.0))).contains("date"));
        assert!(refused(Prices::read_on("2026-11-29")).contains("one model"));
        for price in [f64::NAN, f64::INFINITY, -0.1, 1e7] {
            assert!(
                refused(prices().model("m", Price::per_million(1.0, 1.0).cached(price))).contains("from 0")
            );
        }
        assert!(refused(prices().output_tokens(1_000_001)).contains("output"));
    }
}
