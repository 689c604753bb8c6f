//! When rules apply.

use tower_gemini::sim::{Fault, Rule, Simulator};

use super::*;

async fn statuses(sim: &Simulator, n: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..n {
        statuses.push(generate(sim, "x").await.status.as_u16());
    }
    statuses
}

#[tokio::test(start_paused = true)]
async fn the_first_matching_rule_wins() {
    let sim = Simulator::builder()
        .rule(Rule::new(Fault::overloaded()).on_call(2))
        .rule(Rule::new(Fault::internal()).on_calls(1..4).times(2))
        .rule(Rule::new(Fault::deadline_exceeded()).on_calls(5..))
        .build()
        .expect("valid");
    assert_eq!(statuses(&sim, 6).await, [500, 503, 500, 200, 504, 504]);
}

#[tokio::test(start_paused = true)]
async fn rules_can_be_pushed_and_cleared_while_running() {
    let sim = Simulator::new();
    assert_eq!(statuses(&sim, 1).await, [200]);
    sim.push(Fault::internal()).expect("valid");
    assert_eq!(statuses(&sim.clone(), 1).await, [500], "clones share rules");
    sim.clear_rules();
    assert_eq!(statuses(&sim, 1).await, [200]);
    let refused = sim.push(Rule::new(Fault::internal()).with_probability(f64::NAN));
    assert_eq!(refused.err().map(|e| e.field()), Some("Rule::with_probability"));
    assert_eq!(statuses(&sim, 1).await, [200], "nothing was added");
}

#[tokio::test(start_paused = true)]
async fn a_rule_for_a_model_leaves_others_alone_also_in_chats() {
    let sim = Simulator::builder()
        .rule(Rule::new(Fault::overloaded()).for_model("models/gemini-3.8-flash"))
        .build()
        .expect("valid");
    assert_eq!(statuses(&sim, 1).await, [200]);
    let pro = send(&sim, post("gemini-3.8-flash", "generateContent", "{}")).await.expect("an answer");
    assert_eq!(pro.status, 503);
    let chat = Request::post("/v1beta/openai/chat/completions");
    let chat = chat.body(Full::from(r#"{"model":"gemini-3.8-flash","messages":[]}"#)).expect("a request");
    assert_eq!(send(&sim, chat).await.expect("an answer").status, 503);
}

#[tokio::test(start_paused = true)]
async fn an_outage_counts_from_the_first_call() {
    let sim = Simulator::builder()
        .head_latency(ms(0))
        .rule(Rule::new(Fault::unavailable()).between(secs(10)..secs(20)))
        .build()
        .expect("valid");
    tokio::time::sleep(secs(15)).await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.extend(statuses(&sim, 1).await);
        tokio::time::sleep(secs(5)).await;
    }
    assert_eq!(seen, [200, 200, 503, 503, 200]);
}

#[tokio::test(start_paused = true)]
async fn a_seed_gives_the_same_calls_the_same_fate() {
    let fates = |seed: Option<u64>| async move {
        let mut builder = Simulator::builder().rule(Rule::new(Fault::overloaded()).with_probability(0.3));
        if let Some(seed) = seed {
            builder = builder.seed(seed);
        }
        statuses(&builder.build().expect("valid"), 1_000).await
    };
    let seven = fates(Some(7)).await;
    assert_eq!(seven, fates(Some(7)).await);
    assert_ne!(seven, fates(Some(8)).await);
    assert_eq!(fates(None).await, fates(Some(0)).await, "the default is seed 0");
    // Three standard deviations of a binomial of 1,000 and 0.3 are 43.
    let failed = seven.iter().filter(|status| **status == 503).count();
    assert!((257..=343).contains(&failed), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_network_meet_before_the_body_is_read() {
    // A body that never ends would hang any other call.
    let sim = Simulator::builder().rule(Fault::connection_refused()).build().expect("valid");
    let body = http_body_util::StreamBody::new(futures_util::stream::pending::<
        Result<http_body::Frame<Bytes>, std::io::Error>,
    >());
    let request =
        Request::post("/v1beta/models/gemini-3.5-flash:generateContent").body(body).expect("a request");
    let error = sim.clone().oneshot(request).await.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
