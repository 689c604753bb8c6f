//! Coming from other crates: before and after.
//!
//! Take the retries of the other crate, of your SDK and of the client below out: attempts multiply.
//!
//! # tower's own retry
//!
//! ```ignore
//! // Before: a `Policy` by hand, which sees the status only.
//! let client = ServiceBuilder::new().retry(MyPolicy { left: 3 }).timeout(secs(30)).service(client);
//! ```
//!
//! ```
//! # use {bytes::Bytes, http::{Request, Response}, http_body_util::Full};
//! # let client = tower::service_fn(async |_: Request<Full<Bytes>>| Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default())));
//! # use tower_gemini::stack::GeminiStack;
//! // After: the policy reads Gemini's body, waits as long as it says and has a budget.
//! let client = GeminiStack::new().service(client);
//! # let _ = tower::ServiceExt::<Request<Full<Bytes>>>::oneshot(client, Request::default());
//! ```
//!
//! A policy of one's own that is to stay gets the verdict: [`RetryPolicy`](crate::retry::RetryPolicy) is a `tower::retry::Policy`, too.
//!
//! ```
//! # use {bytes::Bytes, http::{Request, Response}, http_body_util::Full, tower::ServiceBuilder};
//! # let client = tower::service_fn(async |_: Request<Full<Bytes>>| Ok::<_, tower_gemini::BoxError>(Response::new(Full::<Bytes>::default())));
//! # use tower_gemini::{classify::ClassifyLayer, retry::RetryPolicy};
//! let client = ServiceBuilder::new().retry(RetryPolicy::default()).layer(ClassifyLayer::new()).service(client);
//! # let _ = tower::ServiceExt::<Request<Full<Bytes>>>::oneshot(client, Request::default());
//! ```
//!
//! `tower::timeout` around a stack cuts the waits too; a [`Deadline`](crate::Deadline) in the request's extensions is known to all layers.
//! `tower::limit::RateLimit` counts by connection and is not `Clone`; [`rate_limit`](crate::rate_limit) counts by model.
//!
#![cfg_attr(feature = "reqwest", doc = include_str!("coming_from_reqwest.md"))]
//! # tower-resilience
//!
//! ```ignore
//! // Before: predicates for each layer, in an order of your own.
//! let client = ServiceBuilder::new().layer(retry).layer(rate_limiter).layer(circuit_breaker).service(client);
//! ```
//!
//! ```
//! # use {bytes::Bytes, http::{Request, Response}, http_body_util::Full};
//! # use tower_gemini::{circuit_breaker::CircuitBreakerLayer, stack::GeminiStack};
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! # let client = tower::service_fn(async |_: Request<Full<Bytes>>| Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default())));
//! // After: one verdict that all layers read. Places are replaced one by one, or left out.
//! let breaker = CircuitBreakerLayer::builder().consecutive_failures(10).build()?;
//! let client = GeminiStack::new().circuit_breaker(breaker).without_concurrency().service(client);
//! # let _ = tower::ServiceExt::<Request<Full<Bytes>>>::oneshot(client, Request::default()); Ok(()) }
//! ```
//!
//! Its limiter after the fixed window is [`Limits`](crate::rate_limit::Limits) here, which are Google's sliding ones; its `is_failure` is
//! [`signals`](crate::concurrency::AdaptiveConcurrencyBuilder::signals) and
//! [`classify_with`](crate::circuit_breaker::CircuitBreakerBuilder::classify_with).
//!
//! # LiteLLM's proxy
//!
//! ```text
//! # Before: config.yaml
//! model_list: [{ model_name: flash, litellm_params: { model: gemini/gemini-3.8-flash, rpm: 60 } }]
//! router_settings: { num_retries: 3, fallbacks: [{ flash: [lite] }] }
//! # After
//! tower-gemini-gateway --requests-per-minute 60 --attempts 4 --fallback gemini-3.8-flash=gemini-3.5-flash-lite
//! ```
//!
//! The gateway passes Gemini's API on as it is, its OpenAI-compatible paths included; it does not translate for other vendors' models.
//! In a Rust program the same, without a proxy:
//!
//! ```
//! # use {bytes::Bytes, http::{Request, Response}, http_body_util::Full};
//! # use tower_gemini::{config::StackConfig, stack::GeminiStack};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = tower::service_fn(async |_: Request<Full<Bytes>>| Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default())));
//! let config: StackConfig = serde_json::from_str(r#"{
//!     "rate_limit": { "requests_per_minute": 60 },
//!     "retry": { "attempts": 4 },
//!     "fallback": { "chain": { "gemini-3.8-flash": ["gemini-3.5-flash-lite"] } }
//! }"#)?;
//! let client = GeminiStack::from_config(&config)?.service(client);
//! # let _ = tower::ServiceExt::<Request<Full<Bytes>>>::oneshot(client, Request::default()); Ok(()) }
//! ```
