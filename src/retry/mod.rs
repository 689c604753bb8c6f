//! Sends a failed request again: when that makes sense, when the server says so, and never without end.
//!
//! [`RetryLayer`] reads the [`Verdict`](crate::Verdict) of each attempt (the classifier's, or what status,
//! headers and error type tell without it), and a [`RetryPolicy`] decides.
//!
//! # When to use it, and where
//!
//! Around everything that one attempt goes through: the rate limit, the circuit breaker, the attempt timeout
//! and the [classifier](crate::classify) belong inside. Use **one** retry layer, and turn the retries of the client below
//! and of the SDK above off: three layers of three attempts are 27 calls in an outage.
//!
//! A concurrency limit belongs inside, too: outside it, a request would hold its permit while it waits. This
//! layer holds no readiness of the inner service while it waits; it asks for it anew before each attempt.
//!
//! # What is retried
//!
//! | kind | attempts in all | wait before the n-th retry, n from 0 |
//! |---|---|---|
//! | `unavailable`, `internal` | 10 | where other calls succeed, the first three: full jitter, 50 ms · 2ⁿ; then, and else, full jitter, 1 s · 2ⁿ, cap 60 s |
//! | `overloaded` | 10 | the same, from 2 s |
//! | `rate_limited`, `transport` that was not sent | 10 | full jitter, 1 s · 2ⁿ, cap 60 s |
//! | `deadline_exceeded` | 10, of which each costs the budget two tokens; none if [`maybe_processed_retries`](RetryPolicyBuilder::maybe_processed_retries) is 0 | full jitter, 1 s · 2ⁿ, cap 60 s |
//! | `cancelled`, and `transport` that may have been sent | 2; see [`maybe_processed_retries`](RetryPolicyBuilder::maybe_processed_retries) | the same |
//! | `conflict` | 3 | full jitter, 1 s · 2ⁿ, cap 60 s |
//! | `failed_precondition` | 10, only where it comes true by itself (a file still being processed) | the same |
//! | an answer that is none (`empty_response`, `truncated` before any output) | 1; see [`empty_answers`](RetryPolicyBuilder::empty_answers) | full jitter, 1 s · 2ⁿ, cap 60 s |
//! | everything else | 1 | |
//!
//! A failure inside a 200 is one of these as long as the classifier has held the answer back, by default until the first
//! event of a stream ([`Peek`](crate::classify::Peek)). After output nothing is repeated.
//!
//! Ten attempts with full jitter from 1 s wait for two minutes in all, on the average, and for half a minute where the
//! first three retries come soon. What bounds them before that is the deadline, and the evidence: see the budget below.
//!
//! # How long it waits
//!
//! **Soon, where other calls succeed.** A failure among successes is likely to be chance, and waiting gains nothing. So
//! the first three retries of a request after a 500 or a 503 that names no delay wait by full jitter from 50 ms, doubling,
//! while at least two in five of about the last eight calls of the same [`Budget`] bucket have succeeded
//! ([`quick_retries`](RetryPolicyBuilder::quick_retries)). They are attempts, and cost the budget, like others. The
//! backoff follows from its beginning. Where few succeed, no retry comes soon: it is the server that needs the time. From
//! a full bucket, seven failures in a row teach that, and at most four successes in a row the contrary. The share is kept
//! while the bucket is short of tokens; a full one counts as well, and without a budget no retry comes soon.
//!
//! **By the backoff, else.** Each wait is as uniform as its jitter says, and those of one request are spread: four with
//! full jitter from 1 s add up to 3.2 s at the least, so that no request has spent five slow attempts a moment after an
//! outage began.
//!
//! **Within the deadline.** A backoff that would not end before the deadline is fitted into what is left: a quarter to
//! three quarters of that, by the same draw. With less than 500 ms left the failure is handed on.
//! After a timeout no attempt is made that has less time left than the one that timed out, where fewer than two in five of the
//! model's last calls have succeeded, or none since the timeouts of two other requests: a server that works on calls in their order
//! would finish none of it, and late calls are what keeps it late. Where a share `p` of calls times out by chance, that ends
//! at most `p³` of them: 1 in 1,000 at a tenth, 1 in 125 at a fifth; a test checks it. It holds for the probes of a circuit breaker as well.
//!
//! Attempts of all kinds count together: two `internal` after a `rate_limited` are three.
//! Those of all models of a [fallback](crate::fallback) outside do, too; one is left for each model to come, and each but
//! the last gets three at the most.
//!
//! # Retries that help are free
//!
//! Each retry takes a token from the [`Budget`] of its host, model and key label, and two after a timeout. A request that
//! succeeds in the end gets all of its own back, and pays three on top; one that fails has lost them. So nothing has to
//! know beforehand whether a failure is chance or the request's own (`internal` is also the answer to a prompt that is
//! too long, and a timeout to one that takes too long): retries that help pay for themselves, and those that do not run
//! out. Attempts beyond the fifth, and a second and further retry of a timeout, are made only while at least half of the
//! bucket is there; what is left below that is for requests that have tried less.
//!
//! - Up to 80 % of calls that fail independently, or 60 % that time out, nobody is worse off than with five attempts
//!   and no budget. (The calculation is on [`Budget::per_success`]; tests check it with random spells.)
//! - Attempts that are under way and have not failed are a credit, until one times out: a refusal comes at once, and an answer
//!   may take a minute. So at a cold start, too, errors of up to half of all calls leave nobody worse off.
//! - While nothing succeeds, all retries together are at most the bucket, 100, and 50 after timeouts; once what was under way
//!   when that began; and one every two
//!   seconds that is not after a timeout ([`Budget::least_per_minute`]), so that a quiet process, whose retries are no load, goes on.
//! - In between, retries that did not help are at most three for each success, and one and a half after timeouts.
//!
//! Where the server names a delay, that is waited out: never less than declared, one second more where the
//! declared one is cut to whole seconds, and up to 20 % more to spread the herd. A declared delay above 60 s, and one that
//! would not end before the deadline, is not begun, and never cut short: the last real answer is returned now.
//!
//! A 429 that names a quota of a minute or a second and no delay is retried after that window, with the same spread on top
//! ([`Verdict::quota_window`](crate::Verdict::quota_window)): an earlier attempt meets the same limit. Nobody has promised
//! the window, so where the deadline comes first, the wait is fitted into what is left like a backoff.
//!
//! A 429 that leaves out the limit of a quota of a minute, as proto3's JSON does with a zero
//! ([`Verdict::is_doubtful_zero`](crate::Verdict::is_doubtful_zero)), is retried once, after its delay or that window. The same again is
//! believed: the response's verdict is then `quota_exhausted`. No other request learns from it.
//!
//! A request that a layer of this process turned away ([`Rejected`](crate::Rejected)) was not sent: waiting for
//! it costs no attempt and no budget; a retry that was paid for keeps its token for when it may go. One that a circuit
//! breaker sent as a probe, and that failed ([`ProbeFailed`](crate::error::ProbeFailed)), was sent for the sake of all: it
//! waits until the circuit may admit the next call, and costs neither, as long as such a failure is retried at all.
//! [`Attempts::probes`] counts them, observers are told of each failure and wait, and those that may have been processed
//! count as such. For each attempt that a request has lost, and each probe that it has been, it waits 10 ms longer, up to
//! 200 ms: others go before it.
//!
//! # Defaults
//!
//! | setting | default |
//! |---|---|
//! | [`attempts`](RetryPolicyBuilder::attempts) | 10 in all |
//! | [`quick_retries`](RetryPolicyBuilder::quick_retries) | 3, full jitter, 50 ms doubling |
//! | [`backoff`](RetryPolicyBuilder::backoff) | full jitter, 1 s doubling, cap 60 s; 2 s for `overloaded` |
//! | [`max_server_delay`](RetryPolicyBuilder::max_server_delay) | 60 s |
//! | [`server_delay_jitter`](RetryPolicyBuilder::server_delay_jitter) | up to 20 % on top |
//! | [`deadline`](RetryPolicyBuilder::deadline) | 120 s from the first call, or the request's [`Deadline`](crate::Deadline) |
//! | [`budget`](RetryPolicyBuilder::budget) | 100 tokens, 3 for each success, per host, model and key label |
//! | [`maybe_processed_retries`](RetryPolicyBuilder::maybe_processed_retries) | 1, timeouts not counted |
//! | [`empty_answers`](RetryPolicyBuilder::empty_answers) | 0 |
//! | [`max_body_bytes`](RetryPolicyBuilder::max_body_bytes) | 32 MiB |
//!
//! # Request bodies
//!
//! A body that is `Clone` (`Full<Bytes>`, `Empty`) is cloned, which copies no bytes. Others go through a
//! [`ReplayLayer`], put outside this one, which streams them through and keeps what it streamed. The copy for
//! a retry is made before the attempt, since afterwards there is nothing left to copy; none is made when the policy
//! has one attempt or when the body is too large. It is two allocations at most: one block for the headers, which are made
//! headers again once an attempt has failed, and one that makes a body shared that was not before.
//!
//! Nor is one made for the last attempt and while the budget is empty, as long as nothing could come of it: a wait
//! that the server names, or that a layer of this process asks for, costs neither budget nor (of the latter) an
//! attempt, and from the first one that the layer meets these copies are made, too. That first one is handed on if it
//! falls on a request without a copy.
//!
//! # Errors
//!
//! This layer adds none: the caller sees the last answer or error as the inner service gave it, errors boxed
//! as a [`BoxError`](crate::BoxError) (a boxed error stays the same box, and that of a failed probe is taken out of its
//! [`ProbeFailed`](crate::error::ProbeFailed)). How it came about is told by [`Attempts`] in
//! the response's extensions, and by [events](crate::event). [`Attempt::of`] tells the number of an attempt inside.
//!
//! # Sharing and dropping
//!
//! Clones and all services of one layer share the policy and its budget. A service and its clones share one spare clone
//! of the inner service, made at the first call and never polled: what further attempts go through is cloned from
//! it, so that a call without any pays for none. It is dropped with the last of them and of their calls. Dropping the
//! future ends the attempt or the wait; a budget token taken for an attempt that was not sent yet goes back.
//!
//! # Examples
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_gemini::classify::ClassifyLayer;
//! use tower_gemini::retry::RetryLayer;
//!
//! # let client = tower::service_fn(async |_: http::Request<http_body_util::Full<bytes::Bytes>>|
//! #     Ok::<_, std::io::Error>(http::Response::new(http_body_util::Full::<bytes::Bytes>::default())));
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::default())
//!     .layer(ClassifyLayer::new())
//!     .service(client);
//! # let _ = service;
//! ```
//!
//! For a job that has time, and must not pay twice:
//!
//! ```
//! use std::time::Duration;
//! use tower_gemini::retry::{Backoff, Jitter, RetryLayer, RetryPolicy};
//!
//! # fn main() -> Result<(), tower_gemini::retry::ConfigError> {
//! let policy = RetryPolicy::builder()
//!     .attempts(20)
//!     .quick_retries(0)
//!     .backoff(Backoff::new(Duration::from_secs(5), Duration::from_secs(120)).jitter(Jitter::Equal))
//!     .max_server_delay(Duration::from_secs(600))
//!     .deadline(Duration::from_secs(3600))
//!     .maybe_processed_retries(0)
//!     .build()?;
//! let layer = RetryLayer::new(policy);
//! # let _ = layer; Ok(()) }
//! ```

mod backoff;
mod budget;
mod call;
mod config;
mod decision;
mod failure;
mod future;
mod layer;
mod progress;
mod replay;
mod report;
mod schedule;
mod service;
mod shared;
mod shared_attempts;
mod stored;
mod tower;
#[cfg(test)]
#[path = "tests/trials.rs"]
mod trials;

use std::hash::{DefaultHasher, Hash, Hasher};

use http::Request;
use http::uri::Authority;
use http_body::Body;

pub use self::backoff::{Backoff, Jitter};
pub use self::budget::Budget;
pub use self::config::{RetryPolicy, RetryPolicyBuilder};
pub use self::future::ResponseFuture;
pub use self::layer::RetryLayer;
pub(crate) use self::replay::Upload;
pub use self::replay::{LostReason, Replay, ReplayBody, ReplayLayer, ReplayLost, ReplayService, Superseded};
pub use self::schedule::Schedule;
pub use self::service::Retry;
pub(crate) use self::shared_attempts::{Elsewhere, SharedAttempts};
pub use self::tower::Wait;
pub use crate::error::ConfigError;
pub use crate::event::GaveUp;
pub use crate::event::attempts::{Attempt, Attempts};
use crate::request::{Surface, Target};

/// Above the 20 MiB that Gemini takes inline.
pub(crate) const DEFAULT_MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// Whether a copy of this request is worth keeping: its body is not known to be too large, and not lost to a
/// replay buffer that overflowed.
fn replayable<B: Body>(request: &Request<B>, max_body_bytes: usize) -> bool {
    request.body().size_hint().lower() <= max_body_bytes as u64
}

/// The budget's bucket: the host, and the [`TargetKey`](crate::request::TargetKey) that every layer keys its state
/// by. What is not one of Gemini's paths has the path itself.
fn budget_key<B>(request: &Request<B>) -> u64 {
    let mut hasher = DefaultHasher::new();
    request.uri().authority().map(Authority::as_str).hash(&mut hasher);
    let target = Target::of(request);
    match target.surface() {
        Surface::Unknown => request.uri().path().hash(&mut hasher),
        _ => target.key().hash(&mut hasher),
    }
    hasher.finish()
}

/// Whether the body of this request is gone: it was streamed through and could not be kept.
pub(crate) fn is_lost<B>(request: &Request<B>) -> bool {
    request.extensions().get::<Replay>().is_some_and(Replay::is_lost)
}
