//! The settings of a simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};

use super::simulator::Simulator;
use super::{ConfigError, Quota, Rule};

/// Models that a new simulator knows. None of them retires, by the catalogue: a test looks.
const MODELS: [&str; 8] = [
    "gemini-2.5-flash-lite",
    "gemini-3-flash-preview",
    "gemini-3.1-flash-lite",
    "gemini-3.5-flash",
    "gemini-3.5-flash-lite",
    "gemini-3.7-flash",
    "gemini-3.8-flash",
    "gemini-embedding-001",
];
const MAX_CHUNKS: usize = 10_000;

/// What does not change while a simulator runs.
pub(super) struct Config {
    pub(super) head_latency: Duration,
    pub(super) chunk_interval: Duration,
    pub(super) chunks: usize,
    pub(super) answer: Option<String>,
    pub(super) decode_tokens: Option<u64>,
    pub(super) require_key: bool,
    pub(super) valid_keys: BTreeSet<String>,
    pub(super) max_request_bytes: usize,
    pub(super) recorded: Vec<HeaderName>,
}

/// Builds a [`Simulator`]. The defaults are on the [module's page](super).
#[must_use = "call `build` to get the simulator"]
pub struct SimulatorBuilder {
    config: Config,
    models: BTreeSet<String>,
    quotas: BTreeMap<String, Quota>,
    default_quota: Option<Quota>,
    rules: Vec<Rule>,
    seed: u64,
    log_capacity: usize,
}

impl Default for SimulatorBuilder {
    fn default() -> Self {
        Self {
            config: Config {
                head_latency: Duration::from_millis(200),
                chunk_interval: Duration::from_millis(20),
                chunks: 5,
                answer: None,
                decode_tokens: None,
                require_key: false,
                valid_keys: BTreeSet::new(),
                max_request_bytes: 20 * 1024 * 1024,
                recorded: vec![HeaderName::from_static("x-server-timeout")],
            },
            models: MODELS.iter().map(|name| (*name).to_owned()).collect(),
            quotas: BTreeMap::new(),
            default_quota: None,
            rules: Vec::new(),
            seed: 0,
            log_capacity: 100_000,
        }
    }
}

impl SimulatorBuilder {
    /// From the last byte of the request to the head of the response. Default: 200 ms.
    pub fn head_latency(mut self, time: Duration) -> Self {
        self.config.head_latency = time;
        self
    }

    /// Between two chunks of a stream; the first comes with the head. Default: 20 ms.
    pub fn chunk_interval(mut self, time: Duration) -> Self {
        self.config.chunk_interval = time;
        self
    }

    /// Into how many chunks a streamed answer is cut, from 1 to 10,000. Default: 5.
    pub fn chunks(mut self, chunks: usize) -> Self {
        self.config.chunks = chunks;
        self
    }

    /// What the model says. Default: `Echo: ` and the last text of the request, at most 4,000 characters of
    /// it.
    pub fn answer(mut self, text: impl Into<String>) -> Self {
        self.config.answer = Some(text.into());
        self
    }

    /// The most tokens of one interaction, at least 1: one with more to say ends as `requires_continuation`, with a token by which
    /// the next one goes on. Default: no limit.
    pub fn decode_tokens(mut self, tokens: u64) -> Self {
        self.config.decode_tokens = Some(tokens);
        self
    }

    /// One more model that exists. Default: six of Google's, see the [module's page](super).
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.models.insert(bare(name.into()));
        self
    }

    /// Exactly these models exist, and those that have a quota of their own.
    pub fn only_models<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.models = names.into_iter().map(|name| bare(name.into())).collect();
        self
    }

    /// Enforces a quota for one model, which exists from then on. Default: no quotas.
    pub fn quota(mut self, model: impl Into<String>, quota: Quota) -> Self {
        self.quotas.insert(bare(model.into()), quota);
        self
    }

    /// Enforces such a quota for each model that has none of its own; each model is counted by itself.
    pub fn quota_for_each_model(mut self, quota: Quota) -> Self {
        self.default_quota = Some(quota);
        self
    }

    /// Adds a rule after those already there; of several that match, the first wins. A bare
    /// [`Fault`](super::Fault) is a rule for every call.
    pub fn rule(mut self, rule: impl Into<Rule>) -> Self {
        self.rules.push(rule.into());
        self
    }

    /// What the draws of [`Rule::with_probability`] follow from: the same seed and the same order of calls
    /// give the same draws. Default: 0, so a simulator repeats itself unless told otherwise.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// A call without any key is a 403, as at Google's. Default: keys are not looked at.
    pub fn require_key(mut self) -> Self {
        self.config.require_key = true;
        self
    }

    /// Only this key is good; any other is a 400, and none a 403. Say it again for several. Default: any key.
    pub fn valid_key(mut self, key: impl Into<String>) -> Self {
        self.config.require_key = true;
        self.config.valid_keys.insert(key.into());
        self
    }

    /// A longer request is a 400; at most this much of it is read. At least 1 byte. Default: 20 MiB, as
    /// Google's.
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.config.max_request_bytes = bytes;
        self
    }

    /// Keeps this request header in the log, for instance the one in which your retry counts its attempts.
    /// Headers that carry secrets are refused. Default: `x-server-timeout` only.
    pub fn record_header(mut self, name: HeaderName) -> Self {
        self.config.recorded.push(name);
        self
    }

    /// How many calls the log holds; the oldest are dropped first. Zero keeps none. Default: 100,000.
    pub fn log_capacity(mut self, calls: usize) -> Self {
        self.log_capacity = calls;
        self
    }

    /// The simulator.
    ///
    /// # Errors
    ///
    /// The first setting that breaks its rule: `chunks` outside of 1 to 10,000, `max_request_bytes` of zero,
    /// an empty `valid_key`, `record_header` of a header that carries secrets, or a setting of a [`Rule`] (a
    /// call number of zero, an empty range, a probability that is not a number from 0 to 1, zero times).
    pub fn build(self) -> Result<Simulator, ConfigError> {
        if self.config.decode_tokens == Some(0) {
            return Err(ConfigError::new("decode_tokens", "must be at least 1"));
        }
        if !(1..=MAX_CHUNKS).contains(&self.config.chunks) {
            return Err(ConfigError::new("chunks", "must be from 1 to 10,000"));
        }
        if self.config.max_request_bytes == 0 {
            return Err(ConfigError::new("max_request_bytes", "must be at least 1"));
        }
        if self.config.valid_keys.contains("") {
            return Err(ConfigError::new("valid_key", "must not be empty"));
        }
        let secret = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, HeaderName::from_static("x-goog-api-key")];
        if self.config.recorded.iter().any(|name| secret.contains(name)) {
            return Err(ConfigError::new("record_header", "must not be a header that carries secrets"));
        }
        self.rules.iter().try_for_each(Rule::check)?;
        Ok(self.assemble())
    }

    /// The simulator, unchecked. The defaults need no check, and a test holds them to it.
    pub(super) fn assemble(self) -> Simulator {
        let mut models: BTreeMap<String, Option<Quota>> =
            self.models.into_iter().map(|name| (name, self.default_quota.clone())).collect();
        models.extend(self.quotas.into_iter().map(|(name, quota)| (name, Some(quota))));
        Simulator::from_parts(self.config, models, self.rules, self.seed, self.log_capacity)
    }
}

/// A model's name without `models/`.
pub(super) fn bare(name: String) -> String {
    name.strip_prefix("models/").map(str::to_owned).unwrap_or(name)
}

/// By hand: keys are counted, not shown.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("head_latency", &self.head_latency)
            .field("chunk_interval", &self.chunk_interval)
            .field("chunks", &self.chunks)
            .field("require_key", &self.require_key)
            .field("valid_keys", &self.valid_keys.len())
            .field("max_request_bytes", &self.max_request_bytes)
            .field("recorded", &self.recorded)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SimulatorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatorBuilder")
            .field("config", &self.config)
            .field("models", &self.models)
            .field("quotas", &self.quotas)
            .field("default_quota", &self.default_quota)
            .field("rules", &self.rules)
            .field("seed", &self.seed)
            .field("log_capacity", &self.log_capacity)
            .finish()
    }
}
