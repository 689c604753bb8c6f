//! What servers in front of Google write: second texts beside `error`, numbers and sentences of their own, and errors that
//! lie deeper under a 200. Beside each kind stands what looks like it and is none.

use serde_json::{Value, json};

use super::kinds::{body, check, text};

fn of(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn event(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\ndata: [DONE]\n\n").into_bytes()
}

#[test]
fn a_second_text_beside_the_error_says_why() {
    let zero = "Quota exceeded for metric: g.com/requests, limit: 0, model: m\nPlease retry in 3.5s.";
    for (status, told) in [(500, "Request failed"), (502, "AI is down"), (429, "Slow down")] {
        check(&[
            (status, of(&json!({ "error": told, "details": zero })), "quota_exhausted never"),
            (status, of(&json!({ "details": zero, "error": told })), "quota_exhausted never"),
            (status, of(&json!({ "error": { "message": told, "cause": zero } })), "quota_exhausted never"),
        ]);
    }
    check(&[
        (
            500,
            of(&json!({ "error": "x", "details": "API key expired. Please renew the API key." })),
            "api_key_invalid never",
        ),
        (
            500,
            of(&json!({ "error": "x", "info": { "why": "The model is overloaded. Wait." } })),
            "overloaded again",
        ),
        (
            500,
            of(&json!({ "error": "x", "details": { "status": 404, "message": "gone" } })),
            "not_found never",
        ),
        (
            500,
            of(&json!({ "error": "x", "details": { "code": 429, "message": "wait" } })),
            "rate_limited again",
        ),
        (
            500,
            of(
                &json!({ "message": "x", "description": "Resource has been exhausted (e.g. check quota).", "httpCode": "429" }),
            ),
            "rate_limited again",
        ),
        (500, of(&json!({ "error": "Quota", "code": "QUOTA_EXCEEDED" })), "quota_exhausted never"),
        // Prose of its own says nothing, and what is named stays.
        (
            500,
            of(&json!({ "error": "x", "details": "The model was asked for a key of a cache." })),
            "internal again",
        ),
        (
            500,
            of(&json!({ "error": "x", "details": { "status": 200, "message": "fine" } })),
            "internal again",
        ),
        (
            403,
            of(
                &json!({ "error": { "code": 403, "status": "PERMISSION_DENIED", "message": "x", "hint": "Resource has been exhausted" } }),
            ),
            "permission_denied never",
        ),
    ]);
}

#[test]
fn a_violation_that_was_taken_apart_is_one() {
    let day = "GenerateRequestsPerDayPerProjectPerModel";
    check(&[
        (
            429,
            of(
                &json!({ "error": { "code": 429, "message": "x", "details": [{ "quotaId": day, "quotaValue": "30", "model": "m" }] } }),
            ),
            "quota_exhausted never",
        ),
        (
            429,
            of(&json!({ "error": { "code": 429, "message": "x", "details": { "quotaId": day } } })),
            "quota_exhausted never",
        ),
        (
            429,
            of(&json!({ "error": { "code": 429, "message": "x", "quotaId": day } })),
            "quota_exhausted never",
        ),
        (429, of(&json!({ "code": 429, "message": "x", "quotaId": day })), "quota_exhausted never"),
        (429, of(&json!({ "error": "x", "quota_id": day })), "quota_exhausted never"),
        (
            429,
            of(
                &json!({ "error": "x", "quotaId": "RequestsPerMinute", "quotaValue": "12", "retryDelay": "31s" }),
            ),
            "rate_limited - after 31s@metadata + requests/minute 12 #RequestsPerMinute",
        ),
        (429, of(&json!({ "error": "x", "quotaId": "RequestsPerMinute" })), "rate_limited again"),
        // A whole one goes first.
        (
            429,
            of(
                &json!({ "error": { "code": 429, "message": "x", "quotaId": day, "details": [{ "violations": [{ "quotaId": "XPerMinute", "quotaValue": "5" }] }] } }),
            ),
            "rate_limited again",
        ),
        (
            400,
            of(&json!({ "error": { "code": 400, "message": "x", "quotaValue": "7" } })),
            "invalid_argument never",
        ),
    ]);
}

#[test]
fn a_number_is_the_answers_behind_words_that_say_so() {
    check(&[
        (
            500,
            text("This was thrown because the response has a status code of 429 and that is not allowed."),
            "rate_limited again",
        ),
        (
            500,
            text("Response status code does not indicate success: 400 (Bad Request)."),
            "invalid_argument never",
        ),
        (
            500,
            body("detail", "It does not indicate success: 503 (Service Unavailable)."),
            "unavailable again",
        ),
        (
            500,
            body("message", "Client error: `POST https://g.com/v1` resulted in a `403 Forbidden` response"),
            "permission_denied never",
        ),
        (500, body("error", "upstream returned 429"), "rate_limited again"),
        (500, body("error", "the call failed with 404: gone"), "not_found never"),
        (500, body("error", "the call failed with 404 gone"), "internal again"),
        (500, text("Gemini: 400 - ...parameters.items: missing field"), "invalid_argument never"),
        (
            500,
            of(&json!({ "error": { "message": "x", "response": { "status": 429 } } })),
            "rate_limited again",
        ),
        (500, of(&json!({ "message": "x", "upstream_status": 503 })), "unavailable again"),
        (500, of(&json!({ "message": "x", "error_code": "RATE_LIMITED" })), "rate_limited again"),
        (500, of(&json!({ "error": "rate_limit_exceeded", "message": "x" })), "rate_limited again"),
        (500, of(&json!({ "error": "UNAVAILABLE" })), "unavailable UNAVAILABLE backoff"),
        (500, body("error", "Too Many Requests"), "rate_limited again"),
        (500, body("error", "Quota exceeded"), "rate_limited again"),
        (429, body("error", "Not Found"), "rate_limited again"),
        (500, text("it failed\n400 Please do it otherwise."), "invalid_argument never"),
        (
            500,
            text("✕ [API Error: <!DOCTYPE html>\n<title>Error 502 (Server Error)!!1</title>"),
            "unavailable again",
        ),
        (500, text("x <html><head><title>429 Too Many Requests</title>"), "rate_limited again"),
        (500, of(&json!({ "error": "x", "http_status": 401 })), "unauthenticated never"),
        (200, body("error", "it has a status code of 500 and so on"), "internal again"),
        // Counts of other things.
        (500, text("the cache gave 404 results"), "internal again"),
        (500, text("received 503 bytes of 900"), "internal again"),
        (500, text("    402     raise error"), "internal again"),
        (500, text("of 429 tokens"), "internal again"),
    ]);
}

#[test]
fn grpcs_own_number_is_read_beside_a_message() {
    check(&[
        (500, text("code: 3\nmessage: \"a field is wrong\""), "invalid_argument never"),
        (500, text("Job failed: code: 7\nmessage: \"not yours\""), "permission_denied never"),
        (500, text("Code: RESOURCE_EXHAUSTED\nMessage: over it\n"), "rate_limited again"),
        (500, text("%GRPC.RPCError{status: 8, message: \"over it\"}"), "rate_limited again"),
        (
            500,
            text("gRPC Error (code: 16, codeName: UNAUTHENTICATED, message: no token)"),
            "unauthenticated never",
        ),
        (
            500,
            text(
                "<AioRpcError of RPC that terminated with:\n\tstatus = StatusCode.UNIMPLEMENTED\n\tdetails = \"Received http2 header with status: 404\"\n\tdebug_error_string = \"UNKNOWN:x {grpc_message:\"Received http2 header with status: 404\", grpc_status:12}\"\n>",
            ),
            "unimplemented never",
        ),
        (
            500,
            text(
                "<_InactiveRpcError of RPC that terminated with:\n\tstatus = StatusCode.INVALID_ARGUMENT\n\tdetails = \"The input token count (9) exceeds the maximum number of tokens allowed (5).\"\n>",
            ),
            "context_too_long never",
        ),
        // What a process ends with, and half a number.
        (500, text("exit code: 1\nmessage: killed"), "internal again"),
        (500, text("message: over it, code: 4"), "internal again"),
        (500, text("code: 8"), "internal again"),
    ]);
}

#[test]
fn the_sort_of_an_error_counts_where_the_status_says_less() {
    let sorted = |sort: &str| json!({ "error": { "message": "x", "type": sort } });
    check(&[
        (500, of(&sorted("rate_limit_error")), "rate_limited again"),
        (500, of(&sorted("overloaded_error")), "overloaded again"),
        (
            400,
            of(&json!({ "error": { "message": "x", "type": "budget_exceeded", "code": "400" } })),
            "quota_exhausted never",
        ),
        (
            403,
            of(&json!({ "error": { "message": "x", "type": "y", "code": "insufficient_user_quota" } })),
            "quota_exhausted never",
        ),
        (
            429,
            of(&json!({ "error": { "message": "x", "type": "RESOURCE_EXHAUSTED", "code": "429" } })),
            "rate_limited RESOURCE_EXHAUSTED backoff",
        ),
        // It says less than these.
        (429, of(&sorted("server_error")), "rate_limited again"),
        (503, of(&sorted("api_error")), "unavailable again"),
        (401, of(&sorted("invalid_request_error")), "unauthenticated never"),
        (
            500,
            of(&json!({ "error": { "message": "x", "status": "NOT_FOUND", "type": "overloaded_error" } })),
            "not_found never",
        ),
    ]);
}

#[test]
fn sentences_of_every_sort_are_known() {
    for (sentence, expected) in [
        ("Requests from referer https://a.example are blocked.", "permission_denied never"),
        ("The provided API key has an IP address restriction.", "permission_denied never"),
        ("Request had insufficient authentication scopes.", "permission_denied never"),
        ("Permission denied: Consumer 'api_key:x' has been suspended.", "permission_denied never"),
        ("Request is missing required authentication credential.", "unauthenticated never"),
        ("Could not load the default credentials.", "unauthenticated never"),
        ("Image generation is not available in your country.", "failed_precondition never"),
        ("The File abc is not in an ACTIVE state and usage is not allowed.", "failed_precondition again"),
        (
            "Unable to submit request because the input token count is 9 but model only supports up to 5.",
            "context_too_long never",
        ),
        ("Request payload size exceeds the limit: 7 bytes.", "payload_too_large never"),
        ("Publisher Model `x` was not found or your project does not have access to it.", "not_found never"),
        ("Candidate was blocked due to RECITATION", "content_blocked never"),
        ("PromptBlockedException: Prompt was blocked: SAFETY", "content_blocked never"),
        (
            "You have exhausted your capacity on this model. Your quota will reset after 2h5m.",
            "quota_exhausted never",
        ),
        ("No capacity available for model m on the server", "overloaded again"),
        ("The operation was cancelled.", "cancelled again"),
        ("code: 'Some resource has been exhausted', message: \"x\"", "rate_limited again"),
        ("You have exhausted your daily quota on this model.", "quota_exhausted never"),
        ("Operation is not implemented, or supported, or enabled.", "unimplemented never"),
        ("Invalid JSON payload received. Unknown name \"x\": Cannot find field.", "invalid_argument never"),
        ("Function call is missing a thought_signature in functionCall parts.", "invalid_argument never"),
    ] {
        check(&[
            (500, body("error", sentence), expected),
            (500, text(&format!("Gemini: {sentence}")), expected),
            (200, body("error", sentence), expected),
        ]);
    }
    check(&[
        (
            429,
            of(&json!({ "detail": "Request was throttled. Expected available in 42 seconds." })),
            "rate_limited - after 42s@message",
        ),
        (
            429,
            body("error", "Please wait 3 minutes before you try again"),
            "rate_limited - after 180s@message",
        ),
        (
            429,
            of(&json!({ "title": "Too Many Requests", "status": 429, "detail": "Please retry in 8s" })),
            "rate_limited - after 8s@message",
        ),
        (429, text("Over it.\n- Code: 7\n- Retry After: 26s\n"), "rate_limited - after 26s@message"),
        (429, body("error", "Please wait a few minutes"), "rate_limited - backoff"),
        (429, body("error", "You have reached your daily request limit"), "quota_exhausted never"),
    ]);
}

#[test]
fn an_error_under_a_200_is_found_one_level_deeper() {
    let own =
        json!({ "code": 429, "message": "Resource has been exhausted", "status": "RESOURCE_EXHAUSTED" });
    let good = json!([{ "index": 0, "message": { "content": "x" }, "finish_reason": "stop" }]);
    check(&[
        (200, of(&json!({ "data": { "error": own } })), "rate_limited RESOURCE_EXHAUSTED backoff"),
        (
            200,
            of(&json!({ "ok": false, "result": { "error": own } })),
            "rate_limited RESOURCE_EXHAUSTED backoff",
        ),
        (200, of(&json!({ "response": { "error": own } })), "rate_limited RESOURCE_EXHAUSTED backoff"),
        (
            200,
            of(
                &json!({ "choices": [{ "error": { "code": 502, "message": "x" }, "finish_reason": "error" }] }),
            ),
            "unavailable again",
        ),
        (
            200,
            event(&json!({ "choices": [{ "delta": {}, "error": own }] })),
            "rate_limited RESOURCE_EXHAUSTED backoff",
        ),
        (
            200,
            event(&json!({ "error": { "message": "x", "type": "server_error", "code": null } })),
            "internal again",
        ),
        (
            200,
            event(&json!({ "type": "error", "error": { "type": "overloaded_error", "message": "x" } })),
            "overloaded again",
        ),
        (
            200,
            event(
                &json!({ "event": "error", "status": 400, "code": "invalid_param", "message": "x 404 NOT_FOUND. {'error': {'code': 404}}" }),
            ),
            "not_found never",
        ),
        (
            200,
            text("{'error': {'code': 503, 'message': 'down', 'status': 'UNAVAILABLE'}}"),
            "unavailable again",
        ),
        (200, text(" [ { error: { code: 404, message: 'gone' } } ]"), "not_found never"),
        (429, event(&json!({ "error": own })), "rate_limited RESOURCE_EXHAUSTED backoff"),
        (500, text("event: error\ndata: 404 Gone\n\n"), "not_found never"),
        // What is no answer of Gemini's, whatever it is called.
        (200, text("The model is overloaded. Please try again later."), "overloaded again"),
        (
            200,
            text("GenerativeAIException: You exceeded your current quota, limit: 0"),
            "quota_exhausted never",
        ),
        (
            200,
            body("detail", "429 RESOURCE_EXHAUSTED. {'error': {'code': 429, 'message': 'x'}}"),
            "rate_limited again",
        ),
        (200, body("message", "googleapi: Error 404: models/x is gone"), "not_found never"),
        (
            200,
            of(&json!({ "ok": false, "message": "API key expired. Please renew the API key." })),
            "api_key_invalid never",
        ),
        (
            200,
            of(&json!({ "error": { "details": [{ "violations": [{ "quotaId": "XPerDay" }] }] } })),
            "quota_exhausted never",
        ),
        (
            200,
            of(
                &json!([{ "note": "x" }, { "info": "io.grpc.StatusRuntimeException: UNAVAILABLE: io exception" }]),
            ),
            "unavailable again",
        ),
        (200, of(&json!({ "ok": false, "message": "Something went wrong" })), "unknown never"),
        (200, text("The model is fine. Please try it again later."), "unknown never"),
        // Good answers that speak of errors, or have room for them.
        (
            200,
            of(&json!({ "note": "API key expired. Please renew the API key.", "totalTokens": 5 })),
            "success never",
        ),
        (200, of(&json!({ "choices": good })), "success never"),
        (200, of(&json!({ "data": { "error": null }, "id": "x" })), "success never"),
        (
            200,
            of(
                &json!({ "choices": [{ "error": null, "message": { "content": "x" }, "finish_reason": "stop" }] }),
            ),
            "success never",
        ),
        (
            200,
            of(
                &json!({ "choices": [{ "message": { "content": "{\"error\":{\"code\":429,\"message\":\"API key not valid\"}}" }, "finish_reason": "stop" }] }),
            ),
            "success never",
        ),
        (
            200,
            of(
                &json!({ "candidates": [{ "content": { "parts": [{ "text": "Response status code does not indicate success: 429 (Too Many Requests)." }, { "functionCall": { "args": { "error": own } } }] }, "finishReason": "STOP" }], "status": "fine" }),
            ),
            "success never",
        ),
        (
            200,
            of(&json!({ "data": [{ "embedding": [0.5], "error": own }], "object": "list" })),
            "success never",
        ),
        (
            200,
            of(&json!({ "choices": [{ "message": { "content": "Half" }, "finish_reason": "error" }] })),
            "truncated never",
        ),
    ]);
}
