//! Healthy answers and requests that are turned away for their own sake.

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt;
use tower_gemini::sim::{CallCause, Fault, Rule, Simulator};

use super::*;

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).expect("a request")
}

#[tokio::test(start_paused = true)]
async fn generate_content_echoes_and_counts() {
    let answer = generate(&Simulator::new(), "Hello there").await;
    assert_eq!((answer.status, answer.took), (StatusCode::OK, ms(200)));
    assert_eq!(answer.content_type(), "application/json; charset=UTF-8");
    // 11 characters are 3 tokens, and the 17 of the echo are 5.
    assert_eq!(
        answer.json(),
        json!({
            "candidates": [{
                "content": {"parts": [{"text": "Echo: Hello there"}], "role": "model"},
                "finishReason": "STOP",
                "index": 0
            }],
            "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 5, "totalTokenCount": 8},
            "modelVersion": MODEL,
            "responseId": "sim-000001"
        })
    );
}

#[tokio::test(start_paused = true)]
async fn chunks_of_an_sse_stream_come_one_by_one() {
    let request = post(MODEL, "streamGenerateContent?alt=sse", &prompt("Hello"));
    let start = Instant::now();
    let response = Simulator::new().oneshot(request).await.expect("an answer");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut times = Vec::new();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let data = frame.expect("no fault").into_data().expect("data");
        assert!(data.starts_with(b"data: {") && data.ends_with(b"}\r\n\r\n"));
        times.push(Instant::now() - start);
    }
    assert_eq!(times, [ms(200), ms(220), ms(240), ms(260), ms(280)]);
}

#[tokio::test(start_paused = true)]
async fn a_late_reader_finds_the_chunks_waiting() {
    let request = post(MODEL, "streamGenerateContent?alt=sse", &prompt("Hello"));
    let body = Simulator::new().oneshot(request).await.expect("an answer").into_body();
    tokio::time::sleep(secs(1)).await;
    let start = Instant::now();
    body.collect().await.expect("no fault");
    assert_eq!(Instant::now(), start);
}

#[tokio::test(start_paused = true)]
async fn the_array_form_of_a_stream_is_one_json_array() {
    let sim = Simulator::builder().chunks(3).answer("one two three").build().expect("valid");
    let answer = array(&sim, "Hello").await;
    assert_eq!(answer.content_type(), "application/json; charset=UTF-8");
    assert!(answer.text().starts_with("[{\n") && answer.text().contains("}\n,\r\n{"));
    let parts = answer.json();
    let parts = parts.as_array().expect("an array");
    assert_eq!(parts.len(), 3);
    assert_eq!(parts[2].pointer("/candidates/0/finishReason"), Some(&json!("STOP")));
    assert_eq!(parts[2].pointer("/usageMetadata/candidatesTokenCount"), Some(&json!(4)));
    assert!(parts[1].pointer("/candidates/0/finishReason").is_none());
}

#[tokio::test(start_paused = true)]
async fn tokens_are_counted_and_texts_embedded() {
    let sim = Simulator::new();
    let count = send(&sim, post(MODEL, "countTokens", &prompt("12345678"))).await.expect("an answer");
    assert_eq!(count.json()["totalTokens"], 2);
    let model = "gemini-embedding-001";
    let body = r#"{"content":{"parts":[{"text":"x"}]},"outputDimensionality":4}"#;
    let one = send(&sim, post(model, "embedContent", body)).await.expect("an answer");
    assert_eq!(one.json(), json!({"embedding": {"values": [0.5, 0.5, 0.5, 0.5]}}));
    let many = send(&sim, post(model, "batchEmbedContents", r#"{"requests":[{},{},{}]}"#)).await;
    let many = many.expect("an answer").json();
    assert_eq!(many["embeddings"].as_array().map(Vec::len), Some(3));
    assert_eq!(many.pointer("/embeddings/2/values").and_then(Value::as_array).map(Vec::len), Some(16));
}

#[tokio::test(start_paused = true)]
async fn models_are_listed_and_shown() {
    let sim = Simulator::builder().only_models(["models/a", "b-embedding"]).build().expect("valid");
    let list = send(&sim, get("/v1/models?key=K")).await.expect("an answer").json();
    assert_eq!(list.pointer("/models/0/name"), Some(&json!("models/a")));
    assert_eq!(list["models"].as_array().map(Vec::len), Some(2));
    let one = send(&sim, get("/v1beta/models/b-embedding")).await.expect("an answer").json();
    assert_eq!(one.pointer("/supportedGenerationMethods/0"), Some(&json!("embedContent")));
}

#[tokio::test(start_paused = true)]
async fn chat_completions_answer_in_openais_form_and_fail_in_arrays() {
    let sim = Simulator::new();
    let chat = |model: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]}).to_string();
        Request::post("/v1beta/openai/chat/completions").body(Full::from(body)).expect("a request")
    };
    let good = send(&sim, chat(MODEL)).await.expect("an answer").json();
    assert_eq!(good.pointer("/choices/0/message/content"), Some(&json!("Echo: Hi")));
    assert_eq!(good["usage"], json!({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}));
    let created = good["created"].as_u64().expect("a time");
    let bad = send(&sim, chat("gpt")).await.expect("an answer");
    assert_eq!(bad.status, 404);
    assert_eq!(bad.json().pointer("/0/error/status"), Some(&json!("NOT_FOUND")));
    assert_eq!(sim.calls()[1].model(), Some("gpt"));
    assert!(created > 1_700_000_000);
}

#[tokio::test(start_paused = true)]
async fn chat_completions_stream_in_openais_form() {
    let sim =
        Simulator::builder().rule(Rule::new(Fault::cut_stream_after(2)).on_call(2)).build().expect("valid");
    let chat = || {
        let messages = json!([{"role": "user", "content": "Hi there"}]);
        let body = json!({"model": MODEL, "messages": messages, "stream": true}).to_string();
        Request::post("/v1beta/openai/chat/completions").body(Full::from(body)).expect("a request")
    };
    let events = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
    };
    let whole = send(&sim, chat()).await.expect("an answer");
    assert_eq!(whole.content_type(), "text/event-stream");
    let seen = events(&whole.text());
    assert_eq!((seen.len(), seen[5].as_str()), (6, "[DONE]"));
    let parts: Vec<Value> =
        seen[..5].iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    let text: String =
        parts.iter().filter_map(|part| part.pointer("/choices/0/delta/content")?.as_str()).collect();
    assert_eq!(text, "Echo: Hi there");
    assert_eq!(parts[4].pointer("/choices/0/finish_reason"), Some(&json!("stop")));
    assert_eq!(parts[4].pointer("/usage/completion_tokens"), Some(&json!(4)));
    let cut = send(&sim, chat()).await.expect("an answer");
    assert_eq!(events(&cut.text()).len(), 2, "and no [DONE]");
}

#[tokio::test(start_paused = true)]
async fn unknown_models_and_paths_are_googles_404s() {
    let sim = Simulator::new();
    let model = send(&sim, post("gemini-9", "generateContent", "{}")).await.expect("an answer");
    assert_eq!(model.status, 404);
    assert_eq!(model.json()["error"]["status"], "NOT_FOUND");
    assert!(model.message().starts_with("models/gemini-9 is not found for API version v1beta"));
    let path = send(&sim, get("/v1beta/nothing")).await.expect("an answer");
    assert_eq!((path.status.as_u16(), path.content_type()), (404, "text/html; charset=UTF-8"));
    assert_eq!(sim.calls()[1].cause(), &CallCause::Request("unknown path"));
}

#[tokio::test(start_paused = true)]
async fn keys_are_looked_at_only_when_told_to() {
    let with = |key: Option<&str>| {
        let mut request = post(MODEL, "generateContent", "{}");
        if let Some(key) = key {
            request.headers_mut().insert("x-goog-api-key", key.parse().expect("a header"));
        }
        request
    };
    let any = Simulator::new();
    assert_eq!(send(&any, with(None)).await.expect("an answer").status, 200);

    let required = Simulator::builder().require_key().build().expect("valid");
    assert_eq!(send(&required, with(Some("whatever"))).await.expect("an answer").status, 200);
    let none = send(&required, with(None)).await.expect("an answer");
    assert_eq!((none.status.as_u16(), &none.json()["error"]["status"]), (403, &json!("PERMISSION_DENIED")));
    assert!(none.message().starts_with("Method doesn't allow unregistered callers"));

    let one = Simulator::builder().valid_key("right").build().expect("valid");
    assert_eq!(send(&one, with(Some("right"))).await.expect("an answer").status, 200);
    assert_eq!(send(&one, with(None)).await.expect("an answer").status, 403);
    let wrong = send(&one, with(Some("wrong"))).await.expect("an answer");
    assert_eq!(wrong.status, 400);
    let details = &wrong.json()["error"]["details"];
    assert_eq!(details[0]["reason"], "API_KEY_INVALID");
    assert_eq!(details[1]["@type"], "type.googleapis.com/google.rpc.LocalizedMessage");
    assert!(!format!("{one:?}{:?}", one.calls()).contains("right"), "keys are never shown");
}

#[tokio::test(start_paused = true)]
async fn one_byte_too_many_is_a_400() {
    let body = prompt("Hello");
    let sim = |max| Simulator::builder().max_request_bytes(max).build().expect("valid");
    assert_eq!(generate(&sim(body.len()), "Hello").await.status, 200);
    let sim = sim(body.len() - 1);
    let answer = generate(&sim, "Hello").await;
    assert_eq!(answer.status, 400);
    assert!(answer.message().starts_with("Request payload size exceeds the limit"));
    assert_eq!(sim.calls()[0].request_bytes(), body.len() as u64 - 1);
}

#[test]
fn settings_are_checked_by_build_and_the_defaults_pass() {
    let field = |builder: tower_gemini::sim::SimulatorBuilder| builder.build().err().map(|e| e.field());
    assert_eq!(field(Simulator::builder()), None);
    assert_eq!(field(Simulator::builder().chunks(0)), Some("chunks"));
    assert_eq!(field(Simulator::builder().chunks(10_001)), Some("chunks"));
    assert_eq!(field(Simulator::builder().max_request_bytes(0)), Some("max_request_bytes"));
    assert_eq!(field(Simulator::builder().valid_key("")), Some("valid_key"));
    let secret = http::HeaderName::from_static("x-goog-api-key");
    assert_eq!(field(Simulator::builder().record_header(secret)), Some("record_header"));
    let error = Simulator::builder().chunks(0).build().expect_err("no chunks");
    assert_eq!(error.to_string(), "invalid setting `chunks`: must be from 1 to 10,000");
}
