//! Forms that no recorded answer has, or has only together with others: each member of the wrong type is passed over
//! without a loss of what comes after it.

use super::*;

fn judged(status: u16, body: &str) -> Verdict {
    let status = StatusCode::from_u16(status).expect("a status");
    judge(status, &HeaderMap::new(), Bytes::from(body.to_owned()))
}

fn kind(status: u16, body: &str) -> Option<Kind> {
    judged(status, body).kind()
}

#[test]
fn an_answer_is_read_past_members_of_the_wrong_type() {
    for body in [
        r#"{"response":[1],"promptFeedback":{"blockReason":"SAFETY"}}"#,
        r#"{"response":{"promptFeedback":{"blockReason":"SAFETY"}}}"#,
        r#"{"promptFeedback":[1],"candidates":[{"finishReason":"SAFETY"}]}"#,
        r#"{"choices":[{"message":[1],"finishReason":"content_filter"}]}"#,
    ] {
        assert_eq!(kind(200, body), Some(Kind::ContentBlocked), "{body}");
    }
}

#[test]
fn candidates_are_told_apart_by_their_index_or_their_place() {
    let good = r#"{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}"#;
    assert_eq!(kind(200, &format!(r#"{{"candidates":[{good},{{"finishReason":"SAFETY"}}]}}"#)), None);
    let blocked = r#"{"index":0,"finishReason":"SAFETY"}"#;
    let other = good.replacen('{', r#"{"index":1,"#, 1);
    assert_eq!(kind(200, &format!(r#"{{"candidates":[{other},{blocked}]}}"#)), None);
    let events = format!("data: {{\"candidates\":[{other}]}}\n\ndata: {{\"candidates\":[{blocked}]}}\n\n");
    assert_eq!(kind(200, &events), None, "one good candidate is what the caller asked for");
}

#[test]
fn a_part_has_no_parts() {
    let nested = r#"{"candidates":[{"content":{"parts":[{"parts":[{"text":"x"}]}]},"finishReason":"STOP"}]}"#;
    assert_eq!(kind(200, nested), Some(Kind::EmptyResponse));
}

#[test]
fn an_error_is_read_past_members_of_the_wrong_type() {
    // What tells the day stands where only the fold looks.
    for odd in [r#"{"metadata":[1]}"#, r#"{"violations":[{"quotaDimensions":[1]}]}"#] {
        let body = format!(
            r#"{{"error":{{"code":429,"status":"RESOURCE_EXHAUSTED","message":"m","details":[{odd},
                {{"metadata":{{"quota_limit":"X","quota_unit":"1/d/{{project}}"}}}}]}}}}"#
        );
        assert_eq!(kind(429, &body), Some(Kind::QuotaExhausted), "{odd}");
    }
    assert_eq!(kind(200, r#"{"error":[{"code":404,"message":"gone"}]}"#), Some(Kind::NotFound));
}

#[test]
fn an_error_that_is_a_text_says_so_under_a_200() {
    let plain = judged(200, r#"{"error":"boom"}"#);
    assert_eq!((plain.kind(), plain.message().as_ref()), (Some(Kind::Unknown), "boom"));
    let wrapped = judged(200, r#"{"error":"{\"error\":{\"code\":404,\"message\":\"gone\"}}"}"#);
    assert_eq!((wrapped.kind(), wrapped.message().as_ref()), (Some(Kind::NotFound), "gone"));
    let whole = judged(200, r#""{\"error\":{\"code\":404,\"message\":\"gone\"}}""#);
    assert_eq!((whole.kind(), whole.message().as_ref()), (Some(Kind::NotFound), "gone"));
    let empty = r#"{"error":"","candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"STOP"}]}"#;
    assert_eq!(kind(200, empty), None);
}

#[test]
fn an_error_may_lie_flat_if_its_code_says_that_it_is_one() {
    let flat = r#"{"code":404,"message":"gone"}"#;
    assert_eq!(kind(200, flat), Some(Kind::NotFound));
    assert_eq!(kind(200, r#"{"code":400,"message":"no"}"#), Some(Kind::InvalidArgument));
    assert_eq!(kind(200, r#"{"code":399,"status":"fine","id":"x"}"#), None);
    let both = judged(200, r#"{"code":404,"message":"gone","error":{"code":429,"message":"wait"}}"#);
    assert_eq!((both.kind(), both.message().as_ref()), (Some(Kind::RateLimited), "wait"));
    // Inside another error's message, with no `error` around it.
    let inside = r#"{"error":{"code":500,"message":"{\"code\":429,\"message\":\"wait\"}"}}"#;
    assert_eq!(kind(500, inside), Some(Kind::RateLimited));
}

#[test]
fn a_flat_error_after_output_is_after_output() {
    let text = r#"{"candidates":[{"content":{"parts":[{"text":"x"}]}}]}"#;
    let flat = r#"{"code":503,"message":"down"}"#;
    for body in [format!("data: {text}\n\ndata: {flat}\n\n"), format!("[{text},{flat}]")] {
        let verdict = judged(200, &body);
        assert_eq!((verdict.kind(), verdict.after_output()), (Some(Kind::Unavailable), true), "{body}");
    }
    assert!(!judged(200, &format!("data: {flat}\n\n")).after_output());
}

#[test]
fn the_first_of_two_messages_counts() {
    let twice = r#"{"error":{"code":400,"message":"first","message":"second"}}"#;
    assert_eq!(judged(400, twice).message(), "first");
    let legacy = r#"{"error":{"code":400,"errors":[{"reason":"r","message":"first"},{"message":"second"}]}}"#;
    assert_eq!(judged(400, legacy).message(), "first");
}

#[test]
fn bodies_in_messages_are_opened_wherever_they_stand_and_not_for_ever() {
    let quoting =
        r#"{"error":{"code":500,"message":"it said {\"error\":{\"code\":404}} and much more than that"}}"#;
    assert_eq!(kind(500, quoting), Some(Kind::NotFound));
    let wrapped = |times: usize| {
        let inner = String::from(r#"{"error":{"code":404,"message":"gone"}}"#);
        (0..times).fold(inner, |body, _| {
            let text = serde_json::to_string(&body).expect("a text");
            format!(r#"{{"error":{{"code":500,"message":{text}}}}}"#)
        })
    };
    assert_eq!(kind(500, &wrapped(12)), Some(Kind::NotFound));
}

#[test]
fn what_is_no_error_and_no_answer_is_judged_by_its_status() {
    for (status, body) in [(200, ""), (204, ""), (302, "<html>moved</html>"), (304, r#"{"candidates":[]}"#)] {
        assert_eq!(kind(status, body), None, "{status} {body}");
    }
    for body in ["[1]", "\"hello\"", "<html>hello</html>", "hello"] {
        assert_eq!(kind(200, body), Some(Kind::Unknown), "{body}");
    }
    for body in ["[]", " [ ]\n", "\n  \r\n"] {
        assert_eq!(kind(200, body), Some(Kind::EmptyResponse), "{body}");
    }
    let alternative = |body: &str| judged(200, body).alternative();
    assert_eq!(alternative("hello"), Alternative::None);
    assert_eq!(alternative(r#"{"candidates":[]}"#), Alternative::Model);
}

#[test]
fn a_fault_keeps_its_answer() {
    let answer = judged(200, r#"{"candidates":[],"message":"m","modelVersion":"gemini-x"}"#);
    assert_eq!((answer.kind(), answer.model()), (Some(Kind::EmptyResponse), Some("gemini-x")));
    assert_eq!(answer.details().map(|status| status.message).as_deref(), Some("m"));
}

#[test]
fn what_the_fold_could_not_read_is_scanned_and_nothing_else() {
    // Whole, but in a form of its own.
    let own = r#"{"detail":{"message":"API key not valid. Please pass a valid one."}}"#;
    assert_eq!(kind(400, own), Some(Kind::ApiKeyInvalid));
    // Cut inside the violation that says it all.
    let cut = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"m","details":[
        {"violations":[{"quotaId":"RequestsPerDay","quotaValue":"5""#;
    for prose in ["", "ApiError: "] {
        assert_eq!(kind(429, &format!("{prose}{cut}")), Some(Kind::QuotaExhausted), "{prose}");
    }
    // Whole, and a member that means nothing there.
    let other = r#"{"error":{"code":500,"message":"m","other":{"reason":"API_KEY_INVALID"}}}"#;
    for prose in ["", "ApiError: "] {
        assert_eq!(kind(500, &format!("{prose}{other}")), Some(Kind::Internal), "{prose}");
    }
    assert_eq!(judged(503, "upstream down\nmore").message(), "upstream down");
}

#[test]
fn what_was_delivered_is_no_failure_any_more() {
    let (parts, ()) = http::Response::new(()).into_parts();
    let mut scanner = Scanner::new();
    assert!(judge_held(&parts, &scanner, Seen::Part, None, false).is_none());
    let lost = judge_held(&parts, &scanner, Seen::Lost, None, false).expect("a failure");
    assert_eq!((lost.kind(), lost.http_status()), (Some(Kind::Transport), Some(StatusCode::OK)));
    scanner.feed(b"data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"x\"}]}}]}\n\n");
    assert!(judge_held(&parts, &scanner, Seen::Lost, None, false).is_none());
    assert!(judge_held(&parts, &scanner, Seen::Whole, Some(Kind::Truncated), false).is_none());
    // Unless that is held, too.
    let cut = judge_held(&parts, &scanner, Seen::Whole, Some(Kind::Truncated), true).expect("a failure");
    assert!(cut.is_no_answer() && !cut.after_output());
    assert!(judge_held(&parts, &scanner, Seen::Whole, None, true).is_none());
    assert!(judge_held(&parts, &scanner, Seen::Part, None, true).is_none());
}

#[test]
fn each_failure_says_what_else_would_help() {
    let quota = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"spending cap reached","details":[
        {"violations":[{"quotaId":"RequestsPerDay","quotaValue":"LIMIT"}]}]}}"#;
    let error = |message: &str| format!(r#"{{"error":{{"message":"{message}"}}}}"#);
    for (status, body, alternative) in [
        (429, quota.replace("LIMIT", "5"), Alternative::Project),
        (429, quota.replace("LIMIT", "0"), Alternative::Model),
        (429, quota.replace("LIMIT", "5").replace("spending cap", "limit"), Alternative::Model),
        (429, error("wait"), Alternative::Model),
        (503, error("down"), Alternative::Model),
        (404, error("models/gemini-x is not found"), Alternative::Model),
        (404, error("no such file"), Alternative::None),
        (400, error("API key not valid."), Alternative::Project),
        (401, error("who are you"), Alternative::Project),
        (403, error("no"), Alternative::Project),
        (403, error("Your API key was reported as leaked."), Alternative::Project),
        (403, error("It has not been used or it is disabled. Enable it."), Alternative::Project),
        (
            400,
            error("The input token count exceeds the maximum number of tokens."),
            Alternative::LargerContext,
        ),
        (400, error("bad"), Alternative::None),
        (409, error("conflict"), Alternative::None),
    ] {
        let verdict = judged(status, &body);
        assert_eq!((verdict.alternative(), verdict.sent()), (alternative, Sent::Yes), "{status} {body}");
    }
}

/// Each word beside a status that says nothing, so that it alone decides.
#[test]
fn each_reason_name_and_status_has_its_kind() {
    use Kind::*;
    type Words = &'static [(Kind, &'static [&'static str])];
    let words: [(&str, Words); 3] = [
        (
            r#"{"error":{"message":"m","details":[{"reason":"WORD"}]}}"#,
            &[
                (ApiKeyInvalid, &["API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_NOT_FOUND"]),
                (ServiceDisabled, &["SERVICE_DISABLED"]),
                (Overloaded, &["MODEL_CAPACITY_EXHAUSTED", "MODEL_CAPACITY_EXCEEDED"]),
                (QuotaExhausted, &["QUOTA_EXHAUSTED", "INSUFFICIENT_G1_CREDITS_BALANCE"]),
                (Unknown, &["SOMETHING_NEW"]),
            ],
        ),
        (
            r#"{"error":{"message":"m","code":"WORD"}}"#,
            &[
                (InvalidArgument, &["invalid_request", "invalid_argument", "invalid_input", "out_of_range"]),
                (Unauthenticated, &["unauthenticated", "authentication_error", "authentication"]),
                (PermissionDenied, &["permission_denied", "permission_error", "forbidden"]),
                (NotFound, &["not_found", "not_found_error", "model_not_found"]),
                (RateLimited, &["too_many_requests", "rate_limit_exceeded", "rate_limited"]),
                (RateLimited, &["rate_limit_error", "resource_exhausted"]),
                (QuotaExhausted, &["quota_exceeded", "quota_exhausted", "insufficient_quota"]),
                (FailedPrecondition, &["failed_precondition"]),
                (PayloadTooLarge, &["request_too_large", "payload_too_large"]),
                (ContextTooLong, &["context_length_exceeded"]),
                (Overloaded, &["overloaded", "overloaded_error", "model_overloaded"]),
                (Unavailable, &["unavailable", "service_unavailable"]),
                (Internal, &["internal", "internal_error", "internal_server_error", "server_error"]),
                (Internal, &["api_error"]),
                (DeadlineExceeded, &["deadline_exceeded", "timeout", "gateway_timeout"]),
                (Cancelled, &["cancelled"]),
                (Conflict, &["aborted", "conflict", "already_exists"]),
                (Unimplemented, &["unimplemented", "not_implemented"]),
                (Unknown, &["something_new"]),
            ],
        ),
        (
            r#"{"error":{"message":"m","status":"WORD"}}"#,
            &[
                (RateLimited, &["RESOURCE_EXHAUSTED"]),
                (InvalidArgument, &["INVALID_ARGUMENT", "OUT_OF_RANGE"]),
                (FailedPrecondition, &["FAILED_PRECONDITION"]),
                (Unauthenticated, &["UNAUTHENTICATED"]),
                (PermissionDenied, &["PERMISSION_DENIED"]),
                (NotFound, &["NOT_FOUND"]),
                (Conflict, &["ABORTED", "ALREADY_EXISTS"]),
                (Cancelled, &["CANCELLED"]),
                (DeadlineExceeded, &["DEADLINE_EXCEEDED"]),
                (Unimplemented, &["UNIMPLEMENTED"]),
                (Unavailable, &["UNAVAILABLE"]),
                (Internal, &["INTERNAL", "DATA_LOSS"]),
                (Unknown, &["UNKNOWN", "SOMETHING_NEW"]),
            ],
        ),
    ];
    for (form, kinds) in words {
        for (kind, names) in kinds {
            for name in *names {
                assert_eq!(judged(418, &form.replace("WORD", name)).kind(), Some(*kind), "{name}");
            }
        }
    }
}

#[test]
fn each_status_has_its_kind_where_nothing_else_says_more() {
    use Kind::*;
    for (kind, statuses) in [
        (RateLimited, &[429][..]),
        (InvalidArgument, &[400, 406, 411, 415, 417, 422]),
        (Unauthenticated, &[401]),
        (QuotaExhausted, &[402]),
        (PermissionDenied, &[403]),
        (NotFound, &[404, 410]),
        (Unimplemented, &[405, 501]),
        (DeadlineExceeded, &[408, 504]),
        (Conflict, &[409]),
        (FailedPrecondition, &[412]),
        (PayloadTooLarge, &[413, 414, 431]),
        (Cancelled, &[499]),
        (Internal, &[500, 505, 519, 528, 530, 599]),
        (Unavailable, &[502, 503, 520, 527]),
        (Overloaded, &[529]),
        (Unknown, &[418, 498, 600]),
    ] {
        for status in statuses {
            assert_eq!(judged(*status, "").kind(), Some(kind), "{status}");
        }
    }
}

#[test]
fn a_message_makes_a_kind_more_exact() {
    let said = |code: &str, message: &str| {
        kind(418, &format!(r#"{{"error":{{"code":"{code}","message":"{message}"}}}}"#))
    };
    assert_eq!(said("unavailable", "The model is overloaded."), Some(Kind::Overloaded));
    assert_eq!(said("unavailable", "down"), Some(Kind::Unavailable));
    assert_eq!(said("invalid_request", "API key not valid."), Some(Kind::ApiKeyInvalid));
    assert_eq!(said("permission_denied", "It was reported as leaked."), Some(Kind::KeyLeaked));
    assert_eq!(said("rate_limited", "Your prepayment credits are depleted."), Some(Kind::QuotaExhausted));
}

#[test]
fn half_an_event_is_scanned_where_it_brings_the_first_error() {
    let half = judged(200, "data: {\"error\":{\"code\":429,\"message\":\"over the li");
    assert_eq!((half.kind(), half.message().as_ref()), (Some(Kind::RateLimited), "over the li"));
    let first = r#"{"error":{"code":503,"message":"down"}}"#;
    let later = format!("data: {first}\n\ndata: {{\"error\":{{\"reason\":\"API_KEY_INVALID\"");
    assert_eq!(kind(200, &later), Some(Kind::Unavailable));
}

#[test]
fn a_bare_object_may_end_a_broken_stream() {
    let whole =
        ": ping\n\n{\"error\":{\"code\":500,\"message\":\"m\",\n\"other\":{\"reason\":\"API_KEY_INVALID\"}}}";
    assert_eq!(kind(200, whole), Some(Kind::Internal));
    let cut = judged(200, ": ping\n\n{\"error\":{\"code\":429,\n\"message\":\"over the li");
    assert_eq!((cut.kind(), cut.message().as_ref()), (Some(Kind::RateLimited), "over the li"));
}

#[test]
fn a_pages_title_is_its_message() {
    let page = judged(503, "<html><head><title> 503 Busy </title></head><body>no</body></html>");
    assert_eq!((page.kind(), page.message().as_ref()), (Some(Kind::Unavailable), "503 Busy"));
}

#[test]
fn names_may_have_blanks_around_them_and_escapes_in_them() {
    for body in [
        r#"{"error":{" code":404,"message":"gone"}}"#,
        r#"{"error":{"code ":404,"message ":"gone"}}"#,
        r#"{"err\u006fr":{"c\u006fde":404,"m\u0065ssage":"gone"}}"#,
    ] {
        let verdict = judged(200, body);
        assert_eq!((verdict.kind(), verdict.message().as_ref()), (Some(Kind::NotFound), "gone"), "{body}");
    }
}

#[test]
fn a_delay_of_more_than_five_minutes_is_no_rate_limit_where_no_window_is_named() {
    for (seconds, expected) in [(300, Kind::RateLimited), (301, Kind::QuotaExhausted)] {
        let body = format!(
            r#"{{"error":{{"code":429,"message":"m","details":[
                {{"violations":[{{"quotaId":"SomeRequests","quotaValue":"5"}}]}},{{"retryDelay":"{seconds}.5s"}}]}}}}"#
        )
        .replace("300.5", "300");
        assert_eq!(kind(429, &body), Some(expected), "{seconds}");
    }
}

#[test]
fn a_token_count_alone_is_no_context_that_is_too_long() {
    for (message, expected) in [
        ("Invalid token count", Kind::InvalidArgument),
        ("it exceeds the maximum size", Kind::InvalidArgument),
        ("The token count 9 exceeds the maximum", Kind::ContextTooLong),
    ] {
        assert_eq!(
            kind(400, &format!(r#"{{"error":{{"message":"{message}"}}}}"#)),
            Some(expected),
            "{message}"
        );
    }
}

#[test]
fn a_date_in_retry_after_is_a_delay_from_now() {
    let date = httpdate::fmt_http_date(crate::time::wall_clock() + Duration::from_secs(90));
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, date.parse().expect("a value"));
    let verdict = judge(StatusCode::TOO_MANY_REQUESTS, &headers, Bytes::new());
    let delay = verdict.server_delay().expect("the header's");
    assert_eq!(delay.source(), crate::verdict::DelaySource::Header);
    assert!((80..=90).contains(&delay.declared().as_secs()), "{delay:?}");
}
