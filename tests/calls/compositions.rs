//! The stack among tower's own layers, as a stranger puts them together: what must be a service stays one, and each call is answered.
#![cfg(feature = "sim")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use http_body_util::Full;
use tower::buffer::BufferLayer;
use tower::load_shed::LoadShedLayer;
use tower::steer::Steer;
use tower::util::{BoxCloneSyncService, BoxService};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::stack::GeminiStack;

type Call = Request<Full<Bytes>>;

fn request(model: &str) -> Call {
    Request::post(format!("http://127.0.0.1/v1beta/models/{model}:generateContent"))
        .body(Full::from(r#"{"contents":[{"parts":[{"text":"hello"}]}]}"#))
        .expect("a valid request")
}

/// A 429 that clears at once, then a 503, then answers.
fn bad_day() -> Simulator {
    let limited = Fault::rate_limited().with_retry_in(Duration::from_millis(100));
    Simulator::builder()
        .rule(Rule::new(limited).on_call(1))
        .rule(Rule::new(Fault::unavailable()).on_call(2))
        .build()
        .expect("two rules")
}

#[tokio::test(start_paused = true)]
async fn under_a_buffer_and_a_load_shed() {
    let service = ServiceBuilder::new()
        .layer(BufferLayer::new(16))
        .layer(LoadShedLayer::new())
        .layer(GeminiStack::new())
        .service(bad_day());
    let response = service.oneshot(request("gemini-3.5-flash")).await.expect("the third attempt");
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn over_a_buffer_and_a_load_shed() {
    let client =
        ServiceBuilder::new().layer(BufferLayer::new(16)).layer(LoadShedLayer::new()).service(bad_day());
    let service = GeminiStack::new().layer(client);
    assert_eq!(
        service.oneshot(request("gemini-3.5-flash")).await.expect("the third").status(),
        StatusCode::OK
    );
}

#[tokio::test(start_paused = true)]
async fn boxed_and_shared_by_threads() {
    let service = BoxCloneSyncService::new(GeminiStack::new().layer(bad_day()));
    let calls = (0..4).map(|_| tokio::spawn(service.clone().oneshot(request("gemini-3.5-flash"))));
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.expect("no panic").expect("answered").status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn steered_by_model() {
    let (lite, flash) = (Simulator::new(), Simulator::new());
    let of = |sim: &Simulator| BoxService::new(GeminiStack::new().layer(sim.clone()));
    let by_model = |request: &Call, _: &[_]| usize::from(request.uri().path().contains("lite"));
    let mut steer = Steer::new([of(&flash), of(&lite)], by_model);
    for model in ["gemini-3.5-flash-lite", "gemini-3.5-flash", "gemini-3.5-flash"] {
        let answer = ServiceExt::<Call>::ready(&mut steer).await.expect("ready").call(request(model)).await;
        assert_eq!(answer.expect("answered").status(), StatusCode::OK);
    }
    assert_eq!((lite.call_count(), flash.call_count()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn balanced_over_two() {
    use tower::balance::p2c::Balance;
    use tower::discover::ServiceList;
    use tower::load::Constant;

    let sims = [Simulator::new(), Simulator::new()];
    let of = |sim: &Simulator| Constant::new(BoxService::new(GeminiStack::new().layer(sim.clone())), 1_u32);
    let mut balance = Balance::new(ServiceList::new::<Call>(sims.iter().map(of)));
    for _ in 0..20 {
        let ready = ServiceExt::<Call>::ready(&mut balance).await.expect("ready");
        assert_eq!(ready.call(request("gemini-3.5-flash")).await.expect("answered").status(), StatusCode::OK);
    }
    assert_eq!(sims[0].call_count() + sims[1].call_count(), 20);
}

#[tokio::test(start_paused = true)]
async fn all_of_a_stream_of_calls() {
    let service = GeminiStack::new().layer(bad_day());
    let calls = futures_util::stream::iter((0..10).map(|_| request("gemini-3.5-flash")));
    let answers: Vec<_> = service.call_all(calls).unordered().collect().await;
    assert_eq!(answers.len(), 10);
    assert!(answers.into_iter().all(|answer| answer.expect("answered").status() == StatusCode::OK));
}

/// `option_layer` cannot know two types of body; a layer that is switched off keeps its own.
#[tokio::test(start_paused = true)]
async fn a_layer_that_may_be_off() {
    use tower_gemini::retry::{RetryLayer, RetryPolicy};

    for (on, status) in [(true, StatusCode::OK), (false, StatusCode::TOO_MANY_REQUESTS)] {
        let retry = RetryLayer::new(RetryPolicy::builder().enabled(on).build().expect("valid"));
        let service = ServiceBuilder::new().layer(retry).service(bad_day());
        assert_eq!(service.oneshot(request("gemini-3.5-flash")).await.expect("answered").status(), status);
    }
}
