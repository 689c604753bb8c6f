//! The client under a stack, and the bounds it has to meet, each with a text of its own for the compiler to print.

use std::fmt;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::error::BoxError;
use crate::fallback::RewriteBody;

/// A client: a [`Service`] that takes `http::Request<B>` and answers with an [`http::Response`].
///
/// Implemented for all of them and for nothing else. It names what a client's answer and error are, so that
/// [`check`] and [`GeminiStack::service`](super::GeminiStack::service) can ask something of each.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `tower::Service<http::Request<{B}>>` that answers with an `http::Response`",
    label = "not a client that a `GeminiStack` can be put around",
    note = "a `reqwest::Client` is put into a `tower_gemini::reqwest::ReqwestService` first",
    note = "the request body's type must be one that the client takes"
)]
pub trait HttpService<B> {
    /// The body of its responses.
    type ResponseBody;
    /// Its error.
    type Error;
}

#[diagnostic::do_not_recommend]
impl<S, B, RB> HttpService<B> for S
where
    S: Service<Request<B>, Response = Response<RB>>,
{
    type ResponseBody = RB;
    type Error = S::Error;
}

/// An error that becomes a [`BoxError`]: one that is `std::error::Error + Send + Sync + 'static`, or a `BoxError`.
#[diagnostic::on_unimplemented(
    message = "the client's error type `{Self}` is not `Into<BoxError>`",
    label = "this client's error cannot become a `tower::BoxError`",
    note = "implement `std::error::Error` for it (`Send + Sync + 'static`), or use `.map_err(..)` under the stack"
)]
pub trait ClientError {}

#[diagnostic::do_not_recommend]
impl<E: Into<BoxError>> ClientError for E {}

/// A response's body that is made of [`Bytes`].
#[diagnostic::on_unimplemented(
    message = "the response body `{Self}` is not an `http_body::Body<Data = bytes::Bytes>`",
    label = "this client's response body is not made of `Bytes`",
    note = "map the response under the stack: `.map_response(|r| r.map(Full::<Bytes>::from))` from a text, \
            `.map_response(|r| r.map(|body| body.map_frame(..)))` from other buffers"
)]
pub trait BytesBody {}

#[diagnostic::do_not_recommend]
impl<B: Body<Data = Bytes>> BytesBody for B {}

/// A request's body that can be sent once more: a `Clone`.
#[diagnostic::on_unimplemented(
    message = "the request body `{Self}` is not `Clone`, so a request cannot be sent a second time",
    label = "this request body cannot be sent again",
    note = "send a `Full<Bytes>`, or keep what is streamed: `GeminiStack::new().replay(ReplayLayer::new())`, under which the \
            client takes a `ReplayBody<{Self}>`"
)]
pub trait CloneBody {}

#[diagnostic::do_not_recommend]
impl<B: Clone> CloneBody for B {}

/// A client pinned to one type of request body: what [`GeminiStack::service`](super::GeminiStack::service) puts at the bottom.
///
/// Some clients take any body (`ReqwestService`, the simulator). Pinned to one, the type of the body is inferred from the first
/// request, and what does not fit is told where the stack is built. It adds no code: `call` and the future are the client's.
///
/// Clones are clones of the client.
pub struct HttpClient<S, B> {
    inner: S,
    // Neither `Send` nor `Sync` depend on the body's.
    body: PhantomData<fn(B)>,
}

impl<S, B> HttpClient<S, B> {
    /// Pins `client`.
    pub const fn new(client: S) -> Self {
        Self { inner: client, body: PhantomData }
    }

    /// The client.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The client, mutably.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The client, by value.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone, B> Clone for HttpClient<S, B> {
    // A client that was polled ready is not called by way of its clone: each layer above polls the one it calls.
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl<S: fmt::Debug, B> fmt::Debug for HttpClient<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpClient").field(&self.inner).finish()
    }
}

impl<S, B> Service<Request<B>> for HttpClient<S, B>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> S::Future {
        self.inner.call(request)
    }
}

/// Compiles where a [`GeminiStack`](super::GeminiStack) can be put around `client`, and otherwise has the compiler name the one bound
/// that is missing. Does nothing at run time.
///
/// For a client that takes any body, say which: `check::<_, Full<Bytes>>(&client)`. A stack, or any service of layers, is checked in the
/// same way.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower_gemini::stack;
///
/// let client = tower::service_fn(async |_: Request<Full<Bytes>>| Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default())));
/// stack::check(&client);
/// ```
///
/// A body that is not `Clone`:
///
/// ```compile_fail
/// # use bytes::Bytes;
/// # use http::{Request, Response};
/// # use http_body_util::Full;
/// # use tower_gemini::stack;
/// let client = tower::service_fn(async |_: Request<hyper::body::Incoming>| Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default())));
/// // error: the request body `hyper::body::Incoming` is not `Clone`, so a request cannot be sent a second time
/// stack::check(&client);
/// ```
pub const fn check<S, B>(client: &S)
where
    S: HttpService<B> + Clone,
    <S as HttpService<B>>::Error: ClientError,
    <S as HttpService<B>>::ResponseBody: BytesBody,
    B: CloneBody + RewriteBody,
{
    let _ = client;
}
