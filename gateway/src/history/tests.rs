//! A process that is killed and a file that is locked take real time.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::json;

use super::csv::quoted;
use super::*;

fn record(n: u64) -> Record {
    Record {
        id: 0,
        time: Timestamp::now().as_millisecond(),
        request_id: format!("r-{n}"),
        client: Some(format!("client-{}", n % 3)),
        project: None,
        model: Some("gemini-3.5-flash-lite".to_owned()),
        answered: None,
        tier: None,
        method: "generateContent".to_owned(),
        stream: false,
        status: Some(200),
        outcome: "complete".to_owned(),
        kind: None,
        message: None,
        gave_up: None,
        attempts: 1,
        waited: 0,
        first_byte: Some(4),
        latency: 5,
        request_bytes: Some(50),
        input_tokens: Some(2),
        cached_tokens: Some(0),
        output_tokens: Some(3),
        thought_tokens: Some(0),
        rate_limited: 0,
        internal: 0,
        steps: json!([]),
    }
}

fn failed(n: u64, status: u16, kind: &str) -> Record {
    Record {
        status: Some(status),
        outcome: "failed".to_owned(),
        kind: Some(kind.to_owned()),
        message: Some("no".to_owned()),
        attempts: 2,
        waited: 40,
        rate_limited: if status == 429 { 2 } else { 0 },
        internal: if status == 500 { 2 } else { 0 },
        input_tokens: None,
        output_tokens: None,
        steps: json!([{ "at": 1, "event": "attempt_failed" }]),
        ..record(n)
    }
}

struct Here {
    _dir: tempfile::TempDir,
    settings: Settings,
}

fn here() -> Here {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings::new(dir.path().join("calls.db"));
    Here { _dir: dir, settings }
}

fn rows(file: &Path) -> u64 {
    let connection = Connection::open(file).unwrap();
    let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    connection.query_row("SELECT count(*) FROM calls", [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
}

const ALL: Filter = Filter { since: 0, client: None, model: None, kind: None, shown: Shown::All };

#[tokio::test]
async fn what_is_recorded_is_read_again_and_summed_up() {
    let here = here();
    let history = History::open(&here.settings).unwrap();
    let records: Vec<Record> = (0..30)
        .map(|n| match n {
            0..4 => failed(n * 3, 429, "rate_limited"),
            4 => failed(1, 429, "rate_limited"),
            5 => Record { request_bytes: Some(250_000), ..failed(2, 500, "internal") },
            6 => Record { attempts: 2, rate_limited: 1, ..record(6) },
            7 => Record { outcome: "dropped".to_owned(), status: None, client: None, ..record(7) },
            n => record(n),
        })
        .collect();
    records.iter().for_each(|record| history.record(&Arc::new(record.clone())));
    assert!(history.flushed(Duration::from_secs(5)).await);
    let reader = history.reader();
    let mut read = reader.calls(&ALL, None, 100).unwrap();
    read.reverse();
    for (n, (read, record)) in read.iter().zip(&records).enumerate() {
        assert_eq!(*read, Record { id: n as i64 + 1, ..record.clone() });
    }
    let newer = reader.calls(&ALL, None, 7).unwrap();
    let older = reader.calls(&ALL, newer.last().map(|call| call.id), 100).unwrap();
    assert_eq!((newer.len(), older.len()), (7, 23));
    let summary = reader.summary(&ALL).unwrap();
    assert_eq!(
        (summary.calls, summary.failed, summary.recovered, summary.dropped, summary.attempts),
        (30, 6, 1, 1, 37)
    );
    assert_eq!((summary.input_tokens, summary.output_tokens), (48, 72));
    let kinds: Vec<_> = summary.kinds.iter().map(|kind| (&*kind.name, kind.failed)).collect();
    assert_eq!(kinds, [("rate_limited", 5), ("internal", 1)]);
    let most: Vec<_> =
        summary.most.iter().map(|most| (&*most.kind, &*most.client, most.failed, most.of)).collect();
    assert_eq!(most, [("rate_limited", "client-0", 4, 5), ("internal", "client-2", 1, 1)]);
    assert_eq!(summary.hours.iter().map(|[_, refused]| refused).sum::<u64>(), 11);
    assert_eq!(summary.hours.iter().map(|[calls, _]| calls).sum::<u64>(), 30);
    let large = summary.sizes.iter().find(|size| size.internal > 0).unwrap();
    assert_eq!((large.name, large.calls, large.internal), ("100 kB to 1 MB", 1, 2));
    assert!(
        summary.clients.iter().any(|client| client.name.is_empty() && client.calls == 1),
        "without a name"
    );
    let of = |client: &str| Filter { client: Some(client.to_owned()), ..ALL };
    assert_eq!(reader.summary(&of("client-1")).unwrap().failed, 1);
    assert_eq!(reader.calls(&of("client-1"), None, 100).unwrap().len(), 8);
    assert_eq!(reader.summary(&of("' OR 1=1 --")).unwrap().calls, 0);
    let troubled = Filter { shown: Shown::Troubled, ..ALL };
    assert_eq!(reader.calls(&troubled, None, 100).unwrap().len(), 7);
    // The condition in Rust is the one in SQL.
    for filter in [of("client-1"), of(""), troubled, Filter { kind: Some("internal".to_owned()), ..ALL }] {
        let by_hand = records.iter().filter(|record| filter.is(record)).count();
        assert_eq!(reader.calls(&filter, None, 100).unwrap().len(), by_hand, "{filter:?}");
    }
    assert_eq!(reader.summary(&Filter { since: i64::MAX, ..ALL }).unwrap().calls, 0);
}

/// The writer stands still while another process holds the file. No call waits for it, and every record is in the file or counted.
#[tokio::test]
async fn a_locked_file_stops_no_call_and_each_lost_record_is_counted() {
    let mut here = here();
    here.settings.queue = 1000;
    let history = History::open(&here.settings).unwrap();
    let lock = Connection::open(&here.settings.file).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut slowest = Duration::ZERO;
    for n in 0..10_000 {
        let record = Arc::new(record(n));
        let began = Instant::now();
        history.record(&record);
        slowest = slowest.max(began.elapsed());
    }
    let status = history.status();
    assert_eq!((status.offered, status.written), (10_000, 0));
    // One batch is in the writer's hands at most.
    assert!(status.lost >= 10_000 - 1000 - BATCH as u64 && status.queued() >= 1000, "{status:?}");
    assert!(!history.flushed(Duration::from_millis(50)).await);
    lock.execute_batch("ROLLBACK").unwrap();
    assert!(history.flushed(Duration::from_secs(10)).await);
    let status = history.status();
    assert_eq!((status.written + status.lost, status.queued(), &status.error), (10_000, 0, &None));
    assert_eq!(rows(&here.settings.file), status.written);
    assert!(slowest < Duration::from_millis(500), "one of 10,000 took {slowest:?}");
}

#[tokio::test]
async fn size_and_age_are_bounded_and_the_oldest_go_first() {
    let mut here = here();
    here.settings.max_bytes = LEAST;
    let history = History::open(&here.settings).unwrap();
    for n in 0..20_000 {
        history.record(&Arc::new(Record { message: Some("x".repeat(300)), ..failed(n, 503, "unavailable") }));
        if n % 500 == 0 {
            assert!(history.flushed(Duration::from_secs(5)).await);
            assert!(history.status().bytes <= LEAST, "{:?}", history.status());
        }
    }
    assert!(history.flushed(Duration::from_secs(5)).await);
    assert_eq!((history.status().lost, history.status().written), (0, 20_000));
    let size = std::fs::metadata(&here.settings.file).unwrap().len();
    assert!(size <= LEAST + LEAST / 2, "{size}");
    let left = history.reader().calls(&ALL, None, 100_000).unwrap();
    assert!(left.len() > 400 && left[0].request_id == "r-19999", "{}", left.len());
    assert!(left.windows(2).all(|two| two[0].id == two[1].id + 1), "no gap");
    drop(history);

    here.settings.max_age = Duration::from_secs(3600);
    let history = History::open(&here.settings).unwrap();
    let young = Timestamp::now().as_millisecond();
    for n in 0..10 {
        history.record(&Arc::new(Record { time: young - 3_590_000 - n * 2000, ..record(0) }));
    }
    assert!(history.flushed(Duration::from_secs(5)).await);
    // What is too old is removed with the next batch, or a second later.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let oldest = Filter { shown: Shown::All, ..ALL };
    let calls = history.reader().calls(&oldest, None, 100_000).unwrap();
    let now = Timestamp::now().as_millisecond();
    assert!(calls.iter().all(|call| call.time > now - 3_603_000), "an old one is left");
}

const LEAST: u64 = 1 << 20;

#[test]
fn a_file_of_somebody_else_is_refused_and_left_as_it_is() {
    let here = here();
    let file = &here.settings.file;
    std::fs::write(file, "no database, but a text of mine\n".repeat(100)).unwrap();
    let why = History::open(&here.settings).unwrap_err();
    assert!(why.contains("calls.db") && why.contains("not a database"), "{why}");
    assert!(std::fs::read_to_string(file).unwrap().starts_with("no database"));
    std::fs::remove_file(file).unwrap();
    let other = Connection::open(file).unwrap();
    other.execute_batch("CREATE TABLE mine (a)").unwrap();
    assert!(History::open(&here.settings).unwrap_err().ends_with("is a file of another program"));
    drop(other);
    std::fs::remove_file(file).unwrap();
    drop(History::open(&here.settings).unwrap());
    Connection::open(file).unwrap().execute_batch("PRAGMA user_version = 9").unwrap();
    assert!(History::open(&here.settings).unwrap_err().contains("has version 9"));
    let nowhere = Settings::new("/no/such/place/calls.db");
    assert!(History::open(&nowhere).unwrap_err().contains("cannot be opened"));
    let small = Settings { max_bytes: 1, ..here.settings.clone() };
    assert!(History::open(&small).unwrap_err().contains("max_bytes must be at least"));
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let here = here();
    let history = History::open(&here.settings).unwrap();
    history.record(&Arc::new(record(1)));
    for end in ["", "-wal"] {
        let file = format!("{}{end}", here.settings.file.display());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
}

/// The process that [`a_killed_process_leaves_all_but_the_last_second`] kills.
#[test]
#[ignore = "is run by another test, as a process of its own"]
fn record_until_killed() {
    let Some(file) = std::env::var_os("HISTORY_FILE") else { return };
    let history = History::open(&Settings::new(file)).unwrap();
    let began = Instant::now();
    for n in 0.. {
        // 100,000 a minute.
        std::thread::sleep(
            (began + n * Duration::from_micros(600)).saturating_duration_since(Instant::now()),
        );
        history.record(&Arc::new(record(u64::from(n))));
        if n % 50 == 0 {
            println!("recorded {n}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_killed_process_leaves_all_but_the_last_second() {
    let here = here();
    for after in [700, 1500, 2300] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "history::tests::record_until_killed", "--nocapture"])
            .env("HISTORY_FILE", &here.settings.file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut told = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.find(|line| line.as_ref().unwrap().contains("recorded 0")).unwrap().unwrap();
        assert!(first.contains("recorded 0"));
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(after) {
            let line = lines.next().unwrap().unwrap();
            told.push((Instant::now(), line.strip_prefix("recorded ").unwrap().parse::<u64>().unwrap()));
        }
        // SIGKILL.
        child.kill().unwrap();
        let killed = Instant::now();
        child.wait().unwrap();
        let by_then =
            told.iter().filter(|(at, _)| killed - *at >= Duration::from_secs(1)).map(|(_, n)| *n).max();
        // Opened as any start does.
        let history = History::open(&here.settings).unwrap();
        let last = history
            .reader()
            .calls(&ALL, None, 1)
            .unwrap()
            .first()
            .map_or(0, |call| call.request_id.strip_prefix("r-").unwrap().parse().unwrap());
        drop(history);
        assert!(last >= by_then.unwrap_or(0), "{last} of {by_then:?}");
        assert!(after < 1500 || last > 0, "nothing was written in {after} ms");
        let rows_of_run = Connection::open(&here.settings.file).unwrap();
        let many: i64 = rows_of_run
            .query_row(
                "SELECT count(*) FROM calls WHERE id > (SELECT max(id) FROM calls) - ?1 - 1",
                [last as i64],
                |r| r.get(0),
            )
            .unwrap();
        assert_eq!(many as u64, last + 1, "no gap before the last");
        rows(&here.settings.file);
    }
}

#[test]
fn odd_texts_are_quoted_and_formulas_are_none() {
    for (text, field) in [
        ("plain", "plain"),
        ("", ""),
        ("a,b", "\"a,b\""),
        ("say \"hi\"", "\"say \"\"hi\"\"\""),
        ("two\r\nlines", "\"two\r\nlines\""),
        ("=1+1", "\"'=1+1\""),
        ("+49", "\"'+49\""),
        ("-2", "\"'-2\""),
        ("@SUM(A1)", "\"'@SUM(A1)\""),
        ("\t=1", "\"'\t=1\""),
        (" =1", "\"' =1\""),
        ("\u{feff}=1", "\"'\u{feff}=1\""),
        ("＝1", "\"'＝1\""),
        ("a;b", "\"a;b\""),
    ] {
        assert_eq!(quoted(text), field, "{text:?}");
    }
    let mut text = String::new();
    line(&record(1), &mut text);
    assert_eq!(text.matches(',').count(), HEADER.matches(',').count());
    assert!(text.ends_with("\r\n"));
}

proptest! {
    #[test]
    fn whatever_the_text_the_reader_gets_it_back(texts in prop::array::uniform3(".*")) {
        let all: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
        // A reader of RFC 4180.
        let (mut fields, mut field, mut inside) = (Vec::new(), String::new(), false);
        let joined = all.join(",");
        let mut chars = joined.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' if inside && chars.peek() == Some(&'"') => field.push(chars.next().unwrap()),
                '"' => inside = !inside,
                ',' if !inside => fields.push(std::mem::take(&mut field)),
                c => field.push(c),
            }
        }
        fields.push(field);
        prop_assert!(!inside);
        for (text, field) in texts.iter().zip(&fields) {
            prop_assert!(!field.starts_with(['=', '+', '-', '@', '\t', '\r']));
            prop_assert_eq!(field.strip_prefix('\'').filter(|_| !text.starts_with('\'')).unwrap_or(field), text.replace('\0', "\u{fffd}"));
        }
        prop_assert_eq!(fields.len(), 3);
    }
}

/// An hour at 100,000 calls a minute would be six million rows; the sums are a few thousand.
#[tokio::test]
#[ignore = "writes 300,000 records"]
async fn a_summary_does_not_read_each_call() {
    let here = here();
    let history = History::open(&here.settings).unwrap();
    for n in 0..300_000 {
        let record = if n % 10 == 0 { failed(n, 503, "overloaded") } else { record(n) };
        history.record(&Arc::new(Record { time: record.time - (n % 60) as i64 * 60_000, ..record }));
        if n % 4000 == 0 {
            assert!(history.flushed(Duration::from_secs(10)).await);
        }
    }
    assert!(history.flushed(Duration::from_secs(10)).await);
    let began = Instant::now();
    let summary = history.reader().summary(&ALL).unwrap();
    let took = began.elapsed();
    println!("{} calls summed up in {took:.1?}, {} bytes", summary.calls, history.status().bytes);
    assert_eq!((summary.calls, summary.failed), (300_000, 30_000));
    let began = Instant::now();
    assert_eq!(
        history.reader().calls(&Filter { shown: Shown::Failed, ..ALL }, None, 100).unwrap().len(),
        100
    );
    println!("the newest hundred found in {:.1?}", began.elapsed());
    assert!(took < Duration::from_millis(500), "{took:?}");
}
