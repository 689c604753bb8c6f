//! The client, and the address that requests are sent to.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use http_body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client, ResponseFuture};
use hyper_util::rt::TokioTimer;
use tower::Service;
use tower_gemini::BoxError;

use crate::drive::{Driven, Drivers, Tracking};
use crate::kept::Kept;

/// Where the upstream is.
#[derive(Clone, Debug)]
pub struct Base {
    scheme: Scheme,
    authority: Authority,
    /// What stands before every path: empty, or `/a/b` without a slash at its end.
    prefix: String,
    /// The value of `host`.
    host: HeaderValue,
}

impl Base {
    /// The error says what the value must be. It does not repeat it: it may hold a password or a key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let error = |what: &str| format!("must {what}, such as https://generativelanguage.googleapis.com");
        let uri: Uri = text.parse().map_err(|_| error("be a URL"))?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(error("begin with http:// or https:// and a host"));
        };
        let default_port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return Err(error("begin with http:// or https://")),
        };
        if authority.host().is_empty() {
            return Err(error("have a host"));
        }
        if authority.as_str().contains('@') {
            return Err(error("have no user or password"));
        }
        // `host:` and `host:99999` are read as a host and some text.
        if authority.as_str().len() > authority.host().len() && authority.port_u16().is_none() {
            return Err(error("have a port from 0 to 65535 or none"));
        }
        let path = parts.path_and_query.as_ref().map_or("", PathAndQuery::as_str);
        if path.contains('?') || text.contains('#') {
            return Err(error("have no query and no fragment"));
        }
        let host = match authority.port_u16() {
            Some(port) if port != default_port => HeaderValue::from_str(authority.as_str()),
            _ => HeaderValue::from_str(authority.host()),
        };
        let host = host.map_err(|_| error("be a URL"))?;
        Ok(Self { prefix: path.trim_end_matches('/').to_owned(), scheme, authority, host })
    }

    pub const fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// The same path and query at the upstream, byte for byte: nothing is decoded, encoded or resolved.
    ///
    /// `None` for what has no path: `*`, and the target of a `CONNECT`.
    pub fn join(&self, uri: Uri) -> Option<Uri> {
        let path = uri.into_parts().path_and_query.filter(|path| path.as_str().starts_with('/'))?;
        let path = if self.prefix.is_empty() {
            path
        } else {
            PathAndQuery::try_from(format!("{}{path}", self.prefix)).ok()?
        };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).ok()
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

// ===== the client =====

/// hyper-util's client and not reqwest's, whose URLs are resolved and encoded anew: `/a/../b` would become `/b`.
type Lane<B> = Client<Tracking<HttpsConnector<HttpConnector>>, B>;

/// hyper-util's client keeps one connection of HTTP/2 to a host, and Google permits 100 streams on one: whoever comes after
/// them would wait in silence. So there are several clients, and each is filled before the next one is used.
const LANES: usize = 16;
const FULL: usize = 90;

/// Of HTTP/1.1, in bytes: the largest head, and what of bodies is held of a connection, each way.
const BUFFER: usize = 32 * 1024;
/// The largest head of HTTP/2, in bytes.
const HEADERS: u32 = 64 * 1024;
/// What is held of an answer over HTTP/2, in bytes.
const STREAM_WINDOW: u32 = 128 * 1024;

/// The longest that an upstream may leave what was sent to it unread or unacknowledged.
#[cfg(target_os = "linux")]
const STALL: Duration = Duration::from_secs(30);

/// The client of the stack. Clones share its connections.
pub struct Upstream<B> {
    lanes: Arc<[(Lane<B>, Arc<AtomicUsize>)]>,
}

impl<B> Clone for Upstream<B> {
    fn clone(&self) -> Self {
        Self { lanes: Arc::clone(&self.lanes) }
    }
}

/// HTTP/2 where TLS negotiates it, else HTTP/1.1; connections are kept for 90 s.
pub fn client<B>() -> Result<Upstream<B>, String>
where
    B: Body + Send,
    B::Data: Send,
{
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(Duration::from_secs(10)));
    http.set_keepalive(Some(Duration::from_secs(60)));
    // An upstream that reads nothing: hyper waits for it even where the call was given up.
    #[cfg(target_os = "linux")]
    http.set_tcp_user_timeout(Some(STALL));
    let tls = HttpsConnectorBuilder::new().try_with_platform_verifier();
    let tls = tls.map_err(|error| format!("the certificates of this machine cannot be read: {error}"))?;
    let connector = Tracking(tls.https_or_http().enable_http1().enable_http2().wrap_connector(http));
    let lane = || {
        Client::builder(Drivers)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(90))
            // Google sends about thirty fields; a proxy in between may add many. hyper takes 100.
            .http1_max_headers(256)
            .http1_max_buf_size(BUFFER)
            .http2_max_header_list_size(HEADERS)
            // Not adaptive: then a stream's window is that of the connection, and one whose reader is slow holds up all others.
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(STREAM_WINDOW * 100)
            .http2_max_send_buf_size(BUFFER)
            // A connection that died in silence is noticed, also while nothing but slow streams are on it.
            .http2_keep_alive_interval(Duration::from_secs(30))
            .http2_keep_alive_timeout(Duration::from_secs(20))
            .build(connector.clone())
    };
    Ok(Upstream { lanes: (0..LANES).map(|_| (lane(), Arc::default())).collect() })
}

/// The first lane with room, else the least full.
pub fn choose(in_flight: impl Iterator<Item = usize> + Clone) -> usize {
    let room = in_flight.clone().position(|n| n < FULL);
    room.or_else(|| in_flight.enumerate().min_by_key(|(_, n)| *n).map(|(lane, _)| lane)).unwrap_or(0)
}

impl<B> Service<Request<B>> for Upstream<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Kept<Driven, Place>>;
    type Error = legacy::Error;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        // Two that look at once may overfill a lane a little, which the ten streams of difference bear.
        let lane = choose(self.lanes.iter().map(|(_, in_flight)| in_flight.load(Ordering::Relaxed)));
        let (client, in_flight) = &self.lanes[lane];
        Answering { answer: client.request(request), place: Some(Place::take(in_flight)) }
    }
}

/// One call on a lane, until it is dropped.
pub struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(in_flight: &Arc<AtomicUsize>) -> Self {
        in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(in_flight))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The head of an answer on its way.
pub struct Answering {
    answer: ResponseFuture,
    place: Option<Place>,
}

impl Future for Answering {
    type Output = Result<Response<Kept<Driven, Place>>, legacy::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx))?;
        let place = self.place.take();
        Poll::Ready(Ok(Driven::of(answer).map(|body| Kept::new(body, place))))
    }
}

/// Why the upstream could not be asked: `certificate`, `tls`, `dns`, `refused`, `reset`, `timeout`, `unreachable`
/// or `closed`. `None` for anything else.
///
/// A word and no text of the error's, which may name an address of the inner network.
pub fn cause(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    use std::io::ErrorKind;
    let mut next = Some(error);
    let mut found = None;
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(match error {
                rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                    "certificate"
                }
                _ => "tls",
            });
        }
        // hyper-util's error of its connector says no more of itself.
        if error.to_string() == "dns error" {
            return Some("dns");
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            found = Some("closed");
        }
        let mut inner = None;
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            found = match error.kind() {
                ErrorKind::ConnectionRefused => Some("refused"),
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                    Some("reset")
                }
                ErrorKind::TimedOut => Some("timeout"),
                ErrorKind::UnexpectedEof => Some("closed"),
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Some("unreachable"),
                _ => found,
            };
            // What an io::Error wraps is not its source.
            inner = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
        }
        next = inner.or_else(|| error.source());
    }
    found
}
