//! The one model of a client that the policies run on.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::controls::{Breaker, Budget, Cubic, Gcra};
use super::policy::{LimiterRule, Policy};
use super::scenario::Scenario;
use crate::server::{Answer, Call, Server};

/// One request, on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) deadline: Instant,
    pub(crate) tokens: Option<u64>,
    /// The tokens, where the caller has counted them.
    pub(crate) known: Option<u64>,
    pub(crate) bytes: usize,
    /// Its number, which all its attempts have.
    pub(crate) request: usize,
    pub(crate) tenant: usize,
    /// Whether its attempts carry the name of the tenant.
    pub(crate) labelled: bool,
    pub(crate) streams: bool,
    /// How many models may answer it.
    pub(crate) models: usize,
}

/// How long every client waits for the next event of a stream.
pub(crate) const IDLE: Duration = Duration::from_secs(60);

pub(crate) type Sent = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Sends a request, whoever does it; whether it was answered.
pub(crate) type Sender = Rc<dyn Fn(Job) -> Sent>;

/// What the calls of a process share.
struct Process {
    policy: &'static Policy,
    server: Server,
    attempt_timeout: Duration,
    controls: Mutex<Controls>,
}

struct Controls {
    rng: StdRng,
    budget: Budget,
    breaker: Option<Breaker>,
    gcra: Option<Gcra>,
    cubic: Option<Cubic>,
}

/// One process with this policy.
pub(crate) fn process(policy: &'static Policy, scenario: &Scenario, server: &Server, seed: u64) -> Sender {
    let gcra = scenario.told.rpm.filter(|_| policy.limiter == LimiterRule::Gcra);
    let process = Arc::new(Process {
        policy,
        server: server.clone(),
        attempt_timeout: scenario.attempt_timeout,
        controls: Mutex::new(Controls {
            rng: StdRng::seed_from_u64(seed),
            budget: Budget::new(policy.budget),
            breaker: policy.breaker.map(Breaker::new),
            gcra: gcra.map(Gcra::new),
            cubic: (policy.limiter == LimiterRule::Cubic).then(Cubic::new),
        }),
    });
    Rc::new(move |job| {
        let process = Arc::clone(&process);
        Box::pin(async move {
            match process.policy.total {
                Some(total) => timeout(total, process.request(job)).await.unwrap_or(false),
                None => process.request(job).await,
            }
        })
    })
}

impl Process {
    async fn request(&self, job: Job) -> bool {
        self.with(|controls| controls.budget.on_request());
        let (mut paid, mut memory) = (0.0, 0.0);
        for retry in 0.. {
            let answer = match self.attempt(job, retry as usize % job.models).await {
                Some(answer) => answer,
                // Turned away by its own breaker.
                None if self.policy.breaker.is_some_and(|breaker| breaker.retried) => None,
                None => return false,
            };
            if let Some(answer) = answer.as_ref().filter(|answer| answer.status == 200) {
                if let Some(stream) = answer.stream {
                    match stream.lasts() {
                        Some(lasts) => sleep(lasts).await,
                        None => {
                            sleep(stream.until_silence() + IDLE).await;
                            return false;
                        }
                    }
                }
                self.with(|controls| controls.budget.on_success(paid));
                return true;
            }
            if retry + 1 >= self.policy.attempts {
                return false;
            }
            let delay = self.with(|controls| {
                let delay = self.policy.delay(retry, &mut memory, answer.as_ref(), &mut controls.rng)?;
                paid = controls.budget.withdraw(answer.as_ref().map(|answer| answer.status))?;
                Some(delay)
            });
            match delay {
                Some(delay) => sleep(delay).await,
                None => return false,
            }
        }
        false
    }

    /// The answer, or none where it timed out; none at all where the call was not made.
    async fn attempt(&self, job: Job, model: usize) -> Option<Option<Answer>> {
        if let Some(slot) = self.with(|controls| controls.gcra.as_mut().map(Gcra::take)) {
            sleep_until(slot).await;
        }
        loop {
            let wait = self.with(|controls| controls.cubic.as_mut().map_or(Duration::ZERO, Cubic::take));
            if wait.is_zero() {
                break;
            }
            sleep(wait).await;
        }
        if !self.with(|controls| controls.breaker.as_mut().is_none_or(Breaker::admit)) {
            return None;
        }
        let mut flight = Flight { process: self, landed: false };
        let Job { request, tenant, streams, .. } = job;
        let call = Call { tokens: job.tokens.unwrap_or(0), request, tenant, model, streams, place: 0 };
        let answer = timeout(self.attempt_timeout, self.server.answer(call)).await;
        flight.landed = true;
        let answer = answer.ok().and_then(Result::ok);
        let status = answer.as_ref().map(|answer| answer.status);
        self.with(|controls| {
            if status != Some(200) {
                controls.budget.on_failure();
            }
            if let Some(breaker) = &mut controls.breaker {
                breaker.record(status != Some(200));
            }
            if let Some(cubic) = &mut controls.cubic {
                cubic.on_answer(matches!(status, Some(429 | 503)));
            }
        });
        Some(answer)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Controls) -> T) -> T {
        work(&mut self.controls.lock().expect("nobody panics under it"))
    }
}

/// A call that its caller may give up: a probe's place is free again then.
struct Flight<'a> {
    process: &'a Process,
    landed: bool,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.process.with(|controls| {
                if let Some(breaker) = &mut controls.breaker {
                    breaker.give_back();
                }
            });
        }
    }
}
