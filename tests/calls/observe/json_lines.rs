//! The log: its members, its lines, and a writer that fails.

use std::io::{Error, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::observe::{Attachment, JsonLines, ObserveLayer};
use tower_gemini::rate_limit::{AdmissionMode, Limits, RateLimitLayer};
use tower_gemini::retry::{RetryLayer, RetryPolicy};

use super::support::{Answer, Probe, error, request};
use super::{BEGUN, USED, overloaded, read, server, streamed};

/// Keeps what was written, by write.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Vec<Vec<u8>>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        self.0.lock().unwrap().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Error> {
        panic!("nobody asked for it")
    }
}

impl Shared {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().concat()).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        let text = self.text();
        assert!(text.is_empty() || text.ends_with('\n'));
        let lines: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(self.0.lock().unwrap().len(), lines.len(), "one write a line");
        self.0.lock().unwrap().clear();
        lines
    }
}

/// 2026-11-21, a quarter to five and a bit.
fn clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_279_500_123)
}

fn log() -> (Shared, Arc<JsonLines<Shared>>) {
    let out = Shared::default();
    (out.clone(), Arc::new(JsonLines::new(out).wall_clock(clock)))
}

#[tokio::test(start_paused = true)]
async fn a_good_call_has_the_fields_that_the_guides_ask_for() {
    let (out, log) = log();
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::new(log))
        .layer(ClassifyLayer::new().watch())
        .service(server(vec![(200, vec![Some(BEGUN), Some(USED)])]));
    read(service, streamed()).await.unwrap();
    assert_eq!(
        out.lines(),
        [json!({
            "time": "2026-11-21T16:45:00.123Z",
            "event": "finished",
            "surface": "gemini_api",
            "method": "streamGenerateContent",
            "model": "gemini-9-flash",
            "label": "team-a",
            "stream": true,
            "http_method": "POST",
            "host": "generativelanguage.googleapis.com",
            "path": "/v1beta/models/gemini-9-flash:streamGenerateContent",
            "status": 200,
            "outcome": "complete",
            "attempts": 1,
            "time_to_head_ms": 70,
            "latency_ms": 90,
            "input_tokens": 7,
            "cached_tokens": 3,
            "output_tokens": 5,
            "thought_tokens": 2,
            "total_tokens": 14,
        })]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_says_what_went_wrong_and_what_to_do() {
    let (out, log) = log();
    let failing = Probe::always(error(400, "INVALID_ARGUMENT", "Bad \\\"field\\\"."));
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::new(log.clone()))
        .layer(RetryLayer::default())
        .layer(ClassifyLayer::new())
        .service(failing);
    service.oneshot(request()).await.unwrap();
    let path = "/v1beta/models/gemini-9-flash:generateContent";
    let target = json!({
        "time": "2026-11-21T16:45:00.123Z", "event": "finished", "surface": "gemini_api",
        "method": "generateContent", "model": "gemini-9-flash", "http_method": "POST", "host": "127.0.0.1",
        "path": path, "attempts": 1, "latency_ms": 0,
    });
    let with = |more: Value| {
        let mut all = target.clone();
        all.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
        all
    };
    let remedy = tower_gemini::Kind::InvalidArgument.remedy();
    assert_eq!(
        out.lines(),
        [with(
            json!({"status": 400, "outcome": "failed", "error": "invalid_argument", "message": "Bad \"field\".",
            "remedy": remedy, "gave_up": "not_retryable", "time_to_head_ms": 0})
        )]
    );
    let broken = Probe::always(Answer::Io(std::io::ErrorKind::ConnectionReset));
    let _ = ObserveLayer::new(log).layer(broken).oneshot(request()).await;
    let remedy = tower_gemini::Kind::Transport.remedy();
    assert_eq!(
        out.lines(),
        [with(
            json!({"outcome": "failed", "error": "transport", "message": "connection reset", "remedy": remedy})
        )]
    );
}

#[tokio::test(start_paused = true)]
async fn events_have_lines_of_their_own_if_asked_for() {
    let out = Shared::default();
    let log = Arc::new(JsonLines::new(out.clone()).wall_clock(clock).with_events());
    let policy = RetryPolicy::builder().observer(log.clone()).seed(1).build().unwrap();
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::new(log.clone()))
        .layer(RetryLayer::new(policy.clone()))
        .layer(ClassifyLayer::new())
        .service(server(vec![overloaded(), (200, vec![Some(USED)])]));
    read(service, streamed()).await.unwrap();
    let lines = out.lines();
    let names: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["attempt_failed", "budget_charged", "waiting", "recovered", "finished"]);
    assert_eq!((&lines[0]["error"], &lines[0]["status"]), (&json!("overloaded"), &json!(503)));
    assert_eq!(lines[0]["message"], "The model is overloaded.");
    assert_eq!((&lines[1]["cost"], &lines[1]["left"]), (&json!(1.0), &json!(99.0)));
    assert_eq!(lines[3]["attempts"], 2);
    assert_eq!(lines[2]["wait_ms"], lines[4]["waited_ms"]);

    let limit = RateLimitLayer::builder()
        .limits(Limits::new().requests_per_minute(1))
        .mode(AdmissionMode::Reject)
        .observer(log.clone())
        .build()
        .unwrap();
    let breaker =
        CircuitBreakerLayer::builder().consecutive_failures(1).observer(log.clone()).build().unwrap();
    let governor = AdaptiveConcurrencyLayer::builder().observer(log.clone()).build().unwrap();
    // A first timeout counts once it is known that the server answers.
    for _ in 0..10 {
        let _ = governor.layer(Probe::always(Answer::Ok)).oneshot(request()).await;
    }
    let late = Probe::always(error(504, "DEADLINE_EXCEEDED", "late"));
    let policy = RetryPolicy::builder().attempts(1).build().unwrap();
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(limit)
        .layer(governor)
        .layer(breaker)
        .layer(ClassifyLayer::new())
        .service(late);
    let _ = service.clone().oneshot(request()).await;
    let _ = service.oneshot(request()).await;
    let lines = out.lines();
    let names: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["circuit_changed", "concurrency_cut", "rate_limited"]);
    assert_eq!((&lines[0]["from"], &lines[0]["to"]), (&json!("closed"), &json!("open")));
    assert_eq!(lines[0]["cause"], "consecutive_failures");
    assert_eq!(lines[1]["key"], "gemini_api gemini-9-flash");
    assert_eq!(lines[2]["key"], "generate gemini_api gemini-9-flash");
    assert_eq!((&lines[2]["dimension"], &lines[2]["in_ms"]), (&json!("requests_per_minute"), &json!(60_500)));
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_fails_loses_lines_and_counts_them() {
    struct Full(u32);
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> Result<usize, Error> {
            self.0 += 1;
            if self.0 == 2 {
                panic!("the writer's own");
            }
            Err(Error::from(std::io::ErrorKind::StorageFull))
        }
        fn flush(&mut self) -> Result<(), Error> {
            Ok(())
        }
    }
    let log = Arc::new(JsonLines::new(Full(0)));
    let service = ObserveLayer::new(log.clone()).layer(Probe::always(Answer::Ok));
    service.clone().oneshot(request()).await.unwrap().into_body();
    assert_eq!(log.lost(), 1);
    let panicking = tokio::spawn(service.clone().oneshot(request()).then_dropped());
    assert!(panicking.await.unwrap_err().is_panic(), "a panic of the writer's is the writer's");
    drop(service.oneshot(request()).await.unwrap());
    assert_eq!(log.lost(), 2, "and no reason to stop");
}

/// Awaits a response and drops it.
trait ThenDropped: Future + Sized {
    async fn then_dropped(self) {
        drop(self.await);
    }
}
impl<F: Future> ThenDropped for F {}

#[test]
fn threads_do_not_mix_their_lines() {
    let (out, log) = log();
    let layer = ObserveLayer::new(log);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                for _ in 0..50 {
                    let call = layer.layer(Probe::always(Answer::Ok)).oneshot(request());
                    drop(runtime.block_on(call).unwrap());
                }
            });
        }
    });
    let lines = out.lines();
    assert_eq!(lines.len(), 200);
    assert!(lines.iter().all(|line| line["outcome"] == "dropped" && line["status"] == 200));
}

/// The application's own members, of what it has attached to the request.
#[tokio::test(start_paused = true)]
async fn members_of_the_applications_own_stand_at_the_end() {
    struct Id(&'static str);
    let out = Shared::default();
    let log = JsonLines::new(out.clone()).wall_clock(clock).members(|call| {
        call.attached::<Id>().map(|id| ("request_id", id.0.to_owned())).into_iter().collect()
    });
    assert!(format!("{:?}", Attachment::new(Arc::new(Id("secret")))).find("secret").is_none());
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::new(Arc::new(log)))
        .layer(ClassifyLayer::new().watch())
        .service(server(vec![(200, vec![Some(BEGUN), Some(USED)])]));
    let mut sent = streamed();
    sent.extensions_mut().insert(Attachment::new(Arc::new(Id("a \"quoted\" id"))));
    read(service, sent).await.unwrap();
    let text = out.text();
    assert!(text.ends_with(",\"request_id\":\"a \\\"quoted\\\" id\"}\n"), "{text}");
}
