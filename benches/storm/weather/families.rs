//! What a random day is made of.

use std::time::Duration;

use crate::quota::{Counting, Quota};
use crate::server::{ALWAYS, Down, Fault, Pool, Sharing, Streams, Tail, Trouble};
use crate::storm::scenario::{Prompts, Scenario, Told};

use super::draw::{Draw, round};

/// What goes wrong on a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Healthy,
    BrownOut,
    BrownSpells,
    Outage,
    Flapping,
    Capacity,
    Sharing,
    QuotaTold,
    QuotaMistold,
    QuotaUntold,
    QuotaShared,
    QuotaChanged,
    Busy,
    Streams,
    Fallback,
    BadCaller,
    Mixture,
}

impl Family {
    pub(crate) const ALL: [Self; 17] = [
        Self::Healthy,
        Self::BrownOut,
        Self::BrownSpells,
        Self::Outage,
        Self::Flapping,
        Self::Capacity,
        Self::Sharing,
        Self::QuotaTold,
        Self::QuotaMistold,
        Self::QuotaUntold,
        Self::QuotaShared,
        Self::QuotaChanged,
        Self::Busy,
        Self::Streams,
        Self::Fallback,
        Self::BadCaller,
        Self::Mixture,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::BrownOut => "brown-out",
            Self::BrownSpells => "brown-spells",
            Self::Outage => "outage",
            Self::Flapping => "flapping",
            Self::Capacity => "capacity",
            Self::Sharing => "sharing",
            Self::QuotaTold => "quota-told",
            Self::QuotaMistold => "quota-mistold",
            Self::QuotaUntold => "quota-untold",
            Self::QuotaShared => "quota-shared",
            Self::QuotaChanged => "quota-changed",
            Self::Busy => "busy-429",
            Self::Streams => "streams",
            Self::Fallback => "fallback",
            Self::BadCaller => "bad-caller",
            Self::Mixture => "mixture",
        }
    }

    /// The longest that the day's trouble lasts at a stretch, where that says how long the day must be.
    pub(super) fn stretch(self, draw: &mut Draw) -> f64 {
        match self {
            Self::Outage => draw.log_uniform(1.0, 7200.0),
            _ => 0.0,
        }
    }

    /// Puts the trouble into a day on which all is well.
    pub(super) fn apply(self, day: &mut Scenario, stretch: f64, draw: &mut Draw) {
        match self {
            Self::Healthy => healthy(day, draw),
            Self::BrownOut => {
                let share = draw.log_uniform(0.02, 0.6);
                let fault = failure(draw);
                let after = delay(day, draw);
                day.model.troubles.push(Trouble { fault, share, after, ..fault_of(fault) });
            }
            Self::BrownSpells => {
                let fault = failure(draw);
                let spells = Some((draw.log_uniform(5.0, 600.0), draw.log_uniform(1.0, 120.0)));
                let (share, after) = (draw.uniform(0.3, 1.0), delay(day, draw));
                day.model.troubles.push(Trouble { share, spells, after, ..fault_of(fault) });
            }
            Self::Outage => outage(day, stretch, draw),
            Self::Flapping => {
                let (down, up) = (draw.log_uniform(1.0, 60.0), draw.log_uniform(1.0, 60.0));
                let every = Some(Duration::from_secs_f64(down + up));
                let when = Down { from: Duration::ZERO, until: Duration::from_secs_f64(down), every };
                day.model.troubles.push(Trouble { when, ..fault_of(failure(draw)) });
            }
            Self::Capacity => capacity(day, draw),
            Self::Sharing => sharing(day, draw),
            Self::QuotaTold | Self::QuotaMistold | Self::QuotaUntold => {
                quota(day, draw);
                let rpm = day.model.quota.as_ref().and_then(|quota| quota.rpm);
                let factor = match self {
                    Self::QuotaTold => 1.0,
                    _ => draw.log_uniform(0.5, 2.0),
                };
                let rpm = rpm.map(|rpm| ((rpm as f64 * factor).round() as u64).max(1));
                day.told = Told { rpm: rpm.filter(|_| self != Self::QuotaUntold), ..Told::default() };
            }
            Self::QuotaShared => {
                quota(day, draw);
                let used = draw.log_uniform(0.1, 1.2);
                if let Some(quota) = &mut day.model.quota {
                    let rpm = quota.rpm.unwrap_or(60) as f64;
                    quota.strangers = Some((round((used * rpm / 60.0).max(1e-3)), 0));
                }
            }
            Self::QuotaChanged => {
                quota(day, draw);
                let horizon = day.load.horizon.as_secs_f64();
                let mut changes = vec![(horizon * draw.uniform(0.15, 0.5), draw.log_uniform(0.2, 5.0))];
                if draw.chance(0.3) {
                    changes.push((horizon * draw.uniform(0.55, 0.85), draw.log_uniform(0.2, 5.0)));
                }
                if let Some(quota) = &mut day.model.quota {
                    let change = |(at, factor)| (Duration::from_secs_f64(round(at)), factor);
                    quota.changes = changes.into_iter().map(change).collect();
                }
            }
            Self::Busy => {
                let fault = draw.pick(&[Fault::Bare, Fault::Capacity]);
                let spells =
                    draw.chance(0.7).then(|| (draw.log_uniform(5.0, 600.0), draw.log_uniform(1.0, 120.0)));
                let share =
                    if spells.is_some() { draw.uniform(0.3, 1.0) } else { draw.log_uniform(0.02, 0.6) };
                day.model.troubles.push(Trouble { share, spells, ..fault_of(fault) });
            }
            Self::Streams => streams(day, draw),
            Self::Fallback => {
                day.load.models = 2;
                let mut trouble = fault_of(failure(draw));
                trouble.model = Some(0);
                if draw.chance(0.7) {
                    trouble.spells = Some((draw.log_uniform(5.0, 600.0), draw.log_uniform(5.0, 1200.0)));
                }
                trouble.share = draw.uniform(0.5, 1.0);
                day.model.troubles.push(trouble);
            }
            Self::BadCaller => bad_caller(day, draw),
            Self::Mixture => mixture(day, draw),
        }
    }
}

fn fault_of(fault: Fault) -> Trouble {
    Trouble {
        fault,
        share: 1.0,
        when: ALWAYS,
        spells: None,
        after: Duration::ZERO,
        tenant: None,
        model: None,
        place: None,
    }
}

fn failure(draw: &mut Draw) -> Fault {
    draw.pick(&[Fault::Status(500), Fault::Status(503), Fault::Overloaded, Fault::Overloaded])
}

/// At once, or after what an answer takes.
fn delay(day: &Scenario, draw: &mut Draw) -> Duration {
    if draw.chance(0.5) { Duration::ZERO } else { day.model.latency }
}

fn healthy(day: &mut Scenario, draw: &mut Draw) {
    let sigma = draw.uniform(0.0, 1.2);
    let stalls = draw.chance(0.7);
    let share = if stalls { draw.log_uniform(0.0005, 0.03) } else { 0.0 };
    let hang = draw.chance(0.5);
    let factor = draw.log_uniform(10.0, 1000.0);
    day.model.tail = Some(Tail { sigma, share: if hang { 0.0 } else { share }, factor });
    if hang && stalls {
        day.model.troubles.push(Trouble { share, ..fault_of(Fault::Hang) });
    }
}

fn outage(day: &mut Scenario, stretch: f64, draw: &mut Draw) {
    let horizon = day.load.horizon.as_secs_f64();
    let stretch = round(stretch.min(horizon / 2.0));
    let from = round(draw.uniform(0.1, 0.9) * (horizon - stretch));
    let fault = if draw.chance(0.15) { Fault::Hang } else { failure(draw) };
    let when = Down {
        from: Duration::from_secs_f64(from),
        until: Duration::from_secs_f64(from + stretch),
        every: None,
    };
    day.model.troubles.push(Trouble { when, ..fault_of(fault) });
    if draw.chance(0.3) {
        day.deadline =
            Duration::from_secs_f64(round((stretch * draw.log_uniform(0.5, 2.0)).clamp(10.0, 14_400.0)));
    }
}

/// Workers in front of which calls queue, for a load of 0.3 to 2 times what they can do.
fn capacity(day: &mut Scenario, draw: &mut Draw) {
    let (each, load, sigma) =
        (draw.log_uniform(0.1, 20.0), draw.log_uniform(0.3, 2.0), draw.uniform(0.0, 0.8));
    let spread = (sigma * sigma / 2.0_f64).exp();
    let workers = (each * spread * day.load.rate / load).round().clamp(1.0, 2000.0);
    let each = round((workers * load / (day.load.rate * spread)).clamp(0.02, 120.0));
    day.model.pool = Some(Pool { workers: workers as usize, each: Duration::from_secs_f64(each), sigma });
    suit(day, each);
    if draw.chance(0.4) {
        day.model.falling = draw.log_uniform(1e-3, 0.03);
    }
    day.model.drops = draw.chance(0.5);
    if draw.chance(0.3) {
        day.model.queue = draw.log_uniform(workers.max(5.0), 20.0 * workers.max(5.0)) as usize;
    }
    if draw.chance(0.4) {
        let horizon = day.load.horizon.as_secs_f64();
        let from = round(horizon * draw.uniform(0.1, 0.5));
        let until = from + round(horizon * draw.uniform(0.02, 0.2));
        let factor = draw.log_uniform(1.5, 8.0);
        day.model.slow = Some((Duration::from_secs_f64(from), Duration::from_secs_f64(until), factor));
    }
}

fn sharing(day: &mut Scenario, draw: &mut Draw) {
    let (load, sigma) = (draw.log_uniform(0.3, 1.6), draw.uniform(0.0, 0.8));
    let each = day.model.latency.as_secs_f64() * (sigma * sigma / 2.0_f64).exp();
    let at_once = round((each * day.load.rate / load).max(1.0));
    day.model.sharing = Some(Sharing { at_once });
    day.model.tail = Some(Tail { sigma, share: 0.0, factor: 1.0 });
    if draw.chance(0.4) {
        day.model.falling = draw.log_uniform(1e-4, 0.01);
    }
    day.model.drops = draw.chance(0.5);
}

/// A quota for a load of 0.4 to 2.5 times of it.
fn quota(day: &mut Scenario, draw: &mut Draw) {
    let load = draw.log_uniform(0.4, 2.5);
    let rpm = ((day.load.rate * 60.0 / load).round() as u64).max(2);
    let counting = draw.pick(&[
        Counting::Sliding,
        Counting::Fixed(Duration::ZERO),
        Counting::Fixed(Duration::from_secs(23)),
        Counting::Bucket,
    ]);
    let mut quota = Quota {
        rpm: Some(rpm),
        tpm: None,
        counting,
        rpd: None,
        named: draw.chance(0.8),
        strangers: None,
        changes: Vec::new(),
    };
    if draw.chance(0.25) {
        let median = draw.log_uniform(100.0, 20_000.0);
        let noise = draw.uniform(0.0, 0.5);
        day.load.prompts =
            Some(Prompts { median, sigma: 0.8, most: 200_000, noise, known: draw.chance(0.3) });
        quota.tpm = Some(((median * 1.38 * rpm as f64 * draw.log_uniform(0.7, 2.0)) as u64).max(200_000));
    }
    day.model.quota = Some(quota);
}

fn streams(day: &mut Scenario, draw: &mut Draw) {
    day.load.streams = draw.uniform(0.05, 1.0);
    let lasts = draw.log_uniform(2.0, 60.0);
    let stalls = if draw.chance(0.7) { draw.log_uniform(0.001, 0.05) } else { 0.0 };
    day.model.streams = Some(Streams {
        lasts: Duration::from_secs_f64(lasts),
        sigma: draw.uniform(0.0, 0.6),
        events: draw.log_uniform(2.0, 40.0) as u32,
        stalls,
    });
    if draw.chance(0.6) {
        let share = draw.log_uniform(0.0005, 0.01);
        day.model.troubles.push(Trouble { share, ..fault_of(Fault::Hang) });
    }
    day.deadline = day.deadline.max(Duration::from_secs_f64(round(4.0 * lasts)));
}

/// One tenant of several whose calls always fail; the others are judged.
fn bad_caller(day: &mut Scenario, draw: &mut Draw) {
    let good = draw.log_uniform(2.0, 20.0) as usize;
    let bad = draw.log_uniform(1.0, 10.0) as u32;
    day.load.processes = vec![1];
    day.load.tenants = std::iter::once(bad).chain(std::iter::repeat_n(4, good)).collect();
    day.load.gateway = true;
    day.load.labels = true;
    day.load.uncounted = Some(0);
    let fault = draw.pick(&[Fault::Hang, Fault::Status(500), Fault::Status(504)]);
    let after = match fault {
        Fault::Status(504) => Duration::from_secs_f64(draw.log_uniform(1.0, 60.0)),
        _ => delay(day, draw),
    };
    let when = match draw.chance(0.5) {
        true => ALWAYS,
        false => {
            let horizon = day.load.horizon.as_secs_f64();
            let from = round(horizon * draw.uniform(0.1, 0.5));
            let until = from + round(horizon * draw.uniform(0.1, 0.4));
            Down { from: Duration::from_secs_f64(from), until: Duration::from_secs_f64(until), every: None }
        }
    };
    day.model.troubles.push(Trouble { tenant: Some(0), after, when, ..fault_of(fault) });
}

/// A second trouble on a day that has one: what it adds leaves the shape of the server alone.
fn mixture(day: &mut Scenario, draw: &mut Draw) {
    let first = draw.pick(&[
        Family::Healthy,
        Family::BrownOut,
        Family::Capacity,
        Family::Sharing,
        Family::QuotaTold,
        Family::QuotaUntold,
        Family::QuotaShared,
        Family::QuotaChanged,
        Family::Streams,
        Family::Fallback,
        Family::BadCaller,
    ]);
    first.apply(day, 0.0, draw);
    let more = [Family::BrownOut, Family::BrownSpells, Family::Outage, Family::Flapping, Family::Busy];
    let second = loop {
        let second = draw.pick(&more);
        if second != first {
            break second;
        }
    };
    let stretch = draw.log_uniform(1.0, (day.load.horizon.as_secs_f64() / 3.0).max(2.0));
    second.apply(day, stretch, draw);
    day.title = format!("{} and {}", first.name(), second.name());
}

/// People give an attempt more than twice the time that an answer takes, and the whole at least that.
pub(super) fn suit(day: &mut Scenario, each: f64) {
    let least = Duration::from_secs_f64((2.5 * each).min(120.0));
    day.attempt_timeout = day.attempt_timeout.max(least);
    day.deadline = day.deadline.max(least);
}
