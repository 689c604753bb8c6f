//! The layers of the gateway: the recommended ones, set up from the settings.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tower::Layer;
use tower_gemini::circuit_breaker::Circuits;
use tower_gemini::classify::Peek;
use tower_gemini::concurrency::ConcurrencyHandle;
use tower_gemini::config::{BudgetConfig, ConfiguredStack, HumanDuration, OrOff, PresetName, StackConfig};
use tower_gemini::event::Observer;
use tower_gemini::fallback::ModelFallbackLayer;
use tower_gemini::rate_limit::{AdmissionMode, Limits, QuotaKey, RateLimitLayer, RateLimits};
use tower_gemini::respond::{OpenAiErrors, OpenAiErrorsLayer};
use tower_gemini::resume::{Resume, ResumeBuilder, ResumeLayer, ResumeMode};
use tower_gemini::retry::{Budget, RetryLayer};
use tower_gemini::stack::GeminiStack;
use tower_gemini::tier::ServiceTier;
use tower_gemini::{ConfigError, KeyLabel};

use crate::clients;
use crate::quota::Project;
use crate::settings::sections::open_time;
use crate::settings::{Acts, Form, Resumes, Settings};

/// The longest that a circuit stays open, unless it is longer at first.
const OPEN_MOST: Duration = Duration::from_secs(15);
/// Says who has answered, where it is not the model that was asked.
const ANSWERED_BY: HeaderName = HeaderName::from_static("x-gemini-model");

/// Without the replay of bodies: `model.rs` makes those.
type Inner = ConfiguredStack;

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
/// The setting that a layer does not take, with its place, and the rule.
pub fn stack(
    settings: &Settings,
    observer: &Arc<dyn Observer>,
    before: Option<(&Settings, &Stack, &Budget)>,
) -> Result<(Stack, Handles), String> {
    let told = || Arc::clone(observer);
    let wrong = |section: &'static str| {
        move |error: ConfigError| settings.values.layer_rule(error.section().unwrap_or(section), &error)
    };
    let all = config(settings);
    let was = before.map(|(before, ..)| config(before));
    let base = GeminiStack::from_config_observed(&all, observer).map_err(wrong("retry"))?;
    let own = &settings.values.sections().config.retry.budget;
    let same = |(before, ..): &(&Settings, _, _)| before.values.sections().config.retry.budget == *own;
    let budget = match (before.filter(same), &all.retry.budget) {
        (Some((.., budget)), _) => budget.clone(),
        (
            None,
            Some(OrOff::Is(BudgetConfig {
                cap: Some(cap), per_success: Some(paid), least_per_minute, ..
            })),
        ) => {
            let budget = Budget::new(*cap, *paid)
                .and_then(|budget| budget.least_per_minute(least_per_minute.unwrap_or_default()));
            budget.map_err(wrong("retry"))?
        }
        (None, _) => Budget::default(),
    };
    let retry = base.get_retry().policy().to_builder();
    let retry = if *own == Some(OrOff::Off) { retry } else { retry.budget(budget.clone()) };
    let quotas = match before {
        Some((_, stack, _)) => stack.get_rate_limit().clone(),
        None => quotas(settings, &all, observer).map_err(wrong("rate_limit"))?,
    };
    let (breaker, governor) = match (before, &was) {
        (Some((_, stack, _)), Some(was)) => (
            (was.circuit_breaker == all.circuit_breaker).then(|| stack.get_circuit_breaker().clone()),
            (was.concurrency == all.concurrency).then(|| stack.get_concurrency().clone()),
        ),
        _ => (None, None),
    };
    let breaker = breaker.unwrap_or_else(|| base.get_circuit_breaker().clone());
    let governor = governor.unwrap_or_else(|| base.get_concurrency().clone());
    // The last two ask the circuits and quotas of the stack that they are put into.
    let stack = base
        .retry(RetryLayer::new(retry.build().map_err(wrong("retry"))?))
        .rate_limit(quotas)
        .concurrency(governor)
        .circuit_breaker(breaker)
        .falling_back(all.fallback.to_builder().observer(told()))
        .map_err(wrong("fallback"))?
        .hedging(all.hedge.to_builder().observer(told()))
        .map_err(wrong("hedge"))?;
    let mut resume = ResumeLayer::builder(match settings.resume_streams {
        Resumes::Restart => ResumeMode::Restart,
        Resumes::Off | Resumes::Continue => ResumeMode::Continue,
    });
    if settings.resume_streams == Resumes::Off {
        resume = resume.enabled(false);
    }
    resume = all.resume.most.into_iter().fold(resume, ResumeBuilder::most);
    resume = all.resume.budget.into_iter().fold(resume, ResumeBuilder::budget);
    resume = all.resume.max_text_bytes.into_iter().fold(resume, ResumeBuilder::max_text_bytes);
    let resume = resume.observer(told()).build().map_err(wrong("resume"))?;
    let errors = OpenAiErrorsLayer::new().enabled(settings.openai_errors == Form::OpenAi);
    // The last thing that can fail.
    if before.is_some_and(|(before, ..)| limits(before) != limits(settings)) {
        stack.get_rate_limit().handle().set_limits(limits(settings)).map_err(wrong("rate_limit"))?;
    }
    let handles = Handles {
        quotas: stack.get_rate_limit().handle(),
        concurrency: stack.get_concurrency().handle(),
        circuits: stack.get_circuit_breaker().handle(),
        budget,
    };
    Ok((Stack { inner: stack, resume, errors }, handles))
}

/// The settings of the layers, in the library's own schema: those of the file's sections, in their places those of the gateway, and else the
/// preset's.
pub fn config(settings: &Settings) -> StackConfig {
    let mut all = settings.values.sections().config.clone();
    let is = |duration: Duration| Some(HumanDuration::from(duration));
    let acts = |acts: Acts| (Some(acts != Acts::Off), Some(acts == Acts::Observe));
    let small = |number: u64, most: u32| Some(u32::try_from(number).unwrap_or(most));
    all.preset = Some(PresetName::Gateway);
    all.deadline.within = is(settings.deadline);
    all.deadline.flex = is(settings.flex_deadline.max(settings.deadline));
    all.retry.attempts = small(settings.attempts, 100);
    all.retry.empty_answers = small(settings.empty_answers, 2);
    all.retry.deadline = all.retry.deadline.or(Some(OrOff::Is(settings.deadline.into())));
    (all.circuit_breaker.enabled, all.circuit_breaker.observe_only) = acts(settings.breaker);
    let (first, most) = open_time(&all);
    let first = first.unwrap_or(settings.breaker_open);
    let mut open = all.circuit_breaker.open_time.take().unwrap_or_default();
    (open.first, open.most) = (is(first), is(most.unwrap_or(first.max(OPEN_MOST))));
    all.circuit_breaker.open_time = Some(open);
    all.circuit_breaker.fail_fast = all.circuit_breaker.fail_fast.or(Some(true));
    let lease = settings.first_byte().max(Duration::from_secs(1));
    all.circuit_breaker.probe_lease = all.circuit_breaker.probe_lease.or(is(lease));
    (all.concurrency.enabled, all.concurrency.observe_only) = acts(settings.governor);
    all.concurrency.max_wait = all.concurrency.max_wait.or(is(settings.quota_wait));
    all.rate_limit.max_wait = Some(OrOff::Is(settings.quota_wait.into()));
    all.rate_limit.enabled = Some(settings.quota != Acts::Off);
    all.rate_limit.mode = Some(match settings.quota {
        Acts::Observe => AdmissionMode::Observe,
        Acts::On if settings.quota_wait.is_zero() => AdmissionMode::Reject,
        Acts::On | Acts::Off => AdmissionMode::Wait,
    });
    let timeout = &mut all.timeout;
    timeout.first_byte = Some(OrOff::Is(settings.first_byte().into()));
    let flex = settings.flex_first_byte().into();
    timeout.tier_first_byte.get_or_insert_default().entry(ServiceTier::Flex).or_insert(flex);
    timeout.idle = Some(match settings.idle_mode {
        Acts::On => OrOff::Is(settings.idle.into()),
        Acts::Observe | Acts::Off => OrOff::Off,
    });
    // No header of the gateway's own: what the client says arrives as it is.
    timeout.server_timeout = timeout.server_timeout.or(Some(false));
    // An answer that is to be asked for again must not have begun to arrive.
    if settings.empty_answers > 0 {
        all.classify.peek = all.classify.peek.or(Some(Peek::Output));
    }
    all.fallback.header = all.fallback.header.or(Some(tower_gemini::config::HeaderName(ANSWERED_BY)));
    let chains = settings.fallback.iter().map(|chain| (chain.model.clone(), chain.then.clone()));
    all.fallback.chain = Some(chains.collect());
    all.complete()
}

fn quotas(
    settings: &Settings,
    all: &StackConfig,
    observer: &Arc<dyn Observer>,
) -> Result<RateLimitLayer, ConfigError> {
    let limits = limits(settings);
    let mut quotas = all.rate_limit.to_builder().limits(limits).observer(Arc::clone(observer));
    // A store without its project was refused before.
    let store = settings.quota().ok().flatten();
    if let Some(quota) = &store {
        quotas = quotas.store(quota.fleet(&all.store));
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

fn limits(settings: &Settings) -> Limits {
    let spans = settings.values.sections().config.rate_limit.per.iter().flatten();
    let limits = spans.fold(Limits::new(), |limits, one| limits.per(one.unit, one.limit, one.span.get()));
    let limits = settings.requests_per_minute.into_iter().fold(limits, Limits::requests_per_minute);
    let limits = settings.tokens_per_minute.into_iter().fold(limits, Limits::input_tokens_per_minute);
    settings.requests_per_day.into_iter().fold(limits, Limits::requests_per_day)
}
