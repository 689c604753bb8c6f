//! Looks at a request before it is sent, and refuses it, or tells, where the server would refuse it or somebody would regret it.
//!
//! A parameter out of range, a name of a model that is none, a prompt that is too long: the server says so with a 400 or a 404, after
//! the request has waited for its quota and has been counted. [`PreflightLayer`] says so at once, names the field, and sends
//! nothing.
//!
//! # When to use it, and where
//!
//! Where requests come from others (a gateway, users who choose parameters) or where their names and numbers come from a
//! configuration. Outside of everything but the deadline ([`DeadlineLayer`](crate::timeout::DeadlineLayer)), so that what is refused is
//! neither charged nor counted; around a [`ReplayLayer`](crate::retry::ReplayLayer), which then keeps what was let through. The
//! [stack](crate::stack) has a place for it and leaves it empty.
//!
//! The catalogue of models grows old. So what depends on its being whole ([`Rule::UnknownModel`], [`Rule::RetiredModel`]) is told by
//! default and not refused; refuse it only with a [catalogue of your own](PreflightBuilder::catalogue) that is kept up to date.
//!
//! # The rules
//!
//! | rule | what is looked at | by default |
//! |---|---|---|
//! | [`CandidateCount`](Rule::CandidateCount) | `candidateCount`, `n`: 1 to 8 | refused |
//! | [`Temperature`](Rule::Temperature) | `temperature`: 0 to 2 | refused |
//! | [`LowTemperature`](Rule::LowTemperature) | `temperature` below 1.0 for a model of Gemini 3 | told |
//! | [`TopP`](Rule::TopP) | `topP`: 0 to 1 | refused |
//! | [`TopK`](Rule::TopK) | `topK`: 1 or more, up to the model's most where one is known | refused |
//! | [`OutputTokens`](Rule::OutputTokens) | `maxOutputTokens`, `max_tokens`: 1 to the model's most | refused |
//! | [`Thinking`](Rule::Thinking) | `thinkingBudget` in the model's range, `thinkingLevel` among its levels, not both | refused |
//! | [`UnknownModel`](Rule::UnknownModel) | a name that the catalogue does not know, with the nearest one that it knows | told |
//! | [`RetiredModel`](Rule::RetiredModel) | a model whose day has come, with its successor | told |
//! | [`ApiVersion`](Rule::ApiVersion) | what `v1` has not: context caching, service tiers, audio output, computer use, MCP servers | told |
//! | [`ContextSize`](Rule::ContextSize) | a prompt that must be over the model's context, or was counted to be | refused |
//! | [`InlineSize`](Rule::InlineSize) | a body above 100 MiB, with the Files API as the remedy | refused |
//! | [`BatchSize`](Rule::BatchSize) | a `:batchEmbedContents` of more than 100 texts | refused |
//! | [`KeyInUrl`](Rule::KeyInUrl) | `?key=`, `?access_token=`: URLs are logged on the way | told |
//! | [`KeyInBody`](Rule::KeyInBody) | a key of the form `AIza…` by itself in the body | told |
//!
//! The ranges are those of the [catalogue](crate::catalogue), with their sources; they apply to models whose names begin with
//! `gemini-`, on all surfaces. What is not known is not looked at, and for a model that has retired only what holds for all of
//! them is: another one answers for it.
//!
//! **The bound of a prompt** is sure: the text of its parts has at least as many tokens as its bytes by 64. No token of the published
//! vocabularies of Gemma, whose tokenizer Google's own SDK counts Gemini's tokens with, has more than 48. Escapes count as one
//! byte, media and thoughts as none. So a good prompt is never refused, and one that is a little too long goes through; ask for a
//! count to have it exact.
//!
//! # What is promised of bodies
//!
//! The body is read as it passes, by a scanner of a few hundred bytes that follows `generationConfig` and a dozen other members.
//! Its bytes are handed on as they came.
//!
//! - **Up to [`hold_bytes`](PreflightBuilder::hold_bytes)** (64 KiB) a body is held until it is judged, and refused whatever rule it
//!   breaks.
//! - **A larger one in one frame**, which is in memory anyway, is judged whole as well.
//! - **A larger one in several frames** is judged by its beginning and sent. The rest is looked at while it goes out, and what is
//!   found there is told when the body has ended: it is too late to refuse it. Put `generationConfig` in front of the contents.
//! - **A slow one** is waited for, for [`head_wait`](PreflightBuilder::head_wait) (10 s) or to the request's deadline, and then
//!   judged by what is there.
//!
//! Whether a body is too large for inline data says its `content-length`, or its size hint; of one that says nothing it is told
//! afterwards. Bodies under `content-encoding` are not read, nor those of uploads and of requests that put no model to work.
//! What is no JSON is handed on.
//!
//! The texts of a `:batchEmbedContents` that was read as a whole go to the rate limit as [`Texts`](crate::rate_limit::Texts).
//!
//! # Counting first
//!
//! [`count_tokens`](PreflightBuilder::count_tokens) asks `countTokens` of the same model before the request is sent, through the layers
//! inside. The count goes to the rate limit as [`InputTokens`](crate::rate_limit::InputTokens), which charges it exactly, and is held
//! against the model's context. It is asked for whole bodies of [16 KiB to 1 MiB](CountTokens) of `generateContent` and
//! `streamGenerateContent` on the Gemini API, at most 60 times a minute; what goes wrong with it, or takes longer than 2 s, costs
//! nothing but that time.
//!
//! # Events and errors
//!
//! Each finding is told as [`Event::Preflight`](crate::event::Event::Preflight). A request that is refused fails with
//! [`PreflightRefused`], which counts as [not sent](crate::Rejected); behind a [`RespondLayer`](crate::respond::RespondLayer) its caller
//! gets Google's own form, a 400 `INVALID_ARGUMENT` with a `BadRequest` that names the fields. A body that fails in its beginning
//! gives [`BodyFailed`].
//!
//! # Sharing and dropping
//!
//! Settings and the counts that are left are shared by the clones of a layer and all its services. Nothing else is kept. A request
//! that waits for its body, or for a count, holds nobody's readiness. Dropping the future drops the call, the question or the
//! body; dropping the body drops its rest untold.
//!
//! # Cost
//!
//! A good request of 2 KiB costs about 2 µs and no allocation: a look at the catalogue, one pass over the body at the speed of
//! memory, and one for keys. The body's type becomes [`PreflightBody`]; it must be `Unpin`, so box others.
//!
//! # Examples
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tower::{Layer, ServiceExt};
//! use tower_gemini::error::find;
//! use tower_gemini::preflight::{PreflightLayer, PreflightRefused, Rule};
//! use tower_gemini::stack::GeminiStack;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower_gemini::BoxError> {
//! # use tower_gemini::preflight::PreflightBody;
//! # let client = tower::service_fn(async |_: Request<PreflightBody<Full<Bytes>>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(Full::<Bytes>::default())));
//! let gemini = GeminiStack::new().preflight(PreflightLayer::new()).layer(client);
//!
//! let uri = "https://generativelanguage.googleapis.com/v1beta/models/gemini-3.5-flash-lite:generateContent";
//! let body = r#"{"contents": [{"parts": [{"text": "Hello"}]}], "generationConfig": {"temperature": 20}}"#;
//! let error = gemini.oneshot(Request::post(uri).body(Full::<Bytes>::from(body))?).await.unwrap_err();
//!
//! let refused = find::<PreflightRefused>(error.as_ref()).expect("nothing was sent");
//! assert_eq!(refused.findings()[0].rule(), Rule::Temperature);
//! assert_eq!(refused.findings()[0].message(), "It must be from 0 to 2, and is 20.");
//! # Ok(()) }
//! ```
//!
//! First see what would be refused:
//!
//! ```
//! use std::sync::Arc;
//! use tower_gemini::observe::JsonLines;
//! use tower_gemini::preflight::{RuleMode, PreflightLayer};
//!
//! let layer = PreflightLayer::builder().every_mode(RuleMode::Warn).observer(Arc::new(JsonLines::new(std::io::stderr()).with_events())).build()?;
//! # let _ = layer; Ok::<(), tower_gemini::ConfigError>(())
//! ```

mod body;
mod config;
mod count;
mod error;
mod facts;
mod future;
mod judge;
mod keys;
mod layer;
mod nearest;
mod rule;
mod scan;
mod service;
mod value;

pub use self::body::PreflightBody;
pub use self::count::CountTokens;
pub use self::error::{BodyFailed, PreflightRefused};
pub use self::future::ResponseFuture;
pub use self::layer::{PreflightBuilder, PreflightLayer};
pub use self::rule::RuleMode;
pub use self::service::Preflight;
pub use crate::event::finding::{Finding, Rule};
