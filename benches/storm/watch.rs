//! The promises of this crate's layers, watched while they work.
//!
//! A [`Gate`] stands where a request is about to be sent, between circuit breaker and attempt timeout, and an observer
//! hears what the layers say. Each process has its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::time::Instant;
use tower::{Layer, Service};
use tower_gemini::circuit_breaker::CircuitState;
use tower_gemini::event::{Event, Observer};
use tower_gemini::rate_limit::LimitKind;
use tower_gemini::retry::{Attempt, Budget};
use tower_gemini::verdict::{Retryability, Sent};
use tower_gemini::{BoxError, Deadline, Verdict};

use super::scenario::Scenario;
use crate::quota::MINUTE;
use crate::server::Tokens;

/// The timer's: what ends a wait may come so much late.
const TICK: Duration = Duration::from_millis(1);

/// Probes under way at once, by the breaker's default.
const PROBES: u32 = 4;

/// What is promised in this scenario.
#[derive(Clone, Copy, Debug)]
struct Promises {
    /// Attempts in all; and the tokens of retries that did not help, beyond what each success pays in.
    attempts: u32,
    budget: f64,
    per_success: f64,
    deadline: Duration,
    /// In any minute, at most so many requests and tokens: where the quota is told as it is, and is nobody else's.
    rpm: Option<u64>,
    tpm: Option<u64>,
}

/// Of one process.
#[derive(Clone)]
pub(crate) struct Watch(Arc<Mutex<Watched>>);

pub(crate) struct Watched {
    promises: Promises,
    pub(crate) sends: u64,
    pub(crate) too_many: u64,
    successes: u64,
    /// Tokens that requests took which have not succeeded; of each that is not over yet, its own; and whose the last was.
    taken: f64,
    taken_by: HashMap<u64, f64>,
    charged: Option<(u64, u32)>,
    /// Waits for another attempt that cost nothing, and probes that failed, which are the only reason for them.
    free: u64,
    failed_probes: u64,
    minute: VecDeque<(Instant, u64)>,
    tokens: u64,
    /// Of the circuit: its last change, until when it is open, whether it probes, and how many probes are under way.
    generation: u32,
    open_until: Option<Instant>,
    half_open: bool,
    probes: u32,
    /// How many outages are over.
    outages: u32,
    /// Until when the quotas of a minute are closed, and since when.
    closed: Option<(Instant, Instant)>,
    /// The waits of each request so far.
    waits: HashMap<u64, Duration>,
    pub(crate) opened: u32,
    pub(crate) reopened: u32,
    pub(crate) cut: u32,
    violations: Vec<String>,
    violated: usize,
}

impl Watch {
    pub(crate) fn new(scenario: &Scenario, processes: usize, attempts: u32, budget: &Budget) -> Self {
        let quota = scenario.model.quota.as_ref().filter(|_| processes == 1);
        let exact =
            |told: Option<u64>, limit: Option<u64>| told.filter(|told| limit.is_some_and(|l| *told <= l));
        // What is guessed from a size is no promise.
        let known = scenario.load.prompts.is_some_and(|prompts| prompts.known);
        let promises = Promises {
            attempts,
            budget: f64::from(budget.cap()),
            per_success: budget.per_success(),
            deadline: scenario.deadline,
            rpm: exact(scenario.told.rpm, quota.and_then(|quota| quota.rpm)),
            tpm: exact(scenario.told.tpm, quota.and_then(|quota| quota.tpm)).filter(|_| known),
        };
        Self(Arc::new(Mutex::new(Watched {
            promises,
            sends: 0,
            too_many: 0,
            successes: 0,
            taken: 0.0,
            taken_by: HashMap::new(),
            charged: None,
            free: 0,
            failed_probes: 0,
            minute: VecDeque::new(),
            tokens: 0,
            generation: 0,
            open_until: None,
            half_open: false,
            probes: 0,
            outages: 0,
            closed: None,
            waits: HashMap::new(),
            opened: 0,
            reopened: 0,
            cut: 0,
            violations: Vec::new(),
            violated: 0,
        })))
    }

    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Watched) -> T) -> T {
        work(&mut self.0.lock().expect("nobody panics under it"))
    }

    /// A promise that must hold; what is wrong otherwise.
    pub(crate) fn holds(&self, holds: bool, wrong: impl FnOnce() -> String) {
        self.with(|watched| watched.holds(holds, wrong));
    }

    /// The first few in words, and how many there were.
    pub(crate) fn violations(&self) -> (Vec<String>, usize) {
        self.with(|watched| (watched.violations.clone(), watched.violated))
    }
}

impl Watched {
    fn holds(&mut self, holds: bool, wrong: impl FnOnce() -> String) {
        if !holds {
            self.violated += 1;
            if self.violations.len() < 5 {
                self.violations.push(wrong());
            }
        }
    }

    /// A request is about to be sent; whether it is a probe.
    fn on_send<B>(&mut self, request: &Request<B>) -> bool {
        let now = Instant::now();
        self.sends += 1;
        let attempt = Attempt::of(request);
        self.holds(attempt <= self.promises.attempts, || format!("attempt {attempt}"));
        let deadline = Deadline::of(request).map(Deadline::instant);
        let late = deadline.map(|deadline| now.saturating_duration_since(deadline));
        self.holds(late.is_some_and(|late| late <= TICK), || format!("sent after its deadline: {late:?}"));
        let open = self.open_until.is_some_and(|until| now < until);
        self.holds(!open, || "sent while the circuit was open".to_owned());
        let closed = self.closed.is_some_and(|(since, until)| since < now && now < until);
        self.holds(!closed, || "sent while the quota was closed".to_owned());
        if self.half_open {
            self.probes += 1;
            let probes = self.probes;
            self.holds(probes <= PROBES, || format!("{probes} probes at once"));
        }
        self.charge(now, request.extensions().get().map_or(0, |Tokens(tokens)| *tokens));
        self.half_open
    }

    /// The window that ends now is the fullest of all that hold this request and none after it.
    fn charge(&mut self, now: Instant, tokens: u64) {
        self.minute.push_back((now, tokens));
        self.tokens += tokens;
        while self.minute.front().is_some_and(|(at, _)| *at + MINUTE <= now) {
            self.tokens -= self.minute.pop_front().map_or(0, |(_, tokens)| tokens);
        }
        let (requests, tokens) = (self.minute.len() as u64, self.tokens);
        let Promises { rpm, tpm, .. } = self.promises;
        self.holds(rpm.is_none_or(|limit| requests <= limit), || format!("{requests} requests in a minute"));
        self.holds(tpm.is_none_or(|limit| tokens <= limit), || format!("{tokens} tokens in a minute"));
    }
}

impl Observer for Watch {
    fn on_event(&self, event: &Event<'_>) {
        let now = Instant::now();
        self.with(|watched| match event {
            Event::CircuitChanged { transition, .. } => {
                let (last, next) = (watched.generation, transition.generation);
                watched.holds(next == last + 1, || format!("generation {next} after {last}"));
                watched.generation = next;
                watched.open_until = transition.until.filter(|_| transition.to == CircuitState::Open);
                watched.half_open = transition.to == CircuitState::HalfOpen;
                // Probes stay probes across open and half-open of one outage.
                if transition.to == CircuitState::Closed {
                    watched.outages += 1;
                    watched.probes = 0;
                }
                let failed = transition.from == CircuitState::HalfOpen;
                if transition.to == CircuitState::Open {
                    *(if failed { &mut watched.reopened } else { &mut watched.opened }) += 1;
                }
            }
            Event::QuotaExceeded { dimension, until: Some(until), .. } => {
                // A longer door is probed now and then.
                let short = *until <= now + 2 * MINUTE;
                if short && *dimension != LimitKind::RequestsPerDay {
                    let before = watched.closed.filter(|(_, until)| now < *until);
                    let (since, most) = before.unwrap_or((now, *until));
                    watched.closed = Some((since, most.max(*until)));
                }
            }
            Event::BudgetCharged { request, attempt, cost, .. } => {
                watched.charged = Some((*request, *attempt));
                *watched.taken_by.entry(*request).or_default() += cost;
                watched.taken += cost;
                let Promises { budget, per_success, .. } = watched.promises;
                let (taken, most) = (watched.taken, budget + per_success * watched.successes as f64);
                watched.holds(taken <= most, || format!("{taken} tokens taken, {most} paid in"));
            }
            Event::Recovered { request, .. } => {
                watched.taken -= watched.taken_by.remove(request).unwrap_or(0.0);
            }
            Event::GaveUp { request, .. } => _ = watched.taken_by.remove(request),
            Event::Waiting { request, attempt, wait, verdict, .. } => {
                let least = verdict.server_delay().map_or(Duration::ZERO, |delay| delay.declared());
                // A call over a learnt limit goes back to the head of the rate limit's queue, and waits there.
                let queues = wait.is_zero() && !verdict.quota().is_empty();
                let early =
                    verdict.retryability() == Retryability::AfterServerDelay && *wait < least && !queues;
                watched.holds(!early, || format!("waits {wait:?} where the server asks for {least:?}"));
                let sum = watched.waits.entry(*request).or_default();
                *sum += *wait;
                let (sum, deadline) = (*sum, watched.promises.deadline);
                watched.holds(sum <= deadline, || format!("waits of {sum:?} with {deadline:?} in all"));
                let is_sent = verdict.sent() != Sent::No;
                let is_paid = watched.charged.take() == Some((*request, *attempt));
                if is_sent && !is_paid && verdict.retryability() == Retryability::WithBackoff {
                    watched.free += 1;
                    let (free, probes) = (watched.free, watched.failed_probes);
                    watched.holds(free <= probes, || format!("{free} retries for nothing, {probes} probes"));
                }
            }
            Event::ConcurrencyCut { .. } => watched.cut += 1,
            _ => {}
        });
    }
}

// ===== the gate =====

/// Puts a [`Gate`] around what sends.
#[derive(Clone)]
pub(crate) struct GateLayer(pub(crate) Watch);

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, watch: self.0.clone() }
    }
}

/// Looks at each call when it is sent, and at how it ends.
#[derive(Clone)]
pub(crate) struct Gate<S> {
    inner: S,
    watch: Watch,
}

/// A call under way.
struct Call {
    watch: Watch,
    /// The outage that it probes in.
    probe: Option<u32>,
}

impl Drop for Call {
    fn drop(&mut self) {
        let probe = self.probe;
        self.watch.with(|watched| {
            if probe == Some(watched.outages) {
                watched.probes -= 1;
            }
        });
    }
}

impl<S, B, RB> Service<Request<B>> for Gate<S>
where
    S: Service<Request<B>, Response = Response<RB>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<RB>;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<RB>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let watch = self.watch.clone();
        let probe = watch.with(|watched| watched.on_send(&request).then_some(watched.outages));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let call = Call { watch, probe };
            let result = answer.await;
            let status = result.as_ref().ok().map(|response| response.status().as_u16());
            let succeeded = result.as_ref().is_ok_and(|response| Verdict::of(response).is_success());
            let is_probe = call.probe.is_some();
            call.watch.with(|watched| {
                watched.failed_probes += u64::from(is_probe && !succeeded);
                watched.successes += u64::from(succeeded);
                watched.too_many += u64::from(status == Some(429));
            });
            result
        })
    }
}
