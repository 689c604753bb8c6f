//! Enforced quotas: exact counts at exact times.

use serde_json::json;
use tower_gemini::sim::{Algorithm, CallCause, Quota, QuotaLimit, Simulator};

use super::*;

/// Without latency, so that a call takes no time and offsets are round.
fn enforcing(quota: Quota) -> Simulator {
    Simulator::builder().head_latency(ms(0)).quota(MODEL, quota).build().expect("valid")
}

/// How many of `n` calls at once are admitted.
async fn burst(sim: &Simulator, n: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..n {
        admitted += usize::from(generate(sim, "x").await.status == 200);
    }
    admitted
}

fn retry_in(answer: &Answer) -> (String, String) {
    let message = answer.message();
    let (_, prose) = message.rsplit_once("Please retry in ").expect("a delay");
    let details = answer.json()["error"]["details"].clone();
    (prose.trim_end_matches('.').to_owned(), details[2]["retryDelay"].as_str().expect("a delay").to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_sliding_window_frees_each_call_after_sixty_seconds() {
    let sim = enforcing(Quota::new().requests_per_minute(3));
    assert_eq!(burst(&sim, 2).await, 2);
    tokio::time::sleep(ms(28_420)).await;
    assert_eq!(burst(&sim, 3).await, 1);
    let answer = generate(&sim, "x").await;
    assert_eq!(retry_in(&answer), ("31.58s".into(), "31s".into()));
    tokio::time::sleep(ms(31_579)).await;
    assert_eq!(burst(&sim, 1).await, 0, "a millisecond early");
    tokio::time::sleep(ms(1)).await;
    assert_eq!(burst(&sim, 9).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_fixed_window_frees_all_at_its_border() {
    let algorithm = Algorithm::FixedWindow { phase: secs(45) };
    let sim = enforcing(Quota::new().requests_per_minute(3).algorithm(algorithm));
    assert_eq!(burst(&sim, 5).await, 3);
    tokio::time::sleep(secs(40)).await;
    assert_eq!(retry_in(&generate(&sim, "x").await), ("5s".into(), "5s".into()));
    tokio::time::sleep(secs(5)).await;
    assert_eq!(burst(&sim, 5).await, 3);
    assert_eq!(retry_in(&generate(&sim, "x").await).0, "1m0s");
}

#[tokio::test(start_paused = true)]
async fn a_token_bucket_refills_evenly() {
    let sim = enforcing(Quota::new().requests_per_minute(10).algorithm(Algorithm::TokenBucket));
    assert_eq!(burst(&sim, 12).await, 10);
    tokio::time::sleep(ms(5_500)).await;
    assert_eq!(retry_in(&generate(&sim, "x").await), ("500ms".into(), "0s".into()));
    tokio::time::sleep(ms(12_500)).await;
    assert_eq!(burst(&sim, 5).await, 3, "one for every six seconds of eighteen");
}

#[tokio::test(start_paused = true)]
async fn tokens_are_charged_and_several_violations_told_at_once() {
    let quota =
        Quota::new().requests_per_minute(2).input_tokens_per_minute(10).requests_per_day(2).paid_tier();
    let sim = enforcing(quota);
    assert_eq!(generate(&sim, &"x".repeat(32)).await.status, 200);
    let tokens = generate(&sim, &"x".repeat(12)).await;
    assert_eq!(tokens.status, 429);
    let ids = |answer: &Answer| {
        let violations = answer.json()["error"]["details"][1]["violations"].clone();
        let violations = violations.as_array().cloned().expect("violations");
        violations.iter().map(|v| (v["quotaId"].clone(), v["quotaValue"].clone())).collect::<Vec<_>>()
    };
    let token_id = json!("GenerateContentPaidTierInputTokensPerModelPerMinute");
    assert_eq!(ids(&tokens), [(token_id.clone(), json!("10"))]);
    assert_eq!(generate(&sim, &"x".repeat(8)).await.status, 200, "the rejected call was not charged");
    let all = generate(&sim, "x").await;
    let minute = json!("GenerateRequestsPerMinutePerProjectPerModel");
    let day = json!("GenerateRequestsPerDayPerProjectPerModel");
    assert_eq!(ids(&all), [(minute, json!("2")), (token_id, json!("10")), (day, json!("2"))]);
    assert_eq!(retry_in(&all).0, "24h0m0s", "the longest decides");
    assert_eq!(
        sim.calls()[3].cause(),
        &CallCause::Quota(vec![
            QuotaLimit::RequestsPerMinute,
            QuotaLimit::InputTokensPerMinute,
            QuotaLimit::RequestsPerDay
        ])
    );
}

#[tokio::test(start_paused = true)]
async fn a_day_counts_from_the_first_call() {
    let sim = enforcing(Quota::new().requests_per_day(2));
    tokio::time::sleep(secs(5_000)).await;
    assert_eq!(burst(&sim, 3).await, 2);
    tokio::time::sleep(secs(24 * 3600 - 1)).await;
    assert_eq!(retry_in(&generate(&sim, "x").await).0, "1s");
    tokio::time::sleep(secs(1)).await;
    assert_eq!(burst(&sim, 3).await, 2);
    sim.set_quota(MODEL, Some(Quota::new().requests_per_day(2).short_daily_delay()));
    tokio::time::sleep(secs(20)).await;
    assert_eq!(retry_in(&generate(&sim, "x").await).0, "40s", "to the next minute, as Google says");
}

#[tokio::test(start_paused = true)]
async fn a_zero_quota_and_a_request_over_the_limit_never_pass() {
    let zero = generate(&enforcing(Quota::new().requests_per_minute(0)), "x").await;
    assert!(zero.message().contains("limit: 0,"));
    assert!(zero.json()["error"]["details"][1]["violations"][0].get("quotaValue").is_none());
    let sim = enforcing(Quota::new().input_tokens_per_minute(2));
    for _ in 0..3 {
        assert_eq!(generate(&sim, "nine char").await.status, 429);
        tokio::time::sleep(secs(600)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn models_are_counted_apart_and_counting_tokens_is_free() {
    let sim = Simulator::builder()
        .quota_for_each_model(Quota::new().requests_per_minute(1))
        .build()
        .expect("valid");
    for _ in 0..3 {
        assert_eq!(send(&sim, post(MODEL, "countTokens", "{}")).await.expect("an answer").status, 200);
    }
    for model in [MODEL, "gemini-3.8-flash"] {
        assert_eq!(send(&sim, post(model, "generateContent", "{}")).await.expect("an answer").status, 200);
        assert_eq!(send(&sim, post(model, "generateContent", "{}")).await.expect("an answer").status, 429);
    }
    // A stream and a chat draw on the same quota.
    assert_eq!(stream(&sim, "x").await.status, 429);
}

#[tokio::test(start_paused = true)]
async fn a_quota_can_be_changed_while_running() {
    let sim = enforcing(Quota::new().requests_per_minute(2));
    assert_eq!(burst(&sim, 3).await, 2);
    sim.set_quota(MODEL, Some(Quota::new().requests_per_minute(5)));
    assert_eq!(burst(&sim, 9).await, 3, "two of the five were charged before");
    sim.set_quota(MODEL, None);
    assert_eq!(burst(&sim, 9).await, 9);
    sim.set_quota("models/gemini-new", Some(Quota::new()));
    assert_eq!(send(&sim, post("gemini-new", "generateContent", "{}")).await.expect("an answer").status, 200);
}
