//! A span of each call, sent to an OpenTelemetry collector: `--otlp`. In builds with the feature `otlp`, which is on by default.
//!
//! Spans are those of [`ObserveLayer`](tower_gemini::observe::ObserveLayer), with what happened on the way as their events. They are sent in
//! batches by a thread of their own; of those that a collector does not take in time, 2,048 wait, and more are dropped. No call waits for them.
//!
//! A call that names its trace is a span of that one, if it is sampled there: see [`trace_context`](crate::trace_context).

use std::cell::Cell;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, ContextGuard};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracerProvider};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use crate::trace_context::TraceContext;
use crate::upstream::Base;

const NAME: &str = "tower-gemini-gateway";

/// Who sends spans. One of a process.
#[derive(Clone, Debug)]
pub struct Otlp(SdkTracerProvider);

impl Otlp {
    /// Begins to send what the process' spans say.
    ///
    /// # Errors
    ///
    /// A sentence. That the collector does not answer is none: it may do so later.
    pub fn start(collector: &Base) -> Result<Self, String> {
        let endpoint = format!("{collector}/v1/traces");
        let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|error| format!("--otlp cannot be used: {error}"))?;
        let resource = Resource::builder().with_service_name(NAME).build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .with_id_generator(Ids(RandomIdGenerator::default()))
            .build();
        let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer(NAME));
        // The client that sends spans makes some of its own.
        let ours = Targets::new().with_target("tower_gemini", LevelFilter::DEBUG);
        tracing::subscriber::set_global_default(Registry::default().with(spans.with_filter(ours)))
            .map_err(|_| "--otlp cannot be used twice in one process".to_owned())?;
        Ok(Self(provider))
    }

    /// Sends what is left. Blocks.
    pub fn stop(&self) {
        // A collector that is gone: there is nobody left to tell.
        let _ = self.0.shutdown();
    }
}

// ===== whose span it is =====

thread_local! {
    /// The trace and the span that the upstream was told of: the next span that begins is this one. Each is asked for once.
    static TRACE: Cell<Option<u128>> = const { Cell::new(None) };
    static SPAN: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Gives the span of a call the id that was passed on with it.
#[derive(Debug)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        TRACE.take().map_or_else(|| self.0.new_trace_id(), TraceId::from)
    }

    fn new_span_id(&self) -> SpanId {
        SPAN.take().map_or_else(|| self.0.new_span_id(), SpanId::from)
    }
}

/// While it lives, the next span of this thread is the one that is passed on, and goes on from the caller's.
#[must_use]
pub struct Begins(#[expect(dead_code, reason = "it is dropped")] Option<ContextGuard>);

impl Begins {
    pub fn new(parent: Option<TraceContext>, passed_on: TraceContext) -> Self {
        TRACE.set(Some(passed_on.trace));
        SPAN.set(Some(passed_on.span));
        Self(parent.map(|TraceContext { trace, span, flags }| {
            let (trace, span, flags) = (TraceId::from(trace), SpanId::from(span), TraceFlags::new(flags));
            let parent = SpanContext::new(trace, span, flags, true, TraceState::default());
            Context::current().with_remote_span_context(parent).attach()
        }))
    }
}

impl Drop for Begins {
    fn drop(&mut self) {
        TRACE.set(None);
        SPAN.set(None);
    }
}
