//! The layers of the gateway: the recommended ones, set up from the command line.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tower::layer::util::Identity;
use tower_gemini::ConfigError;
use tower_gemini::circuit_breaker::{CircuitBreakerLayer, Circuits};
use tower_gemini::concurrency::ConcurrencyHandle;
use tower_gemini::event::Observer;
use tower_gemini::fallback::ModelFallbackLayer;
use tower_gemini::rate_limit::{Limits, QuotaKey, RateLimitLayer, RateLimits};
use tower_gemini::retry::{Budget, RetryLayer};
use tower_gemini::stack::{GeminiStack, Preset};
use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};

use crate::args::Settings;
use crate::quota::Project;

/// The longest that a circuit stays open, unless it is longer at first.
const OPEN_MOST: Duration = Duration::from_secs(15);
/// The longest wait for quota: SDKs and their users wait better than a gateway that holds a thousand of them.
const WAIT: Duration = Duration::from_secs(15);
/// A stream that is silent for so long has died.
const IDLE: Duration = Duration::from_secs(60);
/// Says who has answered, where it is not the model that was asked.
const ANSWERED_BY: HeaderName = HeaderName::from_static("x-gemini-model");

/// Without the replay of bodies: `model.rs` makes those.
pub type Stack = GeminiStack<DeadlineLayer, Identity, ModelFallbackLayer>;

/// What the layers know, for `/metrics` and `/status`.
#[derive(Clone, Debug)]
pub struct Handles {
    pub quotas: RateLimits,
    pub concurrency: ConcurrencyHandle,
    pub circuits: Circuits,
    pub budget: Budget,
}

/// All layers, and what they will know.
///
/// # Errors
///
/// The setting that a layer does not take.
pub fn stack(settings: &Settings, observer: &Arc<dyn Observer>) -> Result<(Stack, Handles), ConfigError> {
    let told = || Arc::clone(observer);
    // A model that needs longer is not asked twice where the deadline was raised for it, and one that hangs is asked again.
    let first_byte = settings.deadline.mul_f64(0.75);
    let stack = Preset::gateway().observer(told()).stack();
    let budget = Budget::default();
    let retry = stack.get_retry().policy().to_builder();
    let retry = retry.attempts(settings.attempts).deadline(settings.deadline).budget(budget.clone());
    let mut quotas = RateLimitLayer::builder().limits(limits(settings)).max_wait(WAIT).observer(told());
    if let Some(quota) = &settings.quota {
        quotas = quotas.store(quota.fleet());
    }
    // The other layers go on telling callers apart: what one of them breaks is not every one's.
    if let Some(Project::Named(project)) = settings.quota.as_ref().map(|quota| &quota.project) {
        let project = project.clone();
        quotas =
            quotas.key_by(move |target| QuotaKey::of(target).target().clone().with_label(project.clone()));
    } else if settings.clients.is_some() {
        // Labels are clients then, who share the project of the gateway's key.
        quotas = quotas.key_by(|target| QuotaKey::of(target).target().clone().without_label());
    }
    let quotas = quotas.build()?;
    let open = settings.breaker_open;
    let breaker = CircuitBreakerLayer::builder().open_time(open, open.max(OPEN_MOST));
    let breaker =
        breaker.fail_fast().probe_lease(first_byte.max(Duration::from_secs(1))).observer(told()).build()?;
    // No header of the gateway's own: what the client says arrives as it is.
    let timeout = TimeoutLayer::builder().first_byte(first_byte).idle(IDLE).without_server_timeout();
    let mut chains = ModelFallbackLayer::builder().header(ANSWERED_BY).observer(told());
    for chain in &settings.fallback {
        chains = chains.chain(&*chain.model, chain.then.iter().map(String::as_str));
    }
    let stack = stack
        .deadline(DeadlineLayer::new(settings.deadline)?)
        .retry(RetryLayer::new(retry.build()?))
        .rate_limit(quotas)
        .circuit_breaker(breaker)
        .timeout(timeout.build()?)
        .falling_back(chains)?;
    let handles = Handles {
        quotas: stack.get_rate_limit().handle(),
        concurrency: stack.get_concurrency().handle(),
        circuits: stack.get_circuit_breaker().handle(),
        budget,
    };
    Ok((stack, handles))
}

fn limits(settings: &Settings) -> Limits {
    let limits = Limits::new();
    let limits = settings.requests_per_minute.into_iter().fold(limits, Limits::requests_per_minute);
    let limits = settings.tokens_per_minute.into_iter().fold(limits, Limits::input_tokens_per_minute);
    settings.requests_per_day.into_iter().fold(limits, Limits::requests_per_day)
}
