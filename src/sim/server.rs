//! The simulator on a loopback socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use http::Request;
use hyper::body::Incoming;
use tower_service::Service;

use super::Simulator;
use crate::loopback::Loopback;

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
    loopback: Loopback,
}

impl SimServer {
    pub(super) async fn start(sim: Simulator) -> io::Result<Self> {
        // The error is a fault that was asked for; the log has it.
        let handle = move |request: Request<Incoming>| sim.clone().call(request);
        Ok(Self { loopback: Loopback::start(handle).await? })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.loopback.addr()
    }

    /// What to put in place of `https://generativelanguage.googleapis.com`: `http://127.0.0.1:PORT`, without
    /// a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> String {
        self.loopback.base_url()
    }

    /// Stops like dropping does, and waits until the port is closed.
    pub async fn shutdown(self) {
        self.loopback.shutdown().await;
    }
}

impl fmt::Debug for SimServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimServer").field("addr", &self.addr()).finish_non_exhaustive()
    }
}
