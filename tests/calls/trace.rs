//! `TraceLayer` of both tower-http versions logs Gemini's kinds, at the head, at the end and for errors.
#![cfg(all(feature = "tower-http-06", feature = "tower-http-07"))]
#![allow(clippy::unwrap_used, reason = "a failing test may panic anywhere")]

use crate::support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use support::{Answer, Body, Probe, error, request};
use tower::{Layer, ServiceExt, service_fn};
use tower_gemini::BoxError;
use tower_gemini::classify::{ClassifyLayer, GeminiClassifier, GeminiFailure};

macro_rules! versions {
    ($($name:ident: $tower_http:ident),*) => {$(
        mod $name {
            use super::*;
            use $tower_http::trace::TraceLayer;

            fn trace(log: &Arc<Mutex<Vec<String>>>) -> impl Layer<Inner, Service = impl Traced> {
                let log = Arc::clone(log);
                let layer = TraceLayer::new(GeminiClassifier::new()).on_failure(
                    move |failure: GeminiFailure, _: Duration, _: &tracing::Span| {
                        log.lock().unwrap().push(failure.to_string());
                    },
                );
                tower::layer::layer_fn(move |inner: Inner| {
                    let service = layer.layer(inner);
                    // The body is read here, so that the two versions' body types need no names.
                    service_fn(move |request: Request<Body>| {
                        let service = service.clone();
                        async move { drain(service.oneshot(request).await?).await }
                    })
                })
            }

            #[tokio::test(start_paused = true)]
            async fn kinds_are_logged() {
                let log = Arc::default();
                let refused = Answer::Io(std::io::ErrorKind::ConnectionRefused);
                for answer in [error(503, "UNAVAILABLE", "The model is overloaded."), refused, Answer::Ok] {
                    let probe = Probe::always(answer);
                    let inner = ClassifyLayer::new().layer(probe);
                    let _ = trace(&log).layer(boxed(inner)).oneshot(request()).await;
                }
                assert_eq!(*log.lock().unwrap(), ["overloaded (503)", "transport"]);
            }

            #[tokio::test(start_paused = true)]
            async fn a_stream_is_classified_at_its_end() {
                for (tail, logged) in [
                    (Some("data: {\"error\":{\"code\":500,\"status\":\"INTERNAL\"}}\n\n"), vec!["internal"]),
                    (Some("data: {\"candidates\":[{\"finishReason\":\"STOP\"}]}\n\n"), vec![]),
                    (None, vec!["transport"]),
                ] {
                    let log = Arc::default();
                    let inner = service_fn(move |_: Request<Body>| async move {
                        let chunk = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}\n\n";
                        let frames = [Some(chunk), tail].map(|text| match text {
                            Some(text) => Ok(http_body::Frame::data(Bytes::from(text))),
                            None => Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
                        });
                        Ok::<_, BoxError>(Response::new(StreamBody::new(futures_util::stream::iter(frames))))
                    });
                    let inner = boxed(ClassifyLayer::new().watch().layer(inner));
                    let _ = trace(&log).layer(inner).oneshot(request()).await;
                    assert_eq!(*log.lock().unwrap(), logged);
                }
            }
        }
    )*};
}

versions!(tower_http_0_6: tower_http_06, tower_http_0_7: tower_http_07);

type AnyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;
type Inner = tower::util::BoxCloneService<Request<Body>, Response<AnyBody>, BoxError>;
trait Traced: tower::Service<Request<Body>, Response = (), Error = BoxError> {}
impl<S: tower::Service<Request<Body>, Response = (), Error = BoxError>> Traced for S {}

fn boxed<S, B>(service: S) -> Inner
where
    S: tower::Service<Request<Body>, Response = Response<B>, Error = BoxError> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service =
        service.map_response(|response| response.map(|body| body.map_err(Into::into).boxed_unsync()));
    tower::util::BoxCloneService::new(service)
}

async fn drain<B>(response: Response<B>) -> Result<(), BoxError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    response.into_body().collect().await.map(drop).map_err(Into::into)
}
