//! What the gateway says of itself, and that no key is in it.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tower_gemini::sim::{Fault, Rule, Simulator};

use crate::world::{GENERATE, Gate, HELLO, KEY};

async fn simulated(rules: impl IntoIterator<Item = Rule>, args: &[&str]) -> (Simulator, impl Sized, Gate) {
    let mut simulator = Simulator::builder().head_latency(Duration::from_millis(1));
    for rule in rules {
        simulator = simulator.rule(rule);
    }
    let simulator = simulator.build().unwrap();
    let server = simulator.serve().await.unwrap();
    let gate = Gate::to(&server.base_url(), args).await;
    (simulator, server, gate)
}

#[tokio::test]
async fn pages_tell_of_health_counts_and_state() {
    let wait = Fault::rate_limited().with_limit(5).with_retry_in(Duration::from_millis(50));
    let (_, _server, gate) = simulated([Rule::new(wait).times(1)], &["--requests-per-minute=7"]).await;
    assert_eq!(gate.post(GENERATE, HELLO).await.status, StatusCode::OK);
    assert_eq!(
        gate.post("/v1beta/models/gemini-9:generateContent", HELLO).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(gate.get("/healthz").await.body, "ok\n");
    let metrics = gate.page("/metrics").await;
    let metrics = std::str::from_utf8(&metrics.body).unwrap().to_owned();
    for line in [
        "gateway_requests_in_flight 0",
        "gateway_requests_total{status=\"2xx\"} 1",
        "gateway_requests_total{status=\"4xx\"} 1",
        "gateway_upstream_calls_total 3",
        "gateway_tokens_total{kind=\"input\"} 2",
        "gateway_retries_total{kind=\"rate_limited\"} 1",
        "gateway_failed_attempts_total{kind=\"not_found\"} 1",
        "gateway_circuit_state{key=\"gemini_api gemini-3.5-flash-lite\"} 0",
        "gateway_request_duration_seconds_count 2",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} in {metrics}");
    }
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let name = name.split('{').next().unwrap();
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(metrics.contains(&format!("# TYPE {family} ")), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    let status: Value = serde_json::from_slice(&gate.page("/status").await.body).unwrap();
    assert_eq!(status["circuits"].as_array().unwrap().len(), 2);
    let quotas = status["quotas"].as_array().unwrap();
    let flash = quotas.iter().find(|quota| quota["key"].as_str().unwrap().contains("flash")).unwrap();
    assert_eq!(
        flash["dimensions"]["requests_per_minute"]["limit"], 5,
        "what the 429 named, below the 7 of the option"
    );
    assert_eq!(flash["refused_by_google"], 1);
    assert_eq!(status["retry_budget"]["cap"], 100);
}

#[tokio::test]
async fn a_line_tells_of_each_request_in_either_form() {
    let wait = || Rule::new(Fault::overloaded().with_retry_after(Duration::from_millis(1))).times(1);
    let (_, _server, gate) = simulated([wait()], &["--log=json"]).await;
    gate.post(&format!("{GENERATE}?key={KEY}"), HELLO).await;
    gate.post("/v1beta/openai/chat/completions", r#"{"messages":[],"model":"gemini-9"}"#).await;
    let log = gate.logged().await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (
            &lines[0]["method"],
            &lines[0]["path"],
            &lines[0]["status"],
            &lines[0]["outcome"],
            &lines[0]["model"]
        ),
        (
            &"generateContent".into(),
            &GENERATE.into(),
            &200.into(),
            &"complete".into(),
            &"gemini-3.5-flash-lite".into()
        )
    );
    assert_eq!((&lines[0]["input_tokens"], &lines[0]["attempts"]), (&2.into(), &2.into()));
    assert!(lines[0]["latency_ms"].as_u64().is_some());
    assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
    assert_eq!((&lines[1]["model"], &lines[1]["error"]), (&"gemini-9".into(), &"not_found".into()));
    let (_, _server, gate) = simulated([wait()], &[]).await;
    gate.post(GENERATE, HELLO).await;
    let log = gate.logged().await;
    let part = format!("Z POST {GENERATE} 200 ok in=2 out=3 model=gemini-3.5-flash-lite ");
    assert!(log.contains(&part) && log.ends_with("ms attempts=2\n"), "{log}");
    let (_, _server, gate) = simulated([], &["--log=off"]).await;
    gate.post(GENERATE, HELLO).await;
    assert_eq!(gate.logged().await, "");
}

/// The key in each of its places, and one that the upstream echoes.
#[tokio::test]
async fn no_key_is_shown_anywhere() {
    let (simulator, _server, gate) = simulated([], &[]).await;
    simulator.push(Rule::new(Fault::consumer_suspended()).times(1)).unwrap();
    gate.post(GENERATE, HELLO).await;
    gate.get(&format!("/v1beta/models?key={KEY}")).await;
    gate.say(format!(
        "GET /v1beta/models HTTP/1.1\r\nhost: gate\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n"
    ))
    .await;
    gate.post("/v1beta/models/gemini-9:generateContent", HELLO).await;
    for page in ["/metrics", "/status"] {
        let page = gate.page(page).await;
        let page = std::str::from_utf8(&page.body).unwrap();
        assert!(!page.contains("AIza") && page.contains("(key-"), "{page}");
    }
    let log = gate.logged().await;
    assert!(log.lines().count() == 4 && !log.contains("AIza"), "{log}");
}

/// Quotas are a project's: two keys do not share what one 429 has taught.
#[tokio::test]
async fn a_spent_day_of_one_key_does_not_stop_another() {
    let (simulator, _server, gate) = simulated([], &[]).await;
    simulator.push(Rule::new(Fault::daily_quota_exhausted()).times(1)).unwrap();
    assert_eq!(gate.post(GENERATE, HELLO).await.status, StatusCode::TOO_MANY_REQUESTS);
    let again = gate.post(GENERATE, HELLO).await;
    assert_eq!(again.google()["details"][0]["reason"], "QUOTA_EXHAUSTED", "said without a call");
    assert_eq!(simulator.call_count(), 1);
    assert_eq!(gate.post(&format!("{GENERATE}?x"), HELLO).await.status, StatusCode::TOO_MANY_REQUESTS);
    let other = format!(
        "POST {GENERATE}?key=another HTTP/1.1\r\nhost: gate\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    assert_eq!(gate.say(other).await.status, StatusCode::OK);
}

/// In the places in which people put keys by mistake: the name of a model, a method, the password of `Basic`.
#[tokio::test]
async fn a_key_in_an_odd_place_is_shown_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let history = format!("--history={}", dir.path().join("calls.db").display());
    let args = ["--log=json", &*history];
    let (_simulator, _server, gate) = simulated([], &args).await;
    for path in [
        format!("/v1beta/models/{KEY}:generateContent"),
        format!("/v1beta/models/gemini-3.5-flash-lite:{KEY}"),
        format!("/v1beta/{KEY}"),
    ] {
        let answer = gate.post(&path, HELLO).await;
        assert!(answer.status.is_client_error(), "{answer:?}");
    }
    gate.say(format!(
        "GET /v1beta/models HTTP/1.1\r\nhost: gate\r\nauthorization: Basic {KEY}\r\nx-request-id: {KEY}\r\nconnection: close\r\n\r\n"
    ))
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    for page in ["/metrics", "/status", "/page/now", "/page/calls", "/page/summary", "/page/calls.csv"] {
        let page = gate.page(page).await;
        assert!(!String::from_utf8_lossy(&page.body).contains("AIza"), "{page:?}");
    }
    let log = gate.logged().await;
    assert!(log.lines().count() == 4 && !log.contains("AIza"), "{log}");
}

/// A disk that is full, as `/dev/full` is: the calls go on and the lines are counted.
#[tokio::test]
async fn lines_that_are_lost_are_counted() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let settings = crate::world::settings(&["--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--simulate"]);
    let gateway = tower_gemini_gateway::Gateway::start(&settings, Box::new(Full)).await.unwrap();
    let (addr, admin) = (gateway.addr, gateway.admin_addr().unwrap());
    tokio::spawn(gateway.run(std::future::pending()));
    let client = reqwest::Client::new();
    for _ in 0..3 {
        let answer = client.post(format!("http://{addr}{GENERATE}")).body(HELLO).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    let mut metrics = String::new();
    for _ in 0..50 {
        metrics = client.get(format!("http://{admin}/metrics")).send().await.unwrap().text().await.unwrap();
        if metrics.contains("\ngateway_log_lines_lost_total 3\n") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{metrics}");
}

/// What quotas, pauses and the limit of calls in flight would have done, where they only observe.
#[tokio::test]
async fn shadow_modes_stop_nobody_and_count() {
    let stalled = Rule::new(Fault::stalled_stream_after(1, std::time::Duration::from_millis(600)));
    let args = [
        "--quota=observe",
        "--requests-per-minute=2",
        "--idle-mode=observe",
        "--idle=0.2",
        "--governor=observe",
    ];
    let (_simulator, _server, gate) = simulated([stalled], &args).await;
    for _ in 0..3 {
        let stream = GENERATE.replace("generateContent", "streamGenerateContent?alt=sse");
        assert_eq!(gate.post(&stream, HELLO).await.status, StatusCode::OK);
    }
    let metrics = String::from_utf8(gate.page("/metrics").await.body.to_vec()).unwrap();
    for line in [
        "gateway_quota_would_hold_total 1",
        "gateway_rate_limited_total 0",
        "gateway_idle_would_cut_total 3",
        "gateway_requests_total{status=\"2xx\"} 3",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line}: {metrics}");
    }
    assert!(metrics.contains("gateway_concurrency_would_hold_total{"), "{metrics}");
}
