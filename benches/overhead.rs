//! What the layers cost, beside the bare service, tower's own layer and a parser on the same bytes.
//!
//! `cargo bench --bench overhead` prints a table. Rows take turns in many short passes, so that a drift of the
//! machine hits them alike; a figure is the median over passes. Quote ratios: times differ between machines.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a bench reads the real clock"
)]

use std::fmt;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use allocation_counter::measure;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tower::{Layer, Service};
use tower_gemini::circuit_breaker::CircuitBreakerLayer;
use tower_gemini::classify::ClassifyLayer;
use tower_gemini::concurrency::AdaptiveConcurrencyLayer;
use tower_gemini::rate_limit::{Limits, RateLimitLayer};
use tower_gemini::retry::{RetryLayer, RetryPolicy};
use tower_gemini::stack::GeminiStack;
use tower_gemini::timeout::{DeadlineLayer, TimeoutLayer};
use tower_gemini::{BoxError, Verdict};

#[path = "../tests/support/measured.rs"]
mod measured;
use measured::request;

mod floors;
use floors::{BreakerFloor, Floor};

type Body = Full<Bytes>;

const PASSES: usize = 201;
const CALLS: usize = 1_280;

fn main() {
    let mut rows: Vec<Row> = Vec::new();
    let policy = || RetryPolicy::builder();
    rows.push(Row::call("bare service", Bare));
    rows.push(Row::call("a copy of each request", Copying(Bare)));
    rows.push(Row::call("classify, 2xx", ClassifyLayer::new().layer(Bare)));
    rows.push(Row::call("classify, 2xx, watching", ClassifyLayer::new().watch().layer(Bare)));
    rows.push(Row::call("retry", RetryLayer::new(policy().build().unwrap()).layer(Bare)));
    rows.push(Row::call(
        "retry, one attempt",
        RetryLayer::new(policy().attempts(1).build().unwrap()).layer(Bare),
    ));
    rows.push(Row::call(
        "retry, body too large",
        RetryLayer::new(policy().max_body_bytes(100).build().unwrap()).layer(Bare),
    ));
    rows.push(Row::call(
        "retry + classify",
        RetryLayer::new(policy().build().unwrap()).layer(ClassifyLayer::new().layer(Bare)),
    ));
    rows.push(Row::call("adaptive concurrency, no limit", AdaptiveConcurrencyLayer::new().layer(Bare)));
    rows.push(Row::call("adaptive concurrency, limited", limited().layer(Bare)));
    rows.push(Row::call(
        "tower's Concurrency limit",
        tower::limit::ConcurrencyLimitLayer::new(64).layer(Bare),
    ));
    rows.push(Row::call(
        "tower's Retry, counting policy",
        tower::retry::RetryLayer::new(Counting(4)).layer(Bare),
    ));

    let limits =
        || Limits::new().requests_per_minute(1_000_000_000).input_tokens_per_minute(1_000_000_000_000);
    let watched = RateLimitLayer::new(limits()).unwrap().layer(ClassifyLayer::new().watch().layer(Bare));
    let limited = |limits| RateLimitLayer::new(limits).unwrap().layer(Bare);
    rows.push(Row::call("one exact clock read", Clocked(Bare)));
    rows.push(Row::call("floor: requests and tokens, no keys", Floor::new(Bare)));
    rows.push(Row::call("rate limit, requests", limited(Limits::new().requests_per_minute(1_000_000_000))));
    rows.push(Row::call("rate limit, requests and tokens", limited(limits())));
    rows.push(Row::call(
        "rate limit, requests, tokens and days",
        limited(limits().requests_per_day(1_000_000_000)),
    ));
    rows.push(Row::call("rate limit, cloned per call", Cloning(limited(limits()))));
    rows.push(Row::call("rate limit + classify, body read", Reading(watched)));

    rows.push(Row::call("bare service, body read", Reading(Bare)));
    rows.push(Row::call("floor: breaker, one key, head only", BreakerFloor::new(Bare)));
    rows.push(Row::call("floor: breaker, open", BreakerFloor::open(Bare)));
    rows.push(Row::call("breaker, closed, body read", Reading(CircuitBreakerLayer::default().layer(Bare))));
    rows.push(Row::call("breaker, closed", CircuitBreakerLayer::default().layer(Bare)));
    let busy = CircuitBreakerLayer::default().layer(Bare);
    (0..50_000).for_each(|_| one(&mut Reading(busy.clone()), request()));
    rows.push(Row::call("breaker, 50,000 calls before", Reading(busy)));
    rows.push(Row::call("breaker, cloned per call", Cloning(CircuitBreakerLayer::default().layer(Bare))));
    let shut = CircuitBreakerLayer::default();
    shut.handle().force_open(&tower_gemini::Target::of(&request()).key());
    rows.push(Row::call("breaker, open", shut.layer(Bare)));
    rows.push(Row::call(
        "retry + breaker",
        RetryLayer::default().layer(CircuitBreakerLayer::default().layer(Bare)),
    ));

    let limited_stack = || {
        RateLimitLayer::new(
            Limits::new().requests_per_minute(1_000_000_000).input_tokens_per_minute(1_000_000_000_000),
        )
        .unwrap()
    };
    rows.push(Row::call("timeout", TimeoutLayer::new().layer(Bare)));
    rows.push(Row::call(
        "timeout, no header",
        TimeoutLayer::builder().without_server_timeout().build().unwrap().layer(Bare),
    ));
    rows.push(Row::call("deadline", DeadlineLayer::default().layer(Bare)));
    rows.push(Row::call(
        "retry + limit + breaker",
        RetryLayer::default().layer(limited_stack().layer(CircuitBreakerLayer::default().layer(Bare))),
    ));
    rows.push(Row::call("the whole stack", GeminiStack::new().rate_limit(limited_stack()).layer(Bare)));
    rows.push(Row::call(
        "the whole stack, body read",
        Reading(GeminiStack::new().rate_limit(limited_stack()).layer(Bare)),
    ));

    let body = Bytes::from(quota_body());
    let headers = HeaderMap::new();
    let bytes = body.clone();
    rows.push(Row::of("serde_json visitor, 1.3 KiB 429", 64, move || {
        let bytes = bytes.clone();
        Box::new(move || {
            black_box(visit(&bytes));
        })
    }));
    let bytes = body.clone();
    rows.push(Row::of("serde_json Value, 1.3 KiB 429", 64, move || {
        let bytes = bytes.clone();
        Box::new(move || drop(black_box(serde_json::from_slice::<serde_json::Value>(&bytes))))
    }));
    rows.push(Row::of("Verdict::from_parts, 1.3 KiB 429", 64, move || {
        let (body, headers) = (body.clone(), headers.clone());
        Box::new(move || {
            drop(black_box(Verdict::from_parts(StatusCode::TOO_MANY_REQUESTS, &headers, body.clone())));
        })
    }));

    for _ in 0..PASSES {
        for row in &mut rows {
            row.pass();
        }
    }
    println!("{:<36} {:>9} {:>10} {:>7} {:>8}", "row", "ns/call", "over bare", "allocs", "bytes");
    for row in &mut rows {
        row.times.sort_by(f64::total_cmp);
    }
    for row in &rows {
        let over = if row.is_call { format!("{:.0}", over_bare(row, &rows[0])) } else { "-".into() };
        println!(
            "{:<36} {:>9.0} {:>10} {:>7} {:>8}",
            row.name,
            row.times_median(),
            over,
            row.allocs.0,
            row.allocs.1
        );
    }
    let row = |name: &str| {
        let exact = rows.iter().find(|row| row.name == name);
        exact.or_else(|| rows.iter().find(|row| row.name.starts_with(name))).expect("a row of that name")
    };
    println!(
        "\nclassifying over a serde_json visitor: {:.2} x (promised: at most 1.5)",
        row("Verdict::from_parts").times_median() / row("serde_json visitor").times_median()
    );
    println!(
        "rate limit (three dimensions) over the hand-written floor of two: {:.2} x (promised: at most 110 / 82 = 1.34)",
        over_bare(row("rate limit, requests, tokens"), &rows[0]) / over_bare(row("floor:"), &rows[0])
    );
    println!(
        "breaker, closed, over the hand-written floor: {:.2} x; open: {:.2} x",
        over_bare(row("breaker, closed"), &rows[0]) / over_bare(row("floor: breaker, one"), &rows[0]),
        over_bare(row("breaker, open"), &rows[0]) / over_bare(row("floor: breaker, open"), &rows[0])
    );
    println!(
        "retry over the copy alone: {:.2} x (promised: at most 1.1)",
        over_bare(row("retry"), &rows[0]) / over_bare(row("a copy"), &rows[0])
    );
}

/// The bare service, after a look at the clock.
#[derive(Clone)]
struct Clocked(Bare);

impl Service<Request<Body>> for Clocked {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = <Bare as Service<Request<Body>>>::Future;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        black_box(tokio::time::Instant::now());
        self.0.call(request)
    }
}

/// With room under a limit, which takes the lock and the clock.
fn limited() -> AdaptiveConcurrencyLayer {
    let layer = AdaptiveConcurrencyLayer::builder().floor(64.0).build().unwrap();
    let late = tower::service_fn(|_: Request<Body>| {
        ready(Ok::<_, BoxError>(Response::builder().status(504).body(Body::default()).unwrap()))
    });
    let mut late = layer.layer(late);
    one(&mut late, request());
    assert!(layer.handle().all()[0].1.limit().is_some());
    layer
}

/// The median over passes of a row's time over bare: of one pass, so that both saw the same machine.
fn over_bare(row: &Row, bare: &Row) -> f64 {
    let mut over: Vec<f64> = row.in_order.iter().zip(&bare.in_order).map(|(row, bare)| row - bare).collect();
    over.sort_by(f64::total_cmp);
    over[over.len() / 2]
}

struct Row {
    name: &'static str,
    is_call: bool,
    allocs: (u64, u64),
    times: Vec<f64>,
    in_order: Vec<f64>,
    run: Box<dyn FnMut() -> f64>,
}

impl Row {
    /// A call of a service. Requests are made outside the timed part.
    fn call<S>(name: &'static str, service: S) -> Self
    where
        S: Service<Request<Body>> + Clone + 'static,
    {
        let mut counted = service.clone();
        one(&mut counted, request());
        let prepared = request();
        let info = measure(|| one(&mut counted, prepared));
        let mut service = service;
        let run = move || {
            let batch: Vec<_> = (0..64).map(|_| request()).collect();
            let start = Instant::now();
            for request in batch {
                one(&mut service, request);
            }
            start.elapsed().as_nanos() as f64 / 64.0
        };
        let allocs = (info.count_total, info.bytes_total);
        Self { name, is_call: true, allocs, times: Vec::new(), in_order: Vec::new(), run: Box::new(run) }
    }

    /// Anything else; `make` gives the piece of work.
    fn of(name: &'static str, batch: usize, make: impl Fn() -> Box<dyn FnMut()>) -> Self {
        let mut work = make();
        work();
        let info = measure(&mut work);
        let run = move || {
            let start = Instant::now();
            (0..batch).for_each(|_| work());
            start.elapsed().as_nanos() as f64 / batch as f64
        };
        let allocs = (info.count_total, info.bytes_total);
        Self { name, is_call: false, allocs, times: Vec::new(), in_order: Vec::new(), run: Box::new(run) }
    }

    fn pass(&mut self) {
        let mut times: Vec<f64> = (0..CALLS / 64).map(|_| (self.run)()).collect();
        times.sort_by(f64::total_cmp);
        self.times.push(times[times.len() / 2]);
        self.in_order.push(times[times.len() / 2]);
    }

    fn times_median(&self) -> f64 {
        self.times[self.times.len() / 2]
    }
}

fn one<S: Service<Request<Body>>>(service: &mut S, request: Request<Body>) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut call = std::pin::pin!(service.call(request));
    match call.as_mut().poll(&mut cx) {
        Poll::Ready(result) => drop(black_box(result)),
        Poll::Pending => unreachable!("the bare service is ready at once"),
    }
}

/// Drops the request and answers 200 at once.
#[derive(Clone)]
struct Bare;

impl Service<Request<Body>> for Bare {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Ready<Result<Response<Body>, BoxError>>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        drop(black_box(request));
        ready(Ok(Response::new(Body::new(Bytes::from_static(b"{}")))))
    }
}

/// Copies the request, calls, and drops the copy: what no retry can do without. More than a `Request::clone`,
/// since dropping a request that was copied costs more, too.
#[derive(Clone)]
struct Copying<S>(S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Copying<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let copy = black_box(request.clone());
        let future = self.0.call(request);
        drop(copy);
        future
    }
}

/// Reads the answer to its end, which is when a breaker counts it.
#[derive(Clone)]
struct Reading<S>(S);

impl<S, B> Service<Request<Body>> for Reading<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    B: http_body::Body,
{
    type Response = ();
    type Error = S::Error;
    type Future = Ready<Result<(), S::Error>>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut cx = Context::from_waker(Waker::noop());
        let mut call = std::pin::pin!(self.0.call(request));
        if let Poll::Ready(Ok(response)) = call.as_mut().poll(&mut cx) {
            let mut body = std::pin::pin!(response.into_body());
            while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
                drop(black_box(frame));
            }
        }
        ready(Ok(()))
    }
}

/// Calls a clone each time, as `oneshot` on a shared service does.
#[derive(Clone)]
struct Cloning<S>(S);

impl<S: Service<Request<Body>> + Clone> Service<Request<Body>> for Cloning<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut clone = self.0.clone();
        assert!(clone.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        clone.call(request)
    }
}

/// The least policy that tower's Retry can have.
#[derive(Clone)]
struct Counting(u32);

impl tower::retry::Policy<Request<Body>, Response<Body>, BoxError> for Counting {
    type Future = Ready<()>;
    fn retry(
        &mut self,
        _: &mut Request<Body>,
        result: &mut Result<Response<Body>, BoxError>,
    ) -> Option<Self::Future> {
        let failed = result.as_ref().map_or(true, |response| response.status().is_server_error());
        (failed && self.0 > 0).then(|| {
            self.0 -= 1;
            ready(())
        })
    }
    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}

/// A 429 in Google's third form, pretty-printed as Google does it.
fn quota_body() -> String {
    r#"{
  "error": {
    "code": 429,
    "message": "You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. To monitor your current usage, head to: https://ai.dev/rate-limit. \n* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 7, model: gemini-9-flash\nPlease retry in 31.583204117s.",
    "status": "RESOURCE_EXHAUSTED",
    "details": [
      {
        "@type": "type.googleapis.com/google.rpc.Help",
        "links": [
          {
            "description": "Learn more about Gemini API quotas",
            "url": "https://ai.google.dev/gemini-api/docs/rate-limits"
          }
        ]
      },
      {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [
          {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
            "quotaDimensions": {
              "location": "global",
              "model": "gemini-9-flash"
            },
            "quotaValue": "7"
          }
        ]
      },
      {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": "31s"
      }
    ]
  }
}
"#
    .into()
}

// ===== the yardstick: a serde_json visitor that folds the same body into the least verdict =====

#[derive(Debug, Default)]
struct Least {
    code: u64,
    exhausted: bool,
    per_day: bool,
    per_minute: bool,
    zero: bool,
    retry_delay: Option<u64>,
}

fn visit(bytes: &[u8]) -> Least {
    let mut least = Least::default();
    let mut de = serde_json::Deserializer::from_slice(bytes);
    (&mut de).deserialize_any(Fold(&mut least, 0)).unwrap();
    least
}

/// Level 0 is the envelope, 1 the error, 2 the details and their violations.
struct Fold<'a>(&'a mut Least, u8);

impl<'de> serde::de::DeserializeSeed<'de> for Fold<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<(), D::Error> {
        de.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fold<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Fold(&mut *self.0, self.1))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(least, level) = self;
        while let Some(key) = map.next_key::<&str>()? {
            match (level, key) {
                (0, "error") => map.next_value_seed(Fold(&mut *least, 1))?,
                (1, "code") => least.code = map.next_value()?,
                (1, "status") => least.exhausted = map.next_value::<&str>()? == "RESOURCE_EXHAUSTED",
                (1, "details") | (2, "violations") => map.next_value_seed(Fold(&mut *least, 2))?,
                (2, "quotaId") => {
                    let id = map.next_value::<&str>()?;
                    least.per_day |= id.contains("PerDay");
                    least.per_minute |= id.contains("PerMinute");
                }
                (2, "quotaValue") => least.zero |= map.next_value::<&str>()? == "0",
                (2, "retryDelay") => {
                    least.retry_delay = map.next_value::<&str>()?.trim_end_matches('s').parse().ok();
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}
