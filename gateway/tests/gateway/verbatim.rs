//! What is passed on, and that it is passed on as it is.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{GENERATE, Gate, HELLO, KEY, Upstream, response, soon};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

#[tokio::test]
async fn a_target_arrives_byte_for_byte() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    for target in [
        "/",
        "/?",
        "/v1beta/models?pageSize=5&&&=x&key=a%2Bb",
        "/v1/models/gemini-3.5-flash-lite:generateContent?alt=sse",
        "/v1beta/tunedModels/a%2Fb%3ac:generateContent",
        "/a/../b/./c//d/%2e%2e/;p=1?q=/../?&r=%zz",
        "/v1beta/files/%E2%82%AC%00?x=%0d%0a",
        "/caf\u{e9}/{id}|\"^~'()*!@$,[]?{}|^`\\",
        "/upload/v1beta/files?upload_id=ABC&upload_protocol=resumable",
        "/healthz/",
    ] {
        let (answer, call) = tokio::join!(gate.get(target), upstream.answer(OK));
        assert_eq!((answer.status, &*answer.body), (StatusCode::OK, &b"ok"[..]), "{target}");
        assert_eq!(call.line(), format!("GET {target} HTTP/1.1"));
    }
}

#[tokio::test]
async fn an_absolute_target_asks_the_upstream_and_nobody_else() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let (_, call) = tokio::join!(gate.get("http://169.254.169.254/latest?a=b"), upstream.answer(OK));
    assert_eq!(call.line(), "GET /latest?a=b HTTP/1.1");
}

#[tokio::test]
async fn a_prefix_of_the_upstream_stands_before_the_path() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&format!("{}/one/two/", upstream.url), &[]).await;
    let (_, call) = tokio::join!(gate.get("//x/../y?z"), upstream.answer(OK));
    assert_eq!(call.line(), "GET /one/two//x/../y?z HTTP/1.1");
}

#[tokio::test]
async fn any_method_is_passed_on_and_nothing_is_added() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FROB"] {
        let request = format!("{method} /v1/x HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n\r\n");
        let (answer, call) = tokio::join!(gate.say(request), upstream.answer(OK));
        assert_eq!(call.line(), format!("{method} /v1/x HTTP/1.1"));
        let host = upstream.url.strip_prefix("http://").unwrap();
        assert_eq!(call.headers(), [("host", host)], "{method}: no length, no coding, no agent");
        assert_eq!(answer.header("content-length"), Some("2"), "{method}");
        assert_eq!(answer.body.len(), if method == "HEAD" { 0 } else { 2 });
    }
}

#[tokio::test]
async fn headers_are_passed_on_but_for_those_of_one_connection() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let request = format!(
        "POST {GENERATE} HTTP/1.1\r\nuser-agent: sdk/1\r\nHost: gate\r\nx-one: 1\r\nConnection: close, X-Private\r\n\
         x-private: 1\r\nkeep-alive: timeout=5\r\nproxy-authorization: Basic x\r\nproxy-connection: close\r\n\
         te: trailers\r\ntrailer: x-sum\r\nupgrade: h2c\r\nx-goog-api-key: {KEY}\r\nx-two: a\r\nx-three:  spaced  out \r\n\
         x-two: b\r\naccept-encoding: gzip;q=0, br\r\ncontent-type: application/json\r\nx-empty:\r\ncontent-length: {}\r\n\r\n{HELLO}",
        HELLO.len()
    );
    let answer = response(
        "200 OK",
        "x-last: z\r\nset-cookie: a=1\r\nkeep-alive: timeout=5\r\ncontent-type: application/json\r\nvary: a\r\n\
         set-cookie: b=2\r\nproxy-authenticate: Basic\r\nupgrade: h2c\r\nserver: ESF\r\nalt-svc: h3=\":443\"\r\nvary: b\r\n",
        "{}",
    );
    let (answer, call) = tokio::join!(gate.say(request), upstream.answer(answer));
    let host = upstream.url.strip_prefix("http://").unwrap();
    let length = HELLO.len().to_string();
    assert_eq!(
        call.headers(),
        [
            ("user-agent", "sdk/1"),
            ("host", host),
            ("x-one", "1"),
            ("x-goog-api-key", KEY),
            ("x-two", "a"),
            ("x-two", "b"),
            ("x-three", "spaced  out"),
            ("accept-encoding", "gzip;q=0, br"),
            ("content-type", "application/json"),
            ("x-empty", ""),
            ("content-length", &length),
        ]
    );
    let shown: Vec<_> = answer.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(
        shown,
        [
            ("x-last", "z"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("content-type", "application/json"),
            ("vary", "a"),
            ("vary", "b"),
            ("server", "ESF"),
            ("alt-svc", "h3=\":443\""),
            ("content-length", "2"),
        ]
    );
}

/// Of every kind that is not retried, so that the first answer is the last.
#[tokio::test]
async fn what_the_upstream_says_is_said_word_for_word() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &["--attempts", "1"]).await;
    let error = r#"[{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT",  "details":[]}}]"#;
    let daily = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"x","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier","quotaValue":"50"}]}]}}"#;
    for (status, headers, body) in [
        ("400 Bad Request", "content-type: application/json\r\n", error),
        (
            "404 Not Found",
            "content-type: text/html; charset=UTF-8\r\n",
            "<!DOCTYPE html>\n<title>Error 404</title>\0\r\n",
        ),
        ("500 Whatever", "content-type: text/event-stream\r\n", "{\"error\": {"),
        ("418 I'm a teapot", "", ""),
        ("302 Found", "location: https://elsewhere.example/?a=b\r\n", "moved"),
        ("304 Not Modified", "etag: \"x\"\r\n", ""),
        ("200 OK", "content-type: application/json\r\n", "not json at all"),
        // The last, since it closes the door.
        (
            "429 Too Many Requests",
            "content-type: application/json; charset=UTF-8\r\nretry-after: 7\r\n",
            daily,
        ),
    ] {
        let answer = response(status, headers, body);
        let (answer, _) = tokio::join!(gate.post(GENERATE, HELLO), upstream.answer(answer));
        assert_eq!(answer.status.as_str(), &status[..3]);
        assert_eq!(answer.body, body, "{status}");
        for line in headers.split_terminator("\r\n") {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(answer.header(name), Some(value), "{status}");
        }
    }
}

#[tokio::test]
async fn twenty_mebibytes_go_either_way_over_both_versions() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let large: Bytes =
        (0..20 * 1024 * 1024_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let client = Client::builder(TokioExecutor::new())
            .http2_only(version == Version::HTTP_2)
            .build_http::<Full<Bytes>>();
        for target in [GENERATE, "/upload/v1beta/files", "/v1beta/openai/chat/completions"] {
            let request =
                Request::post(format!("http://{}{target}", gate.addr)).body(Full::new(large.clone()));
            let exchange = async {
                let mut call = upstream.call().await;
                assert_eq!(call.body().await, large, "{version:?} {target}");
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
                call.send(head).await;
                for chunk in large.chunks(1_000_000) {
                    call.send(format!("{:x}\r\n", chunk.len())).await;
                    call.send(chunk).await;
                    call.send("\r\n").await;
                }
                call.send("0\r\n\r\n").await;
            };
            let answered = async {
                let response = client.request(request.unwrap()).await.unwrap();
                assert_eq!(response.version(), version);
                assert!(!response.headers().contains_key("content-length"));
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), large);
            };
            tokio::join!(soon(answered), soon(exchange));
        }
    }
}

/// Each chunk is sent only after the one before was received, so nothing can be held or merged.
#[tokio::test]
async fn a_stream_arrives_chunk_by_chunk() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let mut client = gate.connect().await;
    let target = "/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent?alt=sse";
    client
        .write_all(
            format!("POST {target} HTTP/1.1\r\nhost: gate\r\ncontent-length: 2\r\n\r\n{{}}").as_bytes(),
        )
        .await
        .unwrap();
    let mut call = upstream.call().await;
    call.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let mut seen = Vec::new();
    for n in 0..20 {
        let event =
            format!("data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{n}\"}}]}}}}]}}\n");
        // Upper case, as hyper writes it.
        let chunk = format!("{:X}\r\n{event}\r\n", event.len());
        call.send(&chunk).await;
        while !seen.ends_with(chunk.as_bytes()) {
            assert!(soon(client.read_buf(&mut seen)).await.unwrap() > 0);
        }
    }
    call.send("0\r\n\r\n").await;
    while !seen.ends_with(b"0\r\n\r\n") {
        assert!(soon(client.read_buf(&mut seen)).await.unwrap() > 0);
    }
}

/// The upload is streamed: its beginning is at the upstream before its end was sent.
#[tokio::test]
async fn an_upload_arrives_while_it_is_sent() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let mut client = gate.connect().await;
    client
        .write_all(b"PUT /upload/v1beta/files HTTP/1.1\r\nhost: gate\r\ncontent-length: 10\r\n\r\nfirst")
        .await
        .unwrap();
    let mut call = upstream.call().await;
    client.write_all(b"whole").await.unwrap();
    assert_eq!(call.body().await, b"firstwhole");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&upstream.url, &[]).await;
    let mut client = gate.connect().await;
    let request = b"GET /v1/x HTTP/1.1\r\nhost: gate\r\n\r\n";
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    client.write_all(request).await.unwrap();
    let mut call = upstream.call().await;
    for _ in 0..3 {
        call.send(answer).await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"ok") {
            assert!(soon(client.read_buf(&mut seen)).await.unwrap() > 0);
        }
        client.write_all(request).await.unwrap();
        assert_eq!(call.next().await.line(), "GET /v1/x HTTP/1.1");
    }
    assert!(upstream.is_quiet(Duration::from_millis(100)).await, "no second connection");
}
