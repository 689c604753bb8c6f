//! What is written down while the simulation runs, and what follows from it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tower_gemini::Kind;
use tower_gemini::event::{Event, Observer};
use tower_gemini::verdict::Retryability;

/// One request of a user, ended.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Since the first request.
    pub(crate) ended: Duration,
    pub(crate) latency: Duration,
    /// How often it was sent; 0 where no response came that could tell.
    pub(crate) attempts: u32,
    /// Failures on the way to an answer that was good in the end.
    pub(crate) absorbed: Vec<Kind>,
    pub(crate) failure: Option<Failed>,
}

/// How a request failed in the user's eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) kind: Kind,
    /// Why it was not sent again.
    pub(crate) why: &'static str,
    /// It began with a 200 and broke off, which no layer may repeat: the user has half an answer already.
    pub(crate) in_body: bool,
}

/// One attempt that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    pub(crate) first: bool,
}

/// One wait before another attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) at: Duration,
    pub(crate) wait: Duration,
    pub(crate) named_by_server: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) failures: Vec<Failure>,
    pub(crate) waits: Vec<Wait>,
    /// When the rate limit held a request back, or turned it away: the calls that were not made.
    pub(crate) spared: Vec<Spared>,
}

/// A call that the rate limit did not let out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spared {
    pub(crate) at: Duration,
    /// It waited; otherwise it was turned away.
    pub(crate) waited: bool,
}

/// The observer: it is called inside the requests, so it only notes.
pub(crate) struct Recorder {
    start: Instant,
    seen: Mutex<Seen>,
}

impl Recorder {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, seen: Mutex::default() }
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Recorder {
    fn on_event(&self, event: &Event<'_>) {
        let at = Instant::now().saturating_duration_since(self.start);
        match event {
            Event::AttemptFailed { attempt, verdict, .. } => {
                let kind = verdict.kind().unwrap_or(Kind::Unknown);
                self.with(|seen| seen.failures.push(Failure { at, kind, first: *attempt == 1 }));
            }
            Event::Waiting { wait, verdict, .. } => {
                let named_by_server = verdict.retryability() == Retryability::AfterServerDelay;
                self.with(|seen| seen.waits.push(Wait { at, wait: *wait, named_by_server }));
            }
            Event::Queued { .. } => self.with(|seen| seen.spared.push(Spared { at, waited: true })),
            Event::RateLimited { .. } => self.with(|seen| seen.spared.push(Spared { at, waited: false })),
            _ => {}
        }
    }
}

/// A stretch of the bad minute.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    /// Its sign in the timeline.
    pub(crate) sign: char,
    /// In milliseconds since the first request; the end is excluded.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Whether the upstream answers with 429.
    pub(crate) refuses: bool,
    pub(crate) what: &'static str,
}

/// Everything that the report is made of.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// How many requests were meant to be made.
    pub(crate) planned: usize,
    pub(crate) requests: Vec<Request>,
    pub(crate) seen: Seen,
    /// What the upstream answered each call with, in order.
    pub(crate) calls: Vec<String>,
    pub(crate) phases: Vec<Phase>,
    pub(crate) took: Duration,
}

impl Run {
    pub(crate) fn answered(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|request| request.failure.is_none())
    }

    pub(crate) fn failed(&self) -> impl Iterator<Item = (&Request, Failed)> {
        self.requests.iter().filter_map(|request| Some((request, request.failure?)))
    }

    /// Calls that would have met a 429 and were not made: those that waited, and those that were turned away, while
    /// the upstream answered 429.
    pub(crate) fn spared(&self) -> (usize, usize) {
        let refuses = |at: Duration| {
            let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
            self.phases.iter().any(|phase| phase.refuses && (phase.from..phase.to).contains(&at))
        };
        let spared = || self.seen.spared.iter().filter(|spared| refuses(spared.at));
        let waited = spared().filter(|spared| spared.waited).count();
        (waited, spared().count() - waited)
    }

    /// How many requests would have failed without the layers: those whose first attempt did, or would have.
    pub(crate) fn failed_at_first(&self) -> usize {
        let (waited, _) = self.spared();
        // One that was turned away is a failed first attempt in the retry layer's eyes, too.
        let heads = self.seen.failures.iter().filter(|failure| failure.first).count() + waited;
        // The retry layer has not seen these: their first answer looked good until it broke off.
        let bodies =
            self.failed().filter(|(request, failed)| failed.in_body && request.attempts == 1).count();
        heads + bodies
    }

    /// What a run that went as it should does not have.
    pub(crate) fn surprises(&self) -> Vec<String> {
        let mut surprises = Vec::new();
        let missing = self.planned.saturating_sub(self.requests.len());
        if missing > 0 {
            surprises.push(format!("{missing} requests never ended"));
        }
        for (request, failed) in self.failed() {
            // Repeating these cannot help, so they must have been sent once only.
            if failed.kind == Kind::InvalidArgument && request.attempts != 1 {
                surprises.push("a malformed request was sent again".to_owned());
            }
        }
        let by_design = [Kind::InvalidArgument, Kind::QuotaExhausted];
        let passing = |failed: &Failed| !failed.in_body && !by_design.contains(&failed.kind);
        let unlucky = self.failed().filter(|(_, failed)| passing(failed)).count();
        // Chance may hit one request with every attempt, and a slow machine helps it; not many, though.
        if unlucky > self.planned / 20 {
            surprises.push(format!("{unlucky} requests failed that another attempt might have saved"));
        }
        if self.answered().all(|request| request.absorbed.is_empty()) {
            surprises.push("nothing was absorbed".to_owned());
        }
        surprises
    }
}
