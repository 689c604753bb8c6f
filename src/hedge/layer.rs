use std::sync::Arc;

use tower_layer::Layer;

use super::config::Settings;
use super::evidence::Rules;
use super::report::{HedgeStatus, HeldBack};
use super::service::Hedge;
use super::shared::{Id, Key, Shared};
use crate::circuit_breaker::Circuits;
use crate::concurrency::ConcurrencyHandle;
use crate::config::HedgeConfig;
use crate::error::ConfigError;
use crate::event::LayerKind;
use crate::event::{Observed, Observer};
use crate::keyed::{Keyed, MAX_KEYS};
use crate::rate_limit::RateLimits;
use crate::request::{Method, TargetKey};
use crate::retry::DEFAULT_MAX_BODY_BYTES;
use crate::time;

/// Puts a [`Hedge`] around a service. See the [module documentation](super).
///
/// Clones of the layer, all services it makes, and their clones, share what was learnt and the budgets.
#[derive(Clone, Debug)]
#[must_use]
pub struct HedgeLayer {
    shared: Arc<Shared>,
}

impl HedgeLayer {
    /// A layer with the defaults of the [module documentation](super), and without handles.
    pub fn new() -> Self {
        Self::builder().build().expect("the defaults are valid: a test builds them")
    }

    /// A builder that starts with the defaults.
    pub fn builder() -> HedgeBuilder {
        HedgeBuilder::default()
    }

    pub(crate) fn config(&self) -> HedgeConfig {
        let settings = &self.shared.settings;
        let Rules { share, samples } = settings.rules;
        let budget = f64::from(share) / 1e6;
        HedgeConfig::of(
            settings.enabled,
            budget,
            samples,
            settings.max_body_bytes,
            self.shared.keys.max_keys(),
        )
    }

    /// A handle to look at what was learnt and what it cost.
    #[must_use]
    pub fn handle(&self) -> Hedges {
        Hedges { shared: Arc::clone(&self.shared) }
    }
}

impl Default for HedgeLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for HedgeLayer {
    type Service = Hedge<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Hedge::new(Arc::clone(&self.shared), inner)
    }
}

/// Collects settings for a [`HedgeLayer`]; [`build`](Self::build) checks them.
#[derive(Clone, Debug)]
#[must_use]
pub struct HedgeBuilder {
    budget: f64,
    samples: u32,
    max_keys: usize,
    settings: Settings,
}

impl Default for HedgeBuilder {
    fn default() -> Self {
        Self {
            budget: 0.02,
            samples: 100,
            max_keys: MAX_KEYS,
            settings: Settings {
                rules: Rules { share: 0, samples: 0 },
                max_body_bytes: DEFAULT_MAX_BODY_BYTES,
                enabled: true,
                rate_limits: None,
                circuits: None,
                concurrency: None,
                observer: Observed::default(),
            },
        }
    }
}

impl HedgeBuilder {
    /// Off, it learns nothing and sends each call once, with the same type. Default on.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// The most second tries, as a share of the calls of the same key. From 0.001 to 0.2, default 0.02.
    ///
    /// A bucket gains this with each call and pays one for a second try. It begins empty, so the share is never exceeded,
    /// and holds 10 at the most. It has a say in when second tries are sent: see [there](super#when-a-second-try-is-sent).
    pub const fn budget(mut self, share: f64) -> Self {
        self.budget = share;
        self
    }

    /// Answers of a key that must have been timed before its first second try. From 20 to 1,000, default 100.
    pub const fn samples(mut self, answers: u32) -> Self {
        self.samples = answers;
        self
    }

    /// Looks at these quotas before a second try: none where a door is closed, somebody waits, or nine tenths of a limit
    /// are used. Default: only what this layer sees itself. [`GeminiStack::hedging`](crate::stack::GeminiStack::hedging) sets it.
    pub fn rate_limits(mut self, quotas: RateLimits) -> Self {
        self.settings.rate_limits = Some(quotas);
        self
    }

    /// Looks at these circuits before a second try: none while it is not closed, or has just closed. Default: only what
    /// this layer sees itself. [`GeminiStack::hedging`](crate::stack::GeminiStack::hedging) sets it.
    pub fn circuits(mut self, circuits: Circuits) -> Self {
        self.settings.circuits = Some(circuits);
        self
    }

    /// Looks at these limits of the calls in flight before a second try: none while there is one, or somebody waits.
    /// Default: only what this layer sees itself. [`GeminiStack::hedging`](crate::stack::GeminiStack::hedging) sets it.
    pub fn concurrency(mut self, limits: ConcurrencyHandle) -> Self {
        self.settings.concurrency = Some(limits);
        self
    }

    /// The largest request body, in bytes, that is kept for a second try. Default 32 MiB.
    pub const fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_body_bytes = bytes;
        self
    }

    /// How many keys (model, place, label and tier, each with a method) are kept apart. From 1 to 1,000,000, default
    /// 1,024. Each takes about half a kilobyte.
    pub const fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Who is told of second tries.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.settings.observer = Observed::by(observer);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, and the range.
    pub fn build(self) -> Result<HedgeLayer, ConfigError> {
        if !(0.001..=0.2).contains(&self.budget) {
            return Err(ConfigError::new("budget", "must be from 0.001 to 0.2"));
        }
        if !(20..=1_000).contains(&self.samples) {
            return Err(ConfigError::new("samples", "must be from 20 to 1000"));
        }
        if !(1..=1_000_000).contains(&self.max_keys) {
            return Err(ConfigError::new("max_keys", "must be from 1 to 1000000"));
        }
        let mut settings = self.settings;
        settings.rules = Rules { share: (self.budget * 1e6).round() as u32, samples: self.samples };
        let keys = Keyed::new(self.max_keys, LayerKind::Hedge, settings.observer.clone());
        Ok(HedgeLayer { shared: Arc::new(Shared { settings, keys, epoch: time::now() }) })
    }
}

/// What a layer has learnt, and what it cost. Cheap to clone; outlives the layer. Dropping it changes nothing.
///
/// ```
/// use tower_gemini::hedge::HedgeLayer;
///
/// let layer = HedgeLayer::new();
/// for status in layer.handle().all() {
///     println!("{status}");
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Hedges {
    shared: Arc<Shared>,
}

impl Hedges {
    /// Every key that the layer has met and not forgotten, in the order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<HedgeStatus> {
        let keys = self.shared.keys.all();
        let mut all: Vec<_> = keys.iter().map(|(_, key)| self.status_of(key)).collect();
        all.sort_by_cached_key(|status| (status.key.to_string(), status.method));
        all
    }

    /// One key and method; `None` where the layer has not met it.
    #[must_use]
    pub fn get(&self, key: &TargetKey, method: Method) -> Option<HedgeStatus> {
        let key = self.shared.keys.peek(&Id { target: key.clone(), method })?;
        Some(self.status_of(&key))
    }

    fn status_of(&self, key: &Key) -> HedgeStatus {
        key.with(|evidence| {
            let counts = evidence.counts;
            let held_back = HeldBack::ALL.iter().map(|why| (*why, counts.held_back[*why as usize]));
            HedgeStatus {
                key: key.id.target.clone(),
                method: key.id.method,
                after: evidence.after(),
                calls: evidence.calls(),
                sent: counts.sent,
                won: counts.won,
                lost: counts.lost,
                budget: evidence.tries_left(),
                held_back: held_back.filter(|(_, times)| *times > 0).collect(),
            }
        })
    }
}
