//! The file of clients, read into its parts or one sentence with file, line and rule.

use std::collections::HashSet;
use std::ops::Range;

use http::HeaderValue;
use serde::Deserialize;
use toml::Spanned;

use super::limits::Limits;

/// Looking a token up compares it with each.
const CLIENTS: usize = 10_000;
/// A minute's requests are kept one by one.
const PER_MINUTE: u64 = 100_000;
const PER_DAY: u64 = 1_000_000_000_000;
const CONCURRENCY: u64 = 1_000_000;

/// What a file says.
#[derive(Debug)]
pub struct Parsed {
    /// With their projects; the only one may have none. At least one.
    pub keys: Vec<(Option<String>, HeaderValue)>,
    pub prices: Vec<Price>,
    pub clients: Vec<Entry>,
}

/// What a million tokens of a model cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// A name, or the beginning of one and `*`.
    pub model: String,
    pub input: f64,
    /// Of input that was cached.
    pub cached: f64,
    /// Of thoughts, too.
    pub output: f64,
}

/// One client.
#[derive(Debug)]
pub struct Entry {
    pub name: String,
    pub token_sha256: [u8; 32],
    /// `None`: every model.
    pub models: Option<Vec<String>>,
    pub limits: Limits,
    /// Of the key that its calls are made with, in the list.
    pub key: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    upstream: Option<Spanned<RawUpstream>>,
    #[serde(default)]
    key: Vec<Spanned<RawKey>>,
    #[serde(default)]
    price: Vec<Spanned<RawPrice>>,
    #[serde(default)]
    client: Vec<Spanned<RawClient>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    project: Spanned<String>,
    key_env: Option<String>,
    key_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPrice {
    model: Spanned<String>,
    input: Spanned<f64>,
    cached: Option<Spanned<f64>>,
    output: Spanned<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUpstream {
    key_env: Option<String>,
    key_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClient {
    name: Spanned<String>,
    token_sha256: Spanned<String>,
    models: Option<Spanned<Vec<String>>>,
    requests_per_minute: Option<Spanned<i64>>,
    requests_per_day: Option<Spanned<i64>>,
    concurrency: Option<Spanned<i64>>,
    tokens_per_minute: Option<Spanned<i64>>,
    tokens_per_day: Option<Spanned<i64>>,
    money_per_day: Option<Spanned<f64>>,
    project: Option<Spanned<String>>,
}

/// Reads the text of `file`.
///
/// # Errors
///
/// `FILE:LINE: RULE`, without a full stop. No value of the file is repeated but names of clients, for a token may stand where its hash
/// belongs.
pub fn parse(file: &str, text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Parsed, String> {
    let at = |span: Range<usize>, rule: &str| {
        let line = text.get(..span.start).unwrap_or(text).matches('\n').count() + 1;
        format!("{file}:{line}: {rule}")
    };
    // The message of a wrong type quotes the value.
    let raw: RawFile = toml::from_str(text).map_err(|error| {
        let message = error.message().lines().next().unwrap_or("is not TOML");
        let rule = match message.split_once("invalid type: ") {
            Some((_, rest)) => {
                format!("a value has the wrong type, {}", rest.rsplit(", ").next().unwrap_or_default())
            }
            None => message.to_owned(),
        };
        at(error.span().unwrap_or(0..0), &rule)
    })?;
    let held = |span: Range<usize>, table: &str, of_env: Option<String>, of_file: Option<String>| {
        let key = match (of_env, of_file) {
            (Some(name), None) => env(&name)
                .ok_or_else(|| at(span.clone(), &format!("the variable {name} of key_env is not set")))?,
            (None, Some(path)) => std::fs::read_to_string(&path)
                .map_err(|error| at(span.clone(), &format!("key_file {path} cannot be read: {error}")))?,
            _ => return Err(at(span, &format!("{table} must have key_env or key_file, and not both"))),
        };
        let key = key.trim();
        let sound = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        let key = HeaderValue::from_str(key).ok().filter(|_| sound);
        let mut key = key.ok_or_else(|| {
            at(span, "the upstream's key must be printable ASCII without spaces, and not empty")
        })?;
        key.set_sensitive(true);
        Ok(key)
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut keys: Vec<(Option<String>, HeaderValue)> = Vec::new();
    match (raw.upstream, raw.key) {
        (Some(upstream), others) if others.is_empty() => {
            let (span, upstream) = (upstream.span(), upstream.into_inner());
            keys.push((None, held(span, "[upstream]", upstream.key_env, upstream.key_file)?));
        }
        (Some(upstream), _) => return Err(at(upstream.span(), "[upstream] and [[key]] exclude each other")),
        (None, others) if others.is_empty() => {
            return Err(at(
                0..0,
                "[upstream] must name the upstream's key by key_env or key_file: clients' tokens are not sent to it",
            ));
        }
        (None, others) => {
            for key in others {
                let (span, key) = (key.span(), key.into_inner());
                let (place, project) = (key.project.span(), key.project.into_inner());
                let secret = ["AIza", "AQ.", "ya29."].iter().any(|start| project.starts_with(start));
                if secret || !(1..=64).contains(&project.len()) || !project.chars().all(plain) {
                    return Err(at(
                        place,
                        "project must be 1 to 64 letters, digits, '-', '_' or '.', and no API key",
                    ));
                }
                if keys.iter().any(|(other, _)| other.as_ref() == Some(&project)) {
                    return Err(at(place, &format!("project {project} has a key before: give it one")));
                }
                keys.push((Some(project), held(span, "[[key]]", key.key_env, key.key_file)?));
            }
        }
    }
    let mut prices = Vec::with_capacity(raw.price.len());
    for price in raw.price {
        let price = price.into_inner();
        let cost = |name: &str, value: &Spanned<f64>| {
            let fits = (0.0..=1_000_000.0).contains(value.get_ref());
            let rule = format!("{name} must be the price of a million tokens, from 0 to 1000000");
            if fits { Ok(*value.get_ref()) } else { Err(at(value.span(), &rule)) }
        };
        let (input, output) = (cost("input", &price.input)?, cost("output", &price.output)?);
        let cached = price.cached.as_ref().map_or(Ok(input), |value| cost("cached", value))?;
        let span = price.model.span();
        let model = price.model.into_inner();
        let stem = model.strip_suffix('*').unwrap_or(&model);
        if model.is_empty() || stem.contains('*') {
            return Err(at(span, "model must be a name, a '*' only at its end"));
        }
        prices.push(Price { model, input, cached, output });
    }
    if raw.client.is_empty() || raw.client.len() > CLIENTS {
        return Err(at(0..0, &format!("there must be from 1 to {CLIENTS} [[client]]")));
    }
    let (mut names, mut hashes) = (HashSet::new(), HashSet::new());
    let mut clients = Vec::with_capacity(raw.client.len());
    for client in raw.client {
        let (client_span, client) = (client.span(), client.into_inner());
        let (span, name) = (client.name.span(), client.name.into_inner());
        if !(1..=64).contains(&name.len()) || !name.chars().all(plain) {
            return Err(at(span, "name must be 1 to 64 letters, digits, '-', '_' or '.'"));
        }
        if !names.insert(name.clone()) {
            return Err(at(span, &format!("name {name} is taken by a client before")));
        }
        let span = client.token_sha256.span();
        let token_sha256 = hex(client.token_sha256.get_ref()).ok_or_else(|| {
            at(span.clone(), "token_sha256 must be 64 hexadecimal digits, as --hash-token prints them")
        })?;
        if !hashes.insert(token_sha256) {
            return Err(at(span, "token_sha256 is that of a client before"));
        }
        let models = match client.models {
            Some(models) => {
                let span = models.span();
                let models = models.into_inner();
                let sound = |model: &String| {
                    let stem = model.strip_suffix('*').unwrap_or(model);
                    !model.is_empty() && !stem.contains('*')
                };
                if models.is_empty() || !models.iter().all(sound) {
                    return Err(at(
                        span,
                        "models must be names, a '*' only at the end of one, and at least one",
                    ));
                }
                Some(models)
            }
            None => None,
        };
        let number = |name: &str, value: Option<Spanned<i64>>, most: u64| {
            let Some(value) = value else { return Ok(None) };
            let number = u64::try_from(*value.get_ref()).ok().filter(|n| (1..=most).contains(n));
            let rule = || at(value.span(), &format!("{name} must be a whole number from 1 to {most}"));
            number.map(Some).ok_or_else(rule)
        };
        let limits = Limits {
            requests_per_minute: number("requests_per_minute", client.requests_per_minute, PER_MINUTE)?
                .map(|n| n as u32),
            requests_per_day: number("requests_per_day", client.requests_per_day, PER_DAY)?,
            concurrency: number("concurrency", client.concurrency, CONCURRENCY)?.map(|n| n as u32),
            tokens_per_minute: number("tokens_per_minute", client.tokens_per_minute, PER_DAY)?,
            tokens_per_day: number("tokens_per_day", client.tokens_per_day, PER_DAY)?,
            money_per_day: match client.money_per_day {
                Some(money) if (0.000_001..=1e9).contains(money.get_ref()) => {
                    Some((money.get_ref() * 1e9) as u64)
                }
                Some(money) => {
                    let rule = "money_per_day must be an amount in the currency of the prices, from 0.000001 to 1000000000";
                    return Err(at(money.span(), rule));
                }
                None => None,
            },
        };
        if limits.money_per_day.is_some() && prices.is_empty() {
            return Err(at(client_span, "money_per_day needs [[price]]"));
        }
        let key = match client.project {
            None => 0,
            Some(project) => {
                let named = keys.iter().position(|(other, _)| other.as_ref() == Some(project.get_ref()));
                named.ok_or_else(|| at(project.span(), "project must be that of a [[key]]"))?
            }
        };
        clients.push(Entry { name, token_sha256, models, limits, key });
    }
    Ok(Parsed { keys, prices, clients })
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let bytes: Vec<u8> = digits?.chunks_exact(2).map(|two| two[0] << 4 | two[1]).collect();
    if text.len() == 64 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_names_file_and_line() {
        let up = "[upstream]\nkey_env = \"K\"\n";
        let hash = "a".repeat(64);
        let client =
            |more: &str| format!("{up}[[client]]\nname = \"a\"\ntoken_sha256 = \"{hash}\"\n{more}\n");
        let cases = [
            ("x = 1\n".to_owned(), "f:1: unknown field `x`"),
            (client("limit = 3"), "f:6: unknown field `limit`"),
            ("[[client]]\nname='a'\ntoken_sha256='b'\n".to_owned(), "f:1: [upstream] must name"),
            ("[upstream]\n".to_owned(), "f:1: [upstream] must have"),
            ("[upstream]\nkey_env='K'\nkey_file='b'\n".to_owned(), "f:1: [upstream] must have"),
            ("[upstream]\nkey_env='NONE'\n".to_owned(), "f:1: the variable NONE"),
            ("[upstream]\nkey_file='/nowhere/key'\n".to_owned(), "f:1: key_file /nowhere/key cannot be read"),
            ("[upstream]\nkey_env='SPACED'\n".to_owned(), "f:1: the upstream's key must be printable"),
            (up.to_owned(), "f:1: there must be from 1"),
            (client("requests_per_minute = 0"), "f:6: requests_per_minute must be"),
            (client("requests_per_day = -1"), "f:6: requests_per_day must be"),
            (client("concurrency = 1000001"), "f:6: concurrency must be"),
            (client("concurrency = 'secret'"), "f:6: a value has the wrong type, expected i64"),
            (client("models = []"), "f:6: models must be"),
            (client("models = ['a*b']"), "f:6: models must be"),
            (format!("{up}[[client]]\nname = 'a b'\ntoken_sha256 = 'x'\n"), "f:4: name must be"),
            (
                format!("{up}[[client]]\nname = 'a'\ntoken_sha256 = 'secret'\n"),
                "f:5: token_sha256 must be 64",
            ),
            (client(&format!("[[client]]\nname='a'\ntoken_sha256='{hash}'")), "f:7: name a is taken"),
            (client(&format!("[[client]]\nname='b'\ntoken_sha256='{hash}'")), "f:8: token_sha256 is that"),
            ("[upstream\n".to_owned(), "f:1: "),
            (client("tokens_per_minute = 0"), "f:6: tokens_per_minute must be"),
            (client("tokens_per_day = 0"), "f:6: tokens_per_day must be"),
            (client("money_per_day = 2.5"), "f:3: money_per_day needs [[price]]"),
            (client("money_per_day = -1.0"), "f:6: money_per_day must be"),
            (client("project = 'p'"), "f:6: project must be that of a [[key]]"),
            (client("[[key]]\nproject = 'p'\nkey_env = 'K'"), "f:1: [upstream] and [[key]] exclude"),
            ("[[key]]\nproject='a b'\nkey_env='K'\n".to_owned(), "f:2: project must be 1 to 64"),
            ("[[key]]\nproject='AIzaSecret'\nkey_env='K'\n".to_owned(), "f:2: project must be 1 to 64"),
            ("[[key]]\nproject='a'\n".to_owned(), "f:1: [[key]] must have"),
            (
                "[[key]]\nproject='a'\nkey_env='K'\n[[key]]\nproject='a'\nkey_env='K'\n".to_owned(),
                "f:5: project a has",
            ),
            (client("[[price]]\nmodel='a'\ninput=-1.0\noutput=1.0"), "f:8: input must be the price"),
            (client("[[price]]\nmodel='a'\ninput=1.0"), "f:6: missing field `output`"),
            (client("[[price]]\nmodel='*a'\ninput=1.0\noutput=1.0"), "f:7: model must be"),
        ];
        let env = |name: &str| match name {
            "K" => Some("key".to_owned()),
            "SPACED" => Some("a b".to_owned()),
            _ => None,
        };
        for (text, expected) in cases {
            let error = parse("f", &text, env).unwrap_err();
            assert!(error.starts_with(expected), "{text}\n{error}");
            assert!(!error.contains("secret") && !error.contains('\n'), "{error}");
        }
        assert_eq!(parse("f", &client("models = ['gemini-*']"), env).unwrap().clients.len(), 1);
    }
}
