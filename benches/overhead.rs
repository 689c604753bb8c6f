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
use std::hint::black_box;
use std::time::Instant;

use allocation_counter::measure;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tower::Service;
use tower_gemini::Verdict;

#[path = "../tests/support/measured.rs"]
mod measured;

mod floors;
mod rows;
use floors::{Body, one};

const PASSES: usize = 201;
const CALLS: usize = 1_280;

fn main() {
    // What is pending may have a timer.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    let mut rows: Vec<Row> = Vec::new();
    rows::all(&mut rows);

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
        "\nclassifying over a serde_json visitor: {:.2} x (promised: at most 1.3)",
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
        "preflight of a good prompt of 2 KiB: {:.0} ns (promised: at most 3,000)",
        over_bare(row("preflight, a good"), row("bare service, a prompt"))
    );
    println!(
        "retry over the copy alone: {:.2} x (promised: at most 1.1)",
        over_bare(row("retry"), &rows[0]) / over_bare(row("a copy"), &rows[0])
    );
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

impl rows::Rows for Vec<Row> {
    fn of<S>(&mut self, name: &'static str, request: fn(usize) -> Request<Body>, service: impl FnOnce() -> S)
    where
        S: Service<Request<Body>> + Clone + 'static,
    {
        self.push(Row::call(name, request, service()));
    }
}

impl Row {
    /// A call of a service. Requests are made outside the timed part.
    fn call<S>(name: &'static str, request: fn(usize) -> Request<Body>, service: S) -> Self
    where
        S: Service<Request<Body>> + Clone + 'static,
    {
        let mut counted = service.clone();
        one(&mut counted, request(0));
        let prepared = request(0);
        let info = measure(|| one(&mut counted, prepared));
        let (mut service, mut next) = (service, 0);
        let run = move || {
            let batch: Vec<_> = (next..next + 64).map(request).collect();
            next += 64;
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
