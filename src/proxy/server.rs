//! The socket, and the way of a request through the stack.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tower_layer::Layer;
use tower_service::Service;

use crate::error::{BoxError, ConfigError};
use crate::loopback::Loopback;
use crate::respond::{OpenAiErrorsLayer, RespondLayer};

use crate::retry::{ReplayBody, ReplayLayer};

/// The body of a request on its way from the proxy into the stack.
///
/// In a [`ReplayBody`], which makes it `Clone`.
pub struct ProxyRequestBody(Incoming);

impl Body for ProxyRequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl fmt::Debug for ProxyRequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyRequestBody").finish_non_exhaustive()
    }
}

/// Settings of a [`LocalProxy`].
#[derive(Clone, Debug, Default)]
#[must_use = "settings do nothing until a proxy is served"]
pub struct LocalProxyBuilder {
    normalises: bool,
}

impl LocalProxyBuilder {
    /// Turns errors under `/openai/` into the form that OpenAI's SDKs read: out of their array, `code` a text (Google's status), `type` and
    /// `param` added. Other members stay. An error of more than 256 KiB, a compressed one, and one in a stream stay as they are. Default:
    /// no.
    pub const fn normalise_openai_errors(mut self) -> Self {
        self.normalises = true;
        self
    }

    /// Listens on a free port of 127.0.0.1. See [`LocalProxy::serve`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` with a [`ConfigError`] where `upstream` has no scheme and host or has a query; else that of the port.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn serve<S, RB>(self, stack: S, upstream: &str) -> io::Result<LocalProxy>
    where
        S: Service<Request<ReplayBody<ProxyRequestBody>>, Response = Response<RB>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        RB: Body<Data = Bytes> + Send + 'static,
        RB::Error: Into<BoxError>,
    {
        let upstream =
            Upstream::new(upstream).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stack = RespondLayer::new().layer(ReplayLayer::new().layer(stack));
        let loopback = if self.normalises {
            start(OpenAiErrorsLayer::new().layer(stack), upstream).await?
        } else {
            start(stack, upstream).await?
        };
        Ok(LocalProxy { loopback })
    }
}

/// Listens, and hands each request to a clone of the stack.
async fn start<S, RB>(stack: S, upstream: Upstream) -> io::Result<Loopback>
where
    S: Service<Request<ProxyRequestBody>, Response = Response<RB>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    RB: Body<Data = Bytes> + Send + 'static,
    RB::Error: Into<BoxError>,
{
    let handle = move |request: Request<Incoming>| {
        let mut stack = stack.clone();
        let request = upstream.request(request);
        async move {
            let Ok(()) = std::future::poll_fn(|cx| stack.poll_ready(cx)).await;
            let Ok(mut response) = stack.call(request).await;
            remove_hop_by_hop(response.headers_mut());
            Ok::<_, Infallible>(response)
        }
    };
    Loopback::start(handle).await
}

/// A stack that listens on 127.0.0.1. See the [module documentation](super).
#[must_use = "dropping the proxy stops it"]
pub struct LocalProxy {
    loopback: Loopback,
}

impl LocalProxy {
    /// Other settings than the defaults.
    pub fn builder() -> LocalProxyBuilder {
        LocalProxyBuilder::default()
    }

    /// Listens on a free port of 127.0.0.1 and sends what comes through `stack` to `upstream`: `https://host`, with a path where all
    /// paths are to begin with one.
    ///
    /// # Errors
    ///
    /// `InvalidInput` with a [`ConfigError`] where `upstream` has no scheme and host or has a query; else that of the port.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn serve<S, RB>(stack: S, upstream: &str) -> io::Result<Self>
    where
        S: Service<Request<ReplayBody<ProxyRequestBody>>, Response = Response<RB>> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        RB: Body<Data = Bytes> + Send + 'static,
        RB::Error: Into<BoxError>,
    {
        Self::builder().serve(stack, upstream).await
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.loopback.addr()
    }

    /// What the SDK takes in place of the upstream: `http://127.0.0.1:PORT`, without a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> String {
        self.loopback.base_url()
    }

    /// Stops like dropping does, and waits until the port is closed.
    pub async fn shutdown(self) {
        self.loopback.shutdown().await;
    }
}

impl fmt::Debug for LocalProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalProxy").field("addr", &self.addr()).finish_non_exhaustive()
    }
}

/// Where requests go.
#[derive(Clone)]
struct Upstream {
    base: Uri,
    /// Of all paths; without a slash at its end.
    prefix: String,
}

impl Upstream {
    fn new(url: &str) -> Result<Self, ConfigError> {
        let invalid =
            ConfigError::new("upstream", "must be a URL with a scheme and a host and without a query");
        let Ok(base) = url.parse::<Uri>() else { return Err(invalid) };
        if base.scheme().is_none() || base.authority().is_none() || base.query().is_some() {
            return Err(invalid);
        }
        let prefix = base.path().trim_end_matches('/').to_owned();
        Ok(Self { base, prefix })
    }

    fn request(&self, request: Request<Incoming>) -> Request<ProxyRequestBody> {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let path = format!("{}{path}", self.prefix);
        let mut parts = self.base.clone().into_parts();
        // A path that came over a socket, behind one that was a URL's, is one.
        parts.path_and_query = path.parse().ok();
        head.uri = Uri::from_parts(parts).unwrap_or_else(|_| self.base.clone());
        head.headers.remove(HOST);
        remove_hop_by_hop(&mut head.headers);
        Request::from_parts(head, ProxyRequestBody(body))
    }
}

/// Removes what concerns one connection: [RFC 9110, 7.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let always =
        [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    for name in named.iter().chain(&always) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}
