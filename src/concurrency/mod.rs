//! Lets out as many calls at once as the server answers in time, and more than that wait their turn.
//!
//! [`AdaptiveConcurrencyLayer`] does nothing at all until a call times out. A timeout says that the server has a
//! queue which is longer than anybody waits, so that it works on answers nobody reads; retries alone would keep it
//! there for ever. From then on the layer holds back: half of what was in flight may be, growing slowly while it
//! works, and lifted when it is no longer needed.
//!
//! # When to use it, and where
//!
//! Inside the retry layer (a request that waits for its next attempt is not in flight), outside the circuit breaker
//! and the attempt timeout (a request that waits here is not slow), and outside the [classifier](crate::classify).
//! Without the classifier it judges by status and error type. **It needs timeouts to see any**: put an attempt timeout
//! inside, since without one only the server's own 504 drives it. Other failures move nothing here: a fast refusal is
//! for the breaker, a quota for the rate limit, an error for the retry. Mixing these signals in one controller makes
//! each of them fail the others' bad days; [`Signal`](crate::verdict::Signal) has the table, and
//! [`signals`](AdaptiveConcurrencyBuilder::signals) changes it.
//!
//! # The rule
//!
//! Per surface, model, project and location ([`key_by`](AdaptiveConcurrencyBuilder::key_by) chooses):
//!
//! - **No limit** before the first timeout: 64 callers at once all go out at once, at the cost of one atomic
//!   addition.
//! - **A timeout** of a call that was admitted after the last cut makes the limit half of what was in flight, at
//!   most once in 5 s. One batch of timeouts is one cut.
//! - **A success** while the limit is used (no further call could have been admitted) adds 0.1 divided by the limit,
//!   or 0.1 where that is below one: about a tenth of a call per round trip. A fleet shares the server's head-room
//!   without knowing of each other, so each grows slowly.
//! - **Below one** the limit is a pace: one call at a time, starts 1 s divided by the limit apart, ± 50 %. The floor
//!   of 0.02 is one call in 50 s. Without it a fleet larger than what the server can do within one timeout
//!   could not get out of its own way; and a timeout below one leaves a tenth, not half, since it is then the fleet that
//!   is too many.
//! - **Lifted** when for 120 s it stood in nobody's way and nothing timed out. That is longer than the longest gap of a
//!   pace (75 s), so a gap is never mistaken for calm; and than the time in which what is in flight could still
//!   fail. A limit that nobody needs would only meet the next burst with yesterday's news.
//!
//! A call is **in flight** until the body of its answer has ended or was dropped: until then the server is at work
//! on it. A failure has ended with its head.
//!
//! A timeout is late news: a server whose capacity falls with its queue may be over the edge before it comes. In
//! virtual time, at 10 calls a second, a fleet finds back from there with an attempt timeout of 5 s; with one of 10 s
//! a single process does, and ten often do not. Keep the attempt timeout as short as the answers allow.
//!
//! # Waiting
//!
//! First come, first served, until the request's [`Deadline`](crate::Deadline), or for
//! [`max_wait`](AdaptiveConcurrencyBuilder::max_wait) where it carries none. A request that is certain to be late is
//! turned away at once, and so is one that finds [`max_queued`](AdaptiveConcurrencyBuilder::max_queued) others, with
//! [`ConcurrencyLimited`]. Turning away is the response future's word; `poll_ready` is the inner service's own, and a
//! request that waits holds no readiness of it.
//!
//! # Defaults
//!
//! | setting | default |
//! |---|---|
//! | [`decrease`](AdaptiveConcurrencyBuilder::decrease) | to 0.5 |
//! | [`paced_decrease`](AdaptiveConcurrencyBuilder::paced_decrease) | to 0.1, below one |
//! | [`increase`](AdaptiveConcurrencyBuilder::increase) | 0.1 per round trip |
//! | [`floor`](AdaptiveConcurrencyBuilder::floor) | 0.02 |
//! | [`pace`](AdaptiveConcurrencyBuilder::pace) | 1 s |
//! | [`cut_interval`](AdaptiveConcurrencyBuilder::cut_interval) | 5 s |
//! | [`lift_after`](AdaptiveConcurrencyBuilder::lift_after) | 120 s |
//! | [`max_wait`](AdaptiveConcurrencyBuilder::max_wait) | 120 s, for requests without a deadline |
//! | [`max_queued`](AdaptiveConcurrencyBuilder::max_queued) | 100,000 per key |
//! | [`max_keys`](AdaptiveConcurrencyBuilder::max_keys) | 1,024; beyond it one without a limit is dropped |
//!
//! # Sharing and dropping
//!
//! All services of one layer, and all clones, share the limits. Dropping a future or a body at any point gives back its
//! place, wakes the next in the queue, and counts nothing. No task is spawned; a pace is kept by the first in
//! the queue. A future that was made and is not polled keeps its place all the same: poll it, or drop it.
//!
//! # Examples
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_gemini::classify::ClassifyLayer;
//! use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
//! use tower_gemini::retry::RetryLayer;
//!
//! # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
//! #     Ok::<_, tower::BoxError>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
//! let concurrency = AdaptiveConcurrencyLayer::new();
//! let handle = concurrency.handle();
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::default())
//!     .layer(concurrency)
//!     .layer(ClassifyLayer::new())
//!     .layer(tower::timeout::TimeoutLayer::new(std::time::Duration::from_secs(120)))
//!     .service(client);
//! # let _ = (service, handle);
//! ```
//!
//! For a caller who would rather be told than wait, and whose keys have capacity of their own:
//!
//! ```
//! use std::time::Duration;
//! use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
//!
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! let layer = AdaptiveConcurrencyLayer::builder()
//!     .max_wait(Duration::from_secs(2))
//!     .max_queued(100)
//!     .key_by(|target| target.key())
//!     .build()?;
//! # let _ = layer; Ok(()) }
//! ```

mod control;
mod error;
mod evidence;
mod future;
mod gate;
mod handle;
mod layer;
mod limit;
mod most;
mod service;
mod settings;

pub use self::error::{ConcurrencyLimited, Refusal};
pub use self::future::ResponseFuture;
pub use self::handle::{ConcurrencyHandle, ConcurrencyState};
pub use self::layer::AdaptiveConcurrencyLayer;
pub use self::service::AdaptiveConcurrency;
pub use self::settings::AdaptiveConcurrencyBuilder;
