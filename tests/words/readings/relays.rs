//! What relays say of their own: budgets, credit, load, and a word that stands for any error.

use serde_json::json;

use super::kinds::{body, check, text};

fn error(members: serde_json::Value) -> Vec<u8> {
    json!({ "error": members }).to_string().into_bytes()
}

#[test]
fn a_budget_that_is_spent_is_spent_under_any_status() {
    let mut cases = Vec::new();
    for said in [
        "Budget has been exceeded! Current cost: 100.02, Max budget: 100.0",
        "litellm.BudgetExceededError: Budget has been exceeded",
        "ExceededBudget: User=u1 over budget. Spend=11, Budget=10",
        "This request requires more credits, or fewer max_tokens. You can only afford 3456.",
        "用户额度不足, 剩余额度: ＄0.000000",
        "该令牌额度已用尽 !token.UnlimitedQuota && token.RemainQuota = 0",
        "预扣费额度失败, 用户剩余额度: ＄0.01, 需要预扣费额度: ＄0.02",
        "账户余额不足，请充值",
        "pre-consume failed: user quota is not enough",
    ] {
        for status in [400, 401, 402, 403, 429, 500] {
            cases.push((status, error(json!({ "message": said })), "quota_exhausted never"));
        }
        cases.push((200, text(&format!("Error: {said}")), "quota_exhausted never"));
    }
    check(&cases);
    check(&[
        (429, error(json!({ "message": "x", "type": "budget_exceeded" })), "quota_exhausted never"),
        (429, error(json!({ "message": "x", "type": "insufficient_quota" })), "quota_exhausted never"),
        (
            403,
            error(json!({ "message": "x", "code": "pre_consume_token_quota_failed" })),
            "quota_exhausted never",
        ),
        // A quota of a minute is one, whatever a relay's word for all of them is.
        (
            429,
            error(
                json!({ "message": "Quota exceeded for requests per minute", "type": "insufficient_quota" }),
            ),
            "rate_limited again",
        ),
        (429, error(json!({ "message": "Stay within your budget of tokens." })), "rate_limited again"),
        (400, error(json!({ "message": "thinking budget must be positive" })), "invalid_argument never"),
        (403, error(json!({ "message": "x" })), "permission_denied never"),
    ]);
}

#[test]
fn a_relay_whose_provider_is_full_is_overloaded() {
    check(&[
        (429, text("429 当前分组上游负载已饱和，请稍后再试 (request id: 1)"), "overloaded again"),
        (200, text("429 当前分组上游负载已饱和，请稍后再试 (request id: 1)"), "overloaded again"),
        (429, error(json!({ "message": "当前模型负载过高", "type": "new_api_error" })), "overloaded again"),
        (503, error(json!({ "message": "当前模型负载过高" })), "overloaded again"),
        (429, error(json!({ "message": "请求过于频繁，请稍后再试" })), "rate_limited again"),
    ]);
}

#[test]
fn a_number_goes_before_a_word_for_any_error() {
    let api_error = |message: &str| error(json!({ "message": message, "type": "api_error" }));
    check(&[
        (400, api_error("Request failed with status code 400"), "invalid_argument never"),
        (400, api_error("HTTP 400: Bad Request"), "invalid_argument never"),
        (
            400,
            error(json!({ "code": 400, "message": "x", "type": "server_error" })),
            "invalid_argument never",
        ),
        (400, api_error("Request failed"), "internal again"),
        (400, api_error("read 400 bytes"), "internal again"),
    ]);
}

#[test]
fn blocked_content_is_blocked_by_any_of_its_sentences() {
    for said in [
        "User input or prompt contains blocked content",
        "The prompt could not be submitted. This prompt contains sensitive words that violate our policies.",
        "All images were filtered out because they violated Vertex AI's usage guidelines.",
        "Blocked by Model Armor Floor Setting: the prompt violated Prompt Injection filters.",
    ] {
        check(&[
            (
                400,
                error(json!({ "code": 400, "message": said, "status": "INVALID_ARGUMENT" })),
                "content_blocked never",
            ),
            (500, body("error", said), "content_blocked never"),
        ]);
    }
    check(&[
        (400, error(json!({ "message": "x", "code": "sensitive_words_detected" })), "content_blocked never"),
        (400, error(json!({ "message": "x", "code": "prompt_blocked" })), "content_blocked never"),
        (
            400,
            error(
                json!({ "code": 400, "message": "content contains no parts", "status": "INVALID_ARGUMENT" }),
            ),
            "invalid_argument never",
        ),
    ]);
}
