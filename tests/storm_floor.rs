//! What this crate makes of the bad days of `benches/storm` does not get worse, and its promises hold on each of them.
//!
//! The figures of record are in `benches/storm/floor.json`:
//! `cargo bench --bench storm -- --contender tower-gemini --seeds 1 --record benches/storm/floor.json` writes them. None
//! may fall by more than 2 %. The same seeds give the same figures, so that what differs is the crate.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "the bench uses the rest, and a failing test may panic anywhere"
)]

#[path = "support/arrivals.rs"]
mod arrivals;
#[path = "support/quota.rs"]
mod quota;
#[path = "support/server.rs"]
mod server;
#[path = "../benches/storm/mod.rs"]
mod storm;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use storm::floor::Record;
use storm::ideal::ideal;
use storm::run::{Cell, Contender};
use storm::scenario::{self, Scenario};
use storm::score::{log_score, mean, ratios};

fn scenarios() -> Vec<Scenario> {
    scenario::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/storm/scenarios")).unwrap()
}

fn floor() -> BTreeMap<String, Record> {
    serde_json::from_str(include_str!("../benches/storm/floor.json")).unwrap()
}

/// The longest of them, which the other cells of their kind stand for.
fn is_long(cell: &Cell<'_>) -> bool {
    let name = cell.name();
    let metastable =
        name.starts_with("s10-") && !name.ends_with("constant-p1") && !name.ends_with("bounded-p10");
    metastable || name == "s07-day-known"
}

#[test]
fn our_row_does_not_fall_below_its_record() {
    let scenarios = scenarios();
    let floor = floor();
    let mut cells = Cell::all(&scenarios);
    let mut names: Vec<_> = cells.iter().map(Cell::name).collect();
    names.sort();
    assert!(names.iter().eq(floor.keys()), "a cell for each record, a record for each cell");
    cells.retain(|cell| !is_long(cell));
    check_all(&cells, &floor);
}

#[test]
#[ignore = "long in debug; run with --release --ignored"]
fn our_row_does_not_fall_below_its_record_in_the_long_ones() {
    let scenarios = scenarios();
    let mut cells = Cell::all(&scenarios);
    cells.retain(is_long);
    check_all(&cells, &floor());
}

fn check_all(cells: &[Cell<'_>], floor: &BTreeMap<String, Record>) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                // Relaxed: each number is given out once, and nothing else follows from it.
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(cell, &floor[&cell.name()]);
                }
            });
        }
    });
}

fn check(cell: &Cell<'_>, record: &Record) {
    let runs: Vec<_> = (0..record.seeds).map(|seed| cell.run(Contender::Ours, seed)).collect();
    let scores: Vec<f64> = runs
        .iter()
        .zip(0..)
        .map(|(run, seed)| log_score(ratios(cell.scenario, &ideal(cell.scenario, &cell.asks(seed)), run)))
        .collect();
    let now = Record::of(&runs, cell.scenario.measure, mean(&scores).0.exp());
    let took: f64 = runs.iter().map(|run| run.took.as_secs_f64()).sum();
    println!("{:<32} {now:?}, {took:.1} s", cell.name());
    let violations: Vec<_> = runs.iter().flat_map(|run| &run.violations).collect();
    assert!(violations.is_empty(), "{}: {violations:?}", cell.name());
    let fallen = record.fallen(&now);
    assert!(fallen.is_empty(), "{}: {fallen:?}", cell.name());
}

#[test]
fn the_same_seed_gives_the_same_figures() {
    let scenarios = scenarios();
    let scenario = scenarios.iter().find(|scenario| scenario.name == "s14-fairness").unwrap();
    let cell = Cell { scenario, processes: 1 };
    for contender in Contender::all() {
        let [one, two] = [cell.run(contender, 3), cell.run(contender, 3)];
        let figures = |run: &storm::figures::Figures| {
            (run.served, run.calls_by_second.clone(), run.answers_by_second.clone(), run.p99.to_bits())
        };
        assert_eq!(figures(&one), figures(&two), "{}", contender.name());
    }
}

#[test]
fn a_record_falls_by_more_than_a_fiftieth() {
    let was = Record { seeds: 1, served: 0.9, calls: 1.2, time: 30.0, score: 0.8 };
    assert!(was.fallen(&was).is_empty());
    assert!(was.fallen(&Record { served: 0.89, calls: 1.22, time: 30.5, score: 0.79, ..was }).is_empty());
    assert!(was.fallen(&Record { served: 1.0, calls: 1.0, time: 20.0, score: 1.0, ..was }).is_empty());
    for worse in [
        Record { served: 0.88, ..was },
        Record { calls: 1.23, ..was },
        Record { time: 30.7, ..was },
        Record { score: 0.78, ..was },
    ] {
        assert_eq!(was.fallen(&worse).len(), 1, "{worse:?}");
    }
}

// ===== files =====

const GOOD: &str = r#"{"title": "t", "load": {"burst": 1}, "server": {}, "deadline": 1}"#;

#[test]
fn a_bad_file_is_told_by_member_and_rule() {
    assert!(scenario::refusal(GOOD).is_none());
    for (from, to, member, rule) in [
        (r#""server": {}"#, r#""server": {"#, "the whole", "must be JSON"),
        (GOOD, "[]", "the whole", "must be an object"),
        (r#""title": "t""#, r#""titel": "t""#, "title", "is missing"),
        (r#""title": "t""#, r#""title": 7"#, "title", "is of the wrong type"),
        (r#""deadline": 1"#, r#""deadline": 0"#, "deadline", "must be above 0"),
        (r#""deadline": 1"#, r#""deadline": -1"#, "deadline", "must be from 0 to 864000"),
        (r#""deadline": 1"#, r#""deadline": "1""#, "deadline", "is of the wrong type"),
        (r#""deadline": 1"#, r#""deadline": 1, "dead_line": 1"#, "dead_line", "is no member"),
        (r#""burst": 1"#, r#""burst": 0"#, "load.burst", "must be from 1 to 100000"),
        (r#""burst": 1"#, r#""burst": 1.5"#, "load.burst", "is of the wrong type"),
        (r#""burst": 1"#, r#""per_second": 1"#, "load.for", "must be there with `per_second`"),
        (r#""burst": 1"#, r#""burst": 1, "tenants": [1, 0]"#, "load.tenants", "must be at most 1000 shares"),
        (r#""burst": 1"#, r#""burst": 1, "processes": []"#, "load.processes", "must be one or more"),
        (
            r#""burst": 1"#,
            r#""burst": 1, "prompts": {"sigma": 1}"#,
            "load.prompts.median_tokens",
            "is missing",
        ),
        (r#""server": {}"#, r#""server": {"errors": 1}"#, "server.errors", "must be from 0 to 0.99"),
        (
            r#""server": {}"#,
            r#""server": {"down": {"from": 2, "until": 1}}"#,
            "server.down.until",
            "must be after",
        ),
        (r#""server": {}"#, r#""server": {"quota": {"rpm": 0}}"#, "server.quota.rpm", "must be from 1"),
        (
            r#""server": {}"#,
            r#""server": {"quota": {"phase": 3}}"#,
            "server.quota.phase",
            "must not be there",
        ),
        (
            r#""server": {}"#,
            r#""server": {"quota": {"counting": "odd"}}"#,
            "server.quota.counting",
            "must be sliding",
        ),
        (
            r#""server": {}"#,
            r#""server": {"quota": {"rpd": 3}}"#,
            "server.quota.resets",
            "must be there with",
        ),
        (r#""burst": 1"#, r#""burst": 1, "models": 3"#, "load.models", "must be from 1 to 2"),
        (r#""burst": 1"#, r#""burst": 1, "streams": 2"#, "load.streams", "must be from 0 to 1"),
        (r#""burst": 1"#, r#""burst": 1, "labels": 1"#, "load.labels", "is of the wrong type"),
        (r#""burst": 1"#, r#""burst": 1, "uncounted": 0"#, "load.uncounted", "must be the number of one"),
        (r#""server": {}"#, r#""server": {"pool": {"each": 1}}"#, "server.pool.workers", "is missing"),
        (
            r#""server": {}"#,
            r#""server": {"pool": {"workers": 1, "each": 0}}"#,
            "server.pool.each",
            "must be above 0",
        ),
        (
            r#""server": {}"#,
            r#""server": {"one_by_one": 1, "at_once": 2}"#,
            "server.pool",
            "must not be there with",
        ),
        (r#""server": {}"#, r#""server": {"at_once": 0}"#, "server.at_once", "must be from 1"),
        (r#""server": {}"#, r#""server": {"drops": true}"#, "server.drops", "must not be there without"),
        (r#""server": {}"#, r#""server": {"streams": {}}"#, "server.streams.lasts", "is missing"),
        (
            r#""server": {}"#,
            r#""server": {"at_once": 1, "streams": {"lasts": 1}}"#,
            "server.streams",
            "must not be there with",
        ),
        (
            r#""server": {}"#,
            r#""server": {"troubles": [{"fault": "hang"}, {"fault": "501"}]}"#,
            "server.troubles[1].fault",
            "must be 500, 503",
        ),
        (
            r#""server": {}"#,
            r#""server": {"troubles": [{"fault": "hang", "every": 5}]}"#,
            "server.troubles[0].every",
            "must not be before `until`",
        ),
        (
            r#""server": {}"#,
            r#""server": {"troubles": [{"fault": "hang", "spells": [1, 0]}]}"#,
            "server.troubles[0].spells",
            "must be two times",
        ),
        (
            r#""server": {}"#,
            r#""server": {"troubles": [{"fault": "hang", "often": 1}]}"#,
            "server.troubles[0].often",
            "is no member",
        ),
        (
            r#""server": {}"#,
            r#""server": {"quota": {"strangers": {}}}"#,
            "server.quota.strangers.per_second",
            "is missing",
        ),
        (
            r#""server": {}"#,
            r#""server": {"quota": {"changes": [[2, 1], [1, 1]]}}"#,
            "server.quota.changes",
            "must be pairs of a time and a factor",
        ),
        (r#""deadline": 1"#, r#""deadline": 1, "measure": "p50""#, "measure", "must be p99 or makespan"),
        (r#""deadline": 1"#, r#""deadline": 1, "counted": [2, 1]"#, "counted", "must be two times"),
        (r#""deadline": 1"#, r#""deadline": 1, "well": 9"#, "well", "must be before the last request"),
        (r#""deadline": 1"#, r#""deadline": 1, "clock": {"start": "soon"}"#, "clock.start", "must be a time"),
    ] {
        let text = GOOD.replace(from, to);
        let bad = scenario::refusal(&text).unwrap_or_else(|| panic!("{text} is taken"));
        assert_eq!(bad.member, member, "{text}: {bad}");
        assert!(bad.rule.starts_with(rule), "{text}: {bad}");
        assert!(bad.to_string().starts_with("bad.json: `"), "{bad}");
    }
}
