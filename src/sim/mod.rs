//! Gemini in a box: Google's API, simulated, to test what you build on it.
//!
//! A [`Simulator`] answers like the Gemini API when it is well, fails like it when you say so, and enforces
//! quotas like it. It is a Tower service, so a test in tokio's paused time takes no time, and it can [listen
//! on a loopback socket](Simulator::serve), so that any client in any language can be pointed at it. It logs
//! every call.
//!
//! A stack of layers over it, in virtual time:
//!
//! ```
//! use std::time::Duration;
//! use http::Request;
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceExt, BoxError};
//! use tower_gemini::sim::{CallCause, Fault, Rule, Simulator};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! // The first call finds the model overloaded, the second is cut after two chunks.
//! let sim = Simulator::builder()
//!     .rule(Rule::new(Fault::overloaded()).on_call(1))
//!     .rule(Rule::new(Fault::cut_stream_after(2)).on_call(2))
//!     .build()?;
//!
//! let stream = || {
//!     let uri = "/v1beta/models/gemini-3.5-flash-lite:streamGenerateContent?alt=sse";
//!     Request::post(uri).body(Full::from(r#"{"contents":[{"parts":[{"text":"Hello"}]}]}"#))
//! };
//! assert_eq!(sim.clone().oneshot(stream()?).await?.status(), 503);
//! let cut = sim.clone().oneshot(stream()?).await?.into_body().collect().await?.to_bytes();
//! assert_eq!(String::from_utf8_lossy(&cut).matches("data: ").count(), 2);
//!
//! let calls = sim.calls();
//! assert_eq!(calls[0].cause(), &CallCause::Fault("overloaded"));
//! assert_eq!(calls[1].ended_at(), Some(Duration::from_millis(200 + 200 + 20)), "since the first call");
//! # Ok(())
//! # }
//! ```
//!
//! A free-tier quota behind a real socket:
//!
//! ```
//! # use tower::BoxError;
//! use tower_gemini::sim::{Quota, Simulator};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let sim = Simulator::builder()
//!     .valid_key("a key for tests")
//!     .quota("gemini-3.5-flash-lite", Quota::new().requests_per_minute(10).input_tokens_per_minute(250_000))
//!     .build()?;
//! let server = sim.serve().await?;
//! println!("point your client at {}", server.base_url());
//! # Ok(())
//! # }
//! ```
//!
//! # What it answers
//!
//! Under `/v1` and `/v1beta`: `models/{m}:generateContent`, `:streamGenerateContent` (server-sent events with
//! `alt=sse`, else one JSON array in pieces), `:countTokens`, `:embedContent`, `:batchEmbedContents`,
//! `models`, `models/{m}`, `openai/chat/completions` (as a stream where the body says so), and `interactions`: created at once, as a stream or in the background,
//! read, taken up again after an event, cancelled and deleted. Any other path is Google's 404 page, any
//! other model its 404 in JSON. The scheme and the host of a request are not looked at.
//!
//! # What decides about a call
//!
//! In this order, and the first that applies wins: a [`Rule`] whose [`Fault`] answers the call or breaks the
//! connection; an unknown path; the key; the size of the request; an unknown model; the model's [`Quota`]; a
//! rule whose fault spoils a good answer.
//!
//! # Defaults
//!
//! | setting | default |
//! |---|---|
//! | time to the head | 200 ms |
//! | time between chunks of a stream | 20 ms |
//! | chunks of a stream | 5 |
//! | answer | `Echo: ` and the last text of the request |
//! | embeddings | 16 values, or `outputDimensionality` (at most 3,072) |
//! | models | those of `gemini-3.5-flash`, `gemini-3.5-flash-lite`, `gemini-3.7-flash`, `gemini-3.8-flash`, `gemini-3.1-flash-lite`, `gemini-3-flash-preview`, `gemini-2.5-flash-lite`, `gemini-embedding-001` |
//! | keys | not looked at |
//! | quotas, rules | none |
//! | most tokens of one interaction | none |
//! | seed | 0 |
//! | largest request | 20 MiB |
//! | log | 100,000 calls |
//!
//! # What it promises
//!
//! * **Time** is tokio's. Offsets, the spans of [`Rule::between`], fixed windows and days all count from the *first
//!   call*, not from the construction, so a slow set-up moves nothing.
//! * **Repeatable**: the same seed and the same order of calls give the same answers, to the byte.
//! * **Service tiers**: a good answer to a request that names one says that it has served, in `x-gemini-service-tier` and
//!   `usageMetadata.serviceTier`. It takes as long as any other.
//! * **Tokens** are characters of text (members named `text`, or `content` in chats), divided by four and rounded
//!   up, for prompts and answers alike. A body that is not JSON is text as a whole.
//! * **Memory is bounded**: requests are read up to the limit above, the log drops its oldest entries.
//! * **Keys** leave no trace in the log or in any `Debug`. One fault shows the caller's own key to the caller, since
//!   Google's does: [`Fault::consumer_suspended`].
//! * **A dropped future or body** ends the call at once and is noted in the log; its quota stays charged, as at
//!   Google's.
//!
//! # What it does not do
//!
//! It does not validate requests (a wrong field is ignored), does not run tools or count images, has no
//! HTTP/2, no TLS, no files, caches, batches or Live API. Of interactions it keeps the last 1,000,
//! follows no `previous_interaction_id`, and has no agents. What the messages
//! of its errors say is its own wording around the phrases and members that are Google's.

mod answer;
mod body;
mod builder;
mod fault;
mod guard;
mod interaction;
mod json;
mod log;
mod pieces;
mod plan;
mod prompt;
mod quota;
mod route;
mod rule;
mod server;
mod service;
mod simulator;
mod window;

pub use body::SimBody;
pub use builder::SimulatorBuilder;
pub use fault::Fault;
pub use log::{Call, CallCause, TransportFault};
pub use quota::{Quota, QuotaLimit};
pub use rule::Rule;
pub use server::SimServer;
pub use service::ResponseFuture;
pub use simulator::Simulator;

pub use crate::error::ConfigError;

/// The error of a connection that was reset.
fn reset() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the simulator reset the connection")
}
pub use window::Algorithm;
