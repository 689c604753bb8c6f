//! The settings of layers that are not in every stack.

use std::collections::BTreeMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use super::values::{HeaderName, HumanDuration, StoreUrl};
use crate::coalesce::{CoalesceBuilder, CoalesceLayer};
use crate::error::ConfigError;
use crate::hedge::{HedgeBuilder, HedgeLayer};
use crate::last_good::{LastGoodBuilder, LastGoodLayer, MemoryStore};
use crate::places::{Place, PlacesBuilder, PlacesLayer, RequestType, Residency};
use crate::preflight::{PreflightBuilder, PreflightLayer, Rule, RuleMode};
use crate::resume::{ResumeBuilder, ResumeLayer, ResumeMode};
use crate::retry::ReplayLayer;
use crate::tier::TierLayer;

plain_table! {
    /// `[tier]`: whether service tiers are read. See [`TierLayer`].
    TierConfig {
        /// [`TierLayer::enabled`].
        enabled: bool,
    }
}

impl TierConfig {
    pub(crate) const fn of(enabled: bool) -> Self {
        Self { enabled: Some(enabled) }
    }

    /// The layer, of these settings and else the defaults.
    pub fn layer(&self) -> TierLayer {
        let mut layer = TierLayer::new();
        apply!(layer, self: enabled);
        layer
    }
}

plain_table! {
    /// `[hedge]`: second tries for late calls. See [`HedgeBuilder`].
    HedgeConfig {
        /// [`HedgeBuilder::enabled`]. **In a configured stack off unless it says `true`**: second tries are paid for.
        enabled: bool,
        /// [`HedgeBuilder::budget`].
        budget: f64,
        /// [`HedgeBuilder::samples`].
        samples: u32,
        /// [`HedgeBuilder::max_body_bytes`].
        max_body_bytes: usize,
        /// [`HedgeBuilder::max_keys`].
        max_keys: usize,
    }
}

impl HedgeConfig {
    pub(crate) const fn of(
        enabled: bool,
        budget: f64,
        samples: u32,
        max_body_bytes: usize,
        max_keys: usize,
    ) -> Self {
        Self {
            enabled: Some(enabled),
            budget: Some(budget),
            samples: Some(samples),
            max_body_bytes: Some(max_body_bytes),
            max_keys: Some(max_keys),
        }
    }

    /// A builder with these settings and else the defaults.
    pub fn to_builder(&self) -> HedgeBuilder {
        let mut builder = HedgeLayer::builder();
        apply!(builder, self: enabled budget samples max_body_bytes max_keys);
        builder
    }
}

plain_table! {
    /// `[replay]`: bodies that are not `Clone`. See [`ReplayLayer`]. It changes the body's type, so it is put into a stack by
    /// [`replay`](crate::stack::GeminiStack::replay).
    ReplayConfig {
        /// [`ReplayLayer::max_bytes`].
        max_bytes: usize,
    }
}

impl ReplayConfig {
    /// The layer, of these settings and else the defaults.
    #[must_use]
    pub fn layer(&self) -> ReplayLayer {
        let mut layer = ReplayLayer::new();
        apply!(layer, self: max_bytes);
        layer
    }
}

plain_table! {
    /// `[preflight]`: what is refused before it is sent. See [`PreflightBuilder`]. It changes the body's type, so it is put into a stack by
    /// [`preflight`](crate::stack::GeminiStack::preflight).
    PreflightConfig {
        /// [`PreflightBuilder::enabled`].
        enabled: bool,
        /// [`PreflightBuilder::every_mode`]: `"off"`, `"warn"` or `"reject"`.
        every_mode: RuleMode,
        /// [`PreflightBuilder::mode`], by the rule's name; counts after `every_mode`.
        mode: BTreeMap<Rule, RuleMode>,
        /// [`PreflightBuilder::hold_bytes`].
        hold_bytes: usize,
        /// [`PreflightBuilder::head_wait`].
        head_wait: HumanDuration,
        /// [`PreflightBuilder::max_inline_bytes`].
        max_inline_bytes: u64,
    }
}

impl PreflightConfig {
    /// A builder with these settings and else the defaults.
    pub fn to_builder(&self) -> PreflightBuilder {
        let mut builder = PreflightLayer::builder();
        apply!(builder, self: enabled every_mode hold_bytes head_wait max_inline_bytes);
        for (rule, mode) in self.mode.iter().flatten() {
            builder = builder.mode(*rule, *mode);
        }
        builder
    }
}

plain_table! {
    /// `[coalesce]`: equal requests in flight. See [`CoalesceBuilder`]. It needs a key function, so it is put into a stack by
    /// [`coalesce`](crate::stack::GeminiStack::coalesce).
    CoalesceConfig {
        /// [`CoalesceBuilder::enabled`].
        enabled: bool,
        /// [`CoalesceBuilder::max_calls`].
        max_calls: usize,
        /// [`CoalesceBuilder::max_bytes`].
        max_bytes: usize,
    }
}

impl CoalesceConfig {
    /// A builder with these settings, and else the defaults, and this key function.
    pub fn to_builder<K, F>(&self, key_of: F) -> CoalesceBuilder<K, F>
    where
        K: Hash + Eq + Send + Sync + 'static,
    {
        let mut builder = CoalesceLayer::builder(key_of);
        apply!(builder, self: enabled max_calls max_bytes);
        builder
    }
}

plain_table! {
    /// `[last_good]`: an older answer where everything else failed. See [`LastGoodBuilder`]. It needs a key function, so it is put into a
    /// stack by [`last_good`](crate::stack::GeminiStack::last_good).
    LastGoodConfig {
        /// [`LastGoodBuilder::enabled`].
        enabled: bool,
        /// [`LastGoodBuilder::max_age`].
        max_age: HumanDuration,
        /// [`LastGoodBuilder::max_answer_bytes`].
        max_answer_bytes: usize,
        /// [`LastGoodBuilder::max_reading_bytes`].
        max_reading_bytes: usize,
        /// [`LastGoodBuilder::header`].
        header: HeaderName,
        /// [`LastGoodBuilder::across_credentials`].
        across_credentials: bool,
        /// Bytes of the [`MemoryStore`]. Default 16 MiB.
        store_bytes: usize,
        /// Answers of the [`MemoryStore`]. Default 1,024.
        store_entries: usize,
    }
}

impl LastGoodConfig {
    /// A builder with these settings, and else the defaults, and this key function.
    ///
    /// # Errors
    ///
    /// Where the store has no room for an answer; else [`LastGoodBuilder::build`] says what is wrong.
    pub fn to_builder<F>(&self, key_of: F) -> Result<LastGoodBuilder<F>, ConfigError> {
        let mut builder = LastGoodLayer::builder(key_of);
        if self.store_bytes.or(self.store_entries).is_some() {
            let (bytes, entries) = (self.store_bytes.unwrap_or(16 << 20), self.store_entries.unwrap_or(1024));
            builder = builder.store(MemoryStore::new(bytes, entries)?);
        }
        if self.across_credentials == Some(true) {
            builder = builder.across_credentials();
        }
        if let Some(header) = &self.header {
            builder = builder.header(header.0.clone());
        }
        apply!(builder, self: enabled max_age max_answer_bytes max_reading_bytes);
        Ok(builder)
    }
}

plain_table! {
    /// `[resume]`: streams that broke off. See [`ResumeBuilder`]. It stands around a stack, and is put there by hand.
    ResumeConfig {
        /// How: `"continue"` or `"restart"`. Must be there.
        mode: ResumeMode,
        /// [`ResumeBuilder::enabled`].
        enabled: bool,
        /// [`ResumeBuilder::most`].
        most: u32,
        /// [`ResumeBuilder::budget`].
        budget: f64,
        /// [`ResumeBuilder::max_text_bytes`].
        max_text_bytes: usize,
    }
}

impl ResumeConfig {
    /// A builder with these settings and else the defaults.
    ///
    /// # Errors
    ///
    /// Without a mode; else [`ResumeBuilder::build`] says what is wrong.
    pub fn to_builder(&self) -> Result<ResumeBuilder, ConfigError> {
        let mode = self.mode.ok_or(ConfigError::new("mode", "must be continue or restart"))?;
        let mut builder = ResumeLayer::builder(mode);
        apply!(builder, self: enabled most budget max_text_bytes);
        Ok(builder)
    }
}

/// One of `[[places.place]]`. See [`Place`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct PlaceConfig {
    /// [`Place::vertex`]: a location of Vertex AI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vertex: Option<String>,
    /// [`Place::new`], or the name of a Vertex location where that is not its own. One of the two must be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// [`Place::region`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// [`Place::project`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// [`Place::origin`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// [`Place::request_type`]: `"dedicated"` or `"shared"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_type: Option<RequestType>,
    /// [`Place::api_key`]: the name of the environment variable that has the key. The key itself is in no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
}

impl PlaceConfig {
    fn place(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Place, ConfigError> {
        let mut place = match (&self.vertex, &self.name) {
            (Some(location), None) => Place::vertex(&**location),
            (Some(location), Some(name)) => Place::vertex(&**location).named(&**name),
            (None, Some(name)) => Place::new(&**name),
            (None, None) => return Err(ConfigError::new("place", "must have a name or vertex")),
        };
        if let Some(region) = &self.region {
            place = place.region(&**region);
        }
        if let Some(project) = &self.project {
            place = place.project(&**project);
        }
        if let Some(origin) = &self.origin {
            place = place.origin(origin);
        }
        if let Some(request_type) = self.request_type {
            place = place.request_type(request_type);
        }
        if let Some(variable) = &self.api_key_env {
            let key = env(variable).and_then(|key| key.trim().parse().ok());
            let missing = ConfigError::new("api_key_env", "must name an environment variable that has a key");
            place = place.api_key(key.ok_or(missing)?);
        }
        Ok(place)
    }
}

plain_table! {
    /// `[places]`: where requests may be sent. See [`PlacesBuilder`]. It has a place in a stack by
    /// [`placing`](crate::stack::GeminiStack::placing).
    PlacesConfig {
        /// [`PlacesBuilder::place`], those first that are asked first. A list takes the place of another one whole.
        place: Vec<PlaceConfig>,
        /// [`PlacesBuilder::residency`]: the regions that are allowed.
        residency: Vec<String>,
        /// [`PlacesBuilder::max_keys`].
        max_keys: usize,
        /// [`PlacesBuilder::enabled`].
        enabled: bool,
    }
}

impl PlacesConfig {
    /// A builder with these settings. Keys are read from the environment of this process.
    ///
    /// # Errors
    ///
    /// Where a place has no name, or its key is not there; else [`PlacesBuilder::build`] says what is wrong.
    pub fn to_builder(&self) -> Result<PlacesBuilder, ConfigError> {
        self.builder_with(&|variable| std::env::var(variable).ok())
    }

    /// The same with variables that are handed in.
    ///
    /// # Errors
    ///
    /// As [`to_builder`](Self::to_builder).
    pub fn builder_with(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<PlacesBuilder, ConfigError> {
        let mut builder = PlacesLayer::builder();
        for place in self.place.iter().flatten() {
            builder = builder.place(place.place(env)?);
        }
        if let Some(regions) = &self.residency {
            builder = builder.residency(Residency::within(regions.iter().map(String::as_str)));
        }
        apply!(builder, self: max_keys enabled);
        Ok(builder)
    }
}

plain_table! {
    /// `[store]`: one quota for many processes, by Redis or Valkey. A configured stack uses it; without the feature `redis` it is refused.
    /// See [`fleet`](https://docs.rs/tower-gemini/latest/tower_gemini/fleet).
    StoreConfig {
        /// `redis://[user:password@]host[:port][/db]`, or `rediss://`. Without it there is no store.
        url: StoreUrl,
        /// What keeps fleets in one store apart. Default empty.
        namespace: String,
        /// The share beside other members that wait, from 1 to 1,000. Default 1.
        weight: u32,
        /// While the store does not answer: `"strict"`, `"closed"`, `"local"`, or `"share"`, of all of the limit by the `members`.
        outage: OutageName,
        /// How many members there are, for the outage `"share"`. Default 1.
        members: u32,
        /// Leaves names of models and labels out of the store.
        hide_names: bool,
    }
}

/// What is sent while the store does not answer, by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutageName {
    /// `"strict"`: less and less, and never more than the limit.
    #[default]
    Strict,
    /// `"share"`: the limit by the number of members.
    Share,
    /// `"closed"`: nothing.
    Closed,
    /// `"local"`: all of it, each.
    Local,
}

impl StoreConfig {
    /// The store with what was said of it; `None` without a [`url`](Self::url).
    ///
    /// # Errors
    ///
    /// Where the URL is none.
    #[cfg(feature = "redis")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
    pub fn to_fleet(&self) -> Result<Option<crate::fleet::Fleet>, ConfigError> {
        use crate::fleet::{Fleet, Outage, RedisStore};

        let Some(url) = &self.url else { return Ok(None) };
        let mut fleet = Fleet::new(RedisStore::new(&url.0)?).outage(match self.outage.unwrap_or_default() {
            OutageName::Strict => Outage::Strict,
            OutageName::Share => Outage::share(1.0, self.members.unwrap_or(1)),
            OutageName::Closed => Outage::Closed,
            OutageName::Local => Outage::Local,
        });
        if self.hide_names == Some(true) {
            fleet = fleet.hide_names();
        }
        if let Some(namespace) = &self.namespace {
            fleet = fleet.namespace(&**namespace);
        }
        apply!(fleet, self: weight);
        Ok(Some(fleet))
    }

    /// Puts the store under the quotas.
    pub(super) fn put<E>(
        &self,
        builder: crate::rate_limit::RateLimitBuilder<E>,
    ) -> Result<crate::rate_limit::RateLimitBuilder<E>, ConfigError> {
        #[cfg(feature = "redis")]
        return Ok(match self.to_fleet()? {
            Some(fleet) => builder.store(fleet),
            None => builder,
        });
        #[cfg(not(feature = "redis"))]
        match &self.url {
            Some(_) => Err(ConfigError::new("url", "needs the feature `redis`")),
            None => Ok(builder),
        }
    }
}
