//! Stops asking a server that is down, and finds out when it is back: a circuit breaker per model.
//!
//! [`CircuitBreakerLayer`] counts how calls end. When all of them fail it opens: requests are turned away at once, without
//! being sent, with the instant from which on it makes sense to come back. Then probes ask whether the server is back, and
//! when it is, those who waited are let through at a rate that begins with that from before the outage and grows with each
//! success.
//!
//! # When to use it, and where
//!
//! Where an outage would otherwise cost every request its attempts and its time. **Inside** the
//! [retry layer](crate::retry), which waits for the circuit without spending an attempt, and so carries requests over an
//! outage that their deadline outlasts; inside every layer that waits for quota or a permit, so that nobody waits with a
//! probe's place in hand; **outside** the attempt timeout and the [classifier](crate::classify), so that it sees
//! what they make of an answer. Without the classifier it judges by status, headers and error type.
//!
//! Not around a retry layer: it would see one outcome for many attempts. Not where one key stands for many servers
//! of which some are well: see [`key_by`](CircuitBreakerBuilder::key_by).
//!
//! # What counts
//!
//! | [`Signal`](crate::verdict::Signal) | closed | of a probe |
//! |---|---|---|
//! | success | counts, ends a row of failures that began before it | closes the circuit |
//! | failure, timeout, soft | counts as failed, lengthens the row | opens the circuit again |
//! | neutral, or dropped by the caller | counts nothing | counts nothing; its place is free again |
//!
//! An answer is judged at the end of its body: a stream that dies half-way is a failure. Of a probe the head of a good
//! answer is enough. An error's body is judged by its verdict at once. Whoever only reads heads and drops every body tells
//! the circuit nothing of successes. To leave timeouts out, see [`classify_with`](CircuitBreakerBuilder::classify_with).
//!
//! # Evidence
//!
//! A circuit opens on a **row** of 20 failures, or on a **share** of 0.95 of at least 20 calls in 30 s, beyond what chance
//! explains. Calls are numbered as they start. A server refuses at once and answers in a minute, so of the calls that have
//! ended most may have failed although most of those that have started will succeed: row and share count only where they
//! are at least four of five of the calls that started in their range, and a success of a call that began before the row
//! does not end it.
//!
//! **False alarms.** Where each call fails independently with probability `p`, a row of 20 comes once in
//! `(p^-20 - 1) / (1 - p)` calls: in 2.1 million at 0.5, 68,000 at 0.6, 4,200 at 0.7, 429 at 0.8. It then lasts until the
//! first probe that succeeds.
//!
//! **A full outage** that is answered at once lasts 20 calls unseen, however many went well before: 1 s at 20 calls a
//! second, 200 s at one in 10 s.
//!
//! **Blame.** If all failures of the row are of one [`KeyLabel`](crate::KeyLabel), the open circuit turns away only the
//! requests of that label (requests without one are one caller): [`Circuit::is_one_callers`]. Others go through; a success
//! of theirs closes it, without a ramp, and five failures of theirs make it everybody's.
//!
//! # Probes
//!
//! Up to four at once, each an open time after the one before. Each that fails or hangs lengthens the open time, but not beyond
//! the time in which twenty calls were made before the outage, counted over 1 s at the least and without the row of failures that opened it: at 20 calls a second a probe goes each
//! second, at one in 10 s as far apart as the open time grows. All of it is forgotten when the circuit closes. One success closes. So does a probe that has not failed within
//! `2 * (4 * t + 100 ms)`, `t` being the longest in which a probe of this outage failed ([`TransitionCause::ProbeOutlasts`]). A failed
//! probe is marked ([`ProbeFailed`](crate::error::ProbeFailed)), so that the [retry layer](crate::retry) outside counts
//! neither an attempt nor a token for it.
//!
//! # Defaults
//!
//! | setting | default |
//! |---|---|
//! | [`consecutive_failures`](CircuitBreakerBuilder::consecutive_failures) | opens at 20 in a row |
//! | [`failure_share`](CircuitBreakerBuilder::failure_share), [`min_calls`](CircuitBreakerBuilder::min_calls), [`window`](CircuitBreakerBuilder::window) | or when clearly more than 0.95 of at least 20 calls in 30 s failed: 20 of 20, 195 of 200, 961 of 1000 |
//! | [`slow_calls`](CircuitBreakerBuilder::slow_calls) | do not matter |
//! | [`open_time`](CircuitBreakerBuilder::open_time), [`open_time_factor`](CircuitBreakerBuilder::open_time_factor) | 0.5 s, × 1.06 after each probe that fails or hangs, at most 10 s or what 20 calls took before the outage; spread by 20 % either way; forgotten at closing |
//! | [`max_server_delay`](CircuitBreakerBuilder::max_server_delay) | a later instant that the server names counts, up to 300 s |
//! | [`probes`](CircuitBreakerBuilder::probes), [`probe_lease`](CircuitBreakerBuilder::probe_lease) | 4 at a time, each lost after 120 s |
//! | [`probe_successes`](CircuitBreakerBuilder::probe_successes) | 1 closes it, one failure opens it |
//! | [`ramp`](CircuitBreakerBuilder::ramp) | 20 s: from twice the calls a second before an outage of less than 90 s, or 25 % of them after a longer one; at least 10; doubling every 5 s, or with as many successes as it lets through in a second; back by a second for each failure, forward by half of one for each success after it |
//! | [`key_by`](CircuitBreakerBuilder::key_by), [`max_keys`](CircuitBreakerBuilder::max_keys) | surface, model, project, location and service tier; 1024, beyond it the one that is needed least is dropped |
//!
//! # Errors
//!
//! A request that is turned away ends with [`CircuitOpen`], boxed, and was not sent; it is a
//! [`Rejected`](crate::Rejected) to layers outside. All else passes through, errors boxed as a
//! [`BoxError`](crate::BoxError) (a boxed error stays the same box).
//!
//! # Sharing and dropping
//!
//! Clones and all services of one layer share the circuits. A future or body that is dropped, in any state, counts
//! nothing, and a probe's place is free again at once. A probe that is neither dropped nor ended loses its place when
//! its lease ends, so half-open is left one way or the other. What was sent before a circuit changed counts
//! nothing after it.
//!
//! While some circuit of the layer is not closed, this layer gives up backpressure: it is ready at once, and a request
//! that may go waits in its future until a clone of the inner service is ready. It holds no place of the circuit's
//! while it waits.
//!
//! # Cost
//!
//! While all is well a call takes no lock and allocates nothing, and every eighth reads the clock. A rejection takes no
//! lock; it allocates the box of its error. The cost does not depend on the traffic in the window. A circuit takes
//! about half a kilobyte.
//!
//! # Examples
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_gemini::circuit_breaker::CircuitBreakerLayer;
//! use tower_gemini::classify::ClassifyLayer;
//! use tower_gemini::retry::RetryLayer;
//!
//! # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::default())
//!     .layer(CircuitBreakerLayer::default())
//!     .layer(ClassifyLayer::new())
//!     .service(client);
//! # let _ = service;
//! ```
//!
//! A circuit that opens earlier, watched and held open by hand:
//!
//! ```
//! use std::time::Duration;
//! use tower_gemini::circuit_breaker::{CircuitBreakerLayer, CircuitState};
//! use tower_gemini::request::TargetKey;
//!
//! # fn main() -> Result<(), tower_gemini::ConfigError> {
//! let layer = CircuitBreakerLayer::builder()
//!     .consecutive_failures(5)
//!     .open_time(Duration::from_secs(5), Duration::from_secs(60))
//!     .key_by(|_| TargetKey::named("all of it"))
//!     .build()?;
//! let circuits = layer.handle();
//!
//! let key = TargetKey::named("all of it");
//! circuits.force_open(&key);
//! assert_eq!(circuits.get(&key).map(|circuit| circuit.state), Some(CircuitState::Open));
//! circuits.reset(&key);
//! # Ok(()) }
//! ```

mod body;
mod circuit;
mod config;
mod decision;
mod error;
mod evidence;
mod gate;
mod handle;
mod layer;
mod probes;
mod ramp;
mod rules;
mod service;
mod state;
mod window;

use std::time::Duration;

pub use self::body::CircuitBody;
pub use self::config::CircuitBreakerBuilder;
pub use self::error::{CircuitOpen, CircuitOpenReason};
pub use self::handle::{Circuit, Circuits};
pub use self::layer::CircuitBreakerLayer;
pub(crate) use self::service::{Breaker, Guards};
pub use self::service::{CircuitBreaker, ResponseFuture};
pub use crate::event::circuit::{BreakerMode, CircuitState, Transition, TransitionCause};

/// Nanoseconds: a duration, or an instant on the clock that begins when the layer is built. They last 584 years.
type Nanos = u64;

const SECOND: Nanos = 1_000_000_000;

/// The places for probes, which are kept in line.
const MAX_PROBES: usize = 8;

const fn nanos(duration: Duration) -> Nanos {
    let nanos = duration.as_nanos();
    if nanos > Nanos::MAX as u128 { Nanos::MAX } else { nanos as Nanos }
}
