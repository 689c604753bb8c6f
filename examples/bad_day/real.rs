//! One question to the real API, or to any endpoint that speaks like it.

use std::future::Future;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::BodyExt;
use reqwest::redirect::Policy;
use reqwest::{Body, Client, RequestBuilder, Url};
use serde_json::json;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, timeout_at};
use tower::ServiceBuilder;
use tower_gemini::classify::{Classify, ClassifyLayer};
use tower_gemini::event::{Event, Observer};
use tower_gemini::reqwest::{ReqwestClient, ReqwestService};
use tower_gemini::retry::{Attempts, Retry, RetryLayer, RetryPolicy};
use tower_gemini::verdict::{Outcome, Retryability};
use tower_gemini::{BoxError, Kind, Verdict};

use super::answer::Answer;
use super::args::Ask;
use super::problem::Problem;

/// What the layers tell while they work. They call from inside the request, so it is handed to a channel.
struct Teller(UnboundedSender<Told>);

enum Told {
    Waiting { attempt: u32, line: String },
    GaveUp { attempts: u32 },
}

impl Observer for Teller {
    fn on_event(&self, event: &Event<'_>) {
        let told = match event {
            Event::Waiting { attempt, wait, verdict, .. } => {
                let kind = verdict.kind().unwrap_or(Kind::Unknown);
                let server = verdict.retryability() == Retryability::AfterServerDelay;
                let whose = if server { "server" } else { "own backoff" };
                let (failed, wait) = (attempt.saturating_sub(1), wait.as_secs_f64());
                let line = format!("attempt {failed}: {kind}, waiting {wait:.1} s ({whose})\u{2026}");
                Told::Waiting { attempt: *attempt, line }
            }
            Event::GaveUp { attempts, .. } => Told::GaveUp { attempts: *attempts },
            _ => return,
        };
        // Nobody listens any more once the deadline has passed.
        let _ = self.0.send(told);
    }
}

type Stack = Retry<Classify<ReqwestService>>;

fn stack(ask: &Ask, teller: Teller) -> Result<(Client, ReqwestClient<Stack>), BoxError> {
    // No redirects: reqwest would take the key along to wherever it is sent.
    let mut client = Client::builder().connect_timeout(Duration::from_secs(10)).redirect(Policy::none());
    if ask.base_url.host_str().is_some_and(|host| host == "localhost" || host.starts_with("127.")) {
        client = client.no_proxy();
    }
    let client = client.build()?;
    let policy = RetryPolicy::builder()
        .attempts(ask.attempts)
        .deadline(ask.deadline)
        // A budget bounds the retries of many requests; there is only this one.
        .without_budget()
        .observer(Arc::new(teller));
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(policy.build()?))
        .layer(ClassifyLayer::new().watch())
        .service(ReqwestService::new(client.clone()));
    Ok((client, ReqwestClient::new(stack)))
}

fn request(client: &Client, ask: &Ask) -> RequestBuilder {
    let body = json!({ "contents": [{ "role": "user", "parts": [{ "text": ask.prompt }] }] });
    let request = client.post(url(ask)).json(&body);
    match &ask.key {
        Some(key) => request.header("x-goog-api-key", key.clone()),
        None => request,
    }
}

fn url(ask: &Ask) -> Url {
    let mut url = ask.base_url.clone();
    // A base may end with its version, or with a slash, or with neither.
    let has_version =
        url.path().trim_end_matches('/').rsplit('/').next().is_some_and(|s| s.starts_with("v1"));
    let method = if ask.stream { "streamGenerateContent" } else { "generateContent" };
    let model = if ask.model.contains('/') { ask.model.clone() } else { format!("models/{}", ask.model) };
    // Fails only for URLs such as `mailto:`, which the arguments do not let through.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty();
        if !has_version {
            path.push("v1beta");
        }
        path.extend(format!("{model}:{method}").split('/'));
    }
    if ask.stream {
        url.set_query(Some("alt=sse"));
    }
    url
}

/// Asks, and writes the answer to `out`, everything else to `err`. Whether there was a good answer.
pub(crate) async fn run(ask: &Ask, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<bool> {
    let started = Instant::now();
    let mut answer = Answer::default();
    let mut attempts = 1;
    let result = converse(ask, started + ask.deadline, &mut answer, &mut attempts, out, err).await?;
    if answer.ends_mid_line() {
        writeln!(out)?;
    }
    // So that on a terminal the answer stands before what is said about it.
    out.flush()?;
    let tries = if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
    let took = Instant::now().saturating_duration_since(started).as_secs_f64();
    match &result {
        Ok(()) => writeln!(err, "{}: {tries}, {}, {took:.1} s", ask.model, answer.numbers())?,
        Err(problem) => writeln!(err, "error after {tries} in {took:.1} s: {problem}")?,
    }
    Ok(result.is_ok())
}

async fn converse(
    ask: &Ask,
    deadline: Instant,
    answer: &mut Answer,
    attempts: &mut u32,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Result<(), Problem>> {
    let (teller, mut told) = mpsc::unbounded_channel();
    let (client, gemini) = match stack(ask, Teller(teller)) {
        Ok(made) => made,
        Err(error) => return Ok(Err(Problem::of_error("the client cannot be set up", error.as_ref()))),
    };
    let late = || Problem::late(ask.deadline);
    let sent = gemini.send(request(&client, ask));
    let response = match listen(timeout_at(deadline, sent), &mut told, attempts, err).await? {
        Err(_) => return Ok(Err(late())),
        Ok(Err(error)) => {
            let host = ask.base_url.host_str().unwrap_or("the endpoint");
            return Ok(Err(Problem::of_error(&format!("no answer from {host}"), error.as_ref())));
        }
        Ok(Ok(response)) => Response::from(response),
    };
    *attempts = Attempts::of(&response).made();
    let verdict = Verdict::of(&response);
    if !verdict.is_success() {
        return Ok(Err(Problem::of_verdict(&verdict)));
    }
    if response.status() != StatusCode::OK {
        return Ok(Err(Problem::odd_status(response.status())));
    }
    read(ask, response, deadline, answer, out).await.map(|read| read.unwrap_or_else(|| Err(late())))
}

/// Waits for `sent`, and meanwhile writes what the layers tell.
async fn listen<T>(
    sent: impl Future<Output = T>,
    told: &mut UnboundedReceiver<Told>,
    attempts: &mut u32,
    err: &mut dyn Write,
) -> io::Result<T> {
    let mut hear = |told: Told| match told {
        Told::Waiting { attempt, line } => {
            *attempts = attempt;
            writeln!(err, "{line}")
        }
        Told::GaveUp { attempts: made } => {
            *attempts = made;
            Ok(())
        }
    };
    let mut sent = pin!(sent);
    let result = loop {
        tokio::select! {
            Some(told) = told.recv() => hear(told)?,
            result = &mut sent => break result,
        }
    };
    while let Ok(told) = told.try_recv() {
        hear(told)?;
    }
    Ok(result)
}

/// `None` if the deadline came first.
async fn read(
    ask: &Ask,
    response: Response<Body>,
    deadline: Instant,
    answer: &mut Answer,
    out: &mut dyn Write,
) -> io::Result<Option<Result<(), Problem>>> {
    let verdict = Verdict::of(&response);
    let (head, mut body) = response.into_parts();
    let mut whole = Vec::new();
    loop {
        match timeout_at(deadline, body.frame()).await {
            Err(_) => return Ok(None),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Ok(Some(Err(Problem::of_error("the answer broke off", &error)))),
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                if ask.stream { answer.stream(&data, out)? } else { whole.extend_from_slice(&data) }
            }
        }
    }
    let judged = if ask.stream {
        answer.end_of_stream(out)?;
        answer.error(&head.headers)
    } else {
        answer.whole(&whole, out)?;
        Some(Verdict::from_parts(head.status, &head.headers, whole.into()))
    };
    Ok(Some(match (judged.filter(|verdict| !verdict.is_success()), verdict.outcome()) {
        (Some(judged), _) => Err(Problem::of_verdict(&judged)),
        (None, Some(Outcome::Failed(kind))) => Err(Problem::of_kind(kind)),
        (None, _) if !answer.has_text() => Err(Problem::of_kind(Kind::EmptyResponse)),
        (None, _) => Ok(()),
    }))
}
