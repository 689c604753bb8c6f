//! A server that reads what it is sent, and an observer that remembers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_gemini::BoxError;
use tower_gemini::catalogue::Catalogue;
use tower_gemini::event::{Event, Observer};
use tower_gemini::preflight::{PreflightBody, PreflightBuilder, PreflightLayer, PreflightRefused, Rule};
use tower_gemini::rate_limit::InputTokens;

pub(crate) const URI: &str =
    "https://generativelanguage.googleapis.com/v1beta/models/gemini-9-flash:generateContent";
pub(crate) const KEY: &str = "AIzaSyA-0123456789abcdefghijklmnopqrstu";

/// Models of the tests' own, so that no day and no new file changes what is asserted.
pub(crate) fn catalogue() -> Catalogue {
    Catalogue::from_json(
        r#"{"read": "2026-11-29",
            "parameters": {"candidate_count": [1, 8], "temperature": [0, 2], "top_p": [0, 1], "top_k": [1, null]},
            "models": [
                {"name": "gemini-9-flash", "input_tokens": 1000, "output_tokens": 65536, "parameters":
                    {"advised_temperature": 1.0, "thinking_levels": ["low", "medium", "high"]}},
                {"name": "gemini-8-pro", "parameters": {"top_k": [1, 40], "thinking_levels": [],
                    "thinking_budget": {"range": [128, 32768], "off": false, "dynamic": true}}},
                {"name": "gemini-8-flash-lite", "parameters": {"thinking_levels": [],
                    "thinking_budget": {"range": [512, 24576], "off": true, "dynamic": true}}},
                {"name": "gemini-1-pro", "retires": "2020-01-01", "successor": "gemini-9-flash",
                    "parameters": {"thinking_levels": []}},
                {"name": "gemini-1-flash", "retires": "2020-01-01"}
            ]}"#,
    )
    .unwrap()
}

/// Rule, field, whether it was refused.
type Line = (Rule, &'static str, bool);

/// What the observer was told.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<Line>>>);

impl Told {
    pub(crate) fn all(&self) -> Vec<Line> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Told {
    fn on_event(&self, event: &Event<'_>) {
        let printed = format!("{event:?}");
        assert!(!printed.contains(KEY), "a key was printed: {printed}");
        if let Event::Preflight { finding, refused, .. } = *event {
            self.0.lock().unwrap().push((finding.rule(), finding.field(), refused));
        }
    }
}

/// Path and query, body, the count of its tokens.
type Sent = (String, Bytes, Option<u64>);

/// What the server has got.
#[derive(Clone, Default)]
pub(crate) struct Got(Arc<Mutex<Vec<Sent>>>);

impl Got {
    pub(crate) fn all(&self) -> Vec<Sent> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn bodies(&self) -> Vec<Bytes> {
        self.all().into_iter().map(|(_, body, _)| body).collect()
    }
}

/// Sends a request through the layer to a server that reads it, and answers with `answer`.
pub(crate) async fn send_to<B, A>(
    layer: PreflightLayer,
    request: Request<B>,
    got: &Got,
    answer: A,
) -> Result<Response<Full<Bytes>>, BoxError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    A: Fn(&str) -> Response<Full<Bytes>> + Clone,
{
    let got = got.clone();
    let server = tower::service_fn(move |request: Request<PreflightBody<B>>| {
        let (got, answer) = (got.clone(), answer.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(Into::into)?.to_bytes();
            let path = head.uri.path_and_query().unwrap().to_string();
            let counted = head.extensions.get::<InputTokens>().map(|tokens| tokens.0);
            got.0.lock().unwrap().push((path.clone(), body, counted));
            Ok::<_, BoxError>(answer(&path))
        }
    });
    layer.layer(server).oneshot(request).await
}

pub(crate) async fn send<B>(
    layer: PreflightLayer,
    request: Request<B>,
    got: &Got,
) -> Result<Response<Full<Bytes>>, BoxError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    send_to(layer, request, got, |_| Response::new(Full::default())).await
}

pub(crate) fn builder() -> PreflightBuilder {
    PreflightLayer::builder().catalogue(catalogue())
}

pub(crate) fn post(uri: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::new(body.into())).unwrap()
}

/// What a request is refused for, and what its observer is told.
pub(crate) struct Outcome {
    pub(crate) refused: Option<PreflightRefused>,
    pub(crate) told: Vec<Line>,
}

/// One request through the layer, whose body comes as it is when it is let through.
pub(crate) async fn outcome(builder: PreflightBuilder, uri: &str, body: &str) -> Outcome {
    let (told, got) = (Told::default(), Got::default());
    let layer = builder.observer(Arc::new(told.clone())).build().unwrap();
    let sent = send(layer, post(uri, body.to_owned()), &got).await;
    let refused = sent.err().map(|error| *error.downcast::<PreflightRefused>().unwrap());
    let bodies = got.bodies();
    match &refused {
        Some(_) => assert!(bodies.is_empty(), "it was sent all the same"),
        None => assert_eq!(bodies, [Bytes::from(body.to_owned())]),
    }
    Outcome { refused, told: told.all() }
}

/// A body in frames, with a pause before each where `pauses` says so.
pub(crate) struct Frames {
    pub(crate) frames: VecDeque<Bytes>,
    pub(crate) pauses: bool,
    paused: bool,
    pub(crate) announced: Option<u64>,
}

impl Frames {
    pub(crate) fn new(frames: impl IntoIterator<Item = Bytes>) -> Self {
        Self { frames: frames.into_iter().collect(), pauses: false, paused: false, announced: None }
    }

    pub(crate) fn of(text: &str, size: usize) -> Self {
        Self::new(text.as_bytes().chunks(size).map(Bytes::copy_from_slice))
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.paused = self.pauses && !self.paused;
        if self.paused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.frames.pop_front().map(|data| Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.announced.map_or_else(http_body::SizeHint::new, http_body::SizeHint::with_exact)
    }
}
