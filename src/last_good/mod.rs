//! Answers with the last good answer where everything else failed.
//!
//! Guides name it last: retry, ask another model, and then fall back to an answer that was good a while ago. [`LastGoodLayer`] keeps complete good
//! answers by a key of the caller's, and when a request has failed for a reason that is not its own, the kept answer of its key stands in, marked with its age.
//!
//! # When to use it, and where
//!
//! For what stays true for a while: summaries, classifications, the text of a page. It is off for all requests to which the caller's function gives no key. It is not a
//! cache: every request is sent, and a kept answer saves nothing. **It makes things worse** where an old answer is worse than none, and where nobody looks at the
//! mark: an outage of an hour is then an hour of old answers, and no error in the logs. The [event](crate::event::Event::LastGoodUsed) tells each.
//!
//! Outside of everything that could still help: the [fallback](crate::fallback), the [retry layer](crate::retry); inside of the
//! [deadline](crate::timeout::DeadlineLayer). [`classify`](crate::classify) inside, so that failures are known for what they are.
//!
//! # What is kept
//!
//! An answer whose head is good, and whose body was read to its end by the caller, is at most [`max_answer_bytes`](LastGoodBuilder::max_answer_bytes) long, and is
//! whole: no error in it, not blocked, not empty, not broken off, and not ended by its length limit. What the classifier published counts, and the bytes are judged here, too, so it needs no
//! classifier. Bodies under a content coding that this crate does not read are not kept. Of the headers `content-type`, `content-encoding` and `content-language` are.
//!
//! # Whose answers
//!
//! Keys are equal where the caller's bytes are, and method, host, path and query, [`KeyLabel`](crate::KeyLabel), tier, `accept`,
//! `accept-encoding` and, unless [`across_credentials`](LastGoodBuilder::across_credentials) was said, the credentials.
//!
//! # When a kept answer stands in
//!
//! After a response or an error whose kind is `rate_limited`, `quota_exhausted`, `overloaded`, `unavailable`, `internal`, `deadline_exceeded`, `cancelled`,
//! `transport`, `empty_response`, `truncated`, or `unknown` without a status or with one of 5xx. So the errors of the limits, of an open circuit and of timeouts are among them;
//! not what the request itself is to blame for (a wrong key, a wrong argument, a blocked prompt). [`when`](LastGoodBuilder::when) says otherwise. Not where the answer
//! breaks off after its head was handed on, and not where the kept answer is older than [`max_age`](LastGoodBuilder::max_age).
//!
//! # What the answer says
//!
//! [`LastGood`] in its extensions, with its age and the [`Verdict`](crate::Verdict) of the failure; the [`Attempts`](crate::retry::Attempts) of the failed response; the age in
//! whole seconds in a [header](LastGoodBuilder::header), if one was named.
//!
//! # The store
//!
//! [`LastGoodStore`] is a trait of two synchronous methods. Synchronous, because an answer is put with the last frame of its body, in a poll where nothing can be awaited and
//! this crate spawns no task; a store on another machine is mirrored by one in memory. [`MemoryStore`] is the default: 16 MiB and 1,024 answers, whichever was put longest
//! ago goes first.
#![cfg_attr(
    feature = "moka",
    doc = "With the feature `moka`, [`MokaStore`] keeps them in a cache of moka's."
)]
//!
//! # Defaults
//!
//! | setting | default |
//! |---|---|
//! | [`store`](LastGoodBuilder::store) | [`MemoryStore`]: 16 MiB, 1,024 answers |
//! | [`max_age`](LastGoodBuilder::max_age) | 1 h |
//! | [`max_answer_bytes`](LastGoodBuilder::max_answer_bytes) | 256 KiB |
//! | [`max_reading_bytes`](LastGoodBuilder::max_reading_bytes) | 16 MiB, of all answers that are being read |
//! | [`header`](LastGoodBuilder::header) | none |
//! | [`across_credentials`](LastGoodBuilder::across_credentials) | no |
//!
//! # Sharing, dropping and cost
//!
//! Clones and services of a layer share the store. Dropping a future or a body drops the call, and keeps nothing. A request without a key costs the key function; one with a key costs
//! 7 allocations, a share of each frame while it is read, and a copy and a scan of the whole answer at its end.
//!
//! # Errors
//!
//! None of its own. The inner service's are boxed (a boxed error stays the same box).
//!
//! # Examples
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use http::HeaderName;
//! use http_body_util::Full;
//! use tower::ServiceBuilder;
//! use tower_gemini::classify::ClassifyLayer;
//! use tower_gemini::coalesce::whole_body;
//! use tower_gemini::last_good::{LastGood, LastGoodLayer, MemoryStore};
//! use tower_gemini::retry::RetryLayer;
//! # use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), tower_gemini::BoxError> {
//! # let client = tower::service_fn(async |_: http::Request<Full<Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::builder().status(503).body(Full::<Bytes>::default()).unwrap()));
//! let last_good = LastGoodLayer::builder(whole_body::<Full<Bytes>>)
//!     .store(MemoryStore::new(64 << 20, 10_000)?)
//!     .max_age(Duration::from_secs(6 * 3600))
//!     .header(HeaderName::from_static("x-answer-age"))
//!     .build()?;
//! let service = ServiceBuilder::new()
//!     .layer(last_good)
//!     .layer(RetryLayer::default())
//!     .layer(ClassifyLayer::new().watch())
//!     .service(client);
//!
//! # let request = http::Request::post("http://127.0.0.1/v1beta/models/m:generateContent").body(Full::from("{}"))?;
//! let response = service.oneshot(request).await?;
//! if let Some(old) = LastGood::of(&response) {
//!     println!("{:?} old, because {}", old.age(), old.instead_of().remedy());
//! }
//! # Ok(()) }
//! ```

mod asked;
mod body;
mod config;
mod future;
mod layer;
#[cfg(feature = "moka")]
mod moka;
mod service;
mod shelf;
mod store;

pub use self::body::LastGoodBody;
pub use self::future::{LastGood, ResponseFuture};
pub use self::layer::{LastGoodBuilder, LastGoodLayer};
#[cfg(feature = "moka")]
pub use self::moka::MokaStore;
pub use self::service::WithLastGood;
pub use self::store::{Answer, Key, LastGoodStore, MemoryStore};
