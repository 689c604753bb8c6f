//! What answers, requests and documents say.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

#[path = "../support/line.rs"]
mod line;
#[allow(dead_code, reason = "the example has more than its test uses")]
#[path = "../../examples/explain/read.rs"]
mod read;
#[allow(dead_code, reason = "the example has more than its test uses")]
#[path = "../../examples/explain/say.rs"]
mod say;

mod catalogue;
mod corpus;
mod documents;
mod readings;
mod verdicts;
