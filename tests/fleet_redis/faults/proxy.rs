//! Stands before a server: delays, loses one direction, points to another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    target: AtomicU16,
    /// Milliseconds, each way.
    delay: AtomicU64,
    no_questions: AtomicBool,
    no_answers: AtomicBool,
}

impl Proxy {
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { target: target.into(), ..State::default() });
        let kept = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&kept);
                tokio::spawn(async move {
                    let target = state.target.load(Relaxed);
                    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    let up = carry(from_client, to_server, Arc::clone(&state), |state| &state.no_questions);
                    let down = carry(from_server, to_client, Arc::clone(&state), |state| &state.no_answers);
                    // Either end closes both.
                    tokio::select! { () = up => {}, () = down => {} }
                });
            }
        });
        Self { port, state }
    }

    /// Where connections that are made from now on lead.
    pub(crate) fn point_to(&self, port: u16) {
        self.state.target.store(port, Relaxed);
    }

    pub(crate) fn delay(&self, each_way: Duration) {
        self.state.delay.store(u64::try_from(each_way.as_millis()).unwrap(), Relaxed);
    }

    pub(crate) fn drop_questions(&self, lost: bool) {
        self.state.no_questions.store(lost, Relaxed);
    }

    pub(crate) fn drop_answers(&self, lost: bool) {
        self.state.no_answers.store(lost, Relaxed);
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: Arc<State>,
    lost: impl Fn(&State) -> &AtomicBool,
) {
    let (sender, mut delayed) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let write = async {
        while let Some((at, bytes)) = delayed.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let read = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count) = from.read(&mut bytes).await {
            if count == 0 {
                return;
            }
            if lost(&state).load(Relaxed) {
                continue;
            }
            let at = Instant::now() + Duration::from_millis(state.delay.load(Relaxed));
            let _ = sender.send((at, bytes[..count].to_vec()));
        }
    };
    tokio::select! { () = read => {}, () = write => {} }
}
