//! A store that is dead from the start, dies in the middle, is slow, and comes back: what each mode sends meanwhile, and what
//! is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tower_gemini::error::find;
use tower_gemini::fleet::{Fleet, Outage};
use tower_gemini::rate_limit::{Limits, RateLimitReason, RateLimited};

use crate::world::{Flaky, Member, Server, Told, burst, millis, secs};

const LIMIT: usize = 60;
const MEMBERS: usize = 4;

struct World {
    server: Server,
    store: Flaky,
    told: Arc<Told>,
    members: Vec<Member>,
}

fn world(outage: Outage) -> World {
    let (server, store, told) = (Server::default(), Flaky::new(), Arc::new(Told::default()));
    let limits = Limits::new().requests_per_minute(LIMIT as u64);
    let members = (0..MEMBERS)
        .map(|id| {
            let fleet = Fleet::new(store.clone()).outage(outage);
            let observer = Arc::clone(&told);
            Member::new(id, &server, fleet, limits, |builder| builder.observer(observer))
        })
        .collect();
    World { server, store, told, members }
}

impl World {
    fn told(&self, what: &str) -> usize {
        self.told.0.lock().unwrap().iter().filter(|line| line.starts_with(what)).count()
    }

    /// Members that always have something to send, until the answer is dropped.
    fn busy(&self) -> tokio::task::JoinHandle<()> {
        let members = self.members.clone();
        tokio::spawn(async move {
            burst(&members, &[600; MEMBERS], 0).await;
        })
    }

    /// How many were sent from the one instant to the other.
    fn sent(&self, from: Instant, to: Instant) -> usize {
        self.server.log().iter().filter(|one| one.0 >= from && one.0 < to).count()
    }

    /// The most that were sent in any minute that begins from `from` on.
    fn most_from(&self, from: Instant) -> usize {
        let log: Vec<_> = self.server.log().into_iter().filter(|one| one.0 >= from).collect();
        (0..log.len())
            .map(|at| log[at..].iter().take_while(|one| one.0 < log[at].0 + secs(60)).count())
            .max()
            .unwrap_or(0)
    }
}

async fn fails_by(member: &Member, within: Duration) -> RateLimitReason {
    let begun = Instant::now();
    let error = member.send(0, Some(within)).await.unwrap_err();
    let took = Instant::now() - begun;
    assert!(took <= within + millis(1), "{took:?} of {within:?}");
    find::<RateLimited>(error.as_ref()).expect("it was not admitted").why()
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_never_there_lets_nothing_through_and_hangs_nobody() {
    let world = world(Outage::Strict);
    world.store.die(true);
    for within in [millis(20), millis(300), secs(3), secs(30)] {
        let why = fails_by(&world.members[0], within).await;
        assert!(matches!(why, RateLimitReason::Store | RateLimitReason::Deadline), "{why:?}");
    }
    assert_eq!(fails_by(&world.members[0], secs(3)).await, RateLimitReason::Store);
    assert_eq!((world.server.log().len(), world.told("lost")), (0, 1));
    let handle = world.members[0].handle();
    assert!(handle.store().unwrap().lost.is_some());
    assert!(handle.status()[0].to_string().ends_with("store lost"));
    let waiting = {
        let member = world.members[0].clone();
        tokio::spawn(async move { member.send(0, None).await.unwrap() })
    };
    tokio::time::sleep(secs(5)).await;
    world.store.die(false);
    let back = Instant::now();
    assert_eq!(waiting.await.unwrap(), 200);
    // It is asked again within two seconds, and a new state waits for two.
    assert!(Instant::now() - back < secs(6));
    assert_eq!((world.told("lost"), world.told("found")), (1, 1));
    assert!(handle.store().unwrap().lost.is_none());
}

/// Two windows at half of the limit, two at a quarter, and so on; then all of it again.
#[tokio::test(start_paused = true)]
async fn strict_keeps_to_the_parts_and_never_exceeds_the_limit() {
    let world = world(Outage::Strict);
    let work = world.busy();
    tokio::time::sleep(secs(200)).await;
    world.store.die(true);
    let died = Instant::now();
    tokio::time::sleep(secs(600)).await;
    world.store.die(false);
    let back = Instant::now();
    tokio::time::sleep(secs(200)).await;
    work.abort();
    assert_eq!(world.server.most_in_a_minute().0, LIMIT);
    let minute = |n: u32| world.sent(died + secs(60) * n, died + secs(60) * (n + 1));
    let sent: Vec<_> = (0..10).map(minute).collect();
    println!("strict, minute by minute: {sent:?}");
    assert!((20..=LIMIT / 2 + 8).contains(&sent[0]), "{sent:?}");
    assert!((20..=LIMIT / 2).contains(&sent[1]), "{sent:?}");
    assert!((5..=LIMIT / 4).contains(&sent[3]), "{sent:?}");
    assert!(sent[9] <= 4, "{sent:?}");
    // The old charges are long gone: at once again.
    assert!(world.sent(back, back + secs(60)) >= LIMIT * 9 / 10, "{}", world.sent(back, back + secs(60)));
    assert_eq!((world.told("lost"), world.told("found")), (MEMBERS, MEMBERS));
}

#[tokio::test(start_paused = true)]
async fn share_goes_on_for_ever_within_its_bound() {
    let world = world(Outage::share(0.5, MEMBERS as u32));
    let work = world.busy();
    tokio::time::sleep(secs(200)).await;
    world.store.die(true);
    tokio::time::sleep(secs(70)).await;
    let from = Instant::now();
    tokio::time::sleep(secs(1_200)).await;
    let sent = world.sent(from, Instant::now());
    work.abort();
    // Half of the limit: all are cut off.
    assert!((530..=20 * 30).contains(&sent), "{sent}");
    assert!(world.server.most_in_a_minute().0 <= LIMIT * 3 / 2);
    assert!(world.most_from(from) <= LIMIT / 2);
}

#[tokio::test(start_paused = true)]
async fn share_helps_one_that_never_met_the_store() {
    let world = world(Outage::share(1.0, 8));
    world.store.die(true);
    let (good, _) = burst(&world.members[..1], &[7], 0).await;
    assert_eq!(good, 7, "an eighth of the limit");
    assert_eq!(fails_by(&world.members[0], secs(1)).await, RateLimitReason::Store);
}

#[tokio::test(start_paused = true)]
async fn closed_sends_nothing_once_the_store_is_lost() {
    let world = world(Outage::Closed);
    let work = world.busy();
    tokio::time::sleep(secs(200)).await;
    world.store.die(true);
    // A lease that was granted before may be used up.
    tokio::time::sleep(secs(3)).await;
    let from = Instant::now();
    tokio::time::sleep(secs(600)).await;
    work.abort();
    assert_eq!(world.sent(from, Instant::now()), 0);
    assert_eq!(world.server.most_in_a_minute().0, LIMIT);
}

#[tokio::test(start_paused = true)]
async fn local_is_as_without_a_store() {
    let world = world(Outage::Local);
    world.store.die(true);
    let work = world.busy();
    tokio::time::sleep(secs(200)).await;
    assert_eq!(world.server.most_in_a_minute().0, LIMIT * MEMBERS);
    world.store.die(false);
    // Within a window of the store's return it is one quota again.
    tokio::time::sleep(secs(90)).await;
    let from = Instant::now();
    tokio::time::sleep(secs(200)).await;
    work.abort();
    assert!(world.most_from(from) <= LIMIT, "{}", world.most_from(from));
    assert!(world.sent(from, Instant::now()) >= LIMIT * 2);
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_costs_next_to_nothing_and_is_no_outage() {
    let world = world(Outage::Strict);
    world.store.delay(millis(100));
    let begun = Instant::now();
    let (good, took) = burst(&world.members, &[150; MEMBERS], 0).await;
    assert_eq!((good, world.server.most_in_a_minute().0), (600, LIMIT));
    let best = secs(9 * 60 + 2);
    println!("200 ms: {took:?}, {:.4}", took.as_secs_f64() / best.as_secs_f64());
    assert!(took <= best.mul_f64(1.06), "{took:?} since {begun:?}");
    assert_eq!((world.told("lost"), world.told("found")), (0, 0));
}

/// Dead and alive again in turn, for less and for more than an answer takes.
#[tokio::test(start_paused = true)]
async fn a_store_that_flaps_never_lets_more_through() {
    let world = world(Outage::Strict);
    let work = world.busy();
    for pause in [100, 500, 50, 3_000, 200, 10_000, 30, 1_000, 40_000, 700].into_iter().cycle().take(60) {
        tokio::time::sleep(millis(pause)).await;
        world.store.die(true);
        tokio::time::sleep(millis(pause / 2)).await;
        world.store.die(false);
    }
    work.abort();
    assert!(world.server.most_in_a_minute().0 <= LIMIT, "{:?}", world.server.most_in_a_minute());
    assert!(world.server.log().len() >= 300, "{}", world.server.log().len());
    assert!(world.told("found") <= world.told("lost"));
}

/// What happens to the store, in order: it dies or comes back, or becomes slow, and for how long that lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    DeadFromTheStart,
    DeadInTheMiddle,
    Slow,
    BackAgain,
}

/// The most that may be sent in any minute, of a limit of 60 among 4 members.
fn bound(outage: Outage, case: Case) -> usize {
    match (outage, case) {
        (Outage::Strict | Outage::Closed, _) | (_, Case::Slow) => LIMIT,
        // Half of the limit while all are cut off, beside what was sent before.
        (Outage::Share { .. }, Case::DeadFromTheStart) => LIMIT / 2,
        (Outage::Share { .. }, _) => LIMIT * 3 / 2,
        _ => LIMIT * MEMBERS,
    }
}

/// Each mode in each outage: its bound is kept, each member says once that the store is lost and once that it is back, and
/// nobody waits beyond his deadline.
#[tokio::test(start_paused = true)]
async fn every_mode_keeps_its_bound_in_every_outage() {
    println!("mode, outage: the most in any minute by its end, and its bound; sent while it lasts");
    for outage in [Outage::Strict, Outage::share(0.5, MEMBERS as u32), Outage::Closed, Outage::Local] {
        for case in [Case::DeadFromTheStart, Case::DeadInTheMiddle, Case::Slow, Case::BackAgain] {
            let world = world(outage);
            world.store.die(case == Case::DeadFromTheStart);
            // Each asks twice a second, by deadlines of 50 ms to 30 s.
            let ask = |seconds: u64| {
                let members = world.members.clone();
                async move {
                    let mut all = tokio::task::JoinSet::new();
                    for step in 0..seconds * 2 {
                        for member in &members {
                            let (member, within) =
                                (member.clone(), millis([50, 400, 2_000, 30_000][step as usize % 4]));
                            all.spawn(async move {
                                let begun = Instant::now();
                                let sent = member.send(0, Some(within)).await.is_ok();
                                (sent, Instant::now() - begun, within)
                            });
                        }
                        tokio::time::sleep(millis(500)).await;
                    }
                    for (_, took, within) in all.join_all().await {
                        assert!(took <= within + millis(5), "{took:?} of {within:?}");
                    }
                }
            };
            ask(70).await;
            let from = Instant::now();
            match case {
                Case::DeadFromTheStart => {}
                Case::DeadInTheMiddle | Case::BackAgain => world.store.die(true),
                Case::Slow => world.store.delay(millis(100)),
            }
            ask(130).await;
            let sent = world.sent(from, Instant::now());
            let (most, bound) = (world.server.most_in_a_minute().0, bound(outage, case));
            println!("{outage:?}, {case:?}: {most} of {bound}, {sent}");
            assert!(most <= bound, "{outage:?}, {case:?}: {most} of {bound}");
            if matches!(case, Case::BackAgain | Case::DeadFromTheStart) {
                world.store.die(false);
                ask(100).await;
                // What was sent without the store is in the window of what it grants.
                let after = if matches!(outage, Outage::Share { .. }) { LIMIT * 3 / 2 } else { bound };
                let most = world.server.most_in_a_minute().0;
                assert!(most <= after, "{outage:?}, {case:?}: {most} of {after} afterwards");
            }
            let is_back = matches!(case, Case::BackAgain | Case::DeadFromTheStart);
            let (lost, found) = (usize::from(case != Case::Slow) * MEMBERS, usize::from(is_back) * MEMBERS);
            assert_eq!((world.told("lost"), world.told("found")), (lost, found), "{outage:?}, {case:?}");
            if case == Case::Slow {
                assert!(sent >= LIMIT * 2 - 10, "{outage:?}: {sent} with a slow store");
            }
        }
    }
}
