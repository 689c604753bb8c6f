//! Tower layers that make any HTTP client of Google's Gemini API dependable.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod classify;
pub mod error;
pub mod google_rpc;
#[allow(dead_code)]
mod rng;
mod time;
pub mod verdict;

pub use error::{BoxError, Rejected};
pub use verdict::{Kind, Verdict};
