//! The days on which the stack once did harm, one line each.

use std::path::Path;

use serde_json::json;

use super::judge::{Day, JUDGED, OURS, live_all, plain};
use crate::storm::run::{Cell, Contender};
use crate::storm::scenario;
use crate::storm::stack::Variant;

/// What is asked for.
pub(crate) struct Wanted<'a> {
    /// Their folder, or one file.
    pub(crate) days: &'a Path,
    /// The beginning of the names of the days; empty is all.
    pub(crate) name: &'a str,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) seeds: u64,
    pub(crate) threads: usize,
    pub(crate) json: bool,
}

/// Prints them.
pub(crate) fn print(wanted: &Wanted<'_>) -> Result<(), String> {
    let scenarios = match wanted.days.is_file() {
        true => vec![scenario::read(wanted.days)?],
        false => scenario::all(wanted.days)?,
    };
    let mut cells = Cell::all(&scenarios);
    cells.retain(|cell| cell.name().starts_with(wanted.name));
    if cells.is_empty() {
        return Err(format!("no day in {} is called {}", wanted.days.display(), wanted.name));
    }
    let days =
        live_all(cells.len(), wanted.threads, |n| Day::live(&cells[n], &wanted.contenders, wanted.seeds));
    if wanted.json {
        let days: Vec<_> = days.iter().map(Day::json).collect();
        println!("{:#}", json!(days));
        return Ok(());
    }
    println!("{}", Day::heading());
    for day in &days {
        println!("{}", day.line());
        println!("{}", day.parts());
    }
    Ok(())
}

/// Who lives through them where nobody is named.
pub(crate) fn contenders() -> Vec<Contender> {
    OURS.into_iter().chain(plain()).collect()
}

impl Day {
    pub(crate) fn heading() -> String {
        format!(
            "{:<28} {:>6} {:>8} {:>8} {:>8} {:>8}  {:<17} {:>6} {:>6} {:>6} {:>6}",
            "day",
            "reqs",
            "ours %",
            "p99, s",
            "best %",
            "p99, s",
            "best plain",
            "harm",
            "sure",
            "delay",
            "sure"
        )
    }

    /// What the stack made of it beside the best plain client.
    pub(crate) fn line(&self) -> String {
        let Some(verdict) = &self.verdict else { return format!("{:<28} is not judged", self.name) };
        let best = self.row(verdict.best.0).map_or(0.0, super::judge::Row::p99);
        let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        format!(
            "{:<28} {:>6} {:>8.2} {:>8.1} {:>8.2} {best:>8.1}  {:<17} {:>6.2} {:>6.2} {:>6} {:>6}",
            self.name,
            self.requests,
            100.0 * verdict.served,
            verdict.p99,
            100.0 * verdict.best.1,
            verdict.best.0,
            verdict.harm,
            verdict.sure_harm,
            ratio(verdict.delay),
            ratio(verdict.sure_delay),
        )
    }

    /// What parts of the stack made of it, and what its layers did.
    pub(crate) fn parts(&self) -> String {
        let parts = OURS.iter().map(|contender| contender.name()).chain([Variant::RetryOnly.name()]);
        let parts = parts.filter(|name| *name != JUDGED).filter_map(|name| self.row(name));
        let mut text: Vec<String> = parts
            .map(|row| {
                let name = row.name.trim_start_matches("ours-");
                format!("{name} {:.2} % {:.1} s", 100.0 * row.served, row.p99())
            })
            .collect();
        if let Some(ours) = self.row(JUDGED) {
            text.push(format!(
                "opened {}, cut {}, {:.2} calls an answer, gave up {:?}",
                ours.opened, ours.cut, ours.calls_per_answer, ours.gave_up
            ));
        }
        format!("    {}", text.join("; "))
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "contender": row.name, "served": row.served, "p50": row.percentile(0.5), "p99": row.p99(),
                "calls_per_answer": row.calls_per_answer, "opened": row.opened, "cut": row.cut,
                "gave_up": row.gave_up, "score": self.score(row), "cpu_seconds": row.took,
            })
        });
        let verdict = self.verdict.as_ref().map(|verdict| {
            json!({
                "best_plain": verdict.best.0, "harm": verdict.harm, "sure_harm": verdict.sure_harm,
                "gain": verdict.gain, "delay": verdict.delay, "sure_delay": verdict.sure_delay,
                "fastest_plain": verdict.fastest.map(|(name, _)| name),
            })
        });
        json!({
            "day": self.name, "title": self.title, "requests": self.requests,
            "verdict": verdict, "rows": rows.collect::<Vec<_>>(),
        })
    }
}
