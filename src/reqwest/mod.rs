//! A `reqwest::Client` at the bottom of a stack, and reqwest's own requests and responses at the top.
//!
//! [`ReqwestService`] turns a client into a `Service<http::Request<B>>`, on which the layers of this crate (and
//! everybody else's) are stacked. [`ReqwestClient`] is the way back: code that builds its requests with reqwest and
//! reads `reqwest::Response`s changes one line.
//!
//! ```no_run
//! use tower::ServiceBuilder;
//! use tower_gemini::reqwest::{ReqwestClient, ReqwestService};
//!
//! # async fn run(url: &str, body: serde_json::Value) -> Result<(), tower_gemini::BoxError> {
//! let client = reqwest::Client::new();
//! let stack = ServiceBuilder::new()
//!     // .layer(...)
//!     .service(ReqwestService::new(client.clone()));
//! let gemini = ReqwestClient::new(stack);
//!
//! // Before: let response = client.post(url).json(&body).send().await?;
//! let response = gemini.send(client.post(url).json(&body)).await?;
//! println!("{}", response.text().await?);
//! # Ok(())
//! # }
//! ```
//!
//! # What survives the journey
//!
//! - Towards the client: method, URL, version, headers, `content-length`, and the extensions, among them the
//!   timeout of [`RequestBuilder::timeout`](::reqwest::RequestBuilder::timeout), which then holds **for each attempt**.
//! - From the client: status, version, headers, every extension (a verdict, a count of attempts), the body as a
//!   stream, and the final URL after redirects, as [`FinalUrl`] and in
//!   [`Response::url`](::reqwest::Response::url).
//! - Errors stay `reqwest::Error`s, with `is_connect`, `is_timeout` and the others, behind whatever the layers
//!   put around them: `error::find::<reqwest::Error>(error)`.
//!
//! # What does not
//!
//! - **Secrets in URLs.** Gemini takes its key also as `?key=…`, and reqwest prints URLs in errors. Errors lose
//!   their URL; the URL of a response keeps everything but the values of `key`, `access_token` and
//!   `upload_id`, and a password. So `error_for_status` and `json` do not print them either.
//! - reqwest's own repetitions of a request: a redirect that would send the body again (307, 308) is handed to
//!   the caller, and its retry of refused HTTP/2 streams is off, because a body that is streamed by `http_body::Body`
//!   cannot be copied by reqwest. That is the retry layer's work, and retries on top of retries multiply.
//!
//! # What is shared, what a drop does
//!
//! Clones share the client's connection pool, and what the layers of the stack share. Dropping a future drops
//! the request; nothing is spawned.
//!
//! # Errors
//!
//! Those of a [`ReqwestService`] are reqwest's own:
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use tower::ServiceExt;
//! use tower_gemini::reqwest::ReqwestService;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let closed = format!("http://{}/", listener.local_addr()?);
//! # drop(listener);
//! # let client = reqwest::Client::builder().no_proxy().build()?;
//! let request = http::Request::post(closed).body(Full::new(Bytes::from_static(b"{}")))?;
//! let error = ReqwestService::new(client).oneshot(request).await.unwrap_err();
//! assert!(error.is_connect());
//! # Ok(())
//! # }
//! ```

use ::reqwest as client;

mod adapter;

pub use self::adapter::{FinalUrl, ReqwestClient, ReqwestService, ResponseFuture};
