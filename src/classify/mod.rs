//! Reads each outcome once and publishes what it means.
//!
//! [`ClassifyLayer`] reads the body of a failed response (status 400 and above), makes a
//! [`Verdict`](crate::Verdict) of it, puts that into the response's extensions and hands the response on with
//! the same bytes. Every other layer reads the verdict instead of guessing from the status.
//!
//! Failures come under a 200 as well: an overloaded model says so in the first event of a stream. So the head of a
//! stream is held until its first event is there, and an answer that fails before it gets its verdict like any other
//! failure ([`Peek`]). What comes after that is found by reading along ([`watch`](ClassifyLayer::watch)): it is published
//! at the end of the body, and [`StrictBodyLayer`] makes an error of it, for readers who look at nothing else.
//!
//! An error is read wherever it stands: as Google's own body, as an SDK's print of one, in any member of a relay's answer, in a
//! string at any depth of escaping. What is found inside outranks what is around it, within twelve levels and sixteen times the
//! body's bytes. So the same error gets the same verdict whatever it came through. [`close`] judges the end of a
//! WebSocket session by the same rules.
//!
//! # When to use it, and where
//!
//! Innermost, right around the HTTP client, so that each attempt is judged once and everything above sees the
//! same verdict. Without it the other layers judge by status, headers and error type, which cannot tell a
//! limit that clears in seconds from a spent day: Gemini writes that into the body only.
//!
//! # What it does not do
//!
//! It changes no response and swallows no error: the inner service's error type passes through, and an answer that
//! failed under a 200 keeps that status. PeekedBody frames are handed on as they came, in their order, none joined or copied.
//! An error that comes after output is the caller's to see: it is published at the end of the body when
//! [`watch`](ClassifyLayer::watch) is on. An answer that is no stream is handed on unread but under [`Peek::Output`].
//! Peeking has no time limit: an attempt timeout outside covers it. Neither it nor watching keeps a body, or reads a
//! coding but gzip; text that is no JSON is looked at up to 8 KiB. A page, or a shorter text, under a 200 is no answer of Gemini's
//! and is `unknown` to everybody who reads it; a longer one is a download.
//!
//! # Sharing and dropping
//!
//! Nothing is shared between clones but settings. Dropping the future while a body is being read or peeked at drops
//! the body and with it the connection's claim; dropping a watched body publishes
//! [`Outcome::Dropped`](crate::verdict::Outcome::Dropped), with the usage that was read until then. A success allocates
//! nothing, unless it is watched (four times) or peeked at (once; twice if the first event comes in several frames).
//!
//! # Defaults
//!
//! | setting | default | meaning |
//! |---|---|---|
//! | [`peek`](ClassifyLayer::peek) | first event | how far a 2xx is looked at before it is handed on |
//! | [`max_error_bytes`](ClassifyLayer::max_error_bytes) | 256 KiB | of an error body that are read before judging, or held of an answer; the rest streams through |
//! | [`read_timeout`](ClassifyLayer::read_timeout) | 5 s | for reading them; then what is there is judged, and the rest streams through |
//! | [`watch`](ClassifyLayer::watch) | off | read along with successful bodies: how they end, and what they used |
//!
//! # Examples
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_gemini::{Kind, Verdict, classify::ClassifyLayer};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BoxError> {
//! # let client = service_fn(async |_: Request<Full<Bytes>>| {
//! #     let body = r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#;
//! #     Response::builder().status(503).body(Full::new(Bytes::from(body)))
//! # });
//! let mut service = ServiceBuilder::new().layer(ClassifyLayer::new()).service(client);
//!
//! let response = service.ready().await?.call(Request::new(Full::default())).await?;
//! assert_eq!(Verdict::of(&response).kind(), Some(Kind::Overloaded));
//! # Ok(()) }
//! ```
//!
//! With other limits, holding answers back until there is something to see, and following them to their end:
//!
//! ```
//! use std::time::Duration;
//! use tower_gemini::classify::{ClassifyLayer, Peek};
//!
//! let layer = ClassifyLayer::new()
//!     .max_error_bytes(64 * 1024)
//!     .read_timeout(Duration::from_secs(2))
//!     .peek(Peek::Output)
//!     .watch();
//! # let _ = layer;
//! ```

mod body;
mod config;
mod future;
mod layer;
mod peek;
mod peeked_body;
mod reader;
mod service;
mod size_hint;
mod strict;
mod strict_body;
#[cfg(any(feature = "tower-http-06", feature = "tower-http-07"))]
mod trace;
mod watch;

pub use self::body::ClassifyBody;
pub use self::config::Peek;
pub use self::future::ResponseFuture;
pub use self::layer::ClassifyLayer;
pub use self::service::Classify;
pub use self::strict::{StrictBodies, StrictBodyLayer, StrictFuture};
pub use self::strict_body::StrictBody;
#[cfg(any(feature = "tower-http-06", feature = "tower-http-07"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "tower-http-06", feature = "tower-http-07"))))]
pub use self::trace::{GeminiClassifier, GeminiEos, GeminiFailure};
pub use crate::judge::close::close;
pub use crate::verdict::AnswerFailed;
