//! What a call costs in instructions, which repeat where times do not.
//!
//! `cargo bench --bench instructions --all-features` runs each of its rows under valgrind's callgrind, twice, with
//! a different number of calls, and shares the difference of the two counts out among the calls between. It does so
//! three times, and prints the least and by how much the most is above it: maps are seeded anew in each process, so
//! a hash may fall otherwise. Only the calls are counted: the requests are made before, and what the first thousand
//! calls set up is none of it. The rows are those of `--bench overhead`; words behind `--` choose those whose names
//! hold one of them, and `--once` counts each once. What the kernel does is not counted; under
//! valgrind that includes reading the clock.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a bench")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use http::Request;
use tower::Service;

#[path = "../tests/support/measured.rs"]
mod measured;

mod floors;
mod rows;
use floors::{Body, one};

/// The rows, each with the one that it is compared with.
const MAIN: &[(&str, &str)] = &[
    (BARE, BARE),
    (BARE_READ, BARE),
    ("a copy of each request", BARE),
    ("classify, 2xx", BARE),
    ("classify, 2xx, watching", BARE),
    ("retry", BARE),
    ("rate limit, requests", BARE),
    ("rate limit, requests and tokens", BARE),
    #[cfg(feature = "fleet")]
    ("rate limit, requests, with a fleet's stock", BARE),
    ("adaptive concurrency, no limit", BARE),
    ("adaptive concurrency, limited", BARE),
    ("breaker, closed", BARE),
    ("breaker, open", BARE),
    ("timeout", BARE),
    ("deadline", BARE),
    ("retry + limit + breaker", BARE),
    ("the whole stack", BARE),
    ("the whole stack, body read", BARE_READ),
    ("answer: bare, ready", "answer: bare, ready"),
    ("answer: stack, ready", "answer: bare, ready"),
    (ANSWER, ANSWER),
    ("answer: classify, watching", ANSWER),
    ("answer: retry", ANSWER),
    ("answer: limit", ANSWER),
    ("answer: concurrency", ANSWER),
    ("answer: breaker", ANSWER),
    ("answer: timeout", ANSWER),
    ("answer: tower's timeout", ANSWER),
    ("answer: deadline", ANSWER),
    ("answer: tier", ANSWER),
    ("answer: retry + limit + breaker", ANSWER),
    ("answer: stack", ANSWER),
    (MODELS, MODELS),
    ("models: retry", MODELS),
    ("models: limit", MODELS),
    ("models: concurrency", MODELS),
    ("models: breaker", MODELS),
    ("models: retry + limit + breaker", MODELS),
    ("models: stack", MODELS),
];
const BARE: &str = "bare service";
const BARE_READ: &str = "bare service, body read";
/// Head and body pending once each.
const ANSWER: &str = "answer: bare";
/// The same, of a thousand models in turn.
const MODELS: &str = "models: bare";

const BEFORE: usize = 1_000;
const CALLS: [usize; 2] = [200, 1_200];
const RUNS: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [mode, name, calls] = &arguments[..] {
        if mode == "count" {
            let mut only = Only { name, calls: calls.parse().unwrap(), found: false };
            // What is pending may have a timer.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _inside = runtime.enter();
            rows::all(&mut only);
            assert!(only.found, "no row has the name {name}");
            return ExitCode::SUCCESS;
        }
    }
    let valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !valgrind.is_ok_and(|status| status.success()) {
        eprintln!(
            "valgrind is not installed, and it is what counts: `apt-get install valgrind`, or your system's."
        );
        return ExitCode::FAILURE;
    }
    let scratch = Scratch::new();
    let mut counted: Vec<(&str, f64)> = Vec::new();
    println!("{:<36} {:>12} {:>10} {:>8}", "row", "instructions", "over bare", "spread");
    let once = arguments.iter().any(|argument| argument == "--once");
    let words: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    for &(name, base) in MAIN {
        if !is_wanted(name) && !MAIN.iter().any(|row| row.1 == name && is_wanted(row.0)) {
            continue;
        }
        let mut runs: Vec<_> = (0..if once { 1 } else { RUNS }).map(|_| per_call(name, &scratch.0)).collect();
        runs.sort_by(f64::total_cmp);
        let (least, spread) = (runs[0], runs[runs.len() - 1] - runs[0]);
        counted.push((name, least));
        let base = counted.iter().find(|row| row.0 == base).expect("a row comes after its base").1;
        println!("{name:<36} {least:>12.0} {:>10.0} {spread:>8.0}", least - base);
    }
    ExitCode::SUCCESS
}

/// Makes the one row, and calls it.
struct Only<'a> {
    name: &'a str,
    calls: usize,
    found: bool,
}

impl rows::Rows for Only<'_> {
    fn of<S>(&mut self, name: &'static str, request: fn(usize) -> Request<Body>, service: impl FnOnce() -> S)
    where
        S: Service<Request<Body>> + Clone + 'static,
    {
        if name == self.name {
            self.found = true;
            let mut service = service();
            (0..BEFORE).for_each(|nth| one(&mut service, request(nth)));
            counted_calls(&mut service, (0..self.calls).map(request).collect());
        }
    }
}

/// NOTE: callgrind is told to count in functions of this name only.
#[inline(never)]
fn counted_calls<S: Service<Request<Body>>>(service: &mut S, requests: Vec<Request<Body>>) {
    requests.into_iter().for_each(|request| one(service, request));
}

fn per_call(name: &str, scratch: &Path) -> f64 {
    let [few, many] = CALLS.map(|calls| instructions(name, calls, scratch));
    (many - few) as f64 / (CALLS[1] - CALLS[0]) as f64
}

fn instructions(name: &str, calls: usize, scratch: &Path) -> u64 {
    let file = scratch.join(format!("{calls}"));
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*counted_calls*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(env::current_exe().unwrap())
        .args(["count", name, &calls.to_string()])
        .output()
        .unwrap();
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    let figures = fs::read_to_string(&file).unwrap();
    let total = figures.lines().find_map(|line| line.strip_prefix("totals: ")).expect("callgrind's sum");
    total.trim().parse().unwrap()
}

/// A folder for callgrind's files, which goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let folder = env::temp_dir().join(format!("tower-gemini-instructions-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
