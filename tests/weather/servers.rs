//! The parts of the server that the weather adds do what the scenarios' README says.

use std::time::Duration;

use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};
use tower::Service;

use crate::quota::{Counting, Meters, Quota};
use crate::server::{
    ALWAYS, Answer, Call, Down, Fault, Model, Pool, Server, Sharing, Streams, Tail, Trouble,
};
use crate::storm::client::Job;
use crate::storm::tower::request;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn trouble(fault: Fault) -> Trouble {
    Trouble {
        fault,
        share: 1.0,
        when: ALWAYS,
        spells: None,
        after: Duration::ZERO,
        tenant: None,
        model: None,
        place: None,
    }
}

fn start(model: Model) -> Server {
    Server::start(Model { paired: true, ..model }, 1)
}

/// The end of each of so many calls that come at once, in seconds.
async fn ends(server: &Server, calls: usize) -> Vec<f64> {
    let start = Instant::now();
    let calls = (0..calls).map(|request| {
        let answer = server.answer(Call { request, ..Call::default() });
        async move {
            answer.await.unwrap();
            (Instant::now() - start).as_secs_f64()
        }
    });
    futures_util::future::join_all(calls).await
}

#[tokio::test(start_paused = true)]
async fn workers_take_calls_from_one_queue_in_their_order() {
    let pool = Pool { workers: 3, each: secs(2), sigma: 0.0 };
    let server = start(Model { pool: Some(pool), ..Model::default() });
    assert_eq!(ends(&server, 7).await, [2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 6.0]);
    assert_eq!(server.tasks(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_pool_works_on_for_those_who_left_unless_it_drops_them() {
    for (drops, end) in [(false, 6.0), (true, 3.0)] {
        let pool = Pool { workers: 1, each: secs(2), sigma: 0.0 };
        let server = start(Model { pool: Some(pool), drops, ..Model::default() });
        let began = Instant::now();
        // One is being worked on and one is queued, and both leave after a second.
        let (one, two) = (server.answer(Call::default()), server.answer(Call::default()));
        assert!(timeout(secs(1), async { tokio::join!(one, two) }).await.is_err());
        server.answer(Call::default()).await.unwrap();
        assert_eq!((Instant::now() - began).as_secs_f64(), end, "drops: {drops}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_share_a_server_are_each_the_slower_the_more_there_are() {
    let model = Model { latency: secs(2), sharing: Some(Sharing { at_once: 2.0 }), ..Model::default() };
    let server = start(model.clone());
    let alone = ends(&server, 2).await;
    assert!(alone.iter().all(|end| (end - 2.0).abs() < 0.01), "{alone:?}");
    let crowd = ends(&server, 8).await;
    assert!(crowd.iter().all(|end| (end - 8.0).abs() < 0.01), "a quarter of the pace each: {crowd:?}");
    let falling = ends(&start(Model { falling: 0.5, ..model }), 4).await;
    assert!(falling.iter().all(|end| (end - 8.0).abs() < 0.01), "half, and half of that: {falling:?}");
}

#[tokio::test(start_paused = true)]
async fn work_that_is_dropped_makes_room_for_the_others() {
    for (drops, end) in [(false, 6.0), (true, 4.0)] {
        let model =
            Model { latency: secs(2), sharing: Some(Sharing { at_once: 1.0 }), drops, ..Model::default() };
        let server = start(model);
        let began = Instant::now();
        let others: Vec<_> = (0..2).map(|_| server.answer(Call::default())).collect();
        let stays = server.answer(Call::default());
        let stays = tokio::spawn(async move {
            stays.await.unwrap();
            (Instant::now() - began).as_secs_f64()
        });
        assert!(timeout(secs(3), futures_util::future::join_all(others)).await.is_err());
        let ended = stays.await.unwrap();
        assert!((ended - end).abs() < 0.01, "drops: {drops}: one second of work in three, and then: {ended}");
    }
}

#[tokio::test(start_paused = true)]
async fn troubles_hit_a_share_at_their_time_and_their_tenant_and_model_alone() {
    let when = Down { from: secs(10), until: secs(20), every: Some(secs(30)) };
    let server = start(Model {
        troubles: vec![
            Trouble { when, after: secs(1), ..trouble(Fault::Overloaded) },
            Trouble { tenant: Some(3), ..trouble(Fault::Status(504)) },
            Trouble { model: Some(1), ..trouble(Fault::Capacity) },
        ],
        ..Model::default()
    });
    let status = async |call: Call| server.answer(call).await.unwrap().status;
    let began = Instant::now();
    assert_eq!(status(Call::default()).await, 200);
    assert_eq!(status(Call { tenant: 3, ..Call::default() }).await, 504);
    assert_eq!(status(Call { model: 1, ..Call::default() }).await, 429);
    for (at, expected) in [(10, 503), (25, 200), (45, 503)] {
        tokio::time::sleep_until(began + secs(at)).await;
        let sent = Instant::now();
        assert_eq!(status(Call::default()).await, expected, "after {at} s");
        let took = Instant::now() - sent;
        assert_eq!(took, if expected == 503 { secs(1) } else { Duration::from_millis(500) });
    }
}

#[tokio::test(start_paused = true)]
async fn spells_take_their_part_of_the_time_and_shares_theirs_of_the_calls() {
    let spells = Trouble { spells: Some((30.0, 10.0)), ..trouble(Fault::Status(503)) };
    let share = Trouble { share: 0.2, ..trouble(Fault::Status(500)) };
    for (each, expected, allowed) in [(spells, 0.25, 0.05), (share, 0.2, 0.02)] {
        let server = start(Model { troubles: vec![each], latency: Duration::ZERO, ..Model::default() });
        let mut failed = 0;
        for request in 0..10_000 {
            tokio::time::sleep(secs(2)).await;
            let answer = server.answer(Call { request, ..Call::default() }).await.unwrap();
            failed += u32::from(answer.status != 200);
        }
        let failed = f64::from(failed) / 10_000.0;
        assert!((failed - expected).abs() < allowed, "{failed} where {expected} are meant");
    }
}

#[tokio::test(start_paused = true)]
async fn the_luck_of_a_call_is_that_of_its_request_and_attempt() {
    let model =
        Model { tail: Some(Tail { sigma: 1.0, share: 0.1, factor: 10.0 }), errors: 0.5, ..Model::default() };
    let fate = async |server: &Server, request| {
        let began = Instant::now();
        let Answer { status, .. } = server.answer(Call { request, ..Call::default() }).await.unwrap();
        (status, Instant::now() - began)
    };
    let (one, two) = (start(model.clone()), start(model));
    let first = [fate(&one, 1).await, fate(&one, 1).await, fate(&one, 2).await];
    // In another order, as another client would.
    let second = fate(&two, 2).await;
    assert_eq!([fate(&two, 1).await, fate(&two, 1).await, second], first);
    assert_ne!(first[0].1, first[1].1, "another attempt is other luck");
}

#[tokio::test(start_paused = true)]
async fn a_stream_comes_event_by_event_or_falls_silent() {
    for stalls in [0.0, 1.0] {
        let streams = Streams { lasts: secs(9), sigma: 0.0, events: 10, stalls };
        let mut server = start(Model { streams: Some(streams), ..Model::default() });
        let deadline = Instant::now() + secs(600);
        let job = Job {
            deadline,
            tokens: None,
            known: None,
            bytes: 43,
            request: 1,
            tenant: 0,
            labelled: false,
            streams: true,
            models: 1,
        };
        let mut response = server.call(request(job)).await.unwrap();
        let began = Instant::now();
        let mut events = Vec::new();
        while let Ok(Some(frame)) = timeout(secs(60), response.frame()).await {
            events.push((frame.unwrap().into_data().unwrap(), (Instant::now() - began).as_secs()));
        }
        if stalls == 0.0 {
            assert_eq!(events.iter().map(|(_, at)| *at).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
            assert!(std::str::from_utf8(&events[9].0).unwrap().contains("STOP"));
        } else {
            assert!((1..10).contains(&events.len()), "{} events", events.len());
        }
    }
}

#[test]
fn strangers_use_a_quota_and_changes_move_its_limit() {
    let quota = Quota {
        rpm: Some(60),
        tpm: None,
        counting: Counting::Sliding,
        rpd: None,
        named: true,
        strangers: None,
        changes: Vec::new(),
    };
    // Of two calls a second for an hour, those that are admitted. They come out of step, or each would find the place
    // that the one a minute before it has just left.
    let admitted = |quota: &Quota| {
        let mut meters = Meters::new(quota);
        let times = (0..7200_u64).map(|n| Duration::from_millis(500 * n + n * 7919 % 500));
        times.filter(|at| meters.admit(*at, 0).is_ok()).count()
    };
    assert_eq!(admitted(&quota), 3600);
    let shared = admitted(&Quota { strangers: Some((1.0, 0)), ..quota.clone() });
    assert!((2100..2700).contains(&shared), "two callers to one stranger: {shared}");
    let changed = admitted(&Quota { changes: vec![(secs(1800), 0.5)], ..quota });
    assert!((2670..=2760).contains(&changed), "half of the limit for half of the time: {changed}");
}
