//! hyper-util's client works as it is: real HTTP over a loopback socket against the simulator.
#![cfg(all(feature = "sim", feature = "hyper"))]
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::error::find;
use tower_gemini::retry::{Attempts, Backoff, GaveUp, RetryLayer, RetryPolicy};
use tower_gemini::sim::{Fault, Rule, Simulator};
use tower_gemini::stack::GeminiStack;
use tower_gemini::verdict::{Outcome, Sent};
use tower_gemini::{BoxError, Kind, Verdict};

type Http = Client<HttpConnector, Full<Bytes>>;

fn client() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

/// The waits are real here, so they are a thousandth of the default's.
fn quick() -> RetryLayer {
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(60));
    RetryLayer::new(RetryPolicy::builder().backoff(backoff).build().unwrap())
}

fn ask(base: &str, method: &str) -> Request<Full<Bytes>> {
    Request::post(format!("{base}/v1beta/models/gemini-3.5-flash:{method}"))
        .header("content-type", "application/json")
        .body(Full::from(r#"{"contents":[{"parts":[{"text":"hello"}]}]}"#))
        .unwrap()
}

fn simulator(faults: impl IntoIterator<Item = Fault>) -> Simulator {
    let mut builder = Simulator::builder().head_latency(Duration::ZERO).chunk_interval(Duration::ZERO);
    for (n, fault) in faults.into_iter().enumerate() {
        builder = builder.rule(Rule::new(fault).on_call(n as u64 + 1));
    }
    builder.build().unwrap()
}

#[tokio::test]
async fn every_failure_that_can_pass_is_absorbed() {
    let sim = simulator([
        Fault::overloaded(),
        Fault::internal().gzipped(),
        // Not the HTML page, which asks for 30 s and would get them.
        Fault::unavailable(),
        Fault::reset_before_head(),
    ]);
    let server = sim.serve().await.unwrap();
    let stack = ServiceBuilder::new().layer(quick()).layer(ClassifyLayer::new()).service(client());
    let response = stack.oneshot(ask(&server.base_url(), "generateContent")).await.unwrap();
    assert_eq!(response.status(), 200);
    let report = Attempts::of(&response);
    assert_eq!(report.kinds(), [Kind::Overloaded, Kind::Internal, Kind::Unavailable, Kind::Transport]);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("candidates"));
    assert_eq!(sim.call_count(), 5);
}

#[tokio::test]
async fn every_error_the_simulator_knows_is_judged_and_arrives_unchanged() {
    // The kinds by what a user sees; the bodies are compared with what the same fault gives without the layer.
    for fault in Fault::every_error() {
        let name = fault.name();
        let status = fault.status();
        let sim = simulator([fault.clone(), fault]);
        let server = sim.serve().await.unwrap();
        let plain = client().request(ask(&server.base_url(), "generateContent")).await.unwrap();
        let expected = plain.into_body().collect().await.unwrap().to_bytes();
        let judged = ClassifyLayer::new().layer_client(client());
        let response = judged.oneshot(ask(&server.base_url(), "generateContent")).await.unwrap();
        let verdict = Verdict::of(&response);
        assert_eq!(Some(response.status()), status, "{name}");
        assert!(!matches!(verdict.kind(), None | Some(Kind::Unknown)), "{name}: {verdict:?}");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), expected, "{name}");
    }
}

/// `Layer::layer`, without importing the trait under another name.
trait LayerClient {
    fn layer_client(&self, client: Http) -> tower_gemini::classify::Classify<Http>;
}
impl LayerClient for ClassifyLayer {
    fn layer_client(&self, client: Http) -> tower_gemini::classify::Classify<Http> {
        tower::Layer::layer(self, client)
    }
}

#[tokio::test]
async fn a_refused_connection_was_not_sent_and_stays_findable() {
    // A port that was just closed: nobody listens.
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let base = format!("http://127.0.0.1:{port}");
    let before = client().request(ask(&base, "generateContent")).await.unwrap_err();
    assert!(before.is_connect());

    let stack = ServiceBuilder::new().layer(quick()).layer(ClassifyLayer::new()).service(client());
    let after: BoxError = stack.oneshot(ask(&base, "generateContent")).await.unwrap_err();
    let inner = find::<hyper_util::client::legacy::Error>(after.as_ref()).unwrap();
    assert!(inner.is_connect(), "the same predicate, through the stack");
    let verdict = Verdict::from_error(after.as_ref());
    assert_eq!((verdict.kind(), verdict.sent()), (Some(Kind::Transport), Sent::No));
}

#[tokio::test]
async fn a_connection_lost_after_sending_may_have_been_processed() {
    let sim = simulator([Fault::reset_before_head()]);
    let server = sim.serve().await.unwrap();
    let error = client().request(ask(&server.base_url(), "generateContent")).await.unwrap_err();
    let verdict = Verdict::from_error(&error);
    assert_eq!((verdict.kind(), verdict.sent()), (Some(Kind::Transport), Sent::Maybe));
}

#[tokio::test]
async fn a_spent_day_is_not_waited_for() {
    let sim = simulator([Fault::daily_quota_exhausted()]);
    let server = sim.serve().await.unwrap();
    let stack = ServiceBuilder::new().layer(quick()).layer(ClassifyLayer::new()).service(client());
    let response = stack.oneshot(ask(&server.base_url(), "generateContent")).await.unwrap();
    assert_eq!(Verdict::of(&response).kind(), Some(Kind::QuotaExhausted));
    assert!(Verdict::of(&response).server_delay().is_some(), "it carries a delay all the same");
    assert_eq!(Attempts::of(&response).gave_up(), Some(GaveUp::NotRetryable));
    assert_eq!(sim.call_count(), 1);
}

#[tokio::test]
async fn a_watched_stream_tells_how_it_ended() {
    let stream = "streamGenerateContent?alt=sse";
    for (fault, outcome) in [
        (None, Outcome::Complete),
        (Some(Fault::cut_stream_after(2)), Outcome::Failed(Kind::Truncated)),
        (Some(Fault::overloaded().in_stream_after(2)), Outcome::Failed(Kind::Overloaded)),
        (Some(Fault::cancelled().as_stream_tail_after(2)), Outcome::Failed(Kind::Cancelled)),
        (Some(Fault::reset_after_chunks(2)), Outcome::Failed(Kind::Transport)),
        (Some(Fault::blocked_prompt()), Outcome::Failed(Kind::ContentBlocked)),
    ] {
        let sim = simulator(fault.clone());
        let server = sim.serve().await.unwrap();
        let watching = ClassifyLayer::new().watch().layer_client(client());
        let response = watching.oneshot(ask(&server.base_url(), stream)).await.unwrap();
        let verdict = Verdict::of(&response);
        let _ = response.into_body().collect().await;
        assert_eq!(verdict.outcome(), Some(outcome), "{fault:?}");
    }
}

/// A client that does not take a request will not take it the next time, whatever the network is like.
#[tokio::test]
async fn what_the_client_does_not_take_is_usage_and_is_not_tried_again() {
    let sim = simulator([]);
    let server = sim.serve().await.unwrap();
    let (_, address) = server.base_url().split_once("//").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let path = "/v1beta/models/m:generateContent";
    let request = || Request::post(format!("https://{address}{path}"));
    for (request, what) in [
        (request(), "no TLS"),
        (Request::post(path), "relative"),
        (Request::connect(format!("http://{address}")).version(http::Version::HTTP_10), "method"),
        (request().uri(format!("http://{address}{path}")).version(http::Version::HTTP_09), "version"),
    ] {
        let request = request.body(Full::default()).unwrap();
        let stack = GeminiStack::new().layer(client());
        let error = stack.oneshot(request).await.unwrap_err();
        let verdict = Verdict::from_error(error.as_ref());
        assert_eq!((verdict.kind(), verdict.sent()), (Some(Kind::Usage), Sent::No), "{what}: {error:?}");
        assert_eq!(verdict.retryability(), tower_gemini::verdict::Retryability::Never, "{what}");
        assert_eq!(verdict.signal(), tower_gemini::verdict::Signal::Neutral, "{what}");
        assert!(!verdict.remedy().contains("network"), "{what}");
    }
    assert_eq!(sim.call_count(), 0);
    // A port that nobody listens on is the network's.
    let gone =
        Request::post("http://127.0.0.1:1/v1beta/models/m:generateContent").body(Full::default()).unwrap();
    let error = client().oneshot(gone).await.unwrap_err();
    assert_eq!(Verdict::from_error(&error).kind(), Some(Kind::Transport));
}

#[tokio::test]
async fn usage_is_one_attempt() {
    #[derive(Default)]
    struct Told(std::sync::Mutex<Vec<u32>>);
    impl tower_gemini::event::Observer for Told {
        fn on_event(&self, event: &tower_gemini::event::Event<'_>) {
            if let tower_gemini::event::Event::AttemptFailed { attempt, .. } = event {
                self.0.lock().unwrap().push(*attempt);
            }
        }
    }
    let told = std::sync::Arc::new(Told::default());
    let policy = RetryPolicy::builder().observer(told.clone()).build().unwrap();
    let service = RetryLayer::new(policy).layer(client());
    service.oneshot(ask("https://127.0.0.1:1", "generateContent")).await.unwrap_err();
    assert_eq!(*told.0.lock().unwrap(), [1]);
}
