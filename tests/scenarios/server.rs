//! Servers of the scenarios, in virtual time: what they do depends on the time, the seed and the load alone.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tower::Service;
use tower_gemini::BoxError;

use crate::support::{Body, respond};

/// What a server is like.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// `Some`: one call after the other, each taking this long, also those that nobody waits for any more. `None`: all
    /// at once.
    pub(crate) one_by_one: Option<Duration>,
    /// What each call in the queue adds to the time of the one served, as a share.
    pub(crate) falling: f64,
    /// Beyond it a 503 is the answer.
    pub(crate) queue: usize,
    /// Of a server without a queue.
    pub(crate) latency: Duration,
    /// From, until, and how many times slower meanwhile.
    pub(crate) slow: Option<(Duration, Duration, f64)>,
    /// Whether it answers 503 at once, by the time since the start.
    pub(crate) down: fn(Duration) -> bool,
    /// The share of calls that fail with a 500, at random.
    pub(crate) errors: f64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            one_by_one: None,
            falling: 0.0,
            queue: usize::MAX,
            latency: Duration::from_millis(500),
            slow: None,
            down: |_| false,
            errors: 0.0,
        }
    }
}

/// A server that all processes of a scenario share.
#[derive(Clone)]
pub(crate) struct Server(Arc<Shared>);

struct Shared {
    model: Model,
    start: Instant,
    state: Mutex<State>,
    arrived: Notify,
}

struct State {
    queue: VecDeque<oneshot::Sender<()>>,
    rng: StdRng,
    calls: Vec<Duration>,
}

impl Server {
    /// Starts now, and ends with the runtime.
    pub(crate) fn start(model: Model, seed: u64) -> Self {
        let state = State { queue: VecDeque::new(), rng: StdRng::seed_from_u64(seed), calls: Vec::new() };
        let server = Self(Arc::new(Shared {
            model,
            start: Instant::now(),
            state: Mutex::new(state),
            arrived: Notify::new(),
        }));
        if let Some(each) = server.0.model.one_by_one {
            let server = server.clone();
            tokio::spawn(async move { server.work(each).await });
        }
        server
    }

    /// When each call came, since the start.
    pub(crate) fn calls(&self) -> Vec<Duration> {
        self.0.state.lock().unwrap().calls.clone()
    }

    /// One after the other, for ever. The end of a call is counted from the end of the one before it, so that the
    /// timer's whole milliseconds take nothing of the capacity.
    async fn work(&self, each: Duration) {
        let shared = &*self.0;
        let mut free = shared.start;
        loop {
            let next = shared.state.lock().unwrap().queue.pop_front();
            let Some(caller) = next else {
                shared.arrived.notified().await;
                free = free.max(Instant::now());
                continue;
            };
            let waiting = shared.state.lock().unwrap().queue.len();
            let since = free - shared.start;
            let slower = match shared.model.slow {
                Some((from, until, factor)) if (from..until).contains(&since) => factor,
                _ => 1.0,
            };
            free += each.mul_f64(slower * (1.0 + shared.model.falling * waiting as f64));
            tokio::time::sleep_until(free).await;
            caller.send(()).ok();
        }
    }
}

impl Service<Request<Body>> for Server {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let shared = &*self.0;
        let model = &shared.model;
        let now = Instant::now() - shared.start;
        let mut state = shared.state.lock().unwrap();
        state.calls.push(now);
        if (model.down)(now) || state.queue.len() >= model.queue {
            return Box::pin(async { Ok(respond(503, String::new())) });
        }
        let status = if state.rng.random::<f64>() < model.errors { 500 } else { 200 };
        if model.one_by_one.is_some() {
            let (sender, served) = oneshot::channel();
            state.queue.push_back(sender);
            shared.arrived.notify_one();
            return Box::pin(async move {
                served.await?;
                Ok(respond(status, String::new()))
            });
        }
        let latency = model.latency;
        Box::pin(async move {
            tokio::time::sleep(latency).await;
            Ok(respond(status, String::new()))
        })
    }
}
