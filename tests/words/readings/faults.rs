//! What clients say of an answer that they have read or have not got: blocks, closed sessions, failed connections. Beside each
//! kind stands what looks like it and is none.

use serde_json::json;
use tower_gemini::verdict::Sent;

use super::kinds::{body, check, text};
use crate::line::judge;

fn bad_request(message: &str) -> Vec<u8> {
    json!({ "error": { "code": 400, "message": message, "status": "INVALID_ARGUMENT" } })
        .to_string()
        .into_bytes()
}

fn message(content: serde_json::Value) -> Vec<u8> {
    json!({ "object": "chat.completion", "choices": [{ "index": 0, "finish_reason": "stop", "message": content }] })
        .to_string()
        .into_bytes()
}

#[test]
fn a_prompt_for_an_image_may_be_blocked_under_a_400() {
    check(&[
        (
            400,
            bad_request("No image: Your current safety filter threshold prohibited one word."),
            "content_blocked never",
        ),
        (
            400,
            bad_request("The response is blocked, as it may violate our policies. Error Code: 7"),
            "content_blocked never",
        ),
        (
            200,
            text("job 3: 400 It has words that violate Google's Responsible AI practices."),
            "content_blocked never",
        ),
        (
            400,
            bad_request("Invalid value at 'safety_settings[0].threshold', \"prohibited\""),
            "invalid_argument never",
        ),
        (400, bad_request("The prompt may not be empty."), "invalid_argument never"),
    ]);
}

#[test]
fn a_text_may_begin_as_an_event_stream_does() {
    check(&[
        (
            500,
            text(": the call failed with status code 429 | {\"status\":429}\n    at call (/x.js:1:2)"),
            "rate_limited again",
        ),
        (
            500,
            text(
                "data: '[{\\n' +\n  '  \"error\": {\\n' +\n  '    \"code\": 403,\\n' +\n  '    \"message\": \"No.\",\\n' +\n  '    \"status\": \"PERMISSION_DENIED\"\\n' +\n  '  }\\n' +\n  '}]',",
            ),
            "permission_denied never",
        ),
        // These are streams, and nothing is in them.
        (200, text(": keep-alive\n\n: keep-alive\n\n"), "empty_response never"),
        (200, text(": OPENROUTER PROCESSING\n\ndata: [DONE]\n\n"), "empty_response never"),
        (200, text("data: [DONE]\n\n"), "empty_response never"),
        (200, text("data: \"API key invalid\"\n\n"), "empty_response never"),
        // In this one there is something.
        (
            200,
            text(
                ": status code 429\n\ndata: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]},\"finishReason\":\"STOP\"}]}\n\n",
            ),
            "success never",
        ),
    ]);
}

#[test]
fn a_reason_for_the_end_may_be_a_number() {
    const NONE: &str = "needs the response to contain a valid `Part`, but none were returned.";
    check(&[
        (
            200,
            text(&format!("ValueError: it {NONE} The candidate's finish_reason is 2.")),
            "empty_response never",
        ),
        (
            200,
            text(&format!("it {NONE} The candidate's [finish_reason](https://x/y#z) is 1.")),
            "empty_response never",
        ),
        (
            200,
            text(&format!("it {NONE} The candidate's [finish_reason](https://x/y#z) is 3.")),
            "content_blocked never",
        ),
        (200, text("no text, index: 0, finish_reason: 4, token_count: 0"), "content_blocked never"),
        (500, body("error", "chunk without parts (finish_reason=8)"), "content_blocked never"),
        (500, body("error", "look: check the `candidate.safety_ratings` of it"), "content_blocked never"),
        (500, body("error", "chunk of 3 parts, finish_reason: 1"), "internal again"),
        (500, body("error", "finish_reason: 3.5"), "internal again"),
        (500, body("error", "finish_reason: 30"), "internal again"),
        (500, body("error", "finish_reason was 3 letters"), "internal again"),
    ]);
}

#[test]
fn a_session_is_closed_with_a_code() {
    check(&[
        (200, text("live: 1011 internal error"), "internal again"),
        (
            200,
            text(
                "ConnectionClosedError: received 1011 (internal error) trace 7; then sent 1011 (internal error)",
            ),
            "internal again",
        ),
        (
            200,
            text("received 1011 (internal error) You exceeded your current quota; then sent 1011"),
            "rate_limited again",
        ),
        (
            200,
            text("received 1008 (policy violation) models/m is not found for API version v1beta"),
            "not_found never",
        ),
        (200, text("received 1007 (invalid frame payload data) bad frame"), "invalid_argument never"),
        (200, text("ConnectionClosedError: no close frame received or sent"), "transport again"),
        (200, text("it took 1011 tokens"), "unknown never"),
    ]);
}

#[test]
fn a_spent_month_and_a_metric_without_its_service() {
    check(&[
        (429, body("error", "The team's monthly spend limit is used up"), "quota_exhausted never"),
        (200, text("429 Too Many Requests: you are at your spend limit"), "quota_exhausted never"),
        (
            429,
            body("error", "Quota exceeded for quota metric any_requests_per_model_per_day"),
            "quota_exhausted never",
        ),
        (
            200,
            text("429 Quota exceeded for quota metric any_requests_per_day and more."),
            "quota_exhausted never",
        ),
        (429, body("error", "Quota exceeded for quota metric any_requests_per_minute"), "rate_limited again"),
        (429, body("error", "You spend too fast: limit reached"), "rate_limited again"),
    ]);
}

#[test]
fn a_line_of_http_and_a_told_number_are_a_status() {
    check(&[
        (200, text("chat: (HTTP/1.1 404 Not Found) no JSON"), "not_found never"),
        (200, text("HTTP/2 503 Service Unavailable"), "unavailable again"),
        (200, text("WARN retry: upstream returned 429, retrying in 500ms (1/4)"), "rate_limited again"),
        (200, text("the host answered 503, backing off"), "unavailable again"),
        (200, text("HTTP/1.1 200 OK, and nothing else"), "unknown never"),
        (200, text("it returned 429, 430 and 431 items"), "unknown never"),
        (200, text("the first 429, all of them"), "unknown never"),
    ]);
}

#[test]
fn a_key_is_invalid_in_short_words() {
    check(&[
        (200, text("API key invalid"), "api_key_invalid never"),
        (401, body("error", "Your API key is invalid or revoked"), "api_key_invalid never"),
        (200, text("the key of the map is invalid"), "unknown never"),
    ]);
}

#[test]
fn images_are_an_answer() {
    let image = json!([{ "type": "image_url", "image_url": { "url": "data:image/png;base64,AA==" } }]);
    let delta = json!({ "choices": [{ "index": 0, "delta": { "content": "", "images": image }, "finish_reason": "stop" }] });
    check(&[
        (200, message(json!({ "role": "assistant", "content": "", "images": image })), "success never"),
        (200, text(&format!("data: {delta}\n\ndata: [DONE]\n\n")), "success never"),
        (200, message(json!({ "role": "assistant", "content": "", "images": [] })), "empty_response never"),
        (200, message(json!({ "role": "assistant", "content": "", "images": null })), "empty_response never"),
    ]);
}

#[test]
fn an_interaction_ends_with_its_event() {
    let step = "data: {\"event_type\":\"step.delta\",\"delta\":{\"type\":\"text\",\"text\":\"a\"}}\n\n";
    let end = |rest: &str| text(&format!("{step}data: {rest}"));
    check(&[
        (200, end("{\"event_type\":\"interaction.complete\"}\n\n"), "success never"),
        (200, end("{\"event_type\":\"interaction.completed\",\"event_id\":\"e\"}\n\n"), "success never"),
        (200, end("{\"event_type\":\"interaction.updated\"}\n\n"), "truncated never"),
        // It breaks off, it has failed, nothing was said before it.
        (200, end("{\"event_type\":\"interaction.completed\",\"interaction\":{\"id\":"), "truncated never"),
        (
            200,
            end("{\"interaction\":{\"status\":\"failed\"},\"event_type\":\"interaction.completed\"}\n\n"),
            "truncated never",
        ),
        (
            200,
            end("{\"event_type\":\"interaction.completed\",\"interaction\":{\"status\":\"failed\"}}\n\n"),
            "truncated never",
        ),
        (200, text("data: {\"event_type\":\"interaction.complete\"}\n\n"), "empty_response never"),
    ]);
}

#[test]
fn a_failed_connection_in_words_is_one() {
    for fault in [
        "TypeError: fetch failed",
        "fetch failed",
        "request to https://x failed, reason: read ECONNRESET",
        "connect ECONNREFUSED 127.0.0.1:443",
        "Error: socket hang up",
        "Code=-1005 \"The network connection was lost.\"",
        "error sending request for url (https://x/y?key=z)",
        "[Errno 99] Cannot assign requested address",
        "request failed\nCaused by: java.net.SocketException: reset",
        "DioException [connection error]: it is gone",
    ] {
        check(&[(200, text(fault), "transport again"), (500, body("error", fault), "transport again")]);
        assert_eq!(judge(200, &[], text(fault)).sent(), Sent::Maybe, "{fault}");
    }
    for fault in [
        "connect ETIMEDOUT 1.2.3.4:443",
        "Cannot connect: Connect Timeout Error (1.2.3.4:443)",
        "hop \"a\" timed out after 60000ms.",
        "failed\nCaused by: java.net.SocketTimeoutException: timed out",
    ] {
        check(&[
            (200, text(fault), "deadline_exceeded again"),
            (500, body("error", fault), "deadline_exceeded again"),
        ]);
    }
    check(&[
        // A status of its own says more.
        (502, body("error", "fetch failed"), "unavailable again"),
        (503, text("upstream: socket hang up"), "unavailable again"),
        (429, body("error", "fetch failed"), "rate_limited again"),
        (400, body("error", "fetch failed"), "invalid_argument never"),
        (404, body("error", "connect ECONNREFUSED"), "not_found never"),
        (200, text("the fetch has failed"), "unknown never"),
        (200, text("failed with status code 503: socket hang up"), "unavailable again"),
        (200, message(json!({ "content": "fetch failed: read ECONNRESET" })), "success never"),
    ]);
}
