//! Refusals on kept connections, heads of many fields, and who is told apart: what the attack of 2026-11 found.

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_gemini::sim::{Fault, Rule, Simulator};

use crate::world::{GENERATE, Gate, HELLO, KEY, Upstream, response, soon};

/// The head and the body of one answer on a connection that is kept.
async fn answer(stream: &mut tokio::net::TcpStream) -> (String, Vec<u8>) {
    let mut seen = Vec::new();
    loop {
        if let Some(end) = seen.windows(4).position(|four: &[u8]| four == b"\r\n\r\n") {
            let head = String::from_utf8(seen[..end].to_vec()).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let whole = end + 4 + length.parse::<usize>().unwrap();
            while seen.len() < whole {
                assert!(soon(stream.read_buf(&mut seen)).await.unwrap() > 0, "cut");
            }
            return (head, seen.split_off(end + 4));
        }
        assert!(soon(stream.read_buf(&mut seen)).await.unwrap() > 0, "closed before its answer");
    }
}

/// The way of Python's http.client and of aiohttp: the whole body is sent before the answer is read, on one connection.
#[tokio::test]
async fn three_hundred_refusals_of_200_kb_leave_the_connection_as_it_was() {
    let simulator = Simulator::builder().rule(Rule::new(Fault::daily_quota_exhausted())).build().unwrap();
    let server = simulator.serve().await.unwrap();
    let gate = Gate::to(&server.base_url(), &[]).await;
    // Teaches the gateway that the day is spent: what follows it refuses by itself, before it has read the body.
    assert_eq!(gate.post(GENERATE, HELLO).await.status, StatusCode::TOO_MANY_REQUESTS);
    let calls = simulator.call_count();
    let body = vec![b'x'; 200_000];
    let head = format!(
        "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\nx-goog-api-key: {KEY}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut client = gate.connect().await;
    for n in 0..300 {
        soon(client.write_all(head.as_bytes())).await.unwrap();
        soon(client.write_all(&body)).await.unwrap_or_else(|error| panic!("{n}: {error}"));
        let (head, _) = answer(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 429 ") && !head.contains("connection: close"), "{n}: {head}");
    }
    assert_eq!(simulator.call_count(), calls, "all of them were the gateway's own");
}

/// A body that is too large to be thrown away: the answer says that the connection ends.
#[tokio::test]
async fn a_refusal_that_leaves_a_large_body_unread_says_that_it_closes() {
    let upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let mut client = gate.connect().await;
    let head = "TRACE /v1/x HTTP/1.1\r\nhost: gate\r\ncontent-length: 99999999\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let (head, body) = answer(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("connection: close"), "{head}");
    assert!(body.starts_with(br#"{"error":{"code":405,"#), "{}", String::from_utf8_lossy(&body));
}

#[tokio::test]
async fn a_websocket_is_refused_and_a_trace_does_not_arrive() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    for (request, status) in [
        ("GET /ws HTTP/1.1\r\nhost: gate\r\nconnection: upgrade, close\r\nupgrade: WebSocket\r\n\r\n", 501),
        ("TRACE / HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n", 405),
    ] {
        let answer = gate.say(request).await;
        assert_eq!(answer.status.as_u16(), status);
        answer.google();
    }
    assert!(upstream.is_quiet(std::time::Duration::from_millis(50)).await);
}

/// The go-ahead is the gateway's, and the expectation does not travel on.
#[tokio::test]
async fn an_expectation_is_met_here() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let mut client = gate.connect().await;
    let head = "POST /v1/x HTTP/1.1\r\nhost: gate\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut seen = [0; 25];
    soon(client.read_exact(&mut seen)).await.unwrap();
    assert_eq!(&seen, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hello").await.unwrap();
    let call = upstream.answer(response("200 OK", "", "{}")).await;
    assert!(!call.head.contains("expect"), "{}", call.head);
    assert!(answer(&mut client).await.0.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_head_of_200_fields_is_passed_on() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &["--attempts", "1"]).await;
    let fields: String = (0..200).map(|n| format!("x-field-{n}: {n}\r\n")).collect();
    let (answer, _) =
        tokio::join!(gate.post(GENERATE, HELLO), upstream.answer(response("200 OK", &fields, "{}")));
    assert_eq!((answer.status, answer.header("x-field-199")), (StatusCode::OK, Some("199")));
}

/// By the project that pays, or by the token; and an empty field does not hide the key beside it.
#[tokio::test]
async fn callers_with_tokens_are_told_apart() {
    let simulator = Simulator::new();
    simulator.push(Rule::new(Fault::daily_quota_exhausted()).times(1)).unwrap();
    let server = simulator.serve().await.unwrap();
    let gate = Gate::to(&server.base_url(), &[]).await;
    let ask = async |fields: &str, query: &str| {
        let text = format!(
            "POST {GENERATE}{query} HTTP/1.1\r\nhost: gate\r\n{fields}connection: close\r\ncontent-length: {}\r\n\r\n{HELLO}",
            HELLO.len()
        );
        gate.say(text).await.status
    };
    let one = "authorization: Bearer ya29.one\r\nx-goog-user-project: a\r\n";
    assert_eq!(ask(one, "").await, StatusCode::TOO_MANY_REQUESTS);
    let renewed = "authorization: Bearer ya29.new\r\nx-goog-user-project: a\r\n";
    assert_eq!(ask(renewed, "").await, StatusCode::TOO_MANY_REQUESTS, "the same project");
    assert_eq!(simulator.call_count(), 1);
    let other = "authorization: Bearer ya29.one\r\nx-goog-user-project: b\r\n";
    assert_eq!(ask(other, "").await, StatusCode::OK);
    assert_eq!(ask("authorization: Bearer ya29.two\r\n", "").await, StatusCode::OK);
    simulator.push(Rule::new(Fault::daily_quota_exhausted()).times(1)).unwrap();
    assert_eq!(ask("x-goog-api-key:\r\n", "?key=first").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask("x-goog-api-key:\r\n", "?key=second").await, StatusCode::OK);
}
