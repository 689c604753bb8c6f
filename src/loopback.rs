//! A handler behind a free port of 127.0.0.1, for the simulator and the proxy.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::error::BoxError;

/// Accepts connections, HTTP/1.1 without TLS. Dropping it closes the port and ends all connections, whatever they were
/// doing.
pub(crate) struct Loopback {
    addr: SocketAddr,
    accept: JoinHandle<Infallible>,
}

impl Loopback {
    /// Listens on a free port. An error of `handle` closes its connection.
    pub(crate) async fn start<H, F, B, E>(handle: H) -> io::Result<Self>
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        E: Into<BoxError> + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        Ok(Self { addr, accept: tokio::spawn(accept(listener, handle)) })
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops like dropping does, and waits until the port is closed.
    pub(crate) async fn shutdown(mut self) {
        self.accept.abort();
        // A join error is what an aborted task ends with.
        let _ = (&mut self.accept).await;
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// Accepts until it is aborted, which drops the set and with it every connection.
async fn accept<H, F, B, E>(listener: TcpListener, handle: H) -> Infallible
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    E: Into<BoxError> + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, handle.clone()));
                }
                // Out of file handles, or a client that left before it was accepted. The former lasts, so do not spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection<H, F, B, E>(stream: TcpStream, handle: H)
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    // Without it the end of a chunk may wait for an acknowledgement. If it cannot be set, chunks are late.
    let _ = stream.set_nodelay(true);
    // The error is a client that left, a body that broke off, or a fault that was asked for, which has ended the connection.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(handle)).await;
}
