//! The server of a scenario, read from its file.

use std::time::Duration;

use super::members::{Members, Taken};
use crate::quota::{Counting, Quota};
use crate::server::{Down, Fault, Model, Pool, Sharing, Streams, Tail, Trouble};

pub(super) fn model(file: &mut Members) -> Taken<Model> {
    let Some(mut server) = file.inner("server")? else { return Err(file.bad("server", "is missing")) };
    let mut model = Model::default();
    if let Some(latency) = server.seconds("latency")? {
        model.latency = latency;
    }
    if let Some(mut tail) = server.inner("tail")? {
        let (sigma, share, factor) = (
            tail.number("sigma", 0.0, 3.0)?,
            tail.number("share", 0.0, 1.0)?,
            tail.number("factor", 1.0, 1e3)?,
        );
        model.tail = Some(Tail {
            sigma: sigma.unwrap_or(0.0),
            share: share.unwrap_or(0.0),
            factor: factor.unwrap_or(1.0),
        });
        tail.done()?;
    }
    model.one_by_one = server.seconds("one_by_one")?;
    if model.one_by_one.is_some_and(|each| each.is_zero()) {
        return Err(server.bad("one_by_one", "must be above 0"));
    }
    model.falling = server.number("falling", 0.0, 10.0)?.unwrap_or(0.0);
    model.queue = server.count("queue", 1, 1_000_000)?.map_or(usize::MAX, |most| most as usize);
    if let Some(mut slow) = server.inner("slow")? {
        let (from, until) = span(&mut slow)?;
        let factor = slow.number("factor", 1.0, 1e3)?;
        model.slow = Some((from, until, factor.ok_or_else(|| slow.bad("factor", "is missing"))?));
        slow.done()?;
    }
    if let Some(mut down) = server.inner("down")? {
        let (from, until) = span(&mut down)?;
        let every = down.seconds("every")?;
        if every.is_some_and(|every| every < until) {
            return Err(down.bad("every", "must not be before `until`"));
        }
        model.down = Down { from, until, every };
        down.done()?;
    }
    model.errors = server.number("errors", 0.0, 0.99)?.unwrap_or(0.0);
    if let Some(mut quota) = server.inner("quota")? {
        model.quota = Some(limits(&mut quota)?);
        quota.done()?;
    }
    if let Some(mut pool) = server.inner("pool")? {
        let (workers, each) = (pool.count("workers", 1, 10_000)?, pool.seconds("each")?);
        let each = each.ok_or_else(|| pool.bad("each", "is missing"))?;
        if each.is_zero() {
            return Err(pool.bad("each", "must be above 0"));
        }
        model.pool = Some(Pool {
            workers: workers.ok_or_else(|| pool.bad("workers", "is missing"))? as usize,
            each,
            sigma: pool.number("sigma", 0.0, 3.0)?.unwrap_or(0.0),
        });
        pool.done()?;
    }
    model.sharing = server.number("at_once", 1.0, 1e6)?.map(|at_once| Sharing { at_once });
    if [model.pool.is_some(), model.sharing.is_some(), model.one_by_one.is_some()]
        .iter()
        .filter(|is| **is)
        .count()
        > 1
    {
        return Err(server.bad("pool", "must not be there with `at_once` or `one_by_one`, nor they together"));
    }
    model.drops = server.maybe("drops")?.unwrap_or(false);
    if model.drops && model.pool.is_none() && model.sharing.is_none() {
        return Err(server.bad("drops", "must not be there without `pool` or `at_once`"));
    }
    for mut each in server.list("troubles")? {
        model.troubles.push(trouble(&mut each)?);
        each.done()?;
    }
    if let Some(mut streams) = server.inner("streams")? {
        let lasts = streams.seconds("lasts")?;
        model.streams = Some(Streams {
            lasts: lasts.ok_or_else(|| streams.bad("lasts", "is missing"))?,
            sigma: streams.number("sigma", 0.0, 3.0)?.unwrap_or(0.0),
            events: streams.count("events", 2, 10_000)?.unwrap_or(10) as u32,
            stalls: streams.number("stalls", 0.0, 1.0)?.unwrap_or(0.0),
        });
        if model.pool.is_some() || model.sharing.is_some() || model.one_by_one.is_some() {
            return Err(server.bad("streams", "must not be there with a queue or `at_once`"));
        }
        streams.done()?;
    }
    model.paired = server.maybe("paired")?.unwrap_or(false);
    server.done()?;
    Ok(model)
}

fn span(inner: &mut Members) -> Taken<(Duration, Duration)> {
    let (from, until) = (inner.seconds("from")?.unwrap_or_default(), inner.seconds("until")?);
    let until = until.ok_or_else(|| inner.bad("until", "is missing"))?;
    if from >= until {
        return Err(inner.bad("until", "must be after `from`"));
    }
    Ok((from, until))
}

fn limits(quota: &mut Members) -> Taken<Quota> {
    let counting: Option<String> = quota.maybe("counting")?;
    let phase = quota.seconds("phase")?;
    if phase.is_some_and(|phase| phase >= crate::quota::MINUTE) {
        return Err(quota.bad("phase", "must be below 60"));
    }
    let counting = match counting.as_deref() {
        None | Some("sliding") => Counting::Sliding,
        Some("fixed") => Counting::Fixed(phase.unwrap_or_default()),
        Some("bucket") => Counting::Bucket,
        Some(other) => {
            return Err(quota.bad("counting", format!("must be sliding, fixed or bucket, not {other}")));
        }
    };
    if phase.is_some() && !matches!(counting, Counting::Fixed(_)) {
        return Err(quota.bad("phase", "must not be there unless `counting` is fixed"));
    }
    let rpd = quota.count("rpd", 1, 1_000_000_000)?;
    let resets = quota.seconds("resets")?;
    if rpd.is_some() != resets.is_some() {
        return Err(quota.bad("resets", "must be there with `rpd`, and only then"));
    }
    Ok(Quota {
        rpm: quota.count("rpm", 1, 1_000_000_000)?,
        tpm: quota.count("tpm", 1, 1_000_000_000_000)?,
        counting,
        rpd: rpd.zip(resets),
        named: quota.maybe("named")?.unwrap_or(true),
        strangers: strangers(quota)?,
        changes: changes(quota)?,
    })
}

fn strangers(quota: &mut Members) -> Taken<Option<(f64, u64)>> {
    let Some(mut strangers) = quota.inner("strangers")? else { return Ok(None) };
    let rate = strangers.number("per_second", 1e-4, 1e3)?;
    let rate = rate.ok_or_else(|| strangers.bad("per_second", "is missing"))?;
    let tokens = strangers.count("tokens", 0, 10_000_000)?.unwrap_or(0);
    strangers.done()?;
    Ok(Some((rate, tokens)))
}

fn changes(quota: &mut Members) -> Taken<Vec<(Duration, f64)>> {
    let changes: Vec<(f64, f64)> = quota.maybe("changes")?.unwrap_or_default();
    let is_time = |at: f64| (0.0..=864_000.0).contains(&at);
    let well = changes.iter().all(|(at, factor)| is_time(*at) && (1e-3..=1e3).contains(factor));
    if !well || changes.windows(2).any(|two| two[0].0 >= two[1].0) {
        return Err(
            quota.bad("changes", "must be pairs of a time and a factor from 0.001 to 1000, in their order")
        );
    }
    Ok(changes.into_iter().map(|(at, factor)| (Duration::from_secs_f64(at), factor)).collect())
}

/// What a file calls each fault.
pub(super) const FAULTS: [(&str, Fault); 7] = [
    ("500", Fault::Status(500)),
    ("503", Fault::Status(503)),
    ("504", Fault::Status(504)),
    ("overloaded", Fault::Overloaded),
    ("bare", Fault::Bare),
    ("capacity", Fault::Capacity),
    ("hang", Fault::Hang),
];

fn trouble(trouble: &mut Members) -> Taken<Trouble> {
    let name: String = trouble.must("fault")?;
    let fault = FAULTS.iter().find(|(known, _)| *known == name).map(|(_, fault)| *fault);
    let fault = fault.ok_or_else(|| {
        trouble.bad("fault", format!("must be {}, not {name}", FAULTS.map(|(known, _)| known).join(", ")))
    })?;
    let from = trouble.seconds("from")?.unwrap_or_default();
    let until = trouble.seconds("until")?.unwrap_or(Duration::MAX);
    let every = trouble.seconds("every")?;
    if from >= until {
        return Err(trouble.bad("until", "must be after `from`"));
    }
    if every.is_some_and(|every| every < until) {
        return Err(trouble.bad("every", "must not be before `until`, which must be there with it"));
    }
    let spells: Option<(f64, f64)> = trouble.maybe("spells")?;
    if spells.is_some_and(|(off, on)| [off, on].iter().any(|mean| !(0.01..=864_000.0).contains(mean))) {
        return Err(trouble.bad("spells", "must be two times from 0.01 on: between two of them, and of one"));
    }
    Ok(Trouble {
        fault,
        share: trouble.number("share", 0.0, 1.0)?.unwrap_or(1.0),
        when: Down { from, until, every },
        spells,
        after: trouble.seconds("after")?.unwrap_or_default(),
        tenant: trouble.count("tenant", 0, 999)?.map(|tenant| tenant as usize),
        model: trouble.count("model", 0, 1)?.map(|model| model as usize),
        place: trouble.count("place", 0, 2)?.map(|place| place as usize),
    })
}
