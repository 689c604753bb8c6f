//! Asks another model where the one that was asked cannot answer: a chain of models per model, and a ladder of service tiers.
//!
//! Google's own advice for an overloaded model and for a spent quota is another model. [`ModelFallbackLayer`] follows
//! it: where the [`Verdict`](crate::Verdict) of a failure says that another model would help, the same request goes to
//! the next model of its chain, and the answer says who gave it.
//!
//! # When to use it, and where
//!
//! Where an answer of a smaller model is better than none. It is off for every model that was given no chain.
//! **Outside** the [retry layer](crate::retry), the [rate limit](crate::rate_limit), the
//! [circuit breaker](crate::circuit_breaker) and the [classifier](crate::classify), so that each model is asked through
//! all of them; inside whatever sets the request's [`Deadline`](crate::Deadline). Inside the retry layer it would change
//! the model between two attempts, and the wait that the server asked of one model would be spent on another.
//!
//! Not for requests that are bound to one model: what names a `cachedContents` of one model is refused by the
//! others, and that refusal is then the answer.
//!
//! # Service tiers
//!
//! A [ladder](ModelFallbackBuilder::tier_ladder) asks the same model again in another [service tier](crate::tier) where the one that
//! was asked for has no capacity: a failure that is `overloaded`, `unavailable`, `deadline_exceeded` by the server's word, or a
//! 429 that names no quota, and an open circuit of that tier. The tiers come before the other models of a chain, which are
//! asked in the tier that was asked for. Off until a ladder is given: another tier has another price.
//!
//! # What is rewritten
//!
//! | the call | where the model stands |
//! |---|---|
//! | `models/{model}:generateContent`, `:streamGenerateContent`; the same below `publishers/google` on Vertex AI | the path: only the bytes of its name change |
//! | chat completions of the OpenAI-compatible surface, the creation of an interaction, Code Assist | the body's top-level `model`: only the bytes of its name change, `models/` or `google/` before it stays |
//!
//! A tier is rewritten in the body's top-level `service_tier` or `serviceTier`, which is put in front where there is none; on
//! Vertex AI, and where the request has it, in the header `X-Vertex-AI-LLM-Shared-Request-Type`.
//!
//! All other calls pass through: embeddings, because vectors of two models cannot be compared; `countTokens`, which
//! asks about one model; batches, predictions, tuned models, models of other publishers.
//!
//! To find the model in a body, the body is read where it is at hand (a `Full<Bytes>`), at the cost of one pass over
//! it; a [`ModelHint`](crate::request::ModelHint) in the request saves that. A body that streams through a
//! [`ReplayLayer`](crate::retry::ReplayLayer) is read after it was sent. Bodies above 32 MiB, and those that are no
//! JSON object with one `model`, are left alone. Whose body cannot be rewritten is not sent to another model; an
//! [event](crate::event::Event::FallbackRefused) says so. See [`RewriteBody`].
//!
//! Where the body names the model, requests with a chain get a `ModelHint`, so that the layers inside keep the
//! models' states apart.
//!
//! # When another model is asked
//!
//! - After a failure whose verdict says [`Alternative::Model`](crate::verdict::Alternative::Model): `rate_limited`,
//!   `quota_exhausted` (but not for money), `overloaded`, `unavailable`, `internal`, `deadline_exceeded` by the
//!   server's word, and `not_found` that names a model. The retry layer inside has then given up.
//! - After `context_too_long`, if a later model of the chain is marked as
//!   [larger](ModelFallbackBuilder::larger_context).
//! - After a [`Rejected`](crate::Rejected) of kind `rate_limited`, `quota_exhausted`, `overloaded` or `unavailable`: those
//!   of the rate limit, the concurrency limit and the circuit breaker are.
//! - Before calling, if the layer was given handles: a model whose [circuit is open](ModelFallbackBuilder::circuits) or
//!   whose [quota is spent](ModelFallbackBuilder::rate_limits) is passed over. Where the whole chain would be turned away, the
//!   model that was asked is called: its error tells the truth.
//!
//! While another model is left, the retry layer inside does not wait for an open circuit, nor repeat a circuit's probe that failed. Where
//! the circuits of all that are left are open too, the first of them that opens before the deadline is called and waited for.
//!
//! Never after output has begun: an answer whose head is good is handed on. Never after the deadline. Never where the
//! retry layer gave up because the request may have been processed
//! ([`GaveUp::MaybeProcessed`](crate::event::GaveUp::MaybeProcessed)): another model would be paid as well. Not after a
//! transport failure or a timeout of the client, which say nothing of the model.
//!
//! A wait that the server asked for and that the retry layer allows is waited out first. To change the model instead,
//! lower [`max_server_delay`](crate::retry::RetryPolicyBuilder::max_server_delay): a longer one is given up at once.
//!
//! Without the classifier inside, verdicts are made of status and headers alone.
//!
//! # Attempts and budgets
//!
//! A fallback is no way round the retry policy. All models of a request share its attempts: at most as many calls are
//! made as the policy has attempts, or as the chain has models if those are more. One attempt is left for each model
//! that comes after, and each but the last gets 3 at the most, since the next one can be asked instead of waiting: of
//! the default's 10 attempts and 3 models the first gets up to 3, the second too, and what they leave goes to the last.
//! The waits grow on, repeats of what may have been processed are counted together, and the policy's own deadline runs
//! from the first model's first call. [`Attempts`](crate::retry::Attempts) and the retry layer's events count all of it
//! as one request. (Where a body is read only after it was sent, no attempt is left for those after it, and each of
//! them may add one.)
//!
//! Each model has its own retry budget. The step to another model is charged to none: it would otherwise empty the
//! budget of a model that is well for the sake of one that is down. So when all models of a chain are down, a request
//! costs one call of each and the retries that their budgets pay for; with circuits and their handle, hardly
//! any. tower's own `Retry` shares nothing, and makes its attempts anew for each model.
//!
//! # What the answer says
//!
//! [`AnsweredBy`] in the extensions of each response that is not of the model that was asked, and the
//! [header](ModelFallbackBuilder::header) if one was named. A failure is the one of the model that was called last.
//!
//! # Defaults
//!
//! | setting | default |
//! |---|---|
//! | [`chain`](ModelFallbackBuilder::chain) | none; 1 to 15 models stand in for one |
//! | [`tier_ladder`](ModelFallbackBuilder::tier_ladder) | none; 1 or 2 tiers stand in for one |
//! | [`larger_context`](ModelFallbackBuilder::larger_context) | none |
//! | [`circuits`](ModelFallbackBuilder::circuits), [`rate_limits`](ModelFallbackBuilder::rate_limits) | not looked at |
//! | [`header`](ModelFallbackBuilder::header) | none |
//! | [`last_resort`](ModelFallbackBuilder::last_resort) | none |
//!
//! # Errors
//!
//! None of its own. The inner service's are boxed as a [`BoxError`](crate::BoxError) (a boxed error stays the same box).
//!
//! # Sharing, dropping and cost
//!
//! There is no state to share. A request without a chain is neither copied nor moved to the heap; its path is read
//! once. One with a chain is copied (not its bytes) and kept until the last model is asked. Dropping the future drops
//! the call under way and the copy. No readiness of the inner service is held between two models.
//!
//! # Examples
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_gemini::classify::ClassifyLayer;
//! use tower_gemini::fallback::ModelFallbackLayer;
//! use tower_gemini::retry::RetryLayer;
//!
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
//! let fallback = ModelFallbackLayer::builder()
//!     .chain("gemini-3.8-flash", ["gemini-3.5-flash-lite", "gemini-2.5-flash-lite"])
//!     .build()?;
//! let service = ServiceBuilder::new()
//!     .layer(fallback)
//!     .layer(RetryLayer::default())
//!     .layer(ClassifyLayer::new())
//!     .service(client);
//! # let _ = service; Ok(()) }
//! ```
//!
//! Several chains, models that are down passed over at once, the model named in a header, and a last resort:
//!
//! ```
//! use bytes::Bytes;
//! use http::{HeaderName, Response};
//! use tower::ServiceBuilder;
//! use tower_gemini::circuit_breaker::CircuitBreakerLayer;
//! use tower_gemini::classify::ClassifyLayer;
//! use tower_gemini::fallback::{AnsweredBy, ModelFallbackLayer};
//! use tower_gemini::rate_limit::RateLimitLayer;
//! use tower_gemini::retry::RetryLayer;
//! # use http_body_util::Full;
//! # use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! # let client = tower::service_fn(async |request: http::Request<Full<Bytes>>| {
//! #     let status = if request.uri().path().contains("3.8") { 503 } else { 200 };
//! #     http::Response::builder().status(status).body(Full::<Bytes>::default())
//! # });
//! let (breaker, limit) = (CircuitBreakerLayer::default(), RateLimitLayer::default());
//! let fallback = ModelFallbackLayer::builder()
//!     .chain("gemini-3.8-flash", ["gemini-3.5-flash-lite", "gemini-2.5-flash-lite"])
//!     .chain("gemini-3.5-flash-lite", ["gemini-2.5-flash-lite"])
//!     .circuits(breaker.handle())
//!     .rate_limits(limit.handle())
//!     .header(HeaderName::from_static("x-gemini-model"))
//!     .last_resort(|request, verdict| {
//!         let known = request.headers.contains_key("x-may-be-old") && verdict.kind().is_some();
//!         known.then(|| Response::new(Bytes::from_static(b"{\"candidates\":[]}")))
//!     })
//!     .build()?;
//! let service = ServiceBuilder::new()
//!     .layer(fallback)
//!     .layer(RetryLayer::default())
//!     .layer(limit)
//!     .layer(breaker)
//!     .layer(ClassifyLayer::new())
//!     .service(client);
//!
//! let request = http::Request::post("http://127.0.0.1/v1beta/models/gemini-3.8-flash:generateContent");
//! let response = service.oneshot(request.body(Full::<Bytes>::from("{}"))?).await?;
//! assert_eq!(response.headers()["x-gemini-model"], "gemini-3.5-flash-lite");
//! assert_eq!(AnsweredBy::of(&response).and_then(AnsweredBy::model), Some("gemini-3.5-flash-lite"));
//! # Ok(()) }
//! ```

mod body;
mod chain;
mod config;
mod decide;
mod future;
mod json;
mod layer;
mod path;
mod service;
mod work;

pub use self::body::{FallbackBody, RewriteBody};
pub use self::future::ResponseFuture;
pub use self::layer::{ModelFallbackBuilder, ModelFallbackLayer};
pub use self::service::ModelFallback;
pub use crate::event::fallback::{AnsweredBy, FallbackRefusal};
