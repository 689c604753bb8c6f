//! `--otlp`: spans of calls arrive at a collector on a loopback port. The program is its own process: spans are one of a process.

use std::io::BufRead;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::world::{GENERATE, Gate, HELLO, Upstream, response, soon};

/// Takes what is posted, and answers that it was.
async fn collector() -> (String, mpsc::UnboundedReceiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                while stream.read_buf(&mut read).await.unwrap_or(0) > 0 {
                    let Some(end) = read.windows(4).position(|four: &[u8]| four == b"\r\n\r\n") else {
                        continue;
                    };
                    let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    let whole = end + 4 + length.map_or(0, |length| length.parse().unwrap());
                    if read.len() < whole {
                        continue;
                    }
                    let body = read[end + 4..whole].to_vec();
                    read.drain(..whole);
                    let _ = sender.send((head, body));
                    let done = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                    let _ = stream.write_all(done.as_bytes()).await;
                }
            });
        }
    });
    (url, receiver)
}

fn has(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|part| part == text.as_bytes())
}

#[cfg(unix)]
#[tokio::test]
async fn a_collector_is_sent_a_span_of_each_call_with_what_happened() {
    let (url, mut sent) = collector().await;
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_tower-gemini-gateway"))
        .args(["--listen=127.0.0.1:0", "--admin=off", "--log=off", "--simulate", "--otlp", &url])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let first = std::io::BufReader::new(child.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    let addr = first.split("http://").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let key = "AIzaSyTHIS-is-a-key-of-nobody_0123456789";
    for path in [GENERATE.to_owned(), format!("/v1beta/models/gemini-9:generateContent?key={key}")] {
        let mut client = TcpStream::connect(&addr).await.unwrap();
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: gate\r\nx-goog-api-key: {key}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{HELLO}",
            HELLO.len()
        );
        client.write_all(text.as_bytes()).await.unwrap();
        soon(client.read_to_end(&mut Vec::new())).await.unwrap();
    }
    // The last ones are sent before the process ends.
    assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    assert_eq!(soon(ended).await.unwrap().code(), Some(0));
    let mut all = Vec::new();
    while let Ok(Some((head, body))) = tokio::time::timeout(Duration::from_millis(200), sent.recv()).await {
        assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        all.extend(body);
    }
    for text in [
        "tower-gemini-gateway",
        "generate_content gemini-3.5-flash-lite",
        "gen_ai.request.model",
        "gen_ai.usage.input_tokens",
        "http.response.status_code",
        "not_found",
    ] {
        assert!(has(&all, text), "no {text}: {}", String::from_utf8_lossy(&all));
    }
    assert!(!has(&all, "AIza"), "a key");
}

/// The upstream is told of the very span that the collector gets, in the caller's trace and behind the caller's span.
#[cfg(unix)]
#[tokio::test]
async fn a_span_is_of_the_callers_trace_and_the_one_that_the_upstream_is_told_of() {
    let (url, mut sent) = collector().await;
    let mut upstream = Upstream::start().await;
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_tower-gemini-gateway"))
        .args([
            "--listen=127.0.0.1:0",
            "--admin=off",
            "--log=json",
            "--otlp",
            &url,
            "--upstream",
            &upstream.url,
        ])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let first = std::io::BufReader::new(child.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    let addr = first.split("http://").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let mut told = Vec::new();
    for said in [format!("traceparent: 00-{trace}-{parent}-01\r\ntracestate: a=b\r\n"), String::new()] {
        let mut client = TcpStream::connect(&addr).await.unwrap();
        let text = format!(
            "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\n{said}connection: close\r\ncontent-length: {}\r\n\r\n{HELLO}",
            HELLO.len()
        );
        client.write_all(text.as_bytes()).await.unwrap();
        let call = upstream.answer(response("200 OK", "", "{}")).await;
        soon(client.read_to_end(&mut Vec::new())).await.unwrap();
        let value = |name: &str| {
            let of = call.headers().into_iter().find(|(other, _)| *other == name);
            of.map(|(_, value)| value.to_owned())
        };
        assert_eq!(value("tracestate").is_some(), !said.is_empty());
        told.push(value("traceparent").unwrap());
    }
    assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let log = String::from_utf8(soon(ended).await.unwrap().stdout).unwrap();
    let mut all = Vec::new();
    while let Ok(Some((_, body))) = tokio::time::timeout(Duration::from_millis(200), sent.recv()).await {
        all.extend(body);
    }
    let has = |part: &[u8]| all.windows(part.len()).any(|other| other == part);
    assert!(has(&bytes(parent)), "the caller's span is the parent: {told:?}");
    for (n, told) in told.iter().enumerate() {
        let parts: Vec<&str> = told.split('-').collect();
        assert!(parts.len() == 4 && parts[0] == "00" && parts[3] == "01", "{told}");
        assert_eq!(parts[1] == trace, n == 0, "{told}");
        assert_ne!(parts[2], parent);
        assert!(has(&bytes(parts[1])) && has(&bytes(parts[2])), "{told} has no span");
        assert!(log.contains(&format!(r#""trace_id":"{}""#, parts[1])), "{log}");
    }
}

/// Without a collector nobody makes a trace, but a caller's goes on.
#[tokio::test]
async fn a_trace_is_passed_on_with_a_span_of_the_gateways_also_without_a_collector() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &["--log=text"]).await;
    let mut told = Vec::new();
    for said in
        ["traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n", "", "traceparent: x\r\n"]
    {
        let text = format!("GET /v1beta/models HTTP/1.1\r\nhost: gate\r\n{said}connection: close\r\n\r\n");
        let (answer, call) = tokio::join!(gate.say(text), upstream.answer(response("200 OK", "", "{}")));
        assert_eq!(answer.status, 200);
        let found = call.headers().into_iter().find(|(name, _)| *name == "traceparent");
        told.push(found.map(|(_, value)| value.to_owned()));
    }
    let first = told[0].as_deref().unwrap();
    assert!(first.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && first.ends_with("-00"), "{first}");
    assert!(!first.contains("00f067aa0ba902b7"), "{first}");
    assert_eq!(told[1..], [None, None]);
    let log = gate.logged().await;
    assert_eq!(log.matches("trace_id=").count(), 1, "{log}");
    assert!(log.contains("trace_id=4bf92f3577b34da6a3ce929d0e0e4736"), "{log}");
}
