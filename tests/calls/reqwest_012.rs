//! The adapters for reqwest 0.12. Their source is that of 0.13, which `tests/calls/reqwest.rs` goes through; here is what is of the version:
//! its types, its errors, and what the layers read of both.
#![cfg(all(feature = "reqwest-012", feature = "sim"))]

use std::time::Duration;

use reqwest_012 as reqwest;
use serde_json::{Value, json};
use tower_gemini::error::find;
use tower_gemini::reqwest_012::{ReqwestClient, ReqwestService};
use tower_gemini::retry::Attempts;
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::stack::GeminiStack;
use tower_gemini::verdict::{Kind, Sent, Verdict};

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client without TLS")
}

#[tokio::test]
async fn a_429_and_a_503_are_not_seen_and_their_count_is() {
    let limited = Fault::rate_limited().with_retry_in(Duration::from_millis(50));
    let sim = Simulator::builder()
        .head_latency(Duration::from_millis(1))
        .rule(Rule::new(limited).on_call(1))
        .rule(Rule::new(Fault::unavailable()).on_call(3))
        .build()
        .expect("two rules");
    let server = sim.serve().await.expect("a port");
    let http = client();
    let gemini = ReqwestClient::new(GeminiStack::new().service(ReqwestService::new(http.clone())));
    let ask = |method: &str| {
        let url = format!("{}/v1beta/models/gemini-3.5-flash-lite:{method}", server.base_url());
        http.post(url).json(&json!({ "contents": [{ "parts": [{ "text": "Hello" }] }] }))
    };

    let whole = gemini.send(ask("generateContent")).await.expect("the second attempt");
    assert!(Verdict::of(&whole).is_success());
    assert_eq!(Attempts::of(&whole).made(), 2);
    let whole: Value = whole.json().await.expect("JSON");
    assert_eq!(whole["candidates"][0]["content"]["parts"][0]["text"], "Echo: Hello");

    let streamed = gemini.send(ask("streamGenerateContent?alt=sse&key=secret")).await.expect("the fourth");
    assert!(!streamed.url().as_str().contains("secret"), "{}", streamed.url());
    assert!(streamed.text().await.expect("events").matches("data: ").count() > 0);
    let statuses: Vec<_> = sim.calls().iter().filter_map(|call| Some(call.status()?.as_u16())).collect();
    assert_eq!(statuses, [429, 200, 503, 200]);
}

#[tokio::test]
async fn its_errors_are_told_apart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = format!("http://{}/", listener.local_addr().expect("bound"));
    drop(listener);
    let gemini =
        ReqwestClient::new(GeminiStack::new().without_retry().service(ReqwestService::new(client())));

    let error = gemini.send(client().post(closed)).await.expect_err("nobody listens");
    assert!(find::<reqwest::Error>(&*error).is_some_and(reqwest::Error::is_connect), "{error}");
    let verdict = Verdict::from_error(&*error);
    assert_eq!((verdict.kind(), verdict.sent()), (Some(Kind::Transport), Sent::No));

    // Built without TLS.
    let error = gemini.send(client().post("https://127.0.0.1:1/")).await.expect_err("no TLS");
    assert_eq!(Verdict::from_error(&*error).kind(), Some(Kind::Usage), "{error:?}");
}
