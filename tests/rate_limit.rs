//! The rate limit: over a probe that counts breaches of the service contract, and over the simulator's quotas.
//!
//! All in tokio's paused time: ten minutes of queueing take milliseconds, and an instant can be asserted exactly.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod support;

#[path = "rate_limit/scenarios.rs"]
mod scenarios;
#[path = "rate_limit/world.rs"]
mod world;
