//! Servers in virtual time: what they do depends on the time, the seed and the load alone.
//!
//! Shared by `tests/scenarios.rs`, `tests/storm_floor.rs`, `tests/weather.rs` and `benches/storm.rs`.

#[path = "server/body.rs"]
mod body;
#[path = "server/sharing.rs"]
mod sharing;
#[path = "server/trouble.rs"]
mod trouble;

use std::collections::{HashMap, VecDeque};
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

pub(crate) use self::body::{ServerBody, Stream, Streams};
pub(crate) use self::sharing::Sharing;
use self::trouble::Spells;
#[allow(unused_imports, reason = "the storm alone has them")]
pub(crate) use self::trouble::{ALWAYS, Fault, Trouble};
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
    /// What may be asked of it; of a chain of models, of each.
    pub(crate) quota: Option<Quota>,
    /// `Some`: so many calls at once, all others in a queue, of which `falling` and `queue` hold.
    pub(crate) pool: Option<Pool>,
    /// `Some`: all at once, each the slower the more there are; `latency` and `tail` are of a call that is alone.
    pub(crate) sharing: Option<Sharing>,
    /// Whether a pool and a server that shares give up what nobody waits for any more.
    pub(crate) drops: bool,
    pub(crate) troubles: Vec<Trouble>,
    /// How the answer to a request for a stream comes.
    pub(crate) streams: Option<Streams>,
    /// Whether the luck of a call depends on its request and on the number of its attempt alone, so that all clients
    /// have the same. Otherwise the calls draw in the order in which they come.
    pub(crate) paired: bool,
}

/// Workers that share a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    pub(crate) workers: usize,
    /// What one call takes: the median, and the standard deviation of the logarithm.
    pub(crate) each: Duration,
    pub(crate) sigma: f64,
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
            pool: None,
            sharing: None,
            drops: false,
            troubles: Vec::new(),
            streams: None,
            paired: false,
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
        log_normal(self.sigma, radius, angle) * if slow < self.share { self.factor } else { 1.0 }
    }
}

/// Around 1, of two draws from `[0, 1)`.
fn log_normal(sigma: f64, radius: f64, angle: f64) -> f64 {
    let normal = (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
    (sigma * normal).exp()
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

/// Whose call it is: an extension of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Caller {
    /// The number of the request, which all its attempts have.
    pub(crate) request: usize,
    pub(crate) tenant: usize,
}

/// One call, as far as it matters to the server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Call {
    pub(crate) tokens: u64,
    pub(crate) request: usize,
    pub(crate) tenant: usize,
    /// Which model of the chain.
    pub(crate) model: usize,
    /// Whether it asks for a stream.
    pub(crate) streams: bool,
}

/// The chain of models, the second of which stands in for the first.
pub(crate) const MODELS: [&str; 2] = ["gemini-9-flash", "gemini-9-flash-lite"];

/// What a failure says beside its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    None,
    Overloaded,
    Bare,
    Capacity,
}

impl Reason {
    const fn body(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Overloaded => {
                r#"{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}"#
            }
            Self::Bare => {
                r#"{"error":{"code":429,"message":"Resource exhausted. Please try again later.","status":"RESOURCE_EXHAUSTED"}}"#
            }
            Self::Capacity => {
                r#"{"error":{"code":429,"message":"No capacity available for this model on the server","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"MODEL_CAPACITY_EXHAUSTED","domain":"cloudcode-pa.googleapis.com"}]}}"#
            }
        }
    }
}

/// What the server says to one call.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Of a 429 over a quota.
    pub(crate) refusal: Option<Refusal>,
    pub(crate) reason: Reason,
    /// Of a success that is streamed.
    pub(crate) stream: Option<Stream>,
}

impl Answer {
    const fn of(status: u16) -> Self {
        Self { status, refusal: None, reason: Reason::None, stream: None }
    }
}

/// A server that all processes of a scenario share.
#[derive(Clone)]
pub(crate) struct Server(Arc<Shared>);

struct Shared {
    model: Model,
    seed: u64,
    start: Instant,
    state: Mutex<State>,
    arrived: Notify,
}

struct State {
    queue: VecDeque<Waiting>,
    sharing: sharing::Shared,
    /// One for each model.
    meters: Vec<Meters>,
    rng: StdRng,
    spells: Vec<Spells>,
    /// Of each request, where luck is its own.
    attempts: HashMap<usize, u64>,
    calls: Vec<Duration>,
}

/// In the queue.
struct Waiting {
    /// By which what a call takes is multiplied.
    factor: f64,
    caller: oneshot::Sender<()>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics under it")
    }

    /// The generator for a call's own luck.
    fn luck(&self, state: &mut State, call: &Call) -> StdRng {
        let attempt = state.attempts.entry(call.request).or_default();
        *attempt += 1;
        let own = (call.request as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (*attempt << 48);
        StdRng::seed_from_u64(own ^ self.seed.wrapping_mul(0xD1B5_4A32_D192_ED03))
    }
}

type Answering<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

fn at_once(answer: Answer) -> Answering<Answer> {
    Box::pin(async { Ok(answer) })
}

impl Server {
    /// Starts now, and ends with the runtime.
    pub(crate) fn start(model: Model, seed: u64) -> Self {
        let troubles = 0..model.troubles.len() as u64;
        let state = State {
            queue: VecDeque::new(),
            sharing: sharing::Shared::new(Instant::now()),
            meters: model.quota.iter().flat_map(|quota| MODELS.map(|_| Meters::new(quota))).collect(),
            rng: StdRng::seed_from_u64(seed),
            spells: troubles.map(|n| Spells::new(seed.wrapping_mul(1009) ^ (n + 1) << 32)).collect(),
            attempts: HashMap::new(),
            calls: Vec::new(),
        };
        let server = Self(Arc::new(Shared {
            model,
            seed,
            start: Instant::now(),
            state: Mutex::new(state),
            arrived: Notify::new(),
        }));
        let model = &server.0.model;
        let pool = model.pool.map(|pool| (pool.workers, pool.each));
        let (workers, each) = pool.or(model.one_by_one.map(|each| (1, each))).unwrap_or_default();
        for _ in 0..workers {
            let server = server.clone();
            tokio::spawn(async move { server.work(each).await });
        }
        if let Some(sharing) = model.sharing {
            let server = server.clone();
            tokio::spawn(async move { server.share(sharing).await });
        }
        server
    }

    /// The tasks of its own.
    #[allow(dead_code, reason = "the storm alone asks")]
    pub(crate) fn tasks(&self) -> usize {
        let model = &self.0.model;
        let workers = model.pool.map_or(usize::from(model.one_by_one.is_some()), |pool| pool.workers);
        workers + usize::from(model.sharing.is_some())
    }

    /// When each call came, since the start.
    pub(crate) fn calls(&self) -> Vec<Duration> {
        self.0.lock().calls.clone()
    }

    /// One after the other, for ever. The end of a call is counted from the end of the one before it, so that the
    /// timer's whole milliseconds take nothing of the capacity.
    async fn work(&self, each: Duration) {
        let shared = &*self.0;
        let drops = shared.model.drops;
        let mut free = shared.start;
        loop {
            let next = shared.lock().queue.pop_front();
            let Some(Waiting { factor: own, mut caller }) = next else {
                shared.arrived.notified().await;
                free = free.max(Instant::now());
                continue;
            };
            if drops && caller.is_closed() {
                continue;
            }
            let waiting = shared.lock().queue.len();
            let since = free - shared.start;
            let slower = match shared.model.slow {
                Some((from, until, factor)) if (from..until).contains(&since) => factor,
                _ => 1.0,
            };
            free += each.mul_f64(own * slower * (1.0 + shared.model.falling * waiting as f64));
            if drops {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(free) => {}
                    () = caller.closed() => {
                        free = free.min(Instant::now());
                        continue;
                    }
                }
            } else {
                tokio::time::sleep_until(free).await;
            }
            caller.send(()).ok();
        }
    }

    /// All at once, for ever.
    async fn share(&self, sharing: Sharing) {
        let shared = &*self.0;
        loop {
            let next = shared.lock().sharing.step(sharing, shared.model.falling);
            match next {
                Some(at) => {
                    tokio::time::timeout_at(at, shared.arrived.notified()).await.ok();
                }
                None => shared.arrived.notified().await,
            }
        }
    }

    /// One call, which has arrived when this returns.
    pub(crate) fn answer(&self, call: Call) -> Answering<Answer> {
        let shared = &*self.0;
        let model = &shared.model;
        let now = Instant::now() - shared.start;
        let mut state = shared.lock();
        let state = &mut *state;
        state.calls.push(now);
        let mut luck = model.paired.then(|| shared.luck(state, &call));
        let queued = state.queue.len().max(state.sharing.active());
        if model.down.holds(now) || queued >= model.queue {
            return at_once(Answer::of(503));
        }
        let luck = luck.as_mut().unwrap_or(&mut state.rng);
        let mut trouble: Option<&Trouble> = None;
        for (each, spells) in model.troubles.iter().zip(&mut state.spells) {
            if each.hits(&call, now, spells, luck) && trouble.is_none() {
                trouble = Some(each);
            }
        }
        let fails = |trouble: &Trouble| -> Answering<Answer> {
            let (answer, after) = (trouble.fault.answer(), trouble.after);
            Box::pin(async move {
                let Some(answer) = answer else { std::future::pending().await };
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                Ok(answer)
            })
        };
        if let Some(trouble) = trouble.filter(|trouble| !trouble.fault.is_charged()) {
            return fails(trouble);
        }
        let meters = state.meters.get_mut(call.model);
        if let Some(Err(refusal)) = meters.map(|meters| meters.admit(now, call.tokens)) {
            return at_once(Answer { refusal: Some(refusal), ..Answer::of(429) });
        }
        if let Some(trouble) = trouble {
            return fails(trouble);
        }
        let mut answer = Answer::of(if luck.random::<f64>() < model.errors { 500 } else { 200 });
        if let Some(pool) = model.pool {
            let factor = log_normal(pool.sigma, luck.random(), luck.random());
            return self.enqueue(state, factor, answer);
        }
        if model.one_by_one.is_some() {
            return self.enqueue(state, 1.0, answer);
        }
        let latency = match model.tail {
            Some(tail) => model.latency.mul_f64(tail.factor(luck.random())),
            None => model.latency,
        };
        if let Some(sharing) = model.sharing {
            return self.enter(state, latency, sharing, answer);
        }
        if let Some(streams) = model.streams.filter(|_| call.streams && answer.status == 200) {
            answer.stream = Some(streams.draw(luck));
        }
        Box::pin(async move {
            tokio::time::sleep(latency).await;
            Ok(answer)
        })
    }

    fn enqueue(&self, state: &mut State, factor: f64, answer: Answer) -> Answering<Answer> {
        let (caller, served) = oneshot::channel();
        state.queue.push_back(Waiting { factor, caller });
        self.0.arrived.notify_one();
        Box::pin(async move {
            served.await?;
            Ok(answer)
        })
    }

    fn enter(
        &self,
        state: &mut State,
        work: Duration,
        sharing: Sharing,
        answer: Answer,
    ) -> Answering<Answer> {
        let (caller, served) = oneshot::channel();
        let falling = self.0.model.falling;
        let id = state.sharing.enter(work.as_secs_f64(), caller, sharing, falling);
        self.0.arrived.notify_one();
        let present = Present { server: self.clone(), id, sharing, left: !self.0.model.drops };
        Box::pin(async move {
            let mut present = present;
            served.await?;
            present.left = true;
            Ok(answer)
        })
    }
}

/// A call whose caller may give it up.
struct Present {
    server: Server,
    id: u64,
    sharing: Sharing,
    left: bool,
}

impl Drop for Present {
    fn drop(&mut self) {
        if !self.left {
            let shared = &*self.server.0;
            shared.lock().sharing.leave(self.id, self.sharing, shared.model.falling);
            shared.arrived.notify_one();
        }
    }
}

impl Service<Request<Full<Bytes>>> for Server {
    type Response = Response<ServerBody>;
    type Error = BoxError;
    type Future = Answering<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let tokens = request.extensions().get().map(|Tokens(tokens)| *tokens);
        let Caller { request: number, tenant } = request.extensions().get().copied().unwrap_or_default();
        let path = request.uri().path();
        let answer = self.answer(Call {
            tokens: tokens.unwrap_or(0),
            request: number,
            tenant,
            model: usize::from(path.contains(MODELS[1])),
            streams: path.ends_with(":streamGenerateContent"),
        });
        Box::pin(async move {
            let answer = answer.await?;
            let body = match (&answer.refusal, tokens) {
                _ if answer.stream.is_some() => String::new(),
                (Some(refusal), _) => refusal.body(),
                (None, Some(tokens)) if answer.status == 200 => format!(
                    r#"{{"candidates":[{{"content":{{"parts":[{{"text":"hi"}}]}},"finishReason":"STOP"}}],"usageMetadata":{{"promptTokenCount":{tokens},"totalTokenCount":{tokens}}}}}"#
                ),
                _ => answer.reason.body().to_owned(),
            };
            let body = match answer.stream {
                Some(stream) => ServerBody::stream(stream),
                None => ServerBody::Whole(Full::from(body)),
            };
            let mut response = Response::new(body);
            *response.status_mut() = answer.status.try_into()?;
            if answer.stream.is_some() {
                let event_stream = http::HeaderValue::from_static("text/event-stream");
                response.headers_mut().insert(http::header::CONTENT_TYPE, event_stream);
            }
            Ok(response)
        })
    }
}
