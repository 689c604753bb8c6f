//! The fallback's promises, one test each, in paused time, over the layers that it stands outside of and a server that
//! writes down what it was asked.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod bodies;
mod chains;
mod retries;
mod world;
