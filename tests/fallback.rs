//! The fallback's promises, one test each, in paused time, over the layers that it stands outside of and a server that
//! writes down what it was asked.

#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

mod support;

#[path = "fallback/bodies.rs"]
mod bodies;
#[path = "fallback/chains.rs"]
mod chains;
#[path = "fallback/retries.rs"]
mod retries;
#[path = "fallback/world.rs"]
mod world;
