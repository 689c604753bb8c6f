//! A server that keeps a log, members that call it, and a store with faults.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::{BoxError, Layer, ServiceExt};
use tower_gemini::event::{Event, Observer};
use tower_gemini::fleet::{
    Close, Fleet, MemoryStore, Micros, Notices, Reply, Store, StoreError, StoreFuture, StoreKey, Take,
};
use tower_gemini::rate_limit::{InputTokens, Limits, RateLimitBuilder, RateLimitLayer, RateLimits};
use tower_gemini::{CallOptions, Deadline, RequestClass};

pub(crate) type Body = Full<Bytes>;

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the server received: when, from whom, and how many tokens.
#[derive(Clone, Default)]
pub(crate) struct Server {
    log: Arc<Mutex<Vec<(Instant, usize, u64)>>>,
    /// What it answers instead of a success.
    refusal: Arc<Mutex<Option<String>>>,
}

impl Server {
    pub(crate) fn log(&self) -> Vec<(Instant, usize, u64)> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn refuse(&self, body: Option<&str>) {
        *self.refusal.lock().unwrap() = body.map(str::to_owned);
    }

    /// The most requests, and the most tokens, in any 60 seconds.
    pub(crate) fn most_in_a_minute(&self) -> (usize, u64) {
        let log = self.log();
        let mut most = (0, 0);
        for (at, (first, ..)) in log.iter().enumerate() {
            let window = log[at..].iter().take_while(|(when, ..)| *when < *first + secs(60));
            let (requests, tokens) = window.fold((0, 0), |sum, one| (sum.0 + 1, sum.1 + one.2));
            most = (most.0.max(requests), most.1.max(tokens));
        }
        most
    }

    fn answer(&self, member: usize, request: &Request<Body>) -> Response<Body> {
        let tokens = request.extensions().get::<InputTokens>().map_or(0, |tokens| tokens.0);
        self.log.lock().unwrap().push((Instant::now(), member, tokens));
        match &*self.refusal.lock().unwrap() {
            Some(body) => Response::builder().status(429).body(Full::from(body.clone())).unwrap(),
            None => {
                let body = format!(
                    r#"{{"candidates":[{{"content":{{"parts":[{{"text":"hi"}}]}},"finishReason":"STOP"}}],"usageMetadata":{{"promptTokenCount":{tokens},"totalTokenCount":{tokens}}}}}"#
                );
                Response::new(Full::from(body))
            }
        }
    }
}

/// A member of the fleet.
#[derive(Clone)]
pub(crate) struct Member {
    id: usize,
    layer: RateLimitLayer,
    server: Server,
}

impl Member {
    pub(crate) fn new(
        id: usize,
        server: &Server,
        fleet: Fleet,
        limits: Limits,
        more: impl FnOnce(RateLimitBuilder) -> RateLimitBuilder,
    ) -> Self {
        let layer = more(RateLimitLayer::builder().limits(limits).store(fleet)).build().unwrap();
        Self { id, layer, server: server.clone() }
    }

    pub(crate) fn handle(&self) -> RateLimits {
        self.layer.handle()
    }

    /// Sends one request, by its deadline if it has one.
    pub(crate) async fn send(&self, tokens: u64, within: Option<Duration>) -> Result<u16, BoxError> {
        self.send_with(tokens, |request| {
            if let Some(within) = within {
                request.extensions_mut().insert(Deadline::within(within));
            }
        })
        .await
    }

    /// Sends one request of a class, with so many tokens, by which the log tells it.
    pub(crate) async fn send_as(&self, class: RequestClass, tokens: u64) -> Result<u16, BoxError> {
        self.send_with(tokens, |request| CallOptions::new().class(class).apply(request)).await
    }

    pub(crate) async fn send_with(
        &self,
        tokens: u64,
        more: impl FnOnce(&mut Request<Body>),
    ) -> Result<u16, BoxError> {
        let (server, id) = (self.server.clone(), self.id);
        let inner = tower::service_fn(move |request: Request<Body>| {
            let response = server.answer(id, &request);
            async move { Ok::<_, std::io::Error>(response) }
        });
        let mut request =
            Request::post("/v1beta/models/gemini-3-flash:generateContent").body(Full::default())?;
        if tokens > 0 {
            request.extensions_mut().insert(InputTokens(tokens));
        }
        more(&mut request);
        let service = tower_gemini::classify::ClassifyLayer::new().watch().layer(inner);
        let response = self.layer.layer(service).oneshot(request).await?;
        let status = response.status().as_u16();
        http_body_util::BodyExt::collect(response.into_body()).await?;
        Ok(status)
    }
}

/// Members with the defaults, over one store.
pub(crate) fn members(count: usize, server: &Server, store: &Flaky, limits: Limits) -> Vec<Member> {
    (0..count).map(|id| Member::new(id, server, Fleet::new(store.clone()), limits, |b| b)).collect()
}

/// So many requests of each member at once; how many were answered well, and the time until the last.
pub(crate) async fn burst(members: &[Member], counts: &[usize], tokens: u64) -> (usize, Duration) {
    let begun = Instant::now();
    let mut all = JoinSet::new();
    for (member, count) in members.iter().zip(counts) {
        for _ in 0..*count {
            let member = member.clone();
            all.spawn(async move { member.send(tokens, None).await.is_ok_and(|status| status == 200) });
        }
    }
    let good = all.join_all().await.into_iter().filter(|good| *good).count();
    (good, Instant::now() - begun)
}

/// A store in memory that answers late, or not at all.
#[derive(Clone, Debug)]
pub(crate) struct Flaky {
    inner: MemoryStore,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    dead: std::sync::atomic::AtomicBool,
    /// Milliseconds, each way.
    delay: AtomicU64,
    calls: AtomicU64,
    /// What draws of delays follow from; 0 for none.
    draws: AtomicU64,
}

impl Flaky {
    pub(crate) fn new() -> Self {
        let state = State {
            dead: false.into(),
            delay: AtomicU64::new(1),
            calls: AtomicU64::new(0),
            draws: AtomicU64::new(0),
        };
        Self { inner: MemoryStore::new(), state: Arc::new(state) }
    }

    pub(crate) fn die(&self, dead: bool) {
        self.state.dead.store(dead, Ordering::Relaxed);
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.state.delay.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::Relaxed);
    }

    pub(crate) fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::Relaxed)
    }

    /// Delays differ from now on, as this seed says.
    pub(crate) fn jitter(&self, seed: u64) {
        self.state.draws.store(seed * 2 + 1, Ordering::Relaxed);
    }

    /// Up to so many microseconds.
    pub(crate) fn draw(&self, micros: u64) -> Duration {
        // SplitMix64.
        let step = 0x9E37_79B9_7F4A_7C15_u64;
        let mut z = self.state.draws.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Duration::from_micros((z ^ (z >> 31)) % micros.max(1))
    }

    async fn travel(&self) -> Result<(), StoreError> {
        let mut delay = millis(self.state.delay.load(Ordering::Relaxed));
        if self.state.draws.load(Ordering::Relaxed) != 0 {
            // Most are quick, and one in eight may be too late to be waited for.
            let is_slow = self.draw(8).is_zero();
            delay = self.draw(if is_slow { 300_000 } else { 20_000 });
        }
        tokio::time::sleep(delay).await;
        match self.state.dead.load(Ordering::Relaxed) {
            true => Err(StoreError::unreachable("it is dead")),
            false => Ok(()),
        }
    }
}

impl Store for Flaky {
    fn take<'a>(&'a self, takes: &'a [Take]) -> StoreFuture<'a, Result<Vec<Reply>, StoreError>> {
        Box::pin(async move {
            self.state.calls.fetch_add(1, Ordering::Relaxed);
            self.travel().await?;
            let replies = self.inner.take(takes).await;
            self.travel().await?;
            replies
        })
    }

    fn close<'a>(
        &'a self,
        key: &'a StoreKey,
        close: Close,
        window: Micros,
    ) -> StoreFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.travel().await?;
            self.inner.close(key, close, window).await
        })
    }

    fn subscribe(&self) -> Option<Box<dyn Notices>> {
        self.inner.subscribe()
    }

    fn pushes(&self) -> bool {
        true
    }

    fn split(&self) -> Option<Duration> {
        self.inner.split()
    }

    fn place(&self) -> String {
        "flaky".to_owned()
    }
}

/// Which events there were.
#[derive(Default)]
pub(crate) struct Told(pub(crate) Mutex<Vec<String>>);

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        let line = match event {
            Event::StoreLost { store, why, .. } => format!("lost {store}: {why}"),
            Event::StoreFound { store, .. } => format!("found {store}"),
            Event::LimitsDiffer { limits, .. } => format!("differ {limits:?}"),
            _ => return,
        };
        self.0.lock().unwrap().push(line);
    }
}
