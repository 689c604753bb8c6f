//! One process in front of Gemini, for SDKs of any language: a reverse proxy made of the layers of [`tower_gemini`].
//!
//! ```text
//! cargo run --release -p tower-gemini-gateway -- --simulate
//! curl -d '{"contents":[{"parts":[{"text":"Hello"}]}]}' \
//!     http://127.0.0.1:8080/v1beta/models/gemini-3.5-flash-lite:generateContent
//! ```
//!
//! Without `--simulate` it speaks to Google. Point an SDK's base URL at it and turn the SDK's own retries off. Every path
//! is passed on, but for `/healthz`, `/metrics`, `/status` and `/page`, where Google has none. Keys are passed on, too, and never
//! printed. `--help` lists the options.
//!
//! `stack.rs` has the layers, `proxy.rs` the way of one request, `serve.rs` the sockets, `history/` what is kept of
//! calls, `page/` what a browser shows of it. The program is `main.rs`; this library is for it,
//! its tests and its bench, and promises no stable API.
//!
//! # What it does not do
//!
//! No TLS on its own side, no WebSockets (the Live API), no caching, and without `--clients` nobody is asked who they are: then it
//! belongs behind something that does, or on a loopback address. Its own pages ask nobody either.

pub mod args;
pub mod clients;
pub mod headers;
pub mod history;
pub mod kept;
pub mod log;
pub mod metrics;
pub mod model;
pub mod page;
pub mod pages;
pub mod proxy;
pub mod quota;
pub mod refusal;
pub mod serve;
pub mod stack;
pub mod upstream;
pub mod wire;

use std::ffi::OsString;
use std::future::Future;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower_gemini::event::Observer;
use tower_gemini::sim::{SimServer, Simulator};

use crate::args::{Command, Settings, Whither};
use crate::clients::Clients;
use crate::history::{History, Recorder, Sink};
use crate::log::Lines;
use crate::metrics::Metrics;
use crate::page::{Live, Page};
use crate::pages::Pages;
use crate::proxy::Proxy;
use crate::upstream::Base;

/// The exit code of a gateway that was told to stop.
pub const OK: u8 = 0;
/// The exit code where the machine does not do its part.
pub const FAILED: u8 = 1;
/// The exit code of wrong settings, and of a port that cannot be had.
pub const BAD_USAGE: u8 = 2;

/// How long calls under way may go on after the process was told to stop.
const GRACE: Duration = Duration::from_secs(30);
/// How long the last records may take.
const LAST: Duration = Duration::from_secs(5);

/// The whole program but for the process around it. Answers with the exit code.
pub async fn run(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
    out: Box<dyn Write + Send>,
    err: &mut (dyn Write + Send),
    stop: impl Future<Output = ()>,
) -> u8 {
    let settings = match args::parse(args, env) {
        Ok(Command::Run(settings)) => settings,
        Ok(Command::Help) => {
            let mut out = out;
            return if out.write_all(args::HELP.as_bytes()).is_ok() { OK } else { FAILED };
        }
        Ok(Command::HashToken) => {
            let mut out = out;
            return hash_token(&mut std::io::stdin(), &mut out, err);
        }
        Err(usage) => {
            let _ = writeln!(err, "error: {usage} (--help lists the options)");
            return BAD_USAGE;
        }
    };
    let gateway = match Gateway::start(&settings, out).await {
        Ok(gateway) => gateway,
        Err(sentence) => {
            let _ = writeln!(err, "error: {sentence}");
            return BAD_USAGE;
        }
    };
    let whither = if gateway.simulator.is_some() { "a simulator at " } else { "" };
    let _ = writeln!(err, "gateway: http://{} to {whither}{}", gateway.addr, gateway.base);
    let unfinished = gateway.run(stop).await;
    if unfinished > 0 {
        let _ = writeln!(err, "gateway: stopped, {unfinished} connections cut after {} s", GRACE.as_secs());
    }
    OK
}

/// Prints the hash of what `token` has, without its last line break.
fn hash_token(token: &mut dyn Read, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let mut text = String::new();
    let read = token.take(64 * 1024).read_to_string(&mut text);
    let token = text.trim_end_matches(['\r', '\n']);
    // Nothing else arrives as a header's value the way it was sent.
    if read.is_err() || token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let _ = writeln!(err, "error: --hash-token needs a token on stdin: printable ASCII without spaces");
        return BAD_USAGE;
    }
    if writeln!(out, "{}", clients::hash(token)).is_ok() { OK } else { FAILED }
}

/// A gateway that listens, and does not answer yet.
pub struct Gateway {
    pub addr: SocketAddr,
    base: Base,
    listener: TcpListener,
    proxy: Proxy,
    lines: Lines,
    page: Page,
    history: Option<History>,
    clients: Option<Arc<Clients>>,
    /// Kept while it runs.
    simulator: Option<SimServer>,
}

impl Gateway {
    /// Binds the port. The error is a sentence without its full stop.
    pub async fn start(settings: &Settings, out: Box<dyn Write + Send>) -> Result<Self, String> {
        let clients = settings.clients.as_deref().map(Clients::open).transpose()?.map(Arc::new);
        let listener = TcpListener::bind(&*settings.listen).await;
        let listener = listener.map_err(|error| format!("cannot listen on {}: {error}", settings.listen))?;
        let addr = listener.local_addr().map_err(|error| format!("the port is not known: {error}"))?;
        let (base, simulator) = match &settings.whither {
            Whither::To(base) => (base.clone(), None),
            Whither::Simulator => {
                let server = Simulator::new().serve().await;
                let server = server.map_err(|error| format!("the simulator cannot be started: {error}"))?;
                (Base::parse(&server.base_url())?, Some(server))
            }
        };
        let metrics = Arc::new(Metrics::default());
        let lines = Lines::start(out);
        let history = settings.history.as_ref().map(History::open).transpose()?;
        let live = Arc::new(Live::default());
        let mut sinks: Vec<Arc<dyn Sink>> = vec![Arc::clone(&live) as _];
        sinks.extend(history.clone().map(|history| Arc::new(history) as _));
        let both: Vec<Arc<dyn Observer>> = vec![Arc::clone(&metrics) as _, Arc::new(Recorder::new(sinks))];
        let mut told: Vec<Arc<dyn Observer>> = vec![Arc::new(both)];
        let stack = stack::stack(settings, &told[0]);
        let (stack, handles) = stack.map_err(|error| error.to_string())?;
        told.extend(settings.log.observer(lines.clone()));
        let pages = Pages::new(Arc::clone(&metrics), handles, lines.clone(), history.clone());
        let pages = Arc::new(pages.clients(clients.clone()));
        let status = Arc::clone(&pages);
        let page = Page::new(live, history.clone(), move || status.status());
        let proxy = Proxy::new(
            stack,
            upstream::client()?,
            Arc::new(told),
            base.clone(),
            metrics,
            pages,
            page.clone(),
            clients.clone(),
            settings.quota.as_ref(),
        );
        Ok(Self { addr, base, listener, proxy, lines, page, history, clients, simulator })
    }

    /// Answers until `stop`, then finishes what is under way. How many connections had to be cut.
    pub async fn run(self, stop: impl Future<Output = ()>) -> usize {
        let Self { listener, proxy, lines, page, history, clients, .. } = self;
        let answer = move |request| proxy.answer(request).map(clients::held);
        // Dropped, and so ended, with this call.
        let mut reloads = JoinSet::new();
        if let Some(clients) = clients {
            reloads.spawn(reload(clients));
        }
        let stop = async move {
            stop.await;
            // Its streams of events would never end.
            page.close();
        };
        let unfinished = serve::serve(listener, answer, stop, GRACE, serve::Limits::default()).await;
        lines.flushed().await;
        if let Some(history) = history {
            history.flushed(LAST).await;
        }
        unfinished
    }
}

/// Reads the file again at each SIGHUP, and says on stderr what came of it.
#[cfg(unix)]
async fn reload(clients: Arc<Clients>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        // A stderr that is gone takes nobody's calls.
        let _ = match clients.reload() {
            Ok(count) => writeln!(std::io::stderr(), "gateway: {count} clients read"),
            Err(rule) => writeln!(std::io::stderr(), "gateway: the clients stay as they were: {rule}"),
        };
    }
}

#[cfg(not(unix))]
async fn reload(_: Arc<Clients>) {}
