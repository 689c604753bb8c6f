//! The guide: what a reader asks who has an hour.
//!
//! - [Choosing the order](order): where each layer stands, why, and what goes wrong elsewhere.
//! - [Recipes](recipes): reqwest, hyper-util, axum, parameters of others, Vertex AI, a service of your own, tests in virtual time.
//!
//! The pages of the layers say what each of them does and costs; this module holds no code.

pub mod order;
pub mod recipes;
