//! What the stateful layers do, written by hand with nothing that could be left out: what they cost at the least.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::Body as _;
use tokio::time::Instant;
use tower::Service;
use tower_gemini::BoxError;

mod bottom;
#[allow(unused_imports, reason = "each bench has its own")]
pub(crate) use bottom::{Answering, Bare, Body, Counting, Reading, one};

/// What a limit of requests and tokens costs at the least: an exact clock, one lock, a log of the last minute. It
/// knows no keys, settles nothing, and cannot wait.
#[derive(Clone)]
pub(crate) struct Floor<S = Bare>(S, Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    charges: VecDeque<(Instant, u32)>,
    tokens: u64,
}

impl<S> Floor<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self(inner, Arc::default())
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Floor<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let tokens = request.body().size_hint().exact().unwrap_or(0) / 4;
        let now = Instant::now();
        let mut log = self.1.lock().unwrap();
        while log.charges.front().is_some_and(|charge| now - charge.0 >= std::time::Duration::from_secs(60)) {
            let gone = log.charges.pop_front().unwrap();
            log.tokens -= u64::from(gone.1);
        }
        assert!(log.charges.len() < 1_000_000_000 && log.tokens + tokens < 1_000_000_000_000);
        // Kept short, so that it does not pay for memory that the layer does not touch.
        if log.charges.len() > 8_192 {
            log.charges.clear();
            log.tokens = 0;
        }
        log.charges.push_back((now, tokens as u32));
        log.tokens += tokens;
        drop(log);
        self.0.call(request)
    }
}

/// What a breaker with a time window costs at the least: one look at a word before the call; after it the lock, the
/// exact clock and a bucket. It knows one key, the head only, and no way out of its state.
#[derive(Clone)]
pub(crate) struct BreakerFloor<S = Bare>(S, Arc<Circuit>);

pub(crate) struct Circuit {
    epoch: Instant,
    /// Nanoseconds; zero is closed.
    open_until: AtomicU64,
    buckets: Mutex<[(u64, u32, u32); 10]>,
}

/// What is told to those who are turned away.
#[derive(Debug)]
pub(crate) struct Open(Instant);

impl std::fmt::Display for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "open until {:?}", self.0)
    }
}

impl std::error::Error for Open {}

impl<S> BreakerFloor<S> {
    pub(crate) fn new(inner: S) -> Self {
        let circuit =
            Circuit { epoch: Instant::now(), open_until: AtomicU64::new(0), buckets: Mutex::default() };
        Self(inner, Arc::new(circuit))
    }

    pub(crate) fn open(inner: S) -> Self {
        let floor = Self::new(inner);
        floor.1.open_until.store(u64::MAX / 4, Ordering::Relaxed);
        floor
    }
}

impl Circuit {
    fn count(&self, failed: bool) {
        let second = self.epoch.elapsed().as_secs();
        let mut buckets = self.buckets.lock().unwrap();
        let bucket = &mut buckets[(second % 10) as usize];
        if bucket.0 != second {
            *bucket = (second, 0, 0);
        }
        bucket.1 += 1;
        bucket.2 += u32::from(failed);
        // The row that opens it is never reached here.
        assert!(bucket.2 < 1_000_000_000);
    }
}

pub(crate) enum Counted<F> {
    Called(F, Arc<Circuit>),
    Refused(Option<Box<Open>>),
}

impl<F: Future<Output = Result<Response<Body>, BoxError>> + Unpin> Future for Counted<F> {
    type Output = F::Output;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Called(future, circuit) => {
                let result = ready!(Pin::new(future).poll(cx));
                circuit.count(result.as_ref().map_or(true, |response| response.status().is_server_error()));
                Poll::Ready(result)
            }
            Self::Refused(open) => Poll::Ready(Err(open.take().unwrap())),
        }
    }
}

impl<S> Service<Request<Body>> for BreakerFloor<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Unpin>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Counted<S::Future>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let until = self.1.open_until.load(Ordering::Relaxed);
        if until > 0 {
            let until = self.1.epoch + std::time::Duration::from_nanos(until);
            if Instant::now() < until {
                return Counted::Refused(Some(Box::new(Open(until))));
            }
        }
        Counted::Called(self.0.call(request), Arc::clone(&self.1))
    }
}
