//! The sockets: who is accepted, and how the gateway stops.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_gemini::BoxError;

use crate::kept::Kept;
use crate::refusal::{Heard, Refusing};

/// How long a connection may be without a call: before its first head, and between two. Whatever arrives meanwhile, it is cut: silence,
/// half a head and the preface of HTTP/2 hold a socket alike.
const IDLE: Duration = Duration::from_secs(30);
/// Connections at a time. Beyond them the one that has been without a call for longest is cut, and where all have calls, the new one.
const CONNECTIONS: usize = 4096;
/// Streams on a connection of HTTP/2.
const STREAMS: u32 = 100;

/// The limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long one may be without a call. Default 30 s.
    pub idle: Duration,
    /// How many there may be. Default 4,096.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { idle: IDLE, connections: CONNECTIONS }
    }
}

/// One connection's calls.
#[derive(Debug)]
struct Calls {
    /// Whose answers have not ended.
    open: AtomicUsize,
    /// When the last one ended, in milliseconds after the start of the server.
    idle_since: AtomicU64,
    started: Instant,
    cut: Notify,
}

impl Calls {
    fn new(started: Instant) -> Self {
        let calls =
            Self { open: AtomicUsize::new(0), idle_since: AtomicU64::new(0), started, cut: Notify::new() };
        calls.idle_since.store(calls.now(), Ordering::Relaxed);
        calls
    }

    fn now(&self) -> u64 {
        Instant::now().saturating_duration_since(self.started).as_millis() as u64
    }

    /// For how long there has been none.
    fn idle(&self) -> Option<Duration> {
        if self.open.load(Ordering::Relaxed) > 0 {
            return None;
        }
        Some(Duration::from_millis(self.now().saturating_sub(self.idle_since.load(Ordering::Relaxed))))
    }
}

/// A call, until its answer has ended or was dropped.
#[derive(Debug)]
struct Open(Arc<Calls>);

impl Open {
    fn begin(calls: &Arc<Calls>) -> Self {
        calls.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(calls))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
/// Of HTTP/2, in bytes. HTTP/1.1 has 400 KiB.
const HEADERS: u32 = 64 * 1024;

/// Serves until `stop`, then lets connections finish what they are at, for `grace`. How many it had to cut.
pub async fn serve<A, F, B>(
    listener: TcpListener,
    answer: A,
    stop: impl Future<Output = ()>,
    grace: Duration,
    limits: Limits,
) -> usize
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(HEADERS).max_concurrent_streams(STREAMS);
    let graceful = GracefulShutdown::new();
    let started = Instant::now();
    let mut known: Vec<Arc<Calls>> = Vec::new();
    // Dropped at the end, which cuts what is left.
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // The list holds the only other share of those that have ended.
                    known.retain(|calls| Arc::strong_count(calls) > 1);
                    if known.len() >= limits.connections {
                        let idlest = known.iter().enumerate().filter_map(|(at, calls)| Some((calls.idle()?, at))).max();
                        let Some((_, at)) = idlest else { continue };
                        known.swap_remove(at).cut.notify_one();
                    }
                    let calls = Arc::new(Calls::new(started));
                    known.push(Arc::clone(&calls));
                    connections.spawn(connection(
                        stream, builder.clone(), answer.clone(), graceful.watcher(), calls, limits.idle,
                    ));
                }
                // Out of file handles, or a client that left before it was accepted. The former lasts, so do not
                // spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    // Whoever comes now is refused, and goes to another instance.
    drop(listener);
    let finished = async {
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    };
    match tokio::time::timeout(grace, finished).await {
        Ok(()) => 0,
        Err(_) => connections.len(),
    }
}

async fn connection<A, F, B>(
    stream: TcpStream,
    builder: Builder<TokioExecutor>,
    answer: A,
    watcher: Watcher,
    calls: Arc<Calls>,
    idle: Duration,
) where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    // Without it the end of a chunk may wait for an acknowledgement. If it cannot be set, chunks are late.
    let _ = stream.set_nodelay(true);
    let heard = Heard::default();
    let io = Refusing::new(TokioIo::new(stream), heard.clone());
    let counted = Arc::clone(&calls);
    let service = service_fn(move |request| {
        heard.request();
        let open = Open::begin(&counted);
        answer(request).map(|response| Ok::<_, Infallible>(response.map(|body| Kept::new(body, Some(open)))))
    });
    let mut serving = pin!(watcher.watch(builder.serve_connection(io, service).into_owned()));
    let mut left = idle;
    loop {
        tokio::select! {
            // The error is a client that left, or one that spoke no HTTP and was told so.
            _ = &mut serving => return,
            () = calls.cut.notified() => return,
            () = tokio::time::sleep(left) => {}
        }
        left = match calls.idle() {
            // A tick of the clock above, so that it is not looked at in vain for the last of them.
            Some(been) if been < idle => idle - been + Duration::from_millis(1),
            Some(_) => return,
            None => idle,
        };
    }
}

/// SIGINT or SIGTERM. A second one ends the process at once.
pub async fn told_to_stop() {
    signalled().await;
    tokio::spawn(async {
        signalled().await;
        std::process::exit(1);
    });
}

#[cfg(unix)]
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupted = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => tokio::select! {
            _ = interrupted => {}
            _ = terminated.recv() => {}
        },
        Err(_) => drop(interrupted.await),
    }
}

#[cfg(not(unix))]
async fn signalled() {
    // Where signals cannot be heard the process can still be killed.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
