//! A layer of a fleet in a minute that is three seconds long, and what its observer was told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{BoxError, Layer, ServiceExt};
use tower_gemini::Deadline;
use tower_gemini::event::{Event, Observer};
use tower_gemini::fleet::{Fleet, RedisStore};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};

pub(crate) const LIMIT: usize = 30;
pub(crate) const WINDOW: Duration = Duration::from_millis(3_000);
pub(crate) const GUARD: Duration = Duration::from_millis(150);
pub(crate) const SPLIT: Duration = Duration::from_millis(250);

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the server has received, and when.
pub(crate) type Log = Arc<Mutex<Vec<Instant>>>;

/// The most in any window.
pub(crate) fn most(log: &Log) -> usize {
    let log = log.lock().unwrap();
    let window = |at: usize| log[at..].iter().take_while(|one| **one < log[at] + WINDOW).count();
    (0..log.len()).map(window).max().unwrap_or(0)
}

#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) layer: RateLimitLayer,
    pub(crate) told: Arc<Told>,
    log: Log,
}

/// Lines of the events, as people would print them.
#[derive(Default)]
pub(crate) struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        let line = match event {
            Event::StoreLost { store, why, .. } => format!("lost {store}: {why} {event:?}"),
            Event::StoreFound { store, .. } => format!("found {store} {event:?}"),
            _ => return,
        };
        self.0.lock().unwrap().push(line);
    }
}

impl Told {
    pub(crate) fn lines(&self, what: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().filter(|line| line.starts_with(what)).cloned().collect()
    }
}

impl Member {
    pub(crate) fn new(store: RedisStore, log: &Log) -> Self {
        let told = Arc::<Told>::default();
        let layer = RateLimitLayer::builder()
            .limits(Limits::new().requests_per_minute(LIMIT as u64))
            .window(WINDOW)
            .guard(GUARD)
            .store(Fleet::new(store.split_brain(SPLIT).unwrap()))
            .observer(Arc::<Told>::clone(&told))
            .build()
            .unwrap();
        Self { layer, told, log: Arc::clone(log) }
    }

    pub(crate) async fn send(&self, within: Duration) -> Result<(), BoxError> {
        let log = Arc::clone(&self.log);
        let service = self.layer.layer(tower::service_fn(move |_: Request<Full<Bytes>>| {
            log.lock().unwrap().push(Instant::now());
            std::future::ready(Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default())))
        }));
        let mut request = Request::post("/v1beta/models/m:generateContent").body(Full::default())?;
        request.extensions_mut().insert(Deadline::within(within));
        service.oneshot(request).await.map(drop)
    }
}
