//! The service at the bottom, and the yardsticks around it.

use std::future::ready;
use std::hint::black_box;
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use tower::{Layer, Service};
use tower_gemini::BoxError;
use tower_gemini::catalogue::Catalogue;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::event::{Event, Observer};
use tower_gemini::preflight::PreflightLayer;

use crate::floors::{Bare, Body, one};
use crate::measured::request;

/// Copies the request, calls, and drops the copy: what no retry can do without. More than a `Request::clone`,
/// since dropping a request that was copied costs more, too.
#[derive(Clone)]
pub(super) struct Copying<S>(pub(super) S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Copying<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let copy = black_box(request.clone());
        let future = self.0.call(request);
        drop(copy);
        future
    }
}

/// Calls a clone each time, as `oneshot` on a shared service does.
#[derive(Clone)]
pub(super) struct Cloning<S>(pub(super) S);

impl<S: Service<Request<Body>> + Clone> Service<Request<Body>> for Cloning<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut clone = self.0.clone();
        assert!(clone.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        clone.call(request)
    }
}

/// The bare service, after a look at the clock.
#[derive(Clone)]
pub(super) struct Clocked(pub(super) Bare);

impl Service<Request<Body>> for Clocked {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = <Bare as Service<Request<Body>>>::Future;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        black_box(tokio::time::Instant::now());
        self.0.call(request)
    }
}

/// Puts a good prompt of 2 KiB into each request.
#[derive(Clone)]
pub(super) struct Prompting<S>(S, bytes::Bytes);

impl<S> Prompting<S> {
    pub(super) fn new(inner: S) -> Self {
        let part = |text: &str| serde_json::json!({ "role": "user", "parts": [{ "text": text }] });
        let turns: Vec<_> =
            ["Why is the sky blue?\n", "It is not.\n"].iter().map(|t| part(&t.repeat(39))).collect();
        let body = serde_json::json!({
            "contents": turns,
            "systemInstruction": { "parts": [{ "text": "You answer in one sentence." }] },
            "tools": [{ "functionDeclarations": [{ "name": "look", "parameters": { "type": "OBJECT" } }] }],
            "generationConfig": {
                "temperature": 1.0, "topP": 0.95, "topK": 64, "maxOutputTokens": 1024, "candidateCount": 1,
                "thinkingConfig": { "thinkingLevel": "low" },
            },
        });
        let mut text = body.to_string();
        text.push_str(&" ".repeat(2048_usize.saturating_sub(text.len())));
        Self(inner, text.into())
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Prompting<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let body = Body::new(self.1.clone());
        self.0.call(request.map(|_| body))
    }
}

/// With every rule looked at, and a catalogue in which the model of the requests is the last one.
pub(super) fn told_preflight() -> PreflightLayer {
    struct Nobody;
    impl Observer for Nobody {
        fn on_event(&self, event: &Event<'_>) {
            unreachable!("{event:?}");
        }
    }
    let others: Vec<_> =
        (0..15).map(|n| serde_json::json!({ "name": format!("gemini-{n}-other") })).collect();
    let mut file = serde_json::json!({
        "read": "2026-11-29", "models": others,
        "parameters": { "candidate_count": [1, 8], "temperature": [0, 2], "top_p": [0, 1], "top_k": [1, 64],
            "advised_temperature": 1.0, "thinking_levels": ["low", "medium", "high"] },
    });
    let model =
        serde_json::json!({ "name": "gemini-9-flash", "input_tokens": 1_048_576, "output_tokens": 65_536 });
    file["models"].as_array_mut().unwrap().push(model);
    let catalogue = Catalogue::from_json(&file.to_string()).unwrap();
    PreflightLayer::builder().catalogue(catalogue).observer(std::sync::Arc::new(Nobody)).build().unwrap()
}

/// The bare service, for bodies of any type.
#[derive(Clone)]
pub(super) struct AnyBody;

impl<B> Service<Request<B>> for AnyBody {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Response<Body>, BoxError>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<B>) -> Self::Future {
        drop(black_box(request));
        ready(Ok(Response::new(Body::new(bytes::Bytes::from_static(b"{}")))))
    }
}

/// With room under a limit, which takes the lock and the clock.
pub(super) fn limited() -> AdaptiveConcurrencyLayer {
    let layer = AdaptiveConcurrencyLayer::builder().floor(64.0).build().unwrap();
    // A timeout counts in full once the key has had ten answers, and where it took longer than they did.
    let answers = (0..12).map(|_| 200).chain((0..20).map(|_| 504));
    for status in answers {
        let mut service = layer.layer(tower::service_fn(move |_: Request<Body>| {
            if status == 504 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            ready(Ok::<_, BoxError>(Response::builder().status(status).body(Body::default()).unwrap()))
        }));
        one(&mut service, request());
        if layer.handle().all().first().is_some_and(|(_, state)| state.limit().is_some()) {
            return layer;
        }
    }
    panic!("timeouts start the limit");
}

/// A limit that a fleet shares, with a million permits at hand for four seconds: what they cost is neither a message nor a
/// wait.
#[cfg(feature = "fleet")]
pub(super) fn stocked(limits: tower_gemini::rate_limit::Limits) -> tower_gemini::rate_limit::RateLimit<Bare> {
    use std::time::Duration;

    use tower_gemini::rate_limit::{AdmissionMode, RateLimitLayer};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // The layer's task has nothing more to do, and its runtime is gone with the process.
    let runtime = Box::leak(Box::new(runtime));
    // Nobody queues, so that no call is looked at as those are that others wait behind.
    let builder = RateLimitLayer::builder().limits(limits).mode(AdmissionMode::Reject).guard(Duration::ZERO);
    let store = fleet::Generous::default();
    let layer = builder.window(Duration::from_secs(120)).store(store).build().unwrap();
    let is_stocked = || {
        let status = layer.handle().status();
        status.first().and_then(|one| one.fleet.as_ref()).is_some_and(|fleet| fleet.stock.requests > 900_000)
    };
    // A new state grants nothing for a while.
    runtime.block_on(async {
        for _ in 0..200 {
            let _ = layer.layer(Bare).call(request()).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            if is_stocked() {
                return;
            }
        }
        panic!("no permits were granted: {:?}", layer.handle().status());
    });
    layer.layer(Bare)
}

#[cfg(feature = "fleet")]
mod fleet {
    use std::time::Duration;

    use tower_gemini::fleet::{
        Close, MemoryStore, Micros, Notices, Reply, Store, StoreError, StoreFuture, StoreKey, Take,
    };

    /// A store that grants more than it is asked for.
    #[derive(Debug, Default)]
    pub(super) struct Generous(MemoryStore);

    impl Store for Generous {
        fn take<'a>(&'a self, takes: &'a [Take]) -> StoreFuture<'a, Result<Vec<Reply>, StoreError>> {
            Box::pin(async move {
                let mut replies = self.0.take(takes).await?;
                for reply in replies.iter_mut().filter(|reply| reply.grant.requests > 0) {
                    reply.grant.requests = 1_000_000;
                }
                Ok(replies)
            })
        }

        fn close<'a>(
            &'a self,
            key: &'a StoreKey,
            close: Close,
            window: Micros,
        ) -> StoreFuture<'a, Result<(), StoreError>> {
            self.0.close(key, close, window)
        }

        fn subscribe(&self) -> Option<Box<dyn Notices>> {
            self.0.subscribe()
        }

        fn pushes(&self) -> bool {
            true
        }

        fn split(&self) -> Option<Duration> {
            Some(Duration::ZERO)
        }

        fn place(&self) -> String {
            "generous".to_owned()
        }
    }
}
