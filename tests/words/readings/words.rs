//! What a few words say: constants in the place of a message, counts of a span of time, sentences of clients and relays.

use serde_json::{Value, json};

use super::kinds::{check, text};

fn error(members: Value) -> Vec<u8> {
    json!({ "error": members }).to_string().into_bytes()
}

fn message(text: &str) -> Vec<u8> {
    error(json!({ "message": text }))
}

#[test]
fn a_constant_that_is_all_of_a_message_is_a_reason_or_a_status() {
    let invalid =
        |message: &str| error(json!({ "code": 400, "status": "INVALID_ARGUMENT", "message": message }));
    check(&[
        (400, invalid("API_KEY_INVALID"), "api_key_invalid never"),
        (400, invalid("Error: API_KEY_EXPIRED"), "api_key_invalid never"),
        (400, invalid("RECITATION"), "content_blocked never"),
        (400, error(json!({ "code": 400, "message": "IMAGE_SAFETY" })), "content_blocked never"),
        (400, message("PERMISSION_DENIED"), "permission_denied never"),
        (500, message("PERMISSION_DENIED"), "permission_denied never"),
        (500, message("RESOURCE_EXHAUSTED"), "rate_limited again"),
        (200, message("RESOURCE_EXHAUSTED"), "rate_limited again"),
        (200, message("UNAVAILABLE"), "unavailable again"),
        (502, message("RATE_LIMIT_EXCEEDED"), "rate_limited again"),
        (500, message("QUOTA_EXHAUSTED"), "quota_exhausted never"),
        (500, message("BILLING_DISABLED"), "permission_denied never"),
        (400, message("BILLING_DISABLED"), "failed_precondition never"),
        (403, message("SERVICE_DISABLED"), "service_disabled never"),
        (400, text("API_KEY_INVALID"), "api_key_invalid never"),
        // Constants in a sentence, of no meaning, beside a status of their own, and under one that says more.
        (400, invalid("The value must not be API_KEY_INVALID"), "invalid_argument never"),
        (400, invalid("SAFETY_SETTINGS"), "invalid_argument never"),
        (400, invalid("PERMISSION_DENIED"), "invalid_argument never"),
        (400, invalid("INTERNAL"), "invalid_argument never"),
        (404, message("RATE_LIMIT_EXCEEDED"), "not_found never"),
        (503, message("INTERNAL"), "unavailable again"),
        (500, message("FAILED"), "internal again"),
    ]);
}

#[test]
fn too_many_tokens_are_a_length_but_in_a_span_of_time() {
    let bad = |message: &str| error(json!({ "code": 400, "status": "INVALID_ARGUMENT", "message": message }));
    check(&[
        (400, bad("Request contains too many tokens"), "context_too_long never"),
        (400, message("Too many tokens: 1200000 > 1048576"), "context_too_long never"),
        (200, text("Error: The prompt has too many tokens."), "context_too_long never"),
        (500, message("The input exceeds the model's context window."), "context_too_long never"),
        (429, message("Too many tokens per minute"), "rate_limited - backoff + tokens/minute -"),
        (400, bad("Too many tokens per minute"), "invalid_argument never"),
        (429, message("Too many tokens, please wait before trying again."), "rate_limited again"),
        (400, bad("Too many tools"), "invalid_argument never"),
    ]);
}

#[test]
fn too_many_in_a_span_of_time_names_a_quota() {
    check(&[
        (429, message("too many requests per minute"), "rate_limited - backoff + requests/minute -"),
        (
            429,
            message("Too many requests per day (limit: 250). Try later."),
            "quota_exhausted - never + requests/day 250",
        ),
        (
            429,
            message("You sent too many input tokens per minute"),
            "rate_limited - backoff + tokens/minute -",
        ),
        (429, message("Too many requests. At most 5 per minute."), "rate_limited again"),
        (429, message("Too many requests per user"), "rate_limited again"),
        (429, message("Too many images per day"), "quota_exhausted never"),
        (
            429,
            message("Quota exceeded: requests per day limit reached"),
            "quota_exhausted - never + requests/day -",
        ),
        (
            429,
            message("Error: quota exceeded: input tokens per minute (limit: 9)"),
            "rate_limited - backoff + tokens/minute 9",
        ),
        (429, message("Quota exceeded: requests for project 7"), "rate_limited again"),
    ]);
}

#[test]
fn a_wrong_key_and_a_block_are_told_in_few_words() {
    let said = |code: u16, status: &str, text: &str| {
        error(json!({ "code": code, "status": status, "message": text }))
    };
    let operation =
        |text: &str| json!({ "name": "o", "done": true, "error": { "code": 3, "message": text } });
    let operation = |text: &str| operation(text).to_string().into_bytes();
    check(&[
        (400, said(400, "PERMISSION_DENIED", "Invalid API key"), "api_key_invalid never"),
        (401, said(401, "UNAUTHENTICATED", "Invalid API key provided."), "api_key_invalid never"),
        (403, said(403, "PERMISSION_DENIED", "The API key may not do this."), "permission_denied never"),
        (200, operation("the request was blocked by safety filters"), "content_blocked never"),
        (400, said(400, "INVALID_ARGUMENT", "Blocked by our safety system."), "content_blocked never"),
        (200, operation("the request was blocked by a rule of its own"), "invalid_argument never"),
    ]);
}

#[test]
fn a_span_behind_a_limit_is_its_quotas() {
    let said = |text: &str| message(&format!("Quota exceeded for metric: m/free_tier_requests, {text}"));
    check(&[
        (
            429,
            said("limit: 250, per day"),
            "quota_exhausted - never + requests/day 250 ~m/free_tier_requests",
        ),
        (
            429,
            said("limit: 10 (per minute)"),
            "rate_limited - backoff + requests/minute 10 ~m/free_tier_requests",
        ),
        (
            429,
            said("limit: 10, model: per-x"),
            "rate_limited - backoff model=per-x + requests/unknown 10 ~m/free_tier_requests @per-x",
        ),
        (
            429,
            said("limit: 10. Raise it per project."),
            "rate_limited - backoff + requests/unknown 10 ~m/free_tier_requests",
        ),
    ]);
}

#[test]
fn a_block_that_a_relay_has_wrapped_into_an_event_is_one() {
    let event = |data: Value| text(&format!("id: chat_1\nevent: error\ndata: {data}\n\n"));
    let wrapped = |context: Value| json!({ "body": { "context": context, "message": "您的请求可能包含违禁内容。", "provider": "google" }, "type": "ProviderBizError" });
    check(&[
        (
            200,
            event(wrapped(json!({ "promptFeedback": { "blockReason": "PROHIBITED_CONTENT" } }))),
            "content_blocked never",
        ),
        (
            200,
            event(json!({ "type": "error", "data": { "promptFeedback": { "blockReason": "SAFETY" } } })),
            "content_blocked never",
        ),
        (
            200,
            wrapped(json!({ "promptFeedback": { "blockReason": "OTHER" } })).to_string().into_bytes(),
            "content_blocked never",
        ),
        (200, event(wrapped(json!({ "promptFeedback": { "safetyRatings": [] } }))), "unknown never"),
        (
            200,
            event(wrapped(json!({ "note": { "promptFeedback": { "blockReason": "SAFETY" } } }))),
            "unknown never",
        ),
    ]);
}

#[test]
fn sentences_of_clients_and_of_relays_are_known() {
    let cases: Vec<_> = [
        ("API Error: Repeated 529 Overloaded errors", "overloaded again"),
        ("Gave up after 529 overloaded_error", "overloaded again"),
        ("It took 529 overloads", "unknown never"),
        ("GatewayInternalServerError: Internal Server Error", "internal again"),
        ("GatewayRateLimitError: slow down", "rate_limited again"),
        ("GatewayTimeoutError: slow", "deadline_exceeded again"),
        ("GatewayResponseError: odd", "unknown never"),
        (
            "[API Error: request to https://x.googleapis.com/v1:countTokens failed, reason: ]",
            "transport again",
        ),
        ("FetchError: request to http://127.0.0.1:1/ failed, reason: bad", "transport again"),
        ("The request to summarize failed, reason: unclear", "unknown never"),
        (
            "Usage limit reached for gemini-3-flash-preview. Access resets at 10:57 PM GMT-3.",
            "quota_exhausted never",
        ),
        ("Usage limit reached for all Pro models.", "quota_exhausted never"),
        ("There is a usage limit for all Pro models.", "unknown never"),
        ("Token error: All accounts limited. Wait 24s.", "rate_limited - after 24s@message"),
        ("All accounts limited. Wait 2m30s.", "rate_limited - after 150s@message"),
        ("Accounts are not limited. Wait 24s.", "unknown never"),
        (
            "ClientError: Multiple tools are supported only when they are all search tools.",
            "invalid_argument never",
        ),
        ("Multiple tools are supported.", "unknown never"),
        ("auth_unavailable: no auth available (providers=gemini-cli)", "unavailable again"),
        ("No available accounts: Token acquisition timeout (5s)", "unavailable again"),
        ("Provider Google failed: No content parts were returned from Google API", "empty_response never"),
        ("Model response empty", "empty_response never"),
        ("request error: API 返回的 candidate.content.parts 为空。", "empty_response never"),
        ("The model responds to the empty list", "unknown never"),
        ("Stream parsing error: Error: Incomplete JSON segment at the end", "truncated never"),
        (
            "Your current account is not eligible because it is not currently available in your location.",
            "failed_precondition never",
        ),
    ]
    .map(|(said, expected)| (200, text(said), expected))
    .into();
    check(&cases);
}

#[test]
fn what_comes_true_in_minutes_is_asked_for_again_and_what_is_stored_is_not() {
    check(&[
        (
            400,
            message("Service agents are being provisioned (https://x). Please try again in a few minutes."),
            "failed_precondition again",
        ),
        (400, message("User location is not supported for the API use."), "failed_precondition never"),
        (
            503,
            message("Getting metadata from plugin failed with error: Reauthentication is needed."),
            "unauthenticated never",
        ),
        (503, message("Getting metadata from plugin failed with error: closed"), "unavailable again"),
        (
            429,
            message(
                "TotalCachedContentStorageTokensPerModelFreeTier limit exceeded for model m: limit=1000, requested=1251",
            ),
            "quota_exhausted never",
        ),
        (429, message("TotalCachedTokens limit exceeded for model m: limit=1000"), "rate_limited again"),
    ]);
}
