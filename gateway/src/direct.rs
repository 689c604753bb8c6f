//! Connections of HTTP/1.1 without TLS that whoever asks moves on.
//!
//! hyper-util's client has a task for each connection and one for each answer, which wake each other several times a call; a call here is one
//! task's work. A connection belongs to one call at a time: to its future, then to the answer's body, and between two calls to the [`Pool`]. A call
//! that is dropped closes its connection; an answer that was read to its end gives it back.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower::{Service, ServiceExt};
use tower_gemini::BoxError;

/// How long a connection is kept without a call, and how often those are looked for that have been kept for longer.
const KEPT: Duration = Duration::from_secs(90);
const TIDY: Duration = Duration::from_secs(30);
/// Connections without a call; what is more is closed.
const MOST: usize = 4096;

/// A connection. Always in a box: the answer that has it is moved by each layer that it passes.
struct Line<B: Body + 'static> {
    sender: SendRequest<B>,
    /// `None` once it is over.
    driver: Option<Connection<TokioIo<TcpStream>, B>>,
    since: Instant,
}

impl<B> Line<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// Lets it take a step in the name of this task. Whether it is still open.
    fn step(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(driver) = &mut self.driver else { return false };
        // An error is that of the call that is on it, which is told of it.
        if Pin::new(driver).poll(cx).is_ready() {
            self.driver = None;
        }
        self.driver.is_some()
    }

    /// Whether it can take a call.
    fn is_free(&mut self) -> bool {
        self.step(&mut Context::from_waker(Waker::noop())) && self.sender.is_ready()
    }
}

/// Connections to one upstream that have no call.
pub struct Pool<B: Body + 'static> {
    connector: HttpConnector,
    builder: Builder,
    idle: Mutex<VecDeque<Box<Line<B>>>>,
}

impl<B> Pool<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    pub fn new(connector: HttpConnector, builder: Builder) -> Arc<Self> {
        let pool = Arc::new(Self { connector, builder, idle: Mutex::default() });
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tidy(Arc::downgrade(&pool)));
        }
        pool
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Box<Line<B>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last, if it is still open.
    fn take(&self) -> Option<Box<Line<B>>> {
        loop {
            let mut line = self.idle().pop_back()?;
            if line.is_free() {
                return Some(line);
            }
        }
    }

    fn put(&self, mut line: Box<Line<B>>) {
        line.since = Instant::now();
        let mut idle = self.idle();
        if idle.len() < MOST {
            idle.push_back(line);
        }
    }

    async fn connect(&self, uri: &Uri) -> Result<Box<Line<B>>, BoxError> {
        let mut connector = self.connector.clone();
        let connected = connector.ready().await?.call(uri.clone()).await;
        // Nothing was sent: a verdict finds that in the kind, and what has happened in the error within.
        let io = connected.map_err(|error| io::Error::new(io::ErrorKind::NetworkUnreachable, error))?;
        let (sender, driver) = self.builder.handshake(io).await?;
        Ok(Box::new(Line { sender, driver: Some(driver), since: Instant::now() }))
    }

    /// Sends a request whose URI is absolute.
    pub async fn send(self: Arc<Self>, mut request: Request<B>) -> Result<Response<Lent<B>>, BoxError> {
        let to = request.uri().clone();
        *request.uri_mut() = origin(&to);
        loop {
            let (mut line, is_new) = match self.take() {
                Some(line) => (line, false),
                None => (self.connect(&to).await?, true),
            };
            let mut answer = pin!(line.sender.try_send_request(request));
            let answer = std::future::poll_fn(|cx| {
                line.step(cx);
                // What it waits for comes of the step before it, in this task.
                answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            });
            match answer.await {
                Ok(response) => return Ok(response.map(|body| Lent { body, of: Some((line, self)) })),
                // The upstream has closed it between two calls.
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !is_new => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        }
    }
}

/// The target as a server is told it.
fn origin(uri: &Uri) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = uri.path_and_query().cloned();
    Uri::from_parts(parts).unwrap_or_default()
}

/// Closes what has been kept for too long, and what the upstream has closed.
async fn tidy<B>(pool: Weak<Pool<B>>)
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    loop {
        tokio::time::sleep(TIDY).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = Instant::now();
        pool.idle().retain_mut(|line| now.saturating_duration_since(line.since) < KEPT && line.is_free());
    }
}

/// A connection and where it is from.
type Loan<B> = (Box<Line<B>>, Arc<Pool<B>>);

/// The body of an answer, with its connection.
pub struct Lent<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    body: Incoming,
    of: Option<Loan<B>>,
}

impl<B> Lent<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// The answer is over: another call may have the connection, if it is good for one.
    fn give_back(&mut self) {
        if let Some((mut line, pool)) = self.of.take() {
            if line.is_free() {
                pool.put(line);
            }
        }
    }
}

impl<B> Body for Lent<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut frame = Pin::new(&mut this.body).poll_frame(cx);
        if let (Poll::Pending, Some((line, _))) = (&frame, &mut this.of) {
            line.step(cx);
            frame = Pin::new(&mut this.body).poll_frame(cx);
        }
        match &frame {
            Poll::Ready(Some(Err(_))) => this.of = None,
            Poll::Ready(None) => this.give_back(),
            Poll::Ready(Some(Ok(_))) if this.body.is_end_stream() => this.give_back(),
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer without a body is never polled.
impl<B> Drop for Lent<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::{BodyExt, Full};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    type Sent = Full<Bytes>;

    const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfour";

    /// Answers each request with this, and closes after it where it says so. Counts connections that were opened and that have ended.
    async fn upstream(says: &'static str) -> (Uri, Arc<[AtomicUsize; 2]>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/a?b=c", listener.local_addr().unwrap()).parse().unwrap();
        let counts = Arc::<[AtomicUsize; 2]>::default();
        let counted = Arc::clone(&counts);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let counts = Arc::clone(&counted);
                counts[0].fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut read = Vec::new();
                    while stream.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
                        if read.ends_with(b"\r\n\r\n") {
                            assert!(read.starts_with(b"GET /a?b=c HTTP/1.1\r\n"));
                            read.clear();
                            let _ = stream.write_all(says.as_bytes()).await;
                            if says.contains("close") {
                                break;
                            }
                        }
                    }
                    counts[1].fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        (uri, counts)
    }

    fn pool() -> Arc<Pool<Sent>> {
        Pool::new(HttpConnector::new(), Builder::new())
    }

    fn request(uri: &Uri) -> Request<Sent> {
        Request::get(uri.clone()).body(Full::default()).unwrap()
    }

    async fn call(pool: &Arc<Pool<Sent>>, uri: &Uri) -> Response<Lent<Sent>> {
        Arc::clone(pool).send(request(uri)).await.unwrap()
    }

    async fn soon(is: impl Fn() -> bool) {
        for _ in 0..500 {
            if is() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not come");
    }

    #[tokio::test]
    async fn an_answer_that_was_read_gives_its_connection_back() {
        let (uri, counts) = upstream(WHOLE).await;
        let pool = pool();
        for _ in 0..5 {
            let body = call(&pool, &uri).await.into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "four");
            assert_eq!(pool.idle().len(), 1);
        }
        assert_eq!(counts[0].load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn an_answer_without_a_body_gives_it_back_unread() {
        let (uri, counts) = upstream("HTTP/1.1 204 No\r\n\r\n").await;
        let pool = pool();
        for _ in 0..3 {
            drop(call(&pool, &uri).await);
            assert_eq!(pool.idle().len(), 1);
        }
        assert_eq!(counts[0].load(Ordering::Relaxed), 1);
    }

    /// In each state: before the head, with the head, and in the midst of the body.
    #[tokio::test]
    async fn a_call_that_is_dropped_closes_its_connection_and_gives_nothing_back() {
        let (uri, counts) = upstream("").await;
        let pool = pool();
        let call_ = Arc::clone(&pool).send(request(&uri));
        assert!(tokio::time::timeout(Duration::from_millis(100), call_).await.is_err());
        soon(|| counts[1].load(Ordering::Relaxed) == 1).await;
        let (uri, counts) = upstream("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfour").await;
        drop(call(&pool, &uri).await);
        soon(|| counts[1].load(Ordering::Relaxed) == 1).await;
        let mut body = call(&pool, &uri).await.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "four");
        drop(body);
        soon(|| counts[1].load(Ordering::Relaxed) == 2).await;
        assert_eq!(pool.idle().len(), 0);
        assert_eq!(Arc::strong_count(&pool), 1, "nobody holds on to the pool");
    }

    #[tokio::test]
    async fn one_that_the_upstream_has_closed_is_not_used_again() {
        let (uri, counts) = upstream("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nclose").await;
        let pool = pool();
        for n in 1..4 {
            let body = call(&pool, &uri).await.into_body().collect().await.unwrap();
            assert_eq!(body.to_bytes(), "close");
            soon(|| counts[1].load(Ordering::Relaxed) == n).await;
        }
        let (uri, _) =
            upstream("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nfour").await;
        call(&pool, &uri).await.into_body().collect().await.unwrap();
        soon(|| pool.idle().iter_mut().all(|line| !line.is_free())).await;
    }

    #[tokio::test]
    async fn a_broken_answer_is_an_error_and_its_connection_is_gone() {
        let (uri, _) = upstream("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nclose").await;
        let pool = pool();
        let mut body = call(&pool, &uri).await.into_body();
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.of.is_none() && pool.idle().is_empty());
    }

    #[tokio::test]
    async fn a_failure_to_connect_was_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let error = pool().send(request(&uri)).await.err().unwrap();
        let verdict = tower_gemini::Verdict::from_error(error.as_ref());
        assert_eq!(verdict.sent(), tower_gemini::verdict::Sent::No, "{error}");
        assert_eq!(crate::upstream::cause(error.as_ref()), Some("refused"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_for_too_long_is_closed() {
        let (uri, counts) = upstream(WHOLE).await;
        let pool = pool();
        call(&pool, &uri).await.into_body().collect().await.unwrap();
        tokio::time::sleep(KEPT + TIDY).await;
        assert!(pool.idle().is_empty());
        soon(|| counts[1].load(Ordering::Relaxed) == 1).await;
    }
}
