//! What is printed of a run, from given numbers.

use std::time::Duration;

use tower_gemini::Kind;

use super::bad_day::progress::{Status, bar, line};
use super::bad_day::record::{Failed, Failure, Phase, Request, Run, Seen, Wait};
use super::bad_day::report::{self, Style, percentile, wrap};
use super::bad_day::timeline::{self, blocks};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A run in which everything happened, in large numbers.
fn a_run(planned: usize) -> Run {
    let failure =
        |kind, in_body| Some(Failed { kind, why: "part of the answer had been delivered", in_body });
    let request = |n: usize| Request {
        ended: ms(n as u64 * 13),
        latency: ms(n as u64 % 3_000),
        attempts: 1 + u32::from(n % 3 == 0),
        absorbed: if n % 3 == 0 { vec![Kind::ALL[n / 3 % Kind::ALL.len()]] } else { Vec::new() },
        failure: if n % 50 == 1 { failure(Kind::ALL[n / 50 % Kind::ALL.len()], n % 100 == 1) } else { None },
    };
    let failed =
        |n: usize| Failure { at: ms(n as u64 * 39), kind: Kind::ALL[n % Kind::ALL.len()], first: n % 2 == 0 };
    let wait = |n: usize| Wait { at: ms(n as u64 * 39), wait: ms(70_000), named_by_server: n % 2 == 0 };
    Run {
        planned,
        requests: (0..planned).map(request).collect(),
        seen: Seen {
            failures: (0..planned / 3).map(failed).collect(),
            waits: (0..planned / 3).map(wait).collect(),
            spared: Vec::new(),
        },
        calls: (0..planned).map(|n| format!("no answer {}", Kind::ALL[n % Kind::ALL.len()])).collect(),
        phases: vec![Phase { sign: '1', from: 0, to: 5_000, refuses: false, what: "bad weather" }],
        took: ms(planned as u64 * 13),
    }
}

fn rendered(run: &Run, color: bool) -> String {
    let mut out = Vec::new();
    report::write(run, Style { color }, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_report_keeps_to_80_columns_and_colors_only_when_asked() {
    for planned in [0, 1, 120, 20_000] {
        let plain = rendered(&a_run(planned), false);
        assert!(!plain.contains('\x1b'));
        for line in plain.lines() {
            assert!(line.chars().count() <= report::WIDTH, "{planned}: {line}");
            assert_eq!(line, line.trim_end());
        }
    }
    let colored = rendered(&a_run(120), true);
    assert!(
        colored.contains("\x1b[1m")
            && colored.matches("\x1b[0m").count() * 2 == colored.matches('\x1b').count()
    );
}

#[test]
fn the_closing_sentence_counts_first_attempts() {
    let mut run = a_run(0);
    run.requests = vec![
        Request { ended: ms(1), latency: ms(1), attempts: 1, absorbed: vec![], failure: None },
        Request {
            ended: ms(1),
            latency: ms(1),
            attempts: 3,
            absorbed: vec![Kind::Internal; 2],
            failure: None,
        },
        Request {
            ended: ms(1),
            latency: ms(1),
            attempts: 1,
            absorbed: vec![],
            failure: Some(Failed { kind: Kind::Truncated, why: "it broke off", in_body: true }),
        },
    ];
    let failed = |first| Failure { at: ms(1), kind: Kind::Internal, first };
    run.seen.failures = vec![failed(true), failed(false)];
    assert_eq!(run.failed_at_first(), 2, "one at the head, one in the body; a second failure is no first");
    assert!(
        report::closing(&run).starts_with("3 requests, 2 answered: without the layers 2 would have failed")
    );
    assert!(run.surprises().is_empty());
    run.planned = 4;
    assert_eq!(run.surprises(), ["1 requests never ended"]);
}

#[test]
fn small_pieces_of_the_report() {
    assert_eq!(blocks(&[0, 1, 4, 8], 8), "·▁▄█");
    assert_eq!(blocks(&[0, 1], 1), "·█");
    assert_eq!(wrap("aa bb ccccc d", 5), ["aa bb", "ccccc", "d"]);
    let times: Vec<_> = (1..=100).map(ms).collect();
    assert_eq!([50, 95, 100].map(|p| percentile(&times, p)), [ms(50), ms(95), ms(100)]);
    assert_eq!(percentile(&[], 95), Duration::ZERO);
    let rows = timeline::rows(&a_run(120));
    assert!(rows[0].starts_with("what goes wrong     1111"), "{rows:?}");
}

#[test]
fn the_progress_fits_a_terminal() {
    for kind in Kind::ALL {
        let status = Status {
            elapsed: ms(99_900),
            done: 120,
            planned: 120,
            in_flight: 99,
            retries: 999,
            last: Some(*kind),
        };
        assert!(bar(&status).chars().count() < 80 && line(&status).chars().count() < 80, "{kind}");
    }
}
