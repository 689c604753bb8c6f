//! Requests that are wrong, and upstreams that are.

use std::time::Duration;

use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tower_gemini::sim::Simulator;

use crate::world::{GENERATE, Gate, HELLO, KEY, Upstream, response};

#[tokio::test]
async fn what_is_no_http_gets_an_error_in_googles_form() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let (long, many) = ("a".repeat(1_000_000), "x: y\r\n".repeat(1000));
    for (request, status) in [
        ("GARBAGE\r\n\r\n".to_owned(), 400),
        ("\0\x01\x02 / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /a b HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\nhost: a\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: me@a\r\nconnection: close\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nexpect: 200-ok\r\nconnection: close\r\n\r\n".to_owned(), 417),
        (format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), 431),
        // Nobody knows what the line would have been.
        (format!("GET /{} HTTP/1.1\r\n\r\n", &long[..100_000]), 431),
        ("CONNECT example.com:443 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(), 400),
        ("OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(), 400),
    ] {
        let answer = gate.say(&request).await;
        let request = &request[..request.len().min(60)];
        assert_eq!(answer.status.as_u16(), status, "{request:?}");
        assert_eq!(answer.google()["status"], "INVALID_ARGUMENT", "{request:?}");
    }
    assert!(upstream.is_quiet(Duration::from_millis(50)).await);
    let (answer, _) = tokio::join!(gate.get("/v1/x"), upstream.answer(response("200 OK", "", "fine")));
    assert_eq!(answer.body, "fine", "and it still serves");
}

/// Bare answers of an upstream are not taken for refusals.
#[tokio::test]
async fn an_empty_400_of_the_upstream_stays_empty() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let (answer, _) =
        tokio::join!(gate.post(GENERATE, HELLO), upstream.answer(response("400 Bad Request", "", "")));
    assert_eq!((answer.status, &*answer.body), (StatusCode::BAD_REQUEST, &b""[..]));
}

#[tokio::test]
async fn an_upstream_that_refuses_connections_is_a_503() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let gate = Gate::to(&url, &["--attempts", "1"]).await;
    let answer = gate.post(&format!("{GENERATE}?key={KEY}"), HELLO).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let error = answer.google();
    assert_eq!(
        (error["status"].as_str(), &error["details"][0]["reason"]),
        (Some("UNAVAILABLE"), &"TRANSPORT".into())
    );
    assert!(!error.to_string().contains("AIza"));
    let log = gate.logged().await;
    assert!(log.contains(" 503 transport ") && !log.contains("AIza"), "{log}");
}

#[tokio::test]
async fn a_connection_that_is_lost_in_the_call_is_a_502() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &["--attempts", "1"]).await;
    let (answer, ()) = tokio::join!(gate.post(GENERATE, HELLO), async {
        upstream.call().await.body().await;
    });
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.google()["details"][0]["reason"], "TRANSPORT");
}

#[tokio::test]
async fn an_upstream_that_stays_silent_is_a_504() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &["--attempts", "1", "--deadline", "0.2"]).await;
    let (answer, _call) = tokio::join!(gate.post(GENERATE, HELLO), upstream.call());
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.google()["status"], "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_spent_minute_is_a_429_that_says_when() {
    let simulator = Simulator::builder().head_latency(Duration::from_millis(1)).build().unwrap();
    let server = simulator.serve().await.unwrap();
    let gate = Gate::to(&server.base_url(), &["--requests-per-minute=2", "--deadline=1"]).await;
    for _ in 0..2 {
        assert_eq!(gate.post(GENERATE, HELLO).await.status, StatusCode::OK);
    }
    let answer = gate.post(GENERATE, HELLO).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.google()["status"], "RESOURCE_EXHAUSTED");
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((59..=61).contains(&after), "{after}");
    assert_eq!(simulator.call_count(), 2);
    let other = "/v1beta/models/gemini-3.8-flash:generateContent";
    assert_eq!(gate.post(other, HELLO).await.status, StatusCode::OK, "another model has a quota of its own");
}

/// The upload ends early: nobody is left who could be answered, and the upstream must not take it for whole.
#[tokio::test]
async fn an_upload_that_is_cut_is_cut_for_the_upstream() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let mut client = gate.connect().await;
    client
        .write_all(b"POST /upload/v1beta/files HTTP/1.1\r\nhost: gate\r\ncontent-length: 9\r\n\r\nhalf")
        .await
        .unwrap();
    let mut call = upstream.call().await;
    drop(client);
    call.closed().await;
    assert!(upstream.is_quiet(Duration::from_millis(200)).await, "and it is not repeated");
}
