//! What is kept of a call, and how it is found out.

use std::cell::RefCell;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use jiff::Timestamp;
use pin_project_lite::pin_project;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use tower_gemini::Kind;
use tower_gemini::event::{Event, Observer};
use tower_gemini::observe::Call;
use tower_gemini::verdict::{Outcome, Verdict};

use crate::clients::Admitted;

/// The longest name, in bytes; the rest is cut off.
const NAME: usize = 200;
/// The longest message.
const MESSAGE: usize = 500;
/// Steps that are kept of one call.
const STEPS: usize = 64;

/// One call that is over. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    /// Of the row in the file; 0 before it has one.
    pub id: i64,
    /// When it ended, since 1970.
    pub time: i64,
    pub request_id: String,
    pub client: Option<String>,
    pub project: Option<String>,
    /// That was asked.
    pub model: Option<String>,
    /// That answered, where it is another one.
    pub answered: Option<String>,
    /// `free` or `paid`, where a quota that refused the call names it.
    pub tier: Option<String>,
    pub method: String,
    pub stream: bool,
    /// Of the answer; `None` where there was none.
    pub status: Option<u16>,
    /// `complete`, `failed` or `dropped`: the client left.
    pub outcome: String,
    /// Of the failure.
    pub kind: Option<String>,
    pub message: Option<String>,
    /// Why it was not tried again.
    pub gave_up: Option<String>,
    pub attempts: u32,
    pub waited: u64,
    pub first_byte: Option<u64>,
    pub latency: u64,
    /// Of the request's body, where the client said it.
    pub request_bytes: Option<u64>,
    pub input_tokens: Option<u64>,
    pub cached_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub thought_tokens: Option<u64>,
    /// Attempts that were answered with a 429, the last one included.
    pub rate_limited: u32,
    /// The same of a 500.
    pub internal: u32,
    /// An array of [`Step`]s.
    pub steps: Value,
}

impl Record {
    /// Whether it failed, waited for another attempt, or needed one.
    pub const fn had_trouble(&self) -> bool {
        self.kind.is_some() || self.attempts > 1 || self.waited > 0
    }
}

/// Something that happened on the way of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Milliseconds since its beginning.
    pub at: u64,
    /// `attempt_failed`, `waiting`, `queued`, `rate_limited`, `fell_back`, `fallback_refused`, `recovered` or `gave_up`.
    pub event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Milliseconds that the wait that begins here was decided to take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What the server knows of a call, and what happens to it on its way. An
/// [`Attachment`](tower_gemini::observe::Attachment) of the request, or a part of one.
#[derive(Debug)]
pub struct Trace {
    pub client: Option<Box<str>>,
    pub project: Option<Box<str>>,
    pub request_id: Option<Box<str>>,
    /// The caller's trace, where it names one.
    pub trace_id: Option<Box<str>>,
    /// Whose connection it came over.
    pub address: Option<IpAddr>,
    pub request_bytes: Option<u64>,
    /// The client's call, for what it costs.
    pub admitted: Option<Admitted>,
    /// Why the upstream could not be asked.
    cause: OnceLock<&'static str>,
    began: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    steps: Vec<Step>,
    answered: Option<String>,
    tier: Option<&'static str>,
    rate_limited: u32,
    internal: u32,
}

impl Trace {
    /// Of a call that begins now.
    pub fn new() -> Self {
        Self {
            client: None,
            project: None,
            request_id: None,
            trace_id: None,
            address: None,
            request_bytes: None,
            admitted: None,
            cause: OnceLock::new(),
            began: Instant::now(),
            seen: Mutex::default(),
        }
    }

    /// The model that a fallback has asked last, if one has.
    pub fn answered(&self) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).answered.clone()
    }

    /// Why the upstream could not be asked, where that is known.
    pub fn cause(&self) -> Option<&'static str> {
        self.cause.get().copied()
    }

    fn note(&self, event: &Event<'_>) {
        let mut step = Step {
            at: millis(Instant::now().saturating_duration_since(self.began)),
            event: "",
            attempt: None,
            kind: None,
            status: None,
            wait: None,
            note: None,
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match *event {
            Event::AttemptFailed { attempt, verdict, .. } => {
                seen.count(verdict);
                step.event = "attempt_failed";
                step.attempt = Some(attempt);
                step.failed(verdict);
            }
            Event::Waiting { attempt, wait, .. } => {
                step.event = "waiting";
                step.attempt = Some(attempt);
                step.wait = Some(millis(wait));
            }
            Event::Queued { dimension, until, .. } => {
                step.event = "queued";
                step.wait = until.map(|until| millis(until.saturating_duration_since(Instant::now())));
                step.note = Some(dimension.to_string());
            }
            Event::RateLimited { why, dimension, .. } => {
                step.event = "rate_limited";
                step.note = Some(cut(&format!("rate limited by {dimension}: {why}"), NAME));
            }
            Event::FellBack { from, to, verdict, .. } => {
                seen.answered = to.map(|to| cut(to, NAME));
                step.event = "fell_back";
                step.failed(verdict);
                step.note = Some(cut(&format!("{from} to {}", to.unwrap_or("the last resort")), NAME));
            }
            Event::FallbackRefused { verdict, .. } => {
                step.event = "fallback_refused";
                step.failed(verdict);
            }
            Event::Recovered { attempts, .. } => {
                step.event = "recovered";
                step.attempt = Some(attempts);
            }
            Event::GaveUp { attempts, why, .. } => {
                step.event = "gave_up";
                step.attempt = Some(attempts);
                step.note = Some(why.as_str().to_owned());
            }
            _ => return,
        }
        if seen.steps.len() < STEPS {
            seen.steps.push(step);
        }
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

impl Step {
    fn failed(&mut self, verdict: &Verdict) {
        self.kind = verdict.kind().map(Kind::as_str);
        self.status = verdict.http_status().map(|status| status.as_u16());
        self.note = Some(cut(&verdict.message(), NAME)).filter(|note| !note.is_empty());
    }
}

impl Seen {
    fn count(&mut self, verdict: &Verdict) {
        match verdict.http_status().map(|status| status.as_u16()) {
            Some(429) => self.rate_limited += 1,
            Some(500) => self.internal += 1,
            _ => {}
        }
        self.tier = self.tier.or_else(|| tier(verdict));
    }
}

/// Google's ids of quotas end with the tier that they are of.
fn tier(verdict: &Verdict) -> Option<&'static str> {
    verdict.quota().iter().filter_map(|violation| violation.id()).find_map(|id| {
        if id.contains("FreeTier") {
            Some("free")
        } else if id.contains("PaidTier") {
            Some("paid")
        } else {
            None
        }
    })
}

// ===== which call an event is of =====

thread_local! {
    /// Events of the layers do not name their call, and are told while it is polled.
    static CURRENT: RefCell<Option<Arc<Trace>>> = const { RefCell::new(None) };
}

pin_project! {
    /// A call whose events are noted in its trace. See [`traced`].
    #[must_use]
    pub struct Traced<F> {
        #[pin]
        future: F,
        trace: Option<Arc<Trace>>,
    }
}

/// Keeps why the upstream could not be asked, of the call that is polled now.
pub fn caused(cause: &'static str) {
    CURRENT.with_borrow(|current| {
        if let Some(trace) = current {
            let _ = trace.cause.set(cause);
        }
    });
}

/// Notes in `trace` what the layers tell while this future is polled.
pub const fn traced<F>(trace: Arc<Trace>, future: F) -> Traced<F> {
    Traced { future, trace: Some(trace) }
}

/// Puts the one before back, also where the future panics.
struct Swapped<'a>(&'a mut Option<Arc<Trace>>);

impl<'a> Swapped<'a> {
    fn new(trace: &'a mut Option<Arc<Trace>>) -> Self {
        CURRENT.with_borrow_mut(|current| std::mem::swap(current, trace));
        Self(trace)
    }
}

impl Drop for Swapped<'_> {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|current| std::mem::swap(current, self.0));
    }
}

impl<F: Future> Future for Traced<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _current = Swapped::new(this.trace);
        this.future.poll(cx)
    }
}

// ===== the observer =====

/// Takes records. Called inside of the call, so it must be quick and must not block.
pub trait Sink: Send + Sync {
    fn record(&self, record: &Arc<Record>);
}

/// The observer that makes the records: of the layers for what happens on the way, and of the
/// [`ObserveLayer`](tower_gemini::observe::ObserveLayer) for the end.
pub struct Recorder {
    sinks: Vec<Arc<dyn Sink>>,
    of: fn(&Call) -> Option<&Trace>,
    /// For calls that bring no request id.
    run: u32,
    next: AtomicU64,
}

impl Recorder {
    /// For requests whose attachment is an `Arc<Trace>`.
    pub fn new(sinks: Vec<Arc<dyn Sink>>) -> Self {
        let run = (Timestamp::now().as_nanosecond() >> 10) as u32;
        Self { sinks, of: Call::attached::<Trace>, run, next: AtomicU64::new(1) }
    }

    /// For requests whose attachment holds the trace.
    #[must_use]
    pub fn find(mut self, of: fn(&Call) -> Option<&Trace>) -> Self {
        self.of = of;
        self
    }

    fn of(&self, call: &Call) -> Record {
        let trace = (self.of)(call);
        let mut seen = trace
            .map(|trace| std::mem::take(&mut *trace.seen.lock().unwrap_or_else(PoisonError::into_inner)));
        // Without retries nobody has told of the failure.
        let seen = seen.get_or_insert_default();
        if seen.rate_limited + seen.internal == 0 && call.kind().is_some() && call.attempts() > 0 {
            seen.count(call.verdict());
        }
        let name = |name: &str| Some(cut(name, NAME)).filter(|name| !name.is_empty());
        let given = |of: fn(&Trace) -> &Option<Box<str>>| trace.and_then(|trace| of(trace).as_deref());
        let target = call.target();
        let label = target.label().map(ToString::to_string);
        let usage = call.usage();
        let request_id = given(|trace| &trace.request_id)
            .and_then(name)
            .unwrap_or_else(|| format!("{:08x}-{:x}", self.run, self.next.fetch_add(1, Ordering::Relaxed)));
        Record {
            id: 0,
            time: Timestamp::now().as_millisecond(),
            request_id,
            client: given(|trace| &trace.client).or(label.as_deref()).and_then(name),
            project: given(|trace| &trace.project).or(target.project()).and_then(name),
            model: call.model().and_then(name),
            answered: seen.answered.take().filter(|_| call.outcome() == Outcome::Complete),
            tier: seen.tier.map(str::to_owned),
            method: call.method().as_str().to_owned(),
            stream: call.is_streaming(),
            status: call.status().map(|status| status.as_u16()),
            outcome: match call.outcome() {
                Outcome::Complete => "complete",
                Outcome::Failed(_) => "failed",
                _ => "dropped",
            }
            .to_owned(),
            kind: call.kind().map(|kind| kind.as_str().to_owned()),
            message: Some(call.message())
                .filter(|message| call.kind().is_some() && !message.is_empty())
                .map(|message| cut(&message, MESSAGE)),
            gave_up: call.gave_up().map(|why| why.as_str().to_owned()),
            attempts: call.attempts(),
            waited: millis(call.waited()),
            first_byte: call.time_to_head().map(millis),
            latency: millis(call.latency()),
            request_bytes: trace.and_then(|trace| trace.request_bytes),
            input_tokens: usage.map(|usage| usage.input_tokens),
            cached_tokens: usage.map(|usage| usage.cached_tokens),
            output_tokens: usage.map(|usage| usage.output_tokens),
            thought_tokens: usage.map(|usage| usage.thought_tokens),
            rate_limited: seen.rate_limited,
            internal: seen.internal,
            steps: serde_json::to_value(&seen.steps).unwrap_or_default(),
        }
    }
}

impl Observer for Recorder {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Finished { call, .. } = event {
            let record = Arc::new(self.of(call));
            self.sinks.iter().for_each(|sink| sink.record(&record));
        } else if let Some(trace) = CURRENT.with_borrow(Clone::clone) {
            trace.note(event);
        }
    }
}

/// The text up to that many bytes, at the end of a character.
pub(super) fn cut(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
