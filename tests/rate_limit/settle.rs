//! What each end of a call is charged.

use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::rate_limit::{ByContent, InputTokens, Limits, QuotaStatus, RateLimitLayer};
use tower_gemini::sim::{Fault, Quota, Rule};

use crate::support::{Answer, Probe};
use crate::world::{Body, MODEL, prompt, secs, simulator};

const ESTIMATE: u64 = 1_000;
/// What the simulator counts in the prompt below.
const TRUTH: u64 = 40;

fn layer() -> RateLimitLayer {
    RateLimitLayer::new(Limits::new().input_tokens_per_minute(100_000)).unwrap()
}

fn estimated(mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(InputTokens(ESTIMATE));
    request
}

fn stream() -> Request<Body> {
    let mut request = prompt(TRUTH);
    *request.uri_mut() = format!("/v1beta/models/{MODEL}:streamGenerateContent?alt=sse").parse().unwrap();
    estimated(request)
}

fn status(layer: &RateLimitLayer) -> QuotaStatus {
    layer.handle().status().remove(0)
}

/// Requests, tokens, requests of the day.
fn charged(layer: &RateLimitLayer) -> (u64, u64, u64) {
    let status = status(layer);
    assert_eq!(status.in_flight, 0, "it is settled");
    (status.requests, status.tokens, status.requests_today)
}

/// One call with this fault, its body read to the end; with and without a classifier that watches.
async fn after(fault: Option<Fault>, request: impl Fn() -> Request<Body>) -> (u64, u64, u64) {
    let mut results = Vec::new();
    for watching in [true, false] {
        let sim = simulator(Quota::new());
        if let Some(fault) = &fault {
            sim.push(Rule::new(fault.clone())).unwrap();
        }
        let layer = layer();
        let classify = if watching { ClassifyLayer::new().watch() } else { ClassifyLayer::new() };
        let service = ServiceBuilder::new().layer(layer.clone()).layer(classify).service(sim);
        if let Ok(response) = service.oneshot(request()).await {
            let _ = response.into_body().collect().await;
        }
        results.push(charged(&layer));
    }
    assert_eq!(results[0], results[1], "with and without a classifier that watches");
    results[0]
}

#[tokio::test(start_paused = true)]
async fn good_answers_are_charged_what_they_say() {
    assert_eq!(after(None, || estimated(prompt(TRUTH))).await, (1, TRUTH, 1));
    assert_eq!(after(None, stream).await, (1, TRUTH, 1));
    let array = || {
        let mut request = stream();
        *request.uri_mut() = format!("/v1beta/models/{MODEL}:streamGenerateContent").parse().unwrap();
        request
    };
    assert_eq!(after(None, array).await, (1, TRUTH, 1));
}

#[tokio::test(start_paused = true)]
async fn each_failure_is_charged_by_its_rule() {
    assert_eq!(after(Some(Fault::overloaded()), || estimated(prompt(TRUTH))).await, (1, ESTIMATE, 1), "503");
    assert_eq!(after(Some(Fault::internal()), || estimated(prompt(TRUTH))).await, (1, ESTIMATE, 1), "500");
    assert_eq!(after(Some(Fault::invalid_argument()), || estimated(prompt(TRUTH))).await, (1, 0, 1), "400");
    assert_eq!(after(Some(Fault::bare_exhausted()), || estimated(prompt(TRUTH))).await, (1, 0, 0), "429");
    assert_eq!(after(Some(Fault::connection_refused()), || estimated(prompt(TRUTH))).await, (0, 0, 0));
    assert_eq!(after(Some(Fault::reset_before_head()), || estimated(prompt(TRUTH))).await, (1, ESTIMATE, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_is_charged_what_it_had_said() {
    // The simulator's usage stands in each event.
    assert_eq!(after(Some(Fault::cut_stream_after(2)), stream).await, (1, TRUTH, 1));
    assert_eq!(after(Some(Fault::cut_stream_after(0)), stream).await, (1, ESTIMATE, 1));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_is_charged_what_it_had_said() {
    // The classifier has read the first event before anybody else has it.
    for (frames, watched, unwatched) in [(0, TRUTH, ESTIMATE), (2, TRUTH, TRUTH)] {
        for (watching, tokens) in [(true, watched), (false, unwatched)] {
            let layer = layer();
            let classify = if watching { ClassifyLayer::new().watch() } else { ClassifyLayer::new() };
            let service =
                ServiceBuilder::new().layer(layer.clone()).layer(classify).service(simulator(Quota::new()));
            let response = service.oneshot(stream()).await.unwrap();
            assert_eq!(status(&layer).in_flight, 1, "reserved until the end of the body");
            let mut body = Box::pin(response.into_body());
            for _ in 0..frames {
                body.frame().await.unwrap().unwrap();
            }
            drop(body);
            assert_eq!(charged(&layer), (1, tokens, 1), "{frames} frames, watching: {watching}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_layer_inside_turned_away_costs_nothing() {
    let probe = Probe::new([Answer::Rejected(None)], Answer::Ok);
    let layer = layer();
    assert!(layer.layer(probe).oneshot(estimated(prompt(1))).await.is_err());
    assert_eq!(charged(&layer), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn tokens_are_reserved_while_the_call_is_under_way() {
    let layer = layer();
    let sim = simulator(Quota::new());
    let service = ServiceBuilder::new().layer(layer.clone()).layer(ClassifyLayer::new().watch()).service(sim);
    let call = tokio::spawn(service.oneshot(estimated(prompt(TRUTH))));
    tokio::time::sleep(secs(1)).await;
    assert_eq!((status(&layer).tokens, status(&layer).in_flight), (ESTIMATE, 1));
    let response = call.await.unwrap().unwrap();
    assert_eq!((status(&layer).tokens, status(&layer).in_flight), (ESTIMATE, 1));
    response.into_body().collect().await.unwrap();
    assert_eq!((status(&layer).tokens, status(&layer).in_flight), (TRUTH, 0));
}

#[tokio::test(start_paused = true)]
async fn sizes_become_tokens_by_experience() {
    let layer = layer();
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(ClassifyLayer::new().watch())
        .service(simulator(Quota::new()));
    for _ in 0..5 {
        let response = service.clone().oneshot(prompt(10_000)).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    // Four bytes a token, and some more for the JSON around them.
    let correction = status(&layer).correction;
    assert!((0.99..1.0).contains(&correction), "{correction}");
    assert!(service.oneshot(prompt(10_000)).now_or_never().is_none());
    // Dropped under way, so that the estimate stands.
    let reserved = status(&layer).tokens - 50_000;
    assert!((9_990..=10_020).contains(&reserved), "{reserved}");
}

#[tokio::test(start_paused = true)]
async fn content_is_known_before_the_call() {
    let layer = RateLimitLayer::builder()
        .limits(Limits::new().input_tokens_per_minute(1_000))
        .estimate(ByContent)
        .build()
        .unwrap();
    let service = layer.layer(Probe::always(Answer::Ok));
    let image = "A".repeat(400_000);
    let body = format!(
        r#"{{"contents":[{{"parts":[{{"inlineData":{{"mimeType":"image/png","data":"{image}"}}}}]}}]}}"#
    );
    let request = |body: String| {
        Request::post(format!("/v1beta/models/{MODEL}:generateContent")).body(Full::from(body)).unwrap()
    };
    assert!(service.clone().oneshot(request(body)).await.is_ok(), "an image is not a book");
    let text = request("word ".repeat(2_000));
    assert!(service.oneshot(text).await.unwrap_err().to_string().contains("larger than the limit"));
}

/// Embeddings, counts and batches are charged by rules of their own.
#[tokio::test(start_paused = true)]
async fn each_kind_of_call_is_charged_apart() {
    let layer = layer();
    let service = layer.layer(Probe::always(Answer::Ok));
    for method in ["embedContent", "countTokens", "batchGenerateContent"] {
        let request =
            Request::post(format!("/v1beta/models/{MODEL}:{method}")).body(Full::from("x".repeat(400)));
        let response = service.clone().oneshot(request.unwrap()).await.unwrap();
        let _: Bytes = response.into_body().collect().await.unwrap().to_bytes();
    }
    let status = layer.handle().status();
    let charged: Vec<_> = status.iter().map(|s| (s.key.pool().as_str(), s.requests, s.tokens)).collect();
    assert_eq!(charged, [("batch", 1, 0), ("count_tokens", 1, 0), ("embed", 1, 100)]);
    assert!(status.iter().all(|s| (s.key.pool().as_str() == "embed") == (s.limits != Limits::new())));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_while_a_layer_inside_holds_it_back_was_not_sent() {
    let layer = layer();
    // A second limit inside lets one a minute go.
    let inside = RateLimitLayer::new(Limits::new().requests_per_minute(1)).unwrap();
    let probe = Probe::always(Answer::Ok);
    let service = ServiceBuilder::new().layer(layer.clone()).layer(inside).service(probe.clone());
    service.clone().oneshot(estimated(prompt(TRUTH))).await.unwrap();
    let waiting: Vec<_> =
        (0..3).map(|_| tokio::spawn(service.clone().oneshot(estimated(prompt(TRUTH))))).collect();
    tokio::time::sleep(secs(30)).await;
    assert_eq!((status(&layer).in_flight, status(&layer).requests), (3, 4), "admitted by the first");
    for waiting in &waiting[1..] {
        waiting.abort();
    }
    tokio::time::sleep(secs(1)).await;
    let books = status(&layer);
    assert_eq!((books.not_sent, books.requests, books.requests_today), (2, 2, 2));
    // The one that is left goes a minute after the first, and counts from then.
    tokio::time::sleep(secs(60)).await;
    assert_eq!(probe.state().lock().unwrap().calls.len(), 2);
    assert_eq!((status(&layer).requests, status(&layer).in_flight), (1, 1), "the first has left the window");
    tokio::time::sleep(secs(30)).await;
    assert_eq!(status(&layer).requests, 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_sent_and_is_dropped_stays_charged_whatever_waited_before() {
    let layer = layer();
    let inside = RateLimitLayer::new(Limits::new().requests_per_minute(1)).unwrap();
    let probe = Probe::new([Answer::Ok], Answer::Hang);
    let service = ServiceBuilder::new().layer(layer.clone()).layer(inside).service(probe.clone());
    service.clone().oneshot(estimated(prompt(TRUTH))).await.unwrap();
    // Held back at first, then sent, then dropped.
    let call = tokio::spawn(service.oneshot(estimated(prompt(TRUTH))));
    tokio::time::sleep(secs(70)).await;
    assert_eq!(probe.state().lock().unwrap().calls.len(), 2);
    call.abort();
    tokio::time::sleep(secs(1)).await;
    let books = status(&layer);
    assert_eq!((books.settled, books.not_sent, books.requests), (2, 0, 1));
}

// The concurrency limit is what waits inside in the usual order.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_while_it_waits_for_the_concurrency_limit_was_not_sent() {
    use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
    let layer = layer();
    let governor = AdaptiveConcurrencyLayer::new();
    let Answer::Status(late, body) = crate::support::error(504, "DEADLINE_EXCEEDED", "late") else {
        unreachable!("it is a status")
    };
    // Timeouts count once it is known that the server answers.
    let probe = Probe::new(std::iter::repeat_n(Answer::Ok, 20), Answer::Status(late, body));
    let service = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(governor.clone())
        .layer(ClassifyLayer::new())
        .service(probe.clone());
    let waits = || governor.handle().all().iter().any(|(_, state)| state.queued() > 0);
    for _ in 0..500 {
        let call = tokio::spawn(service.clone().oneshot(estimated(prompt(TRUTH))));
        tokio::time::sleep(secs(1)).await;
        if waits() {
            call.abort();
            tokio::time::sleep(secs(1)).await;
            break;
        }
    }
    let (books, sent) = (status(&layer), probe.state().lock().unwrap().calls.len() as u64);
    assert_eq!((books.not_sent, books.settled + books.too_many, books.in_flight), (1, sent, 0));
}
