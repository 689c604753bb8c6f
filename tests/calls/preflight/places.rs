//! In the stack: nothing is charged for what is refused, and everything inside works with the bodies.

use std::sync::Arc;

use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use tower::{Layer, ServiceExt};
use tower_gemini::error::find;
use tower_gemini::fallback::ModelFallbackLayer;
use tower_gemini::preflight::{CountTokens, PreflightLayer, PreflightRefused};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::retry::{Attempts, ReplayLayer};
use tower_gemini::sim::{Fault, Rule as When, Simulator};
use tower_gemini::stack::GeminiStack;

use super::world::{Frames, Told, post};

const URI: &str = "/v1beta/models/gemini-3.5-flash-lite:generateContent";

fn body(temperature: f64) -> String {
    json!({"contents": [{"parts": [{"text": "Hello"}]}], "generationConfig": {"temperature": temperature}})
        .to_string()
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_neither_sent_nor_charged_and_what_is_good_is_retried() {
    let told = Told::default();
    let sim = Simulator::builder().rule(When::new(Fault::overloaded()).on_call(1)).build().unwrap();
    let stack = GeminiStack::new()
        .rate_limit(RateLimitLayer::new(Limits::new().requests_per_day(2)).unwrap())
        .preflight(PreflightLayer::builder().observer(Arc::new(told.clone())).build().unwrap());
    let gemini = stack.layer(sim.clone());
    for _ in 0..5 {
        let error = gemini.clone().oneshot(post(URI, body(3.0))).await.unwrap_err();
        assert!(find::<PreflightRefused>(error.as_ref()).is_some());
    }
    assert_eq!((sim.calls().len(), told.all().len()), (0, 5));
    // Two calls of two a day: the five took none.
    let response = gemini.clone().oneshot(post(URI, body(1.0))).await.unwrap();
    assert_eq!((response.status().as_u16(), Attempts::of(&response).made()), (200, 2));
    assert_eq!(stack.without_preflight().get_deadline().layer(()).into_inner(), ());
}

#[tokio::test(start_paused = true)]
async fn a_line_of_the_log_names_rule_and_field_and_no_key() {
    use super::world::KEY;
    use std::sync::{Mutex, PoisonError};
    use tower_gemini::observe::JsonLines;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let layer = PreflightLayer::builder()
        .observer(Arc::new(JsonLines::new(lines.clone()).with_events()))
        .build()
        .unwrap();
    let gemini = layer.layer(Simulator::builder().build().unwrap());
    gemini.oneshot(post(&format!("{URI}?key={KEY}"), body(3.0))).await.unwrap_err();
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(
        (&lines[1]["event"], &lines[1]["rule"], &lines[1]["refused"]),
        (&json!("preflight"), &json!("temperature"), &json!(true))
    );
    assert_eq!(lines[1]["field"], "generation_config.temperature");
    assert_eq!((&lines[0]["rule"], &lines[0]["refused"]), (&json!("key_in_url"), &json!(false)));
    assert!(!text.contains(KEY));
}

#[tokio::test(start_paused = true)]
async fn bodies_that_cannot_be_cloned_are_repeated_inside_and_fall_back() {
    let sim = Simulator::builder()
        .rule(When::new(Fault::overloaded()).on_call(1))
        .rule(When::new(Fault::overloaded()).on_call(2))
        .build()
        .unwrap();
    let fallback =
        ModelFallbackLayer::builder().chain("gemini-3.8-flash", ["gemini-3.5-flash-lite"]).build().unwrap();
    let stack =
        GeminiStack::new().preflight(PreflightLayer::new()).replay(ReplayLayer::new()).fallback(fallback);
    let text = json!({"contents": [{"parts": [{"text": "x".repeat(200_000)}]}]}).to_string();
    for size in [1_000, 100_000, 1_000_000] {
        let uri = "/v1beta/models/gemini-3.8-flash:generateContent";
        let request = Request::post(uri).body(Frames::of(&text, size)).unwrap();
        let response = stack.layer(sim.clone()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.unwrap();
    }
    assert!(sim.calls().iter().all(|call| call.request_bytes() == text.len() as u64));
    assert!(sim.calls().len() >= 4);
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn reqwests_bodies_are_repeated_whole_also_where_only_their_beginning_is_held() {
    use std::time::Duration;
    use tower_gemini::reqwest::{ReqwestClient, ReqwestService};
    let sim = Simulator::builder()
        .head_latency(Duration::ZERO)
        .rule(When::new(Fault::internal()).on_call(1))
        .rule(When::new(Fault::internal()).on_call(3))
        .build()
        .unwrap();
    let server = sim.serve().await.unwrap();
    let http = ::reqwest::Client::builder().no_proxy().build().unwrap();
    let stack = GeminiStack::new().preflight(PreflightLayer::new());
    let gemini = ReqwestClient::new(stack.layer(ReqwestService::new(http.clone())));
    let text = json!({"contents": [{"parts": [{"text": "x".repeat(300_000)}]}]}).to_string();
    let url = format!("{}{URI}", server.base_url());
    let pieces: Vec<_> =
        text.as_bytes().chunks(7_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    for body in [
        ::reqwest::Body::from(text.clone()),
        ::reqwest::Body::wrap_stream(futures_util::stream::iter(pieces)),
    ] {
        let response = gemini.send(http.post(&url).body(body)).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
    }
    let sizes: Vec<_> = sim.calls().iter().map(|call| call.request_bytes()).collect();
    assert_eq!(sizes, [text.len() as u64; 4]);
    let hot = gemini.send(http.post(&url).body(body(3.0))).await.unwrap_err();
    assert!(find::<PreflightRefused>(hot.as_ref()).is_some());
    assert_eq!(sim.call_count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_model_in_the_body_is_replaced_there() {
    let sim = Simulator::builder()
        .rule(When::new(Fault::overloaded()).for_model("gemini-3.8-flash"))
        .build()
        .unwrap();
    let fallback =
        ModelFallbackLayer::builder().chain("gemini-3.8-flash", ["gemini-3.5-flash-lite"]).build().unwrap();
    let stack = GeminiStack::new().preflight(PreflightLayer::new()).fallback(fallback);
    let chat =
        json!({"model": "gemini-3.8-flash", "messages": [{"role": "user", "content": "Hi"}]}).to_string();
    let request = post("/v1beta/openai/chat/completions", chat);
    let response = stack.layer(sim.clone()).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(sim.calls().last().unwrap().model(), Some("gemini-3.5-flash-lite"));
}

#[tokio::test(start_paused = true)]
async fn a_count_of_the_simulators_is_what_the_rate_limit_charges() {
    let sim = Simulator::builder().build().unwrap();
    let limit = RateLimitLayer::new(Limits::new().input_tokens_per_minute(1_000_000)).unwrap();
    let handle = limit.handle();
    let count = CountTokens::new().min_bytes(0);
    let stack = GeminiStack::new()
        .rate_limit(limit)
        .preflight(PreflightLayer::builder().count_tokens(count).build().unwrap());
    let text = json!({"contents": [{"parts": [{"text": "é".repeat(4_000)}]}]}).to_string();
    let response = stack.layer(sim.clone()).oneshot(post(URI, text)).await.unwrap();
    let methods: Vec<_> = sim.calls().iter().map(|call| call.method()).collect();
    assert_eq!(methods, ["countTokens", "generateContent"]);
    let charged: u64 = handle.status().iter().map(|state| state.tokens).sum();
    assert_eq!(charged, 1_000, "characters by four, and not bytes by four");
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn the_defaults_let_the_documents_own_requests_pass() {
    let told = Told::default();
    let layer = PreflightLayer::builder().observer(Arc::new(told.clone())).build().unwrap();
    let sim = Simulator::builder().build().unwrap();
    let good = json!({
        "contents": [{"role": "user", "parts": [{"text": "Why is the sky blue?"}]}],
        "systemInstruction": {"parts": [{"text": "You are terse."}]},
        "tools": [{"googleSearch": {}}],
        "generationConfig": {"maxOutputTokens": 1024, "thinkingConfig": {"thinkingLevel": "low"}},
    });
    let response = layer.layer(sim).oneshot(post(URI, good.to_string())).await.unwrap();
    assert_eq!((response.status().as_u16(), told.all()), (200, vec![]));
}
