//! A log of calls.

use std::fmt;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::time::Instant;

use super::Call;
use super::line::Line;
use super::names;
use crate::event::{Event, Observer};
use crate::lock::lock;
use crate::request::limits::LimitKind;
use crate::tier::ServiceTier;
use crate::time;
use crate::verdict::Verdict;

type Members = Box<dyn Fn(&Call) -> Vec<(&'static str, String)> + Send + Sync>;
type WallClock = Box<dyn Fn() -> SystemTime + Send + Sync>;

/// Writes one line of JSON for each finished call, and for every other event if asked to.
///
/// A finished call has these members; what is not known is left out:
///
/// | member | type | value |
/// |---|---|---|
/// | `time` | text | when the line was written: RFC 3339, UTC, milliseconds |
/// | `event` | text | `finished` |
/// | `surface`, `method` | text | `gemini_api`, `generateContent`, … |
/// | `model` | text | where path or hint name it |
/// | `model_version` | text | the model that the answer names, where that is not the one that was sent |
/// | `redirected` | truth | `true` where it is another model, and no version of that one |
/// | `tier`, `tier_served` | text | the service tier that was asked for, and that served, where one was named |
/// | `project`, `location`, `label` | text | where path or caller name them |
/// | `stream` | truth | `true` where a stream was asked for |
/// | `http_method`, `host`, `path` | text | the path has no query |
/// | `status` | number | of the HTTP answer |
/// | `outcome` | text | `complete`, `failed` or `dropped` (by the caller) |
/// | `error` | text | the [`Kind`](crate::Kind) of the failure |
/// | `message` | text | of the server or of the error, keys and tokens replaced |
/// | `successor` | text | of a model that is gone: what is to be used instead |
/// | `remedy` | text | what a person can do: [`Kind::remedy`](crate::Kind::remedy) |
/// | `gave_up` | text | why it was not retried: a [`GaveUp`](crate::event::GaveUp) in snake case |
/// | `attempt` | number | where it is not the first: inside a retry layer |
/// | `attempts` | number | made in all: [`Call::attempts`] |
/// | `waited_ms` | number | between attempts, where there was a wait |
/// | `time_to_head_ms` | number | until the head of the answer |
/// | `latency_ms` | number | until the end |
/// | `input_tokens`, `cached_tokens`, `output_tokens`, `thought_tokens`, `total_tokens` | number | [`Usage`](crate::verdict::Usage) |
///
/// The lines of other events begin with `time` and `event`, too (`attempt_failed`, `budget_charged`, `waiting`,
/// `recovered`, `gave_up`, `queued`, `rate_limited`, `quota_exceeded`, `settled`, `circuit_changed`,
/// `concurrency_cut`, `concurrency_lifted`, `fell_back`, `redirected`, `downgraded`, `keys_exhausted`); their other members bear the names of the event's fields, variants of
/// enums in snake case, waits as `wait_ms`, instants as `in_ms`, from now.
///
/// A line is made outside the lock and written by one `write_all` under it, so lines of threads do not mix. Nothing is
/// flushed. A line that cannot be written is counted, and lost: [`lost`](Self::lost). The writer runs inside the call;
/// one that is slow slows the calls down.
///
/// ```
/// use std::sync::Arc;
/// use tower_gemini::observe::{JsonLines, ObserveLayer};
///
/// let layer = ObserveLayer::new(Arc::new(JsonLines::new(std::io::stderr())));
/// # let _ = layer;
/// ```
///
/// With every other event, into a file:
///
/// ```no_run
/// use std::sync::Arc;
/// use tower_gemini::observe::{JsonLines, ObserveLayer};
/// use tower_gemini::retry::{RetryLayer, RetryPolicy};
///
/// # fn main() -> Result<(), tower_gemini::BoxError> {
/// let file = std::fs::File::options().create(true).append(true).open("gemini.jsonl")?;
/// let log = Arc::new(JsonLines::new(file).with_events());
/// let retry = RetryLayer::new(RetryPolicy::builder().observer(log.clone()).build()?);
/// let calls = ObserveLayer::new(log);
/// # let _ = (retry, calls); Ok(()) }
/// ```
pub struct JsonLines<W> {
    out: Mutex<W>,
    events: bool,
    lost: AtomicU64,
    wall_clock: WallClock,
    members: Option<Members>,
}

impl<W: Write> JsonLines<W> {
    /// Lines of finished calls, into this writer.
    #[must_use]
    pub fn new(out: W) -> Self {
        let wall_clock = Box::new(time::wall_clock);
        Self { out: Mutex::new(out), events: false, lost: AtomicU64::new(0), wall_clock, members: None }
    }

    /// Writes a line for every other event as well. Default off.
    #[must_use]
    pub const fn with_events(mut self) -> Self {
        self.events = true;
        self
    }

    /// Where the time of a line comes from. Default: the system's clock, which does not pause with tokio's.
    #[must_use]
    pub fn wall_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.wall_clock = Box::new(clock);
        self
    }

    /// Adds members of the application's own to the line of each finished call, after the others. Default: none.
    ///
    /// Names must be plain words that no other member has; values may be any text.
    #[must_use]
    pub fn members(
        mut self,
        members: impl Fn(&Call) -> Vec<(&'static str, String)> + Send + Sync + 'static,
    ) -> Self {
        self.members = Some(Box::new(members));
        self
    }

    /// Lines that could not be written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// The writer.
    ///
    /// Also where a thread panicked inside it.
    #[must_use]
    pub fn into_inner(self) -> W {
        self.out.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn begin(&self, event: &str) -> Line {
        // A clock that stands outside the years that RFC 3339 can write is no clock.
        let time = Timestamp::try_from((self.wall_clock)()).unwrap_or_default();
        Line::begin(&format!("{time:.3}"), event)
    }

    fn write(&self, line: Line) {
        let line = line.end();
        // The writer is a user's, and under the lock: one that panics has written what it has written.
        if lock(&self.out).write_all(&line).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    fn finished(&self, call: &Call) {
        let mut line = self.begin("finished");
        let target = call.target();
        line.member("surface", target.surface().as_str());
        line.member("method", call.method().as_str());
        line.maybe("model", call.model());
        line.maybe("model_version", call.model_version());
        line.maybe("redirected", call.redirected().map(|_| true));
        line.maybe("tier", call.tier_asked().map(ServiceTier::as_str));
        line.maybe("tier_served", call.tier_served().map(ServiceTier::as_str));
        line.maybe("project", target.project());
        line.maybe("location", target.location());
        line.maybe("label", target.label().map(ToString::to_string));
        line.maybe("stream", call.is_streaming().then_some(true));
        line.member("http_method", call.http_method().as_str());
        line.maybe("host", call.host());
        line.member("path", &*call.path());
        line.maybe("status", call.status().map(|status| status.as_u16()));
        line.member("outcome", names::outcome(call.outcome()));
        if let Some(kind) = call.kind() {
            line.member("error", kind.as_str());
            line.maybe("message", Some(call.message()).filter(|message| !message.is_empty()));
            line.maybe("successor", call.verdict().retired().and_then(|retired| retired.successor));
            line.member("remedy", kind.remedy());
        }
        line.maybe("gave_up", call.gave_up().map(names::gave_up));
        line.maybe("attempt", Some(call.attempt()).filter(|attempt| *attempt > 1));
        line.member("attempts", &call.attempts());
        line.maybe("waited_ms", Some(millis(call.waited())).filter(|waited| *waited > 0));
        line.maybe("time_to_head_ms", call.time_to_head().map(millis));
        line.member("latency_ms", &millis(call.latency()));
        if let Some(usage) = call.usage() {
            line.member("input_tokens", &usage.input_tokens);
            line.member("cached_tokens", &usage.cached_tokens);
            line.member("output_tokens", &usage.output_tokens);
            line.member("thought_tokens", &usage.thought_tokens);
            line.member("total_tokens", &usage.total_tokens);
        }
        for (name, value) in self.members.iter().flat_map(|members| members(call)) {
            line.member(name, &value);
        }
        self.write(line);
    }

    fn other(&self, event: &Event<'_>) {
        let line = match *event {
            Event::AttemptFailed { request, attempt, verdict } => {
                let mut line = self.of_request("attempt_failed", request);
                line.member("attempt", &attempt);
                failure(&mut line, verdict);
                line
            }
            Event::BudgetCharged { request, attempt, cost, left } => {
                let mut line = self.of_request("budget_charged", request);
                line.member("attempt", &attempt);
                line.member("cost", &cost);
                line.member("left", &left);
                line
            }
            Event::Waiting { request, attempt, wait, verdict } => {
                let mut line = self.of_request("waiting", request);
                line.member("attempt", &attempt);
                line.member("wait_ms", &millis(wait));
                line.maybe("error", verdict.kind().map(|kind| kind.as_str()));
                line
            }
            Event::Recovered { request, attempts } => {
                let mut line = self.of_request("recovered", request);
                line.member("attempts", &attempts);
                line
            }
            Event::GaveUp { request, attempts, why, verdict } => {
                let mut line = self.of_request("gave_up", request);
                line.member("attempts", &attempts);
                line.member("why", names::gave_up(why));
                failure(&mut line, verdict);
                line
            }
            Event::Queued { key, dimension, until } => {
                let mut line = self.of_key("queued", key);
                line.member("dimension", names::dimension(dimension));
                line.maybe("in_ms", until.map(from_now));
                line
            }
            Event::RateLimited { key, why, dimension, until } => {
                let mut line = self.of_key("rate_limited", key);
                line.member("why", names::why(why));
                line.member("dimension", names::dimension(dimension));
                line.maybe("in_ms", until.map(from_now));
                line
            }
            Event::QuotaExceeded { key, dimension, limit, until } => {
                let mut line = self.of_key("quota_exceeded", key);
                line.member("dimension", names::dimension(dimension));
                line.maybe("limit", limit);
                line.maybe("in_ms", until.map(from_now));
                line
            }
            Event::Settled { key, charged, used } => {
                let mut line = self.of_key("settled", key);
                line.member("charged", &charged);
                line.maybe("used", used);
                line
            }
            Event::CircuitChanged { key, transition } => {
                let mut line = self.of_key("circuit_changed", key);
                line.member("from", names::state(transition.from));
                line.member("to", names::state(transition.to));
                line.member("cause", names::cause(transition.cause));
                line.member("generation", &transition.generation);
                line.maybe("in_ms", transition.until.map(from_now));
                line
            }
            Event::ConcurrencyCut { key, in_flight, limit } => {
                let mut line = self.of_key("concurrency_cut", key);
                line.member("in_flight", &in_flight);
                line.member("limit", &limit);
                line
            }
            Event::ConcurrencyLifted { key } => self.of_key("concurrency_lifted", key),
            Event::Preflight { key, finding, refused } => {
                let mut line = self.of_key("preflight", key);
                line.member("rule", finding.rule().as_str());
                line.member("field", finding.field());
                line.member("message", finding.message());
                line.member("refused", &refused);
                line
            }
            Event::LastGoodUsed { key, age, verdict } => {
                let mut line = self.of_key("last_good_used", key);
                line.member("age_s", &age.as_secs_f64());
                line.maybe("kind", verdict.kind().map(|kind| kind.as_str()));
                line
            }
            Event::Coalesced { key } => self.of_key("coalesced", key),
            Event::FellBack { from, to, tier, verdict } => {
                let mut line = self.begin("fell_back");
                line.member("from", from);
                line.maybe("to", to);
                line.maybe("tier", tier.map(ServiceTier::as_str));
                failure(&mut line, verdict);
                line
            }
            Event::FallbackRefused { model, why, verdict } => {
                let mut line = self.begin("fallback_refused");
                line.maybe("model", model);
                line.member("why", names::refusal(why));
                failure(&mut line, verdict);
                line
            }
            Event::Misplaced { layer, inside, consequence } => {
                let mut line = self.begin("misplaced");
                line.member("layer", layer.as_str());
                line.member("inside", inside.as_str());
                line.member("consequence", consequence);
                line
            }
            Event::StoreLost { store, why } => {
                let mut line = self.begin("store_lost");
                line.member("store", store);
                line.member("why", why);
                line
            }
            Event::StoreFound { store, lost_for } => {
                let mut line = self.begin("store_found");
                line.member("store", store);
                line.member("lost_ms", &u64::try_from(lost_for.as_millis()).unwrap_or(u64::MAX));
                line
            }
            Event::LimitsDiffer { key, limits } => {
                let mut line = self.of_key("limits_differ", key);
                line.maybe("rpm", limits.of(LimitKind::RequestsPerMinute));
                line.maybe("tpm", limits.of(LimitKind::InputTokensPerMinute));
                line.maybe("rpd", limits.of(LimitKind::RequestsPerDay));
                line
            }
            Event::Redirected { asked, answered } => {
                let mut line = self.begin("redirected");
                line.member("asked", asked);
                line.member("answered", answered);
                line
            }
            Event::Downgraded { model, asked, served } => {
                let mut line = self.begin("downgraded");
                line.maybe("model", model);
                line.member("asked", asked.as_str());
                line.member("served", served.as_str());
                line
            }
            Event::Moved { from, to, verdict } => {
                let mut line = self.begin("moved");
                line.member("from", from);
                line.member("to", to);
                failure(&mut line, verdict);
                line
            }
            Event::PlaceClosed { place, key, until, verdict } => {
                let mut line = self.of_key("place_closed", key);
                line.member("place", place);
                line.member("in_ms", &from_now(until));
                failure(&mut line, verdict);
                line
            }
            Event::Hedged { key, after } => {
                let mut line = self.of_key("hedged", key);
                line.member("after_ms", &millis(after));
                line
            }
            Event::HedgeSettled { key, won, took } => {
                let mut line = self.of_key("hedge_settled", key);
                line.member("won", &won);
                line.member("took_ms", &millis(took));
                line
            }
            Event::StreamResumed { key, restarted, verdict, delivered, billed } => {
                let mut line = self.of_key("stream_resumed", key);
                line.member("restarted", &restarted);
                line.member("delivered_bytes", &delivered);
                line.member("billed", &billed);
                failure(&mut line, verdict);
                line
            }
            Event::KeysExhausted { layer, max_keys } => {
                let mut line = self.begin("keys_exhausted");
                line.member("layer", layer.as_str());
                line.member("max_keys", &max_keys);
                line
            }
            Event::Finished { .. } => return,
        };
        self.write(line);
    }

    fn of_request(&self, event: &str, request: u64) -> Line {
        let mut line = self.begin(event);
        line.member("request", &request);
        line
    }

    fn of_key(&self, event: &str, key: &dyn fmt::Display) -> Line {
        let mut line = self.begin(event);
        line.member("key", &key.to_string());
        line
    }
}

impl<W: Write + Send> Observer for JsonLines<W> {
    fn on_event(&self, event: &Event<'_>) {
        match *event {
            Event::Finished { call } => self.finished(call),
            _ if self.events => self.other(event),
            _ => {}
        }
    }
}

impl<W> fmt::Debug for JsonLines<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self.lost.load(Relaxed);
        f.debug_struct("JsonLines").field("events", &self.events).field("lost", &lost).finish_non_exhaustive()
    }
}

fn failure(line: &mut Line, verdict: &Verdict) {
    line.maybe("status", verdict.http_status().map(|status| status.as_u16()));
    line.maybe("error", verdict.kind().map(|kind| kind.as_str()));
    line.maybe("message", Some(verdict.message()).filter(|message| !message.is_empty()));
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn from_now(until: Instant) -> u64 {
    millis(until.saturating_duration_since(time::now()))
}
