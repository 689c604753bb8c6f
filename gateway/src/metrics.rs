//! What is counted, in the text form of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tower_gemini::Kind;
use tower_gemini::event::{Event, Observer};
use tower_gemini::observe::Call;

/// Seconds to the last byte.
const BUCKETS: [f64; 11] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// The counters of one gateway. Every one of them stands for itself, so they are `Relaxed`.
#[derive(Debug, Default)]
pub struct Metrics {
    in_flight: AtomicI64,
    /// By the first digit of the status; 0 where the client left before there was one.
    requests: [AtomicU64; 6],
    attempts: AtomicU64,
    /// Of the buckets, and of everything above.
    latency: [AtomicU64; BUCKETS.len() + 1],
    latency_micros: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    would_be_refused: AtomicU64,
    would_be_cut: AtomicU64,
    /// Whether quotas hold nobody back: then [`Event::RateLimited`] is told of calls that are sent.
    observes_quotas: AtomicBool,
    /// What only failures touch.
    events: Mutex<Events>,
}

#[derive(Debug, Default)]
struct Events {
    /// Attempts that failed, by kind.
    failed: BTreeMap<&'static str, u64>,
    /// Waits that a retry or a turn was worth, by kind: how many, and how many seconds.
    waits: BTreeMap<&'static str, (u64, f64)>,
    recovered: u64,
    fallbacks: u64,
    queued: u64,
    rate_limited: u64,
    would_be_limited: u64,
    stores_lost: u64,
    /// Changes of circuits, by the new state.
    circuits: BTreeMap<&'static str, u64>,
    cuts: u64,
}

impl Metrics {
    pub fn begun(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A circuit that observes only would have turned a call away.
    pub fn would_be_refused(&self) {
        self.would_be_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// From now on quotas only observe, or no longer.
    pub fn observes_quotas(&self, observes: bool) {
        self.observes_quotas.store(observes, Ordering::Relaxed);
    }

    /// An answer has paused for longer than it may where that only is observed.
    pub fn would_be_cut(&self) {
        self.would_be_cut.fetch_add(1, Ordering::Relaxed);
    }

    fn ended(&self, call: &Call) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let class = call.status().map_or(0, |status| usize::from(status.as_u16() / 100));
        // Google's statuses have three digits and none begins with 6.
        if let Some(count) = self.requests.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.attempts.fetch_add(u64::from(call.attempts()), Ordering::Relaxed);
        let seconds = call.latency().as_secs_f64();
        let bucket = BUCKETS.iter().position(|most| seconds <= *most).unwrap_or(BUCKETS.len());
        self.latency[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(call.latency().as_micros()).unwrap_or(u64::MAX);
        self.latency_micros.fetch_add(micros, Ordering::Relaxed);
        if let Some(usage) = call.usage() {
            self.input_tokens.fetch_add(usage.input_tokens, Ordering::Relaxed);
            self.output_tokens.fetch_add(usage.output_tokens + usage.thought_tokens, Ordering::Relaxed);
        }
    }

    pub fn in_flight(&self) -> i64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Everything counted, each metric with its help.
    pub fn write(&self, text: &mut String) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        gauge(text, "gateway_requests_in_flight", "Requests whose answer has not ended.");
        sample(text, "gateway_requests_in_flight", &[], self.in_flight() as f64);
        counter(text, "gateway_requests_total", "Requests that have ended, by the class of their status.");
        for (class, count) in ["left", "1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(&self.requests) {
            sample(text, "gateway_requests_total", &[("status", class)], of(count) as f64);
        }
        counter(text, "gateway_upstream_calls_total", "Calls to the upstream, retries included.");
        sample(text, "gateway_upstream_calls_total", &[], of(&self.attempts) as f64);
        counter(text, "gateway_tokens_total", "Tokens that answers said they used.");
        sample(text, "gateway_tokens_total", &[("kind", "input")], of(&self.input_tokens) as f64);
        sample(text, "gateway_tokens_total", &[("kind", "output")], of(&self.output_tokens) as f64);
        let name = "gateway_breaker_would_refuse_total";
        counter(text, name, "Calls that a circuit would have turned away, which only observes.");
        sample(text, name, &[], of(&self.would_be_refused) as f64);
        let name = "gateway_idle_would_cut_total";
        counter(text, name, "Answers that a pause would have ended, where that is only observed.");
        sample(text, name, &[], of(&self.would_be_cut) as f64);
        self.histogram(text);
        self.events.lock().unwrap_or_else(PoisonError::into_inner).write(text);
    }

    fn histogram(&self, text: &mut String) {
        let name = "gateway_request_duration_seconds";
        header(text, name, "Seconds from a request's head to its answer's last byte.", "histogram");
        let mut sum = 0;
        let bounds = BUCKETS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&self.latency) {
            sum += count.load(Ordering::Relaxed);
            sample(text, &format!("{name}_bucket"), &[("le", &bound)], sum as f64);
        }
        let seconds = self.latency_micros.load(Ordering::Relaxed) as f64 / 1e6;
        sample(text, &format!("{name}_sum"), &[], seconds);
        sample(text, &format!("{name}_count"), &[], sum as f64);
    }
}

impl Observer for Metrics {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Finished { call, .. } = event {
            return self.ended(call);
        }
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::AttemptFailed { verdict, .. } => {
                let kind = verdict.kind().unwrap_or(Kind::Unknown).as_str();
                *events.failed.entry(kind).or_default() += 1;
            }
            Event::Waiting { wait, verdict, .. } => {
                let kind = verdict.kind().unwrap_or(Kind::Unknown).as_str();
                let waits = events.waits.entry(kind).or_default();
                *waits = (waits.0 + 1, waits.1 + wait.as_secs_f64());
            }
            Event::Recovered { .. } => events.recovered += 1,
            Event::FellBack { .. } => events.fallbacks += 1,
            Event::Queued { .. } => events.queued += 1,
            Event::RateLimited { .. } if self.observes_quotas.load(Ordering::Relaxed) => {
                events.would_be_limited += 1;
            }
            Event::RateLimited { .. } => events.rate_limited += 1,
            Event::CircuitChanged { transition, .. } => {
                *events.circuits.entry(crate::pages::state(transition.to)).or_default() += 1;
            }
            Event::ConcurrencyCut { .. } => events.cuts += 1,
            Event::StoreLost { .. } => events.stores_lost += 1,
            _ => {}
        }
    }
}

impl Events {
    fn write(&self, text: &mut String) {
        counter(text, "gateway_failed_attempts_total", "Attempts that failed, by kind.");
        for (kind, count) in &self.failed {
            sample(text, "gateway_failed_attempts_total", &[("kind", kind)], *count as f64);
        }
        counter(text, "gateway_retries_total", "Waits for another attempt, by the kind of failure before.");
        for (kind, (count, _)) in &self.waits {
            sample(text, "gateway_retries_total", &[("kind", kind)], *count as f64);
        }
        counter(text, "gateway_retry_wait_seconds_total", "What these waits took.");
        for (kind, (_, seconds)) in &self.waits {
            sample(text, "gateway_retry_wait_seconds_total", &[("kind", kind)], *seconds);
        }
        counter(text, "gateway_circuit_changes_total", "Changes of circuits, by the new state.");
        for (state, count) in &self.circuits {
            sample(text, "gateway_circuit_changes_total", &[("state", state)], *count as f64);
        }
        for (name, help, count) in [
            ("gateway_recovered_total", "Requests answered after a failure.", self.recovered),
            ("gateway_fallbacks_total", "Times that a request went on to another model.", self.fallbacks),
            ("gateway_queued_total", "Requests that waited for their quota.", self.queued),
            (
                "gateway_rate_limited_total",
                "Requests that were not sent for want of quota.",
                self.rate_limited,
            ),
            (
                "gateway_quota_would_hold_total",
                "Requests that would have waited for their quota or not been sent, where it only observes.",
                self.would_be_limited,
            ),
            (
                "gateway_quota_store_lost_total",
                "Times that the store of the quotas stopped to answer.",
                self.stores_lost,
            ),
            ("gateway_concurrency_cuts_total", "Timeouts that cut the calls in flight.", self.cuts),
        ] {
            counter(text, name, help);
            sample(text, name, &[], count as f64);
        }
    }
}

// ===== the text form =====

pub fn counter(text: &mut String, name: &str, help: &str) {
    header(text, name, help, "counter");
}

pub fn gauge(text: &mut String, name: &str, help: &str) {
    header(text, name, help, "gauge");
}

fn header(text: &mut String, name: &str, help: &str, kind: &str) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes what is written");
}

/// One value. The values of labels may hold anything.
pub fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    text.push_str(name);
    for (i, (label, of)) in labels.iter().enumerate() {
        let of = of.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        write!(text, "{}{label}=\"{of}\"", if i == 0 { "{" } else { "," })
            .expect("a string takes what is written");
    }
    if !labels.is_empty() {
        text.push('}');
    }
    writeln!(text, " {value}").expect("a string takes what is written");
}
