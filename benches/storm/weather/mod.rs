//! The weather: random days, each lived through by this crate's stack and by plain clients, and what harm it did.
//!
//! A day is a [`Scenario`] that follows from a seed and a number. Its families take turns, so that each has as many
//! days as any other.

pub(crate) mod draw;
pub(crate) mod families;
pub(crate) mod harm;
pub(crate) mod judge;
pub(crate) mod report;
pub(crate) mod write;

use std::time::Duration;

use self::draw::{Draw, round};
use self::families::{Family, suit};
use super::scenario::{Abandon, Load, Measure, Scenario, Told};
use crate::server::Model;

/// The fewest and the most requests of a day, about.
const REQUESTS: (f64, f64) = (250.0, 6000.0);
/// Requests a second.
const RATES: (f64, f64) = (1.0 / 60.0, 200.0);
/// The shortest and the longest day in seconds.
const DAY: (f64, f64) = (30.0, 6.0 * 3600.0);

/// The family of a day.
pub(crate) fn family(index: u64) -> Family {
    let count = Family::ALL.len() as u64;
    Family::ALL[usize::try_from(index % count).expect("a few")]
}

/// A day, by its seed and its number.
pub(crate) fn day(seed: u64, index: u64) -> Scenario {
    let family = family(index);
    let draw = &mut Draw::new(seed, index);
    let stretch = family.stretch(draw);
    let mut day = fair(stretch, draw);
    family.apply(&mut day, stretch, draw);
    let latency = day.model.latency.as_secs_f64();
    suit(&mut day, latency);
    day.name = format!("weather-{seed}-{index:04}-{}", family.name());
    let title = if day.title.is_empty() { family.name() } else { &day.title };
    day.title = format!("day {index} of seed {seed}: {title}");
    day
}

/// A day on which all is well, long enough for a trouble that lasts so many seconds at a stretch.
fn fair(stretch: f64, draw: &mut Draw) -> Scenario {
    let requests = draw.log_uniform(REQUESTS.0, REQUESTS.1);
    let least = (2.5 * stretch).max(DAY.0);
    let most = (requests / RATES.0).min(DAY.1.max(2.5 * stretch));
    let rate = draw.log_uniform((requests / most).max(RATES.0), (requests / least).min(RATES.1).max(RATES.0));
    let horizon = round((requests / rate).clamp(least, DAY.1.max(least)));
    let latency = draw.log_uniform(0.1, 40.0);
    let attempt_timeout = if draw.chance(0.4) { 120.0 } else { draw.log_uniform(5.0, 120.0) };
    let deadline = match draw.pick(&[0, 0, 1, 2, 3]) {
        0 => 120.0,
        1 => 60.0,
        _ => draw.log_uniform(10.0, 600.0),
    };
    let processes = if draw.chance(0.5) { 1.0 } else { draw.log_uniform(1.0, 50.0) };
    let attempt_timeout =
        if draw.chance(0.5) { attempt_timeout.min(deadline / 2.0) } else { attempt_timeout };
    let goes = draw.chance(0.1).then(|| (draw.uniform(0.05, 0.5), draw.uniform(0.1, 1.0)));
    Scenario {
        name: String::new(),
        title: String::new(),
        load: Load {
            processes: vec![processes as usize],
            burst: if draw.chance(0.1) { draw.log_uniform(10.0, 100.0) as usize } else { 0 },
            rate,
            horizon: Duration::from_secs_f64(horizon),
            tenants: Vec::new(),
            gateway: true,
            prompts: None,
            abandon: goes.map(|(share, within)| Abandon {
                share,
                within: Duration::from_secs_f64(round(within * deadline)),
            }),
            labels: false,
            uncounted: None,
            streams: 0.0,
            models: 1,
            places: 1,
            outside: 0,
        },
        model: Model { latency: Duration::from_secs_f64(latency), paired: true, ..Model::default() },
        deadline: Duration::from_secs_f64(deadline),
        attempt_timeout: Duration::from_secs_f64(attempt_timeout),
        counted: (Duration::ZERO, Duration::MAX),
        well: Duration::ZERO,
        measure: Measure::P99,
        told: Told::default(),
        clock: None,
    }
}
