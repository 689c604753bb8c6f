//! Tower layers that make any HTTP client of Google's Gemini API dependable.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod error;
#[allow(dead_code)]
mod rng;
pub mod target;
#[allow(dead_code)]
mod time;

pub use error::{BoxError, Rejected};
pub use target::{KeyLabel, Method, Surface, Target};
