//! Callers who leave: the server hears of it at once, and it is nobody's failure.

use futures_util::StreamExt;
use tower_gemini::sim::{Fault, Rule};
use tower_gemini::verdict::Outcome;

use super::world::{Bodies, ESTIMATE, World, ms, soon, stack, within};

/// The server would go on for an hour.
const HOUR: u64 = 3_600_000;

async fn left(world: &World, call: usize) {
    let closed = || world.sim.calls().get(call).is_some_and(|call| call.was_dropped());
    soon(ms(1_000), "the server sees its client leave", closed).await;
    assert_eq!(world.sim.call_count(), call as u64 + 1, "nothing is asked for again");
    assert_eq!(world.quota().in_flight, 0);
    assert_eq!((world.limit().in_flight(), world.limit().cuts()), (0, 0));
}

#[tokio::test]
async fn a_body_that_is_dropped_closes_its_connection_and_counts_nothing() {
    let stalls = Rule::new(Fault::stalled_stream_after(1, ms(HOUR))).on_call(2);
    for bodies in [Bodies::AsTheyCome, Bodies::Strict] {
        for world in World::both(stack, bodies, std::slice::from_ref(&stalls)).await {
            // A good one first, of which the circuit has its count.
            let (_, error) = within(world.gemini.send()).await.unwrap().read().await;
            assert!(error.is_none());
            let before = world.circuit();
            let mut answer = within(world.gemini.send()).await.unwrap();
            let verdict = answer.verdict.clone();
            within(answer.chunks.next()).await.unwrap().unwrap();
            assert_eq!(world.quota().in_flight, 1);
            assert!(world.quota().tokens > ESTIMATE, "its tokens are reserved");
            drop(answer);
            left(&world, 1).await;
            assert_eq!(verdict.outcome(), Some(Outcome::Dropped));
            world.assert_settled();
            let after = world.circuit();
            assert_eq!(
                (after.calls, after.failures),
                (before.calls, before.failures),
                "{}",
                world.gemini.name
            );
        }
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_before_its_head_counts_nothing() {
    let silent = Rule::new(Fault::stalled(ms(HOUR)));
    for world in World::both(stack, Bodies::AsTheyCome, std::slice::from_ref(&silent)).await {
        {
            let mut call = std::pin::pin!(world.gemini.send());
            // Until the server has the request in its hands.
            let asked = soon(ms(10_000), "the request arrives", || world.sim.call_count() == 1);
            tokio::select! {
                _ = &mut call => panic!("there is no answer"),
                () = asked => {}
            }
        }
        left(&world, 0).await;
        assert_eq!(world.quota().tokens, ESTIMATE, "the server may have them");
        assert_eq!((world.circuit().calls, world.circuit().failures), (0, 0), "{}", world.gemini.name);
    }
}
