//! One line for each request, written by a thread of its own.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tower_gemini::event::{Event, Observer};
use tower_gemini::observe::{Call, JsonLines};
use tower_gemini::verdict::Outcome;

use crate::history::Trace;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The crate's own: see [`JsonLines`].
    Json,
    Text,
    Off,
}

impl Format {
    /// Who writes a line of each call that is over.
    pub fn observer(self, lines: Lines) -> Option<Arc<dyn Observer>> {
        match self {
            Self::Json => Some(Arc::new(JsonLines::new(lines).members(client))),
            Self::Text => Some(Arc::new(Text(lines))),
            Self::Off => None,
        }
    }
}

/// The request's id, the trace that it is of, the address that it came from, the name of the client that has called, where clients are known, and why the upstream
/// could not be asked.
fn client(call: &Call) -> Vec<(&'static str, String)> {
    let Some(trace) = call.attached::<Trace>() else { return Vec::new() };
    let address = trace.address.map(|address| address.to_string());
    let known = [
        ("request_id", trace.request_id.as_deref()),
        ("trace_id", trace.trace_id.as_deref()),
        ("address", address.as_deref()),
        ("client", trace.client.as_deref()),
        ("cause", trace.cause()),
    ];
    known.into_iter().filter_map(|(name, of)| Some((name, of?.to_owned()))).collect()
}

// ===== the text form =====

struct Text(Lines);

impl Observer for Text {
    fn on_event(&self, event: &Event<'_>) {
        let Event::Finished { call, .. } = event else { return };
        let line = text(call, Timestamp::now());
        // A line that is lost is counted.
        let _ = self.0.clone().write(line.as_bytes());
    }
}

/// A path holds no white space, and a name of a model no more.
fn text(call: &Call, now: Timestamp) -> String {
    let mut line = String::with_capacity(160);
    let mut add = |part: std::fmt::Arguments<'_>| {
        line.write_fmt(part).expect("a string takes what is written");
    };
    add(format_args!("{now:.3} {} {} ", call.http_method(), call.path()));
    match call.status() {
        Some(status) => add(format_args!("{} {}", status.as_u16(), outcome(call))),
        None => add(format_args!("- {}", outcome(call))),
    }
    if let Some(usage) = call.usage() {
        add(format_args!(" in={} out={}", usage.input_tokens, usage.output_tokens + usage.thought_tokens));
    }
    if let Some(model) = call.model() {
        add(format_args!(" model={model}"));
    }
    for (name, of) in client(call) {
        // The id is the caller's own text.
        let of: String = of.chars().filter(|c| c.is_ascii_graphic()).collect();
        add(format_args!(" {name}={of}"));
    }
    let tenths = call.latency().as_micros() / 100;
    add(format_args!(" {}.{}ms attempts={}\n", tenths / 10, tenths % 10, call.attempts()));
    line
}

/// `ok`, a kind of failure, or that the client left.
fn outcome(call: &Call) -> &'static str {
    match call.outcome() {
        Outcome::Complete => "ok",
        Outcome::Failed(kind) => kind.as_str(),
        _ => "client_left",
    }
}

// ===== the thread =====

/// Bytes that wait for the thread. Beyond them lines are lost: a reader of stdout that hangs must not hang the gateway.
const WAITING: usize = 4 * 1024 * 1024;
/// How long a line may wait for others to be written with: a wake-up for each of them would cost more than the line.
const GATHER: Duration = Duration::from_millis(20);

/// Where lines are written to, each by one `write`. Clones write to the same place.
#[derive(Clone)]
pub struct Lines {
    queue: Arc<Queue>,
    wakes: SyncSender<Wake>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Vec<u8>>,
    lost: AtomicU64,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Wake {
    /// There are lines again.
    Lines,
    /// Everything shall be written now.
    Flush(oneshot::Sender<()>),
}

impl Lines {
    pub fn start(out: Box<dyn Write + Send>) -> Self {
        let queue = Arc::<Queue>::default();
        let (wakes, woken) = mpsc::sync_channel(4);
        let written = Arc::clone(&queue);
        // Ends with the last sender.
        std::thread::spawn(move || write_all(&written, &woken, out));
        Self { queue, wakes }
    }

    /// Lines that were not written.
    pub fn lost(&self) -> u64 {
        self.queue.lost.load(Ordering::Relaxed)
    }

    /// Waits until what was said before is written, at most one second.
    pub async fn flushed(&self) {
        let (done, written) = oneshot::channel();
        if self.wakes.try_send(Wake::Flush(done)).is_ok() {
            // Nobody to tell: stdout hangs or is gone.
            let _ = tokio::time::timeout(Duration::from_secs(1), written).await;
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.queue.waiting();
        let first = waiting.is_empty();
        if waiting.len() + line.len() > WAITING {
            self.queue.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            waiting.extend_from_slice(line);
        }
        drop(waiting);
        if first {
            // Full: the thread has been woken already, and finds this line, too.
            let _ = self.wakes.try_send(Wake::Lines);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes until nobody can send any more. A reader that is gone loses the lines.
fn write_all(queue: &Queue, woken: &Receiver<Wake>, mut out: Box<dyn Write + Send>) {
    let mut lines = Vec::new();
    while let Ok(wake) = woken.recv() {
        let flush = match wake {
            Wake::Flush(done) => Some(done),
            Wake::Lines => match woken.recv_timeout(GATHER) {
                Ok(Wake::Flush(done)) => Some(done),
                Ok(Wake::Lines) | Err(_) => None,
            },
        };
        // The two take turns, so neither is allocated anew.
        lines.clear();
        std::mem::swap(&mut lines, &mut *queue.waiting());
        if out.write_all(&lines).and_then(|()| out.flush()).is_err() {
            // How many of them were written before is not known.
            let lost = lines.iter().filter(|byte| **byte == b'\n').count();
            queue.lost.fetch_add(lost as u64, Ordering::Relaxed);
        }
        if let Some(done) = flush {
            let _ = done.send(());
        }
    }
}
