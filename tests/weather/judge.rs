//! The judge: what is harm and what is luck.

use crate::storm::policies::POLICIES;
use crate::storm::run::{Cell, Contender};
use crate::storm::scenario::Scenario;
use crate::storm::stack::Variant;
use crate::storm::weather::judge::{Day, plain};

fn live(text: &str) -> Day {
    let scenario = Scenario::parse("day", text).unwrap();
    let policy = |name: &str| Contender::Policy(POLICIES.iter().find(|policy| policy.name == name).unwrap());
    let contenders = [
        Contender::Stack(Variant::All),
        Contender::Stack(Variant::RetryOnly),
        policy("no-retry"),
        policy("google-genai-gcra"),
        policy("hint-for-ever"),
    ];
    Day::live(&Cell { scenario: &scenario, processes: 1 }, &contenders, 1)
}

#[test]
fn plain_clients_make_at_most_five_attempts() {
    let names: Vec<_> = plain().iter().map(|contender| contender.name()).collect();
    for patient in ["gemini-cli", "full-jitter-for-ever", "hint-for-ever", "finagle", "ours"] {
        assert!(!names.contains(&patient), "{patient}");
    }
    for known in ["no-retry", "google-genai", "tower", "tower-resilience", "retry-only"] {
        assert!(names.contains(&known), "{known}");
    }
}

#[test]
fn a_day_on_which_all_is_well_has_no_harm_and_no_delay() {
    let day = live(
        r#"{"title": "t", "load": {"per_second": 2, "for": 300}, "server": {"paired": true}, "deadline": 60}"#,
    );
    let verdict = day.verdict.as_ref().unwrap();
    assert_eq!((verdict.served, verdict.harm, verdict.sure_harm, verdict.gain), (1.0, 0.0, 0.0, 0.0));
    assert_eq!(verdict.delay, Some(1.0));
    assert!(day.rows.iter().all(|row| (day.score(row) - 1.0).abs() < 1e-9));
    assert!(day.causes().is_none());
}

#[test]
fn the_requests_of_a_tenant_that_does_not_count_are_not_counted() {
    let text = r#"{"title": "t", "load": {"per_second": 2, "for": 300, "tenants": [1, 1], "uncounted": 0},
        "server": {"paired": true, "troubles": [{"fault": "500", "tenant": 0}]}, "deadline": 60}"#;
    let day = live(text);
    assert_eq!(day.row("no-retry").unwrap().served, 1.0);
    assert!((200..400).contains(&day.requests), "about half of 600: {}", day.requests);
    let all = live(&text.replace(r#", "uncounted": 0"#, ""));
    assert!(all.row("no-retry").unwrap().served < 0.6);
}

#[test]
fn who_is_told_less_than_the_truth_is_measured_by_those_who_obey() {
    let day = live(
        r#"{"title": "t", "load": {"per_second": 1, "for": 600}, "deadline": 60, "told": {"rpm": 30},
        "server": {"paired": true, "quota": {"rpm": 120}}}"#,
    );
    assert!(day.row("no-retry").unwrap().served > 0.99, "the quota is wide enough");
    let verdict = day.verdict.unwrap();
    assert!(verdict.served < 0.7, "half of the load is allowed");
    assert_eq!(verdict.best.0, "google-genai-gcra");
}
