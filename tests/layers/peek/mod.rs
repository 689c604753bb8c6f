//! Answers that are looked at before they are handed on: what is retried, what is held, and that it is handed on as it
//! came.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod empties;
mod failures;
mod frames;
mod hold;
#[cfg(feature = "sim")]
mod simulated;
mod strict;
mod upstream;
