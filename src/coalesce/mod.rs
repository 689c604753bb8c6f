//! Answers equal requests that are in flight at the same time by one call.
//!
//! A page that is opened by many people at once, a batch with the same prompt in it twice, a client that asks again while the first answer is on its
//! way: each would be paid for. [`CoalesceLayer`] lets the first one make the call, and gives its answer to all, as it streams.
//!
//! # When to use it, and where
//!
//! Where equal requests may have the same answer, which the caller says by a function: it gives each request a key, or none. It is off
//! for all that it gives none. On a day on which no two requests are equal it costs a key and a few allocations for each. **It makes
//! things worse** where answers are meant to differ (several samples of one prompt at a temperature above zero are then one sample), where one reader
//! is much slower than another (it loses its place, see below), and where the one call that all wait for is slow by chance: alone, only one of them would have met that.
//! Keep it off for calls that change something.
//!
//! Outside of everything that an answer costs: the [fallback](crate::fallback), the [retry layer](crate::retry), and the limits; inside of the
//! [deadline](crate::timeout::DeadlineLayer).
//!
//! # What is equal
//!
//! Requests of equal keys, whose method, URI, [`KeyLabel`](crate::KeyLabel), [`ModelHint`](crate::request::ModelHint),
//! [`ServiceTier`](crate::ServiceTier) and headers `x-goog-api-key`, `x-goog-user-project`, `authorization`, `accept` and
//! `accept-encoding` are equal as well, whatever the function says: nobody is given an answer that somebody else's credentials have bought. The key
//! should hold the whole body, not a hash of it. Compared and kept in memory, never printed.
//!
//! # Who can join
//!
//! Whoever comes before the head, or while a good answer streams that is not longer than [`max_bytes`](CoalesceBuilder::max_bytes) so far. Not
//! a failure, not an answer that is over, and not a call whose deadline has passed: those who come then make a call of their own, which others can join.
//!
//! A request waits for the inner service's readiness before it can join, as before any call; it then gives it back.
//!
//! # Slow readers
//!
//! Each reads at its own pace, and the fastest one draws the body. What it has read and others have not is held, up to `max_bytes` (and one frame). Who
//! falls further behind loses its place, and nobody waits for it: its body ends with [`FellBehind`]. If it has not been given the head yet, it asks again instead.
//!
//! # Deadlines
//!
//! The call has the deadline of the request that made it. A request that joined has its own: when that is over while there is no head, it is given a
//! [`TimedOut`](crate::timeout::TimedOut) (by the caller, not sent again), and the others wait on. When it has more time than the call had, and
//! the call failed for want of it (its deadline was over, or the retry layer or the rate limit gave up because of it), it asks again, together with the others of which
//! that is true.
//!
//! # Failures
//!
//! A failed answer is given to all who wait, like a good one, with its verdict. An error is given to them as a [`SharedError`], behind which is the
//! error; to one who is alone by then, as it is. Each of them would have failed the same way.
//!
//! # Sharing, dropping and duties
//!
//! The layer's clones and services share the calls. Dropping a future or a body gives one place back. The call lives as long as there is
//! a place in it, also when the request that made it is gone; with the last one it is dropped. All who wait are woken with every step, and the first to be polled
//! takes it: nobody depends on one who is not polled any more. A panic of the inner service is the error [`CallLost`] for those who have the head, and the others
//! ask again.
//!
//! # Bounds
//!
//! [`max_calls`](CoalesceBuilder::max_calls) calls (1,024) of `max_bytes` (1 MiB) each; requests of further keys are passed on as they are.
//!
//! # Cost
//!
//! A request without a key costs the key function. One that makes a call costs 14 allocations: its key, an entry, the call, its tape and what the response's extensions
//! say; one that joins, its key, a clone of the inner service and a box for the request, which it keeps until the head is there.
//!
//! # Errors
//!
//! [`SharedError`], [`FellBehind`], [`CallLost`], and [`TimedOut`](crate::timeout::TimedOut); the inner service's, boxed.
//!
//! # Examples
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use tower::ServiceBuilder;
//! use tower_gemini::coalesce::{self, CoalesceLayer};
//! use tower_gemini::retry::RetryLayer;
//!
//! # let client = tower::service_fn(async |_: Request<Full<Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(Full::<Bytes>::default())));
//! let service = ServiceBuilder::new()
//!     // Requests with the same bytes, where temperature is zero.
//!     .layer(CoalesceLayer::<Bytes, _>::new(|request: &Request<Full<Bytes>>| {
//!         let body = coalesce::whole_body(request)?;
//!         let asks_for_one_answer = memchr::memmem::find(&body, b"\"temperature\":0,").is_some();
//!         asks_for_one_answer.then_some(body)
//!     }))
//!     .layer(RetryLayer::default())
//!     .service(client);
//! # let _ = service;
//! ```
//!
//! Configured:
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use tower_gemini::coalesce::{CoalesceLayer, whole_body};
//!
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! let layer = CoalesceLayer::<Bytes, _>::builder(whole_body::<Full<Bytes>>).max_calls(256).max_bytes(4 << 20).build()?;
//! assert_eq!(layer.in_flight(), 0);
//! # Ok(()) }
//! ```

mod bell;
mod body;
mod config;
mod error;
mod flight;
mod future;
mod key;
mod layer;
mod service;
mod tape;

use bytes::Bytes;
use http::Request;

pub use self::body::CoalesceBody;
pub use self::config::CoalesceBuilder;
pub use self::error::{CallLost, FellBehind, SharedError};
pub use self::future::{Coalesced, ResponseFuture};
pub use self::layer::CoalesceLayer;
pub use self::service::Coalesce;
use crate::fallback::RewriteBody;

/// All bytes of the request's body, as a key: for any body that is at hand, such as a `Full<Bytes>`. `None` where it is not, and for requests that are no POST.
#[must_use]
pub fn whole_body<B: RewriteBody>(request: &Request<B>) -> Option<Bytes> {
    if request.method() == http::Method::POST { request.body().whole() } else { None }
}
