//! What each client makes of bad days: resilience in virtual time.
//!
//! ```text
//! cargo bench --bench storm -- [--scenario FILE|NAME|all] [--contender NAME|all] [--seeds N] [--json]
//!                              [--threads N] [--out FOLDER] [--record FILE]
//! cargo bench --bench storm -- --jitter
//! cargo bench --bench storm -- --harm [--scenario NAME|FILE|FOLDER] [--contender NAME] [--seeds N] [--json]
//! cargo bench --bench storm -- --weather --days N --seed N [--family NAME] [--contender NAME] [--seeds N] [--json]
//! ```
//!
//! `ours-placed` is the whole stack at all places of a scenario (`benches/storm/places`), `ours-hedged` and `ours-hedged-5` are the whole stack with second tries, for whoever asks for them by name.
//!
//! `--weather` lives through random days ([`storm::weather`]) and prints by family what harm the whole stack did beside
//! plain clients, the shares and scores of all clients, and the worst days, which become files. `--harm` does so for the
//! days of `benches/storm/harm`, or of a file or a folder. `BENCHMARKS.md` says what harm is.
//!
//! Scenarios are data: `benches/storm/scenarios`, and its README says what each member means. Every contender meets the
//! same arrivals and the same server, and the same limit for one attempt; `benches/storm/policies.rs` has the
//! defaults of those that are policies, and what each of them is. This crate's row is the real layers in the
//! recommended order, with default settings.
//!
//! Printed is a table for each scenario: the share that was answered in time; the calls in the time that counts, for
//! each request of it; all calls for each answer; the most calls in any second after the trouble; the time that counts
//! (the 99th percentile, or the time to the last answer), and how many times the best possible it is; how long after
//! the trouble ten seconds' arrivals are served to 95 %; and the score. Where this crate is neither first nor
//! within 2 % of the first, its row says LOST.
//!
//! The score is the geometric mean of four ratios of the best possible to the measured: the time, the calls for each
//! answer, the requests left over and one, the seconds to recover and one; over seeds and over scenarios it is the
//! geometric mean again. The best possible is what a client could do that knows everything: `benches/storm/ideal.rs`.
//!
//! `storm.csv` and a plot for each scenario go to `target/storm`. `--record` writes this crate's figures for
//! `tests/storm_floor.rs`.

#[path = "../tests/support/arrivals.rs"]
mod arrivals;
#[path = "storm/jitter.rs"]
mod jitter;
#[path = "storm/plot.rs"]
mod plot;
#[path = "../tests/support/quota.rs"]
mod quota;
#[path = "storm/report.rs"]
mod report;
#[path = "../tests/support/server.rs"]
mod server;
#[path = "storm/mod.rs"]
mod storm;
#[path = "../tests/support/tail.rs"]
mod tail;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::prelude::*;

use storm::run::{Cell, Contender};
use storm::scenario;
use storm::stack::Variant;
use storm::weather::families::Family;
use storm::weather::{harm, judge, report as weather};

/// What is asked for on the command line.
struct Options {
    scenario: String,
    contender: String,
    /// So many as the mode has by default where nothing is said.
    seeds: Option<u64>,
    threads: usize,
    json: bool,
    jitter: bool,
    harm: bool,
    weather: bool,
    days: u64,
    seed: u64,
    family: Option<Family>,
    out: PathBuf,
    record: Option<PathBuf>,
}

fn options() -> Result<Options, lexopt::Error> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut options = Options {
        scenario: "all".to_owned(),
        contender: "all".to_owned(),
        seeds: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        json: false,
        jitter: false,
        harm: false,
        weather: false,
        days: 170,
        seed: 1,
        family: None,
        out: here.join("target/storm"),
        record: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("scenario") => options.scenario = parser.value()?.string()?,
            Long("contender") => options.contender = parser.value()?.string()?,
            Long("seeds") => options.seeds = Some(parser.value()?.parse()?),
            Long("threads") => options.threads = parser.value()?.parse()?,
            Long("json") => options.json = true,
            Long("jitter") => options.jitter = true,
            Long("harm") => options.harm = true,
            Long("weather") => options.weather = true,
            Long("days") => options.days = parser.value()?.parse()?,
            Long("seed") => options.seed = parser.value()?.parse()?,
            Long("family") => options.family = Some(parser.value()?.parse_with(family)?),
            Long("out") => options.out = parser.value()?.into(),
            Long("record") => options.record = Some(parser.value()?.into()),
            // What cargo adds.
            Long("bench") => {}
            other => return Err(other.unexpected()),
        }
    }
    if options.seeds == Some(0) || options.threads == 0 {
        return Err("`--seeds` and `--threads` must be at least 1".into());
    }
    Ok(options)
}

fn family(name: &str) -> Result<Family, String> {
    let known = Family::ALL.map(Family::name).join(", ");
    let found = Family::ALL.into_iter().find(|family| family.name() == name);
    found.ok_or_else(|| format!("there are {known}"))
}

fn main() -> ExitCode {
    match options().map_err(|error| error.to_string()).and_then(|options| work(&options)) {
        Ok(well) if well => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::from(2)
        }
    }
}

/// Those that are asked for, by names with commas between them: all of them, or of those that are known.
fn named(options: &Options, all: Vec<Contender>, known: Vec<Contender>) -> Result<Vec<Contender>, String> {
    if options.contender == "all" {
        return Ok(all);
    }
    let names = options.contender.split(',');
    names
        .map(|name| {
            known.iter().copied().find(|contender| contender.name() == name).ok_or_else(|| {
                let known: Vec<_> = known.iter().map(|contender| contender.name()).collect();
                format!("no contender is called {name}: there are {}", known.join(", "))
            })
        })
        .collect()
}

/// Whether every promise was kept.
fn work(options: &Options) -> Result<bool, String> {
    if options.jitter {
        return Ok(jitter::table());
    }
    let known = || judge::everybody().into_iter().chain(judge::HEDGED).chain([judge::PLACED]).collect();
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/storm");
    if options.weather {
        let wanted = weather::Wanted {
            days: options.days,
            seed: options.seed,
            family: options.family,
            contenders: named(options, judge::everybody(), known())?,
            seeds: options.seeds.unwrap_or(1),
            threads: options.threads,
            json: options.json,
            out: &options.out,
        };
        let lived = weather::Weather::live(&wanted);
        let folder = lived.write(wanted.out)?;
        if wanted.json {
            println!("{:#}", lived.json());
        } else {
            lived.print();
            println!("\nthe worst days are files in {}", folder.display());
        }
        return Ok(true);
    }
    if options.harm {
        let contenders = named(options, storm::weather::harm::contenders(), known())?;
        let (folder, asked) = (benches.join("harm"), Path::new(&options.scenario));
        let (days, name) = match options.scenario.as_str() {
            "all" => (folder.as_path(), ""),
            _ if asked.exists() => (asked, ""),
            name => (folder.as_path(), name),
        };
        harm::print(&harm::Wanted {
            days,
            name,
            contenders,
            seeds: options.seeds.unwrap_or(2),
            threads: options.threads,
            json: options.json,
        })?;
        return Ok(true);
    }
    let folder = benches.join("scenarios");
    let mut scenarios = if Path::new(&options.scenario).is_file() {
        vec![scenario::read(Path::new(&options.scenario))?]
    } else {
        scenario::all(&folder)?
    };
    let name = options.scenario.as_str();
    if name != "all" && !Path::new(name).is_file() {
        scenarios.retain(|scenario| scenario.name == name || scenario.name.starts_with(&format!("{name}-")));
    }
    if scenarios.is_empty() {
        return Err(format!("no file and no scenario is called {name}"));
    }
    let known = Contender::all().into_iter().chain(judge::OURS).chain(judge::HEDGED);
    let known = known.chain([judge::PLACED, Contender::Stack(Variant::RetryOnly)]);
    let contenders = named(options, Contender::all(), known.collect())?;
    let seeds = options.seeds.unwrap_or(10);
    let cells = Cell::all(&scenarios);
    let mut report = report::Report::new(options.json);
    for cell in &cells {
        let table = report::Table::of(cell, &contenders, seeds, options.threads);
        report.print(&table);
        plot::write(&options.out, &table)?;
        report.keep(table);
    }
    report.end();
    report.write_csv(&options.out)?;
    if let Some(file) = &options.record {
        report.record(file)?;
    }
    Ok(report.violated() == 0)
}
