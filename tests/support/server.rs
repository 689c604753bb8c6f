//! Servers in virtual time: what they do depends on the time, the seed and the load alone.
//!
//! Shared by `tests/scenarios.rs` and `benches/storm.rs`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tower::Service;
use tower_gemini::BoxError;

use crate::quota::{Meters, Quota, Refusal};

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
    /// How that latency is spread.
    pub(crate) tail: Option<Tail>,
    /// From, until, and how many times slower meanwhile.
    pub(crate) slow: Option<(Duration, Duration, f64)>,
    /// When it answers 503 at once.
    pub(crate) down: Down,
    /// The share of calls that fail with a 500, at random.
    pub(crate) errors: f64,
    /// What may be asked of it.
    pub(crate) quota: Option<Quota>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            one_by_one: None,
            falling: 0.0,
            queue: usize::MAX,
            latency: Duration::from_millis(500),
            tail: None,
            slow: None,
            down: Down::NEVER,
            errors: 0.0,
            quota: None,
        }
    }
}

/// A log-normal latency around the model's, of which a share takes much longer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// Standard deviation of the logarithm.
    pub(crate) sigma: f64,
    pub(crate) share: f64,
    /// How many times longer that share takes.
    pub(crate) factor: f64,
}

impl Tail {
    /// By which the median latency is multiplied, of three draws from `[0, 1)`.
    fn factor(&self, draws: [f64; 3]) -> f64 {
        let [radius, angle, slow] = draws;
        let normal = (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
        (self.sigma * normal).exp() * if slow < self.share { self.factor } else { 1.0 }
    }
}

/// From, until, and after which time again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Down {
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    pub(crate) every: Option<Duration>,
}

impl Down {
    pub(crate) const NEVER: Self = Self::once(0, 0);

    pub(crate) const fn once(from: u64, until: u64) -> Self {
        Self { from: Duration::from_secs(from), until: Duration::from_secs(until), every: None }
    }

    /// The first `down` seconds of each `every` seconds.
    #[allow(dead_code, reason = "the storm's are read from files")]
    pub(crate) const fn first(down: u64, every: u64) -> Self {
        Self { every: Some(Duration::from_secs(every)), ..Self::once(0, down) }
    }

    /// `at` within its period.
    fn phase(&self, at: Duration) -> Duration {
        self.every.map_or(at, |every| {
            Duration::from_nanos((at.as_nanos() % every.as_nanos()).try_into().expect("less than a period"))
        })
    }

    /// Whether the server is down, by the time since the start.
    pub(crate) fn holds(&self, at: Duration) -> bool {
        (self.from..self.until).contains(&self.phase(at))
    }

    /// The first instant from `at` on at which it is up.
    #[allow(dead_code, reason = "the storm alone asks")]
    pub(crate) fn up_from(&self, at: Duration) -> Duration {
        if self.holds(at) { at + (self.until - self.phase(at)) } else { at }
    }
}

/// Input tokens, as the server counts them: an extension of a request. Without it a call has none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens(pub(crate) u64);

/// What the server says to one call.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Of a 429.
    pub(crate) refusal: Option<Refusal>,
}

impl Answer {
    fn of(status: u16) -> Self {
        Self { status, refusal: None }
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
    meters: Option<Meters>,
    rng: StdRng,
    calls: Vec<Duration>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics under it")
    }
}

type Answering<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

impl Server {
    /// Starts now, and ends with the runtime.
    pub(crate) fn start(model: Model, seed: u64) -> Self {
        let state = State {
            queue: VecDeque::new(),
            meters: model.quota.as_ref().map(Meters::new),
            rng: StdRng::seed_from_u64(seed),
            calls: Vec::new(),
        };
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
        self.0.lock().calls.clone()
    }

    /// One after the other, for ever. The end of a call is counted from the end of the one before it, so that the
    /// timer's whole milliseconds take nothing of the capacity.
    async fn work(&self, each: Duration) {
        let shared = &*self.0;
        let mut free = shared.start;
        loop {
            let next = shared.lock().queue.pop_front();
            let Some(caller) = next else {
                shared.arrived.notified().await;
                free = free.max(Instant::now());
                continue;
            };
            let waiting = shared.lock().queue.len();
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

    /// One call, which has arrived when this returns.
    pub(crate) fn answer(&self, tokens: u64) -> Answering<Answer> {
        let shared = &*self.0;
        let model = &shared.model;
        let now = Instant::now() - shared.start;
        let mut state = shared.lock();
        state.calls.push(now);
        if model.down.holds(now) || state.queue.len() >= model.queue {
            return Box::pin(async { Ok(Answer::of(503)) });
        }
        if let Some(Err(refusal)) = state.meters.as_mut().map(|meters| meters.admit(now, tokens)) {
            return Box::pin(async { Ok(Answer { status: 429, refusal: Some(refusal) }) });
        }
        let answer = Answer::of(if state.rng.random::<f64>() < model.errors { 500 } else { 200 });
        if model.one_by_one.is_some() {
            let (sender, served) = oneshot::channel();
            state.queue.push_back(sender);
            shared.arrived.notify_one();
            return Box::pin(async move {
                served.await?;
                Ok(answer)
            });
        }
        let latency = match model.tail {
            Some(tail) => model.latency.mul_f64(tail.factor(state.rng.random())),
            None => model.latency,
        };
        Box::pin(async move {
            tokio::time::sleep(latency).await;
            Ok(answer)
        })
    }
}

impl Service<Request<Full<Bytes>>> for Server {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Answering<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let tokens = request.extensions().get().map(|Tokens(tokens)| *tokens);
        let answer = self.answer(tokens.unwrap_or(0));
        Box::pin(async move {
            let answer = answer.await?;
            let body = match (&answer.refusal, tokens) {
                (Some(refusal), _) => refusal.body(),
                (None, Some(tokens)) if answer.status == 200 => format!(
                    r#"{{"candidates":[{{"content":{{"parts":[{{"text":"hi"}}]}},"finishReason":"STOP"}}],"usageMetadata":{{"promptTokenCount":{tokens},"totalTokenCount":{tokens}}}}}"#
                ),
                _ => String::new(),
            };
            let mut response = Response::new(Full::from(body));
            *response.status_mut() = answer.status.try_into()?;
            Ok(response)
        })
    }
}
