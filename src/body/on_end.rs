//! The end of a response: a body that tells a layer, once, how it ended.
//!
//! The limiter settles its tokens there and the breaker learns there; the rules of when a body is over are the same
//! for both, so they stand here once.
//!
//! Where the [classifier](crate::classify) watches the body, its word counts. Without it this body knows what any
//! body says of itself: over, broken off, or dropped; and it reads along for the usage if who is told wants that.
//! **Dropping** it drops the inner body first, so that what the classifier had read of it until then is known as
//! well, and then tells.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::scan::Scanner;
use crate::verdict::{End, EndCell, Kind, Outcome, Verdict};

/// Who is told.
pub trait OnEnd {
    fn on_end(self, end: End);

    /// As [`on_end`](Self::on_end), with what the classifier has read.
    #[inline(always)]
    fn on_end_of(self, end: End, cell: Option<&EndCell>)
    where
        Self: Sized,
    {
        let _ = cell;
        self.on_end(end);
    }

    /// Whether the body is read along with for its usage where no classifier does so. That costs a scanner: one
    /// allocation, made with the first frame.
    fn wants_usage(&self) -> bool {
        false
    }

    /// Where the inner body is polled and dropped, as long as its end was not told.
    #[inline(always)]
    fn in_scope<T>(&self, act: impl FnOnce() -> T) -> T {
        act()
    }
}

pin_project! {
    pub(crate) struct OnEndBody<B, H: OnEnd> {
        // `None` only while this is being dropped.
        #[pin]
        inner: Option<B>,
        cell: Option<EndCell>,
        told: Option<H>,
        scanner: Option<Box<Scanner>>,
    }

    impl<B, H: OnEnd> PinnedDrop for OnEndBody<B, H> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(told) = this.told.take() {
                // The classifier's body publishes when it is dropped.
                told.in_scope(|| this.inner.set(None));
                told.on_end_of(end(this.cell, this.scanner, Outcome::Dropped), this.cell.as_ref());
            }
        }
    }
}

/// Who is told of a response's end, found while the response was looked at.
///
/// Apart from the wrapping, so that a response is only looked at until it is moved, once, into the result: each
/// further move of its 136 bytes costs as much as an atomic operation.
#[derive(Debug)]
pub struct EndHook<H> {
    told: Option<H>,
    cell: Option<EndCell>,
}

impl<H: OnEnd> EndHook<H> {
    /// The body just passes through.
    #[inline(always)]
    pub(crate) const fn nobody() -> Self {
        Self { told: None, cell: None }
    }

    pub(crate) fn of<B: Body>(response: &Response<B>, told: H) -> Self {
        let cell = response.extensions().get::<Verdict>().and_then(Verdict::end_cell).cloned();
        Self::of_good(response, cell, told)
    }

    /// Of a response that was found [good](Verdict::good), with the cell that was found there.
    #[inline(always)]
    pub(crate) fn of_good<B: Body>(response: &Response<B>, cell: Option<EndCell>, told: H) -> Self {
        // A body that is over from the start may never be polled.
        if response.body().is_end_stream() {
            told.on_end_of(end(&cell, &None, Outcome::Complete), cell.as_ref());
            return Self::nobody();
        }
        Self { told: Some(told), cell }
    }

    /// The response with its body watched, in a body type of the layer's own.
    #[inline(always)]
    pub(crate) fn watch<B: Body, T>(
        self,
        response: Response<B>,
        wrap: impl FnOnce(OnEndBody<B, H>) -> T,
    ) -> Response<T> {
        let Self { told, cell } = self;
        let (head, inner) = response.into_parts();
        Response::from_parts(head, wrap(OnEndBody { inner: Some(inner), cell, told, scanner: None }))
    }
}

/// What the classifier published, or what is known without it.
fn end(cell: &Option<EndCell>, scanner: &Option<Box<Scanner>>, own: Outcome) -> End {
    let published = cell.as_ref().and_then(EndCell::get);
    published.unwrap_or_else(|| End::new(own, scanner.as_ref().and_then(|s| s.usage())))
}

impl<B: Body, H: OnEnd> Body for OnEndBody<B, H> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let mut inner = this.inner.as_pin_mut().expect("it is taken out when this is dropped");
        let frame = match &*this.told {
            Some(told) => told.in_scope(|| inner.as_mut().poll_frame(cx)),
            None => inner.as_mut().poll_frame(cx),
        };
        let frame = ready!(frame);
        let over = match &frame {
            // A body of known length is over with its last byte; many readers never ask for the `None`.
            Some(Ok(_)) => inner.is_end_stream().then_some(Outcome::Complete),
            Some(Err(_)) => Some(Outcome::Failed(Kind::Transport)),
            None => Some(Outcome::Complete),
        };
        if let (Some(told), Some(Ok(frame)), None) = (&*this.told, &frame, &*this.cell) {
            if let Some(data) = frame.data_ref().filter(|_| told.wants_usage()) {
                // A frame that is in pieces is not one of a HTTP client; what is not scanned is not counted.
                this.scanner.get_or_insert_default().feed(data.chunk());
            }
        }
        if let Some(own) = over {
            if let Some(told) = this.told.take() {
                told.on_end_of(end(this.cell, this.scanner, own), this.cell.as_ref());
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// A layer's own body type, whose field `tail` does everything. Behind a semicolon stands who is told of its end, where that is a parameter.
macro_rules! passes_on {
    ($body:ident $(, $data:ty)? $(; $end:ident)?) => {
        impl<B: http_body::Body$(<Data = $data>)? $(, $end: $crate::body::on_end::OnEnd)?> http_body::Body for $body<B $(, $end)?> {
            type Data = B::Data;
            type Error = B::Error;

            #[inline]
            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
                self.project().tail.poll_frame(cx)
            }

            fn is_end_stream(&self) -> bool {
                self.tail.is_end_stream()
            }

            fn size_hint(&self) -> http_body::SizeHint {
                self.tail.size_hint()
            }
        }

        impl<B $(, $end: $crate::body::on_end::OnEnd)?> std::fmt::Debug for $body<B $(, $end)?> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                // The bytes may hold an answer or an echoed key.
                f.debug_struct(stringify!($body)).finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use passes_on;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    use bytes::Bytes;
    use futures_util::stream;
    use http_body_util::{BodyExt, Empty, Full, StreamBody};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<End>>>);
    impl OnEnd for Log {
        fn on_end(self, end: End) {
            self.0.lock().unwrap().push(end);
        }
    }
    impl Log {
        fn outcomes(&self) -> Vec<Outcome> {
            self.0.lock().unwrap().iter().map(|end| end.outcome).collect()
        }
    }

    fn watched<B: Body>(response: Response<B>, log: &Log) -> Response<OnEndBody<B, Log>> {
        EndHook::of(&response, log.clone()).watch(response, |tail| tail)
    }

    fn frames(
        list: Vec<Result<&'static str, &'static str>>,
    ) -> StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, &'static str>>> {
        StreamBody::new(stream::iter(list.into_iter().map(|f| f.map(|data| Frame::data(Bytes::from(data))))))
    }

    #[tokio::test]
    async fn each_end_is_told_once() {
        let log = Log::default();
        let whole = watched(Response::new(frames(vec![Ok("a"), Ok("b")])), &log);
        assert_eq!(whole.into_body().collect().await.unwrap().to_bytes(), "ab");
        let known = watched(Response::new(Full::new(Bytes::from("x"))), &log);
        let mut known = known.into_body();
        let _ = known.frame().await;
        assert_eq!(log.outcomes(), [Outcome::Complete, Outcome::Complete], "told with the last byte");
        drop(known);
        let _ = watched(Response::new(Empty::<Bytes>::new()), &log);
        let cut = watched(Response::new(frames(vec![Ok("a"), Err("cut")])), &log);
        assert!(cut.into_body().collect().await.is_err());
        let dropped = watched(Response::new(frames(vec![Ok("a"), Ok("b")])), &log);
        let mut dropped = Box::pin(dropped.into_body());
        let _ = dropped.frame().await;
        drop(dropped);
        assert_eq!(
            log.outcomes()[2..],
            [Outcome::Complete, Outcome::Failed(Kind::Transport), Outcome::Dropped]
        );
    }

    #[tokio::test]
    async fn the_classifiers_word_counts_also_for_a_dropped_body() {
        use crate::classify::ClassifyLayer;
        use tower::{Layer, ServiceExt};
        const BLOCKED: &str =
            r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"SAFETY"}]}"#;
        let service =
            ClassifyLayer::new().watch().layer(tower::service_fn(async move |_: http::Request<()>| {
                Ok::<_, std::io::Error>(Response::new(Full::new(Bytes::from(BLOCKED))))
            }));
        let log = Log::default();
        let response = service.oneshot(http::Request::new(())).await.unwrap();
        let _ = watched(response, &log).into_body().collect().await.unwrap();
        let response = service.oneshot(http::Request::new(())).await.unwrap();
        drop(watched(response, &log));
        assert_eq!(log.outcomes(), [Outcome::Failed(Kind::ContentBlocked), Outcome::Dropped]);
    }

    #[tokio::test]
    async fn nobody_to_tell_leaves_the_body_as_it_is() {
        let response = Response::new(Full::new(Bytes::from("abc")));
        let body = EndHook::<Log>::nobody().watch(response, |tail| tail).into_body();
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(!body.is_end_stream());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
    }
}
