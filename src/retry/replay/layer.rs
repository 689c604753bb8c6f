use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{DEFAULT_MAX_BYTES, ReplayBody};

/// Makes requests repeatable whose bodies are not `Clone`, by a [`ReplayBody`] around each.
///
/// It adds no failure and no waiting of its own, and a [`Replay`](super::Replay) to the request's extensions, by
/// which the layer that repeats requests learns whether this one still can be. Its services share nothing; what
/// the copies of one body share, and what a drop gives back, is told at [`ReplayBody`].
///
/// # When to use it
///
/// For bodies that are not `Clone`: an upload from a file, a proxied request, a `reqwest::Body`. A `Full<Bytes>`,
/// a `String`, an `Empty` and every other body that can be cloned needs nothing: leave the layer out, and
/// nothing is kept.
///
/// It goes outside of the layer that repeats requests, since that one clones them:
///
/// ```text
///   ReplayLayer -> retry -> limits, breaker, timeouts -> client
/// ```
///
/// ```
/// use std::convert::Infallible;
///
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
/// use tower_gemini::retry::{Replay, ReplayBody, ReplayLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_gemini::BoxError> {
/// let mut service = ServiceBuilder::new()
///     .layer(ReplayLayer::new().max_bytes(1024 * 1024))
///     .service_fn(async |request: Request<ReplayBody<Full<Bytes>>>| {
///         let replay = request.extensions().get::<Replay>().expect("put there by the layer");
///         assert_eq!(replay.max_bytes(), 1024 * 1024);
///         Ok::<_, Infallible>(Response::new(request.into_body()))
///     });
///
/// let request = Request::new(Full::new(Bytes::from_static(b"hello")));
/// let response = service.ready().await?.call(request).await?;
/// assert_eq!(response.into_body().collect().await?.to_bytes(), "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ReplayLayer {
    max_bytes: usize,
}

impl ReplayLayer {
    /// 32 MiB.
    pub const DEFAULT_MAX_BYTES: usize = DEFAULT_MAX_BYTES;

    /// Keeps at most 32 MiB of each body.
    #[must_use]
    pub const fn new() -> Self {
        Self { max_bytes: DEFAULT_MAX_BYTES }
    }

    /// Keeps at most `max_bytes` bytes of each body. A larger one is sent, but cannot be repeated.
    ///
    /// 0 keeps nothing: only an attempt that never read the body can then be repeated.
    #[must_use]
    pub const fn max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }
}

impl Default for ReplayLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ReplayLayer {
    type Service = ReplayService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ReplayService::new(inner, self.max_bytes)
    }
}

/// The service of [`ReplayLayer`].
#[derive(Clone, Copy, Debug)]
pub struct ReplayService<S> {
    inner: S,
    max_bytes: usize,
}

impl<S> ReplayService<S> {
    /// Puts a [`ReplayBody`] that keeps at most `max_bytes` bytes around the body of each request.
    pub const fn new(inner: S, max_bytes: usize) -> Self {
        Self { inner, max_bytes }
    }

    /// The wrapped service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped service.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The wrapped service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B> Service<Request<B>> for ReplayService<S>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body<Data = Bytes>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let max_bytes = self.max_bytes;
        let mut request = request.map(|body| ReplayBody::with_max_bytes(body, max_bytes));
        let replay = request.body().replay();
        request.extensions_mut().insert(replay);
        self.inner.call(request)
    }
}
