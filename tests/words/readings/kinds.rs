//! One group per kind of misreading: what was tried, what it is.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tower_gemini::verdict::Retryability;

use crate::line::{judge, line};

const V: &str = r#"{"code":429,"details":[{"violations":[{"quotaId":"XPerDay"}]}]}"#;
const V_PRINTED: &str = "{'code': 429, 'details': [{'violations': [{'quotaId': 'XPerDay'}]}]}";
const SPENT: &str = "quota_exhausted - never + other/day - zero #XPerDay";

/// A body of one member.
pub(crate) fn body(name: &str, text: &str) -> Vec<u8> {
    json!({ name: text }).to_string().into_bytes()
}

fn message(text: &str) -> Vec<u8> {
    json!({ "error": { "message": text } }).to_string().into_bytes()
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Only the kind and the decision are compared where `expected` has two words.
#[track_caller]
pub(crate) fn check(cases: &[(u16, Vec<u8>, &str)]) {
    let mut wrong = String::new();
    for (status, body, expected) in cases {
        let verdict = judge(*status, &[], body.clone());
        let retry = verdict.retryability() != Retryability::Never;
        let kind = verdict.kind().map_or("success", |kind| kind.as_str());
        let said = match expected.split(' ').count() {
            2 => format!("{kind} {}", if retry { "again" } else { "never" }),
            _ => line(&verdict),
        };
        if said != *expected {
            writeln!(
                wrong,
                "{status} {}\n  wanted {expected}\n  said   {said} ({})",
                String::from_utf8_lossy(body),
                line(&verdict)
            )
            .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn an_sdks_print_in_a_member_is_read_as_the_whole_body_is() {
    let print = format!("429 X. {{'error': {V_PRINTED}}}");
    let key = "400 X. {'error': {'code': 400, 'message': 'API key not valid.'}}";
    let grpc = r#"429 Over it. [violations { quota_metric: "m/requests" quota_id: "XPerDay" quota_value: 5 } , retry_delay { seconds: 7 } ]"#;
    let go = "Error 429, Message: Over it., Status: RESOURCE_EXHAUSTED, Details: [map[@type:type.googleapis.com/google.rpc.QuotaFailure violations:[map[quotaId:XPerDay quotaMetric:m/requests quotaValue:5]]] map[@type:type.googleapis.com/google.rpc.RetryInfo retryDelay:7s]]";
    let node = r#"[GoogleGenerativeAI Error]: Error fetching from https://x/v1beta/models/m:generateContent: [429 Too Many Requests] Over it. [{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaMetric":"m/requests","quotaId":"XPerDay","quotaValue":"5"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"7s"}]"#;
    let inspect = "ApiError: { error: { code: 429, message: 'Over it.', status: 'RESOURCE_EXHAUSTED', details: [ { violations: [ { quotaMetric: 'm/requests', quotaId: 'XPerDay', quotaValue: '5' } ] }, { retryDelay: '7s' } ] } }";
    let java = "com.google.genai.errors.ClientException: 429 RESOURCE_EXHAUSTED. {error={code=429, message=Over it., status=RESOURCE_EXHAUSTED, details=[{violations=[{quotaMetric=m/requests, quotaId=XPerDay, quotaValue=5}]}, {retryDelay=7s}]}}";
    let dart = "ServerException: {error: {code: 429, message: Over it., status: RESOURCE_EXHAUSTED, details: [{violations: [{quotaMetric: m/requests, quotaId: XPerDay, quotaValue: 5}]}, {retryDelay: 7s}]}}";
    let litellm = r#"litellm.RateLimitError: RateLimitError: VertexAIException - b'{\n  "error": {\n    "code": 429,\n    "message": "Over it.",\n    "status": "RESOURCE_EXHAUSTED",\n    "details": [{"violations": [{"quotaMetric": "m/requests", "quotaId": "XPerDay", "quotaValue": "5"}]}, {"retryDelay": "7s"}]\n  }\n}\n'. Received Model Group=gemini"#;
    let spring = r#"429 Too Many Requests: "{<EOL>  "error": {<EOL>    "code": 429,<EOL>    "message": "Over it.",<EOL>    "status": "RESOURCE_EXHAUSTED",<EOL>    "details": [{"violations": [{"quotaMetric": "m/requests", "quotaId": "XPerDay", "quotaValue": "5"}]}, {"retryDelay": "7s"}]<EOL>  }<EOL>}""#;
    let whole = "quota_exhausted RESOURCE_EXHAUSTED never 7s@info + requests/day 5 #XPerDay ~m/requests";
    let mut cases = vec![
        (429, message(&print), SPENT),
        (429, body("detail", &print), SPENT),
        (429, body("error", &print), SPENT),
        (429, text(&print), SPENT),
        (500, body("error", key), "api_key_invalid - never"),
        (500, body("detail", key), "api_key_invalid - never"),
        (500, body("error", &key.replace('\'', "\"")), "api_key_invalid - never"),
        (
            500,
            body("error", "403 X. {'error': {'code': 403, 'message': 'No.', 'status': 'PERMISSION_DENIED'}}"),
            "permission_denied PERMISSION_DENIED never",
        ),
    ];
    for print in [grpc, go, node, inspect, java, dart, litellm, spring] {
        cases.push((429, text(print), whole));
        cases.push((429, message(print), whole));
        cases.push((429, body("detail", print), whole));
        cases.push((500, body("error", print), whole));
        cases.push((
            502,
            json!({ "ok": false, "failure": { "cause": [print] } }).to_string().into_bytes(),
            whole,
        ));
        cases.push((
            500,
            json!({ "error": { "code": 500, "message": print, "status": "INTERNAL" } })
                .to_string()
                .into_bytes(),
            whole,
        ));
    }
    check(&cases);
}

#[test]
fn any_depth_of_escapes_is_taken_off() {
    let line_feeds =
        format!("{{\"message\": \"a\nPlease retry in 44s.\", \"code\": 429, \"details\": {}}}", "[]");
    let mut cases = vec![
        (429, text(&format!("429 X. {{'message': '{{\\n \"error\": {V}}}'}}")), SPENT),
        (
            429,
            text(&format!("429 X. {{'message': '{{\n \"error\": {V}}}', 'status': 'Too Many Requests'}}")),
            SPENT,
        ),
        (429, text(&format!("429 X. {{'message': '{{\"error\": {V}}}'}}")), SPENT),
        (429, text(&format!("x - b'{{\\n \"error\": {V}\\n}}\\n'")), SPENT),
        (429, message(&format!("{{\"error\": {line_feeds}}}")), "rate_limited - after 44s@message"),
        (
            400,
            message("{\"error\":{\"code\":400,\"message\":\"a\nAPI key not valid.\"}}"),
            "api_key_invalid - never",
        ),
    ];
    // The escapes of a string, without the string around them.
    let mut escaped = format!("{{\n  \"error\": {V}\n}}");
    for _ in 0..5 {
        let quoted = Value::from(escaped.as_str()).to_string();
        escaped = quoted[1..quoted.len() - 1].to_owned();
        cases.push((429, text(&format!("upstream said {escaped}")), SPENT));
        cases.push((429, message(&format!("upstream said {escaped}")), SPENT));
    }
    check(&cases);
}

#[test]
fn a_providers_body_is_found_under_any_name() {
    let raw = format!("{{\"error\":{V}}}");
    let within = |value: Value| json!({ "error": value }).to_string().into_bytes();
    check(&[
        (
            429,
            within(
                json!({ "message": "x", "code": 429, "metadata": { "raw": raw, "provider_name": "Google" } }),
            ),
            SPENT,
        ),
        (
            429,
            within(json!({ "message": "x", "code": 502, "upstream": { "status": 429, "body": raw } })),
            SPENT,
        ),
        (
            429,
            within(json!({ "message": "x", "lastError": { "statusCode": 429, "responseBody": raw } })),
            SPENT,
        ),
        (
            502,
            within(
                json!({ "message": "x", "code": 502, "a": { "b": [{ "c": { "error": serde_json::from_str::<Value>(V).unwrap() } }] } }),
            ),
            SPENT,
        ),
        (
            500,
            json!({ "whatever": serde_json::from_str::<Value>(&raw).unwrap(), "n": 1 })
                .to_string()
                .into_bytes(),
            SPENT,
        ),
        (500, json!({ "detail": raw }).to_string().into_bytes(), SPENT),
        (500, within(json!({ "code": 500, "message": "x", "details": raw })), SPENT),
        (500, within(json!({ "code": 500, "message": "x", "details": [{ "upstream": raw }] })), SPENT),
        (
            500,
            within(
                json!({ "code": 500, "message": "x", "inner": { "code": 403, "message": "Your API key was reported as leaked." } }),
            ),
            "key_leaked - never",
        ),
        (500, json!({ "errors": [{ "message": raw }] }).to_string().into_bytes(), SPENT),
        // A reason in a member of no form is none.
        (
            500,
            within(json!({ "code": 500, "message": "m", "other": { "reason": "API_KEY_INVALID" } })),
            "internal again",
        ),
        // A prompt that is quoted is no error of the server's.
        (
            400,
            within(
                json!({ "code": 400, "message": "bad", "status": "INVALID_ARGUMENT", "param": { "code": 7 } }),
            ),
            "invalid_argument never",
        ),
    ]);
}

#[test]
fn a_relays_own_words_for_the_delay_count() {
    let error = |value: Value| json!({ "error": value }).to_string().into_bytes();
    check(&[
        (
            429,
            error(json!({ "code": "model_cooldown", "reset_seconds": 561_635, "reset_time": "156h0m34s" })),
            "quota_exhausted - never 561635s@metadata",
        ),
        (
            429,
            error(json!({ "code": "model_cooldown", "reset_seconds": 35, "reset_time": "35s" })),
            "rate_limited - after 35s@metadata",
        ),
        (429, error(json!({ "message": "x", "retryAfterMs": 1500 })), "rate_limited - after 1.5s@metadata"),
        (
            503,
            error(json!({ "message": "x", "details": { "cooldown": { "retry_after": "12s" } } })),
            "unavailable - after 12s@metadata",
        ),
        (
            429,
            json!({ "error": "cooling down", "retry_after": 40 }).to_string().into_bytes(),
            "rate_limited - after 40s@metadata",
        ),
        (
            429,
            json!({ "detail": "cooling down", "wait_seconds": 7.5 }).to_string().into_bytes(),
            "rate_limited - after 7.5s@metadata",
        ),
        (
            429,
            error(json!({ "message": "x", "reset_at": 1_796_000_000_u64, "retries": 3 })),
            "rate_limited - backoff",
        ),
    ]);
}

#[test]
fn a_limit_of_zero_is_read_in_any_punctuation() {
    for zero in [
        "Quota exceeded for metric: g.com/x, limit: 0. Please retry in 59s.",
        "Quota exceeded for metric: g.com/x\nlimit: 0",
        "Quota exceeded for metric: g.com/x, limit: 0\nPlease retry in 2s.",
        "Quota exceeded, limit: 0",
        "Quota exceeded (limit: 0)",
        "Quota exceeded; limit=0; model=m",
        "quota is used up: limit: 0",
        "Your quota: \"limit\": 0, so none.",
        "E(message: Quota exceeded for metric: a.b/c, limit: 0, model: m)",
    ] {
        check(&[
            (429, message(zero), "quota_exhausted never"),
            (429, text(zero), "quota_exhausted never"),
            (429, message(&format!("Failed: {zero}")), "quota_exhausted never"),
            (429, message(&zero.replace('0', "10")), "rate_limited again"),
            (429, message(&zero.replace(" 0", " 0.5").replace("=0", "=0.5")), "rate_limited again"),
        ]);
    }
}

#[test]
fn a_quota_sentence_is_read_behind_a_prefix() {
    let metric = "Quota exceeded for metric: a.b/c, limit: 0, model: m";
    let day = "Quota exceeded for quota metric 'X' and limit 'X per day'";
    check(&[
        (
            429,
            text(&format!("E(message: {metric})")),
            "quota_exhausted - never model=m + other/unknown 0 zero ~a.b/c @m",
        ),
        (429, text(metric), "quota_exhausted - never model=m + other/unknown 0 zero ~a.b/c @m"),
        (429, text(&format!("E(message: {day})")), "quota_exhausted - never + other/day - ~X"),
        (
            429,
            text(&format!("Exception: message={day} of service 'y'.")),
            "quota_exhausted - never + other/day - ~X",
        ),
        (429, text(day), "quota_exhausted - never + other/day - ~X"),
        (429, message(&format!("GenerativeAIException: {day}.")), "quota_exhausted - never + other/day - ~X"),
        (
            429,
            text(&format!("RPCError(httpResponseCode: 429, message: \"{metric}\", status: x)")),
            "quota_exhausted - never model=m + other/unknown 0 zero ~a.b/c @m",
        ),
    ]);
}

#[test]
fn a_status_name_in_a_print_is_read() {
    let exhausted = "ResourceExhaustedException: io.grpc.StatusRuntimeException: RESOURCE_EXHAUSTED: x";
    let bad = "Error 400, Message: x, Status: INVALID_ARGUMENT, Details: []";
    check(&[
        (400, text(bad), "invalid_argument INVALID_ARGUMENT never"),
        (500, text(bad), "invalid_argument INVALID_ARGUMENT never"),
        (500, body("error", bad), "invalid_argument INVALID_ARGUMENT never"),
        (500, message(bad), "invalid_argument INVALID_ARGUMENT never"),
        (429, text(exhausted), "rate_limited RESOURCE_EXHAUSTED backoff"),
        (500, text(exhausted), "rate_limited RESOURCE_EXHAUSTED backoff"),
        (500, body("detail", exhausted), "rate_limited RESOURCE_EXHAUSTED backoff"),
        (500, text("rpc error: code = PermissionDenied desc = The caller does not have permission"), "permission_denied PERMISSION_DENIED never"),
        (500, body("error", "8 RESOURCE_EXHAUSTED: Quota exceeded"), "rate_limited RESOURCE_EXHAUSTED backoff"),
        (500, body("message", "litellm.AuthenticationError: geminiException - API key not valid."), "api_key_invalid never"),
        (500, text("Status(StatusCode=\"Unavailable\", Detail=\"The model is overloaded.\")"), "overloaded UNAVAILABLE backoff"),
        (400, text("400 User location is not supported for the API use without a billing account linked."), "failed_precondition FAILED_PRECONDITION never"),
        (400, text("User location is not supported for the API use."), "failed_precondition FAILED_PRECONDITION never"),
        (
            429,
            json!({ "error": { "code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED", "details": [{ "violations": [{ "subject": "user", "description": "requests per day" }] }] } })
                .to_string()
                .into_bytes(),
            "quota_exhausted never",
        ),
        (403, message("API key not valid. Please pass a valid API key."), "api_key_invalid never"),
        (403, message("Vertex AI API has not been used in project 7 before or it is disabled."), "service_disabled never"),
        (500, body("message", "x"), "internal again"),
        (
            500,
            json!({ "status": 500, "error": "Internal Server Error", "message": "com.google.genai.errors.ClientException: 429 . You exceeded your current quota.", "path": "/chat" }).to_string().into_bytes(),
            "rate_limited again",
        ),
        (
            500,
            json!({ "status": 500, "error": "Internal Server Error", "message": "HTTP 403 - {\"error\":{\"code\":403,\"message\":\"x\",\"status\":\"PERMISSION_DENIED\"}}" }).to_string().into_bytes(),
            "permission_denied PERMISSION_DENIED never",
        ),
        (
            429,
            json!({ "error": { "message": "x: Quota exceeded for metric: g.com/requests, limit: 5\nPlease retry in 12.5s.", "type": "RESOURCE_EXHAUSTED", "code": "429" } }).to_string().into_bytes(),
            "rate_limited RESOURCE_EXHAUSTED after 12.5s@message + requests/unknown 5 ~g.com/requests",
        ),
        (500, text("429, message='Too Many Requests', url='https://x'"), "rate_limited again"),
        (
            500,
            text("<_InactiveRpcError of RPC that terminated with:\n\tstatus = StatusCode.RESOURCE_EXHAUSTED\n\tdetails = \"Quota exceeded\"\n>"),
            "rate_limited RESOURCE_EXHAUSTED backoff",
        ),
        (500, body("error", "FirebaseError: AI: Error fetching from https://x: [403 ] It is not enabled"), "permission_denied never"),
        // Google's own words for itself stay.
        (400, json!({ "error": { "code": 400, "status": "INVALID_ARGUMENT", "message": "Bad value for code: 503 UNAVAILABLE." } }).to_string().into_bytes(), "invalid_argument INVALID_ARGUMENT never"),
        (500, text("upstream failed with 503 of 900 calls"), "internal again"),
    ]);
}

#[test]
fn a_sentence_of_googles_is_read_under_a_relays_own_status() {
    let sentences = [
        ("API key not valid. Please pass a valid API key.", "api_key_invalid never"),
        ("API key expired. Please renew the API key.", "api_key_invalid never"),
        ("Your API key was reported as leaked. Please use another API key.", "key_leaked never"),
        ("Vertex AI API has not been used in project 7 before or it is disabled.", "service_disabled never"),
        ("Requests to this API a.com method b are blocked.", "permission_denied never"),
        ("The caller does not have permission", "permission_denied never"),
        ("User location is not supported for the API use.", "failed_precondition FAILED_PRECONDITION never"),
        (
            "The input token count (7) exceeds the maximum number of tokens allowed (5).",
            "context_too_long never",
        ),
        ("models/x is not found for API version v1beta", "not_found never"),
        ("This model models/x is no longer available to new users.", "not_found never"),
        ("Your prepayment credits are depleted.", "quota_exhausted never"),
        ("Individual quota reached. Upgrade.", "quota_exhausted never"),
        ("Resource has been exhausted (e.g. check quota).", "rate_limited again"),
        ("The model is overloaded. Please try again later.", "overloaded again"),
        ("Request contains an invalid argument.", "invalid_argument never"),
        (
            "* GenerateContentRequest.contents[0].parts: contents.parts must not be empty.",
            "invalid_argument never",
        ),
        ("RefreshError: ('invalid_grant: Bad Request')", "unauthenticated never"),
        ("context deadline exceeded", "deadline_exceeded again"),
        ("Deadline expired before operation could complete.", "deadline_exceeded again"),
    ];
    let mut cases = Vec::new();
    for (sentence, expected) in sentences {
        for status in [429, 500, 502, 503] {
            let expected = match expected {
                "failed_precondition FAILED_PRECONDITION never" => "failed_precondition never",
                expected => expected,
            };
            let last = format!("AI_RetryError: Failed after 3 attempts. Last error: {sentence}");
            cases.extend([
                (status, text(sentence), expected),
                (status, body("error", sentence), expected),
                (status, message(sentence), expected),
                (status, text(&format!("Error: it failed.\n{sentence}")), expected),
                (status, body("message", &last), expected),
            ]);
        }
    }
    // What the body names goes first.
    let internal = r#"{"error":{"code":500,"status":"INTERNAL","message":"API key not valid. Please pass a valid API key."}}"#;
    cases.push((500, internal.into(), "internal INTERNAL backoff"));
    check(&cases);
}

#[test]
fn a_servers_own_number_counts_where_nothing_else_is_named() {
    let of = |value: Value| value.to_string().into_bytes();
    check(&[
        (500, of(json!({ "error": "x", "statusCode": 429 })), "rate_limited again"),
        (500, of(json!({ "error": { "message": "x", "statusCode": 400 } })), "invalid_argument never"),
        (500, of(json!({ "message": "x", "status_code": 404 })), "not_found never"),
        (
            500,
            of(
                json!({ "statusCode": 500, "error": "Internal Server Error", "message": "429 RESOURCE_EXHAUSTED. x" }),
            ),
            "rate_limited RESOURCE_EXHAUSTED backoff",
        ),
        (
            429,
            of(json!({ "error": { "code": 429, "statusCode": 500, "message": "x" } })),
            "rate_limited again",
        ),
        (500, of(json!({ "error": "x", "statusCode": 7 })), "internal again"),
        // A relay's word for any fault of its own says less than the status.
        (
            503,
            of(json!({ "error": { "message": "x", "code": "internal_server_error" } })),
            "unavailable again",
        ),
        (429, text("MODEL_CAPACITY_EXHAUSTED\nHTTP 429"), "overloaded again"),
        (
            500,
            body("detail", r#"HTTP Request: POST https://g.com/v1 "HTTP/1.1 400 Bad Request""#),
            "invalid_argument never",
        ),
        (
            500,
            text(r#"HTTP Request: POST https://g.com/v1 "HTTP/2 503 Service Unavailable""#),
            "unavailable again",
        ),
        // A port is no status.
        (
            503,
            body("error", "HTTPSConnectionPool(host='g.com', port=443): Max retries exceeded"),
            "unavailable again",
        ),
        (
            500,
            text("HTTPSConnectionPool(host='g.com', port=443): Read timed out."),
            "deadline_exceeded again",
        ),
    ]);
}

#[test]
fn a_page_names_no_delay() {
    let page = "<!DOCTYPE html><title>Error 502 (Server Error)!!1</title><p>The server encountered a temporary error and could not complete your request.<p>Please try again in 30 seconds.";
    check(&[
        (502, text(page), "unavailable - backoff"),
        (500, body("error", page), "unavailable - backoff"),
        (502, message(&format!("got status: 502 Bad Gateway. {page}")), "unavailable - backoff"),
        (
            503,
            message(
                "The server encountered a temporary error and could not complete your request. Please try again in 30 seconds.",
            ),
            "unavailable - backoff",
        ),
        (503, message("Down. Please try again in 30 seconds."), "unavailable - after 30s@message"),
    ]);
}

#[test]
fn a_zero_by_omission_is_doubted_once_where_the_answer_says_when_it_is_back() {
    let omitted = |id: &str, delay: Value| {
        json!({ "error": { "code": 429, "message": "x", "details": [{ "violations": [{ "quotaId": id }] }, { "retryDelay": delay }] } })
            .to_string()
            .into_bytes()
    };
    check(&[
        (
            429,
            omitted("XRequestsPerMinute", json!("34.4s")),
            "rate_limited - after 34.4s@info + requests/minute - #XRequestsPerMinute",
        ),
        (
            429,
            omitted("XRequestsPerMinute", json!(null)),
            "rate_limited - backoff + requests/minute - #XRequestsPerMinute",
        ),
        (
            429,
            omitted("XRequestsPerMinute", json!("37025s")),
            "quota_exhausted - never 37025s@info + requests/minute - zero #XRequestsPerMinute",
        ),
        (
            429,
            omitted("XRequestsPerDay", json!("34.4s")),
            "quota_exhausted - never 34.4s@info + requests/day - zero #XRequestsPerDay",
        ),
    ]);
    let doubtful = judge(429, &[], omitted("XRequestsPerMinute", json!("34.4s")));
    assert!(doubtful.is_doubtful_zero());
    let believed = doubtful.believed();
    assert_eq!(
        line(&believed),
        "quota_exhausted - never 34.4s@info + requests/minute - zero #XRequestsPerMinute"
    );
    assert!(!believed.is_doubtful_zero());
    let named = judge(429, &[], omitted("XRequestsPerDay", json!("34.4s")));
    assert_eq!(line(&named.clone().believed()), line(&named), "there was no doubt");
}

#[test]
fn a_quota_of_a_minute_without_a_delay_waits_for_its_window() {
    use std::time::Duration;
    let quota = |id: &str, rest: &str| {
        text(&format!(
            r#"{{"error":{{"code":429,"message":"x","details":[{{"violations":[{{"quotaId":"{id}","quotaValue":"5"}}]}}{rest}]}}}}"#
        ))
    };
    for (body, window) in [
        (quota("XRequestsPerMinute", ""), Some(60)),
        (quota("XRequestsPerSecond", ""), Some(1)),
        (quota("XRequestsPerHour", ""), None),
        (quota("XRequestsPerDay", ""), None),
        (quota("XRequests", ""), None),
        (quota("XRequestsPerMinute", r#",{"retryDelay":"7s"}"#), None),
        (message("Quota exceeded for ai.x/requests_per_minute_per_base_model with base model: m."), Some(60)),
        (message("Slow down."), None),
    ] {
        let verdict = judge(429, &[], body.clone());
        assert_eq!(
            verdict.quota_window(),
            window.map(Duration::from_secs),
            "{}",
            String::from_utf8_lossy(&body)
        );
    }
}

#[test]
fn a_retired_model_is_named_with_its_successor() {
    let not_found = |model: &str| {
        json!({ "error": { "code": 404, "status": "NOT_FOUND", "message": format!("models/{model} is not found for API version v1beta") } }).to_string()
    };
    let retired = judge(404, &[], not_found("gemini-2.0-flash")).retired().unwrap();
    assert_eq!((retired.model.as_str(), retired.since.as_str()), ("gemini-2.0-flash", "2026-06-01"));
    assert_eq!(retired.successor.as_deref(), Some("gemini-3.5-flash-lite"));
    // The answer's own word goes before the catalogue's, and stands where the catalogue knows nothing.
    for (model, told) in [("gemini-2.0-flash", true), ("gemini-9-new", false)] {
        let message = format!(
            "This model models/{model} is no longer available to new users. Please update your code to use models/gemini-10-pro."
        );
        let verdict = judge(
            404,
            &[],
            json!({ "error": { "code": 404, "status": "NOT_FOUND", "message": message } }).to_string(),
        );
        assert_eq!(verdict.successor().as_deref(), Some("gemini-10-pro"));
        assert_eq!(verdict.retired().is_some(), told);
    }
    assert_eq!(judge(404, &[], not_found("gemini-3.8-flash")).successor(), None);
    assert_eq!(judge(404, &[], not_found("gemini-3.8-flash")).retired(), None);
    assert_eq!(judge(404, &[], not_found("no-such-model")).retired(), None);
    assert_eq!(
        judge(503, &[], not_found("gemini-2.0-flash").replace("NOT_FOUND", "UNAVAILABLE")).retired(),
        None
    );
    // An odd 429 of one whose day has come.
    let quota = r#"{"error":{"code":429,"message":"x","details":[{"violations":[{"quotaId":"XRequestsPerMinute","quotaValue":"4","quotaDimensions":{"model":"gemini-2.0-flash"}}]}]}}"#;
    assert!(judge(429, &[], quota).retired().is_some());
    assert_eq!(judge(429, &[], quota.replace("gemini-2.0-flash", "gemini-3.8-flash")).retired(), None);
}

#[test]
fn half_an_id_in_a_string_that_ends_there_is_none() {
    let cut = r#"429 You exceeded your current quota. [violations { quota_metric: "m/requests" quota_id: "RequestsPer"#;
    let bare = line(&judge(429, &[], cut.to_owned()));
    let in_a_string = serde_json::Value::from(cut).to_string();
    let in_a_member = serde_json::json!({ "error": { "code": 429, "message": in_a_string } }).to_string();
    let in_both = serde_json::json!({ "error": { "code": 429, "message": serde_json::Value::from(in_a_string).to_string() } });
    for wrapped in [in_a_member, in_both.to_string()] {
        assert_eq!(line(&judge(429, &[], wrapped)), bare);
    }
}

#[test]
fn a_number_that_leads_a_value_without_quotes_names_the_status() {
    let print = "java.lang.RuntimeException: {error={code=429, message=Provider returned error, \
                 metadata={raw=429 Resource exhausted. Please try again later.}}}";
    assert!(line(&judge(429, &[], print.to_owned())).starts_with("rate_limited RESOURCE_EXHAUSTED"));
}
