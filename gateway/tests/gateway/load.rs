//! Many calls, an open page, and a history whose file cannot be written to. What a call pays, in real time.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_gemini::sim::Simulator;
use tower_gemini_gateway::history::{History, Record, Settings, Sink};
use tower_gemini_gateway::page::{Live, Page};

use crate::world::{GENERATE, Gate, HELLO};

/// 100,000 a minute.
const EACH: Duration = Duration::from_micros(600);

fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1]
}

fn record(n: u64) -> Record {
    let kind = (n % 10 == 0).then(|| "overloaded".to_owned());
    let steps =
        json!([{ "at": 1, "event": "attempt_failed", "attempt": 1, "kind": "overloaded", "status": 503 }]);
    Record {
        id: 0,
        time: i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap(),
        request_id: format!("r-{n}"),
        client: Some(format!("client-{}", n % 40)),
        project: None,
        model: Some("gemini-3.5-flash-lite".to_owned()),
        answered: None,
        tier: None,
        method: "generateContent".to_owned(),
        stream: false,
        status: Some(if kind.is_some() { 503 } else { 200 }),
        outcome: if kind.is_some() { "failed" } else { "complete" }.to_owned(),
        message: kind.as_ref().map(|_| "This model is currently experiencing high demand.".to_owned()),
        gave_up: None,
        attempts: 1,
        waited: 0,
        first_byte: Some(n % 900),
        latency: n % 1000,
        request_bytes: Some(n % 100_000),
        input_tokens: Some(20),
        cached_tokens: Some(0),
        output_tokens: Some(30),
        thought_tokens: Some(0),
        rate_limited: 0,
        internal: 0,
        steps: if kind.is_some() { steps } else { json!([]) },
        kind,
    }
}

/// The second of each two seconds the file is locked by somebody else, as by a disk that stands still. `LOAD_SECONDS` makes it longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_costs_less_than_a_millisecond_while_the_writer_stands_still() {
    let seconds = std::env::var("LOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(dir.path().join("calls.db"));
    // Smaller than what comes in a second of standstill, so that some are lost.
    settings.queue = 400;
    let history = History::open(&settings).unwrap();
    let live = Arc::new(Live::default());
    let page = Page::new(Arc::clone(&live), Some(history.clone()), || json!({ "in_flight": 0 }));
    let mut events = page.respond(&Request::get("/page/events").body(()).unwrap()).await.into_body();
    let watching = tokio::spawn(async move {
        let mut seen = 0;
        while events.frame().await.is_some() {
            seen += 1;
            let request = Request::get("/page/summary").body(()).unwrap();
            drop(page.respond(&request).await.into_body().collect().await);
        }
        seen
    });
    let file = settings.file.clone();
    let pausing = std::thread::spawn(move || {
        for _ in 0..seconds / 2 {
            std::thread::sleep(Duration::from_secs(1));
            let lock = rusqlite::Connection::open(&file).unwrap();
            lock.busy_timeout(Duration::from_secs(5)).unwrap();
            lock.execute_batch("BEGIN IMMEDIATE").unwrap();
            std::thread::sleep(Duration::from_secs(1));
            lock.execute_batch("ROLLBACK").unwrap();
        }
    });
    let many = seconds * 1_000_000 / EACH.as_micros() as u64;
    let mut times = Vec::new();
    let began = Instant::now();
    for n in 0..many {
        let at = began + EACH * u32::try_from(n).unwrap();
        if at > Instant::now() {
            tokio::time::sleep_until(at.into()).await;
        }
        let record = Arc::new(record(n));
        let before = Instant::now();
        live.record(&record);
        history.record(&record);
        times.push(before.elapsed());
    }
    let took = began.elapsed();
    tokio::task::spawn_blocking(|| pausing.join().unwrap()).await.unwrap();
    assert!(history.flushed(Duration::from_secs(20)).await);
    watching.abort();
    let status = history.status();
    let p99 = percentile(&mut times, 0.99);
    println!(
        "{many} records in {took:.1?}: p50 {:.1?}, p99 {p99:.1?}, most {:.1?}; {} written, {} lost",
        percentile(&mut times, 0.5),
        percentile(&mut times, 1.0),
        status.written,
        status.lost
    );
    let reader = rusqlite::Connection::open(&settings.file).unwrap();
    let rows: i64 = reader.query_row("SELECT count(*) FROM calls", [], |row| row.get(0)).unwrap();
    assert_eq!(
        (status.offered, status.written + status.lost),
        (many, many),
        "each is in the file or counted"
    );
    assert_eq!(rows.unsigned_abs(), status.written);
    assert!(status.lost > 0 && status.written > 0, "it was to be too much: {status:?}");
    assert!(p99 < Duration::from_millis(1), "{p99:?}");
}

/// The same through the gateway, on sockets: calls with a history and an open page against calls without. For a machine with nothing
/// else to do, and in release mode:
///
/// ```text
/// cargo test --release -p tower-gemini-gateway --test gateway -- --ignored --nocapture a_call_with_a_history
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures time, for a quiet machine"]
async fn a_call_with_a_history_and_an_open_page_takes_as_long_as_one_without() {
    let seconds = std::env::var("LOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let simulator = Simulator::builder().head_latency(Duration::ZERO).build().unwrap();
    let server = simulator.serve().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("calls.db");
    let option = format!("--history={}", file.display());
    let mut p99s = Vec::new();
    for with in [false, true, false, true] {
        let options: &[&str] = if with { &[&option, "--log=off"] } else { &["--log=off"] };
        let gate = Gate::to(&server.base_url(), options).await;
        let lock = with.then(|| {
            let mut page = std::net::TcpStream::connect(gate.admin).unwrap();
            std::io::Write::write_all(&mut page, b"GET /page/events HTTP/1.1\r\nhost: gate\r\n\r\n").unwrap();
            // Locked from beginning to end: the writer can do nothing.
            let lock = rusqlite::Connection::open(&file).unwrap();
            lock.execute_batch("BEGIN IMMEDIATE").unwrap();
            std::thread::spawn(move || drop(std::io::copy(&mut page, &mut std::io::sink())));
            lock
        });
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let addr = gate.addr;
                tokio::spawn(async move {
                    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let request = format!(
                        "POST {GENERATE} HTTP/1.1\r\nhost: gate\r\ncontent-length: {}\r\n\r\n{HELLO}",
                        HELLO.len()
                    );
                    let (mut times, began) = (Vec::new(), Instant::now());
                    while began.elapsed() < Duration::from_secs(seconds) {
                        let at = began + EACH * 8 * u32::try_from(times.len()).unwrap();
                        tokio::time::sleep_until(at.into()).await;
                        let before = Instant::now();
                        stream.write_all(request.as_bytes()).await.unwrap();
                        let mut read = Vec::new();
                        while !ends(&read) {
                            assert!(stream.read_buf(&mut read).await.unwrap() > 0);
                        }
                        times.push(before.elapsed());
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::new();
        for worker in workers {
            times.extend(worker.await.unwrap());
        }
        drop(lock);
        let lost = if with {
            let now: Value = serde_json::from_slice(&gate.page("/page/now").await.body).unwrap();
            now["history"].to_string()
        } else {
            "no history".to_owned()
        };
        let p99 = percentile(&mut times, 0.99);
        println!(
            "{} calls, {:.0} a minute: p50 {:.2?}, p99 {p99:.2?}, most {:.2?}; {lost}",
            times.len(),
            times.len() as f64 * 60.0 / seconds as f64,
            percentile(&mut times, 0.5),
            percentile(&mut times, 1.0),
        );
        p99s.push(p99);
        gate.stop().await;
    }
    let (without, with) = (p99s[0].max(p99s[2]), p99s[1].min(p99s[3]));
    assert!(with < without + Duration::from_millis(1), "{with:?} against {without:?}");
}

/// Whether an answer with a length is there.
fn ends(read: &[u8]) -> bool {
    let text = String::from_utf8_lossy(read);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    match length {
        Some(length) => body.len() >= length.parse().unwrap(),
        None => body.ends_with("0\r\n\r\n"),
    }
}
