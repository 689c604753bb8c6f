//! The whole stack in one line: every layer in its place, and a bad day with all of them.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};
use tower_gemini::circuit_breaker::{CircuitOpen, CircuitState};
use tower_gemini::classify::StrictBodyLayer;
use tower_gemini::error::find;
use tower_gemini::event::{Event, Observer};
use tower_gemini::fallback::{AnsweredBy, ModelFallbackLayer};
use tower_gemini::respond::RespondLayer;
use tower_gemini::retry::Attempts;
use tower_gemini::sim::{Fault, Quota, Rule, Simulator};
use tower_gemini::stack::{Custom, GeminiStack, Preset};
use tower_gemini::timeout::{Phase, TimedOut, TimeoutLayer};
use tower_gemini::{BoxError, Deadline, Kind, Target, Verdict};

type Body = Full<Bytes>;

const MODEL: &str = "gemini-3.5-flash";

fn request(method: &str) -> Request<Body> {
    of_model(MODEL, method)
}

fn of_model(model: &str, method: &str) -> Request<Body> {
    Request::post(format!("http://127.0.0.1/v1beta/models/{model}:{method}"))
        .body(Full::from(r#"{"contents":[{"parts":[{"text":"Hello"}]}]}"#))
        .unwrap()
}

fn generate() -> Request<Body> {
    request("generateContent")
}

/// Writes its name down when a request passes.
#[derive(Clone)]
struct Mark(&'static str, Arc<Mutex<Vec<&'static str>>>);

#[derive(Clone)]
struct Marked<S>(S, Mark);

impl<S> Layer<S> for Mark {
    type Service = Marked<S>;
    fn layer(&self, inner: S) -> Marked<S> {
        Marked(inner, self.clone())
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Marked<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.1.1.lock().unwrap().push(self.1.0);
        self.0.call(request)
    }
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        let name = format!("{event:?}");
        self.0.lock().unwrap().push(name.split([' ', '(', '{']).next().unwrap_or_default().to_owned());
    }
}

// ===== places =====

#[tokio::test]
async fn every_layer_stands_in_its_place() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mark = |name| Mark(name, Arc::clone(&seen));
    let client =
        tower::service_fn(async |_: Request<Body>| Ok::<_, BoxError>(Response::new(Body::default())));
    // Set in no order at all.
    let stack = GeminiStack::new()
        .retry(mark("retry"))
        .classify(mark("classify"))
        .deadline(mark("deadline"))
        .tier(mark("tier"))
        .circuit_breaker(Custom(mark("circuit_breaker")))
        .replay(mark("replay"))
        .timeout(mark("timeout"))
        .fallback(mark("fallback"))
        .concurrency(Custom(mark("concurrency")))
        .rate_limit(Custom(mark("rate_limit")));
    stack.layer(client).oneshot(generate()).await.unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        [
            "deadline",
            "replay",
            "tier",
            "fallback",
            "retry",
            "rate_limit",
            "concurrency",
            "circuit_breaker",
            "timeout",
            "classify"
        ]
    );
}

#[tokio::test]
async fn without_all_of_them_it_is_the_service_itself() {
    #[derive(Clone, Debug, PartialEq)]
    struct Client(u8);
    let stack = GeminiStack::new()
        .without_deadline()
        .without_replay()
        .without_fallback()
        .without_retry()
        .without_rate_limit()
        .without_concurrency()
        .without_circuit_breaker()
        .without_timeout()
        .without_classify()
        .without_tier();
    let client: Client = stack.layer(Client(7));
    assert_eq!(client, Client(7));
}

#[test]
fn the_presets_are_valid() {
    for preset in [Preset::new(), Preset::interactive(), Preset::batch(), Preset::gateway()] {
        drop(preset.seed(1).observer(Arc::new(Log::default())).stack());
    }
}

#[tokio::test(start_paused = true)]
async fn a_preset_gives_requests_its_deadline_and_keeps_a_callers_own() {
    let deadlines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&deadlines);
    let client = tower::service_fn(move |request: Request<Body>| {
        seen.lock().unwrap().push(Deadline::of(&request).unwrap().instant() - Instant::now());
        async { Ok::<_, BoxError>(Response::new(Body::default())) }
    });
    for preset in [Preset::new(), Preset::interactive(), Preset::batch(), Preset::gateway()] {
        preset.stack().layer(client.clone()).oneshot(generate()).await.unwrap();
    }
    let mut own = generate();
    own.extensions_mut().insert(Deadline::within(Duration::from_secs(7)));
    GeminiStack::new().layer(client).oneshot(own).await.unwrap();
    assert_eq!(*deadlines.lock().unwrap(), [120, 60, 3600, 120, 7].map(Duration::from_secs));
}

// ===== a bad day =====

#[tokio::test(start_paused = true)]
async fn failures_are_mended_by_whichever_layer_can() {
    let sim = Simulator::builder()
        .rule(Rule::new(Fault::overloaded()).on_call(1))
        .rule(Rule::new(Fault::overloaded()).on_call(2))
        .build()
        .unwrap();
    let log = Arc::new(Log::default());
    let gemini = Preset::new().seed(3).observer(Arc::clone(&log) as Arc<dyn Observer>).stack().layer(sim);
    let response = gemini.oneshot(generate()).await.unwrap();
    assert_eq!((response.status().as_u16(), Attempts::of(&response).made()), (200, 3));
    let verdict = Verdict::of(&response);
    response.into_body().collect().await.unwrap();
    assert!(verdict.usage().is_some(), "bodies are watched");
    assert!(!log.0.lock().unwrap().iter().any(|name| name == "Misplaced"));
}

#[tokio::test(start_paused = true)]
async fn one_429_teaches_all_and_nobody_loses_by_it() {
    let sim = Simulator::builder().quota(MODEL, Quota::new().requests_per_minute(10)).build().unwrap();
    let gemini = Preset::new().seed(5).stack().layer(sim.clone());
    let calls: Vec<_> = (0..20).map(|_| tokio::spawn(gemini.clone().oneshot(generate()))).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    let refused =
        sim.calls().iter().filter(|call| call.status() == Some(StatusCode::TOO_MANY_REQUESTS)).count();
    assert!(refused <= 10, "those who were under way when the quota was found out: {refused}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_opens_the_circuit_of_its_model_alone() {
    let sim = Simulator::builder().rule(Rule::new(Fault::overloaded()).for_model(MODEL)).build().unwrap();
    let stack = GeminiStack::new().without_retry();
    let gemini = stack.layer(sim.clone());
    for _ in 0..20 {
        assert_eq!(gemini.clone().oneshot(generate()).await.unwrap().status(), 503);
    }
    let error = gemini.clone().oneshot(generate()).await.err().unwrap();
    let open = find::<CircuitOpen>(error.as_ref()).unwrap();
    assert_eq!(open.key(), &Target::of(&generate()).key());
    assert_eq!(stack.get_circuit_breaker().handle().all()[0].state, CircuitState::Open);
    let other = of_model("gemini-3.8-flash", "generateContent");
    assert_eq!(
        stack.layer(sim).oneshot(other).await.unwrap().status(),
        200,
        "another service, the same circuits"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_timed_out_and_the_deadline_ends_it() {
    let client = tower::service_fn(async |_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, BoxError>>().await
    });
    let begun = Instant::now();
    let error = Preset::new().seed(1).stack().layer(client).oneshot(generate()).await.err().unwrap();
    let timed_out = find::<TimedOut>(error.as_ref()).unwrap();
    assert!(matches!(timed_out.what(), Phase::FirstByte | Phase::Deadline));
    assert_eq!(timed_out.model(), Some(MODEL), "a layer outside has named it");
    assert!(timed_out.to_string().starts_with(&format!("attempt timeout of {MODEL}")), "{timed_out}");
    let took = Instant::now() - begun;
    assert!(took <= Duration::from_secs(120), "{took:?}");
    assert_eq!(Verdict::from_error(error.as_ref()).kind(), Some(Kind::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn it_falls_back_to_a_model_whose_circuit_is_closed_without_a_call() {
    let sim = Simulator::builder().rule(Rule::new(Fault::overloaded()).for_model(MODEL)).build().unwrap();
    let stack = GeminiStack::new()
        .falling_back(ModelFallbackLayer::builder().chain(MODEL, ["gemini-2.5-flash-lite"]))
        .unwrap();
    stack.get_circuit_breaker().handle().force_open(&Target::of(&generate()).key());
    let response = stack.layer(sim.clone()).oneshot(generate()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(AnsweredBy::of(&response).unwrap().model(), Some("gemini-2.5-flash-lite"));
    assert_eq!(sim.calls().len(), 1, "the first model was not asked");
}

// ===== dropping =====

/// A call whose future or body still lives.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Under the two layers that belong around it, whose futures and bodies hold nothing but the inner ones.
/// What a 429 for a quota of a minute says, with its limit and without a delay, or the other way round.
fn of_a_minute(limit: Option<u32>, delay: Option<&str>) -> String {
    let limit = limit.map_or(String::new(), |limit| format!(r#","quotaValue":"{limit}""#));
    let delay = delay.map_or(String::new(), |delay| format!(r#",{{"retryDelay":"{delay}"}}"#));
    format!(
        r#"{{"error":{{"code":429,"message":"over quota","status":"RESOURCE_EXHAUSTED","details":[
        {{"violations":[{{"quotaMetric":"m/requests","quotaId":"XRequestsPerMinute"{limit}}}]}}{delay}]}}}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn a_quota_of_a_minute_is_waited_for_and_a_zero_that_was_left_out_is_doubted_once() {
    for (body, bad, calls, kind) in [
        (of_a_minute(Some(5), None), 1, 2, None),
        (of_a_minute(None, Some("34.4s")), usize::MAX, 2, Some(Kind::QuotaExhausted)),
    ] {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let server = tower::service_fn(move |_: Request<Body>| {
            let response = if counted.fetch_add(1, Ordering::Relaxed) < bad {
                Response::builder().status(429).body(Full::from(body.clone())).unwrap()
            } else {
                Response::new(Full::from(
                    r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}]}"#,
                ))
            };
            async move { Ok::<_, BoxError>(response) }
        });
        let began = Instant::now();
        let response = GeminiStack::new().layer(server).oneshot(generate()).await.unwrap();
        assert_eq!((Verdict::of(&response).kind(), made.load(Ordering::Relaxed)), (kind, calls));
        let least = Duration::from_millis(if kind.is_none() { 60_000 } else { 34_400 });
        let took = Instant::now() - began;
        assert!((least..least * 5 / 4).contains(&took), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_in_any_state_nothing_is_held_or_counted() {
    let living = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&living);
    // Answers with a body that never ends, or not at all.
    let client = tower::service_fn(move |request: Request<Body>| {
        let (alive, hangs) = (Alive::new(&count), request.uri().query() == Some("hang"));
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            let mut first = Some(http_body::Frame::data(Bytes::from_static(b"{")));
            let frames = futures_util::stream::poll_fn(move |_| {
                let _ = &alive;
                first.take().map_or(Poll::Pending, |frame| Poll::Ready(Some(Ok::<_, BoxError>(frame))))
            });
            Ok::<_, BoxError>(Response::new(http_body_util::StreamBody::new(frames)))
        }
    });
    let stack = GeminiStack::new();
    let mut service = RespondLayer::new().layer(StrictBodyLayer::new().layer(stack.layer(client)));
    let alive = || living.load(Ordering::Relaxed);
    let nothing_is_left = |state: &str| {
        assert_eq!(alive(), 0, "{state}: the call is gone");
        let quota = stack.get_rate_limit().handle().status();
        assert!(quota.iter().all(|quota| (quota.in_flight, quota.queued) == (0, 0)), "{state}");
        let limit = stack.get_concurrency().handle().all();
        assert!(limit.iter().all(|(_, limit)| (limit.limit(), limit.in_flight()) == (None, 0)), "{state}");
        let circuits = stack.get_circuit_breaker().handle().all();
        assert!(circuits.iter().all(|circuit| circuit.calls == 0), "{state}");
    };
    let hang = || of_model(MODEL, "generateContent?hang");

    drop(service.ready().await.unwrap().call(hang()));
    nothing_is_left("not polled");
    let mut call = Box::pin(service.ready().await.unwrap().call(hang()));
    assert!((&mut call).now_or_never().is_none());
    assert_eq!(alive(), 1);
    drop(call);
    nothing_is_left("no answer yet");
    drop(service.ready().await.unwrap().call(generate()).await.unwrap());
    nothing_is_left("an unread body");
    let mut body = service.ready().await.unwrap().call(generate()).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().is_ok());
    assert!(body.frame().now_or_never().is_none());
    assert_eq!(alive(), 1);
    drop(body);
    nothing_is_left("a body half read");
}

// ===== types =====

#[tokio::test(start_paused = true)]
async fn a_call_can_be_spawned_in_any_way() {
    let gemini = GeminiStack::new().layer(Simulator::builder().build().unwrap());
    let service = gemini.clone();
    let once = tokio::spawn(async move { service.oneshot(generate()).await });
    assert_eq!(once.await.unwrap().unwrap().status(), 200);
    let boxed = tower::util::BoxCloneService::new(gemini);
    assert_eq!(boxed.oneshot(generate()).await.unwrap().status(), 200);

    // Where the inner service's type names `BoxError` itself, as a closure's or a boxed service's does, rustc cannot see
    // that `oneshot` inside of an async block is `Send` (rust-lang/rust#64552). The call itself is.
    let client =
        tower::service_fn(async |_: Request<Body>| Ok::<_, BoxError>(Response::new(Body::default())));
    let mut service = GeminiStack::new().layer(client);
    let spawned = tokio::spawn(service.clone().oneshot(generate()));
    assert_eq!(spawned.await.unwrap().unwrap().status(), 200);
    let called = tokio::spawn(async move { service.ready().await?.call(generate()).await });
    assert_eq!(called.await.unwrap().unwrap().status(), 200);
}

/// Answers after a second; one call in 143 says nothing for ten minutes.
#[derive(Clone, Default)]
struct Stalling(Arc<AtomicUsize>);

impl Service<Request<Body>> for Stalling {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = futures_util::future::BoxFuture<'static, Result<Response<Body>, BoxError>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let stalls = self.0.fetch_add(1, Ordering::Relaxed) % 143 == 71;
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(if stalls { 600 } else { 1 })).await;
            Ok(Response::new(Full::from(r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}]}}]}"#)))
        })
    }
}

// 64 tasks, one call after the other, for ten minutes, with 0.7 % of stalls that the attempt timeout of 10 s ends.
#[tokio::test(start_paused = true)]
async fn with_a_stall_in_143_calls_ten_minutes_go_on_as_the_first_has_begun() {
    let began = Instant::now();
    let timeout = TimeoutLayer::builder().first_byte(Duration::from_secs(10)).build().unwrap();
    let service = GeminiStack::new().timeout(timeout).layer(Stalling::default());
    let answers = Arc::new(Mutex::new([0_usize; 10]));
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (service, answers) = (service.clone(), Arc::clone(&answers));
            tokio::spawn(async move {
                loop {
                    let response = service.clone().oneshot(generate()).await.unwrap();
                    response.into_body().collect().await.unwrap();
                    let minute = Instant::now().duration_since(began).as_secs() as usize / 60;
                    let mut answers = answers.lock().unwrap();
                    let Some(minute) = answers.get_mut(minute) else { return };
                    *minute += 1;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let answers = *answers.lock().unwrap();
    assert!(answers.iter().all(|minute| 100 * minute >= 95 * answers[0]), "{answers:?}");
}
