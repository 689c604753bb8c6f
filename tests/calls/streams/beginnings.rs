//! Streams that fail before their first event: the user sees one whole stream and nothing else.

use tower_gemini::Kind;
use tower_gemini::sim::{Fault, Rule};
use tower_gemini::verdict::Outcome;

use super::world::{Bodies, World, ms, stack, within};

/// The first call meets the fault, the second one is well.
async fn is_mended(fault: Fault, kind: Kind) {
    for bodies in [Bodies::AsTheyCome, Bodies::Strict] {
        for world in World::both(stack, bodies, &[Rule::new(fault.clone()).on_call(1)]).await {
            let name = world.gemini.name;
            let mut answer = within(world.gemini.send()).await.unwrap();
            assert_eq!(answer.attempts.kinds(), [kind], "{name}");
            let (chunks, error) = answer.read().await;
            assert!(error.is_none(), "{name}: {error:?}");
            let text = chunks.concat();
            assert_eq!(text.matches("data: ").count(), 5, "{name}: {text}");
            assert!(text.contains("STOP") && !text.contains("error"), "{name}: {text}");
            assert_eq!(answer.verdict.outcome(), Some(Outcome::Complete), "{name}");
            assert_eq!(world.sim.call_count(), 2, "{name}");
            assert_eq!(world.quota().in_flight, 0, "{name}");
            assert_eq!(world.limit().in_flight(), 0, "{name}");
        }
    }
}

#[tokio::test]
async fn a_503_in_the_first_event_is_retried() {
    is_mended(Fault::overloaded().in_stream_after(0), Kind::Overloaded).await;
}

#[tokio::test]
async fn a_bare_503_in_place_of_the_first_event_is_retried() {
    is_mended(Fault::overloaded().as_stream_tail_after(0), Kind::Overloaded).await;
}

#[tokio::test]
async fn a_429_in_the_first_event_is_retried() {
    let fault = Fault::rate_limited().with_limit(1_000).with_retry_in(ms(20));
    is_mended(fault.in_stream_after(0), Kind::RateLimited).await;
}

#[tokio::test]
async fn a_connection_that_is_lost_before_the_first_event_is_retried() {
    is_mended(Fault::reset_after_bytes(10), Kind::Transport).await;
}
