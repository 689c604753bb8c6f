//! A master behind Sentinel that dies: the members follow to the replica, within the limit.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_gemini::fleet::RedisStore;

use super::member::{LIMIT, Log, Member, WINDOW, millis, most};
use crate::redis::{Server, free_port};

struct Sentinel {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Sentinel {
    async fn start(master: u16) -> Self {
        let port = free_port();
        let dir = std::env::temp_dir().join(format!("tower-gemini-sentinel-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let config = format!(
            "port {port}\nbind 127.0.0.1\ndir {dir}\nsentinel monitor quota 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds quota 400\nsentinel failover-timeout quota 2000\n",
            dir = dir.display()
        );
        let file = dir.join("sentinel.conf");
        std::fs::write(&file, config).unwrap();
        let child =
            Command::new("redis-server").arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn().unwrap();
        for _ in 0..400 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                break;
            }
            tokio::time::sleep(millis(10)).await;
        }
        Self { child, port, dir }
    }

    fn say(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let said = Command::new("redis-cli").args(["-p", &port]).args(words).output().unwrap();
        String::from_utf8_lossy(&said.stdout).into_owned()
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(millis(25)).await;
    }
    panic!("not within 15 s: {what}");
}

pub(crate) async fn the_members_follow_to_the_new_master() {
    let Some(mut master) = Server::start(&[]).await else { return };
    // As two arguments, which Redis 6 reads as well.
    let Some(replica) = Server::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await else {
        return;
    };
    until("the replica is in step", || {
        replica.say(&["INFO", "replication"]).contains("master_link_status:up")
    })
    .await;
    let sentinel = Sentinel::start(master.port).await;
    until("Sentinel knows the replica", || {
        sentinel.say(&["SENTINEL", "REPLICAS", "quota"]).contains(&replica.port.to_string())
    })
    .await;

    let log = Log::default();
    let address = format!("redis://127.0.0.1:{}", sentinel.port);
    // A Sentinel that is down is passed over.
    let dead = format!("redis://127.0.0.1:{}", free_port());
    let store = || RedisStore::sentinel([&*dead, &*address], "quota", "redis://ignored").unwrap();
    let members: Vec<Member> = (0..2).map(|_| Member::new(store(), &log)).collect();
    let mut work = JoinSet::new();
    for member in &members {
        for _ in 0..4 * LIMIT {
            let member = member.clone();
            work.spawn(async move { member.send(millis(120_000)).await.is_ok() });
        }
    }
    tokio::time::sleep(WINDOW * 2).await;
    let before = log.lock().unwrap().len();
    assert!(before > LIMIT / 2, "{before} were sent with the master");
    master.kill();
    let died = Instant::now();
    until("the replica is the master", || replica.say(&["INFO", "replication"]).contains("role:master"))
        .await;
    println!("promoted after {:?}", Instant::now() - died);
    while let Some(sent) = work.join_next().await {
        assert!(sent.unwrap(), "each is sent in the end");
    }
    println!("done {:?} later", Instant::now() - died);
    assert_eq!(log.lock().unwrap().len(), 8 * LIMIT);
    assert!(most(&log) <= LIMIT, "{} in one window", most(&log));
    for member in &members {
        let (lost, found) = (member.told.lines("lost"), member.told.lines("found"));
        assert!(lost.len() <= 1 && lost.len() == found.len(), "{lost:?} {found:?}");
        assert!(member.layer.handle().store().unwrap().lost.is_none());
    }
    assert!(replica.say(&["KEYS", "tg:1:{*"]).starts_with("tg:1:"));
}
