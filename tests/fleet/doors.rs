//! What one member's 429 teaches the others.

use tokio::time::Instant;
use tower_gemini::fleet::Fleet;
use tower_gemini::rate_limit::Limits;

use crate::world::{Flaky, Member, Server, burst, members, millis, secs};

fn refusal(id: &str, value: &str, delay: &str) -> String {
    format!(
        r#"{{"error":{{"code":429,"status":"RESOURCE_EXHAUSTED","message":"quota","details":[
          {{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_requests","quotaId":"{id}","quotaValue":"{value}"}}]}},
          {{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{delay}"}}]}}}}"#
    )
}

const RPM: &str = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier";
const RPD: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";

#[tokio::test(start_paused = true)]
async fn one_429_stops_all_within_a_round_trip() {
    let (server, store) = (Server::default(), Flaky::new());
    let members = members(4, &server, &store, Limits::new().requests_per_minute(6_000));
    burst(&members, &[1; 4], 0).await;
    // A steady stream from the others.
    let stream = {
        let members = members[1..].to_vec();
        tokio::spawn(async move {
            let mut all = tokio::task::JoinSet::new();
            for at in 0..600 {
                let member = members[at % 3].clone();
                all.spawn(async move { member.send(0, None).await.is_ok() });
                tokio::time::sleep(millis(10)).await;
            }
            all.join_all().await;
        })
    };
    tokio::time::sleep(secs(2)).await;
    server.refuse(Some(&refusal(RPM, "6000", "30s")));
    let before = Instant::now();
    members[0].send(0, None).await.unwrap();
    server.refuse(None);
    tokio::time::sleep(secs(20)).await;
    let late = server
        .log()
        .into_iter()
        .filter(|one| one.1 != 0 && one.0 > before + millis(2 + 5) && one.0 < before + secs(20));
    assert_eq!(late.count(), 0);
    stream.await.unwrap();
    let log = server.log();
    let again = log.iter().find(|one| one.0 > before + secs(20)).expect("it goes on afterwards");
    assert!(again.0 >= before + secs(30) && again.0 <= before + secs(33), "{:?}", again.0 - before);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_one_learnt_holds_for_all() {
    let (server, store) = (Server::default(), Flaky::new());
    let members = members(3, &server, &store, Limits::new());
    burst(&members, &[1; 3], 0).await;
    server.refuse(Some(&refusal(RPM, "20", "1s")));
    members[0].send(0, None).await.unwrap();
    server.refuse(None);
    tokio::time::sleep(secs(100)).await;
    let from = server.log().len();
    let work = tokio::spawn({
        let members = members.clone();
        async move { burst(&members, &[100; 3], 0).await }
    });
    tokio::time::sleep(secs(300)).await;
    work.abort();
    let log = server.log().split_off(from);
    let most = (0..log.len())
        .map(|at| log[at..].iter().take_while(|one| one.0 < log[at].0 + secs(60)).count())
        .max();
    assert_eq!(most, Some(20));
    assert!(log.len() >= 80, "{}", log.len());
    // One that joins later knows it, too.
    let newcomer = Member::new(9, &server, Fleet::new(store.clone()), Limits::new(), |b| b);
    let work = tokio::spawn(async move { burst(&[newcomer], &[100], 0).await });
    tokio::time::sleep(secs(120)).await;
    work.abort();
    let log = server.log();
    let most = (from..log.len())
        .map(|at| log[at..].iter().take_while(|one| one.0 < log[at].0 + secs(60)).count())
        .max();
    assert_eq!(most, Some(20));
}

/// A spent day is tested by one request of the whole fleet every five minutes; one success opens it for all.
#[tokio::test(start_paused = true)]
async fn a_closed_door_is_tried_by_one_of_all() {
    let (server, store) = (Server::default(), Flaky::new());
    let members = members(4, &server, &store, Limits::new().requests_per_minute(600));
    burst(&members, &[1; 4], 0).await;
    server.refuse(Some(&refusal(RPD, "1000", "10s")));
    members[0].send(0, None).await.unwrap();
    tokio::time::sleep(secs(1)).await;
    let from = server.log().len();
    for member in &members {
        assert!(member.send(0, None).await.is_err(), "refused at once");
    }
    assert_eq!(server.log().len(), from);
    // Everybody asks all the time.
    let ask = async |for_secs: u64| {
        for _ in 0..for_secs {
            for member in &members {
                let _ = member.send(0, Some(millis(900))).await;
            }
            tokio::time::sleep(secs(1)).await;
        }
    };
    ask(1_000).await;
    let probes = server.log().len() - from;
    assert!((2..=4).contains(&probes), "{probes}");
    server.refuse(None);
    ask(320).await;
    let good = server.log().len() - from - probes;
    assert!(good > 4, "{good}: it is open for all");
    let (good, took) = burst(&members, &[5; 4], 0).await;
    assert_eq!(good, 20);
    assert!(took < secs(1));
}
