//! Limits how many calls are in flight to what the server answers in time. More than that wait their turn.
//!
//! [`AdaptiveConcurrencyLayer`] does nothing until timeouts show that the server queues: that it works on answers which
//! nobody waits for any more, so that retries alone keep it there. Then it limits the calls in flight to a share of what
//! the server has answered, raises the limit as answers come back quickly, and lifts it when it is no longer needed.
//!
//! # When to use it, and where
//!
//! Place it inside the retry layer (a request that waits for its next attempt is not in flight), outside the circuit
//! breaker and the attempt timeout (a request that waits here is not slow), and outside the
//! [classifier](crate::classify). Without the classifier it judges by status and error type.
//!
//! **It needs timeouts**: without an attempt timeout inside, only the server's own 504 moves it. Other failures move
//! nothing: a refusal is for the breaker, a quota for the rate limit, an error for the retry.
//! [`Signal`](crate::verdict::Signal) has the table, and [`signals`](AdaptiveConcurrencyBuilder::signals) changes it.
//!
//! Do not use it where the attempt timeout is shorter than many answers: timeouts are then no evidence, and it finds
//! that out only by counting them.
//!
//! # The rule
//!
//! State is kept per surface, model, project, location and service tier ([`key_by`](AdaptiveConcurrencyBuilder::key_by) chooses). A
//! call is **in flight** from its start to the head of its answer. A body that is being delivered holds no place, and
//! what goes wrong in it moves nothing. The **patience** is the time after which calls time out; it is learnt from them.
//!
//! - **No limit** before the first cut. A call costs two atomic additions; one in 16 a lock and the clock.
//! - **A cut** takes evidence; see below. It sets the limit to
//!   [`decrease`](AdaptiveConcurrencyBuilder::decrease) (0.7) of the answers that came during the life of the call that
//!   timed out, and at least to one. Only calls that start after a cut can cut again, so a batch of timeouts is one
//!   cut.
//! - **Below one** the limit is a pace: one call at a time, from start to start [`pace`](AdaptiveConcurrencyBuilder::pace)
//!   (1 s) divided by the limit, ± 50 %. Only timeouts of calls made one at a time lead there: to 0.5, to 0.05, and to
//!   the [`floor`](AdaptiveConcurrencyBuilder::floor) of 0.04, which is one call in 25 s.
//! - **Answers** move a limit that is used (no further call could start). A quick one, in less than a quarter of the
//!   patience, adds 0.2, and ends a pace: the limit is one again. A fair one, in less than half, adds 0.1 divided by the
//!   limit. A slow one takes 0.05, down to one call at a time; below one it takes 5 %. When nothing has timed out for
//!   four times the patience, a slow answer counts as a fair one: that is how the model answers.
//! - **Back to what it was.** One call in 16, and the first of a key, tell how long answers take and how many calls are made while
//!   nothing times out. An answer that takes no more than half as long again as their median counts as quick, and brings the limit
//!   back to what was in flight then: calls a second times that median (Little's law). At a server that can do a share `s` of
//!   it now, so many answers take `1/s` times as long, and no queue grows. A cut from more than one call at a time halves what the next
//!   such answer brings back. So a false alarm, or a server that hung and is back, costs one answer's time and not the growth
//!   from one call at a time.
//! - **Lifted** when for 120 s it stood in nobody's way and nothing timed out. Also when the evidence has become none:
//!   a quarter of all calls time out whatever is done, or a trial failed.
//!
//! # Evidence
//!
//! A timeout adds its weight to a score; at 1 the limit is cut and the score begins at zero. Each quick or fair answer to
//! a call that started after the last timeout takes 1 back.
//!
//! | a timeout | weighs |
//! |---|---|
//! | while nothing was answered | 1 |
//! | while others were answered, but none that started later | 1/2 |
//! | that a later call has overtaken: the server does not answer in order, so this is no queue | 1/40 |
//! | before the key has had ten answers | a third of that |
//! | where a share `u` of calls, of the last 200, times out, with `u` above 10 % | times `(ln(0.9 / u) / ln 9)²` |
//! | where `u` is at least 25 % | 0 |
//! | in less than half the patience, or less than the median answer takes | 0 |
//!
//! **Trial.** Where more than half of the last calls time out, of at least 20, order and share say nothing. Then the
//! limit is cut on trial. If the share of timeouts among the next ten calls is not half of what it was, the cut is taken
//! back and the next trial comes ten times as long after.
//!
//! **False alarms**, where a share `p` of calls times out by chance and `n` other calls are made within one patience:
//!
//! - A first cut takes a timeout that nobody overtakes. With answers that are independent of each other that is at most
//!   `p · e^{-n(1-p)/2}` of all calls: at `p` = 2 % and 20 calls a patience one in a million. One call at a time, where
//!   `n` is near zero, it is `p`; and one call at a time is what is made then anyway.
//! - A pace takes timeouts in a row of calls made one at a time: `p²` for a gap of 2 s, `p³` for one of 20 s, which is 8
//!   in a million at 2 % and 1 in 8,000 at 5 %. The first quick answer ends it.
//!
//! Property tests check the rates of deeper cuts one at a time, and that overtaken timeouts alone cut nothing; the formula for many at once is calculated only.
//!
//! **What stays unseen.** When a server stops answering a key that has had ten answers, the first timeout is a cut: one
//! patience after the trouble began plus the time to the first call. At 20 calls a second with an attempt timeout of
//! 30 s that is 30.05 s; at one call in 10 s it is at most 40 s. A key that never had ten answers takes a trial: 20
//! timeouts.
//!
//! # Blame
//!
//! Callers are told apart by the [`KeyLabel`](crate::request::KeyLabel) of their requests; all requests without one are one
//! caller. Where nine tenths of the score are one caller's, the limit binds that caller alone, and others start at once.
//! An answer to another caller lifts it: the server is well. Timeouts of another caller, on evidence of their own, make
//! it bind everybody, at one call at a time and not at the pace that the first caller has earned. A trial binds one
//! caller if the last eight timeouts were all its own.
//!
//! # Waiting
//!
//! First come, first served, until the request's [`Deadline`](crate::Deadline), or for
//! [`max_wait`](AdaptiveConcurrencyBuilder::max_wait) where it carries none. A request is turned away with
//! [`ConcurrencyLimited`], and not sent:
//!
//! - at once, if its turn is certain to come too late, or [`max_queued`](AdaptiveConcurrencyBuilder::max_queued) others
//!   wait;
//! - in its turn, if its deadline leaves less time than nine of ten answers take and somebody else waits;
//! - in its turn, if its deadline leaves less time than one of four answers takes, and the last in the queue has that time now and
//!   would not have it after its own turn. So where there is not room for all, no place goes to calls that time out; where there is,
//!   nobody is refused for it.
//!
//! No waiter depends on another one to be polled. A turn that is not fetched within 1 s passes on, and whoever missed
//! it keeps its place. Each waiter looks for itself after 1 s plus 20 ms for each place before it. `poll_ready` is the
//! inner service's own, and a request that waits holds no readiness of it.
//!
//! # Defaults
//!
//! | setting | default |
//! |---|---|
//! | [`decrease`](AdaptiveConcurrencyBuilder::decrease) | 0.7 of the answers within one patience |
//! | [`paced_decrease`](AdaptiveConcurrencyBuilder::paced_decrease) | 0.1, of a limit below one half |
//! | [`growth`](AdaptiveConcurrencyBuilder::growth) | 0.2 per quick answer |
//! | [`increase`](AdaptiveConcurrencyBuilder::increase) | 0.1 per round trip of fair answers |
//! | [`floor`](AdaptiveConcurrencyBuilder::floor) | 0.04 |
//! | [`pace`](AdaptiveConcurrencyBuilder::pace) | 1 s |
//! | [`cut_interval`](AdaptiveConcurrencyBuilder::cut_interval) | 5 s, where calls time out sooner |
//! | [`lift_after`](AdaptiveConcurrencyBuilder::lift_after) | 120 s |
//! | [`max_wait`](AdaptiveConcurrencyBuilder::max_wait) | 120 s, for requests without a deadline |
//! | [`max_queued`](AdaptiveConcurrencyBuilder::max_queued) | 100,000 per key |
//! | [`max_keys`](AdaptiveConcurrencyBuilder::max_keys) | 1,024; beyond it one without a limit is dropped |
//!
//! # Sharing and dropping
//!
//! All services of one layer, and all clones, share the limits. Dropping a future at any point gives back its place,
//! wakes the next in the queue, and counts neither for nor against the server. A call that neither ends nor is dropped
//! for three times the patience, and at least a minute (ten minutes while it is not known), no longer counts. No task is spawned.
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

mod before;
mod config;
mod control;
mod ends;
mod error;
mod evidence;
mod gate;
mod handle;
mod in_flight;
mod layer;
mod limit;
#[cfg(test)]
#[path = "tests/model.rs"]
mod model;
mod most;
mod queue;
mod service;
mod shared;
mod state;

pub use self::config::AdaptiveConcurrencyBuilder;
pub use self::error::{ConcurrencyLimited, ConcurrencyReason};
pub use self::handle::ConcurrencyHandle;
pub use self::layer::AdaptiveConcurrencyLayer;
pub use self::service::{AdaptiveConcurrency, ResponseFuture};
pub(crate) use self::service::{Concurrency, Slots};
pub use self::state::ConcurrencyState;
