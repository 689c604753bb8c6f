//! One line for each request, written by a thread of its own.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::oneshot;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Text,
    Off,
}

/// Bytes that wait for the thread. Beyond them lines are lost: a reader of stdout that hangs must not hang the gateway.
const WAITING: usize = 4 * 1024 * 1024;
/// How long a line may wait for others to be written with: a wake-up for each of them would cost more than the line.
const GATHER: Duration = Duration::from_millis(20);

/// Where lines are written to. Clones write to the same place.
#[derive(Clone)]
pub(crate) struct Logger {
    format: Format,
    lines: Arc<Lines>,
    wakes: SyncSender<Wake>,
}

#[derive(Default)]
struct Lines {
    waiting: Mutex<String>,
    lost: AtomicU64,
}

enum Wake {
    /// There are lines again.
    Lines,
    /// Everything shall be written now.
    Flush(oneshot::Sender<()>),
}

/// What is told of one request.
pub(crate) struct Line<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// `None` where the client left before there was one.
    pub(crate) status: Option<u16>,
    pub(crate) kind: &'a str,
    pub(crate) model: Option<&'a str>,
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) latency: Duration,
    pub(crate) attempts: u32,
}

impl Logger {
    pub(crate) fn start(format: Format, out: Box<dyn Write + Send>) -> Self {
        let lines = Arc::<Lines>::default();
        let (wakes, woken) = mpsc::sync_channel(4);
        let written = Arc::clone(&lines);
        // Ends with the last sender.
        std::thread::spawn(move || write_all(&written, &woken, out));
        Self { format, lines, wakes }
    }

    pub(crate) const fn is_on(&self) -> bool {
        !matches!(self.format, Format::Off)
    }

    pub(crate) fn write(&self, line: &Line<'_>) {
        let now = Timestamp::now();
        let text = match self.format {
            Format::Json => line.json(now),
            Format::Text => line.to_string(now),
            Format::Off => return,
        };
        let mut waiting = self.lines.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let first = waiting.is_empty();
        if waiting.len() + text.len() > WAITING {
            self.lines.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            waiting.push_str(&text);
        }
        drop(waiting);
        if first {
            // Full: the thread has been woken already, and finds this line, too.
            let _ = self.wakes.try_send(Wake::Lines);
        }
    }

    /// Lines that were not written.
    pub(crate) fn lost(&self) -> u64 {
        self.lines.lost.load(Ordering::Relaxed)
    }

    /// Waits until what was said before is written, at most one second.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.wakes.try_send(Wake::Flush(done)).is_ok() {
            // Nobody to tell: stdout hangs or is gone.
            let _ = tokio::time::timeout(Duration::from_secs(1), written).await;
        }
    }
}

/// Writes until nobody can send any more. A reader that is gone loses the lines.
fn write_all(lines: &Lines, woken: &Receiver<Wake>, mut out: Box<dyn Write + Send>) {
    while let Ok(wake) = woken.recv() {
        let flush = match wake {
            Wake::Flush(done) => Some(done),
            Wake::Lines => match woken.recv_timeout(GATHER) {
                Ok(Wake::Flush(done)) => Some(done),
                Ok(Wake::Lines) | Err(_) => None,
            },
        };
        let text = std::mem::take(&mut *lines.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if let Some(done) = flush {
            let _ = done.send(());
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

impl Line<'_> {
    fn json(&self, now: Timestamp) -> String {
        let line = json!({
            "time": format!("{now:.3}"),
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "kind": self.kind,
            "model": self.model,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "first_byte_ms": self.first_byte.map(milliseconds),
            "latency_ms": milliseconds(self.latency),
            "attempts": self.attempts,
        });
        format!("{line}\n")
    }

    /// A path holds no white space, and a name of a model no more.
    fn to_string(&self, now: Timestamp) -> String {
        let mut text = String::with_capacity(160);
        self.text(now, &mut text).expect("a string takes what is written");
        text
    }

    fn text(&self, now: Timestamp, text: &mut String) -> fmt::Result {
        write!(text, "{now:.3} {} {} ", self.method, self.path)?;
        match self.status {
            Some(status) => write!(text, "{status} {}", self.kind)?,
            None => write!(text, "- {}", self.kind)?,
        }
        for (name, value) in [("in", self.input_tokens), ("out", self.output_tokens)] {
            if let Some(value) = value {
                write!(text, " {name}={value}")?;
            }
        }
        if let Some(model) = self.model {
            write!(text, " model={model}")?;
        }
        writeln!(text, " {:.1}ms attempts={}", milliseconds(self.latency), self.attempts)
    }
}
