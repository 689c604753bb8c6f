use std::sync::Arc;
use std::time::Duration;

use super::GeminiStack;
use crate::circuit_breaker::CircuitBreakerLayer;
use crate::classify::ClassifyLayer;
use crate::concurrency::AdaptiveConcurrencyLayer;
use crate::event::Observer;
use crate::rate_limit::RateLimitLayer;
use crate::retry::{Backoff, RetryLayer, RetryPolicy, Schedule};
use crate::tier::TierLayer;
use crate::timeout::{DeadlineLayer, TimeoutLayer};
use crate::verdict::Kind;

/// Numbers for a whole stack that fit together, by who is waiting.
///
/// | | [`new`](Self::new) | [`interactive`](Self::interactive) | [`batch`](Self::batch) | [`gateway`](Self::gateway) |
/// |---|---|---|---|---|
/// | deadline of a request without one | 120 s | 60 s | 1 h | 120 s |
/// | attempts in all | 10 | 5 | 12 | 5 |
/// | backoff, from 1 s (2 s if overloaded), doubling, at most | 60 s | 8 s | 120 s | 20 s |
/// | longest delay of the server's that is waited for | 60 s | 15 s | 15 min | 15 s |
/// | longest wait for quota and for a place | the deadline | 15 s | the deadline | 15 s |
/// | an open circuit is waited for | yes | yes | yes | no |
/// | first byte of an attempt | 120 s | 45 s | 300 s | 90 s |
/// | of the [flex tier](crate::tier): deadline, first byte | 30 min, 16 min | the same | 1 h, 16 min | 30 min, 16 min |
/// | silence of a body | 300 s | 30 s | 300 s | 300 s |
///
/// The retry budget and the [`quick_retries`](crate::retry::RetryPolicyBuilder::quick_retries) are the default in all of them. The defaults are those of the layers' own pages; the others are choices for who waits: a person
/// leaves, a job has time, and behind a gateway stand clients with timeouts and retries of their own, who are better
/// told when to come back than kept.
#[derive(Clone)]
#[must_use = "a preset does nothing until it makes a stack"]
pub struct Preset {
    deadline: Duration,
    attempts: u32,
    backoff_cap: Duration,
    max_server_delay: Duration,
    max_wait: Option<Duration>,
    fail_fast: bool,
    first_byte: Duration,
    idle: Duration,
    observer: Option<Arc<dyn Observer>>,
    seed: Option<u64>,
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

impl Preset {
    /// The defaults of all layers.
    pub const fn new() -> Self {
        Self {
            deadline: secs(120),
            attempts: 10,
            backoff_cap: secs(60),
            max_server_delay: secs(60),
            max_wait: None,
            fail_fast: false,
            first_byte: secs(120),
            idle: secs(300),
            observer: None,
            seed: None,
        }
    }

    /// A person is waiting.
    pub fn interactive() -> Self {
        Self {
            deadline: secs(60),
            attempts: 5,
            backoff_cap: secs(8),
            max_server_delay: secs(15),
            max_wait: Some(secs(15)),
            first_byte: secs(45),
            idle: secs(30),
            ..Self::new()
        }
    }

    /// Nobody is waiting, and giving up costs more than time.
    pub fn batch() -> Self {
        Self {
            deadline: secs(3600),
            attempts: 12,
            backoff_cap: secs(120),
            max_server_delay: secs(900),
            max_wait: Some(secs(3600)),
            first_byte: secs(300),
            ..Self::new()
        }
    }

    /// Other processes are waiting, with timeouts and perhaps retries of their own.
    pub fn gateway() -> Self {
        Self {
            attempts: 5,
            backoff_cap: secs(20),
            max_server_delay: secs(15),
            max_wait: Some(secs(15)),
            fail_fast: true,
            first_byte: secs(90),
            ..Self::new()
        }
    }

    /// Tells `observer` what all layers do. Default: nobody.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Makes all randomness repeatable, for tests. Default: random.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The layers, in their places.
    pub fn stack(&self) -> GeminiStack {
        const VALID: &str = "the presets are valid: a test builds them";
        let wait = self.max_wait;
        let mut retry = RetryPolicy::builder()
            .attempts(self.attempts)
            .backoff(Backoff::new(secs(1), self.backoff_cap))
            .schedule(Kind::Overloaded, Schedule::waiting(Backoff::new(secs(2), self.backoff_cap)))
            .max_server_delay(self.max_server_delay)
            .deadline(self.deadline)
            .expecting_free_waits();
        let mut rate_limit = RateLimitLayer::builder();
        let mut concurrency = AdaptiveConcurrencyLayer::builder();
        let mut breaker = CircuitBreakerLayer::builder().probe_lease(self.first_byte);
        if let Some(wait) = wait {
            rate_limit = rate_limit.max_wait(wait);
            concurrency = concurrency.max_wait(wait);
        }
        if self.fail_fast {
            breaker = breaker.fail_fast();
        }
        if let Some(observer) = &self.observer {
            retry = retry.observer(Arc::clone(observer));
            rate_limit = rate_limit.observer(Arc::clone(observer));
            concurrency = concurrency.observer(Arc::clone(observer));
            breaker = breaker.observer(Arc::clone(observer));
        }
        if let Some(seed) = self.seed {
            retry = retry.seed(seed);
            concurrency = concurrency.seed(seed);
            breaker = breaker.seed(seed);
        }
        let timeout = TimeoutLayer::builder().first_byte(self.first_byte).idle(self.idle);
        GeminiStack {
            deadline: DeadlineLayer::new(self.deadline).expect(VALID),
            preflight: tower_layer::Identity::new(),
            replay: tower_layer::Identity::new(),
            fallback: tower_layer::Identity::new(),
            retry: RetryLayer::new(retry.build().expect(VALID)),
            rate_limit: rate_limit.build().expect(VALID),
            concurrency: concurrency.build().expect(VALID),
            circuit_breaker: breaker.build().expect(VALID),
            timeout: timeout.build().expect(VALID),
            classify: ClassifyLayer::new().watch(),
            tier: TierLayer::new(),
            coalesce: tower_layer::Identity::new(),
            last_good: tower_layer::Identity::new(),
            hedge: tower_layer::Identity::new(),
            places: tower_layer::Identity::new(),
        }
    }
}

impl Default for Preset {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Preset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Preset")
            .field("deadline", &self.deadline)
            .field("attempts", &self.attempts)
            .field("max_server_delay", &self.max_server_delay)
            .field("max_wait", &self.max_wait)
            .field("first_byte", &self.first_byte)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}
