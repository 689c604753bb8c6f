//! Runs a contender through a scenario, in paused time.

use std::time::Duration;

use tokio::time::Instant;

use super::client::{Job, Sender, process};
use super::figures::{Figures, Result};
use super::load::{Ask, asks, processes};
use super::ours::Stack;
use super::policies::POLICIES;
use super::policy::Policy;
use super::scenario::Scenario;
use super::stack::{Count, Variant};
use crate::server::Server;

/// Who is tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Contender {
    Policy(&'static Policy),
    Tower,
    TowerResilience,
    /// The layers in their order, watched for their promises.
    Ours,
    /// The whole stack, or parts of it.
    Stack(Variant),
}

pub(crate) const OURS: &str = "tower-gemini";

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Policy(policy) => policy.name,
            Self::Tower => "tower",
            Self::TowerResilience => "tower-resilience",
            Self::Ours => OURS,
            Self::Stack(variant) => variant.name(),
        }
    }

    /// All of them; this crate is the last.
    pub(crate) fn all() -> Vec<Self> {
        let mut all: Vec<_> = POLICIES.iter().map(Self::Policy).collect();
        all.extend([Self::Tower, Self::TowerResilience, Self::Ours]);
        all
    }
}

/// One scenario with so many processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) processes: usize,
}

impl<'a> Cell<'a> {
    pub(crate) fn all(scenarios: &'a [Scenario]) -> Vec<Self> {
        let cells = scenarios.iter().flat_map(|scenario| {
            scenario.load.processes.iter().map(move |n| Self { scenario, processes: *n })
        });
        cells.collect()
    }

    /// The scenario, and of several sizes which one.
    pub(crate) fn name(&self) -> String {
        match self.scenario.load.processes.len() {
            1 => self.scenario.name.clone(),
            _ => format!("{}-p{}", self.scenario.name, self.processes),
        }
    }

    pub(crate) fn asks(&self, seed: u64) -> Vec<Ask> {
        asks(self.scenario, self.processes, seed)
    }

    /// One seed of it.
    pub(crate) fn run(&self, contender: Contender, seed: u64) -> Figures {
        self.live(contender, seed).0
    }

    /// One seed of it, and when each request was answered.
    pub(crate) fn live(&self, contender: Contender, seed: u64) -> (Figures, Vec<Result>) {
        let began = worked();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("no I/O, nothing to fail");
        let (mut figures, results) = runtime.block_on(self.play(contender, seed));
        drop(runtime);
        figures.took = worked().saturating_sub(began);
        (figures, results)
    }

    async fn play(&self, contender: Contender, seed: u64) -> (Figures, Vec<Result>) {
        let scenario = self.scenario;
        let start = Instant::now();
        let server = Server::start(scenario.model.clone(), seed);
        let asks = self.asks(seed);
        let fleet = processes(&scenario.load, self.processes);
        let seeds = (0..fleet as u64).map(|n| seed * 1000 + n);
        let mut stacks = Vec::new();
        let count = Count::default();
        let sends: Vec<Sender> = match contender {
            Contender::Policy(policy) => seeds.map(|seed| process(policy, scenario, &server, seed)).collect(),
            Contender::Tower => seeds.map(|seed| super::tower::process(scenario, &server, seed)).collect(),
            Contender::TowerResilience => {
                seeds.map(|_| super::tower_resilience::process(scenario, &server)).collect()
            }
            Contender::Stack(variant) => {
                let process = |seed| super::stack::process(variant, scenario, &server, seed, &count);
                seeds.map(process).collect()
            }
            Contender::Ours => {
                stacks.extend(seeds.map(|seed| Stack::new(scenario, fleet, &server, seed)));
                stacks.iter().map(|stack| stack.send.clone()).collect()
            }
        };
        let mut tasks = Vec::with_capacity(asks.len());
        for (request, ask) in asks.iter().enumerate() {
            tokio::time::sleep_until(start + ask.at).await;
            let deadline = start + ask.at + scenario.deadline;
            let known = ask.tokens.filter(|_| scenario.load.prompts.is_some_and(|prompts| prompts.known));
            let job = Job {
                deadline,
                tokens: ask.tokens,
                known,
                bytes: ask.bytes,
                request,
                tenant: ask.tenant,
                labelled: scenario.load.labels,
                streams: ask.streams,
                models: scenario.load.models,
            };
            let sent = sends[ask.process](job);
            let until = ask.leaves.map_or(deadline, |leaves| deadline.min(start + leaves));
            tasks.push(tokio::spawn(async move {
                let served = tokio::time::timeout_at(until, sent).await.unwrap_or(false);
                served.then(Instant::now)
            }));
        }
        let mut results: Vec<Result> = Vec::with_capacity(asks.len());
        for (ask, task) in asks.into_iter().zip(tasks) {
            let end: Option<Instant> = task.await.expect("no contender panics");
            results.push((ask, end.map(|end| end - start)));
        }
        drop(sends);
        let mut figures = Figures::of(scenario, &results, &server.calls());
        // The server's own tasks are no leftovers.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let left = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let own = server.tasks();
        for stack in &stacks {
            stack.watch.holds(left <= own, || format!("{left} tasks left"));
            stack.close();
            let (violations, violated) = stack.watch.violations();
            figures.violations.extend(violations);
            figures.violated += violated;
            stack.watch.with(|watched| {
                figures.opened += watched.opened;
                figures.probes_failed += watched.reopened;
                figures.cut += watched.cut;
            });
        }
        let residing = scenario.load.places - scenario.load.outside;
        let outside: usize = server.at_places()[residing..].iter().sum();
        if outside > 0 {
            figures.violations.push(format!("{outside} calls outside of the residency"));
            figures.violated += 1;
        }
        let deeds = count.deeds();
        figures.opened += deeds.opened;
        figures.probes_failed += deeds.reopened;
        figures.cut += deeds.cut;
        figures.gave_up = deeds.gave_up;
        (figures, results)
    }
}

/// For how long this thread has worked, as far as the system tells; elsewhere, for how long there was time to.
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "real time is what is measured")]
fn worked() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|text| text.split_whitespace().next()?.parse().ok());
    nanos.map_or_else(|| BEGAN.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}
