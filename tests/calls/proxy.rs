//! `LocalProxy`, in front of the simulator, over sockets.
#![cfg(all(feature = "proxy", feature = "reqwest", feature = "sim"))]
#![allow(clippy::unwrap_used)] // Clippy excuses test functions by itself, but not their helpers.

use std::time::Duration;

use serde_json::{Value, json};
use tower_gemini::proxy::LocalProxy;
use tower_gemini::reqwest::ReqwestService;
use tower_gemini::sim::{Fault, Rule, SimServer, Simulator, SimulatorBuilder};
use tower_gemini::stack::Preset;

const GENERATE: &str = "/v1beta/models/gemini-3.5-flash-lite:generateContent";
const CHAT: &str = "/v1beta/openai/chat/completions";

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn sim() -> SimulatorBuilder {
    Simulator::builder().head_latency(Duration::from_millis(1)).chunk_interval(Duration::from_millis(1))
}

async fn upstream(sim: &Simulator) -> (SimServer, LocalProxy) {
    let server = sim.serve().await.unwrap();
    let stack = Preset::interactive().stack().service(ReqwestService::new(client()));
    let proxy =
        LocalProxy::builder().normalise_openai_errors().serve(stack, &server.base_url()).await.unwrap();
    (server, proxy)
}

#[tokio::test]
async fn a_failure_is_absorbed_and_the_answer_passed_on() {
    let sim = sim().rule(Rule::new(Fault::overloaded()).on_call(1)).valid_key("k").build().unwrap();
    let (_server, proxy) = upstream(&sim).await;
    let prompt = json!({"contents": [{"parts": [{"text": "Hello"}]}]});
    let sent =
        client().post(proxy.base_url() + GENERATE + "?a=b").header("x-goog-api-key", "k").json(&prompt);
    let answer: Value = sent.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer.pointer("/candidates/0/content/parts/0/text"), Some(&json!("Echo: Hello")));
    assert_eq!(sim.call_count(), 2);
}

#[tokio::test]
async fn a_stream_is_passed_on_as_it_comes() {
    let sim = sim().chunk_interval(Duration::from_millis(300)).chunks(3).build().unwrap();
    let (_server, proxy) = upstream(&sim).await;
    let url = proxy.base_url() + "/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent?alt=sse";
    let begun = tokio::time::Instant::now();
    let mut response = client().post(url).body("{}").send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    let (first_at, mut events) =
        (tokio::time::Instant::now() - begun, first.windows(6).filter(|six| six == b"data: ").count());
    while let Some(chunk) = response.chunk().await.unwrap() {
        events += chunk.windows(6).filter(|six| six == b"data: ").count();
    }
    assert_eq!(events, 3);
    assert!(
        tokio::time::Instant::now() - begun - first_at >= Duration::from_millis(300),
        "the first came with the last"
    );
}

#[tokio::test]
async fn errors_of_the_openai_surface_leave_their_array_where_it_is_asked_for() {
    let sim = sim().build().unwrap();
    let (server, proxy) = upstream(&sim).await;
    let body = json!({"model": "gpt", "messages": []}).to_string();
    let told = async |base: String| {
        let response = client().post(base + CHAT).body(body.clone()).send().await.unwrap();
        assert_eq!(response.status(), 404);
        response.json::<Value>().await.unwrap()
    };
    let normal = told(proxy.base_url()).await;
    assert_eq!(normal.pointer("/error/code"), Some(&json!("NOT_FOUND")));
    assert_eq!(normal.pointer("/error/type"), Some(&json!("not_found_error")));
    let stack = Preset::interactive().stack().service(ReqwestService::new(client()));
    let plain = LocalProxy::serve(stack, &(server.base_url() + "/")).await.unwrap();
    assert_eq!(told(plain.base_url()).await.pointer("/0/error/code"), Some(&json!(404)));
}

#[tokio::test]
async fn what_the_stack_fails_with_is_an_answer_in_googles_form() {
    // Nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let stack = Preset::interactive().stack().without_retry().service(ReqwestService::new(client()));
    let proxy = LocalProxy::serve(stack, &format!("http://{closed}")).await.unwrap();
    let response = client().post(proxy.base_url() + GENERATE).body("{}").send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["status"], "UNAVAILABLE");
}

#[tokio::test]
async fn a_drop_closes_the_port_and_ends_calls() {
    let sim = sim().head_latency(Duration::from_secs(60)).build().unwrap();
    let (_server, proxy) = upstream(&sim).await;
    let call = tokio::spawn(client().post(proxy.base_url() + GENERATE).body("{}").send());
    while sim.call_count() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let addr = proxy.addr();
    proxy.shutdown().await;
    assert!(call.await.unwrap().is_err());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn an_upstream_without_a_scheme_is_refused() {
    for url in ["", "localhost:80", "/v1", "http://h/?a=b"] {
        let error = LocalProxy::serve(Simulator::new(), url).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{url:?}");
        assert!(error.to_string().contains("upstream"), "{error}");
    }
}
