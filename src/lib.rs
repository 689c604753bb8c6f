//! Tower layers that make any HTTP client of Google's Gemini API dependable.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod error;
#[allow(dead_code)]
mod rng;
#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub mod sim;
#[allow(dead_code)]
mod time;

pub use error::{BoxError, Rejected};
