//! Answers that are looked at before they are handed on: what is retried, what is held, and that it is handed on as it
//! came.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod support;

#[path = "peek/empties.rs"]
mod empties;
#[path = "peek/failures.rs"]
mod failures;
#[path = "peek/frames.rs"]
mod frames;
#[path = "peek/hold.rs"]
mod hold;
#[cfg(feature = "sim")]
#[path = "peek/simulated.rs"]
mod simulated;
#[path = "peek/strict.rs"]
mod strict;
#[path = "peek/upstream.rs"]
mod upstream;
