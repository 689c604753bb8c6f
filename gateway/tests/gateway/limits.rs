//! What bounds a client: bodies that do not come, readers that do not read, sockets and calls without number; and how the gateway leaves.

use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower_gemini::sim::Simulator;

use crate::world::{GENERATE, Gate, HELLO, Upstream, response, soon};

fn withheld(key: &str) -> String {
    format!(
        "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\nx-goog-api-key: {key}\r\ncontent-length: 1000\r\n\r\n{{\"con"
    )
}

async fn good_call(gate: &Gate) -> Duration {
    let began = Instant::now();
    let length = HELLO.len();
    let text = format!(
        "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\nx-goog-api-key: good\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{HELLO}"
    );
    assert_eq!(gate.say(text).await.status, StatusCode::OK);
    Instant::now() - began
}

/// Finding 2: a client's silence is no timeout of the model's. The limits are short, and the first byte's time is shorter still.
#[tokio::test]
async fn withheld_uploads_slow_down_nobody() {
    let simulator = Simulator::builder().head_latency(Duration::from_millis(1)).build().unwrap();
    let server = simulator.serve().await.unwrap();
    let args = ["--body-idle=0.6", "--first-byte=0.2", "--deadline=2"];
    let gate = Gate::to(&server.base_url(), &args).await;
    good_call(&gate).await;
    let mut before = Duration::ZERO;
    for _ in 0..10 {
        before = before.max(good_call(&gate).await);
    }
    let mut bad = Vec::new();
    for _ in 0..4 {
        let mut client = gate.connect().await;
        client.write_all(withheld("bad").as_bytes()).await.unwrap();
        bad.push(client);
    }
    for mut client in bad {
        let mut seen = Vec::new();
        soon(client.read_to_end(&mut seen)).await.unwrap();
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.starts_with("HTTP/1.1 408 ") && seen.contains("connection: close"), "{seen}");
        assert!(seen.contains("did not come in time"), "{seen}");
    }
    assert_eq!(simulator.call_count(), 11, "none of them was sent");
    let mut after = Duration::ZERO;
    for _ in 0..10 {
        after = after.max(good_call(&gate).await);
    }
    assert!(after < before * 2 + Duration::from_millis(100), "{before:?} before, {after:?} after");
    let status: serde_json::Value = serde_json::from_slice(&gate.page("/status").await.body).unwrap();
    for of in status["concurrency"].as_array().unwrap() {
        assert!(of["limit"].is_null() && of["cuts"] == 0, "{status}");
    }
}

#[tokio::test]
async fn a_body_that_trickles_or_is_too_large_ends() {
    let upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &["--body-time=0.5", "--body-mib=1"]).await;
    let mut client = gate.connect().await;
    client.write_all(withheld("k").as_bytes()).await.unwrap();
    let began = Instant::now();
    let (mut reads, mut writes) = client.split();
    let mut seen = Vec::new();
    let trickle = async {
        while writes.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! { _ = soon(reads.read_to_end(&mut seen)) => {}, () = trickle => {} }
    assert!(seen.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&seen));
    assert!(Instant::now() - began < Duration::from_secs(3));
    let head = format!("POST {GENERATE} HTTP/1.1\r\nhost: gate\r\ncontent-length: 99999999\r\n\r\n");
    let answer = gate.say(head).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{answer:?}");
    answer.google();
}

/// An answer that nobody reads, larger than all buffers.
#[tokio::test]
async fn a_reader_that_does_not_read_is_cut() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &["--reader-idle=0.5", "--idle=60"]).await;
    let mut client = gate.connect().await;
    let length = HELLO.len();
    let text = format!("POST {GENERATE} HTTP/1.1\r\nhost: gate\r\ncontent-length: {length}\r\n\r\n{HELLO}");
    client.write_all(text.as_bytes()).await.unwrap();
    let mut call = upstream.call().await;
    call.body().await;
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n").await;
    let began = Instant::now();
    let written = async {
        let part = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            if call.try_send(&part).await.is_err() {
                return true;
            }
        }
        false
    };
    assert!(soon(written).await, "the upstream's connection was cut");
    assert!(Instant::now() - began < Duration::from_secs(8), "{:?}", (Instant::now() - began));
}

/// A reader that is merely slow is not.
#[tokio::test]
async fn a_stream_that_pauses_is_not_taken_for_a_slow_reader() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &["--reader-idle=0.3", "--head-time=0.3"]).await;
    let mut client = gate.connect().await;
    let length = HELLO.len();
    let text = format!(
        "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{HELLO}"
    );
    client.write_all(text.as_bytes()).await.unwrap();
    let mut call = upstream.call().await;
    call.body().await;
    call.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na").await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    call.send("b").await;
    let mut seen = Vec::new();
    soon(client.read_to_end(&mut seen)).await.unwrap();
    assert!(seen.ends_with(b"\r\n\r\nab"), "{}", String::from_utf8_lossy(&seen));
}

#[tokio::test]
async fn more_calls_than_there_may_be_are_refused() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &["--calls=2"]).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = gate.connect().await;
        client.write_all(withheld("k").as_bytes()).await.unwrap();
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let refused = gate.post(GENERATE, HELLO).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    refused.google();
    assert_eq!(gate.get("/healthz").await.status, StatusCode::OK);
    drop(clients);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (answer, _) = tokio::join!(gate.post(GENERATE, HELLO), upstream.answer(response("200 OK", "", "{}")));
    assert_eq!(answer.status, StatusCode::OK);
}

/// Finding 4, with the default limits: 60 uploads of 19 MiB whose last byte does not come. The upstream reads nothing.
/// The memory is that of the program, which nothing else uses: 256 MiB are its whole peak.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_withheld_uploads_are_bounded_in_memory() {
    use crate::world::page;
    const BODY: usize = 19 << 20;
    let upstream = Upstream::start().await;
    // What streams to an upstream that reads nothing ends with the deadline.
    let program = crate::program::Program::to(&upstream.url, &["--deadline=8"]);
    let addr = program.addr;
    let part = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let uploads: Vec<_> = (0..60)
        .map(|_| {
            let part = part.clone();
            tokio::spawn(async move {
                let mut client = TcpStream::connect(addr).await.unwrap();
                let head = format!(
                    "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\nx-goog-api-key: bad\r\ncontent-length: {BODY}\r\n\r\n"
                );
                client.write_all(head.as_bytes()).await.unwrap();
                for n in 0..19 {
                    let bytes = if n == 18 { &part[1..] } else { &part[..] };
                    // Those that find no room wait for the upstream, which does not read.
                    let sent = tokio::time::timeout(Duration::from_secs(2), client.write_all(bytes)).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        break;
                    }
                }
                client
            })
        })
        .collect();
    let kept = || async {
        let metrics = page(program.admin, "/metrics").await;
        let metrics = std::str::from_utf8(&metrics.body).unwrap();
        let kept = metrics.lines().find_map(|line| line.strip_prefix("gateway_replay_bytes "));
        kept.unwrap().parse::<u64>().unwrap()
    };
    // While they come: an upload that found no room gives back what it had as soon as that was passed on.
    let mut most = 0;
    while !uploads.iter().all(|upload| upload.is_finished()) {
        most = most.max(kept().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(most > 0 && most <= 128 << 20, "{most}");
    let mut clients = Vec::new();
    for upload in uploads {
        clients.push(upload.await.unwrap());
    }
    drop((clients, upstream));
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if kept().await == 0 {
            break;
        }
        assert!(Instant::now() < end, "the room is not given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let peak = program.peak();
    println!("at most {most} bytes kept, at most {peak} MiB resident");
    assert!(peak < 256, "{peak} MiB");
}

/// Finding 9, on a socket: streams that end in good order, but without a finish.
#[tokio::test]
async fn streams_of_one_client_without_a_finish_stop_no_other() {
    const STREAM: &str = "/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent?alt=sse";
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &["--attempts=1"]).await;
    let event = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}\r\n\r\n";
    for _ in 0..11 {
        let answer = response("200 OK", "content-type: text/event-stream\r\n", event);
        tokio::join!(gate.post(STREAM, HELLO), upstream.answer(answer));
    }
    let good = r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}"#;
    let (took, _) = tokio::join!(
        good_call(&gate),
        upstream.answer(response("200 OK", "content-type: application/json\r\n", good))
    );
    assert!(took < Duration::from_secs(1), "{took:?}");
}

// ===== how it leaves =====

async fn status_of(addr: std::net::SocketAddr, path: &str) -> Option<u16> {
    let mut client = TcpStream::connect(addr).await.ok()?;
    let get = format!("GET {path} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n");
    client.write_all(get.as_bytes()).await.ok()?;
    let mut seen = Vec::new();
    soon(client.read_to_end(&mut seen)).await.ok()?;
    std::str::from_utf8(seen.get(9..12)?).ok()?.parse().ok()
}

#[tokio::test]
async fn each_listener_has_what_is_its_own() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    for addr in [gate.addr, gate.admin] {
        assert_eq!(status_of(addr, "/healthz").await, Some(200));
        assert_eq!(status_of(addr, "/readyz").await, Some(200));
    }
    for path in ["/status", "/metrics", "/page", "/page/now"] {
        assert_eq!(status_of(gate.admin, path).await, Some(200));
        let (public, call) =
            tokio::join!(gate.get(path), upstream.answer(response("404 Not Found", "", "of the upstream")));
        assert_eq!((public.status.as_u16(), &*public.body), (404, &b"of the upstream"[..]), "{path}");
        assert_eq!(call.line(), format!("GET {path} HTTP/1.1"));
    }
    assert_eq!(status_of(gate.admin, GENERATE).await, Some(404));
}

/// Unready at once, open for the delay, then closed; a call under way finishes.
#[tokio::test]
async fn a_stop_is_told_before_the_port_closes() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &["--drain-delay=1"]).await;
    let (addr, admin) = (gate.addr, gate.admin);
    let stopped = tokio::spawn(gate.stop());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((status_of(addr, "/readyz").await, status_of(addr, "/healthz").await), (Some(503), Some(200)));
    let mut late = TcpStream::connect(addr).await.unwrap();
    let length = HELLO.len();
    let text = format!(
        "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{HELLO}"
    );
    late.write_all(text.as_bytes()).await.unwrap();
    let mut call = upstream.call().await;
    call.body().await;
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(status_of(addr, "/readyz").await, None, "the port is closed");
    assert_eq!(status_of(admin, "/readyz").await, Some(503), "and the administrators' is not");
    assert!(!stopped.is_finished());
    call.send(response("200 OK", "", "{}")).await;
    let mut seen = Vec::new();
    soon(late.read_to_end(&mut seen)).await.unwrap();
    assert!(seen.ends_with(b"{}"));
    assert_eq!(soon(stopped).await.unwrap(), 0);
}

/// The program: SIGTERM ends it with 0 after its calls, a second one at once.
#[cfg(unix)]
#[tokio::test]
async fn sigterm_lets_calls_finish_and_a_second_one_does_not() {
    use std::io::BufRead;
    for twice in [false, true] {
        let mut upstream = Upstream::start().await;
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_tower-gemini-gateway"))
            .args(["--listen=127.0.0.1:0", "--admin=off", "--log=off", "--upstream", &upstream.url])
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let first = std::io::BufReader::new(child.stderr.take().unwrap()).lines().next().unwrap().unwrap();
        let addr = first.split("http://").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        let mut client = TcpStream::connect(addr).await.unwrap();
        let length = HELLO.len();
        let text =
            format!("POST {GENERATE} HTTP/1.1\r\nhost: gate\r\ncontent-length: {length}\r\n\r\n{HELLO}");
        client.write_all(text.as_bytes()).await.unwrap();
        let mut call = upstream.call().await;
        call.body().await;
        let id = child.id().to_string();
        let terminate = || std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(terminate().success());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(child.try_wait().unwrap().is_none(), "a call is under way");
        if twice {
            assert!(terminate().success());
        } else {
            call.send(response("200 OK", "", "{}")).await;
        }
        let began = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            assert!(Instant::now() - began < Duration::from_secs(5), "it goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(code, Some(if twice { 1 } else { 0 }));
    }
}
