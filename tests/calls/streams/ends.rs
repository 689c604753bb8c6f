//! Streams that begin well and end badly: what came is delivered, nothing is asked for again, and everybody knows.

use tower_gemini::Kind;
use tower_gemini::classify::AnswerFailed;
use tower_gemini::error::find;
use tower_gemini::sim::{Fault, Rule};
use tower_gemini::stack::GeminiStack;
use tower_gemini::timeout::{Phase, TimedOut};
use tower_gemini::verdict::Outcome;
use tower_gemini::{BoxError, Verdict};

use super::world::{Bodies, World, impatient, ms, soon, stack, within};

/// What the user saw of the one call.
struct Seen {
    world: World,
    text: String,
    error: Option<BoxError>,
    verdict: Verdict,
}

/// Asks once, and checks what is so however a stream ends: so many chunks of the answer came, there was one call, and
/// nothing is held or owed.
async fn seen(fault: Fault, bodies: Bodies, chunks: usize) -> Vec<Seen> {
    seen_by(stack, fault, bodies, chunks).await
}

async fn seen_by(stack: fn() -> GeminiStack, fault: Fault, bodies: Bodies, chunks: usize) -> Vec<Seen> {
    let mut all = Vec::new();
    for world in World::both(stack, bodies, &[Rule::from(fault.clone())]).await {
        let name = world.gemini.name;
        let mut answer = within(world.gemini.send()).await.unwrap();
        let (text, error) = answer.read().await;
        let text = text.concat();
        assert_eq!(text.matches("\"candidates\"").count(), chunks, "{name}: {text}");
        assert_eq!(world.sim.call_count(), 1, "{name}: nothing is replayed");
        assert_eq!(answer.attempts.made(), 1, "{name}");
        world.assert_settled();
        all.push(Seen { text, error, verdict: answer.verdict, world });
    }
    all
}

/// Calls and failures of the circuit.
fn counted(seen: &Seen) -> (u32, u32) {
    let circuit = seen.world.circuit();
    (circuit.calls, circuit.failures)
}

#[tokio::test]
async fn an_error_after_three_chunks_is_delivered_with_them() {
    for (fault, kind) in [(Fault::overloaded(), Kind::Overloaded), (Fault::internal(), Kind::Internal)] {
        for fault in [fault.clone().in_stream_after(3), fault.as_stream_tail_after(3)] {
            for seen in seen(fault, Bodies::AsTheyCome, 3).await {
                assert!(seen.error.is_none(), "HTTP knows of no fault: {:?}", seen.error);
                let (_, error) = seen.text.split_once("\"error\"").expect("the error's own bytes");
                assert!(error.contains("code") && error.contains("status"), "{error}");
                assert_eq!(seen.verdict.outcome(), Some(Outcome::Failed(kind)));
                assert_eq!(counted(&seen), (1, 1));
                assert_eq!(seen.world.limit().cuts(), 0, "no word of overload that the governor goes by");
            }
        }
    }
}

#[tokio::test]
async fn an_error_after_three_chunks_ends_a_strict_body_with_an_error() {
    for seen in seen(Fault::overloaded().in_stream_after(3), Bodies::Strict, 3).await {
        assert!(seen.text.contains("\"error\""), "every byte came before");
        let error = seen.error.as_ref().expect("an error in place of the end");
        let failed = find::<AnswerFailed>(error.as_ref()).expect("findable");
        assert_eq!(failed.kind(), Kind::Overloaded);
        assert!(failed.verdict().after_output());
        assert_eq!(counted(&seen), (1, 1));
    }
}

#[tokio::test]
async fn a_cut_after_three_chunks_delivers_them_and_then_an_error() {
    for bodies in [Bodies::AsTheyCome, Bodies::Strict] {
        for seen in seen(Fault::reset_after_chunks(3), bodies, 3).await {
            let error = seen.error.as_ref().expect("the transport's own error");
            assert!(find::<AnswerFailed>(error.as_ref()).is_none());
            assert_eq!(seen.verdict.outcome(), Some(Outcome::Failed(Kind::Transport)));
            assert_eq!(counted(&seen), (1, 1));
        }
    }
}

#[tokio::test]
async fn an_end_without_a_finish_reason_is_a_truncation() {
    for seen in seen(Fault::cut_stream_after(3), Bodies::AsTheyCome, 3).await {
        assert!(seen.error.is_none(), "a clean end: {:?}", seen.error);
        assert_eq!(seen.verdict.outcome(), Some(Outcome::Failed(Kind::Truncated)));
        assert_eq!(counted(&seen), (1, 1));
    }
    for seen in seen(Fault::cut_stream_after(3), Bodies::Strict, 3).await {
        let error = seen.error.as_ref().expect("an error in place of the end");
        assert_eq!(find::<AnswerFailed>(error.as_ref()).expect("findable").kind(), Kind::Truncated);
    }
}

#[tokio::test]
async fn a_stall_is_timed_out_and_its_connection_closed() {
    for bodies in [Bodies::AsTheyCome, Bodies::Strict] {
        for seen in seen_by(impatient, Fault::stalled_stream_after(1, ms(3_600_000)), bodies, 1).await {
            let error = seen.error.as_ref().expect("an end to the silence");
            assert_eq!(find::<TimedOut>(error.as_ref()).expect("findable").what(), Phase::Idle);
            assert_eq!(seen.verdict.outcome(), Some(Outcome::Failed(Kind::DeadlineExceeded)));
            assert_eq!(counted(&seen), (1, 1));
            assert_eq!(seen.world.limit().cuts(), 0, "a body on its way is no reason against the next call");
            let closed = || seen.world.sim.calls()[0].was_dropped();
            soon(ms(1_000), "the server sees its client leave", closed).await;
        }
    }
}
