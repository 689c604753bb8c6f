//! Connections that break and answers that turn out badly.

use std::io::ErrorKind;

use serde_json::json;
use tower_gemini::sim::{CallCause, Fault, Simulator, TransportFault};

use super::*;

fn with(fault: Fault) -> Simulator {
    Simulator::builder().rule(fault).build().expect("valid")
}

async fn fails(fault: Fault) -> (ErrorKind, Duration, Option<TransportFault>) {
    let sim = with(fault);
    let start = Instant::now();
    let error = send(&sim, post(MODEL, "generateContent", "{}")).await.expect_err("no answer");
    let call = sim.calls().remove(0);
    assert!(call.status().is_none() && !call.was_dropped());
    (error.kind(), Instant::now() - start, call.transport_fault())
}

#[tokio::test(start_paused = true)]
async fn connections_break_before_the_head() {
    let refused = fails(Fault::connection_refused()).await;
    assert_eq!(refused, (ErrorKind::ConnectionRefused, ms(0), Some(TransportFault::Refused)));
    let reset = fails(Fault::reset_before_head()).await;
    assert_eq!(reset, (ErrorKind::ConnectionReset, ms(200), Some(TransportFault::ResetBeforeHead)));
    let stalled = fails(Fault::stalled(secs(90))).await;
    assert_eq!(stalled, (ErrorKind::ConnectionReset, secs(90), Some(TransportFault::ResetBeforeHead)));
}

#[tokio::test(start_paused = true)]
async fn a_reset_inside_the_body_comes_after_exactly_so_many_bytes() {
    let whole = generate(&Simulator::new(), "x").await.body;
    for n in [0, 1, whole.len() - 1, whole.len(), whole.len() + 10] {
        let sim = with(Fault::reset_after_bytes(n as u64));
        let answer = generate(&sim, "x").await;
        assert_eq!(answer.body, whole[..n.min(whole.len())], "{n}");
        assert_eq!(answer.cut.map(|e| e.kind()), Some(ErrorKind::ConnectionReset), "{n}");
        let call = &sim.calls()[0];
        assert_eq!(call.transport_fault(), Some(TransportFault::ResetInBody));
        assert_eq!(call.status(), Some(StatusCode::OK));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_reset_after_so_many_chunks_or_bytes() {
    for (chunks, expected) in [(0, 0), (2, 2), (9, 5)] {
        let answer = stream(&with(Fault::reset_after_chunks(chunks)), "Hello").await;
        assert_eq!((answer.events().len(), answer.cut.is_some()), (expected, true));
    }
    let whole = stream(&Simulator::new(), "Hello").await.body;
    let cut = stream(&with(Fault::reset_after_bytes(300)), "Hello").await;
    assert_eq!((&cut.body[..], cut.cut.is_some()), (&whole[..300], true));
}

#[tokio::test(start_paused = true)]
async fn a_cut_stream_ends_cleanly_without_a_finish_reason() {
    for (chunks, expected) in [(0, 0), (2, 2), (5, 4), (9, 4)] {
        let answer = stream(&with(Fault::cut_stream_after(chunks)), "Hello").await;
        assert!(answer.cut.is_none());
        assert_eq!(answer.events().len(), expected);
        assert!(!answer.text().contains("finishReason"));
    }
    let list = array(&with(Fault::cut_stream_after(2)), "Hello").await;
    assert!(serde_json::from_slice::<Value>(&list.body).is_err(), "the bracket is never closed");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_stream_goes_on_afterwards() {
    for chunks in [0, 2, 99] {
        let answer = stream(&with(Fault::stalled_stream_after(chunks, secs(70))), "Hello").await;
        assert_eq!((answer.events().len(), answer.took), (5, secs(70) + ms(280)), "{chunks}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_a_good_one() {
    let answer = generate(&with(Fault::slow(secs(10))), "x").await;
    assert_eq!((answer.status.as_u16(), answer.took), (200, ms(10_200)));
}

#[tokio::test(start_paused = true)]
async fn an_error_inside_a_stream_comes_with_a_200() {
    let event = stream(&with(Fault::overloaded().in_stream_after(2)), "Hello").await;
    assert_eq!(event.status, 200);
    let events = event.events();
    assert_eq!((events.len(), &events[2]["error"]["code"]), (3, &json!(503)));

    // Even after the chunk that said STOP.
    let tail = stream(&with(Fault::internal().as_stream_tail_after(9)), "Hello").await;
    let (good, bare) = tail.body.split_at(tail.text().rfind("\r\n\r\n").expect("events") + 4);
    assert!(String::from_utf8_lossy(good).contains("\"STOP\""));
    assert!(bare.starts_with(b"{\n  \"error\": {\n"));
    let bare: Value = serde_json::from_slice(bare).expect("JSON");
    assert_eq!(bare["error"]["status"], "INTERNAL");

    let list = array(&with(Fault::overloaded().in_stream_after(1)), "Hello").await.json();
    assert_eq!(list.as_array().map(Vec::len), Some(2));
    assert_eq!(list[1]["error"]["status"], "UNAVAILABLE");
}

#[tokio::test(start_paused = true)]
async fn blocked_and_empty_answers_come_with_a_200() {
    let prompt = with(Fault::blocked_prompt());
    for body in [generate(&prompt, "x").await.json(), stream(&prompt, "x").await.events().remove(0)] {
        assert_eq!(body["promptFeedback"]["blockReason"], "SAFETY");
        assert!(body.get("candidates").is_none());
        assert_eq!(body["usageMetadata"], json!({"promptTokenCount": 1, "totalTokenCount": 1}));
    }
    let answer = with(Fault::blocked_answer());
    let body = generate(&answer, "x").await.json();
    assert_eq!(body["candidates"][0]["finishReason"], "SAFETY");
    assert!(body["candidates"][0].get("content").is_none());
    let events = stream(&answer, "x").await.events();
    assert_eq!(events.len(), 5);
    assert!(events[0].pointer("/candidates/0/content/parts/0/text").is_some(), "it had begun to answer");
    assert_eq!(events[4]["candidates"][0]["finishReason"], "SAFETY");
    let body = generate(&with(Fault::empty_answer()), "x").await.json();
    assert_eq!(
        body["candidates"][0],
        json!({"content": {"role": "model"}, "finishReason": "STOP", "index": 0})
    );
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_streams_leaves_other_calls_alone() {
    let sim = Simulator::builder()
        .rule(tower_gemini::sim::Rule::new(Fault::overloaded().in_stream_after(0)).times(1))
        .build()
        .expect("valid");
    assert_eq!(generate(&sim, "x").await.status, 200);
    assert_eq!(stream(&sim, "x").await.events()[0]["error"]["code"], 503, "not used up by the first call");
    assert_eq!(stream(&sim, "x").await.events().len(), 5);
    let causes: Vec<_> = sim.calls().iter().map(|call| call.cause().clone()).collect();
    assert_eq!(causes, [CallCause::Healthy, CallCause::Fault("overloaded"), CallCause::Healthy]);
}
