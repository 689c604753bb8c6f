//! Tower layers that make any HTTP client of Google's Gemini API dependable.
//!
//! Gemini writes what a failure means into its body: how long to wait, which quota was hit, whether a key is wrong
//! or a model is full. A client that looks at the status alone retries what cannot succeed, too early, or not at all.
//! Here a [classifier](classify) reads that body once and publishes a [`Verdict`], and the other layers act on it: [retry]
//! tries again, the [rate limit](rate_limit) keeps the quotas that it names, the [circuit breaker](circuit_breaker) and
//! the [concurrency] limit spare a server that is not well.
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_gemini::{Verdict, classify::ClassifyLayer, retry::{Attempts, RetryLayer}};
//! # use std::sync::atomic::{AtomicU32, Ordering};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! # let calls = std::sync::Arc::new(AtomicU32::new(0));
//! # let client = tower::service_fn(move |_: Request<Full<Bytes>>| {
//! #     let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
//! #     let body = r#"{"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}"#;
//! #     async move { http::Response::builder().status(if first { 503 } else { 200 }).body(Full::<Bytes>::from(body)) }
//! # });
//! // `client` is any `Service<http::Request<B>>`: hyper-util's client, reqwest through the adapter, …
//! let gemini = ServiceBuilder::new()
//!     .layer(RetryLayer::default())
//!     .layer(ClassifyLayer::new())
//!     .service(client);
//!
//! let request = Request::post("https://generativelanguage.googleapis.com/v1beta/models/gemini-3.5-flash-lite:generateContent")
//!     .body(Full::from(r#"{"contents":[{"parts":[{"text":"Hello"}]}]}"#))?;
//! let response = gemini.oneshot(request).await?;
//!
//! assert!(Verdict::of(&response).is_success());
//! assert_eq!(Attempts::of(&response).made(), 2, "the model was overloaded once");
//! # Ok(()) }
//! ```
//!
//! # Where to look
//!
//! | | |
//! |---|---|
//! | [`Verdict`], [`Kind`] | what went wrong, whether and when to try again, what helps |
//! | [`classify`] | the layer that reads error bodies, and streams for the errors in them |
//! | [`retry`] | the layer that tries again: policy, backoff, budget, bodies |
//! | [`rate_limit`] | the layer that keeps quotas: requests, input tokens, days |
//! | [`concurrency`] | the layer that limits the calls in flight to what the server answers in time |
//! | [`circuit_breaker`] | the layer that stops asking a server that is down |
//! | [`timeout`] | the layers that end what takes too long: attempts, pauses of a stream, whole requests |
//! | [`fallback`] | the layer that asks another model |
//! | [`last_good`] | the layer that answers with an older answer where everything failed |
//! | [`coalesce`] | the layer that answers equal requests by one call |
//! | [`hedge`] | the layer that sends a late call a second time |
//! | [`places`] | the layer that asks at another place: region, project, provisioned throughput |
//! | [`resume`] | the layer that goes on with a stream that broke off |
//! | [`preflight`] | the layer that looks at a request before it is sent |
//! | [`respond`] | the layer that turns errors into Google's own form, for gateways |
//! | [`stack`] | all of them in the recommended order, in one line |
//! | [`config`] | the settings of all of them as data: files, environment variables |
//! | [`guide`] | choosing the order, recipes |
//! | [`request`] | what a request asks for, without the key |
//! | [`tier`] | service tiers: standard, flex, priority |
//! | [`event`] | what the layers tell while they work |
//! | [`observe`] | the layer that looks at whole calls, and observers to log and to count with |
//! | [`error`] | boxed errors, and how to find the inner one again |
#![cfg_attr(feature = "fleet", doc = "| [`fleet`] | one quota for many processes |")]
#![cfg_attr(
    feature = "proxy",
    doc = "| [`proxy`] | a stack behind a base URL, for SDKs that take nothing else |"
)]
#![cfg_attr(feature = "reqwest", doc = "| [`reqwest`] | reqwest's client as a service, and the way back |")]
#![cfg_attr(feature = "reqwest-012", doc = "| [`reqwest_012`] | the same for reqwest 0.12 |")]
#![cfg_attr(feature = "sim", doc = "| [`sim`] | Gemini in a box, for tests |")]
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `gzip` | ✓ | bodies under `content-encoding: gzip` are read: those of errors, and those that are watched or peeked at |
//! | `hyper` | ✓ | errors of hyper and hyper-util are told apart exactly |
//! | `fleet` | | one quota for many processes, through a store |
//! | `redis` | | that store in Redis or Valkey; brings `fleet` |
//! | `metrics` | | [`observe`]: counters, histograms and gauges of the `metrics` facade |
//! | `moka` | | [`last_good`]: a store in a cache of moka's |
//! | `proxy` | | a stack behind a base URL on loopback |
//! | `reqwest` | | the adapters for reqwest 0.13 |
//! | `reqwest-012` | | the same for reqwest 0.12 |
//! | `sim` | | the simulator |
//! | `tower-http-06`, `tower-http-07` | | `GeminiClassifier` for the `TraceLayer` of tower-http 0.6 and 0.7 |
//! | `tracing` | | [`observe`]: events and spans of the `tracing` facade |
//! | `full` | | all of them |
//!
//! The layers need none of them.
//!
//! # What every layer keeps
//!
//! - `poll_ready` is a reservation: the instance that was polled is called, and nobody's readiness is held while a
//!   layer waits.
//! - Dropping a future or a body at any point gives back everything it held, and counts nothing.
//! - State is shared by all clones and by all services of one layer value, and kept apart by model.
//! - Nothing waits for what cannot come in time: the last real answer is returned at once.
//! - Memory is bounded, and every bound is a documented setting.
//! - Keys and tokens are never printed, also where Google echoes them.
//! - Time is tokio's and pauses with it; randomness can be seeded. Nothing is global, and no task is spawned but the one of a
//!   rate limit with a store.
//!
//! # Platforms
//!
//! All that tokio runs on. Not `wasm32-unknown-unknown`: tokio's clock, on which every layer waits, does not run there.
//!
//! # What it does not do
//!
//! It makes no requests of its own, but the `countTokens` that a [preflight] is told to ask, and knows no prompts. It repeats nothing once a stream has begun, but where a [`resume`] layer is asked to: an error in its
//! first event is retried as an error's status is ([`Peek`](classify::Peek)), a later one is seen at the end of the body
//! ([`watch`](classify::ClassifyLayer::watch), [`StrictBodyLayer`](classify::StrictBodyLayer)). Of its layers only
//! [`timeout`]'s cuts a call that is under way.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod admission;
mod answered;
mod blame;
mod body;
mod call_options;
pub mod catalogue;
pub mod circuit_breaker;
pub mod classify;
pub mod coalesce;
pub mod concurrency;
pub mod config;
mod config_error;
mod context;
pub mod error;
pub mod event;
pub mod fallback;
#[cfg(feature = "fleet")]
#[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
pub mod fleet;
pub mod google_rpc;
pub mod guide;
pub mod hedge;
mod held;
mod judge;
mod keyed;
pub mod last_good;
mod latency;
mod layer_order;
mod lock;
#[cfg(any(feature = "proxy", feature = "sim"))]
mod loopback;
pub mod observe;
pub mod places;
pub mod preflight;
#[cfg(feature = "proxy")]
#[cfg_attr(docsrs, doc(cfg(feature = "proxy")))]
pub mod proxy;
pub mod rate_limit;
mod redact;
pub mod request;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;
#[cfg(feature = "reqwest-012")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest-012")))]
pub mod reqwest_012;
pub mod respond;
pub mod resume;
pub mod retry;
mod rng;
mod scan;
mod seen;

#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub mod sim;
pub mod stack;
mod sync;
pub mod tier;
mod time;
pub mod timeout;
pub mod verdict;

pub use answered::AnyResponse;
pub use call_options::{CallOptions, RequestClass};
pub use error::{BoxError, ConfigError, Rejected};
pub use request::{KeyLabel, Method, Surface, Target};
pub use tier::ServiceTier;
pub use timeout::Deadline;
pub use verdict::{Kind, Verdict};

// Its program needs the adapter.
#[cfg(all(doctest, feature = "reqwest"))]
#[doc = include_str!("../README.md")]
struct Readme;
