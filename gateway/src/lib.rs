//! One process in front of Gemini, for SDKs of any language: a reverse proxy made of the layers of [`tower_gemini`].
//!
//! ```text
//! cargo run --release -p tower-gemini-gateway -- --simulate
//! curl -d '{"contents":[{"parts":[{"text":"Hello"}]}]}' \
//!     http://127.0.0.1:8080/v1beta/models/gemini-3.5-flash-lite:generateContent
//! ```
//!
//! Without `--simulate` it speaks to Google. Point an SDK's base URL at it and turn the SDK's own retries off. Every path
//! is passed on, but for `/healthz` and `/readyz`; `/metrics`, `/status` and `/page` are on the administrators' listener. Keys are passed on, too,
//! and never printed. `--help` lists the options.
//!
//! `settings/` reads what it is told, `reload.rs` reads it again; `stack.rs` has the layers, `proxy.rs` the way of one request, `intake.rs` bodies,
//! `serve.rs` the sockets, `history/` what is kept of calls, `page/` what a browser shows of it. The program is `main.rs`; this library is for it,
//! its tests and its bench, and promises no stable API.
//!
//! # What it does not do
//!
//! No WebSockets (the Live API), no caching, and without `--clients` nobody is asked who they are: then it belongs behind something that
//! does, or on a loopback address. The administrators' listener asks nobody either.

pub mod clients;
pub mod drive;
pub mod gather;
pub mod handed;
pub mod headers;
pub mod history;
pub mod intake;
pub mod kept;
pub mod log;
pub mod metrics;
pub mod model;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod page;
pub mod pages;
pub mod pauses;
pub mod peer;
pub mod proxy;
pub mod quota;
pub mod refusal;
pub mod reload;
pub mod serve;
pub mod settings;
pub mod stack;
pub mod state;
pub mod tls;
pub mod trace_context;
pub mod upstream;
pub mod wire;

use std::ffi::OsString;
use std::future::{Future, ready};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower_gemini::event::Observer;
use tower_gemini::sim::{SimServer, Simulator};

use crate::clients::Clients;
use crate::history::{History, Recorder, Sink};
use crate::log::Lines;
use crate::metrics::Metrics;
use crate::page::{Live, Page, PageBody};
use crate::pages::{Health, Pages};
use crate::peer::Peer;
use crate::proxy::Proxy;
use crate::reload::Reload;
use crate::settings::{Acts, Command, Origin, Settings, Whither};
use crate::state::State;
use crate::tls::Tls;
use crate::upstream::Base;

/// The exit code of a gateway that was told to stop.
pub const OK: u8 = 0;
/// The exit code where the machine does not do its part.
pub const FAILED: u8 = 1;
/// The exit code of wrong settings, and of a port that cannot be had.
pub const BAD_USAGE: u8 = 2;

/// How long the last records may take, and what reads the administrators' pages.
const LAST: Duration = Duration::from_secs(5);
/// How often the day's counts are saved.
const SAVE: Duration = Duration::from_secs(60);

/// The whole program but for the process around it. Answers with the exit code.
pub async fn run(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
    mut out: Box<dyn Write + Send>,
    err: &mut (dyn Write + Send),
    stop: impl Future<Output = ()>,
) -> u8 {
    let (settings, origin) = match settings::parse(args, env) {
        Ok(Command::Run(settings, origin)) => (settings, origin),
        Ok(Command::Check(settings)) => {
            return match check(&settings) {
                Ok(()) if out.write_all(settings.explained().as_bytes()).is_ok() => OK,
                Ok(()) => FAILED,
                Err(sentence) => bad(err, &sentence),
            };
        }
        Ok(Command::Help(text)) => {
            return if out.write_all(text.as_bytes()).is_ok() { OK } else { FAILED };
        }
        Ok(Command::HashToken) => return hash_token(&mut std::io::stdin(), &mut out, err),
        Err(usage) => return bad(err, &format!("{usage} (--help lists the options)")),
    };
    let gateway = match Gateway::start(&settings, out).await {
        Ok(gateway) => gateway.reloading(origin),
        Err(sentence) => return bad(err, &sentence),
    };
    let whither = if gateway.simulator.is_some() { "a simulator at " } else { "" };
    let scheme = if gateway.tls.is_some() { "https" } else { "http" };
    let admin = gateway.admin_addr().map(|addr| format!(", pages at http://{addr}/page")).unwrap_or_default();
    let _ = writeln!(err, "gateway: {scheme}://{} to {whither}{}{admin}", gateway.addr, gateway.base);
    let unfinished = gateway.run(stop).await;
    if unfinished > 0 {
        let _ = writeln!(err, "gateway: stopped, {unfinished} connections cut after the grace");
    }
    OK
}

fn bad(err: &mut (dyn Write + Send), sentence: &str) -> u8 {
    let _ = writeln!(err, "error: {sentence}");
    BAD_USAGE
}

/// Whether a gateway could be started with these settings, but for its ports and its history.
fn check(settings: &Settings) -> Result<(), String> {
    settings.clients.as_deref().map(Clients::open).transpose()?;
    tls(settings)?;
    let nobody: Arc<dyn Observer> = Arc::new(Vec::<Arc<dyn Observer>>::new());
    stack::stack(settings, &nobody, None).map(drop)
}

fn tls(settings: &Settings) -> Result<Option<Tls>, String> {
    match (&settings.tls_cert, &settings.tls_key) {
        (Some(cert), Some(key)) => Tls::open(cert, key).map(Some),
        _ => Ok(None),
    }
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
    admin: Option<TcpListener>,
    tls: Option<Tls>,
    proxy: Proxy,
    lines: Lines,
    page: Page,
    pages: Arc<Pages>,
    health: Health,
    history: Option<History>,
    state: Option<State>,
    reload: Reload,
    #[cfg(feature = "otlp")]
    otlp: Option<otlp::Otlp>,
    /// Kept while it runs.
    simulator: Option<SimServer>,
}

impl Gateway {
    /// Binds the ports. The error is a sentence without its full stop.
    pub async fn start(settings: &Settings, out: Box<dyn Write + Send>) -> Result<Self, String> {
        let clients = settings.clients.as_deref().map(Clients::open).transpose()?.map(Arc::new);
        let tls = tls(settings)?;
        let listener = bind(&settings.listen, 0).await?;
        let addr = listener.local_addr().map_err(|error| format!("the port is not known: {error}"))?;
        let admin = match &settings.admin {
            Some(admin) => Some(bind(admin, 1).await?),
            None => None,
        };
        let (base, simulator) = match settings.whither() {
            Whither::To(base) => (base, None),
            Whither::Simulator => {
                let server = Simulator::new().serve().await;
                let server = server.map_err(|error| format!("the simulator cannot be started: {error}"))?;
                (Base::parse(&server.base_url())?, Some(server))
            }
        };
        let metrics = Arc::new(Metrics::default());
        metrics.observes_quotas(settings.quota == Acts::Observe);
        #[cfg(feature = "otlp")]
        let otlp = settings.otlp.as_ref().map(otlp::Otlp::start).transpose()?;
        let lines = Lines::start(out);
        let history = settings.history_file().as_ref().map(History::open).transpose()?;
        let live = Arc::new(Live::default());
        let mut sinks: Vec<Arc<dyn Sink>> = vec![Arc::clone(&live) as _];
        sinks.extend(history.clone().map(|history| Arc::new(history) as _));
        let mut both: Vec<Arc<dyn Observer>> =
            vec![Arc::clone(&metrics) as _, Arc::new(clients::Spent), Arc::new(Recorder::new(sinks))];
        #[cfg(feature = "otlp")]
        both.extend(otlp.is_some().then(|| Arc::new(tower_gemini::observe::Tracing::new()) as _));
        let mut told: Vec<Arc<dyn Observer>> = vec![Arc::new(both)];
        let observer = Arc::clone(&told[0]);
        let (stack, handles) = stack::stack(settings, &observer, None)?;
        let state =
            settings.state.as_deref().map(|file| State::open(file, handles.quotas.clone())).transpose()?;
        let budget = handles.budget.clone();
        told.extend(settings.log.observer(lines.clone()));
        let health = Health::default();
        let pages = Pages::new(Arc::clone(&metrics), handles, lines.clone(), history.clone(), health.clone());
        let pages = Arc::new(pages.clients(clients.clone()));
        let status = Arc::clone(&pages);
        let page = Page::new(live, history.clone(), move || status.status());
        let proxy = Proxy::new(
            &stack,
            upstream::client()?,
            Arc::new(told),
            base.clone(),
            metrics,
            health.clone(),
            clients.clone(),
            settings.quota()?.as_ref(),
            state.as_ref().map(State::secret),
            reload::calls(settings),
            &settings.fallback,
            settings.otlp.is_some(),
        );
        pages.room(proxy.room());
        let reload = Reload {
            settings: settings.clone(),
            origin: None,
            stack,
            budget,
            observer,
            proxy: proxy.clone(),
            pages: Arc::clone(&pages),
            clients,
            tls: tls.clone(),
            limits: serve::Live::new(reload::connections(settings)),
            times: Arc::new(Mutex::new((settings.drain_delay, settings.grace))),
        };
        Ok(Self {
            addr,
            base,
            listener,
            admin,
            tls,
            proxy,
            lines,
            page,
            pages,
            health,
            history,
            state,
            reload,
            #[cfg(feature = "otlp")]
            otlp,
            simulator,
        })
    }

    /// Where the administrators' pages are.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Reads its settings again at each SIGHUP.
    #[must_use]
    pub fn reloading(mut self, origin: Origin) -> Self {
        self.reload.origin = Some(origin);
        self
    }

    /// Answers until `stop`, then finishes what is under way. How many connections had to be cut.
    pub async fn run(self, stop: impl Future<Output = ()>) -> usize {
        #[cfg(feature = "otlp")]
        let otlp = self.otlp.clone();
        let Self { listener, admin, tls, proxy, lines, page, pages, health, history, state, reload, .. } =
            self;
        let limits = reload.limits.clone();
        let times = Arc::clone(&reload.times);
        let times = move || *times.lock().unwrap_or_else(PoisonError::into_inner);
        // Dropped, and so ended, with this call.
        let mut beside = JoinSet::new();
        beside.spawn(hangups(reload));
        if let Some(state) = state.clone() {
            beside.spawn(async move {
                loop {
                    tokio::time::sleep(SAVE).await;
                    state.save();
                }
            });
        }
        let (done, mut over) = watch::channel(());
        let pages = admin.map(|listener| {
            let (page, limits) = (page.clone(), limits.clone());
            let answer =
                move |request: Request<Incoming>, _: &Arc<Peer>| administrators(&pages, &page, &request);
            let over = async move { drop(over.changed().await) };
            tokio::spawn(serve::serve(listener, None, answer, over, || LAST, limits))
        });
        let answer = move |request: Request<Incoming>, peer: &Arc<Peer>| {
            proxy.answer(request, peer).map(clients::held)
        };
        let grace = times.clone();
        let stop = async move {
            stop.await;
            health.stop();
            tokio::time::sleep(times().0).await;
        };
        let unfinished = serve::serve(listener, tls, answer, stop, move || grace().1, limits).await;
        // Its streams of events would never end.
        page.close();
        drop(done);
        if let Some(pages) = pages {
            let _ = pages.await;
        }
        lines.flushed().await;
        if let Some(state) = state {
            state.save();
        }
        if let Some(history) = history {
            history.flushed(LAST).await;
        }
        #[cfg(feature = "otlp")]
        if let Some(otlp) = otlp {
            let stopped = tokio::task::spawn_blocking(move || otlp.stop());
            let _ = tokio::time::timeout(LAST, stopped).await;
        }
        unfinished
    }
}

/// The answers of the administrators' listener.
fn administrators(
    pages: &Pages,
    page: &Page,
    request: &Request<Incoming>,
) -> impl Future<Output = Response<PageBody>> + Send + use<> {
    if let Some(found) = pages.find(request.method(), request.uri().path()) {
        return Either::Left(ready(found.map(PageBody::whole)));
    }
    Either::Right(page.respond(request))
}

/// The port, or the socket that systemd has opened in its place: the `place`th of `LISTEN_FDS`.
async fn bind(addr: &str, place: usize) -> Result<TcpListener, String> {
    if let Some(listener) = handed::listener(place) {
        return listener
            .map_err(|error| format!("the socket handed over for {addr} cannot be used: {error}"));
    }
    TcpListener::bind(addr).await.map_err(|error| format!("cannot listen on {addr}: {error}"))
}

/// Reads the settings again at each SIGHUP, and says on stderr what came of it.
#[cfg(unix)]
async fn hangups(mut reload: Reload) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        // A stderr that is gone takes nobody's calls.
        let _ = match reload.again() {
            Ok(what) => writeln!(std::io::stderr(), "gateway: {what}"),
            Err(rule) => writeln!(std::io::stderr(), "gateway: everything stays as it was: {rule}"),
        };
    }
}

#[cfg(not(unix))]
async fn hangups(_: Reload) {}
