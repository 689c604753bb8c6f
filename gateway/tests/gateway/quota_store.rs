//! `--quota-store`: its options, and two gateways that keep one quota through a server of their own.

#[path = "../../../tests/support/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "not all of it is used here")]
mod redis;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower_gemini::sim::{Fault, Rule, SimServer, Simulator};
use tower_gemini_gateway::run;
use tower_gemini_gateway::settings::parse;

use self::redis::{Server, free_port};
use crate::world::{GENERATE, Gate, HELLO, Written, soon};

const PASSWORD: &str = "pass-word-of-nobody";
const SECRET: &str = "a-secret-of-nobody";
const URL: &str = "redis://:pass-word-of-nobody@127.0.0.1:1";

// ===== the options =====

#[test]
fn what_is_wrong_or_missing_is_named_in_a_sentence() {
    let store = ["--quota-store", URL];
    for (args, named) in [
        (vec!["--quota-store", "http://:pass-word-of-nobody@a"], "--quota-store must be redis://"),
        (vec!["--quota-store", "redis://:pass-word-of-nobody@:x"], "--quota-store must be redis://"),
        (vec![URL], "belongs to no option"),
        (vec!["--simulate=redis://:pass-word-of-nobody@a"], "--simulate must be 1 or 0"),
        (store.to_vec(), "needs --quota-project, where all calls are of one project, or --quota-secret"),
        ([&store[..], &["--quota-project", ""]].concat(), "--quota-project must be a name"),
        (
            [&store[..], &["--quota-project", "AIzaSy-pass-word-of-nobody"]].concat(),
            "--quota-project must be",
        ),
        ([&store[..], &["--quota-project", "a b"]].concat(), "--quota-project must be"),
        ([&store[..], &["--quota-secret", "short"]].concat(), "--quota-secret must have from 16"),
        ([&store[..], &["--quota-project=p", "--quota-secret", SECRET]].concat(), "exclude each other"),
        ([&store[..], &["--quota-secret", SECRET, "--clients", "f"]].concat(), "give --quota-project"),
        ([&store[..], &["--quota-project=p", "--quota-outage=none"]].concat(), "--quota-outage must be"),
        ([&store[..], &["--quota-project=p", "--quota-outage=share"]].concat(), "needs --quota-members"),
        ([&store[..], &["--quota-project=p", "--quota-members=2"]].concat(), "--quota-members is for"),
        ([&store[..], &["--quota-project=p", "--quota-members=0"]].concat(), "--quota-members must be"),
        (vec!["--quota-project", "p"], "--quota-project needs --quota-store"),
        (vec!["--quota-secret", SECRET], "--quota-secret needs --quota-store"),
        (vec!["--quota-outage", "local"], "--quota-outage needs --quota-store"),
        (vec!["--quota-members", "2"], "--quota-members needs --quota-store"),
    ] {
        let sentence = parse(args.iter().map(OsString::from), |_| None).unwrap_err();
        assert!(sentence.contains(named), "{args:?}: {sentence}");
        assert!(!sentence.contains('\n') && !sentence.ends_with('.'), "{sentence}");
        assert!(!sentence.contains(PASSWORD) && !sentence.contains(SECRET), "{sentence}");
    }
    for project in [vec!["--quota-project=p"], vec!["--quota-secret", SECRET], vec!["--clients=f"]] {
        let args = [&store[..], &project].concat();
        let settings = format!("{:?}", parse(args.iter().map(OsString::from), |_| None).unwrap());
        assert!(!settings.contains(PASSWORD) && !settings.contains(SECRET), "{settings}");
    }
    let env = |name: &str| match name {
        "GATEWAY_QUOTA_STORE" => Some(OsString::from(URL)),
        "GATEWAY_QUOTA_SECRET" => Some(OsString::from(SECRET)),
        _ => None,
    };
    assert!(parse([], env).is_ok());
    // An option wins over the variable of the other way, too.
    assert!(parse([OsString::from("--quota-project=p")], env).is_ok());
}

#[tokio::test]
async fn a_wrong_store_ends_with_2_and_prints_no_password() {
    let (out, mut err) = (Written::default(), Written::default());
    let args =
        ["--quota-store", "rediss//:pass-word-of-nobody@h", "--quota-project", "p"].map(OsString::from);
    let code = soon(run(args, |_| None, Box::new(out.clone()), &mut err, std::future::pending())).await;
    assert_eq!(code, 2);
    assert!(err.text().starts_with("error: --quota-store must be redis://"), "{}", err.text());
    assert!(!(err.text() + &out.text()).contains(PASSWORD), "{}", err.text());
}

// ===== gateways =====

struct World {
    simulator: Simulator,
    upstream: SimServer,
}

impl World {
    async fn new() -> Self {
        let simulator = Simulator::builder().head_latency(Duration::from_millis(1)).build().unwrap();
        let upstream = simulator.serve().await.unwrap();
        Self { simulator, upstream }
    }

    async fn gate(&self, store: &str, args: &[&str]) -> Arc<Gate> {
        let shared = ["--attempts=1", "--requests-per-minute=20", "--quota-store", store];
        Arc::new(Gate::to(&self.upstream.base_url(), &[&shared[..], args].concat()).await)
    }
}

const PROJECT: &str = "--quota-project=team";

async fn status(gate: &Gate) -> Value {
    serde_json::from_slice(&gate.page("/status").await.body).unwrap()
}

/// How many of `calls` at once are answered, once all are over.
async fn served(gate: &Arc<Gate>, calls: usize) -> usize {
    let mut all = JoinSet::new();
    for _ in 0..calls {
        let gate = Arc::clone(gate);
        all.spawn(async move { gate.post(GENERATE, HELLO).await.status });
    }
    let answers = all.join_all().await;
    let known = [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS];
    assert!(answers.iter().all(|status| known.contains(status)), "{answers:?}");
    answers.iter().filter(|status| **status == StatusCode::OK).count()
}

/// Without a store they would send 40.
async fn keeps_one_quota(store: &str, args: &[&str]) {
    let world = World::new().await;
    let (one, two) = (world.gate(store, args).await, world.gate(store, args).await);
    let began = Instant::now();
    let (of_one, of_two) = tokio::join!(served(&one, 20), served(&two, 20));
    let took = Instant::now() - began;
    println!("{of_one} and {of_two} of a quota of 20, in {took:?}");
    assert!(took < Duration::from_secs(60), "one minute: {took:?}");
    assert_eq!(world.simulator.call_count() as usize, of_one + of_two);
    assert!(of_one + of_two <= 20, "{of_one} and {of_two}");
    assert!(of_one >= 5 && of_two >= 5, "{of_one} and {of_two}");
    for gate in [&one, &two] {
        let status = status(gate).await;
        assert_eq!(status["quota_store"]["up"], true, "{status}");
        assert_eq!(status["quotas"][0]["fleet"]["members"], 2, "{status}");
        let metrics = String::from_utf8(gate.page("/metrics").await.body.to_vec()).unwrap();
        assert!(metrics.contains("gateway_quota_store_up{store="), "{metrics}");
        assert!(metrics.lines().any(|l| l.starts_with("gateway_quota_members{") && l.ends_with(" 2")));
        assert!(metrics.lines().any(|l| l.starts_with("gateway_quota_part{")), "{metrics}");
    }
}

#[tokio::test]
async fn two_gateways_of_one_project_keep_one_quota() {
    let Some(server) = Server::start(&["--requirepass", PASSWORD]).await else { return };
    let store = format!("redis://:{PASSWORD}@127.0.0.1:{}", server.port);
    keeps_one_quota(&store, &[PROJECT]).await;
}

/// Calls that come all the time, through two minutes and a half: the receiver's log decides.
#[tokio::test]
#[ignore = "takes two and a half minutes"]
async fn no_sixty_seconds_hold_more_than_the_quota_of_two_gateways() {
    let Some(server) = Server::start(&[]).await else { return };
    let world = World::new().await;
    let gates = [world.gate(&server.url(), &[PROJECT]).await, world.gate(&server.url(), &[PROJECT]).await];
    let until = Instant::now() + Duration::from_secs(150);
    let pressed = async |gate: &Arc<Gate>| {
        let mut all = 0;
        while Instant::now() < until {
            all += served(gate, 4).await;
        }
        all
    };
    let (one, two) = tokio::join!(pressed(&gates[0]), pressed(&gates[1]));
    let sent: Vec<Duration> = world.simulator.calls().iter().map(|call| call.at()).collect();
    let most = (0..sent.len())
        .map(|at| sent[at..].iter().take_while(|one| **one < sent[at] + Duration::from_secs(60)).count())
        .max()
        .unwrap_or(0);
    println!("{one} and {two} in 150 s, at most {most} of 20 in any 60 s");
    assert_eq!(sent.len(), one + two);
    assert!(most <= 20, "{most}");
    assert!(one >= 15 && two >= 15 && sent.len() >= 40, "{one} and {two}");
}

#[tokio::test]
async fn two_gateways_with_one_secret_keep_one_quota_of_a_callers_key() {
    let Some(server) = Server::start(&[]).await else { return };
    keeps_one_quota(&server.url(), &["--quota-secret", SECRET]).await;
    let keys = server.say(&["KEYS", "*"]);
    assert!(keys.starts_with("tg:1:") && keys.lines().count() == 1, "{keys}");
}

#[tokio::test]
async fn a_429_that_one_meets_closes_the_other() {
    let Some(server) = Server::start(&[]).await else { return };
    let world = World::new().await;
    let one = world.gate(&server.url(), &[PROJECT]).await;
    let two = world.gate(&server.url(), &[PROJECT]).await;
    // Each knows the store now.
    assert_eq!(tokio::join!(served(&one, 1), served(&two, 1)), (1, 1));
    world.simulator.push(Rule::new(Fault::daily_quota_exhausted()).times(1)).unwrap();
    assert_eq!(one.post(GENERATE, HELLO).await.status, StatusCode::TOO_MANY_REQUESTS);
    // A round trip on this machine; what is measured exactly is `tests/fleet`.
    tokio::time::sleep(Duration::from_millis(250)).await;
    let before = world.simulator.call_count();
    assert_eq!(two.post(GENERATE, HELLO).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(world.simulator.call_count(), before, "the other one sent");
}

/// With the project's label in the place of the callers' they would be one, who is turned away.
#[tokio::test]
async fn one_callers_failures_stop_no_other_of_the_same_project() {
    let Some(server) = Server::start(&[]).await else { return };
    let world = World::new().await;
    let store = server.url();
    let args = ["--attempts=1", "--breaker-open=60", "--quota-store", &store, PROJECT];
    let gate = Gate::to(&world.upstream.base_url(), &args).await;
    assert_eq!(asked_as(&gate, "good").await, StatusCode::OK);
    world.simulator.push(Rule::new(Fault::internal())).unwrap();
    for _ in 0..40 {
        asked_as(&gate, "bad").await;
    }
    let sent = world.simulator.call_count();
    assert!(sent < 41, "the one who fails is never turned away");
    world.simulator.clear_rules();
    assert_eq!(asked_as(&gate, "good").await, StatusCode::OK);
    let all = status(&gate).await;
    assert_eq!(all["quotas"].as_array().unwrap().len(), 1, "{all}");
}

async fn asked_as(gate: &Gate, key: &str) -> StatusCode {
    let length = HELLO.len();
    gate.say(format!(
        "POST {GENERATE}?key={key} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{HELLO}"
    ))
    .await
    .status
}

/// Of 20 at once through a gateway that never reached its store, with a quota of 20.
#[tokio::test]
async fn a_store_that_is_dead_from_the_start_is_handled_as_was_chosen() {
    let store = format!("redis://:{PASSWORD}@127.0.0.1:{}", free_port());
    let through = async |args: &[&str]| {
        let world = World::new().await;
        let gate = world.gate(&store, args).await;
        let served = served(&gate, 20).await;
        assert_eq!(world.simulator.call_count() as usize, served);
        let text = String::from_utf8(gate.page("/status").await.body.to_vec()).unwrap();
        let metrics = String::from_utf8(gate.page("/metrics").await.body.to_vec()).unwrap();
        let status: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status["quota_store"]["up"], false, "{text}");
        assert!(
            status["quota_store"]["why"].as_str().unwrap().contains("check that the store runs"),
            "{text}"
        );
        assert!(metrics.contains("\ngateway_quota_store_lost_total 1\n"), "{metrics}");
        let logged = Arc::into_inner(gate).unwrap().logged().await;
        assert!(!(text + &metrics + &logged).contains(PASSWORD), "{logged}");
        served
    };
    let (strict, closed, share, local) = tokio::join!(
        through(&[PROJECT]),
        through(&[PROJECT, "--quota-outage=closed"]),
        through(&[PROJECT, "--quota-outage=share", "--quota-members=4"]),
        through(&[PROJECT, "--quota-outage=local"]),
    );
    assert_eq!((strict, closed, share, local), (0, 0, 5, 20));
}

#[tokio::test]
async fn a_store_that_dies_is_told_and_found_again() {
    let Some(mut server) = Server::start(&[]).await else { return };
    let world = World::new().await;
    let gate = world.gate(&server.url(), &[PROJECT, "--quota-outage=local"]).await;
    assert_eq!(served(&gate, 2).await, 2);
    server.kill();
    let began = Instant::now();
    assert_eq!(served(&gate, 10).await, 10, "each keeps the whole limit");
    println!("10 without the store in {:?}", Instant::now() - began);
    assert_eq!(status(&gate).await["quota_store"]["up"], false);
    server.run().await;
    for _ in 0..200 {
        if status(&gate).await["quota_store"]["up"] == true {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{}", status(&gate).await);
}

/// A handshake that gets no answer. One that succeeds is not tested here.
#[tokio::test]
async fn a_store_that_does_not_speak_tls_is_lost_and_not_a_panic() {
    let Some(server) = Server::start(&[]).await else { return };
    let world = World::new().await;
    let store = format!("rediss://:{PASSWORD}@127.0.0.1:{}", server.port);
    let gate = world.gate(&store, &[PROJECT, "--quota-outage=local"]).await;
    assert_eq!(served(&gate, 1).await, 1);
    let status = status(&gate).await;
    let why = status["quota_store"]["why"].as_str().unwrap();
    println!("{why}");
    assert!(
        why.starts_with("the quota store failed: ") && !status.to_string().contains(PASSWORD),
        "{status}"
    );
}
