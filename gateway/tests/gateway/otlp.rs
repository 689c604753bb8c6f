//! `--otlp`: spans of calls arrive at a collector on a loopback port. The program is its own process: spans are one of a process.

use std::io::BufRead;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::world::{GENERATE, HELLO, soon};

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
