//! A scenario as a file that can be run again: what `scenario.rs` reads, without the members that have their defaults.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::quota::{Counting, Quota};
use crate::server::{Down, Model, Trouble};
use crate::storm::scenario::{Load, Measure, Scenario};
use crate::storm::scenario_server::FAULTS;

/// The members of an object, those left out that have their default.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn put_if(&mut self, is_set: bool, name: &str, value: impl Into<Value>) {
        if is_set {
            self.put(name, value);
        }
    }

    fn put_some<T: Into<Value>>(&mut self, name: &str, value: Option<T>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }
}

/// Whole seconds without a fraction, to be read by people.
fn secs(duration: Duration) -> Value {
    if duration.subsec_nanos() == 0 { json!(duration.as_secs()) } else { json!(duration.as_secs_f64()) }
}

fn some_secs(duration: Duration) -> Option<Value> {
    (!duration.is_zero()).then(|| secs(duration))
}

/// The text of its file.
pub(crate) fn text(day: &Scenario) -> String {
    let mut file = Object::default();
    file.put("load", load(&day.load));
    file.put("server", server(&day.model));
    file.put("deadline", secs(day.deadline));
    file.put("attempt_timeout", secs(day.attempt_timeout));
    let (from, until) = day.counted;
    file.put_if(until != Duration::MAX, "counted", json!([from.as_secs_f64(), until.as_secs_f64()]));
    file.put_some("well", some_secs(day.well));
    file.put_if(day.measure == Measure::Makespan, "measure", "makespan");
    let told = [("rpm", day.told.rpm), ("tpm", day.told.tpm), ("rpd", day.told.rpd)];
    let mut known = Object::default();
    told.into_iter().for_each(|(name, value)| known.put_some(name, value));
    file.put_if(!known.0.is_empty(), "told", known.0);
    if let Some(clock) = &day.clock {
        let start = jiff::Timestamp::from_second(clock.start.as_secs() as i64).expect("it was read");
        file.put("clock", json!({ "start": start.to_string(), "jumps": clock.jumps }));
    }
    let rest = serde_json::to_string_pretty(&Value::Object(file.0)).expect("its keys are strings");
    // What a person reads first comes first.
    rest.replacen("{\n", &format!("{{\n  \"title\": {},\n", json!(day.title)), 1) + "\n"
}

fn load(load: &Load) -> Map<String, Value> {
    let mut object = Object::default();
    object.put_if(load.processes != [1], "processes", load.processes.clone());
    object.put_if(load.burst > 0, "burst", load.burst);
    if load.rate > 0.0 {
        object.put("per_second", load.rate);
        object.put("for", secs(load.horizon));
    }
    object.put_if(!load.tenants.is_empty(), "tenants", load.tenants.clone());
    object.put_if(!load.gateway, "gateway", false);
    if let Some(prompts) = load.prompts {
        object.put(
            "prompts",
            json!({
                "median_tokens": prompts.median, "sigma": prompts.sigma, "most_tokens": prompts.most,
                "noise": prompts.noise, "known": prompts.known,
            }),
        );
    }
    if let Some(abandon) = load.abandon {
        object.put("abandon", json!({ "share": abandon.share, "within": secs(abandon.within) }));
    }
    object.put_if(load.labels, "labels", true);
    object.put_some("uncounted", load.uncounted);
    object.put_if(load.streams > 0.0, "streams", load.streams);
    object.put_if(load.models > 1, "models", load.models);
    object.put_if(load.places > 1, "places", load.places);
    object.put_if(load.outside > 0, "outside", load.outside);
    object.0
}

fn server(model: &Model) -> Map<String, Value> {
    let mut object = Object::default();
    object.put("latency", secs(model.latency));
    if let Some(tail) = model.tail {
        object.put("tail", json!({ "sigma": tail.sigma, "share": tail.share, "factor": tail.factor }));
    }
    object.put_some("one_by_one", model.one_by_one.map(secs));
    object.put_if(model.falling > 0.0, "falling", model.falling);
    object.put_if(model.queue != usize::MAX, "queue", model.queue);
    if let Some((from, until, factor)) = model.slow {
        object.put("slow", json!({ "from": secs(from), "until": secs(until), "factor": factor }));
    }
    if !model.down.until.is_zero() {
        object.put("down", span(&model.down).0);
    }
    object.put_if(model.errors > 0.0, "errors", model.errors);
    object.put_some("quota", model.quota.as_ref().map(quota));
    if let Some(pool) = model.pool {
        object.put("pool", json!({ "workers": pool.workers, "each": secs(pool.each), "sigma": pool.sigma }));
    }
    object.put_some("at_once", model.sharing.map(|sharing| sharing.at_once));
    object.put_if(model.drops, "drops", true);
    let troubles: Vec<_> = model.troubles.iter().map(trouble).collect();
    object.put_if(!troubles.is_empty(), "troubles", troubles);
    if let Some(streams) = model.streams {
        object.put(
            "streams",
            json!({
                "lasts": secs(streams.lasts), "sigma": streams.sigma, "events": streams.events,
                "stalls": streams.stalls,
            }),
        );
    }
    object.put_if(model.paired, "paired", true);
    object.0
}

fn span(when: &Down) -> Object {
    let mut object = Object::default();
    object.put_some("from", some_secs(when.from));
    object.put_if(when.until != Duration::MAX, "until", secs(when.until));
    object.put_some("every", when.every.map(secs));
    object
}

fn trouble(trouble: &Trouble) -> Map<String, Value> {
    let mut object = span(&trouble.when);
    let name = FAULTS.iter().find(|(_, fault)| *fault == trouble.fault).map(|(name, _)| *name);
    object.put("fault", name.expect("each fault has a name"));
    object.put_if(trouble.share < 1.0, "share", trouble.share);
    object.put_some("spells", trouble.spells.map(|(off, on)| json!([off, on])));
    object.put_some("after", some_secs(trouble.after));
    object.put_some("tenant", trouble.tenant);
    object.put_some("model", trouble.model);
    object.0
}

fn quota(quota: &Quota) -> Map<String, Value> {
    let mut object = Object::default();
    object.put_some("rpm", quota.rpm);
    object.put_some("tpm", quota.tpm);
    match quota.counting {
        Counting::Sliding => {}
        Counting::Fixed(phase) => {
            object.put("counting", "fixed");
            object.put_some("phase", some_secs(phase));
        }
        Counting::Bucket => object.put("counting", "bucket"),
    }
    if let Some((rpd, resets)) = quota.rpd {
        object.put("rpd", rpd);
        object.put("resets", secs(resets));
    }
    object.put_if(!quota.named, "named", false);
    if let Some((rate, tokens)) = quota.strangers {
        object.put("strangers", json!({ "per_second": rate, "tokens": tokens }));
    }
    let changes: Vec<_> = quota.changes.iter().map(|(at, factor)| json!([secs(*at), factor])).collect();
    object.put_if(!changes.is_empty(), "changes", changes);
    object.0
}
