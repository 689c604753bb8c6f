//! Modifiers: the same fault in another form.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::Fault;

/// How an error's body reaches the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sim) enum Delivery {
    /// With its own status.
    #[default]
    Head,
    /// In a 200 stream after so many chunks, as one more event.
    Event(u32),
    /// The same without `data:`, pretty-printed.
    Tail(u32),
}

#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct Shape {
    pub(in crate::sim) delivery: Delivery,
    pub(in crate::sim) array: bool,
    pub(in crate::sim) gzip: bool,
    pub(in crate::sim) event_stream: bool,
    pub(in crate::sim) truncate: Option<usize>,
    pub(in crate::sim) delay: Duration,
    pub(in crate::sim) headers: Vec<(HeaderName, HeaderValue)>,
    pub(in crate::sim) retry_in: Option<Duration>,
    pub(in crate::sim) limit: Option<u64>,
}

/// Modifiers. Those of the head and of the body's form concern errors that are the answer; on other faults,
/// and on errors inside a stream, they have no effect.
impl Fault {
    /// The delay that a quota error names, in place of 31.58 s: with its fraction in the message, cut to
    /// whole seconds in `RetryInfo`. No effect on errors that name none.
    pub fn with_retry_in(mut self, delay: Duration) -> Self {
        self.shape.retry_in = Some(delay);
        self
    }

    /// The limit that a quota error names; zero is written as Google writes it, by leaving `quotaValue` out.
    /// No effect on errors that name none.
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.shape.limit = Some(limit);
        self
    }

    /// A `Retry-After` header in whole seconds, rounded up. Google itself sends none; proxies do.
    pub fn with_retry_after(self, delay: Duration) -> Self {
        let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
        self.with_header(http::header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// One more header on an error's head.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.shape.headers.push((name, value));
        self
    }

    /// This much time before the head, on top of the usual. No effect on a refused connection.
    pub fn delayed(mut self, by: Duration) -> Self {
        self.shape.delay = by;
        self
    }

    /// The error's body is an array of one, `[{…}\n]`, also where Google would send an object.
    pub fn as_array(mut self) -> Self {
        self.shape.array = true;
        self
    }

    /// The error's body is compressed, under `content-encoding: gzip`.
    pub fn gzipped(mut self) -> Self {
        self.shape.gzip = true;
        self
    }

    /// The error's content type is `text/event-stream`, whatever the call; the body is as it would be.
    pub fn as_event_stream(mut self) -> Self {
        self.shape.event_stream = true;
        self
    }

    /// The error's body ends cleanly after `bytes` bytes, counted as sent (after compression).
    pub fn truncated_at(mut self, bytes: usize) -> Self {
        self.shape.truncate = Some(bytes);
        self
    }

    /// The error does not come as the answer but inside a 200 stream, after `chunks` chunks (or all, if there
    /// are fewer): as a `data:` event, or as the last element of an array. The rule then applies to streamed
    /// calls only.
    pub fn in_stream_after(mut self, chunks: u32) -> Self {
        self.shape.delivery = Delivery::Event(chunks);
        self
    }

    /// Like [`in_stream_after`](Self::in_stream_after), but in an SSE stream the error is a bare,
    /// pretty-printed object without `data:`.
    pub fn as_stream_tail_after(mut self, chunks: u32) -> Self {
        self.shape.delivery = Delivery::Tail(chunks);
        self
    }
}
