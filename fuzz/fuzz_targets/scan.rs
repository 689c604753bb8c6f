//! Any body of a 200, watched: however it is cut into frames, its bytes, its outcome and its usage are the same.
//!
//! The first two bytes choose the sizes of the frames, which take turns; the rest is the body.
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
use tower_gemini::Verdict;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::verdict::{Outcome, Usage};
use tower_layer::Layer;
use tower_service::Service;

fuzz_target!(|data: &[u8]| {
    let [first, second, body @ ..] = data else { return };
    let whole = watch(vec![Bytes::copy_from_slice(body)]);
    let mut frames = Vec::new();
    let (mut rest, mut sizes) = (body, [*first, *second].map(|size| usize::from(size) + 1).into_iter().cycle());
    while !rest.is_empty() {
        let (frame, after) = rest.split_at(rest.len().min(sizes.next().expect("they take turns")));
        frames.push(Bytes::copy_from_slice(frame));
        rest = after;
    }
    assert_eq!(watch(frames), whole);
});

fn watch(frames: Vec<Bytes>) -> (Option<Outcome>, Option<Usage>) {
    let sent = frames.concat();
    let mut service = ClassifyLayer::new().watch().layer(Canned(frames.into()));
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(response)) = pin!(service.call(Request::new(()))).poll(&mut cx) else {
        panic!("it is ready at once")
    };
    let verdict = Verdict::of(&response);
    let (mut body, mut bytes) = (pin!(response.into_body()), Vec::new());
    while let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx) {
        bytes.extend_from_slice(frame.data_ref().expect("nothing but data was sent"));
    }
    assert_eq!(bytes, sent);
    assert!(verdict.outcome().is_some());
    (verdict.outcome(), verdict.usage())
}

struct Canned(VecDeque<Bytes>);

impl Service<Request<()>> for Canned {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Frames>, Infallible>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(Frames(std::mem::take(&mut self.0)))))
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
