//! Admits requests at the pace of their quota: requests and input tokens per minute and requests per day, exactly.
//!
//! Most of what Gemini's users complain about is 429. A token bucket of the right rate lets up to twice the quota
//! through in one minute; a limiter that lives once per clone multiplies it; one that counts requests forgets tokens;
//! none knows when the day ends. [`RateLimitLayer`] keeps Google's own rules, so that the 429 does not happen, and
//! learns from it if it does.
//!
//! # When to use it, and where
//!
//! Inside the [retry layer](crate::retry), so that each attempt is charged and waits here instead of failing there;
//! outside concurrency limits, circuit breakers, timeouts and the [classifier](crate::classify), whose verdicts it
//! reads. A timeout outside would run while a request waits. What waits inside should wait briefly: the server counts
//! from when a request arrives.
//!
//! With the classifier's [`watch`](crate::classify::ClassifyLayer::watch) on, what the classifier reads is used; without
//! it, this layer reads along by itself where it needs to.
//! Without the classifier at all, 429s are known by their status alone: no limit is learnt, and no day.
//!
//! # What it promises
//!
//! - **Exact**: in no position of the window do 60 s and a guard of 500 ms hold more requests or input tokens than
//!   the limit. Such a client meets no 429, however the server counts: by a sliding window, by a fixed one of any
//!   phase, or by a token bucket.
//! - **All or none**: a request is charged to all its dimensions in one step, or to none.
//! - **In order**: first come, first served, in each [class](crate::RequestClass); eight interactive requests go for each batch request
//!   while both wait. A small prompt may pass a large one that waits for tokens, if that does
//!   not make the large one wait any longer; the next 64 are looked at.
//! - **One 429 teaches all**: the dimension that it names is closed for that key until the server's own instant. Those
//!   that wait do so without calling. A limit that it names is adopted where none was configured, and lowers one that
//!   was too high. Where our own count does not explain the 429, somebody else uses the same quota: then calls go
//!   out in batches, first one call, then twice as many as before each time that a batch was not refused in twice the time
//!   that a 429 takes. A 429 that names neither a quota nor a delay teaches
//!   nothing: it is left to the retry layer's backoff and to the circuit breaker.
//! - **Nobody waits in vain**: a request that cannot be admitted before its [`Deadline`](crate::Deadline) fails now
//!   with [`RateLimited`], which says why and until when, and is marked as not sent. One that is larger than the limit
//!   of a whole minute is refused. So is one whose answer would come too late, see [below](#time-for-the-answer).
//! - **The day** is Google's: midnight Pacific time, 23 and 25 hours included. A spent day fails at once and says
//!   when it ends. Every five minutes one request tests whether that is true.
//!
//! # What a call is charged
//!
//! Before it: one request, and its input tokens as far as they are known: [`InputTokens`] in its extensions (the answer
//! of `countTokens`), else an [`Estimate`], else its size. Estimates are corrected by what the answers of the same key
//! have shown. At its end, once:
//!
//! | what became of it | requests of the minute | input tokens | requests of the day |
//! |---|---|---|---|
//! | an answer under a 200 that says what it used (`usageMetadata`, also of a stream) | 1 | as it says | 1 |
//! | a good answer that does not say; no answer; 5xx; dropped by the caller | 1 | as charged | 1 |
//! | dropped, and the answer had said something by then | 1 | as it says | 1 |
//! | 4xx other than 429 | 1 | 0 | 1 |
//! | 429 of a call that went over a learnt limit | 0 | 0 | 0 |
//! | 429, also inside a 200 whose beginning the classifier has [looked at](crate::classify::Peek) | 1 | 0 | 0 |
//! | never sent: refused connections, layers inside that turn it away, a future dropped before its first poll, in the queue, or while a layer of this crate inside holds it back | 0 | 0 | 0 |
//!
//! A call that a layer of this crate inside held back, such as the concurrency limit, counts from when it is sent.
//!
//! A 5xx keeps what was charged because users report that 503s count against the day. A future is taken to have sent
//! nothing before its first poll; a `tower::buffer` inside breaks that rule.
//!
//! # Learnt limits
//!
//! A limit that a 429 has named is kept. Whether it still holds is found out with one call over it, where it binds and
//! somebody waits for it:
//!
//! | | a call goes over the limit |
//! |---|---|
//! | first | 60 s after the limit was named |
//! | while the limit holds | after twice the time, up to what 100 calls take, at least 30 s and at most 5 minutes |
//! | for a request that would be refused | after what 20 calls take, from 10 s to 60 s; one in four of them in any case |
//! | after a success | at once; with each success more at once, so that five times the limit is reached in about 15 round trips at 10 a minute and in about 20 at 1,000 |
//! | under a [`margin`](RateLimitBuilder::margin) below 1 | never: a success would say nothing. A tenth more is taken for each hour without a 429 |
//! | of a configured limit | never above it |
//!
//! While the truth is unchanged that is one 429 in a hundred calls, or one in five minutes where there are fewer, and one
//! in twenty, or one a minute, while requests are refused, and one for four refused requests. It closes nothing for others, is not charged, and a
//! [retry layer](crate::retry) outside sends its request back at once, to the head of the queue. Without a retry layer its
//! caller sees the 429: turn [`learn`](RateLimitBuilder::learn) off there. A server that counts by fixed windows or by a
//! bucket may take some calls over the limit before it refuses one; that costs a few 429s more, and doubles the waits.
//!
//! A day's limit is tried by the probes of a spent day alone ([`probe_every`](RateLimitBuilder::probe_every)); from the first
//! one that is answered on, it rises in the same way.
//!
//! # Time for the answer
//!
//! How long answers take is learnt per key, from the admission to the head of a good answer, while requests wait. Of those
//! with a deadline, refused with [`RateLimitReason::Deadline`] are:
//!
//! - while others wait: who would have less time left after its turn has come than nine of ten answers take;
//! - at the turn itself, uncharged: who has less time left than the slowest tenth of the answers takes, if the last in the
//!   queue has that time now and would not have it after its own turn.
//!
//! - as it comes, while strangers use the quota: who has less time left than half of the answers take, if another request of the
//!   last window had the time in which three of four come. What a call takes of a contended quota, another cannot have.
//!
//! Where nobody else waits, or there is room for all, nobody is refused for this. An estimate is taken as the upper end of what it
//! may be, 16 % more: in a queue that is served in order everybody would else get a place with a little too little time. A timeout, or a drop after a time in which
//! nine of ten answers would have come, counts as an answer of twice that time. Answers of more than a minute count as one
//! of a minute. Those of the [flex tier](crate::tier) are no samples.
//!
//! # Windows of other spans
//!
//! [`Limits::per`] sets a limit of [requests, input tokens, images, texts or money](Unit) over any span, beside the others: a request
//! needs room in all of them at once. At the end of the call:
//!
//! | what became of it | requests | input tokens, money | images | texts |
//! |---|---|---|---|---|
//! | an answer that says what it used | 1 | as it says | as charged | as charged |
//! | a good answer that does not say; no answer; 5xx; dropped | 1 | as charged | as charged | as charged |
//! | 4xx other than 429 | 1 | 0 | 0 | 0 |
//! | 429 | 1 | 0 | 0 | as charged |
//! | never sent | 0 | 0 | 0 | 0 |
//!
//! Money is counted by [`Prices`] of your own, with the day on which you read them. What a call will cost is not known before it:
//! reserved are its input as estimated and the output that the model's answers have had (a mean and a deviation); settled is what
//! its answer says, by the model and the tier that it names. So money may go over a limit by as much as a call costs more than
//! was reserved for it, and the next ones wait the longer.
//!
//! Before a window of more than an hour nobody waits who has no deadline behind its end, as before a spent day. Where there is
//! such a limit, small prompts do not pass large ones. A 429 that names a spend limit closes [`LimitKind::Spend`] until it says; no
//! limit of money is learnt from it.
//!
//! # Keys
//!
//! One state per [`QuotaKey`]: the kind of call ([`Pool`]), the project's [label](crate::KeyLabel), the model, and the
//! place where the path names one. Google's quotas are per project and model, not per key of the API; the Gemini API,
//! its OpenAI-compatible paths and its interactions share them. `countTokens` and the Batch API have states of their
//! own, which the limits set here do not bind. Files, lists and the like are not limited.
//!
//! All [service tiers](crate::tier) of a model share one state, unless they are [counted apart](RateLimitBuilder::by_tier). A flex
//! request teaches nothing by a 429 that names no quota, which is a shortage of flex capacity.
//!
//! # Defaults
//!
//! | setting | default |
//! |---|---|
//! | [`limits`](RateLimitBuilder::limits) | none: the layer finds them from Google's own 429s |
//! | [`margin`](RateLimitBuilder::margin) | 1: all of the quota |
//! | [`guard`](RateLimitBuilder::guard) | 500 ms |
//! | [`window`](RateLimitBuilder::window) | 60 s |
//! | [`mode`](RateLimitBuilder::mode) | wait, in the order of arrival |
//! | [`max_wait`](RateLimitBuilder::max_wait) | none: the request's deadline decides |
//! | [`max_queue`](RateLimitBuilder::max_queue) | 100,000 requests per key |
//! | [`interactive_weight`](RateLimitBuilder::interactive_weight) | 8 interactive requests for each batch request |
//! | [`max_keys`](RateLimitBuilder::max_keys) | 1,024; beyond it the one that is needed least is dropped |
//! | [`learn`](RateLimitBuilder::learn) | on; see [learnt limits](#learnt-limits) |
//! | [`probe_every`](RateLimitBuilder::probe_every) | 5 minutes |
//! | [`prices`](RateLimitBuilder::prices) | none; needed by limits of money |
//! | [`estimate`](RateLimitBuilder::estimate) | [`BySize`]: four bytes of body a token, until answers tell better |
//!
//! # Errors
//!
//! [`RateLimited`], boxed, with [`Rejected`](crate::Rejected) as its source. The inner service's errors are boxed and
//! otherwise unchanged. `poll_ready` is the inner service's; a full quota is no reason for it to fail or to wait. A
//! refusal is there at once: who asks again in a loop, without waiting for [`until`](RateLimited::until), gives other
//! tasks of the thread no turn.
//!
//! # Sharing and dropping
//!
//! Clones, and all services of one layer value, draw on the same quotas; [`RateLimits`] is a handle to look at them and
//! to change them. No task is spawned, but one where a store is set, which ends with the layer. Dropping a future in the queue gives its place up and starts its successor on
//! time; dropping a body settles its call. No readiness of the inner service is held while a request waits.
//!
//! A future that waits may be polled once and not again, or be forgotten: it stops nobody else.
//! Each waiter has a timer of its own, for its turn or its deadline. What was granted to one that is
//! not polled passes on to the next after a second; when it is polled again, it is back in its old place.
//!
//! A key whose calls were all refused with a 4xx other than 429 has learnt nothing, and is the first to be dropped when
//! there are more than [`max_keys`](RateLimitBuilder::max_keys). No key is ever bound by what another one has done.
//!
//! Memory: at most 128 KiB per key for the window, and some 250 bytes for each request that waits, its timer included, besides the
//! request itself.
//!
//! # Examples
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_gemini::classify::ClassifyLayer;
//! use tower_gemini::rate_limit::{Limits, RateLimitLayer};
//! use tower_gemini::retry::RetryLayer;
//!
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
//! let limits = Limits::new().requests_per_minute(10).input_tokens_per_minute(250_000).requests_per_day(250);
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::default())
//!     .layer(RateLimitLayer::new(limits)?)
//!     .layer(ClassifyLayer::new().watch())
//!     .service(client);
//! # let _ = service; Ok(()) }
//! ```
//!
//! Published limits as a beginning, a fifth left to others, and no waiting:
//!
//! ```
//! use tower_gemini::rate_limit::{ByContent, Limits, AdmissionMode, RateLimitLayer, Tier};
//!
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! let layer = RateLimitLayer::builder()
//!     .limits(Limits::published(Tier::Free, "gemini-3.1-flash-lite").unwrap_or_default())
//!     .model_limits("gemini-3.8-flash", Limits::new().requests_per_minute(150))
//!     .margin(0.8)
//!     .mode(AdmissionMode::Reject)
//!     .estimate(ByContent)
//!     .build()?;
//! # let _ = layer; Ok(()) }
//! ```

mod body;
mod common;
mod config;
mod day;
mod day_count;
mod decision;
mod error;
mod estimate;
#[cfg(feature = "fleet")]
mod fleet;
mod gate;
mod handle;
mod layer;
mod learnt;
#[cfg(test)]
#[path = "tests/model.rs"]
mod model;
mod permit;
mod prices;
mod queue;
mod quota_state;
mod quota_update;
mod scheduler;
mod service;
mod shared;
mod snapshot;
mod spans;
mod window;

pub use self::body::RateLimitBody;
pub use self::config::RateLimitBuilder;
pub use self::decision::AdmissionMode;
pub use self::error::RateLimited;
pub use self::estimate::{ByContent, BySize, Estimate, Images, InputTokens, Texts};
#[cfg(feature = "fleet")]
#[cfg_attr(docsrs, doc(cfg(feature = "fleet")))]
pub use self::fleet::{FleetStatus, StoreHealth};
pub use self::handle::{QuotaStatus, RateLimits, SpanStatus};
pub use self::layer::RateLimitLayer;
pub use self::prices::{Price, Prices};
pub(crate) use self::service::{Permits, Quota};
pub use self::service::{RateLimit, ResponseFuture};
pub use self::snapshot::{Restored, Snapshot, SnapshotError};
pub use crate::error::ConfigError;
pub use crate::event::rate_limit::RateLimitReason;
pub use crate::request::limits::{LimitKind, Limits, Published, Tier, Unit};
pub use crate::request::quota_key::{Pool, QuotaKey};
