//! What the gateway is told: options, variables and one file, read into [`Settings`] or one sentence that says what is wrong.
//!
//! `declared.rs` declares each setting once, `sections.rs` has the library's own, `rules.rs` has the rules of values, `sources.rs` says who is believed.

mod declared;
pub mod rules;
pub mod sections;
mod sources;

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction};

pub use self::declared::{DECLARED, Declared, Settings, find};
pub use self::rules::{Acts, Chain, Form, Resumes};
pub use self::sources::{Source, Values};
use crate::upstream::Base;
use crate::{history, quota};

const AFTER: &str = "\
Each option is also a variable, GATEWAY_LISTEN for --listen and so on, and a
member of the file of --config, listen = \"127.0.0.1:8080\". An option wins over
its variable, and that over the file. GATEWAY_FALLBACK is A=B,C;D=E.

SIGHUP reads the file, the clients and the certificate again; what is wrong
there is said on stderr, and everything stays as it was. SIGTERM and SIGINT let
calls under way finish; a second one ends the process at once.
Exit code: 0 stopped, 2 wrong settings or a port that cannot be had.
";

#[derive(Debug)]
pub enum Command {
    /// Print this.
    Help(String),
    /// Print the hash of a token.
    HashToken,
    /// Print what is in force, and where it is from.
    Check(Box<Settings>),
    Run(Box<Settings>, Origin),
}

/// The command line and the environment, to read the file again with.
#[derive(Clone)]
pub struct Origin {
    args: Vec<OsString>,
    env: HashMap<String, OsString>,
}

/// Both may hold secrets.
impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").finish_non_exhaustive()
    }
}

impl Origin {
    /// What the same command line, environment and file say now.
    ///
    /// # Errors
    ///
    /// The rule that is broken, or the setting that only a restart changes.
    pub fn again(&self, before: &Settings) -> Result<Settings, String> {
        let command = parse(self.args.iter().cloned(), |name| self.env.get(name).cloned())?;
        let Command::Run(now, _) = command else { return Err("there is nothing to run".to_owned()) };
        for declared in DECLARED.iter().filter(|declared| declared.fixed) {
            if now.values.get(declared.name) != before.values.get(declared.name) {
                return Err(now.values.rule(declared.name, "changes with a restart only"));
            }
        }
        let (is, was) = (&now.values.sections().config, &before.values.sections().config);
        if is.rate_limit != was.rate_limit || is.store != was.store {
            return Err("[rate_limit] and [store] change with a restart only".to_owned());
        }
        Ok(*now)
    }
}

/// Whom the gateway asks.
#[derive(Clone, Debug)]
pub enum Whither {
    To(Base),
    Simulator,
}

fn command() -> clap::Command {
    let mut command = clap::Command::new("tower-gemini-gateway")
        .about("The gateway of tower-gemini: one process in front of Gemini, for any SDK.")
        .override_usage("tower-gemini-gateway [OPTIONS]")
        .after_help(AFTER)
        .disable_version_flag(true)
        .term_width(80)
        .no_binary_name(true);
    let own = |name: &'static str| Arg::new(name).long(name);
    command = command
        .arg(
            own("config").value_name("FILE").help("read settings from this file (TOML), and again on SIGHUP"),
        )
        .arg(
            own("check")
                .action(ArgAction::SetTrue)
                .help("print every setting, its value and where it is from, and stop"),
        )
        .arg(
            own("hash-token").action(ArgAction::SetTrue).help("print the SHA-256 of a token read from stdin"),
        );
    for declared in DECLARED {
        let mut help = declared.help.trim().to_owned();
        let shown = |text: &&str| !text.is_empty() && !declared.value.is_empty();
        if let Some(default) = declared.default.filter(shown) {
            help += &format!(" [{default}]");
        }
        let arg = Arg::new(declared.name)
            .long(declared.option())
            .help(help)
            .help_heading(declared.heading)
            .allow_negative_numbers(true);
        command = command.arg(match (declared.value, declared.list) {
            ("", _) => {
                arg.num_args(0..=1).require_equals(true).default_missing_value("1").hide_possible_values(true)
            }
            (value, true) => arg.value_name(value).action(ArgAction::Append),
            (value, false) => arg.value_name(value),
        });
    }
    command
}

/// The text of `--help`.
pub fn help() -> String {
    command().render_help().to_string()
}

/// The error is a sentence without its full stop.
///
/// Variables that begin with `GATEWAY_` and are none of ours are left alone: orchestrators set some for a service of
/// that name.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, String> {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = match command().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return Ok(Command::Help(help())),
        Err(error) => return Err(sentence(&error)),
    };
    if matches.get_flag("hash-token") {
        return Ok(Command::HashToken);
    }
    let mut values = Values::default();
    let mut around = HashMap::new();
    let mut variable = |name: &str| -> Result<Option<String>, String> {
        let Some(value) = env(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        around.insert(name.to_owned(), value.clone());
        value.into_string().map(Some).map_err(|_| format!("{name} is not valid UTF-8"))
    };
    for declared in DECLARED {
        if let Some(texts) = matches.get_many::<String>(declared.name) {
            let texts: Vec<&str> = texts.map(String::as_str).collect();
            values.say(declared, Source::Option, &texts.join(";"))?;
        }
        if let Some(text) = variable(&declared.variable())? {
            values.say(declared, Source::Variable, &text)?;
        }
    }
    let config = match matches.get_one::<String>("config") {
        Some(file) => Some(file.clone()),
        None => variable("GATEWAY_CONFIG")?,
    };
    if let Some(file) = config {
        let text =
            std::fs::read_to_string(&file).map_err(|error| format!("{file}: cannot be read: {error}"))?;
        values.read(&file, &text)?;
    }
    if values.get("simulate").is_some_and(|text| rules::switch(text) == Ok(false)) {
        values.forget("simulate");
    }
    values.exclusive("upstream", "simulate")?;
    values.exclusive("quota_project", "quota_secret")?;
    let settings = Box::new(Settings::read(values)?);
    settings.together()?;
    match matches.get_flag("check") {
        true => Ok(Command::Check(settings)),
        false => Ok(Command::Run(settings, Origin { args, env: around })),
    }
}

impl Settings {
    /// Whom to ask.
    pub fn whither(&self) -> Whither {
        if self.simulate { Whither::Simulator } else { Whither::To(self.upstream.clone()) }
    }

    /// The file of records, where there is one.
    pub fn history_file(&self) -> Option<history::Settings> {
        let mut settings = history::Settings::new(self.history.as_deref()?);
        settings.max_bytes = self.history_mib << 20;
        settings.max_age = Duration::from_secs(self.history_days * 86_400);
        Some(settings)
    }

    /// Until the head of an attempt's answer.
    ///
    /// A model that needs longer is not asked twice where the deadline was raised for it, and one that hangs is asked again.
    pub fn first_byte(&self) -> Duration {
        self.first_byte.unwrap_or(self.deadline.mul_f64(0.75))
    }

    /// The same of the flex tier.
    pub fn flex_first_byte(&self) -> Duration {
        self.first_byte().max(self.flex_deadline.mul_f64(0.75)).min(Duration::from_secs(86_400))
    }

    /// The store of the quotas, where there is one.
    ///
    /// # Errors
    ///
    /// The rule that its settings break together.
    pub fn quota(&self) -> Result<Option<quota::Settings>, String> {
        quota::Settings::of(self)
    }

    /// The rules of several settings.
    fn together(&self) -> Result<(), String> {
        self.quota()?;
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => return Err(self.values.rule("tls_cert", "needs --tls-key")),
            (None, Some(_)) => return Err(self.values.rule("tls_key", "needs --tls-cert")),
            _ => {}
        }
        if self.replay_body_mib > self.replay_mib {
            let name = if self.values.source("replay_body_mib").is_some() {
                "replay_body_mib"
            } else {
                "replay_mib"
            };
            return Err(self.values.rule(name, "must leave --replay-body-mib no larger than --replay-mib"));
        }
        Ok(())
    }

    /// What `--check` prints.
    pub fn explained(&self) -> String {
        self.values.explained()
    }
}

/// clap's error as one sentence that repeats no value that may be a secret.
fn sentence(error: &clap::Error) -> String {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(text)) => text.split([' ', '=']).next().unwrap_or_default().to_owned(),
        Some(ContextValue::Strings(texts)) => texts.first().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    match error.kind() {
        // A URL whose option was forgotten may hold a password.
        ErrorKind::UnknownArgument if argument.contains(['@', ':']) => {
            "there is a value that belongs to no option".to_owned()
        }
        ErrorKind::UnknownArgument => match error.get(ContextKind::SuggestedArg) {
            Some(ContextValue::String(near)) => format!("there is no option {argument}; {near} is one"),
            _ => format!("there is no option {argument}"),
        },
        ErrorKind::InvalidValue
        | ErrorKind::NoEquals
        | ErrorKind::TooFewValues
        | ErrorKind::WrongNumberOfValues => {
            format!("{argument} needs a value")
        }
        ErrorKind::TooManyValues => format!("{argument} takes no value"),
        ErrorKind::ArgumentConflict => format!("{argument} may be given once"),
        ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8".to_owned(),
        _ => "the arguments cannot be read".to_owned(),
    }
}
