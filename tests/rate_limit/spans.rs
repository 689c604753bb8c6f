//! Limits over windows of other spans than a minute and a day.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::error::find;
use tower_gemini::rate_limit::{
    ByContent, Images, LimitKind, Limits, Price, Prices, RateLimitLayer, RateLimitReason, RateLimited, Texts,
    Unit,
};
use tower_gemini::tier::{ServiceTier, TierLayer};

use crate::world::{MODEL, prompt, secs};

/// A server that answers at once with `answer`, and when it was asked.
fn server(answer: &'static str) -> (Served, Arc<Mutex<Vec<Duration>>>) {
    let (begun, log) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    (Served { answer, begun, log: Arc::clone(&log) }, log)
}

#[derive(Clone)]
struct Served {
    answer: &'static str,
    begun: Instant,
    log: Arc<Mutex<Vec<Duration>>>,
}

impl Service<Request<Full<Bytes>>> for Served {
    type Response = Response<Full<Bytes>>;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        self.log.lock().unwrap().push(Instant::now() - self.begun);
        std::future::ready(Ok(Response::new(Full::from(self.answer))))
    }
}

fn batch(texts: usize) -> Request<Full<Bytes>> {
    let one = r#"{"content":{"parts":[{"text":"a"}]}}"#;
    let body = format!(r#"{{"requests":[{}]}}"#, vec![one; texts].join(","));
    Request::post("/v1beta/models/gemini-embedding-001:batchEmbedContents").body(Full::from(body)).unwrap()
}

fn limited(limits: Limits) -> RateLimitLayer<ByContent> {
    let builder = RateLimitLayer::builder().limits(limits).guard(Duration::ZERO);
    builder.estimate(ByContent).build().unwrap()
}

async fn call<S, B>(service: S, request: Request<Full<Bytes>>) -> Result<(), BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError>,
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let _ = service.oneshot(request).await?.into_body().collect().await.unwrap();
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn each_text_of_a_batch_counts() {
    let (server, log) = server("{}");
    let layer = limited(Limits::new().per(Unit::Texts, 100, secs(60)));
    let service = ServiceBuilder::new().layer(layer.clone()).service(server);
    for texts in [60, 40, 1, 60] {
        call(service.clone(), batch(texts)).await.unwrap();
    }
    assert_eq!(*log.lock().unwrap(), [0, 0, 60, 60].map(secs));
    let status = &layer.handle().status()[0];
    let span = &status.spans[0];
    assert_eq!((span.unit, span.span, span.used, span.limit), (Unit::Texts, secs(60), 61, 100));
    assert!(status.to_string().contains("61 of 100 texts in 60s"), "{status}");

    let mut large = batch(1);
    large.extensions_mut().insert(Texts(101));
    let error = call(service, large).await.unwrap_err();
    let limited = find::<RateLimited>(error.as_ref()).expect("it is named");
    assert_eq!((limited.why(), limited.dimension()), (RateLimitReason::TooLarge, LimitKind::Texts));
}

#[tokio::test(start_paused = true)]
async fn images_and_long_windows_hold_beside_the_minute() {
    let (server, log) = server("{}");
    let limits =
        Limits::new().requests_per_minute(2).per(Unit::Requests, 3, secs(600)).per(Unit::Images, 5, secs(90));
    let service = ServiceBuilder::new().layer(limited(limits)).service(server);
    let images = |images: u8| {
        let mut request = prompt(1);
        request.extensions_mut().insert(Images(images));
        request
    };
    for count in [3, 0, 3, 0] {
        call(service.clone(), images(count)).await.unwrap();
    }
    // The third waits for the images, and the fourth for the three requests of ten minutes.
    assert_eq!(*log.lock().unwrap(), [0, 0, 90, 600].map(secs));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_go_before_its_deadline_fails_at_once_and_says_when() {
    let (server, log) = server("{}");
    let layer = limited(Limits::new().per(Unit::Texts, 10, secs(60)));
    let service = ServiceBuilder::new().layer(layer).service(server);
    call(service.clone(), batch(8)).await.unwrap();
    let mut late = batch(3);
    late.extensions_mut().insert(tower_gemini::Deadline::at(Instant::now() + secs(59)));
    let error = call(service.clone(), late).await.unwrap_err();
    let limited = find::<RateLimited>(error.as_ref()).expect("it is named");
    assert_eq!((limited.why(), limited.dimension()), (RateLimitReason::Deadline, LimitKind::Texts));
    assert_eq!(limited.until(), Some(Instant::now() + secs(60)));
    assert_eq!(log.lock().unwrap().len(), 1);
}

/// 1,000 tokens of input, 100 of them cached, and 200 of output with thoughts.
const ANSWER: &str = r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}],
  "usageMetadata":{"promptTokenCount":1000,"cachedContentTokenCount":100,"candidatesTokenCount":150,"thoughtsTokenCount":50,
  "totalTokenCount":1200},"modelVersion":"MODEL"}"#;

fn prices() -> Prices {
    Prices::read_on("2026-11-29")
        .model(MODEL, Price::per_million(1.0, 10.0).cached(0.5))
        .tier(MODEL, ServiceTier::Flex, Price::per_million(0.5, 5.0))
        .model("gemini-9-pro", Price::per_million(4.0, 40.0))
        .output_tokens(300)
}

fn answer(model: &str) -> &'static str {
    Box::leak(ANSWER.replace("MODEL", model).into_boxed_str())
}

async fn spent(answers: &str, request: Request<Full<Bytes>>) -> u64 {
    let (server, _) = server(answer(answers));
    let layer = RateLimitLayer::builder()
        .limits(Limits::new().per(Unit::Money, 1_000_000, secs(600)))
        .prices(prices())
        .build()
        .unwrap();
    let classify = ClassifyLayer::new().watch();
    let inner = ServiceBuilder::new().layer(layer.clone()).layer(classify).service(server);
    call(ServiceBuilder::new().layer(TierLayer::new()).service(inner), request).await.unwrap();
    layer.handle().status()[0].spans[0].used
}

#[tokio::test(start_paused = true)]
async fn money_is_settled_by_the_price_of_the_model_and_tier_that_answered() {
    assert_eq!(spent(MODEL, prompt(900)).await, 900 + 50 + 2_000);
    assert_eq!(spent("gemini-9-pro", prompt(900)).await, 4_000 + 8_000, "another model answered");
    assert_eq!(spent("gemini-9-mini", prompt(900)).await, 900 + 50 + 2_000, "one that has no price");
    let mut flex = prompt(900);
    *flex.body_mut() = Full::from(r#"{"serviceTier":"flex","contents":[{"parts":[{"text":"word"}]}]}"#);
    assert_eq!(spent(MODEL, flex).await, 500 + 1_000);
}

#[tokio::test(start_paused = true)]
async fn money_is_reserved_before_it_is_spent() {
    let (server, log) = server(answer(MODEL));
    // One call is reserved at some 230 and 3,000, and costs 2,950.
    let layer = RateLimitLayer::builder()
        .limits(Limits::new().per(Unit::Money, 8_000, secs(600)))
        .guard(Duration::ZERO)
        .prices(prices())
        .build()
        .unwrap();
    let service = ServiceBuilder::new().layer(layer).layer(ClassifyLayer::new().watch()).service(server);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..5 {
        calls.spawn(call(service.clone(), prompt(200)));
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    let times = log.lock().unwrap().clone();
    assert_eq!(times.iter().map(Duration::as_secs).collect::<Vec<_>>(), [0, 0, 600, 600, 1200]);
}

#[tokio::test(start_paused = true)]
async fn limits_of_money_need_prices() {
    let money = Limits::new().per(Unit::Money, 1, secs(600));
    let field = |builder: tower_gemini::rate_limit::RateLimitBuilder| builder.build().unwrap_err().field();
    assert_eq!(field(RateLimitLayer::builder().limits(money)), "prices");
    assert_eq!(field(RateLimitLayer::builder().model_limits("m", money)), "prices");
    assert_eq!(field(RateLimitLayer::builder().prices(Prices::read_on("2026-11-29"))), "prices");
    let quotas = RateLimitLayer::default().handle();
    assert_eq!(quotas.set_limits(money).unwrap_err().field(), "prices");
    assert_eq!(field(RateLimitLayer::builder().limits(Limits::new().per(Unit::Texts, 0, secs(1)))), "per");
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_set_later_hold_from_then_on() {
    let (server, log) = server("{}");
    let layer = limited(Limits::new());
    let service = ServiceBuilder::new().layer(layer.clone()).service(server);
    call(service.clone(), prompt(1)).await.unwrap();
    layer.handle().set_limits(Limits::new().per(Unit::Requests, 1, secs(30))).unwrap();
    call(service.clone(), prompt(1)).await.unwrap();
    call(service.clone(), prompt(1)).await.unwrap();
    layer.handle().set_limits(Limits::new()).unwrap();
    call(service, prompt(1)).await.unwrap();
    assert_eq!(*log.lock().unwrap(), [0, 0, 30, 30].map(secs));
}

/// A 429 that names a spend limit of ten minutes: nobody has such a body on record yet.
const SPEND: &str = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED",
  "message":"You exceeded your spending limit for the last 10 minutes. Please retry in 200s."}}"#;

#[tokio::test(start_paused = true)]
async fn a_spend_limit_that_a_429_names_closes_until_it_says() {
    let (begun, log) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&log);
    let server = tower::service_fn(move |_: Request<Full<Bytes>>| {
        seen.lock().unwrap().push((Instant::now() - begun).as_secs());
        let first = seen.lock().unwrap().len() == 1;
        let answer = Response::builder().status(if first { 429 } else { 200 });
        std::future::ready(Ok::<_, std::io::Error>(
            answer.body(Full::<Bytes>::from(if first { SPEND } else { "{}" })).unwrap(),
        ))
    });
    let layer = RateLimitLayer::default();
    let service = ServiceBuilder::new().layer(layer.clone()).layer(ClassifyLayer::new()).service(server);
    call(service.clone(), prompt(1)).await.unwrap();
    let error = call(service.clone(), prompt(1)).await.unwrap_err();
    let limited = find::<RateLimited>(error.as_ref()).expect("it is named");
    assert_eq!((limited.why(), limited.dimension()), (RateLimitReason::Spent, LimitKind::Spend));
    assert_eq!(limited.until(), Some(begun + secs(201)), "whole seconds are cut off, so one is added");
    tokio::time::sleep_until(begun + secs(201)).await;
    call(service, prompt(1)).await.unwrap();
    assert_eq!(*log.lock().unwrap(), [0, 201]);
}
