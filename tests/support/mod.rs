//! What the tests of several layers share: a service that watches how it is used.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part of it, and a failing test may panic"
)]

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::Instant;
use tower::Service;
use tower_gemini::retry::Attempt;
use tower_gemini::{BoxError, Rejected};

pub(crate) type Body = Full<Bytes>;

/// What the probe answers a call with.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Ok,
    /// Status and body.
    Status(u16, String),
    /// With a header.
    Header(u16, &'static str, &'static str),
    Io(std::io::ErrorKind),
    /// Turned away until so long after the call.
    Rejected(Option<Duration>),
    Hang,
}

/// A service that breaks no rule and tolerates no breach: it forgets readiness on `clone`, may be not ready
/// for a while, and counts calls of an instance that was not polled ready.
pub(crate) struct Probe {
    state: Arc<Mutex<State>>,
    ready: bool,
    pending: u32,
}

#[derive(Default)]
pub(crate) struct State {
    script: VecDeque<Answer>,
    /// When the script is over.
    then: Option<Answer>,
    pub(crate) calls: Vec<Call>,
    pub(crate) violations: u32,
    pub(crate) ready_polls: u32,
    /// Polls answered `Pending` before each readiness.
    pub(crate) not_ready: u32,
    /// Calls whose future was dropped before it was done.
    pub(crate) dropped: u32,
    pub(crate) in_flight: u32,
    pub(crate) fail_ready: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) attempt: u32,
    pub(crate) path: String,
}

impl Probe {
    pub(crate) fn new(script: impl IntoIterator<Item = Answer>, then: Answer) -> Self {
        let state = State { script: script.into_iter().collect(), then: Some(then), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), ready: false, pending: 0 }
    }

    pub(crate) fn always(answer: Answer) -> Self {
        Self::new([], answer)
    }

    pub(crate) fn state(&self) -> Arc<Mutex<State>> {
        Arc::clone(&self.state)
    }
}

impl State {
    /// Before the rest of the script.
    pub(crate) fn put_first(&mut self, answer: Answer) {
        self.script.push_front(answer);
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), ready: false, pending: 0 }
    }
}

impl Service<Request<Body>> for Probe {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut state = self.state.lock().unwrap();
        state.ready_polls += 1;
        if state.fail_ready {
            return Poll::Ready(Err("the probe is closed".into()));
        }
        if !self.ready && self.pending < state.not_ready {
            self.pending += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.pending = 0;
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut state = self.state.lock().unwrap();
        if !std::mem::take(&mut self.ready) {
            state.violations += 1;
        }
        state.calls.push(Call {
            at: Instant::now(),
            attempt: Attempt::of(&request),
            path: request.uri().path().to_owned(),
        });
        let answer = state.script.pop_front().or(state.then.clone()).expect("an answer");
        state.in_flight += 1;
        let flight = Flight { state: Arc::clone(&self.state), landed: false };
        Box::pin(async move {
            let mut flight = flight;
            let result = match answer {
                Answer::Ok => Ok(Response::new(Body::from(good_body()))),
                Answer::Status(status, body) => Ok(respond(status, body)),
                Answer::Header(status, name, value) => {
                    let mut response = respond(status, String::new());
                    response.headers_mut().insert(name, value.parse().unwrap());
                    Ok(response)
                }
                Answer::Io(kind) => Err(std::io::Error::from(kind).into()),
                Answer::Rejected(wait) => {
                    let rejected = Rejected::new("the probe says so");
                    Err(match wait {
                        Some(wait) => rejected.with_until(Instant::now() + wait),
                        None => rejected,
                    }
                    .into())
                }
                Answer::Hang => std::future::pending().await,
            };
            flight.landed = true;
            result
        })
    }
}

/// Notes when a call's future is dropped before its end.
struct Flight {
    state: Arc<Mutex<State>>,
    landed: bool,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap();
        state.in_flight -= 1;
        state.dropped += u32::from(!self.landed);
    }
}

pub(crate) fn respond(status: u16, body: String) -> Response<Body> {
    Response::builder().status(status).body(Body::from(body)).unwrap()
}

pub(crate) fn request() -> Request<Body> {
    Request::post("http://127.0.0.1/v1beta/models/gemini-9-flash:generateContent")
        .body(Body::from(r#"{"contents":[{"parts":[{"text":"hello"}]}]}"#))
        .unwrap()
}

pub(crate) fn good_body() -> &'static str {
    r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}"#
}

/// An error body in Google's plain form.
pub(crate) fn error(code: u16, status: &str, message: &str) -> Answer {
    Answer::Status(
        code,
        format!(r#"{{"error":{{"code":{code},"message":"{message}","status":"{status}"}}}}"#),
    )
}

/// A 429 over a quota, with a server delay.
pub(crate) fn quota(id: &str, delay: &str) -> Answer {
    Answer::Status(
        429,
        format!(
            r#"{{"error":{{"code":429,"message":"over quota","status":"RESOURCE_EXHAUSTED","details":[
            {{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{{"quotaMetric":"m/requests","quotaId":"{id}","quotaValue":"5"}}]}},
            {{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{delay}"}}]}}}}"#
        ),
    )
}

/// A waker that asks something of a layer when it is dropped, which would never end under the layer's lock.
pub(crate) fn curious(ask: impl Fn() + Send + Sync + 'static) -> std::task::Waker {
    struct Curious(Arc<dyn Fn() + Send + Sync>);

    impl std::task::Wake for Curious {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Curious {
        fn drop(&mut self) {
            // Asked by another thread, so that a failure is a failed test and not one that hangs.
            let ask = Arc::clone(&self.0);
            let (told, tells) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                ask();
                told.send(())
            });
            let answered = tells.recv_timeout(Duration::from_secs(5)).is_ok();
            assert!(answered || std::thread::panicking(), "a waker was dropped under the lock");
        }
    }

    std::task::Waker::from(Arc::new(Curious(Arc::new(ask))))
}
