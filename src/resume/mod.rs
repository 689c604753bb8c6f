//! Goes on with streams that broke off after they had begun to answer.
//!
//! An error before the first output is retried by the [retry layer](crate::retry); afterwards nothing in this crate repeats a request by itself, since the caller
//! has had a part of the answer, and the model would write another one. [`ResumeLayer`] does, for callers who say which of two things they want:
//!
//! - [`continuing`](ResumeLayer::continuing): the request is sent again with the text so far as the model's last turn, and the answer goes on behind it. A caller
//!   who puts the texts of all events together has one answer, with a seam.
//! - [`restarting`](ResumeLayer::restarting): the same request is sent again, and the new answer begins from its beginning. **The caller must look**: what came before the
//!   restart is to be thrown away.
//!
//! # When to use it, and where
//!
//! For long streams that people watch, where a broken one is worth a second call. Not where a seam is worse than an error: JSON that is parsed, quotations, code that is run. Whatever
//! was delivered before the break is billed, and so is what comes after it. **It makes a day worse** where streams break because the server is overloaded: each is one more
//! call. That is why a budget bounds them.
//!
//! Outside of the whole [stack](crate::stack), whose retries, limits, circuits and timeouts then hold for each further call. The request's body is kept, so it must be a
//! [`RewriteBody`]: `Full<Bytes>`, or a `ReplayBody` with the [`ReplayLayer`](crate::retry::ReplayLayer) outside of this
//! layer. A deadline for all of it is one that the request brings ([`Deadline`](crate::Deadline)) or a [`DeadlineLayer`](crate::timeout::DeadlineLayer) around this layer; that
//! of a stack inside counts for each call.
//!
//! # Which streams
//!
//! Answers of 2xx to `streamGenerateContent` with `text/event-stream`, without a content coding and with one candidate. All others pass through as they are.
//!
//! # What is broken off
//!
//! | the stream | is gone on with |
//! |---|---|
//! | fails: a lost connection, a silence that a timeout ended | where the error's [verdict](crate::Verdict) may be retried |
//! | has an error in it | likewise; the error is not handed on |
//! | ends without a finish reason, and was not blocked | yes |
//! | ends with a finish reason, whatever that is | no: it is complete |
//!
//! Not once something other than text and thoughts was delivered, when it is to continue (a function call, an image, code: the model's turn would not be the same without it), nor above
//! [`max_text_bytes`](ResumeBuilder::max_text_bytes). An answer that is empty or malformed, but whole, is the retry layer's
//! ([`empty_answers`](crate::retry::RetryPolicyBuilder::empty_answers)).
//!
//! Where the further call fails, or the answer breaks off once more than [`most`](ResumeBuilder::most) allows, the stream ends as it would have ended without this layer: with what was
//! left of it and its own error.
//!
//! # What is told
//!
//! - In the stream, before the first event of the further answer: a comment, which readers of events skip: `: tower-gemini continued` or `: tower-gemini restarted`.
//! - [`Resumed`] in the extensions of every response that may be gone on with: how often so far, and how many of its calls were billed in vain.
//! - [`Event::StreamResumed`](crate::event::Event::StreamResumed) to an observer.
//!
//! # Defaults
//!
//! | setting | default |
//! |---|---|
//! | [`most`](ResumeBuilder::most) | 1 for each answer |
//! | [`budget`](ResumeBuilder::budget) | 0.1 for each stream that ended well; the bucket begins full and holds 10 |
//! | [`max_text_bytes`](ResumeBuilder::max_text_bytes) | 1 MiB |
//!
//! # Sharing, dropping and cost
//!
//! Clones and services of one layer share the budget. Dropping a future or a body drops the call under way. A stream costs a copy of the request (not its bytes), a clone of the
//! inner service and a box; each event is parsed as JSON, and handed on when it is whole. An event above 1 MiB, and all behind it, is handed on unseen. Others cost nothing.
//!
//! # Errors
//!
//! None of its own. The inner service's and the body's are boxed (a boxed error stays the same box).
//!
//! # Examples
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::{BodyExt, Full};
//! use tower::{Layer, ServiceExt};
//! use tower_gemini::resume::{Resumed, ResumeLayer};
//! use tower_gemini::stack::GeminiStack;
//! # use http_body::Frame;
//! # use futures_util::stream;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! # let calls = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
//! # let client = tower::service_fn(move |_: Request<Full<Bytes>>| {
//! #     let first = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
//! #     let event = |text: &str, end: &str| Ok(Frame::data(Bytes::from(format!(
//! #         "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{text}\"}}]}}{end}}}]}}\n\n"))));
//! #     let frames = if first {
//! #         vec![event("Once upon ", ""), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))]
//! #     } else {
//! #         vec![event("a time.", ",\"finishReason\":\"STOP\"")]
//! #     };
//! #     let body = http_body_util::StreamBody::new(stream::iter(frames));
//! #     let response = http::Response::builder().header("content-type", "text/event-stream");
//! #     std::future::ready(Ok::<_, std::io::Error>(response.body(body).expect("valid")))
//! # });
//! # let request = Request::post("https://h/v1beta/models/gemini-3.5-flash:streamGenerateContent?alt=sse")
//! #     .body(Full::from(r#"{"contents":[{"role":"user","parts":[{"text":"A story."}]}]}"#))?;
//! let gemini = ResumeLayer::continuing().layer(GeminiStack::new().layer(client));
//! let response = gemini.oneshot(request).await?;
//! let resumed = Resumed::of(&response).expect("a stream of events");
//! let text = response.into_body().collect().await?.to_bytes();
//! assert!(text.windows(11).any(|window| window == b"Once upon \""));
//! assert!(text.ends_with(b"\"finishReason\":\"STOP\"}]}\n\n"));
//! assert_eq!((resumed.times(), resumed.billed()), (1, 1));
//! # Ok(()) }
//! ```

mod body;
mod bucket;
mod config;
mod layer;
mod report;
mod request;
mod service;
mod shared;
mod transcript;

pub use self::body::ResumeBody;
pub use self::config::ResumeBuilder;
pub use self::layer::ResumeLayer;
pub use self::report::{ResumeMode, Resumed};
pub use self::service::{ResponseFuture, Resume};
use crate::fallback::RewriteBody;
