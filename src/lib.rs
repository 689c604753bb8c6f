//! Tower layers that make any HTTP client of Google's Gemini API dependable.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod error;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;
pub mod retry;
#[allow(dead_code)]
mod rng;
#[allow(dead_code)]
mod time;

pub use error::{BoxError, Rejected};
