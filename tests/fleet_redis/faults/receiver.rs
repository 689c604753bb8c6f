//! Writes down when each request came.

use std::sync::{Arc, Mutex};

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::Instant;

pub(crate) struct Receiver {
    pub(crate) port: u16,
    log: Arc<Mutex<Vec<Instant>>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let log: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok((mut line, _)) = listener.accept().await {
                let log = Arc::clone(&kept);
                tokio::spawn(async move {
                    let mut bytes = [0; 64];
                    while let Ok(count) = line.read(&mut bytes).await {
                        if count == 0 {
                            return;
                        }
                        let now = Instant::now();
                        log.lock().unwrap().extend(std::iter::repeat_n(now, count));
                    }
                });
            }
        });
        Self { port, log }
    }

    pub(crate) fn count(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    pub(crate) fn log(&self) -> Vec<Instant> {
        let mut log = self.log.lock().unwrap().clone();
        log.sort();
        log
    }
}
