//! The way of one request: from the client through the layers to the upstream, and back.

use std::convert::Infallible;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Method, Request, Response, Version};
use tokio::time::Instant;
use tower::{Service, ServiceExt};
use tower_gemini::target::ModelHint;
use tower_gemini::{BoxError, KeyLabel, Target, Verdict};

use super::log::Logger;
use super::metrics::Metrics;
use super::record::{Record, Recorded};
use super::stack::Layered;
use super::upstream::Base;
use super::{errors, headers, model};

/// Passes every request on. Clones share everything.
#[derive(Clone)]
pub(crate) struct Proxy<S> {
    stack: S,
    shared: Arc<Shared>,
}

struct Shared {
    base: Base,
    metrics: Arc<Metrics>,
    logger: Logger,
    labels: Labels,
}

impl<S> Proxy<S> {
    pub(crate) fn new(stack: S, base: Base, metrics: Arc<Metrics>, logger: Logger) -> Self {
        let shared = Shared { base, metrics, logger, labels: Labels::default() };
        Self { stack, shared: Arc::new(shared) }
    }
}

impl<S: Layered> Service<Request<Body>> for Proxy<S> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The stack is asked in the call, where its error has a response to go into.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (stack, shared) = (self.stack.clone(), Arc::clone(&self.shared));
        // Dropped with the connection, and with it every attempt and wait.
        Box::pin(async move { Ok(shared.pass_on(stack, request).await) })
    }
}

impl Shared {
    async fn pass_on(&self, stack: impl Layered, request: Request<Body>) -> Response<Body> {
        let logged = |text: &str| Box::from(if self.logger.is_on() { text } else { "" });
        let mut record = Record::begin(
            Arc::clone(&self.metrics),
            self.logger.clone(),
            request.method().clone(),
            logged(request.uri().path()),
        );
        let (request, hint) = model::hinted(request).await;
        let target = Target::of(&request);
        let label = self.labels.of(&request, &target);
        if let Some(model) = hint.as_deref().or(target.model()) {
            record.asks(logged(model));
        }
        let request = match self.outgoing(request, hint, label) {
            Ok(mut request) => {
                request.extensions_mut().insert(record.tries());
                request
            }
            Err(message) => {
                let response = errors::bad_request(message);
                let verdict = Verdict::of(&response);
                return recorded(response, verdict, record);
            }
        };
        match stack.oneshot(request).await {
            Ok(response) => {
                let verdict = Verdict::of(&response);
                let (mut head, body) = response.into_parts();
                headers::strip(&mut head.headers);
                // It speaks of the connection to the upstream, and so do the extensions.
                head.version = Version::HTTP_11;
                head.extensions.clear();
                recorded(Response::from_parts(head, body), verdict, record)
            }
            Err(error) => {
                let verdict = Verdict::from_error(error.as_ref());
                recorded(errors::response(&error, Instant::now()), verdict, record)
            }
        }
    }

    /// As the upstream shall see it.
    fn outgoing(
        &self,
        request: Request<Body>,
        hint: Option<Box<str>>,
        label: Option<KeyLabel>,
    ) -> Result<Request<Body>, &'static str> {
        let (mut head, body) = request.into_parts();
        if head.method == Method::CONNECT {
            return Err("CONNECT is not for this server.");
        }
        head.uri = self.base.join(head.uri).ok_or("The request's target is no path.")?;
        headers::strip(&mut head.headers);
        head.headers.insert(HOST, self.base.host().clone());
        head.version = Version::HTTP_11;
        // What the server put in speaks of its own connection.
        head.extensions.clear();
        if let Some(label) = label {
            head.extensions.insert(label);
        }
        if let Some(model) = hint {
            head.extensions.insert(ModelHint::new(model));
        }
        Ok(Request::from_parts(head, body))
    }
}

fn recorded<B>(response: Response<B>, verdict: Verdict, mut record: Record) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    record.answered(response.status(), verdict);
    response.map(|body| Body::new(Recorded::new(body, record)))
}

/// Tells projects apart by their keys, without keeping these: quotas are a project's.
///
/// The label is a hash that is made anew with each start of the process. Nobody can find the key from it, and it means nothing
/// to another process.
#[derive(Default)]
struct Labels(RandomState);

impl Labels {
    /// `None` where there is no key, and for OAuth tokens, which change every hour: the path of Vertex AI names the project.
    fn of<B>(&self, request: &Request<B>, target: &Target<'_>) -> Option<KeyLabel> {
        let key = key(request.headers(), request.uri().query())?;
        if target.project().is_some() || key.starts_with("ya29.") {
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
