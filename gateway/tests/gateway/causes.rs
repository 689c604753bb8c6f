//! Why the upstream could not be asked, in the answer and the log; and whose call it was.

use std::io::Write;

use http::StatusCode;
use tokio::net::TcpListener;

use crate::world::{GENERATE, Gate, HELLO, Upstream, response};

async fn cause_of(upstream: &str) -> (Option<String>, String) {
    let gate = Gate::to(upstream, &["--attempts=1", "--log=json"]).await;
    let answer = gate.post(GENERATE, HELLO).await;
    assert!(answer.status.is_server_error(), "{answer:?}");
    answer.google();
    let cause = answer.header("x-gateway-cause").map(str::to_owned);
    (cause, gate.logged().await)
}

#[tokio::test]
async fn each_cause_is_a_word_in_the_answer_and_in_the_log() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    // Answers TLS with the certificate of nobody's authority.
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        path.display().to_string()
    };
    let cert = file("cert.pem", &certified.cert.pem());
    let key = file("key.pem", &certified.signing_key.serialize_pem());
    let (cert, key) = (format!("--tls-cert={cert}"), format!("--tls-key={key}"));
    let secure = Gate::start(&["--listen=127.0.0.1:0", "--simulate", &cert, &key]).await;
    let untrusted = format!("https://localhost:{}", secure.addr.port());
    // Closes each connection once it has read something.
    let hangs_up = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let broken = format!("http://{}", hangs_up.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = hangs_up.accept().await {
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4096]).await;
        }
    });
    for (upstream, words) in [
        (&*nobody, &["refused"][..]),
        ("http://no.such.host.invalid", &["dns"]),
        (&untrusted, &["certificate"]),
        (&broken, &["closed", "reset"]),
    ] {
        let (cause, log) = cause_of(upstream).await;
        let cause = cause.unwrap_or_else(|| panic!("{upstream}: no cause, {log}"));
        assert!(words.contains(&&*cause), "{upstream}: {cause}");
        assert!(log.contains(&format!(r#""cause":"{cause}""#)), "{log}");
    }
    // The same gateway with a client that trusts it.
    let trusted = reqwest::Certificate::from_pem(certified.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([trusted]).build().unwrap();
    let url = format!("https://localhost:{}{GENERATE}", secure.addr.port());
    let answer = client.post(url).body(HELLO).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_request_id_is_taken_over_or_made() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &["--log=json"]).await;
    let ask = async |field: &str| {
        let text = format!("GET /v1beta/models HTTP/1.1\r\nhost: gate\r\n{field}connection: close\r\n\r\n");
        let mut client = gate.connect().await;
        tokio::io::AsyncWriteExt::write_all(&mut client, text.as_bytes()).await.unwrap();
        let mut seen = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut client, &mut seen).await.unwrap();
        seen.lines().find_map(|line| line.strip_prefix("x-request-id: ")).map(str::to_owned)
    };
    let ok = response("200 OK", "", "{}");
    let (given, call) = tokio::join!(ask("x-request-id: mine-1\r\n"), upstream.answer(&ok));
    assert_eq!(given.as_deref(), Some("mine-1"));
    assert!(call.headers().contains(&("x-request-id", "mine-1")));
    let (made, call) = tokio::join!(ask(""), upstream.answer(&ok));
    let made = made.unwrap();
    assert!(!call.head.contains("x-request-id"), "{}", call.head);
    let (other, _) = tokio::join!(ask(""), upstream.answer(&ok));
    assert_ne!(Some(&made), other.as_ref());
    let log = gate.logged().await;
    assert!(
        log.contains(r#""request_id":"mine-1""#) && log.contains(&format!(r#""request_id":"{made}""#)),
        "{log}"
    );
}

/// Each layer can be off, or observe.
#[tokio::test]
async fn a_breaker_that_observes_turns_nobody_away_and_counts() {
    for (mode, refuses, opens) in [("on", true, true), ("observe", false, true), ("off", false, false)] {
        let mut upstream = Upstream::start().await;
        let option = format!("--breaker={mode}");
        let gate = Gate::to(&upstream.url, &["--attempts=1", "--breaker-open=60", &option]).await;
        let broken = response(
            "500 Internal Server Error",
            "content-type: application/json\r\n",
            r#"{"error":{"code":500,"status":"INTERNAL","message":"x"}}"#,
        );
        // Of many callers, so that it is the server's doing.
        for n in 0..60 {
            let text = format!(
                "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\nx-goog-api-key: caller-{n}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
            );
            let asked = gate.say(text);
            tokio::pin!(asked);
            tokio::select! {
                answer = &mut asked => {
                    // The gateway's own word.
                    assert!(refuses, "{mode}: {answer:?}");
                    break;
                }
                mut call = upstream.call() => {
                    call.body().await;
                    call.send(&broken).await;
                    asked.await;
                }
            }
            assert!(n < 59 || !refuses, "{mode}: it never opened");
        }
        let metrics = gate.page("/metrics").await;
        let metrics = std::str::from_utf8(&metrics.body).unwrap();
        assert_eq!(
            metrics.contains(r#"gateway_circuit_changes_total{state="open"}"#),
            opens,
            "{mode}: {metrics}"
        );
        let counted = !metrics.contains("gateway_breaker_would_refuse_total 0\n");
        assert_eq!(counted, mode == "observe", "{mode}: {metrics}");
    }
}

/// The day's counts outlive the process.
#[tokio::test]
async fn the_days_counts_are_saved_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.json").display().to_string();
    let state = format!("--state={file}");
    let mut upstream = Upstream::start().await;

    let args = ["--requests-per-day=3", &state, "--attempts=1"];
    let ok = response("200 OK", "content-type: application/json\r\n", "{}");
    let gate = Gate::to(&upstream.url, &args).await;
    for _ in 0..2 {
        tokio::join!(gate.get("/v1beta/models"), upstream.answer(&ok));
        let text = format!(
            "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        tokio::join!(gate.say(text), upstream.answer(&ok));
    }
    assert_eq!(gate.stop().await, 0);
    let gate = Gate::to(&upstream.url, &args).await;
    let text = format!(
        "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    let (third, _) = tokio::join!(gate.say(&text), upstream.answer(&ok));
    assert_eq!(third.status, StatusCode::OK);
    assert_eq!(gate.say(&text).await.status, StatusCode::TOO_MANY_REQUESTS, "the fourth of the day");
    gate.stop().await;
    // A file of somebody else is left as it is.
    std::fs::write(&file, "a text of mine").unwrap();
    let why = tower_gemini_gateway::Gateway::start(
        &crate::world::settings(&["--listen=127.0.0.1:0", "--admin=off", "--simulate", &state]),
        Box::new(std::io::sink()),
    )
    .await
    .err()
    .unwrap();
    assert!(why.contains("must be a file that this gateway has written"), "{why}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a text of mine");
}

/// A limit that one 429 has named is kept by the next process.
#[tokio::test]
async fn what_a_429_has_taught_is_saved_and_restored() {
    use tower_gemini::sim::{Quota, Simulator};
    let dir = tempfile::tempdir().unwrap();
    let state = format!("--state={}", dir.path().join("state.json").display());
    let quota = Quota::new().requests_per_minute(2);
    let simulator = Simulator::builder().quota_for_each_model(quota).build().unwrap();
    let server = simulator.serve().await.unwrap();
    let args = ["--attempts=1", "--quota-wait=0", &*state];
    let text = format!(
        "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\nx-goog-api-key: one\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{HELLO}",
        HELLO.len()
    );
    let gate = Gate::to(&server.base_url(), &args).await;
    for status in [200, 200, 429] {
        assert_eq!(gate.say(&text).await.status, status);
    }
    gate.stop().await;
    // So that nothing but the file can tell.
    simulator.set_quota("gemini-3.5-flash-lite", None);
    let gate = Gate::to(&server.base_url(), &args).await;
    assert_eq!(gate.say(&text).await.status, 200);
    let status: serde_json::Value = serde_json::from_slice(&gate.page("/status").await.body).unwrap();
    let limit = &status["quotas"][0]["dimensions"]["requests_per_minute"]["limit"];
    assert_eq!(limit, 2, "{status}");
}
