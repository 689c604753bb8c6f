//! How a row is measured: passes that take turns, an allocator that counts, two threads.

use std::future::poll_fn;
use std::hint::black_box;
use std::time::Instant;

use allocation_counter::measure;
use http::{HeaderMap, Method, Request, Uri};
use tokio::runtime::Runtime;
use tower::Service;

use crate::floors::{Body, one};
use crate::measured::request;

const PASSES: usize = 201;
/// Of 64 calls each; a pass's figure is their median.
const BATCHES: usize = 20;
const BATCH: usize = 64;

const THREADED_PASSES: usize = 21;
const TASKS: usize = 64;
const CALLS_OF_A_TASK: usize = 1_024;

/// Gives the calls of one second.
type OnTwoThreads = Box<dyn FnMut(&Runtime) -> f64>;

/// One service's figures.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The heading that it stands under.
    pub(crate) group: &'static str,
    /// The row that `over` is taken from.
    pub(crate) base: &'static str,
    /// Allocations of one call, and their bytes.
    pub(crate) allocs: (u64, u64),
    /// Bytes of the call's future.
    pub(crate) future: usize,
    /// Nanoseconds of a call, one for each pass.
    times: Vec<f64>,
    /// Calls in a second, one for each pass on two threads; empty if the service cannot be cloned.
    rates: Vec<f64>,
    pass: Box<dyn FnMut() -> f64>,
    threaded: Option<OnTwoThreads>,
}

/// What a service is called with.
pub(crate) trait Asked: Sized + Send + 'static {
    /// A body of 2 KiB and eight headers.
    fn full() -> Self;
    /// No headers and an empty body, so that what callers share weighs most.
    fn light() -> Self;
    /// The same as this light one.
    fn again(&self) -> Self;
}

impl Asked for Request<Body> {
    fn full() -> Self {
        request()
    }
    fn light() -> Self {
        let uri = Uri::from_static("http://127.0.0.1/v1beta/models/gemini-9-flash:generateContent");
        let mut request = Self::new(Body::default());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        request
    }
    fn again(&self) -> Self {
        let mut request = Self::new(Body::default());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri().clone();
        request
    }
}

impl Asked for reqwest::Request {
    fn full() -> Self {
        let (parts, _) = request().into_parts();
        let body = reqwest::Body::from(vec![b'x'; 2048]);
        Request::from_parts(parts, body).try_into().expect("a valid request")
    }
    fn light() -> Self {
        let mut request = Self::full();
        *request.headers_mut() = HeaderMap::new();
        *request.body_mut() = Some(reqwest::Body::from(""));
        request
    }
    fn again(&self) -> Self {
        self.try_clone().expect("its body is in memory")
    }
}

impl Row {
    /// A service that one caller has to himself.
    pub(crate) fn alone<S>(group: &'static str, name: &'static str, service: S) -> Self
    where
        S: Service<Request<Body>> + 'static,
    {
        Self::timed(group, name, service)
    }

    fn timed<S, R>(group: &'static str, name: &'static str, mut service: S) -> Self
    where
        S: Service<R> + 'static,
        R: Asked,
    {
        // What is set up by the first calls, and queues that grow once, are no cost of a call.
        (0..1_000).for_each(|_| one(&mut service, R::full()));
        let prepared = R::full();
        let info = measure(|| one(&mut service, prepared));
        // Requests are made outside the timed part.
        let mut batch = move || {
            let batch: Vec<_> = (0..BATCH).map(|_| R::full()).collect();
            let start = Instant::now();
            for request in batch {
                one(&mut service, request);
            }
            start.elapsed().as_nanos() as f64 / BATCH as f64
        };
        Self {
            name,
            group,
            base: "bare service",
            allocs: (info.count_total, info.bytes_total),
            future: size_of::<S::Future>(),
            times: Vec::new(),
            rates: Vec::new(),
            pass: Box::new(move || median((0..BATCHES).map(|_| batch()).collect())),
            threaded: None,
        }
    }

    /// A service whose clones share what they limit: measured on two threads, too.
    pub(crate) fn new<S>(group: &'static str, name: &'static str, service: S) -> Self
    where
        S: Service<Request<Body>, Future: Send> + Clone + Send + 'static,
    {
        Self::shared(group, name, service)
    }

    /// The same of a service that is called with reqwest's requests, and what it is compared with.
    pub(crate) fn reqwest<S>(group: &'static str, name: &'static str, base: &'static str, service: S) -> Self
    where
        S: Service<reqwest::Request, Future: Send> + Clone + Send + 'static,
    {
        Self { base, ..Self::shared(group, name, service) }
    }

    fn shared<S, R>(group: &'static str, name: &'static str, service: S) -> Self
    where
        S: Service<R, Future: Send> + Clone + Send + 'static,
        R: Asked,
    {
        let shared = service.clone();
        let threaded = move |runtime: &Runtime| {
            let start = Instant::now();
            let tasks: Vec<_> = (0..TASKS).map(|_| runtime.spawn(calls::<S, R>(shared.clone()))).collect();
            runtime.block_on(async {
                for task in tasks {
                    task.await.expect("no row panics");
                }
            });
            (TASKS * CALLS_OF_A_TASK) as f64 / start.elapsed().as_secs_f64()
        };
        Self { threaded: Some(Box::new(threaded)), ..Self::timed(group, name, service) }
    }

    /// Reads bodies, and is compared with the bare service whose body is read.
    pub(crate) fn reading(self) -> Self {
        Self { base: "bare service, body read", ..self }
    }

    /// The median over passes of a call's nanoseconds.
    pub(crate) fn median(&self) -> f64 {
        median(self.times.clone())
    }

    /// The lowest pass.
    pub(crate) fn min(&self) -> f64 {
        self.times.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The median over passes of what a call takes over `base`: within one pass, so that both saw the same machine.
    pub(crate) fn over(&self, base: &Self) -> f64 {
        median(self.times.iter().zip(&base.times).map(|(time, base)| time - base).collect())
    }

    /// Millions of calls in a second on two threads: the median over passes, and the best.
    pub(crate) fn rates(&self) -> Option<(f64, f64)> {
        let best = self.rates.iter().copied().reduce(f64::max)?;
        Some((median(self.rates.clone()) / 1e6, best / 1e6))
    }
}

/// Lets the rows take turns, so that a drift of the machine hits them alike.
pub(crate) fn run(rows: &mut [Row], runtime: &Runtime) {
    for _ in 0..PASSES {
        for row in rows.iter_mut() {
            row.times.push((row.pass)());
        }
    }
    for _ in 0..THREADED_PASSES {
        for row in rows.iter_mut() {
            if let Some(threaded) = &mut row.threaded {
                row.rates.push(threaded(runtime));
            }
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A task's share.
async fn calls<S: Service<R>, R: Asked>(mut service: S) {
    let light = R::light();
    for nth in 0..CALLS_OF_A_TASK {
        let request = light.again();
        assert!(poll_fn(|cx| service.poll_ready(cx)).await.is_ok());
        drop(black_box(service.call(request).await));
        if nth % 128 == 127 {
            tokio::task::yield_now().await;
        }
    }
}
