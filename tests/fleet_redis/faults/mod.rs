//! Real processes, a real server, real faults, in a minute that is three seconds long. What is judged is the log of the one
//! who receives the requests.
//!
//! The members are this very program, started again with `member` as the test to run.

mod member;
mod proxy;
mod receiver;

use std::time::Duration;

use self::member::{Process, start};
use self::proxy::Proxy;
use self::receiver::Receiver;
use crate::redis::Server;

/// The limit of a window, and how long that is; the guard covers what a loaded machine does to the receiver's log.
const LIMIT: usize = 30;
const WINDOW: Duration = Duration::from_millis(3_000);
const GUARD: Duration = Duration::from_millis(150);
const MEMBERS: usize = 4;
const EACH: usize = 45;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

struct World {
    server: Server,
    proxy: Proxy,
    receiver: Receiver,
    members: Vec<Process>,
}

async fn world() -> Option<World> {
    let server = Server::start(&[]).await?;
    let proxy = Proxy::start(server.port).await;
    let receiver = Receiver::start().await;
    let members = (0..MEMBERS).map(|id| start(id, EACH, proxy.port, receiver.port)).collect();
    Some(World { server, proxy, receiver, members })
}

impl World {
    /// Waits for all members, and judges what they sent. `pause` is how much later than at best they may be done.
    async fn judge(mut self, what: &str, served: usize, pause: Duration) {
        let cycles = (served.div_ceil(LIMIT) - 1) as u32;
        let best = (WINDOW + GUARD) * cycles;
        for member in &mut self.members {
            member.wait(best + pause + millis(20_000)).await;
        }
        let log = self.receiver.log();
        let most = (0..log.len())
            .map(|at| log[at..].iter().take_while(|one| **one < log[at] + WINDOW).count())
            .max()
            .unwrap_or(0);
        let took = *log.last().unwrap() - log[0];
        println!(
            "{what}: {} sent, {took:?} of {best:?} at best, at most {most} of {LIMIT} in any window",
            log.len()
        );
        assert!(most <= LIMIT, "{what}: {most} in one window");
        assert!(log.len() >= served, "{what}: {} of {served}", log.len());
        assert!(took <= best + pause, "{what}: {took:?} of {best:?}");
    }
}

const ALL: usize = MEMBERS * EACH;
/// What a state that was lost costs: a window, two leases, and what an old master may do.
const QUARANTINE: Duration = Duration::from_millis(3_150 + 2 * 105 + 250);

/// The limit, as in all of these, and progress with what faults are allowed.
pub(crate) async fn without_a_fault_no_window_holds_more_than_the_limit() {
    let Some(world) = world().await else { return };
    world.judge("no fault", ALL, WINDOW * 3).await;
}

/// The pace that is aimed at: half of a window more than the best.
pub(crate) async fn nothing_goes_wrong() {
    let Some(world) = world().await else { return };
    world.judge("no fault", ALL, millis(1_500)).await;
}

pub(crate) async fn members_are_killed() {
    let Some(mut world) = world().await else { return };
    tokio::time::sleep(millis(5_000)).await;
    world.members[0].signal("KILL");
    world.members[1].signal("KILL");
    let dead = world.receiver.count();
    let left = dead + (MEMBERS - 2) * EACH.saturating_sub(dead / MEMBERS + 8);
    world.judge("kill -9 of two members", left, WINDOW * 3).await;
}

pub(crate) async fn a_member_is_stopped_for_three_seconds() {
    let Some(mut world) = world().await else { return };
    tokio::time::sleep(millis(4_000)).await;
    for at in [0, 1] {
        world.members[at].signal("STOP");
        tokio::time::sleep(millis(3_000)).await;
        world.members[at].signal("CONT");
    }
    world.judge("SIGSTOP for 3 s", ALL, WINDOW * 3).await;
}

pub(crate) async fn the_server_is_killed_and_comes_back_empty() {
    let Some(mut world) = world().await else { return };
    tokio::time::sleep(millis(4_000)).await;
    world.server.kill();
    tokio::time::sleep(millis(1_500)).await;
    world.server.run().await;
    world.judge("server killed", ALL, QUARANTINE + WINDOW * 3).await;
}

pub(crate) async fn everything_is_flushed() {
    let Some(world) = world().await else { return };
    tokio::time::sleep(millis(4_000)).await;
    assert_eq!(world.server.say(&["FLUSHALL"]), "OK");
    tokio::time::sleep(millis(5_000)).await;
    assert_eq!(world.server.say(&["FLUSHALL"]), "OK");
    world.judge("FLUSHALL, twice", ALL, QUARANTINE * 2 + WINDOW * 3).await;
}

pub(crate) async fn the_server_pauses() {
    let Some(world) = world().await else { return };
    for pause in [50, 400, 100, 250, 300, 150, 350, 200, 90, 380] {
        tokio::time::sleep(millis(700)).await;
        world.server.say(&["CLIENT", "PAUSE", &pause.to_string()]);
    }
    world.judge("CLIENT PAUSE of 50 to 400 ms", ALL, WINDOW * 3).await;
}

pub(crate) async fn a_replica_is_promoted() {
    let Some(world) = world().await else { return };
    let Some(replica) = Server::start(&[]).await else { return };
    replica.say(&["REPLICAOF", "127.0.0.1", &world.server.port.to_string()]);
    tokio::time::sleep(millis(4_000)).await;
    assert!(replica.say(&["INFO", "replication"]).contains("master_link_status:up"));
    assert_eq!(replica.say(&["REPLICAOF", "NO", "ONE"]), "OK");
    // The old master becomes a replica itself: whoever still talks to it is told so.
    world.proxy.point_to(replica.port);
    tokio::time::sleep(millis(150)).await;
    world.server.say(&["REPLICAOF", "127.0.0.1", &replica.port.to_string()]);
    world.judge("replica promoted", ALL, QUARANTINE + WINDOW * 3).await;
}

pub(crate) async fn the_way_is_long_and_loses_one_direction() {
    let Some(world) = world().await else { return };
    world.proxy.delay(millis(30));
    tokio::time::sleep(millis(3_000)).await;
    world.proxy.drop_answers(true);
    tokio::time::sleep(millis(1_200)).await;
    world.proxy.drop_answers(false);
    tokio::time::sleep(millis(2_000)).await;
    world.proxy.drop_questions(true);
    tokio::time::sleep(millis(1_200)).await;
    world.proxy.drop_questions(false);
    world.proxy.delay(millis(40));
    // A lease is 105 ms here: these are longer ways than 200 ms are in a minute of 60 s.
    world.judge("60 to 80 ms, and each direction lost", ALL, WINDOW * 6).await;
}

/// As long a way as the design's 200 ms: longer than a lease lasts in this minute, so that parts are all there is meanwhile.
pub(crate) async fn the_way_takes_200_ms_and_loses_one_direction() {
    let Some(world) = world().await else { return };
    tokio::time::sleep(millis(2_000)).await;
    world.proxy.delay(millis(100));
    tokio::time::sleep(millis(3_000)).await;
    world.proxy.drop_answers(true);
    tokio::time::sleep(millis(1_200)).await;
    world.proxy.drop_answers(false);
    tokio::time::sleep(millis(1_000)).await;
    world.proxy.drop_questions(true);
    tokio::time::sleep(millis(1_200)).await;
    world.proxy.drop_questions(false);
    world.proxy.delay(millis(0));
    world.judge("200 ms, and each direction lost", ALL, WINDOW * 6).await;
}
