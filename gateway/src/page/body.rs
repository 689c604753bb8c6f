//! The bodies of the page's answers.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{mpsc, watch};

/// A text at hand, pieces that another task makes, or events that go on.
pub struct PageBody(Kind);

enum Kind {
    Whole(Option<Bytes>),
    Pieces(mpsc::Receiver<Option<Bytes>>),
    Events { first: Option<Bytes>, next: Next },
}

/// The next event, and who waits for the one after it. A reader that is slow misses events, and none is kept for it.
type Next = Pin<Box<dyn Future<Output = Option<(Bytes, watch::Receiver<Bytes>)>> + Send>>;

/// The source of the body has failed.
#[derive(Debug)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the history could not be read to its end")
    }
}

impl std::error::Error for Broken {}

impl PageBody {
    pub fn whole(text: impl Into<Bytes>) -> Self {
        Self(Kind::Whole(Some(text.into()).filter(|text| !text.is_empty())))
    }

    /// Until the sender is gone; `None` breaks the body off.
    pub(super) const fn pieces(receiver: mpsc::Receiver<Option<Bytes>>) -> Self {
        Self(Kind::Pieces(receiver))
    }

    /// Until the value is empty.
    pub(super) fn events(first: Bytes, receiver: watch::Receiver<Bytes>) -> Self {
        Self(Kind::Events { first: Some(first), next: Box::pin(next(receiver)) })
    }
}

async fn next(mut receiver: watch::Receiver<Bytes>) -> Option<(Bytes, watch::Receiver<Bytes>)> {
    if receiver.borrow().is_empty() {
        return None;
    }
    receiver.changed().await.ok()?;
    let event = receiver.borrow_and_update().clone();
    if event.is_empty() { None } else { Some((event, receiver)) }
}

impl Body for PageBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let data = match &mut self.0 {
            Kind::Whole(text) => text.take(),
            Kind::Pieces(receiver) => match ready!(receiver.poll_recv(cx)) {
                Some(None) => return Poll::Ready(Some(Err(Broken))),
                piece => piece.flatten(),
            },
            Kind::Events { first, next: following } => match first.take() {
                Some(first) => Some(first),
                None => match ready!(following.as_mut().poll(cx)) {
                    Some((event, receiver)) => {
                        *following = Box::pin(next(receiver));
                        Some(event)
                    }
                    None => {
                        self.0 = Kind::Whole(None);
                        None
                    }
                },
            },
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            _ => SizeHint::default(),
        }
    }
}
