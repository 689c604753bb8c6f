//! What is asked in reqwest's own types: middleware for its client, and this crate's adapter.
//!
//! Neither sends anything. At the bottom of each is what answers at once: a last middleware that asks nobody else,
//! and a service. reqwest's URL is parsed where the request is made, outside the timed part.

use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, Response};
use reqwest::Request;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use tower::{Layer, Service, service_fn};
use tower_gemini::reqwest::ReqwestClient;
use tower_gemini::retry::{ReplayBody, RetryLayer};

use crate::floors::Body;

/// A client that can be measured.
pub(crate) trait Client: Service<Request, Future: Send> + Clone + Send + 'static {}

impl<S: Service<Request, Future: Send> + Clone + Send + 'static> Client for S {}

// ===== reqwest-middleware =====

/// Drops the request and answers 200 at once.
struct Last;

#[async_trait::async_trait]
impl Middleware for Last {
    async fn handle(
        &self,
        request: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        drop(std::hint::black_box(request));
        Ok(Response::new("{}").into())
    }
}

/// The client is lent to each call, as one does who keeps it; `Arc` is for the tasks on other threads.
fn lent(client: ClientWithMiddleware) -> impl Client {
    let client = Arc::new(client);
    service_fn(move |request| {
        let client = Arc::clone(&client);
        async move { client.execute(request).await }
    })
}

pub(crate) fn middleware_bare() -> impl Client {
    lent(ClientBuilder::new(reqwest::Client::new()).with(Last).build())
}

/// Five attempts; its own strategy looks at the status.
pub(crate) fn middleware_retry() -> impl Client {
    let policy = ExponentialBackoff::builder().build_with_max_retries(4);
    let retry = RetryTransientMiddleware::new_with_policy(policy);
    lent(ClientBuilder::new(reqwest::Client::new()).with(retry).with(Last).build())
}

// ===== this crate's adapter =====

type Replayed = http::Request<ReplayBody<reqwest::Body>>;

/// Drops the request and answers 200 at once.
#[derive(Clone)]
struct Bare;

impl Service<Replayed> for Bare {
    type Response = Response<Body>;
    type Error = tower_gemini::BoxError;
    type Future = std::future::Ready<Result<Response<Body>, Self::Error>>;
    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Replayed) -> Self::Future {
        drop(std::hint::black_box(request));
        std::future::ready(Ok(Response::new(Body::new(Bytes::from_static(b"{}")))))
    }
}

pub(crate) fn adapter_bare() -> impl Client {
    let client = ReqwestClient::new(Bare);
    service_fn(move |request| client.execute(request))
}

pub(crate) fn adapter_retry() -> impl Client {
    let client = ReqwestClient::new(RetryLayer::default().layer(Bare));
    service_fn(move |request| client.execute(request))
}
