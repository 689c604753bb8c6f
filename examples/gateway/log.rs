//! One line for each request, written by a thread of its own.

use std::fmt::{self, Write as _};
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
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

/// Lines that wait for the thread. Beyond them lines are lost: a reader of stdout that hangs must not hang the gateway.
const WAITING: usize = 16_384;

/// Where lines are written to. Clones write to the same place.
#[derive(Clone)]
pub(crate) struct Logger {
    format: Format,
    sender: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

enum Message {
    Line(String),
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
        let (sender, receiver) = mpsc::sync_channel(WAITING);
        // Ends with the last sender.
        std::thread::spawn(move || write_all(&receiver, out));
        Self { format, sender, lost: Arc::default() }
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
        if self.sender.try_send(Message::Line(text)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that were not written.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until what was said before is written, at most one second.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            // Nobody to tell: stdout hangs or is gone.
            let _ = tokio::time::timeout(Duration::from_secs(1), written).await;
        }
    }
}

/// Writes until nobody can send any more, and flushes whenever nothing waits. A reader that is gone loses the lines.
fn write_all(receiver: &Receiver<Message>, out: Box<dyn Write + Send>) {
    let mut out = BufWriter::new(out);
    let mut next = receiver.recv().ok();
    while let Some(message) = next {
        let _ = match message {
            Message::Line(line) => out.write_all(line.as_bytes()),
            Message::Flush(done) => {
                let flushed = out.flush();
                let _ = done.send(());
                flushed
            }
        };
        next = match receiver.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Empty) => {
                let _: io::Result<()> = out.flush();
                receiver.recv().ok()
            }
            Err(TryRecvError::Disconnected) => None,
        };
    }
    let _ = out.flush();
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
