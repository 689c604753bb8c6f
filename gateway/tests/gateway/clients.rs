//! Clients with tokens of their own, over sockets.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tower_gemini_gateway::clients::hash;

use crate::world::{Answer, GENERATE, Gate, HELLO, Upstream, response, soon};

const UPSTREAM_KEY: &str = "upstream-key-of-the-operator";
const GOOD: &str = "good-token-0123456789";

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    /// A file with the client `good` and this in its table, and more clients.
    fn new(good: &str, more: &str) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::write(files.dir.path().join("key"), format!("{UPSTREAM_KEY}\n")).unwrap();
        files.write(good, more);
        files
    }

    fn write(&self, good: &str, more: &str) {
        let key = self.dir.path().join("key");
        let text = format!(
            "[upstream]\nkey_file = {key:?}\n[[client]]\nname = \"good\"\ntoken_sha256 = \"{}\"\n{good}\n{more}\n",
            hash(GOOD)
        );
        std::fs::write(self.path(), text).unwrap();
    }

    fn path(&self) -> String {
        self.dir.path().join("clients.toml").to_str().unwrap().to_owned()
    }
}

async fn ask(gate: &Gate, target: &str, fields: &str) -> Answer {
    let length = HELLO.len();
    gate.say(format!(
        "POST {target} HTTP/1.1\r\nhost: gate\r\n{fields}connection: close\r\ncontent-length: {length}\r\n\r\n{HELLO}"
    ))
    .await
}

fn good() -> String {
    format!("x-goog-api-key: {GOOD}\r\n")
}

async fn with(files: &Files, upstream: &Upstream) -> Gate {
    Gate::to(&upstream.url, &["--clients", &files.path(), "--log", "json", "--attempts", "1"]).await
}

#[tokio::test]
async fn the_key_of_the_gateway_takes_the_place_of_each_token() {
    let files = Files::new("", "");
    let mut upstream = Upstream::start().await;
    let gate = with(&files, &upstream).await;
    let bearer = format!("authorization: Bearer {GOOD}\r\n");
    let query = format!("{GENERATE}?alt=json&key={GOOD}&%6bey={GOOD}&access_token={GOOD}");
    let all = format!("{}{bearer}x-goog-api-key: {GOOD}\r\n", good());
    let cases = [(GENERATE, good()), (&query, String::new()), (GENERATE, bearer), (&query, all)];
    for (n, (target, fields)) in cases.into_iter().enumerate() {
        let (answer, call) =
            tokio::join!(ask(&gate, target, &fields), upstream.answer(response("200 OK", "", "{}")));
        assert_eq!(answer.status, StatusCode::OK);
        assert!(!call.head.contains(GOOD), "{}", call.head);
        let expected = if n == 2 {
            ("authorization", format!("Bearer {UPSTREAM_KEY}"))
        } else {
            ("x-goog-api-key", UPSTREAM_KEY.into())
        };
        let sent: Vec<_> =
            call.headers().into_iter().filter(|(_, value)| value.contains(UPSTREAM_KEY)).collect();
        assert_eq!(sent, [(expected.0, &*expected.1)], "{n}");
        if target.contains('?') {
            assert!(call.line().contains(&format!("{GENERATE}?alt=json HTTP")), "{}", call.line());
        }
    }
    let status = String::from_utf8(gate.page("/status").await.body.to_vec()).unwrap();
    let metrics = String::from_utf8(gate.page("/metrics").await.body.to_vec()).unwrap();
    let read: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(read["clients"]["known"][0]["name"], "good");
    assert_eq!(read["clients"]["known"][0]["admitted"], 4);
    assert_eq!(read["clients"]["known"][0]["in_flight"], 0);
    let log = gate.logged().await;
    assert_eq!(log.matches(r#""client":"good""#).count(), 4, "{log}");
    for text in [status, metrics, log] {
        assert!(
            !text.contains(GOOD) && !text.contains(UPSTREAM_KEY) && !text.contains(&hash(GOOD)),
            "{text}"
        );
    }
}

/// One connection, 300 refusals with a 200 kB body each, and a good client meanwhile.
#[tokio::test]
async fn a_good_client_is_served_while_an_unknown_one_is_refused_300_times() {
    let files = Files::new("", "");
    let mut upstream = Upstream::start().await;
    let gate = with(&files, &upstream).await;
    let bad = async {
        let mut stream = gate.connect().await;
        let body = "x".repeat(200_000);
        for _ in 0..300 {
            let head = format!(
                "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\nx-goog-api-key: bad-token\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(body.as_bytes()).await.unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"}}") {
                assert!(soon(stream.read_buf(&mut read)).await.unwrap() > 0, "cut");
            }
            let text = String::from_utf8(read).unwrap();
            assert!(text.starts_with("HTTP/1.1 401 ") && text.contains("UNAUTHENTICATED"), "{text}");
            assert!(!text.contains("bad-token"));
        }
    };
    let served = async {
        for _ in 0..20 {
            let began = Instant::now();
            let fields = good();
            let (answer, _) =
                tokio::join!(ask(&gate, GENERATE, &fields), upstream.answer(response("200 OK", "", "{}")));
            assert_eq!(answer.status, StatusCode::OK);
            assert!(Instant::now() - began < Duration::from_secs(1));
        }
    };
    tokio::join!(bad, served);
    assert_eq!(ask(&gate, GENERATE, "").await.google()["status"], "UNAUTHENTICATED");
    let status: Value = serde_json::from_slice(&gate.page("/status").await.body).unwrap();
    assert_eq!(status["clients"]["unknown_tokens"], 301);
    assert!(upstream.is_quiet(Duration::from_millis(50)).await);
    assert!(!gate.logged().await.contains("bad-token"));
}

#[tokio::test]
async fn models_and_limits_are_a_clients_own() {
    let more = |name: &str, limit: &str| {
        format!("[[client]]\nname = \"{name}\"\ntoken_sha256 = \"{}\"\n{limit}\n", hash(name))
    };
    let others = [
        more("minute", "requests_per_minute = 1"),
        more("day", "requests_per_day = 1"),
        more("one", "concurrency = 1"),
    ];
    let files = Files::new("models = [\"gemini-2*\"]", &others.concat());
    let mut upstream = Upstream::start().await;
    let gate = with(&files, &upstream).await;
    let error = ask(&gate, GENERATE, &good()).await.google();
    assert_eq!(error["status"], "PERMISSION_DENIED");
    assert_eq!(error["message"], "The client good may not use the model gemini-3.5-flash-lite.");
    let error = ask(&gate, "/v1beta/openai/chat/completions", &good()).await.google();
    assert_eq!(error["status"], "PERMISSION_DENIED", "{error}");
    for (name, limit, least, most) in
        [("minute", "requests_per_minute 1", 50, 60), ("day", "requests_per_day 1 (UTC)", 1, 86_400)]
    {
        let fields = format!("x-goog-api-key: {name}\r\n");
        let (answer, _) =
            tokio::join!(ask(&gate, GENERATE, &fields), upstream.answer(response("200 OK", "", "{}")));
        assert_eq!(answer.status, StatusCode::OK);
        let answer = ask(&gate, GENERATE, &fields).await;
        let error = answer.google();
        assert_eq!(
            (answer.status, &error["status"]),
            (StatusCode::TOO_MANY_REQUESTS, &"RESOURCE_EXHAUSTED".into())
        );
        assert_eq!(
            error["message"],
            format!("The client {name} is over its limit at this gateway: {limit}.")
        );
        assert_eq!(error["details"][0]["@type"], "type.googleapis.com/google.rpc.RetryInfo");
        let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((least..=most).contains(&after), "{after}");
    }
    // The place is free again when the answer has ended, and when its client has left.
    let fields = "x-goog-api-key: one\r\n";
    for leaves in [false, true] {
        let mut first = gate.connect().await;
        let head = format!("POST {GENERATE} HTTP/1.1\r\nhost: gate\r\n{fields}content-length: 2\r\n\r\n{{}}");
        first.write_all(head.as_bytes()).await.unwrap();
        let mut call = upstream.call().await;
        let error = ask(&gate, GENERATE, fields).await.google();
        assert_eq!(error["message"], "The client one is over its limit at this gateway: concurrency 1.");
        if leaves {
            drop(first);
            call.closed().await;
        } else {
            call.send(response("200 OK", "", "{}")).await;
            let mut read = Vec::new();
            while !read.ends_with(b"{}") {
                assert!(soon(first.read_buf(&mut read)).await.unwrap() > 0);
            }
        }
    }
    let (answer, _) =
        tokio::join!(ask(&gate, GENERATE, fields), upstream.answer(response("200 OK", "", "{}")));
    assert_eq!(answer.status, StatusCode::OK);
}

/// The program itself: exit code 2, the hash, and SIGHUP.
#[tokio::test]
async fn the_program_refuses_a_bad_file_and_keeps_the_old_one_at_sighup() {
    let program = env!("CARGO_BIN_EXE_tower-gemini-gateway");
    let run = |args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut hashing = run(&["--hash-token"]);
    hashing.stdin.take().unwrap().write_all(format!("{GOOD}\n").as_bytes()).unwrap();
    assert_eq!(hashing.wait_with_output().unwrap().stdout, format!("{}\n", hash(GOOD)).as_bytes());
    let files = Files::new("concurrency = 0", "");
    let path = files.path();
    let args = ["--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--simulate", "--log=off", "--clients", &path];
    let refused = run(&args).wait_with_output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains(&format!("{path}:6: concurrency must be")), "{said}");
    files.write("", "");
    let mut child = run(&args);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let mut line = move || lines.next().unwrap().unwrap();
    let first = line();
    let addr = first.split("http://").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let status = |token: &'static str| {
        let url = format!("http://{addr}{GENERATE}");
        let client = reqwest::Client::new();
        async move { client.post(url).header("x-goog-api-key", token).body(HELLO).send().await.unwrap().status() }
    };
    let hang_up = || Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    assert_eq!(status(GOOD).await, StatusCode::OK);
    assert_eq!(status("second").await, StatusCode::UNAUTHORIZED);
    files.write("concurrency = 0", "");
    assert!(hang_up().success());
    let said = line();
    assert!(
        said.contains("everything stays as it was") && said.contains("clients.toml:6: concurrency"),
        "{said}"
    );
    assert_eq!(status(GOOD).await, StatusCode::OK);
    files.write("", &format!("[[client]]\nname = \"second\"\ntoken_sha256 = \"{}\"", hash("second")));
    assert!(hang_up().success());
    assert_eq!(line(), "gateway: the settings were read, 2 clients");
    assert_eq!(status("second").await, StatusCode::OK);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// An answer that says what it has used.
fn used(input: u64, output: u64) -> String {
    let body = format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"a"}}]}},"finishReason":"STOP"}}],"usageMetadata":{{"promptTokenCount":{input},"candidatesTokenCount":{output}}}}}"#
    );
    response("200 OK", "content-type: application/json\r\n", &body)
}

#[tokio::test]
async fn a_client_that_has_used_its_tokens_waits_for_them() {
    for (limit, says) in [
        ("tokens_per_minute = 100", "tokens_per_minute 100"),
        ("tokens_per_day = 100", "tokens_per_day 100 (UTC)"),
        (
            "money_per_day = 0.0001\n[[price]]\nmodel = \"gemini-3.5*\"\ninput = 1.0\noutput = 2.0",
            "money_per_day 0.0001 (UTC)",
        ),
    ] {
        let files = Files::new(limit, "");
        let mut upstream = Upstream::start().await;
        let gate = with(&files, &upstream).await;
        let token = good();
        // 60 tokens and 70 millionths of the currency: not yet.
        let (answer, _) = tokio::join!(ask(&gate, GENERATE, &token), upstream.answer(used(50, 10)));
        assert_eq!(answer.status, StatusCode::OK);
        let (answer, _) = tokio::join!(ask(&gate, GENERATE, &token), upstream.answer(used(50, 10)));
        assert_eq!(answer.status, StatusCode::OK);
        let refused = ask(&gate, GENERATE, &good()).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{limit}");
        assert!(refused.google()["message"].as_str().unwrap().contains(says), "{refused:?}");
        assert!(refused.header("retry-after").is_some_and(|after| after.parse::<u64>().unwrap() > 0));
        let status: Value = serde_json::from_slice(&gate.page("/status").await.body).unwrap();
        let known = &status["clients"]["known"][0];
        assert_eq!(known["tokens_today"], 120, "{status}");
        if limit.starts_with("money") {
            assert!((known["money_today"].as_f64().unwrap() - 0.00014).abs() < 1e-9, "{status}");
        }
    }
}

#[tokio::test]
async fn a_model_without_a_price_is_not_for_a_client_whose_money_is_counted() {
    let files =
        Files::new("money_per_day = 5.0\n[[price]]\nmodel = \"gemini-9\"\ninput = 1.0\noutput = 2.0", "");
    let mut upstream = Upstream::start().await;
    let gate = with(&files, &upstream).await;
    let refused = ask(&gate, GENERATE, &good()).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.google()["message"].as_str().unwrap().contains("has no price"), "{refused:?}");
    assert!(upstream.is_quiet(Duration::from_millis(100)).await);
}

/// The three ways around the list of models.
#[tokio::test]
async fn a_list_of_models_holds_in_bodies_batches_and_fallbacks() {
    const FLASH: &str = "gemini-3.5-flash-lite";
    let files = Files::new("models = [\"gemini-3.5-flash*\"]", "");
    let mut upstream = Upstream::start().await;
    let path = files.path();
    let fallback = format!("--fallback={FLASH}=gemini-9-pro");
    let args = ["--clients", &path, "--attempts=1", &fallback];
    let gate = Gate::to(&upstream.url, &args).await;
    let post = async |target: &str, fields: &str, body: &str| {
        let length = body.len();
        gate.say(format!(
            "POST {target} HTTP/1.1\r\nhost: gate\r\n{}{fields}connection: close\r\ncontent-length: {length}\r\n\r\n{body}",
            good()
        ))
        .await
    };
    let chat = "/v1beta/openai/chat/completions";
    let batch = format!("/v1beta/models/{FLASH}:batchGenerateContent");
    for (target, fields, body) in [
        (chat, "", r#"{"model":"gemini-3.5-flash-lite","messages":[],"model":"gemini-9-pro"}"#.to_owned()),
        (chat, "", r#"{"mod\u0065l":"gemini-9-pro","messages":[]}"#.to_owned()),
        (chat, "", r#"{"model":"gemini-3.5-flash-lite","messages":[],}"#.to_owned()),
        (chat, "content-encoding: gzip\r\n", r#"{"model":"gemini-3.5-flash-lite"}"#.to_owned()),
        (&*batch, "", r#"{"batch":{"inputConfig":{"requests":{"requests":[{"request":{"model":"models/gemini-9-pro"}}]}}}}"#.to_owned()),
        (&*batch, "", r#"{"batch":{"inputConfig":{"fileName":"files/abc"}}}"#.to_owned()),
        (&*batch, "", r#"{"batch":{"input_config":{"file_name":"files/abc"}}}"#.to_owned()),
        ("/v1beta/cachedContents", "", r#"{"model":"models/gemini-9-pro","contents":[]}"#.to_owned()),
    ] {
        let refused = post(target, fields, &body).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{target} {body}");
        refused.google();
    }
    assert!(upstream.is_quiet(Duration::from_millis(100)).await, "none of them was sent");
    // A user's own words are no model.
    let words = r#"{"contents":[{"parts":[{"functionCall":{"name":"f","args":{"model":"T"}}}]}],"generationConfig":{"responseSchema":{"properties":{"model":{"type":"STRING"}}}}}"#;
    let (answer, _) = tokio::join!(post(GENERATE, "", words), upstream.answer(used(1, 1)));
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    // The model is overloaded, and the one that stands in for it is not for this client.
    let busy = r#"{"error":{"code":503,"status":"UNAVAILABLE","message":"The model is overloaded."}}"#;
    let busy = response("503 Service Unavailable", "content-type: application/json\r\n", busy);
    let (answer, _) = tokio::join!(post(GENERATE, "", HELLO), upstream.answer(busy));
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(upstream.is_quiet(Duration::from_millis(100)).await, "no other model was asked");
}

#[tokio::test]
async fn each_project_has_its_own_key_and_its_own_quota() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    for name in ["one", "two"] {
        std::fs::write(path(name), format!("key-of-{name}")).unwrap();
    }
    let client = |name: &str, project: &str| {
        format!("[[client]]\nname = \"{name}\"\ntoken_sha256 = \"{}\"\nproject = \"{project}\"\n", hash(name))
    };
    let text = format!(
        "[[key]]\nproject = \"one\"\nkey_file = {:?}\n[[key]]\nproject = \"two\"\nkey_file = {:?}\n{}{}{}",
        path("one"),
        path("two"),
        client("a", "one"),
        client("b", "one"),
        client("c", "two"),
    );
    std::fs::write(path("clients.toml"), text).unwrap();
    let mut upstream = Upstream::start().await;
    let file = path("clients.toml");
    let args =
        ["--clients", &file, "--attempts=1", "--requests-per-minute=2", "--quota-wait=0", "--log=json"];
    let gate = Gate::to(&upstream.url, &args).await;
    for (name, key) in [("a", "key-of-one"), ("b", "key-of-one"), ("c", "key-of-two")] {
        let fields = format!("x-goog-api-key: {name}\r\n");
        let (answer, call) = tokio::join!(ask(&gate, GENERATE, &fields), upstream.answer(used(1, 1)));
        assert_eq!(answer.status, StatusCode::OK, "{name}");
        assert!(call.headers().contains(&("x-goog-api-key", key)), "{}", call.head);
    }
    // Two of project one were made.
    let refused = ask(&gate, GENERATE, "x-goog-api-key: a\r\n").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let (answer, _) =
        tokio::join!(ask(&gate, GENERATE, "x-goog-api-key: c\r\n"), upstream.answer(used(1, 1)));
    assert_eq!(answer.status, StatusCode::OK);
    let log = gate.logged().await;
    assert!(log.contains(r#""client":"a""#) && !log.contains("key-of-"), "{log}");
}
