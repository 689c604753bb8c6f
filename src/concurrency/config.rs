use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::AdaptiveConcurrencyLayer;
use crate::config::ConcurrencyConfig;
use crate::error::ConfigError;
use crate::event::{Observed, Observer};
use crate::keyed::MAX_KEYS;
use crate::request::{Target, TargetKey};
use crate::rng::RngSource;
use crate::verdict::{Signal, Signals, Verdict};

/// The numbers of the limit's arithmetic.
#[derive(Clone, Debug)]
pub(super) struct Tuning {
    /// Of the answers that came while a call timed out.
    pub(super) decrease: f64,
    /// Of a limit below one half.
    pub(super) paced_decrease: f64,
    /// Of a quick answer.
    pub(super) growth: f64,
    /// Of a round trip of fair answers.
    pub(super) increase: f64,
    pub(super) floor: f64,
    pub(super) pace: Duration,
    pub(super) cut_interval: Duration,
    pub(super) lift_after: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            decrease: 0.7,
            paced_decrease: 0.1,
            growth: 0.2,
            increase: 0.1,
            floor: 0.04,
            pace: Duration::from_secs(1),
            cut_interval: Duration::from_secs(5),
            lift_after: Duration::from_secs(120),
        }
    }
}

pub(super) type KeyBy = Arc<dyn Fn(&Target<'_>) -> TargetKey + Send + Sync>;

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) enabled: bool,
    pub(super) observe_only: bool,
    pub(super) tuning: Tuning,
    pub(super) max_wait: Duration,
    pub(super) max_queued: usize,
    pub(super) max_keys: usize,
    pub(super) key_by: Option<KeyBy>,
    pub(super) signals: Signals,
    pub(super) chance: RngSource,
    pub(super) observer: Observed,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            observe_only: false,
            tuning: Tuning::default(),
            max_wait: Duration::from_secs(120),
            max_queued: 100_000,
            max_keys: MAX_KEYS,
            key_by: None,
            signals: Signals::default(),
            chance: RngSource::default(),
            observer: Observed::default(),
        }
    }
}

impl Settings {
    #[allow(
        clippy::field_reassign_with_default,
        reason = "one setting a line, some of them worked out between"
    )]
    pub(super) fn config(&self) -> ConcurrencyConfig {
        let Tuning { decrease, paced_decrease, growth, increase, floor, pace, cut_interval, lift_after } =
            self.tuning;
        let mut config = ConcurrencyConfig::default();
        config.enabled = Some(self.enabled);
        config.observe_only = Some(self.observe_only);
        config.decrease = Some(decrease);
        config.paced_decrease = Some(paced_decrease);
        config.growth = Some(growth);
        config.increase = Some(increase);
        config.floor = Some(floor);
        config.pace = Some(pace.into());
        config.cut_interval = Some(cut_interval.into());
        config.lift_after = Some(lift_after.into());
        config.max_wait = Some(self.max_wait.into());
        config.max_queued = Some(self.max_queued);
        config.max_keys = Some(self.max_keys);
        config.seed = self.chance.seed();
        config
    }

    pub(super) fn key(&self, target: &Target<'_>) -> TargetKey {
        match &self.key_by {
            Some(key_by) => key_by(target),
            None => target.key().without_label(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("tuning", &self.tuning)
            .field("max_wait", &self.max_wait)
            .field("max_queued", &self.max_queued)
            .field("max_keys", &self.max_keys)
            .field("observer", &self.observer)
            .finish_non_exhaustive()
    }
}

/// Collects settings for an [`AdaptiveConcurrencyLayer`]; [`build`](Self::build) checks them.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct AdaptiveConcurrencyBuilder {
    settings: Settings,
}

impl AdaptiveConcurrencyBuilder {
    /// Whether the layer does anything. Default `true`. With `false` each call passes through, nothing is counted or kept, and no
    /// state is made; the type is the same.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.settings.enabled = enabled;
        self
    }

    /// Lets every call through and counts those that would have waited or been turned away, in
    /// [`ConcurrencyState::held`](super::ConcurrencyState::held). Default: it limits.
    ///
    /// Cuts are told and the limit moves as else, but by what happens without it: more calls are in flight than it would let through.
    pub const fn observe_only(mut self) -> Self {
        self.settings.observe_only = true;
        self
    }

    /// What a cut leaves of a limit above one call at a time: this share of the answers that came during the life of
    /// the call that timed out, but at least one call. From 0.1 to 0.9, default 0.7. What a server answers within one
    /// patience is what it can do in that time: with a share of 0.7, what is in flight then is answered in 0.7 of it.
    pub const fn decrease(mut self, share: f64) -> Self {
        self.settings.tuning.decrease = share;
        self
    }

    /// What a cut leaves of a limit below one half, as a share: from 0.01 to 0.9, default 0.1. The cut before it, from
    /// one call at a time, leaves one half. A small share lets a fleet of many processes, none of which knows of the
    /// others, leave a server whose capacity falls with its queue; a lone caller waits less with a large one.
    pub const fn paced_decrease(mut self, share: f64) -> Self {
        self.settings.tuning.paced_decrease = share;
        self
    }

    /// What a quick answer adds to a limit that is used and at least one, in calls: from 0.01 to 1, default 0.2. An
    /// answer is quick if it takes less than a quarter of the time after which calls time out. There are as many
    /// answers in a round trip as the limit has calls, so a limit grows by this share in one. Below one a quick answer
    /// makes the limit one, whatever this is.
    pub const fn growth(mut self, per_answer: f64) -> Self {
        self.settings.tuning.growth = per_answer;
        self
    }

    /// What one round trip of fair answers adds to a limit that is used, in calls: from 0.001 to 1, default 0.1. An
    /// answer is fair if it takes from a quarter to half of the time after which calls time out. Each adds this
    /// divided by the limit, or times the limit where that is below one. With 1, as in the textbook, the processes of a
    /// fleet outgrow the server together.
    pub const fn increase(mut self, per_round_trip: f64) -> Self {
        self.settings.tuning.increase = per_round_trip;
        self
    }

    /// What no cut goes below: from 0.001 to 1,000, default 0.04, which is one call in 25 s. With 1 there is no
    /// pace, and a fleet of more processes than the server can take calls at once may not recover.
    pub const fn floor(mut self, floor: f64) -> Self {
        self.settings.tuning.floor = floor;
        self
    }

    /// The gap between two calls that a limit just below one means; a limit of L means `pace / L`, ± 50 %, from
    /// start to start. From 1 ms to 1 min, default 1 s.
    pub const fn pace(mut self, pace: Duration) -> Self {
        self.settings.tuning.pace = pace;
        self
    }

    /// The least time between two cuts: at most 1 h, default 5 s. Calls that were admitted before a cut never
    /// cut again, so two cuts are at least as far apart as a call takes to time out. This setting has an effect where
    /// that is less: with an attempt timeout below 5 s, or a server that answers 504 sooner.
    pub const fn cut_interval(mut self, interval: Duration) -> Self {
        self.settings.tuning.cut_interval = interval;
        self
    }

    /// For how long a limit must have stood in nobody's way, and no call timed out, before it is lifted: from 1 s to
    /// 1 day, default 120 s. Make it at least the attempt timeout: what is in flight must have had the time to fail.
    pub const fn lift_after(mut self, quiet: Duration) -> Self {
        self.settings.tuning.lift_after = quiet;
        self
    }

    /// How long a request without a [`Deadline`](crate::Deadline) waits for its turn: at most 1 day, default 120 s;
    /// zero does not wait. A request with one waits until then.
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.settings.max_wait = wait;
        self
    }

    /// How many requests of one key wait at most. Default 100,000, some 100 bytes each beside the request itself;
    /// zero lets none wait.
    pub const fn max_queued(mut self, requests: usize) -> Self {
        self.settings.max_queued = requests;
        self
    }

    /// How many keys have a state: from 1 to 1,000,000, default 1,024.
    ///
    /// When another key comes, one without a limit and without a call in flight is dropped. If there is none, a call
    /// of a further key has no limit and counts for none: no key is ever bound by another one's limit. The observer
    /// is told with [`Event::KeysExhausted`](crate::event::Event::KeysExhausted).
    pub const fn max_keys(mut self, keys: usize) -> Self {
        self.settings.max_keys = keys;
        self
    }

    /// What shares a limit. Default: surface, model, project and location ([`TargetKey`] without its label: two
    /// keys of one model queue at the same servers). It must depend on its argument alone: it is not asked again
    /// while a service's requests go to the same target.
    pub fn key_by(mut self, key_by: impl Fn(&Target<'_>) -> TargetKey + Send + Sync + 'static) -> Self {
        self.settings.key_by = Some(Arc::new(key_by));
        self
    }

    /// How outcomes are read: which of them are a [`Signal::Timeout`] (cuts) and a [`Signal::Success`] (grows).
    /// Default [`Verdict::signal`].
    pub fn signals(mut self, table: fn(&Verdict) -> Signal) -> Self {
        self.settings.signals = Signals::by(table);
        self
    }

    /// Makes the spread of the pace repeatable, for tests: the n-th key to need it gets the n-th stream of this
    /// seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.chance = RngSource::seeded(seed);
        self
    }

    /// Who is told of cuts and of limits that are lifted.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.settings.observer = Observed::by(observer);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range (NaN included), and the range.
    pub fn build(self) -> Result<AdaptiveConcurrencyLayer, ConfigError> {
        let Settings { tuning, max_wait, max_keys, .. } = &self.settings;
        let day = Duration::from_secs(86_400);
        let rules = [
            ((0.1..=0.9).contains(&tuning.decrease), "decrease", "must be from 0.1 to 0.9"),
            ((0.01..=0.9).contains(&tuning.paced_decrease), "paced_decrease", "must be from 0.01 to 0.9"),
            ((0.01..=1.0).contains(&tuning.growth), "growth", "must be from 0.01 to 1"),
            ((0.001..=1.0).contains(&tuning.increase), "increase", "must be from 0.001 to 1"),
            ((0.001..=1000.0).contains(&tuning.floor), "floor", "must be from 0.001 to 1,000"),
            (
                (Duration::from_millis(1)..=Duration::from_secs(60)).contains(&tuning.pace),
                "pace",
                "must be from 1 ms to 1 min",
            ),
            (tuning.cut_interval <= Duration::from_secs(3600), "cut_interval", "must be at most 1 h"),
            (
                (Duration::from_secs(1)..=day).contains(&tuning.lift_after),
                "lift_after",
                "must be from 1 s to 1 day",
            ),
            (*max_wait <= day, "max_wait", "must be at most 1 day"),
            ((1..=1_000_000).contains(max_keys), "max_keys", "must be from 1 to 1,000,000"),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, rule)) => Err(ConfigError::new(field, rule)),
            None => Ok(AdaptiveConcurrencyLayer::of(self.settings)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_changes_nothing_else() {
        let seeded = AdaptiveConcurrencyBuilder::default().floor(0.0).seed(7);
        assert_eq!(seeded.build().expect_err("the floor is kept").field(), "floor");
    }

    #[test]
    fn bad_settings_name_the_field_and_the_rule() {
        let b = AdaptiveConcurrencyBuilder::default;
        for (builder, field) in [
            (b().decrease(f64::NAN), "decrease"),
            (b().decrease(0.0), "decrease"),
            (b().decrease(1.0), "decrease"),
            (b().paced_decrease(f64::NAN), "paced_decrease"),
            (b().paced_decrease(0.0), "paced_decrease"),
            (b().growth(f64::NAN), "growth"),
            (b().growth(0.009), "growth"),
            (b().growth(1.1), "growth"),
            (b().increase(f64::NAN), "increase"),
            (b().increase(0.0), "increase"),
            (b().increase(f64::INFINITY), "increase"),
            (b().floor(f64::NAN), "floor"),
            (b().floor(0.0), "floor"),
            (b().floor(-1.0), "floor"),
            (b().pace(Duration::ZERO), "pace"),
            (b().pace(Duration::MAX), "pace"),
            (b().cut_interval(Duration::MAX), "cut_interval"),
            (b().lift_after(Duration::ZERO), "lift_after"),
            (b().lift_after(Duration::MAX), "lift_after"),
            (b().max_wait(Duration::MAX), "max_wait"),
            (b().max_keys(0), "max_keys"),
        ] {
            let error = builder.build().expect_err(field);
            assert_eq!(error.field(), field);
            assert!(error.to_string().contains(error.rule()));
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        assert!(AdaptiveConcurrencyBuilder::default().build().is_ok());
    }
}
