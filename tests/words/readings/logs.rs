//! Prints with words of an application in front: what the sentence after the status says counts as it does alone. Beside
//! each kind stands what looks like it and is none.

use serde_json::json;
use tower_gemini::Kind;

use super::kinds::{body, check, text};
use crate::line::judge;

#[test]
fn words_before_the_status_hide_nothing_of_the_sentence() {
    for lead in [
        "Chat failed: ",
        "2026-03-01 10:00:00 WARN job 7: ",
        "  - error: [GoogleGenerativeAI Error]: ",
        "✕ error: ",
    ] {
        check(&[
            (200, text(&format!("{lead}503 The model is overloaded.")), "overloaded again"),
            (
                200,
                text(&format!("{lead}[503 Service Unavailable] \nThe model is overloaded.")),
                "overloaded again",
            ),
            (
                200,
                text(&format!("{lead}API error: 503 - This model is experiencing high demand.")),
                "overloaded again",
            ),
            (200, text(&format!("{lead}[503] The service is currently unavailable.")), "unavailable again"),
            (200, text(&format!("{lead}googleapi: Error 400: API key not valid.")), "api_key_invalid never"),
            (
                200,
                text(&format!("{lead}API key expired. (Status: INVALID_ARGUMENT)")),
                "api_key_invalid never",
            ),
            (
                200,
                text(&format!("{lead}error: 429 - Quota exceeded, limit: 0, model: m")),
                "quota_exhausted never",
            ),
            (200, text(&format!("{lead}429 RESOURCE_EXHAUSTED. limit: 0")), "quota_exhausted never"),
            (200, text(&format!("{lead}429 RESOURCE_EXHAUSTED. limit: 10")), "rate_limited again"),
        ]);
        for told in
            ["429 Quota exceeded. Please retry in 11.5s.", "Error 429: Over it. Please try again in 11.5s"]
        {
            let verdict = judge(200, &[], text(&format!("{lead}{told}")));
            assert_eq!(
                verdict.server_delay().map(|d| d.declared().as_millis()),
                Some(11_500),
                "{lead}{told}"
            );
        }
    }
}

#[test]
fn a_line_may_begin_with_a_bracket() {
    check(&[
        (200, text("[429] Quota exceeded, limit: 0, model: m"), "quota_exhausted never"),
        (200, text("[503] The model is overloaded."), "overloaded again"),
        (200, text("[10:00:00] [ERROR] call (Status: 500, Code: 500): Internal error."), "internal again"),
        (200, text("[ERROR] rpc error: code = Unavailable desc = down"), "unavailable again"),
        // These are JSON.
        (200, text("[]"), "empty_response never"),
        (200, text("[429, 503]"), "unknown never"),
        (200, text("[\"503 UNAVAILABLE\"]"), "unknown never"),
    ]);
}

#[test]
fn a_reason_for_no_answer_is_read_in_a_print() {
    for block in [
        "blocked: candidate: FinishReasonSafety",
        "blocked: prompt: BlockReasonProhibitedContent",
        "finishReason: SAFETY",
        "no candidates, finish_reason=FinishReason.RECITATION",
        "blocked, block_reason: PROHIBITED_CONTENT",
        "the API error: IMAGE_SAFETY",
    ] {
        check(&[
            (500, body("error", block), "content_blocked never"),
            (500, text(block), "content_blocked never"),
        ]);
    }
    check(&[
        (500, body("error", "finishReason: STOP"), "internal again"),
        (500, body("error", "reason: Language of the client"), "internal again"),
        (500, body("error", "error: LANGUAGE not set"), "internal again"),
        (500, body("error", "for safety reasons: none"), "internal again"),
    ]);
}

#[test]
fn more_ways_to_say_that_a_quota_is_spent() {
    check(&[
        (200, text("Error: quotaId: RequestsPerDayPerProject"), "quota_exhausted never"),
        (200, text("seen: quotaId: RequestsPerMinutePerProject"), "rate_limited again"),
        (429, body("error", "Quota exceeded for the day"), "quota_exhausted never"),
        (
            429,
            json!({ "error": { "status": "RESOURCE_EXHAUSTED", "message": "QUOTA_EXHAUSTED" } })
                .to_string()
                .into(),
            "quota_exhausted never",
        ),
        (500, body("error", "m is temporarily rate-limited upstream. Retry shortly"), "rate_limited again"),
        (429, body("error", "Quota exceeded for the minute"), "rate_limited again"),
    ]);
}

#[test]
fn details_on_lines_of_their_own_are_all_read() {
    let quota = r#"{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"RequestsPerMinutePerProject"}]}"#;
    let delay = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"24s"}"#;
    for lines in [format!("{quota}\n{delay}"), format!("{delay}\n{quota}")] {
        let verdict = judge(200, &[], text(&format!("You exceeded your current quota.\n{lines}")));
        assert_eq!(verdict.kind(), Some(Kind::RateLimited), "{lines}");
        assert_eq!(verdict.quota().len(), 1, "{lines}");
        assert_eq!(verdict.server_delay().map(|d| d.declared().as_secs()), Some(24), "{lines}");
    }
}

#[test]
fn what_came_of_a_fault_is_not_the_fault() {
    let error = |message: &str| {
        json!({ "error": { "code": 504, "message": message, "status": "DEADLINE_EXCEEDED" } })
            .to_string()
            .into()
    };
    check(&[
        (504, error("Stream ended; status = CANCELLED: hop failed"), "deadline_exceeded again"),
        (504, error("failed: 8 RESOURCE_EXHAUSTED: over it"), "rate_limited again"),
        (200, text("rpc error: code = Canceled desc = gone"), "cancelled again"),
        (500, text("status: 500 Internal Server Error. 429 Over it."), "rate_limited again"),
        (502, text("got status: 502 Bad Gateway: 404 Model gone"), "not_found never"),
        (500, text("status: 500 Internal Server Error. 429 times"), "internal again"),
    ]);
}

#[test]
fn an_answer_that_quotes_such_lines_is_left_alone() {
    for quoted in [
        "[503] The model is overloaded.",
        "finishReason: SAFETY",
        "Chat failed: 429 Quota exceeded, limit: 0",
    ] {
        let answer = json!({ "candidates": [{ "content": { "parts": [{ "text": quoted }] }, "finishReason": "STOP" }] });
        check(&[(200, answer.to_string().into(), "success never")]);
    }
}
