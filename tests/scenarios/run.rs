//! A day of a fleet in virtual time: Poisson arrivals over processes that share a server and nothing else.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::ServiceExt;
use tower_gemini::Deadline;

use crate::arrivals::Arrivals;
use crate::server::{Model, Server};
use crate::stack::{Client, Meter, Moves, Stack};
use crate::support::request;

/// What happens, whatever the clients are.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) model: Model,
    /// Requests a second, of all processes together.
    pub(crate) rate: f64,
    pub(crate) horizon: Duration,
    pub(crate) deadline: Duration,
    /// The arrivals that count.
    pub(crate) counted: (Duration, Duration),
    /// When all could be well again.
    pub(crate) well: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) arrived: usize,
    pub(crate) served: usize,
    /// Calls that the server saw in the counted time.
    pub(crate) calls: usize,
    /// The most calls in any second after all could be well.
    pub(crate) peak: usize,
    /// From then until ten seconds' arrivals are served to 95 %; `None` is never.
    pub(crate) recovery: Option<Duration>,
    /// Of those served.
    pub(crate) p99: Duration,
    /// Over the whole day.
    pub(crate) moves: Moves,
}

impl Figures {
    pub(crate) fn share(&self) -> f64 {
        self.served as f64 / self.arrived as f64
    }
}

impl Scenario {
    /// Runs it with so many processes, each with a stack of its own over the one server.
    pub(crate) fn run(&self, processes: usize, seed: u64, stack: &Stack) -> Figures {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(self.play(processes, seed, stack))
    }

    async fn play(&self, processes: usize, seed: u64, stack: &Stack) -> Figures {
        let start = Instant::now();
        let server = Server::start(self.model.clone(), seed);
        let meter = Arc::new(Meter::default());
        let process = |at| stack.client(server.clone(), seed * 1000 + at, &meter);
        let fleet: Vec<Client> = (0..processes as u64).map(process).collect();
        let mut requests = Vec::new();
        for (at, process) in Arrivals::new(self.rate, self.horizon, processes, seed) {
            let service = fleet[process].clone();
            tokio::time::sleep_until(start + at).await;
            let mut request = request();
            request.extensions_mut().insert(Deadline::at(start + at + self.deadline));
            let deadline = start + at + self.deadline;
            let task = tokio::spawn(async move {
                let answer = tokio::time::timeout_at(deadline, async {
                    let response = service.oneshot(request).await.ok()?;
                    let good = response.status().is_success();
                    let whole = std::pin::pin!(response.into_body()).collect().await.is_ok();
                    (good && whole).then_some(())
                });
                answer.await.ok().flatten().map(|()| Instant::now())
            });
            requests.push((at, task));
        }
        let mut results = Vec::with_capacity(requests.len());
        for (at, task) in requests {
            results.push((at, task.await.unwrap().map(|end| (end - start).saturating_sub(at))));
        }
        self.figures(&results, &server.calls(), meter.moves())
    }

    fn figures(&self, results: &[(Duration, Option<Duration>)], calls: &[Duration], moves: Moves) -> Figures {
        let (from, until) = self.counted;
        let counted: Vec<_> = results.iter().filter(|(at, _)| (from..until).contains(at)).collect();
        let mut times: Vec<_> = counted.iter().filter_map(|(_, time)| *time).collect();
        times.sort();
        let after = &calls[calls.partition_point(|call| *call < self.well)..];
        let second = Duration::from_secs(1);
        let in_second = |(at, first): (usize, &Duration)| {
            after[at..].iter().take_while(|call| **call < *first + second).count()
        };
        let peak = after.iter().enumerate().map(in_second).max().unwrap_or(0);
        let window = Duration::from_secs(10);
        let well = |from: Duration| {
            let mut arrived = 0;
            let inside = results.iter().filter(|(at, _)| (from..from + window).contains(at));
            let served = inside.inspect(|_| arrived += 1).filter(|(_, time)| time.is_some()).count();
            arrived > 0 && served * 100 >= arrived * 95
        };
        let mut starts = (self.well.as_secs()..self.horizon.as_secs()).map(Duration::from_secs);
        Figures {
            arrived: counted.len(),
            served: times.len(),
            calls: calls.iter().filter(|call| (from..until).contains(call)).count(),
            peak,
            recovery: starts.find(|from| well(*from)).map(|at| at - self.well),
            p99: times.get(times.len() * 99 / 100).copied().unwrap_or_default(),
            moves,
        }
    }
}
