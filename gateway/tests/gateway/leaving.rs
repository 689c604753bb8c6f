//! Who leaves, and what becomes of what was under way.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::world::{GENERATE, Gate, HELLO, Upstream, response, soon};
use tower_gemini_gateway::serve::{Limits, Live, serve};

fn request() -> String {
    let length = HELLO.len();
    format!("POST {GENERATE} HTTP/1.1\r\nhost: gate\r\ncontent-length: {length}\r\n\r\n{HELLO}")
}

#[tokio::test]
async fn a_client_that_leaves_before_the_head_ends_the_call_at_once() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let mut client = gate.connect().await;
    client.write_all(request().as_bytes()).await.unwrap();
    let mut call = upstream.call().await;
    call.body().await;
    let left = Instant::now();
    drop(client);
    call.closed().await;
    assert!(Instant::now() - left < Duration::from_secs(1));
    assert!(upstream.is_quiet(Duration::from_millis(200)).await);
    let log = gate.logged().await;
    assert!(
        log.contains(" - client_left model=gemini-3.5-flash-lite ") && log.ends_with(" attempts=1\n"),
        "{log}"
    );
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_ends_the_call_at_once() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let mut client = gate.connect().await;
    client.write_all(request().as_bytes()).await.unwrap();
    let mut call = upstream.call().await;
    call.body().await;
    call.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\nC\r\ndata: {}\r\n\r\n\r\n").await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"data: {}\r\n\r\n\r\n") {
        assert!(soon(client.read_buf(&mut seen)).await.unwrap() > 0);
    }
    let left = Instant::now();
    drop(client);
    call.closed().await;
    assert!(Instant::now() - left < Duration::from_secs(1));
    let log = gate.logged().await;
    assert!(log.contains(" 200 client_left "), "{log}");
}

/// HTTP/2 resets the stream; the connection stays.
#[tokio::test]
async fn a_stream_of_http_2_that_is_reset_ends_the_call_at_once() {
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let request =
        http::Request::post(format!("http://{}{GENERATE}", gate.addr)).body(Full::from(HELLO)).unwrap();
    let sent = tokio::spawn(client.request(request));
    let mut call = upstream.call().await;
    call.body().await;
    sent.abort();
    let left = Instant::now();
    call.closed().await;
    assert!(Instant::now() - left < Duration::from_secs(1));
}

#[tokio::test]
async fn a_client_that_leaves_while_a_retry_waits_causes_no_further_call() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let mut client = gate.connect().await;
    client.write_all(request().as_bytes()).await.unwrap();
    let delay = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"x","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"0.4s"}]}}"#;
    upstream.answer(response("429 Too Many Requests", "content-type: application/json\r\n", delay)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(client);
    assert!(upstream.is_quiet(Duration::from_millis(1500)).await);
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let mut client = gate.connect().await;
    client.write_all(request().as_bytes()).await.unwrap();
    let mut call = upstream.call().await;
    call.body().await;
    call.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    drop(call);
    let mut seen = Vec::new();
    // An end or a reset, but never the last chunk that would make it look whole.
    let _ = soon(client.read_to_end(&mut seen)).await;
    assert!(seen.ends_with(b"half\r\n"), "{}", String::from_utf8_lossy(&seen));
    let log = gate.logged().await;
    assert!(log.contains(" 200 truncated ") || log.contains(" 200 transport "), "{log}");
}

#[tokio::test]
async fn a_stop_lets_calls_finish_and_takes_no_new_ones() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let addr = gate.addr;
    let mut idle = gate.connect().await;
    let mut client = gate.connect().await;
    client.write_all(request().as_bytes()).await.unwrap();
    let mut call = upstream.call().await;
    call.body().await;
    call.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    let stopped = tokio::spawn(gate.stop());
    let mut seen = Vec::new();
    assert_eq!(soon(idle.read_to_end(&mut seen)).await.unwrap(), 0, "an idle connection is closed");
    assert!(TcpStream::connect(addr).await.is_err(), "the port is closed");
    assert!(!stopped.is_finished());
    call.send("4\r\nlast\r\n0\r\n\r\n").await;
    soon(client.read_to_end(&mut seen)).await.unwrap();
    assert!(seen.ends_with(b"5\r\nfirst\r\n4\r\nlast\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&seen));
    assert_eq!(soon(stopped).await.unwrap(), 0, "none was cut");
}

#[tokio::test]
async fn a_call_that_outlives_the_grace_is_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let never = |_, _: &std::sync::Arc<tower_gemini_gateway::peer::Peer>| {
        std::future::pending::<http::Response<Full<Bytes>>>()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let grace = Duration::from_millis(100);
    let serving = tokio::spawn(serve(
        listener,
        None,
        never,
        async move { drop(stopped.await) },
        move || grace,
        Live::default(),
    ));
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(request().as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(stop);
    assert_eq!(soon(serving).await.unwrap(), 1);
    let mut seen = Vec::new();
    let _ = soon(client.read_to_end(&mut seen)).await;
    assert!(seen.is_empty());
}

/// Nothing, a letter, half a head and the preface of HTTP/2: none of them is a call.
#[tokio::test]
async fn connections_without_a_call_are_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let answer = |_, _: &std::sync::Arc<tower_gemini_gateway::peer::Peer>| {
        std::future::ready(http::Response::new(Full::<Bytes>::default()))
    };
    let limits = Limits { idle: Duration::from_millis(300), ..Limits::default() };
    tokio::spawn(serve(listener, None, answer, std::future::pending(), || Duration::ZERO, Live::new(limits)));
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let kept = "GET / HTTP/1.1\r\nhost: gate\r\n\r\n";
    for said in ["", "P", "GET / HTTP/1.1\r\nhost: ga", preface, kept] {
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(said.as_bytes()).await.unwrap();
        let began = Instant::now();
        let _ = soon(client.read_to_end(&mut Vec::new())).await;
        let after = Instant::now() - began;
        assert!(after >= Duration::from_millis(250) && after < Duration::from_secs(3), "{said:?}: {after:?}");
    }
}

#[tokio::test]
async fn who_comes_when_all_places_are_taken_has_that_of_the_longest_idle() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let answer = |_, _: &std::sync::Arc<tower_gemini_gateway::peer::Peer>| {
        std::future::ready(http::Response::new(Full::<Bytes>::default()))
    };
    let limits = Limits { connections: 4, ..Limits::default() };
    tokio::spawn(serve(listener, None, answer, std::future::pending(), || Duration::ZERO, Live::new(limits)));
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(addr).await.unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut good = TcpStream::connect(addr).await.unwrap();
    good.write_all(b"GET / HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    soon(good.read_to_end(&mut seen)).await.unwrap();
    assert!(seen.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&seen));
    assert_eq!(soon(silent[0].read_to_end(&mut seen)).await.unwrap_or(0), 0, "the first of them is gone");
}
