//! The settings of each layer.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::{HeaderName, HumanDuration, OrOff, Over};
use crate::circuit_breaker::{CircuitBreakerBuilder, CircuitBreakerLayer};
use crate::classify::{ClassifyLayer, Peek};
use crate::concurrency::{AdaptiveConcurrencyBuilder, AdaptiveConcurrencyLayer};
use crate::error::ConfigError;
use crate::fallback::{ModelFallbackBuilder, ModelFallbackLayer};
use crate::retry::{Backoff, Budget, Jitter, RetryLayer, RetryPolicyBuilder, Schedule};
use crate::tier::ServiceTier;
use crate::timeout::{DeadlineLayer, TimeoutBuilder, TimeoutLayer};
use crate::verdict::Kind;

table! {
    /// `[deadline]`: how long a request may take in all. See [`DeadlineLayer`].
    DeadlineConfig {
        /// [`DeadlineLayer::enabled`].
        enabled: bool,
        /// [`DeadlineLayer::new`].
        within: HumanDuration,
        /// [`DeadlineLayer::flex`].
        flex: HumanDuration,
        /// [`DeadlineLayer::cap_given`].
        cap_given: bool,
    }
}

impl Over for DeadlineConfig {
    fn over(self, base: Self) -> Self {
        // As the layer's own default has it.
        let flex = self.flex.or(base.flex.max(self.within));
        Self { flex, ..self.over_each(base) }
    }
}

impl DeadlineConfig {
    pub(crate) fn of(within: Duration, flex: Duration, cap_given: bool, enabled: bool) -> Self {
        Self {
            enabled: Some(enabled),
            within: Some(within.into()),
            flex: Some(flex.into()),
            cap_given: Some(cap_given),
        }
    }

    /// The layer, of these settings and else the defaults.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, and the range.
    pub fn layer(&self) -> Result<DeadlineLayer, ConfigError> {
        let all = self.clone().over(DeadlineLayer::default().config());
        let mut layer = all
            .within
            .map_or_else(|| Ok(DeadlineLayer::default()), |within| DeadlineLayer::new(within.get()))?;
        if let Some(flex) = all.flex {
            layer = layer.flex(flex.get())?;
        }
        if all.cap_given == Some(true) {
            layer = layer.cap_given();
        }
        apply!(layer, all: enabled);
        Ok(layer)
    }
}

plain_table! {
    /// A backoff of the retries. See [`Backoff`].
    BackoffConfig {
        /// The wait before the first retry that waits.
        base: HumanDuration,
        /// The longest wait.
        cap: HumanDuration,
        /// How waits are spread: `"full"`, `"equal"`, `"decorrelated"`, or `{ proportional = 0.2 }`.
        jitter: Jitter,
    }
}

impl BackoffConfig {
    pub(crate) fn of((base, cap, jitter): (Duration, Duration, Jitter)) -> Self {
        Self { base: Some(base.into()), cap: Some(cap.into()), jitter: Some(jitter) }
    }

    fn backoff(&self) -> Backoff {
        let (base, cap, jitter) = Backoff::default().parts();
        let base = self.base.map_or(base, HumanDuration::get);
        Backoff::new(base, self.cap.map_or(cap, HumanDuration::get)).jitter(self.jitter.unwrap_or(jitter))
    }
}

plain_table! {
    /// How one kind of failure is retried. See [`Schedule`].
    ScheduleConfig {
        /// Attempts of a request that had this kind of failure, the first included. Default: as many as the policy has, but for
        /// `conflict`.
        attempts: u32,
        /// The wait before the first retry that waits.
        base: HumanDuration,
        /// The longest wait.
        cap: HumanDuration,
        /// How waits are spread, as in [`BackoffConfig::jitter`].
        jitter: Jitter,
    }
}

impl ScheduleConfig {
    pub(crate) fn of(attempts: Option<u32>, backoff: BackoffConfig) -> Self {
        Self { attempts, ..Self::default() }.waiting(backoff)
    }

    fn backoff(&self) -> BackoffConfig {
        BackoffConfig { base: self.base, cap: self.cap, jitter: self.jitter }
    }

    fn waiting(self, BackoffConfig { base, cap, jitter }: BackoffConfig) -> Self {
        Self { base, cap, jitter, ..self }
    }
}

plain_table! {
    /// The retry budget. See [`Budget`].
    BudgetConfig {
        /// Tokens when full, from 1 to 1,000,000.
        cap: u32,
        /// Tokens that a success pays in, above 0 and at most 100.
        per_success: f64,
        /// [`Budget::least_per_minute`].
        least_per_minute: u32,
    }
}

impl BudgetConfig {
    pub(crate) fn of(cap: u32, per_success: f64, least_per_minute: u32) -> Self {
        Self { cap: Some(cap), per_success: Some(per_success), least_per_minute: Some(least_per_minute) }
    }

    fn budget(self) -> Result<Budget, ConfigError> {
        let all = self.over(Budget::default().config());
        let (Some(cap), Some(per_success), Some(least)) = (all.cap, all.per_success, all.least_per_minute)
        else {
            unreachable!("the defaults are whole");
        };
        Budget::new(cap, per_success)?.least_per_minute(least)
    }
}

table! {
    /// `[retry]`: what is sent again, how often and when. See [`RetryPolicyBuilder`].
    RetryConfig {
        /// [`RetryPolicyBuilder::enabled`].
        enabled: bool,
        /// [`RetryPolicyBuilder::attempts`].
        attempts: u32,
        /// [`RetryPolicyBuilder::quick_retries`].
        quick_retries: u32,
        /// [`RetryPolicyBuilder::backoff`]. Members that are given count for all kinds of failure.
        backoff: BackoffConfig,
        /// [`RetryPolicyBuilder::schedule`], by the kind of failure.
        schedule: BTreeMap<Kind, ScheduleConfig>,
        /// [`RetryPolicyBuilder::max_server_delay`].
        max_server_delay: HumanDuration,
        /// [`RetryPolicyBuilder::server_delay_jitter`].
        server_delay_jitter: f64,
        /// [`RetryPolicyBuilder::deadline`], or off.
        deadline: OrOff<HumanDuration>,
        /// [`RetryPolicyBuilder::maybe_processed_retries`].
        maybe_processed_retries: u32,
        /// [`RetryPolicyBuilder::empty_answers`].
        empty_answers: u32,
        /// [`RetryPolicyBuilder::budget`], or off.
        budget: OrOff<BudgetConfig>,
        /// [`RetryPolicyBuilder::max_body_bytes`].
        max_body_bytes: usize,
        /// [`RetryPolicyBuilder::seed`].
        seed: u64,
    }
}

impl Over for RetryConfig {
    fn over(self, mut base: Self) -> Self {
        if let Some(backoff) = &self.backoff {
            for schedule in base.schedule.iter_mut().flat_map(BTreeMap::values_mut) {
                let own = backoff.clone().over(schedule.backoff());
                *schedule = std::mem::take(schedule).waiting(own);
            }
        }
        self.over_each(base)
    }
}

impl RetryConfig {
    /// A builder with these settings and else the defaults.
    ///
    /// # Errors
    ///
    /// Where a setting is out of its range already; else [`RetryPolicyBuilder::build`] says so.
    pub fn to_builder(&self) -> Result<RetryPolicyBuilder, ConfigError> {
        let all = self.clone().over(RetryLayer::default().config());
        let mut builder = crate::retry::RetryPolicy::builder();
        if let Some(backoff) = &all.backoff {
            builder = builder.backoff(backoff.backoff());
        }
        for (kind, schedule) in all.schedule.iter().flatten() {
            let backoff = schedule.backoff().backoff();
            let schedule = match schedule.attempts {
                Some(attempts) => Schedule::new(attempts, backoff),
                None => Schedule::waiting(backoff),
            };
            builder = builder.schedule(*kind, schedule);
        }
        builder = match all.deadline {
            Some(OrOff::Is(deadline)) => builder.deadline(deadline.get()),
            Some(OrOff::Off) => builder.without_deadline(),
            None => builder,
        };
        builder = match all.budget {
            Some(OrOff::Is(budget)) => builder.budget(budget.budget()?),
            Some(OrOff::Off) => builder.without_budget(),
            None => builder,
        };
        apply!(builder, all: enabled attempts quick_retries max_server_delay server_delay_jitter maybe_processed_retries
            empty_answers max_body_bytes seed);
        Ok(builder)
    }
}

plain_table! {
    /// `[concurrency]`: the limit of calls in flight. See [`AdaptiveConcurrencyBuilder`].
    ConcurrencyConfig {
        /// [`AdaptiveConcurrencyBuilder::enabled`].
        enabled: bool,
        /// [`AdaptiveConcurrencyBuilder::observe_only`].
        observe_only: bool,
        /// [`AdaptiveConcurrencyBuilder::decrease`].
        decrease: f64,
        /// [`AdaptiveConcurrencyBuilder::paced_decrease`].
        paced_decrease: f64,
        /// [`AdaptiveConcurrencyBuilder::growth`].
        growth: f64,
        /// [`AdaptiveConcurrencyBuilder::increase`].
        increase: f64,
        /// [`AdaptiveConcurrencyBuilder::floor`].
        floor: f64,
        /// [`AdaptiveConcurrencyBuilder::pace`].
        pace: HumanDuration,
        /// [`AdaptiveConcurrencyBuilder::cut_interval`].
        cut_interval: HumanDuration,
        /// [`AdaptiveConcurrencyBuilder::lift_after`].
        lift_after: HumanDuration,
        /// [`AdaptiveConcurrencyBuilder::max_wait`].
        max_wait: HumanDuration,
        /// [`AdaptiveConcurrencyBuilder::max_queued`].
        max_queued: usize,
        /// [`AdaptiveConcurrencyBuilder::max_keys`].
        max_keys: usize,
        /// [`AdaptiveConcurrencyBuilder::seed`].
        seed: u64,
    }
}

impl ConcurrencyConfig {
    /// A builder with these settings and else the defaults.
    pub fn to_builder(&self) -> AdaptiveConcurrencyBuilder {
        let mut builder = AdaptiveConcurrencyLayer::builder();
        if self.observe_only == Some(true) {
            builder = builder.observe_only();
        }
        apply!(builder, self: enabled decrease paced_decrease growth increase floor pace cut_interval lift_after max_wait
            max_queued max_keys seed);
        builder
    }
}

plain_table! {
    /// How long a circuit stays open. See [`CircuitBreakerBuilder::open_time`].
    OpenTimeConfig {
        /// At first.
        first: HumanDuration,
        /// At the most.
        most: HumanDuration,
    }
}

impl OpenTimeConfig {
    pub(crate) fn of(first: Duration, most: Duration) -> Self {
        Self { first: Some(first.into()), most: Some(most.into()) }
    }
}

plain_table! {
    /// Which calls are slow, and how many of them open a circuit. See [`CircuitBreakerBuilder::slow_calls`]. Both members must
    /// be there.
    SlowCallsConfig {
        /// From how long on a call is slow.
        threshold: HumanDuration,
        /// The share of calls that opens the circuit.
        share: f64,
    }
}

impl SlowCallsConfig {
    pub(crate) fn of(threshold: Duration, share: f64) -> Self {
        Self { threshold: Some(threshold.into()), share: Some(share) }
    }
}

plain_table! {
    /// `[circuit_breaker]`: when a model is not asked any more. See [`CircuitBreakerBuilder`].
    CircuitBreakerConfig {
        /// [`CircuitBreakerBuilder::enabled`].
        enabled: bool,
        /// [`CircuitBreakerBuilder::failure_share`].
        failure_share: f64,
        /// [`CircuitBreakerBuilder::min_calls`].
        min_calls: u32,
        /// [`CircuitBreakerBuilder::window`].
        window: HumanDuration,
        /// [`CircuitBreakerBuilder::consecutive_failures`].
        consecutive_failures: u32,
        /// [`CircuitBreakerBuilder::slow_calls`], or off.
        slow_calls: OrOff<SlowCallsConfig>,
        /// [`CircuitBreakerBuilder::open_time`].
        open_time: OpenTimeConfig,
        /// [`CircuitBreakerBuilder::open_time_factor`].
        open_time_factor: f64,
        /// [`CircuitBreakerBuilder::max_server_delay`].
        max_server_delay: HumanDuration,
        /// [`CircuitBreakerBuilder::probes`].
        probes: usize,
        /// [`CircuitBreakerBuilder::probe_successes`].
        probe_successes: u32,
        /// [`CircuitBreakerBuilder::probe_lease`].
        probe_lease: HumanDuration,
        /// [`CircuitBreakerBuilder::ramp`].
        ramp: HumanDuration,
        /// [`CircuitBreakerBuilder::fail_fast`].
        fail_fast: bool,
        /// [`CircuitBreakerBuilder::observe_only`].
        observe_only: bool,
        /// [`CircuitBreakerBuilder::max_keys`].
        max_keys: usize,
        /// [`CircuitBreakerBuilder::seed`].
        seed: u64,
    }
}

impl CircuitBreakerConfig {
    /// A builder with these settings and else the defaults.
    ///
    /// # Errors
    ///
    /// Where one of two settings that belong together is missing; else [`CircuitBreakerBuilder::build`] says what is wrong.
    pub fn to_builder(&self) -> Result<CircuitBreakerBuilder, ConfigError> {
        let all = self.clone().over(CircuitBreakerLayer::default().config());
        let mut builder = CircuitBreakerLayer::builder();
        if let Some(OrOff::Is(SlowCallsConfig { threshold, share })) = all.slow_calls {
            let (Some(threshold), Some(share)) = (threshold, share) else {
                return Err(ConfigError::new("slow_calls", "must have both threshold and share"));
            };
            builder = builder.slow_calls(threshold.get(), share);
        }
        if let Some(OpenTimeConfig { first: Some(first), most: Some(most) }) = all.open_time {
            builder = builder.open_time(first.get(), most.get());
        }
        if all.fail_fast == Some(true) {
            builder = builder.fail_fast();
        }
        if all.observe_only == Some(true) {
            builder = builder.observe_only();
        }
        apply!(builder, all: enabled failure_share min_calls window consecutive_failures open_time_factor max_server_delay probes
            probe_successes probe_lease ramp max_keys seed);
        Ok(builder)
    }
}

plain_table! {
    /// `[timeout]`: how long one attempt may take. See [`TimeoutBuilder`].
    TimeoutConfig {
        /// [`TimeoutBuilder::enabled`].
        enabled: bool,
        /// [`TimeoutBuilder::first_byte`], or off.
        first_byte: OrOff<HumanDuration>,
        /// [`TimeoutBuilder::max_first_byte`].
        max_first_byte: HumanDuration,
        /// [`TimeoutBuilder::idle`], or off.
        idle: OrOff<HumanDuration>,
        /// [`TimeoutBuilder::total`], or off.
        total: OrOff<HumanDuration>,
        /// [`TimeoutBuilder::tier_first_byte`], by the tier: `flex` or `priority`.
        tier_first_byte: BTreeMap<ServiceTier, HumanDuration>,
        /// [`TimeoutBuilder::tier_total`], by the tier: `flex` or `priority`.
        tier_total: BTreeMap<ServiceTier, HumanDuration>,
        /// Whether the server is told; `false` is [`TimeoutBuilder::without_server_timeout`].
        server_timeout: bool,
    }
}

impl TimeoutConfig {
    /// A builder with these settings and else the defaults.
    pub fn to_builder(&self) -> TimeoutBuilder {
        let all = self.clone();
        let mut builder = TimeoutLayer::builder();
        builder = match all.first_byte {
            Some(OrOff::Is(limit)) => builder.first_byte(limit.get()),
            Some(OrOff::Off) => builder.without_first_byte(),
            None => builder,
        };
        builder = match all.idle {
            Some(OrOff::Is(limit)) => builder.idle(limit.get()),
            Some(OrOff::Off) => builder.without_idle(),
            None => builder,
        };
        if let Some(OrOff::Is(limit)) = all.total {
            builder = builder.total(limit.get());
        }
        for (tier, limit) in all.tier_first_byte.into_iter().flatten() {
            builder = builder.tier_first_byte(tier, limit.get());
        }
        for (tier, limit) in all.tier_total.into_iter().flatten() {
            builder = builder.tier_total(tier, limit.get());
        }
        if all.server_timeout == Some(false) {
            builder = builder.without_server_timeout();
        }
        apply!(builder, all: enabled max_first_byte);
        builder
    }
}

plain_table! {
    /// `[classify]`: what is read of answers. See [`ClassifyLayer`].
    ClassifyConfig {
        /// [`ClassifyLayer::enabled`].
        enabled: bool,
        /// [`ClassifyLayer::max_error_bytes`].
        max_error_bytes: usize,
        /// [`ClassifyLayer::read_timeout`].
        read_timeout: HumanDuration,
        /// [`ClassifyLayer::peek`]: `"off"`, `"first_event"`, `"output"` or `"whole"`.
        peek: Peek,
        /// [`ClassifyLayer::watch`].
        watch: bool,
    }
}

impl ClassifyConfig {
    /// The layer, of these settings and else the defaults.
    pub fn layer(&self) -> ClassifyLayer {
        let mut layer = ClassifyLayer::new();
        apply!(layer, self: enabled max_error_bytes read_timeout peek);
        if self.watch == Some(true) { layer.watch() } else { layer }
    }
}

plain_table! {
    /// `[fallback]`: which models stand in for which. See [`ModelFallbackBuilder`].
    FallbackConfig {
        /// [`ModelFallbackBuilder::enabled`].
        enabled: bool,
        /// [`ModelFallbackBuilder::chain`]: the models that stand in, by the model that is asked.
        chain: BTreeMap<String, Vec<String>>,
        /// [`ModelFallbackBuilder::tier_ladder`]: the tiers that stand in, by the tier that is asked.
        tier_ladder: BTreeMap<ServiceTier, Vec<ServiceTier>>,
        /// [`ModelFallbackBuilder::larger_context`].
        larger_context: Vec<String>,
        /// [`ModelFallbackBuilder::header`].
        header: HeaderName,
    }
}

impl FallbackConfig {
    /// A builder with these settings.
    pub fn to_builder(&self) -> ModelFallbackBuilder {
        let mut builder = ModelFallbackLayer::builder();
        apply!(builder, self: enabled);
        for (model, others) in self.chain.iter().flatten() {
            builder = builder.chain(&**model, others.iter().map(String::as_str));
        }
        for (tier, others) in self.tier_ladder.iter().flatten() {
            builder = builder.tier_ladder(*tier, others.iter().copied());
        }
        for model in self.larger_context.iter().flatten() {
            builder = builder.larger_context(&**model);
        }
        match &self.header {
            Some(header) => builder.header(header.0.clone()),
            None => builder,
        }
    }
}
