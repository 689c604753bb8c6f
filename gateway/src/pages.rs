//! What the gateway says of itself: `/metrics` and `/status`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower_gemini::circuit_breaker::CircuitState;
use tower_gemini::rate_limit::{LimitKind, QuotaStatus};

use crate::clients::Clients;
use crate::history::History;
use crate::intake::Room;
use crate::log::Lines;
use crate::metrics::{Metrics, counter, gauge, sample};
use crate::stack::Handles;

pub struct Pages {
    metrics: Arc<Metrics>,
    handles: RwLock<Handles>,
    lines: Lines,
    history: Option<History>,
    clients: Option<Arc<Clients>>,
    health: Health,
    room: OnceLock<Room>,
    started: Instant,
}

/// Whether the gateway takes calls. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// From now on it is not ready: it was told to stop.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The page at this path that every listener has.
    pub fn find(&self, method: &Method, path: &str) -> Option<Response<Bytes>> {
        let stopping = self.0.load(Ordering::Relaxed);
        let text = match path {
            "/healthz" => "ok\n",
            "/readyz" if stopping => "stopping\n",
            "/readyz" => "ready\n",
            _ => return None,
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let mut answer = page("text/plain; charset=utf-8", text.to_owned());
        if stopping && path == "/readyz" {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        Some(answer)
    }
}

pub const fn state(state: CircuitState) -> &'static str {
    match state {
        CircuitState::Closed => "closed",
        CircuitState::HalfOpen => "half_open",
        _ => "open",
    }
}

const DIMENSIONS: [(LimitKind, &str); 3] = [
    (LimitKind::RequestsPerMinute, "requests_per_minute"),
    (LimitKind::InputTokensPerMinute, "input_tokens_per_minute"),
    (LimitKind::RequestsPerDay, "requests_per_day"),
];

fn used(quota: &QuotaStatus) -> [u64; 3] {
    [quota.requests, quota.tokens, quota.requests_today]
}

impl Pages {
    pub fn new(
        metrics: Arc<Metrics>,
        handles: Handles,
        lines: Lines,
        history: Option<History>,
        health: Health,
    ) -> Self {
        let handles = RwLock::new(handles);
        Self {
            metrics,
            handles,
            lines,
            history,
            clients: None,
            health,
            room: OnceLock::new(),
            started: Instant::now(),
        }
    }

    /// Shows clients in `/status`.
    #[must_use]
    pub fn clients(mut self, clients: Option<Arc<Clients>>) -> Self {
        self.clients = clients;
        self
    }

    /// Shows what is kept of bodies.
    pub fn room(&self, room: Room) {
        let _ = self.room.set(room);
    }

    /// Shows what the layers of now know.
    pub fn put(&self, handles: Handles) {
        *self.handles.write().unwrap_or_else(PoisonError::into_inner) = handles;
    }

    fn handles(&self) -> Handles {
        self.handles.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The page at this path, if there is one.
    pub fn find(&self, method: &Method, path: &str) -> Option<Response<Bytes>> {
        let page = match path {
            "/healthz" | "/readyz" => return self.health.find(method, path),
            "/metrics" => Self::metrics,
            "/status" => Self::status_page,
            _ => return None,
        };
        matches!(*method, Method::GET | Method::HEAD).then(|| page(self))
    }

    /// Prometheus. Keys are the layers' own: a surface, a model, a place, a label; never a key of the API.
    fn metrics(&self) -> Response<Bytes> {
        let mut text = String::with_capacity(8192);
        self.metrics.write(&mut text);
        counter(&mut text, "gateway_log_lines_lost_total", "Lines that stdout did not take in time.");
        sample(&mut text, "gateway_log_lines_lost_total", &[], self.lines.lost() as f64);
        if let Some(history) = &self.history {
            let status = history.status();
            counter(&mut text, "gateway_history_written_total", "Records of calls that are in the history.");
            sample(&mut text, "gateway_history_written_total", &[], status.written as f64);
            counter(
                &mut text,
                "gateway_history_lost_total",
                "Records that the history did not take in time.",
            );
            sample(&mut text, "gateway_history_lost_total", &[], status.lost as f64);
            gauge(&mut text, "gateway_history_bytes", "Bytes that the history's records use.");
            sample(&mut text, "gateway_history_bytes", &[], status.bytes as f64);
        }
        if let Some(room) = self.room.get() {
            gauge(
                &mut text,
                "gateway_replay_bytes",
                "Bytes of bodies that are kept, so that they can be sent again.",
            );
            sample(&mut text, "gateway_replay_bytes", &[], room.used() as f64);
        }
        self.circuits(&mut text);
        self.quotas(&mut text);
        page("text/plain; version=0.0.4; charset=utf-8", text)
    }

    fn circuits(&self, text: &mut String) {
        let circuits = self.handles().circuits.all();
        gauge(text, "gateway_circuit_state", "Of each circuit: 0 closed, 1 half-open, 2 open.");
        for circuit in &circuits {
            let value = match circuit.state {
                CircuitState::Closed => 0.0,
                CircuitState::HalfOpen => 1.0,
                _ => 2.0,
            };
            sample(text, "gateway_circuit_state", &[("key", &circuit.key.to_string())], value);
        }
        let calls = self.handles().concurrency.all();
        gauge(text, "gateway_calls_in_flight", "Calls to the upstream whose answer has not ended.");
        for (key, state) in &calls {
            let labels = [("key", &*key.to_string())];
            sample(text, "gateway_calls_in_flight", &labels, f64::from(state.in_flight()));
        }
        counter(
            text,
            "gateway_concurrency_would_hold_total",
            "Calls that such a limit would have held, where it only observes.",
        );
        for (key, state) in &calls {
            sample(
                text,
                "gateway_concurrency_would_hold_total",
                &[("key", &key.to_string())],
                state.held() as f64,
            );
        }
        gauge(text, "gateway_concurrency_limit", "How many there may be, where timeouts have set a limit.");
        for (key, state) in &calls {
            if let Some(limit) = state.limit() {
                sample(text, "gateway_concurrency_limit", &[("key", &key.to_string())], limit);
            }
        }
    }

    fn quotas(&self, text: &mut String) {
        let quotas = self.handles().quotas.status();
        gauge(text, "gateway_quota_used", "Of each quota, what is used of it now.");
        for quota in &quotas {
            for ((_, name), used) in DIMENSIONS.iter().zip(used(quota)) {
                let labels = [("key", &*quota.key.to_string()), ("dimension", name)];
                sample(text, "gateway_quota_used", &labels, used as f64);
            }
        }
        gauge(text, "gateway_quota_limit", "Of each quota that is known, its limit.");
        for quota in &quotas {
            for (dimension, name) in DIMENSIONS {
                if let Some(limit) = quota.limits.of(dimension) {
                    let labels = [("key", &*quota.key.to_string()), ("dimension", name)];
                    sample(text, "gateway_quota_limit", &labels, limit as f64);
                }
            }
        }
        gauge(text, "gateway_quota_queued", "Requests that wait for their quota.");
        for quota in &quotas {
            let key = quota.key.to_string();
            sample(text, "gateway_quota_queued", &[("key", &key)], quota.queued as f64);
        }
        let Some(store) = self.handles().quotas.store() else { return };
        gauge(text, "gateway_quota_store_up", "Whether the store of the quotas answers.");
        let up = if store.lost.is_none() { 1.0 } else { 0.0 };
        sample(text, "gateway_quota_store_up", &[("store", &store.place)], up);
        let fleets: Vec<_> =
            quotas.iter().filter_map(|quota| Some((quota.key.to_string(), quota.fleet.as_ref()?))).collect();
        gauge(text, "gateway_quota_members", "Gateways that share a quota, this one included.");
        for (key, fleet) in &fleets {
            sample(text, "gateway_quota_members", &[("key", key)], f64::from(fleet.members));
        }
        gauge(text, "gateway_quota_part", "Requests a window that may be sent without asking the store.");
        for (key, fleet) in &fleets {
            sample(text, "gateway_quota_part", &[("key", key)], fleet.part.requests as f64);
        }
        gauge(text, "gateway_quota_stock", "Requests that the store has granted and that are not used yet.");
        for (key, fleet) in &fleets {
            sample(text, "gateway_quota_stock", &[("key", key)], fleet.stock.requests as f64);
        }
    }

    fn status_page(&self) -> Response<Bytes> {
        page("application/json", format!("{:#}\n", self.status()))
    }

    /// What the layers know. Times are seconds from now.
    pub fn status(&self) -> Value {
        let now = Instant::now();
        let circuits: Vec<Value> = self
            .handles()
            .circuits
            .all()
            .iter()
            .map(|circuit| {
                json!({
                    "key": circuit.key.to_string(),
                    "state": state(circuit.state),
                    "since": -seconds(now.saturating_duration_since(circuit.since)),
                    "until": ahead(circuit.until, now),
                    "ramping": circuit.ramping,
                    "calls": circuit.calls,
                    "failures": circuit.failures,
                    "consecutive_failures": circuit.consecutive_failures,
                    "last_cause": circuit.history.last().map(|change| change.cause.as_str()),
                })
            })
            .collect();
        let quotas: Vec<Value> =
            self.handles().quotas.status().iter().map(|quota| of_quota(quota, now)).collect();
        let concurrency: Vec<Value> = self
            .handles()
            .concurrency
            .all()
            .iter()
            .map(|(key, state)| {
                json!({
                    "key": key.to_string(),
                    "in_flight": state.in_flight(),
                    "limit": state.limit(),
                    "queued": state.queued(),
                    "cuts": state.cuts(),
                    "held": state.held(),
                })
            })
            .collect();
        let budget = self.handles().budget;
        json!({
            "uptime": seconds(now.saturating_duration_since(self.started)),
            "in_flight": self.metrics.in_flight(),
            "clients": self.clients.as_ref().map(|clients| clients.status()),
            "quotas": quotas,
            "quota_store": self.handles().quotas.store().map(|store| json!({
                "place": store.place,
                "up": store.lost.is_none(),
                "lost_for": store.lost.as_ref().map(|(at, _)| seconds(now.saturating_duration_since(*at))),
                "why": store.lost.as_ref().map(|(_, why)| why.to_string()),
            })),
            "circuits": circuits,
            "concurrency": concurrency,
            "retry_budget": {
                "cap": budget.cap(),
                "per_success": budget.per_success(),
                "keys_short": budget.keys_short(),
            },
        })
    }
}

fn of_quota(quota: &QuotaStatus, now: Instant) -> Value {
    let dimensions: serde_json::Map<String, Value> = DIMENSIONS
        .iter()
        .zip(used(quota))
        .map(|((dimension, name), used)| {
            ((*name).to_owned(), json!({ "used": used, "limit": quota.limits.of(*dimension) }))
        })
        .collect();
    let closed: Vec<Value> = quota
        .closed
        .iter()
        .map(|(dimension, until)| json!({ "dimension": dimension.to_string(), "until": ahead(*until, now) }))
        .collect();
    json!({
        "key": quota.key.to_string(),
        "dimensions": dimensions,
        "closed": closed,
        "in_flight": quota.in_flight,
        "queued": quota.queued,
        "next_admission": ahead(quota.next_admission, now),
        "admitted": quota.admitted,
        "refused_by_google": quota.too_many,
        "not_sent": quota.not_sent,
        "fleet": quota.fleet.as_ref().map(|fleet| json!({
            "members": fleet.members,
            "waiting": fleet.waiting,
            "part": { "requests": fleet.part.requests, "tokens": fleet.part.tokens },
            "stock": { "requests": fleet.stock.requests, "tokens": fleet.stock.tokens },
            "asked": fleet.asked,
            "granted": fleet.granted,
            "is_lost": fleet.is_lost,
        })),
    })
}

fn ahead(at: Option<Instant>, now: Instant) -> Option<f64> {
    at.map(|at| seconds(at.saturating_duration_since(now)))
}

fn seconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

fn page(content_type: &'static str, text: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
