//! The settings of a whole stack as data: from a file, from environment variables, and back.
//!
//! [`StackConfig`] is one schema for every setting of [`GeminiStack`] that is no code, with serde: sections are named as the
//! stack's places, members as the builders' methods. All are optional; what is not there is as the [preset](StackConfig::preset)
//! has it, or else the default. Durations are text with a unit (`"1m30s"`), and a number without one is refused; settings that can be
//! left out with a `without_…` method take `"off"`; a member that does not exist is refused by its name.
//!
//! ```
//! use tower_gemini::config::StackConfig;
//! use tower_gemini::stack::GeminiStack;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The same as TOML: `preset = "interactive"`, `[retry]`, `attempts = 4`, …
//! let config: StackConfig = serde_json::from_str(r#"{
//!     "preset": "interactive",
//!     "retry": { "attempts": 4, "backoff": { "cap": "5s" } },
//!     "rate_limit": { "requests_per_minute": 60, "model_limits": { "gemini-3.8-flash": { "requests_per_day": 250 } } },
//!     "timeout": { "idle": "45s", "total": "off" },
//!     "fallback": { "chain": { "gemini-3.8-flash": ["gemini-3.5-flash-lite"] } }
//! }"#)?;
//! let stack = GeminiStack::from_config(&config)?;
//!
//! // What the stack is set to, the defaults included.
//! let all = StackConfig::of(&stack);
//! assert_eq!(all.retry.attempts, Some(4));
//! assert_eq!(all.circuit_breaker.min_calls, Some(20));
//!
//! let wrong = serde_json::from_str::<StackConfig>(r#"{ "retry": { "atempts": 4 } }"#);
//! assert!(wrong.unwrap_err().to_string().contains("unknown field `atempts`, expected one of `enabled`"));
//! # Ok(()) }
//! ```
//!
//! # Environment variables
//!
//! [`StackConfig::from_env`] reads `GEMINI_PRESET` and, for each member, `GEMINI_<SECTION>_<MEMBER>`: `GEMINI_RETRY_ATTEMPTS=4`,
//! `GEMINI_TIMEOUT_IDLE=45s`, `GEMINI_CLASSIFY_PEEK=off`. Lists are separated by commas; tables and maps are JSON:
//! `GEMINI_RETRY_BACKOFF={"cap":"5s"}`. An empty variable counts as not set. A variable of a section that names no member is refused;
//! others that begin with `GEMINI_`, as `GEMINI_API_KEY` does, are left alone. [`StackConfig::members`] lists the names.
//!
//! # Sections that are put in by hand
//!
//! `[preflight]` and `[replay]` change the type of the request's body, `[coalesce]` and `[last_good]` need a key function, `[places]` names
//! where requests may go, and `[resume]` stands around all of it: a stack has them where the program puts them, with the file's settings.
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use tower_gemini::coalesce::whole_body;
//! use tower_gemini::config::StackConfig;
//! use tower_gemini::stack::GeminiStack;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config: StackConfig = serde_json::from_str(r#"{
//!     "last_good": { "max_age": "6h" },
//!     "places": { "place": [{ "vertex": "europe-west4" }, { "vertex": "eu" }], "residency": ["europe-west4", "eu"] }
//! }"#)?;
//! let stack = GeminiStack::from_config(&config)?
//!     .placing(config.places.to_builder()?)?
//!     .last_good(config.last_good.to_builder(whole_body::<Full<Bytes>>)?.build()?);
//! # let _ = stack; Ok(()) }
//! ```
//!
//! # What is not in it
//!
//! What is code or another part of the program: observers, `key_by`, tables of signals, estimates of tokens, clocks, catalogues, the
//! last resort, and a quota's store that is not Redis. Take the section's `to_builder()` for those:
//!
//! ```
//! use tower_gemini::config::StackConfig;
//! use tower_gemini::stack::GeminiStack;
//!
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! # let config = StackConfig::default();
//! let all = config.complete();
//! let quotas = all.rate_limit.to_builder().key_by(|target| target.key().without_model()).build()?;
//! let stack = GeminiStack::from_config(&config)?.rate_limit(quotas);
//! # let _ = stack; Ok(()) }
//! ```

mod env;
#[macro_use]
mod table;
mod more;
mod quota;
mod sections;
mod values;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tower_layer::Identity;

pub use self::env::EnvError;
pub use self::more::{
    CoalesceConfig, HedgeConfig, LastGoodConfig, OutageName, PlaceConfig, PlacesConfig, PreflightConfig,
    ReplayConfig, ResumeConfig, StoreConfig, TierConfig,
};
pub use self::quota::{LimitsConfig, PerConfig, PriceConfig, PricesConfig, RateLimitConfig};
pub use self::sections::{
    BackoffConfig, BudgetConfig, CircuitBreakerConfig, ClassifyConfig, ConcurrencyConfig, DeadlineConfig,
    FallbackConfig, OpenTimeConfig, RetryConfig, ScheduleConfig, SlowCallsConfig, TimeoutConfig,
};
use self::values::Over;
pub use self::values::{HeaderName, HumanDuration, OrOff, StoreUrl};
use crate::circuit_breaker::CircuitBreakerLayer;
use crate::classify::ClassifyLayer;
use crate::concurrency::AdaptiveConcurrencyLayer;
use crate::error::ConfigError;
use crate::event::Observer;
use crate::fallback::ModelFallbackLayer;
use crate::hedge::HedgeLayer;
use crate::rate_limit::RateLimitLayer;
use crate::retry::RetryLayer;
use crate::stack::{GeminiStack, Preset};
use crate::tier::TierLayer;
use crate::timeout::{DeadlineLayer, TimeoutLayer};

/// The stack that a [`StackConfig`] makes: all places but those of [sections that are put in by hand](self#sections-that-are-put-in-by-hand).
pub type ConfiguredStack = GeminiStack<
    DeadlineLayer,
    Identity,
    ModelFallbackLayer,
    RetryLayer,
    RateLimitLayer,
    AdaptiveConcurrencyLayer,
    CircuitBreakerLayer,
    TimeoutLayer,
    ClassifyLayer,
    Identity,
    TierLayer,
    Identity,
    Identity,
    HedgeLayer,
>;

/// A [`Preset`] by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PresetName {
    /// `"default"`: [`Preset::new`].
    #[default]
    Default,
    /// `"interactive"`: [`Preset::interactive`].
    Interactive,
    /// `"batch"`: [`Preset::batch`].
    Batch,
    /// `"gateway"`: [`Preset::gateway`].
    Gateway,
}

impl From<PresetName> for Preset {
    fn from(name: PresetName) -> Self {
        match name {
            PresetName::Default => Self::new(),
            PresetName::Interactive => Self::interactive(),
            PresetName::Batch => Self::batch(),
            PresetName::Gateway => Self::gateway(),
        }
    }
}

macro_rules! stack_config {
    ($($(#[$meta:meta])* $section:ident: $ty:ident,)+) => {
        /// Settings of a [`GeminiStack`]. See the [module documentation](self).
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[non_exhaustive]
        pub struct StackConfig {
            /// Where the settings come from that are not given. Default: [`PresetName::Default`].
            #[serde(skip_serializing_if = "Option::is_none")]
            pub preset: Option<PresetName>,
            $(
                $(#[$meta])*
                #[serde(skip_serializing_if = "is_empty")]
                pub $section: $ty,
            )+
        }

        impl StackConfig {
            /// All sections, and the names of their members.
            pub fn members() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
                [$((stringify!($section), $ty::MEMBERS)),+].into_iter()
            }

            fn from_variables(get: &mut dyn FnMut(&str) -> Option<String>) -> Result<Self, EnvError> {
                let name = env::variable("", "preset");
                let preset = match get(&name) {
                    None => None,
                    Some(text) => {
                        let preset = PresetName::deserialize(env::EnvValue(text.trim()));
                        Some(preset.map_err(|error| EnvError::new(&name, error.to_string()))?)
                    }
                };
                Ok(Self { preset, $($section: $ty::from_env(stringify!($section), get)?,)+ })
            }
        }

        impl Over for StackConfig {
            fn over(self, base: Self) -> Self {
                Self { preset: self.preset.or(base.preset), $($section: self.$section.over(base.$section),)+ }
            }
        }
    };
}

stack_config! {
    /// How long a request may take in all.
    deadline: DeadlineConfig,
    /// Which models stand in for which.
    fallback: FallbackConfig,
    /// What is sent again, how often and when.
    retry: RetryConfig,
    /// The quotas that are kept.
    rate_limit: RateLimitConfig,
    /// The limit of calls in flight.
    concurrency: ConcurrencyConfig,
    /// When a model is not asked any more.
    circuit_breaker: CircuitBreakerConfig,
    /// How long one attempt may take.
    timeout: TimeoutConfig,
    /// What is read of answers.
    classify: ClassifyConfig,
    /// Whether service tiers are read.
    tier: TierConfig,
    /// Second tries for late calls. Off unless it is enabled.
    hedge: HedgeConfig,
    /// One quota for many processes.
    store: StoreConfig,
    /// What is refused before it is sent. Put in by hand.
    preflight: PreflightConfig,
    /// Bodies that are not `Clone`. Put in by hand.
    replay: ReplayConfig,
    /// Equal requests in flight. Put in by hand.
    coalesce: CoalesceConfig,
    /// An older answer where everything else failed. Put in by hand.
    last_good: LastGoodConfig,
    /// Where requests may be sent. Put in by hand.
    places: PlacesConfig,
    /// Streams that broke off. Put in by hand.
    resume: ResumeConfig,
}

/// A stack's place for second tries, empty or filled. Sealed: nobody else implements it.
pub trait HedgeSettings: sealed::Sealed {
    /// Its settings.
    fn settings(&self) -> HedgeConfig;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for tower_layer::Identity {}
    impl Sealed for crate::hedge::HedgeLayer {}
}

impl HedgeSettings for Identity {
    /// Those of a layer that is off.
    fn settings(&self) -> HedgeConfig {
        let off = HedgeLayer::builder().enabled(false).build();
        off.map_or_else(|_| HedgeConfig::default(), |layer| layer.config())
    }
}

impl HedgeSettings for HedgeLayer {
    fn settings(&self) -> HedgeConfig {
        self.config()
    }
}

fn is_empty<T: Default + PartialEq>(section: &T) -> bool {
    *section == T::default()
}

impl StackConfig {
    /// All settings of this stack, the defaults included, without those that are code. The preset is not named: each setting is
    /// there by itself.
    #[allow(clippy::type_complexity, reason = "it is the stack's own type, with what has settings named")]
    pub fn of<P, Q, W, X, H: HedgeSettings, Y>(
        stack: &GeminiStack<
            DeadlineLayer,
            P,
            ModelFallbackLayer,
            RetryLayer,
            RateLimitLayer,
            AdaptiveConcurrencyLayer,
            CircuitBreakerLayer,
            TimeoutLayer,
            ClassifyLayer,
            Q,
            TierLayer,
            W,
            X,
            H,
            Y,
        >,
    ) -> Self {
        Self {
            preset: None,
            deadline: stack.get_deadline().config(),
            fallback: stack.get_fallback().config(),
            retry: stack.get_retry().config(),
            rate_limit: stack.get_rate_limit().config(),
            concurrency: stack.get_concurrency().config(),
            circuit_breaker: stack.get_circuit_breaker().config(),
            timeout: stack.get_timeout().config(),
            classify: stack.get_classify().config(),
            tier: stack.get_tier().config(),
            hedge: stack.get_hedge().settings(),
            ..Self::default()
        }
    }

    /// These settings with what is not given filled in, from the preset.
    #[must_use]
    pub fn complete(&self) -> Self {
        let preset = Preset::from(self.preset.unwrap_or_default()).stack();
        let base = Self::of(&preset.fallback(ModelFallbackLayer::default()));
        Self { preset: self.preset, ..self.clone().over(base) }
    }

    /// Reads the environment of this process; see the [module documentation](self#environment-variables).
    ///
    /// # Errors
    ///
    /// The first variable that is wrong, and the rule. Ranges are checked when a stack is made.
    pub fn from_env() -> Result<Self, EnvError> {
        Self::from_vars(std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with(env::PREFIX))?;
            Some((name, value.to_string_lossy().into_owned()))
        }))
    }

    /// The same from variables that are handed in: pairs of name and value. Of two with one name the last counts.
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    ///
    /// ```
    /// use tower_gemini::config::StackConfig;
    ///
    /// let config = StackConfig::from_vars([("GEMINI_PRESET", "batch"), ("GEMINI_RETRY_ATTEMPTS", "20")])?;
    /// assert_eq!(config.retry.attempts, Some(20));
    ///
    /// let error = StackConfig::from_vars([("GEMINI_TIMEOUT_IDLE", "45")]).unwrap_err();
    /// assert_eq!(error.variable(), "GEMINI_TIMEOUT_IDLE");
    /// # Ok::<(), tower_gemini::config::EnvError>(())
    /// ```
    pub fn from_vars<N: Into<String>, V: Into<String>>(
        vars: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, EnvError> {
        let mut vars: std::collections::BTreeMap<String, String> =
            vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let config =
            Self::from_variables(&mut |name| vars.remove(name).filter(|text| !text.trim().is_empty()))?;
        // What is left of a section's variables was read by nobody.
        for name in vars.keys().filter(|name| !env::is_of_a_service(name)) {
            let of = |(section, _): &(&'static str, _)| name.starts_with(&env::variable(section, ""));
            if let Some((_, members)) = Self::members().find(of) {
                let members = members.join(", ").to_ascii_uppercase();
                return Err(EnvError::new(name, format!("is no setting; the section has {members}")));
            }
        }
        Ok(config)
    }
}

impl GeminiStack {
    /// A stack with these settings, and for the rest those of the preset. See [`config`](self).
    ///
    /// It has a model fallback in its place, which asks the stack's own circuits and quotas; without a chain or a ladder
    /// it passes everything on.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, by section and member, and the range.
    pub fn from_config(config: &StackConfig) -> Result<ConfiguredStack, ConfigError> {
        Self::configured(config, None)
    }

    /// The same, and all layers tell `observer` what they do.
    ///
    /// # Errors
    ///
    /// As [`from_config`](Self::from_config).
    pub fn from_config_observed(
        config: &StackConfig,
        observer: &Arc<dyn Observer>,
    ) -> Result<ConfiguredStack, ConfigError> {
        Self::configured(config, Some(observer))
    }

    /// The stack that the environment variables of this process set; see
    /// [`config`](self#environment-variables).
    ///
    /// # Errors
    ///
    /// The first variable that is wrong, and the rule.
    pub fn from_env() -> Result<ConfiguredStack, EnvError> {
        let config = StackConfig::from_env()?;
        Self::from_config(&config).map_err(|error| {
            let name = env::variable(error.section().unwrap_or_default(), error.field());
            EnvError::new(&name, error.rule())
        })
    }

    fn configured(
        config: &StackConfig,
        observer: Option<&Arc<dyn Observer>>,
    ) -> Result<ConfiguredStack, ConfigError> {
        let all = config.complete();
        let told = |section: &'static str| move |error: ConfigError| error.within(section);
        macro_rules! observed {
            ($builder:expr) => {{
                let builder = $builder;
                match observer {
                    Some(observer) => builder.observer(Arc::clone(observer)),
                    None => builder,
                }
            }};
        }
        let retry = observed!(all.retry.to_builder().map_err(told("retry"))?).expecting_free_waits();
        let breaker = observed!(all.circuit_breaker.to_builder().map_err(told("circuit_breaker"))?);
        let quotas = observed!(all.rate_limit.to_builder());
        let quotas = all.store.put(quotas).map_err(told("store"))?;
        GeminiStack::new()
            .deadline(all.deadline.layer().map_err(told("deadline"))?)
            .retry(RetryLayer::new(retry.build().map_err(told("retry"))?))
            .tier(all.tier.layer())
            .rate_limit(quotas.build().map_err(told("rate_limit"))?)
            .concurrency(observed!(all.concurrency.to_builder()).build().map_err(told("concurrency"))?)
            .circuit_breaker(breaker.build().map_err(told("circuit_breaker"))?)
            .timeout(all.timeout.to_builder().build().map_err(told("timeout"))?)
            .classify(all.classify.layer())
            .falling_back(observed!(all.fallback.to_builder()))
            .map_err(told("fallback"))?
            .hedging(observed!(all.hedge.to_builder()))
            .map_err(told("hedge"))
    }
}
