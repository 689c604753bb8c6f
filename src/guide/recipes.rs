//! Recipes. Those that are whole programs stand in `examples/`, where they are run by CI.
//!
//! # hyper-util with rustls
//!
//! The client is a `Service` already. `Full<Bytes>` bodies are `Clone`, so retries need nothing else.
//!
//! ```rust,ignore
#![doc = include_str!("../../examples/hyper_rustls.rs")]
//! ```
//!
//! # Service tiers
//!
//! A request whose body says `"service_tier": "flex"` may take a quarter of an hour, and the stack waits for it. A ladder asks the
//! standard tier where there is no flex capacity:
//!
//! ```
//! use tower_gemini::ServiceTier::{Flex, Standard};
//! use tower_gemini::fallback::ModelFallbackLayer;
//! use tower_gemini::stack::GeminiStack;
//!
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! let stack = GeminiStack::new()
//!     .falling_back(ModelFallbackLayer::builder().tier_ladder(Flex, [Standard]))?;
//! # let _ = stack; Ok(()) }
//! ```
//!
//! [`AnsweredBy::tier`](crate::fallback::AnsweredBy::tier) says so, and [`Verdict::downgraded`](crate::Verdict::downgraded) where Google
//! has served a priority request as standard. Where the body cannot be looked at before it is sent (one that streams in without
//! a length), put a [`ServiceTier`](crate::ServiceTier) into the request's extensions.
//!
//! # Streams
//!
//! A stream is read as it comes; frames are never merged or held back. An error in the first event is retried like any
//! other. What comes later is the caller's to see: [`Verdict::outcome`](crate::Verdict::outcome) tells after the last frame, and
//! [`StrictBodyLayer`](crate::classify::StrictBodyLayer) turns a bad end into an error of the body.
//!
//! ```
//! use http_body_util::BodyExt;
//! # use bytes::Bytes;
//! # use http_body_util::Full;
//! # use tower::{Layer, ServiceExt};
//! use tower_gemini::Verdict;
//! use tower_gemini::classify::StrictBodyLayer;
//! use tower_gemini::stack::GeminiStack;
//! use tower_gemini::verdict::Outcome;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! # let client = tower::service_fn(async |_: http::Request<Full<Bytes>>| {
//! #     let events = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"Hi\"}]},\"finishReason\":\"STOP\"}]}\r\n\r\n";
//! #     let response = http::Response::builder().header("content-type", "text/event-stream");
//! #     response.body(Full::<Bytes>::from(events))
//! # });
//! # let request = http::Request::post("http://127.0.0.1/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent?alt=sse")
//! #     .body(Full::default())?;
//! let gemini = StrictBodyLayer::new().layer(GeminiStack::new().layer(client));
//! let response = gemini.oneshot(request).await?;
//! let verdict = Verdict::of(&response);
//! let mut body = response.into_body();
//! while let Some(frame) = body.frame().await {
//!     if let Ok(data) = frame?.into_data() {
//!         print!("{}", String::from_utf8_lossy(&data));
//!     }
//! }
//! assert_eq!(verdict.outcome(), Some(Outcome::Complete));
//! # Ok(()) }
//! ```
//! The texts of such a stream, event by event:
//!
//! ```rust,ignore
#![doc = include_str!("../../examples/sse.rs")]
//! ```
//!
//! # A batch under a limit
//!
//! ```rust,ignore
#![doc = include_str!("../../examples/batch.rs")]
//! ```
//!
//! # Replicas that share one quota
//!
//! ```rust,ignore
#![doc = include_str!("../../examples/replicas.rs")]
//! ```
//!
//! # Another model, or an answer of before
//!
//! ```rust,ignore
#![doc = include_str!("../../examples/cached_fallback.rs")]
//! ```
//!
//! # A circuit in a dashboard
//!
//! ```rust,ignore
#![doc = include_str!("../../examples/circuit_dashboard.rs")]
//! ```
//!
#![cfg_attr(feature = "reqwest", doc = include_str!("reqwest.md"))]
//!
//! A chat whose answer is printed as it comes:
//!
//! ```rust,ignore
#![doc = include_str!("../../examples/reqwest_chat.rs")]
//! ```
//!
//!
//! # axum: a handler with the stack in its state
//!
//! [`GeminiService`](crate::stack::GeminiService) is the type to name. The state is cloned for each request, and all clones share limits, circuits and
//! the client's connections.
//!
//! ```rust,ignore
#![doc = include_str!("../../examples/axum_state.rs")]
//! ```
//!
//! # axum: a proxy, and rejections as responses
//!
//! Behind a server every failure must become a response. [`RespondLayer`](crate::respond::RespondLayer) makes Google's own
//! form of it, with the code, the status, `RetryInfo` and `Retry-After`, which every SDK understands. The program in `gateway/`
//! is this, grown up.
//!
//! ```rust,ignore
#![doc = include_str!("../../examples/axum_proxy.rs")]
//! ```
//!
//! # SDKs and other clients
//!
//! Whole programs, with a 429 and a 503 that nobody sees, stand in the repository's `integrations/`:
//!
//! | client | by |
//! |---|---|
//! | reqwest 0.13, 0.12 | `gemini.send(http.post(url).json(&prompt))`, of `tower_gemini::reqwest` or `reqwest_012` |
//! | rig-core | `GeminiConfig::new(key).connect(StackClient::new(stack))`; or `.with_base_url(proxy.base_url())` |
//! | async-openai (feature `middleware`) | `Client::with_config(config).with_http_service(StackService::new(stack))` |
//! | reqwest-middleware | `ClientBuilder::new(http).with(Terminal::new(stack)).build()` |
//! | gemini-rust | `Gemini::with_model_and_base_url(key, model, format!("{}/v1beta/", proxy.base_url()).parse()?)` |
//! | genai | a service target resolver whose `Endpoint` is `format!("{}/v1beta/", proxy.base_url())` |
//! | rust-genai | `Client::builder().api_key(key).base_url(proxy.base_url()).build()?` |
//! | adk-model (adk-rust) | `GeminiModel::new_with_base_url(key, model, format!("{}/v1beta/", proxy.base_url()))?` |
//! | llm, whose Google backend takes no address | `LLMBuilder::new().backend(LLMBackend::Mistral).base_url(format!("{}/v1beta/openai/", proxy.base_url()))` |
//! | any other that takes a base URL | `proxy.base_url()` |
//!
//! `StackClient`, `StackService` and `Terminal` are of the package `adapters/` in the repository, which has a feature for each of the three.
//! `gemini` is a `ReqwestClient` around the stack (feature `reqwest` or `reqwest-012`), `proxy` a `LocalProxy` (feature `proxy`):
//!
//! ```ignore
//! let stack = GeminiStack::new().service(ReqwestService::new(reqwest::Client::new()));
//! let proxy = LocalProxy::serve(stack, "https://generativelanguage.googleapis.com").await?;
//! ```
//!
//! OpenAI's SDKs cannot read Google's errors, which stand in an array: [`OpenAiErrorsLayer`](crate::respond::OpenAiErrorsLayer) around the stack,
//! or `LocalProxy::builder().normalise_openai_errors()`. `StackService` does it by itself.
//!
//! # Parameters of others
//!
//! A gateway, or a page on which users choose a temperature, has its requests looked at before they wait for quota. A refusal
//! comes back in Google's form, with the field named; what is only told goes to the log. The rules are those of
//! [`preflight`](crate::preflight).
//!
//! ```
//! use std::sync::Arc;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{Layer, ServiceBuilder, ServiceExt};
//! use tower_gemini::observe::JsonLines;
//! use tower_gemini::preflight::{RuleMode, PreflightBody, PreflightLayer, Rule};
//! use tower_gemini::respond::RespondLayer;
//! use tower_gemini::stack::GeminiStack;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let client = tower::service_fn(async |_: Request<PreflightBody<Full<Bytes>>>|
//! #     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default())));
//! let preflight = PreflightLayer::builder()
//!     .mode(Rule::KeyInUrl, RuleMode::Reject)
//!     .observer(Arc::new(JsonLines::new(std::io::stderr()).with_events()))
//!     .build()?;
//! let gateway = ServiceBuilder::new()
//!     .layer(RespondLayer::new())
//!     .service(GeminiStack::new().preflight(preflight).layer(client));
//!
//! let uri = "/v1beta/models/gemini-3.5-flash-lite:generateContent?key=K";
//! let response = gateway.oneshot(Request::post(uri).body(Full::<Bytes>::from("{}"))?).await?;
//! assert_eq!(response.status(), 400);
//! # Ok(()) }
//! ```
//!
//! # Vertex AI
//!
//! The same API under another host and with an access token: paths of the form
//! `/v1/projects/P/locations/L/publishers/google/models/M:generateContent` are read as such, and quotas and circuits are kept by
//! project and location, too.
//!
//! ```rust,ignore
#![doc = include_str!("../../examples/vertex.rs")]
//! ```
//!
//! # A service of your own
//!
//! Anything that takes `http::Request<B>` and gives `http::Response<RB>`, with bodies of `Bytes` and an error that converts
//! into [`BoxError`](crate::BoxError). It must be `Clone`, because each retry makes one ready anew.
//!
//! Where its type names `BoxError` itself, as that of a closure or of a boxed service does, the compiler may say of
//! `tokio::spawn(async move { gemini.oneshot(request).await })` that an "implementation of `From` is not general enough"
//! ([rust-lang/rust#64552](https://github.com/rust-lang/rust/issues/64552), read 2026-11). Spawn `gemini.oneshot(request)`
//! itself, or write `gemini.ready().await?.call(request).await`.
//!
//! ```
//! use std::future::{Ready, ready};
//! use std::task::{Context, Poll};
//!
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{Layer, Service};
//! use tower_gemini::stack::GeminiStack;
//!
//! #[derive(Clone)]
//! struct Recorded(Bytes);
//!
//! impl Service<Request<Full<Bytes>>> for Recorded {
//!     type Response = Response<Full<Bytes>>;
//!     type Error = std::convert::Infallible;
//!     type Future = Ready<Result<Self::Response, Self::Error>>;
//!
//!     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
//!         Poll::Ready(Ok(()))
//!     }
//!
//!     fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
//!         ready(Ok(Response::new(Full::new(self.0.clone()))))
//!     }
//! }
//!
//! let gemini = GeminiStack::new().layer(Recorded(Bytes::from_static(b"{}")));
//! # let _: &dyn std::any::Any = &gemini as &dyn std::any::Any;
//! ```
//!
//! # Tests in virtual time
//!
//! ```rust,ignore
#![doc = include_str!("../../examples/virtual_time.rs")]
//! ```
