//! A span of each call, sent to an OpenTelemetry collector: `--otlp`. In builds with the feature `otlp`, which is on by default.
//!
//! Spans are those of [`ObserveLayer`](tower_gemini::observe::ObserveLayer), with what happened on the way as their events. They are sent in
//! batches by a thread of their own; of those that a collector does not take in time, 2,048 wait, and more are dropped. No call waits for them.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

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
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
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
