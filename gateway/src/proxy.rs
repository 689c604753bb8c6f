//! The way of one request: from the client through the layers to the upstream, and back.

use std::future::{Future, ready};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Either;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tower::util::MapResponse;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::circuit_breaker::{CircuitState, Circuits};
use tower_gemini::event::Observer;
use tower_gemini::fallback::ModelFallbackLayer;
use tower_gemini::observe::{Attachment, Observe, ObserveLayer};
use tower_gemini::request::ModelHint;
use tower_gemini::respond::{self, Cause, Respond, RespondLayer};
use tower_gemini::retry::ReplayBody;
use tower_gemini::{BoxError, KeyLabel, Kind, Target};

use crate::clients::{Admitted, Clients};
use crate::headers;
use crate::history::{self, Trace, traced};
use crate::intake::{self, Asked, BodyError, Room, Taking};
use crate::metrics::Metrics;
use crate::model;
#[cfg(feature = "otlp")]
use crate::otlp::Begins;
use crate::page::PageBody;
use crate::pages::Health;
use crate::pauses::{Pauses, Watch};
use crate::peer::Peer;
use crate::quota::{self, Project, Secret};
use crate::settings::Chain;
use crate::stack::Stack;
use crate::trace_context::TraceContext;
use crate::upstream::{self, Base, Upstream};
use crate::wire::{self, Unread};

/// The stack around the client. Its failures are answers in Google's form, and every call is told of.
type Layered = Observe<MapResponse<Answering, fn(Answer) -> Answer>>;
type Answering = Respond<<Stack as Layer<Client>>::Service>;
type Answer = <Answering as Service<Request<Asked>>>::Response;
type Client = Upstream<Asked>;

/// A page or an error of the gateway's own, or what came through the layers.
pub type Body = http_body_util::Either<PageBody, Passed>;
type Passed = Pauses<<<Layered as Service<Request<Asked>>>::Response as Has>::Body>;

type Answered = <Layered as Service<Request<Asked>>>::Response;

/// Names the body of a response.
pub trait Has {
    type Body;
}

impl<B> Has for Response<B> {
    type Body = B;
}

/// Passes every request on, but for those that ask after the gateway's health. Each connection has one of its own; they share
/// everything but what saves a request a clone.
pub struct Proxy {
    own: Arc<Mutex<Own>>,
    shared: Arc<Shared>,
}

struct Own {
    layered: Both,
    /// Of the layers; another one than in force after a reload.
    generation: u64,
    /// Of the key that was used last, by its hash.
    label: Option<(u64, KeyLabel)>,
}

struct Shared {
    base: Base,
    client: Client,
    finished: Arc<dyn Observer>,
    /// Whether each call has one of tracing's.
    spans: bool,
    metrics: Arc<Metrics>,
    health: Health,
    clients: Option<Arc<Clients>>,
    /// Of `--quota-store`, or of `--state`.
    secret: Option<Secret>,
    hasher: RandomState,
    /// In force: what a new connection is given.
    now: RwLock<Now>,
    generation: AtomicU64,
    room: Room,
    calls: Arc<AtomicUsize>,
    ids: Ids,
    spans_begun: AtomicU64,
}

/// What a reload changes.
struct Now {
    layered: Both,
    limits: Limits,
    chains: Arc<[Chain]>,
}

/// The layers.
#[derive(Clone)]
struct Both {
    all: Layered,
    /// The same ones without a fallback, for clients who may not use the models of a chain. Only where both are.
    plain: Option<Layered>,
    /// The circuits, where they only observe.
    observed: Option<Circuits>,
}

/// The limits of calls.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bodies: intake::Limits,
    /// Calls at a time.
    pub calls: usize,
    /// Whether circuits turn nobody away: then calls that they would are counted.
    pub observes: bool,
    /// A pause of an answer that is counted, where it ends nothing.
    pub pause: Option<Duration>,
}

impl Clone for Proxy {
    fn clone(&self) -> Self {
        let generation = self.shared.generation.load(Ordering::Acquire);
        let layered = self.shared.now().layered.clone();
        let own = Own { layered, generation, label: None };
        Self { own: Arc::new(Mutex::new(own)), shared: Arc::clone(&self.shared) }
    }
}

/// A call's place among those under way, until it is dropped with the answer.
#[derive(Clone, Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is dropped")] Arc<Under>);

#[derive(Debug)]
struct Under {
    all: Arc<AtomicUsize>,
    peer: Arc<Peer>,
}

impl Drop for Under {
    fn drop(&mut self) {
        self.peer.calls.give(1, &self.all);
    }
}

/// Ids of calls that bring none.
#[derive(Debug)]
struct Ids {
    run: u32,
    next: AtomicU64,
}

impl Ids {
    fn next(&self) -> String {
        format!("{:08x}-{:x}", self.run, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Proxy {
    /// `finished` is told of each call when it is over.
    #[allow(clippy::too_many_arguments)] // One caller has them all, and no two are of one type.
    pub fn new(
        stack: &Stack,
        client: Client,
        finished: Arc<dyn Observer>,
        base: Base,
        metrics: Arc<Metrics>,
        health: Health,
        clients: Option<Arc<Clients>>,
        quota: Option<&quota::Settings>,
        salt: Option<Secret>,
        limits: Limits,
        chains: &[Chain],
        spans: bool,
    ) -> Self {
        let layered = both(stack, &client, &finished, chains, clients.is_some(), limits.observes, spans);
        let secret = match quota.map(|quota| &quota.project) {
            Some(Project::Hashed(secret)) => Some(secret.clone()),
            _ => salt,
        };
        let run = (jiff::Timestamp::now().as_nanosecond() >> 10) as u32;
        let shared = Shared {
            base,
            client,
            finished,
            spans,
            metrics,
            health,
            clients,
            secret,
            hasher: RandomState::new(),
            now: RwLock::new(Now { layered: layered.clone(), limits, chains: chains.into() }),
            generation: AtomicU64::new(0),
            room: Room::default(),
            calls: Arc::default(),
            ids: Ids { run, next: AtomicU64::new(1) },
            spans_begun: AtomicU64::new(0),
        };
        let own = Own { layered, generation: 0, label: None };
        Self { own: Arc::new(Mutex::new(own)), shared: Arc::new(shared) }
    }

    /// What is kept of bodies now, in bytes.
    pub fn room(&self) -> Room {
        self.shared.room.clone()
    }

    /// Calls from now on go through these layers, also those on connections that are open.
    pub fn put(&self, stack: &Stack, limits: Limits, chains: &[Chain]) {
        let of = &self.shared;
        let layered =
            both(stack, &of.client, &of.finished, chains, of.clients.is_some(), limits.observes, of.spans);
        let now = Now { layered, limits, chains: chains.into() };
        *self.shared.now.write().unwrap_or_else(PoisonError::into_inner) = now;
        self.shared.generation.fetch_add(1, Ordering::Release);
    }

    /// The same connection's.
    fn share(&self) -> Self {
        Self { own: Arc::clone(&self.own), shared: Arc::clone(&self.shared) }
    }

    /// Dropped with the client's connection, and with it every attempt and wait.
    ///
    /// Combinators and no `async`, which would hold the large future of the layers twice: before and while it awaits it.
    pub fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: &Arc<Peer>,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        if let Some(page) = self.shared.health.find(request.method(), request.uri().path()) {
            return Either::Left(ready(own(page)));
        }
        let id = match request_id(request.headers()) {
            Some(id) => id.to_owned(),
            None => self.shared.ids.next(),
        };
        let said = HeaderValue::try_from(&*id);
        let answer = self.identified(&mut request, id, peer);
        let mut request = Some(request);
        let answer = match answer {
            Ok(begun) => Either::Right(begun.run(self.share(), request.take())),
            Err((expects, refusal)) => {
                let body = request.take().map(Request::into_body);
                Either::Left(unread(expects, body, own(*refusal)))
            }
        };
        Either::Right(answer.map(move |mut response| {
            // The upstream's own stays where it has one.
            if let (Ok(id), false) = (said, response.headers().contains_key(REQUEST_ID)) {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            response
        }))
    }

    /// Who calls, and whether the call may be made; else whether the client waits for a go-ahead, and the answer.
    fn identified(
        &self,
        request: &mut Request<Incoming>,
        id: String,
        peer: &Arc<Peer>,
    ) -> Result<Begun, (bool, Box<Response<Bytes>>)> {
        let expects = request.headers().contains_key(EXPECT);
        if let Some(refusal) = wire::refused(request) {
            return Err((expects, Box::new(refusal)));
        }
        let limits = self.shared.now().limits;
        if !peer.calls.take(1, &self.shared.calls, limits.calls) {
            let message = "The gateway has as many calls under way as it takes.";
            return Err((expects, Box::new(respond::error(Kind::Unavailable, message))));
        }
        let turn = Turn(Arc::new(Under { all: Arc::clone(&self.shared.calls), peer: Arc::clone(peer) }));
        // What the server put in speaks of its own connection.
        request.extensions_mut().clear();
        let mut admitted = None;
        if let Some(clients) = &self.shared.clients {
            match clients.admit(request) {
                Ok(client) => admitted = Some(client),
                Err(refusal) => return Err((expects, refusal)),
            }
        }
        let watch = limits.pause.map(|most| Watch { metrics: Arc::clone(&self.shared.metrics), most });
        Ok(Begun { expects, turn, admitted, id, peer: Arc::clone(peer), watch, limits: limits.bodies })
    }

    fn pass_on(
        &self,
        mut request: Request<Asked>,
        whole: Option<&Bytes>,
        id: String,
        peer: IpAddr,
        admitted: Option<Admitted>,
        watch: Option<Watch>,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        let mut guard = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.shared.generation.load(Ordering::Acquire);
        if guard.generation != generation {
            guard.layered = self.shared.now().layered.clone();
            guard.generation = generation;
        }
        let Own { layered: Both { all: layered, plain, observed }, label, .. } = &mut *guard;
        let mut layered = layered;
        let mut trace = Trace::new();
        trace.request_bytes = match whole {
            Some(whole) => Some(whole.len() as u64),
            None => header(request.headers(), CONTENT_LENGTH).and_then(|length| length.parse().ok()),
        };
        trace.request_id = Some(id.into());
        trace.address = Some(peer);
        let parent = TraceContext::take(request.headers_mut());
        let passed_on = self.shared.next_span(parent);
        if let Some(context) = passed_on {
            context.put(request.headers_mut());
            trace.trace_id = Some(context.id().into());
        }
        if let Some(client) = admitted.as_ref().map(Admitted::client) {
            if let Err(refusal) = client.allows(&request, whole) {
                return Either::Left(ready(own(*refusal)));
            }
            if let (Some(plain), Some(asked)) = (plain, Target::of(&request).model()) {
                let chains = Arc::clone(&self.shared.now().chains);
                let chain = chains.iter().find(|chain| chain.model == asked);
                if chain.is_some_and(|chain| !chain.then.iter().all(|model| client.may_use(model))) {
                    layered = plain;
                }
            }
            trace.client = Some(Box::from(&*client.name));
            request.extensions_mut().insert(client.label.clone());
        }
        trace.admitted = admitted;
        let mut request = match self.shared.outgoing(request, label) {
            Ok(request) => request,
            Err(message) => return Either::Left(ready(own(respond::error(Kind::InvalidArgument, message)))),
        };
        let trace = Arc::new(trace);
        request.extensions_mut().insert(Attachment::new(Arc::clone(&trace)));
        if let Some(circuits) = observed {
            let circuit = circuits.get(&Target::of(&request).key().without_label());
            if circuit.is_some_and(|circuit| circuit.state == CircuitState::Open) {
                self.shared.metrics.would_be_refused();
            }
        }
        self.shared.metrics.begun();
        #[cfg(feature = "otlp")]
        let _begins = passed_on.filter(|_| self.shared.spans).map(|context| Begins::new(parent, context));
        // They always are: they wait in the call, and so does the client. A box, since the future has some thousand bytes and each of what is
        // around it would move it.
        let answer = match layered.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Either::Left(Box::pin(layered.call(request))),
            _ => Either::Right(Box::pin(layered.clone().oneshot(request))),
        };
        Either::Right(traced(trace, answer.map(move |result| answered(result, watch))))
    }
}

fn both(
    stack: &Stack,
    client: &Client,
    finished: &Arc<dyn Observer>,
    chains: &[Chain],
    has_clients: bool,
    observes: bool,
    spans: bool,
) -> Both {
    let observed = observes.then(|| stack.get_circuit_breaker().handle());
    let plain =
        (has_clients && !chains.is_empty()).then(|| ModelFallbackLayer::builder().build().ok()).flatten();
    let plain =
        plain.map(|none| layered(&stack.clone().fallback(none), client.clone(), Arc::clone(finished), spans));
    Both { all: layered(stack, client.clone(), Arc::clone(finished), spans), plain, observed }
}

fn layered(stack: &Stack, client: Client, finished: Arc<dyn Observer>, spans: bool) -> Layered {
    let observe = ObserveLayer::new(finished);
    #[cfg(feature = "otlp")]
    let observe = if spans { observe.spans() } else { observe };
    // Without the feature nobody can ask for them.
    let _ = spans;
    ServiceBuilder::new()
        .layer(observe)
        .map_response(caused as fn(Answer) -> Answer)
        .layer(RespondLayer::new())
        .layer(stack.clone())
        .service(client)
}

/// A call that may be made.
struct Begun {
    expects: bool,
    turn: Turn,
    admitted: Option<Admitted>,
    id: String,
    peer: Arc<Peer>,
    watch: Option<Watch>,
    limits: intake::Limits,
}

impl Begun {
    fn run(
        self,
        proxy: Proxy,
        request: Option<Request<Incoming>>,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        let Self { expects, turn, admitted, id, peer, watch, limits } = self;
        let (mut head, body) = request.map(Request::into_parts).unzip();
        let left = Unread::default();
        // A file goes on while it comes.
        let is_file = head.as_ref().is_some_and(|head| head.uri.path().starts_with("/upload/"));
        let taking = match body {
            Some(body) if !body.is_end_stream() => {
                let limits = intake::Limits { kept: if is_file { 0 } else { limits.kept }, ..limits };
                Either::Left(Taking::new(body, limits, proxy.shared.room.of(&peer), left.clone()))
            }
            _ => Either::Right(ready(Ok((ReplayBody::from_bytes(Bytes::new()), Some(Bytes::new()))))),
        };
        let held = admitted.clone();
        let asked = taking.then(move |taken| {
            let (body, whole) = match taken {
                Ok(taken) => taken,
                Err(error) => return Either::Left(ready(too_slow(&error))),
            };
            let head = head.take().unwrap_or_else(|| Request::new(()).into_parts().0);
            let mut request = Request::from_parts(head, body);
            // The retry layer asks it whether the body can be repeated.
            let replay = request.body().replay();
            request.extensions_mut().insert(replay);
            if model::is_in_body(&request) {
                if let Some(model) = whole.as_deref().and_then(model::model) {
                    request.extensions_mut().insert(ModelHint::new(model));
                }
            }
            Either::Right(proxy.pass_on(request, whole.as_ref(), id, peer.addr(), admitted, watch))
        });
        // Those who were to send the body have dropped it by now, if they were not to send it after all.
        let answered = asked.then(move |response| match left.take() {
            Some(body) => Either::Right(unread(expects, Some(body), response)),
            None => Either::Left(ready(response)),
        });
        answered.map(move |mut response| {
            // Until the answer has ended.
            response.extensions_mut().insert(turn);
            held.map(|held| response.extensions_mut().insert(held));
            response
        })
    }
}

/// The answer to a body that does not come. What follows on the connection would be the rest of it.
fn too_slow(error: &BodyError) -> Response<Body> {
    let (kind, message) = match error {
        BodyError::Large => (Kind::PayloadTooLarge, "The request's body is larger than this gateway takes."),
        BodyError::Broken(_) => (Kind::InvalidArgument, "The request's body broke off."),
        BodyError::Idle | BodyError::Slow => {
            (Kind::InvalidArgument, "The request's body did not come in time.")
        }
    };
    let mut response = respond::error(kind, message);
    if matches!(error, BodyError::Idle | BodyError::Slow) {
        *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
        response = wire::in_step(response);
    }
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    own(response)
}

/// Says why the upstream could not be asked, before the observer is told of the answer.
fn caused(mut response: Answer) -> Answer {
    if let Some(cause) = Cause::of(&response).and_then(|cause| upstream::cause(cause.error())) {
        history::caused(cause);
        response.headers_mut().insert(CAUSE, HeaderValue::from_static(cause));
    }
    response
}

fn answered(result: Result<Answered, BoxError>, watch: Option<Watch>) -> Response<Body> {
    match result {
        Ok(mut response) => {
            headers::strip(response.headers_mut());
            // It speaks of the connection to the upstream, and so do the extensions.
            *response.version_mut() = Version::HTTP_11;
            response.extensions_mut().clear();
            response.map(|body| http_body_util::Either::Right(Pauses::new(body, watch)))
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
    /// The span that the upstream is told of, in the caller's trace, or with `--otlp` in one of its own.
    fn next_span(&self, parent: Option<TraceContext>) -> Option<TraceContext> {
        if parent.is_none() && !self.spans {
            return None;
        }
        // Keyed by the machine's own randomness, so that no two of them meet. Zero is no id.
        let count = self.spans_begun.fetch_add(1, Ordering::Relaxed);
        let random = |nth: u8| self.hasher.hash_one((count, nth)).max(1);
        let new = || u128::from(random(0)) << 64 | u128::from(random(1));
        // One that is made here is sampled: it is sent to the collector.
        let (trace, flags) = parent.map_or_else(|| (new(), 1), |parent| (parent.trace, parent.flags));
        Some(TraceContext { trace, span: random(2), flags })
    }

    fn now(&self) -> RwLockReadGuard<'_, Now> {
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }

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
    /// nothing to another process; with `--quota-secret` it is a keyed hash that all gateways make alike, and with `--state` one that
    /// the next process makes alike. An OAuth token changes every hour: where the request names the project that pays, in
    /// `x-goog-user-project`, that is hashed in its place. `None` where there is no key, and where the path names the project.
    fn label<B>(&self, request: &Request<B>, last: &mut Option<(u64, KeyLabel)>) -> Option<KeyLabel> {
        let key = key(request.headers(), request.uri().query())?;
        // Most paths name none, and are not read for it.
        let may_name_one = |path: &str| path.contains("projects") || path.contains('%');
        if may_name_one(request.uri().path()) && Target::of(request).project().is_some() {
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

/// A request's id: the client's, or one of ours.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Why the upstream could not be asked: `dns`, `refused`, `reset`, `certificate`, `tls`, `timeout` or `closed`.
const CAUSE: HeaderName = HeaderName::from_static("x-gateway-cause");

/// The id that a client has made, if it is fit for a log: of a length that can be borne, and none of Google's keys or tokens.
fn request_id(headers: &HeaderMap) -> Option<&str> {
    let is_key = |id: &str| ["AIza", "AQ.", "ya29."].iter().any(|marker| id.contains(marker));
    header(headers, REQUEST_ID).filter(|id| (1..=128).contains(&id.len()) && !is_key(id))
}

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
