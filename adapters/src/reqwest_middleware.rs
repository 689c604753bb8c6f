//! A stack as the last middleware of reqwest-middleware.

use std::fmt;

use bytes::Bytes;
use http::{Extensions, Response};
use http_body::Body;
use reqwest_middleware::{Error, Middleware, Next};
use tower_gemini::BoxError;
use tower_gemini::reqwest::ReqwestClient;
use tower_gemini::retry::ReplayBody;
use tower_service::Service;

/// The last middleware, which sends through a stack: what stands behind it, and the client of the `ClientBuilder`, are not asked.
///
/// The extensions of a request (`RequestBuilder::with_extension`) reach the layers, a [`Deadline`](tower_gemini::Deadline)
/// or a [`ServiceTier`](tower_gemini::ServiceTier), say; those of the response are handed back in it. Leave reqwest-retry out: attempts multiply.
///
/// What the stack fails with comes back as `Error::Middleware`, with the stack's own error inside.
///
/// ```no_run
/// use reqwest_middleware::ClientBuilder;
/// use tower_gemini::{reqwest::ReqwestService, stack::GeminiStack};
/// use tower_gemini_adapters::reqwest_middleware::Terminal;
///
/// let http = reqwest::Client::new();
/// let stack = GeminiStack::new().service(ReqwestService::new(http.clone()));
/// let client = ClientBuilder::new(http).with(Terminal::new(stack)).build();
/// ```
///
/// Clones share what the stack shares. Dropping a future drops the call.
#[derive(Clone)]
pub struct Terminal<S> {
    client: ReqwestClient<S>,
}

impl<S> Terminal<S> {
    /// Sends through `stack`, with a `ReqwestService` or something else at its bottom.
    pub const fn new(stack: S) -> Self {
        Self { client: ReqwestClient::new(stack) }
    }
}

#[async_trait::async_trait]
impl<S, B> Middleware for Terminal<S>
where
    S: Service<http::Request<ReplayBody<reqwest::Body>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<BoxError>,
{
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let failed = |error: BoxError| Error::Middleware(anyhow::Error::from_boxed(error));
        let mut request = http::Request::try_from(request).map_err(Error::Reqwest)?;
        request.extensions_mut().extend(extensions.clone());
        let request = reqwest::Request::try_from(request).map_err(Error::Reqwest)?;
        self.client.execute(request).await.map_err(failed)
    }
}

impl<S> fmt::Debug for Terminal<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").finish_non_exhaustive()
    }
}
