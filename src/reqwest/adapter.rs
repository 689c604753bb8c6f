//! The adapters, for one major version of reqwest: `super::client`. Loaded once for each (see `reqwest_012`).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::client::{self, Body as ReqwestBody, Error, RequestBuilder, ResponseBuilderExt, Url};
use crate::call_options::CallOptions;
use crate::error::BoxError;
use crate::retry::{ReplayBody, ReplayLayer, ReplayService};

/// reqwest's client as a service of `http` types.
///
/// Always ready, as reqwest limits nothing. Its errors are reqwest's own, without the URL.
#[derive(Clone)]
pub struct ReqwestService {
    client: client::Client,
}

impl ReqwestService {
    /// Sends requests by `client`: its pool, its default headers, its timeouts.
    #[must_use]
    pub const fn new(client: client::Client) -> Self {
        Self { client }
    }

    /// The client.
    #[must_use]
    pub const fn get_ref(&self) -> &client::Client {
        &self.client
    }

    /// The client.
    #[must_use]
    pub fn into_inner(self) -> client::Client {
        self.client
    }
}

impl From<client::Client> for ReqwestService {
    fn from(client: client::Client) -> Self {
        Self::new(client)
    }
}

impl fmt::Debug for ReqwestService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: it prints its default headers, and the key may be one of them.
        f.debug_struct("ReqwestService").finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for ReqwestService
where
    // `Sync` is what `reqwest::Body::wrap` asks for; a `ReplayBody` is it whatever is inside.
    B: Body<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ReqwestBody>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.client.poll_ready(cx).map_err(Error::without_url)
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        // reqwest reads a per-request timeout from the extensions, which the conversion keeps.
        let state = match client::Request::try_from(request.map(ReqwestBody::wrap)) {
            Ok(request) => State::Pending { pending: self.client.call(request) },
            Err(error) => State::Failed { error: Some(error.without_url()) },
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The answer of a [`ReqwestService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = StateProj]
    enum State {
        // Sent, or being sent. The type is reqwest's, which gives it no public name of its own.
        Pending { #[pin] pending: <client::Client as Service<client::Request>>::Future },
        // The request was no request for reqwest: a relative URI, mostly.
        Failed { error: Option<Error> },
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<ReqwestBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match self.project().state.project() {
            StateProj::Pending { pending } => ready!(pending.poll(cx)),
            StateProj::Failed { error } => Err(error.take().expect("polled after it was ready")),
        };
        Poll::Ready(match outcome {
            Ok(response) => {
                let url = FinalUrl(without_secrets(response.url().clone()));
                let mut response = Response::from(response);
                response.extensions_mut().insert(url);
                Ok(response)
            }
            Err(error) => Err(error.without_url()),
        })
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not reqwest's future: it prints the URL.
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// Where a response came from, after redirects: in the extensions of a [`ReqwestService`]'s response.
///
/// Without secrets: the values of `key`, `access_token` and `upload_id` in the query, and a password, read
/// `redacted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalUrl(Url);

impl FinalUrl {
    /// The URL.
    #[must_use]
    pub const fn get(&self) -> &Url {
        &self.0
    }
}

/// Query parameters by which Google's API takes a credential. (`upload_id` is what a resumable upload needs to be
/// continued by anybody.)
const SECRET_PARAMETERS: [&str; 3] = ["key", "access_token", "upload_id"];

fn without_secrets(mut url: Url) -> Url {
    const REDACTED: &str = "redacted";
    if url.password().is_some() {
        // Fails only for URLs without a host, which have no password either.
        let _ = url.set_password(Some(REDACTED));
    }
    let is_secret = |name: &str| SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret));
    if url.query_pairs().any(|(name, _)| is_secret(&name)) {
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .map(|(name, value)| {
                let value = if is_secret(&name) { REDACTED.to_owned() } else { value.into_owned() };
                (name.into_owned(), value)
            })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    url
}

/// A stack that is spoken to in reqwest's own types.
///
/// `S` is any service of `http::Request<ReplayBody<reqwest::Body>>`, with a [`ReqwestService`] at its bottom or something
/// else. Bodies become repeatable on the way in: the bytes of a body in memory are shared, not copied, and a streamed one
/// is kept up to [`max_replay_bytes`](Self::max_replay_bytes) (see [`ReplayLayer`]).
///
/// Each call goes to a clone of the stack that is driven ready first, so calls do not wait for one another, other than
/// at the layers' limits.
///
/// The client that a `RequestBuilder` came from only builds the request. It is sent by the stack, so default
/// headers, proxies and client-wide timeouts are those of the stack's client: use the same for both.
#[derive(Clone)]
pub struct ReqwestClient<S> {
    service: ReplayService<S>,
}

impl<S> ReqwestClient<S> {
    /// Sends requests through `stack`, keeping at most 32 MiB of each body.
    #[must_use]
    pub const fn new(stack: S) -> Self {
        Self { service: ReplayService::new(stack, ReplayLayer::DEFAULT_MAX_BYTES) }
    }

    /// Keeps at most `max_bytes` bytes of each body. A larger one is sent, but cannot be repeated once it was read.
    #[must_use]
    pub fn max_replay_bytes(self, max_bytes: usize) -> Self {
        Self { service: ReplayService::new(self.service.into_inner(), max_bytes) }
    }

    /// The stack.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        self.service.get_ref()
    }

    /// The stack.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.service.into_inner()
    }

    /// Sends what `builder` describes: `client.post(url).json(&body)`, without its `.send()`.
    ///
    /// # Errors
    ///
    /// The builder's own error (a bad URL, a body that is no JSON), boxed and without its URL; else as [`execute`](Self::execute).
    pub fn send<B>(
        &self,
        builder: RequestBuilder,
    ) -> impl Future<Output = Result<client::Response, BoxError>> + use<S, B>
    where
        S: Service<Request<ReplayBody<ReqwestBody>>, Response = Response<B>> + Clone,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<BoxError>,
    {
        let client = self.clone();
        async move { client.execute(builder.build().map_err(Error::without_url)?).await }
    }

    /// The same with what differs for this call: attempts, deadline, tier, class, label.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use tower_gemini::CallOptions;
    /// use tower_gemini::reqwest::{ReqwestClient, ReqwestService};
    /// use tower_gemini::stack::GeminiStack;
    ///
    /// # async fn run(url: &str, prompt: serde_json::Value) -> Result<(), tower_gemini::BoxError> {
    /// let http = reqwest::Client::new();
    /// let gemini = ReqwestClient::new(GeminiStack::new().service(ReqwestService::new(http.clone())));
    /// let hurried = CallOptions::new().attempts(2).within(Duration::from_secs(5)).label("search");
    /// let response = gemini.send_with(&hurried, http.post(url).json(&prompt)).await?;
    /// # drop(response); Ok(()) }
    /// ```
    ///
    /// A time [`within`](CallOptions::within) counts from when the future is polled first.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn send_with<B>(
        &self,
        options: &CallOptions,
        builder: RequestBuilder,
    ) -> impl Future<Output = Result<client::Response, BoxError>> + use<S, B>
    where
        S: Service<Request<ReplayBody<ReqwestBody>>, Response = Response<B>> + Clone,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<BoxError>,
    {
        let (client, options) = (self.clone(), options.clone());
        async move {
            let request = builder.build().map_err(Error::without_url)?;
            let url = request.url().clone();
            let mut request = Request::try_from(request).map_err(Error::without_url)?;
            options.apply(&mut request);
            client.call(request, url).await
        }
    }

    /// Sends `request`.
    ///
    /// `RequestBuilder` has no door to the extensions, by which layers are told things. For those of [`CallOptions`] there is
    /// [`send_with`](Self::send_with). A request that carries others is built with `http` and turned into reqwest's:
    /// `reqwest::Request::try_from(http::Request::post(url).extension(hint).body(bytes)?)?`.
    ///
    /// # Errors
    ///
    /// The stack's error, as it is; [`find`](crate::error::find) gets at `reqwest::Error` and at the layers' own. A request that
    /// `http` cannot express (a URL of 64 KiB) is a `reqwest::Error` for which `is_builder` is true.
    pub fn execute<B>(
        &self,
        request: client::Request,
    ) -> impl Future<Output = Result<client::Response, BoxError>> + use<S, B>
    where
        S: Service<Request<ReplayBody<ReqwestBody>>, Response = Response<B>> + Clone,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<BoxError>,
    {
        // No `async fn`, which would hold `&self`: then the future of a stack that is not `Sync` (a
        // `BoxCloneService`, say) would not be `Send`.
        let client = self.clone();
        async move {
            let url = request.url().clone();
            client.call(Request::try_from(request).map_err(Error::without_url)?, url).await
        }
    }

    async fn call<B>(self, request: Request<ReqwestBody>, url: Url) -> Result<client::Response, BoxError>
    where
        S: Service<Request<ReplayBody<ReqwestBody>>, Response = Response<B>>,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: Into<BoxError>,
    {
        let mut service = self.service;
        // The clone is polled ready and called itself: readiness is not a clone's to inherit.
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
        let response = service.call(request).await.map_err(Into::into)?;
        Ok(into_reqwest(response, url))
    }
}

impl<S> fmt::Debug for ReqwestClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestClient").finish_non_exhaustive()
    }
}

/// `asked` is the URL to be shown where the stack's bottom was no [`ReqwestService`] and left no [`FinalUrl`].
fn into_reqwest<B>(response: Response<B>, asked: Url) -> client::Response
where
    B: Body<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = response.into_parts();
    let url = match parts.extensions.get::<FinalUrl>() {
        Some(FinalUrl(url)) => url.clone(),
        None => without_secrets(asked),
    };
    // reqwest takes the URL from an extension that only its own `ResponseBuilderExt` can make, so one is made on
    // an empty response and moved over.
    if let Ok(carrier) = Response::builder().url(url).body(()) {
        parts.extensions.extend(carrier.into_parts().0.extensions);
    }
    client::Response::from(Response::from_parts(parts, ReqwestBody::wrap(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_secrets_leave_the_url() {
        for (url, shown) in [
            ("https://h/v1beta/models?pageSize=5", "https://h/v1beta/models?pageSize=5"),
            ("https://h/a?alt=sse&key=AIza", "https://h/a?alt=sse&key=redacted"),
            ("https://h/a?KEY=AIza&k%65y=AIza", "https://h/a?KEY=redacted&key=redacted"),
            ("https://h/a?q=a%20b&access_token=ya29", "https://h/a?q=a+b&access_token=redacted"),
            ("https://me:AIza@h/a", "https://me:redacted@h/a"),
            ("https://h/a?q=a%20b", "https://h/a?q=a%20b"),
        ] {
            let url = Url::parse(url).expect("a valid URL");
            assert_eq!(without_secrets(url).as_str(), shown);
        }
    }
}
