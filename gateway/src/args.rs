//! The command line and the environment, read into a [`Command`] or one sentence that says what is wrong with them.

use std::ffi::OsString;
use std::time::Duration;

use lexopt::{Arg, Parser};

use crate::history;
use crate::log::Format;
use crate::quota;
use crate::upstream::Base;

pub const HELP: &str = "\
The gateway of tower-gemini: one process in front of Gemini, for any SDK.

Usage: tower-gemini-gateway [OPTIONS]

  --listen ADDR            where to listen                [127.0.0.1:8080]
  --upstream URL           whom to ask
                           [https://generativelanguage.googleapis.com]
  --simulate               ask a simulator of Gemini in this process instead
  --requests-per-minute N  the quota of each model         [none, learnt]
  --tokens-per-minute N    the same, in input tokens       [none, learnt]
  --requests-per-day N     the same, until midnight Pacific       [none]
  --quota-store URL        keep these quotas together with other gateways, in
                           Redis or Valkey: redis://[user:password@]host[:port]
  --quota-project NAME     all calls are of the project that is called so
  --quota-secret TEXT      or: tell callers' keys apart, by a hash with this
                           secret; the same for all gateways, best given as
                           GATEWAY_QUOTA_SECRET
  --quota-outage MODE      without the store: strict (less and less), share
                           (a part for each), closed or local       [strict]
  --quota-members N        how many gateways there are, for share
  --attempts N             in all, the first included, 1 to 100      [5]
  --deadline SECONDS       for all attempts and waits together; one attempt
                           may take three quarters of it until its head [120]
  --breaker-open SECONDS   how long a circuit stays open at first    [2]
  --fallback A=B,C         ask B, then C, where A cannot answer, and say so
                           in x-gemini-model; may be repeated
  --clients FILE           who may call, by tokens of their own; the file also
                           names the upstream's key; SIGHUP rereads it  [none]
  --hash-token             print the SHA-256 of a token read from stdin
  --log json|text|off      one line for each request on stdout    [text]
  --history FILE           keep a record of each call in SQLite   [none]
  --history-mib N          most that its records use              [1024]
  --history-days N         the age at which they go                 [30]
  -h, --help               this text

Each option is also an environment variable: GATEWAY_LISTEN for --listen and
so on; GATEWAY_SIMULATE is 1 or 0, GATEWAY_FALLBACK is A=B,C;D=E. An option
wins over its variable.

Besides what it passes on it answers /healthz, /metrics (Prometheus), /status
(JSON) and /page, for browsers. SIGTERM and SIGINT let calls under way finish,
for 30 s.
Exit code: 0 stopped, 2 wrong usage or a port that cannot be had.
";

const LISTEN: &str = "127.0.0.1:8080";
const UPSTREAM: &str = "https://generativelanguage.googleapis.com";

#[derive(Debug)]
pub enum Command {
    Help,
    /// Print the hash of a token.
    HashToken,
    /// Boxed, since the other one is nothing.
    Run(Box<Settings>),
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: String,
    pub whither: Whither,
    pub requests_per_minute: Option<u64>,
    pub tokens_per_minute: Option<u64>,
    pub requests_per_day: Option<u64>,
    pub attempts: u32,
    pub deadline: Duration,
    pub breaker_open: Duration,
    pub fallback: Vec<Chain>,
    pub log: Format,
    /// The file of clients.
    pub clients: Option<String>,
    pub history: Option<history::Settings>,
    pub quota: Option<quota::Settings>,
}

/// Whom the gateway asks.
#[derive(Clone, Debug)]
pub enum Whither {
    To(Base),
    Simulator,
}

/// The models to ask where one cannot answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub model: String,
    pub then: Vec<String>,
}

/// What one source says; the options, or the variables.
#[derive(Default)]
struct Draft {
    listen: Option<String>,
    whither: Option<Whither>,
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
    requests_per_day: Option<u64>,
    attempts: Option<u32>,
    deadline: Option<Duration>,
    breaker_open: Option<Duration>,
    fallback: Vec<Chain>,
    log: Option<Format>,
    clients: Option<String>,
    history: Option<String>,
    history_mib: Option<u64>,
    history_days: Option<u64>,
    quota: quota::Draft,
}

const OPTIONS: [&str; 15] = [
    "listen",
    "upstream",
    "requests-per-minute",
    "tokens-per-minute",
    "requests-per-day",
    "attempts",
    "deadline",
    "breaker-open",
    "fallback",
    "log",
    "clients",
    "history",
    "history-mib",
    "history-days",
    "simulate",
];

fn options() -> impl Iterator<Item = &'static str> {
    OPTIONS.into_iter().chain(quota::OPTIONS)
}

/// The error is a sentence without its full stop.
///
/// Variables that begin with `GATEWAY_` and are none of ours are left alone: orchestrators set some for a service of
/// that name.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, String> {
    let mut said = Draft::default();
    let mut parser = Parser::from_args(args);
    while let Some(arg) = parser.next().map_err(misread)? {
        let name = match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Long("hash-token") => return Ok(Command::HashToken),
            Arg::Long("simulate") => {
                said.set("simulate", "--simulate", "1")?;
                continue;
            }
            Arg::Long(name) => match options().find(|option| *option == name) {
                Some(name) => name,
                None => return Err(Arg::Long(name).unexpected().to_string()),
            },
            // An URL whose option was forgotten may hold a password.
            Arg::Value(value) if value.to_string_lossy().contains(['@', ':']) => {
                return Err("there is a value that belongs to no option".to_owned());
            }
            other => return Err(other.unexpected().to_string()),
        };
        let option = format!("--{name}");
        let value = value(&mut parser, &option)?;
        said.set(name, &option, &value)?;
    }
    let mut around = Draft::default();
    for name in options() {
        let variable = format!("GATEWAY_{}", name.to_uppercase().replace('-', "_"));
        if let Some(value) = env(&variable).filter(|value| !value.is_empty()) {
            let value = value.into_string().map_err(|_| format!("{variable} is not valid UTF-8"))?;
            around.set(name, &variable, &value)?;
        }
    }
    said.or(around).map(|settings| Command::Run(Box::new(settings)))
}

/// Says no value.
fn misread(error: lexopt::Error) -> String {
    match error {
        lexopt::Error::UnexpectedValue { option, .. } => format!("{option} takes no value"),
        error => error.to_string(),
    }
}

impl Draft {
    /// `source` is how the user called it.
    fn set(&mut self, name: &str, source: &str, value: &str) -> Result<(), String> {
        let value = value.trim();
        match name {
            "listen" => self.listen = Some(address(source, value)?),
            "upstream" => {
                let base = Base::parse(value).map_err(|why| format!("{source} {why}"))?;
                self.ask(Whither::To(base))?;
            }
            "simulate" => match value {
                "1" | "true" | "yes" => self.ask(Whither::Simulator)?,
                "0" | "false" | "no" => {}
                _ => return Err(format!("{source} must be 1 or 0")),
            },
            "requests-per-minute" => self.requests_per_minute = Some(quota(source, value)?),
            "tokens-per-minute" => self.tokens_per_minute = Some(quota(source, value)?),
            "requests-per-day" => self.requests_per_day = Some(quota(source, value)?),
            "attempts" => {
                let attempts = value.parse().ok().filter(|n| (1..=100).contains(n));
                self.attempts =
                    Some(attempts.ok_or_else(|| format!("{source} must be a whole number from 1 to 100"))?);
            }
            "deadline" => self.deadline = Some(seconds(source, value, 86_400)?),
            "breaker-open" => self.breaker_open = Some(seconds(source, value, 3600)?),
            "clients" if value.is_empty() => return Err(format!("{source} must be the path of a file")),
            "clients" => self.clients = Some(value.to_owned()),
            "history" if value.is_empty() => return Err(format!("{source} must be the path of a file")),
            "history" => self.history = Some(value.to_owned()),
            "history-mib" => self.history_mib = Some(whole(source, value, 1_000_000)?),
            "history-days" => self.history_days = Some(whole(source, value, 3660)?),
            name if quota::OPTIONS.contains(&name) => self.quota.set(name, source, value)?,
            "fallback" => {
                for text in value.split(';').filter(|text| !text.trim().is_empty()) {
                    let chain = chain(source, text)?;
                    if self.fallback.iter().any(|other| other.model == chain.model) {
                        return Err(format!("{source} names {} twice: give it one chain", chain.model));
                    }
                    self.fallback.push(chain);
                }
            }
            _ => {
                self.log = Some(match value {
                    "json" => Format::Json,
                    "text" => Format::Text,
                    "off" => Format::Off,
                    _ => return Err(format!("{source} must be json, text or off")),
                });
            }
        }
        Ok(())
    }

    fn ask(&mut self, whither: Whither) -> Result<(), String> {
        let clash = match (&self.whither, &whither) {
            (Some(before), now) => std::mem::discriminant(before) != std::mem::discriminant(now),
            (None, _) => false,
        };
        self.whither = Some(whither);
        if clash { Err("--upstream and --simulate exclude each other".to_owned()) } else { Ok(()) }
    }

    /// What this one does not say, the other one may.
    fn or(self, other: Self) -> Result<Settings, String> {
        let whither = match self.whither.or(other.whither) {
            Some(whither) => whither,
            None => Whither::To(Base::parse(UPSTREAM)?),
        };
        let mib = self.history_mib.or(other.history_mib);
        let days = self.history_days.or(other.history_days);
        let history = self.history.or(other.history).map(|file| {
            let mut settings = history::Settings::new(file);
            settings.max_bytes = mib.map_or(settings.max_bytes, |mib| mib << 20);
            settings.max_age = days.map_or(settings.max_age, |days| Duration::from_secs(days * 86_400));
            settings
        });
        let clients = self.clients.or(other.clients);
        Ok(Settings {
            quota: self.quota.or(other.quota, clients.is_some())?,
            clients,
            history,
            listen: self.listen.or(other.listen).unwrap_or_else(|| LISTEN.to_owned()),
            whither,
            requests_per_minute: self.requests_per_minute.or(other.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.or(other.tokens_per_minute),
            requests_per_day: self.requests_per_day.or(other.requests_per_day),
            attempts: self.attempts.or(other.attempts).unwrap_or(5),
            deadline: self.deadline.or(other.deadline).unwrap_or(Duration::from_secs(120)),
            breaker_open: self.breaker_open.or(other.breaker_open).unwrap_or(Duration::from_secs(2)),
            fallback: if self.fallback.is_empty() { other.fallback } else { self.fallback },
            log: self.log.or(other.log).unwrap_or(Format::Text),
        })
    }
}

/// The value of an option. `--log --simulate` is a forgotten value.
fn value(parser: &mut Parser, option: &str) -> Result<String, String> {
    let text = |value: OsString| value.into_string().map_err(|_| "an argument is not valid UTF-8".to_owned());
    if let Some(value) = parser.optional_value() {
        return text(value);
    }
    let value = parser.value().map_err(|_| format!("{option} needs a value")).and_then(text)?;
    if value.starts_with("--") { Err(format!("{option} needs a value")) } else { Ok(value) }
}

/// A name is looked up when the port is bound.
fn address(source: &str, value: &str) -> Result<String, String> {
    match value.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(value.to_owned()),
        _ => Err(format!("{source} must be an address with a port, such as {LISTEN}")),
    }
}

fn whole(source: &str, value: &str, most: u64) -> Result<u64, String> {
    let number = value.parse().ok().filter(|n| (1..=most).contains(n));
    number.ok_or_else(|| format!("{source} must be a whole number from 1 to {most}"))
}

fn quota(source: &str, value: &str) -> Result<u64, String> {
    // The layer's own range.
    let number = value.parse().ok().filter(|n| (1..=1_000_000_000_000).contains(n));
    number.ok_or_else(|| format!("{source} must be a whole number above 0"))
}

fn seconds(source: &str, value: &str, most: u64) -> Result<Duration, String> {
    let range = Duration::from_millis(1)..=Duration::from_secs(most);
    let duration = value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration
        .filter(|duration| range.contains(duration))
        .ok_or_else(|| format!("{source} must be a number of seconds above 0, at most {most}"))
}

fn chain(source: &str, text: &str) -> Result<Chain, String> {
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
    let chain = parsed.ok_or_else(|| {
        format!(
            "{source} must be a model and those that stand in for it, such as gemini-3.8-flash=gemini-3.5-flash-lite"
        )
    })?;
    let mut names = vec![&chain.model];
    for next in &chain.then {
        if names.contains(&next) {
            return Err(format!("{source} names {next} twice in one chain"));
        }
        names.push(next);
    }
    Ok(chain)
}
