//! What is told of calls: each field, each way to end, and nobody's key.
//!
//! The clock is paused, so that latencies are exact: the server of these tests takes 70 ms for a head and 20 ms for each
//! further event of a stream.
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

mod calls;
mod events;
mod json_lines;
#[cfg(feature = "metrics")]
mod metrics;
mod secrets;
#[cfg(feature = "tracing")]
mod tracing;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use support::Body;
use tower::{Service, ServiceExt, service_fn};
use tower_gemini::BoxError;
use tower_gemini::event::{Event, Observer};

const HEAD: Duration = Duration::from_millis(70);
const PIECE: Duration = Duration::from_millis(20);

/// One event of a stream, and the last one, which says what was used.
const BEGUN: &str = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}\n\n";
const USED: &str = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"b\"}]},\"finishReason\":\"STOP\"}],\
    \"usageMetadata\":{\"promptTokenCount\":7,\"cachedContentTokenCount\":3,\"candidatesTokenCount\":5,\
    \"thoughtsTokenCount\":2,\"totalTokenCount\":14}}\n\n";

/// A body whose first piece is there with the head, and the others come one by one. `None` breaks it off.
type Pieces = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

fn pieces(list: Vec<Option<&'static str>>) -> Pieces {
    let stream = futures_util::stream::unfold((list.into_iter(), true), |(mut list, first)| async move {
        let piece = list.next()?;
        if !first {
            tokio::time::sleep(PIECE).await;
        }
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let frame = piece.map(|text| http_body::Frame::data(Bytes::from_static(text.as_bytes())));
        Some((frame.ok_or(broken), (list, false)))
    });
    StreamBody::new(stream).boxed_unsync()
}

/// Answers each call after 70 ms with the next status and its pieces; 0 is an error instead.
fn server(
    script: Vec<(u16, Vec<Option<&'static str>>)>,
) -> impl Service<
    Request<Body>,
    Response = Response<Pieces>,
    Error = BoxError,
    Future: Future<Output = Result<Response<Pieces>, BoxError>> + Send,
> + Clone {
    let script = Arc::new(Mutex::new(script.into_iter()));
    service_fn(move |_: Request<Body>| {
        let next = script.lock().unwrap().next();
        async move {
            tokio::time::sleep(HEAD).await;
            let (status, list) = next.expect("an answer");
            if status == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
            }
            Ok(Response::builder().status(status).body(pieces(list)).unwrap())
        }
    })
}

fn streamed() -> Request<Body> {
    let uri = "https://generativelanguage.googleapis.com/v1beta/models/gemini-9-flash:streamGenerateContent?alt=sse";
    let mut request = Request::post(uri).body(Body::from("{}")).unwrap();
    request.extensions_mut().insert(tower_gemini::KeyLabel::new("team-a"));
    request
}

/// Sends one request and reads its answer to the end.
async fn read<S, B>(service: S, request: Request<Body>) -> Result<(), BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    B: http_body::Body<Data: Send, Error: Into<BoxError>>,
{
    service.oneshot(request).await?.into_body().collect().await.map(drop).map_err(Into::into)
}

const OVERLOADED: &str =
    r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#;

fn overloaded() -> (u16, Vec<Option<&'static str>>) {
    (503, vec![Some(OVERLOADED)])
}

/// Applies a function to each event and keeps what it makes of it.
struct Each<T, F>(F, Mutex<Vec<T>>);

impl<T, F: Fn(&Event<'_>) -> Option<T>> Each<T, F> {
    fn new(what: F) -> Arc<Self> {
        Arc::new(Self(what, Mutex::default()))
    }

    fn seen(&self) -> Vec<T> {
        std::mem::take(&mut *self.1.lock().unwrap())
    }
}

impl<T: Send, F: Fn(&Event<'_>) -> Option<T> + Send + Sync> Observer for Each<T, F> {
    fn on_event(&self, event: &Event<'_>) {
        self.1.lock().unwrap().extend((self.0)(event));
    }
}
