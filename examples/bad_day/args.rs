//! The command line, read into a [`Command`] or one sentence that says what is wrong with it.

use std::ffi::OsString;
use std::time::Duration;

use http::HeaderValue;
use lexopt::{Arg, Parser};
use reqwest::Url;

pub(crate) const HELP: &str = "\
A bad day of the Gemini API, and tower-gemini under it.

Without GEMINI_API_KEY: a simulator of the Gemini API has a bad minute, squeezed
into 15 seconds, and you see what a user notices of it. Nothing leaves this
machine. With GEMINI_API_KEY: one question to the real API.

Usage: bad_day [--simulate]
       bad_day [OPTIONS] [PROMPT WORDS...]

  --simulate           the simulation, also when a key is set
  --model NAME         which model to ask           [gemini-3.5-flash-lite]
  --prompt TEXT        what to ask, or as words after the options
  --stream             print the answer as it comes
  --deadline SECONDS   for all attempts and waits together       [120]
  --attempts N         in all, the first included, 1 to 100        [5]
  --base-url URL       any compatible endpoint, with or without a key
                       [https://generativelanguage.googleapis.com]
  -h, --help           this text

The key is read from GEMINI_API_KEY only. It is sent in a header, never in a
URL, and never printed. Exit code: 0 done, 1 failed, 2 wrong usage.
";

const BASE_URL: &str = "https://generativelanguage.googleapis.com";
const MODEL: &str = "gemini-3.5-flash-lite";
const PROMPT: &str = "Say hello in one short sentence.";
const NO_KEY: &str = "there is no key to ask with: set GEMINI_API_KEY (get one at \
    https://aistudio.google.com/apikey), name another endpoint with --base-url, or use no options for the simulation";

#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Simulate,
    Ask(Ask),
}

/// One question to a real endpoint.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) base_url: Url,
    pub(crate) model: String,
    pub(crate) prompt: String,
    pub(crate) stream: bool,
    pub(crate) deadline: Duration,
    pub(crate) attempts: u32,
    /// Marked sensitive, so that no `Debug` of a request shows it.
    pub(crate) key: Option<HeaderValue>,
}

/// `key` is the value of `GEMINI_API_KEY`. The error is a sentence without its full stop.
pub(crate) fn parse(
    args: impl IntoIterator<Item = OsString>,
    key: Option<OsString>,
) -> Result<Command, String> {
    let (mut base_url, mut prompt) = (None, None);
    let (mut stream, mut simulate) = (false, false);
    let (mut model, mut deadline, mut attempts) = (None, None, None);
    let mut words = Vec::new();
    let mut parser = Parser::from_args(args);
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Long("simulate") => simulate = true,
            Arg::Long("stream") => stream = true,
            Arg::Long("model") => model = Some(model_name(value(&mut parser, "--model")?)?),
            Arg::Long("prompt") => prompt = Some(value(&mut parser, "--prompt")?),
            Arg::Long("base-url") => base_url = Some(endpoint(&value(&mut parser, "--base-url")?)?),
            Arg::Long("deadline") => deadline = Some(seconds(&value(&mut parser, "--deadline")?)?),
            Arg::Long("attempts") => attempts = Some(count(&value(&mut parser, "--attempts")?)?),
            Arg::Value(word) => words.push(text(word)?),
            other => return Err(other.unexpected().to_string()),
        }
    }
    let options = stream || model.is_some() || deadline.is_some() || attempts.is_some() || prompt.is_some();
    let asks = options || base_url.is_some() || !words.is_empty();
    if simulate {
        return if asks { Err("--simulate takes no other option".to_owned()) } else { Ok(Command::Simulate) };
    }
    let key = key.map(|key| api_key(&key)).transpose()?.flatten();
    if key.is_none() && base_url.is_none() {
        // A question that would be answered by a simulation nobody asked for is a mistake.
        return if asks { Err(NO_KEY.to_owned()) } else { Ok(Command::Simulate) };
    }
    let prompt = match (prompt, words.is_empty()) {
        (Some(_), false) => return Err("give the prompt with --prompt or as words, not both".to_owned()),
        (Some(prompt), true) => prompt,
        (None, false) => words.join(" "),
        (None, true) => PROMPT.to_owned(),
    };
    if prompt.trim().is_empty() {
        return Err("the prompt is empty".to_owned());
    }
    Ok(Command::Ask(Ask {
        base_url: match base_url {
            Some(url) => url,
            None => endpoint(BASE_URL)?,
        },
        model: model.unwrap_or_else(|| MODEL.to_owned()),
        prompt,
        stream,
        deadline: deadline.unwrap_or(Duration::from_secs(120)),
        attempts: attempts.unwrap_or(5),
        key,
    }))
}

/// The value of an option. `--model --stream` is a forgotten value, not a model; `--prompt=--x` is how to mean it.
fn value(parser: &mut Parser, option: &str) -> Result<String, String> {
    if let Some(value) = parser.optional_value() {
        return text(value);
    }
    let value = parser.value().map_err(|_| format!("{option} needs a value")).and_then(text)?;
    if value.starts_with("--") { Err(format!("{option} needs a value")) } else { Ok(value) }
}

fn text(value: OsString) -> Result<String, String> {
    value.into_string().map_err(|_| "an argument is not valid UTF-8".to_owned())
}

fn model_name(name: String) -> Result<String, String> {
    let name = name.strip_prefix("models/").unwrap_or(&name);
    // What goes into a path must not be able to leave its place in it.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let sound = |part: &str| !part.is_empty() && !part.starts_with('.');
    if name.chars().all(plain) && name.split('/').all(sound) {
        Ok(name.to_owned())
    } else {
        Err(format!("--model must be a name such as {MODEL}"))
    }
}

fn seconds(value: &str) -> Result<Duration, String> {
    let error = || "--deadline must be a number of seconds above 0, at most 86400".to_owned();
    let seconds: f64 = value.trim().parse().map_err(|_| error())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| error())?;
    let range = Duration::from_millis(1)..=Duration::from_secs(86_400);
    if range.contains(&duration) { Ok(duration) } else { Err(error()) }
}

fn count(value: &str) -> Result<u32, String> {
    let attempts = value.trim().parse().ok().filter(|n| (1..=100).contains(n));
    attempts.ok_or_else(|| "--attempts must be a whole number from 1 to 100".to_owned())
}

/// The value is not repeated in the error: it may hold a password or a key.
fn endpoint(value: &str) -> Result<Url, String> {
    let hint = format!("such as {BASE_URL}");
    let url =
        Url::parse(value.trim()).map_err(|error| format!("--base-url must be a URL {hint}: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("--base-url must begin with http:// or https://, {hint}"));
    }
    if url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(format!("--base-url must have no query, fragment, user or password, {hint}"));
    }
    Ok(url)
}

/// Spaces around it, a line's end mostly, come from how it was copied.
fn api_key(key: &OsString) -> Result<Option<HeaderValue>, String> {
    let error = || "GEMINI_API_KEY holds characters that no key has: copy it again".to_owned();
    let key = key.to_str().ok_or_else(error)?.trim();
    if key.is_empty() {
        return Ok(None);
    }
    if !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(error());
    }
    let mut value = HeaderValue::from_str(key).map_err(|_| error())?;
    value.set_sensitive(true);
    Ok(Some(value))
}
