//! What a thousand days came to, by family and by client.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::families::Family;
use super::judge::{Day, JUDGED, Verdict, live_all};
use super::{day, family, write};
use crate::storm::run::{Cell, Contender};

/// How many of the worst days become files, at the least.
const WORST: usize = 20;
/// A day on which some client served this share is one on which the server could serve.
pub(crate) const COULD: f64 = 0.9;

/// What is asked for.
pub(crate) struct Wanted<'a> {
    pub(crate) days: u64,
    pub(crate) seed: u64,
    pub(crate) family: Option<Family>,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) seeds: u64,
    pub(crate) threads: usize,
    pub(crate) json: bool,
    pub(crate) out: &'a Path,
}

/// The weather of a seed.
pub(crate) struct Weather {
    seed: u64,
    pub(crate) days: Vec<(Family, Day)>,
    /// Numbers of the days.
    indices: Vec<u64>,
}

impl Weather {
    /// Lives through the days of a seed, of one family or of all by turns.
    pub(crate) fn live(wanted: &Wanted<'_>) -> Self {
        let indices = (0_u64..).filter(|index| wanted.family.is_none_or(|only| only == family(*index)));
        let indices: Vec<u64> = indices.take(usize::try_from(wanted.days).expect("a few thousand")).collect();
        let days = live_all(indices.len(), wanted.threads, |n| {
            let scenario = day(wanted.seed, indices[n]);
            let cell = Cell { scenario: &scenario, processes: scenario.load.processes[0] };
            (family(indices[n]), Day::live(&cell, &wanted.contenders, wanted.seeds))
        });
        Self { seed: wanted.seed, days, indices }
    }

    fn of(&self, family: Family) -> Vec<&Day> {
        self.days.iter().filter(|(of, _)| *of == family).map(|(_, day)| day).collect()
    }

    /// The numbers of the days with the most harm, then with the most delay.
    pub(crate) fn worst(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.days.len()).collect();
        let badness = |n: &usize| {
            let verdict = self.days[*n].1.verdict.as_ref();
            let delay = verdict.and_then(|verdict| verdict.sure_delay).unwrap_or(0.0);
            // Half again as long is as bad as a point.
            verdict.map_or(0.0, |verdict| verdict.sure_harm + (delay / 1.5).clamp(1.0, 100.0).ln())
        };
        order.sort_by(|a, b| badness(b).total_cmp(&badness(a)).then(a.cmp(b)));
        let harmful =
            |n: &&usize| self.days[**n].1.verdict.as_ref().is_some_and(|verdict| verdict.sure_harm > 1.0);
        // All with more than a point of harm, however many.
        let most = order.iter().rposition(|n| harmful(&n)).map_or(0, |last| last + 1);
        order.truncate(WORST.max(most));
        order
    }

    /// Writes the worst days as scenario files, and all days as a table.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf, String> {
        let folder = folder.join("weather");
        let told = |error: std::io::Error| format!("{}: {error}", folder.display());
        std::fs::create_dir_all(&folder).map_err(told)?;
        // Those of an earlier run of this seed are the worst no more.
        let prefix = format!("weather-{}-", self.seed);
        for entry in std::fs::read_dir(&folder).map_err(told)?.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&prefix) && name.ends_with(".json") {
                std::fs::remove_file(entry.path()).map_err(told)?;
            }
        }
        for n in self.worst() {
            let scenario = day(self.seed, self.indices[n]);
            std::fs::write(folder.join(format!("{}.json", scenario.name)), write::text(&scenario))
                .map_err(told)?;
        }
        let mut csv =
            "day,family,requests,contender,served,p50,p99,calls_per_answer,score,cpu_seconds\n".to_owned();
        for (family, day) in &self.days {
            for row in &day.rows {
                writeln!(
                    csv,
                    "{},{},{},{},{:.5},{:.3},{:.3},{:.3},{:.4},{:.4}",
                    day.name,
                    family.name(),
                    day.requests,
                    row.name,
                    row.served,
                    row.percentile(0.5),
                    row.p99(),
                    row.calls_per_answer,
                    day.score(row),
                    row.took
                )
                .expect("a string takes all");
            }
        }
        std::fs::write(folder.join(format!("weather-{}.csv", self.seed)), csv).map_err(told)?;
        Ok(folder)
    }

    pub(crate) fn print(&self) {
        println!("{}", Summary::heading());
        for family in Family::ALL {
            if let Some(summary) = Summary::of(&self.of(family)) {
                println!("{:<14} {}", family.name(), summary.line());
            }
        }
        let all: Vec<&Day> = self.days.iter().map(|(_, day)| day).collect();
        if let Some(summary) = Summary::of(&all) {
            println!("{:<14} {}", "all", summary.line());
        }
        println!(
            "\ndays with more than a point of sure harm, by the part of the stack without which it is gone"
        );
        for family in Family::ALL {
            let mut causes = BTreeMap::<String, usize>::new();
            self.of(family).iter().filter_map(|day| day.causes()).for_each(|cause| {
                *causes.entry(cause).or_default() += 1;
            });
            if !causes.is_empty() {
                let shown: Vec<_> = causes.iter().map(|(cause, days)| format!("{cause} {days}")).collect();
                println!("{:<14} {}", family.name(), shown.join("; "));
            }
        }
        println!("\nshare served and score, by family: ours, and the others, best score first");
        for family in Family::ALL.into_iter().map(Some).chain([None]) {
            let days = family.map_or(all.clone(), |family| self.of(family));
            if !days.is_empty() {
                let name = family.map_or("all", Family::name);
                println!("{name:<14} {}", standings(&clients(&days)));
            }
        }
        println!(
            "\nall clients over all days, each beside the best plain one\n{:<20} {:>8} {:>7} {:>10} {:>11} {:>9}",
            "", "served %", "score", "worst harm", "> 1 point %", "CPU, s"
        );
        for client in clients(&all) {
            println!(
                "{:<20} {:>8.2} {:>7.3} {:>10.2} {:>11.1} {:>9.1}",
                client.name,
                100.0 * client.served,
                client.score,
                client.worst,
                100.0 * client.harmful,
                client.took
            );
        }
        println!("\nthe worst days\n{}", Day::heading());
        for n in self.worst() {
            let day = &self.days[n].1;
            println!("{}\n    {}\n{}", day.line(), day.title, day.parts());
        }
    }

    pub(crate) fn json(&self) -> Value {
        let families = Family::ALL.into_iter().filter_map(|family| {
            let days = self.of(family);
            let summary = Summary::of(&days)?;
            let clients = clients(&days);
            let clients = clients.iter().map(|client| {
                json!({
                    "contender": client.name, "served": client.served, "score": client.score,
                    "worst_sure_harm": client.worst, "days_with_a_point_of_sure_harm": client.harmful,
                })
            });
            Some(json!({
                "family": family.name(), "summary": summary.json(), "clients": clients.collect::<Vec<_>>(),
            }))
        });
        json!({
            "seed": self.seed,
            "families": families.collect::<Vec<_>>(),
            "worst": self.worst().into_iter().map(|n| self.days[n].1.json()).collect::<Vec<_>>(),
        })
    }
}

/// The distribution of what the stack did on some days.
struct Summary {
    days: usize,
    requests: f64,
    served: f64,
    best: f64,
    least_served: f64,
    gain: f64,
    harm: [f64; 4],
    /// The worst, and the worst of the days on which the server could serve.
    sure_harm: [f64; 2],
    /// Shares of the days with more than a point of sure harm.
    harmful: f64,
    delay: [f64; 3],
    /// The worst, and the share of the days with more than 1.5.
    sure_delay: [f64; 2],
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 - 1.0) * share).round().max(0.0) as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

impl Summary {
    fn of(days: &[&Day]) -> Option<Self> {
        let verdicts: Vec<&Verdict> = days.iter().filter_map(|day| day.verdict.as_ref()).collect();
        if verdicts.is_empty() {
            return None;
        }
        let n = verdicts.len() as f64;
        let sorted = |of: &dyn Fn(&Verdict) -> Option<f64>| {
            let mut values: Vec<f64> = verdicts.iter().filter_map(|verdict| of(verdict)).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let mean = |of: &dyn Fn(&Verdict) -> f64| verdicts.iter().map(|verdict| of(verdict)).sum::<f64>() / n;
        let share = |of: &dyn Fn(&Verdict) -> bool| mean(&|verdict| f64::from(u8::from(of(verdict))));
        let harm = sorted(&|verdict| Some(verdict.harm));
        let delay = sorted(&|verdict| verdict.delay);
        let most = |of: &dyn Fn(&Verdict) -> Option<f64>| sorted(of).last().copied().unwrap_or(0.0);
        Some(Self {
            days: days.len(),
            requests: days.iter().map(|day| day.requests as f64).sum::<f64>() / days.len() as f64,
            served: mean(&|verdict| verdict.served),
            best: mean(&|verdict| verdict.best.1),
            least_served: sorted(&|verdict| Some(verdict.served))[0],
            gain: mean(&|verdict| verdict.gain),
            harm: [0.5, 0.9, 0.99, 1.0].map(|share| quantile(&harm, share)),
            sure_harm: [
                most(&|verdict| Some(verdict.sure_harm)),
                most(&|verdict| (verdict.best.1 >= COULD).then_some(verdict.sure_harm)),
            ],
            harmful: share(&|verdict| verdict.sure_harm > 1.0),
            delay: [0.5, 0.9, 1.0].map(|share| quantile(&delay, share)),
            sure_delay: [
                most(&|verdict| verdict.sure_delay),
                share(&|verdict| verdict.sure_delay.is_some_and(|delay| delay > 1.5)),
            ],
        })
    }

    fn heading() -> String {
        format!(
            "{:<14} {:>5} {:>6} {:>7} {:>7} {:>7} {:>7} | harm {:>6} {:>6} {:>6} {:>6} | sure {:>6} {:>6} {:>6} | delay {:>5} {:>6} {:>7} | sure {:>7} {:>6}",
            "",
            "days",
            "reqs",
            "ours %",
            "best %",
            "least %",
            "gain",
            "median",
            "p90",
            "p99",
            "worst",
            "worst",
            "could",
            "> 1 %",
            "median",
            "p90",
            "worst",
            "worst",
            ">1.5 %"
        )
    }

    fn line(&self) -> String {
        let [median, p90, p99, worst] = self.harm;
        let [delay, delay_p90, slowest] = self.delay;
        format!(
            "{:>5} {:>6.0} {:>7.2} {:>7.2} {:>7.2} {:>7.2} |      {median:>6.2} {p90:>6.2} {p99:>6.2} {worst:>6.2} |      {:>6.2} {:>6.2} {:>6.1} |       {delay:>5.2} {delay_p90:>6.2} {slowest:>7.1} |      {:>7.1} {:>6.1}",
            self.days,
            self.requests,
            100.0 * self.served,
            100.0 * self.best,
            100.0 * self.least_served,
            self.gain,
            self.sure_harm[0],
            self.sure_harm[1],
            100.0 * self.harmful,
            self.sure_delay[0],
            100.0 * self.sure_delay[1],
        )
    }

    fn json(&self) -> Value {
        json!({
            "days": self.days, "requests": self.requests, "served": self.served, "best_plain": self.best,
            "least_served": self.least_served, "gain": self.gain,
            "harm": { "median": self.harm[0], "p90": self.harm[1], "p99": self.harm[2], "worst": self.harm[3] },
            "sure_harm": { "worst": self.sure_harm[0], "worst_where_it_could": self.sure_harm[1] },
            "days_with_a_point_of_sure_harm": self.harmful,
            "delay": { "median": self.delay[0], "p90": self.delay[1], "worst": self.delay[2] },
            "sure_delay": { "worst": self.sure_delay[0], "days_above_1.5": self.sure_delay[1] },
        })
    }
}

/// One client over some days.
struct Client {
    name: &'static str,
    served: f64,
    /// The geometric mean.
    score: f64,
    /// The most sure harm of a day, and the share of the days with more than a point of it.
    worst: f64,
    harmful: f64,
    took: f64,
}

/// The best score first.
fn clients(days: &[&Day]) -> Vec<Client> {
    let names = days.first().map(|day| day.rows.iter().map(|row| row.name).collect::<Vec<_>>());
    let mut clients: Vec<Client> = names
        .unwrap_or_default()
        .into_iter()
        .map(|name| {
            let rows = || days.iter().filter_map(|day| Some((*day, day.row(name)?)));
            let n = rows().count() as f64;
            let harms: Vec<f64> = days.iter().filter_map(|day| Some(day.judge(name)?.sure_harm)).collect();
            Client {
                name,
                served: rows().map(|(_, row)| row.served).sum::<f64>() / n,
                score: (rows().map(|(day, row)| day.score(row).ln()).sum::<f64>() / n).exp(),
                worst: harms.iter().copied().fold(0.0, f64::max),
                harmful: harms.iter().filter(|harm| **harm > 1.0).count() as f64 / n,
                took: rows().map(|(_, row)| row.took).sum(),
            }
        })
        .collect();
    clients.sort_by(|a, b| b.score.total_cmp(&a.score));
    clients
}

/// Ours, and the first four of the others.
fn standings(clients: &[Client]) -> String {
    let is_ours = |client: &&Client| client.name == JUDGED;
    let others = clients.iter().filter(|client| !client.name.starts_with(JUDGED)).take(4);
    let shown: Vec<String> = clients
        .iter()
        .filter(is_ours)
        .chain(others)
        .map(|client| format!("{} {:.2} % {:.3}", client.name, 100.0 * client.served, client.score))
        .collect();
    shown.join("; ")
}
