//! A stack behind a base URL, for SDKs that take nothing else: a proxy in this process, on a loopback port.
//!
//! ```
//! use tower_gemini::proxy::LocalProxy;
//! use tower_gemini::stack::GeminiStack;
//! # use tower_gemini::sim::Simulator;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower_gemini::BoxError> {
//! # let client = Simulator::new();
//! // `client` is any client: `ReqwestService::new(reqwest::Client::new())`, hyper-util's, …
//! let stack = GeminiStack::new().service(client);
//! let proxy = LocalProxy::serve(stack, "https://generativelanguage.googleapis.com").await?;
//! println!("give the SDK this base URL: {}", proxy.base_url());
//! # Ok(()) }
//! ```
//!
//! # When to use it, and when not
//!
//! For an SDK whose HTTP client cannot be replaced. Where it can, put the stack there: a proxy costs a hop on loopback. For other processes
//! there is the program in `gateway/`, which has clients, limits and pages. Turn the SDK's own retries off: attempts multiply.
//!
//! # What it does
//!
//! A request goes through the stack with the upstream's scheme, authority and path prefix in place of the proxy's, method, path, query,
//! headers and body as they came, without those headers that concern one connection (`host`, `connection` and what it names,
//! `transfer-encoding`, …). Bodies stream both ways; what a request streams is kept for a further attempt, 32 MiB of it at most
//! ([`ReplayLayer`](crate::retry::ReplayLayer)). Answers arrive byte for byte; what the stack fails with becomes a response in Google's
//! form ([`RespondLayer`](crate::respond::RespondLayer)).
//!
//! [`normalise_openai_errors`](LocalProxyBuilder::normalise_openai_errors) changes errors under `/openai/`: Google wraps them in an array,
//! with a number as `code`, which OpenAI's SDKs cannot read.
//!
//! # What it does not do
//!
//! HTTP/1.1 only, no TLS, no authentication: any process and any user of this machine can send requests through the port. They bring
//! their own key; a stack that adds one would lend it to them.
//!
//! # Sharing and dropping
//!
//! Dropping the [`LocalProxy`] closes the port and ends all connections with their calls. A caller that hangs up drops its call.

mod server;

pub use self::server::{LocalProxy, LocalProxyBuilder, ProxyRequestBody};
