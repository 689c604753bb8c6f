//! Coming from other crates: before and after.
//!
//! Take the retries of the other crate, of your SDK and of the client below out: attempts multiply.
//!
//! # tower's own retry
//!
//! ```ignore
//! // Before: a `Policy` by hand, which sees the status only.
//! let client = ServiceBuilder::new().retry(MyPolicy { left: 3 }).timeout(secs(30)).service(client);
//! // After: the policy reads Gemini's body, waits as long as it says and has a budget.
//! let client = GeminiStack::new().service(client);
//! ```
//!
//! `tower::timeout` around a stack cuts the waits too; a [`Deadline`](crate::Deadline) in the request's extensions is known to all layers.
//! `tower::limit::RateLimit` counts by connection and is not `Clone`; [`rate_limit`](crate::rate_limit) counts by model.
//!
//! # reqwest-middleware and reqwest-retry
//!
//! ```ignore
//! // Before
//! let client = ClientBuilder::new(http).with(RetryTransientMiddleware::new_with_policy(backoff)).build();
//! let response = client.post(url).json(&prompt).send().await?;
//! // After
//! let gemini = ReqwestClient::new(GeminiStack::new().service(ReqwestService::new(http.clone())));
//! let response = gemini.send(http.post(url).json(&prompt)).await?;
//! ```
//!
//! # backon
//!
//! ```ignore
//! // Before: the closure decides what is worth a retry, and by how much.
//! let answer = (|| ask(&http)).retry(ExponentialBuilder::default()).when(|e| e.is_transient()).await?;
//! // After: `ask` sends through the stack, and is called once.
//! let answer = ask(&gemini).await?;
//! ```
//!
//! # tower-resilience
//!
//! ```ignore
//! // Before: predicates for each layer, in an order of your own.
//! let client = ServiceBuilder::new().layer(retry).layer(rate_limiter).layer(circuit_breaker).service(client);
//! // After: one verdict that all layers read. Places are replaced one by one: `.circuit_breaker(…)`, `.without_retry()`.
//! let client = GeminiStack::new().service(client);
//! ```
//!
//! # LiteLLM's proxy
//!
//! ```text
//! # Before: config.yaml
//! model_list: [{ model_name: flash, litellm_params: { model: gemini/gemini-3.8-flash, rpm: 60 } }]
//! router_settings: { num_retries: 3, fallbacks: [{ flash: [lite] }] }
//! # After
//! tower-gemini-gateway --requests-per-minute 60 --fallback gemini-3.8-flash=gemini-3.5-flash-lite
//! ```
//!
//! The gateway passes Gemini's API on as it is, its OpenAI-compatible paths included; it does not translate for other vendors' models.
