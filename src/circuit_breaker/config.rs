use std::sync::Arc;
use std::time::Duration;

use super::circuit::{Common, KeyBy, Shared};
use super::layer::CircuitBreakerLayer;
use super::rules::Rules;
use super::{MAX_PROBES, SECOND, nanos};
use crate::error::ConfigError;
use crate::event::LayerKind;
use crate::event::circuit::BreakerMode;
use crate::event::{Observed, Observer};
use crate::keyed::{Keyed, MAX_KEYS};
use crate::request::{Target, TargetKey};
use crate::rng::RngSource;
use crate::sync::AtomicUsize;
use crate::time;
use crate::verdict::{Signal, Signals, Verdict};

/// Builds a [`CircuitBreakerLayer`]. Each setting has the default of the [module documentation](super).
#[must_use]
pub struct CircuitBreakerBuilder {
    enabled: bool,
    rules: Rules,
    slow: Option<(Duration, f64)>,
    fail_fast: bool,
    signals: Signals,
    key_by: Option<KeyBy>,
    max_keys: usize,
    observer: Observed,
    chance: RngSource,
}

impl CircuitBreakerBuilder {
    pub(super) fn new() -> Self {
        Self {
            enabled: true,
            rules: Rules {
                mode: BreakerMode::Automatic,
                window: 30 * SECOND,
                min_calls: 20,
                failure_share: 0.95,
                consecutive: 20,
                slow_share: f64::INFINITY,
                open: SECOND / 2,
                open_factor: 1.06,
                open_max: 10 * SECOND,
                max_server_delay: 300 * SECOND,
                probes: 4,
                successes: 1,
                lease: 120 * SECOND,
                ramp: 20 * SECOND,
            },
            slow: None,
            fail_fast: false,
            signals: Signals::default(),
            key_by: None,
            max_keys: MAX_KEYS,
            observer: Observed::default(),
            chance: RngSource::default(),
        }
    }

    /// Whether the layer does anything. Default `true`. With `false` each call passes through, nothing is counted or kept, and no
    /// state is made; the type is the same.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// The share of failures in the window at which a circuit opens, above 0 and at most 1. Default 0.95.
    ///
    /// Judged at each failure, if those that have ended are at least four of five of the calls that have started in
    /// that range, and if it is exceeded by more than chance explains: at 0.95, by 20 of 20 calls, 195 of 200, 961 of
    /// 1000; at 0.5, by 14 of 20, 31 of 50, 111 of 200.
    pub const fn failure_share(mut self, share: f64) -> Self {
        self.rules.failure_share = share;
        self
    }

    /// How many calls the window must hold before a share is judged, from 1. Default 20.
    pub const fn min_calls(mut self, calls: u32) -> Self {
        self.rules.min_calls = calls;
        self
    }

    /// How far back calls are counted, from 100 ms to one day. Default 30 s. The last tenth fades at once.
    pub const fn window(mut self, window: Duration) -> Self {
        self.rules.window = nanos(window);
        self
    }

    /// How many failures in a row open a circuit, whatever the window holds; from 1. Default 20, which a dead server
    /// makes in 20 calls.
    ///
    /// A row counts if it is at least four of five of the calls that have started since its first; a success of a call
    /// that began before the row does not end it. If all of it is of one [`KeyLabel`](crate::KeyLabel), the open circuit
    /// turns away only the requests of that label.
    ///
    /// Where each call fails independently with probability `p`, a row of `n` comes once in `(p^-n - 1) / (1 - p)`
    /// calls: with 20, once in 2.1 million at `p` = 0.5, in 68,000 at 0.6, in 4,200 at 0.7, in 429 at 0.8. With 13 it
    /// would be once in 16,000 at 0.5. A false alarm lasts until the first probe that succeeds.
    pub const fn consecutive_failures(mut self, failures: u32) -> Self {
        self.rules.consecutive = failures;
        self
    }

    /// Opens a circuit, too, when this share of the calls takes `threshold` or longer to the first byte, which is
    /// the response's head. The share is above 0 and at most 1, judged like
    /// [`failure_share`](Self::failure_share); the threshold is above zero. Default: slow calls do not matter.
    ///
    /// A slow probe fails. Each call then reads the clock twice more.
    pub const fn slow_calls(mut self, threshold: Duration, share: f64) -> Self {
        self.slow = Some((threshold, share));
        self
    }

    /// How long a circuit stays open: at first, and at the most. Default 0.5 s and 10 s. From 1 ms to one day.
    ///
    /// It is spread by 20 % either way, and still never longer than the most. Nor does it grow beyond the time in which twenty
    /// calls were made before the outage, so that a client with many calls finds out sooner.
    pub const fn open_time(mut self, first: Duration, most: Duration) -> Self {
        self.rules.open = nanos(first);
        self.rules.open_max = nanos(most);
        self
    }

    /// By how much each probe that fails or hangs lengthens the open time, from 1 to 10. Default 1.06, which reaches the
    /// longest after four minutes. What an outage has added is forgotten when the circuit closes.
    pub const fn open_time_factor(mut self, factor: f64) -> Self {
        self.rules.open_factor = factor;
        self
    }

    /// The longest delay of the server's own that a circuit stays open for, at most one day. Default 300 s; a longer
    /// one counts as this.
    pub const fn max_server_delay(mut self, delay: Duration) -> Self {
        self.rules.max_server_delay = nanos(delay);
        self
    }

    /// How many probes may be under way at once, from 1 to 8. Default 4. Each goes at least an open time after the one
    /// before it, or at once if none is under way, or if the oldest has lasted much longer than those that failed.
    pub const fn probes(mut self, probes: usize) -> Self {
        self.rules.probes = probes;
        self
    }

    /// How many probes must succeed for a circuit to close, from 1 to 1000. Default 1. One that fails opens it again.
    ///
    /// With 1, a probe also closes the circuit by lasting: when it has not failed within `2 * (4 * t + 100 ms)`, where
    /// `t` is the longest in which a probe of this outage failed. A server that refuses does so at once, and an answer
    /// may take a minute.
    pub const fn probe_successes(mut self, successes: u32) -> Self {
        self.rules.successes = successes;
        self
    }

    /// After how long a probe that has not ended counts as lost, from 1 ms to one day. Default 120 s, which is what a
    /// call may take. Its place is given to the next request, and what it ends with counts nothing.
    pub const fn probe_lease(mut self, lease: Duration) -> Self {
        self.rules.lease = nanos(lease);
        self
    }

    /// For how long after an outage the calls a second are limited, at most one hour; zero for not at all. Default 20 s.
    ///
    /// It begins with twice as many calls a second as before the outage if that was shorter than 90 s, and with a quarter of
    /// them beyond, at least 10 a second; and doubles four times over the ramp. A server that takes less than before is met at what it takes: each failure takes the ramp
    /// back by a second, and two successes make up for it, so that the rate falls where more than a third of the calls
    /// fail. After four times its length it is over, whatever fails.
    pub const fn ramp(mut self, ramp: Duration) -> Self {
        self.rules.ramp = nanos(ramp);
        self
    }

    /// The retry layer outside does not wait for an open circuit: it hands [`CircuitOpen`](super::CircuitOpen) on at
    /// once, which still says [until](super::CircuitOpen::until) when. For a server that would rather tell its callers
    /// when to come back than keep them. The short waits of the ramp after closing are waited for all the same.
    /// Default: it waits if the deadline permits.
    pub const fn fail_fast(mut self) -> Self {
        self.fail_fast = true;
        self
    }

    /// Every circuit begins in [`BreakerMode::ObserveOnly`]: it tells what it would do, and turns nobody away.
    pub const fn observe_only(mut self) -> Self {
        self.rules.mode = BreakerMode::ObserveOnly;
        self
    }

    /// Reads failures by another table than [`Verdict::signal`]. Successes, what the caller dropped, and requests that
    /// a layer of this process turned away, are not asked about.
    ///
    /// A circuit that leaves timeouts to a concurrency limit:
    ///
    /// ```
    /// use tower_gemini::circuit_breaker::CircuitBreakerLayer;
    /// use tower_gemini::verdict::Signal;
    ///
    /// let layer = CircuitBreakerLayer::builder()
    ///     .classify_with(|verdict| match verdict.signal() {
    ///         Signal::Timeout => Signal::Neutral,
    ///         signal => signal,
    ///     })
    ///     .build()?;
    /// # let _ = layer; Ok::<(), tower_gemini::ConfigError>(())
    /// ```
    pub const fn classify_with(mut self, table: fn(&Verdict) -> Signal) -> Self {
        self.signals = Signals::by(table);
        self
    }

    /// Which requests share a circuit. Default: those of one surface, model, project and location.
    ///
    /// Asked once for each change of target that a service meets, not for each request.
    pub fn key_by(mut self, key: impl Fn(&Target<'_>) -> TargetKey + Send + Sync + 'static) -> Self {
        self.key_by = Some(Arc::new(key));
        self
    }

    /// How many keys have a circuit, from 1 to a million. Default 1024.
    ///
    /// When another key comes, the circuit that is needed least is dropped: first one that has counted nothing, then
    /// one that is closed and only has some counts. If all of them are needed (open, half-open, ramping, forced, or
    /// with a call under way), a call of a further key goes through and counts nothing: no key is ever bound by another
    /// one's circuit. The observer is told with [`Event::KeysExhausted`](crate::event::Event::KeysExhausted).
    /// Circuits that are set [by hand](super::Circuits) are kept beyond the bound.
    pub const fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// Who is told of each change of a circuit, with [`Event::CircuitChanged`](crate::event::Event::CircuitChanged).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Observed::by(observer);
        self
    }

    /// Makes the spread of open times repeatable, for tests.
    pub fn seed(mut self, seed: u64) -> Self {
        self.chance = RngSource::seeded(seed);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, and the range.
    pub fn build(self) -> Result<CircuitBreakerLayer, ConfigError> {
        let mut rules = self.rules;
        check(&rules, self.max_keys)?;
        if let Some((threshold, share)) = self.slow {
            if threshold.is_zero() {
                return Err(ConfigError::new("slow_calls", "the threshold must be above zero"));
            }
            if !is_share(share) {
                return Err(ConfigError::new("slow_calls", "the share must be above 0 and at most 1"));
            }
            rules.slow_share = share;
        }
        let keyed = Keyed::new(self.max_keys, LayerKind::CircuitBreaker, self.observer.clone());
        let common = Arc::new(Common {
            enabled: self.enabled,
            rules,
            slow: self.slow.map(|(threshold, _)| threshold),
            fail_fast: self.fail_fast,
            signals: self.signals,
            observer: self.observer,
            chance: self.chance,
            epoch: time::now(),
            unwell: AtomicUsize::new(0),
        });
        let shared = Shared { common, keyed, key_by: self.key_by };
        Ok(CircuitBreakerLayer { shared: Arc::new(shared) })
    }
}

fn check(rules: &Rules, max_keys: usize) -> Result<(), ConfigError> {
    const MILLISECOND: u64 = SECOND / 1000;
    const DAY: u64 = 86_400 * SECOND;
    let up_to_a_day = |least| move |nanos: u64| (least..=DAY).contains(&nanos);
    let from_a_millisecond = up_to_a_day(MILLISECOND);
    let broken = match () {
        () if !is_share(rules.failure_share) => ("failure_share", "must be above 0 and at most 1"),
        () if rules.min_calls == 0 => ("min_calls", "must be at least 1"),
        () if !up_to_a_day(100 * MILLISECOND)(rules.window) => ("window", "must be from 100 ms to one day"),
        () if rules.consecutive == 0 => ("consecutive_failures", "must be at least 1"),
        () if !from_a_millisecond(rules.open) => ("open_time", "must be from 1 ms to one day"),
        () if !(rules.open..=DAY).contains(&rules.open_max) => {
            ("open_time", "the most must be at least the first, and at most one day")
        }
        // Not `f < 1.0 || f > 10.0`, through which NaN would slip.
        () if !(1.0..=10.0).contains(&rules.open_factor) => ("open_time_factor", "must be from 1 to 10"),
        () if rules.max_server_delay > DAY => ("max_server_delay", "must be at most one day"),
        () if !(1..=MAX_PROBES).contains(&rules.probes) => ("probes", "must be from 1 to 8"),
        () if !(1..=1000).contains(&rules.successes) => ("probe_successes", "must be from 1 to 1000"),
        () if !from_a_millisecond(rules.lease) => ("probe_lease", "must be from 1 ms to one day"),
        () if rules.ramp > 3600 * SECOND => ("ramp", "must be at most one hour"),
        () if !(1..=1_000_000).contains(&max_keys) => ("max_keys", "must be from 1 to a million"),
        () => return Ok(()),
    };
    Err(ConfigError::new(broken.0, broken.1))
}

fn is_share(share: f64) -> bool {
    share > 0.0 && share <= 1.0
}

impl std::fmt::Debug for CircuitBreakerBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CircuitBreakerBuilder").field("rules", &self.rules).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_name_the_field_and_the_rule() {
        let b = CircuitBreakerBuilder::new;
        let second = Duration::from_secs(1);
        for (builder, field) in [
            (b().failure_share(0.0), "failure_share"),
            (b().failure_share(1.1), "failure_share"),
            (b().failure_share(f64::NAN), "failure_share"),
            (b().min_calls(0), "min_calls"),
            (b().window(Duration::ZERO), "window"),
            (b().window(Duration::MAX), "window"),
            (b().consecutive_failures(0), "consecutive_failures"),
            (b().open_time(Duration::ZERO, second), "open_time"),
            (b().open_time(2 * second, second), "open_time"),
            (b().open_time(second, Duration::MAX), "open_time"),
            (b().open_time_factor(f64::NAN), "open_time_factor"),
            (b().open_time_factor(0.9), "open_time_factor"),
            (b().open_time_factor(f64::INFINITY), "open_time_factor"),
            (b().max_server_delay(Duration::MAX), "max_server_delay"),
            (b().probes(0), "probes"),
            (b().probes(9), "probes"),
            (b().probe_successes(0), "probe_successes"),
            (b().probe_lease(Duration::ZERO), "probe_lease"),
            (b().ramp(Duration::MAX), "ramp"),
            (b().slow_calls(Duration::ZERO, 0.5), "slow_calls"),
            (b().slow_calls(second, f64::NAN), "slow_calls"),
            (b().slow_calls(second, -0.1), "slow_calls"),
            (b().max_keys(0), "max_keys"),
        ] {
            let error = builder.build().expect_err(field);
            assert_eq!(error.field(), field);
            assert!(error.to_string().contains(error.rule()));
        }
        assert!(b().failure_share(1.0).slow_calls(second, 1.0).ramp(Duration::ZERO).build().is_ok());
    }
}
