//! What the log keeps.

use std::task::Poll;

use http::HeaderName;
use http_body_util::{BodyExt, StreamBody};
use tower::Service;
use tower_gemini::sim::{CallCause, Simulator, TransportFault};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_call_is_logged_with_what_is_known_of_it() {
    let sim =
        Simulator::builder().record_header(HeaderName::from_static("x-attempt")).build().expect("valid");
    generate(&sim, "x").await;
    tokio::time::sleep(secs(1)).await;
    let mut request = post(MODEL, "streamGenerateContent?alt=sse&key=SECRET", &prompt("12345"));
    request.headers_mut().insert("x-attempt", "2".parse().expect("a header"));
    request.headers_mut().insert("x-other", "no".parse().expect("a header"));
    send(&sim, request).await.expect("an answer");
    let calls = sim.calls();
    let call = &calls[1];
    assert_eq!((call.number(), call.at(), call.ended_at()), (2, ms(1_200), Some(ms(1_480))));
    assert_eq!((call.model(), call.method()), (Some(MODEL), "streamGenerateContent"));
    assert_eq!((call.header("X-Attempt"), call.header("x-other")), (Some("2"), None));
    assert_eq!((call.request_bytes(), call.prompt_tokens()), (prompt("12345").len() as u64, 2));
    assert_eq!((call.status(), call.cause()), (Some(StatusCode::OK), &CallCause::Healthy));
    assert_eq!((call.transport_fault(), call.was_dropped()), (None, false));
    assert!(!format!("{calls:?}").contains("SECRET"));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_in_any_state_is_logged_as_dropped() {
    let sim = Simulator::new();
    let request = || post(MODEL, "streamGenerateContent?alt=sse", &prompt("x"));
    // Never polled; waiting for the head; between two chunks; with the head only.
    drop(sim.clone().call(request()));
    assert!(tokio::time::timeout(ms(100), sim.clone().oneshot(request())).await.is_err());
    let mut body = sim.clone().oneshot(request()).await.expect("an answer").into_body();
    drop(sim.clone().oneshot(request()).await.expect("an answer"));
    for _ in 0..2 {
        body.frame().await.expect("a chunk").expect("no fault");
    }
    drop(body);
    let calls = sim.calls();
    assert_eq!(calls.len(), 4);
    assert!(calls.iter().all(|call| call.was_dropped() && call.ended_at().is_some()));
    let answered: Vec<_> = calls.iter().map(|call| call.status().is_some()).collect();
    assert_eq!(answered, [false, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_announced_its_length_needs_no_poll_for_its_end() {
    use http_body::Body;
    let sim = Simulator::new();
    let response = sim.clone().oneshot(post(MODEL, "generateContent", "{}")).await.expect("an answer");
    let mut body = response.into_body();
    let length = body.size_hint().exact().expect("announced");
    let data = body.frame().await.expect("data").expect("no fault").into_data().expect("data");
    assert_eq!(data.len() as u64, length);
    assert!(body.is_end_stream());
    drop(body);
    assert!(!sim.calls()[0].was_dropped());
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_body_fails_is_handed_its_own_error() {
    let sim = Simulator::new();
    let mut first = true;
    let stream = futures_util::stream::poll_fn(move |_| {
        let item = if std::mem::take(&mut first) {
            Ok(http_body::Frame::data(Bytes::from_static(b"{")))
        } else {
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        };
        Poll::Ready(Some(item))
    });
    let uri = format!("/v1/models/{MODEL}:generateContent");
    let request = Request::post(uri).body(StreamBody::new(stream)).expect("a request");
    let error = sim.clone().oneshot(request).await.expect_err("a broken request");
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<io::Error>()).map(io::Error::kind);
    assert_eq!(inner, Some(io::ErrorKind::BrokenPipe));
    assert_eq!(sim.calls()[0].transport_fault(), Some(TransportFault::RequestFailed));
}

#[tokio::test(start_paused = true)]
async fn the_log_is_bounded_and_can_be_cleared_under_a_running_call() {
    let sim = Simulator::builder().log_capacity(2).build().expect("valid");
    for _ in 0..3 {
        generate(&sim, "x").await;
    }
    let numbers = |sim: &Simulator| sim.calls().iter().map(|call| call.number()).collect::<Vec<_>>();
    assert_eq!((numbers(&sim), sim.call_count()), (vec![2, 3], 3));
    let running = sim.clone().oneshot(post(MODEL, "generateContent", "{}")).await.expect("an answer");
    sim.clear_log();
    generate(&sim, "x").await;
    drop(running);
    assert_eq!((numbers(&sim), sim.call_count()), (vec![5], 5));
    assert!(!sim.calls()[0].was_dropped(), "the cleared call's end is not noted on another");
}

#[test]
fn the_simulator_and_its_parts_can_be_sent_and_shared() {
    fn shared<T: Send + Sync + 'static>() {}
    fn sent<T: Send + 'static>() {}
    shared::<Simulator>();
    shared::<tower_gemini::sim::SimBody>();
    shared::<tower_gemini::sim::SimServer>();
    shared::<tower_gemini::sim::Fault>();
    shared::<tower_gemini::sim::Call>();
    sent::<tower_gemini::sim::ResponseFuture>();
}
