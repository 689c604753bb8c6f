//! This crate: its layers in the recommended order with their default settings, the retry budget of a whole stack, and
//! what the scenario tells of the quota.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::{ServiceBuilder, ServiceExt};
use tower_gemini::circuit_breaker::{CircuitBreakerLayer, Circuits};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::{AdaptiveConcurrencyLayer, ConcurrencyHandle};
use tower_gemini::event::Observer;
use tower_gemini::rate_limit::{InputTokens, Limits, RateLimitLayer, RateLimits};
use tower_gemini::retry::{Budget, RetryLayer, RetryPolicy};
use tower_gemini::{Deadline, Verdict};

use super::client::Sender;
use super::scenario::{Clock, Scenario, Told};
use super::tower::request;
use super::watch::{GateLayer, Watch};
use crate::server::Server;

/// The default of the retry policy, all kinds together.
const ATTEMPTS: u32 = 8;

/// One process, and what is left to look at when all is over.
pub(crate) struct Stack {
    pub(crate) send: Sender,
    pub(crate) watch: Watch,
    quotas: RateLimits,
    concurrency: ConcurrencyHandle,
    circuits: Circuits,
}

impl Stack {
    pub(crate) fn new(scenario: &Scenario, processes: usize, server: &Server, seed: u64) -> Self {
        let budget = Budget::default();
        let watch = Watch::new(scenario, processes, ATTEMPTS, &budget);
        let observer = || Arc::new(watch.clone()) as Arc<dyn Observer>;
        let policy = RetryPolicy::builder().budget(budget).seed(seed).observer(observer()).build();
        let mut limits = RateLimitLayer::builder().limits(told(scenario.told)).observer(observer());
        if let Some(clock) = &scenario.clock {
            limits = limits.wall_clock(calendar(clock.clone()));
        }
        let limits = limits.build().expect("a scenario's limits are in range");
        let concurrency = AdaptiveConcurrencyLayer::builder().seed(seed).observer(observer());
        let concurrency = concurrency.build().expect("the defaults are valid");
        let breaker = CircuitBreakerLayer::builder().seed(seed).observer(observer());
        let breaker = breaker.build().expect("the defaults are valid");
        let (quotas, governor, circuits) = (limits.handle(), concurrency.handle(), breaker.handle());
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(policy.expect("the defaults are valid")))
            .layer(limits)
            .layer(concurrency)
            .layer(breaker)
            .layer(GateLayer(watch.clone()))
            .layer(tower::timeout::TimeoutLayer::new(scenario.attempt_timeout))
            .layer(ClassifyLayer::new().watch())
            .service(server.clone());
        let service = tower::util::BoxCloneSyncService::new(service.map_response(|response| {
            let good = Verdict::of(&response).is_success();
            (good, response.into_body().boxed_unsync())
        }));
        let send: Sender = Rc::new(move |job| {
            let mut request = request(job);
            request.extensions_mut().insert(Deadline::at(job.deadline));
            if let Some(tokens) = job.known {
                request.extensions_mut().insert(InputTokens(tokens));
            }
            let call = service.clone().oneshot(request);
            Box::pin(async move {
                let Ok((good, body)) = call.await else { return false };
                body.collect().await.is_ok() && good
            })
        });
        Self { send, watch, quotas, concurrency: governor, circuits }
    }

    /// What must be so when all callers are gone: nothing waits, nothing is under way, and the books balance.
    pub(crate) fn close(&self) {
        let (sends, too_many) = self.watch.with(|watched| (watched.sends, watched.too_many));
        let (mut ended, mut refused) = (0, 0);
        for quota in self.quotas.status() {
            self.watch
                .holds(quota.queued == 0, || format!("{} left in the queue of the quota", quota.queued));
            self.watch.holds(quota.in_flight == 0, || format!("{} calls still reserved", quota.in_flight));
            let settled = quota.settled + quota.not_sent + quota.too_many;
            self.watch.holds(settled == quota.admitted, || {
                format!("{} admitted, {settled} settled or given back", quota.admitted)
            });
            ended += quota.settled + quota.too_many;
            refused += quota.too_many;
        }
        self.watch.holds(ended == sends, || format!("{sends} sent, {ended} on the books of the quota"));
        self.watch.holds(refused == too_many, || format!("{too_many} refused, {refused} on the books"));
        for (_, state) in self.concurrency.all() {
            let (queued, in_flight) = (state.queued(), state.in_flight());
            self.watch.holds(queued + in_flight as usize == 0, || {
                format!("{queued} wait for the concurrency limit, {in_flight} in flight")
            });
        }
        for circuit in self.circuits.all() {
            let history = circuit.history.windows(2).all(|two| two[0].generation < two[1].generation);
            self.watch.holds(history, || "a circuit's history is out of order".to_owned());
        }
    }
}

pub(super) fn told(told: Told) -> Limits {
    let mut limits = Limits::new();
    if let Some(rpm) = told.rpm {
        limits = limits.requests_per_minute(rpm);
    }
    if let Some(tpm) = told.tpm {
        limits = limits.input_tokens_per_minute(tpm);
    }
    if let Some(rpd) = told.rpd {
        limits = limits.requests_per_day(rpd);
    }
    limits
}

/// A calendar that begins with the scenario, and jumps as it says.
pub(super) fn calendar(clock: Clock) -> impl Fn() -> SystemTime + Send + Sync {
    let began = Instant::now();
    move || {
        let since = Instant::now() - began;
        let jump = clock.jumps.iter().rev().find(|(at, _)| *at <= since.as_secs_f64());
        let jump = jump.map_or(0, |(_, by)| *by);
        let shown = SystemTime::UNIX_EPOCH + clock.start + since;
        let by = Duration::from_secs(jump.unsigned_abs());
        if jump < 0 { shown - by } else { shown + by }
    }
}
