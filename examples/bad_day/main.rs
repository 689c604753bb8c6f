//! A bad minute of the Gemini API, survived.
//!
//! ```text
//! cargo run --release --example bad_day --features reqwest,sim
//! ```
//!
//! Without `GEMINI_API_KEY` nothing leaves this machine: a simulator of the API has a bad minute (squeezed into
//! 15 s) while 120 requests go through the layers, and at the end you see what the user saw and what was
//! absorbed. With a key, or with `--base-url`, one question goes to the real API. `--help` tells the rest.
//!
//! What to copy into your own program: `examples/quickstart.rs`.

mod answer;
pub(crate) mod args;
mod problem;
pub(crate) mod progress;
mod real;
pub(crate) mod record;
pub(crate) mod redact;
pub(crate) mod report;
mod simulation;
pub(crate) mod timeline;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use self::args::Command;
use self::redact::Redacted;
use self::report::Style;

/// What the sinks are, so that everything below can write to any `dyn Write`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terminals {
    /// How results are written: escape codes only for a terminal.
    pub(crate) out: Style,
    /// Whether stderr is a terminal, on which a line can be overwritten.
    pub(crate) err_is_tty: bool,
}

const OK: u8 = 0;
const FAILED: u8 = 1;
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let env = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let dumb = env("TERM").is_some_and(|term| term == "dumb");
    let is_tty = |terminal: bool| terminal && !dumb;
    let terminals = Terminals {
        out: Style { color: is_tty(io::stdout().is_terminal()) && env("NO_COLOR").is_none() },
        err_is_tty: is_tty(io::stderr().is_terminal()),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot be started: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let args = std::env::args_os().skip(1);
    ExitCode::from(runtime.block_on(run(args, env("GEMINI_API_KEY"), terminals, &mut out, &mut err)))
}

/// The whole program but for the process around it. Answers with the exit code.
pub(crate) async fn run(
    args: impl IntoIterator<Item = OsString>,
    key: Option<OsString>,
    terminals: Terminals,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    // NOTE: from here on everything printed goes through these two. An endpoint may echo the key, and so may a
    // user who pastes it into the wrong argument.
    let secret = key.as_deref().map(|key| key.to_string_lossy().trim().to_owned()).unwrap_or_default();
    let mut out = Redacted::new(out, &secret);
    let mut err = Redacted::new(err, &secret);
    let code = match dispatch(args, key, terminals, &mut out, &mut err).await {
        Ok(code) => code,
        // `bad_day | head` is no reason to complain, and there is nowhere to complain to.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => FAILED,
        Err(error) => {
            let _ = writeln!(err, "error: the output cannot be written: {error}");
            FAILED
        }
    };
    match out.finish().and(err.finish()) {
        Ok(()) => code,
        Err(_) => code.max(FAILED),
    }
}

async fn dispatch(
    args: impl IntoIterator<Item = OsString>,
    key: Option<OsString>,
    terminals: Terminals,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    match args::parse(args, key) {
        Err(usage) => {
            writeln!(err, "error: {usage} (--help lists the options)")?;
            Ok(BAD_USAGE)
        }
        Ok(Command::Help) => {
            out.write_all(args::HELP.as_bytes())?;
            Ok(OK)
        }
        Ok(Command::Simulate) => {
            let run = match simulation::run(terminals.err_is_tty, err).await {
                Ok(run) => run,
                Err(error) => {
                    writeln!(err, "error: the simulation cannot be started: {error}")?;
                    return Ok(FAILED);
                }
            };
            report::write(&run, terminals.out, out)?;
            Ok(if run.surprises().is_empty() { OK } else { FAILED })
        }
        Ok(Command::Ask(ask)) => Ok(if real::run(&ask, out, err).await? { OK } else { FAILED }),
    }
}
