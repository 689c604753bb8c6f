//! A stack as the HTTP service of async-openai.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_openai::middleware::HttpRequestFactory;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_gemini::BoxError;
use tower_gemini::reqwest::ReqwestClient;
use tower_gemini::respond::{OpenAiErrors, OpenAiErrorsLayer};
use tower_gemini::retry::ReplayBody;
use tower_layer::Layer;
use tower_service::Service;

/// Sends async-openai's requests through a stack, for
/// [`Client::with_http_service`](::async_openai::Client::with_http_service).
///
/// It takes the place of async-openai's own retries. A request is built once and kept for further attempts, 32 MiB of it at most. Errors of
/// Google's OpenAI-compatible surface are put into the form that async-openai reads ([`OpenAiErrorsLayer`]).
///
/// What the stack fails with comes back as `OpenAIError::Boxed`; `tower_gemini::error::find` looks into it.
///
/// ```no_run
/// use async_openai::{Client, config::OpenAIConfig};
/// use tower_gemini::{reqwest::ReqwestService, stack::GeminiStack};
/// use tower_gemini_adapters::async_openai::StackService;
///
/// let stack = GeminiStack::new().service(ReqwestService::new(reqwest::Client::new()));
/// let config = OpenAIConfig::new().with_api_base("https://generativelanguage.googleapis.com/v1beta/openai");
/// let client = Client::with_config(config).with_http_service(StackService::new(stack));
/// ```
///
/// Clones share what the stack shares. Dropping a future drops the call.
#[derive(Clone)]
pub struct StackService<S> {
    client: ReqwestClient<OpenAiErrors<S>>,
}

impl<S> StackService<S> {
    /// Sends through `stack`, with a `ReqwestService` or something else at its bottom.
    pub fn new(stack: S) -> Self {
        Self { client: ReqwestClient::new(OpenAiErrorsLayer::new().layer(stack)) }
    }
}

impl<S, B> Service<HttpRequestFactory> for StackService<S>
where
    S: Service<Request<ReplayBody<reqwest::Body>>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<BoxError>,
{
    type Response = reqwest::Response;
    type Error = BoxError;
    // async-openai boxes its own the same way.
    type Future = Pin<Box<dyn Future<Output = Result<reqwest::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Each call makes a clone of the stack ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        let client = self.client.clone();
        Box::pin(async move {
            let request = request.build().await?;
            client.execute(request).await
        })
    }
}

impl<S> fmt::Debug for StackService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackService").finish_non_exhaustive()
    }
}
