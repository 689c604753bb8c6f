//! How much of the best pace a fleet keeps, over many draws of what differs from run to run: when members start, how long each
//! message travels, and that each member ends with its last request.

use std::time::Duration;

use tokio::task::JoinSet;
use tower_gemini::fleet::Fleet;
use tower_gemini::rate_limit::Limits;

use crate::world::{Flaky, Member, Server};

/// Members that start within a tenth of a second, send what they have, and end. How long it took by the best that there can be.
async fn run(seed: u64, rpm: u64, counts: &[usize]) -> (f64, Server, Flaky) {
    let (server, store) = (Server::default(), Flaky::new());
    store.jitter(seed);
    let mut all = JoinSet::new();
    for (id, count) in counts.iter().copied().enumerate() {
        let fleet = Fleet::new(store.clone());
        let limits = Limits::new().requests_per_minute(rpm);
        let (server, store) = (server.clone(), store.clone());
        all.spawn(async move {
            tokio::time::sleep(store.draw(100_000)).await;
            let member = Member::new(id, &server, fleet, limits, |b| b);
            let mut mine = JoinSet::new();
            for _ in 0..count {
                let member = member.clone();
                mine.spawn(async move { member.send(0, None).await.unwrap() });
            }
            while mine.join_next().await.is_some() {}
        });
    }
    while all.join_next().await.is_some() {}
    let total: usize = counts.iter().sum();
    let log = server.log();
    assert_eq!(log.len(), total);
    let cycles = (total.div_ceil(rpm as usize) - 1) as u32;
    let best = Duration::from_millis(60_500) * cycles;
    let took = log[total - 1].0 - log[0].0;
    (took.as_secs_f64() / best.as_secs_f64(), server, store)
}

fn judge(what: &str, mut overs: Vec<(f64, u64)>, most: f64) {
    overs.sort_by(|one, other| one.0.total_cmp(&other.0));
    let at = |part: usize| overs[(overs.len() - 1) * part / 100].0;
    let worst = overs[overs.len() - 1];
    println!(
        "{what}: {:.4} at the median, {:.4} at 90 %, {:.4} at worst (seed {})",
        at(50),
        at(90),
        worst.0,
        worst.1
    );
    assert!(worst.0 <= most, "{what}: {:.4} with seed {}", worst.0, worst.1);
}

#[test]
fn eight_members_that_end_waste_no_window() {
    let mut overs = Vec::new();
    for seed in 0..12 {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (over, server, store) = runtime.block_on(run(seed, 60, &[75; 8]));
        assert!(server.most_in_a_minute().0 <= 60);
        assert!(
            store.calls() <= 660,
            "{} messages for 600 permits, over a store that is slow now and then",
            store.calls()
        );
        overs.push((over, seed));
    }
    judge("8 x 75 at 60 RPM", overs, 1.02);
}
