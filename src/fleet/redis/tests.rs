//! The scripts against the reference, and what else a real server can show.

use super::*;
use crate::fleet::message::{Amount, Quota, Terms};
use crate::fleet::model::{Told, told};

#[path = "../../../tests/support/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test uses some of it")]
mod server;

use self::server::Server;

async fn started() -> Option<(Server, RedisStore)> {
    let server = Server::start(&[]).await?;
    let store = RedisStore::new(&server.url()).expect("a valid URL");
    Some((server, store))
}

/// Everything that a store is told in the lives of fleets with faults, closed doors and lost states.
#[tokio::test]
async fn the_scripts_answer_as_the_reference_does() {
    let Some((server, store)) = started().await else { return };
    let mut compared = 0;
    for seed in 0..12 {
        for (at, one) in told(seed, 1_500).into_iter().enumerate() {
            match one {
                Told::Take(now, run, exchange) => {
                    let (take, expected) = *exchange;
                    let answer = store.take_at(now, &run, &take).await.expect("an answer");
                    assert_eq!(answer, expected, "seed {seed}, message {at}: {take:?}");
                    compared += 1;
                }
                Told::Close(now, close) => {
                    store.close_at(now, "k", 60_070_000, close).await.expect("it is closed");
                }
                Told::Flush => assert_eq!(server.say(&["FLUSHALL"]), "OK"),
            }
        }
        server.say(&["FLUSHALL"]);
    }
    assert!(compared > 3_000, "{compared} messages are too few to show anything");
}

/// More members than a page has, that come and are forgotten again: rows move from page to page.
#[tokio::test]
async fn many_members_come_and_go() {
    use crate::fleet::Use;
    let Some((server, store)) = started().await else { return };
    let mut book = crate::fleet::book::Book::default();
    let mut known = std::collections::HashMap::new();
    let (mut now, mut most, mut draw) = (1_700_000_000_000_000, 0, 1_u64);
    let mut below = |n: u64| {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (draw >> 33) % n
    };
    for step in 0..4_000 {
        // Now and then nobody but a few speaks for so long that the others are forgotten.
        now += if step % 400 < 300 { below(80_000) } else { below(40_000_000) };
        let members = if step % 400 < 300 { 60 } else { 9 };
        let id = (below(members) + step / 700 * 7) * 0x0123_4567_89ab_cdef + 1;
        let (call, epoch, seq) = known.get(&id).copied().unwrap_or((0, 0, 0));
        let mut take = Take { epoch, seq, ..question(id, call + 1) };
        take.limits = Quota { requests: Some(600), tokens: Some(90_000), daily: None };
        take.used = Amount::new(below(40), below(4_000));
        take.sizes = (0..below(6)).map(|_| below(3_000)).collect();
        take.want = Amount::new(take.sizes.len() as u64, take.sizes.iter().sum());
        take.uses = vec![Use { age: below(900_000), amount: Amount::new(1, below(900)) }];
        take.weight = 1 + below(4) as u32;
        take.leave = below(50) == 0;
        let (expected, _) = book.take(now, "run", &take);
        let answer = store.take_at(now, "run", &take).await.expect("an answer");
        assert_eq!(answer, expected, "step {step}: {take:?}");
        known.insert(id, (call + 1, answer.epoch, answer.seq));
        most = most.max(answer.members);
        let state = format!("tg:1:{{{}}}", "0".repeat(32));
        if step % 400 == 399 {
            // A page for the few that are left, and an answer for each of them.
            assert_eq!(server.say(&["HEXISTS", &state, "m1"]), "1");
            assert_eq!(server.say(&["HEXISTS", &state, "m2"]), "0", "step {step}");
            let fields: u32 = server.say(&["HLEN", &state]).parse().expect("a number");
            assert!(fields < 6 + 16, "{fields} fields");
        }
    }
    assert!(most > 32, "{most} members are too few to show anything");
}

pub(super) fn question(member: u64, call: u64) -> Take {
    Take {
        key: StoreKey::new("0".repeat(32), Some("generate gemini-3-flash".to_owned())),
        member,
        call,
        epoch: 0,
        seq: 0,
        terms: Terms::of(60_500_000, true),
        limits: Quota { requests: Some(60), ..Quota::default() },
        day: crate::fleet::DayEnd::default(),
        day_seen: 0,
        held: Amount::default(),
        part: Amount::default(),
        day_held: 0,
        day_spent: 0,
        spent: Amount::default(),
        uses: Vec::new(),
        corrections: Vec::new(),
        used: Amount::default(),
        want: Amount::new(5, 0),
        sizes: Vec::new(),
        weight: 1,
        close_seq: 0,
        leave: false,
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_not_ours_is_named() {
    let Some((server, store)) = started().await else { return };
    // Each is another call: one that was answered is answered again, also by a replica.
    let calls = std::cell::Cell::new(0);
    let ask = async |store: &RedisStore| {
        calls.set(calls.get() + 1);
        store.take(&[question(1, calls.get())]).await.map(drop)
    };
    let fault = async |store: &RedisStore| ask(store).await.expect_err("it fails").fault();
    ask(&store).await.expect("a good server answers");
    let state = format!("tg:1:{{{}}}", "0".repeat(32));
    assert_eq!(server.say(&["HGET", &state, "key"]), "generate gemini-3-flash");

    // Of a newer protocol, or not ours at all: nothing is written to it.
    server.say(&["HSET", &state, "v", "2"]);
    assert_eq!(fault(&store).await, StoreFault::Newer);
    server.say(&["DEL", &state]);
    server.say(&["HSET", &state, "name", "value"]);
    assert_eq!(fault(&store).await, StoreFault::Foreign);
    assert_eq!(server.say(&["HGETALL", &state]), "name\nvalue");
    server.say(&["DEL", &state]);
    server.say(&["SET", &state, "x"]);
    assert_eq!(fault(&store).await, StoreFault::Foreign);
    assert_eq!(server.say(&["GET", &state]), "x");
    server.say(&["DEL", &state]);

    // A script that the server has forgotten is sent again.
    server.say(&["SCRIPT", "FLUSH"]);
    ask(&store).await.expect("the script is sent whole");

    server.say(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(fault(&store).await, StoreFault::ReadOnly);
    server.say(&["REPLICAOF", "NO", "ONE"]);
    ask(&store).await.expect("a new connection finds the master");

    let nobody = RedisStore::new(&format!("redis://127.0.0.1:{}", server::free_port())).expect("valid");
    let error = ask(&nobody).await.expect_err("nobody listens");
    assert_eq!(error.fault(), StoreFault::Unreachable);
    assert!(error.to_string().contains("check that the store runs"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_never_printed() {
    let Some(server) = Server::start(&["--requirepass", "right"]).await else { return };
    for user in ["", ":sesame-4711@", "somebody:sesame-4711@"] {
        let url = format!("redis://{user}127.0.0.1:{}", server.port);
        let store = RedisStore::new(&url).expect("valid");
        let error = store.take(&[question(1, 1)]).await.expect_err("it is not let in");
        assert_eq!(error.fault(), StoreFault::Denied, "{error}");
        let printed = format!("{error} {error:?} {store:?} {}", store.place());
        assert!(!printed.contains("sesame"), "{printed}");
    }
    let store = RedisStore::new(&format!("redis://:right@127.0.0.1:{}", server.port)).expect("valid");
    store.take(&[question(1, 1)]).await.expect("it is let in");
}

#[tokio::test]
async fn the_rights_in_the_documentation_are_enough() {
    let Some((server, _)) = started().await else { return };
    let rights = "+evalsha +eval +hello +info +time +hmget +hlen +hset +hdel +pexpire +publish +subscribe ~tg:1:* &tg:1:*";
    let mut words = vec!["ACL", "SETUSER", "fleet", "on", ">secret", "resetkeys", "resetchannels", "-@all"];
    words.extend(rights.split(' '));
    assert_eq!(server.say(&words), "OK");
    let store = RedisStore::new(&format!("redis://fleet:secret@127.0.0.1:{}", server.port)).expect("valid");
    let mut notices = store.subscribe().expect("it tells");
    store.take(&[question(1, 1)]).await.expect("it may ask");
    let key = question(1, 1).key;
    // The subscription is made in the background.
    for _ in 0..100 {
        store.close(&key, Close::new(0, Some(1_000)), 60_500_000).await.expect("it may close");
        let heard = tokio::time::timeout(Duration::from_millis(50), notices.next()).await;
        if let Ok(Some(Notice::Closed { digest, close })) = heard {
            assert_eq!((digest, close.dimension, close.lasts), (key.digest, 0, Some(1_000)));
            return;
        }
    }
    panic!("nothing was heard");
}

/// A cluster of one node has all of the commands and redirections that more have; each key is in one slot.
#[tokio::test]
async fn a_cluster_answers() {
    let Some(server) = Server::start(&["--cluster-enabled", "yes"]).await else { return };
    assert_eq!(server.say(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
    for _ in 0..200 {
        if server.say(&["CLUSTER", "INFO"]).contains("cluster_state:ok") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let store = RedisStore::cluster([&*server.url()]).expect("a valid URL");
    let mut takes = [question(1, 1), question(1, 1)];
    takes[1].key = StoreKey::new("1".repeat(32), None);
    let replies = store.take(&takes).await.expect("keys of two slots are answered");
    assert_eq!(replies.iter().map(|reply| reply.call).collect::<Vec<_>>(), [1, 1]);
    store.close(&takes[0].key, Close::new(0, Some(1_000)), 60_500_000).await.expect("it closes");
}

#[test]
fn bad_settings_name_the_field_and_the_rule() {
    for url in ["", "http://x", "127.0.0.1:6379", "redis://", "redis://a:b:c"] {
        let error = RedisStore::new(url).expect_err(url);
        assert_eq!(error.field(), "url", "{url}");
        assert!(!error.to_string().contains("a:b"));
    }
    let store = || RedisStore::new("redis://127.0.0.1").expect("valid");
    assert_eq!(store().answer_within(Duration::ZERO).expect_err("too short").field(), "answer_within");
    assert_eq!(store().split_brain(Duration::MAX).expect_err("too long").field(), "split_brain");
    assert_eq!(RedisStore::cluster([]).expect_err("none").field(), "nodes");
    assert_eq!(RedisStore::sentinel([], "m", "redis://m").expect_err("none").field(), "sentinels");
}

/// What one script takes on the server, by its own count: members that all wait, in a window whose ring is full. The best of
/// some rounds, since a round that the machine was busy elsewhere in says nothing of the script.
#[tokio::test]
#[ignore = "figures, to be printed"]
async fn what_a_script_takes() {
    for (members, most) in [(1, 150.0), (8, 150.0), (50, 400.0), (200, 400.0)] {
        let Some((server, store)) = started().await else { return };
        let mut known = vec![(0, 0); members];
        let mut rounds = Vec::new();
        // A round that is short would measure the caches.
        let calls = 200_usize.div_ceil(members);
        for round in 0..24 {
            server.say(&["CONFIG", "RESETSTAT"]);
            for (call, id) in (0..calls).flat_map(|call| (0..members).map(move |id| (call, id))) {
                let known = &mut known[id];
                let mut take = question(id as u64 + 1, round * calls as u64 + call as u64 + 1);
                (take.epoch, take.seq) = *known;
                take.limits.requests = Some(600);
                take.used = Amount::new(5, 0);
                let age = |at: u64| (1 + (id as u64 * 7 + round * 31 + at * 113) % 230) * 250_000;
                let used = |at| crate::fleet::Use { age: age(at), amount: Amount::new(1, 0) };
                // The ring is filled first; later ones are of the last second, as they are.
                take.uses = match round {
                    0..4 => (0..60_u64).map(used).collect(),
                    _ => vec![crate::fleet::Use { age: 400_000, amount: Amount::new(1, 0) }; 2],
                };
                let reply = store.take(&[take]).await.expect("an answer").remove(0);
                *known = (reply.epoch, reply.seq);
            }
            if round >= 4 {
                rounds.push(per_call(&server.say(&["INFO", "commandstats"])));
            }
        }
        rounds.sort_by(f64::total_cmp);
        let state = format!("tg:1:{{{}}}", "0".repeat(32));
        println!(
            "{members} members: {:.0} µs at best, {:.0} in the middle, {:.0} at worst; {} bytes",
            rounds[0],
            rounds[rounds.len() / 2],
            rounds[rounds.len() - 1],
            server.say(&["MEMORY", "USAGE", &state, "SAMPLES", "0"])
        );
        assert!(rounds[0] <= most, "{members} members: {} µs", rounds[0]);
    }
}

/// Microseconds for each script, by the server's own count.
fn per_call(stats: &str) -> f64 {
    let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).expect("scripts ran");
    let figure = line.split(',').find_map(|word| word.strip_prefix("usec_per_call=")).expect("a mean");
    figure.parse().expect("a number")
}
