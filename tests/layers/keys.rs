//! What many keys do to each other: nothing.
//!
//! A caller may invent as many names of models as it likes. They are answered with 400 or 404, teach nothing, and take
//! nobody's place; and where all places are needed, who comes then is bound by nobody's state.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use support::{Answer, Body, error, good_body, quota, respond};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::circuit_breaker::{CircuitBreakerLayer, CircuitOpen, CircuitState};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::error::find;
use tower_gemini::event::{Event, LayerKind, Observer};
use tower_gemini::rate_limit::{Limits, RateLimitLayer, RateLimitReason, RateLimited};
use tower_gemini::request::KeyLabel;
use tower_gemini::stack::GeminiStack;

const MAX_KEYS: usize = 1_024;

fn ask(label: &str, model: &str) -> Request<Body> {
    let mut request = Request::post(format!("/v1beta/models/{model}:generateContent"))
        .body(Body::from(r#"{"contents":[{"parts":[{"text":"hello"}]}]}"#))
        .unwrap();
    request.extensions_mut().insert(KeyLabel::new(label));
    request
}

fn of(answer: &Answer) -> Response<Body> {
    match answer {
        Answer::Status(status, body) => respond(*status, body.clone()),
        _ => respond(200, good_body().to_owned()),
    }
}

/// A server that knows no invented model, whose tenant `spent` has used up its day, and whose model `down` is down.
fn server() -> impl Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send + 'static>
+ Clone
+ Send
+ 'static {
    let unknown = [
        error(400, "INVALID_ARGUMENT", "no such model"),
        error(404, "NOT_FOUND", "no such model"),
        error(403, "PERMISSION_DENIED", "not yours"),
    ];
    let spent = quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "5s");
    let down = error(503, "UNAVAILABLE", "down");
    let count = Arc::new(AtomicUsize::new(0));
    tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().path();
        let label = request.extensions().get::<KeyLabel>().map_or("", KeyLabel::as_str);
        let answer = match () {
            () if path.contains("invented") => &unknown[count.fetch_add(1, Relaxed) % unknown.len()],
            () if path.contains("down") => &down,
            () if label.starts_with("spent") => &spent,
            () => &Answer::Ok,
        };
        let response = of(answer);
        async move { Ok::<_, BoxError>(response) }
    })
}

async fn call<S, B>(service: &S, request: Request<Body>) -> Result<u16, BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone,
    B: http_body::Body<Error: Into<BoxError>>,
{
    let response = service.clone().oneshot(request).await?;
    let status = response.status().as_u16();
    // Until its body has ended, a call is under way.
    response.into_body().collect().await.map_err(Into::into)?;
    Ok(status)
}

/// More names than any layer keeps, each with a project of its own, quickly and one by one.
async fn invent<S, B>(service: &S)
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone,
    B: http_body::Body<Error: Into<BoxError>>,
{
    for nth in 0..1_400 {
        let status =
            call(service, ask(&format!("stranger-{nth}"), &format!("invented-{nth}"))).await.unwrap();
        assert!(matches!(status, 400 | 403 | 404));
    }
}

/// One tenant's day is spent; then the calls of others, of keys that were never met, pass.
async fn a_spent_day_is_one_tenants<S, B>(service: &S)
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone,
    B: http_body::Body<Error: Into<BoxError>>,
{
    // With the retry layer outside, the 429 is not handed on before the limit has refused the next attempt.
    _ = call(service, ask("spent", "gemini-3.5-flash")).await;
    let refused = call(service, ask("spent", "gemini-3.5-flash")).await;
    assert!(refused.as_ref().is_err() || refused.as_ref().ok() == Some(&429), "{refused:?}");
    for tenant in 0..50 {
        for model in ["gemini-3.5-flash", "gemini-3.8-flash"] {
            let answer = call(service, ask(&format!("tenant-{tenant}"), model)).await;
            assert_eq!(answer.ok(), Some(200), "tenant {tenant}, {model}");
        }
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<(LayerKind, usize)>>);

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::KeysExhausted { layer, max_keys, .. } = event {
            self.0.lock().unwrap().push((*layer, *max_keys));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn invented_names_fill_no_rate_limit() {
    for limits in [
        Limits::new(),
        Limits::new().requests_per_minute(10).input_tokens_per_minute(10_000).requests_per_day(100),
    ] {
        let told = Arc::<Told>::default();
        let layer =
            RateLimitLayer::builder().limits(limits).observer(Arc::<Told>::clone(&told)).build().unwrap();
        let service =
            ServiceBuilder::new().layer(layer.clone()).layer(ClassifyLayer::new().watch()).service(server());
        invent(&service).await;
        a_spent_day_is_one_tenants(&service).await;
        assert!(told.0.lock().unwrap().is_empty(), "there was always room");
        let known = layer.handle().status();
        assert!(known.len() <= MAX_KEYS);
        assert_eq!(known.iter().filter(|status| status.key.to_string().contains("tenant-")).count(), 100);
    }
}

#[tokio::test(start_paused = true)]
async fn invented_names_fill_no_breaker_and_no_governor() {
    let breaker = CircuitBreakerLayer::default();
    let governor = AdaptiveConcurrencyLayer::new();
    let service = ServiceBuilder::new()
        .layer(governor.clone())
        .layer(breaker.clone())
        .layer(ClassifyLayer::new().watch())
        .service(server());
    invent(&service).await;
    // A model that is down after the flood has a circuit of its own, and it opens.
    let mut refused = 0;
    for _ in 0..100 {
        refused += usize::from(
            call(&service, ask("a", "down"))
                .await
                .is_err_and(|error| find::<CircuitOpen>(error.as_ref()).is_some()),
        );
    }
    assert!(refused > 50, "{refused}");
    assert!(breaker.handle().all().iter().any(|circuit| circuit.state == CircuitState::Open));
    for nth in 0..50 {
        let answer = call(&service, ask("a", &format!("gemini-{nth}"))).await;
        assert_eq!(answer.ok(), Some(200), "another model's circuit is its own");
    }
    assert!(breaker.handle().keys().len() <= MAX_KEYS && governor.handle().all().len() <= MAX_KEYS);
}

#[tokio::test(start_paused = true)]
async fn invented_names_fill_nothing_of_the_stack() {
    let stack = GeminiStack::new();
    let quotas = stack.get_rate_limit().handle();
    let service = stack.layer(server());
    invent(&service).await;
    a_spent_day_is_one_tenants(&service).await;
    let down = call(&service, ask("a", "down")).await;
    assert!(down.ok() != Some(200));
    for nth in 0..50 {
        let answer = call(&service, ask("b", &format!("gemini-{nth}"))).await;
        assert_eq!(answer.ok(), Some(200), "another model's circuit is its own");
    }
    assert!(quotas.status().len() <= MAX_KEYS);
}

// All that may be kept is needed: so many tenants whose day is spent.
#[tokio::test(start_paused = true)]
async fn who_finds_no_room_is_bound_by_nothing_and_it_is_told_once() {
    const KEYS: usize = 64;
    let told = Arc::<Told>::default();
    let layer = RateLimitLayer::builder().max_keys(KEYS).observer(Arc::<Told>::clone(&told)).build().unwrap();
    let service =
        ServiceBuilder::new().layer(layer.clone()).layer(ClassifyLayer::new().watch()).service(server());
    for nth in 0..KEYS {
        let first = call(&service, ask(&format!("spent-{nth}"), "gemini-3.5-flash")).await.unwrap();
        assert_eq!(first, 429);
    }
    assert!(told.0.lock().unwrap().is_empty());
    for round in 0..3 {
        for nth in 0..200 {
            let answer = call(&service, ask(&format!("tenant-{nth}"), "gemini-3.5-flash")).await;
            assert_eq!(answer.ok(), Some(200), "round {round}, tenant {nth}");
        }
        tokio::time::sleep(Duration::from_secs(90)).await;
    }
    assert_eq!(*told.0.lock().unwrap(), [(LayerKind::RateLimit, KEYS)]);
    // Nobody's day was forgotten for them.
    for nth in 0..KEYS {
        let refused = call(&service, ask(&format!("spent-{nth}"), "gemini-3.5-flash")).await.unwrap_err();
        assert_eq!(find::<RateLimited>(refused.as_ref()).unwrap().why(), RateLimitReason::Spent);
    }
    assert_eq!(layer.handle().status().len(), KEYS);
    // The next day there is room.
    tokio::time::sleep(Duration::from_secs(30 * 3_600)).await;
    call(&service, ask("tenant-0", "gemini-3.5-flash")).await.unwrap();
    assert!(layer.handle().status().iter().any(|status| status.key.to_string().contains("tenant-0")));
}
