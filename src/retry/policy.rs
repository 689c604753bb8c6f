//! Again, and when? The decision, its settings and their defaults.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Response;
use tokio::time::Instant;

use super::backoff::{Backoff, next_draw};
use super::budget::{Budget, Charge, Milli, Withdrawal};
use super::{ConfigError, GaveUp};
use crate::config::{BackoffConfig, RetryConfig, ScheduleConfig};
use crate::context::quota_wait::QuotaWait;
use crate::error::{BoxError, FailedProbe, ProbeFailed, Rejected, find};
use crate::event::{Observed, Observer};
use crate::rng::{RequestRng, RngSource};
use crate::verdict::{Kind, Retryability, Verdict};

/// What a request waits longer for those that turn it away, for each of its attempts: more than the timer's grain, and
/// nothing beside the waits themselves.
const YIELD: Duration = Duration::from_millis(10);
/// And at most so many times that, which is a fifth of a second.
const MOST_YIELDS: u32 = 20;

/// Attempts beyond these are made only while the budget is at least half full: what is left below that is kept for
/// requests that have tried less.
const EARLY_ATTEMPTS: u32 = 5;

/// Of a retry where most other calls succeed.
const QUICK: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// With less left of a deadline no backoff is fitted into it: the retry would hardly be answered in time.
const LEAST_LEFT: Duration = Duration::from_millis(500);

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
    schedules: [Option<Schedule>; Kind::ALL.len()],
    max_server_delay: Duration,
    server_delay_jitter: f64,
    pub(super) deadline: Option<Duration>,
    maybe_processed_retries: u32,
    empty_answers: u32,
    /// Of empty answers, which are of several kinds.
    empty_backoff: Backoff,
    pub(super) budget: Option<Budget>,
    pub(super) max_body_bytes: usize,
    chance: RngSource,
    pub(super) observer: Observed,
    /// Requests that had a failure, for their numbers.
    failed_requests: Arc<AtomicU64>,
    /// See [`Settings::note_free_wait`].
    free_waits: Arc<AtomicBool>,
}

/// How one kind of failure is retried.
///
/// ```
/// use std::time::Duration;
/// use tower_gemini::Kind;
/// use tower_gemini::retry::{Backoff, RetryPolicy, Schedule};
///
/// # fn main() -> Result<(), tower_gemini::retry::ConfigError> {
/// // A batch job would rather wait a minute for the model it wants.
/// let slow = Backoff::new(Duration::from_secs(20), Duration::from_secs(60));
/// let policy = RetryPolicy::builder().schedule(Kind::Overloaded, Schedule::new(5, slow)).build()?;
/// # let _ = policy; Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// `None` is as many as the policy has.
    attempts: Option<u32>,
    backoff: Backoff,
}

impl Schedule {
    /// This kind ends a request that has had `attempts` in all, the first and those of other kinds included,
    /// even where the policy has more. 1 never retries it.
    #[must_use]
    pub const fn new(attempts: u32, backoff: Backoff) -> Self {
        Self { attempts: Some(attempts), backoff }
    }

    /// As many attempts as the policy has, with this backoff.
    #[must_use]
    pub const fn waiting(backoff: Backoff) -> Self {
        Self { attempts: None, backoff }
    }
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
        let settings = &*self.settings;
        let progress = Progress { attempts: 1, ..Progress::default() };
        let is_quick = settings.quick_retries > 0 && settings.budget.is_some() && may_be_quick(verdict);
        let wait = settings.schedule(&progress, verdict, is_quick, |_| 0.0).ok()?;
        match settings.deadline {
            Some(deadline) if wait >= deadline => fitted(verdict, deadline, 0.0),
            _ => Some(wait),
        }
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
    /// ([`GaveUp::BodyTooLarge`], [`Verdict::replay_refused`]).
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

/// How far one request has come. Plain data: the future that holds it may be dropped at any time.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The request's number, once it had a failure; 0 before.
    pub(super) request: u64,
    /// Attempts that were sent and have ended.
    pub(super) attempts: u32,
    /// When the first attempt began; read late, see `future.rs`.
    pub(super) started: Option<Instant>,
    pub(super) maybe_processed: u32,
    /// Of the retries, those that came soon.
    pub(super) quick: u32,
    /// Of the attempts, those whose answer was none.
    pub(super) empty: u32,
    /// Rejections and failed probes in a row, none of them counted as an attempt.
    pub(super) rejections: u32,
    /// Attempts that were a circuit's probes and have failed; not counted as attempts.
    pub(super) probes: u32,
    /// An attempt ended with a zero that was left out and doubted: one that comes again is believed.
    pub(super) doubted: bool,
    /// Timeouts among the attempts.
    pub(super) timeouts: u32,
    /// When the next attempt was to begin, as the last failure was decided.
    pub(super) next_at: Option<Instant>,
    /// What retries that were sent took from the budget, to be given back if the request succeeds.
    pub(super) taken: Milli,
    /// Attempts that are left to models which come after this one.
    pub(super) reserved: u32,
    /// Attempts at which this model's are over, where another one may be called instead.
    pub(super) limit: Option<u32>,
    /// Drawn from at the first wait.
    pub(super) stream: Option<RequestRng>,
    /// For the last backoff.
    pub(super) drawn: Option<f64>,
    pub(super) waits: Vec<Duration>,
    pub(super) kinds: Vec<Kind>,
    /// Why the last call of the retry layer gave up.
    pub(super) gave_up: Option<GaveUp>,
    /// What a rate limit inside has said of the waits for quota.
    pub(super) quota: QuotaWait,
    /// It said so of the last failure.
    pub(super) is_quota: bool,
}

impl Progress {
    /// With no more attempts than these, where the caller has said how many.
    pub(super) fn at_most(mut self, attempts: u32) -> Self {
        if attempts != u32::MAX {
            self.limit = Some(self.limit.map_or(attempts, |limit| limit.min(attempts)));
        }
        self
    }

    /// An attempt has failed.
    pub(super) fn count(&mut self, verdict: &Verdict) {
        self.attempts += 1;
        self.kinds.extend(verdict.kind());
    }

    /// A probe that is not repeated after all, and is an attempt like any other.
    pub(super) fn count_probe(&mut self, verdict: &Verdict) {
        self.probes = self.probes.saturating_sub(1);
        self.count(verdict);
    }

    /// The wait after what is no attempt, where it may go again so far ahead.
    fn free_wait(&mut self, ahead: Duration) -> Duration {
        // Two layers that disagree about the time must not spin, so the n-th in a row waits 2ⁿ ms at the least, and at
        // most 1 s so.
        self.rejections = self.rejections.saturating_add(1);
        let floor = Duration::from_millis(1 << self.rejections.min(10));
        // The first to come back may be the probe that finds out whether the server is well. Where others wait who
        // have lost no attempt and been no probe yet, they go before.
        let behind = YIELD * self.attempts.saturating_add(self.probes).min(MOST_YIELDS);
        ahead.max(floor).saturating_add(behind)
    }
}

impl Clone for Progress {
    /// A clone of a policy is for another request: only the start is copied, which tower's `Retry` clones right
    /// after it was read.
    fn clone(&self) -> Self {
        Self { started: self.started, ..Self::default() }
    }
}

impl Progress {
    /// What a rate limit inside has to say of this failure.
    pub(super) fn said<RB>(result: &Result<Response<RB>, BoxError>) -> Option<QuotaWait> {
        match result {
            Ok(response) => QuotaWait::said(response),
            Err(error) => find::<Rejected>(error.as_ref()).and_then(Rejected::quota),
        }
    }

    /// The verdict of an attempt, without its doubt where an attempt before has left the same doubt.
    pub(super) fn believe<RB>(
        &mut self,
        verdict: Verdict,
        result: &mut Result<Response<RB>, BoxError>,
    ) -> Verdict {
        if !verdict.is_doubtful_zero() || !std::mem::replace(&mut self.doubted, true) {
            return verdict;
        }
        let verdict = verdict.believed();
        if let Ok(response) = result {
            response.extensions_mut().insert(verdict.clone());
        }
        verdict
    }

    pub(super) fn hear(&mut self, said: Option<QuotaWait>) {
        self.is_quota = said.is_some();
        self.quota = self.quota.and(said.unwrap_or_default());
    }

    /// The wait after this failure within what a rate limit inside allows.
    fn bound(&self, wait: Result<Duration, GaveUp>, verdict: &Verdict) -> Result<Duration, GaveUp> {
        if self.quota.first && matches!(wait, Ok(_) | Err(GaveUp::ServerDelay)) {
            // It waits in the queue, before all others.
            return Ok(Duration::ZERO);
        }
        let wait = wait?;
        let Some(left) = self.quota.left.filter(|_| self.is_quota) else { return Ok(wait) };
        match verdict.server_delay().filter(|_| verdict.kind() == Some(Kind::RateLimited)) {
            Some(delay) if delay.at_least() > left => Err(GaveUp::ServerDelay),
            Some(_) => Ok(wait.min(left)),
            // The quota may be back before its window is over, and certainly not at once.
            None if verdict.quota_window().is_some() && left.is_zero() => Err(GaveUp::ServerDelay),
            None if verdict.quota_window().is_some() => Ok(wait.min(left)),
            None => Ok(wait),
        }
    }
}

/// What an attempt ended with, apart from success.
pub(super) enum Failure<'a> {
    Verdict(&'a Verdict),
    /// Not sent; the verdict is for the observer.
    Rejected(&'a Rejected, &'a Verdict),
    /// Sent as a circuit's probe, which may be followed by another call from this instant on.
    Probe(Instant, &'a Verdict),
}

impl<'a> Failure<'a> {
    pub(super) fn verdict(&self) -> &'a Verdict {
        match self {
            Self::Verdict(verdict) | Self::Rejected(_, verdict) | Self::Probe(_, verdict) => verdict,
        }
    }

    /// Whether what follows is a wait for quota, and not for a server that is unwell.
    fn is_of_quota(&self) -> bool {
        match self {
            Self::Rejected(..) => true,
            Self::Probe(..) => false,
            Self::Verdict(verdict) => {
                verdict.kind() == Some(Kind::RateLimited)
                    && (verdict.server_delay().is_some() || verdict.quota_window().is_some())
            }
        }
    }

    pub(super) fn of<RB>(result: &'a Result<Response<RB>, BoxError>, verdict: &'a Verdict) -> Self {
        let error = match result {
            Ok(response) => {
                return match FailedProbe::of(response) {
                    Some(until) => Self::Probe(until, verdict),
                    None => Self::Verdict(verdict),
                };
            }
            Err(error) => error.as_ref(),
        };
        if let Some(probe) = find::<ProbeFailed>(error) {
            return Self::Probe(probe.until(), verdict);
        }
        match find::<Rejected>(error) {
            Some(rejected) => Self::Rejected(rejected, verdict),
            None => Self::Verdict(verdict),
        }
    }

    /// Whether the attempt was sent and counts.
    pub(super) const fn is_counted(&self) -> bool {
        matches!(self, Self::Verdict(_))
    }
}

/// What a draw is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Draw {
    Backoff,
    /// What goes on top of a delay that the server named.
    ServerDelay,
}

/// Send it again after `wait`, paying with `token` where the budget was charged.
#[derive(Debug)]
pub(super) struct Again {
    pub(super) wait: Duration,
    pub(super) token: Option<Withdrawal>,
}

impl Settings {
    /// Remembers that failures occur after which a wait is neither charged to the budget nor, of a rejection, an
    /// attempt. From the first one on a copy is kept also where only such a wait could need it: while the budget is
    /// empty, and of the last attempt. Where there are none, neither copy is paid for.
    pub(super) fn note_free_wait(&self, failure: &Failure<'_>) {
        let is_free = match failure {
            Failure::Rejected(rejected, _) => rejected.until().is_some(),
            Failure::Probe(..) => true,
            Failure::Verdict(verdict) => verdict.retryability() == Retryability::AfterServerDelay,
        };
        if is_free && !self.has_free_waits() {
            self.free_waits.store(true, Ordering::Relaxed);
        }
    }

    /// Relaxed: a call that does not see it yet keeps no copy, as the ones before it.
    pub(super) fn has_free_waits(&self) -> bool {
        self.free_waits.load(Ordering::Relaxed)
    }

    /// Gives a request its number, at its first failure.
    pub(super) fn number(&self, progress: &mut Progress) {
        if progress.request == 0 {
            // Relaxed: only distinct numbers are asked for.
            progress.request = self.failed_requests.fetch_add(1, Ordering::Relaxed) + 1;
        }
    }

    /// The attempts of a request in all, but for those that are left to models which come after this one.
    pub(super) fn most(&self, reserved: u32) -> u32 {
        self.attempts.saturating_sub(reserved).max(1)
    }

    /// The same, where the request has come so far.
    pub(super) fn most_here(&self, progress: &Progress) -> u32 {
        self.most(progress.reserved).min(progress.limit.unwrap_or(u32::MAX))
    }

    /// Decides about one failed attempt, which `progress` does not count yet, and counts it.
    ///
    /// `deadline` is absolute, `key` names the budget's bucket; both are asked for only when they matter.
    pub(super) fn decide(
        &self,
        progress: &mut Progress,
        failure: &Failure<'_>,
        now: Instant,
        deadline: Option<Instant>,
        mut key: impl FnMut() -> u64,
    ) -> Result<Again, GaveUp> {
        let (mut stream, mut drawn) = (progress.stream.take(), progress.drawn);
        let in_time = |wait: Duration| {
            let end = now.checked_add(wait);
            deadline.is_none_or(|deadline| end.is_some_and(|end| end < deadline))
        };
        let again = match failure {
            Failure::Rejected(rejected, _) => {
                let until = rejected.until().ok_or(GaveUp::Rejected)?;
                if progress.reserved > 0 && is_of_the_server(rejected) {
                    // Another model is left, which need not be waited for.
                    return Err(GaveUp::Rejected);
                }
                if progress.is_quota && !progress.quota.allows(until.saturating_duration_since(now)) {
                    return Err(GaveUp::Rejected);
                }
                let wait = progress.free_wait(until.saturating_duration_since(now));
                if !in_time(wait) {
                    return Err(GaveUp::Deadline);
                }
                Again { wait, token: None }
            }
            Failure::Probe(_, verdict) if progress.reserved > 0 => {
                progress.count(verdict);
                return Err(GaveUp::Attempts);
            }
            Failure::Probe(until, verdict) => {
                progress.probes += 1;
                let least = self.after_probe(progress, verdict);
                let wait =
                    least.map(|least| progress.free_wait(least.max(until.saturating_duration_since(now))));
                let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
                match wait {
                    Ok(wait)
                        if is_timeout(verdict)
                            && self.is_in_vain(progress, now, left.saturating_sub(wait), &mut key) =>
                    {
                        // Quiet processes would else keep a full server full by their probes alone.
                        progress.count_probe(verdict);
                        return Err(GaveUp::Deadline);
                    }
                    Ok(wait) if in_time(wait) => {
                        progress.maybe_processed += u32::from(may_be_lost(verdict));
                        Again { wait, token: None }
                    }
                    end => {
                        progress.count_probe(verdict);
                        return Err(end.err().unwrap_or(GaveUp::Deadline));
                    }
                }
            }
            Failure::Verdict(verdict) => {
                progress.count(verdict);
                progress.rejections = 0;
                let draw = |what| {
                    let mut unit = || stream.get_or_insert_with(|| self.chance.stream()).unit();
                    match what {
                        Draw::Backoff => *drawn.insert(next_draw(drawn, unit)),
                        Draw::ServerDelay => unit(),
                    }
                };
                let is_quick = self.is_quick(progress, verdict, &mut key);
                if progress.reserved > 0 && !is_quick && may_be_quick(verdict) {
                    // Another model is left, and it costs less than a wait for this one.
                    return Err(GaveUp::Attempts);
                }
                let wait = progress.bound(self.schedule(progress, verdict, is_quick, draw), verdict)?;
                let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
                let wait = if in_time(wait) {
                    wait
                } else {
                    fitted(verdict, left, drawn.unwrap_or(0.5)).ok_or(GaveUp::Deadline)?
                };
                if is_timeout(verdict) && self.is_in_vain(progress, now, left.saturating_sub(wait), &mut key)
                {
                    return Err(GaveUp::Deadline);
                }
                progress.quick += u32::from(is_quick);
                progress.maybe_processed += u32::from(may_be_lost(verdict));
                progress.timeouts += u32::from(is_timeout(verdict));
                progress.empty += u32::from(verdict.is_no_answer());
                // A server that names the time itself expects the retry: that is no load to be bounded, and
                // waits for quota would starve the retries of real faults.
                let token = match &self.budget {
                    Some(budget)
                        if verdict.retryability() != Retryability::AfterServerDelay
                            && !progress.quota.first =>
                    {
                        Some(budget.withdraw(key(), charge(progress, verdict), now).ok_or(GaveUp::Budget)?)
                    }
                    _ => None,
                };
                Again { wait, token }
            }
        };
        (progress.stream, progress.drawn) = (stream, drawn);
        if progress.is_quota && failure.is_of_quota() {
            progress.quota.spend(again.wait);
        }
        progress.waits.push(again.wait);
        progress.next_at = now.checked_add(again.wait);
        Ok(again)
    }

    /// Whether an attempt with so much time left would only be one more timeout: the one before it had longer, and another
    /// request's timeout was followed by no success yet, or few others of late have had an answer. Where a share `p` of calls times out by
    /// chance, that is wrong for `p²` of them at the most. A server that works on calls in their order finishes none of it then, and every
    /// such call makes those behind it late.
    fn is_in_vain(
        &self,
        progress: &Progress,
        now: Instant,
        left: Duration,
        mut key: impl FnMut() -> u64,
    ) -> bool {
        let began = progress.next_at.or(progress.started);
        began.is_some_and(|began| left < now.saturating_duration_since(began))
            && self.budget.as_ref().is_some_and(|budget| {
                let key = key();
                !budget.is_well(key) || budget.late_row(key) > progress.timeouts
            })
    }

    /// Whether the failure looks like chance: most other calls of late have succeeded, so nothing is gained by waiting
    /// long, and the server has room. Where few succeed it is the server that needs the time.
    fn is_quick(&self, progress: &Progress, verdict: &Verdict, mut key: impl FnMut() -> u64) -> bool {
        progress.quick < self.quick_retries
            && may_be_quick(verdict)
            && self.budget.as_ref().is_some_and(|budget| budget.is_well(key()))
    }

    /// The wait before the next attempt, by kind and count alone.
    pub(super) fn schedule(
        &self,
        progress: &Progress,
        verdict: &Verdict,
        is_quick: bool,
        mut draw: impl FnMut(Draw) -> f64,
    ) -> Result<Duration, GaveUp> {
        let schedule = self.schedule_of(progress, verdict)?;
        let most = self.most_here(progress);
        if progress.attempts >= schedule.attempts.unwrap_or(most).min(most) {
            return Err(GaveUp::Attempts);
        }
        self.may_repeat(progress, verdict)?;
        if is_quick {
            return Ok(QUICK.delay(progress.quick, None, draw(Draw::Backoff)));
        }
        let retry = progress.attempts.saturating_sub(1 + progress.quick);
        let own = schedule.backoff.delay(retry, progress.waits.last().copied(), draw(Draw::Backoff));
        // The quota of a minute that is named without a delay is back after a minute. Nobody has promised it, so a wait
        // that would end at the deadline is fitted.
        let Some(least) = self.server_delay(verdict)?.or(verdict.quota_window()) else { return Ok(own) };
        // Never early: the jitter goes on top, and the own backoff only lengthens it (a server that keeps
        // failing after its own delay is given more time; google.rpc.RetryInfo asks for that).
        Ok(own.max(least) + least.mul_f64(self.server_delay_jitter * draw(Draw::ServerDelay)))
    }

    /// The least wait after a failed probe, where such a failure is repeated at all.
    fn after_probe(&self, progress: &Progress, verdict: &Verdict) -> Result<Duration, GaveUp> {
        if self.schedule_of(progress, verdict)?.attempts == Some(1) {
            return Err(GaveUp::Attempts);
        }
        self.may_repeat(progress, verdict)?;
        Ok(self.server_delay(verdict)?.unwrap_or_default())
    }

    /// By which schedule such a failure is repeated.
    fn schedule_of(&self, progress: &Progress, verdict: &Verdict) -> Result<Schedule, GaveUp> {
        let kind = verdict.kind().ok_or(GaveUp::NotRetryable)?;
        if verdict.after_output() {
            return Err(GaveUp::AfterOutput);
        }
        match verdict.retryability() {
            Retryability::Never if verdict.is_no_answer() && self.empty_answers > 0 => {
                if progress.empty >= self.empty_answers {
                    return Err(GaveUp::Attempts);
                }
                Ok(Schedule::waiting(self.empty_backoff))
            }
            Retryability::Never => Err(GaveUp::NotRetryable),
            _ if is_gone(verdict) => Err(GaveUp::NotRetryable),
            _ => self.schedules[kind as usize].ok_or(GaveUp::NotRetryable),
        }
    }

    /// What may have been processed is repeated so often.
    fn may_repeat(&self, progress: &Progress, verdict: &Verdict) -> Result<(), GaveUp> {
        let most = self.maybe_processed_retries;
        let is_over = if is_timeout(verdict) { most == 0 } else { progress.maybe_processed >= most };
        if verdict.maybe_processed() && is_over { Err(GaveUp::MaybeProcessed) } else { Ok(()) }
    }

    /// What the server asks for, where it asks.
    fn server_delay(&self, verdict: &Verdict) -> Result<Option<Duration>, GaveUp> {
        match verdict.server_delay() {
            Some(delay) if delay.declared() > self.max_server_delay => Err(GaveUp::ServerDelay),
            delay => Ok(delay.map(|delay| delay.at_least())),
        }
    }
}

/// What the next attempt costs, after this failure, which `progress` counts already.
fn charge(progress: &Progress, verdict: &Verdict) -> Charge {
    let is_late = progress.attempts >= EARLY_ATTEMPTS;
    if is_timeout(verdict) {
        Charge::TIMEOUT.late(is_late || progress.timeouts > 1)
    } else {
        Charge::FAILURE.late(is_late)
    }
}

/// A wait that ends in time, in the place of a backoff that would not: from a quarter to three quarters of what is left
/// of the deadline, by the draw. Never longer than the backoff, which is at least what is left.
///
/// `None` where a server asks for the wait, which is never cut, or where too little is left.
fn fitted(verdict: &Verdict, left: Duration, draw: f64) -> Option<Duration> {
    let may_be_fitted = verdict.server_delay().is_none() && left >= LEAST_LEFT;
    may_be_fitted.then(|| left.mul_f64(0.25 + 0.5 * draw))
}

/// A failure of the server's own that can be over the next moment, and of which it does not say how long it lasts.
fn may_be_quick(verdict: &Verdict) -> bool {
    matches!(verdict.kind(), Some(Kind::Internal | Kind::Unavailable | Kind::Overloaded))
        && verdict.server_delay().is_none()
}

/// A layer of this process turns the request away because the model's server is unwell: its circuit is open.
fn is_of_the_server(rejected: &Rejected) -> bool {
    matches!(rejected.kind(), Some(Kind::Unavailable | Kind::Overloaded))
}

/// Nothing came back in time, by the server's clock or the client's.
fn is_timeout(verdict: &Verdict) -> bool {
    verdict.kind() == Some(Kind::DeadlineExceeded)
}

/// The request, or the answer to it, may have been lost on the way.
fn may_be_lost(verdict: &Verdict) -> bool {
    verdict.maybe_processed() && !is_timeout(verdict)
}

/// A 429 for a model that has retired, which says neither which quota it was nor when it is back: there is nothing to wait
/// for. One that says so is believed, since another model may answer under the old name.
fn is_gone(verdict: &Verdict) -> bool {
    verdict.kind() == Some(Kind::RateLimited)
        && verdict.server_delay().is_none()
        && verdict.quota().iter().all(|violation| violation.limit().is_none())
        && verdict.retired().is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    fn failed(status: u16, body: &'static str) -> Verdict {
        let status = http::StatusCode::from_u16(status).expect("a status");
        Verdict::from_parts(status, &http::HeaderMap::new(), bytes::Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn it_says_whether_it_would_retry_and_when_at_the_least() {
        const QUOTA: &str = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[
            {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"5.5s"}]}}"#;
        let quota = failed(429, QUOTA);
        let b = RetryPolicy::builder;
        let would = |builder: RetryPolicyBuilder, verdict: &Verdict| {
            builder.build().expect("valid").would_retry(verdict)
        };
        let wait = Duration::from_millis(5500);
        assert_eq!(would(b(), &quota), Some(wait));
        assert_eq!(would(b().without_deadline(), &quota), Some(wait));
        assert_eq!(would(b().deadline(wait), &quota), None, "it would end at the deadline");
        assert_eq!(would(b().deadline(wait + Duration::from_nanos(1)), &quota), Some(wait));
        assert_eq!(would(b().attempts(1), &quota), None);
        assert_eq!(would(b().attempts(2), &quota), Some(wait));
        assert_eq!(would(b(), &failed(503, "")), Some(Duration::ZERO), "the least of a full jitter");
        assert_eq!(would(b(), &failed(400, "")), None);
        let equal = || b().backoff(Backoff::new(wait * 2, wait * 2).jitter(crate::retry::Jitter::Equal));
        assert_eq!(would(equal(), &failed(503, "")), Some(Duration::ZERO), "the first one comes soon");
        for slow in [equal().quick_retries(0), equal().without_budget()] {
            assert_eq!(would(slow.clone(), &failed(503, "")), Some(wait));
            assert_eq!(would(slow.clone().deadline(wait), &failed(503, "")), Some(wait / 4), "fitted");
            assert_eq!(would(slow.deadline(LEAST_LEFT - Duration::from_nanos(1)), &failed(503, "")), None);
        }
        let empty = failed(200, r#"{"candidates":[]}"#);
        assert_eq!(would(b().empty_answers(1), &empty), Some(Duration::ZERO));
        let settings = b().build().expect("valid").settings;
        let gave_up = settings.schedule(&Progress::default(), &empty, false, |_| 0.0);
        assert_eq!(gave_up, Err(GaveUp::NotRetryable), "no attempt is missing: it was not asked for");
    }

    const QUOTA_OF_A_SECOND: &str = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[
        {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"1.5s"}]}}"#;

    #[test]
    fn a_backoff_that_ends_at_the_deadline_is_fitted_and_a_servers_delay_is_not() {
        let (second, least) = (Duration::from_secs(1), Duration::from_nanos(1));
        let backoff = Backoff::new(second, second).jitter(crate::retry::Jitter::Proportional(0.0));
        let policy = RetryPolicy::builder().backoff(backoff).quick_retries(0).server_delay_jitter(0.0);
        let (policy, now) = (policy.build().expect("valid"), crate::time::now());
        let decide = |verdict: &Verdict, ahead: Duration| {
            let (failure, deadline) = (Failure::Verdict(verdict), Some(now + ahead));
            let mut progress = Progress::default();
            let again = policy.settings.decide(&mut progress, &failure, now, deadline, || 0)?;
            Ok::<_, GaveUp>(again.wait)
        };
        let down = failed(503, "");
        assert_eq!(decide(&down, second + least), Ok(second));
        for _ in 0..100 {
            let wait = decide(&down, second).expect("fitted");
            assert!((second / 4..second * 3 / 4).contains(&wait), "{wait:?}");
        }
        assert!(decide(&down, LEAST_LEFT).is_ok());
        assert_eq!(decide(&down, LEAST_LEFT - least), Err(GaveUp::Deadline));
        let quota = failed(429, QUOTA_OF_A_SECOND);
        assert_eq!(decide(&quota, second * 3 / 2 + least), Ok(second * 3 / 2));
        assert_eq!(decide(&quota, second * 3 / 2), Err(GaveUp::Deadline));
    }

    /// Ends attempts of one request with this verdict at once, each after the wait of the one before, until it gives up.
    fn waits(policy: &RetryPolicy, verdict: &Verdict) -> Vec<Duration> {
        let (mut progress, mut now) = (Progress::default(), crate::time::now());
        while let Ok(again) =
            policy.settings.decide(&mut progress, &Failure::Verdict(verdict), now, None, || 0)
        {
            now += again.wait;
            let _ = again.token.map(Withdrawal::spend);
        }
        progress.waits
    }

    // Full jitter hides a wait behind its draw, so the most of many requests is what tells the schedule.
    fn longest(verdict: &Verdict, policy: impl Fn() -> RetryPolicyBuilder) -> Vec<Duration> {
        let requests = (0..400).map(|seed| waits(&policy().seed(seed).build().expect("valid"), verdict));
        requests.fold(Vec::new(), |mut most, waits| {
            most.resize(waits.len().max(most.len()), Duration::ZERO);
            most.iter_mut().zip(waits).for_each(|(most, wait)| *most = wait.max(*most));
            most
        })
    }

    #[test]
    fn the_first_retries_come_soon_where_others_succeed_and_the_backoff_follows_from_its_beginning() {
        // Each request has a bucket that is full.
        let b = || RetryPolicy::builder().attempts(6).budget(Budget::new(100, 3.0).expect("valid"));
        let soon: &[u64] = &[50, 100, 200, 1_000, 2_000];
        let slow: &[u64] = &[1_000, 2_000, 4_000, 8_000, 16_000];
        let named = r#"{"error":{"code":503,"status":"UNAVAILABLE","details":[
            {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"0.001s"}]}}"#;
        let overloaded =
            r#"{"error":{"code":503,"status":"UNAVAILABLE","message":"The model is overloaded."}}"#;
        let check = |verdict: &Verdict, policy: &dyn Fn() -> RetryPolicyBuilder, most: &[u64]| {
            let longest = longest(verdict, policy);
            assert_eq!(longest.len(), most.len(), "{verdict:?}");
            for (longest, most) in longest.iter().zip(most) {
                let most = Duration::from_millis(*most);
                assert!(
                    *longest <= most && *longest > most * 19 / 20,
                    "{verdict:?}: {longest:?} of {most:?}"
                );
            }
        };
        check(&failed(503, ""), &b, soon);
        check(&failed(500, ""), &b, soon);
        check(&failed(503, overloaded), &b, &[50, 100, 200, 2_000, 4_000]);
        check(&failed(503, ""), &|| b().quick_retries(1), &[50, 1_000, 2_000, 4_000, 8_000]);
        check(&failed(503, ""), &|| b().quick_retries(0), slow);
        check(&failed(503, ""), &|| b().without_budget(), slow);
        check(&failed(504, ""), &|| b().attempts(4), &slow[..3]);
        check(&failed(429, ""), &b, slow);
        check(&failed(503, named), &|| b().server_delay_jitter(0.0), slow);
        // An explicit backoff is that of the retries after them.
        let backoff = || b().backoff(Backoff::new(Duration::from_secs(3), Duration::from_secs(3)));
        check(&failed(500, ""), &backoff, &[50, 100, 200, 3_000, 3_000]);
    }

    proptest! {
        #[test]
        fn no_wait_is_over_the_cap_or_ends_at_the_deadline_and_no_attempt_is_over_the_limit(
            attempts in 1..20_u32, quick in 0..8_u32, cap in 1..20_000_u64, deadline in 1..60_000_u64,
            failures in prop::collection::vec((0..6_usize, 0..3_000_u64), 1..40), seed: u64,
        ) {
            let cap = Duration::from_millis(cap);
            let backoff = Backoff::new(cap / 4 + Duration::from_nanos(1), cap);
            let policy = RetryPolicy::builder().attempts(attempts).quick_retries(quick).backoff(backoff);
            let policy = policy.server_delay_jitter(0.0).seed(seed).build().expect("valid");
            let verdicts =
                [500, 502, 503, 504, 429].map(|status| failed(status, ""));
            let quota = failed(429, QUOTA_OF_A_SECOND);
            let asked = Duration::from_millis(1500);
            let start = crate::time::now();
            let end = start + Duration::from_millis(deadline);
            let (mut progress, mut now, mut made) = (Progress::default(), start, 0);
            for (what, took) in failures {
                made += 1;
                now += Duration::from_millis(took);
                let verdict = verdicts.get(what).unwrap_or(&quota);
                let left = end.saturating_duration_since(now);
                let decided =
                    policy.settings.decide(&mut progress, &Failure::Verdict(verdict), now, Some(end), || 0);
                let Ok(again) = decided else { break };
                let _ = again.token.map(Withdrawal::spend);
                if what == 5 {
                    prop_assert!(again.wait >= asked, "{:?}", again.wait);
                    prop_assert!(again.wait <= asked.max(cap), "{:?}", again.wait);
                } else {
                    prop_assert!(again.wait <= cap.max(QUICK.delay(quick, None, 1.0)), "{:?}", again.wait);
                }
                prop_assert!(again.wait < left, "{:?} of {:?}", again.wait, left);
                now += again.wait;
            }
            prop_assert!(made <= attempts, "{made} attempts of {attempts}");
            prop_assert!(progress.quick <= quick);
            let waited: Duration = progress.waits.iter().sum();
            prop_assert!(waited < Duration::from_millis(deadline));
        }
    }

    #[test]
    fn a_clone_of_a_requests_progress_is_for_another_request_from_the_same_start() {
        let started = Some(crate::time::now());
        let progress = Progress { started, attempts: 3, request: 7, ..Progress::default() };
        let copy = progress.clone();
        assert_eq!((copy.started, copy.attempts, copy.request), (started, 0, 0));
    }

    /// How many attempts are made of a request with two minutes, each of which times out after `took`; `failures` of the
    /// budget's key have gone before.
    fn timeouts_of_two_minutes(took: u64, failures: u32) -> u32 {
        let policy = RetryPolicy::builder().seed(3).build().unwrap();
        let budget = policy.settings.budget.clone().unwrap();
        for _ in 0..failures {
            let _ = budget.withdraw(0, Charge::FAILURE, crate::time::now()).map(Withdrawal::spend);
        }
        let timeout = failed(504, "");
        let start = crate::time::now();
        let (end, mut now) = (start + Duration::from_secs(120), start);
        let (mut progress, mut made) = (Progress { started: Some(start), ..Progress::default() }, 0);
        loop {
            made += 1;
            now += Duration::from_secs(took).min(end.saturating_duration_since(now));
            match policy.settings.decide(&mut progress, &Failure::Verdict(&timeout), now, Some(end), || 0) {
                Ok(again) => {
                    let _ = again.token.map(Withdrawal::spend);
                    now += again.wait;
                }
                Err(_) => return made,
            }
        }
    }

    #[test]
    fn an_attempt_that_has_less_time_than_the_one_that_timed_out_is_made_only_while_others_succeed() {
        assert_eq!(timeouts_of_two_minutes(85, 0), 2, "as far as is known, others succeed");
        assert_eq!(timeouts_of_two_minutes(85, 12), 1, "35 s are left, and 85 were not enough");
        let (well, not) = (timeouts_of_two_minutes(10, 0), timeouts_of_two_minutes(10, 12));
        assert!(not >= well - 1 && not >= 5, "those that have as much time are made: {not} of {well}");
    }

    #[test]
    fn a_second_timeout_in_a_row_gets_no_attempt_that_has_less_time() {
        let policy = RetryPolicy::builder().seed(3).build().unwrap();
        let (timeout, start) = (failed(504, ""), crate::time::now());
        let end = Some(start + Duration::from_secs(120));
        let decide = |late: u64, probe: bool| {
            let now = start + Duration::from_secs(late);
            let failure = if probe { Failure::Probe(now, &timeout) } else { Failure::Verdict(&timeout) };
            let mut progress = Progress { started: Some(start), ..Progress::default() };
            let again = policy.settings.decide(&mut progress, &failure, now, end, || 0)?;
            let _ = again.token.map(Withdrawal::spend);
            Ok::<_, GaveUp>(())
        };
        let in_vain = Err(GaveUp::Deadline);
        assert_eq!([decide(61, true), decide(61, false)], [Ok(()), Ok(())], "one alone may be chance");
        assert_eq!([decide(61, true), decide(61, false)], [in_vain, in_vain], "a probe's, too");
        assert_eq!([decide(20, true), decide(20, false)], [Ok(()), Ok(())], "there is as much time again");
        policy.settings.budget.as_ref().unwrap().deposit(0, 0);
        assert_eq!(decide(61, false), Ok(()), "something was answered since");
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
