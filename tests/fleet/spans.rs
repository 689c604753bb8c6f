//! Limits over windows of any span, shared: each is exact beside the others, in every unit.

use std::time::Duration;

use tokio::time::Instant;
use tower_gemini::fleet::Fleet;
use tower_gemini::rate_limit::{Images, Limits, Price, Prices, Unit};

use crate::world::{Flaky, Member, Server, burst, members, millis, secs};

/// The most requests, and the most tokens, in any `span`.
fn most(server: &Server, span: Duration) -> (usize, u64) {
    let log = server.log();
    let window = |at: usize| {
        let window = log[at..].iter().take_while(|one| one.0 < log[at].0 + span);
        window.fold((0, 0), |sum, one| (sum.0 + 1, sum.1 + one.2))
    };
    (0..log.len()).map(window).fold((0, 0), |most, one| (most.0.max(one.0), most.1.max(one.1)))
}

#[tokio::test(start_paused = true)]
async fn requests_of_ten_minutes_are_kept_beside_those_of_one() {
    let (server, store) = (Server::default(), Flaky::new());
    let limits = Limits::new().requests_per_minute(60).per(Unit::Requests, 100, secs(600));
    let members = members(4, &server, &store, limits);
    let (good, took) = burst(&members, &[75; 4], 0).await;
    assert_eq!((good, most(&server, secs(60)).0, most(&server, secs(600)).0), (300, 60, 100));
    // 60 and, a minute later, 40; the same ten minutes after each; and new states wait. What one member holds of a span while another one
    // has the minute's permits may cost one minute more.
    let best = secs(2 * 600 + 60) + millis(500 * 3) + secs(7);
    println!("300 at 60 RPM and 100 in 10 minutes: {took:?}, {} messages", store.calls());
    assert!(took <= best.mul_f64(1.06), "{took:?} of {best:?}");
    assert!(store.calls() <= 600, "{} messages", store.calls());
}

/// Each member has all of the limits, whichever is the narrower one.
#[tokio::test(start_paused = true)]
async fn a_span_that_is_shorter_than_a_minute_is_shared() {
    let (server, store) = (Server::default(), Flaky::new());
    let limits = Limits::new().requests_per_minute(60).per(Unit::Requests, 10, secs(5));
    let members = members(3, &server, &store, limits);
    let (good, took) = burst(&members, &[60; 3], 0).await;
    assert_eq!((good, most(&server, secs(60)).0, most(&server, secs(5)).0), (180, 60, 10));
    // Five bursts of ten take 22 s, and a minute more each time.
    let best = Duration::from_millis(2 * 60_500 + 5 * 5_500) + secs(7);
    println!("180 at 60 RPM and 10 in 5 s: {took:?}");
    assert!(took <= best.mul_f64(1.1), "{took:?} of {best:?}");
}

#[tokio::test(start_paused = true)]
async fn images_are_shared_and_what_makes_none_is_not_held() {
    let (server, store) = (Server::default(), Flaky::new());
    let limits = Limits::new().per(Unit::Images, 10, secs(120));
    let members = members(3, &server, &store, limits);
    let mut all = tokio::task::JoinSet::new();
    for at in 0..12 {
        let member = members[at % 3].clone();
        // The log's tokens are the images.
        all.spawn(async move {
            member
                .send_with(3, |request| {
                    request.extensions_mut().insert(Images(3));
                })
                .await
        });
    }
    tokio::time::sleep(secs(60)).await;
    assert_eq!(server.log().len(), 3, "nine images");
    for member in &members {
        let begun = Instant::now();
        // In its turn behind those that wait for images: nobody passes them, so it is asked of one that is idle.
        let idle = Member::new(9, &server, Fleet::new(store.clone()), limits_of_images(), |b| b);
        idle.send_with(0, |request| {
            request.extensions_mut().insert(Images(0));
        })
        .await
        .unwrap();
        assert!(Instant::now() - begun < secs(1));
        drop((idle, member));
    }
    while let Some(one) = all.join_next().await {
        one.unwrap().unwrap();
    }
    let (_, images) = most(&server, secs(120));
    assert_eq!(images, 9);
    let log = server.log();
    let took = log[log.len() - 1].0 - log[0].0;
    assert!(took <= Duration::from_millis(3 * 120_500).mul_f64(1.05), "{took:?}");
}

const fn limits_of_images() -> Limits {
    Limits::new().per(Unit::Images, 10, secs(120))
}

#[tokio::test(start_paused = true)]
async fn money_is_reserved_settled_and_shared() {
    let (server, store) = (Server::default(), Flaky::new());
    let limits = Limits::new().per(Unit::Money, 8_000, secs(600));
    // A dollar a million: a token of the input is a millionth, and what is reserved for an output comes back.
    let prices = || {
        Prices::read_on("2026-11-29").model("gemini-3-flash", Price::per_million(1.0, 4.0)).output_tokens(100)
    };
    let member = |id| Member::new(id, &server, Fleet::new(store.clone()), limits, |b| b.prices(prices()));
    let members = [0, 1, 2].map(member);
    let (good, took) = burst(&members, &[4, 4, 4], 2_000).await;
    let (requests, spent) = most(&server, secs(600));
    println!("money: {good} sent in {took:?}, at most {spent} of 8000 in ten minutes");
    assert!(spent <= 8_000 && requests >= 3, "{spent} by {requests}");
    assert_eq!(good, 12);
    assert!(took <= secs(3 * 601), "{took:?}");
}

/// A limit that is set later is shared from then on, and one that is no longer set is given back.
#[tokio::test(start_paused = true)]
async fn spans_that_are_set_later_are_shared_from_then_on() {
    let (server, store) = (Server::default(), Flaky::new());
    let both = members(2, &server, &store, Limits::new());
    burst(&both, &[1, 1], 0).await;
    let hour = Limits::new().per(Unit::Requests, 10, secs(3_000));
    for member in &both {
        member.handle().set_limits(hour).unwrap();
    }
    let work = tokio::spawn({
        let both = both.clone();
        async move { burst(&both, &[20, 20], 0).await }
    });
    tokio::time::sleep(secs(1_800)).await;
    assert_eq!(server.log().len(), 12);
    for member in &both {
        member.handle().set_limits(Limits::new()).unwrap();
    }
    tokio::time::sleep(secs(20)).await;
    assert_eq!(server.log().len(), 42);
    work.await.unwrap();
    // Who comes now finds what was used of the hour, and nothing that is held.
    let late = Member::new(9, &server, Fleet::new(store.clone()), hour, |b| b);
    let begun = Instant::now();
    late.send(0, None).await.unwrap();
    let waited = Instant::now() - begun;
    assert!((secs(1_100)..secs(1_250)).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn different_spans_are_told_by_their_names() {
    let (server, store) = (Server::default(), Flaky::new());
    let told = std::sync::Arc::new(crate::world::Told::default());
    let member = |id, limit| {
        let observer = std::sync::Arc::clone(&told);
        let limits = Limits::new().per(Unit::Requests, limit, secs(600));
        Member::new(id, &server, Fleet::new(store.clone()), limits, |b| b.observer(observer))
    };
    let both = [member(0, 10), member(1, 6)];
    burst(&both, &[1, 1], 0).await;
    let _ = tokio::time::timeout(secs(300), burst(&both, &[9, 9], 0)).await;
    assert!(most(&server, secs(600)).0 <= 7, "{:?}", most(&server, secs(600)));
    let told = told.0.lock().unwrap();
    assert!(!told.is_empty() && told[0].contains("10m") | told[0].contains("600s"), "{told:?}");
}
