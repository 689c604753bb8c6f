//! Tables, CSV and JSON.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::storm::figures::Figures;
use crate::storm::floor::Record;
use crate::storm::ideal::ideal;
use crate::storm::run::{Cell, Contender, OURS};
use crate::storm::score::{log_score, mean, ratios};
use crate::tail::Times;

/// The longest that one run may take.
const REAL_TIME: Duration = Duration::from_secs(2);
/// What counts as no worse.
const WITHIN: f64 = 0.98;

/// One contender in one cell, over all seeds.
pub(crate) struct Row {
    pub(crate) contender: &'static str,
    pub(crate) seeds: Vec<Figures>,
    /// Logarithms of the scores.
    scores: Vec<f64>,
}

/// One cell.
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) title: String,
    measure: crate::storm::scenario::Measure,
    pub(crate) rows: Vec<Row>,
    /// The best possible, of each seed.
    pub(crate) ideals: Vec<Figures>,
    /// How long answers take, where some of them are slow.
    tail: Option<Times>,
}

fn average(figures: &[Figures], of: impl Fn(&Figures) -> f64) -> f64 {
    figures.iter().map(of).sum::<f64>() / figures.len() as f64
}

impl Row {
    /// The geometric mean over the seeds, and half the width of its 95 % interval as a share of it.
    fn score(&self) -> (f64, f64) {
        let (mean, width) = mean(&self.scores);
        (mean.exp(), width)
    }

    fn recovery(&self) -> Option<f64> {
        let seconds: Option<Vec<f64>> = self.seeds.iter().map(|seed| seed.recovery).collect();
        seconds.map(|seconds| seconds.iter().copied().fold(0.0, f64::max))
    }

    fn slowest(&self) -> Duration {
        self.seeds.iter().map(|seed| seed.took).max().unwrap_or_default()
    }
}

impl Table {
    /// Runs them all; each thread takes the next that nobody has.
    pub(crate) fn of(cell: &Cell<'_>, contenders: &[Contender], seeds: u64, threads: usize) -> Self {
        let jobs: Vec<(usize, u64)> =
            (0..contenders.len()).flat_map(|c| (0..seeds).map(move |seed| (c, seed))).collect();
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<(usize, u64, Figures)>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..threads.min(jobs.len()) {
                scope.spawn(|| {
                    // Relaxed: each number is given out once, and nothing else follows from it.
                    while let Some((c, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut figures = cell.run(contenders[*c], *seed);
                        if *seed > 0 {
                            // Only one is plotted.
                            figures.calls_by_second = Vec::new();
                            figures.answers_by_second = Vec::new();
                        }
                        done.lock().expect("no run panics").push((*c, *seed, figures));
                    }
                });
            }
        });
        let mut done = done.into_inner().expect("no run panics");
        done.sort_by_key(|(c, seed, _)| (*c, *seed));
        let ideals: Vec<_> = (0..seeds).map(|seed| ideal(cell.scenario, &cell.asks(seed))).collect();
        let mut rows: Vec<Row> = contenders
            .iter()
            .map(|contender| Row { contender: contender.name(), seeds: Vec::new(), scores: Vec::new() })
            .collect();
        for (c, seed, figures) in done {
            let ratios = ratios(cell.scenario, &ideals[seed as usize], &figures);
            rows[c].scores.push(log_score(ratios));
            rows[c].seeds.push(figures);
        }
        rows.sort_by(|a, b| b.score().0.total_cmp(&a.score().0));
        Self {
            name: cell.name(),
            title: cell.scenario.title.clone(),
            measure: cell.scenario.measure,
            rows,
            ideals,
            tail: cell.scenario.model.tail.map(|tail| Times {
                median: cell.scenario.model.latency.as_secs_f64(),
                sigma: tail.sigma,
                share: tail.share,
                factor: tail.factor,
            }),
        }
    }

    /// How this crate did, beside the first of the others.
    fn standing(&self) -> Option<String> {
        let ours = self.rows.iter().find(|row| row.contender == OURS)?;
        let best = self.rows.iter().find(|row| row.contender != OURS)?;
        let ratio = ours.score().0 / best.score().0;
        Some(match ratio {
            _ if ratio >= 1.0 => "first".to_owned(),
            _ if ratio >= WITHIN => format!("within 2 % of {}", best.contender),
            _ => format!("LOST to {}, {:.3} of its score", best.contender, ratio),
        })
    }

    fn line(&self, name: &str, figures: &[Figures], recovery: Option<f64>) -> String {
        let best = average(&self.ideals, |seed| seed.time(self.measure));
        let time = average(figures, |seed| seed.time(self.measure));
        let recovery = recovery.map_or("never".to_owned(), |seconds| format!("{seconds:.0}"));
        format!(
            "{name:<22} {:>8.2} {:>8.2} {:>8.2} {:>6.0} {:>9.1} {:>7.2} {recovery:>7}",
            100.0 * average(figures, Figures::share),
            average(figures, Figures::calls_each),
            average(figures, Figures::calls_per_answer),
            average(figures, |seed| seed.peak as f64),
            time,
            time / best,
        )
    }

    fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.title);
        let time = match self.measure {
            crate::storm::scenario::Measure::Makespan => "last, s",
            crate::storm::scenario::Measure::P99 => "p99, s",
        };
        writeln!(
            text,
            "{:<22} {:>8} {:>8} {:>8} {:>6} {time:>9} {:>7} {:>7} {:>7} {:>6}",
            "", "served %", "calls/rq", "calls/ok", "peak/s", "× best", "rec, s", "score", "± %"
        )
        .expect("a string takes all");
        writeln!(text, "{}", self.line("best possible", &self.ideals, Some(0.0)))
            .expect("a string takes all");
        for row in &self.rows {
            let (score, width) = row.score();
            let standing = self.standing().filter(|_| row.contender == OURS).unwrap_or_default();
            let jain: Option<Vec<f64>> = row.seeds.iter().map(|seed| seed.jain).collect();
            let jain = jain.map_or(String::new(), |jain| format!("  Jain {:.2}", mean(&jain).0));
            writeln!(
                text,
                "{} {score:>7.3} {:>6.1}{jain}  {standing}",
                self.line(row.contender, &row.seeds, row.recovery()),
                100.0 * width
            )
            .expect("a string takes all");
        }
        // The best possible pays for five of a hundred calls; one that pays for fewer has a best of its own.
        for (row, tail) in self.rows.iter().filter_map(|row| Some((row, self.tail?))) {
            let more = average(&row.seeds, Figures::calls_each) - 1.0;
            if more > 0.001 {
                let (least, p99) = (tail.least_p99(more), average(&row.seeds, |seed| seed.p99));
                writeln!(
                    text,
                    "{}: the least p99 at {:.2} % more calls is {least:.1} s; × {:.2}",
                    row.contender,
                    100.0 * more,
                    p99 / least
                )
                .expect("a string takes all");
            }
        }
        for row in self.rows.iter().filter(|row| row.slowest() > REAL_TIME) {
            writeln!(text, "{} took {:.1} s of real time", row.contender, row.slowest().as_secs_f64())
                .expect("a string takes all");
        }
        for (seed, figures) in self.rows.iter().flat_map(|row| row.seeds.iter().enumerate()) {
            for violation in &figures.violations {
                writeln!(text, "BROKEN in seed {seed}: {violation}").expect("a string takes all");
            }
        }
        text
    }

    fn json(&self) -> Value {
        let row = |row: &Row| {
            let (score, width) = row.score();
            json!({
                "contender": row.contender,
                "served": average(&row.seeds, Figures::share),
                "calls_per_request": average(&row.seeds, Figures::calls_each),
                "calls_per_answer": average(&row.seeds, Figures::calls_per_answer),
                "peak": average(&row.seeds, |seed| seed.peak as f64),
                "p50": average(&row.seeds, |seed| seed.p50),
                "p99": average(&row.seeds, |seed| seed.p99),
                "makespan": average(&row.seeds, |seed| seed.makespan),
                "recovery": row.recovery(),
                "first_answer": row.seeds.iter().filter_map(|seed| seed.first).reduce(f64::max),
                "jain": row.seeds[0].jain,
                "score": score,
                "score_95": width * score,
                "opened": average(&row.seeds, |seed| f64::from(seed.opened)),
                "probes_failed": average(&row.seeds, |seed| f64::from(seed.probes_failed)),
                "cut": average(&row.seeds, |seed| f64::from(seed.cut)),
                "violations": row.seeds.iter().map(|seed| seed.violated).sum::<usize>(),
                "real_seconds": row.slowest().as_secs_f64(),
            })
        };
        json!({
            "scenario": self.name,
            "title": self.title,
            "best_possible": {
                "served": average(&self.ideals, Figures::share),
                "calls_per_answer": average(&self.ideals, Figures::calls_per_answer),
                "p99": average(&self.ideals, |seed| seed.p99),
                "makespan": average(&self.ideals, |seed| seed.makespan),
            },
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "this_crate": self.standing(),
        })
    }
}

/// All cells.
pub(crate) struct Report {
    json: bool,
    tables: Vec<Table>,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, tables: Vec::new() }
    }

    pub(crate) fn print(&self, table: &Table) {
        if !self.json {
            println!("{}", table.text());
        }
    }

    pub(crate) fn keep(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// Broken promises, of all.
    pub(crate) fn violated(&self) -> usize {
        self.tables
            .iter()
            .flat_map(|table| &table.rows)
            .flat_map(|row| &row.seeds)
            .map(|seed| seed.violated)
            .sum()
    }

    /// The geometric mean of the scores over all cells, the best first.
    fn overall(&self) -> Vec<(&'static str, f64)> {
        let names = self.tables.first().map(|table| table.rows.iter().map(|row| row.contender).collect());
        let names: Vec<&'static str> = names.unwrap_or_default();
        let mut overall: Vec<(&'static str, f64)> = names
            .into_iter()
            .map(|name| {
                let rows =
                    self.tables.iter().flat_map(|table| &table.rows).filter(|row| row.contender == name);
                let logs: Vec<f64> = rows.map(|row| mean(&row.scores).0).collect();
                (name, mean(&logs).0.exp())
            })
            .collect();
        overall.sort_by(|a, b| b.1.total_cmp(&a.1));
        overall
    }

    pub(crate) fn end(&self) {
        let overall = self.overall();
        let violated = self.violated();
        if self.json {
            let report = json!({
                "cells": self.tables.iter().map(Table::json).collect::<Vec<_>>(),
                "overall": overall.iter().map(|(name, score)| json!({ "contender": name, "score": score }))
                    .collect::<Vec<_>>(),
                "violations": violated,
            });
            println!("{report:#}");
            return;
        }
        println!("over {} cells", self.tables.len());
        for (name, score) in overall {
            println!("{name:<22} {score:>7.3}");
        }
        let standings = |wanted: fn(&str) -> bool| {
            self.tables.iter().filter(|table| table.standing().as_deref().is_some_and(wanted)).count()
        };
        println!(
            "\n{OURS}: first in {}, within 2 % of the first in {}, lost {}; {violated} broken promises",
            standings(|standing| standing == "first"),
            standings(|standing| standing.starts_with("within")),
            standings(|standing| standing.starts_with("LOST")),
        );
        for table in &self.tables {
            if let Some(standing) = table.standing().filter(|standing| standing.starts_with("LOST")) {
                println!("{}: {standing}", table.name);
            }
        }
    }

    pub(crate) fn write_csv(&self, folder: &Path) -> Result<(), String> {
        let mut csv = "cell,contender,seed,served,calls_per_request,calls_per_answer,peak,p50,p99,makespan,\
                       recovery,score,violations\n"
            .to_owned();
        for table in &self.tables {
            for row in &table.rows {
                for (seed, (figures, score)) in row.seeds.iter().zip(&row.scores).enumerate() {
                    let recovery = figures.recovery.map_or(String::new(), |seconds| format!("{seconds:.0}"));
                    writeln!(
                        csv,
                        "{},{},{seed},{:.5},{:.4},{:.4},{},{:.3},{:.3},{:.3},{recovery},{:.4},{}",
                        table.name,
                        row.contender,
                        figures.share(),
                        figures.calls_each(),
                        figures.calls_per_answer(),
                        figures.peak,
                        figures.p50,
                        figures.p99,
                        figures.makespan,
                        score.exp(),
                        figures.violated
                    )
                    .expect("a string takes all");
                }
            }
        }
        let file = folder.join("storm.csv");
        std::fs::write(&file, csv).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// This crate's figures, for the test that they do not fall.
    pub(crate) fn record(&self, file: &Path) -> Result<(), String> {
        let cells = self.tables.iter().filter_map(|table| {
            let row = table.rows.iter().find(|row| row.contender == OURS)?;
            Some((table.name.clone(), Record::of(&row.seeds, table.measure, row.score().0)))
        });
        let cells: std::collections::BTreeMap<String, Record> = cells.collect();
        let text = serde_json::to_string_pretty(&cells).map_err(|error| error.to_string())?;
        std::fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()))
    }
}
