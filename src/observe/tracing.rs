//! What the layers tell, as events of the `tracing` facade.

use ::tracing::{debug, info, trace, warn};

use super::{Call, names};
use crate::event::circuit::CircuitState;
use crate::event::{Event, Observer};
use crate::tier::ServiceTier;
use crate::verdict::{Outcome, Verdict};

/// Emits an event of [`tracing`](https://docs.rs/tracing) for each [`Event`], with the target `tower_gemini`.
///
/// | level | events |
/// |---|---|
/// | warn | a failure that was not retried, a failed call, an open circuit, a request over a limit, a quota exceeded, a cut |
/// | info | a request that recovered, a circuit that closed, a limit lifted |
/// | debug | failed attempts, waits, charges of the budget, queued requests, half-open circuits, good and dropped calls |
/// | trace | what the rate limit settled |
///
/// Names of fields are OpenTelemetry's where it has one, as its conventions stand in version 1.42 for HTTP (stable)
/// and beside it for generative AI (in development, in a repository of their own), read 2026-11:
///
/// | field | value |
/// |---|---|
/// | `gen_ai.operation.name` | [`Call::operation`] |
/// | `gen_ai.provider.name` | [`Call::provider`] |
/// | `gen_ai.request.model`, `gen_ai.request.stream` | where known; where asked for |
/// | `gen_ai.response.model` | the model that the answer names, where that is not the one that was sent |
/// | `gen_ai.usage.input_tokens`, `gen_ai.usage.cache_read.input_tokens` | all input tokens; those from a cache |
/// | `gen_ai.usage.output_tokens`, `gen_ai.usage.reasoning.output_tokens` | output with thoughts; thoughts |
/// | `http.request.method`, `http.response.status_code`, `http.request.resend_count` | the last where it was sent again |
/// | `url.path`, `server.address`, `server.port` | the path has no query |
/// | `error.type` | the [`Kind`](crate::Kind), as it prints |
///
/// `url.full`, which the conventions ask for, is left out: its query may hold the key. Fields that are not
/// OpenTelemetry's are plain words: `tier_asked`, `tier_served`, `request`, `attempt`, `wait_seconds`, `why`, `key`, `error_message`, and so on.
///
/// ```
/// use std::sync::Arc;
/// use tower_gemini::observe::{ObserveLayer, Tracing};
/// use tower_gemini::retry::RetryPolicy;
///
/// # fn main() -> Result<(), tower_gemini::ConfigError> {
/// let policy = RetryPolicy::builder().observer(Arc::new(Tracing::new())).build()?;
/// let calls = ObserveLayer::new(Arc::new(Tracing::new())).spans();
/// # let _ = (policy, calls); Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Tracing;

impl Tracing {
    /// An observer. It has no state.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

/// The kind's name; a failure always has one.
fn kind_of(verdict: &Verdict) -> &'static str {
    verdict.kind().map_or("_OTHER", |kind| kind.as_str())
}

fn status_of(verdict: &Verdict) -> Option<u16> {
    verdict.http_status().map(|status| status.as_u16())
}

impl Observer for Tracing {
    fn on_event(&self, event: &Event<'_>) {
        match *event {
            Event::AttemptFailed { request, attempt, verdict } => debug!(
                target: "tower_gemini",
                request,
                attempt,
                error.type = kind_of(verdict),
                http.response.status_code = status_of(verdict),
                error_message = &*verdict.message(),
                "attempt failed",
            ),
            Event::BudgetCharged { request, attempt, cost, left } => {
                debug!(target: "tower_gemini", request, attempt, cost, left, "retry budget charged");
            }
            Event::Waiting { request, attempt, wait, verdict } => debug!(
                target: "tower_gemini",
                request,
                attempt,
                wait_seconds = wait.as_secs_f64(),
                error.type = kind_of(verdict),
                "waiting for the next attempt",
            ),
            Event::Recovered { request, attempts } => {
                info!(target: "tower_gemini", request, attempts, "recovered");
            }
            Event::GaveUp { request, attempts, why, verdict } => warn!(
                target: "tower_gemini",
                request,
                attempts,
                why = names::gave_up(why),
                error.type = kind_of(verdict),
                http.response.status_code = status_of(verdict),
                error_message = &*verdict.message(),
                "gave up",
            ),
            Event::Queued { key, dimension, .. } => {
                debug!(target: "tower_gemini", %key, dimension = names::dimension(dimension), "queued by the rate limit");
            }
            Event::RateLimited { key, why, .. } => {
                warn!(target: "tower_gemini", %key, why = names::why(why), "not admitted by the rate limit");
            }
            Event::QuotaExceeded { key, dimension, limit, .. } => {
                warn!(target: "tower_gemini", %key, dimension = names::dimension(dimension), limit, "quota exceeded");
            }
            Event::Settled { key, charged, used } => {
                trace!(target: "tower_gemini", %key, charged, used, "settled");
            }
            Event::CircuitChanged { key, transition } => {
                let (cause, generation) = (names::cause(transition.cause), transition.generation);
                match transition.to {
                    CircuitState::Open => {
                        warn!(target: "tower_gemini", %key, cause, generation, "circuit opened");
                    }
                    CircuitState::HalfOpen => {
                        debug!(target: "tower_gemini", %key, cause, generation, "circuit half-open");
                    }
                    CircuitState::Closed => {
                        info!(target: "tower_gemini", %key, cause, generation, "circuit closed");
                    }
                }
            }
            Event::ConcurrencyCut { key, in_flight, limit } => {
                warn!(target: "tower_gemini", %key, in_flight, limit, "calls in flight cut");
            }
            Event::ConcurrencyLifted { key } => {
                info!(target: "tower_gemini", %key, "calls in flight have no limit any more");
            }
            Event::Preflight { key, finding, refused } => warn!(
                target: "tower_gemini",
                %key,
                rule = finding.rule().as_str(),
                field = finding.field(),
                refused,
                "{}",
                finding.message(),
            ),
            Event::LastGoodUsed { key, age, verdict } => warn!(
                target: "tower_gemini",
                %key,
                age_s = age.as_secs_f64(),
                kind = verdict.kind().map(|kind| kind.as_str()),
                "everything failed, an old answer stands in"
            ),
            Event::Coalesced { key } => {
                debug!(target: "tower_gemini", %key, "waits for the call of an equal request");
            }
            Event::FellBack { from, to, tier, verdict } => {
                let tier = tier.map(ServiceTier::as_str);
                warn!(target: "tower_gemini", from, to, tier, error.type = kind_of(verdict), "fell back to another model");
            }
            Event::Redirected { asked, answered } => {
                warn!(target: "tower_gemini", asked, answered, "answered by another model than was asked");
            }
            Event::Downgraded { model, asked, served } => info!(
                target: "tower_gemini",
                asked = asked.as_str(),
                served = served.as_str(),
                gen_ai.request.model = model,
                "served in another tier than was asked for",
            ),
            Event::Moved { from, to, verdict } => {
                info!(target: "tower_gemini", from, to, error.type = kind_of(verdict), "moved to another place");
            }
            Event::PlaceClosed { place, key, verdict, .. } => {
                warn!(target: "tower_gemini", place, %key, error.type = kind_of(verdict), "place closed");
            }
            Event::Hedged { key, after } => {
                debug!(target: "tower_gemini", %key, after_seconds = after.as_secs_f64(), "sent a second time");
            }
            Event::HedgeSettled { key, won, took } => {
                debug!(target: "tower_gemini", %key, won, took_seconds = took.as_secs_f64(), "second try is over");
            }
            Event::StreamResumed { key, restarted, verdict, delivered, billed } => info!(
                target: "tower_gemini",
                %key,
                restarted,
                delivered,
                billed,
                error.type = kind_of(verdict),
                "stream goes on with a further call",
            ),
            Event::FallbackRefused { model, why, verdict } => warn!(
                target: "tower_gemini",
                from = model,
                why = names::refusal(why),
                error.type = kind_of(verdict),
                "no other model was asked",
            ),
            // A fault of the program and not of the day: for who writes it.
            Event::Misplaced { layer, inside, consequence } => {
                debug!(target: "tower_gemini", layer = layer.as_str(), inside = inside.as_str(), consequence, "layer misplaced");
            }
            Event::StoreLost { store, why } => {
                warn!(target: "tower_gemini", store, why, "quota store lost");
            }
            Event::StoreFound { store, lost_for } => {
                info!(target: "tower_gemini", store, ?lost_for, "quota store found");
            }
            Event::LimitsDiffer { key, limits } => {
                warn!(target: "tower_gemini", %key, ?limits, "members of the fleet were given different limits");
            }
            Event::KeysExhausted { layer, max_keys } => {
                warn!(target: "tower_gemini", layer = layer.as_str(), max_keys, "all keys are in use");
            }
            Event::Finished { call } => finished(call),
        }
    }
}

fn finished(call: &Call) {
    // A macro, since the level of an event is part of the place that emits it.
    macro_rules! emit {
        ($level:ident, $text:literal) => {
            $level!(
                target: "tower_gemini",
                // First, since the macros take no first name with a dot.
                latency_seconds = call.latency().as_secs_f64(),
                gen_ai.operation.name = call.operation(),
                gen_ai.provider.name = call.provider(),
                gen_ai.request.model = call.model(),
                gen_ai.response.model = call.model_version(),
                tier_asked = call.tier_asked().map(ServiceTier::as_str),
                tier_served = call.tier_served().map(ServiceTier::as_str),
                gen_ai.request.stream = call.is_streaming().then_some(true),
                gen_ai.usage.input_tokens = call.usage().map(|usage| usage.input_tokens),
                gen_ai.usage.cache_read.input_tokens = call.usage().map(|usage| usage.cached_tokens),
                gen_ai.usage.output_tokens =
                    call.usage().map(|usage| usage.output_tokens.saturating_add(usage.thought_tokens)),
                gen_ai.usage.reasoning.output_tokens = call.usage().map(|usage| usage.thought_tokens),
                http.request.method = call.http_method().as_str(),
                http.request.resend_count = (call.resends() > 0).then(|| call.resends()),
                http.response.status_code = call.status().map(|status| status.as_u16()),
                url.path = &*call.path(),
                server.address = call.host(),
                server.port = call.port(),
                error.type = call.kind().map(|kind| kind.as_str()),
                error_message = call.kind().map(|_| display(call.message())),
                waited_seconds = call.waited().as_secs_f64(),
                $text,
            )
        };
    }
    match call.outcome() {
        Outcome::Failed(_) => emit!(warn, "call failed"),
        Outcome::Dropped => emit!(debug, "call dropped by its caller"),
        _ => emit!(debug, "call finished"),
    }
}
