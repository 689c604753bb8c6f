//! The simulation: a bad minute of the API in 15 seconds, over a real socket.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::Layer;
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::error::find;
use tower_gemini::rate_limit::{RateLimitLayer, RateLimited};
use tower_gemini::reqwest::{ReqwestClient, ReqwestService};
use tower_gemini::retry::{Attempts, Backoff, RetryLayer, RetryPolicy, Schedule};
use tower_gemini::sim::{Call, CallCause, Fault, Rule, Simulator};
use tower_gemini::stack::GeminiStack;
use tower_gemini::verdict::Outcome;
use tower_gemini::{BoxError, Kind, Verdict};

use super::progress::{Progress, Status};
use super::record::{Failed, Phase, Recorder, Request, Run};

const REQUESTS: u64 = 120;
const EVERY: Duration = Duration::from_millis(125);
const FLASH: &str = "gemini-3.5-flash-lite";
const PRO: &str = "gemini-3.8-flash";
/// Asked once, by the request that is malformed.
const LITE: &str = "gemini-2.5-flash-lite";
const MALFORMED: u64 = 66;

const INTRO: &str = "\
A bad minute of the Gemini API, squeezed into 15 seconds: 120 requests, one each
125 ms, from reqwest through GeminiStack, all layers in their places, to a
simulator on 127.0.0.1. So that you need not wait, the layers' own times are scaled down
tenfold: backoff from 0.1 s (0.2 s for 503 high demand), cap 2 s, where the defaults are
1 s (2 s), cap 60 s; a circuit that opens does so for 0.2 s to 1.5 s instead of 2 s to 15 s.
Delays that the server names are obeyed in full.
";

const PHASES: [Phase; 6] = [
    Phase { sign: '1', from: 2_500, to: 4_000, refuses: false, what: "503 high demand, 4 of 5 calls" },
    Phase {
        sign: '2',
        from: 5_000,
        to: 6_000,
        refuses: true,
        what: "429 this minute's quota is spent, retry in 1.2 s",
    },
    Phase {
        sign: '3',
        from: 6_500,
        to: 9_000,
        refuses: false,
        what: "500 at random, connections lost, a malformed request",
    },
    Phase {
        sign: '4',
        from: 9_000,
        to: 10_500,
        refuses: false,
        what: "504, and error pages in HTML, in gzip, cut off",
    },
    Phase {
        sign: '5',
        from: 10_500,
        to: 12_000,
        refuses: false,
        what: "500 at random, a stream that breaks off",
    },
    Phase {
        sign: '6',
        from: 12_500,
        to: 15_000,
        refuses: true,
        what: "gemini-3.8-flash: this day's quota is spent",
    },
];

/// The weather. Rules with a narrow aim come first, since the first that matches wins.
fn simulator() -> Result<Simulator, BoxError> {
    let span = |from: u64, to: u64| Duration::from_millis(from)..Duration::from_millis(to);
    // Not `Fault::bad_gateway_html`: Google's page asks for 30 s of patience, which the layers would obey.
    let page = "<html><title>Error 502 (Server Error)!!1</title><b>502.</b> That\u{2019}s an error.</html>";
    let html = Fault::response(StatusCode::BAD_GATEWAY, "text/html; charset=UTF-8", page);
    // The limit is one that 15 s cannot reach: what the layer learns from this 429 is to wait, not to crawl.
    let per_minute = Fault::rate_limited().with_limit(1_000).with_retry_in(Duration::from_millis(1_200));
    let simulator = Simulator::builder()
        .seed(8)
        .head_latency(Duration::from_millis(60))
        .chunk_interval(Duration::from_millis(15))
        // The simulator does not look into requests, so a rule stands in for the check of this one.
        .rule(Rule::new(Fault::invalid_argument()).for_model(LITE))
        .rule(Rule::new(Fault::daily_quota_exhausted()).for_model(PRO).between(span(12_500, 60_000)))
        .rule(Rule::new(Fault::overloaded()).between(span(2_500, 4_000)).with_probability(0.8))
        .rule(Rule::new(per_minute).for_model(FLASH).between(span(5_000, 6_000)))
        // One at a time: a request that may have been processed is repeated once only, so one that loses two
        // connections in a row fails.
        .rule(Rule::new(Fault::reset_before_head()).between(span(6_500, 7_100)).times(1))
        .rule(Rule::new(Fault::connection_refused()).between(span(7_100, 7_700)).times(1))
        .rule(Rule::new(Fault::reset_before_head()).between(span(7_700, 8_300)).times(1))
        .rule(Rule::new(Fault::connection_refused()).between(span(8_300, 9_000)).times(1))
        .rule(
            Rule::new(Fault::deadline_exceeded().delayed(Duration::from_millis(300)))
                .between(span(9_000, 9_500))
                .times(1),
        )
        .rule(Rule::new(html).between(span(9_300, 10_500)).times(2))
        .rule(Rule::new(Fault::unavailable().gzipped()).between(span(9_500, 10_500)).times(2))
        .rule(Rule::new(Fault::overloaded().truncated_at(60)).between(span(9_800, 10_500)).times(2))
        .rule(Rule::new(Fault::reset_after_chunks(2)).between(span(10_500, 12_000)).times(1))
        .rule(Rule::new(Fault::internal()).between(span(7_500, 9_000)).with_probability(0.15))
        .rule(Rule::new(Fault::internal()).between(span(10_500, 12_000)).with_probability(0.15))
        .build()?;
    Ok(simulator)
}

type Stack = <GeminiStack as Layer<ReqwestService>>::Service;

/// The stack that everything is about: the classifier reads what went wrong, retry acts on it, the rate limit sees to it
/// that one 429 teaches all, and the circuit breaker spares a model that is down.
fn stack(
    client: &reqwest::Client,
    policy: RetryPolicy,
    limit: RateLimitLayer,
) -> Result<ReqwestClient<Stack>, BoxError> {
    let open = (Duration::from_millis(200), Duration::from_millis(1_500));
    let stack = GeminiStack::new()
        .retry(RetryLayer::new(policy))
        .rate_limit(limit)
        .circuit_breaker(CircuitBreakerLayer::builder().open_time(open.0, open.1).build()?);
    Ok(ReqwestClient::new(stack.layer(ReqwestService::new(client.clone()))))
}

/// The default policy, but for the scale (see `INTRO`), a seed, and who is told.
fn policy(recorder: Arc<Recorder>) -> Result<RetryPolicy, BoxError> {
    let backoff = |base| Backoff::new(Duration::from_millis(base), Duration::from_secs(2));
    let policy = RetryPolicy::builder()
        .backoff(backoff(100))
        .schedule(Kind::Overloaded, Schedule::waiting(backoff(200)))
        .seed(1)
        .observer(recorder)
        .build()?;
    Ok(policy)
}

pub(crate) async fn run(err_is_tty: bool, err: &mut dyn Write) -> Result<Run, BoxError> {
    let simulator = simulator()?;
    let server = simulator.serve().await?;
    // A proxy that is set for the outside has no business with a loopback address.
    let client = reqwest::Client::builder().no_proxy().build()?;
    let start = Instant::now();
    let recorder = Arc::new(Recorder::new(start));
    // No limits are set: the layer learns from the server's own 429s.
    let observer: Arc<Recorder> = Arc::clone(&recorder);
    let limit = RateLimitLayer::builder().observer(observer).build()?;
    let gemini = stack(&client, policy(Arc::clone(&recorder))?, limit)?;
    let mut progress = Progress::new(err_is_tty);
    told(writeln!(err, "{INTRO}"))?;

    let mut running = JoinSet::new();
    let mut requests: Vec<Request> = Vec::new();
    let mut sent = 0;
    let mut tick = tokio::time::interval(Progress::EVERY);
    while sent < REQUESTS || !running.is_empty() {
        let due = start + EVERY * u32::try_from(sent).unwrap_or(u32::MAX);
        tokio::select! {
            () = tokio::time::sleep_until(due), if sent < REQUESTS => {
                // Users do not wait for one another.
                let request = describe(&client, &server.base_url(), sent);
                running.spawn(ask(gemini.clone(), request, start));
                sent += 1;
            }
            Some(ended) = running.join_next() => requests.extend(ended),
            _ = tick.tick() => {
                let status = status(&recorder, requests.len(), running.len(), start);
                told(progress.show(&status, err))?;
            }
        }
    }
    let took = Instant::now().saturating_duration_since(start);
    told(progress.finish(&status(&recorder, requests.len(), running.len(), start), err))?;
    Ok(Run {
        planned: usize::try_from(REQUESTS)?,
        requests,
        seen: recorder.with(|seen| seen.clone()),
        calls: simulator.calls().iter().map(label).collect(),
        phases: PHASES.to_vec(),
        took,
    })
}

/// A closed stderr is no reason to stop: what counts is written to stdout.
fn told(result: io::Result<()>) -> Result<(), BoxError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// User request number `n`: every fourth to the larger model, every fifth streamed.
fn describe(client: &reqwest::Client, base: &str, n: u64) -> RequestBuilder {
    let model = match n {
        MALFORMED => LITE,
        n if n % 4 == 3 => PRO,
        _ => FLASH,
    };
    let method = if n % 5 == 4 { "streamGenerateContent?alt=sse" } else { "generateContent" };
    let mut body =
        json!({ "contents": [{ "role": "user", "parts": [{ "text": format!("Question {n}?") }] }] });
    if n == MALFORMED {
        body["generation_config"] = json!({ "tone": "friendly" });
    }
    client
        .post(format!("{base}/v1beta/models/{model}:{method}"))
        .header("x-goog-api-key", "a-key-that-the-simulator-does-not-look-at")
        .json(&body)
}

/// One user: sends the request and reads the answer to its end.
async fn ask(gemini: ReqwestClient<Stack>, request: RequestBuilder, start: Instant) -> Request {
    let began = Instant::now();
    let mut attempts = Attempts::default();
    let failure = match gemini.send(request).await {
        Err(error) => {
            let kind = Verdict::from_error(error.as_ref()).kind();
            let why = find::<RateLimited>(error.as_ref())
                .map_or("all that may be repeated was", |limited| limited.why().as_str());
            kind.map(|kind| Failed { kind, why, in_body: false })
        }
        Ok(response) => {
            // The layers' reports lie in the extensions, which `http` shows.
            let response = http::Response::from(response);
            attempts = Attempts::of(&response);
            let verdict = Verdict::of(&response);
            let body = response.into_body().collect().await;
            let gave_up = attempts.gave_up().map_or("failed", |why| why.as_str());
            let broke_off =
                |kind| Failed { kind, why: "part of the answer had been delivered", in_body: true };
            match (verdict.kind(), verdict.outcome(), body) {
                (Some(kind), ..) => Some(Failed { kind, why: gave_up, in_body: false }),
                (None, Some(Outcome::Failed(kind)), _) => Some(broke_off(kind)),
                (None, _, Err(_)) => Some(broke_off(Kind::Truncated)),
                (None, _, Ok(_)) => None,
            }
        }
    };
    let now = Instant::now();
    let absorbed = if failure.is_none() { attempts.kinds().to_vec() } else { Vec::new() };
    Request {
        ended: now.saturating_duration_since(start),
        latency: now.saturating_duration_since(began),
        attempts: attempts.made(),
        absorbed,
        failure,
    }
}

/// What a call was answered with, in a word or two.
fn label(call: &Call) -> String {
    let status = call.status().map_or_else(|| "no answer".to_owned(), |status| status.as_u16().to_string());
    match call.cause() {
        CallCause::Healthy => format!("{status} answered"),
        CallCause::Fault("response") => format!("{status} page in HTML"),
        CallCause::Fault(name) => format!("{status} {}", name.replace('_', " ")),
        other => format!("{status} {other:?}"),
    }
}

fn status(recorder: &Recorder, done: usize, in_flight: usize, start: Instant) -> Status {
    recorder.with(|seen| Status {
        elapsed: Instant::now().saturating_duration_since(start),
        done,
        planned: usize::try_from(REQUESTS).unwrap_or(usize::MAX),
        in_flight,
        retries: seen.waits.len(),
        last: seen.failures.last().map(|failure| failure.kind),
    })
}
