//! What is told while the simulation runs: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, Write};
use std::time::Duration;

use tower_gemini::Kind;

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    pub(crate) elapsed: Duration,
    pub(crate) done: usize,
    pub(crate) planned: usize,
    pub(crate) in_flight: usize,
    pub(crate) retries: usize,
    pub(crate) last: Option<Kind>,
}

#[derive(Debug)]
pub(crate) struct Progress {
    is_tty: bool,
    next_line: Duration,
}

impl Progress {
    pub(crate) const EVERY: Duration = Duration::from_millis(100);
    /// Between lines where nothing can be overwritten.
    const LINES: Duration = Duration::from_secs(3);

    pub(crate) fn new(is_tty: bool) -> Self {
        Self { is_tty, next_line: Self::LINES }
    }

    pub(crate) fn show(&mut self, status: &Status, err: &mut dyn Write) -> io::Result<()> {
        if self.is_tty {
            write!(err, "\r{}\x1b[K", bar(status))?;
            err.flush()
        } else if status.elapsed >= self.next_line {
            self.next_line += Self::LINES;
            writeln!(err, "{}", line(status))
        } else {
            Ok(())
        }
    }

    /// Takes the bar away, or writes the last line.
    pub(crate) fn finish(&mut self, status: &Status, err: &mut dyn Write) -> io::Result<()> {
        if self.is_tty {
            write!(err, "\r\x1b[K")?
        } else {
            writeln!(err, "{}\n", line(status))?
        }
        err.flush()
    }
}

const BAR: usize = 12;

/// At most 79 columns, so that no terminal of 80 wraps it.
pub(crate) fn bar(status: &Status) -> String {
    let filled = (status.done * BAR / status.planned.max(1)).min(BAR);
    let bar = "█".repeat(filled) + &"░".repeat(BAR - filled);
    format!("{bar} {}", numbers(status))
}

pub(crate) fn line(status: &Status) -> String {
    numbers(status)
}

fn numbers(status: &Status) -> String {
    let Status { elapsed, done, planned, in_flight, retries, last } = status;
    let last = last.map_or("none yet", Kind::as_str);
    let seconds = elapsed.as_secs_f64();
    format!("{seconds:4.1} s {done:3}/{planned} done {in_flight:2} open {retries:3} retries, last {last}")
}
