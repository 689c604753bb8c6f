//! Scripted errors: every one of them parses, and the shapes that Google's have.

use std::io::Read;

use serde_json::json;
use tower_gemini::sim::{Fault, Simulator};

use super::*;

fn with(fault: Fault) -> Simulator {
    Simulator::builder().rule(fault).build().expect("valid")
}

/// Name, HTTP status, `error.status`, start of the message, and reason of the `ErrorInfo`.
const TABLE: [(&str, u16, &str, &str, Option<&str>); 29] = [
    ("rate_limited", 429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", None),
    ("token_rate_limited", 429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", None),
    ("daily_quota_exhausted", 429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", None),
    ("zero_quota", 429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", None),
    ("bare_exhausted", 429, "RESOURCE_EXHAUSTED", "Resource has been exhausted", None),
    ("shared_capacity_exhausted", 429, "RESOURCE_EXHAUSTED", "Resource exhausted. Please try", None),
    ("spend_cap_reached", 429, "RESOURCE_EXHAUSTED", "Your project has exceeded its monthly", None),
    ("prepay_depleted", 429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted", None),
    ("model_capacity_exhausted", 429, "RESOURCE_EXHAUSTED", "No capacity", Some("MODEL_CAPACITY_EXHAUSTED")),
    ("overloaded", 503, "UNAVAILABLE", "This model is currently experiencing high demand.", None),
    ("unavailable", 503, "UNAVAILABLE", "The service is currently unavailable.", None),
    ("internal", 500, "INTERNAL", "An internal error has occurred.", None),
    ("deadline_exceeded", 504, "DEADLINE_EXCEEDED", "Deadline expired", None),
    ("cancelled", 499, "CANCELLED", "The operation was cancelled.", None),
    ("invalid_argument", 400, "INVALID_ARGUMENT", "Invalid JSON payload received.", None),
    ("api_key_invalid", 400, "INVALID_ARGUMENT", "API key not valid.", Some("API_KEY_INVALID")),
    ("api_key_expired", 400, "INVALID_ARGUMENT", "API key expired.", Some("API_KEY_INVALID")),
    ("context_too_long", 400, "INVALID_ARGUMENT", "The input token count (1048577) exceeds", None),
    ("payload_too_large", 400, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520", None),
    ("location_unsupported", 400, "FAILED_PRECONDITION", "User location is not supported", None),
    ("unauthenticated", 401, "UNAUTHENTICATED", "Request had invalid authentication", None),
    ("permission_denied", 403, "PERMISSION_DENIED", "The caller does not have permission", None),
    ("no_api_key", 403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers", None),
    ("key_leaked", 403, "PERMISSION_DENIED", "Your API key was reported as leaked.", None),
    (
        "consumer_suspended",
        403,
        "PERMISSION_DENIED",
        "Permission denied: Consumer",
        Some("CONSUMER_SUSPENDED"),
    ),
    (
        "service_disabled",
        403,
        "PERMISSION_DENIED",
        "Generative Language API has not",
        Some("SERVICE_DISABLED"),
    ),
    ("not_found", 404, "NOT_FOUND", "models/gemini-3.5-flash is not found", None),
    ("unimplemented", 501, "UNIMPLEMENTED", "Operation is not implemented", None),
    ("html", 0, "", "", None),
];

#[tokio::test(start_paused = true)]
async fn every_error_has_googles_shape_in_every_kind_of_call() {
    let mut seen = 0;
    for fault in Fault::every_error() {
        let name = fault.name();
        let sim = with(fault.clone());
        let (plain, events, list) =
            (generate(&sim, "x").await, stream(&sim, "x").await, array(&sim, "x").await);
        assert_eq!(Some(plain.status), fault.status(), "{name}");
        if name.ends_with("_html") {
            assert_eq!(plain.content_type(), "text/html; charset=UTF-8");
            assert!(plain.text().contains(&format!("Error {}", plain.status.as_u16())), "{name}");
            continue;
        }
        let (_, code, status, message, reason) =
            TABLE.iter().find(|row| row.0 == name).unwrap_or_else(|| panic!("no row for {name}"));
        let body = plain.json();
        assert_eq!(plain.status.as_u16(), *code, "{name}");
        assert_eq!(body["error"]["code"], *code, "{name}");
        assert_eq!(body["error"]["status"], *status, "{name}");
        assert!(plain.message().starts_with(message), "{name}: {}", plain.message());
        let details = body["error"]["details"].as_array().cloned().unwrap_or_default();
        let found = details.iter().find_map(|detail| detail["reason"].as_str());
        assert_eq!(found, *reason, "{name}");
        for detail in &details {
            let kind = detail["@type"].as_str().expect("a type");
            assert!(kind.starts_with("type.googleapis.com/google.rpc."), "{name}");
        }
        // An event stream that fails before it starts holds the plain object; an array stream an array.
        assert_eq!(events.json()["error"]["code"], *code, "{name}");
        assert_eq!(events.content_type(), "text/event-stream");
        assert!(list.text().starts_with("[{\n") && list.text().ends_with("}\n]"), "{name}");
        assert_eq!(list.json()[0]["error"]["code"], *code, "{name}");
        seen += 1;
    }
    assert_eq!(seen, TABLE.len() - 1, "each row was met");
}

#[tokio::test(start_paused = true)]
async fn a_quota_error_is_of_the_third_generation() {
    let answer = generate(&with(Fault::rate_limited()), "x").await;
    let error = &answer.json()["error"];
    let types: Vec<_> = (0..3).map(|i| error["details"][i]["@type"].as_str().expect("a type")).collect();
    assert_eq!(
        types,
        ["Help", "QuotaFailure", "RetryInfo"].map(|t| format!("type.googleapis.com/google.rpc.{t}"))
    );
    assert_eq!(error["details"][2]["retryDelay"], "31s", "cut, not rounded");
    assert!(answer.message().ends_with("limit: 10, model: gemini-3.5-flash\nPlease retry in 31.58s."));
    assert_eq!(
        error["details"][1]["violations"],
        json!([{
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
            "quotaDimensions": {"location": "global", "model": MODEL},
            "quotaValue": "10"
        }])
    );
    let order = ["\"code\"", "\"message\"", "\"status\"", "\"details\"", "\"@type\""];
    let places: Vec<_> = order.iter().map(|member| answer.text().find(member)).collect();
    assert!(places.is_sorted() && places[0].is_some(), "members come in Google's order: {places:?}");
}

#[tokio::test(start_paused = true)]
async fn quota_errors_differ_in_id_value_and_delay() {
    let id = |answer: &Answer| {
        let violation = answer.json()["error"]["details"][1]["violations"][0].clone();
        (violation["quotaId"].as_str().unwrap_or_default().to_owned(), violation["quotaValue"].clone())
    };
    let day =
        generate(&with(Fault::daily_quota_exhausted().with_limit(20).with_retry_in(secs(5))), "x").await;
    assert_eq!(id(&day), ("GenerateRequestsPerDayPerProjectPerModel-FreeTier".into(), json!("20")));
    assert_eq!(day.json()["error"]["details"][2]["retryDelay"], "5s", "short, although the day is spent");
    let tokens = generate(&with(Fault::token_rate_limited()), "x").await;
    assert_eq!(id(&tokens), ("GenerateContentInputTokensPerModelPerMinute-FreeTier".into(), json!("250000")));
    let zero = generate(&with(Fault::zero_quota().with_retry_in(ms(856))), "x").await;
    assert_eq!(id(&zero).1, Value::Null, "a zero is left out");
    assert!(zero.message().contains("limit: 0, ") && zero.message().ends_with("Please retry in 856ms."));
    assert_eq!(zero.json()["error"]["details"][2]["retryDelay"], "0s");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_consumer_sees_the_key_and_nobody_else_does() {
    let sim = with(Fault::consumer_suspended());
    let mut request = post(MODEL, "generateContent", "{}");
    request.headers_mut().insert("x-goog-api-key", "AIzaExample".parse().expect("a header"));
    let answer = send(&sim, request).await.expect("an answer");
    assert_eq!(answer.text().matches("api_key:AIzaExample").count(), 3);
    assert!(!format!("{sim:?}{:?}", sim.calls()).contains("AIzaExample"));
}

#[tokio::test(start_paused = true)]
async fn modifiers_change_the_form_and_nothing_else() {
    let plain = generate(&with(Fault::internal()), "x").await;
    let list = generate(&with(Fault::internal().as_array()), "x").await;
    assert_eq!(list.json()[0], plain.json());
    let events = generate(&with(Fault::internal().as_event_stream()), "x").await;
    assert_eq!((events.content_type(), events.json()), ("text/event-stream", plain.json()));

    let zipped = generate(&with(Fault::internal().gzipped()), "x").await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&zipped.body[..]).read_to_end(&mut text).expect("gzip");
    assert_eq!(text, plain.body);

    let short = generate(&with(Fault::internal().truncated_at(20)), "x").await;
    assert_eq!(short.body, plain.body[..20]);
    assert!(short.cut.is_none(), "a clean end");
    let beyond = generate(&with(Fault::internal().truncated_at(1_000_000)), "x").await;
    assert_eq!(beyond.body, plain.body);

    let header = generate(&with(Fault::overloaded().with_retry_after(ms(1_200))), "x").await;
    assert_eq!(header.headers["retry-after"], "2", "rounded up");
    let late = generate(&with(Fault::internal().delayed(secs(3))), "x").await;
    assert_eq!(late.took, ms(3_200));
    let challenge = generate(&with(Fault::unauthenticated()), "x").await;
    assert!(challenge.headers.contains_key("www-authenticate"));
}

#[tokio::test(start_paused = true)]
async fn a_recorded_response_comes_byte_for_byte() {
    let recorded =
        |content_type: &str| Fault::response(StatusCode::CONFLICT, content_type, &b"{\"error\":\xff"[..]);
    // The array form of the call must not touch it.
    let answer = array(&with(recorded("application/json; charset=UTF-8")), "x").await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (409, &b"{\"error\":\xff"[..]));
    let refused = Simulator::builder().rule(recorded("a\nb")).build();
    assert_eq!(refused.err().map(|e| e.field()), Some("Fault::response"));
}
