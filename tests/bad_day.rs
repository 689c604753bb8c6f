//! The bad_day example: its arguments, its report, its secrets, and its way to a real endpoint.
//!
//! The example's sources are compiled into this test, since a test has no portable way to an example's program.
//! The simulator stands in for the endpoint, on a loopback socket and in real time: waits are kept to tenths of a
//! second.
#![cfg(all(feature = "reqwest", feature = "sim"))]
#![allow(clippy::unwrap_used)] // Clippy excuses test functions by itself, but not their helpers.

#[allow(dead_code)] // Its `main`.
#[path = "../examples/bad_day/main.rs"]
mod bad_day;

#[path = "bad_day/arguments.rs"]
mod arguments;
#[path = "bad_day/report.rs"]
mod report;

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use http::StatusCode;
use tower_gemini::Kind;
use tower_gemini::sim::{Fault, Rule, Simulator};

use bad_day::redact::Redacted;
use bad_day::{Terminals, run};

const KEY: &str = "a-key/that+looks=like-none-of-Googles";

/// What a process would have shown.
#[derive(Debug)]
struct Shown {
    code: u8,
    out: String,
    err: String,
}

async fn shown(args: &[&str], key: Option<&str>) -> Shown {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = args.iter().map(OsString::from);
    let code = run(args, key.map(OsString::from), Terminals::default(), &mut out, &mut err).await;
    let shown = Shown { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() };
    for sink in [&shown.out, &shown.err] {
        assert!(key.is_none_or(|key| !sink.contains(key)), "{shown:?}");
        assert!(!sink.contains('\x1b'), "{shown:?}");
    }
    shown
}

/// Asks a simulator with these rules.
async fn asked(rules: impl IntoIterator<Item = Rule>, args: &[&str], key: Option<&str>) -> Shown {
    let mut simulator =
        Simulator::builder().head_latency(Duration::from_millis(5)).answer("Hello\x1b[2J there");
    for rule in rules {
        simulator = simulator.rule(rule);
    }
    let simulator = simulator.build().unwrap();
    let server = simulator.serve().await.unwrap();
    let base = server.base_url();
    let mut all = vec!["--base-url", &base];
    all.extend(args);
    shown(&all, key).await
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2_and_help_is_0() {
    let bad = shown(&[&format!("--{KEY}")], Some(KEY)).await;
    assert_eq!((bad.code, &*bad.out), (2, ""));
    assert_eq!(bad.err.lines().count(), 1);
    let help = shown(&["--help"], None).await;
    assert_eq!((help.code, &*help.err), (0, ""));
    assert!(help.out.lines().all(|line| line.chars().count() <= 80));
}

// ===== The key =====

#[test]
fn the_key_is_replaced_however_the_text_is_cut() {
    let text = format!("{KEY}, and a-key/that+loo{KEY}{KEY}. a-key");
    let wanted = "[key], and a-key/that+loo[key][key]. a-key";
    for size in 1..=text.len() {
        let mut shown = Vec::new();
        let mut sink = Redacted::new(&mut shown, KEY);
        for piece in text.as_bytes().chunks(size) {
            sink.write_all(piece).unwrap();
            sink.flush().unwrap();
        }
        sink.finish().unwrap();
        assert_eq!(String::from_utf8(shown).unwrap(), wanted, "in pieces of {size}");
    }
}

#[tokio::test]
async fn an_echoed_key_is_not_shown() {
    let suspended = asked([Fault::consumer_suspended().into()], &["hi"], Some(KEY)).await;
    assert_eq!((suspended.code, &*suspended.out), (1, ""));
    assert!(suspended.err.contains("permission_denied"), "{suspended:?}");
    // In an answer, whole and in pieces, and in the prompt that the simulator echoes.
    let simulator = Simulator::builder().chunks(20).chunk_interval(Duration::ZERO).build().unwrap();
    let server = simulator.serve().await.unwrap();
    for flag in ["--attempts=2", "--stream"] {
        let echoed = shown(&["--base-url", &server.base_url(), flag, "say", KEY], Some(KEY)).await;
        assert_eq!((echoed.code, &*echoed.out), (0, "Echo: say [key]\n"));
    }
}

// ===== The way to an endpoint =====

#[tokio::test]
async fn an_answer_is_printed_and_summed_up() {
    for (args, key) in [(&["hi"][..], None), (&["--stream", "hi"], None), (&["hi"], Some(KEY))] {
        let good = asked([], args, key).await;
        assert_eq!((good.code, &*good.out), (0, "Hello[2J there\n"), "without the escape");
        assert!(good.err.starts_with("gemini-3.5-flash-lite: 1 attempt, 1 tokens in, "), "{good:?}");
        assert_eq!(good.err.lines().count(), 1);
    }
}

#[tokio::test]
async fn a_wait_is_told_while_it_lasts_and_then_there_is_an_answer() {
    let short = Fault::rate_limited().with_retry_in(Duration::from_millis(150));
    // The server's time is obeyed, and the own backoff, up to a second, on top.
    let recovered = asked([Rule::new(short).times(1)], &["hi"], Some(KEY)).await;
    assert_eq!(recovered.code, 0);
    let lines: Vec<_> = recovered.err.lines().collect();
    assert!(lines[0].starts_with("attempt 1: rate_limited, waiting "), "{recovered:?}");
    assert!(lines[0].ends_with(" s (server)…"), "{recovered:?}");
    assert!(lines[1].contains(": 2 attempts, "), "{recovered:?}");
}

#[tokio::test]
async fn each_failure_is_one_sentence_with_remedy_and_link() {
    let page = || Fault::response(StatusCode::OK, "text/html", "<html>a captive portal</html>");
    let moved = || Fault::response(StatusCode::FOUND, "text/html", "moved");
    let once = "--attempts=1";
    for (rule, args, kind) in [
        (Fault::daily_quota_exhausted(), &["hi"][..], Kind::QuotaExhausted),
        (Fault::api_key_invalid(), &["hi"], Kind::ApiKeyInvalid),
        (Fault::key_leaked(), &["hi"], Kind::KeyLeaked),
        (Fault::blocked_prompt(), &["hi"], Kind::ContentBlocked),
        (Fault::blocked_prompt(), &["--stream", "hi"], Kind::ContentBlocked),
        (Fault::blocked_answer(), &["hi"], Kind::ContentBlocked),
        (Fault::empty_answer(), &["hi"], Kind::EmptyResponse),
        (Fault::empty_answer(), &["--stream", "hi"], Kind::EmptyResponse),
        (Fault::overloaded(), &[once, "hi"], Kind::Overloaded),
        (Fault::overloaded().in_stream_after(2), &["--stream", "hi"], Kind::Overloaded),
        (Fault::overloaded().as_stream_tail_after(2), &["--stream", "hi"], Kind::Overloaded),
        (Fault::cut_stream_after(2), &["--stream", "hi"], Kind::Truncated),
        (Fault::reset_after_bytes(30), &["hi"], Kind::Transport),
        (Fault::reset_before_head(), &[once, "hi"], Kind::Transport),
        (Fault::bad_gateway_html(), &[once, "hi"], Kind::Unavailable),
        (Fault::stalled(Duration::from_secs(9)), &["--deadline", "0.2", "hi"], Kind::DeadlineExceeded),
        (page(), &["hi"], Kind::Unknown),
        (moved(), &["hi"], Kind::Unknown),
    ] {
        let name = rule.name();
        let failed = asked([rule.into()], args, Some(KEY)).await;
        assert_eq!(failed.code, 1, "{name}: {failed:?}");
        assert_eq!(failed.err.lines().count(), 1, "{name}: {failed:?}");
        assert!(failed.err.starts_with("error"), "{name}: {failed:?}");
        for part in [kind.remedy(), kind.docs()] {
            assert!(failed.err.contains(part), "{name}: {failed:?}");
        }
    }
}

#[tokio::test]
async fn a_wrong_key_no_key_and_a_wrong_model_are_told_apart() {
    let simulator = Simulator::builder().valid_key("another").build().unwrap();
    let server = simulator.serve().await.unwrap();
    let base = server.base_url();
    let wrong = shown(&["--base-url", &base, "hi"], Some(KEY)).await;
    assert!(wrong.code == 1 && wrong.err.contains("api_key_invalid (HTTP 400)"), "{wrong:?}");
    let none = shown(&["--base-url", &base, "hi"], None).await;
    assert!(none.code == 1 && none.err.contains("(HTTP 403)"), "{none:?}");
    let model = shown(&["--base-url", &base, "--model", "gemini-9", "hi"], Some("another")).await;
    assert!(model.code == 1 && model.err.contains("not_found (HTTP 404)"), "{model:?}");
    assert_eq!(simulator.call_count(), 3, "none was repeated");
}

#[tokio::test]
async fn a_refused_connection_is_a_sentence() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let refused = shown(&["--base-url", &base, "--attempts", "1", "hi"], Some(KEY)).await;
    assert_eq!((refused.code, refused.err.lines().count()), (1, 1), "{refused:?}");
    assert!(refused.err.contains("refused") && refused.err.contains(Kind::Transport.remedy()), "{refused:?}");
}

#[tokio::test]
async fn a_base_url_may_have_a_path_and_a_version() {
    let simulator = Simulator::new();
    let server = simulator.serve().await.unwrap();
    for end in ["", "/", "/v1", "/v1beta/"] {
        let base = format!("{}{end}", server.base_url());
        assert_eq!(shown(&["--base-url", &base, "hi"], None).await.code, 0, "{end}");
    }
}
