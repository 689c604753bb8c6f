//! Servers in virtual time: what they do depends on the time, the seed and the load alone.
//!
//! Shared by `tests/scenarios.rs`, `tests/storm_floor.rs`, `tests/weather.rs` and `benches/storm.rs`.

#[path = "server/body.rs"]
mod body;
#[path = "server/model.rs"]
mod model;
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
use self::model::log_normal;
#[allow(unused_imports, reason = "the storm alone has them all")]
pub(crate) use self::model::{
    Answer, Call, Caller, Down, MODELS, Model, PLACES, Pool, Reason, Tail, Tokens, X_PLACE,
};
pub(crate) use self::sharing::Sharing;
use self::trouble::Spells;
#[allow(unused_imports, reason = "the storm alone has them")]
pub(crate) use self::trouble::{ALWAYS, Fault, Trouble};
use crate::quota::Meters;

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
    /// One for each model at each place.
    meters: Vec<Meters>,
    rng: StdRng,
    spells: Vec<Spells>,
    /// Of each request, where luck is its own.
    attempts: HashMap<usize, u64>,
    calls: Vec<Duration>,
    at_places: [usize; PLACES.len()],
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
            meters: model
                .quota
                .iter()
                .flat_map(|quota| [(); MODELS.len() * PLACES.len()].map(|()| Meters::new(quota)))
                .collect(),
            at_places: [0; PLACES.len()],
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

    /// How many calls came to each place.
    #[allow(dead_code, reason = "the storm alone asks")]
    pub(crate) fn at_places(&self) -> [usize; PLACES.len()] {
        self.0.lock().at_places
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
        state.at_places[call.place] += 1;
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
        let meters = state.meters.get_mut(call.place * MODELS.len() + call.model);
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
        let place = request.headers().get(X_PLACE).and_then(|place| place.to_str().ok());
        let place = place.and_then(|place| PLACES.iter().position(|known| *known == place)).unwrap_or(0);
        let answer = self.answer(Call {
            tokens: tokens.unwrap_or(0),
            request: number,
            tenant,
            model: usize::from(path.contains(MODELS[1])),
            streams: path.ends_with(":streamGenerateContent"),
            place,
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
