//! The simulator, as a user sees it. Paused time throughout, so that every duration is exact; only
//! `sim/loopback.rs` uses the real clock, with latencies of a few milliseconds.
//!
//! Where nothing else is said the defaults hold: 200 ms to the head, 20 ms between chunks, 5 chunks.
#![cfg(feature = "sim")]

mod endpoints;
mod errors;
mod log;
mod loopback;
mod quotas;
mod rules;
mod spoilt;

use std::io;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use tokio::time::{Duration, Instant};
use tower::ServiceExt;
use tower_gemini::sim::Simulator;

pub(crate) const MODEL: &str = "gemini-3.5-flash";

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What ended the body, if it was not its end.
    pub(crate) cut: Option<io::Error>,
    pub(crate) took: Duration,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn content_type(&self) -> &str {
        self.headers["content-type"].to_str().expect("text")
    }

    /// The payloads of the `data:` events.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = self.text();
        let events = text.split("\r\n\r\n").filter_map(|event| event.strip_prefix("data: "));
        events.map(|json| serde_json::from_str(json).expect("an event holds JSON")).collect()
    }

    pub(crate) fn message(&self) -> String {
        self.json().pointer("/error/message").and_then(Value::as_str).expect("a message").to_owned()
    }
}

pub(crate) fn prompt(text: &str) -> String {
    serde_json::json!({"contents": [{"role": "user", "parts": [{"text": text}]}]}).to_string()
}

pub(crate) fn post(model: &str, method: &str, body: &str) -> Request<Full<Bytes>> {
    let uri = format!("https://generativelanguage.googleapis.com/v1beta/models/{model}:{method}");
    Request::post(uri).body(Full::from(body.to_owned())).expect("a request")
}

pub(crate) async fn send(sim: &Simulator, request: Request<Full<Bytes>>) -> io::Result<Answer> {
    let start = Instant::now();
    let (head, mut body) = sim.clone().oneshot(request).await?.into_parts();
    let (mut bytes, mut cut) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().expect("data")),
            Err(error) => cut = Some(error),
        }
    }
    let took = Instant::now() - start;
    Ok(Answer { status: head.status, headers: head.headers, body: bytes.into(), cut, took })
}

/// `generateContent` with a prompt of `text`.
pub(crate) async fn generate(sim: &Simulator, text: &str) -> Answer {
    send(sim, post(MODEL, "generateContent", &prompt(text))).await.expect("an answer")
}

/// `streamGenerateContent?alt=sse` with a prompt of `text`.
pub(crate) async fn stream(sim: &Simulator, text: &str) -> Answer {
    send(sim, post(MODEL, "streamGenerateContent?alt=sse", &prompt(text))).await.expect("an answer")
}

/// `streamGenerateContent` as an array.
pub(crate) async fn array(sim: &Simulator, text: &str) -> Answer {
    send(sim, post(MODEL, "streamGenerateContent", &prompt(text))).await.expect("an answer")
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
