//! Any body of a request: however it is cut into frames, the same is found in it, and what is let through arrives byte for byte.
//!
//! The first two bytes choose the sizes of the frames, which take turns, the third the path; the rest is the body.
#![no_main]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use libfuzzer_sys::fuzz_target;
use tower_gemini::BoxError;
use tower_gemini::preflight::{Finding, RuleMode, PreflightBody, PreflightLayer, PreflightRefused, Rule};
use tower_layer::Layer;
use tower_service::Service;

const URIS: [&str; 6] = [
    "/v1beta/models/gemini-3.5-flash-lite:generateContent",
    "/v1/models/gemini-2.5-flash-lite:streamGenerateContent",
    "/v1beta/models/gemini-3-flash-previeww:countTokens",
    "/v1beta/openai/chat/completions",
    "/v1/interactions",
    "/v1internal:generateContent",
];

fuzz_target!(|data: &[u8]| {
    let [first, second, uri, body @ ..] = data else { return };
    // More than a thousand frames are not held.
    let body = &body[..body.len().min(8 * 1024)];
    let uri = URIS[usize::from(*uri) % URIS.len()];
    let whole = send(uri, vec![Bytes::copy_from_slice(body)], body);
    let mut frames = Vec::new();
    let sizes = [*first, *second].map(|size| usize::from(size) + if body.len() < 1_000 { 1 } else { 16 });
    let (mut rest, mut sizes) = (body, sizes.into_iter().cycle());
    while !rest.is_empty() {
        let (frame, after) = rest.split_at(rest.len().min(sizes.next().expect("they take turns")));
        frames.push(Bytes::copy_from_slice(frame));
        rest = after;
    }
    assert_eq!(send(uri, frames, body), whole);
});

/// What is found; or what is not is checked to have arrived.
fn send(uri: &str, frames: Vec<Bytes>, sent: &[u8]) -> Vec<Finding> {
    let mut builder = PreflightLayer::builder();
    for rule in Rule::ALL {
        builder = builder.mode(*rule, RuleMode::Reject);
    }
    let mut service = builder.build().expect("valid").layer(Server);
    let request = Request::post(uri).body(Frames(frames.into())).expect("valid");
    let mut cx = Context::from_waker(Waker::noop());
    match pin!(service.call(request)).poll(&mut cx) {
        Poll::Pending => panic!("it is ready at once"),
        Poll::Ready(Ok(response)) => {
            assert_eq!(response.into_body().0.make_contiguous().concat(), sent);
            Vec::new()
        }
        Poll::Ready(Err(error)) => {
            let refused = error.downcast::<PreflightRefused>().expect("nothing else fails");
            assert!(!refused.findings().is_empty());
            refused.findings().to_vec()
        }
    }
}

/// Answers with what it was sent.
#[derive(Clone)]
struct Server;

impl Service<Request<PreflightBody<Frames>>> for Server {
    type Response = Response<Frames>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Frames>, BoxError>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<PreflightBody<Frames>>) -> Self::Future {
        let (mut body, mut got) = (request.into_body(), VecDeque::new());
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut body).poll_frame(&mut cx) {
            got.push_back(frame.into_data().expect("nothing but data was sent"));
        }
        ready(Ok(Response::new(Frames(got))))
    }
}

struct Frames(VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }
}
