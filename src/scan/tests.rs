//! The scanner beside `serde_json` on the same bytes: generated bodies of every form, cut into frames anywhere.

mod bodies;

use http::{HeaderMap, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use self::bodies::{Object, case, event, junk, text};
use super::*;
use crate::{ServiceTier, Verdict};

#[test]
fn the_state_is_small() {
    assert!(size_of::<Scanner>() < 256, "{} bytes", size_of::<Scanner>());
}

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Scanner {
    let mut scanner = Scanner::new();
    pieces.into_iter().for_each(|piece| scanner.feed(piece));
    scanner.finish();
    scanner
}

fn whole(body: &str) -> Scanner {
    scan([body.as_bytes()])
}

/// All that can be asked.
fn findings(scanner: &Scanner) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        (scanner.events(), scanner.delivered(), scanner.error_after_output(), scanner.is_broken()),
        (scanner.has_said(), scanner.has_error(), scanner.tells_output(), scanner.is_spent()),
        (scanner.usage(), scanner.error(), scanner.fault(), outcome(scanner)),
    )
}

fn outcome(scanner: &Scanner) -> Option<Kind> {
    crate::judge::response::judge_scanned(StatusCode::OK, scanner)
}

/// What is said of the whole body.
fn judged(body: &str) -> Option<Kind> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    Verdict::from_parts(StatusCode::OK, &HeaderMap::new(), body).kind()
}

#[test]
fn what_is_known_can_be_asked_after_each_piece() {
    let mut scanner = Scanner::new();
    scanner.feed(b"data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hm\",\"thought\":true}]}}]}");
    assert_eq!((scanner.events(), scanner.delivered()), (1, false), "a thought is no output");
    scanner.feed(b"\n\ndata: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hi\"");
    assert_eq!((scanner.events(), scanner.delivered()), (1, false), "not complete");
    scanner.feed(b"}]}}]}");
    assert_eq!((scanner.events(), scanner.delivered(), scanner.error()), (2, true, None));
    scanner.feed(b"\n\n{\n  \"error\": {\"code\": 503, \"status\": \"UNAVAILABLE\"}");
    assert_eq!(scanner.error(), None, "its object is not complete");
    scanner.feed(b"}");
    assert_eq!(scanner.error().unwrap(), r#"[{"error":{"code": 503, "status": "UNAVAILABLE"}}]"#);
    assert!(scanner.error_after_output());
}

#[test]
fn a_flat_error_after_output_is_after_output() {
    let text = r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]}}]}"#;
    let flat = r#"{"code":503,"message":"down"}"#;
    for (body, after) in [
        (format!("data: {text}\n\ndata: {flat}\n\n"), true),
        (format!("[{text},{flat}]"), true),
        (format!("[{flat},{text}]"), false),
        (format!("[{flat},{text},{flat}]"), false),
        (format!("data: {flat}\n\n"), false),
    ] {
        let scanner = whole(&body);
        assert_eq!(scanner.error_after_output(), after, "{body}");
        let verdict = Verdict::from_parts(StatusCode::OK, &HeaderMap::new(), Bytes::from(body.clone()));
        assert_eq!(verdict.after_output(), after, "{body}");
    }
    let fine = whole(&format!(r#"[{text},{{"code":200,"message":"fine"}}]"#));
    assert!(!fine.error_after_output());
}

#[test]
fn both_readers_find_the_same_in_forms_that_are_rare() {
    let good = r#"{"index":1,"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}"#;
    let blocked = r#"{"index":0,"finishReason":"SAFETY"}"#;
    for (body, kind) in [
        (format!(r#"{{"candidates":[{good},{blocked}]}}"#), None),
        (format!("data: {{\"candidates\":[{good}]}}\n\ndata: {{\"candidates\":[{blocked}]}}\n\n"), None),
        (r#"{"response":{"promptFeedback":{"blockReason":"SAFETY"}}}"#.into(), Some(Kind::ContentBlocked)),
        (r#"{"response":{"response":{"promptFeedback":{"blockReason":"SAFETY"}}}}"#.into(), None),
        (r#"{"promptFeedback":{"blockReasonMessage":"no"}}"#.into(), Some(Kind::ContentBlocked)),
        (r#"{"predictions":[{"raiFilteredReason":"no"}]}"#.into(), Some(Kind::ContentBlocked)),
        (r#"{"predictions":[{"raiFilteredReason":"no"},{"gcsUri":"x"}]}"#.into(), None),
        (r#"{"predictions":[{"bytesBase64Encoded":"x"},{"raiFilteredReason":"no"}]}"#.into(), None),
        (
            r#"{"candidates":[{"content":{"parts":[{"parts":[{"text":"x"}]}]},"finishReason":"STOP"}]}"#
                .into(),
            Some(Kind::EmptyResponse),
        ),
        (r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#.into(), None),
        (r#"{"choices":[{"message":{"tool_calls":[{}]},"finish_reason":"tool_calls"}]}"#.into(), None),
        (r#"{"code":404,"message":"m"}"#.into(), Some(Kind::NotFound)),
        (r#"{"code":500,"status":"NOT_FOUND"}"#.into(), Some(Kind::NotFound)),
        (r#"{"code":500,"details":[{"reason":"API_KEY_INVALID"}]}"#.into(), Some(Kind::ApiKeyInvalid)),
        (r#"{"code":400,"errors":[{"message":"API key not valid."}]}"#.into(), Some(Kind::ApiKeyInvalid)),
        (r#"{"code":400,"message":"API key not valid."}"#.into(), Some(Kind::ApiKeyInvalid)),
        (r#"{"error":null,"code":503,"message":"m"}"#.into(), Some(Kind::Unavailable)),
        (r#"{"error":"","code":503,"message":"m"}"#.into(), Some(Kind::Unavailable)),
        (r#"{"error":{},"code":503,"message":"m"}"#.into(), Some(Kind::Unavailable)),
    ] {
        let scanner = whole(&body);
        assert_eq!((outcome(&scanner), judged(&body)), (kind, kind), "{body}");
    }
}

#[test]
fn what_is_no_error_is_not_kept() {
    // Of a known answer; of another one the whole is kept.
    let kept = |body: &str| {
        let known = whole(&body.replacen('{', "{\"id\":1,", 1));
        known.error().map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    let flat = Some(r#"[{"code":503,"message":"m"}]"#.to_owned());
    for nothing in ["null", "\"\"", "{}", "[]", "0"] {
        assert_eq!(kept(&format!(r#"{{"error":{nothing},"code":503,"message":"m"}}"#)), flat, "{nothing}");
        assert_eq!(kept(&format!(r#"{{"code":503,"error":{nothing},"message":"m"}}"#)), flat, "{nothing}");
        assert_eq!(kept(&format!(r#"{{"error":{nothing}}}"#)), None, "{nothing}");
    }
    assert_eq!(kept(r#"{"error":"x"}"#).as_deref(), Some(r#"[{"error":"x"}]"#));
    assert_eq!(kept(r#"{"code":399,"message":"m"}"#), None);
    assert_eq!(kept(r#"{"code":400,"message":"m"}"#).as_deref(), Some(r#"[{"code":400,"message":"m"}]"#));
    let foreign = r#"{"error":{},"note":"m"}"#;
    assert_eq!(whole(foreign).error().as_deref(), Some(foreign.as_bytes()));
    // Just as much as there is room for.
    let long = |len: usize| format!(r#"{{"error":"{}"}}"#, "x".repeat(len));
    let room = 8 * 1024 - r#"[{"error":"""#.len();
    assert!(kept(&long(room)).is_some_and(|text| text.ends_with("x\"}]")));
    assert!(kept(&long(room + 1)).is_some_and(|text| text.ends_with('x') && text.len() == 8 * 1024));
}

#[test]
fn an_error_that_breaks_off_is_kept_as_far_as_it_goes_and_no_other_member_is() {
    let kept = |body: &str| whole(body).error().map(|text| String::from_utf8_lossy(&text).into_owned());
    assert_eq!(
        kept(r#"{"error":{"message":"over the li"#).as_deref(),
        Some(r#"[{"error":{"message":"over the li"#)
    );
    assert_eq!(kept(r#"{"code":503,"message":"over the li"#), None);
    assert_eq!(kept(r#"{"code":503,"message":"m""#), None, "the object is not complete");
    assert_eq!(
        kept(r#"[{"error":{"message":"one"}},{"code":503,"message":"tw"#).as_deref(),
        Some(r#"[{"error":{"message":"one"}}]"#)
    );
    assert_eq!(
        kept(r#"{"code":503,"error":{"message":"over the li"#).as_deref(),
        Some(r#"[{"code":503,"error":{"message":"over the li"#)
    );
    let begun = r#"[{"candidates":[{"content":{"parts":[{"text":"hi"}]}}]},"#;
    assert!(whole(&format!(r#"{begun}{{"error":{{"message":"over the li"#)).error_after_output());
    assert!(!whole(&format!(r#"{begun}{{"code":503,"message":"over the li"#)).error_after_output());
    let text = |len: usize| kept(&"x".repeat(len)).map(|text| text.len());
    assert_eq!([8 * 1024, 8 * 1024 + 1].map(text), [Some(8 * 1024), None]);
}

#[test]
fn what_is_near_to_json_is_none() {
    for (body, broken) in [
        (r#"{"a" : 1 , "b":[1,2] }"#, false),
        (r#"{"a":  1,  "b":1}"#, false),
        (r#"{"a" 1}"#, true),
        (r#"{"a";1}"#, true),
        (r#"{"index":nul}"#, true),
        (r#"{"candidates":[{"index":nul}]}"#, true),
        (r#"{"candidates":[{"index":12345678901234567890123456789012345}]}"#, false),
        (r#"[{}}"#, true),
        (r#"{"a":1]"#, true),
        (r#"{"a":1,"":2}"#, false),
        (r#"{"a":1, "":2}"#, false),
        // In an event values may lie on lines of their own, and strings may not go on in the next one.
        ("data: {\"a\":\ndata: {\"k\":\ndata: 1}}\n\n", false),
        ("data: {\"a\":\"b\ndata: c\"}\n\n", true),
        ("data: {\"a\":{\"k\":\"b\ndata: c\"}}\n\n", true),
        ("data: {\"a\ndata: b\":1}\n\n", true),
        ("data: {\"index\":\ndata: 1\ndata: ,\"b\":2}\n\n", false),
        (r#"[{},]"#, true),
        (r#"{"a":1,}"#, true),
        (r#"{"candidates":[{"index":1],"b":2}"#, true),
    ] {
        assert_eq!(whole(body).is_broken(), broken, "{body}");
    }
}

#[test]
fn an_object_that_breaks_off_in_its_event_is_half_an_answer() {
    for (body, fault) in [
        ("data: {\n\n", Some(Kind::Truncated)),
        ("data: {}\n\ndata: {\n\n", Some(Kind::Truncated)),
        ("data: {\"new\":1}\n\ndata: {\n\n", Some(Kind::Unknown)),
        ("data: {}\n\ndata: hello\n\n", None),
        ("data: {}\n\n", None),
    ] {
        assert_eq!(whole(body).fault(), fault, "{body}");
    }
}

#[test]
fn a_part_is_a_thought_by_itself() {
    let delivered = |parts: &str| {
        whole(&format!(r#"{{"candidates":[{{"content":{{"parts":[{parts}]}}}}]}}"#)).delivered()
    };
    let (thought, text) = (r#"{"text":"hm","thought":true}"#, r#"{"text":"hi"}"#);
    assert!(!delivered(thought) && delivered(text));
    assert!(delivered(&format!("{thought},{text}")) && delivered(&format!("{text},{thought}")));
    assert!(!delivered(r#"{"text":""}"#) && !delivered(r#"{"text":5}"#));
}

#[test]
fn names_may_have_blanks_around_them() {
    for name in [" error", "error ", " error "] {
        assert!(whole(&format!(r#"{{"{name}":{{"code":503,"message":"m"}}}}"#)).has_error(), "{name:?}");
    }
}

#[test]
fn lists_may_lie_in_lists_as_deep_as_anybody_likes() {
    for depth in [1, 15, 16, 17, 40, 300] {
        let body = format!("{}{{}}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!whole(&body).is_broken(), "{depth}");
    }
}

#[test]
fn a_blank_line_ends_an_event_whatever_it_held() {
    for end in ["\n\n", "\r\r", "\r\n\r\n"] {
        let scanner = whole(&format!(
            "data: {{\"candidates\":[{end}data: {{\"error\":{{\"code\":503,\"message\":\"m\"}}}}{end}"
        ));
        assert!(scanner.has_error() && scanner.is_broken(), "{end:?}");
    }
    assert!(whole("hello").is_text() && !whole("data: {}").is_text() && !whole("{}").is_text());
}

#[test]
fn the_model_that_answered_is_the_first_one_named_wherever_it_is_cut() {
    let long = "gemini-9-flash-preview-12-2026x";
    for (body, name) in [
        (r#"{"modelVersion":"gemini-9-flash","candidates":[]}"#.to_owned(), Some("gemini-9-flash")),
        (r#"{"modelVersion":"expected","candidates":[]}"#.to_owned(), None),
        (format!(r#"{{"response":{{"modelVersion":"{long}"}}}}"#), Some(long)),
        ("data: {\"modelVersion\":\"a\"}\n\ndata: {\"modelVersion\":\"b\"}\n\n".to_owned(), Some("a")),
        ("data: {\"modelVersion\":\"expected\"}\n\ndata: {\"modelVersion\":\"b\"}\n\n".to_owned(), None),
        (format!(r#"{{"modelVersion":"{}"}}"#, "x".repeat(32)), None),
        (r#"{"modelVersion":7}"#.to_owned(), None),
        (r#"{"candidates":[{"modelVersion":"a"}]}"#.to_owned(), None),
    ] {
        for cut in 0..body.len() {
            for expected in [0, name_hash(b"expected")] {
                let mut scanner = Scanner::new();
                scanner.expect(expected);
                let (front, back) = body.as_bytes().split_at(cut);
                scanner.feed(front);
                scanner.feed(back);
                scanner.finish();
                assert_eq!(scanner.model_version(), name.filter(|_| expected != 0), "{body} at {cut}");
            }
        }
    }
}

#[test]
fn the_tier_that_served_stands_beside_the_counts() {
    for (usage, tier) in [
        (r#"{"promptTokenCount":3,"serviceTier":"standard"}"#, Some(ServiceTier::Standard)),
        (r#"{"trafficType":"ON_DEMAND_FLEX"}"#, Some(ServiceTier::Flex)),
        (r#"{"serviceTier":5}"#, None),
        (r#"{"serviceTier":"unspecified"}"#, None),
    ] {
        let scanner = scan([format!(r#"{{"candidates":[],"usageMetadata":{usage}}}"#).as_bytes()]);
        assert_eq!(scanner.tier(), tier, "{usage}");
    }
    assert_eq!(scan([br#"{"serviceTier":"flex"}"#.as_slice()]).tier(), None);
}

#[test]
fn usage_is_read_where_it_stands_and_nowhere_else() {
    let total = |body: &str| whole(body).usage().map(|usage| usage.total_tokens);
    assert_eq!(total(r#"{"usage":{"total_tokens":5}}"#), Some(5));
    assert_eq!(total(r#"{"interaction":{"usage":{"total_tokens":5}}}"#), Some(5));
    for body in [
        r#"{"interaction":{"other":{"total_tokens":5}}}"#,
        r#"{"other":{"total_tokens":5}}"#,
        r#"{"other":{"usage":{"total_tokens":5}}}"#,
    ] {
        assert_eq!(total(body), None, "{body}");
    }
    let cached = whole(r#"{"usage":{"prompt_tokens_details":{"cached_tokens":3,"audio_tokens":9}}}"#).usage();
    assert_eq!(cached.map(|usage| usage.cached_tokens), Some(3));
}

#[test]
fn a_chat_completion_tells_its_output() {
    let mut scanner = Scanner::new();
    scanner.feed(b"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n");
    assert_eq!((scanner.events(), scanner.delivered(), scanner.tells_output()), (1, false, true));
    scanner.feed(b"data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n");
    assert!(scanner.delivered());
    assert_eq!(
        whole("data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n").fault(),
        Some(Kind::Truncated)
    );
    let spent = whole("{\"choices\":[{\"message\":{},\"finish_reason\":\"length\"}]}");
    assert_eq!((spent.fault(), spent.is_spent()), (Some(Kind::EmptyResponse), true));
}

#[test]
fn any_data_says_that_an_event_is_complete() {
    for (body, said, error) in [
        (": ping\n\n", false, false),
        ("data: \"a word\"", true, false),
        ("data: 5\n", true, false),
        ("data: {\"a\":", false, false),
        ("[{}", true, false),
        ("data: {\"error\":{\"code\":503}}", true, true),
    ] {
        let mut scanner = Scanner::new();
        scanner.feed(body.as_bytes());
        assert_eq!((scanner.has_said(), scanner.has_error()), (said, error), "{body}");
        assert_eq!(scanner.has_error(), scanner.error().is_some());
    }
}

#[test]
fn bad_json_ends_the_search_in_its_event_and_says_so() {
    let body = "data: {\"candidates\": oops}\n\ndata: {\"usageMetadata\": {\"totalTokenCount\": 3}}\n\n";
    let scanner = whole(body);
    assert!(scanner.is_broken());
    assert_eq!(scanner.usage().map(|usage| usage.total_tokens), Some(3));
    assert!(!whole("data: {}\n\ndata: [DONE]\n\n").is_broken(), "the end mark is no JSON, and no fault");
}

#[test]
fn an_errors_text_is_kept_up_to_8_kib() {
    let long = format!(
        "{{\"error\":{{\"code\":503,\"status\":\"UNAVAILABLE\",\"message\":\"{}\"}}}}",
        "x".repeat(20_000)
    );
    let body = format!("data: {long}\n\ndata: {long}\n\n");
    for size in [1, 1000, 100_000] {
        let scanner = scan(body.as_bytes().chunks(size));
        assert_eq!(scanner.error().unwrap().len(), 8 * 1024);
        assert_eq!(outcome(&scanner), Some(Kind::Unavailable));
    }
    // Members that might have been an error's leave no room taken.
    let body = format!(
        "data: {{\"message\":\"{}\"}}\n\ndata: {{\"error\":{{\"code\":503}}}}\n\n",
        "x".repeat(20_000)
    );
    assert_eq!(whole(&body).error().unwrap(), r#"[{"error":{"code":503}}]"#);
}

#[test]
fn a_text_of_more_than_8_kib_is_a_download() {
    let text = "ApiError: {\"error\": {\"code\": 503, \"status\": \"UNAVAILABLE\"}}";
    assert_eq!(outcome(&whole(text)), Some(Kind::Unavailable));
    assert_eq!(whole(&format!("{text}{}", " ".repeat(9000))).error(), None);
}

#[test]
fn a_reason_that_is_too_long_for_one_is_the_same_in_pieces() {
    let body = |reason: &str| format!("data: {{\"candidates\":[{{\"finishReason\":\"{reason}\"}}]}}\n\n");
    for reason in ["SAFETY_AND_MORE_THAN_ANY_NAME_IS_LONG", "0123456789012345678901234567 SAFETY", "SAFETY"] {
        let text = body(reason);
        let kind = if reason == "SAFETY" { Kind::ContentBlocked } else { Kind::EmptyResponse };
        assert_eq!(outcome(&whole(&text)), Some(kind), "{reason}");
        assert_eq!(outcome(&scan(frames(text.as_bytes(), &[1]))), Some(kind), "{reason}");
        assert_eq!(judged(&text), Some(kind), "{reason}");
    }
}

// ===== beside serde_json =====

/// Frames of these sizes, over and over.
fn frames<'a>(body: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = body;
    sizes.iter().cycle().map_while(move |size| {
        let (frame, after) = rest.split_at(rest.len().min(*size));
        rest = after;
        (!frame.is_empty()).then_some(frame)
    })
}

/// The last usage in these events, by `serde_json`.
fn usage(events: &[Object]) -> Option<Usage> {
    let read = |value: &Value| {
        let value = value.as_object()?;
        let count = |names: &[&str]| {
            let n = names.iter().find_map(|name| value.get(*name))?;
            n.as_u64().or_else(|| n.as_str()?.trim().parse().ok())
        };
        let details =
            value.get("prompt_tokens_details").and_then(|details| details.get("cached_tokens")?.as_u64());
        let counts = [
            count(&["promptTokenCount", "prompt_tokens", "total_input_tokens", "totalInputTokens"]),
            count(&["toolUsePromptTokenCount", "total_tool_use_tokens", "totalToolUseTokens"]),
            count(&["cachedContentTokenCount", "total_cached_tokens", "totalCachedTokens"]).or(details),
            count(&["candidatesTokenCount", "completion_tokens", "total_output_tokens", "totalOutputTokens"]),
            count(&["thoughtsTokenCount", "total_thought_tokens", "totalThoughtTokens"]),
            count(&["totalTokenCount", "total_tokens", "totalTokens"]),
        ];
        counts.iter().any(Option::is_some).then(|| {
            let [prompt, tools, cached, output, thoughts, total] = counts.map(Option::unwrap_or_default);
            Usage {
                input_tokens: prompt + tools,
                cached_tokens: cached,
                output_tokens: output,
                thought_tokens: thoughts,
                total_tokens: total,
            }
        })
    };
    let of_event = |event: &Object| {
        let value = event.value();
        let value = value.get("response").unwrap_or(&value);
        let places = [
            value.get("usageMetadata"),
            value.get("usage"),
            value.get("interaction").and_then(|i| i.get("usage")),
        ];
        places.into_iter().flatten().find_map(read)
    };
    events.iter().rev().find_map(of_event)
}

/// Fewer where the environment says so: mutation testing runs this once for each mutant.
fn cases() -> u32 {
    if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default().cases } else { 2000 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn a_stream_says_the_same_in_frames_as_whole(case in case(), sizes in vec(1..40_usize, 1..8)) {
        let scanner = scan(frames(case.body.as_bytes(), &sizes));
        prop_assert_eq!(findings(&scanner), findings(&whole(&case.body)));
        prop_assert_eq!(outcome(&scanner), judged(&case.plain), "{}", case.body);
        prop_assert_eq!(scanner.usage(), usage(&case.events), "{}", case.body);
        prop_assert_eq!(scanner.events() as usize, case.events.len(), "{}", case.body);
        prop_assert!(!scanner.is_broken(), "{}", case.body);
    }

    #[test]
    fn a_stream_that_breaks_off_is_judged_as_its_beginning_is(
        case in case(), at in any::<Index>(), sizes in vec(1..40_usize, 1..8),
    ) {
        let mut at = at.index(case.plain.len() + 1);
        while !case.plain.is_char_boundary(at) {
            at -= 1;
        }
        let body = &case.plain[..at];
        let scanner = scan(frames(body.as_bytes(), &sizes));
        prop_assert_eq!(findings(&scanner), findings(&whole(body)));
        // Of a broken body with an error the other reader takes words from its other envelopes, too.
        let envelopes = case.events.iter().filter(|event| event.is_envelope()).count();
        // It opens strings that hold an error, too, and of a broken body it cannot tell which of the two is the outer one.
        let nests = body.contains("\\\"error");
        if (envelopes < 2 || scanner.error().is_none()) && !nests {
            prop_assert_eq!(outcome(&scanner), judged(body), "{}", body);
        }
    }

    #[test]
    fn any_bytes_say_the_same_in_frames_as_whole(
        pieces in vec(prop_oneof![text(), junk().prop_map(|junk| junk.to_string()), event().prop_map(|e| e.json("")),
            "[\\[\\]{}\",:\\\\a-f0-9 \r\n]{0,9}", Just("\ndata:".to_owned())], 0..6),
        sizes in vec(1..20_usize, 1..8),
    ) {
        let body = pieces.concat();
        prop_assert_eq!(findings(&scan(frames(body.as_bytes(), &sizes))), findings(&whole(&body)));
    }
}
