//! The bad days, with their numbers, and what comes of some seeds of them.

use std::fmt;
use std::time::Duration;

use crate::run::{Figures, Scenario};
use crate::server::{Down, Model};
use crate::stack::{Moves, Stack};

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// S3: five minutes of 503 at 2 requests a second, answered at once, and a deadline of ten minutes. What counts are
/// the arrivals and calls of the outage.
pub(crate) fn outage() -> Scenario {
    Scenario {
        model: Model { down: Down::once(300, 600), ..Model::default() },
        rate: 2.0,
        horizon: seconds(1500),
        deadline: seconds(600),
        counted: (seconds(300), seconds(600)),
        well: seconds(600),
    }
}

/// S4: for ten minutes, 30 % of the calls fail with a 500, each for itself. All is counted, and it is never well.
pub(crate) fn brown_out(rate: f64) -> Scenario {
    let horizon = seconds(600);
    Scenario {
        model: Model { errors: 0.3, ..Model::default() },
        rate,
        horizon,
        deadline: seconds(120),
        counted: (Duration::ZERO, horizon),
        well: Duration::ZERO,
    }
}

/// What so many attempts serve of it.
pub(crate) fn served_in_brown_out(attempts: i32) -> f64 {
    1.0 - 0.3f64.powi(attempts)
}

/// How long it is down, and of how long.
pub(crate) type Pattern = (&'static str, Down);

pub(crate) const PATTERNS: [Pattern; 3] =
    [("10/60", Down::first(10, 60)), ("20/60", Down::first(20, 60)), ("45/120", Down::first(45, 120))];

/// S6: bursts of 503, again and again for ten minutes, at 5 requests a second of 2 s each.
pub(crate) fn bursts(down: Down) -> Scenario {
    Scenario {
        model: Model { down, latency: seconds(2), ..Model::default() },
        rate: 5.0,
        horizon: seconds(600),
        deadline: seconds(120),
        counted: (Duration::ZERO, seconds(600)),
        well: Duration::ZERO,
    }
}

/// By how much each call in the queue slows the one that is served, as a share, and how long the queue may be.
pub(crate) type Variant = (&'static str, f64, usize);
pub(crate) const CONSTANT: Variant = ("constant", 0.0, usize::MAX);
pub(crate) const FALLING: Variant = ("falling", 0.01, usize::MAX);
/// Ten seconds of work; beyond it a 503.
pub(crate) const BOUNDED: Variant = ("bounded", 0.0, 100);
pub(crate) const HOUR: Duration = seconds(3600);

/// S10: 10 calls a second, arrivals 7.5 a second; for 30 s the server works at a quarter of its speed. What counts are
/// the arrivals from then on.
pub(crate) fn metastable((_, falling, queue): Variant, horizon: Duration) -> Scenario {
    let (from, until) = (seconds(120), seconds(150));
    let model = Model {
        one_by_one: Some(Duration::from_millis(100)),
        falling,
        queue,
        slow: Some((from, until, 4.0)),
        ..Model::default()
    };
    Scenario { model, rate: 7.5, horizon, deadline: seconds(120), counted: (from, horizon), well: until }
}

/// One cell of a table: so many seeds of one day with one stack, and what came of all of them.
pub(crate) struct Cell {
    pub(crate) days: Vec<Figures>,
}

impl Cell {
    pub(crate) fn of(name: &str, day: &Scenario, processes: usize, stack: &Stack, seeds: u64) -> Self {
        let days = (0..seeds).map(|seed| day.run(processes, seed, stack)).collect();
        let cell = Self { days };
        println!("{name:<30} {:<31} {cell}", stack.name);
        cell
    }

    fn sum(&self, of: impl Fn(&Figures) -> usize) -> f64 {
        self.days.iter().map(of).sum::<usize>() as f64
    }

    /// Of the requests of all seeds.
    pub(crate) fn served(&self) -> f64 {
        self.sum(|day| day.served) / self.sum(|day| day.arrived)
    }

    pub(crate) fn calls_each(&self) -> f64 {
        self.sum(|day| day.calls) / self.sum(|day| day.arrived)
    }

    /// The worst seed.
    pub(crate) fn peak(&self) -> usize {
        self.days.iter().map(|day| day.peak).max().unwrap_or(0)
    }

    /// The share of seeds in which some circuit opened.
    pub(crate) fn opened(&self) -> f64 {
        self.sum(|day| usize::from(day.moves.opened > 0)) / self.days.len() as f64
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds = self.days.len() as f64;
        let worst = self.days.iter().map(Figures::share).fold(1.0, f64::min);
        let recovery =
            self.days.iter().map(|day| day.recovery).max_by_key(|time| time.unwrap_or(Duration::MAX));
        let recovery = recovery.flatten().map_or("never".into(), |time| format!("{} s", time.as_secs()));
        let p99 = self.days.iter().map(|day| day.p99).max().unwrap_or_default();
        let each = |of: fn(&Moves) -> u32| self.sum(|day| of(&day.moves) as usize) / seeds;
        write!(
            f,
            "{:>7.3} % (worst {:>7.3}), {:>5.2} calls each, peak {:>3}/s, well after {:>7}, p99 {:>5.1} s; \
             in {:>5.1} % of seeds, opened {:.2} + {:.2}, closed {:.2}, cut {:.2}, lifted {:.2}",
            100.0 * self.served(),
            100.0 * worst,
            self.calls_each(),
            self.peak(),
            recovery,
            p99.as_secs_f64(),
            100.0 * self.opened(),
            each(|moves| moves.opened),
            each(|moves| moves.reopened),
            each(|moves| moves.closed),
            each(|moves| moves.cut),
            each(|moves| moves.lifted),
        )
    }
}
