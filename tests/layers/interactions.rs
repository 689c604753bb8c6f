//! The Interactions API: made at once, as a stream and in the background, continued, taken up again, cancelled, and failed in all
//! its ways; from the simulator through the layers.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_gemini::classify::{ClassifyLayer, Peek, StrictBodyLayer};
use tower_gemini::retry::{Attempts, RetryLayer};
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::stack::GeminiStack;
use tower_gemini::verdict::{Outcome, Usage};
use tower_gemini::{BoxError, Kind, Verdict};

const MODEL: &str = "gemini-3.8-flash";

type Body = Full<Bytes>;

fn call(method: Method, path: &str, body: &Value) -> Request<Body> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Request::builder()
        .method(method)
        .uri(format!("/v1beta/interactions{path}"))
        .body(Full::from(body))
        .unwrap()
}

fn create(more: Value) -> Request<Body> {
    let mut body = json!({"model": MODEL, "input": "Why is the sky blue?"});
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    call(Method::POST, "", &body)
}

async fn read<B>(response: Response<B>) -> String
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let bytes = response.into_body().collect().await.map_err(Into::into).unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn json_of<B>(response: Response<B>) -> Value
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    serde_json::from_str(&read(response).await).unwrap()
}

fn events(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event_type"].as_str().unwrap()).collect()
}

/// What the watching classifier says of an answer that is read to its end.
async fn watched(sim: &Simulator, request: Request<Body>) -> (Option<Outcome>, Option<Usage>, String) {
    let response = ClassifyLayer::new().watch().layer(sim.clone()).oneshot(request).await.unwrap();
    let verdict = Verdict::of(&response);
    let mut body = std::pin::pin!(response.into_body());
    let mut text = String::new();
    while let Some(Ok(frame)) = body.frame().await {
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    (verdict.outcome(), verdict.usage(), text)
}

#[tokio::test(start_paused = true)]
async fn one_is_made_at_once_and_its_usage_is_read() {
    let sim = Simulator::new();
    let (outcome, usage, text) = watched(&sim, create(json!({}))).await;
    let made: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((made["status"].as_str(), made["model"].as_str()), (Some("completed"), Some(MODEL)));
    assert_eq!(made["steps"][0]["content"][0]["text"], "Echo: Why is the sky blue?");
    assert_eq!(outcome, Some(Outcome::Complete));
    let usage = usage.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.total_tokens), (5, 7, 12));
    let again =
        json_of(sim.clone().oneshot(call(Method::GET, "/v1_sim000001", &Value::Null)).await.unwrap()).await;
    assert_eq!((&again["id"], &again["status"]), (&made["id"], &made["status"]));
    let gone = sim.clone().oneshot(call(Method::DELETE, "/v1_sim000001", &Value::Null)).await.unwrap();
    assert_eq!((gone.status().as_u16(), read(gone).await), (200, "{}".into()));
    let missing = ClassifyLayer::new().layer(sim.clone());
    let missing = missing.oneshot(call(Method::GET, "/v1_sim000001", &Value::Null)).await.unwrap();
    assert_eq!((missing.status().as_u16(), Verdict::of(&missing).kind()), (404, Some(Kind::NotFound)));
    let methods: Vec<_> = sim.calls().iter().map(|call| call.method()).collect();
    assert_eq!(
        methods,
        ["interactions.create", "interactions.get", "interactions.delete", "interactions.get"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_its_events_in_order_and_is_complete_with_the_last() {
    let sim = Simulator::new();
    let (outcome, usage, text) = watched(&sim, create(json!({"stream": true}))).await;
    let events = events(&text);
    let mut expected = vec!["interaction.created", "interaction.status_update", "step.start"];
    expected.extend(["step.delta"; 5]);
    expected.extend(["step.stop", "interaction.completed"]);
    assert_eq!(kinds(&events), expected);
    let said: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(said, "Echo: Why is the sky blue?");
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert_eq!((outcome, usage.map(|usage| usage.total_tokens)), (Some(Outcome::Complete), Some(12)));
}

#[tokio::test(start_paused = true)]
async fn an_error_before_output_is_retried_and_one_after_output_is_told() {
    // In place of the word that it was created: the default sees that, as it does an error's status.
    let error = "event: error\ndata: {\"event_type\":\"error\",\"error\":{\"code\":\"service_unavailable\",\"message\":\"x\"}}\n\n";
    let first = Fault::response(http::StatusCode::OK, "text/event-stream", error);
    let sim = Simulator::builder().rule(Rule::new(first).on_call(1)).build().unwrap();
    let response = GeminiStack::new().layer(sim).oneshot(create(json!({"stream": true}))).await.unwrap();
    assert_eq!(Attempts::of(&response).made(), 2);
    assert!(read(response).await.contains("interaction.completed"));
    // Behind it, and before any output: retried where it comes soon, told by who only watches, and with the head waiting for
    // output retried in any case.
    let late = || Rule::new(Fault::overloaded().in_stream_after(0)).on_call(1);
    for (interval, attempts) in [(0, 2), (400, 2), (600, 1)] {
        let sim = Simulator::builder().rule(late()).chunk_interval(Duration::from_millis(interval));
        let sim = sim.build().unwrap();
        let response = GeminiStack::new().layer(sim).oneshot(create(json!({"stream": true}))).await.unwrap();
        assert_eq!(Attempts::of(&response).made(), attempts, "an error {interval} ms behind it");
        let text = read(response).await;
        assert_eq!(text.contains("interaction.completed"), attempts == 2, "{text}");
    }
    // The wait ends with the first output, and at the latest after 500 ms.
    for (pause, waits) in [(100, 100), (3_000, 500)] {
        let created = json!({"event_type": "interaction.created", "interaction": {"id": "v1_x", "status": "in_progress"}});
        let delta = json!({"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "a"}});
        let silent = tower::service_fn(move |_: Request<Body>| {
            let frame = |event: &Value| Ok(Frame::data(Bytes::from(format!("data: {event}\n\n"))));
            let (first, second): (Result<_, std::io::Error>, _) = (frame(&created), frame(&delta));
            let later = futures_util::stream::once(async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                second
            });
            let body = StreamBody::new(futures_util::stream::iter([first]).chain(later));
            let head = Response::builder().header("content-type", "text/event-stream");
            std::future::ready(Ok::<_, std::io::Error>(head.body(Box::pin(body)).unwrap()))
        });
        let begun = tokio::time::Instant::now();
        let response =
            ClassifyLayer::new().layer(silent).oneshot(create(json!({"stream": true}))).await.unwrap();
        assert_eq!(tokio::time::Instant::now() - begun, Duration::from_millis(waits), "{pause}");
        assert_eq!(kinds(&events(&read(response).await)), ["interaction.created", "step.delta"]);
    }
    let sim = Simulator::builder().rule(late()).build().unwrap();
    let seen =
        ClassifyLayer::new().watch().layer(sim).oneshot(create(json!({"stream": true}))).await.unwrap();
    let kind = Verdict::of(&seen).kind();
    assert!(matches!(kind, Some(Kind::Unavailable | Kind::Overloaded)), "{kind:?}");
    assert_eq!(
        kinds(&events(&read(seen).await)),
        ["interaction.created", "interaction.status_update", "step.start", "error"]
    );
    let sim = Simulator::builder().rule(late()).chunk_interval(Duration::from_secs(1)).build().unwrap();
    let (outcome, _, _) = watched(&sim, create(json!({"stream": true}))).await;
    assert!(matches!(outcome, Some(Outcome::Failed(Kind::Unavailable | Kind::Overloaded))), "{outcome:?}");
    let sim = Simulator::builder().rule(late()).build().unwrap();
    let peeking = GeminiStack::new().classify(ClassifyLayer::new().watch().peek(Peek::Output));
    let response = peeking.layer(sim).oneshot(create(json!({"stream": true}))).await.unwrap();
    assert_eq!(Attempts::of(&response).made(), 2);
    let text = read(response).await;
    assert!(text.contains("interaction.completed") && !text.contains("\"error\""), "{text}");

    let sim = Simulator::builder().rule(Rule::new(Fault::internal().in_stream_after(2))).build().unwrap();
    let (outcome, _, text) = watched(&sim, create(json!({"stream": true}))).await;
    assert_eq!(kinds(&events(&text)).last(), Some(&"error"));
    assert!(matches!(outcome, Some(Outcome::Failed(Kind::Internal))), "{outcome:?}");
    let response =
        GeminiStack::new().layer(sim.clone()).oneshot(create(json!({"stream": true}))).await.unwrap();
    let made = Attempts::of(&response).made();
    let verdict = Verdict::of(&response);
    read(response).await;
    assert_eq!((made, sim.call_count()), (1, 2), "nothing is repeated behind a caller's back");
    assert!(matches!(verdict.outcome(), Some(Outcome::Failed(Kind::Internal))));

    // And a strict body ends with an error.
    let strict = StrictBodyLayer::new().layer(ClassifyLayer::new().watch().layer(sim.clone()));
    let response = strict.oneshot(create(json!({"stream": true}))).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn every_error_is_read_by_its_word() {
    for (fault, kind, tried_again) in [
        (Fault::rate_limited().with_retry_in(Duration::from_secs(3)), Kind::RateLimited, true),
        (Fault::daily_quota_exhausted(), Kind::QuotaExhausted, false),
        (Fault::bare_exhausted(), Kind::RateLimited, true),
        (Fault::overloaded(), Kind::Unavailable, true),
        (Fault::unavailable(), Kind::Unavailable, true),
        (Fault::internal(), Kind::Internal, true),
        (Fault::deadline_exceeded(), Kind::DeadlineExceeded, true),
        (Fault::invalid_argument(), Kind::InvalidArgument, false),
        (Fault::unauthenticated(), Kind::Unauthenticated, false),
        (Fault::permission_denied(), Kind::PermissionDenied, false),
        (Fault::not_found(), Kind::NotFound, false),
    ] {
        let name = fault.name();
        let sim = Simulator::builder().rule(Rule::new(fault.clone()).on_call(1)).build().unwrap();
        let response = ClassifyLayer::new().layer(sim.clone()).oneshot(create(json!({}))).await.unwrap();
        let seen = Verdict::of(&response).kind();
        // What names high demand is the better word for an outage of the model.
        let seen = seen.map(|seen| if seen == Kind::Overloaded { Kind::Unavailable } else { seen });
        assert_eq!(seen, Some(kind), "{name}");
        let body = json_of(response).await;
        assert!(body["error"]["code"].is_string() && body["error"]["message"].is_string(), "{body}");
        let sim = Simulator::builder().rule(Rule::new(fault).on_call(1)).build().unwrap();
        let retried = RetryLayer::default().layer(ClassifyLayer::new().layer(sim));
        let response = retried.oneshot(create(json!({}))).await.unwrap();
        assert_eq!(Attempts::of(&response).made() > 1, tried_again, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_needs_continuation_is_whole_as_far_as_it_goes_and_goes_on_by_its_token() {
    let sim = Simulator::builder().decode_tokens(3).build().unwrap();
    for stream in [false, true] {
        let (mut said, mut token, mut hops) = (String::new(), None::<String>, 0);
        loop {
            let mut more = json!({"stream": stream});
            if let Some(token) = &token {
                more["continuation_token"] = json!(token);
            }
            let (outcome, usage, text) = watched(&sim, create(more)).await;
            assert_eq!(outcome, Some(Outcome::Complete), "{text}");
            assert!(usage.unwrap().output_tokens <= 3);
            let last = if stream {
                let events = events(&text);
                said.extend(events.iter().filter_map(|event| event["delta"]["text"].as_str()));
                events.last().unwrap()["interaction"].clone()
            } else {
                let made: Value = serde_json::from_str(&text).unwrap();
                said.push_str(made["steps"][0]["content"][0]["text"].as_str().unwrap());
                made
            };
            hops += 1;
            match last["status"].as_str().unwrap() {
                "requires_continuation" => {
                    token = Some(last["continuation_token"].as_str().unwrap().to_owned())
                }
                status => break assert_eq!(status, "completed"),
            }
        }
        assert_eq!((said.as_str(), hops), ("Echo: Why is the sky blue?", 3));
    }
    let wrong = create(json!({"continuation_token": "ct-999"}));
    let response = ClassifyLayer::new().layer(sim).oneshot(wrong).await.unwrap();
    assert_eq!(Verdict::of(&response).kind(), Some(Kind::InvalidArgument));
}

#[tokio::test(start_paused = true)]
async fn one_in_the_background_is_asked_for_until_it_is_done_or_cancelled() {
    let sim = Simulator::builder().chunk_interval(Duration::from_secs(2)).build().unwrap();
    let (outcome, _, text) = watched(&sim, create(json!({"background": true}))).await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["status"], "in_progress");
    assert_eq!(outcome, Some(Outcome::Complete), "it is answered by its id");
    let get = async |sim: &Simulator, path: &str| {
        json_of(sim.clone().oneshot(call(Method::GET, path, &Value::Null)).await.unwrap()).await
    };
    assert_eq!(get(&sim, "/v1_sim000001").await["status"], "in_progress");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let done = get(&sim, "/v1_sim000001").await;
    assert_eq!(done["steps"][0]["content"][0]["text"], "Echo: Why is the sky blue?");

    sim.clone().oneshot(create(json!({"background": true}))).await.unwrap();
    let id = format!("/v1_sim{:06}", sim.call_count());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let cancelled =
        sim.clone().oneshot(call(Method::POST, &format!("{id}/cancel"), &Value::Null)).await.unwrap();
    assert_eq!(json_of(cancelled).await["status"], "cancelled");
    assert_eq!(get(&sim, &id).await["status"], "cancelled");
    // Its stream ends with that, and is no broken one.
    let (outcome, _, text) =
        watched(&sim, call(Method::GET, &format!("{id}?stream=true"), &Value::Null)).await;
    assert_eq!(events(&text).last().unwrap()["interaction"]["status"], "cancelled");
    assert_eq!(outcome, Some(Outcome::Complete));
    // One that is over cannot be cancelled.
    let over = sim.clone().oneshot(call(Method::POST, "/v1_sim000001/cancel", &Value::Null)).await.unwrap();
    assert_eq!(json_of(over).await["status"], "completed");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_is_truncated_and_is_taken_up_behind_its_last_event() {
    for fault in [Fault::cut_stream_after(2), Fault::reset_after_chunks(2)] {
        let sim = Simulator::builder().rule(Rule::new(fault).on_call(1)).build().unwrap();
        let (outcome, _, text) = watched(&sim, create(json!({"stream": true, "background": true}))).await;
        assert!(matches!(outcome, Some(Outcome::Failed(Kind::Truncated | Kind::Transport))), "{outcome:?}");
        let mut seen = events(&text);
        assert_eq!(kinds(&seen).iter().filter(|kind| **kind == "step.delta").count(), 2);
        let last = seen.last().unwrap()["event_id"].as_str().unwrap().to_owned();
        let id = seen[0]["interaction"]["id"].as_str().unwrap().to_owned();
        let again = call(Method::GET, &format!("/{id}?stream=true&last_event_id={last}"), &Value::Null);
        let (outcome, usage, text) = watched(&sim, again).await;
        seen.extend(events(&text));
        let said: String = seen.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
        assert_eq!(said, "Echo: Why is the sky blue?");
        assert_eq!((outcome, usage.map(|usage| usage.total_tokens)), (Some(Outcome::Complete), Some(12)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_blocked_or_has_nothing_to_say_is_no_answer() {
    for (fault, stream) in
        [(Fault::blocked_answer(), false), (Fault::blocked_answer(), true), (Fault::empty_answer(), true)]
    {
        let name = fault.name();
        let sim = Simulator::builder().rule(Rule::new(fault)).build().unwrap();
        let (outcome, _, text) = watched(&sim, create(json!({"stream": stream}))).await;
        assert!(
            matches!(outcome, Some(Outcome::Failed(Kind::EmptyResponse | Kind::ContentBlocked))),
            "{name} {stream}: {outcome:?} of {text}"
        );
    }
}

#[test]
fn codes_and_counts_are_read_in_every_spelling() {
    let status = http::StatusCode::BAD_REQUEST;
    for (code, kind) in [
        ("safety", Kind::ContentBlocked),
        ("prohibited_content", Kind::ContentBlocked),
        ("recitation", Kind::ContentBlocked),
        ("https://ai.google.dev/errors/rate_limit_exceeded", Kind::RateLimited),
        ("https://ai.google.dev/errors#quota_exceeded", Kind::QuotaExhausted),
    ] {
        let body = json!({"error": {"code": code, "message": "x"}}).to_string();
        let verdict = Verdict::from_parts(status, &http::HeaderMap::new(), body.into());
        assert_eq!(verdict.kind(), Some(kind), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_tells_what_it_has_used_so_far() {
    let delta = |tokens: u64| {
        json!({"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "a"},
            "metadata": {"total_usage": {"total_input_tokens": 5, "total_output_tokens": tokens, "total_tokens": 5 + tokens}}})
    };
    let text = format!("event: step.delta\ndata: {}\n\nevent: step.delta\ndata: {}\n\n", delta(1), delta(2));
    let fault = Fault::response(http::StatusCode::OK, "text/event-stream", text);
    let sim = Simulator::builder().rule(Rule::new(fault)).build().unwrap();
    let (outcome, usage, _) = watched(&sim, create(json!({"stream": true}))).await;
    assert_eq!(outcome, Some(Outcome::Failed(Kind::Truncated)));
    assert_eq!(
        usage.map(|usage| (usage.input_tokens, usage.output_tokens, usage.total_tokens)),
        Some((5, 2, 7))
    );
}

#[tokio::test(start_paused = true)]
async fn a_quota_of_the_simulators_holds_for_interactions_as_well() {
    use tower_gemini::sim::Quota;
    let sim = Simulator::builder().quota(MODEL, Quota::new().requests_per_minute(1)).build().unwrap();
    let service = ClassifyLayer::new().layer(sim.clone());
    assert_eq!(service.clone().oneshot(create(json!({}))).await.unwrap().status(), 200);
    let denied = service.clone().oneshot(create(json!({}))).await.unwrap();
    assert_eq!(Verdict::of(&denied).kind(), Some(Kind::RateLimited));
    // To read one costs nothing.
    let get = service.oneshot(call(Method::GET, "/v1_sim000001", &Value::Null)).await.unwrap();
    assert_eq!(get.status(), 200);
}
