//! A server with models that are well or not, and what it was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Full};
use tower::util::BoxCloneService;
use tower::{ServiceBuilder, ServiceExt};
use tower_gemini::BoxError;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::event::{Event, Observer};
use tower_gemini::fallback::{AnsweredBy, ModelFallbackBuilder, ModelFallbackLayer, RewriteBody};
use tower_gemini::request::ModelHint;
use tower_gemini::retry::{Attempt, RetryPolicy};

use crate::support::{Answer, good_body, respond};

pub(crate) type Body = Full<Bytes>;

/// One call as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) uri: String,
    pub(crate) body: String,
    pub(crate) headers: HeaderMap,
    pub(crate) hint: Option<String>,
    pub(crate) attempt: u32,
}

impl Seen {
    /// The model that this call asked for, wherever it stands.
    pub(crate) fn model(&self) -> String {
        let named =
            self.uri.rsplit_once("/models/").map(|(_, rest)| rest.split(':').next().unwrap().to_owned());
        named.unwrap_or_else(|| {
            let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
            let model = body["model"].as_str().unwrap_or("?");
            model.rsplit('/').next().unwrap().to_owned()
        })
    }
}

/// What each model answers; one that is not listed is well.
#[derive(Clone, Default)]
pub(crate) struct Server {
    answers: Arc<Mutex<HashMap<&'static str, Answer>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) fn new(answers: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let server = Self::default();
        server.answers.lock().unwrap().extend(answers);
        server
    }

    pub(crate) fn set(&self, model: &'static str, answer: Answer) {
        self.answers.lock().unwrap().insert(model, answer);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The models that were asked, in order.
    pub(crate) fn models(&self) -> Vec<String> {
        self.seen().iter().map(Seen::model).collect()
    }

    pub(crate) fn service<B>(&self) -> BoxCloneService<Request<B>, Response<Body>, BoxError>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let server = self.clone();
        BoxCloneService::new(tower::service_fn(move |request: Request<B>| server.clone().answer(request)))
    }

    async fn answer<B>(self, request: Request<B>) -> Result<Response<Body>, BoxError>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let attempt = Attempt::of(&request);
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(Into::into)?.to_bytes();
        let seen = Seen {
            uri: parts.uri.to_string(),
            body: String::from_utf8_lossy(&body).into_owned(),
            headers: parts.headers,
            hint: parts.extensions.get::<ModelHint>().map(|hint| hint.as_str().to_owned()),
            attempt,
        };
        let answer = self.answers.lock().unwrap().get(&*seen.model()).cloned();
        self.seen.lock().unwrap().push(seen);
        match answer.unwrap_or(Answer::Ok) {
            Answer::Ok => Ok(respond(200, good_body().to_owned())),
            Answer::Status(status, body) => Ok(respond(status, body)),
            Answer::Header(status, name, value) => {
                let mut response = respond(status, String::new());
                response.headers_mut().insert(name, value.parse().unwrap());
                Ok(response)
            }
            Answer::Io(kind) => Err(std::io::Error::from(kind).into()),
            Answer::Rejected(_) => Err(tower_gemini::Rejected::new("the server says so").into()),
            Answer::Hang => std::future::pending().await,
        }
    }
}

/// `pro`, `flash`, `lite`, in this order.
pub(crate) fn chain() -> ModelFallbackBuilder {
    ModelFallbackLayer::builder().chain("pro", ["flash", "lite"])
}

pub(crate) fn ask(model: &str) -> Request<Body> {
    let uri = format!("http://127.0.0.1/v1beta/models/{model}:generateContent?key=k");
    Request::post(uri).body(Body::from("{}")).unwrap()
}

pub(crate) type Answered = Result<(u16, Option<String>), BoxError>;

/// The fallback over the classifier alone: status, and who answered if not the model that was asked.
pub(crate) async fn run<B>(fallback: ModelFallbackBuilder, server: &Server, request: Request<B>) -> Answered
where
    B: RewriteBody + HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = ServiceBuilder::new()
        .layer(fallback.build().unwrap())
        .layer(ClassifyLayer::new())
        .service(server.service());
    told(service.oneshot(request).await)
}

/// The same with a retry layer between them.
pub(crate) async fn run_with(
    policy: RetryPolicy,
    fallback: ModelFallbackBuilder,
    server: &Server,
    request: Request<Body>,
) -> Answered {
    let service = ServiceBuilder::new()
        .layer(fallback.build().unwrap())
        .layer(tower_gemini::retry::RetryLayer::new(policy))
        .layer(ClassifyLayer::new())
        .service(server.service());
    told(service.oneshot(request).await)
}

pub(crate) fn told<B>(result: Result<Response<B>, BoxError>) -> Answered {
    let response = result?;
    let by = AnsweredBy::of(&response).map(|by| by.model().unwrap_or("last resort").to_owned());
    Ok((response.status().as_u16(), by))
}

/// Writes the fallback's events down.
#[derive(Default)]
pub(crate) struct Notes(Mutex<Vec<String>>);

impl Notes {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Notes {
    fn on_event(&self, event: &Event<'_>) {
        let note = match event {
            Event::FellBack { from, to, verdict, .. } => {
                format!("{from} -> {}: {}", to.unwrap_or("last resort"), verdict.kind().unwrap())
            }
            Event::FallbackRefused { model, why, verdict, .. } => {
                format!("{} -> nobody, {why}: {}", model.unwrap_or("?"), verdict.kind().unwrap())
            }
            _ => return,
        };
        self.0.lock().unwrap().push(note);
    }
}
