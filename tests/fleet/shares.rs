//! Who gets what, how fast, and at what cost.

use tower_gemini::fleet::Fleet;
use tower_gemini::rate_limit::Limits;

use crate::world::{Flaky, Member, Server, burst, members, millis, secs};

fn rpm(limit: u64) -> Limits {
    Limits::new().requests_per_minute(limit)
}

#[tokio::test(start_paused = true)]
async fn eight_members_together_keep_the_limit_and_lose_next_to_no_time() {
    let (server, store) = (Server::default(), Flaky::new());
    let members = members(8, &server, &store, rpm(60));
    let (good, took) = burst(&members, &[75; 8], 0).await;
    assert_eq!((good, server.most_in_a_minute().0), (600, 60));
    // 60 at once, and as many after each of nine minutes. A new state waits two seconds.
    let best = secs(9 * 60) + secs(2);
    assert!(took <= best.mul_f64(1.02), "{took:?} of {best:?}");
    let calls = store.calls() as f64 / 600.0;
    println!(
        "8 x 75 at 60 RPM: {took:?}, {:.4} of the optimum, {calls:.3} round trips a permit",
        took.as_secs_f64() / best.as_secs_f64()
    );
    assert!(calls <= 1.0, "{calls} round trips a permit");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_busy_has_nearly_all_of_it() {
    let (server, store) = (Server::default(), Flaky::new());
    let members = members(8, &server, &store, rpm(60));
    let (good, took) = burst(&members, &[593, 1, 1, 1, 1, 1, 1, 1], 0).await;
    assert_eq!((good, server.most_in_a_minute().0), (600, 60));
    let best = secs(9 * 60) + secs(2);
    println!("hot and idle: {took:?}, {:.4}", took.as_secs_f64() / best.as_secs_f64());
    assert!(took <= best.mul_f64(1.05), "{took:?} of {best:?}");
}

#[tokio::test(start_paused = true)]
async fn at_a_high_rate_most_permits_cost_no_message() {
    let (server, store) = (Server::default(), Flaky::new());
    let members = members(8, &server, &store, rpm(600));
    let (good, took) = burst(&members, &[600; 8], 0).await;
    assert_eq!((good, server.most_in_a_minute().0), (4_800, 600));
    let best = secs(7 * 60) + secs(2);
    let calls = store.calls() as f64 / 4_800.0;
    println!(
        "8 x 600 at 600 RPM: {took:?}, {:.4}, {calls:.3} round trips a permit",
        took.as_secs_f64() / best.as_secs_f64()
    );
    assert!(took <= best.mul_f64(1.02), "{took:?} of {best:?}");
    assert!(calls <= 0.1, "{calls} round trips a permit");
}

/// Requests that come one by one, at four fifths of the limit, wait for next to nothing.
#[tokio::test(start_paused = true)]
async fn a_steady_load_below_the_limit_does_not_wait() {
    for (limit, most_calls) in [(60, 1.5), (600, 0.4)] {
        let (server, store) = (Server::default(), Flaky::new());
        let members = members(4, &server, &store, rpm(limit));
        burst(&members, &[1; 4], 0).await;
        let pause = secs(60).div_f64(limit as f64 * 0.8);
        let count = limit * 4;
        let before = store.calls();
        let mut all = tokio::task::JoinSet::new();
        for at in 0..count {
            let member = members[at as usize % 4].clone();
            all.spawn(async move {
                let begun = tokio::time::Instant::now();
                member.send(0, None).await.unwrap();
                tokio::time::Instant::now() - begun
            });
            tokio::time::sleep(pause).await;
        }
        let mut waits = all.join_all().await;
        waits.sort();
        let calls = (store.calls() - before) as f64 / count as f64;
        let p99 = waits[waits.len() * 99 / 100];
        println!(
            "steady at {limit} RPM: p99 {p99:?}, worst {:?}, {calls:.3} round trips a permit",
            waits[waits.len() - 1]
        );
        assert!(server.most_in_a_minute().0 <= limit as usize);
        assert!(p99 <= millis(200), "{p99:?} at {limit}");
        assert!(calls <= most_calls, "{calls} round trips a permit at {limit}");
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_are_shared_as_exactly() {
    let (server, store) = (Server::default(), Flaky::new());
    let limits = rpm(1_000).input_tokens_per_minute(10_000);
    let members = members(4, &server, &store, limits);
    let (good, took) = burst(&members, &[40, 40, 10, 10], 700).await;
    let (_, tokens) = server.most_in_a_minute();
    assert_eq!(good, 100);
    // 14 of 700 in a minute: seven minutes after the first 14, and two seconds for a new state.
    assert!((9_000..=10_000).contains(&tokens), "{tokens}");
    assert!(took <= secs(7 * 60 + 2).mul_f64(1.05), "{took:?}");
}

/// A prompt that is larger than half of the limit is not starved by small ones of others.
#[tokio::test(start_paused = true)]
async fn a_large_prompt_gets_its_turn() {
    let (server, store) = (Server::default(), Flaky::new());
    let members = members(3, &server, &store, Limits::new().input_tokens_per_minute(10_000));
    let small = {
        let members = members[..2].to_vec();
        tokio::spawn(async move { burst(&members, &[200, 200], 100).await })
    };
    tokio::time::sleep(secs(90)).await;
    let begun = tokio::time::Instant::now();
    members[2].send(9_000, None).await.unwrap();
    let waited = tokio::time::Instant::now() - begun;
    assert!(waited <= secs(240), "{waited:?}");
    small.await.unwrap();
    assert!(server.most_in_a_minute().1 <= 10_000);
}

#[tokio::test(start_paused = true)]
async fn weights_divide_what_there_is() {
    let (server, store) = (Server::default(), Flaky::new());
    let weight =
        |id, weight| Member::new(id, &server, Fleet::new(store.clone()).weight(weight), rpm(60), |b| b);
    let both = [weight(0, 4), weight(1, 1)];
    let work = tokio::spawn({
        let both = both.to_vec();
        async move { burst(&both, &[600, 600], 0).await }
    });
    tokio::time::sleep(secs(600)).await;
    work.abort();
    let log = server.log();
    let later: Vec<_> = log.iter().filter(|one| one.0 > log[0].0 + secs(120)).collect();
    let first = later.iter().filter(|one| one.1 == 0).count();
    let share = first as f64 / later.len() as f64;
    assert!((0.7..=0.9).contains(&share), "{share} of {}", later.len());
}

/// The day is one for all, by the store's clock, and fails at once when it is spent.
#[tokio::test(start_paused = true)]
async fn a_day_is_shared() {
    let (server, store) = (Server::default(), Flaky::new());
    let members = members(3, &server, &store, rpm(1_000).requests_per_day(50));
    let (good, _) = burst(&members, &[20, 20, 20], 0).await;
    assert_eq!((good, server.log().len()), (50, 50));
    let error = members[0].send(0, None).await.unwrap_err();
    let limited = tower_gemini::error::find::<tower_gemini::rate_limit::RateLimited>(error.as_ref()).unwrap();
    assert_eq!(limited.why(), tower_gemini::rate_limit::RateLimitReason::Spent);
    assert!(limited.until().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_is_dropped_gives_everything_back_and_its_task_ends() {
    let (server, store) = (Server::default(), Flaky::new());
    let mut two = members(2, &server, &store, rpm(60));
    burst(&two, &[20, 20], 0).await;
    tokio::time::sleep(secs(30)).await;
    burst(&two, &[5, 5], 0).await;
    let status = two[0].handle().status()[0].clone();
    let fleet = status.fleet.clone().unwrap();
    assert_eq!((fleet.members, fleet.is_lost), (2, false));
    assert!(fleet.part.requests > 0, "{status}");
    assert!(status.to_string().contains("2 in the fleet"), "{status}");
    drop(two.pop());
    tokio::time::sleep(secs(65)).await;
    // The other one may have all of it.
    let (good, took) = burst(&two, &[60], 0).await;
    assert_eq!(good, 60);
    assert!(took < secs(1), "{took:?}");
    drop(two);
    tokio::time::sleep(secs(5)).await;
    let calls = store.calls();
    tokio::time::sleep(secs(3_600)).await;
    assert_eq!(store.calls(), calls, "nobody asks any more");
}

/// A message is under way when the layer is dropped: what it tells is not charged twice.
#[tokio::test(start_paused = true)]
async fn a_layer_that_is_dropped_while_it_asks_gives_everything_back() {
    let (server, store) = (Server::default(), Flaky::new());
    let mut two = members(2, &server, &store, rpm(10));
    burst(&two[1..], &[5], 0).await;
    store.delay(millis(100));
    let one = two.pop().unwrap();
    let sixth = tokio::spawn(async move { one.send(0, None).await });
    tokio::time::sleep(millis(150)).await;
    sixth.abort();
    tokio::time::sleep(millis(500)).await;
    let (good, took) = burst(&two, &[5], 0).await;
    assert_eq!((good, server.log().len()), (5, 10));
    assert!(took < secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_idle_asks_nothing() {
    let (server, store) = (Server::default(), Flaky::new());
    let members = members(2, &server, &store, rpm(60));
    burst(&members, &[60, 60], 0).await;
    tokio::time::sleep(secs(300)).await;
    let calls = store.calls();
    tokio::time::sleep(secs(3_600)).await;
    assert_eq!(store.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn different_limits_are_told_and_the_lowest_counts() {
    let (server, store) = (Server::default(), Flaky::new());
    let told = std::sync::Arc::new(crate::world::Told::default());
    let member = |id, limit| {
        let observer = std::sync::Arc::clone(&told);
        Member::new(id, &server, Fleet::new(store.clone()), rpm(limit), |b| b.observer(observer))
    };
    let both = [member(0, 60), member(1, 40)];
    burst(&both, &[1, 1], 0).await;
    burst(&both, &[60, 60], 0).await;
    assert!(server.most_in_a_minute().0 <= 41, "{:?}", server.most_in_a_minute());
    let told = told.0.lock().unwrap();
    assert_eq!(told.len(), 2, "once by each: {told:?}");
    assert!(told[0].starts_with("differ"), "{told:?}");
}

/// What is waited for goes first, and what may wait is not starved: eight to one, at one member and between members.
#[tokio::test(start_paused = true)]
async fn interactive_requests_go_before_batch_ones() {
    use tower_gemini::RequestClass::{Batch, Interactive};
    for together in [true, false] {
        let (server, store) = (Server::default(), Flaky::new());
        let both = members(2, &server, &store, rpm(60));
        let night = both[usize::from(!together)].clone();
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..600 {
            let night = night.clone();
            all.spawn(async move { night.send_as(Batch, 2).await });
        }
        tokio::time::sleep(secs(5)).await;
        for _ in 0..600 {
            let day = both[0].clone();
            all.spawn(async move { day.send_as(Interactive, 1).await });
        }
        tokio::time::sleep(secs(600)).await;
        let from = server.log()[0].0 + secs(120);
        let log: Vec<_> = server.log().into_iter().filter(|one| one.0 > from).collect();
        let batch = log.iter().filter(|one| one.2 == 2).count();
        let share = batch as f64 / log.len() as f64;
        println!("together {together}: {batch} of {}", log.len());
        assert!((0.07..=0.17).contains(&share), "{batch} of {}", log.len());
        assert!(server.most_in_a_minute().0 <= 60 && log.len() >= 420, "{}", log.len());
    }
}
