//! Levels, names and spans.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use ::tracing::field::{Field, Visit};
use ::tracing::span::{Attributes, Id, Record};
use ::tracing::{Level, Metadata, Subscriber, subscriber};
use http::Request;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::observe::{ObserveLayer, Tracing};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::retry::{RetryLayer, RetryPolicy};

use super::support::{Probe, error, request};
use super::{BEGUN, USED, overloaded, read, server, streamed};

type Fields = BTreeMap<String, String>;

/// What a subscriber was given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Arc<Mutex<Inside>>);

#[derive(Debug, Default)]
struct Inside {
    /// Level, the span that was entered, and fields; the message is one of them.
    events: Vec<(Level, Option<u64>, Fields)>,
    spans: Vec<(Fields, bool)>,
    entered: Vec<u64>,
}

struct Collect<'a>(&'a mut Fields);

impl Visit for Collect<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Subscriber for Trace {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "tower_gemini"
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::new();
        span.record(&mut Collect(&mut fields));
        let spans = &mut self.0.lock().unwrap().spans;
        spans.push((fields, false));
        Id::from_u64(spans.len() as u64)
    }
    fn record(&self, span: &Id, values: &Record<'_>) {
        let spans = &mut self.0.lock().unwrap().spans;
        values.record(&mut Collect(&mut spans[span.into_u64() as usize - 1].0));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &::tracing::Event<'_>) {
        let mut fields = Fields::new();
        event.record(&mut Collect(&mut fields));
        let mut inside = self.0.lock().unwrap();
        let entered = inside.entered.last().copied();
        inside.events.push((*event.metadata().level(), entered, fields));
    }
    fn enter(&self, span: &Id) {
        self.0.lock().unwrap().entered.push(span.into_u64());
    }
    fn exit(&self, span: &Id) {
        assert_eq!(self.0.lock().unwrap().entered.pop(), Some(span.into_u64()));
    }
    fn try_close(&self, span: Id) -> bool {
        self.0.lock().unwrap().spans[span.into_u64() as usize - 1].1 = true;
        true
    }
}

impl Trace {
    fn events(&self) -> Vec<(Level, Option<u64>, Fields)> {
        std::mem::take(&mut self.0.lock().unwrap().events)
    }

    fn levels(&self) -> Vec<(Level, String)> {
        self.events().into_iter().map(|(level, _, fields)| (level, fields["message"].clone())).collect()
    }

    /// The fields of each span, and whether it is closed.
    fn spans(&self) -> Vec<(Fields, bool)> {
        self.0.lock().unwrap().spans.clone()
    }
}

/// Collects what this thread traces, as long as the guard lives.
pub(crate) fn collect() -> (Trace, subscriber::DefaultGuard) {
    let trace = Trace::default();
    (trace.clone(), subscriber::set_default(trace))
}

fn fields(list: &[(&str, &str)]) -> Fields {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const STREAMED: [(&str, &str); 8] = [
    ("gen_ai.operation.name", "generate_content"),
    ("gen_ai.provider.name", "gcp.gemini"),
    ("gen_ai.request.model", "gemini-9-flash"),
    ("gen_ai.request.stream", "true"),
    ("http.request.method", "POST"),
    ("url.path", "/v1beta/models/gemini-9-flash:streamGenerateContent"),
    ("server.address", "generativelanguage.googleapis.com"),
    ("server.port", "443"),
];

const TOKENS: [(&str, &str); 5] = [
    ("http.response.status_code", "200"),
    ("gen_ai.usage.input_tokens", "7"),
    ("gen_ai.usage.cache_read.input_tokens", "3"),
    ("gen_ai.usage.output_tokens", "7"),
    ("gen_ai.usage.reasoning.output_tokens", "2"),
];

#[tokio::test(start_paused = true)]
async fn a_finished_call_bears_the_names_of_the_conventions() {
    let (trace, _guard) = collect();
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::new(Arc::new(Tracing::new())))
        .layer(ClassifyLayer::new().watch())
        .service(server(vec![(200, vec![Some(USED)]), overloaded()]));
    read(service.clone(), streamed()).await.unwrap();
    let more = [("latency_seconds", "0.07"), ("waited_seconds", "0.0"), ("message", "call finished")];
    let all = fields(&[&STREAMED[..], &TOKENS, &more].concat());
    assert_eq!(trace.events(), [(Level::DEBUG, None, all)]);
    read(service, streamed()).await.unwrap();
    let more = [
        ("latency_seconds", "0.07"),
        ("waited_seconds", "0.0"),
        ("http.response.status_code", "503"),
        ("error.type", "overloaded"),
        ("error_message", "The model is overloaded."),
        ("message", "call failed"),
    ];
    assert_eq!(trace.events(), [(Level::WARN, None, fields(&[&STREAMED[..], &more].concat()))]);
    assert_eq!(trace.spans(), [], "no span unless it is asked for");
}

#[tokio::test(start_paused = true)]
async fn a_span_is_open_from_the_call_to_the_end_of_its_body() {
    let (trace, _guard) = collect();
    let observer = Arc::new(Tracing::new());
    let policy = RetryPolicy::builder().observer(observer.clone()).build().unwrap();
    let limits = Limits::new().input_tokens_per_minute(1_000);
    let limit = RateLimitLayer::builder().limits(limits).observer(observer.clone()).build().unwrap();
    let service = ServiceBuilder::new()
        .layer(ObserveLayer::new(observer).spans())
        .layer(RetryLayer::new(policy))
        .layer(limit)
        .layer(ClassifyLayer::new().watch())
        .service(server(vec![overloaded(), (200, vec![Some(BEGUN), Some(USED)])]));
    let start = [("otel.name", "generate_content gemini-9-flash"), ("otel.kind", "client")];
    let start = [&STREAMED[..], &start].concat();
    let response = service.oneshot(streamed()).await.unwrap();
    assert_eq!(trace.spans(), [(fields(&start), false)]);
    let _ = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    let end = [&start[..], &TOKENS, &[("http.request.resend_count", "1")]].concat();
    assert_eq!(trace.spans(), [(fields(&end), true)]);
    let events = trace.events();
    assert!(events.iter().all(|(_, span, _)| *span == Some(1)), "all of them inside it");
    let texts: Vec<_> = events.iter().map(|(_, _, fields)| fields["message"].as_str()).collect();
    let told = ["attempt failed", "retry budget charged", "waiting for the next attempt", "recovered"];
    assert_eq!(texts, [&["settled"], &told[..], &["settled", "call finished"]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_failed_or_dropped_call_closes_its_span() {
    let (trace, _guard) = collect();
    let layer = ObserveLayer::new(Arc::new(Tracing::new())).spans();
    let broken = layer.layer(server(vec![(0, vec![]), (200, vec![])]));
    let odd = |path| Request::get(format!("http://127.0.0.1:81{path}")).body(super::Body::default()).unwrap();
    let _ = broken.clone().oneshot(odd("/x?key=y")).await;
    let timeout = tokio::time::timeout(super::PIECE, broken.oneshot(odd("/v1beta/files")));
    assert!(timeout.await.is_err());
    let spans = trace.spans();
    let some = |name: &str| spans.iter().map(|(fields, _)| fields.get(name).cloned()).collect::<Vec<_>>();
    assert!(spans.iter().all(|(_, closed)| *closed));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(some("error.type"), [text("transport"), None]);
    assert_eq!(some("otel.status_code"), [text("ERROR"), None]);
    assert_eq!(some("url.path"), [text("/x"), text("/v1beta/files")]);
    assert_eq!(some("server.port"), [text("81"), text("81")]);
    assert_eq!(some("gen_ai.request.model"), [None, None]);
}

#[tokio::test(start_paused = true)]
async fn levels_tell_what_needs_a_look() {
    let (trace, _guard) = collect();
    let observer = Arc::new(Tracing::new());
    let policy = RetryPolicy::builder().observer(observer.clone()).attempts(2).build().unwrap();
    let breaker = CircuitBreakerLayer::builder().observer(observer).consecutive_failures(2).build().unwrap();
    let down = || error(503, "UNAVAILABLE", "down");
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(breaker)
        .layer(ClassifyLayer::new())
        .service(Probe::new([down(), down()], super::support::Answer::Ok));
    let _ = service.clone().oneshot(request()).await;
    let told = |level, text: &str| (level, text.to_owned());
    assert_eq!(
        trace.levels(),
        [
            told(Level::DEBUG, "attempt failed"),
            told(Level::DEBUG, "retry budget charged"),
            told(Level::DEBUG, "waiting for the next attempt"),
            told(Level::WARN, "circuit opened"),
            told(Level::DEBUG, "attempt failed"),
            told(Level::WARN, "gave up"),
        ]
    );
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        let _ = read(service.clone(), request()).await;
    }
    let levels = trace.levels();
    assert!(levels.contains(&told(Level::DEBUG, "circuit half-open")), "{levels:?}");
    assert!(levels.contains(&told(Level::INFO, "circuit closed")), "{levels:?}");
}
