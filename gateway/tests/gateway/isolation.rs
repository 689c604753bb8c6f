//! One bad client beside a good one, through the gateway: the reproductions of the attack of 2026-11 that need no minutes.

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;
use tower_gemini::sim::{Fault, Rule, Simulator};

use crate::world::{GENERATE, Gate, HELLO};

/// Asks with another key than the rest, and asserts that nobody made it wait.
async fn good_call(gate: &Gate, what: &str) {
    let began = Instant::now();
    let length = HELLO.len();
    let text = format!(
        "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\nx-goog-api-key: good\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{HELLO}"
    );
    let answer = gate.say(text).await;
    let took = Instant::now() - began;
    assert_eq!(answer.status, StatusCode::OK, "{what}");
    assert!(took < Duration::from_secs(1), "{what}: {took:?}");
    let status: serde_json::Value = serde_json::from_slice(&gate.page("/status").await.body).unwrap();
    let closed = status["circuits"].as_array().unwrap().iter().all(|circuit| circuit["state"] == "closed");
    assert!(closed, "{what}: {status}");
}

async fn simulated(simulator: &Simulator) -> (impl Sized + use<>, Gate) {
    let server = simulator.serve().await.unwrap();
    let gate = Gate::to(&server.base_url(), &["--attempts", "1"]).await;
    (server, gate)
}

#[tokio::test]
async fn three_504s_and_eleven_500s_of_one_client_stop_no_other() {
    for (fault, times) in [(Fault::deadline_exceeded(), 3), (Fault::internal(), 11)] {
        let simulator = Simulator::builder().head_latency(Duration::from_millis(1)).build().unwrap();
        let (_server, gate) = simulated(&simulator).await;
        good_call(&gate, "before").await;
        simulator.push(Rule::new(fault).times(times)).unwrap();
        for _ in 0..times {
            gate.post(GENERATE, HELLO).await;
        }
        good_call(&gate, "after").await;
    }
}

/// Each is a failure of the server's, and all are one caller's.
#[tokio::test]
async fn eleven_streams_of_one_client_that_break_off_open_no_circuit() {
    const STREAM: &str = "/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent?alt=sse";
    let simulator = Simulator::builder().head_latency(Duration::from_millis(1)).build().unwrap();
    let (_server, gate) = simulated(&simulator).await;
    good_call(&gate, "before").await;
    simulator.push(Rule::new(Fault::cut_stream_after(1)).times(11)).unwrap();
    for _ in 0..11 {
        gate.post(STREAM, HELLO).await;
    }
    assert_eq!(simulator.call_count(), 12, "each was asked for once");
    good_call(&gate, "after").await;
}

/// They filled the 1,024 keys, and one tenant's spent day was everybody's from then on.
#[tokio::test]
async fn invented_models_leave_a_spent_day_to_whom_it_belongs() {
    let simulator = Simulator::builder().head_latency(Duration::from_millis(1)).build().unwrap();
    let (_server, gate) = simulated(&simulator).await;
    for n in 0..1_400 {
        let path = format!("/v1beta/models/invented-{n}:generateContent?key=k{n}");
        assert_eq!(gate.post(&path, HELLO).await.status, StatusCode::NOT_FOUND);
    }
    simulator.push(Rule::new(Fault::daily_quota_exhausted()).times(1)).unwrap();
    assert_eq!(gate.post(GENERATE, HELLO).await.status, StatusCode::TOO_MANY_REQUESTS);
    good_call(&gate, "another tenant").await;
}
