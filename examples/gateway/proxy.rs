//! The way of one request: from the client through the layers to the upstream, and back.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Method, Request, Response, Version};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_gemini::event::Observer;
use tower_gemini::observe::{Observe, ObserveLayer};
use tower_gemini::respond::{self, Respond, RespondLayer};
use tower_gemini::{BoxError, KeyLabel, Kind, Target};

use super::headers;
use super::metrics::Metrics;
use super::model::{self, Asked};
use super::pages::Pages;
use super::stack::Stack;
use super::upstream::{Base, Upstream};

/// The stack around the client. Its failures are answers in Google's form, and every call is told of.
type Layered = Observe<Respond<<Stack as Layer<Client>>::Service>>;
type Client = Upstream<Asked>;

/// Passes every request on, but for those for the gateway's pages. Clones share everything.
#[derive(Clone)]
pub(crate) struct Proxy {
    layered: Layered,
    shared: Arc<Shared>,
}

struct Shared {
    base: Base,
    metrics: Arc<Metrics>,
    pages: Pages,
    labels: Labels,
}

impl Proxy {
    /// `finished` is told of each call when it is over.
    pub(crate) fn new(
        stack: Stack,
        client: Client,
        finished: Arc<dyn Observer>,
        base: Base,
        metrics: Arc<Metrics>,
        pages: Pages,
    ) -> Self {
        let layered = ServiceBuilder::new()
            .layer(ObserveLayer::new(finished))
            .layer(RespondLayer::new())
            .layer(stack)
            .service(client);
        Self { layered, shared: Arc::new(Shared { base, metrics, pages, labels: Labels::default() }) }
    }

    /// Dropped with the client's connection, and with it every attempt and wait.
    pub(crate) async fn answer(
        self,
        mut request: Request<Incoming>,
    ) -> Response<impl Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static> {
        if let Some(page) = self.shared.pages.find(request.method(), request.uri().path()) {
            return own(page);
        }
        // What the server put in speaks of its own connection.
        request.extensions_mut().clear();
        let request = if model::is_in_body(&request) {
            // Boxed, since most requests have no need of it.
            Box::pin(model::hinted(request)).await
        } else {
            model::streamed(request)
        };
        let request = match self.shared.outgoing(request) {
            Ok(request) => request,
            Err(message) => return own(respond::error(Kind::InvalidArgument, message)),
        };
        self.shared.metrics.begun();
        match self.layered.oneshot(request).await {
            Ok(mut response) => {
                headers::strip(response.headers_mut());
                // It speaks of the connection to the upstream, and so do the extensions.
                *response.version_mut() = Version::HTTP_11;
                response.extensions_mut().clear();
                response.map(Either::Right)
            }
            // The layers answer errors themselves, but the type of theirs does not say so.
            Err(error) => own(respond::from_error(error.as_ref())),
        }
    }
}

/// A page or an error of the gateway's own.
fn own<B>(response: Response<Bytes>) -> Response<Either<Full<Bytes>, B>> {
    response.map(|text| Either::Left(Full::new(text)))
}

impl Shared {
    /// As the upstream shall see it.
    fn outgoing(&self, mut request: Request<Asked>) -> Result<Request<Asked>, &'static str> {
        if request.method() == Method::CONNECT {
            return Err("CONNECT is not for this server.");
        }
        let label = self.labels.of(&request);
        let uri = std::mem::take(request.uri_mut());
        *request.uri_mut() = self.base.join(uri).ok_or("The request's target is no path.")?;
        headers::strip(request.headers_mut());
        request.headers_mut().insert(HOST, self.base.host().clone());
        *request.version_mut() = Version::HTTP_11;
        if let Some(label) = label {
            request.extensions_mut().insert(label);
        }
        Ok(request)
    }
}

/// Tells projects apart by their keys, without keeping these: quotas are a project's.
///
/// The label is a hash that is made anew with each start of the process. Nobody can find the key from it, and it means nothing
/// to another process.
#[derive(Default)]
struct Labels(RandomState);

impl Labels {
    /// `None` where there is no key, and for OAuth tokens, which change every hour: the path of Vertex AI names the project.
    fn of<B>(&self, request: &Request<B>) -> Option<KeyLabel> {
        let key = key(request.headers(), request.uri().query())?;
        if key.starts_with("ya29.") || Target::of(request).project().is_some() {
            return None;
        }
        Some(KeyLabel::new(format!("key-{:012x}", self.0.hash_one(key) >> 16)))
    }
}

/// The three places in which Google looks for a key.
fn key<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> Option<&'a str> {
    let header = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let in_query = || query?.split('&').find_map(|pair| pair.strip_prefix("key="));
    let bearer = || {
        let (scheme, token) = header(AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    };
    header("x-goog-api-key").or_else(in_query).or_else(bearer).filter(|key| !key.is_empty())
}
