//! Service tiers, in paused time: how a tier is read, and what each layer makes of it.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt};
use tower_gemini::circuit_breaker::CircuitState;
use tower_gemini::event::{Event, Observer};
use tower_gemini::fallback::{AnsweredBy, ModelFallbackBuilder, ModelFallbackLayer};
use tower_gemini::observe::{JsonLines, ObserveLayer};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::retry::ReplayLayer;
use tower_gemini::stack::{GeminiStack, Preset};
use tower_gemini::tier::{ServiceTier, TierLayer};
use tower_gemini::timeout::{DeadlineLayer, TimedOut};
use tower_gemini::{BoxError, Deadline, Kind, Target, Verdict};

type Body = Full<Bytes>;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const MODEL: &str = "gemini-9-flash";
const FLEX: &str = r#"{"contents":[{"parts":[{"text":"Hello"}]}],"service_tier":"flex"}"#;
const STANDARD: &str = r#"{"contents":[{"parts":[{"text":"Hello"}]}]}"#;
const GOOD: &str = r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}]}"#;
const OVERLOADED: &str = r#"{"error":{"code":503,"status":"UNAVAILABLE","message":"The model is overloaded. Please try again later."}}"#;

fn request(body: &str) -> Request<Body> {
    Request::post(format!("http://127.0.0.1/v1beta/models/{MODEL}:generateContent"))
        .body(Full::from(body.to_owned()))
        .unwrap()
}

/// One call as the server saw it.
#[derive(Clone, Debug)]
struct Seen {
    headers: HeaderMap,
    body: String,
    path: String,
    tier: Option<ServiceTier>,
    deadline: Option<Duration>,
}

/// When, status, body, and the tier that served.
type Scripted = (Duration, u16, String, Option<&'static str>);

/// Answers each call after a while with a status, a body and the tier that served, the last for ever.
#[derive(Clone)]
struct Server {
    script: Arc<Mutex<VecDeque<Scripted>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn new(script: &[(Duration, u16, &str)]) -> Self {
        let script = script.iter().map(|(after, status, body)| (*after, *status, (*body).to_owned(), None));
        Self { script: Arc::new(Mutex::new(script.collect())), seen: Arc::default() }
    }
    /// Answers at once, under this header.
    fn served(script: &[(&str, Option<&'static str>)]) -> Self {
        let script = script.iter().map(|(body, served)| (Duration::ZERO, 200, (*body).to_owned(), *served));
        Self { script: Arc::new(Mutex::new(script.collect())), seen: Arc::default() }
    }
    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
    fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl<B> Service<Request<B>> for Server
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: std::fmt::Debug,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let tier = ServiceTier::of(&request);
        let deadline = Deadline::of(&request).map(|deadline| deadline.instant() - Instant::now());
        let (script, seen) = (Arc::clone(&self.script), Arc::clone(&self.seen));
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
            let path = head.uri.path().to_owned();
            seen.lock().unwrap().push(Seen { headers: head.headers, body, path, tier, deadline });
            let next = {
                let mut script = script.lock().unwrap();
                let next = script.pop_front().expect("there is always one");
                if script.is_empty() {
                    script.push_back(next.clone());
                }
                next
            };
            let (after, status, body, served) = next;
            sleep(after).await;
            let mut response = Response::builder().status(status);
            if let Some(served) = served {
                response = response.header("x-gemini-service-tier", served);
            }
            Ok(response.body(Full::from(body)).unwrap())
        })
    }
}

async fn read<B>(response: Response<B>) -> (u16, Bytes)
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
}

// ===== how it is read =====

#[tokio::test]
async fn a_tier_is_read_from_extension_header_and_body_in_this_order() {
    let server = Server::new(&[(Duration::ZERO, 200, GOOD)]);
    let service = TierLayer::new().layer(server.clone());
    let mut with_header = request(FLEX);
    with_header.headers_mut().insert("X-Vertex-AI-LLM-Shared-Request-Type", "priority".parse().unwrap());
    let mut with_extension = with_header.clone();
    with_extension.extensions_mut().insert(ServiceTier::Other);
    let mut read_only = request(FLEX);
    *read_only.method_mut() = http::Method::GET;
    for (request, tier) in [
        (request(FLEX), Some(ServiceTier::Flex)),
        (with_header, Some(ServiceTier::Priority)),
        (with_extension, Some(ServiceTier::Other)),
        (request(STANDARD), None),
        (read_only, None),
    ] {
        let body = request.clone().into_body().collect().await.unwrap().to_bytes();
        service.clone().oneshot(request).await.unwrap();
        let seen = server.seen().pop().unwrap();
        assert_eq!((seen.tier, seen.body.as_bytes()), (tier, &*body), "the body is as it was");
    }
}

#[tokio::test]
async fn the_first_frame_of_a_streamed_body_is_looked_at_and_sent_once() {
    let server = Server::new(&[(Duration::ZERO, 503, OVERLOADED), (Duration::ZERO, 200, GOOD)]);
    let service = ReplayLayer::new().layer(TierLayer::new().layer(server.clone()));
    // `Full` inside a `ReplayBody` is what reqwest's adapter sends.
    service.clone().oneshot(request(FLEX)).await.unwrap();
    let seen = server.seen().pop().unwrap();
    assert_eq!((seen.tier, &*seen.body), (Some(ServiceTier::Flex), FLEX));
    // Under a retry the second attempt sends all of it again.
    let stack = Preset::new().seed(1).stack().replay(ReplayLayer::new());
    let response = stack.layer(server.clone()).oneshot(request(FLEX)).await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = server.seen();
    assert!(seen.len() == 2 && seen.iter().all(|seen| seen.body == FLEX));
}

#[tokio::test]
async fn a_body_that_has_nothing_yet_is_waited_for_by_nobody() {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(4);
    let mut receiver = receiver;
    let stream = futures_util::stream::poll_fn(move |cx| {
        receiver.poll_recv(cx).map(|data| data.map(|data| Ok::<_, BoxError>(http_body::Frame::data(data))))
    });
    let body = http_body_util::BodyExt::boxed_unsync(http_body_util::StreamBody::new(stream));
    let server = Server::new(&[(Duration::ZERO, 200, GOOD)]);
    let service = ReplayLayer::new().layer(TierLayer::new().layer(server.clone()));
    let request = Request::post(format!("/v1beta/models/{MODEL}:generateContent")).body(body).unwrap();
    let mut call = Box::pin(service.oneshot(request));
    assert!(call.as_mut().now_or_never().is_none(), "it waits for the body, not for its tier");
    sender.send(Bytes::from(FLEX)).await.unwrap();
    drop(sender);
    call.await.unwrap();
    assert_eq!(server.seen().pop().unwrap().body, FLEX);
}

// ===== time =====

/// Each of the default stack's limits would have cut it: the deadline and the first byte at 120 s.
#[tokio::test(start_paused = true)]
async fn a_flex_call_of_14_minutes_succeeds_and_cuts_nothing() {
    let server = Server::new(&[(14 * MINUTE, 200, GOOD)]);
    let stack = GeminiStack::new();
    let service = stack.layer(server.clone());
    let start = Instant::now();
    // Six at a time, thirty in all: enough for every controller to act, had it seen a timeout.
    for _ in 0..5 {
        let calls = (0..6).map(|_| service.clone().oneshot(request(FLEX)));
        for response in futures_util::future::join_all(calls).await {
            assert_eq!(read(response.unwrap()).await, (200, Bytes::from(GOOD)));
        }
    }
    assert_eq!((Instant::now() - start), 5 * 14 * MINUTE);
    assert_eq!(server.calls(), 30, "none was sent twice");
    let seen = server.seen();
    assert_eq!(seen[0].headers["x-server-timeout"], "960", "the server is told of 16 minutes");
    assert_eq!(seen[0].deadline, Some(30 * MINUTE));
    let mut flex = request(FLEX);
    flex.extensions_mut().insert(ServiceTier::Flex);
    let key = Target::of(&flex).key();
    let gate = stack.get_concurrency().handle().get(&key);
    assert!(gate.is_none_or(|gate| gate.limit().is_none()), "it has cut");
    let circuit = stack.get_circuit_breaker().handle().get(&key.without_label());
    assert!(circuit.is_none_or(|circuit| circuit.state == CircuitState::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_standard_call_is_cut_as_before() {
    let server = Server::new(&[(14 * MINUTE, 200, GOOD)]);
    let start = Instant::now();
    let error = GeminiStack::new().layer(server.clone()).oneshot(request(STANDARD)).await.unwrap_err();
    assert!(tower_gemini::error::find::<TimedOut>(&*error).is_some(), "{error}");
    assert_eq!((Instant::now() - start), 2 * MINUTE);
    assert_eq!(server.seen()[0].headers["x-server-timeout"], "120");
}

#[tokio::test(start_paused = true)]
async fn a_flex_call_that_never_answers_ends_at_its_own_deadline() {
    let server = Server::new(&[(100 * MINUTE, 200, GOOD)]);
    let start = Instant::now();
    let service = GeminiStack::new().layer(server.clone());
    assert!(service.oneshot(request(FLEX)).await.is_err());
    assert_eq!((Instant::now() - start), 30 * MINUTE);
    assert_eq!(server.calls(), 2, "one of 16 minutes, and what is left");
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_deadline_counts_whatever_the_tier() {
    for (layer, given, expected) in [
        (DeadlineLayer::default(), Some(SECOND), SECOND),
        (DeadlineLayer::default(), Some(90 * MINUTE), 90 * MINUTE),
        (DeadlineLayer::default().cap_given(), Some(90 * MINUTE), 30 * MINUTE),
        (DeadlineLayer::default().cap_given(), Some(5 * MINUTE), 5 * MINUTE),
        (DeadlineLayer::default(), None, 30 * MINUTE),
        (DeadlineLayer::default().flex(3 * MINUTE).unwrap(), None, 3 * MINUTE),
        (DeadlineLayer::new(60 * MINUTE).unwrap(), None, 60 * MINUTE),
    ] {
        let server = Server::new(&[(Duration::ZERO, 200, GOOD)]);
        let service = layer.layer(TierLayer::new().layer(server.clone()));
        for known in [false, true] {
            let mut request = request(FLEX);
            if let Some(given) = given {
                request.extensions_mut().insert(Deadline::within(given));
            }
            if known {
                request.extensions_mut().insert(ServiceTier::Flex);
            }
            service.clone().oneshot(request).await.unwrap();
            assert_eq!(server.seen().pop().unwrap().deadline, Some(expected), "{given:?} {known}");
        }
    }
}

// ===== states of their own =====

/// Forty calls find no flex capacity; the standard tier of the same model is open all the while.
#[tokio::test(start_paused = true)]
async fn a_flex_outage_opens_no_circuit_of_the_standard_tier() {
    let server = Server::new(&[(Duration::ZERO, 503, OVERLOADED)]);
    let stack = GeminiStack::new().without_retry();
    let service = stack.layer(server.clone());
    let circuits = stack.get_circuit_breaker().handle();
    for _ in 0..40 {
        let _ = service.clone().oneshot(request(FLEX)).await;
    }
    let flex = {
        let mut flex = request(FLEX);
        flex.extensions_mut().insert(ServiceTier::Flex);
        Target::of(&flex).key()
    };
    assert_eq!(flex.to_string(), format!("gemini_api {MODEL} [flex]"));
    assert_eq!(circuits.get(&flex).unwrap().state, CircuitState::Open);
    let before = server.calls();
    assert!(service.clone().oneshot(request(STANDARD)).await.is_ok(), "an answer, and not an open circuit");
    assert_eq!(server.calls(), before + 1);
    assert_eq!(circuits.get(&flex.without_tier()).unwrap().state, CircuitState::Closed);
}

#[tokio::test(start_paused = true)]
async fn all_tiers_draw_on_one_quota_unless_they_are_counted_apart() {
    let builder = || RateLimitLayer::builder().limits(Limits::new().requests_per_minute(2));
    let by_key = || builder().key_by(|target| target.key().without_model());
    for (layer, keys) in [
        (builder().build().unwrap(), vec![3]),
        (by_key().build().unwrap(), vec![3]),
        (builder().by_tier().build().unwrap(), vec![1, 2]),
        (by_key().by_tier().build().unwrap(), vec![1, 2]),
    ] {
        let server = Server::new(&[(Duration::ZERO, 200, GOOD)]);
        let service = TierLayer::new().layer(layer.layer(server.clone()));
        let start = Instant::now();
        for body in [FLEX, STANDARD, FLEX] {
            read(service.clone().oneshot(request(body)).await.unwrap()).await;
        }
        assert_eq!(
            (Instant::now() - start) >= MINUTE,
            keys.len() == 1,
            "the third waits for the window of a shared quota"
        );
        let mut in_all: Vec<_> = layer.handle().status().iter().map(|status| status.requests_today).collect();
        in_all.sort_unstable();
        assert_eq!(in_all, keys);
    }
}

/// A shortage of flex capacity is told with a delay and without a quota.
#[tokio::test(start_paused = true)]
async fn a_flex_429_without_a_quota_closes_no_door() {
    const SHORT: &str =
        r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Please retry in 50s."}}"#;
    for (first, waits) in [(FLEX, false), (STANDARD, true)] {
        let server = Server::new(&[(Duration::ZERO, 429, SHORT), (Duration::ZERO, 200, GOOD)]);
        let service = GeminiStack::new().without_retry().layer(server.clone());
        service.clone().oneshot(request(first)).await.unwrap();
        let start = Instant::now();
        service.clone().oneshot(request(STANDARD)).await.unwrap();
        assert_eq!((Instant::now() - start) > 40 * SECOND, waits, "{first}");
    }
}

// ===== what the answer says =====

const PRIORITY: &str = r#"{"contents":[],"serviceTier":"PRIORITY"}"#;

/// Events in words, without those of retries and circuits.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        let text = match event {
            Event::Redirected { asked, answered, .. } => format!("redirected {asked} {answered}"),
            Event::Downgraded { model, asked, served, .. } => {
                format!("downgraded {} {asked} {served}", model.unwrap_or("-"))
            }
            Event::FellBack { from, to, tier, .. } => {
                format!("fell back {from} {} {}", to.unwrap_or("-"), tier.map_or("-", |tier| tier.as_str()))
            }
            Event::Finished { call, .. } => format!(
                "finished {} {} {} {}",
                call.model_version().unwrap_or("-"),
                call.redirected().unwrap_or("-"),
                call.tier_asked().map_or("-", |tier| tier.as_str()),
                call.tier_served().map_or("-", |tier| tier.as_str()),
            ),
            _ => return,
        };
        self.0.lock().unwrap().push(text);
    }
}

fn by(model: &str, tier: Option<&str>) -> String {
    let tier = tier.map_or(String::new(), |tier| format!(r#","serviceTier":"{tier}""#));
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"x"}}]}},"finishReason":"STOP"}}],"usageMetadata":{{"promptTokenCount":3{tier}}},"modelVersion":"{model}"}}"#
    )
}

#[tokio::test]
async fn a_downgrade_is_in_the_verdict_the_call_and_the_events() {
    let (own, vertex) = (by(MODEL, None), by(MODEL, Some("ON_DEMAND")));
    for (body, header, asked, served) in [
        (own.as_str(), Some("standard"), PRIORITY, Some(ServiceTier::Standard)),
        (vertex.as_str(), None, PRIORITY, Some(ServiceTier::Standard)),
        (own.as_str(), Some("priority"), PRIORITY, Some(ServiceTier::Priority)),
        (own.as_str(), None, PRIORITY, None),
        (own.as_str(), Some("standard"), STANDARD, None),
    ] {
        let (log, lines) = (Arc::new(Log::default()), Arc::new(JsonLines::new(Vec::new()).with_events()));
        let both: Vec<Arc<dyn Observer>> = vec![log.clone(), lines.clone()];
        let server = Server::served(&[(body, header)]);
        let service = ObserveLayer::new(Arc::new(both)).layer(GeminiStack::new().layer(server));
        let response = service.oneshot(request(asked)).await.unwrap();
        let verdict = Verdict::of(&response);
        read(response).await;
        let asked = (asked == PRIORITY).then_some(ServiceTier::Priority);
        assert_eq!((verdict.tier_asked(), verdict.tier_served()), (asked, served));
        let downgraded = served.filter(|served| *served == ServiceTier::Standard);
        assert_eq!(verdict.downgraded(), downgraded.map(|served| (ServiceTier::Priority, served)));
        let word = |tier: Option<ServiceTier>| tier.map_or("-", ServiceTier::as_str);
        let mut told = vec![format!("finished - - {} {}", word(asked), word(served))];
        if downgraded.is_some() {
            told.insert(0, format!("downgraded {MODEL} priority standard"));
        }
        assert_eq!(*log.0.lock().unwrap(), told);
        let lines = String::from_utf8(Arc::into_inner(lines).unwrap().into_inner()).unwrap();
        assert_eq!(lines.contains(r#""tier_served":"standard""#), downgraded.is_some(), "{lines}");
        assert_eq!(lines.contains(r#""event":"downgraded""#), downgraded.is_some(), "{lines}");
    }
}

#[tokio::test]
async fn a_redirect_is_told_once_for_each_pair_and_stands_in_each_call() {
    let log = Arc::new(Log::default());
    let stream = format!("data: {}\r\n\r\n", by("gemini-9-pro", None));
    let server = Server::served(&[
        (&by("gemini-9-pro", None), None),
        (&by("gemini-9-pro", None), None),
        (&by("gemini-9-flash-001", None), None),
        (&by("gemini-9-flash", None), None),
        (&stream, None),
        (&by("gemini-10-pro", None), None),
    ]);
    let stack = GeminiStack::new();
    let observed = ObserveLayer::new(log.clone());
    for _ in 0..6 {
        // A service of its own each time: what was told is the layer's to remember.
        let service = observed.layer(stack.layer(server.clone()));
        read(service.oneshot(request(STANDARD)).await.unwrap()).await;
    }
    assert_eq!(
        *log.0.lock().unwrap(),
        [
            "redirected gemini-9-flash gemini-9-pro",
            "finished gemini-9-pro gemini-9-pro - -",
            "finished gemini-9-pro gemini-9-pro - -",
            "finished gemini-9-flash-001 - - -",
            "finished - - - -",
            "finished gemini-9-pro gemini-9-pro - -",
            "redirected gemini-9-flash gemini-10-pro",
            "finished gemini-10-pro gemini-10-pro - -",
        ]
    );
    // Quota and circuit are those of what was asked.
    let quotas = stack.get_rate_limit().handle().status();
    assert_eq!((quotas.len(), quotas[0].key.target().model()), (1, Some(MODEL)));
}

/// The model that this crate's own fallback has asked is no redirect.
#[tokio::test(start_paused = true)]
async fn a_fallback_of_our_own_is_no_redirect() {
    let log = Arc::new(Log::default());
    let answer = by("gemini-9-lite", None);
    let server = Server::new(&[(Duration::ZERO, 503, OVERLOADED), (Duration::ZERO, 200, &answer)]);
    let chain = ModelFallbackLayer::builder().chain(MODEL, ["gemini-9-lite"]);
    let stack = GeminiStack::new().falling_back(chain).unwrap();
    let stack = stack.without_retry();
    let service = ObserveLayer::new(log.clone()).layer(stack.layer(server));
    read(service.oneshot(request(STANDARD)).await.unwrap()).await;
    assert_eq!(*log.0.lock().unwrap(), ["finished - - - -"]);
}

/// The model of the catalogue that has retired for the longest, as Google refuses it.
#[tokio::test(start_paused = true)]
async fn a_retired_model_ends_at_the_first_attempt_with_its_successor() {
    const GONE: &str = r#"{"error":{"code":404,"status":"NOT_FOUND","message":"models/gemini-2.0-flash is not found for API version v1beta"}}"#;
    const ODD: &str = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota.\n* Quota exceeded for metric: generativelanguage.googleapis.com/generate_requests, model: gemini-2.0-flash"}}"#;
    for (status, body, kind) in [(404, GONE, Kind::NotFound), (429, ODD, Kind::RateLimited)] {
        let lines = Arc::new(JsonLines::new(Vec::new()));
        let server = Server::new(&[(Duration::ZERO, status, body)]);
        let service = ObserveLayer::new(lines.clone()).layer(GeminiStack::new().layer(server.clone()));
        let response = service.oneshot(request(STANDARD)).await.unwrap();
        let verdict = Verdict::of(&response);
        assert_eq!((verdict.kind(), server.calls()), (Some(kind), 1), "{body}");
        let retired = verdict.retired().unwrap();
        assert_eq!(retired.successor.as_deref(), Some("gemini-3.5-flash-lite"));
        drop(response);
        let lines = String::from_utf8(Arc::into_inner(lines).unwrap().into_inner()).unwrap();
        assert!(lines.contains(r#""successor":"gemini-3.5-flash-lite""#), "{lines}");
    }
    // A 429 that says when the quota is back is no sign of a retirement.
    let later = ODD.replace("current quota.", "current quota. Please retry in 5s.");
    let server = Server::new(&[(Duration::ZERO, 429, &later), (Duration::ZERO, 200, GOOD)]);
    let response = GeminiStack::new().layer(server.clone()).oneshot(request(STANDARD)).await.unwrap();
    assert_eq!((response.status().as_u16(), server.calls()), (200, 2));
}

// ===== the ladder =====

/// Has capacity in some tiers alone; tells by the request which one it is of.
#[derive(Clone, Default)]
struct Tiered {
    short: Arc<Mutex<Vec<&'static str>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Tiered {
    fn short_of(tiers: &[&'static str]) -> Self {
        let server = Self::default();
        server.set(tiers);
        server
    }
    fn set(&self, tiers: &[&'static str]) {
        *self.short.lock().unwrap() = tiers.to_vec();
    }
    /// The tier of a request, as Google would read it.
    fn tier(seen: &Seen) -> String {
        let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
        let named = body["service_tier"].as_str().or(body["serviceTier"].as_str()).map(str::to_lowercase);
        let header = seen.headers.get("x-vertex-ai-llm-shared-request-type");
        header.map(|name| name.to_str().unwrap().to_owned()).or(named).unwrap_or("standard".into())
    }
    fn tiers(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(Self::tier).collect()
    }
    fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }
}

impl<B> Service<Request<B>> for Tiered
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: std::fmt::Debug,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let tier = ServiceTier::of(&request);
        let server = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
            let path = head.uri.path().to_owned();
            let seen = Seen { headers: head.headers, body, path, tier, deadline: None };
            let is_short = server.short.lock().unwrap().iter().any(|short| *short == Self::tier(&seen));
            server.seen.lock().unwrap().push(seen);
            let (status, body) = if is_short { (503, OVERLOADED) } else { (200, GOOD) };
            Ok(Response::builder().status(status).body(Full::from(body)).unwrap())
        })
    }
}

fn ladder() -> ModelFallbackBuilder {
    use ServiceTier::{Flex, Priority, Standard};
    ModelFallbackLayer::builder()
        .tier_ladder(Flex, [Standard, Priority])
        .tier_ladder(Priority, [Standard, Flex])
}

#[tokio::test(start_paused = true)]
async fn three_flex_503s_go_to_standard_and_the_next_request_begins_with_flex() {
    let log = Arc::new(Log::default());
    let server = Tiered::short_of(&["flex"]);
    let stack = Preset::new().seed(1).stack().falling_back(ladder().observer(log.clone())).unwrap();
    let service = stack.layer(server.clone());
    let response = service.clone().oneshot(request(FLEX)).await.unwrap();
    assert_eq!(response.status(), 200);
    let by = AnsweredBy::of(&response).unwrap();
    assert_eq!((by.model(), by.tier(), by.position()), (Some(MODEL), Some(ServiceTier::Standard), 1));
    read(response).await;
    assert_eq!(server.tiers(), ["flex", "flex", "flex", "standard"]);
    assert_eq!(*log.0.lock().unwrap(), [format!("fell back {MODEL} {MODEL} standard")]);
    let last = server.last();
    assert_eq!(last.body, FLEX.replace("flex", "standard"), "only the tier has changed");
    assert_eq!(
        (last.tier, last.path),
        (Some(ServiceTier::Standard), format!("/v1beta/models/{MODEL}:generateContent"))
    );
    assert_eq!(last.headers["x-server-timeout"], "120", "the limits are those of the tier that is asked");
    // And back: the capacity is there again.
    server.set(&[]);
    let response = service.clone().oneshot(request(FLEX)).await.unwrap();
    assert!(AnsweredBy::of(&response).is_none());
    assert_eq!(server.tiers().last().unwrap(), "flex");
}

#[tokio::test(start_paused = true)]
async fn each_ladder_goes_its_own_way_to_its_end() {
    for (short, body, asked) in [
        (&["flex", "standard"][..], FLEX, &["flex", "flex", "flex", "standard", "standard", "priority"][..]),
        (&["priority"], PRIORITY, &["priority", "priority", "priority", "standard"]),
        (&["standard"], STANDARD, &["standard"; 10]),
    ] {
        let server = Tiered::short_of(short);
        let stack = Preset::new().seed(1).stack().falling_back(ladder()).unwrap();
        let _ = stack.layer(server.clone()).oneshot(request(body)).await;
        assert_eq!(server.tiers()[..], *asked, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_ladder_is_climbed_that_was_not_given() {
    let server = Tiered::short_of(&["flex"]);
    let response = Preset::new().seed(1).stack().layer(server.clone()).oneshot(request(FLEX)).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(server.tiers(), ["flex"; 10]);
}

#[tokio::test(start_paused = true)]
async fn a_tier_whose_circuit_is_open_is_passed_over_until_it_is_back() {
    let server = Tiered::short_of(&["flex"]);
    let stack = Preset::new().seed(1).stack();
    let breaker = stack.get_circuit_breaker().handle();
    let service = stack.falling_back(ladder()).unwrap().layer(server.clone());
    let flex = {
        let mut flex = request(FLEX);
        flex.extensions_mut().insert(ServiceTier::Flex);
        Target::of(&flex).key()
    };
    breaker.force_open(&flex);
    assert_eq!(service.clone().oneshot(request(FLEX)).await.unwrap().status(), 200);
    assert_eq!(server.tiers(), ["standard"], "flex was not asked");
    breaker.reset(&flex);
    server.set(&[]);
    service.clone().oneshot(request(FLEX)).await.unwrap();
    assert_eq!(server.tiers(), ["standard", "flex"]);
}

/// A quota is shared by the tiers, so another one does not help; another model does.
#[tokio::test(start_paused = true)]
async fn a_spent_quota_goes_past_the_ladder_to_the_next_model() {
    const DAY: &str = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"x","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"generativelanguage.googleapis.com/generate_requests","quotaId":"GenerateRequestsPerDayPerProjectPerModel","quotaValue":"20"}]}]}}"#;
    let log = Arc::new(Log::default());
    let server = Server::new(&[(Duration::ZERO, 429, DAY), (Duration::ZERO, 200, GOOD)]);
    let both = ladder().chain(MODEL, ["gemini-9-lite"]).observer(log.clone());
    let service = GeminiStack::new().falling_back(both).unwrap().layer(server.clone());
    let response = service.oneshot(request(FLEX)).await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!((&*seen[1].body, &*seen[1].path), (FLEX, "/v1beta/models/gemini-9-lite:generateContent"));
    assert_eq!(*log.0.lock().unwrap(), [format!("fell back {MODEL} gemini-9-lite -")]);
}

#[tokio::test(start_paused = true)]
async fn the_tier_is_rewritten_where_it_stands() {
    let vertex = "/v1/projects/p/locations/global/publishers/google/models/gemini-9-flash:generateContent";
    let post = |path: &str, body: &str| {
        let request = Request::post(path).header("content-length", body.len());
        request.body(Full::<Bytes>::from(body.to_owned())).unwrap()
    };
    let mut by_header = post(vertex, STANDARD);
    by_header.headers_mut().insert("x-vertex-ai-llm-shared-request-type", "flex".parse().unwrap());
    let mut by_extension = post("/v1beta/models/gemini-9-flash:generateContent", STANDARD);
    by_extension.extensions_mut().insert(ServiceTier::Flex);
    for (request, body, header) in [
        (by_header, STANDARD.to_owned(), None),
        (by_extension, STANDARD.replacen('{', r#"{"service_tier":"standard","#, 1), None),
        (
            post("/v1beta/openai/chat/completions", r#"{"model":"m","service_tier":"flex"}"#),
            r#"{"model":"m","service_tier":"default"}"#.to_owned(),
            None,
        ),
        (
            post("/v1beta/interactions", r#"{"model":"m","service_tier":"FLEX"}"#),
            r#"{"model":"m","service_tier":"standard"}"#.to_owned(),
            None::<&str>,
        ),
    ] {
        let length = body.len().to_string();
        // The first tier is refused whatever it is.
        let server = Server::new(&[(Duration::ZERO, 503, OVERLOADED), (Duration::ZERO, 200, GOOD)]);
        let service =
            GeminiStack::new().without_retry().falling_back(ladder()).unwrap().layer(server.clone());
        assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
        let seen = server.seen().pop().unwrap();
        assert_eq!((seen.body, seen.tier), (body, Some(ServiceTier::Standard)));
        assert_eq!(seen.headers["content-length"], length);
        assert_eq!(seen.headers.get("x-vertex-ai-llm-shared-request-type").is_some(), header.is_some());
    }
    // And a body that streams through, once it was read.
    let server = Tiered::short_of(&["flex"]);
    let stack = Preset::new().seed(1).stack().replay(ReplayLayer::new()).falling_back(ladder()).unwrap();
    let response = stack.layer(server.clone()).oneshot(request(FLEX)).await.unwrap();
    assert_eq!((response.status().as_u16(), server.tiers().len()), (200, 4));
    assert_eq!(server.last().body, FLEX.replace("flex", "standard"));
}

/// The simulator says what Google does: which tier has served.
#[cfg(feature = "sim")]
#[tokio::test(start_paused = true)]
async fn the_simulator_names_the_tier_that_was_asked_for() {
    for (method, body, tier) in [
        ("generateContent", FLEX, Some(ServiceTier::Flex)),
        ("streamGenerateContent?alt=sse", PRIORITY, Some(ServiceTier::Priority)),
        ("generateContent", STANDARD, None),
    ] {
        let log = Arc::new(Log::default());
        let sim = tower_gemini::sim::Simulator::new();
        let service = ObserveLayer::new(log.clone()).layer(GeminiStack::new().layer(sim));
        let uri = format!("/v1beta/models/gemini-3.8-flash:{method}");
        let request = Request::post(uri).body(Full::<Bytes>::from(body)).unwrap();
        let response = service.oneshot(request).await.unwrap();
        let header = response.headers().get("x-gemini-service-tier").cloned();
        assert_eq!(header.map(|name| name.to_str().unwrap().to_owned()), tier.map(|tier| tier.to_string()));
        let (_, bytes) = read(response).await;
        let text = String::from_utf8_lossy(&bytes).replace(' ', "");
        assert_eq!(text.contains(r#""serviceTier":""#), tier.is_some(), "{text}");
        let word = tier.map_or("-", ServiceTier::as_str);
        assert_eq!(*log.0.lock().unwrap(), [format!("finished - - {word} {word}")]);
    }
}
