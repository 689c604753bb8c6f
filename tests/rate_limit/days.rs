//! The Pacific day, spent and absent quotas, and what outlives the process.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http::Request;
use tokio::time::{Instant, sleep, sleep_until};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::error::find;
use tower_gemini::event::{Event, Observer};
use tower_gemini::rate_limit::{
    AdmissionMode, LimitKind, Limits, Pool, QuotaKey, RateLimitBuilder, RateLimitLayer, RateLimitReason,
    RateLimited, Snapshot, SnapshotError,
};
use tower_gemini::request::Target;
use tower_gemini::sim::{Fault, Quota, Rule, Simulator};
use tower_gemini::{Deadline, KeyLabel};

use crate::support::Body;
use crate::world::{MODEL, prompt, secs, simulator};

/// A calendar that follows tokio's clock from this instant on, and can be set.
#[derive(Clone)]
struct Wall {
    from: SystemTime,
    since: Instant,
    set_by: Arc<AtomicI64>,
}

impl Wall {
    fn at(instant: &str) -> Self {
        let from: jiff::Timestamp = instant.parse().unwrap();
        Self { from: from.into(), since: Instant::now(), set_by: Arc::default() }
    }

    fn read(&self) -> SystemTime {
        let passed = self.from + (Instant::now() - self.since);
        let by = self.set_by.load(Ordering::Relaxed);
        let set = Duration::from_secs(by.unsigned_abs());
        if by < 0 { passed - set } else { passed + set }
    }
}

fn daily(limit: u64, wall: &Wall) -> RateLimitBuilder {
    let wall = wall.clone();
    RateLimitLayer::builder().limits(Limits::new().requests_per_day(limit)).wall_clock(move || wall.read())
}

fn limited(error: &BoxError) -> RateLimited {
    find::<RateLimited>(error.as_ref()).expect("it was rate limited").clone()
}

/// Status, or why not.
async fn ask(sim: &Simulator, layer: &RateLimitLayer) -> Result<u16, RateLimited> {
    send(sim, layer, prompt(1)).await
}

async fn send(sim: &Simulator, layer: &RateLimitLayer, request: Request<Body>) -> Result<u16, RateLimited> {
    let service = ServiceBuilder::new().layer(layer.clone()).layer(ClassifyLayer::new()).service(sim.clone());
    let response = service.oneshot(request).await.map_err(|error| limited(&error))?;
    Ok(response.status().as_u16())
}

#[tokio::test(start_paused = true)]
async fn a_spent_day_fails_at_once_and_says_when_it_ends() {
    // Six hours before midnight, on an ordinary day and on the two odd ones; and at their beginnings.
    for (now, hours) in [
        ("2026-07-02T01:00:00Z", 6),
        ("2026-07-01T07:00:00Z", 24),
        ("2026-11-01T07:00:00Z", 25),
        ("2026-03-08T08:00:00Z", 23),
    ] {
        let sim = simulator(Quota::new());
        let layer = daily(3, &Wall::at(now)).build().unwrap();
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(ask(&sim, &layer).await.unwrap(), 200);
        }
        let spent = Instant::now();
        let error = ask(&sim, &layer).await.unwrap_err();
        assert_eq!(Instant::now(), spent, "at once");
        assert_eq!((error.why(), error.dimension()), (RateLimitReason::Spent, LimitKind::RequestsPerDay));
        let reset = error.until().unwrap();
        assert_eq!(reset - start, secs(hours * 3600) + Duration::from_millis(500), "{now}: and the guard");
        // One request a second, all day long: none of them goes.
        for hour in 0..hours {
            sleep_until(start + secs(hour * 3600 + 1800)).await;
            assert_eq!(ask(&sim, &layer).await.unwrap_err().until(), Some(reset));
        }
        assert_eq!(sim.call_count(), 3);
        sleep_until(start + secs(hours * 3600 + 1)).await;
        assert_eq!(ask(&sim, &layer).await.unwrap(), 200, "{now}: one second after midnight");
        assert_eq!(layer.handle().status()[0].requests_today, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_behind_midnight_waits_for_it() {
    let sim = simulator(Quota::new());
    let layer = daily(1, &Wall::at("2026-07-02T06:59:30Z")).build().unwrap();
    let start = Instant::now();
    ask(&sim, &layer).await.unwrap();
    let mut patient = prompt(1);
    patient.extensions_mut().insert(Deadline::at(start + secs(60)));
    assert_eq!(send(&sim, &layer, patient).await.unwrap(), 200);
    assert_eq!((Instant::now() - start).as_millis(), 30_500 + 2_000);
}

#[tokio::test(start_paused = true)]
async fn one_daily_429_teaches_all_and_a_probe_heals_it() {
    // Google's own delay for a spent day is the time to the next minute. Nobody is to believe it.
    let quota = Quota::new().requests_per_day(2).short_daily_delay();
    let sim = simulator(quota);
    let wall = Wall::at("2026-07-02T01:00:00Z");
    let clock = wall.clone();
    let layer = RateLimitLayer::builder().wall_clock(move || clock.read()).build().unwrap();
    let start = Instant::now();
    for _ in 0..2 {
        assert_eq!(ask(&sim, &layer).await.unwrap(), 200);
    }
    assert_eq!(ask(&sim, &layer).await.unwrap(), 429);
    let closed = Instant::now();
    for n in 0..299 {
        sleep_until(closed + secs(n)).await;
        let error = ask(&sim, &layer).await.unwrap_err();
        assert_eq!(error.why(), RateLimitReason::Spent);
        assert_eq!((error.until().unwrap() - start).as_secs(), 6 * 3600);
    }
    assert_eq!(sim.call_count(), 3, "one call was wasted");
    let status = &layer.handle().status()[0];
    assert_eq!(status.limits.of(LimitKind::RequestsPerDay), Some(2), "learnt");
    assert_eq!(status.closed[0].0, LimitKind::RequestsPerDay);
    // After five minutes one of many may try, and is refused again.
    sleep_until(closed + secs(301)).await;
    let crowd: Vec<_> = futures_util::future::join_all((0..20).map(|_| ask(&sim, &layer))).await;
    assert_eq!(crowd.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(sim.call_count(), 4);
    // The server was wrong, or the tier was raised: the next probe opens the door for all.
    sim.set_quota(MODEL, None);
    sleep_until(closed + secs(610)).await;
    assert_eq!(ask(&sim, &layer).await.unwrap(), 200);
    layer.handle().set_limits(Limits::new()).unwrap();
    for _ in 0..10 {
        assert_eq!(ask(&sim, &layer).await.unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_through_midnight_begins_the_new_day() {
    let sim = simulator(Quota::new().requests_per_day(1));
    let wall = Wall::at("2026-07-02T01:00:00Z");
    let clock = wall.clone();
    let layer = RateLimitLayer::builder().wall_clock(move || clock.read()).build().unwrap();
    assert_eq!(ask(&sim, &layer).await.unwrap(), 200);
    assert_eq!(ask(&sim, &layer).await.unwrap(), 429);
    assert_eq!(ask(&sim, &layer).await.unwrap_err().why(), RateLimitReason::Spent);
    // The steady clock stood still meanwhile; the calendar is looked at once a minute.
    wall.set_by.store(8 * 3600, Ordering::Relaxed);
    sim.set_quota(MODEL, None);
    sleep(secs(61)).await;
    assert_eq!(ask(&sim, &layer).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_quota_of_zero_fails_fast_until_a_probe_is_welcome() {
    let sim = simulator(Quota::new().requests_per_minute(0));
    let layer = RateLimitLayer::builder().probe_every(secs(60)).build().unwrap();
    assert_eq!(ask(&sim, &layer).await.unwrap(), 429);
    let closed = Instant::now();
    let error = ask(&sim, &layer).await.unwrap_err();
    assert_eq!(error.why(), RateLimitReason::Zero);
    // Nobody knows when it ends; the next probe is the next chance.
    assert_eq!(error.until().unwrap() - closed, secs(60));
    assert_eq!(layer.handle().status()[0].closed, [(LimitKind::RequestsPerMinute, None)]);
    sim.set_quota(MODEL, None);
    sleep(secs(60)).await;
    assert_eq!(ask(&sim, &layer).await.unwrap(), 200);
    assert_eq!(ask(&sim, &layer).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_was_never_sent_gives_its_turn_back() {
    let sim = simulator(Quota::new().requests_per_minute(0));
    let layer = RateLimitLayer::builder().probe_every(secs(60)).build().unwrap();
    assert_eq!(ask(&sim, &layer).await.unwrap(), 429);
    sim.set_quota(MODEL, None);
    sleep(secs(60)).await;
    let mut service = layer.layer(ClassifyLayer::new().layer(sim.clone()));
    // The turn is taken in `call`, and the future is dropped before it is polled.
    drop(ServiceExt::<Request<Body>>::ready(&mut service).await.unwrap().call(prompt(1)));
    assert_eq!(ask(&sim, &layer).await.unwrap(), 200, "the next one has it");
    assert_eq!(ask(&sim, &layer).await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_door_can_be_opened_by_hand() {
    let sim = simulator(Quota::new().requests_per_minute(0));
    let layer = RateLimitLayer::default();
    assert_eq!(ask(&sim, &layer).await.unwrap(), 429);
    assert!(ask(&sim, &layer).await.is_err());
    sim.set_quota(MODEL, None);
    let request = prompt(1);
    let key = QuotaKey::of(&Target::of(&request));
    assert_eq!(key.pool(), Pool::Generate);
    layer.handle().reopen(&key);
    assert_eq!(ask(&sim, &layer).await.unwrap(), 200);
    assert!(layer.handle().status_of(&key).unwrap().closed.is_empty());
}

// ===== the clock =====

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_loses_no_count_and_moves_no_minute() {
    let sim = simulator(Quota::new());
    let wall = Wall::at("2026-07-02T06:30:00Z");
    let clock = wall.clone();
    let layer = RateLimitLayer::builder()
        .limits(Limits::new().requests_per_day(10).requests_per_minute(2))
        .wall_clock(move || clock.read())
        .build()
        .unwrap();
    let today = || layer.handle().status()[0].requests_today;
    let start = Instant::now();
    ask(&sim, &layer).await.unwrap();
    ask(&sim, &layer).await.unwrap();
    // An hour ahead: it is another day now, and the minute is what it was.
    wall.set_by.store(3600, Ordering::Relaxed);
    assert_eq!(ask(&sim, &layer).await.unwrap(), 200);
    assert_eq!((Instant::now() - start).as_millis(), 62_500);
    sleep(secs(61)).await;
    assert_eq!(today(), 1, "July the second had begun when it went");
    ask(&sim, &layer).await.unwrap();
    // Set right again: the first of July has its three calls back, and the one that was made since.
    wall.set_by.store(0, Ordering::Relaxed);
    sleep(secs(61)).await;
    assert_eq!(today(), 4);
    sleep(secs(30 * 60)).await;
    assert_eq!(today(), 0);
}

#[tokio::test(start_paused = true)]
async fn days_pass_in_paused_time_without_a_calendar_of_ones_own() {
    let sim = simulator(Quota::new());
    let layer = RateLimitLayer::new(Limits::new().requests_per_day(1)).unwrap();
    ask(&sim, &layer).await.unwrap();
    let until = ask(&sim, &layer).await.unwrap_err().until().unwrap();
    assert!(until - Instant::now() <= secs(25 * 3600 + 1));
    sleep_until(until).await;
    assert_eq!(ask(&sim, &layer).await.unwrap(), 200);
}

// ===== snapshots =====

#[tokio::test(start_paused = true)]
async fn a_days_count_outlives_the_process() {
    let sim = simulator(Quota::new());
    let wall = Wall::at("2026-07-01T20:00:00Z");
    let first = daily(10, &wall).build().unwrap();
    for _ in 0..4 {
        ask(&sim, &first).await.unwrap();
    }
    let mut labelled = prompt(1);
    labelled.extensions_mut().insert(KeyLabel::new("AIzaSyNotALabelButAKey"));
    send(&sim, &first, labelled).await.unwrap();
    let saved = serde_json::to_string(&first.handle().snapshot()).unwrap();
    assert!(!saved.contains("AIzaSy"), "{saved}");

    let second = daily(10, &wall).build().unwrap();
    ask(&sim, &second).await.unwrap();
    let snapshot: Snapshot = serde_json::from_str(&saved).unwrap();
    let restored = second.handle().restore(&snapshot).unwrap();
    assert_eq!((restored.keys, restored.stale), (2, 0));
    let today = |layer: &RateLimitLayer| layer.handle().status()[0].requests_today;
    assert_eq!(today(&second), 5, "one live, four restored");
    second.handle().restore(&snapshot).unwrap();
    assert_eq!(today(&second), 5, "restoring twice counts once");
    // Its own snapshot is here already.
    let own = second.handle().snapshot();
    second.handle().restore(&own).unwrap();
    assert_eq!(today(&second), 5);
    // A third process begins with all of them, for keys that it meets later.
    let third = daily(10, &wall).build().unwrap();
    third.handle().restore(&own).unwrap();
    assert_eq!(third.handle().snapshot().clone(), {
        let mut value = serde_json::to_value(&own).unwrap();
        value["source"] = serde_json::to_value(third.handle().snapshot()).unwrap()["source"].clone();
        serde_json::from_value::<Snapshot>(value).unwrap()
    });
    for _ in 0..5 {
        ask(&sim, &third).await.unwrap();
    }
    assert_eq!(ask(&sim, &third).await.unwrap_err().why(), RateLimitReason::Spent);
}

/// A quota of three that a 429 has named: the next process asks three times, and not a fourth time in vain; on another day, too.
#[tokio::test(start_paused = true)]
async fn what_a_429_has_taught_outlives_the_process() {
    let sim = simulator(Quota::new().requests_per_minute(3));
    let wall = Wall::at("2026-07-01T20:00:00Z");
    let layer = || {
        let wall = wall.clone();
        let builder = RateLimitLayer::builder().wall_clock(move || wall.read());
        builder.mode(AdmissionMode::Reject).build().unwrap()
    };
    let first = layer();
    let mut asked = Vec::new();
    for _ in 0..4 {
        asked.push(ask(&sim, &first).await.unwrap());
    }
    assert_eq!(asked, [200, 200, 200, 429]);
    let limit = |layer: &RateLimitLayer| layer.handle().status()[0].limits.of(LimitKind::RequestsPerMinute);
    assert_eq!(limit(&first), Some(3));
    let saved = serde_json::to_string(&first.handle().snapshot()).unwrap();
    tokio::time::advance(Duration::from_secs(120)).await;
    for saved in [saved.clone(), saved.replace("2026-07-01", "2026-06-30")] {
        let next = layer();
        next.handle().restore(&serde_json::from_str(&saved).unwrap()).unwrap();
        let before = sim.call_count();
        for _ in 0..3 {
            assert_eq!(ask(&sim, &next).await.unwrap(), 200);
        }
        assert_eq!(limit(&next), Some(3));
        assert!(ask(&sim, &next).await.is_err());
        assert_eq!(sim.call_count(), before + 3, "the fourth was not sent");
        tokio::time::advance(Duration::from_secs(120)).await;
    }
    // A snapshot of before says nothing of it.
    let old = saved.replace(r#""version":2"#, r#""version":1"#).replace(r#","learnt":[3,null,null]"#, "");
    assert!(!old.contains("learnt"), "{old}");
    assert_eq!(layer().handle().restore(&serde_json::from_str(&old).unwrap()).unwrap().keys, 1);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_of_another_day_or_a_damaged_one_changes_nothing() {
    let sim = simulator(Quota::new());
    let wall = Wall::at("2026-07-01T20:00:00Z");
    let layer = daily(10, &wall).build().unwrap();
    ask(&sim, &layer).await.unwrap();
    let handle = layer.handle();
    let saved = serde_json::to_value({
        let yesterday = daily(10, &Wall::at("2026-06-30T20:00:00Z")).build().unwrap();
        ask(&sim, &yesterday).await.unwrap();
        yesterday.handle().snapshot()
    })
    .unwrap();
    let stale: Snapshot = serde_json::from_value(saved.clone()).unwrap();
    let restored = handle.restore(&stale).unwrap();
    assert_eq!((restored.keys, restored.stale), (0, 1));

    let with = |path: &str, value: serde_json::Value| {
        let mut saved = saved.clone();
        *saved.pointer_mut(path).unwrap() = value;
        serde_json::from_value::<Snapshot>(saved)
    };
    let refused = |path, value| handle.restore(&with(path, value).unwrap()).unwrap_err();
    assert!(matches!(refused("/version", 7.into()), SnapshotError::Version { found: 7, .. }));
    let field = |error| match error {
        SnapshotError::Damaged { field, .. } => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(refused("/keys/0/date", "2026-02-30".into())), "date");
    assert_eq!(field(refused("/keys/0/date", "".into())), "date");
    assert_eq!(field(refused("/keys/0/requests", u64::MAX.into())), "requests");
    assert_eq!(field(refused("/keys/0/key", "".into())), "key");
    assert!(refused("/keys/0/date", "soon".into()).to_string().contains("`date` of `generate "));
    // What serde cannot read is serde's error, and names the member.
    for (path, value) in [
        ("/keys/0/requests", serde_json::json!(-1)),
        ("/keys/0/requests", serde_json::json!(1.5)),
        ("/keys", serde_json::json!("many")),
        ("/version", serde_json::json!(null)),
    ] {
        assert!(with(path, value).is_err(), "{path}");
    }
    assert!(serde_json::from_str::<Snapshot>(r#"{"version":1,"source":2"#).is_err());
    let twice = serde_json::json!([saved["keys"][0].clone(), saved["keys"][0].clone()]);
    assert_eq!(field(refused("/keys", twice)), "key");
    assert_eq!(handle.status()[0].requests_today, 1, "the live count stands");
}

// ===== events =====

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        let line = match event {
            Event::RateLimited { key, why, dimension, until, .. } => {
                format!("{key}: {dimension} refused, {why}, {}", until.is_some())
            }
            Event::QuotaExceeded { key, dimension, limit, until, .. } => {
                format!("{key}: {dimension} exceeded, limit {limit:?}, {}", until.is_some())
            }
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_and_lessons_are_told() {
    let log = Arc::new(Log::default());
    let sim = simulator(Quota::new().requests_per_day(1));
    let observer: Arc<dyn Observer> = log.clone();
    let layer = RateLimitLayer::builder().observer(observer).build().unwrap();
    for _ in 0..2 {
        let _ = ask(&sim, &layer).await;
    }
    let text = ask(&sim, &layer).await.expect_err("the day is spent").to_string();
    let told = log.0.lock().unwrap().clone();
    let key = format!("generate gemini_api {MODEL}");
    assert_eq!(told[0], format!("{key}: requests per day exceeded, limit Some(1), true"));
    assert_eq!(told[1..], [format!("{key}: requests per day refused, the quota is spent, true")]);
    let refused = format!("rate limit of {key} (requests per day): the quota is spent; until 2");
    assert!(text.starts_with(&refused), "{text}");
}

#[tokio::test(start_paused = true)]
async fn without_the_classifier_a_429_is_still_a_429() {
    let sim = simulator(Quota::new());
    sim.push(Rule::new(Fault::bare_exhausted()).on_call(1)).unwrap();
    let layer = RateLimitLayer::default();
    let service = layer.layer(sim.clone());
    assert_eq!(service.clone().oneshot(prompt(100)).await.unwrap().status(), 429);
    let status = &layer.handle().status()[0];
    assert_eq!((status.too_many, status.tokens, status.requests_today), (1, 0, 0));
    assert!(status.closed.is_empty());
}

// ===== what is learnt =====

#[tokio::test(start_paused = true)]
async fn under_a_margin_a_learnt_limit_is_raised_by_a_tenth_each_hour_without_a_429() {
    for (learn, margin, learnt, later) in
        [(true, 0.5, Some(10), Some(11)), (true, 1.0, Some(20), Some(20)), (false, 0.5, None, None)]
    {
        let sim = simulator(Quota::new().requests_per_minute(20));
        let layer = RateLimitLayer::builder().learn(learn).margin(margin).build().unwrap();
        let answers = futures_util::future::join_all((0..21).map(|_| ask(&sim, &layer))).await;
        assert_eq!(answers.iter().filter(|answer| matches!(answer, Ok(429))).count(), 1);
        let limit = || layer.handle().status()[0].limits.of(LimitKind::RequestsPerMinute);
        assert_eq!(limit(), learnt);
        sleep(secs(3590)).await;
        assert_eq!(limit(), learnt);
        sleep(secs(20)).await;
        assert_eq!(limit(), later);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_429_that_is_a_surprise_calls_go_out_one_by_one_at_first() {
    // A limit far above what was sent: somebody else uses it up.
    let sim = simulator(Quota::new());
    let refuse = Fault::rate_limited().with_limit(1_000).with_retry_in(secs(1));
    sim.push(Rule::new(refuse).on_call(1)).unwrap();
    let layer = RateLimitLayer::default();
    assert_eq!(ask(&sim, &layer).await.unwrap(), 429);
    futures_util::future::join_all((0..10).map(|_| ask(&sim, &layer))).await;
    let at: Vec<_> = sim.calls().iter().map(|call| call.at().as_secs()).collect();
    // The answer came at 2 s and said one second, cut off. Each answer takes two.
    assert_eq!(at, [0, 4, 6, 6, 8, 8, 8, 8, 10, 10, 10]);
}
