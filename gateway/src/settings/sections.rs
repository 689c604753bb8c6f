//! The sections of the library in the file: `[retry]`, `[rate_limit]` and so on, read into [`StackConfig`] by its own types.
//!
//! A member that is also a setting of the gateway, such as `retry.attempts` and `attempts`, is that setting by another name: it is said once, an
//! option and a variable win over it, and `--check` prints it there. All other members go to the layers as they are.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use tower_gemini::ConfigError;
use tower_gemini::config::{HumanDuration, OrOff, StackConfig};
use tower_gemini::rate_limit::AdmissionMode;
use tower_gemini::resume::ResumeMode;

use super::declared::find;
use super::sources::{Source, Values, nearest_of};

/// Sections that need what no file can say, or that the gateway does by itself.
const NOT_HERE: [(&str, &str); 6] = [
    ("preset", "is that of a gateway, and no other"),
    ("replay", "is --replay-body-mib and --replay-mib here"),
    (
        "preflight",
        "is not in the gateway: it reads bodies while they are sent, and those here are whole before",
    ),
    ("coalesce", "is not in the gateway: it needs a key function"),
    ("last_good", "is not in the gateway: it needs a key function"),
    ("places", "is not in the gateway: it has one upstream"),
];

/// What the file says in sections, but for what is a setting of the gateway.
#[derive(Clone, Debug, Default)]
pub struct Sections {
    pub config: StackConfig,
    /// Of each member, by `section.member`.
    lines: BTreeMap<String, usize>,
}

impl Sections {
    /// Whether a section of the file has this name.
    pub fn has(name: &str) -> bool {
        StackConfig::members().any(|(section, _)| section == name)
            || NOT_HERE.iter().any(|(not, _)| *not == name)
    }

    /// The line of a member.
    pub fn line(&self, section: &str, member: &str) -> Option<usize> {
        self.lines.get(&format!("{section}.{member}")).copied()
    }

    /// Reads the sections of a file. `line` is that of a byte of the file.
    ///
    /// # Errors
    ///
    /// The line, and the rule.
    pub fn read(tables: DeTable<'_>, line: &dyn Fn(usize) -> usize) -> Result<Self, (usize, String)> {
        let mut all = Self::default();
        for (name, value) in &tables {
            let (section, at) = (name.get_ref(), line(name.span().start));
            if let Some((_, why)) = NOT_HERE.iter().find(|(not, _)| **not == **section) {
                return Err((at, format!("{section} {why}")));
            }
            let DeValue::Table(table) = value.get_ref() else {
                return Err((at, format!("{section} must be a section, such as [{section}]")));
            };
            let members = StackConfig::members().find(|(other, _)| other == section);
            for member in table.keys() {
                let (shown, at) = (member.get_ref(), line(member.span().start));
                if members.is_none_or(|(_, members)| !members.contains(&&**shown)) {
                    let near = members.and_then(|(_, members)| nearest_of(shown, members.iter().copied()));
                    let near = near.map(|near| format!("; {section}.{near} is one")).unwrap_or_default();
                    let shown: String = shown.chars().filter(|c| !c.is_control()).take(64).collect();
                    return Err((at, format!("there is no setting {section}.{shown}{near}")));
                }
                all.lines.insert(format!("{section}.{shown}"), at);
            }
        }
        let whole = Spanned::new(0..0, tables);
        all.config = StackConfig::deserialize(toml::de::Deserializer::from(whole)).map_err(|error| {
            let at = line(error.span().map_or(0, |span| span.start));
            let said = all.lines.iter().rfind(|(_, line)| **line == at).map_or("a section", |(name, _)| name);
            // Of the store nothing is repeated: its URL may hold a password.
            let rule =
                error.message().lines().next().filter(|_| !said.starts_with("store.")).unwrap_or_default();
            match rule.strip_prefix("must ") {
                Some(rule) => (at, format!("{said} must {rule}")),
                None if rule.is_empty() => (at, format!("{said} has a value that is none of its kind")),
                None => (at, format!("{said} is wrong: {rule}")),
            }
        })?;
        Ok(all)
    }

    /// Hands on what are settings of the gateway.
    ///
    /// # Errors
    ///
    /// The rule that a value breaks, after its place.
    pub fn say(&mut self, values: &mut Values) -> Result<(), String> {
        let Self { config, lines } = self;
        let at = |name: &str| lines.get(name).copied().unwrap_or(1);
        let mut say = |name: &'static str, section: &'static str, text: String| {
            let Some(declared) = find(name) else { return Ok(()) };
            let place = Source::Section(at(section), section);
            if matches!(values.source(name), Some(Source::File(_) | Source::Section(..))) {
                return Err(values.clash(&place, name));
            }
            values.say(declared, place, &text)
        };
        let secs = |duration: HumanDuration| duration.get().as_secs_f64().to_string();
        let whole = |number: Option<u64>| number.map(|number| number.to_string());
        for (name, section, text) in [
            ("attempts", "retry.attempts", config.retry.attempts.take().map(|n| n.to_string())),
            (
                "empty_answers",
                "retry.empty_answers",
                config.retry.empty_answers.take().map(|n| n.to_string()),
            ),
            ("deadline", "deadline.within", config.deadline.within.take().map(secs)),
            ("flex_deadline", "deadline.flex", config.deadline.flex.take().map(secs)),
            (
                "requests_per_minute",
                "rate_limit.requests_per_minute",
                whole(config.rate_limit.requests_per_minute.take()),
            ),
            (
                "tokens_per_minute",
                "rate_limit.input_tokens_per_minute",
                whole(config.rate_limit.input_tokens_per_minute.take()),
            ),
            (
                "requests_per_day",
                "rate_limit.requests_per_day",
                whole(config.rate_limit.requests_per_day.take()),
            ),
            (
                "quota_outage",
                "store.outage",
                config.store.outage.take().map(|outage| format!("{outage:?}").to_lowercase()),
            ),
            ("quota_members", "store.members", config.store.members.take().map(|n| n.to_string())),
            ("quota_store", "store.url", config.store.url.take().map(|url| url.0)),
        ] {
            if let Some(text) = text {
                say(name, section, text)?;
            }
        }
        match config.timeout.first_byte.take() {
            Some(OrOff::Is(limit)) => say("first_byte", "timeout.first_byte", secs(limit))?,
            // An attempt without an end is not for a gateway: the deadline is what is left.
            Some(OrOff::Off) => say("first_byte", "timeout.first_byte", "86400".to_owned())?,
            None => {}
        }
        match config.timeout.idle.take() {
            Some(OrOff::Is(limit)) => say("idle", "timeout.idle", secs(limit))?,
            Some(OrOff::Off) => say("idle_mode", "timeout.idle", "off".to_owned())?,
            None => {}
        }
        match config.rate_limit.max_wait.take() {
            Some(OrOff::Is(wait)) => say("quota_wait", "rate_limit.max_wait", secs(wait))?,
            Some(OrOff::Off) => say("quota_wait", "rate_limit.max_wait", "86400".to_owned())?,
            None => {}
        }
        match config.rate_limit.mode.take() {
            Some(AdmissionMode::Observe) => say("quota", "rate_limit.mode", "observe".to_owned())?,
            Some(AdmissionMode::Reject) => say("quota_wait", "rate_limit.mode", "0".to_owned())?,
            _ => {}
        }
        if config.rate_limit.enabled.take() == Some(false) {
            say("quota", "rate_limit.enabled", "off".to_owned())?;
        }
        for (name, observes, enabled, of) in [
            (
                "breaker",
                "circuit_breaker.observe_only",
                "circuit_breaker.enabled",
                (config.circuit_breaker.observe_only.take(), config.circuit_breaker.enabled.take()),
            ),
            (
                "governor",
                "concurrency.observe_only",
                "concurrency.enabled",
                (config.concurrency.observe_only.take(), config.concurrency.enabled.take()),
            ),
        ] {
            match of {
                (_, Some(false)) => say(name, enabled, "off".to_owned())?,
                (Some(true), _) => say(name, observes, "observe".to_owned())?,
                _ => {}
            }
        }
        match (config.resume.mode.take(), config.resume.enabled.take()) {
            (_, Some(false)) => say("resume_streams", "resume.enabled", "off".to_owned())?,
            (Some(ResumeMode::Continue), _) => say("resume_streams", "resume.mode", "continue".to_owned())?,
            (Some(ResumeMode::Restart), _) => say("resume_streams", "resume.mode", "restart".to_owned())?,
            _ => {}
        }
        if let Some(chain) = config.fallback.chain.take() {
            let chains: Vec<String> =
                chain.iter().map(|(model, then)| format!("{model}={}", then.join(","))).collect();
            say("fallback", "fallback.chain", chains.join(";"))?;
        }
        Ok(())
    }

    /// What a layer does not take, after its place.
    pub fn rule(&self, file: &str, section: &str, error: &ConfigError) -> String {
        let name = format!("{section}.{}", error.field());
        match self.lines.get(&name) {
            Some(line) => format!("{file}:{line}: {name} {}", error.rule()),
            None => format!("{name} {}", error.rule()),
        }
    }
}

/// How long a circuit may stay open, by the section; first and most.
pub fn open_time(config: &StackConfig) -> (Option<Duration>, Option<Duration>) {
    let open = config.circuit_breaker.open_time.as_ref();
    let get = |of: Option<HumanDuration>| of.map(HumanDuration::get);
    open.map_or((None, None), |open| (get(open.first), get(open.most)))
}
