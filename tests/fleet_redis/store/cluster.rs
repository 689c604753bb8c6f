//! A cluster of three masters and a replica: the members follow a key to the node that it moves to, and to the replica of one
//! that dies, within the limit.

use std::process::Command;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_gemini::fleet::RedisStore;

use super::member::{LIMIT, Log, Member, WINDOW, millis, most};
use crate::redis::Server;

/// Says something to the cluster as a whole.
fn cluster(words: &[&str]) -> String {
    let said = Command::new("redis-cli").arg("--cluster").args(words).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    String::from_utf8_lossy(&said.stdout).into_owned()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..800 {
        if holds() {
            return;
        }
        tokio::time::sleep(millis(25)).await;
    }
    panic!("not within 20 s: {what}");
}

pub(crate) async fn the_members_follow_a_key_to_another_node() {
    let args = [
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "1000",
        "--cluster-require-full-coverage",
        "no",
    ];
    let mut nodes = Vec::new();
    for _ in 0..4 {
        let Some(node) = Server::start(&args).await else { return };
        nodes.push(node);
    }
    let address = |node: &Server| format!("127.0.0.1:{}", node.port);
    let addresses: Vec<String> = nodes.iter().map(address).collect();
    let all = |count: usize| addresses[..count].iter().map(String::as_str);
    cluster(&["create"].into_iter().chain(all(3)).chain(["--cluster-yes"]).collect::<Vec<_>>());
    let is_ok = |node: &Server| node.say(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
    until("the cluster is well", || nodes[..3].iter().all(is_ok)).await;

    let log = Log::default();
    let urls: Vec<String> = nodes.iter().map(Server::url).collect();
    // One that is no part of it yet is passed over.
    let store = || RedisStore::cluster(urls[..3].iter().map(String::as_str)).unwrap();
    let members: Vec<Member> = (0..2).map(|_| Member::new(store(), &log)).collect();
    let mut work = JoinSet::new();
    for member in &members {
        for _ in 0..5 * LIMIT {
            let member = member.clone();
            work.spawn(async move { member.send(millis(120_000)).await.is_ok() });
        }
    }
    tokio::time::sleep(WINDOW).await;
    let begun = Instant::now();
    let key =
        nodes[..3].iter().map(|node| node.say(&["KEYS", "tg:1:{*"])).find(|key| !key.is_empty()).unwrap();
    let slot = nodes[0].say(&["CLUSTER", "KEYSLOT", &key]);
    let owner = |node: &Server| node.say(&["KEYS", "tg:1:{*"]) == key;
    let from = nodes[..3].iter().position(owner).unwrap();
    let to = (from + 1) % 3;
    let id = |at: usize| nodes[at].say(&["CLUSTER", "MYID"]);
    assert_eq!(nodes[to].say(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]), "OK");
    assert_eq!(nodes[from].say(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]), "OK");
    let port = nodes[to].port.to_string();
    assert_eq!(nodes[from].say(&["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]), "OK");
    for at in [to, from, 3 - to - from] {
        assert_eq!(nodes[at].say(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]), "OK");
    }
    println!("moved from {from} to {to} in {:?}", Instant::now() - begun);
    let before = log.lock().unwrap().len();
    until("they go on at the new node", || log.lock().unwrap().len() > before + LIMIT).await;
    assert!(owner(&nodes[to]) && !owner(&nodes[from]));

    // Its replica takes over.
    let [new, known] = [&addresses[3], &addresses[from]];
    cluster(&["add-node", new, known, "--cluster-slave", "--cluster-master-id", &id(to)]);
    until("the replica is in step", || {
        nodes[3].say(&["INFO", "replication"]).contains("master_link_status:up") && is_ok(&nodes[3])
    })
    .await;
    let died = Instant::now();
    nodes[to].kill();
    until("the replica is the master", || nodes[3].say(&["INFO", "replication"]).contains("role:master"))
        .await;
    println!("promoted after {:?}", Instant::now() - died);
    while let Some(sent) = work.join_next().await {
        assert!(sent.unwrap(), "each is sent in the end");
    }
    println!("done {:?} later, at most {} of {LIMIT} in any window", Instant::now() - died, most(&log));
    assert_eq!(log.lock().unwrap().len(), 10 * LIMIT);
    assert!(most(&log) <= LIMIT, "{} in one window", most(&log));
    assert!(owner(&nodes[3]));
    for member in &members {
        let (lost, found) = (member.told.lines("lost"), member.told.lines("found"));
        assert!(lost.len() <= 2 && lost.len() == found.len(), "{lost:?} {found:?}");
        assert!(member.layer.handle().store().unwrap().lost.is_none());
    }
}
