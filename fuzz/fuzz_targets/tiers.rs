//! No body panics when its tier is looked for, none is changed by that, and a tier is found only where a JSON parser finds it as a
//! member of the outermost object.
#![no_main]

use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use libfuzzer_sys::fuzz_target;
use tower_gemini::tier::{ServiceTier, TierLayer};
use tower_layer::Layer;
use tower_service::Service;

#[derive(Clone)]
struct Whole(Option<Bytes>);

impl From<Bytes> for Whole {
    fn from(bytes: Bytes) -> Self {
        Self(Some(bytes))
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }
}

/// Gives the request back.
struct Echo;

impl Service<Request<Whole>> for Echo {
    type Response = Request<Whole>;
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Request<Whole>, Self::Error>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Whole>) -> Self::Future {
        ready(Ok(request))
    }
}

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let request = Request::post("/v1beta/models/m:generateContent").body(Whole(Some(bytes.clone()))).unwrap();
    let Ok(request) = TierLayer::new().layer(Echo).call(request).into_inner();
    assert_eq!(request.body().0.as_ref(), Some(&bytes));
    if let Some(tier) = ServiceTier::of(&request) {
        let value: serde_json::Value = serde_json::from_slice(data).expect("a tier is read from JSON alone");
        let named = ["service_tier", "serviceTier"].map(|name| value.get(name).and_then(|tier| tier.as_str()));
        assert!(named.into_iter().flatten().any(|name| ServiceTier::from_name(name) == Some(tier)), "{tier}");
    }
});
