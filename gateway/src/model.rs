//! The model of a request whose path does not name it: read from the beginning of its body.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Method, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use tower_gemini::request::{ModelHint, Surface, Target};
use tower_gemini::retry::ReplayBody;

use crate::wire::Unread;

/// The most that is read before a request is sent without a hint.
const MOST: usize = 1024 * 1024;

/// The body of a request. One that comes from a client can be read once; this one keeps what it streams through.
pub type Asked = ReplayBody<Rejoined>;

/// Whether the model of this request stands in its body.
pub fn is_in_body(request: &Request<Incoming>) -> bool {
    request.method() == Method::POST
        && !request.body().is_end_stream()
        && matches!(Target::of(request).surface(), Surface::OpenAi | Surface::Interactions)
}

/// A request whose body streams through, and is kept for another attempt.
pub fn streamed(request: Request<Incoming>, unread: Unread) -> Request<Asked> {
    let rejoined = |rest| Rejoined { read: None, last: None, rest: Some(rest), unread };
    with_handle(request.map(|rest| ReplayBody::new(rejoined(rest))))
}

/// The request with a [`ModelHint`], where its body names a model. The body is as it was; up to 1 MiB of it have
/// arrived, and if that is all, it can be rewritten for another model.
pub async fn hinted(request: Request<Incoming>, unread: Unread) -> Request<Asked> {
    let (mut head, mut body) = request.into_parts();
    let mut read = BytesMut::new();
    let (mut last, mut whole) = (None, false);
    while read.len() < MOST && last.is_none() && !whole {
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => read.extend_from_slice(&data),
                Err(trailers) => last = Some(Ok(trailers)),
            },
            Some(Err(error)) => last = Some(Err(error)),
            None => whole = true,
        }
        whole |= last.is_none() && body.is_end_stream();
    }
    let read = read.freeze();
    if let Some(model) = model(&read) {
        head.extensions.insert(ModelHint::new(model));
    }
    let body = if whole {
        ReplayBody::from_bytes(read)
    } else {
        ReplayBody::new(Rejoined {
            read: Some(read).filter(|read| !read.is_empty()),
            last,
            rest: Some(body),
            unread,
        })
    };
    with_handle(Request::from_parts(head, body))
}

/// The retry layer asks it whether the body can be repeated.
fn with_handle(mut request: Request<Asked>) -> Request<Asked> {
    let replay = request.body().replay();
    request.extensions_mut().insert(replay);
    request
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
pub struct Rejoined {
    read: Option<Bytes>,
    last: Option<Result<Frame<Bytes>, hyper::Error>>,
    /// `None` once it is dropped.
    rest: Option<Incoming>,
    unread: Unread,
}

impl Drop for Rejoined {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take().filter(|_| self.last.is_none()) {
            self.unread.put(rest);
        }
    }
}

impl Body for Rejoined {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(read) = self.read.take() {
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        match self.last.take() {
            Some(last) => Poll::Ready(Some(last)),
            None => match &mut self.rest {
                Some(rest) => Pin::new(rest).poll_frame(cx),
                None => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.last.is_none() && self.rest.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.read.as_ref().map_or(0, |read| read.len() as u64);
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(ahead));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(ahead)) {
            hint.set_upper(upper);
        }
        hint
    }
}
