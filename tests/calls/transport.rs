//! Failures without a response, of every client and timeout that is known, judged by what was sent.
#![cfg(all(feature = "reqwest", feature = "tower-http-06", feature = "tower-http-07"))]
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tower::ServiceExt;
use tower_gemini::verdict::{Retryability, Sent};
use tower_gemini::{BoxError, Kind, Verdict};

fn judge(error: &(dyn std::error::Error + 'static)) -> (Kind, Sent, Retryability) {
    let verdict = Verdict::from_error(error);
    (verdict.kind().unwrap(), verdict.sent(), verdict.retryability())
}

const NOT_SENT: (Kind, Sent, Retryability) = (Kind::Transport, Sent::No, Retryability::WithBackoff);
const MAYBE_SENT: (Kind, Sent, Retryability) = (Kind::Transport, Sent::Maybe, Retryability::WithBackoff);
const TIMED_OUT: (Kind, Sent, Retryability) =
    (Kind::DeadlineExceeded, Sent::Maybe, Retryability::WithBackoff);

/// A server that reads a request's head and then does as told with the line.
async fn server(hang_up: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1beta/models/m:generateContent", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            if !hang_up {
                held.push(stream);
            }
        }
    });
    url
}

#[tokio::test]
async fn reqwests_errors() {
    let client = reqwest::Client::new();
    let builder = client.post("not a url").send().await.unwrap_err();
    assert_eq!(judge(&builder), (Kind::Usage, Sent::No, Retryability::Never));

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = client.post(format!("http://{closed}/")).send().await.unwrap_err();
    assert_eq!(judge(&refused), NOT_SENT);

    let cut = client.post(server(true).await).body("{}").send().await.unwrap_err();
    assert_eq!(judge(&cut), MAYBE_SENT);
}

#[tokio::test(start_paused = true)]
async fn reqwests_timeout() {
    // The clock only runs ahead while nothing is on its way, so that the request is really sent first.
    let client = reqwest::Client::new();
    let request = client.post(server(false).await).timeout(Duration::from_secs(600)).body("{}");
    let error = request.send().await.unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(judge(&error), TIMED_OUT);
}

#[tokio::test(start_paused = true)]
async fn timeouts_of_tower_tokio_and_tower_http() {
    let service = tower::timeout::Timeout::new(
        tower::service_fn(|()| std::future::pending::<Result<(), BoxError>>()),
        Duration::from_secs(1),
    );
    assert_eq!(judge(service.oneshot(()).await.unwrap_err().as_ref()), TIMED_OUT);

    let elapsed =
        tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(judge(&std::io::Error::other(elapsed)), TIMED_OUT);

    let silent =
        || StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, BoxError>>());
    let body = tower_http_06::timeout::TimeoutBody::new(Duration::from_secs(1), silent());
    assert_eq!(judge(body.collect().await.unwrap_err().as_ref()), TIMED_OUT);
    let body = tower_http_07::timeout::TimeoutBody::new(Duration::from_secs(1), silent());
    assert_eq!(judge(body.collect().await.unwrap_err().as_ref()), TIMED_OUT);
}

#[tokio::test]
async fn hypers_own_errors() {
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = http::Request::post(server(true).await).body(Full::from("{}")).unwrap();
    let cut = client.request(request).await.unwrap_err();
    assert_eq!(judge(&cut), MAYBE_SENT);

    // A request body that fails is the caller's own fault: sending it again changes nothing.
    let failing = || StreamBody::new(futures_util::stream::iter([Err::<http_body::Frame<Bytes>, _>("lost")]));
    let client: Client<_, StreamBody<_>> = Client::builder(TokioExecutor::new()).build_http();
    let request = http::Request::post(server(false).await).body(failing()).unwrap();
    let own = client.request(request).await.unwrap_err();
    assert_eq!(judge(&own), (Kind::Transport, Sent::No, Retryability::Never));
}
