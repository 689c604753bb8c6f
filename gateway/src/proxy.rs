//! The way of one request: from the client through the layers to the upstream, and back.

use std::future::{Future, ready};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Either;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::event::Observer;
use tower_gemini::observe::{Observe, ObserveLayer};
use tower_gemini::respond::{self, Respond, RespondLayer};
use tower_gemini::{BoxError, KeyLabel, Kind, Target};

use crate::headers;
use crate::metrics::Metrics;
use crate::model::{self, Asked};
use crate::pages::Pages;
use crate::stack::Stack;
use crate::upstream::{Base, Upstream};

/// The stack around the client. Its failures are answers in Google's form, and every call is told of.
type Layered = Observe<Respond<<Stack as Layer<Client>>::Service>>;
type Client = Upstream<Asked>;

/// A page or an error of the gateway's own, or what came through the layers.
pub type Body = http_body_util::Either<Full<Bytes>, Passed>;
type Passed = <<Layered as Service<Request<Asked>>>::Response as Has>::Body;

/// Names the body of a response.
pub trait Has {
    type Body;
}

impl<B> Has for Response<B> {
    type Body = B;
}

/// Passes every request on, but for those for the gateway's pages. Each connection has one of its own; they share
/// everything but what saves a request a clone.
pub struct Proxy {
    own: Mutex<Own>,
    shared: Arc<Shared>,
}

struct Own {
    layered: Layered,
    /// Of the key that was used last, by its hash.
    label: Option<(u64, KeyLabel)>,
}

struct Shared {
    base: Base,
    metrics: Arc<Metrics>,
    pages: Pages,
    hasher: RandomState,
}

impl Clone for Proxy {
    fn clone(&self) -> Self {
        let layered = self.own.lock().unwrap_or_else(PoisonError::into_inner).layered.clone();
        Self { own: Mutex::new(Own { layered, label: None }), shared: Arc::clone(&self.shared) }
    }
}

impl Proxy {
    /// `finished` is told of each call when it is over.
    pub fn new(
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
        let shared = Shared { base, metrics, pages, hasher: RandomState::new() };
        Self { own: Mutex::new(Own { layered, label: None }), shared: Arc::new(shared) }
    }

    /// Dropped with the client's connection, and with it every attempt and wait.
    ///
    /// Combinators and no `async`, which would hold the large future of the layers twice: before and while it awaits it.
    pub fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        if let Some(page) = self.shared.pages.find(request.method(), request.uri().path()) {
            return Either::Left(ready(own(page)));
        }
        // What the server put in speaks of its own connection.
        request.extensions_mut().clear();
        if !model::is_in_body(&request) {
            return Either::Right(Either::Left(self.pass_on(model::streamed(request))));
        }
        let proxy = self.clone();
        Either::Right(Either::Right(Box::pin(async move {
            let request = model::hinted(request).await;
            proxy.pass_on(request).await
        })))
    }

    fn pass_on(&self, request: Request<Asked>) -> impl Future<Output = Response<Body>> + Send + use<> {
        let mut guard = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let Own { layered, label } = &mut *guard;
        let request = match self.shared.outgoing(request, label) {
            Ok(request) => request,
            Err(message) => return Either::Left(ready(own(respond::error(Kind::InvalidArgument, message)))),
        };
        self.shared.metrics.begun();
        // They always are: they wait in the call, and so does the client.
        let answer = match layered.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Either::Left(layered.call(request)),
            _ => Either::Right(layered.clone().oneshot(request)),
        };
        Either::Right(answer.map(answered))
    }
}

fn answered(result: Result<Response<Passed>, BoxError>) -> Response<Body> {
    match result {
        Ok(mut response) => {
            headers::strip(response.headers_mut());
            // It speaks of the connection to the upstream, and so do the extensions.
            *response.version_mut() = Version::HTTP_11;
            response.extensions_mut().clear();
            response.map(http_body_util::Either::Right)
        }
        // The layers answer errors themselves, but the type of theirs does not say so.
        Err(error) => own(respond::from_error(error.as_ref())),
    }
}

/// A page or an error of the gateway's own.
fn own(response: Response<Bytes>) -> Response<Body> {
    response.map(|text| http_body_util::Either::Left(Full::new(text)))
}

impl Shared {
    /// As the upstream shall see it.
    fn outgoing(
        &self,
        mut request: Request<Asked>,
        last: &mut Option<(u64, KeyLabel)>,
    ) -> Result<Request<Asked>, &'static str> {
        if request.method() == Method::CONNECT {
            return Err("CONNECT is not for this server.");
        }
        let label = self.label(&request, last);
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

    /// Tells projects apart by their keys, without keeping these: quotas are a project's. `last` is the label before.
    ///
    /// The label is a hash that is made anew with each start of the process. Nobody can find the key from it, and it means
    /// nothing to another process. `None` where there is no key, and for OAuth tokens, which change every hour: the path of
    /// Vertex AI names the project.
    fn label<B>(&self, request: &Request<B>, last: &mut Option<(u64, KeyLabel)>) -> Option<KeyLabel> {
        let key = key(request.headers(), request.uri().query())?;
        if key.starts_with("ya29.") || Target::of(request).project().is_some() {
            return None;
        }
        let hash = self.hasher.hash_one(key) >> 16;
        if last.as_ref().is_none_or(|(of, _)| *of != hash) {
            *last = Some((hash, KeyLabel::new(format!("key-{hash:012x}"))));
        }
        last.as_ref().map(|(_, label)| label.clone())
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
