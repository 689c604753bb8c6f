use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body, Frame, SizeHint};

use super::config::Settings;
use super::rule::Rule;
use super::scan::Scan;

/// Frames that are held at the most, however small they are.
const MAX_FRAMES: usize = 1_024;

/// A request's body of which the beginning was read: what was read, and then the rest.
///
/// Frames, trailers and errors pass through unchanged. A rest goes on being looked at while it is sent, and what is found there
/// is told to the observer. Dropping the body drops the rest.
///
/// A clone has what is still to be delivered. Where `B` is a [`ReplayBody`](crate::retry::ReplayBody), whose clones begin
/// anew, so does the clone of this one.
pub struct PreflightBody<B> {
    first: Option<Bytes>,
    more: VecDeque<Bytes>,
    trailers: Option<Box<HeaderMap>>,
    /// `None` once it has ended.
    rest: Option<B>,
    watch: Option<Box<Watch>>,
}

/// What goes on looking at a rest.
#[derive(Clone)]
struct Watch {
    scan: Scan,
    settings: Arc<Settings>,
    head: Arc<Request<()>>,
    /// Rules whose findings were told before it was sent.
    told: Vec<Rule>,
    /// One of the copies has come to the end and told.
    done: Arc<AtomicBool>,
}

/// How far the reading of a beginning has come.
#[derive(Debug)]
pub(super) enum Head<E> {
    /// The whole body is held.
    Whole,
    /// As much as may be held is.
    Full,
    Pending,
    Failed(E),
}

impl<B> PreflightBody<B> {
    pub(super) const fn new(rest: B) -> Self {
        Self { first: None, more: VecDeque::new(), trailers: None, rest: Some(rest), watch: None }
    }

    /// A body of these bytes alone.
    pub(super) const fn of_bytes(bytes: Bytes) -> Self {
        Self { first: Some(bytes), more: VecDeque::new(), trailers: None, rest: None, watch: None }
    }

    /// Bytes that are held.
    pub(super) fn held(&self) -> usize {
        self.first.as_ref().map_or(0, Bytes::len) + self.more.iter().map(Bytes::len).sum::<usize>()
    }

    /// What is held, in order.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.first.iter().chain(&self.more)
    }

    /// Goes on looking at the rest while it is sent.
    pub(super) fn watch(
        &mut self,
        scan: Scan,
        settings: &Arc<Settings>,
        head: Arc<Request<()>>,
        told: Vec<Rule>,
    ) {
        let done = Arc::new(AtomicBool::new(false));
        self.watch = Some(Box::new(Watch { scan, settings: Arc::clone(settings), head, told, done }));
    }
}

impl<B: Body<Data = Bytes> + Unpin> PreflightBody<B> {
    /// Reads on until `most` bytes are held, and shows them to `scan`.
    pub(super) fn read(&mut self, cx: &mut Context<'_>, most: usize, scan: &mut Scan) -> Head<B::Error> {
        let mut held = self.held();
        loop {
            let Some(rest) = &mut self.rest else { return Head::Whole };
            if rest.is_end_stream() {
                self.rest = None;
                return Head::Whole;
            }
            if held >= most || self.more.len() >= MAX_FRAMES {
                return Head::Full;
            }
            match Pin::new(rest).poll_frame(cx) {
                Poll::Pending => return Head::Pending,
                Poll::Ready(None) => self.rest = None,
                Poll::Ready(Some(Err(error))) => return Head::Failed(error),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        scan.feed(&data);
                        held += data.len();
                        if self.first.is_none() {
                            self.first = Some(data);
                        } else {
                            self.more.push_back(data);
                        }
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok().map(Box::new),
                },
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for PreflightBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        if let Some(data) = this.first.take().or_else(|| this.more.pop_front()) {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let Some(rest) = &mut this.rest else {
            return Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))));
        };
        let polled = Pin::new(&mut *rest).poll_frame(cx);
        if this.watch.is_some() {
            let data = match &polled {
                Poll::Ready(Some(Ok(frame))) => frame.data_ref(),
                _ => None,
            };
            let ended = matches!(polled, Poll::Ready(None)) || data.is_some() && rest.is_end_stream();
            if let (Some(watch), Some(data)) = (&mut this.watch, data) {
                watch.scan.feed(data);
            }
            if ended {
                if let Some(watch) = this.watch.take() {
                    watch.finish();
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let held = self.first.is_some() || !self.more.is_empty() || self.trailers.is_some();
        !held && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held() as u64;
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(held.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(held)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<B: Clone> Clone for PreflightBody<B> {
    fn clone(&self) -> Self {
        // NOTE: the clones of a `ReplayBody` begin at its first byte, so what was read of it would come twice.
        if self.rest.is_some() && std::any::type_name::<B>().contains("ReplayBody<") {
            return Self {
                first: None,
                more: VecDeque::new(),
                trailers: None,
                rest: self.rest.clone(),
                watch: None,
            };
        }
        Self {
            first: self.first.clone(),
            more: self.more.clone(),
            trailers: self.trailers.clone(),
            rest: self.rest.clone(),
            watch: self.watch.clone(),
        }
    }
}

impl<B> From<Bytes> for PreflightBody<B> {
    fn from(bytes: Bytes) -> Self {
        Self::of_bytes(bytes)
    }
}

impl<B> fmt::Debug for PreflightBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes are the prompt.
        f.debug_struct("PreflightBody").field("held", &self.held()).finish_non_exhaustive()
    }
}

impl Watch {
    fn finish(self) {
        if !self.done.swap(true, Ordering::Relaxed) {
            self.settings.after(&self.head, self.scan.facts(), &self.told);
        }
    }
}

/// Lets the rest of a body be looked at while it is sent.
#[cold]
pub(super) fn watch<B>(
    body: &mut PreflightBody<B>,
    scan: Scan,
    settings: &Arc<Settings>,
    head: &Request<()>,
    found: &[super::Finding],
) {
    let mut copy = Request::new(());
    copy.method_mut().clone_from(head.method());
    copy.uri_mut().clone_from(head.uri());
    copy.extensions_mut().clone_from(head.extensions());
    body.watch(scan, settings, Arc::new(copy), found.iter().map(super::Finding::rule).collect());
}
