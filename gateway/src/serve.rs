//! The sockets: who is accepted, and how the gateway stops.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
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
use tokio::task::JoinSet;
use tower_gemini::BoxError;

use crate::refusal::{Heard, Refusing};

/// A client must have sent its head by then.
const HEAD: Duration = Duration::from_secs(30);
/// Of HTTP/2, in bytes. HTTP/1.1 has 400 KiB.
const HEADERS: u32 = 64 * 1024;

/// Serves until `stop`, then lets connections finish what they are at, for `grace`. How many it had to cut.
pub async fn serve<A, F, B>(
    listener: TcpListener,
    answer: A,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> usize
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(HEADERS).adaptive_window(true);
    let graceful = GracefulShutdown::new();
    // Dropped at the end, which cuts what is left.
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, builder.clone(), answer.clone(), graceful.watcher()));
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

async fn connection<A, F, B>(stream: TcpStream, builder: Builder<TokioExecutor>, answer: A, watcher: Watcher)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    // Without it the end of a chunk may wait for an acknowledgement. If it cannot be set, chunks are late.
    let _ = stream.set_nodelay(true);
    let heard = Heard::default();
    let io = Refusing::new(TokioIo::new(stream), heard.clone());
    let service = service_fn(move |request| {
        heard.request();
        answer(request).map(Ok::<_, Infallible>)
    });
    // The error is a client that left, or one that spoke no HTTP and was told so.
    let _ = watcher.watch(builder.serve_connection(io, service).into_owned()).await;
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
