//! Sockets that systemd hands over ([`sd_listen_fds`](https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html)): they
//! stay open while the gateway is restarted, so no client is refused meanwhile.

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

use listenfd::ListenFd;
use tokio::net::TcpListener;

/// The environment is read once: the first reader takes it out.
static HANDED: OnceLock<Mutex<ListenFd>> = OnceLock::new();

/// The socket at this place, if there is one: the first is for calls, the second for administrators.
pub fn listener(place: usize) -> Option<io::Result<TcpListener>> {
    let handed = HANDED.get_or_init(|| Mutex::new(ListenFd::from_env()));
    let taken = handed.lock().unwrap_or_else(PoisonError::into_inner).take_tcp_listener(place).transpose()?;
    Some(taken.and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }))
}
