//! The simulator's shared state, and the handle that steers it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::request::Parts;
use tokio::time::Instant;

use super::builder::{Config, bare};
use super::fault::{Delivery, ErrorKind, Kind};
use super::guard::Guard;
use super::interaction::Interactions;
use super::log::Log;
use super::plan::{Decision, Reply, Request, reply};
use super::quota::Meters;
use super::route::{Action, Route};
use super::rule::Armed;
use super::{Call, CallCause, ConfigError, Fault, Quota, Rule, SimServer, SimulatorBuilder};
use crate::rng::RngSource;

/// Google's Gemini API, simulated: a `Service<http::Request<_>>`, and a server by [`serve`](Self::serve).
///
/// Clones are cheap and are the same simulator: rules, quotas, numbers and the log are shared, also with its
/// servers. See the [module's page](super) for defaults and examples.
#[derive(Clone)]
pub struct Simulator {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) config: Config,
    state: Mutex<State>,
}

struct State {
    /// When the first call came. All offsets count from here.
    epoch: Option<Instant>,
    calls: u64,
    rules: Vec<Armed>,
    /// The models that exist, and what is left of their quotas.
    models: BTreeMap<String, Option<Meters>>,
    interactions: Interactions,
    chance: RngSource,
    log: Log,
}

impl State {
    fn offset(&mut self) -> Duration {
        let now = crate::time::now();
        now.saturating_duration_since(*self.epoch.get_or_insert(now))
    }
}

impl Simulator {
    /// A healthy Gemini with the defaults of the [module's page](super).
    #[must_use]
    pub fn new() -> Self {
        SimulatorBuilder::default().assemble()
    }

    /// Starts with the same defaults.
    pub fn builder() -> SimulatorBuilder {
        SimulatorBuilder::default()
    }

    pub(super) fn from_parts(
        config: Config,
        models: BTreeMap<String, Option<Quota>>,
        rules: Vec<Rule>,
        seed: u64,
        log_capacity: usize,
    ) -> Self {
        let models = models.into_iter().map(|(name, quota)| (name, quota.map(|q| Meters::new(q, None))));
        let state = State {
            epoch: None,
            calls: 0,
            rules: rules.into_iter().map(Armed::new).collect(),
            models: models.collect(),
            interactions: Interactions::default(),
            chance: RngSource::seeded(seed),
            log: Log::new(log_capacity),
        };
        Self { shared: Arc::new(Shared { config, state: Mutex::new(state) }) }
    }

    /// Adds a rule after those already there. It concerns calls from now on.
    ///
    /// # Errors
    ///
    /// As for the rules of [`SimulatorBuilder::build`]; then nothing was added.
    pub fn push(&self, rule: impl Into<Rule>) -> Result<(), ConfigError> {
        let rule = rule.into();
        rule.check()?;
        self.shared.lock().rules.push(Armed::new(rule));
        Ok(())
    }

    /// Removes all rules. Calls that a rule has already met go on as it said.
    pub fn clear_rules(&self) {
        self.shared.lock().rules.clear();
    }

    /// Enforces another quota for a model from now on, or none. A model that did not exist exists from then
    /// on.
    ///
    /// What was charged so far stays charged if the old and the new quota use the same
    /// [`Algorithm`](super::Algorithm); otherwise, and for a limit that was not there before, counts start at
    /// zero.
    pub fn set_quota(&self, model: impl Into<String>, quota: Option<Quota>) {
        let model = bare(model.into());
        let mut state = self.shared.lock();
        let before = state.models.remove(&model).flatten();
        state.models.insert(model, quota.map(|quota| Meters::new(quota, before)));
    }

    /// The calls in the log, oldest first, as they stand now.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.lock().log.to_vec()
    }

    /// How many calls came since the simulator was built, whether or not the log still holds them.
    #[must_use]
    pub fn call_count(&self) -> u64 {
        self.shared.lock().calls
    }

    /// Empties the log. Numbers and offsets go on.
    pub fn clear_log(&self) {
        self.shared.lock().log.clear();
    }

    /// Serves this simulator over HTTP/1.1 on a free port of 127.0.0.1 until the [`SimServer`] is dropped.
    ///
    /// # Errors
    ///
    /// If the port cannot be bound.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn serve(&self) -> io::Result<SimServer> {
        SimServer::start(self.clone()).await
    }
}

impl Default for Simulator {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Simulator")
            .field("config", &self.shared.config)
            .field("calls", &state.calls)
            .field("rules", &state.rules.len())
            .field("models", &state.models.len())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No invariant spans a panic here: the worst a poisoned lock holds is a log entry half filled in.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers and logs a call.
    pub(super) fn begin(self: &Arc<Self>, head: &Parts, route: &Route) -> Guard {
        let recorded = self.config.recorded.iter();
        let headers = recorded.filter_map(|name| Some((name.clone(), head.headers.get(name)?.clone())));
        let mut state = self.lock();
        let at = state.offset();
        state.calls += 1;
        let number = state.calls;
        state.log.push(Call {
            number,
            at,
            model: route.model.clone(),
            method: route.action.name(),
            headers: headers.collect(),
            request_bytes: 0,
            prompt_tokens: 0,
            status: None,
            transport: None,
            cause: CallCause::Healthy,
            ended_at: None,
            dropped: false,
        });
        Guard::new(Arc::clone(self), number, at)
    }

    /// Changes the log's entry of a call, if it still has it. The offset is now's.
    pub(super) fn note(&self, number: u64, change: impl FnOnce(&mut Call, Duration)) {
        let mut state = self.lock();
        let now = state.offset();
        if let Some(call) = state.log.get_mut(number) {
            change(call, now);
        }
    }

    /// The fault of the first rule that matches.
    pub(super) fn pick(&self, guard: &Guard, model: Option<&str>, action: Action) -> Option<Fault> {
        let mut state = self.lock();
        let State { rules, chance, .. } = &mut *state;
        // One stream for a call, made only if chance has a say.
        let mut stream = None;
        rules.iter_mut().find_map(|rule| {
            let draw = || stream.get_or_insert_with(|| chance.stream()).unit();
            rule.fire(guard.number(), guard.at(), model, action, draw)
        })
    }

    /// Decides about a call, charges its quota, and writes the response (`None`: a reset before the head).
    pub(super) fn decide(
        &self,
        request: &Request,
        fault: Option<Fault>,
        too_large: bool,
    ) -> (Decision, Option<Reply>) {
        let mut state = self.lock();
        let decision = state.judge(&self.config, request, fault, too_large);
        let now = state.offset();
        let State { models, interactions, .. } = &mut *state;
        let models = models.keys().map(String::as_str);
        let reply = reply(&self.config, request, &decision, models, interactions, now);
        (decision, reply)
    }
}

impl State {
    fn judge(
        &mut self,
        config: &Config,
        request: &Request,
        fault: Option<Fault>,
        too_large: bool,
    ) -> Decision {
        let spoils = |fault: &Fault| match fault.kind {
            Kind::Error(_) | Kind::Response { .. } => fault.shape.delivery != Delivery::Head,
            Kind::Refused | Kind::ResetBeforeHead | Kind::Stalled(_) => false,
            _ => true,
        };
        let fault = match fault {
            Some(fault) if !spoils(&fault) => return Decision::Scripted(fault),
            other => other,
        };
        let action = request.route.action;
        if action == Action::Unknown {
            return Decision::Turned(ErrorKind::NotFoundHtml, "unknown path");
        }
        if config.require_key {
            match &request.key {
                None => return Decision::Turned(ErrorKind::NoApiKey, "no key"),
                Some(key) if !config.valid_keys.is_empty() && !config.valid_keys.contains(key) => {
                    return Decision::Turned(ErrorKind::ApiKeyInvalid, "wrong key");
                }
                Some(_) => {}
            }
        }
        if too_large {
            return Decision::Turned(ErrorKind::PayloadTooLarge, "too large");
        }
        // Models matter to an interaction only when it is made.
        if action == Action::ListModels || request.route.interaction.is_some() {
            return Decision::Admitted(fault);
        }
        let now = self.offset();
        match self.models.get_mut(request.model()) {
            None => Decision::Turned(ErrorKind::NotFound, "unknown model"),
            Some(Some(meters)) if action.is_charged() => match meters.admit(now, request.prompt.tokens) {
                Ok(()) => Decision::Admitted(fault),
                Err(denied) => Decision::Denied(denied),
            },
            Some(_) => Decision::Admitted(fault),
        }
    }
}
