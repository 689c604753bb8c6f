//! What is kept of calls, and the page that shows it.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tower_gemini::sim::{Fault, Rule, Simulator};

use crate::world::{GENERATE, Gate, HELLO, KEY};

#[tokio::test]
async fn a_call_is_kept_with_all_that_happened_on_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let file = format!("--history={}", dir.path().join("calls.db").display());
    let soon = Duration::from_millis(30);
    let simulator = Simulator::builder()
        .head_latency(Duration::from_millis(1))
        .rule(Rule::new(Fault::overloaded().with_retry_after(soon)).times(2))
        .build()
        .unwrap();
    let server = simulator.serve().await.unwrap();
    let gate = Gate::to(&server.base_url(), &[&file]).await;
    assert_eq!(gate.post(GENERATE, HELLO).await.status, StatusCode::OK);
    let length = HELLO.len();
    let named = format!(
        "POST /v1beta/models/gemini-9:generateContent HTTP/1.1\r\nhost: gate\r\nx-goog-api-key: {KEY}\r\nx-request-id: my-own\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{HELLO}"
    );
    assert_eq!(gate.say(named).await.status, StatusCode::NOT_FOUND);
    simulator.push(Rule::new(Fault::rate_limited().with_retry_in(soon)).times(1)).unwrap();
    assert_eq!(gate.post(GENERATE, HELLO).await.status, StatusCode::OK);
    let calls = loop {
        let answer = gate.page("/page/calls?shown=all").await;
        let calls: Value = serde_json::from_slice(&answer.body).unwrap();
        if calls.as_array().unwrap().len() == 3 {
            break calls;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let (limited, missing, first) = (&calls[0], &calls[1], &calls[2]);
    let events = |call: &Value| -> Vec<String> {
        let steps = call["steps"].as_array().unwrap();
        let text = |step: &Value| {
            format!("{} {} {}", step["event"].as_str().unwrap(), step["attempt"], step["kind"])
        };
        steps.iter().map(text).map(|text| text.replace('"', "").replace(" null", "")).collect()
    };
    assert_eq!(
        events(first),
        [
            "attempt_failed 1 overloaded",
            "waiting 2",
            "attempt_failed 2 overloaded",
            "waiting 3",
            "recovered 3"
        ]
    );
    let waits: u64 = first["steps"].as_array().unwrap().iter().filter_map(|step| step["wait"].as_u64()).sum();
    assert!(waits >= 60 && first["waited"].as_u64().unwrap().abs_diff(waits) <= 2, "{first}");
    assert_eq!(
        (&first["attempts"], &first["outcome"], &first["kind"]),
        (&3.into(), &"complete".into(), &Value::Null)
    );
    assert_eq!((&first["input_tokens"], &first["output_tokens"]), (&2.into(), &3.into()));
    assert_eq!((&first["request_bytes"], &first["model"]), (&length.into(), &"gemini-3.5-flash-lite".into()));
    assert!(first["client"].as_str().unwrap().starts_with("key-"));
    assert!(first["first_byte"].as_u64().unwrap() <= first["latency"].as_u64().unwrap());
    assert_eq!(events(missing), ["attempt_failed 1 not_found", "gave_up 1"]);
    assert_eq!((&missing["request_id"], &missing["kind"]), (&"my-own".into(), &"not_found".into()));
    assert!(missing["remedy"].as_str().unwrap().contains("exact name") && missing["message"].is_string());
    assert_eq!((&limited["rate_limited"], &limited["tier"]), (&1.into(), &"free".into()));
    assert!(first["request_id"] != limited["request_id"]);
    let summary: Value = serde_json::from_slice(&gate.page("/page/summary").await.body).unwrap();
    assert_eq!(
        (&summary["calls"], &summary["failed"], &summary["recovered"]),
        (&3.into(), &1.into(), &2.into())
    );
    let metrics = gate.page("/metrics").await;
    let metrics = std::str::from_utf8(&metrics.body).unwrap().to_owned();
    assert!(
        metrics.contains("\ngateway_history_written_total 3\n")
            && metrics.contains("\ngateway_history_lost_total 0\n")
    );
    gate.stop().await;
    for end in ["", "-wal"] {
        let bytes =
            std::fs::read(format!("{}{end}", dir.path().join("calls.db").display())).unwrap_or_default();
        assert!(!bytes.windows(4).any(|four| four == b"AIza"), "a key is in the file");
    }
}

/// An open page must not hold up a gateway that was told to stop.
#[tokio::test]
async fn an_open_page_is_closed_at_the_end() {
    let gate = Gate::start(&["--simulate"]).await;
    let mut page = tokio::net::TcpStream::connect(gate.admin).await.unwrap();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    page.write_all(b"GET /page/events HTTP/1.1\r\nhost: gate\r\n\r\n").await.unwrap();
    let mut read = [0; 12];
    page.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"HTTP/1.1 200");
    let began = tokio::time::Instant::now();
    assert_eq!(gate.stop().await, 0);
    assert!(tokio::time::Instant::now().saturating_duration_since(began) < Duration::from_secs(5));
}

#[tokio::test]
async fn a_history_that_cannot_be_kept_is_said_at_the_start() {
    let mut err = Vec::new();
    let args =
        ["--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--simulate", "--history=/no/such/place/calls.db"];
    let args = args.iter().map(std::ffi::OsString::from);
    let out = Box::new(std::io::sink());
    let code = tower_gemini_gateway::run(args, |_| None, out, &mut err, std::future::pending()).await;
    let text = String::from_utf8(err).unwrap();
    assert!(code == 2 && text.lines().count() == 1, "{code} {text}");
    assert!(text.starts_with("error: the history /no/such/place/calls.db: cannot be opened: "), "{text}");
    for wrong in ["--history=", "--history-mib=0", "--history-days=x"] {
        let mut err = Vec::new();
        let args = [std::ffi::OsString::from(wrong)];
        let code = tower_gemini_gateway::run(
            args,
            |_| None,
            Box::new(std::io::sink()),
            &mut err,
            std::future::pending(),
        )
        .await;
        let text = String::from_utf8(err).unwrap();
        assert!(
            code == 2 && text.contains(wrong.split('=').next().unwrap()) && text.contains(" must be "),
            "{text}"
        );
    }
}
