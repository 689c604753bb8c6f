//! Tower layers that make any HTTP client of Google's Gemini API dependable.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod classify;
pub mod error;
pub mod event;
pub mod google_rpc;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub mod reqwest;
pub mod retry;
mod rng;
#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub mod sim;
mod time;
pub mod timeout;
pub mod verdict;

pub use error::{BoxError, ConfigError, Rejected};
pub use timeout::Deadline;
pub use verdict::{Kind, Verdict};
