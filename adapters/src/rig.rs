//! A stack as rig's HTTP client.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyDataStream, BodyExt, Full};
use rig_http::http_client::{BoxedStream, Error, HttpClientExt, LazyBody, MultipartForm, Result, StreamingResponse};
use tower_gemini::BoxError;
use tower_service::Service;

/// Sends rig's requests through a stack: `GeminiConfig::new(key).connect(StackClient::new(stack))`.
///
/// The stack takes bodies of `Full<Bytes>`; rig holds each in memory, so no [`ReplayLayer`](tower_gemini::retry::ReplayLayer) is needed. Any client of
/// such bodies may be at its bottom: a [`ReqwestService`](tower_gemini::reqwest::ReqwestService), hyper-util's, the simulator.
///
/// A status other than a success comes back as rig's error with status, headers and body; what the stack fails with as
/// `Error::Instance`, which `tower_gemini::error::find` looks into.
///
/// ```no_run
/// use tower_gemini::{reqwest::ReqwestService, stack::GeminiStack};
/// use tower_gemini_adapters::rig::StackClient;
///
/// let stack = GeminiStack::new().service(ReqwestService::new(reqwest::Client::new()));
/// let client = StackClient::new(stack);
/// # fn is_client(_: impl rig_http::http_client::HttpClientExt) {}
/// # is_client(client);
/// ```
///
/// Clones share what the stack shares. Dropping a future or a stream drops the call. Unlike rig's own client it starts no runtime: it is
/// polled inside of the program's.
#[derive(Clone)]
pub struct StackClient<S> {
    stack: S,
}

impl<S> StackClient<S> {
    /// Sends through `stack`.
    pub const fn new(stack: S) -> Self {
        Self { stack }
    }
}

impl<S, B> StackClient<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// The answer, where its status is a success.
    fn ask(&self, request: Request<Bytes>) -> impl Future<Output = Result<Response<B>>> + Send + use<S, B> {
        let mut stack = self.stack.clone();
        async move {
            std::future::poll_fn(|cx| stack.poll_ready(cx)).await.map_err(failed)?;
            let response = stack.call(request.map(Full::new)).await.map_err(failed)?;
            if response.status().is_success() {
                return Ok(response);
            }
            let (head, body) = response.into_parts();
            let text = match body.collect().await {
                Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
                Err(error) => format!("the error's body broke off: {}", error.into()),
            };
            Err(Error::non_success_with_details(head.status, head.headers, text))
        }
    }

    fn whole<U: From<Bytes> + Send + 'static>(
        &self,
        request: Request<Bytes>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>>> + Send + 'static + use<S, B, U> {
        let answer = self.ask(request);
        async move {
            let read = |body: B| async move { Ok(U::from(body.collect().await.map_err(failed)?.to_bytes())) };
            Ok(answer.await?.map(|body| Box::pin(read(body)) as LazyBody<U>))
        }
    }
}

fn failed(error: impl Into<BoxError>) -> Error {
    Error::Instance(error.into())
}

impl<S, B> HttpClientExt for StackClient<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn send<T, U>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>>> + Send + 'static
    where
        T: Into<Bytes> + Send,
        U: From<Bytes> + Send + 'static,
    {
        self.whole(request.map(Into::into))
    }

    fn send_multipart<U>(
        &self,
        request: Request<MultipartForm>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>>> + Send + 'static
    where
        U: From<Bytes> + Send + 'static,
    {
        let (mut head, form) = request.into_parts();
        let (boundary, body) = form.encode();
        let kind = format!("multipart/form-data; boundary={boundary}").parse();
        let answer = kind.map(|kind| {
            head.headers.insert(http::header::CONTENT_TYPE, kind);
            self.whole(Request::from_parts(head, body))
        });
        async move { answer.map_err(Error::InvalidHeaderValue)?.await }
    }

    fn send_streaming<T>(&self, request: Request<T>) -> impl Future<Output = Result<StreamingResponse>> + Send
    where
        T: Into<Bytes> + Send,
    {
        let answer = self.ask(request.map(Into::into));
        async move { Ok(answer.await?.map(|body| Box::pin(Chunks(Box::pin(body.into_data_stream()))) as BoxedStream)) }
    }
}

/// The data of a body, as rig's stream.
struct Chunks<B>(Pin<Box<BodyDataStream<B>>>);

impl<B> futures_core::Stream for Chunks<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx).map_err(failed)
    }
}

impl<S> fmt::Debug for StackClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackClient").finish_non_exhaustive()
    }
}
