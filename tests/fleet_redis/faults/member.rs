//! A member as a process of its own.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt};
use tower_gemini::fleet::{Fleet, RedisStore};
use tower_gemini::rate_limit::{Limits, RateLimitLayer};

pub(crate) struct Process(Child);

/// Starts this program again, as a member that has so many requests to send.
pub(crate) fn start(id: usize, count: usize, store: u16, receiver: u16) -> Process {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "faults::member::member", "--nocapture"])
        .env("FLEET_MEMBER", format!("{id} {count} {store} {receiver}"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Process(child)
}

impl Process {
    pub(crate) fn signal(&mut self, name: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) async fn wait(&mut self, most: Duration) {
        let until = tokio::time::Instant::now() + most;
        while self.0.try_wait().unwrap().is_none() {
            assert!(tokio::time::Instant::now() < until, "a member is not done after {most:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No test: what the processes run.
#[tokio::test]
#[ignore = "the body of a process that the other tests start"]
async fn member() {
    let Ok(role) = std::env::var("FLEET_MEMBER") else { return };
    let role: Vec<usize> = role.split(' ').map(|word| word.parse().unwrap()).collect();
    let [id, count, store, receiver] = role[..] else { panic!("four numbers") };
    let line = TcpStream::connect(("127.0.0.1", u16::try_from(receiver).unwrap())).unwrap();
    line.set_nodelay(true).unwrap();
    let line = Arc::new(Mutex::new(line));
    let store = RedisStore::new(&format!("redis://127.0.0.1:{store}")).unwrap();
    let store = store.split_brain(Duration::from_millis(250)).unwrap();
    let layer = RateLimitLayer::builder()
        .limits(Limits::new().requests_per_minute(super::LIMIT as u64))
        .window(super::WINDOW)
        .guard(super::GUARD)
        .store(Fleet::new(store))
        .build()
        .unwrap();
    let mut all = JoinSet::new();
    for _ in 0..count {
        let line = Arc::clone(&line);
        let service = layer.layer(tower::service_fn(move |_: Request<Full<Bytes>>| {
            let written = line.lock().unwrap().write_all(&[u8::try_from(id).unwrap()]);
            async move { written.map(|()| Response::new(Full::<Bytes>::default())) }
        }));
        all.spawn(async move {
            let request = Request::post("/v1beta/models/m:generateContent").body(Full::default()).unwrap();
            let response = service.oneshot(request).await.unwrap();
            drop(response);
        });
    }
    all.join_all().await;
    // The others have what this one does not use any more.
    drop(layer);
    tokio::time::sleep(Duration::from_millis(300)).await;
}
