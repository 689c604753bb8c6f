//! A body for hyper's own refusals. What is no HTTP never becomes a request: hyper answers it by itself, with a bare 400, 414
//! or 431, in which an SDK finds no error that it understands.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::StatusCode;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::time::Sleep;

/// What a client that was refused may still send before the connection is cut, in bytes and in time. A connection that is
/// closed while something arrives takes the answer with it.
const LINGER_BYTES: usize = 16 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);

/// Whether what was read last has become a request.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<AtomicBool>);

impl Heard {
    pub fn request(&self) {
        // One task does all of this; the flag is an atomic only because tasks may move.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection, on which a bare refusal is replaced by one in Google's form.
pub struct Refusing<I> {
    io: I,
    heard: Heard,
    /// The refusal, and how much of it was written.
    instead: Option<(Vec<u8>, usize)>,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<I> Refusing<I> {
    pub const fn new(io: I, heard: Heard) -> Self {
        Self { io, heard, instead: None, linger: None }
    }
}

impl<I: Read + Unpin> Read for Refusing<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        self.heard.0.store(false, Ordering::Relaxed);
        Poll::Ready(read)
    }
}

impl<I: Read + Write + Unpin> Write for Refusing<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead.is_none() && !this.heard.0.load(Ordering::Relaxed) {
            this.instead = refusal(buf).map(|text| (text, 0));
        }
        let Some((text, written)) = &mut this.instead else {
            return Pin::new(&mut this.io).poll_write(cx, buf);
        };
        while *written < text.len() {
            match ready!(Pin::new(&mut this.io).poll_write(cx, &text[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => *written += n,
            }
        }
        // hyper closes after a refusal, so whatever comes now is its own and already said.
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs {
            [one] => self.poll_write(cx, one),
            _ => Pin::new(&mut self.io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        if this.instead.is_none() {
            return Poll::Ready(Ok(()));
        }
        let (until, bytes) =
            this.linger.get_or_insert_with(|| (Box::pin(tokio::time::sleep(LINGER)), LINGER_BYTES));
        let mut scratch = [0; 8192];
        while *bytes > 0 && Future::poll(until.as_mut(), cx).is_pending() {
            let mut buf = ReadBuf::new(&mut scratch);
            // An end or an error: the client has what it will get.
            if ready!(Pin::new(&mut this.io).poll_read(cx, buf.unfilled())).is_err()
                || buf.filled().is_empty()
            {
                break;
            }
            *bytes = bytes.saturating_sub(buf.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}

/// What to say in place of these bytes, if they are hyper's own words: a status and no body, no type, no other field.
fn refusal(buf: &[u8]) -> Option<Vec<u8>> {
    // Answers pass here, too, and most of them are longer.
    if buf.len() > 256 {
        return None;
    }
    let text = std::str::from_utf8(buf).ok()?;
    let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let own =
        |line: &str| line == "connection: close" || line == "content-length: 0" || line.starts_with("date: ");
    if !lines.all(own) {
        return None;
    }
    let (code, message) = match status {
        "400" => (StatusCode::BAD_REQUEST, "The request is not valid HTTP."),
        "414" => (StatusCode::URI_TOO_LONG, "The request's target is too long."),
        "431" => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "The request's header fields are too large or too many.",
        ),
        _ => return None,
    };
    let body = format!(
        r#"{{"error":{{"code":{},"message":"{message}","status":"INVALID_ARGUMENT"}}}}"#,
        code.as_u16()
    );
    let head = format!(
        "HTTP/1.1 {code}\r\ncontent-type: application/json; charset=UTF-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    Some((head + &body).into_bytes())
}
