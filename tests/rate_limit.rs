//! The rate limit: over a probe that counts breaches of the service contract, and over the simulator's quotas.
//!
//! All in tokio's paused time: ten minutes of queueing take milliseconds, and an instant can be asserted exactly.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "a failing test may panic anywhere")]

mod support;

#[path = "rate_limit/crowd.rs"]
mod crowd;
#[path = "rate_limit/days.rs"]
mod days;
#[path = "rate_limit/patience.rs"]
mod patience;
#[path = "rate_limit/queue.rs"]
mod queue;
#[path = "rate_limit/raised.rs"]
mod raised;
#[path = "rate_limit/reserved.rs"]
mod reserved;
#[path = "rate_limit/scenarios.rs"]
mod scenarios;
#[path = "rate_limit/settle.rs"]
mod settle;
#[path = "rate_limit/spans.rs"]
mod spans;
#[path = "rate_limit/world.rs"]
mod world;
