//! The `explain` example over a file of recorded error bodies, named by `GEMINI_ERROR_CORPUS`; without it the
//! test says so and passes. The project's own fixtures are in `tests/words/verdicts.rs`.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a failing test may panic; the example has more than it uses"
)]

use crate::{read, say};

use serde_json::{Value, json};

#[test]
fn every_uncontested_entry_is_judged_right() {
    let Ok(path) = std::env::var("GEMINI_ERROR_CORPUS") else {
        println!("skipped: GEMINI_ERROR_CORPUS names no file");
        return;
    };
    let corpus = std::fs::read_to_string(&path).expect("GEMINI_ERROR_CORPUS names a readable file");
    let (mut right, mut contested, mut wrong) = (0, Vec::new(), Vec::new());
    for line in corpus.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let said: Value = serde_json::from_str(&say::json_line(line.as_bytes())).unwrap();
        let faults = faults(&entry["expect"], &said);
        match (faults.is_empty(), entry["judgement"] == "contested") {
            (true, _) => right += 1,
            (false, true) => contested.push(format!("{}: {}", entry["id"], faults.join("; "))),
            (false, false) => wrong.push(format!("{}: {}", entry["id"], faults.join("; "))),
        }
    }
    println!("{right} right, {} contested and judged otherwise:\n{}", contested.len(), contested.join("\n"));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn faults(wanted: &Value, said: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |what: &str, same: bool, said: &Value, wanted: &Value| {
        if !same {
            faults.push(format!("{what}: said {said}, wanted {wanted}"));
        }
    };
    for what in ["kind", "grpc_status", "retryable", "reason", "model"] {
        let (said, wanted) = (&said[what], &wanted[what]);
        let either = *wanted == "truncated/empty" && (*said == "truncated" || *said == "empty_response");
        check(what, said == wanted || either, said, wanted);
    }
    let (delay, declared) = (&said["retry_after_s"], &wanted["retry_after_s"]);
    let near = match (delay.as_f64(), declared.as_f64()) {
        // The message has the fraction that RetryInfo lacks.
        (Some(said), Some(wanted)) => said >= wanted - 0.001 && said < wanted + 1.0,
        (said, wanted) => said.is_none() && wanted.is_none(),
    };
    check("retry_after_s", near, delay, declared);
    let names = |quota: &Value| {
        let name = |v: &Value| json!([v["id"], v["metric"], v["dimension"], v["period"]]).to_string();
        let mut names: Vec<_> = quota.as_array().into_iter().flatten().map(name).collect();
        names.sort();
        names
    };
    check("quota", names(&said["quota"]) == names(&wanted["quota"]), &said["quota"], &wanted["quota"]);
    faults
}

#[test]
fn a_line_that_cannot_be_read_gets_an_error_and_nothing_else() {
    for line in [
        &b"not json"[..],
        b"[1]",
        b"{\"id\":\"a\"}",
        b"{\"id\":\"a\",\"status\":1e9}",
        b"{\"status\":\"x\"}",
        b"\xff\xfe",
    ] {
        let said: Value = serde_json::from_str(&say::json_line(line)).unwrap();
        assert!(said["id"].is_null() && said["error"].is_string(), "{said}");
    }
}

#[test]
fn a_key_in_any_member_is_never_said() {
    let key = "AIzaSyD-not-a-real-key-0123456789abcdef";
    let details = json!([
        {"reason": key, "domain": key, "metadata": {"model": key, "quota_metric": key, "quota_limit": key}},
        {"violations": [{"quotaId": key, "quotaMetric": key, "quotaDimensions": {"model": key}}]},
    ]);
    for details in [details.clone(), json!([details[0]]), json!([])] {
        let body = json!({"error": {"code": 429, "status": key, "details": details, "message":
            format!("* Quota exceeded for metric: {key}, limit: 0, model: {key}\nmodels/{key} is not found {key}")}});
        for status in [429, 404, 400, 200] {
            let line = json!({"id": 1, "status": status, "body": body.to_string()}).to_string();
            let said = say::json_line(line.as_bytes());
            let pasted = read::response(body.to_string().as_bytes(), Some(status));
            let prose = say::prose(&pasted);
            assert!(!said.contains(&key[4..]) && !prose.contains(&key[4..]), "{said}\n{prose}");
        }
    }
}

#[test]
fn lines_may_lack_everything_but_a_status() {
    let said: Value = serde_json::from_str(&say::json_line(br#"{"id":7,"status":"503"}"#)).unwrap();
    assert_eq!((said["id"].as_u64(), said["kind"].as_str()), (Some(7), Some("unavailable")));
    assert_eq!(said["retryable"], true);
    let line = br#"{"id":"h","status":429,"headers":{"Retry-After":["3"]},"body":{"error":{"code":429}}}"#;
    let said: Value = serde_json::from_str(&say::json_line(line)).unwrap();
    assert_eq!((said["retry_after_s"].as_f64(), said["kind"].as_str()), (Some(3.0), Some("rate_limited")));
}

#[test]
fn curls_output_is_read_with_all_its_heads() {
    let text =
        b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/2 429 \r\ncontent-type: application/json\r\n\
        retry-after: 9\r\n\r\n{\"error\":{\"code\":429,\"status\":\"RESOURCE_EXHAUSTED\"}}";
    let pasted = read::response(text, None);
    assert_eq!((pasted.status.as_u16(), pasted.headers.len()), (429, 2));
    let said = say::prose(&pasted);
    assert!(said.starts_with("rate_limited: HTTP 429, RESOURCE_EXHAUSTED"), "{said}");
    assert!(said.contains("yes, after 10.000 s at the least"), "{said}");

    let bare = read::response(b"{\"error\":{\"code\":403,\"message\":\"api_key:AIzaSyD-123456789\"}}", None);
    let said = say::prose(&bare);
    assert!(said.starts_with("permission_denied\n"), "{said}");
    assert!(!said.contains("AIzaSyD"), "{said}");
}
