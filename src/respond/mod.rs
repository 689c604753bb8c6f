//! Answers with Google's own errors where the stack failed: for servers and gateways.
//!
//! [`RespondLayer`] turns what the layers inside return as errors (a rate limit that did not admit, an open circuit, a
//! timeout, a lost connection) into a response with status, body and headers as Gemini writes them. Every SDK then
//! reads the kind and the delay out of it as it does with Google's, and the service's error is
//! [`Infallible`](std::convert::Infallible), which is what axum and other servers ask for.
//!
//! # When to use it, and where
//!
//! In a process that serves HTTP, **outside** everything else. Not in a client: there an error tells more than a
//! response. Not inside a retry layer or a circuit breaker, which would take the answer for the server's.
//!
//! # What it answers
//!
//! | the error | status | code | `Retry-After`, `RetryInfo` |
//! |---|---|---|---|
//! | [`RateLimited`](crate::rate_limit::RateLimited), also of a spent quota | 429 | `RESOURCE_EXHAUSTED` | until it would be admitted |
//! | [`CircuitOpen`](crate::circuit_breaker::CircuitOpen) | 503 | `UNAVAILABLE` | until the circuit lets requests through |
//! | [`ConcurrencyLimited`](crate::concurrency::ConcurrencyLimited) | 503 | `UNAVAILABLE`, overloaded | where it is known |
//! | [`PreflightRefused`](crate::preflight::PreflightRefused) | 400, 413 for a body that is too large | `INVALID_ARGUMENT`, with a `BadRequest` that names the fields | |
//! | another [`Rejected`](crate::Rejected) | that of its kind, else 503 | that of its kind | where it says until when |
//! | timeouts of tower, tokio, the client or the system | 504 | `DEADLINE_EXCEEDED` | |
//! | no connection | 503 | `UNAVAILABLE` | |
//! | the client refused to send it, or its body failed | 400 | `INVALID_ARGUMENT` | |
//! | any other error, a connection lost on the way among them | 502 | `UNAVAILABLE` | |
//!
//! The status of a kind ([`error`], [`Rejected::with_kind`](crate::Rejected::with_kind)): 400 for a malformed request, a
//! wrong key, a long prompt and a blocked one; 401, 403, 404; 409 `conflict`; 413 `payload_too_large`; 429 for both
//! limits; 499 `cancelled`; 501; 503 `overloaded` and `unavailable`; 504; and 500 for the rest.
//!
//! ```json
//! {"error": {"code": 429, "message": "…", "status": "RESOURCE_EXHAUSTED", "details": [
//!   {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMITED", "domain": "tower-gemini"},
//!   {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{
//!     "quotaMetric": "tower-gemini/requests_per_minute", "description": "requests per minute"}]},
//!   {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.2s"}]}}
//! ```
//!
//! `domain` tells such an answer from Google's. `RetryInfo` is exact, and `Retry-After` is the same in whole seconds,
//! rounded up. The [classifier](crate::classify) reads the same kind out of it as from the error, and the same delay;
//! but a transport failure comes back as `unavailable`, for no status says more.
//!
//! **Nothing of the error's own text is sent**: it may name an address of the inner network. The sentences are fixed;
//! a model's name, and the numbers of a preflight's finding, are the only things that vary. The error itself is in the response's extensions ([`Cause`]), for a
//! log, beside its [`Verdict`](crate::Verdict).
//!
//! # What passes through
//!
//! Every response of the inner service, byte for byte, Google's errors included. A body that fails half-way fails as
//! it did: its head is gone by then.
//!
//! # OpenAI's form
//!
//! [`OpenAiErrorsLayer`], outside of it, puts errors of the OpenAI-compatible surface into the form that OpenAI's SDKs read, those of Google
//! and those of this layer alike.
//!
//! # Sharing and dropping
//!
//! There is no state. Dropping a future or a body drops the inner one. A success costs no allocation.
//!
//! # Examples
//!
//! ```
//! use std::convert::Infallible;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_gemini::respond::RespondLayer;
//!
//! # use http_body_util::Full;
//! # use bytes::Bytes;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Infallible> {
//! let service = ServiceBuilder::new().layer(RespondLayer::new()).service_fn(
//!     async |_: http::Request<Full<Bytes>>| -> Result<http::Response<Full<Bytes>>, std::io::Error> {
//!         Err(std::io::ErrorKind::ConnectionRefused.into())
//!     },
//! );
//! let response = service.oneshot(http::Request::default()).await?;
//! assert_eq!(response.status(), 503);
//! assert_eq!(response.headers()["content-type"], "application/json; charset=UTF-8");
//! # Ok(()) }
//! ```
//!
//! A gateway that turns a request away by itself says so in the same form:
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use tower_gemini::{Kind, respond};
//!
//! fn check(request: &http::Request<()>) -> Result<(), http::Response<Full<Bytes>>> {
//!     if request.uri().path().starts_with("/v1") {
//!         return Ok(());
//!     }
//!     Err(respond::error(Kind::NotFound, "There is no such path here.").map(Full::new))
//! }
//! assert_eq!(check(&http::Request::new(())).unwrap_err().status(), 404);
//! ```

mod answer;
mod openai;
mod service;

pub use self::answer::{error, from_error};
pub use self::openai::{OpenAiErrors, OpenAiErrorsBody, OpenAiErrorsFuture, OpenAiErrorsLayer};
pub use self::service::{Respond, RespondBody, RespondLayer, ResponseFuture};
pub use crate::event::cause::Cause;
