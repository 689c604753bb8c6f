//! A scenario, read from its file. What each member means is told in `scenarios/README.md`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::members::{BadScenario, Members, Taken};
use super::scenario_server::model;
use crate::server::{MODELS, Model, PLACES};

/// What happens, whoever the clients are.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// The file's name without its ending.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) load: Load,
    pub(crate) model: Model,
    pub(crate) deadline: Duration,
    /// How long a client waits for one answer.
    pub(crate) attempt_timeout: Duration,
    /// The arrivals that count for times and calls; all by default.
    pub(crate) counted: (Duration, Duration),
    /// When all could be well again.
    pub(crate) well: Duration,
    pub(crate) measure: Measure,
    pub(crate) told: Told,
    pub(crate) clock: Option<Clock>,
}

/// The time by which a scenario is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// From the start to the last answer.
    Makespan,
    /// The 99th percentile from a request to its answer.
    P99,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// In how many processes; each is a cell of the table.
    pub(crate) processes: Vec<usize>,
    /// Requests at once, at the start.
    pub(crate) burst: usize,
    /// Requests a second, until `horizon`.
    pub(crate) rate: f64,
    pub(crate) horizon: Duration,
    /// Shares of the requests; empty is one tenant.
    pub(crate) tenants: Vec<u32>,
    /// Whether all tenants go through the same process.
    pub(crate) gateway: bool,
    pub(crate) prompts: Option<Prompts>,
    pub(crate) abandon: Option<Abandon>,
    /// Whether requests carry the name of their tenant, where a contender reads one.
    pub(crate) labels: bool,
    /// A tenant whose requests count for nothing: the others are judged.
    pub(crate) uncounted: Option<usize>,
    /// The share of the requests that ask for a stream.
    pub(crate) streams: f64,
    /// How many models may answer: the first is asked, and the others stand in.
    pub(crate) models: usize,
    /// At how many places it may be asked, and how many of them, the last ones, are outside of the residency.
    pub(crate) places: usize,
    pub(crate) outside: usize,
}

/// Log-normal prompts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prompts {
    pub(crate) median: f64,
    pub(crate) sigma: f64,
    pub(crate) most: u64,
    /// How far, as a share, the size of a request misleads about its tokens, either way.
    pub(crate) noise: f64,
    /// Whether callers have counted their tokens, and tell a contender that can be told.
    pub(crate) known: bool,
}

/// Callers who go away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abandon {
    pub(crate) share: f64,
    /// At any instant of so long after they came.
    pub(crate) within: Duration,
}

/// What those who run the client know of the quota, and tell a contender that can be told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) rpm: Option<u64>,
    pub(crate) tpm: Option<u64>,
    pub(crate) rpd: Option<u64>,
}

/// The calendar of the client's machine.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// Seconds since 1970, at the start.
    pub(crate) start: Duration,
    /// From when on it is wrong, and by how many seconds.
    pub(crate) jumps: Vec<(f64, i64)>,
}

/// All of a folder, in the order of their names.
pub(crate) fn all(folder: &Path) -> Result<Vec<Scenario>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "json"));
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

/// One file.
pub(crate) fn read(file: &Path) -> Result<Scenario, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    Scenario::parse(&name, &text).map_err(|error| error.to_string())
}

impl Scenario {
    pub(crate) fn parse(name: &str, text: &str) -> Taken<Self> {
        let mut file = Members::of(&format!("{name}.json"), text)?;
        let title = file.must("title")?;
        let load = load(&mut file)?;
        let deadline = file.seconds("deadline")?.ok_or_else(|| file.bad("deadline", "is missing"))?;
        if deadline.is_zero() {
            return Err(file.bad("deadline", "must be above 0"));
        }
        let attempt_timeout = file.seconds("attempt_timeout")?.unwrap_or(Duration::from_secs(120));
        if attempt_timeout.is_zero() {
            return Err(file.bad("attempt_timeout", "must be above 0"));
        }
        let counted: Option<(f64, f64)> = file.maybe("counted")?;
        if counted.is_some_and(|(from, until)| !(0.0 <= from && from < until && until <= 864_000.0)) {
            return Err(file.bad("counted", "must be two times, the later one second"));
        }
        let measure: Option<String> = file.maybe("measure")?;
        let measure = match measure.as_deref() {
            None | Some("p99") => Measure::P99,
            Some("makespan") => Measure::Makespan,
            Some(other) => return Err(file.bad("measure", format!("must be p99 or makespan, not {other}"))),
        };
        let scenario = Self {
            name: name.to_owned(),
            title,
            model: model(&mut file)?,
            deadline,
            attempt_timeout,
            counted: counted.map_or((Duration::ZERO, Duration::MAX), |(from, until)| {
                (Duration::from_secs_f64(from), Duration::from_secs_f64(until))
            }),
            well: file.seconds("well")?.unwrap_or_default(),
            measure,
            told: told(&mut file)?,
            clock: clock(&mut file)?,
            load,
        };
        if scenario.well >= scenario.load.horizon {
            return Err(file.bad("well", "must be before the last request"));
        }
        file.done()?;
        Ok(scenario)
    }
}

fn load(file: &mut Members) -> Taken<Load> {
    let mut load = file.inner("load")?.ok_or_else(|| file.bad("load", "is missing"))?;
    let processes: Vec<usize> = load.maybe("processes")?.unwrap_or_else(|| vec![1]);
    if processes.is_empty() || processes.iter().any(|n| !(1..=1000).contains(n)) {
        return Err(load.bad("processes", "must be one or more numbers from 1 to 1000"));
    }
    let burst = load.count("burst", 1, 100_000)?.unwrap_or(0);
    let rate = load.number("per_second", 0.001, 10_000.0)?.unwrap_or(0.0);
    let until = load.seconds("for")?;
    if (rate > 0.0) != until.is_some() {
        return Err(load.bad("for", "must be there with `per_second`, and only then"));
    }
    if burst == 0 && rate == 0.0 {
        return Err(load.bad("burst", "must be there where `per_second` is not"));
    }
    let tenants: Vec<u32> = load.maybe("tenants")?.unwrap_or_default();
    if tenants.contains(&0) || tenants.len() > 1000 {
        return Err(load.bad("tenants", "must be at most 1000 shares above 0"));
    }
    let gateway = load.maybe("gateway")?.unwrap_or(true);
    if !tenants.is_empty() && processes != [1] {
        return Err(load.bad("processes", "must not be there with `tenants`"));
    }
    let mut prompts = None;
    if let Some(mut inner) = load.inner("prompts")? {
        let need = |value: Option<f64>, inner: &Members, name: &str| {
            value.ok_or_else(|| inner.bad(name, "is missing"))
        };
        let (median, sigma) = (inner.number("median_tokens", 1.0, 1e7)?, inner.number("sigma", 0.0, 3.0)?);
        prompts = Some(Prompts {
            median: need(median, &inner, "median_tokens")?,
            sigma: need(sigma, &inner, "sigma")?,
            most: inner.count("most_tokens", 1, 10_000_000)?.unwrap_or(10_000_000),
            noise: inner.number("noise", 0.0, 0.9)?.unwrap_or(0.0),
            known: inner.maybe("known")?.unwrap_or(false),
        });
        inner.done()?;
    }
    let mut abandon = None;
    if let Some(mut inner) = load.inner("abandon")? {
        let (share, within) = (inner.number("share", 0.0, 1.0)?, inner.seconds("within")?);
        abandon = Some(Abandon {
            share: share.ok_or_else(|| inner.bad("share", "is missing"))?,
            within: within.ok_or_else(|| inner.bad("within", "is missing"))?,
        });
        inner.done()?;
    }
    let labels = load.maybe("labels")?.unwrap_or(false);
    let uncounted = load.count("uncounted", 0, 999)?.map(|tenant| tenant as usize);
    if uncounted.is_some_and(|tenant| tenant >= tenants.len()) {
        return Err(load.bad("uncounted", "must be the number of one of the `tenants`, from 0"));
    }
    let streams = load.number("streams", 0.0, 1.0)?.unwrap_or(0.0);
    let models = load.count("models", 1, MODELS.len() as u64)?.unwrap_or(1) as usize;
    let places = load.count("places", 1, PLACES.len() as u64)?.unwrap_or(1) as usize;
    let outside = load.count("outside", 0, places as u64 - 1)?.unwrap_or(0) as usize;
    load.done()?;
    // A burst alone lasts for an instant.
    let horizon = until.unwrap_or(Duration::from_secs(1));
    let burst = usize::try_from(burst).expect("at most 100,000");
    Ok(Load {
        processes,
        burst,
        rate,
        horizon,
        tenants,
        gateway,
        prompts,
        abandon,
        labels,
        uncounted,
        streams,
        models,
        places,
        outside,
    })
}

fn told(file: &mut Members) -> Taken<Told> {
    let Some(mut told) = file.inner("told")? else { return Ok(Told::default()) };
    let known = Told {
        rpm: told.count("rpm", 1, 1_000_000_000)?,
        tpm: told.count("tpm", 1, 1_000_000_000_000)?,
        rpd: told.count("rpd", 1, 1_000_000_000)?,
    };
    told.done()?;
    Ok(known)
}

fn clock(file: &mut Members) -> Taken<Option<Clock>> {
    let Some(mut clock) = file.inner("clock")? else { return Ok(None) };
    let start: String = clock.must("start")?;
    let start: jiff::Timestamp = start
        .parse()
        .map_err(|error| clock.bad("start", format!("must be a time of the form of RFC 3339: {error}")))?;
    let start = u64::try_from(start.as_second())
        .map_err(|_| clock.bad("start", "must be after 1970"))
        .map(Duration::from_secs)?;
    let jumps: Vec<(f64, i64)> = clock.maybe("jumps")?.unwrap_or_default();
    if jumps.iter().any(|(at, by)| !(0.0..=864_000.0).contains(at) || by.abs() > 864_000) {
        return Err(clock.bad("jumps", "must be pairs of a time and of seconds, at most ten days each"));
    }
    clock.done()?;
    Ok(Some(Clock { start, jumps }))
}

/// What a bad file would be told; for the tests.
#[allow(dead_code, reason = "the tests alone ask")]
pub(crate) fn refusal(text: &str) -> Option<BadScenario> {
    Scenario::parse("bad", text).err()
}
