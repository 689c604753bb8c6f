//! The layers, each by what it promises, and what they share.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

#[path = "../support/mod.rs"]
mod support;

mod admission;
mod blame;
mod call_options;
mod circuit_breaker;
mod classify;
mod concurrency;
mod context;
mod contract;
mod fallback;
mod interactions;
mod keys;
mod order;
mod peek;
mod replay;
mod request;
mod respond;
mod retry;
mod starved;
mod tiers;
mod timeout;
