//! What may be wrong with a store: nothing is sent, nobody waits beyond his deadline, one event says what to do, and all is well
//! again once it has been done.

use tokio::time::Instant;
use tower_gemini::error::find;
use tower_gemini::fleet::{RedisStore, StoreFault};
use tower_gemini::rate_limit::{RateLimitReason, RateLimited};

use super::member::{LIMIT, Log, Member, SPLIT, WINDOW, millis, most};
use crate::redis::{Server, free_port};

const SECRET: &str = "sesame-4711";

/// Fails by its deadline, with the store as the reason.
async fn fails(member: &Member, log: &Log, fault: StoreFault, advice: &str) {
    let before = log.lock().unwrap().len();
    for within in [millis(40), millis(900), millis(1_500)] {
        let begun = Instant::now();
        let error = member.send(within).await.unwrap_err();
        let took = Instant::now() - begun;
        assert!(took <= within + millis(150), "{took:?} of {within:?}");
        let limited = find::<RateLimited>(error.as_ref()).expect("it was not admitted");
        assert!(
            matches!(limited.why(), RateLimitReason::Store | RateLimitReason::Deadline),
            "{:?}",
            limited.why()
        );
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains(SECRET), "{printed}");
        if within == millis(1_500) {
            assert_eq!(limited.why(), RateLimitReason::Store);
        }
    }
    assert_eq!(log.lock().unwrap().len(), before, "nothing is sent");
    let lost = member.told.lines("lost");
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].contains(advice) && !lost[0].contains(SECRET), "{lost:?}");
    let health = member.layer.handle().store().unwrap();
    let (_, why) = health.lost.clone().expect("it is lost");
    assert_eq!(why.fault(), fault, "{why}");
    let printed = format!("{health:?} {:?} {why}", member.layer);
    assert!(!printed.contains(SECRET), "{printed}");
}

/// Goes on, with one word about it, and within the limit.
async fn mends(member: &Member, log: &Log) {
    member.send(WINDOW * 3 + SPLIT).await.expect("the store is back");
    assert_eq!((member.told.lines("found").len(), member.told.lines("lost").len()), (1, 1));
    assert!(member.layer.handle().store().unwrap().lost.is_none());
    for _ in 0..LIMIT + 5 {
        member.send(WINDOW * 3).await.unwrap();
    }
    assert!(most(log) <= LIMIT, "{}", most(log));
}

fn member(server: &Server) -> (Member, Log) {
    let log = Log::default();
    (Member::new(RedisStore::new(&server.url()).unwrap(), &log), log)
}

/// The name of the state's key, once it is there.
async fn state(server: &Server) -> String {
    for _ in 0..200 {
        let keys = server.say(&["KEYS", "tg:1:{*"]);
        if !keys.is_empty() {
            return keys;
        }
        tokio::time::sleep(millis(10)).await;
    }
    panic!("no state was written");
}

pub(crate) async fn nobody_listens() {
    let Some(mut server) = Server::start(&[]).await else { return };
    server.kill();
    let (member, log) = member(&server);
    fails(&member, &log, StoreFault::Unreachable, "check that the store runs").await;
    server.run().await;
    mends(&member, &log).await;
}

pub(crate) async fn the_password_is_wrong() {
    let Some(server) = Server::start(&["--requirepass", "right"]).await else { return };
    let log = Log::default();
    let url = format!("redis://:{SECRET}@127.0.0.1:{}", server.port);
    let member = Member::new(RedisStore::new(&url).unwrap(), &log);
    fails(&member, &log, StoreFault::Denied, "check the user name and password").await;
    // The password is set right at the server.
    let said = server.say(&["-a", "right", "CONFIG", "SET", "requirepass", SECRET]);
    assert!(said.contains("OK"), "{said}");
    mends(&member, &log).await;
}

pub(crate) async fn it_is_a_read_only_replica() {
    let Some(server) = Server::start(&[]).await else { return };
    server.say(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    let (member, log) = member(&server);
    fails(&member, &log, StoreFault::ReadOnly, "give the address of the master").await;
    assert_eq!(server.say(&["REPLICAOF", "NO", "ONE"]), "OK");
    mends(&member, &log).await;
}

/// The state's key is found out by a member that is well; then another member comes.
async fn with_state(spoil: impl Fn(&Server, &str), fault: StoreFault, advice: &str) {
    let Some(server) = Server::start(&[]).await else { return };
    let (first, log) = member(&server);
    first.send(WINDOW * 3).await.unwrap();
    let key = state(&server).await;
    drop(first);
    tokio::time::sleep(millis(200)).await;
    spoil(&server, &key);
    let before = (server.say(&["TYPE", &key]), server.say(&["DUMP", &key]));
    let (second, log) = (Member::new(RedisStore::new(&server.url()).unwrap(), &log), log);
    fails(&second, &log, fault, advice).await;
    assert_eq!(
        (server.say(&["TYPE", &key]), server.say(&["DUMP", &key])),
        before,
        "nothing is written to it"
    );
    server.say(&["DEL", &key]);
    mends(&second, &log).await;
}

pub(crate) async fn the_state_is_of_a_newer_protocol() {
    let spoil = |server: &Server, key: &str| drop(server.say(&["HSET", key, "v", "2"]));
    with_state(spoil, StoreFault::Newer, "update this process").await;
}

pub(crate) async fn a_text_stands_under_the_states_name() {
    let spoil = |server: &Server, key: &str| {
        server.say(&["DEL", key]);
        server.say(&["SET", key, "x"]);
    };
    with_state(spoil, StoreFault::Foreign, "delete the key").await;
}

pub(crate) async fn a_hash_of_somebody_elses_stands_under_the_states_name() {
    let spoil = |server: &Server, key: &str| {
        server.say(&["DEL", key]);
        server.say(&["HSET", key, "name", "value", "other", "4"]);
    };
    with_state(spoil, StoreFault::Foreign, "delete the key").await;
}
