//! Looks at whole calls, and writes down what the layers tell.
//!
//! [Events](crate::event) speak of what goes wrong. [`ObserveLayer`] adds what they cannot give: of **every** call, also
//! the good ones, status, latency, attempts and tokens, told once when the call is over
//! ([`Event::Finished`](crate::event::Event::Finished), with the [`Call`]). Observers that are ready to use:
//!
//! | observer | feature | what it does |
//! |---|---|---|
//! | [`JsonLines`] | | one line of JSON a call, with the fields that Google's guides ask to log |
#![cfg_attr(feature = "tracing", doc = "| [`Tracing`] | `tracing` | events with OpenTelemetry's names |")]
#![cfg_attr(feature = "metrics", doc = "| [`Metrics`] | `metrics` | counters, histograms and gauges |")]
//!
//! Each can be given to every layer that takes an observer, and to this one; several at once as a `Vec` of them.
//!
//! # When to use it, and where
//!
//! Outermost, to see each request once with its retries, waits and final answer; or inside the retry layer, to see
//! each attempt; or both. The [classifier](crate::classify) should [`watch`](crate::classify::ClassifyLayer::watch): then
//! the outcome of a stream, and the tokens under `gzip`, are known. Without it this layer reads along with the answers of
//! models for their tokens, which costs an allocation, and takes a body that arrives for a good answer.
//!
//! # When a call is over
//!
//! A good answer with the end of its body, when it breaks off, or when it is dropped; a failure with its head, since its
//! verdict is there; an error when it is returned. A future or a body that is dropped before its end is told as
//! [`Outcome::Dropped`](crate::verdict::Outcome::Dropped), with what was known until then.
//!
//! # What it costs
//!
//! Six allocations a call: a box for the call, a cell that retries write to, and the cell's place in the request's context,
//! of which three are those of the first extension. The clock is read three times. Nothing is buffered.
//!
//! # Secrets
//!
//! No header is read, and neither the query nor the user of a URI is shown. Messages and paths have keys and tokens
//! replaced.
//!
//! # Sharing, errors and dropping
//!
//! All services and clones of a layer tell one observer. The layer adds no error; an inner one is boxed as a
//! [`BoxError`](crate::BoxError) (a boxed error stays the same box). It has no settings but the observer
#![cfg_attr(feature = "tracing", doc = "and [`spans`](ObserveLayer::spans), off by default.")]
#![cfg_attr(not(feature = "tracing"), doc = "and, with the feature `tracing`, `spans`, off by default.")]
//!
//! # Examples
//!
//! ```
//! use std::sync::Arc;
//! use tower::ServiceBuilder;
//! use tower_gemini::classify::ClassifyLayer;
//! use tower_gemini::observe::{JsonLines, ObserveLayer};
//! use tower_gemini::retry::RetryLayer;
//!
//! # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
//! let service = ServiceBuilder::new()
//!     .layer(ObserveLayer::new(Arc::new(JsonLines::new(std::io::stderr()))))
//!     .layer(RetryLayer::default())
//!     .layer(ClassifyLayer::new().watch())
//!     .service(client);
//! # let _ = service;
//! ```
//!
//! An observer of one's own:
//!
//! ```
//! use tower_gemini::event::{Event, Observer};
//! use tower_gemini::verdict::Outcome;
//!
//! struct Slow(std::time::Duration);
//!
//! impl Observer for Slow {
//!     fn on_event(&self, event: &Event<'_>) {
//!         if let Event::Finished { call, .. } = event {
//!             if call.outcome() == Outcome::Complete && call.latency() > self.0 {
//!                 eprintln!("{} took {:?}", call.target(), call.latency());
//!             }
//!         }
//!     }
//! }
//! ```

mod body;
mod config;
mod future;
mod json_lines;
mod layer;
mod line;
#[cfg(feature = "metrics")]
mod metrics;
mod names;
mod report;
mod service;
mod span;
#[cfg(feature = "tracing")]
mod tracing;

pub use self::body::ObserveBody;
pub use self::future::ResponseFuture;
pub use self::json_lines::JsonLines;
pub use self::layer::ObserveLayer;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use self::metrics::Metrics;
pub use self::service::Observe;
#[cfg(feature = "tracing")]
#[cfg_attr(docsrs, doc(cfg(feature = "tracing")))]
pub use self::tracing::Tracing;
pub use crate::event::attachment::Attachment;
pub use crate::event::call::Call;
