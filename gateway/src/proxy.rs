//! The way of one request: from the client through the layers to the upstream, and back.

use std::future::{Future, ready};
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Either;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::event::Observer;
use tower_gemini::observe::{Attachment, Observe, ObserveLayer};
use tower_gemini::respond::{self, Respond, RespondLayer};
use tower_gemini::{BoxError, KeyLabel, Kind, Target};

use crate::clients::{Admitted, Clients};
use crate::headers;
use crate::history::{Trace, traced};
use crate::metrics::Metrics;
use crate::model::{self, Asked};
use crate::page::{Page, PageBody};
use crate::pages::Pages;
use crate::quota::{self, Project, Secret};
use crate::stack::Stack;
use crate::upstream::{Base, Upstream};
use crate::wire::{self, Unread};

/// The stack around the client. Its failures are answers in Google's form, and every call is told of.
type Layered = Observe<Respond<<Stack as Layer<Client>>::Service>>;
type Client = Upstream<Asked>;

/// A page or an error of the gateway's own, or what came through the layers.
pub type Body = http_body_util::Either<PageBody, Passed>;
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
    pages: Arc<Pages>,
    page: Page,
    clients: Option<Arc<Clients>>,
    /// Of `--quota-store`.
    secret: Option<Secret>,
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
    #[allow(clippy::too_many_arguments)] // One caller has them all, and no two are of one type.
    pub fn new(
        stack: Stack,
        client: Client,
        finished: Arc<dyn Observer>,
        base: Base,
        metrics: Arc<Metrics>,
        pages: Arc<Pages>,
        page: Page,
        clients: Option<Arc<Clients>>,
        quota: Option<&quota::Settings>,
    ) -> Self {
        let layered = ServiceBuilder::new()
            .layer(ObserveLayer::new(finished))
            .layer(RespondLayer::new())
            .layer(stack)
            .service(client);
        let secret = match quota.map(|quota| &quota.project) {
            Some(Project::Hashed(secret)) => Some(secret.clone()),
            _ => None,
        };
        let shared = Shared { base, metrics, pages, page, clients, secret, hasher: RandomState::new() };
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
            return Either::Left(Either::Left(ready(own(page))));
        }
        if Page::owns(request.uri().path()) {
            let page = self.shared.page.respond(&request);
            return Either::Left(Either::Right(page.map(|page| page.map(http_body_util::Either::Left))));
        }
        let expects = request.headers().contains_key(EXPECT);
        if let Some(refusal) = wire::refused(&mut request) {
            return Either::Right(Either::Right(unread(expects, Some(request.into_body()), own(refusal))));
        }
        // What the server put in speaks of its own connection.
        request.extensions_mut().clear();
        let mut admitted = None;
        if let Some(clients) = &self.shared.clients {
            match clients.admit(&mut request) {
                Ok(client) => admitted = Some(client),
                Err(refusal) => {
                    return Either::Right(Either::Right(unread(
                        expects,
                        Some(request.into_body()),
                        own(*refusal),
                    )));
                }
            }
        }
        if let Some(client) = &admitted {
            request.extensions_mut().insert(client.clone());
        }
        let keep = move |mut response: Response<Body>| {
            if let Some(client) = admitted {
                response.extensions_mut().insert(client);
            }
            response
        };
        let left = Unread::default();
        if !model::is_in_body(&request) {
            let passed = self.pass_on(model::streamed(request, left.clone()));
            // Those who were to send the body have dropped it by now, if they were not to send it after all.
            let answered = passed.then(move |response| match left.take() {
                Some(body) => Either::Right(unread(expects, Some(body), response)),
                None => Either::Left(ready(response)),
            });
            return Either::Right(Either::Left(answered.map(keep)));
        }
        let proxy = self.clone();
        Either::Right(Either::Right(Box::pin(async move {
            let request = model::hinted(request, left.clone()).await;
            let response = proxy.pass_on(request).await;
            keep(unread(expects, left.take(), response).await)
        })))
    }

    fn pass_on(&self, mut request: Request<Asked>) -> impl Future<Output = Response<Body>> + Send + use<> {
        let mut guard = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let Own { layered, label } = &mut *guard;
        let mut trace = Trace::new();
        trace.request_bytes =
            header(request.headers(), CONTENT_LENGTH).and_then(|length| length.parse().ok());
        trace.request_id = header(request.headers(), REQUEST_ID).map(Box::from);
        let client = request.extensions_mut().remove::<Admitted>();
        if let Some(client) = client.as_ref().map(Admitted::client) {
            if let Err(refusal) = client.allows(&request) {
                return Either::Left(ready(own(*refusal)));
            }
            trace.client = Some(Box::from(&*client.name));
            request.extensions_mut().insert(client.label.clone());
        }
        let mut request = match self.shared.outgoing(request, label) {
            Ok(request) => request,
            Err(message) => return Either::Left(ready(own(respond::error(Kind::InvalidArgument, message)))),
        };
        let trace = Arc::new(trace);
        request.extensions_mut().insert(Attachment::new(Arc::clone(&trace)));
        self.shared.metrics.begun();
        // They always are: they wait in the call, and so does the client.
        let answer = match layered.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Either::Left(layered.call(request)),
            _ => Either::Right(layered.clone().oneshot(request)),
        };
        Either::Right(traced(trace, answer.map(answered)))
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

/// The answer to a request whose body nobody has read. A client that waits for a go-ahead must not be given it for nothing.
fn unread(
    expects: bool,
    body: Option<Incoming>,
    mut response: Response<Body>,
) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
    match body.filter(|body| !body.is_end_stream()) {
        Some(_) if expects => {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            Box::pin(ready(response))
        }
        Some(body) => Box::pin(wire::drained(body, response)),
        None => Box::pin(ready(response)),
    }
}

/// A page or an error of the gateway's own.
fn own(response: Response<Bytes>) -> Response<Body> {
    response.map(|text| http_body_util::Either::Left(PageBody::whole(text)))
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
        let label = match &self.clients {
            // The client's name is there already.
            Some(_) => None,
            None => self.label(&request, last),
        };
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
    /// nothing to another process; with `--quota-secret` it is a keyed hash that all gateways make alike. An OAuth token changes every hour: where the request names the project that pays, in
    /// `x-goog-user-project`, that is hashed in its place. `None` where there is no key, and where the path names the project.
    fn label<B>(&self, request: &Request<B>, last: &mut Option<(u64, KeyLabel)>) -> Option<KeyLabel> {
        let key = key(request.headers(), request.uri().query())?;
        if Target::of(request).project().is_some() {
            return None;
        }
        let pays =
            |name: &'static str| request.headers().get(name)?.to_str().ok().filter(|name| !name.is_empty());
        let key = pays("x-goog-user-project").filter(|_| key.starts_with("ya29.")).unwrap_or(key);
        let hash = self.hasher.hash_one(key);
        if last.as_ref().is_none_or(|(of, _)| *of != hash) {
            let label = match &self.secret {
                Some(secret) => secret.label(key),
                None => KeyLabel::new(format!("key-{:012x}", hash >> 16)),
            };
            *last = Some((hash, label));
        }
        last.as_ref().map(|(_, label)| label.clone())
    }
}

/// A request's id, where the client has made one.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The three places in which Google looks for a key.
fn key<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> Option<&'a str> {
    let header = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let in_query = || query?.split('&').find_map(|pair| pair.strip_prefix("key="));
    let bearer = || {
        let (scheme, token) = header(AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    };
    let said = |key: &&'a str| !key.is_empty();
    header("x-goog-api-key")
        .filter(said)
        .or_else(|| in_query().filter(said))
        .or_else(|| bearer().filter(said))
}
