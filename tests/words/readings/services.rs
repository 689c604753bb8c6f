//! Google's own names and sentences where the rest of the envelope is gone, or somebody else's.

use serde_json::json;

use super::kinds::{body, check, text};

fn message(message: &str) -> Vec<u8> {
    json!({ "error": { "code": 429, "message": message, "status": "RESOURCE_EXHAUSTED" } })
        .to_string()
        .into_bytes()
}

#[test]
fn a_quotas_name_says_its_period_in_any_sentence() {
    check(&[
        (
            429,
            message(
                "Quota exceeded for aiplatform.googleapis.com/base_model_generate_content_requests_per_day",
            ),
            "quota_exhausted RESOURCE_EXHAUSTED never + requests/day - ~ai/base_model_generate_content_requests_per_day",
        ),
        (
            429,
            message("Quota exceeded for aiplatform.googleapis.com/generate_content_requests_per_minute"),
            "rate_limited RESOURCE_EXHAUSTED backoff + requests/minute - ~ai/generate_content_requests_per_minute",
        ),
        (
            429,
            message(
                "Quota exceeded for 'aiplatform.googleapis.com/online_prediction_tokens_per_day' in us-east4.",
            ),
            "quota_exhausted RESOURCE_EXHAUSTED never + tokens/day - ~ai/online_prediction_tokens_per_day",
        ),
        (
            429,
            message("Quota exceeded for requests per minute"),
            "rate_limited RESOURCE_EXHAUSTED backoff + requests/minute -",
        ),
        (
            429,
            message("Quota exceeded for input tokens per day, limit: 500 for this key"),
            "quota_exhausted RESOURCE_EXHAUSTED never + tokens/day 500",
        ),
        // Whose quota it is, and no period.
        (429, message("Quota exceeded for this project"), "rate_limited RESOURCE_EXHAUSTED backoff"),
        (
            429,
            message("Quota exceeded for aiplatform.googleapis.com"),
            "rate_limited RESOURCE_EXHAUSTED backoff",
        ),
    ]);
}

#[test]
fn a_reason_has_its_status_whatever_stands_beside_it() {
    let reason = |status: u16, reason: &str| {
        let body = json!({ "error": { "code": status, "message": "x", "details": [{ "reason": reason }] } });
        (status, body.to_string().into_bytes())
    };
    let mut cases = Vec::new();
    for (reasons, expected) in [
        (
            &[
                "CONSUMER_INVALID",
                "CONSUMER_SUSPENDED",
                "USER_PROJECT_DENIED",
                "SECURITY_POLICY_VIOLATED",
                "LOCATION_POLICY_VIOLATED",
                "LOCATION_TAX_POLICY_VIOLATED",
                "ORG_RESTRICTION_VIOLATION",
                "SERVICE_NOT_VISIBLE",
                "GCP_SUSPENDED",
                "API_KEY_SERVICE_BLOCKED",
                "API_KEY_IP_ADDRESS_BLOCKED",
                "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
                "IAM_PERMISSION_DENIED",
            ][..],
            "permission_denied never",
        ),
        (
            &[
                "ACCESS_TOKEN_EXPIRED",
                "ACCESS_TOKEN_TYPE_UNSUPPORTED",
                "CREDENTIALS_MISSING",
                "ACCOUNT_STATE_INVALID",
            ],
            "unauthenticated never",
        ),
        (&["RATE_LIMIT_EXCEEDED"], "rate_limited again"),
        (&["RESOURCE_QUOTA_EXCEEDED"], "quota_exhausted never"),
        (&["SYSTEM_PARAMETER_UNSUPPORTED"], "invalid_argument never"),
        (&["API_KEY_INVALID"], "api_key_invalid never"),
        (&["SERVICE_DISABLED"], "service_disabled never"),
        (&["context_length_exceeded"], "context_too_long never"),
    ] {
        for name in reasons {
            for status in [400, 500, 503] {
                let (status, body) = reason(status, name);
                cases.push((status, body, expected));
            }
        }
    }
    for (status, name, expected) in [
        (403, "BILLING_DISABLED", "permission_denied never"),
        (500, "BILLING_DISABLED", "permission_denied never"),
        (400, "BILLING_DISABLED", "failed_precondition never"),
        (400, "SOMETHING_ELSE", "invalid_argument never"),
        (503, "SOMETHING_ELSE", "unavailable again"),
        (400, "invalid_request", "invalid_argument never"),
    ] {
        let (status, body) = reason(status, name);
        cases.push((status, body, expected));
    }
    check(&cases);
    // Google's own status stands.
    let own = json!({ "error": { "code": 401, "status": "UNAUTHENTICATED", "details": [{ "reason": "CONSUMER_INVALID" }] } });
    check(&[(401, own.to_string().into_bytes(), "unauthenticated never")]);
}

#[test]
fn a_field_of_a_request_is_named_by_its_path() {
    for said in [
        "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch",
        "* CountTokensRequest.contents: contents is not specified",
        "* GenerateContentRequest.contents[0].parts: must not be empty",
    ] {
        check(&[
            (200, text(&format!("AI_APICallError: {said}")), "invalid_argument never"),
            (500, body("error", said), "invalid_argument never"),
        ]);
    }
    check(&[
        (500, body("error", "see ModelRequest.Request.send: it failed"), "internal again"),
        (500, body("error", "* Request. Then: retry"), "internal again"),
    ]);
}

#[test]
fn a_status_of_one_address_is_no_answers() {
    check(&[
        (
            200,
            text(
                "[vertex_ai] Server Unavailable Error, 503 failed to connect to all addresses; last error: UNKNOWN: ipv4:142.251.10.95:443: Failed to connect to remote host: Timeout occurred: FD Shutdown",
            ),
            "unavailable again",
        ),
        (
            500,
            body(
                "error",
                "failed to connect to all addresses; last error: INTERNAL: ipv6:%5B2607::5f%5D:443: tcp handshaker shutdown",
            ),
            "unavailable again",
        ),
        (
            500,
            body("error", "Name resolution failed for target dns:aiplatform.googleapis.com"),
            "unavailable again",
        ),
        (
            503,
            text("upstream connect error or disconnect/reset before headers. reset reason: overflow"),
            "unavailable again",
        ),
        (200, text("retried, last error: INTERNAL: it broke"), "internal again"),
    ]);
}

#[test]
fn details_behind_a_sentence_name_the_quota() {
    let told = "[429 Too Many Requests] Quota exceeded for quota metric 'Generate Content API requests per minute' and limit 'GenerateContent request limit per minute for a region' of service 'generativelanguage.googleapis.com'.";
    let details = json!([
        { "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com", "metadata": {
            "quota_limit_value": "60", "quota_metric": "m/requests", "quota_limit": "RequestsPerMinutePerProject" } },
        { "@type": "type.googleapis.com/google.rpc.Help", "links": [] },
    ]);
    let whole = "rate_limited RESOURCE_EXHAUSTED backoff reason=RATE_LIMIT_EXCEEDED + requests/minute 60 #RequestsPerMinutePerProject ~m/requests";
    check(&[
        (
            200,
            text(&format!("[GoogleGenerativeAI Error]: Error fetching from https://x/m: {told} {details}")),
            whole,
        ),
        (429, text(&details.to_string()), &whole.replace("RESOURCE_EXHAUSTED", "-")),
    ]);
}

#[test]
fn a_client_without_an_answer_says_so_in_its_own_words() {
    for told in [
        "Error: getaddrinfo ENOTFOUND generativelanguage.googleapis.com",
        "httpx.ConnectError: [Errno -2] Name or service not known",
        "urllib3: HTTPSConnectionPool(host='x', port=443): Max retries exceeded with url: /v1beta",
        "httpx.RemoteProtocolError: Server disconnected without sending a response.",
        "dial tcp: lookup generativelanguage.googleapis.com: no such host",
        "dial tcp 142.250.1.1:443: connect: connection refused",
        "SocketException: Failed host lookup: 'x' (OS Error: No address, errno = 7)",
        "cURL error 6: Could not resolve host: x",
    ] {
        check(&[(200, text(told), "transport again"), (500, body("error", told), "transport again")]);
        // A status of its own says more.
        check(&[
            (503, body("error", told), "unavailable again"),
            (400, body("error", told), "invalid_argument never"),
        ]);
    }
    for told in [
        "Net::ReadTimeout with #<TCPSocket:(closed)>",
        "dial tcp 1.2.3.4:443: i/o timeout",
        "reqwest: operation timed out",
    ] {
        check(&[
            (200, text(told), "deadline_exceeded again"),
            (500, body("error", told), "deadline_exceeded again"),
        ]);
    }
    check(&[(500, body("error", "the host refused the connection of ideas"), "internal again")]);
}

#[test]
fn what_blocks_a_prompt_blocks_it_whatever_it_is_called() {
    check(&[
        (200, text("BlockedPromptException: block_reason: OTHER"), "content_blocked never"),
        (500, body("error", "promptFeedback: {blockReason: 'JAILBREAK'}"), "content_blocked never"),
        (500, body("error", "block_reason: BLOCK_REASON_UNSPECIFIED"), "internal again"),
        (500, body("error", "finish_reason: OTHER"), "internal again"),
        (200, text("litellm.ContentPolicyViolationError: VertexAIException - no"), "content_blocked never"),
        (403, body("error", "Your input was flagged"), "content_blocked never"),
    ]);
}

#[test]
fn a_clients_own_words_for_a_status_are_known() {
    for (told, expected) in [
        ("The service is receiving too many requests from you", "rate_limited again"),
        ("Forbidden - perhaps check your credentials?", "permission_denied never"),
        ("Authorization failed - please check your credentials", "unauthenticated never"),
        ("The resource you are requesting could not be found", "not_found never"),
        ("Service unavailable - try again later or consider setting this node to retry", "unavailable again"),
        ("The service was not able to process your request", "internal again"),
        ("Bad request - please check your parameters", "invalid_argument never"),
        ("AI_APICallError: Not Found", "not_found never"),
        ("AI_APICallError: Unauthorized", "unauthenticated never"),
        ("AI_APICallError: Internal Server Error", "internal again"),
        ("Error message: durationSeconds isn't supported by this model.", "invalid_argument never"),
        ("Internal error encountered.", "internal again"),
        ("Our servers are currently overloaded. Please try again later.", "overloaded again"),
        ("Service overloaded - please try again later", "overloaded again"),
        ("Quota exceeded, limit: 0", "quota_exhausted never"),
        ("Quota exhausted for model m on a shared project", "rate_limited again"),
        ("API rate limit reached", "rate_limited again"),
        ("Model stream ended without a finish reason.", "truncated never"),
        ("Gemini API returned an empty response.", "empty_response never"),
        ("Failed to refresh token: 400 {\"error\":\"invalid_rapt\"}", "unauthenticated never"),
        (
            "503 Getting metadata failed: ('invalid_grant: Invalid JWT Signature.', {})",
            "unauthenticated never",
        ),
        (
            "Status(StatusCode=\"ResourceExhausted\", Detail=\"Quota exceeded for x/requests_per_day with base model: m.\")",
            "quota_exhausted never",
        ),
    ] {
        check(&[(200, text(told), expected)]);
    }
    check(&[
        // What is little beside a status.
        (503, body("error", "Internal error encountered."), "unavailable again"),
        (400, body("error", "Internal error encountered."), "invalid_argument never"),
        (200, text("I looked it up: Not Found"), "unknown never"),
    ]);
}

#[test]
fn a_body_over_several_lines_of_a_log_is_read() {
    let lines = "[ERROR] it failed: Http {\n  \"error\": {\n    \"code\": 429,\n    \"status\": \"RESOURCE_EXHAUSTED\",\n    \"details\": [\n      { \"retryDelay\": \"7s\" }\n    ]\n  }\n}";
    let timed: String = lines.lines().map(|line| format!("2026-01-12T04:51:59.0769038Z {line}\n")).collect();
    let whole = "rate_limited RESOURCE_EXHAUSTED after 7s@info";
    check(&[(200, text(lines), whole), (200, text(&timed), whole), (429, text(&timed), whole)]);
    check(&[(
        200,
        text("2026-01-12T04:51:59.07Z one\n2026-01-12T04:52:59.07Z two\n2026-01-12T04:53:59.07Z three"),
        "unknown never",
    )]);
}
