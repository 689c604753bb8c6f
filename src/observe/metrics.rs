//! What the layers tell, as counters, histograms and gauges of the `metrics` facade.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};

use ::metrics::{Label, SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram};
use ::metrics::{gauge, histogram};
use http::StatusCode;

use super::Call;
use super::names;
use crate::event::circuit::CircuitState;
use crate::event::{Event, Observer};
use crate::keyed::MAX_KEYS;
use crate::lock::lock;
use crate::request::TargetKey;
use crate::request::quota_key::QuotaKey;
use crate::verdict::{Outcome, Sent, Verdict};

/// Counts each [`Event`] by the [`metrics`](https://docs.rs/metrics) facade, with the recorder that is installed or
/// current.
///
/// Names begin with `tower_gemini_`. The labels `model` and `key` are bounded, see below; no label holds a path, a
/// request or a message.
///
/// | name | type, unit | labels | of |
/// |---|---|---|---|
/// | `calls_total` | counter | `model`, `method`, `outcome`, `kind` | finished calls |
/// | `call_duration_seconds` | histogram, s | `model`, `method`, `outcome` | from the call to its end |
/// | `time_to_head_seconds` | histogram, s | `model`, `method` | from the call to the head of the answer |
/// | `call_attempts_total` | counter | `model`, `method` | attempts made in finished calls |
/// | `tokens_total` | counter | `model`, `type` | tokens used: `input`, `cached` (part of them), `output`, `thought` |
/// | `failed_attempts_total` | counter | `kind` | attempts that failed |
/// | `waits_total` | counter | `kind` | waits before a further attempt |
/// | `wait_seconds` | histogram, s | `kind` | their lengths |
/// | `budget_charged_total` | counter | | retries that the budget paid for |
/// | `recovered_total` | counter | | requests that succeeded after a failure |
/// | `gave_up_total` | counter | `kind`, `why` | failures that were not retried |
/// | `queued_total` | counter | `model`, `pool`, `dimension` | requests that queued in the rate limit |
/// | `rate_limited_total` | counter | `model`, `pool`, `why` | requests that it did not admit |
/// | `quota_exceeded_total` | counter | `model`, `pool`, `dimension` | violations that a 429 named |
/// | `limits_differ_total` | counter | `model`, `pool` | keys of a fleet whose members were given different limits |
/// | `store_lost_total` | counter | | times that the store of a fleet did not answer |
/// | `store_up` | gauge | | 0 while it does not, 1 once it does again |
/// | `settled_tokens_total` | counter | `model`, `pool`, `what` | input tokens `charged` and `used`, where both are known |
/// | `preflight_findings_total` | counter | `rule`, `refused` | rules that requests break, and whether they were refused for it |
/// | `coalesced_total` | counter | `model` | requests that waited for the call of an equal one |
/// | `last_good_used_total` | counter | `model`, `kind` | old answers that stood in for failures |
/// | `last_good_age_seconds` | histogram, s | | how old they were |
/// | `fell_back_total` | counter | `model`, `kind` | steps to another model, by the one that was left and why |
/// | `redirects_total` | counter | `model`, `answered` | pairs of models, asked and answered, at their first such call |
/// | `downgraded_total` | counter | `model`, `asked`, `served` | calls that another service tier served than was asked for |
/// | `tier_calls_total` | counter | `model`, `tier`, `outcome` | finished calls that named a service tier |
/// | `fallback_refused_total` | counter | `why` | failures that another model might have mended, where none was asked |
/// | `moved_total` | counter | `from`, `to`, `kind` | requests that went on to another place |
/// | `place_closed_total` | counter | `place`, `kind` | times that a place was closed for a key |
/// | `hedges_total` | counter | `model` | calls that were sent a second time because they were late |
/// | `hedges_settled_total` | counter | `model`, `won` | second tries that are over, and whether they were answered first |
/// | `circuit_changes_total` | counter | `model`, `to`, `cause` | changes of circuits |
/// | `circuit_state` | gauge | `key` | 0 closed, 1 half-open, 2 open |
/// | `concurrency_cuts_total` | counter | `model` | cuts of the calls in flight |
/// | `concurrency_limit` | gauge | `key` | the limit at the last cut; +Inf once it was lifted |
/// | `keys_exhausted_total` | counter | `layer` | times that a layer began to leave further keys without state |
///
/// `outcome` is `complete`, `failed` or `dropped`; `kind` a [`Kind`](crate::Kind), or `none`; `model` is `none` where
/// nothing names it; the other words are the variants of their enums in snake case. `key` is a [`TargetKey`] as it prints: surface, model, place and label.
///
/// Models and keys have labels of their own up to [`max_models`](Self::max_models), 1,024 of each, and further ones are
/// `other`: whoever invents names cannot fill the memory of the recorder. Nor can they take the places of real models: a
/// name whose calls were all turned away with a 4xx other than 429, dropped before an answer or not sent is `other`, too,
/// and takes no place. Names of which nothing is known but that they queued have an eighth as many places, beside these.
///
/// ```
/// use std::sync::Arc;
/// use tower_gemini::circuit_breaker::CircuitBreakerLayer;
/// use tower_gemini::observe::{Metrics, ObserveLayer};
///
/// # fn main() -> Result<(), tower_gemini::ConfigError> {
/// let metrics = Arc::new(Metrics::new());
/// let breaker = CircuitBreakerLayer::builder().observer(metrics.clone()).build()?;
/// let calls = ObserveLayer::new(metrics);
/// # let _ = (breaker, calls); Ok(()) }
/// ```
pub struct Metrics {
    models: Names,
    keys: Names,
}

impl Metrics {
    /// An observer with the defaults. Describes the metrics to the recorder that is installed by now, if there is one.
    #[must_use]
    pub fn new() -> Self {
        describe();
        Self { models: Names::new(MAX_KEYS), keys: Names::new(MAX_KEYS) }
    }

    /// How many models, and how many keys, have a label of their own. Default 1,024 each. An eighth as many again are for
    /// models that have only queued in the rate limit.
    #[must_use]
    pub fn max_models(mut self, names: usize) -> Self {
        (self.models, self.keys) = (Names::new(names), Names::new(names));
        self
    }

    fn model(&self, model: Option<&str>, known: Known) -> Label {
        let name = model.map_or(SharedString::const_str("none"), |model| self.models.get(model, known));
        Label::new("model", name)
    }

    fn key(&self, key: &TargetKey) -> Label {
        Label::new("key", self.keys.get(&key.to_string(), Known::Real))
    }

    fn quota(&self, key: &QuotaKey, known: Known) -> [Label; 2] {
        [self.model(key.target().model(), known), Label::from_static_parts("pool", key.pool().as_str())]
    }

    fn finished(&self, call: &Call) {
        let model = self.model(call.model(), known_by(call));
        let method = Label::from_static_parts("method", call.method().as_str());
        let outcome = Label::from_static_parts("outcome", names::outcome(call.outcome()));
        let kind = Label::from_static_parts("kind", call.kind().map_or("none", |kind| kind.as_str()));
        let whose = vec![model.clone(), method.clone()];
        let how = vec![model.clone(), method.clone(), outcome.clone()];
        counter!("tower_gemini_calls_total", vec![model.clone(), method, outcome, kind]).increment(1);
        histogram!("tower_gemini_call_duration_seconds", how).record(call.latency());
        if let Some(head) = call.time_to_head() {
            histogram!("tower_gemini_time_to_head_seconds", whose.clone()).record(head);
        }
        counter!("tower_gemini_call_attempts_total", whose).increment(u64::from(call.attempts()));
        if let Some(tier) = call.tier_asked() {
            let labels = vec![
                model.clone(),
                Label::from_static_parts("tier", tier.as_str()),
                Label::from_static_parts("outcome", names::outcome(call.outcome())),
            ];
            counter!("tower_gemini_tier_calls_total", labels).increment(1);
        }
        let Some(usage) = call.usage() else { return };
        for (name, tokens) in [
            ("input", usage.input_tokens),
            ("cached", usage.cached_tokens),
            ("output", usage.output_tokens),
            ("thought", usage.thought_tokens),
        ] {
            let labels = vec![model.clone(), Label::from_static_parts("type", name)];
            counter!("tower_gemini_tokens_total", labels).increment(tokens);
        }
    }

    fn settled(&self, key: &QuotaKey, charged: u64, used: u64) {
        for (what, tokens) in [("charged", charged), ("used", used)] {
            let [model, pool] = self.quota(key, Known::Real);
            let labels = vec![model, pool, Label::from_static_parts("what", what)];
            counter!("tower_gemini_settled_tokens_total", labels).increment(tokens);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for Metrics {
    fn on_event(&self, event: &Event<'_>) {
        match *event {
            Event::AttemptFailed { verdict, .. } => {
                counter!("tower_gemini_failed_attempts_total", "kind" => kind_of(verdict)).increment(1);
            }
            Event::BudgetCharged { .. } => counter!("tower_gemini_budget_charged_total").increment(1),
            Event::Waiting { wait, verdict, .. } => {
                counter!("tower_gemini_waits_total", "kind" => kind_of(verdict)).increment(1);
                histogram!("tower_gemini_wait_seconds", "kind" => kind_of(verdict)).record(wait);
            }
            Event::Recovered { .. } => counter!("tower_gemini_recovered_total").increment(1),
            Event::GaveUp { why, verdict, .. } => {
                let (kind, why) = (kind_of(verdict), names::gave_up(why));
                counter!("tower_gemini_gave_up_total", "kind" => kind, "why" => why).increment(1);
            }
            Event::Queued { key, dimension, .. } => {
                let [model, pool] = self.quota(key, Known::Queued);
                let labels =
                    vec![model, pool, Label::from_static_parts("dimension", names::dimension(dimension))];
                counter!("tower_gemini_queued_total", labels).increment(1);
            }
            Event::RateLimited { key, why, .. } => {
                let [model, pool] = self.quota(key, Known::Queued);
                let labels = vec![model, pool, Label::from_static_parts("why", names::why(why))];
                counter!("tower_gemini_rate_limited_total", labels).increment(1);
            }
            Event::QuotaExceeded { key, dimension, .. } => {
                let [model, pool] = self.quota(key, Known::Real);
                let labels =
                    vec![model, pool, Label::from_static_parts("dimension", names::dimension(dimension))];
                counter!("tower_gemini_quota_exceeded_total", labels).increment(1);
            }
            Event::Settled { key, charged, used: Some(used) } => self.settled(key, charged, used),
            Event::CircuitChanged { key, transition } => {
                let labels = vec![
                    self.model(key.model(), Known::Real),
                    Label::from_static_parts("to", names::state(transition.to)),
                    Label::from_static_parts("cause", names::cause(transition.cause)),
                ];
                counter!("tower_gemini_circuit_changes_total", labels).increment(1);
                let state = match transition.to {
                    CircuitState::Closed => 0.0,
                    CircuitState::HalfOpen => 1.0,
                    CircuitState::Open => 2.0,
                };
                gauge!("tower_gemini_circuit_state", vec![self.key(key)]).set(state);
            }
            Event::ConcurrencyCut { key, limit, .. } => {
                let labels = vec![self.model(key.model(), Known::Real)];
                counter!("tower_gemini_concurrency_cuts_total", labels).increment(1);
                gauge!("tower_gemini_concurrency_limit", vec![self.key(key)]).set(limit);
            }
            Event::ConcurrencyLifted { key } => {
                gauge!("tower_gemini_concurrency_limit", vec![self.key(key)]).set(f64::INFINITY);
            }
            Event::Preflight { finding, refused, .. } => {
                let refused = if refused { "true" } else { "false" };
                let rule = finding.rule().as_str();
                counter!("tower_gemini_preflight_findings_total", "rule" => rule, "refused" => refused)
                    .increment(1);
            }
            Event::LastGoodUsed { key, age, verdict } => {
                let kind = Label::from_static_parts("kind", kind_of(verdict));
                let labels = vec![self.model(key.model(), Known::Queued), kind];
                counter!("tower_gemini_last_good_used_total", labels).increment(1);
                histogram!("tower_gemini_last_good_age_seconds").record(age);
            }
            Event::Coalesced { key } => {
                let labels = vec![self.model(key.model(), Known::Queued)];
                counter!("tower_gemini_coalesced_total", labels).increment(1);
            }
            Event::FellBack { from, verdict, .. } => {
                let known = if is_invented(verdict.http_status()) { Known::Named } else { Known::Real };
                let kind = Label::from_static_parts("kind", kind_of(verdict));
                counter!("tower_gemini_fell_back_total", vec![self.model(Some(from), known), kind])
                    .increment(1);
            }
            Event::Redirected { asked, answered } => {
                let answered = Label::new("answered", self.models.get(answered, Known::Real));
                counter!(
                    "tower_gemini_redirects_total",
                    vec![self.model(Some(asked), Known::Real), answered]
                )
                .increment(1);
            }
            Event::Downgraded { model, asked, served } => {
                let labels = vec![
                    self.model(model, Known::Real),
                    Label::from_static_parts("asked", asked.as_str()),
                    Label::from_static_parts("served", served.as_str()),
                ];
                counter!("tower_gemini_downgraded_total", labels).increment(1);
            }
            // Places are named by who configures them, and are 16 at the most.
            Event::Moved { from, to, verdict } => {
                let labels = vec![
                    Label::new("from", from.to_owned()),
                    Label::new("to", to.to_owned()),
                    Label::from_static_parts("kind", kind_of(verdict)),
                ];
                counter!("tower_gemini_moved_total", labels).increment(1);
            }
            Event::PlaceClosed { place, verdict, .. } => {
                let kind = Label::from_static_parts("kind", kind_of(verdict));
                counter!(
                    "tower_gemini_place_closed_total",
                    vec![Label::new("place", place.to_owned()), kind]
                )
                .increment(1);
            }
            Event::Hedged { key, .. } => {
                counter!("tower_gemini_hedges_total", vec![self.model(key.model(), Known::Real)])
                    .increment(1);
            }
            Event::HedgeSettled { key, won, .. } => {
                let won = Label::from_static_parts("won", if won { "true" } else { "false" });
                let labels = vec![self.model(key.model(), Known::Real), won];
                counter!("tower_gemini_hedges_settled_total", labels).increment(1);
            }
            Event::StreamResumed { key, restarted, verdict, .. } => {
                let labels = vec![
                    self.model(key.model(), Known::Real),
                    Label::from_static_parts("restarted", if restarted { "true" } else { "false" }),
                    Label::from_static_parts("kind", kind_of(verdict)),
                ];
                counter!("tower_gemini_streams_resumed_total", labels).increment(1);
            }
            Event::FallbackRefused { why, .. } => {
                counter!("tower_gemini_fallback_refused_total", "why" => names::refusal(why)).increment(1);
            }
            Event::StoreLost { .. } => {
                counter!("tower_gemini_store_lost_total").increment(1);
                gauge!("tower_gemini_store_up").set(0.0);
            }
            Event::StoreFound { .. } => gauge!("tower_gemini_store_up").set(1.0),
            Event::LimitsDiffer { key, .. } => {
                let [model, pool] = self.quota(key, Known::Real);
                counter!("tower_gemini_limits_differ_total", vec![model, pool]).increment(1);
            }
            Event::KeysExhausted { layer, .. } => {
                counter!("tower_gemini_keys_exhausted_total", "layer" => layer.as_str()).increment(1);
            }
            // Misplaced is told once, to who writes the program.
            Event::Settled { used: None, .. } | Event::Misplaced { .. } => {}
            Event::Finished { call } => self.finished(call),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("max_models", &self.models.max).finish_non_exhaustive()
    }
}

fn kind_of(verdict: &Verdict) -> &'static str {
    verdict.kind().map_or("none", |kind| kind.as_str())
}

/// What is known of a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing but the name, which anybody can invent.
    Named,
    /// Calls with it had to wait, or were not admitted.
    Queued,
    /// There was an answer that an invented name does not get.
    Real,
}

/// Whether this is how an invented name is answered.
fn is_invented(status: Option<StatusCode>) -> bool {
    status.is_some_and(|status| status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS)
}

fn known_by(call: &Call) -> Known {
    let is_real = match call.outcome() {
        Outcome::Complete => true,
        Outcome::Failed(_) => !is_invented(call.status()) && call.verdict().sent() != Sent::No,
        Outcome::Dropped => call.status().is_some_and(|status| !is_invented(Some(status))),
    };
    if is_real { Known::Real } else { Known::Named }
}

/// Names that have become labels, so that there is an end to them, and one allocation for each.
struct Names {
    known: Mutex<KnownNames>,
    max: usize,
}

#[derive(Default)]
struct KnownNames {
    real: HashSet<Arc<str>>,
    /// Of these nothing is known but that they queued. Some may have become real since.
    queued: HashSet<Arc<str>>,
}

impl Names {
    fn new(max: usize) -> Self {
        Self { known: Mutex::default(), max }
    }

    fn get(&self, name: &str, known: Known) -> SharedString {
        let mut names = lock(&self.known);
        if let Some(name) = names.real.get(name) {
            return SharedString::from_shared(Arc::clone(name));
        }
        let queued = names.queued.get(name).cloned();
        let (set, max) = match known {
            Known::Real => (&mut names.real, self.max),
            Known::Queued => (&mut names.queued, self.max / 8),
            Known::Named => (&mut names.queued, 0),
        };
        let has_room = set.len() < max;
        let Some(name) = queued.or_else(|| has_room.then(|| name.into())) else {
            return SharedString::const_str("other");
        };
        if has_room {
            set.insert(Arc::clone(&name));
        }
        SharedString::from_shared(name)
    }
}

fn describe() {
    for (name, unit, text) in [
        ("tower_gemini_calls_total", Unit::Count, "Finished calls"),
        ("tower_gemini_call_attempts_total", Unit::Count, "Attempts made in finished calls"),
        ("tower_gemini_tokens_total", Unit::Count, "Tokens used"),
        ("tower_gemini_failed_attempts_total", Unit::Count, "Attempts that failed"),
        ("tower_gemini_waits_total", Unit::Count, "Waits before a further attempt"),
        ("tower_gemini_budget_charged_total", Unit::Count, "Retries that the budget paid for"),
        ("tower_gemini_recovered_total", Unit::Count, "Requests that succeeded after a failure"),
        ("tower_gemini_gave_up_total", Unit::Count, "Failures that were not retried"),
        ("tower_gemini_queued_total", Unit::Count, "Requests that queued in the rate limit"),
        ("tower_gemini_rate_limited_total", Unit::Count, "Requests that the rate limit did not admit"),
        ("tower_gemini_quota_exceeded_total", Unit::Count, "Quota violations that a 429 named"),
        ("tower_gemini_limits_differ_total", Unit::Count, "Keys whose members were given different limits"),
        ("tower_gemini_store_lost_total", Unit::Count, "Times that a fleet's store did not answer"),
        ("tower_gemini_settled_tokens_total", Unit::Count, "Input tokens charged and used"),
        ("tower_gemini_circuit_changes_total", Unit::Count, "Changes of circuits"),
        ("tower_gemini_concurrency_cuts_total", Unit::Count, "Cuts of the calls in flight"),
        ("tower_gemini_redirects_total", Unit::Count, "Pairs of models, asked and answered, that differ"),
        ("tower_gemini_downgraded_total", Unit::Count, "Calls that another service tier served"),
        ("tower_gemini_tier_calls_total", Unit::Count, "Finished calls that named a service tier"),
        ("tower_gemini_coalesced_total", Unit::Count, "Requests that waited for the call of an equal one"),
        ("tower_gemini_last_good_used_total", Unit::Count, "Old answers that stood in for failures"),
        ("tower_gemini_keys_exhausted_total", Unit::Count, "Times that further keys were left without state"),
    ] {
        describe_counter!(name, unit, text);
    }
    for (name, text) in [
        ("tower_gemini_call_duration_seconds", "From the call to its end"),
        ("tower_gemini_time_to_head_seconds", "From the call to the head of the answer"),
        ("tower_gemini_last_good_age_seconds", "Age of old answers that stood in"),
        ("tower_gemini_wait_seconds", "Waits before a further attempt"),
    ] {
        describe_histogram!(name, Unit::Seconds, text);
    }
    describe_gauge!("tower_gemini_circuit_state", "0 closed, 1 half-open, 2 open");
    describe_gauge!("tower_gemini_store_up", "0 while a fleet's store does not answer");
    describe_gauge!("tower_gemini_concurrency_limit", "Calls that may be in flight");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_takes_a_place_when_something_is_known_of_it() {
        let names = Names::new(16);
        let get = |name: &str, known| names.get(name, known).into_owned();
        for n in 0..2_000 {
            assert_eq!(get(&format!("invented-{n}"), Known::Named), "other");
        }
        assert_eq!(get("real", Known::Real), "real");
        assert_eq!(get("real", Known::Named), "real", "for good");
        // Those that have only queued take no place of the others.
        let queued: Vec<_> = (0..100).map(|n| get(&format!("queued-{n}"), Known::Queued)).collect();
        assert_eq!(
            queued.iter().filter(|name| *name != "other").collect::<Vec<_>>(),
            ["queued-0", "queued-1"]
        );
        assert_eq!(get("queued-0", Known::Named), "queued-0");
        for n in 0..15 {
            let name = format!("queued-{n}");
            assert_eq!(get(&name, Known::Real), name);
        }
        assert_eq!(get("one more", Known::Real), "other");
        let names = lock(&names.known);
        assert_eq!((names.real.len(), names.queued.len()), (16, 2));
    }
}
