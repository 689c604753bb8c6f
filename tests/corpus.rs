//! The verdicts over a file of recorded error bodies, named by `GEMINI_ERROR_CORPUS`; without it the test says
//! so and passes. The project's own fixtures are in `tests/verdicts.rs`.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tower_gemini::Verdict;
use tower_gemini::verdict::Retryability;

#[test]
fn every_uncontested_entry_is_judged_right() {
    let Ok(path) = std::env::var("GEMINI_ERROR_CORPUS") else {
        println!("skipped: GEMINI_ERROR_CORPUS names no file");
        return;
    };
    let corpus = std::fs::read_to_string(&path).expect("GEMINI_ERROR_CORPUS names a readable file");
    let (mut right, mut contested, mut wrong) = (0, Vec::new(), Vec::new());
    for line in corpus.lines() {
        let entry: Value = serde_json::from_str(line).expect("a line of JSON");
        let faults = faults(&entry);
        let id = entry["id"].as_str().unwrap_or("?");
        match (faults.is_empty(), entry["judgement"] == "contested") {
            (true, _) => right += 1,
            (false, true) => contested.push(format!("{id}: {}", faults.join("; "))),
            (false, false) => wrong.push(format!("{id}: {}", faults.join("; "))),
        }
    }
    println!("{right} right, {} contested and judged otherwise:\n{}", contested.len(), contested.join("\n"));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn faults(entry: &Value) -> Vec<String> {
    let status = StatusCode::from_u16(entry["status"].as_u64().expect("a status") as u16).expect("a status");
    let body = Bytes::from(entry["body"].as_str().expect("a body").to_owned());
    let verdict = Verdict::from_parts(status, &HeaderMap::new(), body);
    let expect = &entry["expect"];
    let mut faults = Vec::new();
    let mut check = |what: &str, said: Option<String>, wanted: &Value| {
        let wanted = wanted.as_str().map(String::from);
        let same = match (&said, &wanted) {
            (Some(s), Some(w)) if w == "truncated/empty" => s == "truncated" || s == "empty_response",
            _ => said == wanted,
        };
        if !same {
            faults.push(format!("{what}: said {said:?}, wanted {wanted:?}"));
        }
    };
    check("kind", verdict.kind().map(|k| k.to_string()), &expect["kind"]);
    check("grpc_status", verdict.grpc_code().map(|c| c.to_string()), &expect["grpc_status"]);
    check("reason", verdict.reason().map(String::from), &expect["reason"]);
    check("model", verdict.model().map(String::from), &expect["model"]);
    let delay = verdict.server_delay().map(|d| d.declared().as_secs_f64());
    let retryable = verdict.retryability() != Retryability::Never
        && !verdict.after_output()
        && delay.unwrap_or(0.0) <= 60.0;
    if Some(retryable) != expect["retryable"].as_bool() {
        faults.push(format!("retryable: said {retryable}"));
    }
    let near = match (delay, expect["retry_after_s"].as_f64()) {
        (Some(said), Some(wanted)) => (wanted - 0.001..=wanted + 2.0).contains(&said),
        (said, wanted) => said.is_none() && wanted.is_none(),
    };
    if !near {
        faults.push(format!("retry_after_s: said {delay:?}, wanted {}", expect["retry_after_s"]));
    }
    let ids = |ids: &mut Vec<String>| {
        ids.sort();
        ids.join(",")
    };
    let said = ids(&mut verdict
        .quota()
        .iter()
        .map(|v| format!("{:?}/{:?}/{}/{}", v.id(), v.metric(), v.dimension(), v.period()))
        .collect());
    let wanted = ids(&mut expect["quota"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|v| {
            format!(
                "{:?}/{:?}/{}/{}",
                v["id"].as_str(),
                v["metric"].as_str(),
                v["dimension"].as_str().unwrap_or("-"),
                v["period"].as_str().unwrap_or("-")
            )
        })
        .collect());
    if said != wanted {
        faults.push(format!("quota: said {said}, wanted {wanted}"));
    }
    faults
}
