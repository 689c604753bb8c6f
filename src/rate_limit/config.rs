//! The settings of a rate limit, their defaults and their checks.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::common::{Common, WallClock};
use super::decision::AdmissionMode;
use super::layer::RateLimitLayer;
use super::queue::DEFAULT_WEIGHT;
use super::quota_state::Rules;
use super::service::Core;
use super::shared::{Config, KeyBy, Shared};
use super::{BySize, ConfigError, Prices};
use crate::event::{LayerKind, Observed, Observer};
use crate::keyed::{Keyed, MAX_KEYS};
use crate::request::limits::Limits;
use crate::request::{Target, TargetKey};
use crate::rng::RngSource;
use crate::sync::Mutex;
use crate::time;

/// Google's minute.
const WINDOW: Duration = Duration::from_secs(60);
/// Places in a queue, unless set: about 9 MB of them, if ever they are all taken.
const DEFAULT_QUEUE: usize = 100_000;

/// Settings of a [`RateLimitLayer`].
#[must_use = "a builder does nothing until it is built"]
pub struct RateLimitBuilder<E = BySize> {
    settings: Settings,
    estimate: E,
}

/// All of them but the estimate, which has a type of its own.
struct Settings {
    limits: Limits,
    by_model: Vec<(Box<str>, Limits)>,
    margin: f64,
    guard: Duration,
    mode: AdmissionMode,
    max_wait: Option<Duration>,
    max_queue: usize,
    interactive_weight: u32,
    max_keys: usize,
    learn: bool,
    probe_every: Duration,
    key_by: Option<KeyBy>,
    by_tier: bool,
    wall_clock: Option<WallClock>,
    observer: Observed,
    window: Duration,
    prices: Option<Prices>,
    enabled: bool,
    #[cfg(feature = "fleet")]
    fleet: Option<crate::fleet::Fleet>,
}

impl RateLimitBuilder {
    pub(super) fn new() -> Self {
        let settings = Settings {
            limits: Limits::new(),
            by_model: Vec::new(),
            margin: 1.0,
            guard: Duration::from_millis(500),
            mode: AdmissionMode::Wait,
            max_wait: None,
            max_queue: DEFAULT_QUEUE,
            interactive_weight: DEFAULT_WEIGHT,
            max_keys: MAX_KEYS,
            learn: true,
            probe_every: Duration::from_secs(300),
            key_by: None,
            by_tier: false,
            wall_clock: None,
            observer: Observed::default(),
            window: WINDOW,
            prices: None,
            enabled: true,
            #[cfg(feature = "fleet")]
            fleet: None,
        };
        RateLimitBuilder { settings, estimate: BySize }
    }
}

impl<E> RateLimitBuilder<E> {
    /// Whether the layer does anything. Default `true`. With `false` each call passes through, nothing is counted or kept, and no
    /// state is made; the type is the same.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// The limits of each model that has none of its own. Default: none.
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// The limits of one model, by the name that its requests use. Default: those of [`limits`](Self::limits).
    ///
    /// With [`key_by`](Self::key_by), the name is that of the key.
    pub fn model_limits(mut self, model: impl Into<Box<str>>, limits: Limits) -> Self {
        self.settings.by_model.push((model.into(), limits));
        self
    }

    /// The share of each limit, configured or learnt, that is used; above 0 and up to 1. Default 1.
    ///
    /// 0.8 leaves a fifth to others who use the same project.
    pub const fn margin(mut self, share: f64) -> Self {
        self.settings.margin = share;
        self
    }

    /// How much longer than 60 s a request counts, up to 60 s. Default 500 ms.
    ///
    /// Covers what the network does to the spacing of requests between here and the server: 500 ms cost 0.8 % of the
    /// throughput. The new day begins as much later than midnight.
    pub const fn guard(mut self, guard: Duration) -> Self {
        self.settings.guard = guard;
        self
    }

    /// What to do with a request that cannot be admitted at once. Default [`AdmissionMode::Wait`].
    pub const fn mode(mut self, mode: AdmissionMode) -> Self {
        self.settings.mode = mode;
        self
    }

    /// The longest that one request waits for quota, up to a year: in the queue, and in a
    /// [retry layer](crate::retry) outside after this layer's refusals and after 429s that name a delay, over all its
    /// attempts together. Default: none, so that the request's [`Deadline`](crate::Deadline) alone decides, and one without a
    /// deadline waits as long as the queue takes.
    ///
    /// The earlier of the two counts. A request whose turn or whose server's delay comes later than is left of this fails at
    /// once: with [`RateLimited`](super::RateLimited), which says until when, or with the server's own 429, given up with
    /// [`GaveUp::ServerDelay`](crate::event::GaveUp::ServerDelay). Backoff after other failures is not counted, nor is the time
    /// in the queue before an attempt that ended without a response.
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.settings.max_wait = Some(wait);
        self
    }

    /// How many requests of one key may wait, from 1 to 10,000,000. Default 100,000. One more fails with
    /// [`RateLimitReason::Queue`](super::RateLimitReason::Queue).
    pub const fn max_queue(mut self, requests: usize) -> Self {
        self.settings.max_queue = requests;
        self
    }

    /// How many [interactive](crate::RequestClass) requests go for each batch request while both wait, from 0 to 1,000. Default 8.
    ///
    /// With 0 the classes are not told apart: all go in the order of arrival. In a [fleet](crate::fleet) a member whose
    /// interactive requests wait has so many times the share of one whose batch requests wait.
    pub const fn interactive_weight(mut self, requests: u32) -> Self {
        self.settings.interactive_weight = requests;
        self
    }

    /// How many keys have a state, from 1 to 1,000,000. Default 1,024.
    ///
    /// When another key comes, the state that is needed least is dropped: first one that no answer has taught anything
    /// (a 4xx other than 429 teaches nothing), then one that holds mere counts of its window or day. A state is needed
    /// while a call is under way or waits, while a door is closed or the day is spent, and for an hour after the last
    /// call where a limit was learnt. If all of them are needed, a call of a further key is bound by the limits that
    /// were set for it as if it were its key's only call, and nothing else: no key is ever bound by another one's state.
    /// The observer is told with [`Event::KeysExhausted`](crate::event::Event::KeysExhausted).
    pub const fn max_keys(mut self, keys: usize) -> Self {
        self.settings.max_keys = keys;
        self
    }

    /// Whether limits are learnt from the `quotaValue` of 429s. Default `true`.
    ///
    /// A learnt limit stands where none was configured, and lowers one that was too high. Now and then one call goes over
    /// it, so that a better tier is noticed within minutes: see [learnt limits](super#learnt-limits), also for what that
    /// costs. Doors are closed by 429s either way.
    pub const fn learn(mut self, learn: bool) -> Self {
        self.settings.learn = learn;
        self
    }

    /// How often one request may test a door that is closed for longer, from 1 s to a day. Default 5 minutes.
    ///
    /// A spent day or a quota of zero may be a mistake of the server's, or be mended by a payment: the first probe
    /// that is answered opens the door.
    pub const fn probe_every(mut self, interval: Duration) -> Self {
        self.settings.probe_every = interval;
        self
    }

    /// How requests are keyed. Default: [`QuotaKey::of`](super::QuotaKey::of), by label, model and place. The kind of
    /// call ([`Pool`](super::Pool)) is kept apart in any case.
    ///
    /// The closure sees the target alone, and is asked again only when the target changes.
    ///
    /// ```
    /// use tower_gemini::rate_limit::{Limits, RateLimitLayer};
    ///
    /// # fn main() -> Result<(), tower_gemini::ConfigError> {
    /// // One quota for all models together.
    /// let layer = RateLimitLayer::builder()
    ///     .limits(Limits::new().requests_per_minute(60))
    ///     .key_by(|target| target.key().without_model())
    ///     .build()?;
    /// # let _ = layer; Ok(()) }
    /// ```
    pub fn key_by(mut self, key: impl Fn(&Target<'_>) -> TargetKey + Send + Sync + 'static) -> Self {
        self.settings.key_by = Some(Arc::new(key));
        self
    }

    /// Keeps a quota of its own for each [service tier](crate::tier) of a model, where yours are counted apart. Default: all
    /// tiers draw on one, as the Gemini API has it
    /// ([priority](https://ai.google.dev/gemini-api/docs/priority-inference), read 2026-11-29): priority has limits of its
    /// own as well, but what goes over them is served as standard and not refused.
    pub const fn by_tier(mut self) -> Self {
        self.settings.by_tier = true;
        self
    }

    /// Where the calendar is read, for the Pacific day alone. Default: the system's clock, carried forward by tokio's.
    ///
    /// Tests set a date with it, and may let it leap.
    pub fn wall_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.settings.wall_clock = Some(Arc::new(clock));
        self
    }

    /// Who is told of refusals and of what 429s taught. Default nobody.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.settings.observer = Observed::by(observer);
        self
    }

    /// How long the minute of a limit per minute is, from 100 ms to an hour. Default 60 s, as it is with Google.
    ///
    /// For tests against a server whose minute is shorter. With a shorter one set a shorter [`guard`](Self::guard), too.
    pub const fn window(mut self, window: Duration) -> Self {
        self.settings.window = window;
        self
    }

    /// What calls cost, for limits that count [money](super::Unit::Money). Default: nothing is known, and such a limit is refused.
    pub fn prices(mut self, prices: Prices) -> Self {
        self.settings.prices = Some(prices);
        self
    }

    /// Shares all quotas with other processes, through a store: together they keep the limits that each of them is given
    /// here. See [`fleet`](crate::fleet). Default: none, and each layer has all of the limits for itself.
    #[cfg(feature = "fleet")]
    #[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
    pub fn store(mut self, store: impl Into<crate::fleet::Fleet>) -> Self {
        self.settings.fleet = Some(store.into());
        self
    }

    /// How input tokens are counted before the call. Default [`BySize`].
    pub fn estimate<F>(self, estimate: F) -> RateLimitBuilder<F> {
        RateLimitBuilder { settings: self.settings, estimate }
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// Names the first setting that is out of its range, and the range.
    pub fn build(self) -> Result<RateLimitLayer<E>, ConfigError> {
        let Self { settings, estimate } = self;
        settings.limits.check()?;
        settings.by_model.iter().try_for_each(|(_, limits)| limits.check())?;
        check_margin(settings.margin)?;
        check(settings.guard <= WINDOW, "guard", "must be at most 60 s")?;
        let windows = Duration::from_millis(100)..=Duration::from_secs(3600);
        check(windows.contains(&settings.window), "window", "must be from 100 ms to an hour")?;
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        check(settings.max_wait.is_none_or(|wait| wait <= YEAR), "max_wait", "must be at most a year")?;
        check((1..=10_000_000).contains(&settings.max_queue), "max_queue", "must be from 1 to 10,000,000")?;
        check(settings.interactive_weight <= 1_000, "interactive_weight", "must be at most 1,000")?;
        check((1..=1_000_000).contains(&settings.max_keys), "max_keys", "must be from 1 to 1,000,000")?;
        let interval = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
        check(interval.contains(&settings.probe_every), "probe_every", "must be from 1 s to a day")?;

        let rules = Rules {
            span: nanos(settings.window + settings.guard),
            margin: settings.margin,
            learn: settings.learn,
            probe_every: nanos(settings.probe_every),
            guard: nanos(settings.guard),
        };
        let wall_clock = settings.wall_clock.unwrap_or_else(|| Arc::new(time::wall_clock));
        let queue = (settings.max_queue, settings.max_wait, settings.mode);
        #[cfg(feature = "fleet")]
        if let Some(fleet) = &settings.fleet {
            fleet.check()?;
        }
        if let Some(prices) = &settings.prices {
            prices.check()?;
        }
        let keys = Keyed::new(settings.max_keys, LayerKind::RateLimit, settings.observer.clone());
        let mut common = Common::new(rules, queue, wall_clock, settings.observer);
        common.interactive_weight = settings.interactive_weight;
        common.prices = settings.prices.map(Arc::new);
        common.check(&settings.limits)?;
        settings.by_model.iter().try_for_each(|(_, limits)| common.check(limits))?;
        let config = Config {
            limits: settings.limits,
            by_model: settings.by_model.into_iter().collect(),
            ..Config::default()
        };
        let shared = |common: Common| Shared {
            common: Arc::new(common),
            keys,
            config: Mutex::new(config),
            key_by: settings.key_by,
            by_tier: settings.by_tier,
            enabled: settings.enabled,
            id: RngSource::default().stream().id(),
        };
        #[cfg(feature = "fleet")]
        let shared = Arc::new_cyclic(|weak| {
            let window = settings.window + settings.guard;
            let joined =
                |fleet| crate::rate_limit::fleet::Joined::new(fleet, window, std::sync::Weak::clone(weak));
            common.fleet = settings.fleet.map(joined);
            shared(common)
        });
        #[cfg(not(feature = "fleet"))]
        let shared = Arc::new(shared(common));
        Ok(RateLimitLayer { core: Arc::new(Core { shared, estimate }) })
    }
}

impl<E> fmt::Debug for RateLimitBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        f.debug_struct("RateLimitBuilder")
            .field("limits", &settings.limits)
            .field("by_model", &settings.by_model)
            .field("margin", &settings.margin)
            .field("guard", &settings.guard)
            .field("mode", &settings.mode)
            .field("max_wait", &settings.max_wait)
            .field("max_queue", &settings.max_queue)
            .field("learn", &settings.learn)
            .finish_non_exhaustive()
    }
}

fn check_margin(margin: f64) -> Result<(), ConfigError> {
    // Written so that NaN is outside.
    check(margin > 0.0 && margin <= 1.0, "margin", "must be above 0 and at most 1")
}

const fn check(holds: bool, field: &'static str, rule: &'static str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::new(field, rule)) }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bad_settings_name_the_field_and_the_rule() {
        let field = |builder: RateLimitBuilder| {
            let error = builder.build().expect_err("it is out of range");
            assert!(error.rule().starts_with("must be"), "{error}");
            error.field()
        };
        let builder = RateLimitLayer::builder;
        let limits = |limits| builder().limits(limits);
        assert_eq!(field(limits(Limits::new().requests_per_minute(0))), "requests_per_minute");
        assert_eq!(field(limits(Limits::new().requests_per_minute(u64::MAX))), "requests_per_minute");
        assert_eq!(field(limits(Limits::new().input_tokens_per_minute(0))), "input_tokens_per_minute");
        assert_eq!(field(limits(Limits::new().input_tokens_per_minute(1 << 50))), "input_tokens_per_minute");
        assert_eq!(field(limits(Limits::new().requests_per_day(0))), "requests_per_day");
        assert_eq!(field(builder().model_limits("m", Limits::new().requests_per_day(0))), "requests_per_day");
        for margin in [0.0, -0.5, 1.000_001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(field(builder().margin(margin)), "margin");
        }
        assert_eq!(field(builder().guard(Duration::from_secs(61))), "guard");
        assert_eq!(field(builder().window(Duration::from_millis(99))), "window");
        assert_eq!(field(builder().window(Duration::from_secs(3601))), "window");
        assert_eq!(field(builder().max_wait(Duration::MAX)), "max_wait");
        assert_eq!(field(builder().max_queue(0)), "max_queue");
        assert_eq!(field(builder().max_queue(usize::MAX)), "max_queue");
        assert_eq!(field(builder().interactive_weight(1_001)), "interactive_weight");
        assert_eq!(field(builder().max_keys(0)), "max_keys");
        assert_eq!(field(builder().probe_every(Duration::ZERO)), "probe_every");
        assert_eq!(field(builder().probe_every(Duration::MAX)), "probe_every");
        assert!(builder().margin(1e-9).guard(Duration::ZERO).build().is_ok());
    }
}
