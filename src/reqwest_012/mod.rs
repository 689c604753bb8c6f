//! The adapters of [`reqwest`](mod@crate::reqwest) for reqwest 0.12: the same, with that version's client, requests and responses.
//!
//! For programs that have not moved to 0.13, and for crates that take a client of 0.12. Both features may be on at once.
//!
//! ```no_run
//! # use reqwest_012 as reqwest;
//! use tower_gemini::reqwest_012::{ReqwestClient, ReqwestService};
//! use tower_gemini::stack::GeminiStack;
//!
//! # async fn run(url: &str, body: String) -> Result<(), tower_gemini::BoxError> {
//! let client = reqwest::Client::new();
//! let gemini = ReqwestClient::new(GeminiStack::new().service(ReqwestService::new(client.clone())));
//! let response = gemini.send(client.post(url).body(body)).await?;
//! println!("{}", response.text().await?);
//! # Ok(()) }
//! ```

use ::reqwest_012 as client;

#[path = "../reqwest/adapter.rs"]
#[allow(
    clippy::duplicate_mod,
    reason = "one source for both versions, whose types differ by their crate alone"
)]
mod adapter;

pub use self::adapter::{FinalUrl, ReqwestClient, ReqwestService, ResponseFuture};
