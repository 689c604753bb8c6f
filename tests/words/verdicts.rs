//! What each form of Gemini's answers is judged to be: one entry of a table per form, then the forms that
//! need more than a line, then properties that hold for any bytes.
//!
//! The fixtures are written after the forms that public issues and recorded traffic show (as of 2026-10), not
//! copied from them: the wording is Google's only where the wording is what is matched. The number in front
//! of each entry says which group of forms it stands for:
//!
//! | 2.1 | 2.2 | 2.3 | 2.4 | 3 | 4 | 5 | 6 |
//! |---|---|---|---|---|---|---|---|
//! | bodies of a 429 | quota ids | delays | which 429 clears | other statuses | shapes | 200s that fail | Code Assist |
//!
//! A verdict is compared as one line of text, see [`line`]:
//!
//! ```text
//! kind CODE retryability [delay@source] [reason=…] [model=…] [partly] [+ quota]…
//! ```
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tower_gemini::Verdict;
use tower_gemini::verdict::{Kind, Retryability};

use crate::line::{judge, line};

// ===== Bodies =====

fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The usual object, as Google lays it out.
fn google(code: u16, status: &str, message: &str) -> Vec<u8> {
    with(code, status, message, json!(null))
}

/// The same with details.
fn with(code: u16, status: &str, message: &str, details: Value) -> Vec<u8> {
    let mut error = json!({ "code": code, "message": message, "status": status });
    if !details.is_null() {
        error["details"] = details;
    }
    serde_json::to_vec_pretty(&json!({ "error": error })).unwrap()
}

fn over(details: Value) -> Vec<u8> {
    with(429, "RESOURCE_EXHAUSTED", "Too much at once.", details)
}

fn retry_info(delay: Value) -> Vec<u8> {
    over(json!([{ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay }]))
}

fn quota_failure(violations: Value) -> Vec<u8> {
    over(json!([{ "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations }]))
}

fn reason(code: u16, status: &str, reason: &str, message: &str) -> Vec<u8> {
    with(code, status, message, json!([{ "reason": reason, "domain": "googleapis.com" }]))
}

fn array(body: Vec<u8>) -> Vec<u8> {
    [b"[".to_vec(), body, b"\n]\n".to_vec()].concat()
}

fn before(prefix: &[u8], body: Vec<u8>) -> Vec<u8> {
    [prefix.to_vec(), body].concat()
}

fn html_safe(body: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(body).unwrap();
    ['\'', '<', '>', '&', '=']
        .iter()
        .fold(text.to_owned(), |text, c| text.replace(*c, &format!("\\u{:04x}", u32::from(*c))))
        .into_bytes()
}

/// An unary answer of one candidate.
fn answer(finish: &str, parts: Value) -> Vec<u8> {
    let mut candidate = json!({ "index": 0 });
    if !parts.is_null() {
        candidate["content"] = json!({ "role": "model", "parts": parts });
    }
    if !finish.is_empty() {
        candidate["finishReason"] = finish.into();
    }
    serde_json::to_vec_pretty(
        &json!({ "candidates": [candidate], "usageMetadata": { "totalTokenCount": 3 } }),
    )
    .unwrap()
}

fn text_answer(finish: &str) -> Vec<u8> {
    answer(finish, json!([{ "text": "Half a story" }]))
}

struct Case {
    form: &'static str,
    name: &'static str,
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
    expected: &'static str,
}

/// `"form" "name": status [, ["header": "value"]], body => "expected line";`
macro_rules! table {
    ($($form:literal $name:literal: $status:literal $([$($header:literal: $value:literal),+])?, $body:expr
        => $expected:literal;)+) => {
        vec![$(Case {
            form: $form,
            name: $name,
            status: $status,
            headers: &[$($(($header, $value)),+)?],
            body: Vec::<u8>::from($body),
            expected: $expected,
        }),+]
    };
}

#[track_caller]
fn check(cases: &[Case]) {
    let mut wrong = String::new();
    for case in cases {
        let verdict = judge(case.status, case.headers, case.body.clone());
        let said = line(&verdict);
        if said != case.expected {
            let Case { form, name, expected, .. } = case;
            writeln!(wrong, "{form} {name}\n  wanted {expected}\n  said   {said}").unwrap();
        }
        // A verdict on a failure keeps the status, and what it says about itself agrees.
        if !verdict.is_success() {
            assert_eq!(verdict.http_status().map(|s| s.as_u16()), Some(case.status), "{}", case.name);
        }
        let waits = verdict.retryability() == Retryability::AfterServerDelay;
        assert!(!waits || verdict.server_delay().is_some(), "{}: after which delay?", case.name);
    }
    assert!(wrong.is_empty(), "of {} cases:\n{wrong}", cases.len());
    println!("{} cases", cases.len());
}

// ===== The table =====

#[test]
fn every_form_of_a_429_is_judged_by_what_it_says() {
    check(&table! {
        "2.1" "bare, asks to check the quota": 429,
            google(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")
            => "rate_limited RESOURCE_EXHAUSTED backoff";
        "2.1" "bare, speaks of plan and billing": 429,
            google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details.")
            => "rate_limited RESOURCE_EXHAUSTED backoff";
        "2.1" "the same with a Help detail only": 429,
            with(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details.",
                json!([{ "@type": "type.googleapis.com/google.rpc.Help", "links": [{ "description": "x", "url": "https://y" }] }]))
            => "rate_limited RESOURCE_EXHAUSTED backoff";
        "2.1" "first generation: the message says nothing": 429, file("429-first-generation.json")
            => "rate_limited RESOURCE_EXHAUSTED after 29s@info model=gemini-9-flash \
                + requests/minute 12 #GenerateRequestsPerMinutePerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "2.1" "second generation: limit and delay in the message": 429, file("429-second-generation.json")
            => "rate_limited RESOURCE_EXHAUSTED after 8.936125s@message model=gemini-9-flash \
                + tokens/minute 230000 #GenerateContentInputTokensPerModelPerMinute-FreeTier ~gl/generate_content_free_tier_input_token_count @gemini-9-flash";
        "2.1" "third generation: Help first, model in the message": 429, file("429-third-generation.json")
            => "rate_limited RESOURCE_EXHAUSTED after 41.203777518s@message model=gemini-9-flash \
                + requests/minute 7 #GenerateRequestsPerMinutePerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "2.1" "service control, with a value": 429, file("429-service-control.json")
            => "rate_limited RESOURCE_EXHAUSTED backoff reason=RATE_LIMIT_EXCEEDED \
                + requests/minute 55 #GenerateContentRequestsPerMinutePerProjectPerRegion ~gl/generate_content_requests";
        "2.4" "service control, a region without any": 429, file("429-service-control-zero.json")
            => "quota_exhausted RESOURCE_EXHAUSTED never reason=RATE_LIMIT_EXCEEDED \
                + requests/minute 0 zero #GenerateContentRequestsPerMinutePerProjectPerRegion ~gl/generate_content_requests";
        "2.1" "service control, the window in the unit only": 429, file("429-service-control-unit.json")
            => "rate_limited RESOURCE_EXHAUSTED backoff reason=RATE_LIMIT_EXCEEDED \
                + requests/minute 300 #GenerateContentRegionLimit ~gl/generate_content_requests";
        "2.1" "no free tier for this model": 429, file("429-no-free-tier.json")
            => "quota_exhausted RESOURCE_EXHAUSTED never 33s@info \
                + requests/day - zero #GenerateRequestsPerDayPerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests \
                + tokens/day - zero #GenerateContentInputTokensPerModelPerDay-FreeTier ~gl/generate_content_free_tier_input_token_count";
        "2.1" "no free tier, in gRPC's text with empty violations": 429, file("429-grpc-empty-violations.txt")
            => "quota_exhausted RESOURCE_EXHAUSTED never 33s@info";
        "2.1" "shared capacity of Vertex": 429,
            google(429, "RESOURCE_EXHAUSTED", "Resource exhausted. Please try again later. Please refer to https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for more details.")
            => "rate_limited RESOURCE_EXHAUSTED backoff";
        "2.1" "Vertex, per base model and minute": 429,
            google(429, "RESOURCE_EXHAUSTED", "Quota exceeded for aiplatform.googleapis.com/generate_content_requests_per_minute_per_project_per_base_model with base model: gemini-9-pro. Please submit a quota increase request. https://cloud.google.com/x.")
            => "rate_limited RESOURCE_EXHAUSTED backoff model=gemini-9-pro \
                + requests/minute - ~ai/generate_content_requests_per_minute_per_project_per_base_model @gemini-9-pro";
        "2.2" "Vertex, per base model, no window named": 429,
            google(429, "RESOURCE_EXHAUSTED", "Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_base_model with base model: textembedding-frog. Please submit a quota increase request.")
            => "rate_limited RESOURCE_EXHAUSTED backoff model=textembedding-frog \
                + requests/unknown - ~ai/online_prediction_requests_per_base_model @textembedding-frog";
        "2.2" "Vertex, tokens to embed": 429,
            google(429, "RESOURCE_EXHAUSTED", "Quota exceeded for aiplatform.googleapis.com/embed_content_input_tokens_per_minute_per_base_model with base model: gemini-embedding.")
            => "rate_limited RESOURCE_EXHAUSTED backoff model=gemini-embedding \
                + tokens/minute - ~ai/embed_content_input_tokens_per_minute_per_base_model @gemini-embedding";
        "2.1" "prepaid credits are used up": 429,
            google(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects to manage your project and billing. ")
            => "quota_exhausted RESOURCE_EXHAUSTED never";
        "2.1" "spend cap of the account": 429,
            google(429, "RESOURCE_EXHAUSTED", "Your billing account has exceeded its monthly spending cap. Please go to AI Studio at https://ai.studio/billing to see it. ")
            => "quota_exhausted RESOURCE_EXHAUSTED never";
        "2.1" "spend cap of the account, the older ending": 429,
            google(429, "RESOURCE_EXHAUSTED", "Your billing account has exceeded its monthly spending cap. Visit aistudio.google.com.")
            => "quota_exhausted RESOURCE_EXHAUSTED never";
        "2.1" "spend cap of the project": 429,
            google(429, "RESOURCE_EXHAUSTED", "Your project has exceeded its monthly spending cap. Please go to AI Studio at https://ai.studio/spend to manage your project spend cap.")
            => "quota_exhausted RESOURCE_EXHAUSTED never";
        "2.2" "a day's requests, with a delay of seconds": 429, file("429-day.json")
            => "quota_exhausted RESOURCE_EXHAUSTED never 23.5171s@message model=gemini-9-flash \
                + requests/day 18 #GenerateRequestsPerDayPerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "2.2" "three zeros, written by leaving them out": 429, file("429-zero.json")
            => "quota_exhausted RESOURCE_EXHAUSTED never 37025.723541104s@message model=gemini-9-flash \
                + tokens/minute 0 zero #GenerateContentInputTokensPerModelPerMinute-FreeTier ~gl/generate_content_free_tier_input_token_count @gemini-9-flash \
                + requests/day 0 zero #GenerateRequestsPerDayPerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash \
                + requests/minute 0 zero #GenerateRequestsPerMinutePerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "2.2" "tokens of a minute, first paid tier": 429, file("429-paid-tokens.json")
            => "rate_limited RESOURCE_EXHAUSTED after 52s@info model=gemini-9-pro \
                + tokens/minute 1200000 #GenerateContentPaidTierInputTokensPerModelPerMinute ~gl/generate_content_paid_tier_input_token_count @gemini-9-pro";
        "2.2" "tokens of a minute, second paid tier": 429, file("429-paid-tier-2.json")
            => "rate_limited RESOURCE_EXHAUSTED after 0ns@info model=gemini-9-pro \
                + tokens/minute 3500000 #GenerateContentPaidTierInputTokensPerModelPerMinute-PaidTier2 ~gl/generate_content_paid_tier_2_input_token_count @gemini-9-pro";
        "2.2" "a day's requests, no suffix, no dimensions, no value": 429, file("429-no-dimensions.json")
            => "quota_exhausted RESOURCE_EXHAUSTED never \
                + requests/day - zero #GenerateRequestsPerDayPerProjectPerModel ~gl/generate_requests_per_model_per_day";
        "2.2" "embeddings per user, day and minute": 429, file("429-embed-user-day.json")
            => "quota_exhausted RESOURCE_EXHAUSTED never 11s@info model=gemini-embedding-9 \
                + requests/day 900 #EmbedContentRequestsPerDayPerUserPerProjectPerModel-FreeTier ~gl/embed_content_free_tier_requests @gemini-embedding-9 \
                + requests/minute 90 #EmbedContentRequestsPerMinutePerUserPerProjectPerModel-FreeTier ~gl/embed_content_free_tier_requests @gemini-embedding-9";
        "2.2" "reads of the list of models": 429,
            quota_failure(json!([{ "quotaId": "ModelRequestsPerMinutePerProjectPerRegion", "quotaValue": "150" }]))
            => "rate_limited RESOURCE_EXHAUSTED backoff + requests/minute 150 #ModelRequestsPerMinutePerProjectPerRegion";
        "2.2" "words nobody knows yet": 429,
            quota_failure(json!([{ "quotaId": "WhatsitsPerFortnight-NewTier", "quotaValue": "3" }]))
            => "rate_limited RESOURCE_EXHAUSTED backoff + other/unknown 3 #WhatsitsPerFortnight-NewTier";
        "2.2" "a second's requests": 429,
            quota_failure(json!([{ "quotaId": "LiveRequestsPerSecond", "quotaValue": "2" }]))
            => "rate_limited RESOURCE_EXHAUSTED backoff + requests/second 2 #LiveRequestsPerSecond";
        "2.2" "a batch queue without an id": 429,
            google(429, "RESOURCE_EXHAUSTED", "Batch enqueued tokens limit reached.")
            => "rate_limited RESOURCE_EXHAUSTED backoff";
        "2.2" "the value as a number": 429,
            quota_failure(json!([{ "quotaId": "GenerateRequestsPerMinutePerProjectPerModel", "quotaValue": 40 }]))
            => "rate_limited RESOURCE_EXHAUSTED backoff + requests/minute 40 #GenerateRequestsPerMinutePerProjectPerModel";
        "2.2" "the value as a zero": 429,
            quota_failure(json!([{ "quotaId": "GenerateRequestsPerMinutePerProjectPerModel", "quotaValue": "0" }]))
            => "quota_exhausted RESOURCE_EXHAUSTED never + requests/minute 0 zero #GenerateRequestsPerMinutePerProjectPerModel";
        "2.2" "a value that is there and says nothing is not a zero": 429,
            quota_failure(json!([{ "quotaId": "GenerateRequestsPerMinutePerProjectPerModel", "quotaValue": "unlimited" }]))
            => "rate_limited RESOURCE_EXHAUSTED backoff + requests/minute - #GenerateRequestsPerMinutePerProjectPerModel";
        "2.2" "the value left out, and not zero in the message": 429,
            with(429, "RESOURCE_EXHAUSTED", "Over.\n* Quota exceeded for metric: m/requests, limit: 6, model: gemini-9-flash",
                json!([{ "violations": [{ "quotaMetric": "m/requests", "quotaId": "GenerateRequestsPerMinutePerProjectPerModel" }] }]))
            => "rate_limited RESOURCE_EXHAUSTED backoff model=gemini-9-flash + requests/minute 6 #GenerateRequestsPerMinutePerProjectPerModel ~m/requests";
        "2.2" "limit: 0 in the message, nothing else": 429,
            google(429, "RESOURCE_EXHAUSTED", "Over.\n* Quota exceeded for metric: m/requests, limit: 0\nPlease retry in 2.5s.")
            => "quota_exhausted RESOURCE_EXHAUSTED never 2.5s@message + requests/unknown 0 zero ~m/requests";
        "2.2" "dimensions in the other order": 429,
            br#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","details":[{"violations":[{"quotaDimensions":{"model":"gemini-9-flash","location":"global"},"quotaValue":"4","quotaId":"XRequestsPerMinute"}]}]}}"#
            => "rate_limited RESOURCE_EXHAUSTED backoff model=gemini-9-flash + requests/minute 4 #XRequestsPerMinute @gemini-9-flash";
        "2.2" "names in snake case": 429,
            over(json!([
                { "violations": [{ "quota_metric": "m/x", "quota_id": "XRequestsPerMinute", "quota_value": 4, "quota_dimensions": { "model": "gemini-9-flash" } }] },
                { "retry_delay": { "seconds": 12 } },
            ]))
            => "rate_limited RESOURCE_EXHAUSTED after 12s@info model=gemini-9-flash + requests/minute 4 #XRequestsPerMinute ~m/x @gemini-9-flash";
        "2.2" "a precondition's violations are no quota": 429,
            over(json!([{ "violations": [{ "type": "TOS", "subject": "acme-1", "description": "sign it" }] }]))
            => "rate_limited RESOURCE_EXHAUSTED backoff";
    });
}

#[test]
fn every_spelling_of_a_delay_is_read() {
    check(&table! {
        "2.3" "whole seconds": 429, retry_info(json!("31s"))
            => "rate_limited RESOURCE_EXHAUSTED after 31s@info";
        "2.3" "nine decimals": 429, retry_info(json!("45.837906927s"))
            => "rate_limited RESOURCE_EXHAUSTED after 45.837906927s@info";
        "2.3" "milliseconds": 429, retry_info(json!("856.559356ms"))
            => "rate_limited RESOURCE_EXHAUSTED after 856.559356ms@info";
        "2.3" "hours, minutes and seconds": 429, retry_info(json!("10h17m5.723541104s"))
            => "quota_exhausted RESOURCE_EXHAUSTED never 37025.723541104s@info";
        "2.3" "hours in seconds": 429, retry_info(json!("581981.300432511s"))
            => "quota_exhausted RESOURCE_EXHAUSTED never 581981.300432511s@info";
        "2.3" "an integer": 429, retry_info(json!(17)) => "rate_limited RESOURCE_EXHAUSTED after 17s@info";
        "2.3" "a float": 429, retry_info(json!(17.25)) => "rate_limited RESOURCE_EXHAUSTED after 17.25s@info";
        "2.3" "an object": 429, retry_info(json!({ "seconds": 3, "nanos": 500_000_000 }))
            => "rate_limited RESOURCE_EXHAUSTED after 3.5s@info";
        "2.3" "an object, its seconds a string": 429, retry_info(json!({ "nanos": 1_000_000, "seconds": "3" }))
            => "rate_limited RESOURCE_EXHAUSTED after 3.001s@info";
        "2.3" "a negative one is none": 429, retry_info(json!("-4s")) => "rate_limited RESOURCE_EXHAUSTED backoff";
        "2.3" "a negative number is none": 429, retry_info(json!(-4)) => "rate_limited RESOURCE_EXHAUSTED backoff";
        "2.3" "one beyond all time is none": 429, retry_info(json!("99999999999999999999s"))
            => "rate_limited RESOURCE_EXHAUSTED backoff";
        "2.3" "null is none": 429, retry_info(json!(null)) => "rate_limited RESOURCE_EXHAUSTED backoff";
        "2.3" "0s beside milliseconds in the message": 429,
            with(429, "RESOURCE_EXHAUSTED", "Slow down. Please retry in 856.559356ms.", json!([{ "retryDelay": "0s" }]))
            => "rate_limited RESOURCE_EXHAUSTED after 856.559356ms@message";
        "2.3" "the larger one counts, not the first": 429,
            with(429, "RESOURCE_EXHAUSTED", "Slow down. Please retry in 4.2s.", json!([{ "retryDelay": "9s" }]))
            => "rate_limited RESOURCE_EXHAUSTED after 9s@info";
        "2.3" "in the message only": 429,
            google(429, "RESOURCE_EXHAUSTED", "Slow down. Please retry in 31.58s. Or later.")
            => "rate_limited RESOURCE_EXHAUSTED after 31.58s@message";
        "2.3" "in the message, hours": 429,
            google(429, "RESOURCE_EXHAUSTED", "Please retry in 10h17m5.723541104s.")
            => "quota_exhausted RESOURCE_EXHAUSTED never 37025.723541104s@message";
        "2.3" "in prose, seconds": 503,
            google(503, "UNAVAILABLE", "Down. Try again in 20 seconds.")
            => "unavailable UNAVAILABLE after 20s@message";
        "2.3" "in prose, minutes": 503,
            google(503, "UNAVAILABLE", "Down. Please try again in 2 minutes.")
            => "unavailable UNAVAILABLE after 120s@message";
        "2.3" "later is no delay": 503,
            google(503, "UNAVAILABLE", "Down. Please retry in a while.")
            => "unavailable UNAVAILABLE backoff";
        "2.3" "HTML, whose 30 seconds are its sentence for everything": 502 ["content-type": "text/html; charset=UTF-8"], file("502.html")
            => "unavailable - backoff";
        "2.3" "a long delay is believed of a minute's quota": 429,
            over(json!([{ "violations": [{ "quotaId": "XRequestsPerMinute", "quotaValue": "4" }] }, { "retryDelay": "400s" }]))
            => "rate_limited RESOURCE_EXHAUSTED after 400s@info + requests/minute 4 #XRequestsPerMinute";
        "2.3" "Retry-After in seconds": 429 ["retry-after": "7"], google(429, "RESOURCE_EXHAUSTED", "Slow down.")
            => "rate_limited RESOURCE_EXHAUSTED after 7s@header";
        "2.3" "Retry-After with a fraction": 503 ["retry-after": "1.5"], ""
            => "unavailable - after 1.5s@header";
        "2.3" "Retry-After as a date that has passed": 503 ["retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"], ""
            => "unavailable - after 0ns@header";
        "2.3" "Retry-After that is no delay": 503 ["retry-after": "soon"], ""
            => "unavailable - backoff";
        "2.3" "Retry-After, negative": 503 ["retry-after": "-5"], ""
            => "unavailable - backoff";
        "2.3" "Retry-After, infinite": 503 ["retry-after": "inf"], ""
            => "unavailable - backoff";
        "2.3" "retry-after-ms is finer and goes first": 429 ["retry-after": "2", "retry-after-ms": "1250"], ""
            => "rate_limited - after 1.25s@header";
        "2.3" "a header above the body's delay": 429 ["retry-after": "60"], retry_info(json!("31s"))
            => "rate_limited RESOURCE_EXHAUSTED after 60s@header";
        "2.3" "a header cannot revive a spent day": 429 ["retry-after": "2"], file("429-no-dimensions.json")
            => "quota_exhausted RESOURCE_EXHAUSTED never 2s@header \
                + requests/day - zero #GenerateRequestsPerDayPerProjectPerModel ~gl/generate_requests_per_model_per_day";
    });
}

#[test]
fn every_other_status_says_what_it_means() {
    check(&table! {
        "3" "wrong key under 400, with a message in another tongue": 400, file("400-key.json")
            => "api_key_invalid INVALID_ARGUMENT never reason=API_KEY_INVALID";
        "3" "wrong key, a relay cut @type, message and status": 400, file("400-key-trimmed.json")
            => "api_key_invalid - never reason=API_KEY_INVALID";
        "3" "wrong key, a blank in front of @type": 400, file("400-key-odd-type.json")
            => "api_key_invalid INVALID_ARGUMENT never reason=API_KEY_INVALID";
        "3" "unknown key, told by the message": 400,
            google(400, "INVALID_ARGUMENT", "API Key not found. Please pass a valid API key.")
            => "api_key_invalid INVALID_ARGUMENT never";
        "3" "expired key, told by the message": 400,
            google(400, "INVALID_ARGUMENT", "API key expired. Please renew the API key.")
            => "api_key_invalid INVALID_ARGUMENT never";
        "3" "too much context": 400,
            google(400, "INVALID_ARGUMENT", "The input token count (1300001) exceeds the maximum number of tokens allowed (1048575).")
            => "context_too_long INVALID_ARGUMENT never";
        "3" "too much context, Vertex' wording": 400,
            google(400, "INVALID_ARGUMENT", "Unable to submit request because the input token count is 1300001 but model only supports up to 1048576. Reduce the input token count and try again.")
            => "context_too_long INVALID_ARGUMENT never";
        "3" "digits that look like a status": 400,
            google(400, "INVALID_ARGUMENT", "The input token count exceeds the maximum number of tokens allowed (5003412).")
            => "context_too_long INVALID_ARGUMENT never";
        "3" "too many bytes": 400,
            google(400, "INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes.")
            => "payload_too_large INVALID_ARGUMENT never";
        "3" "too many bytes, said by a proxy": 413 ["content-type": "text/plain"], "Maximum request body size 1048576 exceeded"
            => "payload_too_large - never";
        "3" "an invalid argument": 400, google(400, "INVALID_ARGUMENT", "Request contains an invalid argument.")
            => "invalid_argument INVALID_ARGUMENT never";
        "3" "an unknown field": 400, file("400-unknown-field.json")
            => "invalid_argument INVALID_ARGUMENT never";
        "3" "turns in the wrong order": 400,
            google(400, "INVALID_ARGUMENT", "Please ensure that function call turn comes immediately after a user turn.")
            => "invalid_argument INVALID_ARGUMENT never";
        "3" "a thought signature is missing": 400,
            google(400, "INVALID_ARGUMENT", "Function call is missing a thought_signature in functionCall parts.")
            => "invalid_argument INVALID_ARGUMENT never";
        "3" "a URL that cannot be fetched": 400,
            google(400, "INVALID_ARGUMENT", "Cannot fetch content from the provided URL.")
            => "invalid_argument INVALID_ARGUMENT never";
        "3" "a deadline that is too short is a setting, no timeout": 400,
            google(400, "INVALID_ARGUMENT", "Manually set deadline 5s is too short. Minimum allowed deadline is 10s.")
            => "invalid_argument INVALID_ARGUMENT never";
        "3" "out of range": 400, google(400, "OUT_OF_RANGE", "topK is out of range.")
            => "invalid_argument OUT_OF_RANGE never";
        "3" "a region that is not served": 400,
            google(400, "FAILED_PRECONDITION", "User location is not supported for the API use.")
            => "failed_precondition FAILED_PRECONDITION never";
        "3" "a region that needs billing": 400,
            google(400, "FAILED_PRECONDITION", "User location is not supported for the API use without a billing account linked.")
            => "failed_precondition FAILED_PRECONDITION never";
        "3" "no images in this country": 400,
            google(400, "FAILED_PRECONDITION", "Image generation is not available in your country.")
            => "failed_precondition FAILED_PRECONDITION never";
        "3" "a file that is not ready yet": 400,
            google(400, "FAILED_PRECONDITION", "The File files/a1b2 is not in an ACTIVE state and usage is not allowed.")
            => "failed_precondition FAILED_PRECONDITION backoff";
        "3" "wrong credentials": 401, google(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
            => "unauthenticated UNAUTHENTICATED never";
        "3" "a key where a token belongs": 401 ["www-authenticate": "Bearer realm=\"x\""], file("401-token-type.json")
            => "unauthenticated UNAUTHENTICATED never reason=CREDENTIALS_MISSING";
        "3" "a token of the wrong type": 401,
            reason(401, "UNAUTHENTICATED", "ACCESS_TOKEN_TYPE_UNSUPPORTED", "Wrong type.")
            => "unauthenticated UNAUTHENTICATED never reason=ACCESS_TOKEN_TYPE_UNSUPPORTED";
        "3" "a leaked key": 403,
            google(403, "PERMISSION_DENIED", "Your API key was reported as leaked. Please use another API key.")
            => "key_leaked PERMISSION_DENIED never";
        "3" "a denied project": 403,
            google(403, "PERMISSION_DENIED", "Your project has been denied access. Please contact support.")
            => "permission_denied PERMISSION_DENIED never";
        "3" "no key at all": 403,
            google(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers (callers without established identity).")
            => "permission_denied PERMISSION_DENIED never";
        "3" "a model that is not open to the caller": 403, google(403, "PERMISSION_DENIED", "The caller does not have permission")
            => "permission_denied PERMISSION_DENIED never";
        "3" "cached content that is gone": 403,
            google(403, "PERMISSION_DENIED", "CachedContent not found (or permission denied)")
            => "permission_denied PERMISSION_DENIED never";
        "3" "a file that is gone": 403,
            google(403, "PERMISSION_DENIED", "You do not have permission to access the File a1b2 or it may not exist.")
            => "permission_denied PERMISSION_DENIED never";
        "3" "a suspended key": 403, file("403-suspended.json")
            => "permission_denied PERMISSION_DENIED never reason=CONSUMER_SUSPENDED";
        "3" "a disabled service": 403, file("403-disabled.json")
            => "service_disabled PERMISSION_DENIED never reason=SERVICE_DISABLED";
        "3" "a disabled service without its details": 403,
            google(403, "PERMISSION_DENIED", "Some API has not been used in project acme-1 before or it is disabled. Enable it by visiting https://x then retry.")
            => "service_disabled PERMISSION_DENIED never";
        "3" "a key that may not call this service": 403, file("403-key-blocked.json")
            => "permission_denied PERMISSION_DENIED never reason=API_KEY_SERVICE_BLOCKED";
        "3" "a key bound to a referrer": 403, file("403-referrer.json")
            => "permission_denied PERMISSION_DENIED never reason=API_KEY_HTTP_REFERRER_BLOCKED";
        "3" "a token of too little scope, under an event stream's type": 403
            ["content-type": "text/event-stream", "www-authenticate": "Bearer realm=\"x\", error=\"insufficient_scope\""],
            file("403-scope.json")
            => "permission_denied PERMISSION_DENIED never reason=ACCESS_TOKEN_SCOPE_INSUFFICIENT";
        "3" "IAM of Vertex, in an array": 403, file("403-iam.json")
            => "permission_denied PERMISSION_DENIED never reason=IAM_PERMISSION_DENIED model=gemini-9-flash";
        "3" "HTML of the front end: 403": 403 ["content-type": "text/html"], file("403.html")
            => "permission_denied - never";
        "3" "no such model": 404,
            google(404, "NOT_FOUND", "models/gemini-9-flash is not found for API version v1beta, or is not supported for generateContent. Call ListModels to see the list.")
            => "not_found NOT_FOUND never model=gemini-9-flash";
        "3" "no such model, the newer wording": 404,
            google(404, "NOT_FOUND", "models/gemini-9.5-pro is not found for API version v1beta, or is not supported for embedContent. Call ModelService.ListModels to see the list.")
            => "not_found NOT_FOUND never model=gemini-9.5-pro";
        "3" "a model that is closed to new users": 404,
            google(404, "NOT_FOUND", "This model models/gemini-9-flash is no longer available to new users. Please update your code.")
            => "not_found NOT_FOUND never model=gemini-9-flash";
        "3" "no such publisher model": 404,
            google(404, "NOT_FOUND", "Publisher Model `projects/acme-1/locations/us-central1/publishers/google/models/gemini-9-flash` was not found or your project does not have access to it.")
            => "not_found NOT_FOUND never model=gemini-9-flash";
        "3" "no such publisher model, the other wording": 404,
            google(404, "NOT_FOUND", "Publisher Model `publishers/google/models/gemini-9-flash` not found.")
            => "not_found NOT_FOUND never model=gemini-9-flash";
        "3" "HTML of the front end: 404": 404 ["content-type": "text/html"], file("404.html")
            => "not_found - never";
        "4" "staging's DebugInfo": 404, file("404-debug-info.json")
            => "not_found NOT_FOUND never";
        "3" "cancelled by the server": 499, google(499, "CANCELLED", "The operation was cancelled.")
            => "cancelled CANCELLED backoff";
        "3" "cancelled, in an array": 499, array(google(499, "CANCELLED", "The operation was cancelled."))
            => "cancelled CANCELLED backoff";
        "3" "an internal error that asks for a retry": 500,
            google(500, "INTERNAL", "An internal error has occurred. Please retry or report in https://x")
            => "internal INTERNAL backoff";
        "3" "an internal error": 500, google(500, "INTERNAL", "Internal error encountered.")
            => "internal INTERNAL backoff";
        "3" "not implemented, in an array": 501,
            array(google(501, "UNIMPLEMENTED", "Operation is not implemented, or supported, or enabled."))
            => "unimplemented UNIMPLEMENTED never";
        "3" "overloaded, the wording of 2025": 503, google(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
            => "overloaded UNAVAILABLE backoff";
        "3" "overloaded, the wording of 2026": 503,
            google(503, "UNAVAILABLE", "This model is currently experiencing high demand. Spikes are usually temporary. Please try again later.")
            => "overloaded UNAVAILABLE backoff";
        "3" "a deadline under 503": 503, google(503, "UNAVAILABLE", "Deadline expired before operation could complete.")
            => "unavailable UNAVAILABLE backoff";
        "3" "unavailable": 503, google(503, "UNAVAILABLE", "The service is currently unavailable.")
            => "unavailable UNAVAILABLE backoff";
        "3" "a deadline under 504": 504, google(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.")
            => "deadline_exceeded DEADLINE_EXCEEDED backoff";
        "3" "a deadline under 504, the other wording": 504,
            google(504, "DEADLINE_EXCEEDED", "The request timed out. Please try again.")
            => "deadline_exceeded DEADLINE_EXCEEDED backoff";
        "3" "aborted": 409, google(409, "ABORTED", "The operation was aborted.")
            => "conflict ABORTED backoff";
        "3" "exists already": 409, google(409, "ALREADY_EXISTS", "Requested entity already exists")
            => "conflict ALREADY_EXISTS never";
        "3" "no body: 400": 400, "" => "invalid_argument - never";
        "3" "no body: 401": 401, "" => "unauthenticated - never";
        "3" "no body: 402": 402, "" => "quota_exhausted - never";
        "3" "no body: 403": 403, "" => "permission_denied - never";
        "3" "no body: 404": 404, "" => "not_found - never";
        "3" "no body: 405": 405, "" => "unimplemented - never";
        "3" "no body: 408": 408, "" => "deadline_exceeded - backoff";
        "3" "no body: 409": 409, "" => "conflict - backoff";
        "3" "no body: 412": 412, "" => "failed_precondition - never";
        "3" "no body: 413": 413, "" => "payload_too_large - never";
        "3" "no body: 418": 418, "" => "unknown - never";
        "3" "no body: 422": 422, "" => "invalid_argument - never";
        "3" "no body: 429": 429, "" => "rate_limited - backoff";
        "3" "no body: 451": 451, "" => "unknown - never";
        "3" "no body: 499": 499, "" => "cancelled - backoff";
        "3" "no body: 500": 500, "" => "internal - backoff";
        "3" "no body: 501": 501, "" => "unimplemented - never";
        "3" "no body: 502": 502, "" => "unavailable - backoff";
        "3" "no body: 503": 503, "" => "unavailable - backoff";
        "3" "no body: 504": 504, "" => "deadline_exceeded - backoff";
        "3" "no body: 520": 520, "" => "unavailable - backoff";
        "3" "no body: 529": 529, "" => "overloaded - backoff";
        "3" "no body: 599": 599, "" => "internal - backoff";
        "3" "Interactions: a bad request": 400, br#"{"error":{"code":"invalid_request","message":"No such tool."}}"#
            => "invalid_argument - never";
        "3" "Interactions: a wrong key is still a wrong key": 400,
            br#"{"error":{"code":"invalid_request","message":"API key not valid. Please pass a valid API key."}}"#
            => "api_key_invalid - never";
        "3" "Interactions: too many requests": 429, br#"{"error":{"code":"too_many_requests","message":"Slow down."}}"#
            => "rate_limited - backoff";
        "3" "Interactions: too many requests, for want of money": 429,
            br#"{"error":{"code":"too_many_requests","message":"Your prepayment credits are depleted."}}"#
            => "quota_exhausted - never";
        "3" "Interactions: the quota is gone": 429, br#"{"error":{"code":"quota_exceeded","message":"That is all."}}"#
            => "quota_exhausted - never";
        "3" "Interactions: not found": 404, br#"{"error":{"message":"No such interaction.","code":"not_found"}}"#
            => "not_found - never";
        "3" "Interactions: overloaded": 503, br#"{"error":{"code":"unavailable","message":"The model is overloaded."}}"#
            => "overloaded - backoff";
        "3" "Interactions: a code nobody knows yet": 500, br#"{"error":{"code":"gremlins","message":"Oh."}}"#
            => "internal - backoff";
        "3" "Interactions: an error event": 200 ["content-type": "text/event-stream"], file("200-interactions-error.sse")
            => "rate_limited - backoff";
        "3" "Interactions: an error event, the canonical name": 200,
            "event: error\r\ndata: {\"event_type\":\"error\",\"error\":{\"code\":\"resource_exhausted\",\"message\":\"Slow down.\"}}\r\n\r\n"
            => "rate_limited - backoff";
    });
}

#[test]
fn every_shape_around_a_body_is_opened() {
    check(&table! {
        "4" "an array": 429, array(file("429-first-generation.json"))
            => "rate_limited RESOURCE_EXHAUSTED after 29s@info model=gemini-9-flash \
                + requests/minute 12 #GenerateRequestsPerMinutePerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "an array, newline first": 503, before(b"[\n", before(b"", [google(503, "UNAVAILABLE", "The model is overloaded."), b"\n]".to_vec()].concat()))
            => "overloaded UNAVAILABLE backoff";
        "4" "an array that never closes": 503, before(b"[", google(503, "UNAVAILABLE", "The model is overloaded."))
            => "overloaded UNAVAILABLE backoff";
        "4" "an object under an event stream's type: 400": 400 ["content-type": "text/event-stream"], file("400-key.json")
            => "api_key_invalid INVALID_ARGUMENT never reason=API_KEY_INVALID";
        "4" "an object under an event stream's type: 404": 404 ["content-type": "text/event-stream"],
            google(404, "NOT_FOUND", "models/gemini-9-flash is not found for API version v1beta")
            => "not_found NOT_FOUND never model=gemini-9-flash";
        "4" "an object under an event stream's type: 500": 500 ["content-type": "text/event-stream"],
            google(500, "INTERNAL", "Internal error encountered.")
            => "internal INTERNAL backoff";
        "4" "a data event under an error's status": 429 ["content-type": "text/event-stream"],
            before(b"data: ", br#"{"error":{"code":429,"message":"Slow down. Please retry in 3.5s.","status":"RESOURCE_EXHAUSTED"}}"#.to_vec())
            => "rate_limited RESOURCE_EXHAUSTED after 3.5s@message";
        "4" "gRPC's text, on lines": 429, file("429-grpc-lines.txt")
            => "rate_limited RESOURCE_EXHAUSTED after 33.25s@info model=gemini-9-flash \
                + requests/minute 12 #GenerateRequestsPerMinutePerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash \
                + tokens/minute 230000 #GenerateContentInputTokensPerModelPerMinute-FreeTier ~gl/generate_content_free_tier_input_token_count @gemini-9-flash";
        "4" "gRPC's text, on one line": 429, file("429-grpc-one-line.txt")
            => "quota_exhausted RESOURCE_EXHAUSTED never 5s@info model=gemini-9-flash \
                + requests/day 18 #GenerateRequestsPerDayPerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "gRPC's text under a 200 of a log": 200, file("429-grpc-one-line.txt")
            => "quota_exhausted RESOURCE_EXHAUSTED never 5s@info model=gemini-9-flash \
                + requests/day 18 #GenerateRequestsPerDayPerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "gRPC's text with service control's metadata": 429, file("429-grpc-metadata.txt")
            => "quota_exhausted RESOURCE_EXHAUSTED never reason=RATE_LIMIT_EXCEEDED \
                + requests/minute 0 zero #GenerateContentRequestsPerMinutePerProjectPerRegion ~gl/generate_content_requests";
        "4" "gRPC's text without details": 504, "504 Deadline Exceeded"
            => "deadline_exceeded DEADLINE_EXCEEDED backoff";
        "4" "gRPC's text, a missing model": 404, "404 models/gemini-9-flash is not found for API version v1beta"
            => "not_found NOT_FOUND never model=gemini-9-flash";
        "4" "python's print of a body": 429, file("429-python.txt")
            => "rate_limited RESOURCE_EXHAUSTED after 41.203777518s@message model=gemini-9-flash \
                + requests/minute 7 #GenerateRequestsPerMinutePerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "python's print with an apostrophe in the message": 429, file("429-python-day.txt")
            => "quota_exhausted RESOURCE_EXHAUSTED never 23s@info model=gemini-9-flash \
                + requests/day 18 #GenerateRequestsPerDayPerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "python's print of a 503": 503, file("503-python.txt") => "overloaded UNAVAILABLE backoff";
        "4" "python's print of a 429, handed on as a 500": 500, file("429-python-day.txt")
            => "quota_exhausted RESOURCE_EXHAUSTED never 23s@info model=gemini-9-flash \
                + requests/day 18 #GenerateRequestsPerDayPerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "the JavaScript SDK's status line": 503, "[503 Service Unavailable] The model is overloaded. Please try again later."
            => "overloaded UNAVAILABLE backoff";
        "4" "js-genai: the body as a string in message": 429, file("429-js-genai.json")
            => "rate_limited RESOURCE_EXHAUSTED after 41.203777518s@message model=gemini-9-flash \
                + requests/minute 7 #GenerateRequestsPerMinutePerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "a relay with a status of its own, an array inside": 502, file("429-relay.json")
            => "quota_exhausted RESOURCE_EXHAUSTED never 23.5171s@message model=gemini-9-flash \
                + requests/day 18 #GenerateRequestsPerDayPerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "prose in front of the body in message": 429, file("429-prose-then-body.json")
            => "rate_limited RESOURCE_EXHAUSTED after 29s@info model=gemini-9-flash \
                + requests/minute 12 #GenerateRequestsPerMinutePerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "prose in front of a body on lines": 429, file("429-prose-then-lines.json")
            => "quota_exhausted RESOURCE_EXHAUSTED never 23.5171s@message model=gemini-9-flash \
                + requests/day 18 #GenerateRequestsPerDayPerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "wrapped twice": 429, file("429-twice-wrapped.json")
            => "quota_exhausted RESOURCE_EXHAUSTED never 23.5171s@message model=gemini-9-flash \
                + requests/day 18 #GenerateRequestsPerDayPerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "the whole body as a string": 429, file("429-quoted.json")
            => "rate_limited RESOURCE_EXHAUSTED after 41.203777518s@message model=gemini-9-flash \
                + requests/minute 7 #GenerateRequestsPerMinutePerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "a log line around the SDK's error": 429, file("429-log-line.txt")
            => "quota_exhausted RESOURCE_EXHAUSTED never 23.5171s@message model=gemini-9-flash \
                + requests/day 18 #GenerateRequestsPerDayPerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "a log line before a body on lines": 429, file("429-log-lines.txt")
            => "rate_limited RESOURCE_EXHAUSTED after 41.203777518s@message model=gemini-9-flash \
                + requests/minute 7 #GenerateRequestsPerMinutePerProjectPerModel-FreeTier ~gl/generate_content_free_tier_requests @gemini-9-flash";
        "4" "error as a string": 500, br#"{"error":"upstream broke"}"# => "internal - backoff";
        "4" "error as a string that is a body": 500,
            br#"{"error":"{\"error\":{\"code\":403,\"message\":\"Your API key was reported as leaked.\",\"status\":\"PERMISSION_DENIED\"}}"}"#
            => "key_leaked PERMISSION_DENIED never";
        "4" "no envelope at all": 429, br#"{"code":429,"message":"Slow down.","status":"RESOURCE_EXHAUSTED"}"#
            => "rate_limited RESOURCE_EXHAUSTED backoff";
        "4" "no status": 403, br#"{"error":{"code":403,"message":"Your API key was reported as leaked."}}"#
            => "key_leaked - never";
        "4" "no message": 503, br#"{"error":{"code":503,"status":"UNAVAILABLE"}}"# => "unavailable UNAVAILABLE backoff";
        "4" "no @type": 429, over(json!([{ "violations": [{ "quotaId": "XRequestsPerDay", "quotaValue": "4" }] }, { "retryDelay": "6s" }]))
            => "quota_exhausted RESOURCE_EXHAUSTED never 6s@info + requests/day 4 #XRequestsPerDay";
        "4" "a @type that lies": 429, over(json!([{ "@type": "type.googleapis.com/google.rpc.Help", "retryDelay": "6s" }]))
            => "rate_limited RESOURCE_EXHAUSTED after 6s@info";
        "4" "a @type that is no string": 429, over(json!([{ "@type": 7, "retryDelay": "6s" }]))
            => "rate_limited RESOURCE_EXHAUSTED after 6s@info";
        "4" "a status that Google does not have": 429, br#"{"error":{"code":429,"message":"Slow down.","status":"Too Many Requests"}}"#
            => "rate_limited - backoff";
        "4" "a relay's status beside Google's code": 502, br#"{"error":{"code":403,"message":"Your API key was reported as leaked.","status":"UPSTREAM_ERROR"}}"#
            => "key_leaked - never";
        "4" "details that are empty": 429, over(json!([])) => "rate_limited RESOURCE_EXHAUSTED backoff";
        "4" "details that are an object": 429, over(json!({ "retryDelay": "6s" })) => "rate_limited RESOURCE_EXHAUSTED after 6s@info";
        "4" "details of odd types": 429, over(json!([null, 1, "x", [["y"]], { "violations": "none" }, { "retryDelay": "6s" }]))
            => "rate_limited RESOURCE_EXHAUSTED after 6s@info";
        "4" "the legacy list gives a missing message": 403,
            br#"{"error":{"code":403,"errors":[{"message":"Your API key was reported as leaked.","domain":"global","reason":"forbidden"}],"status":"PERMISSION_DENIED"}}"#
            => "key_leaked PERMISSION_DENIED never";
        "4" "the legacy list does not outrank the message": 403,
            br#"{"error":{"errors":[{"message":"forbidden"}],"message":"Your API key was reported as leaked.","status":"PERMISSION_DENIED"}}"#
            => "key_leaked PERMISSION_DENIED never";
        "4" "members sorted: details stand before the message": 403,
            br#"{"error":{"code":403,"details":[{"locale":"de","message":"Der Schluessel ist oeffentlich."}],"message":"Your API key was reported as leaked.","status":"PERMISSION_DENIED"}}"#
            => "key_leaked PERMISSION_DENIED never";
        "4" "a localized message for want of another": 403,
            br#"{"error":{"code":403,"details":[{"locale":"en","message":"Your API key was reported as leaked."}]}}"#
            => "key_leaked - never";
        "4" "escapes that keep HTML out": 429, html_safe(&file("429-assist-day.json"))
            => "quota_exhausted RESOURCE_EXHAUSTED never reason=RATE_LIMIT_EXCEEDED + requests/day - ~Gemini 9 Pro Requests";
        "4" "slashes escaped, as PHP does": 404,
            br#"{"error":{"code":404,"message":"models\/gemini-9-flash is not found for API version v1beta","status":"NOT_FOUND"}}"#
            => "not_found NOT_FOUND never model=gemini-9-flash";
        "4" "an event stream of nothing": 200, ": keep-alive\r\n\r\n: keep-alive\r\n\r\n" => "empty_response - never";
        "4" "a byte order mark": 429, before(b"\xef\xbb\xbf", file("429-no-dimensions.json"))
            => "quota_exhausted RESOURCE_EXHAUSTED never \
                + requests/day - zero #GenerateRequestsPerDayPerProjectPerModel ~gl/generate_requests_per_model_per_day";
        "4" "blanks in front": 429, before(b" \r\n\t ", file("429-no-dimensions.json"))
            => "quota_exhausted RESOURCE_EXHAUSTED never \
                + requests/day - zero #GenerateRequestsPerDayPerProjectPerModel ~gl/generate_requests_per_model_per_day";
        "4" "text behind the body": 503, [google(503, "UNAVAILABLE", "The model is overloaded."), b"\n<!-- proxy -->".to_vec()].concat()
            => "overloaded UNAVAILABLE backoff";
        "4" "bytes that are not UTF-8": 429, [br#"{"error":{"code":429,"message":"h"#.as_slice(), b"\xff\xfe", br#"m","status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"6s"}]}}"#].concat()
            => "rate_limited RESOURCE_EXHAUSTED after 6s@info";
        "4" "JSON without an error": 503, br#"{"detail":"x"}"# => "unavailable - backoff";
        "4" "an error that is null": 503, br#"{"error":null}"# => "unavailable - backoff";
        "4" "plain prose": 429, "Too Many Requests" => "rate_limited - backoff";
        "4" "a proxy's JSON with another code": 429, br#"{"error":{"type":"rate_limit","code":8,"message":"Slow down."}}"#
            => "rate_limited - backoff";
    });
}

#[test]
fn code_assist_tells_capacity_from_quota() {
    check(&table! {
        "6" "a day's requests, an array with the legacy list": 429, file("429-assist-day.json")
            => "quota_exhausted RESOURCE_EXHAUSTED never reason=RATE_LIMIT_EXCEEDED + requests/day - ~Gemini 9 Pro Requests";
        "6" "exhausted, with the time of its reset": 429, file("429-assist-exhausted.json")
            => "quota_exhausted RESOURCE_EXHAUSTED never 10359.480412007s@info reason=QUOTA_EXHAUSTED model=gemini-9-pro";
        "6" "no capacity, under 429": 429, file("429-assist-capacity.json")
            => "overloaded RESOURCE_EXHAUSTED backoff reason=MODEL_CAPACITY_EXHAUSTED model=gemini-9-pro";
        "6" "no capacity, under 429, told by the message": 429,
            google(429, "RESOURCE_EXHAUSTED", "No capacity available for model gemini-9-pro on the server")
            => "overloaded RESOURCE_EXHAUSTED backoff model=gemini-9-pro";
        "6" "no capacity, under 503": 503,
            reason(503, "UNAVAILABLE", "MODEL_CAPACITY_EXHAUSTED", "No capacity available for model gemini-9-pro on the server")
            => "overloaded UNAVAILABLE backoff reason=MODEL_CAPACITY_EXHAUSTED model=gemini-9-pro";
        "6" "the caller's own capacity, back in 2 s": 429,
            reason(429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", "You have exhausted your capacity on this model. Your quota will reset after 2s.")
            => "rate_limited RESOURCE_EXHAUSTED after 2s@message reason=RATE_LIMIT_EXCEEDED";
        "6" "the caller's own capacity, back in 161 h": 429,
            reason(429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", "You have exhausted your capacity on this model. Your quota will reset after 161h39m41s.")
            => "quota_exhausted RESOURCE_EXHAUSTED never 581981s@message reason=RATE_LIMIT_EXCEEDED";
        "6" "exhausted, though it says 0 s": 429,
            reason(429, "RESOURCE_EXHAUSTED", "QUOTA_EXHAUSTED", "You have exhausted your capacity on this model. Your quota will reset after 0s.")
            => "quota_exhausted RESOURCE_EXHAUSTED never 0ns@message reason=QUOTA_EXHAUSTED";
        "6" "a reset in the metadata only": 429,
            over(json!([{ "reason": "RATE_LIMIT_EXCEEDED", "metadata": { "quotaResetDelay": "576.244211ms" } }]))
            => "rate_limited RESOURCE_EXHAUSTED after 576.244211ms@metadata reason=RATE_LIMIT_EXCEEDED";
        "6" "credits that are used up": 429,
            reason(429, "RESOURCE_EXHAUSTED", "INSUFFICIENT_G1_CREDITS_BALANCE", "Resource has been exhausted (e.g. check quota).")
            => "quota_exhausted RESOURCE_EXHAUSTED never reason=INSUFFICIENT_G1_CREDITS_BALANCE";
        "6" "an account to be validated": 403,
            reason(403, "PERMISSION_DENIED", "VALIDATION_REQUIRED", "Verify your account to continue.")
            => "permission_denied PERMISSION_DENIED never reason=VALIDATION_REQUIRED";
        "6" "a ban, with tabs in its message": 403,
            google(403, "PERMISSION_DENIED", "This service has been disabled in this account for violation\n\t\tof the Terms of Service.")
            => "permission_denied PERMISSION_DENIED never";
        "6" "a consumer that does not exist": 403,
            reason(403, "PERMISSION_DENIED", "CONSUMER_INVALID", "Permission denied on resource project acme-1.")
            => "permission_denied PERMISSION_DENIED never reason=CONSUMER_INVALID";
        "6" "stray characters in the domain": 429,
            over(json!([{ "reason": "RATE_LIMIT_EXCEEDED", "domain": "cloudcode-pa\r.googleapis.com" }, { "retryDelay": "6s" }]))
            => "rate_limited RESOURCE_EXHAUSTED after 6s@info reason=RATE_LIMIT_EXCEEDED";
    });
}

#[test]
fn every_200_that_is_no_answer_is_found() {
    check(&table! {
        "5" "a good answer": 200, text_answer("STOP") => "success";
        "5" "an answer cut at its limit": 200, text_answer("MAX_TOKENS") => "success";
        "5" "an answer without a finish reason": 200, text_answer("") => "success";
        "5" "a function call": 200, answer("STOP", json!([{ "functionCall": { "name": "f", "args": {} } }])) => "success";
        "5" "an image": 200, answer("STOP", json!([{ "inlineData": { "mimeType": "image/png", "data": "AA==" } }])) => "success";
        "5" "a blocked prompt": 200, br#"{"promptFeedback":{"blockReason":"SAFETY","safetyRatings":[]},"usageMetadata":{}}"#
            => "content_blocked - never";
        "5" "a prompt blocked by Model Armor": 200, br#"{"promptFeedback":{"blockReason":"MODEL_ARMOR","blockReasonMessage":"no"},"modelVersion":"gemini-9-flash"}"#
            => "content_blocked - never model=gemini-9-flash";
        "5" "a blocked prompt, told by its message only": 200, br#"{"promptFeedback":{"blockReasonMessage":"Not this."}}"#
            => "content_blocked - never";
        "5" "feedback without a block": 200,
            br#"{"promptFeedback":{"safetyRatings":[]},"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}]}"#
            => "success";
        "5" "SAFETY after some text": 200, text_answer("SAFETY") => "content_blocked - never partly";
        "5" "SAFETY": 200, answer("SAFETY", json!(null)) => "content_blocked - never";
        "5" "RECITATION": 200, answer("RECITATION", json!(null)) => "content_blocked - never";
        "5" "BLOCKLIST": 200, answer("BLOCKLIST", json!(null)) => "content_blocked - never";
        "5" "PROHIBITED_CONTENT": 200, answer("PROHIBITED_CONTENT", json!(null)) => "content_blocked - never";
        "5" "SPII": 200, answer("SPII", json!(null)) => "content_blocked - never";
        "5" "IMAGE_SAFETY": 200, answer("IMAGE_SAFETY", json!(null)) => "content_blocked - never";
        "5" "IMAGE_PROHIBITED_CONTENT": 200, answer("IMAGE_PROHIBITED_CONTENT", json!([])) => "content_blocked - never";
        "5" "MALFORMED_FUNCTION_CALL": 200, answer("MALFORMED_FUNCTION_CALL", json!(null)) => "empty_response - never";
        "5" "MALFORMED_FUNCTION_CALL with empty content": 200,
            br#"{"candidates":[{"content":{},"finishReason":"MALFORMED_FUNCTION_CALL","finishMessage":"call:f(","index":0}]}"#
            => "empty_response - never";
        "5" "UNEXPECTED_TOOL_CALL": 200, answer("UNEXPECTED_TOOL_CALL", json!([])) => "empty_response - never";
        "5" "OTHER, an internal error": 200,
            br#"{"candidates":[{"finishReason":"OTHER","finishMessage":"Model failed to generate content due to internal error."}]}"#
            => "empty_response - never";
        "5" "OTHER after some text": 200, text_answer("OTHER") => "truncated - never partly";
        "5" "a reason nobody knows yet, nothing delivered": 200, answer("CHANGED_ITS_MIND", json!(null)) => "empty_response - never";
        "5" "MAX_TOKENS spent on thoughts": 200, answer("MAX_TOKENS", json!([{ "text": "Hmm.", "thought": true }]))
            => "empty_response - never";
        "5" "MAX_TOKENS without parts": 200,
            br#"{"candidates":[{"content":{"role":"model"},"finishReason":"MAX_TOKENS","index":0}],"usageMetadata":{"thoughtsTokenCount":99}}"#
            => "empty_response - never";
        "5" "STOP with empty content": 200, answer("STOP", json!([{ "text": "" }])) => "empty_response - never";
        "5" "STOP without content": 200, answer("STOP", json!(null)) => "empty_response - never";
        "5" "no candidates and no word why": 200, br#"{"candidates":[],"usageMetadata":{}}"# => "empty_response - never";
        "5" "usage and nothing else": 200, br#"{"usageMetadata":{"promptTokenCount":3},"modelVersion":"gemini-9-flash"}"#
            => "empty_response - never model=gemini-9-flash";
        "5" "two candidates, one of them good": 200,
            br#"{"candidates":[{"index":0,"finishReason":"SAFETY"},{"index":1,"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}]}"#
            => "success";
        "5" "an image filtered": 200, br#"{"predictions":[{"raiFilteredReason":"Not this one."}]}"#
            => "content_blocked - never";
        "5" "an image filtered and another made": 200,
            br#"{"predictions":[{"raiFilteredReason":"Not this one."},{"bytesBase64Encoded":"AA==","mimeType":"image/png"}]}"#
            => "success";
        "5" "no answer of Gemini's: JSON": 200, br#"{"status":"ok","took":3}"# => "unknown - never";
        "5" "no answer of Gemini's: HTML": 200, "<!doctype html><title>Sign in</title>" => "unknown - never";
        "5" "no answer of Gemini's: text": 200, "pong" => "unknown - never";
        "5" "a list of models": 200, br#"{"models":[{"name":"models/gemini-9-flash"}],"nextPageToken":"x"}"# => "success";
        "5" "one model": 200, br#"{"name":"models/gemini-9-flash","version":"9"}"# => "success";
        "5" "a count of tokens": 200, br#"{"totalTokens":31,"promptTokensDetails":[]}"# => "success";
        "5" "an embedding": 200, br#"{"embedding":{"values":[0.1,0.2]}}"# => "success";
        "5" "embeddings": 200, br#"{"embeddings":[{"values":[0.1,0.2]}]}"# => "success";
        "5" "an uploaded file": 200, br#"{"file":{"name":"files/a1b2","state":"PROCESSING"}}"# => "success";
        "5" "a completion in OpenAI's form": 200,
            br#"{"id":"c1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#
            => "success";
        "5" "a completion in OpenAI's form, filtered": 200,
            br#"{"id":"c1","choices":[{"index":0,"message":{"role":"assistant"},"finish_reason":"content_filter"}]}"#
            => "content_blocked - never";
        "5" "a stream in OpenAI's form": 200, file("200-openai.sse") => "success";
        "5" "a stream in OpenAI's form that breaks off": 200,
            "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n"
            => "truncated - never partly";
        "5" "a completion in OpenAI's form that calls a tool": 200,
            br#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"t1","type":"function"}]},"finish_reason":"tool_calls"}]}"#
            => "success";
        "5" "a completion in OpenAI's form without content": 200,
            br#"{"choices":[{"message":{"role":"assistant","tool_calls":null},"finish_reason":"length"}]}"#
            => "empty_response - never";
        "5" "a stream in OpenAI's form, filtered after some text": 200,
            "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"content_filter\"}]}\n\n"
            => "content_blocked - never partly";
        "5" "an empty object, as after a delete": 200, "{}\n" => "success";
        "5" "an empty body": 200, "" => "success";
        "5" "204": 204, "" => "success";
        "5" "an error that is null beside an answer": 200,
            br#"{"error":null,"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}]}"#
            => "success";
        "5" "an answer about errors": 200, answer("STOP", json!([{ "text": "{\"error\": {\"code\": 429, \"status\": \"RESOURCE_EXHAUSTED\"}}" }]))
            => "success";
        "4" "an answer about errors that breaks off": 200,
            br#"{"candidates":[{"content":{"parts":[{"text":"Say {\"error\": {\"code\": 429, \"status\": \"RESOURCE_EXHAUSTED\"}} and"#
            => "truncated - never";
        "4" "an answer that breaks off": 200, br#"{"candidates":[{"content":{"parts":[{"text":"Once upon"#
            => "truncated - never";
        "4" "an error as the whole body": 200, google(503, "UNAVAILABLE", "The model is overloaded.")
            => "overloaded UNAVAILABLE backoff";
        "4" "a good stream": 200 ["content-type": "text/event-stream"], file("200-stream.sse") => "success";
        "4" "a finish reason in the middle is not the end": 200, file("200-stream-early-finish.sse") => "success";
        "4" "a finish reason in the middle, and a block at the end": 200, file("200-stream-early-finish-blocked.sse")
            => "content_blocked - never model=gemini-9-flash partly";
        "5" "a stream blocked on its last chunk": 200, file("200-stream-blocked-late.sse")
            => "content_blocked - never model=gemini-9-flash partly";
        "5" "a stream whose prompt is blocked": 200, file("200-stream-prompt-blocked.sse")
            => "content_blocked - never model=gemini-9-flash";
        "4" "an error event before any output": 200, file("200-stream-error-first.sse")
            => "overloaded UNAVAILABLE backoff";
        "4" "an error event after some output": 200, file("200-stream-error-late.sse")
            => "overloaded UNAVAILABLE backoff partly";
        "4" "a bare JSON tail after STOP": 200, file("200-stream-tail.sse")
            => "cancelled CANCELLED backoff partly";
        "4" "a bare JSON tail before any output": 200, file("200-stream-tail-first.sse")
            => "overloaded UNAVAILABLE backoff";
        "4" "a stream without an end": 200, file("200-stream-cut.sse")
            => "truncated - never model=gemini-9-flash partly";
        "4" "a stream cut inside an event": 200, file("200-stream-cut-event.sse")
            => "truncated - never model=gemini-9-flash partly";
        "4" "a stream as an array": 200, file("200-array.json") => "success";
        "4" "a stream as an array, an error in it": 200, file("200-array-error.json")
            => "internal INTERNAL backoff partly";
        "4" "a stream as an array, cut": 200, file("200-array-cut.json")
            => "truncated - never model=gemini-9-flash partly";
    });
}

// ===== Forms that need more than a line =====

/// Every order of up to four violations gives the same verdict: the worst decides, wherever it stands.
#[test]
fn the_order_of_violations_does_not_matter() {
    let body: Value = serde_json::from_slice(&file("429-four-violations.json")).unwrap();
    let violations = body["error"]["details"][1]["violations"].as_array().unwrap().clone();
    let mut orders = 0;
    for mask in 1_u32..16 {
        let chosen: Vec<&Value> = (0..4).filter(|i| mask & 1 << i != 0).map(|i| &violations[i]).collect();
        // The third and the fourth are a day's.
        let expected = if mask & 0b1100 == 0 { Kind::RateLimited } else { Kind::QuotaExhausted };
        for order in permutations(chosen.len()) {
            let mut body = body.clone();
            body["error"]["details"][1]["violations"] = order.iter().map(|i| chosen[*i].clone()).collect();
            let verdict = judge(429, &[], body.to_string());
            assert_eq!(verdict.kind(), Some(expected), "{body}");
            assert_eq!(verdict.quota().len(), chosen.len());
            assert_eq!(verdict.server_delay().map(|d| d.declared()), Some(Duration::from_secs(3)));
            orders += 1;
        }
    }
    assert_eq!(orders, 64, "every order of every subset");
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let shorter = permutations(n - 1);
    shorter
        .iter()
        .flat_map(|order| {
            (0..n).map(move |at| {
                let mut order = order.clone();
                order.insert(at, n - 1);
                order
            })
        })
        .collect()
}

/// A cut body says less, and never something else: a limit whose value was cut off is not a zero.
#[test]
fn a_body_cut_anywhere_is_never_judged_wrongly() {
    for (name, whole) in [
        ("429-first-generation.json", Kind::RateLimited),
        ("429-second-generation.json", Kind::RateLimited),
        ("429-third-generation.json", Kind::RateLimited),
        ("429-service-control.json", Kind::RateLimited),
        ("429-grpc-lines.txt", Kind::RateLimited),
        ("429-python.txt", Kind::RateLimited),
        ("429-js-genai.json", Kind::RateLimited),
        ("429-quoted.json", Kind::RateLimited),
        ("429-day.json", Kind::QuotaExhausted),
        ("429-zero.json", Kind::QuotaExhausted),
        ("429-assist-day.json", Kind::QuotaExhausted),
        ("429-python-day.txt", Kind::QuotaExhausted),
        ("429-grpc-one-line.txt", Kind::QuotaExhausted),
        ("429-twice-wrapped.json", Kind::QuotaExhausted),
    ] {
        let body = Bytes::from(file(name));
        let mut certain = false;
        for cut in 0..=body.len() {
            let verdict = judge(429, &[], body.slice(..cut));
            let kind = verdict.kind().unwrap();
            // Until the sign of a spent day is there, it is any other 429.
            assert!(
                kind == whole || (kind == Kind::RateLimited && !certain),
                "{name} cut at {cut}: {}\n…{}",
                line(&verdict),
                String::from_utf8_lossy(&body[cut.saturating_sub(120)..cut])
            );
            certain = kind == Kind::QuotaExhausted;
        }
        assert_eq!(judge(429, &[], body.clone()).kind(), Some(whole), "{name}");
        assert_eq!(certain, whole == Kind::QuotaExhausted, "{name}");
    }
}

#[test]
fn a_stream_cut_anywhere_is_never_a_good_answer() {
    let body = Bytes::from(file("200-stream.sse"));
    let end = body.windows(4).rposition(|w| w == b"STOP").unwrap();
    for cut in 1..=end {
        let verdict = judge(200, &[], body.slice(..cut));
        assert!(!verdict.is_success(), "cut at {cut}: {}", String::from_utf8_lossy(&body[..cut]));
        assert_eq!(verdict.retryability(), Retryability::Never);
    }
    let body = Bytes::from(file("200-array.json"));
    let end = body.windows(4).rposition(|w| w == b"STOP").unwrap();
    for cut in 1..=end {
        let verdict = judge(200, &[], body.slice(..cut));
        assert!(!verdict.is_success(), "cut at {cut}: {}", String::from_utf8_lossy(&body[..cut]));
    }
}

#[cfg(feature = "gzip")]
#[test]
fn a_gzip_body_is_read_with_or_without_its_header() {
    use std::io::Write as _;
    for name in ["429-day.json", "400-key.json", "429-grpc-lines.txt", "502.html"] {
        let (plain, status) = (file(name), name[..3].parse().unwrap());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&plain).unwrap();
        let coded = Bytes::from(gzip.finish().unwrap());
        let wanted = judge(status, &[], plain);
        for headers in [&[("content-encoding", "gzip")][..], &[]] {
            assert_eq!(line(&judge(status, headers, coded.clone())), line(&wanted), "{name}");
        }
        assert_eq!(judge(status, &[], coded.clone()).message(), wanted.message());
        for cut in 0..coded.len() {
            let _ = format!("{:?}", judge(status, &[], coded.slice(..cut)));
        }
    }
}

#[test]
fn whole_seconds_are_taken_as_cut_off() {
    let at_least = |body| judge(429, &[], body).server_delay().unwrap().at_least();
    assert_eq!(at_least(retry_info(json!("48s"))), Duration::from_secs(49));
    assert_eq!(at_least(retry_info(json!("48.9s"))), Duration::from_millis(48_900));
    assert_eq!(at_least(retry_info(json!("0s"))), Duration::from_secs(1));
}

#[test]
fn an_echoed_key_is_not_printed() {
    let verdict = judge(403, &[], file("403-suspended.json"));
    let printed = format!("{verdict:?}\n{}\n{:?}", verdict.message(), verdict.details());
    assert!(!printed.contains("FAKEfake"), "{printed}");
    assert!(verdict.message().contains("has been suspended"), "the rest of the message stays");
}

#[test]
fn hostile_bodies_are_judged_by_their_status_in_time() {
    let mib = |piece: &str| piece.repeat((1 << 20) / piece.len());
    for body in [
        mib("\u{fffd}"),
        mib("["),
        mib("{"),
        mib("{\"error\":"),
        mib("{\"error\":["),
        mib("\"\\\""),
        mib("<title>"),
        mib("data: {\"error\n"),
        mib("data: [[[[\n{"),
        mib("a: "),
        mib(": :{"),
        mib("violations { "),
        mib("quota_id: \"x\" "),
        mib("Quota exceeded for "),
        mib("Quota exceeded for metric: a, "),
        mib("retry in "),
        mib("AIza"),
        mib("key="),
        mib("\\"),
        format!("{{\"error\":{{\"code\":429,\"message\":\"{}\"}}}}", mib("Quota exceeded for ")),
        format!("{{\"error\":{{\"code\":429,\"message\":\"{}\"}}}}", mib("{\\\"error\\\":")),
        format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)),
        format!("{}1{}", "{\"error\":".repeat(10_000), "}".repeat(10_000)),
        format!("{{\"error\":{{\"details\":{}{}}}}}", "[".repeat(10_000), "]".repeat(10_000)),
    ] {
        for status in [200, 429] {
            let verdict = judge(status, &[], body.clone());
            assert!(verdict.quota().len() <= 32);
            if status == 429 {
                assert!(matches!(verdict.kind(), Some(Kind::RateLimited | Kind::QuotaExhausted)));
            }
            let _ = (format!("{verdict:?}"), verdict.details());
        }
    }
}

#[test]
fn a_list_of_violations_does_not_grow_without_end() {
    let violation = json!({ "quotaId": "XRequestsPerMinute", "quotaValue": "1" });
    let body = quota_failure(vec![violation; 1000].into());
    assert_eq!(judge(429, &[], body.clone()).quota().len(), 32);

    let wrapped = json!({ "error": String::from_utf8(body).unwrap() });
    let verdict = judge(429, &[], Value::from(vec![wrapped; 10]).to_string());
    assert!(verdict.quota().len() <= 32, "{}", verdict.quota().len());

    let text = "quota_id: \"XRequestsPerMinute\" quota_value: 1 ".repeat(1000);
    assert_eq!(judge(429, &[], text).quota().len(), 32);

    let lines = (0..1000).fold(String::new(), |mut text, n| {
        write!(text, "\n* Quota exceeded for metric: m/{n}, limit: 5").unwrap();
        text
    });
    assert_eq!(judge(429, &[], google(429, "RESOURCE_EXHAUSTED", &lines)).quota().len(), 32);
}

// ===== Properties =====

/// All fixtures, with a status that suits them.
fn fixtures() -> Vec<(u16, Vec<u8>)> {
    let dir = std::fs::read_dir(format!("{}/tests/fixtures", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut names: Vec<_> = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.iter().map(|name| (name[..3].parse().unwrap(), file(name))).collect()
}

fn any_fixture() -> impl Strategy<Value = (u16, Vec<u8>)> {
    prop::sample::select(fixtures())
}

fn any_headers() -> impl Strategy<Value = HeaderMap> {
    let name =
        prop::sample::select(vec!["retry-after", "retry-after-ms", "content-type", "content-encoding"]);
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        any::<u64>().prop_map(|n| n.to_string().into_bytes()),
        any::<f64>().prop_map(|n| n.to_string().into_bytes()),
    ];
    prop::collection::vec((name, value), 0..3).prop_map(|pairs| {
        let valid = |(name, value): (&'static str, Vec<u8>)| {
            Some((HeaderName::from_static(name), HeaderValue::from_bytes(&value).ok()?))
        };
        pairs.into_iter().filter_map(valid).collect()
    })
}

/// JSON in the shape of nothing in particular, with the names that are looked for.
fn any_json() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "error",
        "code",
        "message",
        "status",
        "details",
        "errors",
        "reason",
        "domain",
        "metadata",
        "violations",
        "quotaId",
        "quotaMetric",
        "quotaValue",
        "quotaDimensions",
        "model",
        "retryDelay",
        "seconds",
        "nanos",
        "candidates",
        "content",
        "parts",
        "text",
        "thought",
        "finishReason",
        "index",
        "promptFeedback",
        "blockReason",
        "predictions",
        "choices",
        "usageMetadata",
        " @type",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (400..600_u16).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "429",
            "RESOURCE_EXHAUSTED",
            "31s",
            "PerDay",
            "STOP",
            "SAFETY",
            "Please retry in 3s",
            "{\"error\":{\"code\":404,\"details\":[{\"violations\":[{\"quotaId\":\"x\"}]}]}}",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|pairs| pairs
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}

/// What must hold whatever came: nothing panics, lists are bounded, an error's status is never a success.
fn holds(status: u16, headers: &HeaderMap, body: Vec<u8>) -> Result<(), TestCaseError> {
    let status = StatusCode::from_u16(status).unwrap();
    let verdict = Verdict::from_parts(status, headers, body.into());
    prop_assert!(verdict.quota().len() <= 32);
    prop_assert!(status.as_u16() < 400 || verdict.kind().is_some());
    let _ = (format!("{verdict:?}"), line(&verdict), verdict.message(), verdict.details());
    let _ = (verdict.server_delay().map(|delay| delay.at_least()), verdict.remedy(), verdict.docs());
    Ok(())
}

/// The same value with the members of each object in another order.
fn shuffle(value: &Value, seed: &mut u64, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            for i in (1..members.len()).rev() {
                // A linear congruence is chance enough for an order.
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                members.swap(i, (*seed >> 33) as usize % (i + 1));
            }
            out.push('{');
            for (i, (name, value)) in members.into_iter().enumerate() {
                write!(out, "{}{}:", if i == 0 { "" } else { "," }, Value::from(name.as_str())).unwrap();
                shuffle(value, seed, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                shuffle(item, seed, out);
            }
            out.push(']');
        }
        scalar => write!(out, "{scalar}").unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_are_judged(
        status in 100..1000_u16,
        headers in any_headers(),
        body in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        holds(status, &headers, body)?;
    }

    #[test]
    fn any_json_is_judged(status in prop_oneof![Just(200), 400..600_u16], headers in any_headers(), body in any_json()) {
        holds(status, &headers, body.to_string().into_bytes())?;
    }

    #[test]
    fn any_text_of_the_right_words_is_judged(
        status in prop_oneof![Just(200), 400..600_u16],
        body in r#"(data:|event:|[{}\[\]":,\\'\n ]|error|violations|quota_id|quotaValue|retry_delay|seconds|nanos|key|value|model|429|503 |PerDay|Quota exceeded for |metric: |limit: |retry in |µ){0,60}"#,
    ) {
        holds(status, &HeaderMap::new(), body.into_bytes())?;
    }

    #[test]
    fn any_damage_to_a_fixture_is_survived(
        (status, body) in any_fixture(),
        other in prop_oneof![Just(200), 400..600_u16],
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..4, any::<u8>()), 1..8),
    ) {
        let mut body = body;
        for (at, what, byte) in damage {
            if body.is_empty() {
                break;
            }
            let at = at.index(body.len());
            match what {
                0 => body[at] ^= byte,
                1 => body.truncate(at),
                2 => body.insert(at, byte),
                _ => drop(body.drain(..at)),
            }
        }
        holds(status, &HeaderMap::new(), body.clone())?;
        holds(other, &HeaderMap::new(), body)?;
    }

    #[test]
    fn a_key_anywhere_in_the_body_is_never_printed(
        (status, body) in any_fixture(),
        at in any::<prop::sample::Index>(),
        key in "AIza[A-Za-z0-9_-]{35}",
    ) {
        let mut body = body;
        body.splice(at.index(body.len()).., [key.as_bytes(), &body[at.index(body.len())..]].concat());
        let verdict = judge(status, &[], body);
        let printed = format!("{verdict:?}\n{}\n{:?}", verdict.message(), verdict.details());
        prop_assert!(!printed.contains(&key), "{printed}");
    }

    /// The same, in the place of each string in turn.
    #[test]
    fn a_key_in_any_member_is_never_printed(
        (status, body) in any_fixture(),
        at in any::<prop::sample::Index>(),
        key in "AIza[A-Za-z0-9_-]{35}",
    ) {
        let text = String::from_utf8(body).unwrap();
        let quotes: Vec<usize> = text.match_indices('"').map(|(at, _)| at + 1).collect();
        prop_assume!(!quotes.is_empty());
        let at = quotes[at.index(quotes.len())];
        let body = format!("{}{key}{}", &text[..at], &text[at..]);
        let verdict = judge(status, &[], body);
        let printed = format!("{verdict:?}\n{}\n{:?}", verdict.message(), verdict.details());
        prop_assert!(!printed.contains(&key), "{printed}");
    }

    #[test]
    fn the_order_of_members_never_matters((status, body) in any_fixture(), seed in any::<u64>()) {
        let Ok(value) = serde_json::from_slice::<Value>(&body) else { return Ok(()) };
        let (mut shuffled, mut seed) = (String::new(), seed);
        shuffle(&value, &mut seed, &mut shuffled);
        prop_assert_eq!(line(&judge(status, &[], shuffled.clone())), line(&judge(status, &[], body)), "{}", shuffled);
    }
}
