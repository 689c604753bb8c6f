//! The question for a count: what is asked, what is made of the answer, and what it may cost.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_gemini::preflight::{CountTokens, PreflightBody, PreflightRefused, Rule};
use tower_gemini::rate_limit::InputTokens;
use tower_gemini::{BoxError, Deadline};

use super::world::{Frames, Got, Told, URI, builder, post, send_to};

const QUESTION: &str = "/v1beta/models/gemini-9-flash:countTokens";
const PATH: &str = "/v1beta/models/gemini-9-flash:generateContent";

fn counting() -> CountTokens {
    CountTokens::new().min_bytes(0)
}

fn counted(tokens: u64) -> impl Fn(&str) -> Response<Full<Bytes>> + Clone {
    move |path| {
        let answer = if path.contains("countTokens") {
            json!({"totalTokens": tokens}).to_string()
        } else {
            String::new()
        };
        Response::new(Full::from(answer))
    }
}

fn body() -> String {
    json!({"contents": [{"parts": [{"text": "Hello"}]}], "tools": []}).to_string()
}

#[tokio::test(start_paused = true)]
async fn the_count_is_asked_for_and_given_to_the_rate_limit() {
    let layer = builder().count_tokens(counting()).build().unwrap();
    for pieces in [1_000, 3] {
        let got = Got::default();
        let request = Request::post(format!("{URI}?alt=sse")).body(Frames::of(&body(), pieces)).unwrap();
        send_to(layer.clone(), request, &got, counted(31)).await.unwrap();
        let all = got.all();
        let asked: Value = serde_json::from_slice(&all[0].1).unwrap();
        let mut inside: Value = serde_json::from_str(&body()).unwrap();
        inside["model"] = json!("models/gemini-9-flash");
        assert_eq!(
            (&*all[0].0, asked, all[0].2),
            (QUESTION, json!({"generateContentRequest": inside}), None)
        );
        assert_eq!(all[1], (format!("{PATH}?alt=sse"), Bytes::from(body()), Some(31)));
        assert_eq!(all.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_was_counted_over_the_context_is_refused() {
    let (told, got) = (Told::default(), Got::default());
    let layer = builder().count_tokens(counting()).observer(Arc::new(told.clone())).build().unwrap();
    send_to(layer.clone(), post(URI, body()), &got, counted(1_000)).await.unwrap();
    let error = send_to(layer, post(URI, body()), &got, counted(1_001)).await.unwrap_err();
    let refused = error.downcast::<PreflightRefused>().unwrap();
    assert_eq!(
        refused.findings()[0].message(),
        "The prompt has 1001 tokens and the model takes 1000; shorten it."
    );
    assert_eq!(told.all(), [(Rule::ContextSize, "contents", true)]);
    assert_eq!(got.all().len(), 3, "two questions and the one that fits");
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_with_the_question_the_request_is_sent() {
    for answer in [json!({"totalTokens": "many"}).to_string(), String::new(), "x".repeat(100_000)] {
        let got = Got::default();
        let layer = builder().count_tokens(counting()).build().unwrap();
        let reply = move |_: &str| Response::new(Full::from(answer.clone()));
        send_to(layer, post(URI, body()), &got, reply).await.unwrap();
        assert_eq!(got.all()[1].2, None);
    }
    let got = Got::default();
    let layer = builder().count_tokens(counting()).build().unwrap();
    let reply = |path: &str| {
        let status = if path.contains("countTokens") { 429 } else { 200 };
        Response::builder().status(status).body(Full::from(r#"{"totalTokens":5}"#)).unwrap()
    };
    send_to(layer, post(URI, body()), &got, reply).await.unwrap();
    assert_eq!((got.all().len(), got.all()[1].2), (2, None));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_waited_for_no_longer_than_told_and_not_beyond_the_deadline() {
    for (deadline, millis) in [(None, 700), (Some(300), 300)] {
        let server = tower::service_fn(|request: Request<PreflightBody<Full<Bytes>>>| async move {
            if request.uri().path().ends_with("countTokens") {
                std::future::pending::<()>().await;
            }
            Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
        });
        let count = counting().timeout(Duration::from_millis(700));
        let mut request = post(URI, body());
        if let Some(millis) = deadline {
            request.extensions_mut().insert(Deadline::within(Duration::from_millis(millis)));
        }
        let begin = tokio::time::Instant::now();
        builder().count_tokens(count).build().unwrap().layer(server).oneshot(request).await.unwrap();
        assert_eq!((tokio::time::Instant::now() - begin).as_millis(), millis);
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_worth_it_is_counted_and_no_more_than_the_budget() {
    let questions = async |count: CountTokens, request: Request<Full<Bytes>>| {
        let got = Got::default();
        send_to(builder().count_tokens(count).build().unwrap(), request, &got, counted(5)).await.unwrap();
        got.all().len() - 1
    };
    let length = body().len();
    assert_eq!(questions(CountTokens::new(), post(URI, body())).await, 0, "too small");
    assert_eq!(questions(counting().min_bytes(length + 1), post(URI, body())).await, 0);
    assert_eq!(questions(counting().min_bytes(length), post(URI, body())).await, 1);
    assert_eq!(questions(counting().max_bytes(length), post(URI, body())).await, 1);
    assert_eq!(questions(counting().max_bytes(length - 1), post(URI, body())).await, 0);
    let mut known = post(URI, body());
    known.extensions_mut().insert(InputTokens(7));
    assert_eq!(questions(counting(), known).await, 0);
    for uri in [
        "/v1beta/models/gemini-9-flash:embedContent",
        "/v1/projects/p/locations/l/publishers/google/models/gemini-9-flash:generateContent",
    ] {
        assert_eq!(questions(counting(), post(uri, body())).await, 0, "{uri}");
    }

    let layer = builder().count_tokens(counting().per_minute(3)).build().unwrap();
    let got = Got::default();
    let counts = || got.all().iter().filter(|(path, ..)| path == QUESTION).count();
    for _ in 0..5 {
        send_to(layer.clone(), post(URI, body()), &got, counted(5)).await.unwrap();
    }
    assert_eq!(counts(), 3);
    tokio::time::sleep(Duration::from_secs(20)).await;
    for _ in 0..2 {
        send_to(layer.clone(), post(URI, body()), &got, counted(5)).await.unwrap();
    }
    assert_eq!(counts(), 4, "one comes back in 20 s");
}
