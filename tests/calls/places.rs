//! Places in virtual time: an outage of a region, a quota that is spent, residency under every failure, one set of attempts.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response};
use proptest::prelude::*;
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::error::find;
use tower_gemini::event::{Event, GaveUp, Observer};
use tower_gemini::fallback::{AnsweredBy, ModelFallbackLayer};
use tower_gemini::places::{
    AtPlace, NoPlace, NoPlaceReason, Place, Places, PlacesBuilder, PlacesLayer, RequestType, Residency,
    ServedAt,
};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::retry::{Attempt, Attempts, RetryLayer, RetryPolicy};
use tower_gemini::stack::GeminiStack;
use tower_gemini::{BoxError, Deadline, KeyLabel};

use support::{Answer, Body, error, good_body, quota, respond};

const REGIONS: [&str; 3] = ["europe-west4", "europe-west1", "us-central1"];

/// One call as it arrived.
#[derive(Clone, Debug)]
struct Seen {
    place: String,
    uri: String,
    headers: HeaderMap,
    label: Option<String>,
    attempt: u32,
}

/// What each location answers, by the path; one that is not listed is well.
#[derive(Clone, Default)]
struct World(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    answers: HashMap<&'static str, Answer>,
    takes: Duration,
    seen: Vec<Seen>,
}

impl World {
    fn set(&self, place: &'static str, answer: Answer) {
        self.0.lock().unwrap().answers.insert(place, answer);
    }

    fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().seen.clone()
    }

    /// The places that were asked since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().seen).into_iter().map(|seen| seen.place).collect()
    }
}

impl<B> Service<Request<B>> for World {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut state = self.0.lock().unwrap();
        let path = request.uri().path();
        let in_path = path.split_once("/locations/").map(|(_, rest)| rest.split('/').next().unwrap());
        let key = request.headers().get("x-goog-api-key").map(|key| key.to_str().unwrap().to_owned());
        let mut place = key.or(in_path.map(str::to_owned)).unwrap_or_default();
        if let Some(kind) = request.headers().get("x-vertex-ai-llm-request-type") {
            place = format!("{place} {}", kind.to_str().unwrap());
        }
        state.seen.push(Seen {
            place: place.clone(),
            uri: request.uri().to_string(),
            headers: request.headers().clone(),
            label: request.extensions().get().map(|label: &KeyLabel| label.as_str().to_owned()),
            attempt: Attempt::of(&request),
        });
        let answer = state.answers.get(&*place).cloned().unwrap_or(Answer::Ok);
        let takes = state.takes;
        Box::pin(async move {
            if !takes.is_zero() {
                sleep(takes).await;
            }
            match answer {
                Answer::Ok => Ok(respond(200, good_body().to_owned())),
                Answer::Status(status, body) => Ok(respond(status, body)),
                Answer::Header(status, ..) => Ok(respond(status, String::new())),
                Answer::Io(kind) => Err(std::io::Error::from(kind).into()),
                Answer::Rejected(_) => Err(tower_gemini::Rejected::new("closed").into()),
                Answer::Hang => std::future::pending().await,
            }
        })
    }
}

fn ask() -> Request<Body> {
    let path = "/v1/projects/p/locations/us-east1/publishers/google/models/gemini-9-flash:generateContent";
    Request::post(format!("https://us-east1-aiplatform.googleapis.com{path}")).body(Body::from("{}")).unwrap()
}

fn regions() -> PlacesBuilder {
    REGIONS.into_iter().fold(PlacesLayer::builder(), |builder, region| builder.place(Place::vertex(region)))
}

type Boxed = tower::util::BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

fn policy() -> RetryPolicy {
    RetryPolicy::builder().seed(7).build().unwrap()
}

fn retried(builder: PlacesBuilder, world: &World) -> (Boxed, Places) {
    retried_by(policy(), builder, world)
}

fn retried_by(policy: RetryPolicy, builder: PlacesBuilder, world: &World) -> (Boxed, Places) {
    let layer = builder.build().unwrap();
    let handle = layer.handle();
    let service = ServiceBuilder::new()
        .map_response(|response: Response<_>| response.map(|_| Body::default()))
        .layer(layer)
        .layer(RetryLayer::new(policy))
        .layer(ClassifyLayer::new())
        .service(world.clone());
    (Boxed::new(service), handle)
}

async fn status(service: &Boxed) -> (u16, String, usize) {
    let response = service.clone().oneshot(ask()).await.unwrap();
    let served = ServedAt::of(&response).unwrap();
    (response.status().as_u16(), served.place().to_owned(), served.moves())
}

fn closed(handle: &Places) -> Vec<String> {
    let closed = handle.all().into_iter().filter(|status| status.closed_until.is_some());
    closed.map(|status| status.place.to_string()).collect()
}

fn busy() -> Answer {
    error(503, "UNAVAILABLE", "down")
}

fn day() -> Answer {
    quota("GenerateRequestsPerDayPerProjectPerModel", "40000s")
}

#[tokio::test(start_paused = true)]
async fn with_all_well_the_first_is_asked_and_the_request_is_rewritten() {
    let world = World::default();
    let (service, handle) = retried(regions(), &world);
    for _ in 0..50 {
        assert_eq!(status(&service).await, (200, "europe-west4".to_owned(), 0));
    }
    let seen = &world.seen()[0];
    assert_eq!(
        seen.uri,
        "https://europe-west4-aiplatform.googleapis.com/v1/projects/p/locations/europe-west4/publishers/google/models/gemini-9-flash:generateContent"
    );
    assert_eq!(seen.label.as_deref(), Some("europe-west4"));
    assert!(closed(&handle).is_empty());
    assert_eq!(handle.all()[1].to_string(), "vertex gemini-9-flash in p/us-east1 at europe-west1: open");
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_passes_requests_on_as_they_are() {
    let world = World::default();
    let residency = Residency::within(["europe-west4"]);
    let (service, handle) = retried(regions().residency(residency).enabled(false), &world);
    let response = service.clone().oneshot(ask()).await.unwrap();
    assert_eq!(ServedAt::of(&response), None);
    assert_eq!(world.asked(), ["us-east1"], "where the request itself goes");
    assert!(handle.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_one_region_costs_three_calls_and_then_one_now_and_then() {
    let world = World::default();
    let (service, handle) = retried(regions(), &world);
    world.set("europe-west4", busy());
    let start = Instant::now();
    for _ in 0..600 {
        assert_eq!(status(&service).await.0, 200);
        sleep(Duration::from_millis(500)).await;
    }
    assert!(Instant::now() - start < Duration::from_secs(302), "nobody waited");
    assert_eq!(closed(&handle), ["europe-west4"]);
    let asked = world.asked();
    let down = asked.iter().filter(|place| *place == "europe-west4").count();
    // Three, and one each 15, 30, 60, 120, 240 s.
    assert_eq!((down, asked.len()), (3 + 4, 600 + 3 + 4));
    world.set("europe-west4", Answer::Ok);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(status(&service).await.1, "europe-west4", "and it comes back");
    assert!(closed(&handle).is_empty());
}

/// The doubled time is for when another place serves the requests meanwhile. Under a strict residency nobody does.
#[tokio::test(start_paused = true)]
async fn where_no_place_is_open_the_first_that_is_back_is_found_within_seconds() {
    for back in REGIONS {
        let world = World::default();
        let (service, _) = retried(regions(), &world);
        REGIONS.into_iter().for_each(|region| world.set(region, busy()));
        let ask = || {
            let mut request = ask();
            request.extensions_mut().insert(Deadline::within(Duration::from_secs(2)));
            service.clone().oneshot(request)
        };
        for _ in 0..200 {
            let _ = ask().await;
            sleep(Duration::from_secs(3)).await;
        }
        world.set(back, Answer::Ok);
        let start = Instant::now();
        let served = loop {
            match ask().await {
                Ok(response) if response.status() == 200 => break response,
                _ => sleep(Duration::from_secs(1)).await,
            }
            assert!(Instant::now() - start < Duration::from_secs(60), "{back} is not found");
        };
        assert_eq!(ServedAt::of(&served).unwrap().place(), back);
        // Its turn comes after 15 s at the most, and each of the others' calls takes up to 2 s.
        let took = Instant::now() - start;
        assert!(took < Duration::from_secs(25), "{back} after {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_that_is_spent_in_one_project_moves_the_calls_to_the_next() {
    let world = World::default();
    let key = |key: &'static str| Place::new(format!("project {key}")).api_key(HeaderValue::from_static(key));
    let (service, handle) = retried(PlacesLayer::builder().place(key("a")).place(key("b")), &world);
    world.set("a", day());
    let request = || {
        let uri =
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-9-flash:generateContent?key=z";
        Request::post(uri).body(Body::default()).unwrap()
    };
    for n in 0..20 {
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), ServedAt::of(&response).unwrap().place()),
            (200, "project b")
        );
        assert_eq!(Attempts::of(&response).made(), if n == 0 { 2 } else { 1 });
    }
    assert!(world.seen().iter().all(|seen| !seen.uri.contains("key=")));
    assert_eq!(world.asked().iter().filter(|place| *place == "a").count(), 1, "asked once in all");
    let until = handle.all()[0].closed_until.unwrap();
    assert_eq!(
        (until - Instant::now()).as_secs(),
        40_001,
        "as long as it says, and a second for what was cut off"
    );
}

#[tokio::test(start_paused = true)]
async fn a_minute_of_one_place_is_not_waited_for_while_another_is_open() {
    let world = World::default();
    let (service, _) = retried(regions(), &world);
    world.set("europe-west4", quota("GenerateRequestsPerMinutePerProjectPerModel", "30s"));
    let start = Instant::now();
    assert_eq!(status(&service).await, (200, "europe-west1".to_owned(), 1));
    assert_eq!(Instant::now(), start);
    sleep(Duration::from_secs(29)).await;
    assert_eq!(status(&service).await.1, "europe-west1");
    world.set("europe-west4", Answer::Ok);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(status(&service).await.1, "europe-west4");
}

#[tokio::test(start_paused = true)]
async fn where_all_are_short_the_last_one_is_waited_for() {
    let world = World::default();
    let (service, _) = retried(regions(), &world);
    for (place, delay) in REGIONS.into_iter().zip(["50s", "40s", "20s"]) {
        world.set(place, quota("GenerateRequestsPerMinutePerProjectPerModel", delay));
    }
    let call = tokio::spawn(service.clone().oneshot(ask()));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.asked(), REGIONS);
    world.set("us-central1", Answer::Ok);
    let start = Instant::now();
    let response = call.await.unwrap().unwrap();
    assert_eq!((response.status().as_u16(), ServedAt::of(&response).unwrap().place()), (200, "us-central1"));
    assert!((Instant::now() - start).as_secs() >= 15, "the server's own delay");
    assert_eq!(Attempts::of(&response).made(), 4);
}

#[tokio::test(start_paused = true)]
async fn provisioned_throughput_that_is_used_up_goes_to_as_you_go() {
    let world = World::default();
    let places = PlacesLayer::builder()
        .place(Place::vertex("eu").named("provisioned").request_type(RequestType::Dedicated))
        .place(Place::vertex("eu").request_type(RequestType::Shared));
    let (service, _) = retried(places, &world);
    assert_eq!(status(&service).await.1, "provisioned");
    world.set(
        "eu dedicated",
        error(429, "RESOURCE_EXHAUSTED", "Too many requests. Exceeded the Provisioned Throughput."),
    );
    assert_eq!(status(&service).await, (200, "eu".to_owned(), 1));
    assert_eq!(world.asked(), ["eu dedicated", "eu dedicated", "eu shared"]);
    sleep(Duration::from_secs(5)).await;
    status(&service).await;
    assert_eq!(world.asked(), ["eu shared"], "closed for ten seconds");
}

#[tokio::test(start_paused = true)]
async fn all_places_share_one_set_of_attempts() {
    for (attempts, expected) in [(2, 3), (3, 3), (4, 4), (7, 7)] {
        let world = World::default();
        REGIONS.into_iter().for_each(|place| world.set(place, busy()));
        let policy =
            RetryPolicy::builder().attempts(attempts).without_budget().without_deadline().seed(3).build();
        let (service, _) = retried_by(policy.unwrap(), regions(), &world);
        let response = service.oneshot(ask()).await.unwrap();
        let made = Attempts::of(&response);
        // Two attempts are two calls, and a third place is not asked.
        let expected = if attempts == 2 { 2 } else { expected };
        assert_eq!((made.made(), world.seen().len()), (expected, expected as usize), "{attempts}");
        assert_eq!(made.gave_up(), Some(GaveUp::Attempts));
        let numbers: Vec<_> = world.seen().iter().map(|seen| seen.attempt).collect();
        assert_eq!(numbers, (1..=expected).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_processed_moves_only_as_the_policy_allows() {
    let cut = || Answer::Io(std::io::ErrorKind::ConnectionReset);
    for (retries, places) in [(0, 1), (1, 2)] {
        let world = World::default();
        REGIONS.into_iter().for_each(|place| world.set(place, cut()));
        let policy = RetryPolicy::builder().maybe_processed_retries(retries).build().unwrap();
        let (service, _) = retried_by(policy, regions(), &world);
        assert!(service.oneshot(ask()).await.is_err());
        assert_eq!(world.seen().len(), places);
    }
    // What was not sent moves in any case.
    let world = World::default();
    world.set("europe-west4", Answer::Io(std::io::ErrorKind::ConnectionRefused));
    let policy = RetryPolicy::builder().maybe_processed_retries(0).build().unwrap();
    let (service, _) = retried_by(policy, regions(), &world);
    assert_eq!(status(&service).await.1, "europe-west1");
}

#[tokio::test(start_paused = true)]
async fn a_bad_request_moves_nowhere_and_closes_nothing() {
    let world = World::default();
    let (service, handle) = retried(regions(), &world);
    world.set("europe-west4", error(400, "INVALID_ARGUMENT", "no"));
    for _ in 0..5 {
        assert_eq!(status(&service).await, (400, "europe-west4".to_owned(), 0));
    }
    assert_eq!((world.seen().len(), closed(&handle).len()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_a_region_does_not_have_is_asked_elsewhere() {
    let world = World::default();
    let (service, handle) = retried(regions(), &world);
    world.set("europe-west4", error(404, "NOT_FOUND", "Publisher Model models/gemini-9-flash is not found"));
    for _ in 0..5 {
        assert_eq!(status(&service).await.1, "europe-west1");
    }
    assert_eq!(world.asked().iter().filter(|place| *place == "europe-west4").count(), 3);
    assert_eq!(closed(&handle), ["europe-west4"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_retry_layer_each_place_is_asked_once() {
    let world = World::default();
    REGIONS.into_iter().for_each(|place| world.set(place, busy()));
    let layer = regions().build().unwrap();
    let service = ServiceBuilder::new().layer(layer).layer(ClassifyLayer::new()).service(world.clone());
    let response = service.oneshot(ask()).await.unwrap();
    assert_eq!((response.status().as_u16(), ServedAt::of(&response).unwrap().moves()), (503, 2));
    assert_eq!(world.asked(), REGIONS);
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_nobody_else_is_asked() {
    let world = World::default();
    REGIONS.into_iter().for_each(|place| world.set(place, busy()));
    world.0.lock().unwrap().takes = Duration::from_secs(8);
    let (service, _) = retried(regions(), &world);
    let mut request = ask();
    request.extensions_mut().insert(Deadline::within(Duration::from_secs(10)));
    service.oneshot(request).await.unwrap();
    assert_eq!(world.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_at_a_place_is_asked_for_there() {
    let world = World::default();
    let (service, _) = retried(regions(), &world);
    world.set("europe-west4", busy());
    for _ in 0..4 {
        status(&service).await;
    }
    world.set("europe-west4", Answer::Ok);
    world.asked();
    let caches = || {
        let uri = "https://h/v1/projects/p/locations/us-east1/cachedContents";
        Request::post(uri).body(Body::default()).unwrap()
    };
    service.clone().oneshot(caches()).await.unwrap();
    assert_eq!(world.asked(), ["europe-west4"], "the first, closed or not");
    let mut bound = ask();
    bound.extensions_mut().insert(AtPlace::new("us-central1"));
    world.set("us-central1", error(400, "INVALID_ARGUMENT", "no"));
    service.clone().oneshot(bound).await.unwrap();
    assert_eq!(world.asked(), ["us-central1"]);
}

fn refused(result: Result<Response<Body>, BoxError>) -> NoPlaceReason {
    let error = result.unwrap_err();
    assert!(find::<tower_gemini::Rejected>(error.as_ref()).is_some(), "nothing was sent");
    let why = find::<NoPlace>(error.as_ref()).unwrap().why();
    let model = find::<NoPlace>(error.as_ref()).unwrap().model();
    let of = model.map(|model| format!(" of {model}")).unwrap_or_default();
    assert_eq!(error.to_string(), format!("places{of}: not sent: {why}"));
    why
}

#[tokio::test(start_paused = true)]
async fn where_no_place_is_left_nothing_is_sent() {
    let world = World::default();
    let (service, _) = retried(regions().place(Place::new("anywhere")), &world);
    for (residency, bound, why) in [
        (Some("asia-east1"), None, NoPlaceReason::Residency),
        (Some("europe-west4"), Some("us-central1"), NoPlaceReason::Residency),
        (Some("anywhere"), None, NoPlaceReason::Residency),
        (None, Some("asia-east1"), NoPlaceReason::Unknown),
    ] {
        let mut request = ask();
        if let Some(region) = residency {
            request.extensions_mut().insert(Residency::within([region]));
        }
        if let Some(place) = bound {
            request.extensions_mut().insert(AtPlace::new(place));
        }
        assert_eq!(refused(service.clone().oneshot(request).await), why);
    }
    let (service, _) = retried(regions(), &world);
    let gemini = Request::post("https://h/v1beta/models/m:generateContent").body(Body::default()).unwrap();
    assert_eq!(refused(service.oneshot(gemini).await), NoPlaceReason::NotRewritable);
    assert!(world.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fallback_outside_asks_all_places_for_the_model_that_is_wanted() {
    let world = World::default();
    REGIONS.into_iter().for_each(|place| world.set(place, busy()));
    let service = ServiceBuilder::new()
        .layer(ModelFallbackLayer::builder().chain("gemini-9-flash", ["gemini-9-lite"]).build().unwrap())
        .layer(regions().build().unwrap())
        .layer(RetryLayer::new(RetryPolicy::builder().attempts(5).without_budget().build().unwrap()))
        .layer(ClassifyLayer::new())
        .service(world.clone());
    let response = service.oneshot(ask()).await.unwrap();
    assert_eq!(AnsweredBy::of(&response).and_then(AnsweredBy::model), Some("gemini-9-lite"));
    let seen = world.seen();
    let asked: Vec<_> =
        seen.iter().map(|seen| (seen.uri.contains("lite"), seen.place.as_str(), seen.attempt)).collect();
    assert_eq!(asked[..3], [(false, REGIONS[0], 1), (false, REGIONS[1], 2), (false, REGIONS[2], 3)]);
    assert!(asked[3..].iter().all(|(lite, ..)| *lite), "{asked:?}");
    assert_eq!(seen.len(), 5, "one set of attempts for all places of all models");
}

#[tokio::test(start_paused = true)]
async fn in_the_stack_a_place_with_a_queue_comes_after_one_with_room() {
    let world = World::default();
    world.0.lock().unwrap().takes = Duration::from_secs(1);
    let stack = GeminiStack::new()
        .rate_limit(RateLimitLayer::new(Limits::new().requests_per_minute(10)).unwrap())
        .placing(regions())
        .unwrap();
    let service = stack.layer(world.clone());
    let start = Instant::now();
    let mut calls = Vec::new();
    for _ in 0..30 {
        calls.push(tokio::spawn(service.clone().oneshot(ask())));
        sleep(Duration::from_millis(10)).await;
    }
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert!(Instant::now() - start < Duration::from_secs(3), "nobody queued");
    let asked = world.asked();
    for place in REGIONS {
        assert_eq!(asked.iter().filter(|asked| *asked == place).count(), 10, "{place}");
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(match event {
            Event::Moved { from, to, verdict, .. } => format!("{from} -> {to}: {}", verdict.kind().unwrap()),
            Event::PlaceClosed { place, .. } => format!("{place} closed"),
            _ => return,
        });
    }
}

#[tokio::test(start_paused = true)]
async fn moves_and_closings_are_told() {
    let (world, told) = (World::default(), Arc::new(Told::default()));
    let (service, _) = retried(regions().observer(Arc::clone(&told) as Arc<dyn Observer>), &world);
    world.set("europe-west4", day());
    world.set("europe-west1", busy());
    status(&service).await;
    let told = told.0.lock().unwrap().clone();
    assert_eq!(
        told,
        [
            "europe-west4 closed",
            "europe-west4 -> europe-west1: quota_exhausted",
            "europe-west1 -> us-central1: unavailable"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_that_finds_out_leaves_it_to_the_next() {
    let world = World::default();
    let (service, handle) = retried(regions(), &world);
    world.set("europe-west4", quota("GenerateRequestsPerMinutePerProjectPerModel", "30s"));
    status(&service).await;
    sleep(Duration::from_secs(31)).await;
    world.set("europe-west4", Answer::Hang);
    world.asked();
    let call = tokio::time::timeout(Duration::from_secs(1), service.clone().oneshot(ask()));
    assert!(call.await.is_err());
    world.set("europe-west4", Answer::Ok);
    assert_eq!(status(&service).await.1, "europe-west4");
    assert!(closed(&handle).is_empty());
}

#[tokio::test(start_paused = true)]
async fn while_one_finds_out_the_others_keep_away() {
    let world = World::default();
    let (service, _) = retried(regions(), &world);
    world.set("europe-west4", quota("GenerateRequestsPerMinutePerProjectPerModel", "30s"));
    status(&service).await;
    sleep(Duration::from_secs(31)).await;
    world.set("europe-west4", Answer::Hang);
    world.asked();
    let finder = tokio::spawn(service.clone().oneshot(ask()));
    tokio::task::yield_now().await;
    for _ in 0..10 {
        assert_eq!(status(&service).await.1, "europe-west1");
    }
    finder.abort();
    assert_eq!(world.asked().iter().filter(|place| *place == "europe-west4").count(), 1);
}

#[test]
fn bad_settings_are_named_with_their_rule() {
    let error = |builder: PlacesBuilder| builder.build().unwrap_err().to_string();
    assert_eq!(error(PlacesLayer::builder()), "invalid setting `places`: must be from 1 to 16");
    let twice = regions().place(Place::new("europe-west4"));
    assert_eq!(error(twice), "invalid setting `places`: must have names that differ");
    let many = (0..17).fold(PlacesLayer::builder(), |all, n| all.place(Place::new(n.to_string())));
    assert_eq!(error(many), "invalid setting `places`: must be from 1 to 16");
    assert_eq!(error(regions().max_keys(0)), "invalid setting `max_keys`: must be from 1 to 1000000");
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![
        Just(Answer::Ok),
        Just(busy()),
        Just(day()),
        Just(error(500, "INTERNAL", "oh")),
        Just(error(504, "DEADLINE_EXCEEDED", "late")),
        Just(error(429, "RESOURCE_EXHAUSTED", "Resource exhausted, please try again later.")),
        Just(quota("GenerateRequestsPerMinutePerProjectPerModel", "7s")),
        Just(error(403, "PERMISSION_DENIED", "no")),
        Just(error(401, "UNAUTHENTICATED", "who")),
        Just(error(404, "NOT_FOUND", "models/gemini-9-flash is not found")),
        Just(error(400, "FAILED_PRECONDITION", "User location is not supported for the API use.")),
        Just(error(400, "INVALID_ARGUMENT", "no")),
        Just(Answer::Io(std::io::ErrorKind::ConnectionRefused)),
        Just(Answer::Io(std::io::ErrorKind::ConnectionReset)),
        Just(Answer::Rejected(None)),
        Just(Answer::Hang),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever each place answers, and however that changes: nothing ever arrives outside of the residency.
    #[test]
    fn residency_is_kept_under_every_failure(
        days in proptest::collection::vec((answers(), answers(), answers(), 0..120_u64), 1..12),
        own in proptest::option::of(proptest::sample::subsequence(REGIONS.to_vec(), 0..=3)),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let seen = runtime.block_on(async {
            let world = World::default();
            let builder = regions().residency(Residency::within(["europe-west4", "europe-west1"]));
            let (service, _) = retried(builder, &world);
            for (a, b, c, later) in days {
                for (place, answer) in REGIONS.into_iter().zip([a, b, c]) {
                    world.set(place, answer);
                }
                let mut request = ask();
                if let Some(own) = &own {
                    request.extensions_mut().insert(Residency::within(own.iter().copied()));
                }
                let call = service.clone().oneshot(request);
                let _ = tokio::time::timeout(Duration::from_secs(300), call).await;
                sleep(Duration::from_secs(later)).await;
            }
            world.seen()
        });
        for call in seen {
            prop_assert!(call.place != "us-central1", "{call:?}");
            prop_assert!(own.as_ref().is_none_or(|own| own.contains(&&*call.place)), "{call:?}");
            let host = format!("https://{}-aiplatform.googleapis.com/", call.place);
            prop_assert!(call.uri.starts_with(&host) && call.headers.is_empty());
        }
    }
}
