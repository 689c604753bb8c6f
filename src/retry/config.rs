//! The policy: its settings, their defaults and their checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::ConfigError;
use super::backoff::Backoff;
use super::budget::Budget;
use super::progress::Progress;
use super::schedule::Schedule;
use crate::config::{BackoffConfig, RetryConfig, ScheduleConfig};
use crate::event::{Observed, Observer};
use crate::rng::RngSource;
use crate::verdict::{Kind, Verdict};

/// What to retry, how often and when. Cheap to clone; clones share the budget.
///
/// Made by [`RetryPolicy::builder`]; [`RetryPolicy::default`] has the defaults of the [module
/// documentation](super). For [`RetryLayer`](super::RetryLayer), or as it is for tower's own `Retry`.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    pub(super) settings: Arc<Settings>,
    /// The request that tower's `Retry` is working on, in the clone that it made for it.
    pub(super) progress: Progress,
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// 1 where the layer is not enabled.
    pub(super) attempts: u32,
    /// What was set, where it is not.
    disabled: Option<u32>,
    pub(super) quick_retries: u32,
    /// By `Kind as usize`. `None` is never.
    pub(super) schedules: [Option<Schedule>; Kind::ALL.len()],
    pub(super) max_server_delay: Duration,
    pub(super) server_delay_jitter: f64,
    pub(super) deadline: Option<Duration>,
    pub(super) maybe_processed_retries: u32,
    pub(super) empty_answers: u32,
    /// Of empty answers, which are of several kinds.
    pub(super) empty_backoff: Backoff,
    pub(super) budget: Option<Budget>,
    pub(super) max_body_bytes: usize,
    pub(super) chance: RngSource,
    pub(super) observer: Observed,
    /// Requests that had a failure, for their numbers.
    pub(super) failed_requests: Arc<AtomicU64>,
    /// See [`Settings::note_free_wait`].
    pub(super) free_waits: Arc<AtomicBool>,
}

/// Collects settings for a [`RetryPolicy`]; [`build`](Self::build) checks them.
#[derive(Clone, Debug)]
#[must_use]
pub struct RetryPolicyBuilder {
    settings: Settings,
    enabled: bool,
    never_retried: Option<Kind>,
}

impl RetryPolicy {
    /// A builder that starts with the defaults.
    pub fn builder() -> RetryPolicyBuilder {
        let second = Duration::from_secs;
        let general = Backoff::default();
        let mut schedules = [None; Kind::ALL.len()];
        for (kind, attempts, backoff) in [
            (Kind::RateLimited, None, general),
            (Kind::Overloaded, None, Backoff::new(second(2), second(60))),
            (Kind::Unavailable, None, general),
            (Kind::Transport, None, general),
            // Only where the verdict knows the precondition to come true by itself.
            (Kind::FailedPrecondition, None, general),
            // It may be the form that an over-long request takes; the budget bounds what those cost.
            (Kind::Internal, None, general),
            (Kind::Conflict, Some(3), general),
            // Each timeout costs the budget two tokens.
            (Kind::DeadlineExceeded, None, general),
            // Bounded by `maybe_processed_retries`, too.
            (Kind::Cancelled, None, general),
        ] {
            schedules[kind as usize] = Some(Schedule { attempts, backoff });
        }
        RetryPolicyBuilder {
            settings: Settings {
                attempts: 10,
                disabled: None,
                quick_retries: 3,
                schedules,
                max_server_delay: second(60),
                server_delay_jitter: 0.2,
                deadline: Some(second(120)),
                maybe_processed_retries: 1,
                empty_answers: 0,
                empty_backoff: general,
                budget: Some(Budget::default()),
                max_body_bytes: super::DEFAULT_MAX_BODY_BYTES,
                chance: RngSource::default(),
                observer: Observed::default(),
                failed_requests: Arc::default(),
                free_waits: Arc::default(),
            },
            enabled: true,
            never_retried: None,
        }
    }

    /// A builder that starts with this policy's settings, to change some of them. What it builds shares this one's
    /// budget, unless it is given another.
    ///
    /// ```
    /// use tower_gemini::stack::Preset;
    ///
    /// # fn main() -> Result<(), tower_gemini::ConfigError> {
    /// let preset = Preset::gateway().stack();
    /// let policy = preset.get_retry().policy().to_builder().attempts(5).build()?;
    /// # let _ = policy; Ok(()) }
    /// ```
    pub fn to_builder(&self) -> RetryPolicyBuilder {
        let mut settings = Settings::clone(&self.settings);
        let enabled = settings.disabled.is_none();
        settings.attempts = settings.disabled.take().unwrap_or(settings.attempts);
        RetryPolicyBuilder { settings, enabled, never_retried: None }
    }

    #[allow(
        clippy::field_reassign_with_default,
        reason = "one setting a line, some of them worked out between"
    )]
    pub(crate) fn config(&self) -> RetryConfig {
        let settings = &*self.settings;
        let mut config = RetryConfig::default();
        config.enabled = Some(settings.disabled.is_none());
        config.attempts = Some(settings.disabled.unwrap_or(settings.attempts));
        config.quick_retries = Some(settings.quick_retries);
        config.backoff = Some(BackoffConfig::of(settings.empty_backoff.parts()));
        let schedules =
            Kind::ALL.iter().filter_map(|kind| Some((*kind, settings.schedules[*kind as usize]?)));
        let of = |schedule: Schedule| {
            ScheduleConfig::of(schedule.attempts, BackoffConfig::of(schedule.backoff.parts()))
        };
        config.schedule = Some(schedules.map(|(kind, schedule)| (kind, of(schedule))).collect());
        config.max_server_delay = Some(settings.max_server_delay.into());
        config.server_delay_jitter = Some(settings.server_delay_jitter);
        config.deadline = Some(settings.deadline.map(Into::into).into());
        config.maybe_processed_retries = Some(settings.maybe_processed_retries);
        config.empty_answers = Some(settings.empty_answers);
        config.budget = Some(settings.budget.as_ref().map(Budget::config).into());
        config.max_body_bytes = Some(settings.max_body_bytes);
        config.seed = settings.chance.seed();
        config
    }

    /// Whether, and after which wait at least, this policy would send a request again whose first attempt just
    /// ended with this verdict, with its whole deadline ahead and a full budget.
    ///
    /// `None` says that it would not. Draws no randomness: the wait is the least possible one.
    #[must_use]
    pub fn would_retry(&self, verdict: &Verdict) -> Option<Duration> {
        self.settings.would_retry(verdict)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy::builder().build().expect("the defaults are valid: a test builds them")
    }
}

impl RetryPolicyBuilder {
    /// Whether anything is sent again. Default `true`. With `false` each call passes through once, and nothing is kept or counted;
    /// the type is the same.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Attempts in all, the first included and whatever their kinds. From 1 (never retry) to 100; default 10.
    /// A kind's [`schedule`](Self::schedule) may end a request earlier: by default `conflict` does, after 3. With a
    /// [`Budget`], attempts beyond the fifth are made only while it is at least half full.
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.settings.attempts = attempts;
        self
    }

    /// The backoff of every kind that is retried. Default 1 s, doubling, full jitter, cap 60 s, and from 2 s for
    /// `overloaded`. Replaces what [`schedule`](Self::schedule) set before, so call it first.
    ///
    /// Retries that come soon stay as they are, and this is the wait of those that follow them: with
    /// [`quick_retries(0)`](Self::quick_retries) it is the wait of all.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        for schedule in self.settings.schedules.iter_mut().flatten() {
            schedule.backoff = backoff;
        }
        self.settings.empty_backoff = backoff;
        self
    }

    /// How many of a request's retries come soon where other calls of the same host, model and key label have succeeded
    /// of late: after a 500 or 503 without a server delay, full jitter from 50 ms, doubling, cap 1 s. From 0 (always wait
    /// by the [`backoff`](Self::backoff)) to 100; default 3.
    ///
    /// They come soon while at least two in five of about the last eight calls have succeeded. That is learnt with the
    /// [`budget`](Self::budget): without one no retry comes soon, and a full bucket counts as all well. They are attempts
    /// and cost the budget like others. The retries that follow them wait by the backoff, from its beginning.
    ///
    /// [`backoff`](Self::backoff) and [`schedule`](Self::schedule) leave this setting as it is.
    pub const fn quick_retries(mut self, retries: u32) -> Self {
        self.settings.quick_retries = retries;
        self
    }

    /// Attempts and backoff of one kind. Default: the table of the [module documentation](super).
    ///
    /// Kinds that are never retryable (wrong keys, spent quotas, malformed requests …) cannot be given one.
    pub fn schedule(mut self, kind: Kind, schedule: Schedule) -> Self {
        match &mut self.settings.schedules[kind as usize] {
            Some(slot) => *slot = schedule,
            None => self.never_retried = Some(kind),
        }
        self
    }

    /// The longest server delay that is waited out, as declared. Default 60 s, which is the window of Gemini's
    /// per-minute limits. With a longer one the failure is handed on at once: a shortened wait would be a
    /// certain failure.
    pub const fn max_server_delay(mut self, delay: Duration) -> Self {
        self.settings.max_server_delay = delay;
        self
    }

    /// How far waits for the same server delay are spread, as a share of it: from 0 to 1, default 0.2. Added on
    /// top, so that no wait is shorter than the server asked.
    pub const fn server_delay_jitter(mut self, share: f64) -> Self {
        self.settings.server_delay_jitter = share;
        self
    }

    /// From the first call on, how long all attempts and waits may take together. Default 120 s. A
    /// [`Deadline`](crate::Deadline) in the request's extensions takes its place.
    ///
    /// No wait is begun that would end after it. A backoff that would is fitted into what is left: a quarter to three
    /// quarters of that, if at least 500 ms are left. A server's delay is never cut short. A call under way is not cut
    /// either: that is a timeout's work.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = Some(deadline);
        self
    }

    /// No deadline but the request's own.
    pub const fn without_deadline(mut self) -> Self {
        self.settings.deadline = None;
        self
    }

    /// How often a request is repeated that may have been processed and billed already: after a 499, or a connection
    /// lost in mid-request. Default 1.
    ///
    /// A timeout, the server's 504 as well as the client's own, is repeated like other failures if this is not 0: it
    /// may have been processed, too, but nothing came back in the time that the caller has, and a server that is
    /// merely slow for once is common. The budget bounds it: such a retry costs two tokens, and the second and further
    /// ones of a request are made only while the budget is at least half full. For fewer,
    /// `schedule(Kind::DeadlineExceeded, Schedule::new(2, backoff))`.
    ///
    /// 0 repeats nothing that may have been processed, timeouts included.
    pub const fn maybe_processed_retries(mut self, retries: u32) -> Self {
        self.settings.maybe_processed_retries = retries;
        self
    }

    /// How often a request is repeated whose answer was none: a 200 that is empty, that has nothing but a malformed or
    /// unexpected tool call, or that breaks off before there is anything to see. From 0 (never, the default) to 2.
    ///
    /// Off because each such answer is billed. Answers that were blocked, or whose thoughts have used up their tokens,
    /// are not repeated: they end the same way again. The attempts, the budget and the deadline count as for other
    /// failures; the wait is that of [`backoff`](Self::backoff).
    ///
    /// Needs a [`ClassifyLayer`](crate::classify::ClassifyLayer) inside with
    /// [`Peek::Output`](crate::classify::Peek::Output), which says what that costs, or with
    /// [`Peek::Whole`](crate::classify::Peek::Whole), under which answers that break off or end malformed behind their first words are repeated, too. Under another setting an answer is
    /// handed on before it is known to be empty, and then nothing is repeated. [`Attempts::billed`](super::Attempts::billed) tells how often that was paid for.
    pub const fn empty_answers(mut self, retries: u32) -> Self {
        self.settings.empty_answers = retries;
        self
    }

    /// The retry budget. Default 100 tokens, 3 for each success; see [`Budget`].
    pub fn budget(mut self, budget: Budget) -> Self {
        self.settings.budget = Some(budget);
        self
    }

    /// No retry budget. An outage then costs up to [`attempts`](Self::attempts) times the load.
    pub fn without_budget(mut self) -> Self {
        self.settings.budget = None;
        self
    }

    /// The largest request body, in bytes, that is kept for another attempt. Default 32 MiB. A larger one is
    /// sent once, and a failure that would have been retried says so
    /// ([`GaveUp::BodyTooLarge`](super::GaveUp::BodyTooLarge), [`Verdict::replay_refused`]).
    pub const fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_body_bytes = bytes;
        self
    }

    /// Makes the jitter repeatable, for tests: the n-th request to need it gets the n-th stream of this seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.chance = RngSource::seeded(seed);
        self
    }

    /// Layers inside will turn requests away: copies are kept from the first one on. See
    /// [`note_free_wait`](Settings::note_free_wait).
    pub(crate) fn expecting_free_waits(self) -> Self {
        self.settings.free_waits.store(true, Ordering::Relaxed);
        self
    }

    /// Who is told of failures, waits and surrenders.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.settings.observer = Observed::by(observer);
        self
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, and the range.
    pub fn build(self) -> Result<RetryPolicy, ConfigError> {
        let Self { mut settings, enabled, never_retried } = self;
        if !(1..=100).contains(&settings.attempts) {
            return Err(ConfigError::new("attempts", "must be from 1 to 100, the first one included"));
        }
        if settings.quick_retries > 100 {
            return Err(ConfigError::new("quick_retries", "must be from 0 to 100"));
        }
        if never_retried.is_some() {
            return Err(ConfigError::new("schedule", "must be for a kind that can be retried"));
        }
        for schedule in settings.schedules.iter().flatten() {
            if !(1..=100).contains(&schedule.attempts.unwrap_or(1)) {
                return Err(ConfigError::new(
                    "schedule.attempts",
                    "must be from 1 to 100, the first one included",
                ));
            }
            schedule.backoff.check("backoff")?;
        }
        if !(0.0..=1.0).contains(&settings.server_delay_jitter) {
            return Err(ConfigError::new("server_delay_jitter", "must be from 0 to 1"));
        }
        if settings.empty_answers > 2 {
            return Err(ConfigError::new("empty_answers", "must be from 0 to 2"));
        }
        if settings.max_server_delay > Duration::from_secs(86_400) {
            return Err(ConfigError::new("max_server_delay", "must be at most one day"));
        }
        if settings.deadline.is_some_and(|d| d.is_zero()) {
            return Err(ConfigError::new("deadline", "must be above zero"));
        }
        if !enabled {
            settings.disabled = Some(std::mem::replace(&mut settings.attempts, 1));
        }
        Ok(RetryPolicy { settings: Arc::new(settings), progress: Progress::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_settings_name_the_field_and_the_rule() {
        let b = RetryPolicy::builder;
        let zero = Backoff::new(Duration::ZERO, Duration::ZERO);
        for (builder, field) in [
            (b().attempts(0), "attempts"),
            (b().attempts(101), "attempts"),
            (b().quick_retries(101), "quick_retries"),
            (b().quick_retries(u32::MAX), "quick_retries"),
            (b().backoff(zero), "backoff"),
            (b().schedule(Kind::Internal, Schedule::new(0, Backoff::default())), "schedule.attempts"),
            (b().schedule(Kind::ApiKeyInvalid, Schedule::new(2, Backoff::default())), "schedule"),
            (b().server_delay_jitter(f64::NAN), "server_delay_jitter"),
            (b().server_delay_jitter(-0.1), "server_delay_jitter"),
            (b().max_server_delay(Duration::MAX), "max_server_delay"),
            (b().deadline(Duration::ZERO), "deadline"),
            (b().empty_answers(3), "empty_answers"),
        ] {
            let error = builder.build().expect_err(field);
            assert_eq!(error.field(), field);
            assert!(error.to_string().contains(error.rule()));
        }
    }

    #[test]
    fn a_builder_made_of_a_policy_changes_nothing_else() {
        let policy = RetryPolicy::builder().max_server_delay(Duration::from_secs(7)).build().expect("valid");
        let other = policy.to_builder().attempts(2).build().expect("valid");
        assert_eq!((policy.settings.attempts, other.settings.attempts), (10, 2));
        assert_eq!(other.settings.max_server_delay, Duration::from_secs(7));
    }

    #[test]
    fn the_largest_settings_are_valid() {
        let day = Duration::from_secs(86_400);
        let largest =
            RetryPolicy::builder().attempts(100).quick_retries(100).empty_answers(2).max_server_delay(day);
        assert!(largest.server_delay_jitter(1.0).build().is_ok());
    }

    #[test]
    fn the_defaults_are_valid() {
        let policy = RetryPolicy::default();
        assert_eq!((policy.settings.attempts, policy.settings.quick_retries), (10, 3));
        assert_eq!(policy.settings.max_body_bytes, 32 * 1024 * 1024);
    }
}
