//! The sockets: who is accepted, and how the gateway stops.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use pin_project_lite::pin_project;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_gemini::BoxError;

use crate::peer::{Peer, Peers};
use crate::refusal::{Heard, Refusing};
use crate::tls::Tls;

/// Of HTTP/2, in bytes.
const HEADERS: u32 = 64 * 1024;
/// Of HTTP/1.1, in bytes: the largest head, and what of bodies is held of a connection, each way. With hyper's 400 KiB, four hundred readers that do
/// not read were 300 MiB.
const BUFFER: usize = 32 * 1024;
/// Of HTTP/2, in bytes: what a client may send of one body, and of all on a connection, before it was passed on; and what is held of one answer.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;
const SEND_BUFFER: usize = 16 * 1024;
/// How long a reader may read nothing before its answer is one of those that nobody reads, and how many of these there may be at a time. Each holds
/// some 200 KiB: the buffers of both connections.
const UNREAD: Duration = Duration::from_secs(1);
const UNREAD_ANSWERS: usize = 256;

/// The limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a complete head, and how long a connection may be without a call: before its first head, and between two. Whatever arrives
    /// meanwhile, it is cut: silence, half a head and the preface of HTTP/2 hold a socket alike. Default 30 s.
    pub idle: Duration,
    /// How many there may be. Beyond them the one that has been without a call for longest is cut, and where all have calls, one of
    /// the address that has most of them. Default 4,096.
    pub connections: usize,
    /// Calls at a time on one of HTTP/2. Default 100.
    pub streams: u32,
    /// How long a client may read nothing of an answer of which something is there. Its connection is cut, with all its calls.
    /// Default 60 s.
    pub reader: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (idle, reader) = (Duration::from_secs(30), Duration::from_secs(60));
        Self { idle, connections: 4096, streams: 100, reader }
    }
}

/// Limits that may change while connections are open: those count from the next look on.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<RwLock<Limits>>);

impl Live {
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(RwLock::new(limits)))
    }

    pub fn get(&self) -> Limits {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, limits: Limits) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }
}

/// One connection's calls.
#[derive(Debug)]
struct Calls {
    /// Of each whose answer has not ended: since when a part of it waits for the reader, in milliseconds after the start of the
    /// server; 0 while none does.
    open: Mutex<Vec<Arc<AtomicU64>>>,
    /// When the last one ended, by the same clock.
    idle_since: AtomicU64,
    started: Instant,
    cut: Notify,
    peer: Arc<Peer>,
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.peer.disconnected();
    }
}

impl Calls {
    fn new(started: Instant, peer: Arc<Peer>) -> Self {
        peer.connected();
        let (open, idle_since) = (Mutex::default(), AtomicU64::new(0));
        let calls = Self { open, idle_since, started, cut: Notify::new(), peer };
        calls.idle_since.store(calls.now(), Ordering::Relaxed);
        calls
    }

    /// Never 0.
    fn now(&self) -> u64 {
        Instant::now().saturating_duration_since(self.started).as_millis() as u64 + 1
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<AtomicU64>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long there has been none.
    fn idle(&self) -> Option<Duration> {
        if !self.open().is_empty() {
            return None;
        }
        Some(Duration::from_millis(self.now().saturating_sub(self.idle_since.load(Ordering::Relaxed))))
    }

    /// For how long the slowest reader has read nothing.
    fn unread(&self) -> Option<Duration> {
        let open = self.open();
        let since = open.iter().map(|call| call.load(Ordering::Relaxed)).filter(|since| *since > 0).min()?;
        drop(open);
        Some(Duration::from_millis(self.now().saturating_sub(since)))
    }

    /// How many answers nobody reads.
    fn stuck(&self) -> usize {
        let before = self.now().saturating_sub(UNREAD.as_millis() as u64);
        let is_stuck = |call: &&Arc<AtomicU64>| (1..before).contains(&call.load(Ordering::Relaxed));
        self.open().iter().filter(is_stuck).count()
    }
}

/// Answers of one connection that nobody reads, among those of all, until it is dropped.
struct Unread {
    calls: Arc<Calls>,
    all: Arc<AtomicUsize>,
    held: usize,
}

impl Unread {
    /// Counts those that there are now. Whether there was room for them.
    fn count(&mut self) -> bool {
        let now = self.calls.stuck();
        let unread = &self.calls.peer.unread;
        match now.checked_sub(self.held) {
            Some(0) => {}
            Some(more) if !unread.take(more, &self.all, UNREAD_ANSWERS) => return false,
            Some(_) => {}
            None => unread.give(self.held - now, &self.all),
        }
        self.held = now;
        true
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.calls.peer.unread.give(self.held, &self.all);
    }
}

/// A call, until its answer has ended or was dropped.
#[derive(Debug)]
struct Open {
    calls: Arc<Calls>,
    unread: Arc<AtomicU64>,
}

impl Open {
    fn begin(calls: &Arc<Calls>) -> Self {
        let unread = Arc::new(AtomicU64::new(0));
        calls.open().push(Arc::clone(&unread));
        Self { calls: Arc::clone(calls), unread }
    }

    /// There is something for the reader from now on.
    fn waits(&self) {
        self.unread.store(self.calls.now(), Ordering::Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.calls.idle_since.store(self.calls.now(), Ordering::Relaxed);
        let mut open = self.calls.open();
        if let Some(at) = open.iter().position(|other| Arc::ptr_eq(other, &self.unread)) {
            open.swap_remove(at);
        }
    }
}

pin_project! {
    /// An answer's body, that notes when its reader is slow.
    struct Watched<B> {
        #[pin]
        body: B,
        open: Option<Open>,
    }
}

impl<B: Body> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = this.body.poll_frame(cx);
        match &frame {
            // The server asks again once there is room for more.
            Poll::Ready(Some(Ok(_))) => {
                if let Some(open) = this.open {
                    open.waits();
                }
            }
            Poll::Ready(_) => *this.open = None,
            Poll::Pending => {
                if let Some(open) = this.open {
                    open.unread.store(0, Ordering::Relaxed);
                }
            }
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

/// Serves until `stop`, then lets connections finish what they are at, for `grace`. How many it had to cut.
pub async fn serve<A, F, B>(
    listener: TcpListener,
    tls: Option<Tls>,
    answer: A,
    stop: impl Future<Output = ()>,
    grace: impl FnOnce() -> Duration,
    limits: Live,
) -> usize
where
    A: Fn(Request<Incoming>, &Arc<Peer>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    let started = Instant::now();
    let mut known: Vec<Arc<Calls>> = Vec::new();
    let peers = Peers::default();
    let unread = Arc::new(AtomicUsize::new(0));
    // Dropped at the end, which cuts what is left.
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, addr)) => {
                    // The list holds the only other share of those that have ended.
                    known.retain(|calls| Arc::strong_count(calls) > 1);
                    let peer = peers.of(addr.ip().to_canonical());
                    if known.len() >= limits.get().connections {
                        let Some(at) = in_the_way(&known, &peer) else { continue };
                        known.swap_remove(at).cut.notify_one();
                    }
                    let calls = Arc::new(Calls::new(started, peer));
                    known.push(Arc::clone(&calls));
                    let unread = Unread { calls: Arc::clone(&calls), all: Arc::clone(&unread), held: 0 };
                    connections.spawn(accept(
                        stream, tls.clone(), answer.clone(), graceful.watcher(), calls, unread, limits.clone(),
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
    match tokio::time::timeout(grace(), finished).await {
        Ok(()) => 0,
        Err(_) => connections.len(),
    }
}

/// The connection that gives its place to a new one of this address: of an address that has more, the one without a call for longest, or else the
/// youngest; where no address has more, the one without a call for longest. Nobody makes room for who has more than it.
fn in_the_way(known: &[Arc<Calls>], peer: &Peer) -> Option<usize> {
    let own = peer.connections();
    let of = |calls: &Calls| calls.peer.connections();
    let all = || known.iter().enumerate();
    let idle = |least: usize| {
        let idle = all().filter(move |(_, calls)| of(calls) >= least);
        idle.filter_map(|(at, calls)| Some((of(calls), calls.idle()?, at))).max().map(|(.., at)| at)
    };
    let busy = || {
        let busy = all().filter(|(_, calls)| of(calls) > own + 1);
        busy.map(|(at, calls)| (of(calls), at)).max().map(|(_, at)| at)
    };
    idle(own + 1).or_else(busy).or_else(|| idle(own))
}

async fn accept<A, F, B>(
    stream: TcpStream,
    tls: Option<Tls>,
    answer: A,
    watcher: Watcher,
    calls: Arc<Calls>,
    unread: Unread,
    limits: Live,
) where
    A: Fn(Request<Incoming>, &Arc<Peer>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    // Without it the end of a chunk may wait for an acknowledgement. If it cannot be set, chunks are late.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return connection(TokioIo::new(stream), answer, watcher, calls, unread, limits).await;
    };
    let greeted = tokio::time::timeout(limits.get().idle, tls.accept(stream));
    tokio::select! {
        // An error is a client that speaks no TLS, or none that we do.
        greeted = greeted => if let Ok(Ok(stream)) = greeted {
            connection(TokioIo::new(stream), answer, watcher, calls, unread, limits).await;
        },
        () = calls.cut.notified() => {}
    }
}

async fn connection<I, A, F, B>(
    io: I,
    answer: A,
    watcher: Watcher,
    calls: Arc<Calls>,
    mut unread: Unread,
    limits: Live,
) where
    I: Read + Write + Unpin + Send + 'static,
    A: Fn(Request<Incoming>, &Arc<Peer>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let Limits { idle, streams, reader, .. } = limits.get();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADERS)
        .max_concurrent_streams(streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    let heard = Heard::default();
    let io = Refusing::new(io, heard.clone());
    let counted = Arc::clone(&calls);
    let service = service_fn(move |request| {
        heard.request();
        let open = Open::begin(&counted);
        answer(request, &counted.peer).map(|response| {
            // Of HTTP/2 a body is not even looked at before its reader gives it a window.
            open.waits();
            Ok::<_, Infallible>(response.map(|body| Watched { body, open: Some(open) }))
        })
    });
    let mut serving = pin!(watcher.watch(builder.serve_connection(io, service).into_owned()));
    let mut left = idle.min(reader).min(UNREAD);
    loop {
        tokio::select! {
            // The error is a client that left, or one that spoke no HTTP and was told so.
            _ = &mut serving => return,
            () = calls.cut.notified() => return,
            () = tokio::time::sleep(left) => {}
        }
        let Limits { idle, reader, .. } = limits.get();
        if !unread.count() {
            return;
        }
        left = match calls.idle() {
            // A tick of the clock above, so that it is not looked at in vain for the last of them.
            Some(been) if been < idle => idle - been + Duration::from_millis(1),
            Some(_) => return,
            None => match calls.unread() {
                Some(been) if been >= reader => return,
                Some(been) => idle.min(reader - been + Duration::from_millis(1)).min(UNREAD),
                None => idle.min(reader).min(UNREAD),
            },
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    /// A connection of this address with answers of which nobody has read since the server's start.
    fn with_unread(
        addr: u8,
        answers: usize,
        started: Instant,
        all: &Arc<AtomicUsize>,
        peers: &mut Vec<Arc<Peer>>,
    ) -> Unread {
        let addr = IpAddr::from(Ipv4Addr::new(127, 0, 0, addr));
        let known = peers.iter().find(|peer| peer.addr() == addr).cloned();
        let peer = known.unwrap_or_else(|| {
            peers.push(Arc::new(Peer::new(addr)));
            Arc::clone(&peers[peers.len() - 1])
        });
        let calls = Calls::new(started, peer);
        calls.open().extend((0..answers).map(|_| Arc::new(AtomicU64::new(1))));
        Unread { calls: Arc::new(calls), all: Arc::clone(all), held: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_nobody_reads_are_bounded_and_one_address_does_not_have_them_all() {
        let (started, all, mut peers) = (Instant::now(), Arc::default(), Vec::new());
        let used = |all: &Arc<AtomicUsize>| all.load(Ordering::Relaxed);
        let mut first = with_unread(1, 200, started, &all, &mut peers);
        assert!(first.count());
        assert_eq!(used(&all), 0, "none of them has waited for a second");
        tokio::time::sleep(UNREAD + Duration::from_millis(2)).await;
        assert!(first.count() && first.count(), "counted once, however often it is looked at");
        assert_eq!(used(&all), 200);

        let mut more = with_unread(1, 25, started, &all, &mut peers);
        assert!(!more.count(), "an eighth is left to others");
        assert_eq!(used(&all), 200, "who finds no room takes none");
        let mut other = with_unread(2, 32, started, &all, &mut peers);
        assert!(other.count());
        let mut third = with_unread(3, 25, started, &all, &mut peers);
        assert!(!third.count(), "and there is an end to it");

        // Half of them are read, and the rest goes with the connection.
        first.calls.open().iter().take(100).for_each(|call| call.store(0, Ordering::Relaxed));
        assert!(first.count());
        assert_eq!(used(&all), 132);
        assert!(third.count() && more.count());
        drop((first, more, third));
        assert_eq!(used(&all), 32);
        drop(other);
        assert_eq!(used(&all), 0);
        assert!(peers.iter().all(|peer| peer.connections() == 0));
    }
}
