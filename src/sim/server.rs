//! The simulator on a loopback socket.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tower_service::Service;

use super::Simulator;

/// A [`Simulator`] that listens on 127.0.0.1, made by [`Simulator::serve`].
///
/// Speaks HTTP/1.1 without TLS. A fault that resets or refuses the connection closes it, without a head or in
/// the middle of the body. Dropping the server closes the port and ends all connections, whatever they were
/// doing; the log notes their calls as dropped.
///
/// Sockets do not live in tokio's paused time: a paused clock runs on while they wait. Use the real clock
/// with a server, with short latencies.
#[must_use = "dropping the server stops it"]
pub struct SimServer {
    addr: SocketAddr,
    accept: JoinHandle<Infallible>,
}

impl SimServer {
    pub(super) async fn start(sim: Simulator) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let accept = tokio::spawn(accept(listener, sim));
        Ok(Self { addr, accept })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What to put in place of `https://generativelanguage.googleapis.com`: `http://127.0.0.1:PORT`, without
    /// a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops like dropping does, and waits until the port is closed.
    pub async fn shutdown(mut self) {
        self.accept.abort();
        // A join error is what an aborted task ends with.
        let _ = (&mut self.accept).await;
    }
}

impl Drop for SimServer {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl fmt::Debug for SimServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimServer").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// Accepts until it is aborted, which drops the set and with it every connection.
async fn accept(listener: TcpListener, sim: Simulator) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, sim.clone()));
                }
                // Out of file handles, or a client that left before it was accepted. The former lasts, so do
                // not spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, sim: Simulator) {
    // Without it the end of a chunk may wait for an acknowledgement. If it cannot be set, chunks are late.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| sim.clone().call(request));
    // The error is the fault that was asked for, or a client that left: the log has both.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
