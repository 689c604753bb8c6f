//! The rules of values: each reads a text, or says what the value must be. No sentence repeats the text, which may hold a secret.

use std::time::Duration;

use crate::log::Format;
use crate::upstream::Base;

/// A rule's answer; the error continues "NAME must …".
pub type Read<T> = Result<T, String>;

/// An address with a port. A name is looked up when the port is bound.
pub fn address(text: &str) -> Read<String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("must be an address with a port, such as 127.0.0.1:8080".to_owned()),
    }
}

/// An address, or `off`.
pub fn address_or_off(text: &str) -> Read<Option<String>> {
    match text {
        "off" => Ok(None),
        text => {
            let rule = |_| "must be an address with a port, such as 127.0.0.1:8081, or off".to_owned();
            address(text).map(Some).map_err(rule)
        }
    }
}

pub fn base(text: &str) -> Read<Base> {
    Base::parse(text)
}

/// Where spans are sent. A build without the feature cannot.
pub fn collector(text: &str) -> Read<Base> {
    if !cfg!(feature = "otlp") {
        return Err("is for a build with the feature otlp, and this one has none".to_owned());
    }
    Base::parse(text).map_err(|_| {
        "must be a URL such as http://127.0.0.1:4318, without user, query and fragment".to_owned()
    })
}

pub fn path(text: &str) -> Read<String> {
    if text.is_empty() || text.contains('\0') {
        Err("must be the path of a file".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

pub fn switch(text: &str) -> Read<bool> {
    match text {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => Err("must be 1 or 0".to_owned()),
    }
}

pub fn whole<const LEAST: u64, const MOST: u64>(text: &str) -> Read<u64> {
    let number = text.parse().ok().filter(|n| (LEAST..=MOST).contains(n));
    number.ok_or_else(|| format!("must be a whole number from {LEAST} to {MOST}"))
}

/// A number of requests or tokens, in the range of the rate limit.
pub fn quota(text: &str) -> Read<u64> {
    whole::<1, 1_000_000_000_000>(text)
}

/// Above zero.
pub fn seconds<const MOST: u64>(text: &str) -> Read<Duration> {
    let range = Duration::from_millis(1)..=Duration::from_secs(MOST);
    duration(text)
        .filter(|duration| range.contains(duration))
        .ok_or_else(|| format!("must be a number of seconds above 0, at most {MOST}"))
}

/// Zero or more.
pub fn seconds_or_none<const MOST: u64>(text: &str) -> Read<Duration> {
    duration(text)
        .filter(|duration| *duration <= Duration::from_secs(MOST))
        .ok_or_else(|| format!("must be a number of seconds from 0 to {MOST}"))
}

fn duration(text: &str) -> Option<Duration> {
    text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

pub fn log(text: &str) -> Read<Format> {
    match text {
        "json" => Ok(Format::Json),
        "text" => Ok(Format::Text),
        "off" => Ok(Format::Off),
        _ => Err("must be json, text or off".to_owned()),
    }
}

/// Whether a layer acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acts {
    On,
    /// It tells what it would do, and lets everything through.
    Observe,
    Off,
}

pub fn acts(text: &str) -> Read<Acts> {
    match text {
        "on" => Ok(Acts::On),
        "observe" => Ok(Acts::Observe),
        "off" => Ok(Acts::Off),
        _ => Err("must be on, observe or off".to_owned()),
    }
}

/// What becomes of a stream that breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumes {
    Off,
    Continue,
    Restart,
}

pub fn resumes(text: &str) -> Read<Resumes> {
    match text {
        "off" => Ok(Resumes::Off),
        "continue" => Ok(Resumes::Continue),
        "restart" => Ok(Resumes::Restart),
        _ => Err("must be off, continue or restart".to_owned()),
    }
}

/// In whose form errors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Google,
    OpenAi,
}

pub fn form(text: &str) -> Read<Form> {
    match text {
        "google" => Ok(Form::Google),
        "openai" => Ok(Form::OpenAi),
        _ => Err("must be google or openai".to_owned()),
    }
}

/// The models to ask where one cannot answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub model: String,
    pub then: Vec<String>,
}

/// Chains, separated by `;`.
pub fn chains(text: &str) -> Read<Vec<Chain>> {
    let mut chains: Vec<Chain> = Vec::new();
    for text in text.split(';').filter(|text| !text.trim().is_empty()) {
        let chain = chain(text)?;
        if chains.iter().any(|other| other.model == chain.model) {
            return Err(format!("must name {} once: give it one chain", chain.model));
        }
        chains.push(chain);
    }
    Ok(chains)
}

fn chain(text: &str) -> Read<Chain> {
    let name = |name: &str| {
        let name = name.trim();
        let name = name.strip_prefix("models/").unwrap_or(name);
        // What goes into a path must not be able to leave its place in it.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let sound = !name.is_empty() && !name.starts_with('.') && name.chars().all(plain);
        sound.then(|| name.to_owned())
    };
    let parsed = text.split_once('=').and_then(|(model, then)| {
        let then: Option<Vec<String>> = then.split(',').map(name).collect();
        Some(Chain { model: name(model)?, then: then? })
    });
    let chain = parsed.ok_or(
        "must be a model and those that stand in for it, such as gemini-3.8-flash=gemini-3.5-flash-lite",
    )?;
    let mut names = vec![&chain.model];
    for next in &chain.then {
        if names.contains(&next) {
            return Err(format!("must name {next} once in a chain"));
        }
        names.push(next);
    }
    Ok(chain)
}
