//! The model of a request whose path does not name it: read from the beginning of its body.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use tower_gemini::target::{Surface, Target};

/// The most that is read before a request is sent without a hint.
const MOST: usize = 1024 * 1024;

/// The request, and the model in its body where the surface keeps it there. Its body is as it was; up to [`MOST`] bytes
/// of it have arrived.
pub(crate) async fn hinted(request: Request<Body>) -> (Request<Body>, Option<Box<str>>) {
    let in_body = matches!(Target::of(&request).surface(), Surface::OpenAi | Surface::Interactions);
    if !in_body || request.method() != Method::POST || request.body().is_end_stream() {
        return (request, None);
    }
    let (head, mut body) = request.into_parts();
    let mut read = BytesMut::new();
    let mut last = None;
    while read.len() < MOST && last.is_none() {
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => read.extend_from_slice(&data),
                Err(trailers) => last = Some(Ok(trailers)),
            },
            Some(Err(error)) => last = Some(Err(error)),
            None => break,
        }
    }
    let read = read.freeze();
    let model = model(&read);
    let body = Rejoined { read: Some(read).filter(|read| !read.is_empty()), last, rest: body };
    (Request::from_parts(head, Body::new(body)), model)
}

/// The member `model` of an object that may have been cut.
fn model(json: &[u8]) -> Option<Box<str>> {
    struct Find<'a>(&'a mut Option<Box<str>>);

    impl<'de> Visitor<'de> for Find<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                if name == "model" {
                    *self.0 = Some(map.next_value()?);
                    return Ok(());
                }
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    let mut found = None;
    // The rest of the object, or that it was cut, is an error by then and of no interest.
    let _ = serde_json::Deserializer::from_slice(json).deserialize_map(Find(&mut found));
    found
}

/// What was read of a body, and the rest.
struct Rejoined {
    read: Option<Bytes>,
    last: Option<Result<Frame<Bytes>, axum::Error>>,
    rest: Body,
}

impl http_body::Body for Rejoined {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(read) = self.read.take() {
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        match self.last.take() {
            Some(last) => Poll::Ready(Some(last)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.last.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.read.as_ref().map_or(0, |read| read.len() as u64);
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(ahead));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(ahead)) {
            hint.set_upper(upper);
        }
        hint
    }
}
