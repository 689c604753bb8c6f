//! The guide: what a reader asks who has an hour.
//!
//! - [Choosing the order](order): where each layer stands, why, and what goes wrong elsewhere.
//! - [Recipes](recipes): reqwest, hyper-util, axum, parameters of others, Vertex AI, a service of your own, tests in virtual time.
//! - [What rustc says](rustc), and what to do about it.
//! - [Coming from](coming_from) tower's retry, reqwest-middleware, backon, tower-resilience, LiteLLM: before and after.
//!
//! The pages of the layers say what each of them does and costs; this module holds no code.

pub mod coming_from;
pub mod order;
pub mod recipes;
pub mod rustc;
