//! One process in front of Gemini, for SDKs of any language: a reverse proxy made of the layers of this crate.
//!
//! ```text
//! cargo run --release --example gateway --features sim -- --simulate
//! curl -d '{"contents":[{"parts":[{"text":"Hello"}]}]}' \
//!     http://127.0.0.1:8080/v1beta/models/gemini-3.5-flash-lite:generateContent
//! ```
//!
//! Without `--simulate` it speaks to Google. Point an SDK's base URL at it and turn the SDK's own retries off. Every path
//! is passed on, but for `/healthz`, `/metrics` and `/status`, where Google has none. Keys are passed on, too, and never
//! printed. `--help` lists the options.
//!
//! `stack.rs` has the layers, `proxy.rs` the way of one request, `serve.rs` the sockets.
//!
//! # What it does not do
//!
//! No TLS on its own side, no WebSockets (the Live API), no caching, and nobody is asked who they are: it belongs behind
//! something that does, or on a loopback address.

pub(crate) mod args;
pub(crate) mod headers;
mod log;
mod metrics;
mod model;
mod pages;
mod proxy;
mod refusal;
pub(crate) mod serve;
pub(crate) mod stack;
pub(crate) mod upstream;

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tower_gemini::event::Observer;
use tower_gemini::sim::{SimServer, Simulator};

use self::args::{Command, Settings, Whither};
use self::log::Lines;
use self::metrics::Metrics;
use self::pages::Pages;
use self::proxy::Proxy;
use self::upstream::Base;

const OK: u8 = 0;
const FAILED: u8 = 1;
const BAD_USAGE: u8 = 2;

/// How long calls under way may go on after the process was told to stop.
const GRACE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot be started: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let args = std::env::args_os().skip(1);
    let env = |name: &str| std::env::var_os(name);
    let code =
        runtime.block_on(run(args, env, Box::new(io::stdout()), &mut io::stderr(), serve::told_to_stop()));
    // A call that outlived the grace must not hold the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ExitCode::from(code)
}

/// The whole program but for the process around it. Answers with the exit code.
pub(crate) async fn run(
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

/// A gateway that listens, and does not answer yet.
pub(crate) struct Gateway {
    pub(crate) addr: SocketAddr,
    base: Base,
    listener: TcpListener,
    proxy: Proxy,
    lines: Lines,
    /// Kept while it runs.
    simulator: Option<SimServer>,
}

impl Gateway {
    /// Binds the port. The error is a sentence without its full stop.
    pub(crate) async fn start(settings: &Settings, out: Box<dyn Write + Send>) -> Result<Self, String> {
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
        let mut told: Vec<Arc<dyn Observer>> = vec![Arc::clone(&metrics) as _];
        let stack = stack::stack(settings, &told[0]);
        let (stack, handles) = stack.map_err(|error| error.to_string())?;
        told.extend(settings.log.observer(lines.clone()));
        let pages = Pages::new(Arc::clone(&metrics), handles, lines.clone());
        let proxy = Proxy::new(stack, upstream::client()?, Arc::new(told), base.clone(), metrics, pages);
        Ok(Self { addr, base, listener, proxy, lines, simulator })
    }

    /// Answers until `stop`, then finishes what is under way. How many connections had to be cut.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) -> usize {
        let Self { listener, proxy, lines, .. } = self;
        let answer = move |request| proxy.answer(request);
        let unfinished = serve::serve(listener, answer, stop, GRACE).await;
        lines.flushed().await;
        unfinished
    }
}
