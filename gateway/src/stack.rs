//! The layers of the gateway: the recommended ones, set up from the settings.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tower::Layer;
use tower::layer::util::Identity;
use tower_gemini::circuit_breaker::{CircuitBreakerBuilder, CircuitBreakerLayer, Circuits};
use tower_gemini::classify::Peek;
use tower_gemini::concurrency::{AdaptiveConcurrencyBuilder, AdaptiveConcurrencyLayer, ConcurrencyHandle};
use tower_gemini::event::Observer;
use tower_gemini::fallback::ModelFallbackLayer;
use tower_gemini::rate_limit::{AdmissionMode, Limits, QuotaKey, RateLimitLayer, RateLimits};
use tower_gemini::respond::{OpenAiErrors, OpenAiErrorsLayer};
use tower_gemini::resume::{Resume, ResumeLayer, ResumeMode};
use tower_gemini::retry::{Budget, RetryLayer};
use tower_gemini::stack::{GeminiStack, Preset};
use tower_gemini::tier::ServiceTier;
use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};
use tower_gemini::verdict::Signal;
use tower_gemini::{ConfigError, KeyLabel};

use crate::clients;
use crate::quota::Project;
use crate::settings::{Acts, Form, Resumes, Settings};

/// The longest that a circuit stays open, unless it is longer at first.
const OPEN_MOST: Duration = Duration::from_secs(15);
/// Says who has answered, where it is not the model that was asked.
const ANSWERED_BY: HeaderName = HeaderName::from_static("x-gemini-model");

/// Without the replay of bodies: `model.rs` makes those.
type Inner = GeminiStack<DeadlineLayer, Identity, ModelFallbackLayer>;

/// The recommended layers, and around them what goes on with streams and what changes the form of errors.
#[derive(Clone, Debug)]
pub struct Stack {
    inner: Inner,
    resume: ResumeLayer,
    errors: OpenAiErrorsLayer,
}

impl Stack {
    /// With these chains of models in place of its own.
    pub fn fallback(self, chains: ModelFallbackLayer) -> Self {
        Self { inner: self.inner.fallback(chains), ..self }
    }
}

impl std::ops::Deref for Stack {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl<S> Layer<S> for Stack
where
    Inner: Layer<S>,
{
    type Service = OpenAiErrors<Resume<<Inner as Layer<S>>::Service>>;

    fn layer(&self, client: S) -> Self::Service {
        self.errors.layer(self.resume.layer(self.inner.layer(client)))
    }
}

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
/// `before` is what was in force until now, and its settings: what the layers know of quotas, circuits and calls in flight stays, and
/// of circuits and calls in flight unless their own settings are others.
///
/// # Errors
///
/// The setting that a layer does not take.
pub fn stack(
    settings: &Settings,
    observer: &Arc<dyn Observer>,
    before: Option<(&Settings, &Stack, &Budget)>,
) -> Result<(Stack, Handles), ConfigError> {
    let told = || Arc::clone(observer);
    let first_byte = settings.first_byte();
    let stack = Preset::gateway().observer(told()).stack();
    let budget = before.map_or_else(Budget::default, |(.., budget)| budget.clone());
    let retry = stack.get_retry().policy().to_builder();
    let attempts = u32::try_from(settings.attempts).unwrap_or(100);
    let empty = u32::try_from(settings.empty_answers).unwrap_or(2);
    let retry = retry.empty_answers(empty);
    let retry = retry.attempts(attempts).deadline(settings.deadline).budget(budget.clone());
    let quotas = match before {
        Some((_, stack, _)) => stack.get_rate_limit().clone(),
        None => quotas(settings, observer)?,
    };
    let breaker = match before {
        Some((before, stack, _))
            if (before.breaker, before.breaker_open, before.first_byte())
                == (settings.breaker, settings.breaker_open, settings.first_byte()) =>
        {
            stack.get_circuit_breaker().clone()
        }
        _ => breaker(settings).observer(told()).build()?,
    };
    let governor = match before {
        Some((before, stack, _)) if before.governor == settings.governor => stack.get_concurrency().clone(),
        _ => governor(settings).observer(told()).build()?,
    };
    // No header of the gateway's own: what the client says arrives as it is.
    let timeout = TimeoutLayer::builder()
        .first_byte(first_byte)
        .tier_first_byte(ServiceTier::Flex, settings.flex_first_byte())
        .without_server_timeout();
    let timeout = match settings.idle_mode {
        Acts::On => timeout.idle(settings.idle),
        Acts::Observe | Acts::Off => timeout.without_idle(),
    };
    let mut chains = ModelFallbackLayer::builder().header(ANSWERED_BY).observer(told());
    for chain in &settings.fallback {
        chains = chains.chain(&*chain.model, chain.then.iter().map(String::as_str));
    }
    let stack = stack
        .deadline(DeadlineLayer::new(settings.deadline)?.flex(settings.flex_deadline.max(settings.deadline))?)
        .retry(RetryLayer::new(retry.build()?))
        .rate_limit(quotas)
        .concurrency(governor)
        .circuit_breaker(breaker)
        .timeout(timeout.build()?)
        .falling_back(chains)?;
    // An answer that is to be asked for again must not have begun to arrive.
    let classify = *stack.get_classify();
    let stack = if empty == 0 { stack } else { stack.classify(classify.peek(Peek::Output)) };
    let resume = match settings.resume_streams {
        Resumes::Off => ResumeLayer::builder(ResumeMode::Continue).enabled(false),
        Resumes::Continue => ResumeLayer::builder(ResumeMode::Continue),
        Resumes::Restart => ResumeLayer::builder(ResumeMode::Restart),
    };
    let resume = resume.observer(told()).build()?;
    let errors = OpenAiErrorsLayer::new().enabled(settings.openai_errors == Form::OpenAi);
    // The last thing that can fail.
    if before.is_some_and(|(before, ..)| limits(before) != limits(settings)) {
        stack.get_rate_limit().handle().set_limits(limits(settings))?;
    }
    let handles = Handles {
        quotas: stack.get_rate_limit().handle(),
        concurrency: stack.get_concurrency().handle(),
        circuits: stack.get_circuit_breaker().handle(),
        budget,
    };
    Ok((Stack { inner: stack, resume, errors }, handles))
}

fn quotas(settings: &Settings, observer: &Arc<dyn Observer>) -> Result<RateLimitLayer, ConfigError> {
    let mut quotas = RateLimitLayer::builder()
        .limits(limits(settings))
        .max_wait(settings.quota_wait)
        .observer(Arc::clone(observer));
    match settings.quota {
        Acts::On if settings.quota_wait.is_zero() => quotas = quotas.mode(AdmissionMode::Reject),
        Acts::On => {}
        Acts::Observe => quotas = quotas.mode(AdmissionMode::Observe),
        Acts::Off => quotas = quotas.enabled(false),
    }
    // A store without its project was refused before.
    let store = settings.quota().ok().flatten();
    if let Some(quota) = &store {
        quotas = quotas.store(quota.fleet());
    }
    // The other layers go on telling callers apart: what one of them breaks is not every one's.
    if let Some(Project::Named(project)) = store.as_ref().map(|quota| &quota.project) {
        let project = project.clone();
        quotas =
            quotas.key_by(move |target| QuotaKey::of(target).target().clone().with_label(project.clone()));
    } else if settings.clients.is_some() {
        // Labels are clients then, who share the projects of the gateway's keys.
        quotas = quotas.key_by(|target| {
            let key = QuotaKey::of(target).target().clone();
            let project = target.label().map(ToString::to_string);
            match project.as_deref().and_then(clients::project) {
                Some(project) => key.with_label(KeyLabel::new(project)),
                None => key.without_label(),
            }
        });
    }
    quotas.build()
}

fn breaker(settings: &Settings) -> CircuitBreakerBuilder {
    let open = settings.breaker_open;
    let breaker = CircuitBreakerLayer::builder()
        .open_time(open, open.max(OPEN_MOST))
        .fail_fast()
        .probe_lease(settings.first_byte().max(Duration::from_secs(1)));
    match settings.breaker {
        Acts::On => breaker,
        Acts::Observe => breaker.observe_only(),
        Acts::Off => breaker.classify_with(|_| Signal::Neutral),
    }
}

fn governor(settings: &Settings) -> AdaptiveConcurrencyBuilder {
    let governor = AdaptiveConcurrencyLayer::builder().max_wait(settings.quota_wait);
    match settings.governor {
        Acts::On => governor,
        Acts::Observe => governor.observe_only(),
        Acts::Off => governor.signals(|_| Signal::Neutral),
    }
}

fn limits(settings: &Settings) -> Limits {
    let limits = Limits::new();
    let limits = settings.requests_per_minute.into_iter().fold(limits, Limits::requests_per_minute);
    let limits = settings.tokens_per_minute.into_iter().fold(limits, Limits::input_tokens_per_minute);
    settings.requests_per_day.into_iter().fold(limits, Limits::requests_per_day)
}
